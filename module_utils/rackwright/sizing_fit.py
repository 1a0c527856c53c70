# SPDX-License-Identifier: Apache-2.0
"""Does a model fit, on how many GPUs and how divided, what is the most it can hold, and can a wish be met?

Pure. The fewest GPUs win, and among their splits tensor parallelism before pipeline parallelism: it is the one that
shortens a token's time. ``bisection`` finds the largest context and batch: memory only grows with either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .sizing_formats import Format
from .sizing_goal import GOALS, judge
from .sizing_memory import GIB, Serving, serving_memory, stage_weights
from .sizing_shape import Shape, refuse
from .sizing_speed import UNATTAINABLE, UNKNOWN, ceiling
from .sizing_targets import Card, Target

FITS, MARGINAL, NO = "fits", "marginal", "does not fit"
#: Where a search for context or sequences ends; nothing that is served today needs more.
_MOST_CONTEXT, _MOST_SEQUENCES = 1 << 21, 1 << 16
#: Number of GPUs up to which the count that would do is looked for.
_MOST_GPUS = 64


@dataclass(frozen=True)
class Wish:
    """What somebody wants to serve.

    Attributes:
        serving: context, concurrency, cache and overhead; the split is chosen here unless ``forced``.
        limit: part of a GPU's memory that may be used, 0 to 1.
        prompt: tokens of the prompt whose first answer is timed.
        forced: (tensor, pipeline) degrees that somebody fixed.
        goal: wished ``tokens_per_s``, ``ttft_ms``, ``tpot_ms``, ``p99_ms`` and ``memory``; all optional.
        cache_name: the cache's type as written, ``bf16`` or ``fp8``.
    """

    serving: Serving
    limit: float = 0.80
    prompt: int = 512
    forced: tuple[int | None, int | None] = (None, None)
    goal: Mapping[str, float] = field(default_factory=dict)
    cache_name: str = "bf16"


def check_wish(wish: Wish) -> Wish:
    """Return the wish with its memory goal as the limit.

    Raises:
        InvalidInputError: a goal is unknown or not positive, or the limit is not between 0 and 1.
    """
    for name, value in wish.goal.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name not in GOALS or not number or value <= 0:
            cause = f"{value!r} is no positive number" if name in GOALS else "it is not known"
            raise refuse(f"fit_goal.{name}", cause, f"Use numbers for {', '.join(GOALS)}", list(GOALS), value)
    limit = wish.goal.get("memory", wish.limit)
    if not 0 < limit <= 1:
        raise refuse("the memory limit", f"{limit!r} is no part of a GPU's memory", "Use a number like 0.8", 0.8, limit)
    if wish.serving.context < 1 or wish.serving.concurrency < 1:
        raise refuse(
            "fit_context and fit_concurrency",
            f"{wish.serving.context} and {wish.serving.concurrency} must be at least 1",
            "Correct them",
        )
    if not 1 <= wish.prompt <= wish.serving.context:
        raise refuse(
            "the prompt", f"{wish.prompt} tokens are not within the context of {wish.serving.context}", "Shorten it"
        )
    return replace(wish, limit=limit)


def split_problem(shape: Shape, tensor_parallel: int, pipeline_parallel: int = 1) -> str | None:
    """Return why a model cannot be divided so, or None (vLLM 0.33.0 parallel config)."""
    if shape.heads % tensor_parallel:
        return f"{shape.heads} heads cannot be divided among {tensor_parallel} GPUs"
    if shape.mla is None:
        more, less = max(shape.kv_heads, tensor_parallel), min(shape.kv_heads, tensor_parallel)
        if more % less:
            return f"{shape.kv_heads} kv_heads cannot be divided or repeated among {tensor_parallel} GPUs"
    widths = [shape.intermediate] if shape.moe is None or shape.moe.first_dense else []
    widths += [shape.moe.intermediate] if shape.moe else []
    uneven = [width for width in widths if width and width % tensor_parallel]
    if uneven:
        return f"an MLP of {uneven[0]} cannot be divided among {tensor_parallel} GPUs"
    return (
        f"{shape.layers} layers are fewer than {pipeline_parallel} stages" if pipeline_parallel > shape.layers else None
    )


def splits(shape: Shape, gpus: int, forced: tuple[int | None, int | None] = (None, None)) -> list[tuple[int, int]]:
    """Return the possible (tensor, pipeline) degrees on exactly ``gpus`` GPUs, widest tensor parallelism first."""
    pairs = [(tensor, gpus // tensor) for tensor in range(gpus, 0, -1) if gpus % tensor == 0]
    wanted = [pair for pair in pairs if all(want in (None, have) for want, have in zip(forced, pair))]
    return [pair for pair in wanted if split_problem(shape, *pair) is None]


def fit(shape: Shape, form: Format, wish: Wish, target: Target) -> dict[str, Any]:
    """Return how the model fits on one target.

    Returns:
        ``target``, ``origin``, ``simulated``, ``card``, ``link``, ``verdict`` (``fits``, ``marginal``, ``does not fit``
        or ``unknown``), ``reason``, ``gpus``, ``tensor_parallel``, ``pipeline_parallel``, ``memory`` (bytes per GPU by
        item, or None), ``memory_total``, ``memory_limit``, ``largest_context``, ``largest_concurrency``, ``ceiling``,
        ``goal`` and ``notes``.
    """
    base = {
        "target": target.name,
        "origin": target.origin,
        "simulated": target.simulated,
        "card": target.card.id,
        "card_name": target.card.name,
        "link": target.link,
    }
    why = target.problem or (f"its parameters are unknown: {shape.unknown}" if shape.unknown else None)
    if why or target.card.memory is None:
        return {**base, **_empty(), "verdict": UNKNOWN, "reason": why}
    limit = target.card.memory * wish.limit
    wished = wish.forced[0] and wish.forced[1] and wish.forced[0] * wish.forced[1]
    counts = [wished] if wished and wished <= target.counts[-1] else target.counts
    best: dict[str, Any] | None = None
    tried: list[tuple[int, Serving, int]] = []
    for gpus in counts:
        for tensor, pipeline in splits(shape, gpus, wish.forced):
            serving = replace(wish.serving, tensor_parallel=tensor, pipeline_parallel=pipeline)
            total = serving_memory(shape, form, serving)["total"]
            tried.append((total, serving, gpus))
            if total <= limit:
                found = {**base, **_fitting(shape, form, wish, target, serving)}
                if not wish.goal or found["goal"]["verdict"] != UNATTAINABLE:
                    return found
                # of what cannot meet the goal, the most GPUs with the widest tensor parallelism come closest
                best = found if best is None or found["gpus"] > best["gpus"] else best
    if best is not None:
        return best
    return {**base, **_misfit(shape, form, wish, target, tried)}


def largest(most: int, fits_with: Callable[[int], bool]) -> int:
    """Return the largest number up to ``most`` that fits, 0 where not even 1 does; ``fits_with`` must be monotonic."""
    if not fits_with(1):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits_with(middle) else (low, middle - 1)
    return low


def requirements(card: Card, form: Format, cache_name: str, tensor_parallel: int, shape: Shape) -> list[str]:
    """Return what the card lacks for the format, and what a split costs; sentences."""
    found, has = [], card.capability
    shown = f"{has[0]}.{has[1]}" if has else "unknown"
    if has and has < (8, 0) and ("bf16" in (form.name, cache_name)):
        found.append(
            f"bf16 needs compute capability 8.0 and this GPU has {shown}: use fp16, which takes the same memory"
        )
    if has and has < (8, 9) and "fp8" in (form.name, cache_name):
        found.append(
            f"fp8 arithmetic needs compute capability 8.9 and this GPU has {shown}: fp8 only saves memory there"
        )
    if shape.mla and tensor_parallel > 1:
        found.append("the latent cache is on every GPU: tensor parallelism divides the weights, not the cache")
    elif tensor_parallel > shape.kv_heads:
        times = tensor_parallel // shape.kv_heads
        found.append(f"{shape.kv_heads} kv_heads on {tensor_parallel} GPUs: each is kept {times} times")
    return found


def on_gpus(number: int) -> str:
    """``its GPU`` or ``each of 4 GPUs``."""
    return "its GPU" if number == 1 else f"each of {number} GPUs"


def _empty() -> dict[str, Any]:
    keys = ("gpus", "tensor_parallel", "pipeline_parallel", "memory", "memory_total", "memory_limit")
    more = ("largest_context", "largest_concurrency", "ceiling", "goal")
    return {**dict.fromkeys((*keys, *more)), "notes": []}


def _fitting(shape: Shape, form: Format, wish: Wish, target: Target, serving: Serving) -> dict[str, Any]:
    card, memory = target.card, serving_memory(shape, form, serving)
    assert card.memory is not None  # the caller looked
    assert card.least_memory is not None
    limit, least = card.memory * wish.limit, card.least_memory * wish.limit
    weights = stage_weights(shape, form, serving.tensor_parallel, serving.pipeline_parallel)

    def holds(changed: Serving) -> bool:
        return serving_memory(shape, form, changed, weights)["total"] <= limit

    context = largest(shape.context or _MOST_CONTEXT, lambda tokens: holds(replace(serving, context=tokens)))
    sequences = largest(_MOST_SEQUENCES, lambda number: holds(replace(serving, concurrency=number)))
    notes = requirements(card, form, wish.cache_name, serving.tensor_parallel, shape)
    if shape.context and serving.context > shape.context:
        notes.append(f"the context of {serving.context} is beyond the model's own {shape.context}")
    marginal = memory["total"] > least
    reason = None
    if marginal:
        needed = memory["total"] / wish.limit / GIB
        shown = f"{card.least_memory / GIB:.1f} to {card.memory / GIB:.1f} GiB"
        reason = f"only where NVML shows {needed:.1f} GiB or more; boards of this size show {shown}"
    found = {
        "verdict": MARGINAL if marginal else FITS,
        "reason": reason,
        "gpus": serving.tensor_parallel * serving.pipeline_parallel,
        "tensor_parallel": serving.tensor_parallel,
        "pipeline_parallel": serving.pipeline_parallel,
        "memory": memory,
        "memory_total": card.memory,
        "memory_limit": round(limit),
        "largest_context": context,
        "largest_concurrency": sequences,
        "ceiling": ceiling(shape, form, serving, card, wish.prompt),
        "notes": notes,
    }
    return {
        **found,
        "goal": judge(shape, form, wish.goal, card, serving, sequences, wish.prompt) if wish.goal else None,
    }


def _misfit(
    shape: Shape, form: Format, wish: Wish, target: Target, tried: list[tuple[int, Serving, int]]
) -> dict[str, Any]:
    card = target.card
    assert card.memory is not None
    empty = _empty()
    if not tried:
        degree = wish.forced[0] or target.counts[-1]
        why = split_problem(shape, degree, wish.forced[1] or 1)
        reason = why or f"the wished split needs other than {target.counts[0]} to {target.counts[-1]} GPUs"
        return {**empty, "verdict": NO, "reason": reason}
    total, serving, gpus = min(tried, key=lambda one: one[0])
    limit = card.memory * wish.limit
    reason = f"{total / GIB:.1f} GiB on {on_gpus(gpus)}, {limit / GIB:.1f} GiB allowed"
    enough = _enough(shape, form, wish, card, target.counts[-1])
    if enough:
        there = "this is more than one node" if target.origin == "catalogue" else f"there are {target.counts[-1]}"
        reason += f"; {enough} such GPUs would do, {there}"
    return {
        **empty,
        "verdict": NO,
        "reason": reason,
        "gpus": gpus,
        "tensor_parallel": serving.tensor_parallel,
        "pipeline_parallel": serving.pipeline_parallel,
        "memory": serving_memory(shape, form, serving),
        "memory_total": card.memory,
        "memory_limit": round(limit),
        "largest_context": 0,
        "largest_concurrency": 0,
    }


def _enough(shape: Shape, form: Format, wish: Wish, card: Card, tried: int) -> int | None:
    """How many of these GPUs would be enough, if a plausible number is."""
    limit = (card.memory or 0) * wish.limit
    for gpus in (1 << power for power in range(_MOST_GPUS.bit_length()) if 1 << power > tried):
        for tensor, pipeline in splits(shape, gpus, wish.forced):
            serving = replace(wish.serving, tensor_parallel=tensor, pipeline_parallel=pipeline)
            if serving_memory(shape, form, serving)["total"] <= limit:
                return gpus
    return None
