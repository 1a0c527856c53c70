# SPDX-License-Identifier: Apache-2.0
"""Ask one device for values: each guarded by itself, each with the reason why it is missing.

Once a device answers that it is lost or needs a reset, nothing more is asked of it: further calls cannot succeed
and can be slow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from .nvml_errors import (
    GPU_IS_LOST,
    NO_PERMISSION,
    RESET_REQUIRED,
    NvmlFailure,
    UnreadableError,
    reason_for,
)
from .nvml_names import NOT_AVAILABLE_UINT
from .record import Record

#: errors after which a device answers nothing more, with the state that follows from each
BROKEN_STATES = {GPU_IS_LOST: "lost", RESET_REQUIRED: "reset_required"}


def plain(value: int) -> int:
    """A number as it is, unless it is the number that stands for "not available"."""
    if value == NOT_AVAILABLE_UINT:
        raise UnreadableError("the driver marks the value as not available")
    return int(value)


class DeviceReader:
    """Asks the device with one NVML index and keeps the answers in a record."""

    def __init__(self, nvml: Any, index: int, sysroot: str = "/") -> None:
        self.nvml = nvml
        self.index = index
        self.sysroot = sysroot
        self.record = Record()
        self.state = "ok"
        self.broken: NvmlFailure | None = None
        self.handle: Any = None

    def open(self) -> None:
        """Get the handle; a device without one repeats that error for every value."""
        try:
            self.handle = self.nvml.call("nvmlDeviceGetHandleByIndex", self.index)
        except NvmlFailure as failure:
            self.broken = failure
            self.state = {**BROKEN_STATES, NO_PERMISSION: "no_permission"}.get(failure.value, "error")

    def ask(self, function: str | tuple[str, ...], *args: Any) -> Any:
        """Call a function of the device, or repeat the error that made the device unusable."""
        if self.broken is not None:
            raise self.broken
        try:
            return self.nvml.call(function, self.handle, *args)
        except NvmlFailure as failure:
            if failure.value in BROKEN_STATES:
                self.broken = failure
                self.state = BROKEN_STATES[failure.value]
            raise

    def check(self) -> None:
        """Ask one cheap question, to learn whether the device still answers."""
        with contextlib.suppress(NvmlFailure):
            self.ask("nvmlDeviceGetTemperature", 0)

    def result(self) -> dict[str, Any]:
        """The record, with the state the device was last seen in."""
        self.record.put("state", self.state)
        self.record.put("error_code", self.broken.value if self.broken else 0)
        return self.record.result()

    def get(self, path: str, function: str | tuple[str, ...], *args: Any, convert: Callable[[Any], Any] = plain) -> Any:
        """Read one value into the record and return it."""
        return self.get_many((path,), function, *args, convert=lambda value: (convert(value),))[0]

    def get_many(
        self,
        paths: tuple[str, ...],
        function: str | tuple[str, ...],
        *args: Any,
        convert: Callable[[Any], tuple[Any, ...]] = tuple,
    ) -> tuple[Any, ...]:
        """Read several values with one call."""
        try:
            values = convert(self.ask(function, *args))
        except (NvmlFailure, UnreadableError) as failure:
            reason = str(failure)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # an answer in a form no known binding gives: one value less, never the whole probe
            reason = f"the answer of {self.nvml.name} cannot be read ({type(error).__name__}: {error})"
        else:
            return self._keep(paths, values)
        for path in paths:
            self.record.miss(path, reason)
        return (None,) * len(paths)

    def _keep(self, paths: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
        for path, value in zip(paths, values):
            self.record.put(path, value, reason_for(None))
        return values
