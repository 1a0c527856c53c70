# SPDX-License-Identifier: Apache-2.0
"""The real torch with a stand-in for ``torch.cuda``: code written for GPUs runs, and really computes, on the CPU.

Devices named ``cuda:N`` are the CPU, events take the time of the host, streams are only a list of devices. It shows
that a suite's calls exist, fit together and give right answers; no number of it is a GPU's.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator
from typing import Any

from rackwright.gpu_watch import Watch
from rackwright.torch_bench import Bench

TORCH: Any = importlib.import_module("torch")
GIB = 1 << 30


class _Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Event) -> float:
        return (end.at - self.at) * 1e3


class _Stream:
    def __init__(self, device: str) -> None:
        self.device = device

    def synchronize(self) -> None:
        return None


class _Properties:
    name, uuid, major, minor, multi_processor_count, L2_cache_size = "CPU as GPU", "0", 9, 0, 132, 0
    is_integrated = False

    def __init__(self, total: int) -> None:
        self.total_memory = total


class _Cuda:
    Event, Stream = _Event, _Stream

    def __init__(self, free: int, total: int, access: bool) -> None:
        self.free, self.total, self.access = free, total, access
        self.streams: list[str] = []

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return self.free, self.total

    def get_device_properties(self, index: int) -> _Properties:
        return _Properties(self.total)

    def can_device_access_peer(self, one: int, other: int) -> bool:
        assert one != other
        return self.access

    @contextlib.contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        self.streams.append(stream.device)
        yield

    @contextlib.contextmanager
    def device(self, device: str) -> Iterator[None]:
        yield

    def synchronize(self, device: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None


class CudaOnCpu:
    """Everything of torch, with ``cuda:N`` understood as the CPU wherever a tensor is made."""

    _MAKERS = ("empty", "zeros", "ones", "arange", "randn", "randint", "Generator")

    def __init__(self, free: int = 4 * GIB, total: int = 8 * GIB, access: bool = True) -> None:
        self.cuda = _Cuda(free, total, access)

    def __getattr__(self, name: str) -> Any:
        found = getattr(TORCH, name)
        if name not in self._MAKERS:
            return found

        def make(*args: Any, **options: Any) -> Any:
            options.pop("pin_memory", None)
            if "device" in options:
                options["device"] = "cpu"
            return found(*args, **options)

        return make


class _Guise(str):
    """What torch reads as ``cpu`` and the code under test does not: it takes the ways of a GPU."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


def gpu_bench(level: Any, torch: Any = None, watch: Watch | None = None, **more: Any) -> Bench:
    """Return a bench that measures at ``level`` (benchmark_levels.Level) on the CPU in the guise of a GPU."""
    torch = torch if torch is not None else CudaOnCpu()
    info = {"name": "CPU as GPU", "compute_capability": [9, 0], "total_memory_bytes": torch.cuda.total, "l2_bytes": 0}

    class Small(Bench):
        @property
        def level(self) -> Any:
            return level

    info.update(more.pop("info", {}))
    bench = Small(torch, _Guise("cpu"), "quick", 7, info, watch or Watch(None, "not a GPU"), **more)
    bench.flush = TORCH.empty(1024, dtype=TORCH.int8)
    return bench
