# SPDX-License-Identifier: Apache-2.0
"""Does a card reach the wished throughput at one operating point, or can it not by its physics? Pure.

Throughput, latency and memory are read at the same point of the sweep: the best of one row and the best of another are
not what anybody gets. ``unattainable`` is said only where an upper bound from published peaks lies below the wish.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import llm_metrics, llm_workloads
from .errors import InvalidInputError
from .llm_metrics import Peaks, Weights
from .llm_workloads import Workload

PASS, FAIL, UNATTAINABLE, NOT_JUDGED = "pass", "fail", "unattainable", "not_judged"
METRICS = ("ttft", "itl")
#: Smaller weights can stay in a card's cache (126 MB on the largest), where the memory's bandwidth bounds nothing.
_LEAST_WEIGHTS = 1e9


@dataclass(frozen=True)
class Goal:
    """What is wished for at one operating point: output tokens/s of one GPU, a 99th percentile in ms, part of VRAM."""

    tokens_per_s: float = 5000.0
    p99_ms: float = 200.0
    p99_metric: str = "ttft"
    vram_fraction: float = 0.80

    def as_dict(self) -> dict[str, Any]:
        """Return the goal as it stands in a result."""
        return {
            "tokens_per_s": self.tokens_per_s,
            "p99_ms": self.p99_ms,
            "p99_metric": self.p99_metric,
            "vram_fraction": self.vram_fraction,
        }


def goal_from(given: Mapping[str, Any] | None) -> Goal:
    """Return the goal with what was given; the rest are the defaults.

    Raises:
        InvalidInputError: an unknown key, no number above zero, a fraction above 1, or an unknown metric.
    """
    values: dict[str, Any] = Goal().as_dict()
    for key, value in (given or {}).items():
        if key not in values:
            near = difflib.get_close_matches(str(key), values, n=1)
            raise _refuse(f"it has the unknown key {key}{f' (did you mean {near[0]}?)' if near else ''}", values, key)
        values[key] = _metric(value) if key == "p99_metric" else _number(key, value)
    if values["vram_fraction"] > 1:
        raise _refuse(f"vram_fraction is {values['vram_fraction']:g}, above the whole memory", "0 to 1", given)
    return Goal(**values)


def _metric(value: Any) -> str:
    if value not in METRICS:
        raise _refuse(f"p99_metric is {value!r}", list(METRICS), value)
    return str(value)


def _number(key: str, value: Any) -> float:
    """Numbers given on the command line arrive as text."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise _refuse(f"{key} is {value!r}", "a number above zero", value)
    return number


def _refuse(cause: str, expected: Any, found: Any) -> InvalidInputError:
    step = "Give tokens_per_s, p99_ms, p99_metric (ttft or itl) and vram_fraction (0 to 1), each or none"
    known = list(expected) if isinstance(expected, (dict, list)) else expected
    return InvalidInputError("judge the goal", "llm_goal", cause, step, expected=known, found=found)


def ceiling(
    workload: Workload, weights: Weights, peaks: Peaks, memory: float | None, goal: Goal, cache_bytes: int = 2
) -> dict[str, Any]:
    """Return the most output tokens/s that the card's published peaks allow within the goal's memory and latency.

    The batch is the largest that fits in ``vram_fraction`` of ``memory`` bytes beside the weights alone. Every step
    reads weights and cache once at the full bandwidth and computes at the full peak. So it is a bound, not a forecast.
    A peak that was computed instead of published takes no part.

    Returns:
        ``tokens_per_s`` (None where no bound is known), ``source``, ``batch``, ``bound`` (what binds), ``step_ms``,
        ``ttft_ms`` (shortest, one prompt on an idle card) and ``reason`` where there is no bound.
    """
    sure = Peaks(peaks.bandwidth, peaks.flops if peaks.published else None, peaks.published)
    fits = llm_workloads.most_sequences(workload, goal.vram_fraction * (memory or 0), weights.total, cache_bytes)
    if memory and not fits:
        return {
            "tokens_per_s": 0.0, "source": "memory size", "batch": 0, "step_ms": None, "ttft_ms": None, "reason": None,
            "bound": f"memory: weights of {weights.total / 1e9:.1f} GB and one sequence do not fit",
        }  # fmt: skip
    reason = _no_bound(weights, sure, memory)
    if reason is not None:
        return {
            "tokens_per_s": None, "source": None, "batch": None, "bound": None, "step_ms": None, "ttft_ms": None,
            "reason": reason,
        }  # fmt: skip
    first = llm_metrics.prefill_floor(workload, weights, sure)

    def step(batch: int) -> float:
        known = llm_metrics.floors(workload, batch, weights, sure, cache_bytes)
        return max(value for value in known if value is not None)

    batch = _within(fits, step, goal.p99_ms / 1e3) if goal.p99_metric == "itl" else fits
    late = goal.p99_metric == "ttft" and first is not None and first * 1e3 > goal.p99_ms
    bound = _what_binds(workload, weights, sure, batch, late, cache_bytes)
    return {
        "tokens_per_s": batch / step(batch) if batch and not late else 0.0,
        "source": "catalogue",
        "batch": batch,
        "bound": bound,
        "step_ms": step(batch) * 1e3 if batch else None,
        "ttft_ms": first * 1e3 if first is not None else None,
        "reason": None,
    }


def _no_bound(weights: Weights, peaks: Peaks, memory: float | None) -> str | None:
    if memory is None:
        return "the size of the device's memory is not known"
    if peaks.bandwidth is None and peaks.flops is None:
        return "the catalogue has no peaks of this device"
    if weights.total < _LEAST_WEIGHTS:
        return "weights this small may stay in the card's cache, where its memory bounds nothing"
    return None


def _within(most: int, step: Any, limit_s: float) -> int:
    """Return the largest batch up to ``most`` whose shortest step keeps the limit; steps grow with the batch."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if step(middle) <= limit_s else (low, middle - 1)
    return low


def _what_binds(workload: Workload, weights: Weights, peaks: Peaks, batch: int, late: bool, cache_bytes: int) -> str:
    if late:
        return "arithmetic of one prompt" if peaks.flops else "reading the weights once for one prompt"
    if not batch:
        return "a single sequence's step takes longer than the latency allows"
    memory, compute = llm_metrics.floors(workload, batch, weights, peaks, cache_bytes)
    if compute is not None and (memory is None or compute > memory):
        return "arithmetic"
    return f"memory bandwidth with the {batch} sequences that fit"


def judge(
    goal: Goal, points: Sequence[Mapping[str, Any]], ceiling_found: Mapping[str, Any], not_judged: str | None = None
) -> dict[str, Any]:
    """Return ``verdict``, ``value``, ``point`` and ``reason``.

    Args:
        points: ``details`` of the operating points.
        not_judged: why there can be no verdict, for example that the device is a CPU.

    ``value`` is the best throughput of a point within latency and memory, else that of the point closest to them.
    """
    inside = [point for point in points if _excess(goal, point) is not None and _limits(goal, point) <= 1]
    best = max(inside, key=_rate, default=None)
    nearest = best or min(points, key=lambda point: (_limits(goal, point), -_rate(point)), default=None)
    found = {"value": _rate(nearest) if nearest else 0.0, "point": nearest}
    if not_judged is not None:
        return {**found, "verdict": NOT_JUDGED, "reason": not_judged}
    if best is not None and _rate(best) >= goal.tokens_per_s:
        return {**found, "verdict": PASS, "reason": _told(best, goal)}
    bound = ceiling_found.get("tokens_per_s")
    if bound is not None and bound < goal.tokens_per_s:
        why = (
            f"at most {bound:.0f} of the wished {goal.tokens_per_s:.0f} output tokens/s are possible "
            f"({ceiling_found.get('bound')}; by the {ceiling_found.get('source')})"
        )
        return {**found, "verdict": UNATTAINABLE, "reason": why}
    unknown = [point for point in points if _excess(goal, point) is None and _rate(point) >= goal.tokens_per_s]
    if unknown or not points:
        why = (
            "no operating point was measured"
            if not points
            else "memory in use is unknown where it would be fast enough"
        )
        return {**found, "verdict": NOT_JUDGED, "reason": why}
    assert nearest is not None
    return {**found, "verdict": FAIL, "reason": _failed(goal, best, nearest)}


def _rate(point: Mapping[str, Any]) -> float:
    return float(point["output_tokens_per_s"])


def _excess(goal: Goal, point: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return latency and memory as parts of what is allowed, or None where memory is unknown."""
    used = point.get("peak_vram_fraction")
    late = float(point[f"{goal.p99_metric}_ms"]["p99"]) / goal.p99_ms
    return None if used is None else (late, float(used) / goal.vram_fraction)


def _limits(goal: Goal, point: Mapping[str, Any]) -> float:
    excess = _excess(goal, point)
    return math.inf if excess is None else max(1.0, *excess)


def _told(point: Mapping[str, Any], goal: Goal) -> str:
    text = (
        f"batch {point['batch']}: {_rate(point):.0f} output tokens/s while decoding, P99 {goal.p99_metric.upper()} "
        f"{point[f'{goal.p99_metric}_ms']['p99']:.0f} ms"
    )
    used, job = point.get("peak_vram_fraction"), point.get("job_output_tokens_per_s")
    text += f", {used:.0%} of memory" if used is not None else ""
    return text + (f"; {job:.0f} output tokens/s with the time of the prompts" if job is not None else "")


def _failed(goal: Goal, best: Mapping[str, Any] | None, nearest: Mapping[str, Any]) -> str:
    if best is not None:
        return f"{_rate(best):.0f} of the wished {goal.tokens_per_s:.0f} output tokens/s; {_told(best, goal)}"
    limits = f"P99 {goal.p99_metric.upper()} within {goal.p99_ms:g} ms and {goal.vram_fraction:.0%} of memory"
    return f"no operating point keeps {limits}; closest is {_told(nearest, goal)}"
