# SPDX-License-Identifier: Apache-2.0
"""NVML through pynvml where it is installed, else through ctypes; the only file that touches pynvml.

Errors are told apart by their number, never by their text, which differs between bindings. Reading needs no privilege
and nothing here, or in the files that use it, calls a function that changes a device.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from . import nvml_ctypes
from .nvml_device import read_device
from .nvml_errors import FUNCTION_NOT_FOUND, BindingError, NvmlFailure, reason_for
from .nvml_health import read_health
from .nvml_pairs import read_pairs
from .nvml_reader import DeviceReader
from .record import Record
from .sysfs import mapped_library

#: Present only in the simulated library of the tests: the one thing by which a simulation is recognised.
SIMULATION_MARKER = "simnvmlVersion"


class Nvml:
    """One binding with uniform errors and with older names of renamed functions."""

    def __init__(self, binding: Any, name: str) -> None:
        self.binding = binding
        self.name = name

    def call(self, names: str | tuple[str, ...], *args: Any) -> Any:
        """Call the first of ``names`` that binding and driver both know, or raise NvmlFailure with its number."""
        failure = NvmlFailure(FUNCTION_NOT_FOUND)
        for name in (names,) if isinstance(names, str) else names:
            function = getattr(self.binding, name, None)
            if function is None:
                continue
            try:
                return function(*args)
            except Exception as error:
                failure = self._failure(error)
            if failure.value != FUNCTION_NOT_FOUND:
                break
        raise failure

    def _failure(self, error: Exception) -> NvmlFailure:
        value = getattr(error, "value", None)
        if isinstance(value, int):
            return NvmlFailure(value)
        if type(error).__name__ == "NVMLLibraryMismatchError":  # pynvml's word for it in the process lists
            return NvmlFailure(FUNCTION_NOT_FOUND)
        return BindingError(f"{self.name} failed with {type(error).__name__}: {error}")


def choose_binding(wanted: str = "auto") -> tuple[Nvml, str | None]:
    """Return the binding, and why pynvml was passed over although it is installed (None when it was not)."""
    note = None
    if wanted != "ctypes":
        try:
            return Nvml(importlib.import_module("pynvml"), "nvml-pynvml"), None
        except ImportError:
            pass
        except Exception as error:  # a broken installation is no reason to know nothing about the hardware
            note = f"pynvml is installed but cannot be imported ({type(error).__name__}: {error})"
    return Nvml(nvml_ctypes, "nvml-ctypes"), note


def find_library() -> dict[str, Any]:
    """Load libnvidia-ml.so.1 without calling it: is it there, where, and is it a simulation."""
    reasons = []
    for name in (nvml_ctypes.LIBRARY, nvml_ctypes.WSL_LIBRARY):
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
            continue
        path = mapped_library("libnvidia-ml.so")
        return {"found": True, "path": path, "simulated": hasattr(library, SIMULATION_MARKER), "reason": None}
    return {"found": False, "path": None, "simulated": False, "reason": reasons[0]}


def read_nvml(sysroot: str = "/", binding: str = "auto", health: bool = False) -> dict[str, Any]:
    """Read everything NVML tells about this node, as plain data. Runs in a child process: any call may hang.

    With ``health`` each device has also what only a check of its health needs: hundreds of further calls per node.
    """
    nvml, note = choose_binding(binding)
    # pynvml asks the loader by name only; once loaded, also the library of WSL2 outside its path is found by that name
    find_library()
    record = Record()
    result: dict[str, Any] = {
        "binding": nvml.name,
        "binding_note": note,
        "init_error": None,
        "devices": [],
        "pairs": [],
    }
    failure = _initialise(nvml)
    # answered without a successful init too: this is how the version of a library that does not fit is known
    _system(nvml, record, "nvml_version", "nvmlSystemGetNVMLVersion")
    if failure is not None:
        result.update(init_error=failure.value, init_reason=str(failure), system=record.result())
        return result
    _system(nvml, record, "driver_version", "nvmlSystemGetDriverVersion")
    _system(nvml, record, "cuda_version", "nvmlSystemGetCudaDriverVersion")
    _system(nvml, record, "count", "nvmlDeviceGetCount")
    result["system"] = record.result()
    readers = [DeviceReader(nvml, index, sysroot) for index in range(record.get("count") or 0)]
    for reader in readers:
        read_device(reader)
        if health:
            read_health(reader)
    result["pairs"] = read_pairs(nvml, readers)
    result["devices"] = [reader.result() for reader in readers]
    return result


def _initialise(nvml: Nvml) -> NvmlFailure | None:
    try:
        nvml.call("nvmlInit")
    except NvmlFailure as failure:
        return failure
    return None


def _system(nvml: Nvml, record: Record, path: str, function: str) -> None:
    try:
        value = nvml.call(function)
    except NvmlFailure as failure:
        record.miss(path, str(failure))
        return
    record.put(path, value.decode("utf-8", "replace") if isinstance(value, bytes) else value, reason_for(None))
