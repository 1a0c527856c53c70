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
    "gemm.a100_pcie": {"warn": 0.68, "fail": 0.60},
    "gemm.hopper": {"warn": 0.70, "fail": 0.62},
    "gemm.blackwell_dc": {"warn": 0.65, "fail": 0.55},
    "gemm.other": {"warn": 0.45, "fail": None},
    "memory.gddr": {"warn": 0.78, "fail": 0.70},
    "memory.gddr_ecc": {"warn": 0.70, "fail": 0.62},
    "memory.hbm2": {"warn": 0.72, "fail": 0.65},
    "memory.hbm3": {"warn": 0.62, "fail": 0.55},
}

#: A board of at most this many watts cannot hold the clock its peak is computed at, however healthy it is.
_SMALL_BOARD_W = 75

_PEAK_KEYS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def merged(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the gates with a site's own values over them; an unknown name is a mistake, not a new gate."""
    unknown = sorted(set(overrides) - set(GATES))
    if unknown:
        raise ValueError(f"unknown gate(s) {', '.join(unknown)}; known are {', '.join(sorted(GATES))}")
    return {name: {**gate, **overrides.get(name, {})} for name, gate in GATES.items()}


def gemm_gate(row: Mapping[str, Any]) -> str | None:
    """Return the name of the gate that a card's matrix products are held to, None where its peak says nothing.

    A board with half the power of its SXM sister cannot hold the same clock: it is never held to the sister's gate.
    """
    watts = row.get("tdp_w")
    if isinstance(watts, (int, float)) and 0 < watts <= _SMALL_BOARD_W:
        return None
    architecture, name = (str(row.get(key) or "").lower() for key in ("architecture", "id"))
    if name.startswith("a100"):
        return "gemm.a100_pcie" if "pcie" in name else "gemm.a100"
    if "hopper" in architecture and not any(part in ("pcie", "nvl") for part in name.split("-")):
        return "gemm.hopper"
    if "blackwell" in architecture and row.get("segment") == "dc" and "HBM" in str(row.get("memory_type") or ""):
        return "gemm.blackwell_dc"
    return "gemm.other"


def memory_gate(row: Mapping[str, Any], ecc: Any = None) -> str | None:
    """Return the name of the gate for device memory, or None for a kind of memory without published measurements.

    GDDR has no place of its own for check bits: with ECC enabled they travel with the data and cost bandwidth.
    """
    kind = str(row.get("memory_type") or "").upper()
    if kind.startswith("HBM3"):
        return "memory.hbm3"
    if kind.startswith("HBM2"):
        return "memory.hbm2"
    if not kind.startswith("GDDR"):
        return None
    return "memory.gddr_ecc" if ecc == "enabled" else "memory.gddr"


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
