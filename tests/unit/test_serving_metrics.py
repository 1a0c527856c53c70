# SPDX-License-Identifier: Apache-2.0
"""Timelines made by hand and the numbers that vLLM's formulas give for them, worked out on paper."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible.module_utils.rackwright.serving_metrics import (
    errors,
    measure,
    meets,
    peak_concurrency,
    peak_tokens_per_s,
    queueing,
    spread,
    tpot_s,
)
from ansible.module_utils.rackwright.serving_timeline import ERRORS, Timeline


def line(start: float, tokens: list[float], end: float | None = None, **more: Any) -> Timeline:
    values: dict[str, Any] = {"index": 0, "planned_s": start, "released_s": start, "start_s": start, "input_words": 7}
    return Timeline(**{**values, "token_s": tokens, "end_s": tokens[-1] if end is None else end, **more})


def failed(kind: str = "refused", detail: str = "no", start: float = 0.0) -> Timeline:
    return Timeline(0, start, start, start, end_s=start, error=kind, detail=detail)


#: A: TTFT 0.1, gaps 0.1 0.2, E2EL 0.5 (the reason of the end comes 0.1 after the last piece), TPOT (0.5 - 0.1)/2 = 0.2
A = line(0.0, [0.1, 0.2, 0.4], end=0.5, input_tokens=10, output_tokens=3)
#: B: TTFT 0.3, gap 0.1, E2EL 0.4, but 6 tokens in two pieces: TPOT 0.1/5 = 0.02
B = line(1.0, [1.3, 1.4], input_tokens=20, output_tokens=6)
#: C: one piece that the server did not count: TTFT = E2EL = 0.2, no TPOT
C = line(1.2, [1.4])


def test_the_numbers_of_three_requests() -> None:
    found = measure([A, B, C, failed()], 2.0, {"ttft": 250.0, "tpot": 250.0})

    assert {name: found[name] for name in ("duration", "completed", "failed")} == {
        "duration": 2.0,
        "completed": 3,
        "failed": 1,
    }
    assert found["total_input_tokens"] == 10 + 20 + 7
    assert found["total_output_tokens"] == 3 + 6 + 1
    assert found["request_throughput"] == pytest.approx(1.5)
    assert found["output_throughput"] == pytest.approx(5.0)
    assert found["total_token_throughput"] == pytest.approx(23.5)
    assert found["request_goodput"] == pytest.approx(1.0)  # A and C; B's first token took 300 ms
    assert found["slo_attainment"] == pytest.approx(0.5)  # of four that were asked
    assert found["mean_ttft_ms"] == pytest.approx(200.0)
    assert found["median_ttft_ms"] == pytest.approx(200.0)
    assert found["std_ttft_ms"] == pytest.approx(81.6496580927726)  # sqrt(2/3) * 100
    assert found["p99_ttft_ms"] == pytest.approx(298.0)  # 0.98 of the way from 200 to 300
    assert found["mean_tpot_ms"] == pytest.approx(110.0)
    assert found["median_itl_ms"] == pytest.approx(100.0)
    assert found["mean_itl_ms"] == pytest.approx(400 / 3)
    assert found["p95_e2el_ms"] == pytest.approx(490.0)
    assert found["samples"] == {"ttft": 3, "tpot": 2, "itl": 3, "e2el": 3}
    assert found["tokens_counted_by"] == {"input": "usage and words", "output": "usage and pieces"}
    assert found["tokens_per_piece"] == pytest.approx(10 / 6)
    assert found["max_concurrent_requests"] == 2
    assert found["finish_reasons"] == {"none": 3}
    assert found["cached_input_tokens"] is None


def test_nothing_answered_gives_null_and_not_zero() -> None:
    found = measure([failed(), failed()], 1.0, {"ttft": 200.0})

    assert found["completed"] == 0
    assert found["failed"] == 2
    assert found["p99_ttft_ms"] is None
    assert found["mean_tpot_ms"] is None
    assert found["output_throughput"] == 0.0
    assert found["slo_attainment"] == 0.0
    assert found["tokens_counted_by"]["output"] == "nothing"
    assert found["tokens_per_piece"] is None


def test_without_limits_there_is_no_goodput() -> None:
    found = measure([A], 1.0, {})

    assert found["request_goodput"] is None
    assert found["slo_attainment"] is None


@pytest.mark.parametrize(
    ("entry", "slo", "kept"),
    [
        (A, {"ttft": 100.0}, True),
        (A, {"ttft": 99.9}, False),
        (A, {"tpot": 200.0}, True),
        (A, {"tpot": 199.0}, False),
        (A, {"e2el": 500.0}, True),
        (A, {"ttft": 100.0, "e2el": 499.0}, False),
        (C, {"tpot": 0.001}, True),  # a single token has no TPOT: vLLM takes it for zero
        (A, {}, True),
    ],
)
def test_a_request_is_good_when_it_keeps_every_limit(entry: Timeline, slo: dict[str, float], kept: bool) -> None:
    assert meets(entry, slo) is kept


@pytest.mark.parametrize(("counted", "tpot"), [(None, 0.2), (0, 0.2), (3, 0.2), (5, 0.1), (1, None)])
def test_tokens_are_the_servers_count_else_pieces(counted: int | None, tpot: float | None) -> None:
    found = tpot_s(line(0.0, [0.1, 0.2, 0.4], end=0.5, output_tokens=counted))

    assert found == (None if tpot is None else pytest.approx(tpot))


def test_a_request_that_ends_when_another_starts_does_not_overlap_it() -> None:
    assert peak_concurrency([line(0.0, [1.0]), line(1.0, [2.0]), line(1.5, [2.0])]) == 2
    assert peak_concurrency([]) == 0


def test_the_best_second_counts_tokens_by_their_arrival() -> None:
    lines = [line(10.0, [10.5, 10.9, 11.1]), line(10.2, [11.2, 11.9], output_tokens=6)]

    # seconds from the first start: 2 pieces, then 1 + 2 pieces of 3 tokens
    assert peak_tokens_per_s(lines) == pytest.approx(7.0)
    assert peak_tokens_per_s([]) == 0.0


def test_waiting_for_a_place_is_told_apart() -> None:
    waited = line(1.0, [1.5], released_s=0.25)

    assert queueing([waited, failed()])["mean"] == pytest.approx(750.0)
    assert measure([waited], 2.0, {})["mean_ttft_ms"] == pytest.approx(500.0)


@given(st.lists(st.floats(0.0, 100.0), min_size=2, max_size=60))
def test_spread_agrees_with_the_standard_library(values: list[float]) -> None:
    found = spread(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")  # the interpolation of numpy.percentile

    assert found["median"] == pytest.approx(statistics.median(values) * 1000, abs=1e-6)
    assert found["mean"] == pytest.approx(statistics.fmean(values) * 1000, abs=1e-6)
    assert found["std"] == pytest.approx(statistics.pstdev(values) * 1000, abs=1e-3)
    assert found["p95"] == pytest.approx(cuts[94] * 1000, abs=1e-6)
    assert found["p99"] == pytest.approx(cuts[98] * 1000, abs=1e-6)


def test_spread_of_nothing_is_null() -> None:
    assert set(spread([]).values()) == {None}


def test_failures_are_counted_by_class_with_different_examples() -> None:
    lines = [failed("timeout", f"t{number % 5}") for number in range(12)] + [failed("refused", "no")] * 2 + [A]
    found = errors(lines)

    assert [(entry["class"], entry["count"]) for entry in found] == [("refused", 2), ("timeout", 12)]
    assert found[1]["examples"] == ["t0", "t1", "t2"]
    assert found[1]["next_step"] == ERRORS["timeout"]
