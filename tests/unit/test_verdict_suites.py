# SPDX-License-Identifier: Apache-2.0
"""Host links, peer-to-peer, exact answers, burn and the LLM goal as checks: triggers, does not, not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.verdict_samples import RUN, cpu_benchmark, cuda_benchmark, evidence, gpu, result

from ansible.module_utils.rackwright import verdict, verdict_gates
from ansible.module_utils.rackwright.evidence import read_evidence

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/verdict.schema.json").read_text())
LINK = {"generation": 5, "width": 16, "max_generation": 5, "max_width": 16}


def node(suites: list[str], *results: dict[str, Any], count: int = 1, **document: Any) -> dict[str, Any]:
    """Evidence of a healthy node of H100s with more results in its benchmark."""
    given = evidence(gpu(count), cuda_benchmark(count))
    inside = given["benchmark"]["torch_benchmark"]
    inside["suites"] = [*inside["suites"], *suites]
    inside["results"] += results
    inside.update(document)
    return given


def judge(given_node: dict[str, Any], **options: Any) -> dict[str, Any]:
    document = verdict.judge_node(read_evidence({"n": given_node}, RUN, {}, **options)["n"])
    jsonschema.validate(document, SCHEMA)
    return document


def only(document: dict[str, Any], check_id: str) -> dict[str, Any]:
    found = [entry for entry in document["checks"] if entry["id"] == check_id]
    assert len(found) == 1, found
    entry: dict[str, Any] = found[0]
    return entry


def pcie(gbps: float, link: dict[str, Any] | None = LINK, name: str = "pcie_h2d", **more: Any) -> dict[str, Any]:
    return result("pcie", "cuda:0", gbps, "GB/s", name=name, details={"link": link}, **more)


@pytest.mark.parametrize(
    ("gbps", "link", "status", "said"),
    [
        (55.0, {}, "pass", "87% of the gen5 x16 link's 63 GB/s"),
        (48.0, {}, "warn", "below 80% (gate pcie, not calibrated)"),
        (40.0, {}, "fail", "below 70%"),
        (26.0, {"generation": 4, "max_generation": 4}, "pass", "83% of the gen4 x16 link's 31.5 GB/s"),
        (12.0, {"generation": 3, "max_generation": 3}, "warn", "76% of the gen3 x16 link's 15.75 GB/s"),
        (6.5, {"generation": 3, "max_generation": 3, "width": 8, "max_width": 8}, "pass", "83% of the gen3 x8"),
        (100.0, {"generation": 6, "max_generation": 6}, "pass", "83% of the gen6 x16 link's 121 GB/s"),
        (3.0, {"generation": 9, "max_generation": 9}, "pass", "measured, not judged: the negotiated link is not known"),
    ],
)
def test_host_copies_against_the_negotiated_link(gbps: float, link: dict[str, int], status: str, said: str) -> None:
    found = only(judge(node(["pcie"], pcie(gbps, {**LINK, **link}))), "benchmark.pcie")

    assert found["status"] == status
    assert said in found["reason"]
    if isinstance(found["expected"], dict):
        assert found["expected"]["calibrated"] is False


@pytest.mark.parametrize(
    ("link", "status", "said"),
    [
        (LINK, "pass", None),
        ({**LINK, "width": 8}, "fail", "the loaded link is gen5 x8, card and slot can do gen5 x16"),
        ({**LINK, "generation": 4}, "fail", "the loaded link is gen4 x16"),
        ({**LINK, "generation": None}, "not_measured", "were not read while it was loaded"),
        (None, "not_measured", "were not read while it was loaded"),
    ],
)
def test_a_loaded_link_below_what_it_can_do_is_a_fault(link: Any, status: str, said: str | None) -> None:
    found = only(judge(node(["pcie"], pcie(55.0, link))), "benchmark.pcie_link")

    assert found["status"] == status
    assert (said or "") in (found["reason"] or "")


def test_a_link_that_trained_up_later_is_no_fault() -> None:
    early = pcie(55.0, {**LINK, "generation": 1})
    document = judge(node(["pcie"], early, pcie(55.0, name="pcie_d2h")))

    assert only(document, "benchmark.pcie_link")["status"] == "pass"


def test_the_reason_why_a_link_was_not_read_is_given() -> None:
    found = judge(node(["pcie"], pcie(55.0, None, missing={"link": "NVML does not answer"})))

    assert only(found, "benchmark.pcie_link")["reason"] == "NVML does not answer"


@pytest.mark.parametrize("suite", ["pcie", "p2p", "correctness", "burn"])
def test_what_was_asked_for_and_gave_nothing_is_no_pass(suite: str) -> None:
    document = judge(node([suite], count=2))
    statuses = {
        entry["subject"]: entry["status"] for entry in document["checks"] if entry["id"] == f"benchmark.{suite}"
    }

    assert statuses == {"gpu0": "not_measured", "gpu1": "not_measured"}
    assert document["verdict"] == "warn"


@pytest.mark.parametrize("suite", ["pcie", "p2p", "correctness", "burn"])
def test_what_does_not_apply_says_why_and_keeps_nobody_from_passing(suite: str) -> None:
    reason = {"suite": suite, "device": "cuda:0", "reason": "there is no such thing"}
    document = judge(node([suite], not_applicable=[reason, "rubbish"]))

    assert document["verdict"] == "pass"
    for entry in document["checks"]:
        if entry["id"] == f"benchmark.{suite}":
            assert (entry["status"], entry["reason"]) == ("not_applicable", "there is no such thing")


@pytest.mark.parametrize("suite", ["pcie", "p2p", "correctness", "burn", "llm_inference"])
def test_what_was_not_asked_for_gives_no_check(suite: str) -> None:
    document = judge(node([]))

    assert not [entry for entry in document["checks"] if entry["id"].startswith(f"benchmark.{suite}")]
    assert not [entry for entry in document["checks"] if entry["id"] == "benchmark.llm_goal"]


def p2p(source: int, peer: int, gbps: float, direction: str = "uni") -> dict[str, Any]:
    details = {"peer": f"cuda:{peer}", "direction": direction, "access": True}
    return result("p2p", f"cuda:{source}", gbps, "GB/s", name=f"p2p_{direction}", details=details)


def joined(cell: str, links: int, *results: dict[str, Any]) -> dict[str, Any]:
    given = node(["p2p"], *results, count=2)
    facts = given["facts"]["ansible_facts"]["gpu"]
    facts["topology"] = {"devices": [0, 1], "matrix": [["X", cell], [cell, "X"]]}
    for entry in facts["devices"]:
        entry["nvlink"] = {"links": [{"link": number, "active": True} for number in range(links)]}
    return given


@pytest.mark.parametrize(
    ("cell", "links", "gbps", "status"),
    [
        ("NV18", 18, 380.0, "pass"),
        ("NV18", 18, 330.0, "warn"),
        ("NV18", 18, 300.0, "fail"),
        ("NV9", 18, 190.0, "pass"),
        ("NV9", 18, 150.0, "fail"),
    ],
)
def test_peer_copies_over_nvlink_against_the_links_between_the_two(
    cell: str, links: int, gbps: float, status: str
) -> None:
    document = judge(joined(cell, links, p2p(0, 1, gbps), p2p(1, 0, 380.0), p2p(0, 1, 700.0, "bidirectional")))
    statuses = {entry["subject"]: entry["status"] for entry in document["checks"] if entry["id"] == "benchmark.p2p"}

    assert statuses == {"gpu0-gpu1": status, "gpu1-gpu0": "pass"}


@pytest.mark.parametrize(("cell", "links"), [("PHB", 18), ("NV18", 0)])
def test_peer_copies_without_nvlink_are_measured_and_not_judged(cell: str, links: int) -> None:
    document = judge(joined(cell, links, p2p(0, 1, 12.0), p2p(1, 0, 12.0)))
    reasons = {entry["reason"] for entry in document["checks"] if entry["id"] == "benchmark.p2p"}

    assert document["verdict"] == "pass"
    assert len(reasons) == 1
    assert reasons.pop().startswith("measured, not judged: no NVLink joins these GPUs")


@pytest.mark.parametrize(("wrong", "status"), [(0.0, "pass"), (1.0, "fail"), (None, "fail")])
def test_one_wrong_answer_is_a_fault(wrong: Any, status: str) -> None:
    exact = result("correctness", "cuda:0", 0.0, "wrong elements", name="correctness_bfloat16", throttle=None)
    exact["value"] = wrong
    found = only(
        verdict.judge_node(read_evidence({"n": node(["correctness"], exact)}, RUN, {})["n"]), "benchmark.correctness"
    )

    assert found["status"] == status
    if status == "fail":
        assert "correctness_bfloat16" in found["reason"]
        assert "cannot be trusted" in found["next_step"]


@pytest.mark.parametrize(("tflops", "status"), [(700.0, "pass"), (650.0, "warn"), (600.0, "fail")])
def test_the_burn_is_held_to_the_gate_of_sustained_products(tflops: float, status: str) -> None:
    burn = result("burn", "cuda:0", tflops, "TFLOP/s", name="burn_bfloat16", dtype="bfloat16", shape=[8192] * 3)

    assert only(judge(node(["burn"], burn)), "benchmark.burn")["status"] == status


def test_a_burn_that_gave_no_number_is_no_proof() -> None:
    burn = result("burn", "cuda:0", 1.0, "TFLOP/s", dtype="bfloat16")
    burn["value"] = float("nan")
    found = only(verdict.judge_node(read_evidence({"n": node(["burn"], burn)}, RUN, {})["n"]), "benchmark.burn")

    assert (found["status"], found["reason"]) == ("fail", "no proof: the result is not a finite number above zero")


def test_heat_during_the_burn_counts() -> None:
    burn = result("burn", "cuda:0", 700.0, "TFLOP/s", dtype="bfloat16")
    burn["throttle"] = {"fractions": {"hw_thermal_slowdown": 0.2}}

    assert only(judge(node(["burn"], burn)), "benchmark.throttle")["status"] == "fail"


def goal(said: str, value: float = 4000.0) -> dict[str, Any]:
    details = {
        "verdict": said,
        "reason": "4000 of 5000 tokens/s within 200 ms",
        "goal": {"tokens_per_s": 5000, "p99_ms": 200, "vram_fraction": 0.8},
        "ceiling": {"tokens_per_s": 4500.0, "source": "catalogue"},
        "point": {"batch": 64},
    }
    return result("llm_inference", "cuda:0", value, "tokens/s", name="llm_goal_7b-gqa4", details=details)


@pytest.mark.parametrize(
    ("said", "status", "overall"),
    [
        ("pass", "pass", "pass"),
        ("fail", "fail", "fail"),
        ("unattainable", "unattainable", "unattainable"),
        ("not_judged", "not_applicable", "pass"),
        ("perhaps", "not_measured", "warn"),
    ],
)
def test_the_goal_of_inference(said: str, status: str, overall: str) -> None:
    document = judge(node(["llm_inference"], goal(said)))

    assert only(document, "benchmark.llm_goal")["status"] == status
    assert document["verdict"] == overall
    if overall == "unattainable":
        assert document["verdict_text"] == "unattainable"
        assert document["reasons"] == [
            "unattainable: benchmark.llm_goal on gpu0: 4000 of 5000 tokens/s within 200 ms. "
            "Choose a smaller goal, another workload or a card with more bandwidth: no setting reaches it."
        ]


def test_a_goal_for_which_the_weights_do_not_fit_has_no_speed() -> None:
    document = judge(node(["llm_inference"], goal("unattainable", value=0.0)))

    assert document["verdict"] == "unattainable"


def test_unattainable_ranks_between_fail_and_warn() -> None:
    warned = node(["llm_inference", "pcie"], goal("unattainable"), pcie(48.0))
    failed = node(["llm_inference", "pcie"], goal("unattainable"), pcie(40.0))

    assert (judge(warned)["verdict"], judge(failed)["verdict"]) == ("unattainable", "fail")
    assert verdict.worst_of(["pass", "warn", "unattainable"]) == "unattainable"
    assert verdict.worst_of([]) == "fail"


def test_simulated_gpus_run_none_of_it() -> None:
    given = evidence(gpu(2, simulated=True), cpu_benchmark())
    given["benchmark"]["torch_benchmark"]["suites"] += ["correctness", "pcie", "burn"]
    given["benchmark"]["torch_benchmark"]["results"].append(
        result("correctness", "cpu", 0.0, "wrong elements", name="correctness_float32")
    )
    given["benchmark"]["torch_benchmark"]["not_applicable"] = [{"suite": "burn", "device": "cpu", "reason": "a CPU"}]
    document = judge(given)

    assert document["verdict"] == "pass"
    for suite in ("correctness", "burn"):
        found = {e["subject"]: e["status"] for e in document["checks"] if e["id"] == f"benchmark.{suite}"}
        assert found == {"cpu": "pass" if suite == "correctness" else "not_applicable", "gpu": "not_applicable"}


def test_only_the_primary_data_type_is_held_to_the_gate() -> None:
    slow = [
        result("gemm", "cuda:0", value, unit, name=f"gemm_{dtype}_8192", dtype=dtype, shape=[8192] * 3)
        for dtype, value, unit in (
            ("float32", 1.0, "TFLOP/s"),
            ("int8", 1.0, "TOP/s"),
            ("float8_e4m3fn", 1.0, "TFLOP/s"),
        )
    ]
    given = node([])
    given["benchmark"]["torch_benchmark"]["results"][1:1] = slow

    found = only(judge(given), "benchmark.gemm")
    assert found["status"] == "pass"
    assert found["observed"]["name"] == "gemm_bfloat16_8192"


@pytest.mark.parametrize(
    ("suites", "lacking"),
    [
        (None, "benchmark.gemm"),
        (["kernel"], None),
        (["import"], None),
        (["memory"], None),
        (["gemm"], "benchmark.gemm"),
    ],
)
def test_a_part_is_judged_by_what_it_was_asked_for(suites: list[str] | None, lacking: str | None) -> None:
    given = node([])
    document = given["benchmark"]["torch_benchmark"]
    document["results"] = [entry for entry in document["results"] if entry["suite"] != "gemm"]

    judged = judge(given, suites=suites)

    assert judged["verdict"] == ("fail" if lacking else "pass")
    assert (lacking or "") in " ".join(judged["reasons"])


@pytest.mark.parametrize(
    ("generation", "width", "ceiling"),
    [(1, 16, 4.0), (2, 8, 4.0), (3, 16, 15.75), (4, 16, 31.5), (4, 4, 7.875), (5, 16, 63), (6, 16, 121), (7, 16, None)],
)
def test_what_a_link_carries(generation: int, width: int, ceiling: float | None) -> None:
    assert verdict_gates.link_ceiling(generation, width) == ceiling


@pytest.mark.parametrize(("generation", "width"), [(None, 16), (5, None), (5, 0), ("5", 16), (5, "16")])
def test_a_link_that_is_not_known_has_no_ceiling(generation: Any, width: Any) -> None:
    assert verdict_gates.link_ceiling(generation, width) is None


JUNK = st.recursive(
    st.sampled_from([None, True, 0, -1, 2.5, "", "x", "uni", "cuda:0", "cuda:1", float("nan")]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["link", "peer", "generation", "width", "verdict", "state", "max_width"]), inner
        )
    ),
    max_leaves=6,
)
FIELDS = (
    "value",
    "median",
    "unit",
    "name",
    "dtype",
    "shape",
    "details",
    "throttle",
    "missing",
    "attempts",
    "spread",
    "level",
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pcie", "p2p", "correctness", "burn", "llm_inference", "gemm", "memory"]),
            st.sampled_from(["cuda:0", "cuda:1", "node", "cpu"]),
            st.dictionaries(st.sampled_from(FIELDS), JUNK),
        ),
        max_size=4,
    ),
    JUNK,
    JUNK,
)
def test_no_shape_of_a_result_ends_in_a_traceback(found: list[Any], topology: Any, skipped: Any) -> None:
    results = [{"suite": suite, "device": device, **fields} for suite, device, fields in found]
    given_node = node(
        ["pcie", "p2p", "correctness", "burn", "llm_inference"], *results, count=2, not_applicable=skipped
    )
    given_node["facts"]["ansible_facts"]["gpu"]["topology"] = topology
    evidence_of = read_evidence({"n": given_node}, RUN, {})

    documents, _relative = verdict.judge_fleet(evidence_of)

    assert documents["n"]["verdict"] in ("pass", "warn", "unattainable", "fail")
