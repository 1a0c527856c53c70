# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU must be: fractions of its catalogue's peak, by kind of card. Pure.

The fractions are proposals from public measurements (docs/benchmarks.md names them per row). None was measured by this
project on its own hardware yet, so every judgement made with them says ``calibrated: false``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CALIBRATED = False

#: Fraction of the peak below which a result warns or fails; None means that this step does not exist.
GATES: dict[str, dict[str, float | None]] = {
    "gemm.a100": {"warn": 0.75, "fail": 0.65},
    "gemm.hopper": {"warn": 0.70, "fail": 0.62},
    "gemm.blackwell_dc": {"warn": 0.65, "fail": 0.55},
    "gemm.other": {"warn": None, "fail": 0.45},
    "memory.gddr": {"warn": 0.78, "fail": 0.70},
    "memory.hbm2": {"warn": 0.72, "fail": 0.65},
    "memory.hbm3": {"warn": 0.62, "fail": 0.55},
}

_PEAK_KEYS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def merged(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the gates with a site's own values over them; an unknown name is a mistake, not a new gate."""
    unknown = sorted(set(overrides) - set(GATES))
    if unknown:
        raise ValueError(f"unknown gate(s) {', '.join(unknown)}; known are {', '.join(sorted(GATES))}")
    return {name: {**gate, **overrides.get(name, {})} for name, gate in GATES.items()}


def gemm_gate(row: Mapping[str, Any]) -> str:
    """Return the name of the gate that a card's matrix products are held to."""
    architecture = str(row.get("architecture") or "").lower()
    if str(row.get("id") or "").startswith("a100"):
        return "gemm.a100"
    if "hopper" in architecture:
        return "gemm.hopper"
    if "blackwell" in architecture and row.get("segment") == "dc" and "HBM" in str(row.get("memory_type") or ""):
        return "gemm.blackwell_dc"
    return "gemm.other"


def memory_gate(row: Mapping[str, Any]) -> str | None:
    """Return the name of the gate for device memory, or None for a kind of memory without published measurements."""
    kind = str(row.get("memory_type") or "").upper()
    if kind.startswith("HBM3"):
        return "memory.hbm3"
    if kind.startswith("HBM2"):
        return "memory.hbm2"
    return "memory.gddr" if kind.startswith("GDDR") else None


def peak_tflops(row: Mapping[str, Any], dtype: str) -> float | None:
    """Return the dense peak of a data type, or None where the catalogue does not know it."""
    peaks = row.get("peak_dense_tflops") or {}
    value = peaks.get(_PEAK_KEYS.get(dtype, ""))
    return float(value) if value else None


def step_for(fraction: float, gate: Mapping[str, float | None]) -> str:
    """Return ``fail``, ``warn`` or ``pass`` for a fraction of the peak."""
    for step in ("fail", "warn"):
        limit = gate.get(step)
        if limit is not None and fraction < limit:
            return step
    return "pass"
