# SPDX-License-Identifier: Apache-2.0
"""Peers, the past and the repetition as a run sees them: who is flagged, what is remembered, what counts of two."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.verdict_samples import RUN, cpu_benchmark, cuda_benchmark, evidence, gpu, no_gpu, own_uuids, result

from ansible.module_utils.rackwright import fleet_judge, speed_metrics, verdict_repeat
from ansible.module_utils.rackwright.evidence import read_evidence

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/verdict.schema.json").read_text())


def node(prefix: str, tflops: float | list[float], count: int = 2, run_id: str = RUN, **more: Any) -> dict[str, Any]:
    """A node of H100s of its own, each with its own speed of matrix products."""
    speeds = tflops if isinstance(tflops, list) else [tflops] * count
    facts, document = own_uuids(gpu(len(speeds)), cuda_benchmark(len(speeds))["torch_benchmark"], prefix)
    for index, speed in enumerate(speeds):
        for entry in document["results"]:
            if entry["suite"] == "gemm" and entry["device"] == f"cuda:{index}":
                entry.update(dict.fromkeys(("value", "median", "p5", "p95", "min", "max"), speed))
    document["run_id"] = run_id
    return evidence(facts, {"torch_benchmark": document}, **more)


def judge(folder: Path, nodes: dict[str, Any], run_id: str = RUN, **options: Any) -> dict[str, Any]:
    """Judge a run and hold what it wrote against the schema."""
    answer = fleet_judge.judge_run(nodes, fleet_judge.Options(run_id, str(folder), **options))
    if (folder / "fleet.json").exists():
        jsonschema.validate(json.loads((folder / "fleet.json").read_text()), SCHEMA)
    return answer


def report(folder: Path, name: str, run_id: str = RUN) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / run_id / f"{name}.json").read_text())
    jsonschema.validate(document, SCHEMA)
    return document


def of(document: dict[str, Any], beginning: str) -> dict[str, str]:
    return {e["subject"]: e["status"] for e in document["checks"] if e["id"].startswith(beginning)}


FLEET = {f"n{number}": node(f"n{number}", [738.0, 741.0, 744.0, 740.0]) for number in range(4)}


@pytest.mark.parametrize(("speed", "status"), [(720.0, "pass"), (695.0, "warn"), (660.0, "fail")])
def test_a_slow_gpu_of_a_fleet_is_named_with_median_count_and_z(tmp_path: Path, speed: float, status: str) -> None:
    answer = judge(tmp_path, {**FLEET, "slow": node("slow", [740.0, speed, 741.0])})

    document = report(tmp_path, "slow")
    peers = of(document, "benchmark.peers.gemm_bfloat16_8192")
    if status == "pass":
        assert peers == {"gpu0, gpu1, gpu2": "pass"}
        assert answer["stragglers"] == []
        return
    assert peers == {"gpu1": status, "gpu0, gpu2": "pass"}
    assert document["verdict"] == status
    reason = next(e["reason"] for e in document["checks"] if e["id"].startswith("benchmark.peers") and e["reason"])
    assert f"{speed:g} TFLOP/s" in reason
    assert "below the median 740 TFLOP/s of 19 GPUs or nodes of its kind; modified z -" in reason
    assert [(e["node"], e["subject"], e["against"], e["status"]) for e in answer["stragglers"]] == [
        ("slow", "gpu1", "peers", status)
    ]
    assert all(entry["verdict"] == "pass" for name, entry in answer["verdicts"].items() if name != "slow")


def test_another_kind_is_no_peer(tmp_path: Path) -> None:
    capped = node("capped", 650.0)
    for device in capped["facts"]["ansible_facts"]["gpu"]["devices"]:
        device["power"] = {"limit_watts": 500.0}
    judge(tmp_path, {**FLEET, "capped": capped})

    document = report(tmp_path, "capped")
    assert of(document, "benchmark.peers.gemm_bfloat16_8192") == {"gpu0, gpu1": "pass"}


def test_alone_a_gpu_has_no_peer_and_no_past_and_passes(tmp_path: Path) -> None:
    judge(tmp_path, {"one": node("one", [740.0])})
    document = report(tmp_path, "one")

    assert document["verdict"] == "pass"
    assert of(document, "benchmark.peers") == {"node": "not_applicable"}
    assert of(document, "benchmark.history") == {"node": "not_applicable"}


def test_a_node_that_is_measured_alone_is_held_against_the_others_of_before(tmp_path: Path) -> None:
    judge(tmp_path, FLEET)
    judge(tmp_path, {"new": node("new", [640.0], run_id="R2")}, "R2")

    document = report(tmp_path, "new", "R2")
    assert document["verdict"] == "fail"
    assert "of 17 GPUs or nodes of its kind (16 from earlier runs)" in " ".join(document["reasons"])


def test_nodes_without_gpus_and_simulated_ones_are_compared_with_nothing(tmp_path: Path) -> None:
    judge(
        tmp_path, {"cpu": evidence(no_gpu(), cpu_benchmark()), "sim": evidence(gpu(2, simulated=True), cpu_benchmark())}
    )

    for name in ("cpu", "sim"):
        assert not of(report(tmp_path, name), "benchmark.peers")
        assert not of(report(tmp_path, name), "benchmark.history")
    assert not (tmp_path / "history.json").exists()


def test_mig_slices_are_compared_with_nothing() -> None:
    given = node("n", [740.0, 700.0])
    given["facts"]["ansible_facts"]["gpu"]["devices"][1]["mig"] = {"mode": "enabled"}

    found = speed_metrics.readings(read_evidence({"n": given}, RUN, {})["n"])

    assert {reading.subject for reading in found} == {"gpu0"}


@pytest.mark.parametrize(
    "odd",
    [
        result("llm_training", "cuda:0", 0.0, "tokens/s", name="llm_train", details={"state": "out_of_memory"}),
        result("llm_training", "cuda:0", 9.0, "tokens/s", name="llm_train", details={"state": "out_of_memory"}),
        result("llm_inference", "cuda:0", 9.0, "tokens/s", name="llm_goal_7b", details={}),
        result("correctness", "cuda:0", 3.0, "wrong elements"),
        result("gemm", "cuda:0", float("nan"), "TFLOP/s", name="gemm_nan"),
        result("gemm", "cuda:7", 9.0, "TFLOP/s", name="gemm_elsewhere"),
        result("gemm", "cpu", 9.0, "TFLOP/s", name="gemm_cpu"),
        {"suite": "gemm", "device": "cuda:0"},
    ],
)
def test_what_is_no_speed_is_not_compared(odd: dict[str, Any]) -> None:
    given = node("n", [740.0])
    before = speed_metrics.readings(read_evidence({"n": given}, RUN, {})["n"])
    given["benchmark"]["torch_benchmark"]["results"].append(odd)

    assert speed_metrics.readings(read_evidence({"n": given}, RUN, {})["n"]) == before


def test_of_several_numbers_of_one_name_the_slowest_counts() -> None:
    given = node("n", [740.0, 740.0])
    pairs = [
        result("p2p", "cuda:0", value, "GB/s", name="p2p_uni", details={"peer": f"cuda:{number}", "direction": "uni"})
        for number, value in enumerate((300.0, 380.0, 350.0))
    ]
    given["benchmark"]["torch_benchmark"]["results"] += pairs

    found = {r.metric[1]: r.value for r in speed_metrics.readings(read_evidence({"n": given}, RUN, {})["n"])}

    assert found["p2p_uni"] == 300.0


def test_a_node_of_two_kinds_has_a_number_of_each() -> None:
    given = node("n", [740.0, 740.0])
    given["benchmark"]["torch_benchmark"]["results"] += [
        result("burn", "node", rate, "TFLOP/s", name="burn_node", dtype="bfloat16", device_name=name)
        for name, rate in (("H100", 900.0), ("L4", 90.0))
    ]
    found = speed_metrics.readings(read_evidence({"n": given}, RUN, {})["n"])

    assert {reading.metric[5]: reading.value for reading in found if reading.of_node} == {"H100": 900.0, "L4": 90.0}


def test_a_number_of_the_node_belongs_to_the_node(tmp_path: Path) -> None:
    nodes = {}
    for number, rate in enumerate((1000.0, 1005.0, 995.0, 1002.0, 850.0)):
        nodes[f"n{number}"] = node(f"n{number}", 740.0)
        entry = result("burn", "node", rate, "TFLOP/s", name="burn_node", dtype="bfloat16")
        nodes[f"n{number}"]["benchmark"]["torch_benchmark"]["results"].append(entry)
    answer = judge(tmp_path, nodes)

    assert [(e["node"], e["subject"], e["metric"]) for e in answer["stragglers"]] == [("n4", "node", "burn_node")]


def test_a_regression_is_told_with_what_changed_and_follows_the_card(tmp_path: Path) -> None:
    for number in range(3):
        judge(tmp_path, {"old-name": node("x", [760.0, 762.0], run_id=f"R{number}")}, f"R{number}")
    moved = node("x", [700.0, 762.0], run_id="R9")
    moved["facts"]["ansible_facts"]["gpu"]["driver"]["kernel_module_version"] = "550.1.1"
    judge(tmp_path, {"new-name": moved}, "R9")

    document = report(tmp_path, "new-name", "R9")
    assert of(document, "benchmark.history.gemm_bfloat16_8192") == {"gpu0": "warn", "gpu1": "pass"}
    reasons = " ".join(document["reasons"])
    assert "700 TFLOP/s, 7.9 % below its own 760 (3 earlier runs, the last R2)" in reasons
    assert "changed since: driver 535.288.01 to 550.1.1, node old-name to new-name" in reasons


def test_a_fault_never_becomes_the_base(tmp_path: Path) -> None:
    judge(tmp_path, {"n": node("x", [740.0, 741.0], run_id="R0")}, "R0")
    for number in range(1, 6):
        judge(tmp_path, {"n": node("x", [500.0, 741.0], run_id=f"R{number}")}, f"R{number}")

    history = json.loads((tmp_path / "history.json").read_text())
    runs = {run for card in history["cards"].values() for run in card["runs"]}
    assert runs == {"R0"}
    document = report(tmp_path, "n", "R5")
    assert of(document, "benchmark.history.gemm_bfloat16_8192") == {"gpu0": "fail", "gpu1": "pass"}


def test_a_damaged_history_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("{half")
    answer = judge(tmp_path, {"n": node("x", 740.0)})

    assert answer["failed_nodes"] == []
    text = " ".join(answer["table_text"].split())
    assert f"Note: Could not read the history on {tmp_path}/history.json: it is damaged" in text
    assert f"The damaged history is now {tmp_path}/history.json.damaged-{RUN}" in text
    assert (tmp_path / f"history.json.damaged-{RUN}").read_text() == "{half"
    assert json.loads((tmp_path / "history.json").read_text())["cards"]


def test_check_mode_remembers_nothing(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("{half")
    judge(tmp_path, {"n": node("x", 740.0)}, check_mode=True)

    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


def test_a_node_has_its_own_limits(tmp_path: Path) -> None:
    slow = node("slow", [640.0, 740.0], gates={"peers": {"fail": None}, "gemm.hopper": {"warn": 0.5, "fail": None}})
    judge(tmp_path, {**FLEET, "slow": slow})

    assert report(tmp_path, "slow")["verdict"] == "warn"


# repetition


def again(first: dict[str, Any], *results: dict[str, Any], errors: Any = (), suites: Any = ("gemm",)) -> dict[str, Any]:
    """The evidence with a repetition of some suites."""
    document = {"run_id": RUN, "suites": list(suites), "results": list(results), "errors": list(errors)}
    return {**first, "again": {"torch_benchmark": document}}


def gemm(value: float, device: str = "cuda:0", **more: Any) -> dict[str, Any]:
    options = {"dtype": "bfloat16", "shape": [8192] * 3, "name": "gemm_bfloat16_8192", **more}
    return result("gemm", device, value, "TFLOP/s", **options)


def repeats(folder: Path, nodes: dict[str, Any], **options: Any) -> dict[str, list[str]]:
    return fleet_judge.repeats(nodes, fleet_judge.Options(RUN, str(folder), **options))


def test_nothing_in_doubt_costs_nothing(tmp_path: Path) -> None:
    assert repeats(tmp_path, FLEET) == {}
    assert repeats(tmp_path, {"cpu": evidence(no_gpu(), cpu_benchmark())}) == {}
    assert list(tmp_path.iterdir()) == []


def test_only_the_suites_that_would_fail_are_repeated(tmp_path: Path) -> None:
    both = node("both", [500.0])
    for entry in both["benchmark"]["torch_benchmark"]["results"]:
        if entry["suite"] == "memory":
            entry.update(dict.fromkeys(("value", "median", "p5", "p95", "min", "max"), 1000.0))

    assert repeats(tmp_path, {**FLEET, "one": node("one", [500.0]), "both": both}) == {
        "one": ["gemm"],
        "both": ["gemm", "memory"],
    }


def test_a_doubt_against_peers_or_the_past_is_repeated(tmp_path: Path) -> None:
    assert repeats(tmp_path, {**FLEET, "slow": node("slow", [660.0, 740.0])}) == {"slow": ["gemm"]}
    judge(tmp_path, {"one": node("one", [760.0], run_id="R0")}, "R0")
    assert repeats(tmp_path, {"one": node("one", [680.0])}) == {"one": ["gemm"]}


def test_who_is_in_doubt_does_not_judge_the_others(tmp_path: Path) -> None:
    nodes = {
        "a": node("a", [740.0, 741.0]),
        "b": node("b", [742.0, 739.0]),
        "slow": node("slow", [650.0, 651.0]),
        "unlucky": node("unlucky", [500.0, 501.0]),
    }
    assert repeats(tmp_path, nodes) == {"slow": ["gemm"], "unlucky": ["gemm"]}


def spoil_by_error(given: dict[str, Any]) -> None:
    entry = {"device": "cuda:0", "suite": "gemm", "reason": "wrong_answer", "detail": "3 wrong", "next_step": "X."}
    given["benchmark"]["torch_benchmark"]["errors"] = [entry]


def spoil_by_heat(given: dict[str, Any]) -> None:
    for entry in given["benchmark"]["torch_benchmark"]["results"]:
        if entry["suite"] == "gemm":
            entry["throttle"] = {"fractions": {"hw_thermal_slowdown": 0.5}}


def spoil_by_fault(given: dict[str, Any]) -> None:
    given["facts"]["ansible_facts"]["gpu"]["devices"][0]["row_remap"]["failure"] = True


def spoil_by_silence(given: dict[str, Any]) -> None:
    document = given["benchmark"]["torch_benchmark"]
    document["results"] = [entry for entry in document["results"] if entry["suite"] != "gemm"]


@pytest.mark.parametrize("spoil", [spoil_by_error, spoil_by_heat, spoil_by_fault, spoil_by_silence])
def test_what_is_wrong_and_not_only_slow_is_not_repeated(tmp_path: Path, spoil: Any) -> None:
    given = node("n", [500.0])
    spoil(given)

    assert repeats(tmp_path, {"n": given}) == {}
    judge(tmp_path, {"n": given})
    assert report(tmp_path, "n")["verdict"] == "fail"


def test_check_mode_repeats_nothing(tmp_path: Path) -> None:
    assert repeats(tmp_path, {"n": node("n", [500.0])}, check_mode=True) == {}


@pytest.mark.parametrize(
    ("second", "verdict", "counted"), [(740.0, "pass", 740.0), (400.0, "fail", 500.0), (500.0, "fail", 500.0)]
)
def test_the_better_of_two_counts_and_both_are_reported(
    tmp_path: Path, second: float, verdict: str, counted: float
) -> None:
    judge(tmp_path, {"n": again(node("n", [500.0]), gemm(second))})
    document = report(tmp_path, "n")

    assert document["verdict"] == verdict
    kept = next(entry for entry in document["benchmark"]["results"] if entry["suite"] == "gemm")
    assert kept["value"] == counted
    assert [attempt["value"] for attempt in kept["attempts"]] == [500.0, second]
    assert document["benchmark"]["repeated"] == ["gemm"]
    shown = next(entry for entry in document["checks"] if entry["id"] == "benchmark.gemm")
    assert f"measured twice (500 and {second:g}), the better counts" in shown["reason"]


@pytest.mark.parametrize("where", ["first", "again"])
def test_heat_is_never_measured_away(tmp_path: Path, where: str) -> None:
    hot = {"fractions": {"hw_thermal_slowdown": 0.5}}
    first, second = node("n", [500.0]), gemm(740.0)
    if where == "first":
        spoil_by_heat(first)
    else:
        second["throttle"] = hot
    judge(tmp_path, {"n": again(first, second)})

    assert of(report(tmp_path, "n"), "benchmark.throttle") == {"gpu0": "fail"}


def test_errors_of_both_measurements_stay(tmp_path: Path) -> None:
    error = {"device": "cuda:0", "suite": "gemm", "reason": "timeout", "detail": "No result.", "next_step": "X."}
    judge(tmp_path, {"n": again(node("n", [500.0]), errors=[error])})
    document = report(tmp_path, "n")

    assert document["verdict"] == "fail"
    assert any("benchmark.run on cuda:0: gemm No result." in reason for reason in document["reasons"])


@pytest.mark.parametrize(
    "second",
    [{}, {"unreachable": True, "msg": "gone"}, {"failed": True, "msg": "x"}, {"torch_benchmark": {"run_id": "older"}}],
)
def test_a_repetition_that_gave_nothing_changes_nothing(tmp_path: Path, second: dict[str, Any]) -> None:
    judge(tmp_path, {"n": {**node("n", [500.0]), "again": second}})

    assert report(tmp_path, "n")["verdict"] == "fail"
    assert "attempts" not in json.dumps(report(tmp_path, "n"))


@pytest.mark.parametrize(
    ("first", "second", "counted"),
    [
        ({"value": 3.0, "unit": "wrong elements"}, {"value": 0.0, "unit": "wrong elements"}, 3.0),
        ({"value": 0.0, "unit": "wrong elements"}, {"value": 2.0, "unit": "wrong elements"}, 2.0),
        ({"value": 12.0, "unit": "ms"}, {"value": 10.0, "unit": "ms"}, 10.0),
        ({"value": 10.0, "unit": "ms"}, {"value": 0.0, "unit": "ms"}, 10.0),
        ({"value": 9000.0, "details": {"verdict": "fail"}}, {"value": 5100.0, "details": {"verdict": "pass"}}, 5100.0),
        ({"value": 9.0, "details": {"verdict": "unattainable"}}, {"value": 10.0, "details": {"verdict": "fail"}}, 9.0),
        ({"value": 9.0}, {"value": float("nan")}, 9.0),
        ({"value": 9.0}, {"value": None}, 9.0),
    ],
)
def test_what_better_means(first: dict[str, Any], second: dict[str, Any], counted: float) -> None:
    same = {"suite": "x", "name": "x", "device": "cuda:0"}
    merged = verdict_repeat.merged({"results": [{**same, **first}]}, {"results": [{**same, **second}], "suites": ["x"]})

    assert [entry["value"] for entry in merged["results"]] == [counted]


def test_pairs_of_gpus_are_told_apart() -> None:
    def pair(peer: int, value: float) -> dict[str, Any]:
        return {
            "suite": "p2p",
            "name": "p2p_uni",
            "device": "cuda:0",
            "value": value,
            "details": {"peer": f"cuda:{peer}"},
        }

    merged = verdict_repeat.merged(
        {"results": [pair(1, 1.0), pair(2, 9.0)]}, {"results": [pair(2, 2.0), pair(1, 3.0)], "suites": ["p2p"]}
    )

    assert [entry["value"] for entry in merged["results"]] == [3.0, 9.0]


def test_a_repetition_leaves_the_evidence_as_it_was() -> None:
    first = node("n", [500.0])
    before = copy.deepcopy(first)
    read_evidence({"n": again(first, gemm(740.0))}, RUN, {})

    assert first == before
