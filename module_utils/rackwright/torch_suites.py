# SPDX-License-Identifier: Apache-2.0
"""The measurements themselves, on an imported torch that is handed in. Runs only inside a child process.

Methods, and why, are in docs/benchmarks.md: per-iteration CUDA events with one synchronisation at the end, an L2 flush
before each timed iteration, normally distributed data, warm-up by time, GPU clocks and event reasons beside a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_plan, measure
from .gpu_watch import Watch

_NO_CPU_CLOCKS = "the device is a CPU"
_EXACT_SIZE = 256
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

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def level(self) -> benchmark_plan.Level:
        return benchmark_plan.level_for(self.device, self.level_name)

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


def kernel_suite(bench: Bench) -> list[dict[str, Any]]:
    """Run kernels whose exact answer is known and count the elements that are wrong."""
    torch = bench.torch
    generator = torch.Generator(device="cpu").manual_seed(bench.seed)
    size = (_EXACT_SIZE, _EXACT_SIZE)
    # small integers: every product and sum is exact in float32 and in TF32, so one wrong bit is a wrong answer
    a, b = (torch.randint(-3, 4, size, generator=generator, dtype=torch.int64) for _ in range(2))
    started = time.perf_counter()
    product = (a.to(bench.device, torch.float32) @ b.to(bench.device, torch.float32)).to(torch.int64).cpu()
    ramp = torch.arange(1 << 16, device=bench.device).mul(3).add(1).cpu()
    bench.synchronize()
    elapsed = time.perf_counter() - started
    wrong = int((product != a @ b).sum()) + int((ramp != torch.arange(1 << 16).mul(3).add(1)).sum())
    if wrong:
        raise WrongAnswerError(f"{wrong} of {product.numel() + ramp.numel()} elements are wrong")
    return [
        {
            "suite": "kernel",
            "name": "exact_answer",
            "unit": "wrong elements",
            "dtype": "float32",
            "shape": list(size),
            "device": bench.device,
            "device_name": bench.info.get("name"),
            "level": bench.level_name,
            **single(0.0),
            "median_s": elapsed,
            "conditions": {"data": "small integers"},
            "clocks": None,
            "throttle": None,
            "missing": {"clocks": "a launch is too short to sample", "throttle": "a launch is too short to sample"},
        }
    ]


def gemm_suite(bench: Bench) -> list[dict[str, Any]]:
    """Matrix products of the level's sizes in the data type the device is made for."""
    dtype = benchmark_plan.gemm_dtype(bench.device, bench.info.get("compute_capability"))
    bench.prepare_flush()  # before asking what is free, because it takes its part
    sizes = benchmark_plan.gemm_sizes(bench.level, bench.free_bytes(), dtype)
    if not sizes:
        raise NotEnoughMemoryError(f"only {bench.free_bytes()} bytes are free")
    return [_gemm(bench, size, dtype) for size in sizes]


def _gemm(bench: Bench, size: int, dtype: str) -> dict[str, Any]:
    torch = bench.torch
    a, b = (bench.random(size, size, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=bench.device, dtype=getattr(torch, dtype))
    result = {"suite": "gemm", "name": f"gemm_{dtype}_{size}", "unit": "TFLOP/s", "dtype": dtype, "shape": [size] * 3}
    record = bench.measured(lambda: torch.mm(a, b, out=out), result, measure.gemm_flop(size, size, size), 1e12)
    if not bool(torch.isfinite(out).all()):
        raise WrongAnswerError(f"the {size} x {size} product contains values that are not finite")
    return record


def memory_suite(bench: Bench) -> list[dict[str, Any]]:
    """Copy and, at the longer level, triad over buffers larger than every cache; decimal GB/s of bytes moved."""
    bench.prepare_flush()
    free = bench.free_bytes()
    size = benchmark_plan.memory_buffer_bytes(bench.level, free, int(bench.info.get("l2_bytes") or 0))
    if not size:
        raise NotEnoughMemoryError(f"only {free} bytes are free")
    torch, elements = bench.torch, size // measure.DTYPE_BYTES["float32"]
    source = bench.random(elements, dtype="float32")
    target = torch.empty_like(source)
    kinds: dict[str, Callable[[], Any]] = {"copy": lambda: target.copy_(source)}
    if "triad" in bench.level.memory_kinds:
        third = bench.random(elements, dtype="float32")
        kinds["triad"] = lambda: torch.add(source, third, alpha=3.0, out=target)
    return [_memory(bench, kind, kinds[kind], size) for kind in bench.level.memory_kinds]


def _memory(bench: Bench, kind: str, work: Callable[[], Any], size: int) -> dict[str, Any]:
    result = {
        "suite": "memory",
        "name": f"memory_{kind}",
        "unit": "GB/s",
        "dtype": "float32",
        "shape": [size // measure.DTYPE_BYTES["float32"]],
        "buffer_bytes": size,
    }
    return bench.measured(work, result, measure.TRAFFIC[kind] * size, 1e9)


SUITES: dict[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "kernel": kernel_suite,
    "gemm": gemm_suite,
    "memory": memory_suite,
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
        "missing": {"clocks": _NO_CPU_CLOCKS, "throttle": _NO_CPU_CLOCKS},
    }


def available_memory(path: str = "/proc/meminfo") -> int:
    """Return the bytes the kernel says a new process could use without swapping."""
    with open(path, encoding="ascii") as handle:
        for line in handle:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
