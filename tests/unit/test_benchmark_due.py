# SPDX-License-Identifier: Apache-2.0
"""Which nodes a benchmark measures, which it leaves and why, and the table it ends with."""

from __future__ import annotations

import copy
from datetime import datetime, timezone
from typing import Any

import pytest
from unit.verdict_samples import RUN, cuda_benchmark, finding, gpu, health, result

from rackwright import benchmark_due, proof, speed_table, text_table

NOW = datetime(2026, 11, 30, 12, 0, 0, tzinfo=timezone.utc)
AT = "2026-11-28T10:00:00Z"
TORCH = "2.13.0+cu130"
ALL = ["import", "kernel", "gemm", "memory"]


def document(verdict: str = "pass", level: str = "standard", suites: Any = ALL) -> dict[str, Any]:
    """The part of a verdict document that the record of proofs is made from."""
    return {
        "verdict": verdict,
        "verdict_text": verdict,
        "simulated": False,
        "run_id": "R1",
        "torch": {"version": TORCH},
        "benchmark": {"level": level, "suites": list(suites)},
    }


def proofs(*documents: dict[str, Any], whole: bool = True) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for one in documents or (document(),):
        entry = proof.updated(entry, one, gpu(2), AT, whole=whole)
    return {"n": entry}


def node(facts: Any = None, torch: str | None = TORCH, **more: Any) -> dict[str, Any]:
    benchmark = {"torch_benchmark": {"torch": {"version": torch}}} if torch else {}
    facts = {"ansible_facts": {"gpu": gpu(2)}} if facts is None else facts
    return {"facts": facts, "benchmark": benchmark, "health": {"gpu_health": health()}, **more}


def decide(given: dict[str, Any], known: dict[str, Any], *wanted: Any) -> dict[str, Any]:
    return benchmark_due.decide({"n": given}, known, benchmark_due.Wanted(*(wanted or ("standard",))), NOW)


def test_an_unchanged_node_is_left_and_told_how_old_its_result_is() -> None:
    assert decide(node(), proofs()) == {
        "due": {},
        "skipped": {"n": "nothing changed since run R1 (pass, 2 days ago, torch 2.13.0+cu130)"},
        "unfit": {},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    facts = gpu(2)
    record: Any = facts
    *parents, last = path.split(".")
    for key in parents:
        record = record[int(key)] if isinstance(record, list) else record.setdefault(key, {})
    record[last] = value
    return {"ansible_facts": {"gpu": facts}}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (changed("driver.library_version", "595.1"), "library changed since run R1"),
        (changed("driver.kernel_module_version", "595.1"), "kernel module changed since run R1"),
        (changed("devices.0.vbios_version", "97"), "devices changed since run R1"),
        (changed("devices.0.uuid", "GPU-9"), "devices changed since run R1"),
        (changed("devices.0.power", {"limit_watts": 500.0}), "settings changed since run R1"),
        (changed("devices.0.clocks", {"max_sm_mhz": 1755}), "settings changed since run R1"),
        (changed("devices.0.ecc.current", "disabled"), "settings changed since run R1"),
        (changed("devices.0.mig", {"mode": "enabled"}), "settings changed since run R1"),
    ],
)
def test_whatever_a_number_depends_on_makes_it_due(facts: dict[str, Any], why: str) -> None:
    found = decide(node(facts), proofs())

    assert list(found["due"]) == ["n"]
    assert why.split(" changed")[0] in found["due"]["n"]
    assert found["due"]["n"].endswith("changed since run R1")


def test_readings_that_move_by_themselves_change_nothing() -> None:
    moving = changed("devices.0.temperature", {"gpu_celsius": 70})
    moving["ansible_facts"]["gpu"]["devices"][0].update(power={"draw_watts": 690.0}, clocks={"sm_mhz": 345})

    assert decide(node(moving), proofs())["skipped"]


@pytest.mark.parametrize(
    ("known", "given", "wanted", "why"),
    [
        ({}, node(), ("standard",), "no benchmark of level standard is recorded"),
        (proofs(), node(torch="2.14.0"), ("standard",), "torch changed from 2.13.0+cu130 to 2.14.0 since run R1"),
        (proofs(), node(torch=None), ("standard",), "the release of torch could not be told"),
        (proofs(), node(), ("full",), "no benchmark of level full is recorded"),
        (proofs(document("fail")), node(), ("standard",), "the last verdict was fail (run R1)"),
        (proofs(), node(), ("standard", ["gemm", "burn"]), "burn not measured in run R1"),
        (proofs(whole=False), node(), ("standard",), "some suites of the level not measured in run R1"),
        (proofs(), node(), ("standard", None, True), "asked for"),
    ],
)
def test_why_a_node_is_measured(known: dict[str, Any], given: dict[str, Any], wanted: Any, why: str) -> None:
    assert decide(given, known, *wanted)["due"] == {"n": why}


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        (proofs(), ("quick",)),
        (proofs(document(level="full")), ("standard",)),
        (proofs(), ("standard", ["gemm"])),
        (proofs(whole=False), ("standard", ["gemm"])),
        (proofs(document("warn")), ("standard",)),
        (proofs(document("unattainable")), ("standard",)),
        (proofs(document(level="quick"), document()), ("quick",)),
    ],
)
def test_a_longer_or_larger_benchmark_covers_a_shorter_one(known: dict[str, Any], wanted: Any) -> None:
    assert decide(node(), known, *wanted)["skipped"]


def test_a_part_measured_well_leaves_the_record_of_the_whole() -> None:
    entry = proofs()["n"]
    part = proof.updated(entry, {**document(suites=["gemm"]), "run_id": "R2"}, gpu(2), AT, whole=False)
    assert part == entry

    failed = proof.updated(entry, {**document("fail", suites=["gemm"]), "run_id": "R2"}, gpu(2), AT, whole=False)
    assert (failed["verdict"], failed["run_id"]) == ("fail", "R2")
    assert proof.due(failed, gpu(2)) == "the last verdict was fail (run R2)"


def test_a_part_of_a_node_that_changed_takes_the_place_of_the_whole() -> None:
    other = {**document(suites=["gemm"]), "torch": {"version": "2.14.0"}, "run_id": "R2"}
    part = proof.updated(proofs()["n"], other, gpu(2), AT, whole=False)

    assert part["run_id"] == "R1"
    assert part["benchmarks"]["standard"]["run_id"] == "R2"


def test_a_failure_without_a_benchmark_takes_the_earlier_one_with_it() -> None:
    entry = proof.updated(proofs()["n"], {**document("fail"), "benchmark": None}, gpu(2), AT)

    assert decide(node(), {"n": entry})["due"] == {"n": "no benchmark of level standard is recorded"}


def test_a_part_alone_is_no_proof() -> None:
    entry = proof.updated(None, document(suites=["gemm"]), gpu(2), AT, whole=False)

    assert proof.due(entry, gpu(2)) == "never proven"


def test_what_an_older_version_did_not_write_down_is_no_difference() -> None:
    entry = copy.deepcopy(proofs()["n"])
    del entry["fingerprint"]["settings"]

    assert proof.due(entry, changed("devices.0.power", {"limit_watts": 500.0})["ansible_facts"]["gpu"]) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (node({"unreachable": True, "msg": "x"}), "it is unreachable"),
        (node({"failed": True, "msg": "x"}), "it gave no GPU facts"),
        ({}, "it gave no GPU facts"),
        (node(health={"unreachable": True}), "it is unreachable"),
        (node(health={"gpu_health": health(finding("kernel.xid", "gpu0", "reboot"))}), "health asks for reboot"),
        (node(health={"gpu_health": health(finding("kernel.xid", "gpu0", "isolate"))}), "health asks for isolate"),
    ],
)
def test_what_must_not_be_loaded_is_told(given: dict[str, Any], why: str) -> None:
    assert decide(given, {}) == {"due": {}, "skipped": {}, "unfit": {"n": why}}


def test_a_reset_that_is_asked_for_does_not_keep_a_node_from_being_measured() -> None:
    ill = node(health={"gpu_health": health(finding("remap.pending", "gpu0", "reset"))})

    assert decide(ill, {})["due"]


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-11-30T12:00:00Z", "0 minutes"),
        ("2026-11-30T11:59:00Z", "1 minute"),
        ("2026-11-30T10:01:00Z", "119 minutes"),
        ("2026-11-30T10:00:00Z", "2 hours"),
        ("2026-11-28T12:01:00Z", "47 hours"),
        ("2026-11-28T12:00:00Z", "2 days"),
        ("2025-11-30T12:00:00Z", "365 days"),
        ("2027-01-01T00:00:00Z", "0 minutes"),
        ("yesterday", "an unknown time"),
        ("", "an unknown time"),
    ],
)
def test_ages(at: str, said: str) -> None:
    assert benchmark_due.age(at, NOW) == said


def row_document(name: str, verdict: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": name,
        "verdict": verdict,
        "verdict_text": verdict,
        "simulated": False,
        "reasons": [] if verdict == "pass" else [f"{verdict}: why"],
        "gpu": gpu(2),
        "benchmark": {"results": list(results)},
    }


def straggler(node_name: str, fraction: float, against: str = "peers") -> dict[str, Any]:
    known = {"node": node_name, "subject": "gpu1", "metric": "gemm_bfloat16_8192", "against": against}
    return {**known, "status": "warn", "value": 700.0, "unit": "TFLOP/s", "fraction": fraction}


def test_the_worst_stands_first_and_of_each_number_the_slowest_gpu() -> None:
    measured = cuda_benchmark(2)["torch_benchmark"]["results"]
    slow = [*measured, result("pcie", "cuda:1", 41.0, "GB/s", name="pcie_d2h")]
    documents = [
        row_document("fine", "pass", *measured),
        row_document("little", "warn", *measured),
        row_document("much", "warn", *slow),
        row_document("goal", "unattainable"),
        row_document("broken", "fail"),
    ]
    stragglers = [straggler("much", 0.91), straggler("little", 0.94, "history")]
    text = speed_table.text(documents, stragglers, "reports/fleet.json", RUN, {"old": "nothing changed"}, ["A note."])
    rows = {line.split()[0]: line for line in text.splitlines()[4:9]}

    assert list(rows) == ["broken", "goal", "much", "little", "fine"]
    assert "740 TFLOP/s" in rows["much"]
    assert "41 GB/s" in rows["much"]
    assert "gpu1 -9 % peers" in rows["much"]
    assert "gpu1 -6 % history" in rows["little"]
    assert "much gpu1: gemm_bfloat16_8192 700 TFLOP/s, 9 % below its peers (warn)" in text
    assert "little gpu1: gemm_bfloat16_8192 700 TFLOP/s, 6 % below its own past (warn)" in text
    assert "- old: nothing changed" in text
    assert "5 node(s): 1 pass, 2 warn, 1 unattainable, 1 fail." in text
    assert "Note: A note." in text
    assert max(map(len, text.splitlines())) <= text_table.WIDTH


def test_where_nobody_was_measured_there_is_no_table() -> None:
    text = speed_table.text([], [], None, RUN, {f"n{number}": "nothing changed" for number in range(20)})

    assert "NODE" not in text
    assert "Not measured again, -e benchmark=all does (20 node(s)):" in text
    assert "... and 8 more" in text
    assert text.endswith("No node was benchmarked.")


def test_a_large_fleet_is_cut_behind_the_worst() -> None:
    documents = [row_document(f"n{number}", "pass") for number in range(100)] + [row_document("bad", "fail")]
    text = speed_table.text(documents, [straggler("bad", 0.5)] * 60, "x", RUN, {})

    assert text.splitlines()[4].startswith("bad")
    assert "... and 61 more nodes, named in the fleet's report" in text
    assert "... and 20 more, in the fleet's report" in text
