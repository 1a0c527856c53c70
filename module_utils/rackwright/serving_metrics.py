# SPDX-License-Identifier: Apache-2.0
"""Timelines to numbers, under the names and by the formulas of vLLM. Pure.

Source: ``vllm/benchmarks/serve.py`` (``BenchmarkMetrics``, ``calculate_metrics``) and ``lib/endpoint_request_func.py``,
read in November 2026. Per answered request: TTFT = first token - start; E2EL = end - start; TPOT = (E2EL - TTFT) /
(output tokens - 1), none for one token; ITL = every gap between pieces. Percentiles are interpolated and the standard
deviation is that of the population, as in numpy. What differs is in docs/serving-benchmark.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .measure import percentile
from .serving_timeline import ERRORS, Timeline

LATENCIES = ("ttft", "tpot", "itl", "e2el")
PERCENTILES = (50, 95, 99)
#: Limits of a request that goodput knows, milliseconds.
SLO_NAMES = ("ttft", "tpot", "e2el")
_EXAMPLES = 3


def ttft_s(timeline: Timeline) -> float:
    """Seconds from sending to the first piece of an answered request."""
    return timeline.token_s[0] - timeline.start_s


def e2el_s(timeline: Timeline) -> float:
    """Seconds from sending to the end of the answer."""
    return timeline.end_s - timeline.start_s


def tpot_s(timeline: Timeline) -> float | None:
    """Seconds per token after the first, None for an answer of one token."""
    tokens = timeline.tokens()
    return (e2el_s(timeline) - ttft_s(timeline)) / (tokens - 1) if tokens > 1 else None


def itl_s(timeline: Timeline) -> list[float]:
    """Seconds between successive pieces."""
    return [later - earlier for earlier, later in zip(timeline.token_s, timeline.token_s[1:])]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean, median, standard deviation and percentiles in ms of values in seconds; null without values."""
    names = ["mean", "median", "std", *(f"p{percent}" for percent in PERCENTILES)]
    if not values:
        return dict.fromkeys(names)
    ordered = sorted(values)
    mean = math.fsum(ordered) / len(ordered)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    numbers = [mean, percentile(ordered, 0.5), deviation]
    numbers += [percentile(ordered, percent / 100) for percent in PERCENTILES]
    return {name: number * 1000 for name, number in zip(names, numbers)}


def meets(timeline: Timeline, slo: Mapping[str, float]) -> bool:
    """True when an answered request keeps every limit; TPOT of a single token counts as zero, as in vLLM."""
    found = {"ttft": ttft_s(timeline), "tpot": tpot_s(timeline) or 0.0, "e2el": e2el_s(timeline)}
    return all(found[name] * 1000 <= limit for name, limit in slo.items())


def peak_concurrency(timelines: Sequence[Timeline]) -> int:
    """Return how many requests were open at once; one that ends when another starts does not overlap it."""
    moves = sorted([(entry.start_s, 1) for entry in timelines] + [(entry.end_s, -1) for entry in timelines])
    most = now = 0
    for _, move in moves:
        now += move
        most = max(most, now)
    return most


def peak_tokens_per_s(timelines: Sequence[Timeline]) -> float:
    """Return the most output tokens of one second, in seconds counted from the first start.

    A piece of several tokens counts as the mean number of tokens per piece of its request.
    """
    if not timelines:
        return 0.0
    begin = min(entry.start_s for entry in timelines)
    buckets: dict[int, float] = {}
    for entry in timelines:
        weight = entry.tokens() / len(entry.token_s)
        for moment in entry.token_s:
            second = int(moment - begin)
            buckets[second] = buckets.get(second, 0.0) + weight
    return max(buckets.values(), default=0.0)


def measure(timelines: Sequence[Timeline], duration_s: float, slo: Mapping[str, float]) -> dict[str, Any]:
    """Return the metrics of one load.

    Args:
        timelines: every request, also failed ones.
        duration_s: seconds from the begin of the load to the last answer.
        slo: limits of a good request in milliseconds: ``ttft``, ``tpot``, ``e2el``.
    """
    good = [entry for entry in timelines if entry.ok]
    output = sum(entry.tokens() for entry in good)
    total_input = sum(entry.input_tokens or entry.input_words for entry in good)
    kept = sum(meets(entry, slo) for entry in good)
    tpots = [tpot_s(entry) for entry in good]
    samples = {
        "ttft": [ttft_s(entry) for entry in good],
        "tpot": [value for value in tpots if value is not None],
        "itl": [gap for entry in good for gap in itl_s(entry)],
        "e2el": [e2el_s(entry) for entry in good],
    }

    def per_second(amount: float) -> float | None:
        return amount / duration_s if duration_s > 0 else None

    result: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(good),
        "failed": len(timelines) - len(good),
        "total_input_tokens": total_input,
        "total_output_tokens": output,
        "request_throughput": per_second(len(good)),
        "request_goodput": per_second(kept) if slo else None,
        "slo_attainment": kept / len(timelines) if slo and timelines else None,
        "output_throughput": per_second(output),
        "total_token_throughput": per_second(total_input + output),
        "max_output_tokens_per_s": peak_tokens_per_s(good),
        "max_concurrent_requests": peak_concurrency(good),
    }
    for name in LATENCIES:
        result.update({f"{kind}_{name}_ms": value for kind, value in spread(samples[name]).items()})
    result["samples"] = {name: len(samples[name]) for name in LATENCIES}
    known = [entry.cached_tokens for entry in good if entry.cached_tokens is not None]
    result["cached_input_tokens"] = sum(known) if known else None
    result["tokens_counted_by"] = {
        "input": _source(sum(bool(entry.input_tokens) for entry in good), len(good), "words"),
        "output": _source(sum(bool(entry.output_tokens) for entry in good), len(good), "pieces"),
    }
    pieces = sum(len(entry.token_s) for entry in good)
    result["tokens_per_piece"] = output / pieces if pieces else None
    result["finish_reasons"] = _count(entry.finish_reason or "none" for entry in good)
    return result


def gone_after_s(timelines: Sequence[Timeline]) -> float | None:
    """Return when a server that stopped listening gave its last answer; None while it listens.

    It has gone when the last request that was sent found nobody. 0 when nothing was answered at all.
    """
    sent = [entry for entry in timelines if entry.error != "not_sent"]
    if not sent or max(sent, key=lambda entry: entry.start_s).error not in ("refused", "unreachable"):
        return None
    return max((entry.end_s for entry in sent if entry.ok), default=0.0)


def queueing(timelines: Sequence[Timeline]) -> dict[str, float | None]:
    """Return how long answered requests waited in the client for ``max_concurrency``."""
    return spread([entry.start_s - entry.released_s for entry in timelines if entry.ok])


def errors(timelines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """Return the failures by class: how many, different examples, and what to look at next."""
    found = []
    for kind, step in ERRORS.items():
        details = _count(entry.detail for entry in timelines if entry.error == kind)
        if details:
            often = sorted(details, key=lambda detail: -details[detail])
            found.append(
                {"class": kind, "count": sum(details.values()), "examples": often[:_EXAMPLES], "next_step": step}
            )
    return found


def _source(counted: int, total: int, otherwise: str) -> str:
    if counted == total:
        return "usage" if total else "nothing"
    return f"usage and {otherwise}" if counted else otherwise


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
