# SPDX-License-Identifier: Apache-2.0
"""The group of processes that train together, one per GPU: how it is joined, and what its members must agree on.

Every collective operation needs all members: whatever one decides from its own card or clock, such as a data type or a
number of steps, would leave the others waiting.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from .llm_step import UnsupportedError
from .torch_bench import Bench

#: A process whose partner died waits this long in a collective operation before it gives up.
TIMEOUT = timedelta(minutes=3)


def size_of(bench: Bench) -> int:
    """Return how many processes train together; one where this process is alone."""
    return int(bench.options.get("world_size") or 1)


def rank_of(bench: Bench) -> int:
    """Return which of them this one is, from zero."""
    return int(bench.options.get("rank") or 0)


class Group:
    """The processes that have joined."""

    def __init__(self, bench: Bench, distributed: Any) -> None:
        self._bench, self._distributed = bench, distributed

    def least(self, value: float) -> float:
        """Return the smallest of all members' values."""
        return self._reduced(value, "MIN")

    def most(self, value: float) -> float:
        """Return the largest of all members' values."""
        return self._reduced(value, "MAX")

    def _reduced(self, value: float, operation: str) -> float:
        values = self._bench.torch.tensor([value], device=self._bench.device, dtype=self._bench.torch.float64)
        self._distributed.all_reduce(values, op=getattr(self._distributed.ReduceOp, operation))
        return float(values.item())


@contextmanager
def joined(bench: Bench) -> Iterator[Group]:
    """Join the processes that were given the same ``store_path``, with NCCL between GPUs and gloo between CPUs.

    Raises:
        UnsupportedError: this torch has no FSDP2 or no NCCL; the same on every member, so nobody waits.
    """
    torch = bench.torch
    distributed = importlib.import_module(f"{torch.__name__}.distributed")
    backend = "nccl" if bench.on_gpu else "gloo"
    if not distributed.is_available() or not getattr(distributed, f"is_{backend}_available", lambda: False)():
        raise UnsupportedError(f"this build of torch has no {backend}")
    if not hasattr(importlib.import_module(f"{torch.__name__}.distributed.fsdp"), "fully_shard"):
        raise UnsupportedError(f"fully_shard is public since torch 2.6, and this is {torch.__version__}")
    distributed.init_process_group(
        backend,
        init_method=f"file://{bench.options['store_path']}",
        rank=rank_of(bench),
        world_size=size_of(bench),
        timeout=TIMEOUT,
    )
    yield Group(bench, distributed)
    # only after a good end: leaving waits for the others, and one that failed must write down why before it waits
    distributed.destroy_process_group()
