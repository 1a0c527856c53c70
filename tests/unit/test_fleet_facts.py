# SPDX-License-Identifier: Apache-2.0
"""What the export says of a node: known or with a reason, with its age, and nothing of simulated GPUs as measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.export_samples import LONG_AGO, NOW, RUN, cached, report

from ansible.module_utils.rackwright.fleet_facts import clean, document, node_facts, settled
from ansible.module_utils.rackwright.fleet_headlines import headlines

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/facts.schema.json").read_text())


def known(facts: dict[str, Any], found: Any = None, hours: float = 168) -> dict[str, Any]:
    return node_facts(facts, found, hours, NOW)


def test_a_node_of_which_everything_is_known() -> None:
    node = known(cached(), report())

    assert node["missing"] == {}
    assert node["simulated"] is False
    assert node["gpu"]["models"] == [
        {
            "catalogue_id": "h100-sxm5-80gb",
            "name": "NVIDIA H100 80GB HBM3",
            "memory_bytes": 85_520_809_984,
            "count": 2,
        }
    ]
    assert node["gpu"]["driver"]["library"] == "535.288.01"
    assert (node["gpu"]["age"], node["gpu"]["stale"]) == ("1 day old", False)
    assert (node["health"]["age_s"], node["health"]["age"], node["health"]["stale"]) == (864000, "10 days old", True)
    assert (node["verdict"]["age"], node["verdict"]["run_id"]) == ("1 hour old", RUN)
    assert {"gpu_count_2", "health_reset", "health_stale", "verdict_warn"} < set(node["groups"])
    assert [(r["device"], r["name"], r["value"], r["uuid"]) for r in node["benchmark"]["results"]] == [
        ("cuda:0", "gemm_bfloat16_8192", 740.0, "GPU-0000-0"),
        ("cuda:0", "memory_copy", 2540.0, "GPU-0000-0"),
        ("cuda:1", "gemm_bfloat16_8192", 740.0, "GPU-0000-1"),
        ("cuda:1", "memory_copy", 2540.0, "GPU-0000-1"),
    ]


@pytest.mark.parametrize(
    ("facts", "found", "part", "reason"),
    [
        ({}, None, "gpu", "run playbooks/gather-facts.yml"),
        ({}, None, "health", "run playbooks/check-health.yml"),
        ({}, None, "verdict", "run playbooks/prove-nodes.yml"),
        ({}, None, "benchmark", "no report: run playbooks/prove-nodes.yml"),
        ({"gpu": {}, "gpu_health": [], "gpu_verdict": "pass"}, None, "verdict", "no verdict is cached"),
        (cached(), "Could not read the report on x: y. z.", "benchmark", "Could not read the report on x: y. z."),
        (cached(), report(benchmark=None), "benchmark", "the newest report has no benchmark"),
        (cached(simulated=True), report(simulated=True), "benchmark", "simulated GPUs run nothing"),
        (cached(), report(simulated=True), "benchmark", "simulated GPUs run nothing"),
    ],
)
def test_what_is_not_known_has_a_reason(facts: dict[str, Any], found: Any, part: str, reason: str) -> None:
    node = known(facts, found)

    assert node[part] is None
    assert reason in node["missing"][part]


def test_one_source_that_says_simulated_is_enough() -> None:
    assert known({})["simulated"] is None
    assert known(cached())["simulated"] is False
    assert known(cached(gpu=None, gpu_verdict={"verdict": "pass", "at": LONG_AGO, "simulated": True}))["simulated"]


def test_the_limit_of_age_is_the_hosts_own() -> None:
    assert known(cached(), hours=25)["gpu"]["stale"] is False
    assert known(cached(), hours=23)["gpu"]["stale"] is True
    assert "facts_stale" in known(cached(), hours=23)["groups"]


def result(**changes: Any) -> dict[str, Any]:
    return {"device": "cuda:0", "suite": "p2p", "name": "p2p_write", "unit": "GB/s", "value": 300.0, **changes}


@pytest.mark.parametrize(
    ("results", "values"),
    [
        ([result(), result(value=20.0), result(value=310.0)], [20.0]),  # pairs: the worst
        ([result(unit="ms", value=3.0), result(unit="ms", value=9.0)], [9.0]),
        ([result(unit="us", value=3.0), result(unit="us", value=9.0)], [9.0]),
        ([result(unit="J/token", value=9.0), result(unit="J/token", value=3.0)], [9.0]),
        ([result(device="cuda:0"), result(device="cuda:1")], [300.0, 300.0]),
        ([result(suite=suite) for suite in ("import", "kernel", "correctness")], []),
        ([result(suite="llm_inference", name="llm_decode_tiny_b8")], []),
        ([result(suite="llm_inference", name="llm_goal_tiny", unit="tokens/s")], [300.0]),
        ([result(suite="llm_training", details={"state": "out_of_memory"}, value=0.0)], []),
        ([result(suite="llm_training", details={"state": "measured"})], [300.0]),
        ([result(value=value) for value in (None, "fast", float("nan"), float("inf"), True)], []),
        (["no result", None], []),
        (None, []),
    ],
)
def test_headlines_are_speeds_of_which_the_worst_counts(results: Any, values: list[float]) -> None:
    found = headlines({"run_id": "by hand", "benchmark": {"results": results, "level": "quick"}})

    assert found is not None
    assert [entry["value"] for entry in found["results"]] == values
    assert found["at"] is None


def test_a_goal_says_whether_it_was_reached() -> None:
    goal = result(suite="llm_inference", name="llm_goal_7b", unit="tokens/s", details={"verdict": "unattainable"})
    found = headlines({"benchmark": {"results": [goal, result()]}})

    assert found is not None
    assert [entry["goal"] for entry in found["results"]] == ["unattainable", None]


def test_the_document_follows_its_schema() -> None:
    whole = report()
    goal = result(suite="llm_inference", name="llm_goal_7b", unit="tokens/s", details={"verdict": "fail"}, dtype=None)
    whole["benchmark"]["results"].append(goal)
    nodes = {
        "whole": known(cached(), whole),
        "simulated": known(cached(simulated=True), report(simulated=True)),
        "unknown": known({}),
        "odd": known({"gpu": {"devices": None}, "gpu_health": {"a": 1}, "gpu_verdict": {"b": 2}}, report(benchmark={})),
    }
    found = document(nodes, NOW)

    jsonschema.validate(json.loads(json.dumps(found, allow_nan=False)), SCHEMA)
    assert found["simulated"] is True
    assert found["summary"]["nodes"] == 4
    assert found["summary"]["gpus"] == 4
    assert found["summary"]["models"][0]["count"] == 4
    assert found["summary"]["verdict"] == {"pass": 0, "warn": 2, "fail": 0, "unattainable": 0, "unknown": 2}
    assert found["summary"]["health"]["reset"] == 2
    assert found["summary"]["stale"] == {
        "gpu": ["odd"],
        "health": ["odd", "simulated", "whole"],
        "verdict": ["odd"],
    }


def test_the_schema_refuses_what_the_document_never_has() -> None:
    found = document({"n": known(cached(), report())}, NOW)
    found["nodes"]["n"]["secret"] = 1

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, SCHEMA)


def test_what_moves_by_itself_is_left_out_of_comparisons() -> None:
    later = NOW.replace(hour=13)
    one, other = document({"n": known(cached())}, NOW), document({"n": node_facts(cached(), None, 168, later)}, later)

    assert one != other
    assert settled(one) == settled(other)
    assert settled(one) != settled(document({"n": known(cached(gpu_verdict=None))}, NOW))


def test_texts_that_no_file_can_hold_are_mended() -> None:
    assert clean({"a\ud800": ["\udfff", ("x", 1, None)]}) == {"a?": ["?", ["x", 1, None]]}
