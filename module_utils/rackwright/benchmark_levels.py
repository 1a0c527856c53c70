# SPDX-License-Identifier: Apache-2.0
"""How long and how large the measurements of a level are, and what a kind of device can compute. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .measure import gemm_bytes

#: In the order in which they run.
SUITES = (
    "import",
    "kernel",
    "gemm",
    "memory",
    "correctness",
    "pcie",
    "p2p",
    "burn",
    "llm_inference",
    "llm_training",
)
LEVELS = ("quick", "standard", "full")
#: What a level runs where nobody names suites.
LEVEL_SUITES = {
    "quick": ("import", "kernel", "gemm", "memory", "correctness", "pcie"),
    "standard": SUITES,
    "full": SUITES,
}

MIB = 1 << 20
GIB = 1 << 30
#: A result cache smaller than this is treated as this large: some drivers report none at all.
_MIN_FLUSH = 256 * MIB


@dataclass(frozen=True)
class Level:
    """How long the measurements of one device may take, and how large they are.

    Seconds: ``heat_s`` once per device, ``warmup_s`` before and ``budget_s`` during each measurement; ``correctness_s``
    per data type; ``burn_s``; what the LLM suites may take in all. A process that has not answered after ``timeout_s``
    is killed.
    """

    heat_s: float
    warmup_s: float
    min_samples: int
    max_samples: int
    budget_s: float
    #: of the data type the device is made for; the acceptance shape first
    gemm_sizes: tuple[int, ...]
    other_gemm_sizes: tuple[int, ...]
    memory_bytes: int
    correctness_size: int
    correctness_s: float
    transfer_bytes: int
    transfer_samples: int
    peer_samples: int
    burn_s: float
    llm_inference_s: float
    llm_training_s: float
    timeout_s: float


#: On a CPU the point is that torch works and gives a number, not to characterise the machine.
_CPU = Level(
    heat_s=0.3,
    warmup_s=0.1,
    min_samples=5,
    max_samples=20,
    budget_s=0.4,
    gemm_sizes=(512,),
    other_gemm_sizes=(256,),
    memory_bytes=128 * MIB,
    correctness_size=256,
    correctness_s=0.2,
    transfer_bytes=0,
    transfer_samples=0,
    peer_samples=0,
    burn_s=1.0,
    llm_inference_s=5.0,
    llm_training_s=5.0,
    timeout_s=300.0,
)
_CPU_LONGER = replace(
    _CPU,
    heat_s=3.0,
    warmup_s=0.5,
    min_samples=10,
    max_samples=100,
    budget_s=5.0,
    gemm_sizes=(1024, 2048),
    other_gemm_sizes=(512,),
    memory_bytes=512 * MIB,
    correctness_size=512,
    correctness_s=1.0,
    burn_s=5.0,
    llm_inference_s=30.0,
    llm_training_s=30.0,
    timeout_s=900.0,
)
CPU_LEVELS = {
    "quick": _CPU,
    "standard": _CPU_LONGER,
    "full": replace(_CPU_LONGER, budget_s=10.0, correctness_s=5.0, burn_s=20.0, timeout_s=3600.0),
}
#: 8192 is the acceptance shape. Only ``standard`` heats the GPU long enough to call the number sustained.
CUDA_LEVELS = {
    "quick": Level(
        heat_s=3.0,
        warmup_s=0.3,
        min_samples=10,
        max_samples=100,
        budget_s=1.0,
        gemm_sizes=(8192,),
        other_gemm_sizes=(8192,),
        memory_bytes=2 * GIB,
        correctness_size=4096,
        correctness_s=1.0,
        transfer_bytes=512 * MIB,
        transfer_samples=10,
        peer_samples=5,
        burn_s=10.0,
        llm_inference_s=30.0,
        llm_training_s=20.0,
        timeout_s=300.0,
    ),
    "standard": Level(
        heat_s=30.0,
        warmup_s=1.0,
        min_samples=50,
        max_samples=200,
        budget_s=6.0,
        gemm_sizes=(8192, 4096, 16384),
        other_gemm_sizes=(8192,),
        memory_bytes=4 * GIB,
        correctness_size=8192,
        correctness_s=5.0,
        transfer_bytes=512 * MIB,
        transfer_samples=20,
        peer_samples=10,
        burn_s=60.0,
        llm_inference_s=150.0,
        llm_training_s=60.0,
        timeout_s=900.0,
    ),
    "full": Level(
        heat_s=30.0,
        warmup_s=2.0,
        min_samples=100,
        max_samples=500,
        budget_s=20.0,
        gemm_sizes=(8192, 4096, 16384),
        other_gemm_sizes=(8192, 4096, 16384),
        memory_bytes=4 * GIB,
        correctness_size=8192,
        correctness_s=60.0,
        transfer_bytes=512 * MIB,
        transfer_samples=50,
        peer_samples=20,
        burn_s=300.0,
        llm_inference_s=600.0,
        llm_training_s=300.0,
        timeout_s=3600.0,
    ),
}
_FALLBACK_SIZES = (4096, 2048, 1024, 512, 256)

#: The data types of matrix products and from which compute capability on a GPU has matrix units for them (float32: none
#: needed). int8: Turing's matrix units were the first with integers; fp8: Ada's and Hopper's.
_UNITS_FROM: Mapping[str, tuple[int, int]] = {
    "bfloat16": (8, 0),
    "float16": (7, 0),
    "tf32": (8, 0),
    "float32": (0, 0),
    "float8_e4m3fn": (8, 9),
    "int8": (7, 5),
}
_CPU_DTYPES = ("float32", "bfloat16")
#: Data types whose products of small integers are exact, so that every wrong bit is a wrong answer.
EXACT_DTYPES = ("bfloat16", "float16", "float32", "int8")


def level_for(device: str, level: str) -> Level:
    """Return the durations and sizes of a level on a kind of device."""
    table = CPU_LEVELS if device == "cpu" else CUDA_LEVELS
    return table[level]


def gemm_dtype(device: str, compute_capability: Sequence[int] | None) -> str:
    """Return the data type a device's matrix units are made for: the one its acceptance number is in."""
    if device == "cpu" or not compute_capability:
        return "float32"
    major = int(compute_capability[0])
    if major >= 8:
        return "bfloat16"
    return "float16" if major == 7 else "float32"


def gemm_dtypes(device: str, compute_capability: Sequence[int] | None) -> tuple[list[str], dict[str, str]]:
    """Return the data types to multiply in, the primary one first, and for each of the others why it cannot be."""
    if device == "cpu":
        return list(_CPU_DTYPES), {}
    primary = gemm_dtype(device, compute_capability)
    if not compute_capability:
        return [primary], {name: "the compute capability is unknown" for name in _UNITS_FROM if name != primary}
    here = (int(compute_capability[0]), int(compute_capability[1]))
    able = [name for name, least in _UNITS_FROM.items() if here >= least]
    unable = {
        name: f"compute capability {here[0]}.{here[1]} has no matrix units for it ({least[0]}.{least[1]} has)"
        for name, least in _UNITS_FROM.items()
        if here < least
    }
    return [primary, *(name for name in able if name != primary)], unable


def gemm_sizes(level: Level, free_bytes: int, dtype: str, primary: bool = True) -> list[int]:
    """Return the sizes of a level that fit in half of the free memory, or the largest smaller one that does."""
    room = free_bytes // 2
    wanted = level.gemm_sizes if primary else level.other_gemm_sizes
    fitting = [size for size in wanted if gemm_bytes(size, size, size, dtype) <= room]
    if fitting:
        return fitting
    smaller = [size for size in _FALLBACK_SIZES if size < min(wanted)]
    return next(([size] for size in smaller if gemm_bytes(size, size, size, dtype) <= room), [])


def memory_buffer_bytes(level: Level, free_bytes: int, cache_bytes: int) -> int:
    """Return the size of one buffer of the memory suite: large enough to leave the cache, an eighth of what is free.

    Zero means that there is not enough free memory for a number that says something about memory.
    """
    size = min(level.memory_bytes, free_bytes // 8) // MIB * MIB
    return size if size >= max(16 * MIB, 4 * cache_bytes) else 0


def flush_bytes(cache_bytes: int) -> int:
    """Return the size of the buffer that is overwritten before each timed iteration to empty the L2 cache."""
    return max(2 * cache_bytes, _MIN_FLUSH)


def sample_count(level: Level, seconds_per_iteration: float) -> int:
    """Return how many samples fit the level's time, within its least and most."""
    if seconds_per_iteration * level.max_samples <= level.budget_s:
        return level.max_samples
    return max(level.min_samples, int(level.budget_s / seconds_per_iteration))


def burn_seconds(level: Level, options: Mapping[str, Any]) -> float:
    """Return how long the burn lasts: as asked for, else the level's."""
    asked = options.get("burn_seconds")
    return level.burn_s if asked is None else float(asked)
