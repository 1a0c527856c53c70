# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for a GPU under the LLM benchmark: they allocate nothing and write down what they are asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from ansible.module_utils.rackwright.gpu_watch import Watch
from ansible.module_utils.rackwright.torch_bench import Bench

GIB = 1 << 30


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


class FakeTensor:
    """Knows only where the sequences were put."""

    def __init__(self) -> None:
        self.value = 0

    def fill_(self, value: int) -> None:
        self.value = value


class FakeGraph:
    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


class FakeCuda:
    """Streams that only write down what they are asked; a capture that works or raises what it is told."""

    def __init__(self, log: list[str], failure: Exception | None = None) -> None:
        self.log, self.failure = log, failure
        self.used, self.total = 10 * GIB, 80 * GIB
        self.CUDAGraph = FakeGraph
        self.pools = self.streams = 0
        self.captured_on: list[int] = []

    def Stream(self) -> Any:
        self.streams += 1
        return SimpleNamespace(wait_stream=lambda other: self.log.append("side waits"))

    def current_stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.log.append("main waits"))

    def stream(self, one: Any) -> Any:
        return contextlib.nullcontext()

    def synchronize(self, device: str | None = None) -> None:
        self.log.append("sync")

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: Any, stream: Any) -> Iterator[None]:
        self.log.append("capture")
        self.captured_on.append(id(stream))
        yield
        if self.failure is not None:
            raise self.failure

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return self.total - self.used, self.total

    def empty_cache(self) -> None:
        self.log.append("empty")


class FakeTorch:
    int64 = bfloat16 = "type"

    def __init__(self, failure: Exception | None = None, backends: tuple[str, ...] = ()) -> None:
        self.log: list[str] = []
        self.cuda = FakeCuda(self.log, failure)

        def sdpa() -> None:
            """Attention with enable_gqa."""

        self.nn = SimpleNamespace(functional=SimpleNamespace(scaled_dot_product_attention=sdpa))
        if backends:
            kinds = SimpleNamespace(**{name: name for name in backends})
            self.nn.attention = SimpleNamespace(SDPBackend=kinds, sdpa_kernel=lambda kind: f"with {kind}")

    def zeros(self, *size: Any, device: str, dtype: Any) -> FakeTensor:
        return FakeTensor()

    def arange(self, count: int, device: str) -> FakeTensor:
        return FakeTensor()

    def full(self, size: Any, value: float, device: str, dtype: Any) -> FakeTensor:
        return FakeTensor()


class FakeMeter:
    """NVML's view of the card."""

    def __init__(self, used: int | None, total: int | None) -> None:
        self.used, self.total = used, total

    def used_bytes(self) -> int | None:
        return self.used

    def total_bytes(self) -> int | None:
        return self.total

    def energy_j(self) -> float | None:
        return None


def bench(torch: Any, meter: Any = None, level: str = "standard", **more: Any) -> Bench:
    info = {"name": "x", "compute_capability": [9, 0]}
    return Bench(torch, "cuda:0", level, 1, info, Watch(None, "no NVML"), meter=meter, **more)
