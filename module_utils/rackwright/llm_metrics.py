# SPDX-License-Identifier: Apache-2.0
"""From step times to the numbers people compare: percentiles, MBU, MFU, roofline.

Pure. The formulas stand in docs/llm-benchmark.md as well. Names are those of vLLM's benchmark (TTFT, TPOT, ITL), so
that numbers can be put beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import llm_workloads
from .llm_workloads import Workload
from .measure import DTYPE_BYTES, DTYPE_SHORT
from .sizing_speed import prefill_flops

#: By nearest rank the 99th percentile of fewer than 100 samples is their largest; a thousand make it steady.
FEW_SAMPLES, P99_SAMPLES = 100, 1000
#: Below this fraction of the memory bandwidth one sequence is held up by something else than memory.
LEAST_MBU = 0.4
_PERCENTILES = (("p50", 50), ("p95", 95), ("p99", 99))
MEMORY, COMPUTE = "memory", "compute"


@dataclass(frozen=True)
class Peaks:
    """What a card can do at best: bytes/s and FLOP/s of the model's data type, None where unknown.

    Attributes:
        published: whether the arithmetic is a published peak; a computed one is good for a fraction, not for a verdict.
    """

    bandwidth: float | None = None
    flops: float | None = None
    published: bool = False


@dataclass(frozen=True)
class Weights:
    """Bytes of the model's weights: in all, and those that one decode step reads."""

    total: float
    read: float


def weights_of(workload: Workload, dtype: str) -> Weights:
    """Return the bytes of the weights in a data type of torch."""
    each = DTYPE_BYTES[dtype]
    return Weights(
        llm_workloads.weight_bytes(workload.shape, each),
        llm_workloads.read_bytes(workload.shape, each),
    )


def peaks_of(peak: Mapping[str, Any] | None, dtype: str) -> Peaks:
    """Return the peaks for a data type of torch from the record of ``gpu_peak.peak_of``."""
    if peak is None:
        return Peaks()
    key = DTYPE_SHORT[dtype]
    bandwidth, tflops = peak.get("bandwidth_gbps"), (peak.get("tflops") or {}).get(key)
    return Peaks(
        bandwidth * 1e9 if bandwidth else None,
        tflops * 1e12 if tflops else None,
        bool(tflops) and key not in (peak.get("derived") or ()),
    )


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least ``percent`` of an ascending sequence do not exceed."""
    if not ordered:
        raise ValueError("percentile of no samples")
    if not 1 <= percent <= 100:
        raise ValueError(f"percentile {percent} is not between 1 and 100")
    return ordered[-(-percent * len(ordered) // 100) - 1]


def latency(seconds: Sequence[float]) -> dict[str, Any]:
    """Return ``p50``, ``p95``, ``p99`` in ms, ``samples``, and a ``note`` where they are too few for a p99."""
    if any(not math.isfinite(value) or value <= 0 for value in seconds):
        raise ValueError("a timing is not above zero")
    ordered = sorted(value * 1e3 for value in seconds)
    found: dict[str, Any] = {name: nearest_rank(ordered, percent) for name, percent in _PERCENTILES}
    found["samples"] = len(ordered)
    if len(ordered) < FEW_SAMPLES:
        found["note"] = f"p99 of {len(ordered)} samples is their maximum"
    elif len(ordered) < P99_SAMPLES:
        found["note"] = f"p99 rests on the slowest of {len(ordered)} samples; {P99_SAMPLES} or more make it steady"
    return found


def floors(
    workload: Workload, batch: int, weights: Weights, peaks: Peaks, cache_bytes: int = 2
) -> tuple[float | None, float | None]:
    """Return the shortest seconds of one decode step by memory bandwidth and by arithmetic; None where unknown.

    ``(W_read + B * mean_length * kv) / bandwidth`` and ``2 * (P - P_embedding) * B / FLOP/s``.
    """
    read = llm_workloads.step_bytes(workload, batch, weights.read, cache_bytes)
    work = llm_workloads.flops_per_token(workload.shape) * batch
    return (
        read / peaks.bandwidth if peaks.bandwidth else None,
        work / peaks.flops if peaks.flops else None,
    )


def prefill_floor(workload: Workload, weights: Weights, peaks: Peaks) -> float | None:
    """Return the shortest seconds to the first token of one prompt on an idle card; None where nothing is known."""
    known = [
        prefill_flops(workload.shape, workload.prompt) / peaks.flops if peaks.flops else None,
        weights.read / peaks.bandwidth if peaks.bandwidth else None,
    ]
    return max((value for value in known if value is not None), default=None)


def efficiency(
    workload: Workload, batch: int, step_s: float, weights: Weights, peaks: Peaks, cache_bytes: int = 2
) -> dict[str, Any]:
    """Return ``mbu``, ``mfu``, ``roofline_tokens_per_s``, ``roofline_fraction``, ``regime``; and what is ``missing``.

    ``mbu`` and ``mfu`` are bandwidth and arithmetic of a step over the peaks, the fraction is the larger of both: the
    step against the floor that binds. Without both peaks nobody knows which binds: regime and roofline stay None.
    """
    memory, compute = floors(workload, batch, weights, peaks, cache_bytes)
    found: dict[str, Any] = {
        "mbu": memory / step_s if memory is not None else None,
        "mfu": compute / step_s if compute is not None else None,
        "roofline_tokens_per_s": None,
        "roofline_fraction": None,
        "regime": None,
        "missing": {},
    }
    if memory is None or compute is None:
        lacking = [what for what, value in (("bandwidth", memory), ("arithmetic", compute)) if value is None]
        why = f"the peak of {' and '.join(lacking)} of this device is not known"
        found["missing"] = {key: why for key, value in found.items() if value is None}
        return found
    floor = max(memory, compute)
    return {
        **found,
        "roofline_tokens_per_s": batch / floor,
        "roofline_fraction": floor / step_s,
        "regime": MEMORY if memory >= compute else COMPUTE,
    }


def hint(batch: int, mbu: float | None, graphs: bool, graphs_missing: str | None) -> str | None:
    """Return the likely cause where one sequence uses little of the memory bandwidth, else None."""
    if batch != 1 or mbu is None or mbu >= LEAST_MBU:
        return None
    if not graphs:
        cause = f"kernels are launched one by one, without CUDA graphs ({graphs_missing or 'none were captured'})"
    else:
        cause = "time between and in small kernels; look at clocks and throttle reasons of this result as well"
    return f"One sequence reaches {mbu:.0%} of the memory bandwidth. Likely cause: {cause}, not the memory."


def throughput(workload: Workload, batch: int, step_s: float, prefill_s: float) -> dict[str, float]:
    """Return tokens/s of a static batch.

    Args:
        step_s: mean seconds of a decode step.
        prefill_s: seconds in which the prompts of the whole batch were computed.

    Returns:
        ``output_tokens_per_s`` while decoding, ``batch / step``; and of the whole job, prompts included:
        ``job_output_tokens_per_s`` (what a client of a server would count) and ``total_tokens_per_s``.
    """
    job_s = prefill_s + (workload.output - 1) * step_s
    return {
        "output_tokens_per_s": batch / step_s,
        "job_output_tokens_per_s": batch * workload.output / job_s,
        "total_tokens_per_s": batch * (workload.prompt + workload.output) / job_s,
    }


def prefill_mfu(workload: Workload, batch: int, prefill_s: float, peaks: Peaks) -> float | None:
    """Return the part of the peak arithmetic that computing the prompts of a batch reached, attention included."""
    if not peaks.flops:
        return None
    return batch * prefill_flops(workload.shape, workload.prompt) / prefill_s / peaks.flops
