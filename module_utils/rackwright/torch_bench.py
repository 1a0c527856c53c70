# SPDX-License-Identifier: Apache-2.0
"""One device under measurement: how to time on it, and the form of a result. Runs only inside a child process.

torch is handed in. Methods, and why, are in docs/benchmarks.md: per-iteration CUDA events with one synchronisation at
the end, an L2 flush before each timed iteration, normally distributed data, warm-up by time, clocks beside a number.
"""

from __future__ import annotations

import fcntl
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_levels, measure
from .gpu_readings import Meter, busy_of
from .gpu_watch import Recorder, Watch
from .torch_device import device_index

NO_CPU_CLOCKS = "the device is a CPU"
#: A GPU that works less than this part of the time is idle: its own bookkeeping, or a desktop that redraws.
IDLE_PERCENT = 10
IDLE_LIMIT_S = 10.0
TURN_LIMIT_S = 120.0
MEET_LIMIT_S = 60.0
_IDLE_POLL_S = 0.1
_TURN_POLL_S = 0.02
_CHUNK = 10


class WrongAnswerError(Exception):
    """The device computed something else than arithmetic demands."""


class NotEnoughMemoryError(Exception):
    """Too little memory is free for a measurement that says anything."""


class NotApplicableError(Exception):
    """The suite does not exist on this device; the text says why. Neither a result nor an error."""


class NotIdleError(Exception):
    """Something else runs on the GPU, and did not end while it was waited for."""


class WaitedTooLongError(Exception):
    """What is shared with the other GPUs' processes did not become free."""


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
    heated: bool = False
    #: suite options of the module, e.g. ``burn_seconds``; a suite looks up only its own. Where the processes of several
    #: GPUs know of each other, also ``rank``, ``world_size`` and ``store_path``
    options: Mapping[str, Any] = field(default_factory=dict)
    #: every CUDA device of the node that is measured in this run, this one included
    peers: Sequence[str] = ()
    meter: Meter | None = None
    #: what the catalogue says the card can do at best (see gpu_peak), or None with the reason in ``peak_missing``
    peak: Mapping[str, Any] | None = None
    peak_missing: str | None = None
    #: directory shared with the processes of the other GPUs, gone after the run
    scratch: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def level(self) -> benchmark_levels.Level:
        return benchmark_levels.level_for(self.device, self.level_name)

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

    def release(self) -> None:
        """Give back what the allocator keeps of tensors that are gone, so that what is free is known."""
        if self.on_gpu:
            self.torch.cuda.empty_cache()

    def collect(self) -> None:
        """Release, after collecting what refers to itself and still holds tensors."""
        if self.on_gpu:
            gc.collect()
            self.release()

    def not_applicable(self, suite: str, reason: str, **more: Any) -> dict[str, Any]:
        """Return what a suite yields in place of a result for something this device or this torch does not have."""
        return {"not_applicable": {"suite": suite, "device": self.device, "reason": reason, **more}}

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
        size = benchmark_levels.flush_bytes(int(self.info.get("l2_bytes") or 0))
        if self.flush is None:
            self.flush = self.torch.zeros(size // 4, dtype=self.torch.float32, device=self.device)
        return size

    def random(self, *shape: int, dtype: str) -> Any:
        """Normally distributed data: constant data draws less power and inflates the result."""
        generator = self.torch.Generator(device=self.device).manual_seed(self.seed)
        return self.torch.randn(*shape, generator=generator, device=self.device, dtype=getattr(self.torch, dtype))

    @property
    def index(self) -> int:
        """The number of the CUDA device; 0 on a CPU."""
        return device_index(self.device) if self.on_gpu else 0

    @property
    def peak_tflops(self) -> Mapping[str, float]:
        """The dense peaks the catalogue knows of this card; empty where it is not recognised."""
        return self.peak["tflops"] if self.peak is not None else {}

    def wait_for_idle(self, limit_s: float = IDLE_LIMIT_S) -> None:
        """Wait until the GPU is idle: the driver's own measure lags up to a second behind the work that ended.

        Raises:
            NotIdleError: it still works after ``limit_s``, so that a number would be shared with somebody.
        """
        deadline = time.monotonic() + limit_s
        while (busy := self.meter.utilisation() if self.meter is not None else None) is not None:
            if busy < IDLE_PERCENT:
                return
            if time.monotonic() >= deadline:
                why = busy_of(self.meter) or "no other process is visible"
                raise NotIdleError(f"{busy} % of the time something still runs on it after {limit_s:g} s: {why}")
            time.sleep(_IDLE_POLL_S)

    @contextmanager
    def turn(self, limit_s: float = TURN_LIMIT_S) -> Iterator[None]:
        """Have what the GPUs of a node share (the host's memory, PCIe switches) for this process alone.

        The lock belongs to the process: one that is killed gives it back.

        Raises:
            WaitedTooLongError: another process still has it after ``limit_s``.
        """
        if self.scratch is None:
            yield
            return
        deadline = time.monotonic() + limit_s
        with open(os.path.join(self.scratch, "turn"), "w", encoding="ascii") as handle:
            while not _locked(handle):
                if time.monotonic() >= deadline:
                    raise WaitedTooLongError(f"another GPU's process has held the host link for {limit_s:g} s")
                time.sleep(_TURN_POLL_S)
            yield

    def meet(self, limit_s: float = MEET_LIMIT_S) -> int:
        """Wait, not for ever, until the processes of all GPUs are here; return how many are."""
        count = int(self.options.get("world_size") or 1)
        if self.scratch is None or count < 2:
            return 1
        with open(os.path.join(self.scratch, f"here-{self.options['rank']}"), "w", encoding="ascii"):
            pass
        deadline = time.monotonic() + limit_s
        while True:
            here = sum(name.startswith("here-") for name in os.listdir(self.scratch))
            if here >= count or time.monotonic() >= deadline:
                return here
            time.sleep(_TURN_POLL_S)

    def warm_up(self, work: Callable[[], Any]) -> float:
        """Repeat the work for the level's time and return the seconds one iteration took.

        The first work on a device heats it as well: a cold GPU scores higher.
        """
        wanted_s = self.level.warmup_s if self.heated else max(self.level.heat_s, self.level.warmup_s)
        self.heated = True
        work()  # the first call pays for library loading and algorithm choice
        self.synchronize()
        started, count = time.perf_counter(), 0
        elapsed = 0.0
        while elapsed < wanted_s or count == 0:
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
            self.flush.sum()  # read, not written: lines still to be written back would cost the timed work bandwidth
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

    def intervals(self, work: Sequence[Callable[[], Any]]) -> list[float]:
        """Return the seconds from the end of each piece of work to the end of the next, without a pause between."""
        if not self.on_gpu:
            moments = [time.perf_counter()]
            for one in work:
                one()
                moments.append(time.perf_counter())
            return [end - start for start, end in zip(moments, moments[1:])]
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(len(work) + 1)]
        events[0].record()
        for one, event in zip(work, events[1:]):
            one()
            event.record()
        self.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in zip(events, events[1:])]

    def measured(self, work: Callable[[], Any], result: dict[str, Any], amount: float, scale: float) -> dict[str, Any]:
        """Warm up, time, and complete ``result`` with the distribution of ``amount / time / scale``."""
        flush = self.prepare_flush()
        warmup_s = self.level.warmup_s if self.heated else max(self.level.heat_s, self.level.warmup_s)
        iteration_s = self.warm_up(work)
        count = benchmark_levels.sample_count(self.level, iteration_s)
        with self.watch.during() as record:
            seconds = self.timed(work, count)
        conditions = {"warmup_s": warmup_s, "l2_flush_bytes": flush, "data": "normal", **result.get("conditions", {})}
        return self.completed({**result, "conditions": conditions}, seconds, amount, scale, record)

    def completed(
        self, result: dict[str, Any], seconds: Sequence[float], amount: float, scale: float, record: Recorder
    ) -> dict[str, Any]:
        """Complete ``result`` with the distribution of ``amount / time / scale`` and with what the watch saw."""
        numbers = measure.summarize(measure.rates(seconds, amount, scale))
        return {
            **result,
            "value": numbers["median"],
            **numbers,
            "device": self.device,
            "device_name": self.info.get("name"),
            "level": self.level_name,
            "median_s": sorted(seconds)[len(seconds) // 2],
            **record.result(),
        }


def _locked(handle: Any) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
