# SPDX-License-Identifier: Apache-2.0
"""Decide what a benchmark run does: levels, data types, shapes, time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError
from .measure import gemm_bytes

SUITES = ("import", "kernel", "gemm", "memory", "llm_inference", "llm_training")
LEVELS = ("quick", "standard", "full")
#: what a level runs where nobody names suites
LEVEL_SUITES = {
    "quick": ("import", "kernel", "gemm", "memory"),
    "standard": SUITES,
    "full": SUITES,
}

MIB = 1 << 20
GIB = 1 << 30
#: A result cache smaller than this is treated as this large: some drivers report none at all.
_MIN_FLUSH = 256 * MIB
#: Importing torch and, on a GPU, creating a context; measured in seconds on a slow disk.
_START_S = 6.0


@dataclass(frozen=True)
class Level:
    """How long one measurement may take: seconds of warm-up, least and most samples, seconds of sampling."""

    warmup_s: float
    min_samples: int
    max_samples: int
    budget_s: float
    gemm_sizes: tuple[int, ...]
    memory_kinds: tuple[str, ...]
    memory_bytes: int


#: On a CPU the point is that torch works and gives a number, not to characterise the machine.
CPU_LEVELS = {
    "quick": Level(0.3, 5, 20, 1.0, (512,), ("copy",), 128 * MIB),
    "standard": Level(3.0, 10, 100, 10.0, (1024, 2048), ("copy", "triad"), 512 * MIB),
    "full": Level(3.0, 10, 100, 20.0, (1024, 2048), ("copy", "triad"), 512 * MIB),
}
#: 8192 is the acceptance shape. Only ``standard`` heats the GPU long enough to call the number sustained.
CUDA_LEVELS = {
    "quick": Level(2.0, 20, 100, 2.0, (8192,), ("copy",), 2 * GIB),
    "standard": Level(30.0, 50, 200, 20.0, (4096, 8192, 16384), ("copy", "triad"), 4 * GIB),
    "full": Level(30.0, 50, 200, 60.0, (4096, 8192, 16384), ("copy", "triad"), 4 * GIB),
}
_FALLBACK_SIZES = (4096, 2048, 1024, 512, 256)


def level_for(device: str, level: str) -> Level:
    """Return the durations and sizes of a level on a kind of device."""
    table = CPU_LEVELS if device == "cpu" else CUDA_LEVELS
    return table[level]


def gemm_dtype(device: str, compute_capability: Sequence[int] | None) -> str:
    """Return the data type of the GEMM: what the device's matrix units are made for."""
    if device == "cpu" or not compute_capability:
        return "float32"
    major = int(compute_capability[0])
    if major >= 8:
        return "bfloat16"
    return "float16" if major == 7 else "float32"


def gemm_sizes(level: Level, free_bytes: int, dtype: str) -> list[int]:
    """Return the sizes of a level that fit in half of the free memory, or the largest smaller one that does."""
    room = free_bytes // 2
    fitting = [size for size in level.gemm_sizes if gemm_bytes(size, size, size, dtype) <= room]
    if fitting:
        return fitting
    smaller = [size for size in _FALLBACK_SIZES if size < min(level.gemm_sizes)]
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


def estimated_seconds(suites: Sequence[str], device: str, level: str) -> int:
    """Return about how long the suites take on one device, for the plan shown in check mode."""
    numbers = level_for(device, level)
    per_measurement = numbers.warmup_s + numbers.budget_s
    total = _START_S + (1.0 if "kernel" in suites else 0.0)
    total += per_measurement * len(numbers.gemm_sizes) if "gemm" in suites else 0.0
    total += per_measurement * len(numbers.memory_kinds) if "memory" in suites else 0.0
    return round(total)


def check_wanted(devices: Sequence[str]) -> None:
    """Refuse device names that mean nothing before anything is started."""
    if not devices:
        raise _device_error("the list is empty", list(devices))
    for name in devices:
        if name not in ("auto", "cpu", "cuda") and _cuda_index(name) is None:
            raise _device_error(f"{name!r} is not a device", name)
    if len(devices) > 1 and {"auto", "cuda"} & set(devices):
        raise _device_error("'auto' and 'cuda' cannot be combined with other devices", list(devices))


def choose_devices(wanted: Sequence[str], cuda_count: int) -> tuple[list[str], list[str]]:
    """Return the devices to run on and those that were asked for by index but do not exist.

    ``auto`` is every visible GPU, or the CPU where torch sees none; ``cuda`` is every visible GPU, perhaps none.
    """
    every = [f"cuda:{index}" for index in range(cuda_count)]
    if list(wanted) == ["auto"]:
        return every or ["cpu"], []
    if list(wanted) == ["cuda"]:
        return every, [] if every else ["cuda"]
    names = ["cpu" if name == "cpu" else f"cuda:{_cuda_index(name)}" for name in wanted]
    unique = list(dict.fromkeys(names))
    known = {*every, "cpu"}
    return [name for name in unique if name in known], [name for name in unique if name not in known]


def build_plan(
    suites: Sequence[str], level: str, devices: Sequence[str], python: str, seed: int, unknown: str | None = None
) -> dict[str, Any]:
    """Return what would be run, for check mode. ``unknown`` says why the devices could not be listed."""
    entries: list[Mapping[str, Any]] = [
        {"device": device, "suites": list(suites), "estimated_s": estimated_seconds(suites, device, level)}
        for device in devices
    ]
    return {
        "python": python,
        "level": level,
        "seed": seed,
        "suites": list(suites),
        "devices": [dict(entry) for entry in entries],
        "estimated_s": sum(int(entry["estimated_s"]) for entry in entries) if devices else None,
        "devices_unknown": unknown,
    }


def _cuda_index(name: str) -> int | None:
    text = name[5:] if name.startswith("cuda:") else name
    return int(text) if text.isascii() and text.isdigit() else None


def _device_error(cause: str, found: Any) -> InvalidInputError:
    return InvalidInputError(
        "choose devices",
        "option devices",
        cause,
        "Give 'auto', 'cpu', 'cuda', or GPU indices such as 0 or cuda:0",
        expected="auto | cpu | cuda | list of indices",
        found=found,
    )
