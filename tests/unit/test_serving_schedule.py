# SPDX-License-Identifier: Apache-2.0
"""Arrival processes: their statistics, their seeds, and plans that are refused."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.serving_schedule import (
    arrivals,
    arrivals_within,
    gaps,
    parse_rate,
    plan,
    rate_text,
)


def drawn(rate: float, burstiness: float, count: int = 20_000, seed: int = 7) -> list[float]:
    return list(itertools.islice(gaps(rate, burstiness, seed), count))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_and_variance_of_the_gamma_distribution(burstiness: float) -> None:
    rate, found = 5.0, drawn(5.0, burstiness)

    # of 20,000 draws the mean is within 4 standard errors: 1/rate * sqrt(1/burstiness/n)
    assert abs(statistics.mean(found) - 1 / rate) < 4 / rate * math.sqrt(1 / burstiness / len(found))
    assert statistics.pvariance(found) == pytest.approx(1 / (rate**2 * burstiness), rel=0.1)


def test_counts_of_a_poisson_process_have_variance_equal_to_mean() -> None:
    times = arrivals_within(10.0, 2000.0, 1.0, 3)
    counts = [0] * 2000
    for time in times:
        counts[int(time)] += 1

    assert statistics.mean(counts) == pytest.approx(10.0, rel=0.03)
    assert statistics.pvariance(counts) / statistics.mean(counts) == pytest.approx(1.0, abs=0.15)


def test_bursts_and_evenness_show_in_the_counts() -> None:
    def dispersion(burstiness: float) -> float:
        counts = [0] * 1000
        for time in arrivals_within(10.0, 1000.0, burstiness, 3):
            counts[int(time)] += 1
        return statistics.pvariance(counts) / statistics.mean(counts)

    assert dispersion(0.25) > 2.5
    assert dispersion(8.0) < 0.5


def test_a_poisson_process_has_exponential_gaps() -> None:
    found = sorted(drawn(1.0, 1.0))
    # largest distance between the empirical distribution and 1 - exp(-x); 1.63/sqrt(n) is the 1 % limit of Kolmogorov
    distance = max(abs((i + 0.5) / len(found) - (1 - math.exp(-value))) for i, value in enumerate(found))

    assert distance < 1.63 / math.sqrt(len(found))


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.1, 1000),
    count=st.integers(1, 200),
    burstiness=st.one_of(st.floats(0.1, 50), st.just(math.inf)),
    seed=st.integers(0, 1 << 32),
)
def test_a_number_of_requests_ends_exactly_when_the_rate_says(
    rate: float, count: int, burstiness: float, seed: int
) -> None:
    times = arrivals(rate, count, burstiness, seed)

    assert len(times) == count
    assert times == sorted(times)
    assert times[-1] == pytest.approx(count / rate)
    assert times == arrivals(rate, count, burstiness, seed)


def test_another_seed_is_another_load() -> None:
    assert arrivals(2.0, 50, 1.0, 1) != arrivals(2.0, 50, 1.0, 2)


def test_a_metronome_is_even_and_infinity_is_at_once() -> None:
    assert arrivals(4.0, 3, math.inf) == [0.25, 0.5, 0.75]
    assert arrivals(math.inf, 3) == [0.0, 0.0, 0.0]


def test_within_a_duration_nothing_is_stretched_and_nothing_is_later() -> None:
    times = arrivals_within(100.0, 5.0, 1.0, 9)

    assert times[0] > 0
    assert times[-1] < 5.0
    assert times == list(itertools.accumulate(itertools.islice(gaps(100.0, 1.0, 9), len(times))))


@pytest.mark.parametrize(("text", "rate"), [("1", 1.0), ("0.5", 0.5), ("inf", math.inf), ("1e3", 1000.0)])
def test_rates_are_read_and_written(text: str, rate: float) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(rate_text(rate)) == rate


@pytest.mark.parametrize("text", ["0", "-1", "nan", "fast", "", "-inf", "1,5"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no number of requests per second above zero"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("rate", "count", "duration"), [(math.inf, None, 10.0), (1.0, 2_000_000, None), (1e6, None, 3600.0)]
)
def test_an_endless_plan_is_refused(rate: float, count: int | None, duration: float | None) -> None:
    with pytest.raises(
        InvalidInputError, match=r"Could not plan the load .*(never end|000 requests)\. Give at most 1,000,000"
    ):
        plan(rate, count, duration, 1.0, 0)
