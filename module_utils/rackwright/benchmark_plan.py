# SPDX-License-Identifier: Apache-2.0
"""Decide what a benchmark run does: on which devices, in which phases, and about how long it takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import llm_goal, llm_workloads
from .benchmark_levels import EXACT_DTYPES, LEVEL_SUITES, LEVELS, SUITES, Level, burn_seconds, gemm_dtypes, level_for
from .errors import InvalidInputError
from .measure import TRAFFIC

__all__ = [
    "LEVELS",
    "LEVEL_SUITES",
    "SUITES",
    "Phase",
    "build_plan",
    "check_options",
    "check_wanted",
    "choose_devices",
    "phases",
]

#: Importing torch and, on a GPU, creating a context; measured in seconds on a slow disk.
_START_S = 6.0
#: What a suite needs beside its measurements: pinning host memory, and per data type the answer of the CPU.
_PREPARE_S = 2.0
_ANSWER_S = {4096: 1.0, 8192: 4.0}
#: Filling the memory of a GPU before the burn, and comparing it afterwards.
_BURN_EXTRA_S = 10.0
_SLOW_PCIE_BYTES_PER_S = 12e9
#: A pair of GPUs that copies through the host.
_PAIR_S = 0.5

#: Run by each GPU's process; nothing in them disturbs another GPU (``pcie`` takes turns).
_PER_DEVICE = ("kernel", "gemm", "memory", "correctness", "pcie", "llm_inference", "llm_training")


@dataclass(frozen=True)
class Phase:
    """Suites that run together.

    ``kind`` is ``devices`` (one process per device, at the same time, each for itself), ``node`` (one process that sees
    all of them) or ``ranks`` (one process per device, at the same time, which know of each other).
    """

    kind: str
    suites: tuple[str, ...]

    @property
    def needs_two(self) -> bool:
        """Whether it says something only where two GPUs or more are measured; one alone is burnt like several."""
        return self.kind != "devices" and self.suites != ("burn",)


def phases(suites: Sequence[str]) -> list[Phase]:
    """Return what is run one after the other on a node with GPUs."""
    alone = tuple(suite for suite in _PER_DEVICE if suite in suites)
    found = [Phase("ranks", ("burn",))] if "burn" in suites else []
    # even without a suite of its own the first phase says what each device is, unless the burn does
    first = [Phase("devices", alone)] if alone or not found else []
    together = [Phase("node", ("p2p",))] if "p2p" in suites else []
    shared = [Phase("ranks", ("llm_training",))] if "llm_training" in suites else []
    return [*first, *together, *found, *shared]


def estimated_seconds(
    suites: Sequence[str], device: str, level: str, count: int = 1, burn_s: float | None = None
) -> int:
    """Return about how long a node with ``count`` such devices takes, all of them measured at the same time."""
    numbers = level_for(device, level)
    options = {} if burn_s is None else {"burn_seconds": burn_s}
    if device == "cpu":
        return round(_START_S + sum(_suite_seconds(suite, device, numbers, 1, options) for suite in suites))
    total = _START_S
    for phase in phases(suites):
        if phase.needs_two and count < 2:
            continue
        total += _START_S + sum(_suite_seconds(suite, device, numbers, count, options) for suite in phase.suites)
    return round(total)


def _suite_seconds(suite: str, device: str, level: Level, count: int, options: Mapping[str, Any]) -> float:
    measurement = level.warmup_s + level.budget_s
    dtypes = len(gemm_dtypes(device, (10, 0))[0])
    if suite == "gemm":
        return level.heat_s + measurement * (len(level.gemm_sizes) + (dtypes - 1) * len(level.other_gemm_sizes))
    if suite == "correctness":
        return len(EXACT_DTYPES) * (level.correctness_s + _ANSWER_S.get(level.correctness_size, 0.1))
    if suite == "pcie":
        return count * 2 * level.transfer_samples * level.transfer_bytes / _SLOW_PCIE_BYTES_PER_S + _PREPARE_S
    if suite == "p2p":
        # each pair in either direction, and both directions at once
        return 1.5 * count * (count - 1) * _PAIR_S
    fixed = {
        "kernel": 1.0,
        "memory": measurement * len(TRAFFIC),
        "burn": burn_seconds(level, options) + (_BURN_EXTRA_S if device != "cpu" else 0.0),
        "llm_inference": level.llm_inference_s,
        "llm_training": level.llm_training_s,
    }
    return fixed.get(suite, 0.0)


def check_wanted(devices: Sequence[str]) -> None:
    """Refuse device names that mean nothing before anything is started."""
    if not devices:
        raise _device_error("the list is empty", list(devices))
    for name in devices:
        if name not in ("auto", "cpu", "cuda") and _cuda_index(name) is None:
            raise _device_error(f"{name!r} is not a device", name)
    if len(devices) > 1 and {"auto", "cuda"} & set(devices):
        raise _device_error("'auto' and 'cuda' cannot be combined with other devices", list(devices))


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of suites that mean nothing before anything is started: after an import they would cost minutes.

    Raises:
        InvalidInputError: a time that is not above zero, an unknown workload, a goal that nothing can reach.
    """
    for name in ("timeout", "burn_seconds"):
        value = options.get(name)
        if value is not None and not 0 < float(value) < math.inf:
            raise InvalidInputError(
                "run the benchmark",
                f"option {name}",
                f"{value} is no time",
                "Give seconds above zero, or leave it out",
                expected="seconds above zero",
                found=value,
            )
    if options.get("llm_workload") is not None:
        llm_workloads.find(options["llm_workload"])
    llm_goal.goal_from(options.get("llm_goal"))


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
    suites: Sequence[str],
    level: str,
    devices: Sequence[str],
    python: str,
    seed: int,
    unknown: str | None = None,
    burn_s: float | None = None,
) -> dict[str, Any]:
    """Return what would be run, for check mode. ``unknown`` says why the devices could not be listed."""
    gpus = [device for device in devices if device != "cpu"]
    seconds = estimated_seconds(suites, "cuda:0", level, len(gpus), burn_s) if gpus else 0
    seconds += estimated_seconds(suites, "cpu", level, 1, burn_s) if "cpu" in devices else 0
    return {
        "python": python,
        "level": level,
        "seed": seed,
        "suites": list(suites),
        "devices": [{"device": device, "suites": list(suites)} for device in devices],
        "estimated_s": seconds if devices else None,
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
