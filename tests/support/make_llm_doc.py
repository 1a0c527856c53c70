# SPDX-License-Identifier: Apache-2.0
"""Write the computed tables of docs/llm-benchmark.md between their markers; a test compares them with the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "module_utils"))

from rackwright import gpu_peak, llm_goal, llm_metrics, llm_workloads
from rackwright.catalogue_data import GPUS
from rackwright.sizing_memory import kv_bytes_per_token

DOCUMENT = ROOT / "docs/llm-benchmark.md"
GIB = 1 << 30
LOADS = [load for load in llm_workloads.WORKLOADS.values() if load.name != llm_workloads.DEFAULT_CPU]
#: What good software reaches of bandwidth and arithmetic, as public measurements show; for expectations, not verdicts.
USUAL_BANDWIDTH, USUAL_ARITHMETIC = 0.75, 0.60
CARDS = (
    *("h200-sxm-141gb", "h100-sxm5-80gb", "h100-pcie-80gb", "a100-sxm4-80gb", "a100-sxm4-40gb", "b200-sxm"),
    *("rtx-pro-6000-blackwell-server", "l40s", "rtx-6000-ada", "rtx-a6000", "rtx-5090", "rtx-4090", "rtx-3090"),
    *("a10", "l4", "rtx-3060"),
)


def rows(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *body])


def workload_table() -> str:
    """What each workload is and costs."""
    body = []
    for load in llm_workloads.WORKLOADS.values():
        shape, weights = load.shape, llm_metrics.weights_of(load, "bfloat16")
        body.append(
            [
                f"`{load.name}`",
                f"{shape.layers} x {shape.hidden}",
                f"{shape.heads}/{shape.kv_heads}",
                f"{llm_workloads.parameters(shape) / 1e9:.2f} G" if weights.total > 1e9 else "0.1 M",
                f"{weights.total / 1e9:.2f}" if weights.total > 1e9 else "0.0002",
                f"{weights.read / 1e9:.2f}" if weights.total > 1e9 else "0.0002",
                f"{kv_bytes_per_token(shape) / 1024:g}",
                f"{load.prompt} + {load.output} in {load.slot}",
            ]
        )
    return rows(
        [
            *("workload", "layers x hidden", "heads/kv", "parameters", "weights, GB", "read per step, GB"),
            *("cache per token, KiB", "prompt + answer in slot"),
        ],
        body,
    )


def attainability(card: str, load: llm_workloads.Workload) -> dict[str, Any]:
    """Ceiling and expectation of one card of the catalogue for the default goal."""
    row = next(row for row in GPUS if row["id"] == card)
    peak, missing = gpu_peak.peak_of(row["nvml_names"][0], row["pci_device_ids"][0], row["memory_gb"] * GIB)
    assert peak is not None, missing
    dtype = "bfloat16"
    peaks, weights = llm_metrics.peaks_of(peak, dtype), llm_metrics.weights_of(load, dtype)
    goal = llm_goal.Goal()
    found = llm_goal.ceiling(load, weights, peaks, row["memory_gb"] * GIB, goal)
    expected = None
    if found["batch"]:
        memory, compute = llm_metrics.floors(load, found["batch"], weights, peaks)
        slowest = max((memory or 0) / USUAL_BANDWIDTH, (compute or 0) / USUAL_ARITHMETIC)
        expected = found["batch"] / slowest if slowest else None
    return {**found, "expected": expected, "first_ms": llm_metrics.prefill_floor(load, weights, peaks)}


def _cell(found: dict[str, Any]) -> str:
    if not found["batch"]:
        return "does not fit"
    top, expected = found["tokens_per_s"], found["expected"]
    numbers = f"{found['batch']}: {top / 1e3:.1f} k, {expected / 1e3:.1f} k"
    goal = llm_goal.Goal().tokens_per_s
    word = "unattainable" if top < goal else "yes" if expected >= goal else "hard"
    return f"{numbers}, **{word}**"


def card_table() -> str:
    """Which cards can reach the default goal with which workload."""
    body = []
    for card in CARDS:
        found = [attainability(card, load) for load in LOADS]
        first = found[0]["first_ms"]
        floor = f"{first * 1e3:.0f}" if first else "unknown"
        body.append([card, *(_cell(one) for one in found), floor])
    return rows(["card", *(f"`{load.name}`" for load in LOADS), "TTFT at least, ms"], body)


def document_with(text: str) -> str:
    """Return the document with its tables made anew."""
    for name, block in {"workloads": workload_table(), "cards": card_table()}.items():
        begin, end = f"<!-- computed: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(document_with(DOCUMENT.read_text("utf-8")), "utf-8")
