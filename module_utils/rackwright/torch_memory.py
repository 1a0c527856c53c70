# SPDX-License-Identifier: Apache-2.0
"""Bandwidth of device memory (suite ``memory``), on a torch that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import benchmark_levels, measure
from .torch_bench import Bench, NotEnoughMemoryError


def memory_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Copy, read and triad over buffers larger than every cache; decimal GB/s of bytes moved."""
    bench.prepare_flush()
    free = bench.free_bytes()
    size = benchmark_levels.memory_buffer_bytes(bench.level, free, int(bench.info.get("l2_bytes") or 0))
    if not size:
        raise NotEnoughMemoryError(f"only {free} bytes are free")
    torch, elements = bench.torch, size // measure.DTYPE_BYTES["float32"]
    source = bench.random(elements, dtype="float32")
    third = bench.random(elements, dtype="float32")
    target = torch.empty_like(source)
    kinds: dict[str, Callable[[], Any]] = {
        "copy": lambda: target.copy_(source),
        "read": lambda: torch.sum(source),
        "triad": lambda: torch.add(source, third, alpha=3.0, out=target),
    }
    for kind, work in kinds.items():
        yield _memory(bench, kind, work, size)


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
