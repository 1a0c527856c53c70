# SPDX-License-Identifier: Apache-2.0
"""What the rules of health look at: facts, host, kernel's log, what was declared, what was before. Pure.

A reading is a value, or the state its absence means: what NVML calls not supported (error 3) does not apply to the
hardware, and what an older driver has no function for (error 13) not to that driver; everything else that could not be
read is not measured. In a container kernel, clock, disks and devices are those of its host, and do not apply.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import gpu_modes
from .catalogue_specs import SPECS
from .health_limits import merged
from .health_record import NOT_APPLICABLE, NOT_MEASURED, OK, Check, not_applicable, not_measured
from .record import dig
from .xid_rules import judge_log

_NOT_SUPPORTED, _NOT_OFFERED = "(NVML 3)", "(NVML 13)"
#: parts of a device that newer drivers brought: one that has no such function has nothing to tell
_NEWER = ("health.", "fabric.")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """A value (``state`` is ok), or why there is none."""

    value: Any = None
    state: str = OK
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.state == OK

    def without(self, check_id: str, subject: str) -> Check:
        """The check that says that there was nothing to judge."""
        make = not_applicable if self.state == NOT_APPLICABLE else not_measured
        return make(check_id, subject, self.reason)


@dataclass(frozen=True)
class Growth:
    """How much a counter grew, over how many seconds (None: not known), and since when, in words.

    ``recent`` says that it was compared with the last check; otherwise it counts from the start of the node.
    """

    amount: int
    seconds: float | None
    recent: bool

    @property
    def since(self) -> str:
        return "since the last check" if self.recent else "since the node started"

    @property
    def fraction(self) -> float | None:
        """Part of the time, where the counter counts nanoseconds."""
        return self.amount / 1e9 / self.seconds if self.seconds else None


def read(record: Record, path: str, missing: Record) -> Reading:
    """Return the value at a dotted path of a record, or the reason from its ``missing``."""
    value = dig(record, path)
    if value is not None:
        return Reading(value)
    reason = str(_reason(missing, path) or f"{path} was not read")
    absent = reason.endswith(_NOT_SUPPORTED) or (path.startswith(_NEWER) and reason.endswith(_NOT_OFFERED))
    return Reading(None, NOT_APPLICABLE if absent else NOT_MEASURED, reason)


def _reason(missing: Record, path: str) -> Any:
    """The reason of a path, else that of the nearest part above it."""
    while path:
        if path in missing:
            return missing[path]
        path = path.rpartition(".")[0]
    return None


def subject(device: Record) -> str:
    """``gpu3``, or by its address where it has no index."""
    index = device.get("index")
    return f"gpu{index}" if index is not None else f"gpu {dig(device, 'pci.address') or 'unknown'}"


@dataclass(frozen=True)
class View:
    """One node.

    ``gpu`` is the fact with the part health, ``host`` of health_host_read, ``kernel`` of health_probe, ``modes`` the
    declaration of gpu_modes, ``baseline`` of health.next_baseline, ``now`` the time of the check in ISO form.
    """

    gpu: Record
    host: Record = field(default_factory=dict)
    kernel: Record = field(default_factory=dict)
    expected: Record = field(default_factory=dict)
    modes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    baseline: Record = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=lambda: merged(None))
    dcgm: Record = field(default_factory=dict)
    extra_gpus: tuple[Record, ...] = ()
    now: str | None = None
    boot_id: str | None = None

    @property
    def devices(self) -> list[Record]:
        return [device for device in self.gpu.get("devices") or [] if isinstance(device, Mapping)]

    @property
    def answering(self) -> list[Record]:
        """GPUs that NVML shows and that answer."""
        return [device for device in self.devices if device.get("state") == OK]

    def spec(self, device: Record) -> Record:
        """The catalogue's row of a device, with the site's own; empty for an unknown model."""
        name = device.get("catalogue_id")
        own = next((row for row in self.extra_gpus if row.get("id") == name), {}) if name else {}
        return {**SPECS.get(str(name), {}), **own}

    def of(self, device: Record, path: str) -> Reading:
        """A reading of a device."""
        return read(device, path, device.get("missing") or {})

    def why(self, path: str, otherwise: str) -> str:
        """Why the fact lacks a value: its own reason, else these words."""
        return str((self.gpu.get("missing") or {}).get(path) or otherwise)

    def of_host(self, path: str) -> Reading:
        return read(self.host, path, self.host.get("missing") or {})

    @property
    def of_its_host(self) -> str | None:
        """Why kernel and devices are not this system's, None where it has a kernel of its own."""
        kind = self.host.get("container")
        return f"it belongs to the host of this {kind} container" if kind else None

    def declared(self, name: str) -> Any:
        return self.expected.get(name)

    def wants(self, device: Record, mode: str) -> Any:
        """The mode that is declared for a GPU; None where none is, or the default."""
        who = {"uuid": device.get("uuid"), "index": device.get("index")}
        value = gpu_modes.wants_of(who, self.modes).get(mode)
        return None if value == gpu_modes.DEFAULT else value

    @cached_property
    def judgements(self) -> list[dict[str, Any]]:
        """Every event of the kernel's log with its judgement, oldest first; checks and report both ask for them."""
        architectures = {
            str(dig(device, "pci.address")): str(device["architecture"])
            for device in self.devices
            if device.get("architecture")
        }
        events = self.kernel.get("events") or []
        return judge_log(events, self.boot_id, self.kernel.get("boots") or (), architectures)

    # ---- what was before ----

    def before(self, device: Record) -> Record:
        """What the last check knew of this very card; empty for one that it did not know."""
        known = (self.baseline.get("gpus") or {}).get(str(device.get("uuid")))
        return known if isinstance(known, Mapping) else {}

    def seconds_since_last(self) -> float | None:
        """Seconds since the last check, None without one or where the clock went back."""
        then, now = _moment(self.baseline.get("collected_at")), _moment(self.now)
        if then is None or now is None or now <= then:
            return None
        return (now - then).total_seconds()

    def growth(self, value: int, earlier: Any) -> Growth:
        """How a counter grew since the last check, where that was in this boot; else since the node started."""
        seconds = self.seconds_since_last()
        same_boot = self.boot_id is not None and self.baseline.get("boot_id") == self.boot_id
        if same_boot and seconds is not None and isinstance(earlier, int) and 0 <= earlier <= value:
            return Growth(value - earlier, seconds, True)
        uptime = self.host.get("uptime_s")
        return Growth(value, float(uptime) if uptime else None, False)


def _moment(text: Any) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def listed(items: Iterable[Any], most: int = 6) -> str:
    """Name some things, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
