# SPDX-License-Identifier: Apache-2.0
"""Can a wished throughput or latency be met at all? Above a ceiling it is unattainable; below, nothing is promised.

Pure. ``p99_ms`` is held against the time to the first token and against each further token: a whole answer has no limit
of its own, and no load makes a first token faster than on idle GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .sizing_formats import Format
from .sizing_memory import Serving, kv_bytes
from .sizing_shape import Shape
from .sizing_speed import ATTAINABLE, UNATTAINABLE, UNKNOWN, ceiling, mean_length
from .sizing_targets import Card

GOALS = ("tokens_per_s", "p99_ms", "ttft_ms", "tpot_ms", "memory")


def judge(
    shape: Shape,
    form: Format,
    goal: Mapping[str, float],
    card: Card,
    serving: Serving,
    sequences: int,
    prompt: int,
) -> dict[str, Any]:
    """Return ``verdict`` (attainable, unattainable, unknown) and ``terms``, one per goal, with the ceiling that binds.

    Args:
        goal: wished ``tokens_per_s``, ``ttft_ms``, ``tpot_ms``, ``p99_ms``; ``memory`` is the limit and already kept.
        sequences: the most that fit under the memory limit: more tokens per second take more of them.
        prompt: tokens of the prompt whose first answer is timed.
    """
    terms: list[dict[str, Any]] = []
    needed = serving.concurrency
    if "tokens_per_s" in goal:
        term, needed = _throughput(shape, form, goal["tokens_per_s"], card, serving, max(1, sequences), prompt)
        terms.append(term)
    each = min(value for key, value in goal.items() if key in ("tpot_ms", "p99_ms")) if _has(goal, "tpot_ms") else None
    if each is not None:
        terms.append(_per_token(shape, form, each, card, replace(serving, concurrency=needed), prompt))
    first = min(value for key, value in goal.items() if key in ("ttft_ms", "p99_ms")) if _has(goal, "ttft_ms") else None
    if first is not None:
        terms.append(_first_token(shape, form, first, card, serving, prompt))
    known = ceiling(shape, form, serving, card, prompt)
    if not known["complete"]:
        terms = [_doubted(term, known["peak"]) for term in terms]
    verdicts = [term["verdict"] for term in terms]
    order = (UNATTAINABLE, UNKNOWN, ATTAINABLE)
    return {"verdict": next((one for one in order if one in verdicts), ATTAINABLE), "terms": terms}


def _doubted(term: dict[str, Any], why: str) -> dict[str, Any]:
    """With one of two limits missing nothing is known to be attainable; above the other it still is not."""
    if term["verdict"] != ATTAINABLE:
        return term
    return {**term, "verdict": UNKNOWN, "because": f"{term['because']}; {why}, so the ceiling may be lower"}


def _has(goal: Mapping[str, float], name: str) -> bool:
    return name in goal or "p99_ms" in goal


def _throughput(
    shape: Shape, form: Format, wished: float, card: Card, serving: Serving, sequences: int, prompt: int
) -> tuple[dict[str, Any], int]:
    """The ceiling at the most sequences that fit, and how many sequences reach the wish."""

    def at(number: int) -> dict[str, Any]:
        return ceiling(shape, form, replace(serving, concurrency=number), card, prompt)

    top = at(sequences)
    best = top["tokens_per_s"]
    if best is None:
        return _term("tokens_per_s", wished, None, UNKNOWN, top["tokens_bound"]), serving.concurrency
    if best < wished:
        return _term(
            "tokens_per_s", wished, best, UNATTAINABLE, _what_binds(shape, wished, card, serving, prompt, top)
        ), sequences
    low, high = 1, sequences
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle)["tokens_per_s"] >= wished else (middle + 1, high)
    return _term("tokens_per_s", wished, best, ATTAINABLE, f"from {low} sequences at once; {sequences} fit"), low


def _what_binds(shape: Shape, wished: float, card: Card, serving: Serving, prompt: int, top: Mapping[str, Any]) -> str:
    """Which term keeps the ceiling down: arithmetic, reading the cache, or the memory that holds no more sequences."""
    if top["tokens_bound"].startswith("arithmetic"):
        return f"arithmetic: {top['peak']}"
    gpus = serving.tensor_parallel * serving.pipeline_parallel
    cache = kv_bytes(shape, mean_length(serving, prompt), serving.cache_bytes)
    if card.bandwidth and card.bandwidth * gpus / cache < wished:
        return f"memory bandwidth: a cache of {mean_length(serving, prompt)} tokens on average is read for every token"
    return "memory: more sequences at once would be needed than fit"


def _per_token(shape: Shape, form: Format, wished: float, card: Card, serving: Serving, prompt: int) -> dict[str, Any]:
    found = ceiling(shape, form, serving, card, prompt)
    floor = found["tpot_ms"]
    if floor is None:
        return _term("tpot_ms", wished, None, UNKNOWN, found["tokens_bound"])
    verdict = ATTAINABLE if floor <= wished else UNATTAINABLE
    return _term(
        "tpot_ms", wished, floor, verdict, f"{found['tokens_bound']}, {serving.concurrency} sequence(s) at once"
    )


def _first_token(
    shape: Shape, form: Format, wished: float, card: Card, serving: Serving, prompt: int
) -> dict[str, Any]:
    found = ceiling(shape, form, serving, card, prompt)
    floor = found["ttft_ms"]
    if floor is None:
        return _term("ttft_ms", wished, None, UNKNOWN, found["ttft_bound"])
    verdict = ATTAINABLE if floor <= wished else UNATTAINABLE
    return _term("ttft_ms", wished, floor, verdict, f"{found['ttft_bound']}, a prompt of {prompt} tokens on idle GPUs")


def _term(name: str, wished: float, limit: float | None, verdict: str, because: str) -> dict[str, Any]:
    return {"goal": name, "wished": wished, "limit": limit, "verdict": verdict, "because": because}
