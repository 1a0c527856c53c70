# SPDX-License-Identifier: Apache-2.0
"""One device under measurement: how to time on it, and the form of a result. Runs only inside a child process.

torch is handed in. Methods, and why, are in docs/benchmarks.md: per-iteration CUDA events with one synchronisation at
the end, an L2 flush before each timed iteration, normally distributed data, warm-up by time, clocks beside a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_plan, measure
from .gpu_readings import Meter
from .gpu_watch import Watch

NO_CPU_CLOCKS = "the device is a CPU"
_CHUNK = 10


class WrongAnswerError(Exception):
    """The device computed something else than arithmetic demands."""


class NotEnoughMemoryError(Exception):
    """Too little memory is free for a measurement that says anything."""


@dataclass
class Bench:
    """One device under measurement: how to time on it, what it is, and who watches its clocks."""

    torch: Any
    device: str
    level_name: str
    seed: int
    info: dict[str, Any]
    watch: Watch
    flush: Any = field(default=None)
    #: suite options of the module, e.g. ``burn_seconds``; a suite looks up only its own
    options: Mapping[str, Any] = field(default_factory=dict)
    #: every CUDA device of the node that is measured in this run, this one included
    peers: Sequence[str] = ()
    meter: Meter | None = None
    #: what the catalogue says the card can do at best (see gpu_peak), or None with the reason in ``peak_missing``
    peak: Mapping[str, Any] | None = None
    peak_missing: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def level(self) -> benchmark_plan.Level:
        return benchmark_plan.level_for(self.device, self.level_name)

    def energy_j(self) -> float | None:
        """Return the joules the GPU has used since the driver was loaded; None where nothing counts them."""
        return self.meter.energy_j() if self.meter is not None else None

    def nvml_used_bytes(self) -> int | None:
        """Return what NVML says is used of the GPU's memory, by every process and the driver."""
        return self.meter.used_bytes() if self.meter is not None else None

    def nvml_total_bytes(self) -> int | None:
        """Return what NVML says the GPU's memory is in all; None on a CPU and where memory is the system's."""
        return self.meter.total_bytes() if self.meter is not None else None

    def synchronize(self) -> None:
        if self.on_gpu:
            self.torch.cuda.synchronize(self.device)

    def free_bytes(self) -> int:
        if not self.on_gpu:
            return available_memory()
        free = int(self.torch.cuda.mem_get_info(self.device)[0])
        # a GPU that shares the system's memory counts the page cache as used, although the kernel gives it back
        return max(free, available_memory()) if self.info.get("unified_memory") else free

    def prepare_flush(self) -> int:
        """Allocate the buffer that empties the L2 cache; 0 on a CPU, whose buffers are larger than its caches."""
        if not self.on_gpu:
            return 0
        size = benchmark_plan.flush_bytes(int(self.info.get("l2_bytes") or 0))
        if self.flush is None:
            self.flush = self.torch.empty(size, dtype=self.torch.int8, device=self.device)
        return size

    def random(self, *shape: int, dtype: str) -> Any:
        """Normally distributed data: constant data draws less power and inflates the result."""
        generator = self.torch.Generator(device=self.device).manual_seed(self.seed)
        return self.torch.randn(*shape, generator=generator, device=self.device, dtype=getattr(self.torch, dtype))

    def warm_up(self, work: Callable[[], Any]) -> float:
        """Repeat the work for the level's time and return the seconds one iteration took."""
        work()  # the first call pays for library loading and algorithm choice
        self.synchronize()
        started, count = time.perf_counter(), 0
        elapsed = 0.0
        while elapsed < self.level.warmup_s or count == 0:
            for _ in range(_CHUNK if self.on_gpu else 1):
                work()
                count += 1
            self.synchronize()
            elapsed = time.perf_counter() - started
        return elapsed / count

    def timed(self, work: Callable[[], Any], count: int) -> list[float]:
        """Return the seconds of each of ``count`` iterations."""
        return self._timed_by_events(work, count) if self.on_gpu else self._timed_by_clock(work, count)

    def _timed_by_events(self, work: Callable[[], Any], count: int) -> list[float]:
        event = self.torch.cuda.Event
        pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(count)]
        for start, end in pairs:
            self.flush.zero_()
            start.record()
            work()
            end.record()
        self.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]

    def _timed_by_clock(self, work: Callable[[], Any], count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        return seconds

    def measured(self, work: Callable[[], Any], result: dict[str, Any], amount: float, scale: float) -> dict[str, Any]:
        """Warm up, time, and complete ``result`` with the distribution of ``amount / time / scale``."""
        flush = self.prepare_flush()
        iteration_s = self.warm_up(work)
        count = benchmark_plan.sample_count(self.level, iteration_s)
        with self.watch.during() as record:
            seconds = self.timed(work, count)
        numbers = measure.summarize(measure.rates(seconds, amount, scale))
        watched = record.result()
        return {
            **result,
            "value": numbers["median"],
            **numbers,
            "device": self.device,
            "device_name": self.info.get("name"),
            "level": self.level_name,
            "median_s": sorted(seconds)[len(seconds) // 2],
            "conditions": {"warmup_s": self.level.warmup_s, "l2_flush_bytes": flush, "data": "normal"},
            "clocks": watched.get("clocks"),
            "throttle": watched.get("throttle"),
            "missing": watched.get("missing", {}),
        }


def single(value: float) -> dict[str, Any]:
    """Return the distribution of a value that exists once."""
    once = {key: value for key in ("value", "median", "p5", "p95", "min", "max")}
    return {**once, "samples": 1, "spread": 0.0}


def import_result(seconds: float, level: str) -> dict[str, Any]:
    """Return the result of the import suite: how long the first import took in a fresh process."""
    return {
        "suite": "import",
        "name": "torch_import",
        "unit": "s",
        "device": "cpu",
        "device_name": None,
        "dtype": None,
        "shape": None,
        "level": level,
        **single(seconds),
        "median_s": seconds,
        "conditions": {},
        "clocks": None,
        "throttle": None,
        "missing": {"clocks": NO_CPU_CLOCKS, "throttle": NO_CPU_CLOCKS},
    }


def available_memory(path: str = "/proc/meminfo") -> int:
    """Return the bytes the kernel says a new process could use without swapping."""
    with open(path, encoding="ascii") as handle:
        for line in handle:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
