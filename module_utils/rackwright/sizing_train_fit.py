# SPDX-License-Identifier: Apache-2.0
"""Can a model be trained on a node, and with how large a batch? Pure; data parallelism over the node's equal GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .sizing_fit import FITS, MARGINAL, NO, largest, on_gpus
from .sizing_formats import Format
from .sizing_memory import GIB
from .sizing_shape import Shape
from .sizing_speed import UNKNOWN
from .sizing_targets import Target
from .sizing_training import Training, training_memory

_MOST_SEQUENCE, _MOST_BATCH = 1 << 20, 1 << 12


def fit_training(shape: Shape, base: Format, training: Training, limit: float, target: Target) -> dict[str, Any]:
    """Return how training fits on one target, on the fewest GPUs.

    The data-parallel degree is the number of GPUs, or ``training.data_parallel`` where that is larger: then the node is
    one of several.

    Returns:
        ``target``, ``origin``, ``simulated``, ``card``, ``card_name``, ``link``, ``verdict``, ``reason``, ``gpus``,
        ``data_parallel``, ``memory`` (bytes per GPU by item), ``memory_total``, ``memory_limit``,
        ``largest_micro_batch``, ``largest_sequence`` and ``notes``.
    """
    result: dict[str, Any] = {
        "target": target.name,
        "origin": target.origin,
        "simulated": target.simulated,
        "card": target.card.id,
        "card_name": target.card.name,
        "link": target.link,
        "reason": None,
        "gpus": None,
        "data_parallel": None,
        "memory": None,
        "memory_total": target.card.memory,
        "memory_limit": None,
        "largest_micro_batch": None,
        "largest_sequence": None,
        "notes": [],
    }
    why = target.problem or (f"its parameters are unknown: {shape.unknown}" if shape.unknown else None)
    if why or target.card.memory is None or target.card.least_memory is None:
        return {**result, "verdict": UNKNOWN, "reason": why}
    allowed = target.card.memory * limit
    result["memory_limit"] = round(allowed)
    if target.card.capability and target.card.capability < (8, 0):
        result["notes"] = [
            "bf16 needs compute capability 8.0: train in fp16 with loss scaling, which takes the same memory"
        ]
    for gpus in target.counts:
        degree = max(gpus, training.data_parallel)
        asked = replace(training, data_parallel=degree)
        memory = training_memory(shape, base, asked)
        result.update(gpus=gpus, data_parallel=degree, memory=memory)
        if memory["total"] > allowed:
            continue
        marginal = memory["total"] > target.card.least_memory * limit
        reason = f"only where NVML shows {memory['total'] / limit / GIB:.1f} GiB or more" if marginal else None
        return {
            **result,
            "verdict": MARGINAL if marginal else FITS,
            "reason": reason,
            **_most(shape, base, asked, allowed),
        }
    total = result["memory"]["total"] / GIB
    reason = f"{total:.1f} GiB on {on_gpus(result['gpus'])}, {allowed / GIB:.1f} GiB allowed"
    return {**result, "verdict": NO, "reason": reason, "largest_micro_batch": 0, "largest_sequence": 0}


def _most(shape: Shape, base: Format, training: Training, allowed: float) -> dict[str, int]:
    def holds(**changed: Any) -> bool:
        return training_memory(shape, base, replace(training, **changed))["total"] <= allowed

    return {
        "largest_micro_batch": largest(_MOST_BATCH, lambda number: holds(micro_batch=number)),
        "largest_sequence": largest(_MOST_SEQUENCE, lambda tokens: holds(sequence=tokens)),
    }
