# SPDX-License-Identifier: Apache-2.0
"""Ceilings of speed: what memory bandwidth and arithmetic allow at best, and whether a wish lies below them.

Pure. A roofline: every step must read the weights it uses and the cache, and must do its arithmetic; it cannot be
faster than the slower of both at the catalogue's peaks. Real servers stay below. Nothing here is a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .sizing_formats import Format, weight_bytes
from .sizing_memory import Serving, kv_bytes
from .sizing_params import Parameters, count
from .sizing_shape import Shape
from .sizing_targets import Card

_TERA = 1e12
ATTAINABLE, UNATTAINABLE, UNKNOWN = "attainable", "unattainable", "unknown"


@dataclass(frozen=True)
class Peak:
    """Arithmetic of one GPU in FLOP/s, or why it is unknown; ``how`` says which row of the catalogue it is."""

    flops: float | None
    how: str


def peak_of(card: Card, form: Format) -> Peak:
    """Return the highest peak that the format could compute with, so that no ceiling is too low.

    Its own arithmetic where the card has it (fp8 from compute capability 8.9), else 16 bit: weight-only formats (int4,
    nf4, gguf) are widened to that first. Where the catalogue has no published 16-bit peak, its derivation ``SMs * FLOP
    per clock * boost clock`` is used and named. Cards without fast 16-bit arithmetic compute faster in fp32.
    """
    own = {"fp8": "fp8", "int8": "int8"}.get(form.arithmetic)
    if own == "fp8" and (card.capability or (0, 0)) < (8, 9):
        own = None
    fast = card.peaks.get(own) if own else None
    if fast:
        return Peak(fast * _TERA, f"{own} peak {fast:g} TFLOP/s dense")
    known = {kind: value for kind in ("bf16", "fp16", "fp32") if (value := card.peaks.get(kind))}
    if form.arithmetic == "fp32":
        known = {kind: value for kind, value in known.items() if kind == "fp32"}
    elif card.derived_tflops and "bf16" not in known and "fp16" not in known:
        return Peak(card.derived_tflops * _TERA, f"16-bit peak {card.derived_tflops:g} TFLOP/s from clock and SMs")
    elif "bf16" not in known and "fp16" not in known:
        known = {}
    if not known:
        return Peak(None, f"the catalogue has no arithmetic peak for {card.name}")
    kind = max(known, key=lambda one: known[one])
    return Peak(known[kind] * _TERA, f"{kind} peak {known[kind]:g} TFLOP/s dense")


def read_bytes(shape: Shape, form: Format, parameters: Parameters, concurrency: int) -> float:
    """Return the bytes of weights that one decode step of ``concurrency`` sequences reads.

    All matrices but the token embedding, of which a step looks up single rows. Of ``E`` routed experts with ``k`` per
    token, ``E * (1 - (1 - k/E) ** sequences)`` are touched when tokens choose evenly (derived); one sequence reads k.
    """
    share = 1.0
    if shape.moe:
        share = 1 - (1 - shape.moe.per_token / shape.moe.experts) ** concurrency
    experts = parameters.experts - parameters.routed * (1 - share)
    others = parameters.embedding - parameters.input_embedding + parameters.rest
    return weight_bytes(form, parameters.matrices, experts, others)


def decode_floor(shape: Shape, form: Format, serving: Serving, card: Card, prompt: int) -> dict[str, Any]:
    """Return the shortest time of one decode step while sequences grow from their prompt to the context.

    The cache is that of the mean length, ``(prompt + context) / 2``: short sequences are faster.

    ``bandwidth_s = (weights + sequences * cache) / (bandwidth * TP)``: the stages of a pipeline take their turns, so
    they shorten no token. ``compute_s = 2 * active parameters * sequences / (peak * TP)``. None where unknown.
    """
    parameters = count(shape)
    cache = serving.concurrency * kv_bytes(shape, mean_length(serving, prompt), serving.cache_bytes)
    bandwidth = card.bandwidth * serving.tensor_parallel if card.bandwidth else None
    peak = peak_of(card, form)
    work = 2 * (parameters.active - parameters.input_embedding) * serving.concurrency
    return {
        "bandwidth_s": (read_bytes(shape, form, parameters, serving.concurrency) + cache) / bandwidth
        if bandwidth
        else None,
        "compute_s": work / (peak.flops * serving.tensor_parallel) if peak.flops else None,
        "peak": peak.how,
    }


def mean_length(serving: Serving, prompt: int) -> int:
    """Return the mean tokens in the cache of a sequence that starts with ``prompt`` and ends at the context."""
    return (prompt + serving.context) // 2


def prefill_flops(shape: Shape, tokens: int) -> float:
    """Return the arithmetic of one prompt: ``2 * active * tokens`` and causal attention.

    Attention is ``2 * layers * heads * head_dim * tokens^2``, local layers attend to their window, MLA counts its own
    widths. The active parameters are those without embedding and lm_head: only the last token needs logits.
    """
    parameters = count(shape)
    matrices = parameters.active - parameters.embedding
    return 2.0 * matrices * tokens + sum(
        _attention_flops(shape, tokens, seen) * layers for seen, layers in _spans(shape, tokens)
    )


def prefill_floor(shape: Shape, form: Format, serving: Serving, card: Card, prompt: int) -> dict[str, Any]:
    """Return the shortest time to the first token of a prompt on idle GPUs: its arithmetic, or reading the weights."""
    gpus = serving.tensor_parallel * serving.pipeline_parallel
    peak, parameters = peak_of(card, form), count(shape)
    read = read_bytes(shape, form, parameters, prompt)
    return {
        "compute_s": prefill_flops(shape, prompt) / (peak.flops * gpus) if peak.flops else None,
        "bandwidth_s": read / (card.bandwidth * gpus) if card.bandwidth else None,
        "peak": peak.how,
    }


def slowest(floor: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the floor in seconds and what binds: ``memory bandwidth``, ``arithmetic`` or why it is unknown."""
    bandwidth, compute = floor["bandwidth_s"], floor["compute_s"]
    if bandwidth is None and compute is None:
        return None, "neither bandwidth nor arithmetic peak is known"
    if bandwidth is None:
        return compute, "arithmetic (bandwidth is unknown)"
    if compute is None or bandwidth >= compute:
        return bandwidth, "memory bandwidth" + ("" if compute is not None else " (arithmetic peak is unknown)")
    return compute, "arithmetic"


def ceiling(shape: Shape, form: Format, serving: Serving, card: Card, prompt: int) -> dict[str, Any]:
    """Return the ceilings of one deployment.

    ``tokens_per_s <= sequences * GPUs_in_all_stages / step``: stages of a pipeline can work on different sequences.

    Returns:
        ``tokens_per_s``, ``tpot_ms``, ``ttft_ms`` (None where unknown), ``tokens_bound``, ``ttft_bound``, ``peak``,
        and ``complete``: whether bandwidth and arithmetic are both known, so that both limits are in the ceilings.
    """
    step, bound = slowest(decode_floor(shape, form, serving, card, prompt))
    first, first_bound = slowest(prefill_floor(shape, form, serving, card, prompt))
    peak = peak_of(card, form)
    overlap = min(serving.pipeline_parallel, serving.concurrency)
    return {
        "tokens_per_s": serving.concurrency * overlap / step if step else None,
        "tpot_ms": step * 1e3 if step else None,
        "ttft_ms": first * 1e3 if first else None,
        "tokens_bound": bound,
        "ttft_bound": first_bound,
        "peak": peak.how,
        "complete": bool(card.bandwidth and peak.flops),
    }


def _spans(shape: Shape, tokens: int) -> list[tuple[int, int]]:
    """Tokens a query sees at most, and the number of layers of that kind."""
    if shape.window:
        return [(min(shape.window.window, tokens), shape.window.local_layers), (tokens, shape.window.global_layers)]
    return [(tokens, shape.cache_layers or shape.layers)]


def _attention_flops(shape: Shape, tokens: int, seen: int) -> float:
    """Scores and weighted values of one layer; pairs of a causal mask with ``seen`` tokens at most."""
    pairs = tokens * seen - seen * seen / 2
    width = shape.head_dim or 0
    widths = 2 * width if shape.mla is None else shape.mla.nope + shape.mla.rope + shape.mla.value
    return 2.0 * shape.heads * widths * pairs
