# SPDX-License-Identifier: Apache-2.0
"""When requests are sent. Pure: rate, burstiness and seed in, offsets in seconds out.

The process is that of vLLM (``vllm/benchmarks/serve.py``, ``get_request``), so that a run here and one there offer the
same load: gaps from a gamma distribution of shape ``burstiness`` and mean 1/rate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

from .errors import InvalidInputError

#: Arrivals per rate above which a plan is refused: a slip of the finger, and gigabytes of prompts.
MOST = 1_000_000


def parse_rate(text: str) -> float:
    """Return requests per second; ``inf`` sends everything at once.

    Raises:
        InvalidInputError: it is no number above zero.
    """
    try:
        rate = float(text)
    except (TypeError, ValueError):
        rate = math.nan
    if not rate > 0:  # also false for NaN
        raise InvalidInputError(
            "plan the load",
            f"rate {text}",
            "it is no number of requests per second above zero",
            "Give a number, or inf to send everything at once",
            expected="a number above zero or inf",
            found=text,
        )
    return rate


def rate_text(rate: float) -> str:
    """Return a rate as it is written in documents: JSON has no infinity."""
    return "inf" if math.isinf(rate) else f"{rate:g}"


def gaps(rate: float, burstiness: float, seed: int) -> Iterator[float]:
    """Yield the seconds between arrivals, for ever.

    Args:
        rate: mean arrivals per second.
        burstiness: shape of the gamma distribution. 1 is a Poisson process, below 1 comes in bursts, above is more
            even, infinity is a metronome.
        seed: same seed, same gaps.
    """
    if math.isinf(rate):
        yield from itertools.repeat(0.0)
    if math.isinf(burstiness):
        yield from itertools.repeat(1.0 / rate)
    generator = random.Random(seed)
    while True:
        yield generator.gammavariate(burstiness, 1.0 / (rate * burstiness))


def arrivals(rate: float, count: int, burstiness: float = 1.0, seed: int = 0) -> list[float]:
    """Return ``count`` ascending offsets in seconds; the last is at count / rate.

    The sum of random gaps differs from count / rate by a per cent or two. As in vLLM the offsets are stretched to it,
    so that throughput does not depend on the seed.
    """
    offsets = list(itertools.accumulate(itertools.islice(gaps(rate, burstiness, seed), count)))
    if not offsets or math.isinf(rate) or offsets[-1] <= 0:
        return offsets
    stretch = count / rate / offsets[-1]
    return [offset * stretch for offset in offsets]


def arrivals_within(rate: float, duration_s: float, burstiness: float = 1.0, seed: int = 0) -> list[float]:
    """Return the ascending offsets below ``duration_s`` of an unending process, not stretched."""
    offsets = itertools.accumulate(gaps(rate, burstiness, seed))
    return list(itertools.takewhile(lambda offset: offset < duration_s, offsets))


def plan(rate: float, count: int | None, duration_s: float | None, burstiness: float, seed: int) -> list[float]:
    """Return the offsets of one rate: of ``count`` requests, or of as many as arrive within ``duration_s``.

    Raises:
        InvalidInputError: more than a million arrivals, or a duration of an infinite rate.
    """
    expected = (count or 0) if duration_s is None else rate * duration_s
    if expected > MOST:
        raise InvalidInputError(
            "plan the load",
            f"rate {rate_text(rate)}",
            "it would never end" if math.isinf(expected) else f"it would be {expected:.0f} requests",
            f"Give at most {MOST:,} in requests; rate inf with a duration needs max_concurrency",
            expected=MOST,
        )
    if duration_s is not None:
        return arrivals_within(rate, duration_s, burstiness, seed)
    return arrivals(rate, count or 0, burstiness, seed)
