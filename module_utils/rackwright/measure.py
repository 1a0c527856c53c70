# SPDX-License-Identifier: Apache-2.0
"""From raw timings to numbers with a unit and a spread. Pure: floats in, plain records out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: A round-to-round difference above this fraction is evidence of a power cap, heat or a busy machine.
NOTABLE_SPREAD = 0.05
#: Bytes that one element of a benchmark's data type occupies.
DTYPE_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "int8": 1}
#: What the catalogue, and people, call the data types that models are held in.
DTYPE_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
#: Bytes of an element of the product where it is wider than the operands: fp8 gives bf16, int8 gives int32.
PRODUCT_BYTES = {"float8_e4m3fn": 2, "int8": 4}


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value at ``fraction`` (0 to 1) of an ascending sequence, interpolated between neighbours."""
    if not ordered:
        raise ValueError("percentile of no samples")
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction {fraction} is not between 0 and 1")
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]
    value = ordered[low] + (ordered[high] - ordered[low]) * (position - low)
    # rounding must not carry an interpolated value past the neighbours it lies between
    return min(max(value, ordered[low]), ordered[high])


def summarize(values: Sequence[float]) -> dict[str, float | int]:
    """Return count, median, 5th and 95th percentile, extremes and relative spread of measured values.

    ``spread`` is (p95 - p5) / median. Values that are not finite, or not above zero, are refused: a rate of nothing
    is a failed measurement, not a slow one.
    """
    if not values:
        raise ValueError("no samples were taken")
    if any(not math.isfinite(value) or value <= 0 for value in values):
        raise ValueError("a sample is not a positive finite number")
    ordered = sorted(float(value) for value in values)
    median, p5, p95 = (percentile(ordered, fraction) for fraction in (0.5, 0.05, 0.95))
    return {
        "samples": len(ordered),
        "median": median,
        "p5": p5,
        "p95": p95,
        "min": ordered[0],
        "max": ordered[-1],
        "spread": (p95 - p5) / median,
    }


def rates(seconds: Sequence[float], work: float, scale: float) -> list[float]:
    """Return ``work / time / scale`` per timing, e.g. FLOP and 1e12 for TFLOP/s. A timing of zero is refused."""
    if any(not math.isfinite(value) or value <= 0 for value in seconds):
        raise ValueError("a timing is not above zero: the clock is too coarse for this shape")
    return [work / value / scale for value in seconds]


def gemm_flop(m: int, n: int, k: int) -> int:
    """Return the floating point operations of one matrix product (a multiply and an add per term)."""
    return 2 * m * n * k


def gemm_bytes(m: int, n: int, k: int, dtype: str) -> int:
    """Return the device memory that A, B and C of one product occupy."""
    operand = DTYPE_BYTES[dtype]
    return (m * k + k * n) * operand + m * n * PRODUCT_BYTES.get(dtype, operand)


#: Bytes moved per byte of buffer: a read only reads, a copy reads and writes, a triad reads two and writes one.
TRAFFIC = {"copy": 2, "read": 1, "triad": 3}


def event_fractions(before: Mapping[str, Any], after: Mapping[str, Any], elapsed_s: float) -> dict[str, float]:
    """Return, per event reason, the fraction of the elapsed time it was active, from counters in nanoseconds.

    Reasons without a number on both sides are left out, as are counters that went backwards (driver reloaded).
    """
    fractions: dict[str, float] = {}
    if elapsed_s <= 0:
        return fractions
    for reason, start in before.items():
        end = after.get(reason)
        if not _is_count(start) or not _is_count(end) or end < start:
            continue
        fractions[reason] = min(1.0, (end - start) / 1e9 / elapsed_s)
    return fractions


def sampled_fractions(samples: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return, per event reason seen, the fraction of the samples that carried it."""
    counts: dict[str, int] = {}
    for reasons in samples:
        for reason in set(reasons):
            counts[reason] = counts.get(reason, 0) + 1
    return {reason: count / len(samples) for reason, count in sorted(counts.items())}


def series(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return min, median and max of sampled readings, or None when no sample had one."""
    known = sorted(float(value) for value in values if value is not None and math.isfinite(value))
    if not known:
        return None
    return {"min": known[0], "median": percentile(known, 0.5), "max": known[-1]}


def is_measurement(result: Mapping[str, Any]) -> bool:
    """True when a result's value and its whole distribution are finite numbers above zero."""
    keys = ("value", "median", "p5", "p95", "min", "max")
    return all(_is_positive(result.get(key)) for key in keys)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
