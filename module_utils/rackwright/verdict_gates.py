# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU must be: fractions of its catalogue's peak, of its link, of its peers and of its own past. Pure.

The fractions are proposals from public measurements (docs/benchmarks.md names them per row). None was measured by this
project on its own hardware yet, so every judgement made with them says ``calibrated: false``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .measure import DTYPE_SHORT

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
    "pcie": {"warn": 0.80, "fail": 0.70},
    "p2p.nvlink": {"warn": 0.80, "fail": 0.70},
    "peers": {"warn": 0.95, "fail": 0.90},
    "history": {"warn": 0.95, "fail": 0.90},
}
_STEPS = ("warn", "fail")
#: A gate is a fraction; above the peak only what compresses or takes part in the network's sums can be.
_MOST = 2.0

#: Bytes that get through one lane in one direction, in GB/s: transfer rate and line code of the generation, less the
#: headers of packets only for generation 6, whose fixed frames have them built in.
_LANE_GBPS = {1: 0.25, 2: 0.5, 3: 15.75 / 16, 4: 31.5 / 16, 5: 63.0 / 16, 6: 121.0 / 16}

#: A board of at most this many watts cannot hold the clock its peak is computed at, however healthy it is.
_SMALL_BOARD_W = 75


def merged(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the gates with a site's own values over them.

    Raises:
        ValueError: an unknown name or step, or a value that is no fraction: a mistake, not a new gate.
    """
    unknown = sorted(set(overrides) - set(GATES))
    if unknown:
        raise ValueError(f"unknown gate(s) {', '.join(unknown)}; known are {', '.join(sorted(GATES))}")
    return {name: {**gate, **_own(name, overrides.get(name))} for name, gate in GATES.items()}


def _own(name: str, value: Any) -> dict[str, float | None]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or set(value) - set(_STEPS):
        raise ValueError(f"gate {name} is {value!r}, not a dictionary of {' and '.join(_STEPS)}")
    return {step: _limit(name, step, number) for step, number in value.items()}


def _limit(name: str, step: str, number: Any) -> float | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise ValueError(f"gate {name} has {step}: {number!r}, not a number")
    if not 0 < number <= _MOST:
        raise ValueError(f"gate {name} has {step}: {number:g}, not a fraction: write 0.7 for 70 %")
    return float(number)


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
    value = peaks.get(DTYPE_SHORT.get(dtype, ""))
    return float(value) if value else None


def step_for(fraction: float, gate: Mapping[str, float | None], steps: Sequence[str] = ("fail", "warn")) -> str:
    """Return ``fail``, ``warn`` or ``pass`` for a fraction of the peak, the peers or the past.

    Args:
        steps: which of both limits are held against it, the worst first.
    """
    for step in steps:
        limit = gate.get(step)
        if limit is not None and fraction < limit:
            return step
    return "pass"


def link_ceiling(generation: Any, width: Any) -> float | None:
    """Return the GB/s that a PCIe link can carry in one direction, None where generation or width is not known."""
    lane = _LANE_GBPS.get(generation) if isinstance(generation, int) else None
    return lane * width if lane and isinstance(width, int) and width > 0 else None


def nvlink_ceiling(total_gbps: Any, links: int, of_links: int) -> float | None:
    """Return the GB/s that some of a card's NVLinks carry in one direction, None where the card's total is not known.

    Args:
        total_gbps: of all its links and both directions, as the catalogue has it.
        links: those that lead to one peer.
        of_links: those that the card has.
    """
    if not isinstance(total_gbps, (int, float)) or links <= 0 or of_links <= 0:
        return None
    return float(total_gbps) / 2 * min(links, of_links) / of_links
