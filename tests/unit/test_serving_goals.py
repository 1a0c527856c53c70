# SPDX-License-Identifier: Apache-2.0
"""Judging: every goal at one rate, never a pass with failures, few samples and slow clients told."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.serving_goals import (
    DEFAULT_GOALS,
    client_warnings,
    goals_of,
    judge_point,
    judge_run,
    slo_of,
)
from ansible.module_utils.rackwright.serving_metrics import spread
from ansible.module_utils.rackwright.serving_report import table_text


def point(**change: Any) -> dict[str, Any]:
    """An operating point that meets the default goals."""
    found: dict[str, Any] = {
        "request_rate": "20",
        "completed": 2000,
        "failed": 0,
        "errors": [],
        "p99_ttft_ms": 150.0,
        "p99_itl_ms": 30.0,
        "output_throughput": 5120.0,
        "samples": {"ttft": 2000, "itl": 500_000, "tpot": 2000, "e2el": 2000},
        "client": {"warnings": []},
    }
    return {**found, **change}


def judged(
    goals: dict[str, Any] | None = None, offered: dict[str, float] | None = None, **change: Any
) -> dict[str, Any]:
    found = point(**change)
    return {**found, **judge_point(found, goals_of(goals or {}), offered or {})}


def test_the_default_goals_are_met_at_one_rate() -> None:
    found = judged()

    assert found["verdict"] == "pass"
    assert found["reasons"] == []
    assert {goal["metric"]: goal["status"] for goal in found["goals"]} == dict.fromkeys(DEFAULT_GOALS, "pass")


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({"p99_ttft_ms": 200.0}, "pass", None),
        ({"p99_ttft_ms": 200.1}, "fail", "p99_ttft_ms: 200.1 ms, the goal is at most 200 ms"),
        ({"p99_itl_ms": 51.0}, "fail", "p99_itl_ms: 51 ms"),
        ({"output_throughput": 4999.0}, "fail", "output_throughput: 4999, the goal is at least 5000"),
        ({"p99_itl_ms": None}, "not_judged", "p99_itl_ms: nothing was measured"),
        ({"completed": 0, "p99_ttft_ms": None, "output_throughput": 0.0}, "fail", "no request was sent"),
    ],
)
def test_each_goal_decides(change: dict[str, Any], verdict: str, reason: str | None) -> None:
    found = judged(**change)

    assert found["verdict"] == verdict
    assert any(text.startswith(reason) for text in found["reasons"]) if reason else not found["reasons"]


def test_a_single_failed_request_is_never_a_pass() -> None:
    failure = {"class": "timeout", "count": 1, "examples": ["no answer"], "next_step": "Look."}
    found = judged(failed=1, errors=[failure])

    assert found["verdict"] == "fail"
    assert found["reasons"] == ["1 of 2001 requests failed, most by timeout (no answer). Look."]
    assert all(goal["status"] == "pass" for goal in found["goals"])


def test_a_load_too_small_to_show_the_throughput_judges_nothing() -> None:
    found = judged(offered={"output_throughput": 512.0}, output_throughput=510.0)

    assert found["verdict"] == "not_judged"
    assert "offer a higher rate" in found["reasons"][0]


def test_a_load_that_could_have_shown_it_fails() -> None:
    assert judged(offered={"output_throughput": 6000.0}, output_throughput=4000.0)["verdict"] == "fail"


@pytest.mark.parametrize(
    ("samples", "verdict", "text"),
    [
        (99, "warn", "99 samples the p99 is all but their maximum"),
        (100, "pass", "of 100 samples, 1000 make a steady p99"),
        (999, "pass", "of 999 samples"),
        (1000, "pass", "150 of 200 ms"),
    ],
)
def test_a_p99_of_few_samples_is_told(samples: int, verdict: str, text: str) -> None:
    found = judged(samples={"ttft": samples, "itl": 500_000})

    assert found["verdict"] == verdict
    assert text in found["goals"][0]["reason"]
    assert found["goals"][0]["samples"] == samples


def test_few_samples_excuse_no_miss_and_no_median() -> None:
    few = {"ttft": 5, "itl": 5}

    assert judged(samples=few, p99_ttft_ms=300.0)["verdict"] == "fail"
    assert judged({**dict.fromkeys(DEFAULT_GOALS, 0), "median_ttft_ms": 100}, samples=few, median_ttft_ms=90.0)[
        "verdict"
    ] == ("pass")


@pytest.mark.parametrize(
    ("change", "verdict"), [({}, "warn"), ({"p99_ttft_ms": 900.0}, "not_judged"), ({"failed": 1}, "fail")]
)
def test_a_slow_client_makes_no_pass_and_blames_no_server(change: dict[str, Any], verdict: str) -> None:
    failure = {"class": "timeout", "count": 1, "examples": [], "next_step": "Look."}
    found = judged(client={"warnings": ["the client was slow"]}, errors=[failure], **change)

    assert found["verdict"] == verdict
    assert "the client was slow" in found["reasons"]


def test_without_goals_nothing_is_judged() -> None:
    found = judged(dict.fromkeys(DEFAULT_GOALS, 0))

    assert found["goals"] == []
    assert found["verdict"] == "not_judged"
    assert found["reasons"] == ["no goal was set"]


def test_a_sweep_passes_where_one_rate_meets_everything() -> None:
    low = judged(request_rate="1", offered={"output_throughput": 256.0}, output_throughput=250.0)
    high = judged(request_rate="64", p99_ttft_ms=4000.0, output_throughput=9000.0)
    best = judged(request_rate="32", output_throughput=8000.0)

    assert judge_run([low, judged(), best, high]) == {"verdict": "pass", "reasons": [], "best": "32"}


def test_throughput_of_one_rate_and_latency_of_another_are_no_pass() -> None:
    quick = judged(request_rate="1", output_throughput=256.0, offered={"output_throughput": 256.0})
    much = judged(request_rate="64", p99_ttft_ms=4000.0, output_throughput=9000.0)
    found = judge_run([quick, much])

    assert found["verdict"] == "fail"
    assert found["best"] is None
    assert found["reasons"][0] == "no rate met all goals at once"
    assert any(text.startswith("rate 64: p99_ttft_ms") for text in found["reasons"])


def test_failures_at_another_rate_keep_a_run_from_passing() -> None:
    failure = {"class": "timeout", "count": 3, "examples": [], "next_step": "Look."}
    found = judge_run([judged(), judged(request_rate="64", failed=3, errors=[failure])])

    assert found["verdict"] == "warn"
    assert found["best"] == "20"
    assert "3 requests failed at other rates" in found["reasons"][0]


def test_nothing_measured_is_nothing_judged() -> None:
    assert judge_run([])["verdict"] == "not_judged"
    assert judge_run([judged(p99_itl_ms=None)])["verdict"] == "not_judged"


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"p99_tfft_ms": 200}, "Did you mean p99_ttft_ms"),
        ({"latency": 200}, "there is no such measure"),
        ({"p99_ttft_ms": "fast"}, "fast is no number"),
        ({"p99_ttft_ms": -1}, "-1 is no number"),
        ({"p99_ttft_ms": float("nan")}, "nan is no number"),
        ({"p99_ttft_ms": "inf"}, "inf is no number"),
    ],
)
def test_goals_that_are_none_are_refused(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        goals_of(limits)


def test_goals_and_limits_replace_the_default_ones_by_name() -> None:
    assert goals_of({"output_throughput": 0, "p99_ttft_ms": "500"}) == {"p99_ttft_ms": 500.0, "p99_itl_ms": 50.0}
    assert slo_of({"tpot": None, "e2el": 3000}) == {"ttft": 200.0, "e2el": 3000.0}
    with pytest.raises(InvalidInputError, match="Could not use the limits of a good request on itl"):
        slo_of({"itl": 50})


def client(schedule: float = 0.001, loop: float = 0.001, cpu: float = 0.2) -> dict[str, Any]:
    return {"schedule_lag_ms": spread([schedule]), "loop_lag_ms": spread([loop]), "cpu_fraction": cpu}


@pytest.mark.parametrize(
    ("found", "open_loop", "words"),
    [
        (client(), True, []),
        (client(schedule=0.02), True, ["sent up to 20 ms"]),
        (client(schedule=5.0), False, []),
        (client(loop=0.03), False, ["noted arrivals up to 30 ms"]),
        (client(cpu=0.95), True, ["95% of a CPU core"]),
        (client(0.02, 0.03, 0.95), True, ["sent", "noted", "used"]),
        ({"schedule_lag_ms": spread([]), "loop_lag_ms": spread([]), "cpu_fraction": 0.0}, True, []),
    ],
)
def test_a_client_in_the_way_is_told(found: dict[str, Any], open_loop: bool, words: list[str]) -> None:
    warnings = client_warnings(found, open_loop)

    assert len(warnings) == len(words)
    assert all(word in text for word, text in zip(words, warnings))
    assert not warnings or "use a host" in warnings[-1]


def test_the_table_shows_what_failed_and_gaps_as_dashes() -> None:
    names = ["request_throughput", "median_ttft_ms", "median_itl_ms", "p99_e2el_ms", "request_goodput"]
    nothing = {**dict.fromkeys(names), "notes": ["counted by pieces"]}
    found = judged(
        completed=0, failed=2, errors=[{"class": "tls", "count": 2, "examples": ["x"], "next_step": "Look."}]
    )
    document = {
        **{"model": None, "url": "http://h/v1", "host": "c", "endpoint": "chat", "max_tokens": 8, "planned": []},
        "prompts": {"file": None, "wished_tokens": 32},
        "load": {"requests": 2, "duration": None, "max_concurrency": 4},
        "points": [{**found, **nothing}],
        **judge_run([found]),
    }
    text = table_text(document, "/r.json")

    assert "the first model at http://h/v1, client c" in text
    assert "2 requests per rate, at most 4 at once" in text
    assert "verdict: fail" in text
    assert "2 of 2 requests failed, most by tls (x). Look." in text
    assert "note: counted by pieces" in text
    assert text.endswith("report: /r.json")
    assert max(len(line) for line in text.splitlines()) <= 120
    assert next(line for line in text.splitlines() if line.startswith("20 ")).split()[3] == "-"
