# SPDX-License-Identifier: Apache-2.0
"""Our numbers beside those of other tools, and repeated runs beside each other. Pure: records in, rows of text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rackwright import measure

#: Ours and theirs are the same work on the same card: more than this apart is a question.
NOTABLE = 0.10
#: Repeated runs of one number: more than this apart is a question.
NOTABLE_SPREAD = 0.05
COLUMNS = ("what", "unit", "ours", "spread", "theirs", "their spread", "ratio", "of peak")
ROOFLINE_COLUMNS = ("suite", "what", "unit", "value", "fraction", "of")
REPEAT_COLUMNS = ("suite", "what", "unit", "runs", "median", "least", "most", "spread", "within a run")


def median(values: Sequence[float]) -> float:
    """Return the middle value, of an even number the mean of the two in the middle.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("median of nothing")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> float | None:
    """Return (most - least) / median; None for a single value, which says nothing about repetition."""
    if len(values) < 2:
        return None
    middle = median(values)
    return (max(values) - min(values)) / abs(middle) if middle else None


def collect(results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return the results by suite and name, in the order in which they were first seen."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        found.setdefault((str(result["suite"]), str(result["name"])), []).append(result)
    return found


def side_by_side(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], peaks: Mapping[str, float | None]
) -> list[dict[str, str]]:
    """Return one row per name of ours, with dashes where nobody else measured the same.

    Args:
        ours, theirs: results of several rounds; equal names are the same work.
        peaks: by name, what the catalogue says the card can do in the same unit; absent or None where it says nothing.
    """
    rivals = {name: found for (_, name), found in collect(theirs).items()}
    return [_pair(name, found, rivals.get(name, ()), peaks.get(name)) for (_, name), found in collect(ours).items()]


def _pair(
    name: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], peak: float | None
) -> dict[str, str]:
    mine, other = [float(one["value"]) for one in ours], [float(one["value"]) for one in theirs]
    ratio = median(mine) / median(other) if any(other) else None
    notes = [str(one["note"]) for one in theirs[-1:] if one.get("note")]
    if ratio is not None and abs(ratio - 1) > NOTABLE:
        notes.insert(0, f"more than {percent(NOTABLE, 0)} apart")
    return {
        "what": name,
        "unit": str(ours[0]["unit"]),
        "ours": number(median(mine)),
        "spread": percent(spread(mine)),
        "theirs": number(median(other)) if other else "-",
        "their spread": percent(spread(other)),
        "ratio": "-" if ratio is None else f"{ratio:.3f}",
        "of peak": percent(median(mine) / peak if peak else None),
        "note": "; ".join(notes),
    }


def repeatability(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Return one row per number of any run: how far the runs lie apart, beside the spread within one."""
    every = collect([result for run in runs for result in run])
    return [_repeated(suite, name, found, len(runs)) for (suite, name), found in every.items()]


def _repeated(suite: str, name: str, found: Sequence[Mapping[str, Any]], runs: int) -> dict[str, str]:
    values = [float(one["value"]) for one in found]
    apart = spread(values)
    notes = []
    if len(found) < runs:
        notes.append(f"missing in {runs - len(found)} of {runs} runs")
    if apart is not None and apart > NOTABLE_SPREAD:
        notes.append(f"runs more than {percent(NOTABLE_SPREAD, 0)} apart")
    inside = [float(one["spread"]) for one in found if one.get("spread") is not None]
    return {
        "suite": suite,
        "what": name,
        "unit": str(found[0]["unit"]),
        "runs": str(len(found)),
        "median": number(median(values)),
        "least": number(min(values)),
        "most": number(max(values)),
        "spread": percent(apart),
        "within a run": percent(median(inside) if inside else None),
        "note": "; ".join(notes),
    }


def number(value: float) -> str:
    """Return four significant digits, and whole numbers above a thousand."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction in percent, or a dash where it is not known."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def notes(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what is to be said of single rows, below their table."""
    return [f"{row['what']}: {row['note']}" for row in rows if row.get("note")]


def peaks_by_name(results: Sequence[Mapping[str, Any]], peak: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return the catalogue's peak per result, in its unit, from the record of ``gpu_peak.peak_of``."""
    return {str(result["name"]): peak_of(result, peak) for result in results if result["suite"] in _HELD_AGAINST}


#: Suites whose values are held against a peak of the catalogue: by data type, or the memory's bandwidth.
_HELD_AGAINST = ("gemm", "burn", "memory")
_PEAK_KEYS = {**measure.DTYPE_SHORT, "tf32": "tf32", "float8_e4m3fn": "fp8", "int8": "int8"}


def peak_of(result: Mapping[str, Any], peak: Mapping[str, Any] | None) -> float | None:
    """Return what the catalogue says the card can do at best of what a result measured; None where it does not say."""
    if result["suite"] == "memory":
        return (peak or {}).get("bandwidth_gbps")
    tflops: Mapping[str, Any] = (peak or {}).get("tflops") or {}
    return tflops.get(_PEAK_KEYS.get(str(result.get("dtype")), ""))


def roofline(result: Mapping[str, Any], peak: Mapping[str, Any] | None) -> tuple[float | None, str]:
    """Return which fraction of its limit a result reached, and what that limit is."""
    details: Mapping[str, Any] = result.get("details") or {}
    if result["suite"] in _HELD_AGAINST:
        best = peak_of(result, peak)
        return (float(result["value"]) / best if best else None), "peak of the catalogue"
    if result["suite"] == "pcie":
        wire = details.get("link_gbps")
        return (float(result["value"]) / wire if wire else None), "negotiated link"
    if "roofline_fraction" in details:
        return details.get("roofline_fraction"), "memory or arithmetic of the step"
    if result["suite"] == "llm_training":
        return details.get("mfu"), "arithmetic (MFU)"
    return None, ""


def rooflines(results: Sequence[Mapping[str, Any]], peak: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return one row per result that has a limit."""
    rows = []
    for result in results:
        fraction, limit = roofline(result, peak)
        if limit:
            row = {"suite": str(result["suite"]), "what": str(result["name"]), "unit": str(result["unit"])}
            rows.append({**row, "value": number(float(result["value"])), "fraction": percent(fraction), "of": limit})
    return rows
