# SPDX-License-Identifier: Apache-2.0
"""The results of the suite ``llm_training``: what was measured, or not, in the form that all suites share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import llm_training_plan, measure
from .llm_training_plan import Size, Technique
from .torch_bench import Bench, single

SUITE = "llm_training"
#: ``build(bench, layers)`` returns the model in fp32 on the bench's device and its blocks.
Build = Callable[[Bench, int], "tuple[Any, list[Any]]"]


@dataclass(frozen=True)
class Workload:
    """A named model shape, how to build it with fewer layers, and the size that was chosen for the device.

    ``agree`` makes of this process's seconds those that all processes of the group count with.
    """

    name: str
    shape: Any
    build: Build
    size: Size
    agree: Callable[[float], float] = float

    @property
    def label(self) -> str:
        """Name of what is trained, with the number of layers where it is not the whole model."""
        return llm_training_plan.workload_name(self.name, self.shape.layers, self.size.layers)


@dataclass
class Reference:
    """The plain step that the others are held against: its result's name, tokens/s and peak memory."""

    name: str | None = None
    tokens_per_s: float | None = None
    peak_bytes: int | None = None


@dataclass
class Run:
    """What was measured of one technique."""

    seconds: list[float]
    losses: tuple[float, float]
    peak_bytes: int | None
    reserved_bytes: int | None
    watched: dict[str, Any]
    skipped: int
    warmup_steps: int


def reference_of(entry: dict[str, Any]) -> Reference:
    """Return what others are held against, from a result; nothing where there is none."""
    if "details" not in entry:
        return Reference()
    return Reference(entry["name"], entry["value"] or None, entry["details"]["peak_memory_bytes"])


def finished(bench: Bench, workload: Workload, technique: Technique, reference: Reference, run: Run) -> dict[str, Any]:
    """Return the result of a technique that ran: tokens/s of all its devices, MFU, peak memory, both ratios."""
    size, ranks = workload.size, technique.ranks
    numbers = measure.summarize(measure.rates(run.seconds, size.tokens * ranks, 1.0))
    key = measure.DTYPE_SHORT[technique.dtype]
    peak_tflops = bench.peak_tflops.get(key)
    flop = llm_training_plan.flops_per_token(workload.shape, size.layers, size.sequence)
    missing = dict(run.watched.get("missing") or {})
    if run.peak_bytes is None:
        missing["details.peak_memory_bytes"] = "the allocator of a CPU keeps no peak"
    if not peak_tflops:
        missing["details.mfu"] = bench.peak_missing or f"the catalogue has no {key} peak of this card"
    clocks = run.watched.get("clocks")
    details = {
        **_details(workload, technique, reference),
        "state": "measured",
        "mfu": llm_training_plan.mfu(flop, numbers["median"], peak_tflops, ranks),
        "flop_per_token": flop,
        "peak_memory_bytes": run.peak_bytes,
        "peak_reserved_bytes": run.reserved_bytes,
        "peak_device_bytes": ((clocks or {}).get("memory_used_bytes") or {}).get("max"),
        "loss": {"first": run.losses[0], "last": run.losses[1]},
        "skipped_steps": run.skipped,
        "tokens_ratio": llm_training_plan.ratio(numbers["median"], reference.tokens_per_s),
        "memory_ratio": llm_training_plan.ratio(run.peak_bytes, reference.peak_bytes),
    }
    result = _result(bench, workload, technique, details)
    result.update(numbers, value=numbers["median"], median_s=sorted(run.seconds)[len(run.seconds) // 2])
    result.update(clocks=clocks, throttle=run.watched.get("throttle"), missing=missing)
    result["conditions"]["warmup_steps"] = run.warmup_steps
    return result


def out_of_memory(
    bench: Bench, workload: Workload, technique: Technique, reference: Reference, reason: str
) -> dict[str, Any]:
    """Return the result of a technique that does not fit: zero tokens per second, everything else unknown."""
    unknown = ("mfu", "peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes", "loss", "skipped_steps")
    details = {
        **_details(workload, technique, reference),
        "state": "out_of_memory",
        **dict.fromkeys((*unknown, "tokens_ratio", "memory_ratio")),
    }
    result = _result(bench, workload, technique, details)
    result.update(single(0.0), median_s=None, clocks=None, throttle=None)
    nothing = "nothing was timed"
    result["missing"] = {"value": f"it does not fit into the memory: {reason}", "clocks": nothing, "throttle": nothing}
    return result


def _details(workload: Workload, technique: Technique, reference: Reference) -> dict[str, Any]:
    total, _embedding = llm_training_plan.parameters(workload.shape, workload.size.layers)
    return {
        "workload": workload.name,
        "layers": workload.size.layers,
        "layers_of_workload": workload.shape.layers,
        "parameters": total,
        "batch": workload.size.batch,
        "sequence": workload.size.sequence,
        "technique": technique.name,
        "techniques": technique.record(),
        "compared_with": reference.name,
    }


def _result(bench: Bench, workload: Workload, technique: Technique, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "suite": SUITE,
        "name": f"llm_train_{workload.label}_{technique.name}",
        "unit": "tokens/s",
        "device": "node" if technique.ranks > 1 else bench.device,
        "device_name": bench.info.get("name"),
        "dtype": technique.dtype,
        "shape": [workload.size.batch * technique.ranks, workload.size.sequence],
        "level": bench.level_name,
        "conditions": {"optimizer": "AdamW", "weights": "float32", "data": "random tokens, one fixed batch"},
        "details": details,
    }
