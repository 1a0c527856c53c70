# SPDX-License-Identifier: Apache-2.0
"""Watch a GPU's clocks, power and event reasons while something runs on it.

A number without its clocks proves nothing: a throttled GPU is slow for a reason that is not the GPU. Readings come from
a function that is handed in, so that this file knows neither NVML nor torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from . import measure

#: Ten readings a second: short thermal events are seen, and the reading itself costs nothing.
INTERVAL_S = 0.1
_SERIES = ("sm_mhz", "memory_mhz", "power_w", "temperature_c", "memory_used_bytes")

Reading = Mapping[str, Any]


class Recorder:
    """The readings of one measurement."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.started = time.monotonic()
        self.elapsed_s = 0.0
        self.missing: str | None = None

    def result(self) -> dict[str, Any]:
        """Return ``clocks``, ``throttle`` and the reasons for what is missing of them."""
        if not self.readings:
            reason = self.missing or "no reading was taken"
            return {"clocks": None, "throttle": None, "missing": {"clocks": reason, "throttle": reason}}
        first, last = self.readings[0], self.readings[-1]
        clocks: dict[str, Any] = {key: measure.series([r.get(key) for r in self.readings]) for key in _SERIES}
        clocks.update(before=_instant(first), after=_instant(last), readings=len(self.readings))
        throttle = self._throttle(first, last)
        missing = {f"clocks.{key}": "the driver gives no reading" for key in _SERIES if clocks[key] is None}
        if throttle is None:
            missing["throttle"] = self.missing or "the driver gives neither event counters nor event reasons"
        return {"clocks": clocks, "throttle": throttle, "missing": missing}

    def series(self, interval_s: float) -> list[dict[str, Any]]:
        """Return the readings about every ``interval_s`` seconds, each with its time ``t`` since the start."""
        kept: list[dict[str, Any]] = []
        for reading in self.readings:
            if not kept or reading["t"] - kept[-1]["t"] >= interval_s:
                kept.append({"t": round(reading["t"], 2), **{key: reading.get(key) for key in _SERIES}})
        return kept

    def _throttle(self, first: Reading, last: Reading) -> dict[str, Any] | None:
        fractions = measure.event_fractions(
            first.get("counters_ns") or {}, last.get("counters_ns") or {}, self.elapsed_s
        )
        # reasons without a counter of their own (display, idle, power brake on older drivers) come from the samples
        sampled = [r["reasons"] for r in self.readings if r.get("reasons") is not None]
        by_sample = measure.sampled_fractions(sampled) if sampled else {}
        if not fractions and not sampled:
            return None
        combined = {**by_sample, **fractions}
        return {
            "fractions": combined,
            "source": {reason: "counter" if reason in fractions else "samples" for reason in combined},
            "active": sorted(reason for reason, fraction in combined.items() if fraction > 0),
        }


class Watch:
    """Takes readings through ``read``; without one, records why there are none."""

    def __init__(
        self, read: Callable[[], Reading] | None, missing: str | None = None, interval_s: float = INTERVAL_S
    ) -> None:
        self._read = read
        self._missing = missing
        self._interval_s = interval_s

    @contextmanager
    def during(self) -> Iterator[Recorder]:
        """Read before, regularly during, and after the body."""
        recorder = Recorder()
        recorder.missing = self._missing
        if self._read is None:
            yield recorder
            return
        stop = threading.Event()
        self._take(recorder)
        started = time.monotonic()
        thread = threading.Thread(target=self._loop, args=(recorder, stop), daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            stop.set()
            thread.join()
            recorder.elapsed_s = time.monotonic() - started
            self._take(recorder)

    def _loop(self, recorder: Recorder, stop: threading.Event) -> None:
        while not stop.wait(self._interval_s):
            if not self._take(recorder):
                return

    def _take(self, recorder: Recorder) -> bool:
        assert self._read is not None
        try:
            recorder.readings.append({"t": time.monotonic() - recorder.started, **self._read()})
        except Exception as error:  # a reading that fails must not take the measurement with it; it becomes a reason
            recorder.missing = f"{type(error).__name__}: {error}"
            return False
        return True


def busy_reason(
    processes: Sequence[Mapping[str, Any]],
    used_bytes: int | None,
    total_bytes: int | None,
    own_pids: Sequence[int],
    desktop: bool = False,
) -> str | None:
    """Return why a GPU counts as busy, or None. ``used_bytes`` is None where memory is shared with the system.

    An idle driver keeps up to several hundred MiB of each GPU for itself, so less than 1 GiB is nobody's work; where a
    ``desktop`` is drawn by the same GPU (Windows, under WSL2), up to a quarter of the memory is its windows.
    """
    others = [entry for entry in processes if entry.get("pid") not in own_pids]
    if others:
        names = ", ".join(f"{entry.get('name') or 'unknown'} (pid {entry.get('pid')})" for entry in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        return f"{len(others)} process(es) use it: {names}{more}"
    limit = max(1 << 30, (total_bytes or 0) // (4 if desktop else 50))
    if used_bytes is not None and used_bytes > limit:
        return f"{used_bytes / (1 << 30):.1f} GiB of its memory are in use although no process is visible"
    return None


def _instant(reading: Reading) -> dict[str, Any]:
    return {**{key: reading.get(key) for key in _SERIES}, "reasons": reading.get("reasons")}
