# SPDX-License-Identifier: Apache-2.0
"""benchmark-nodes.yml and the repetition of numbers in doubt, as a user sees them, on stand-in modules."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.proof_site import AWAY, BENCHMARK, HEALTHY, ROOT, build, calls, play
from unit.verdict_samples import cuda_benchmark, finding, gpu, health, no_gpu, own_uuids

BENCH = "benchmark-nodes.yml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the checkout with stand-ins for what needs hardware."""
    return build(tmp_path)


def node(prefix: str, tflops: float, again: float | None = None) -> dict[str, Any]:
    """A node of two H100 with UUIDs of its own, and what a repetition of its matrix products gives."""
    facts, first = own_uuids(gpu(2), cuda_benchmark(2, tflops)["torch_benchmark"], prefix)
    if again is None:
        return {"facts": facts, "benchmark": first}
    part = copy.deepcopy(cuda_benchmark(2, again)["torch_benchmark"])
    part["results"] = [entry for entry in part["results"] if entry["suite"] == "gemm"]
    return {"facts": facts, "benchmark": {"first": first, "again": part}}


def facts_of(site: Path, name: str) -> dict[str, Any]:
    """What the fact cache has of a node."""
    known = json.loads((site / "facts" / f"s1_{name}").read_text())
    # newer versions of Ansible keep the facts as a text within the file, with the origin beside a value
    facts: dict[str, Any] = json.loads(known["__payload__"], object_hook=untagged) if "__payload__" in known else known
    return facts


def untagged(value: dict[str, Any]) -> Any:
    """A value without its origin."""
    return value["value"] if str(value.get("__ansible_type")).startswith("_AnsibleTagged") else value


def test_a_fleet_is_told_the_worst_first_and_a_second_run_measures_nobody(site: Path) -> None:
    nodes = {
        "good-1": node("a", 740.0),
        "good-2": node("b", 745.0),
        "slow": node("c", 640.0, again=641.0),
        "unlucky": node("d", 500.0, again=741.0),
        "ill": {"facts": gpu(1), "health": {"gpu_health": health(finding("kernel.xid", "gpu0", "isolate"))}},
        "away": AWAY,
    }
    done = play(site, nodes, "-e", "benchmark_level=quick", playbook=BENCH)

    assert done.returncode == 2, done.stdout + done.stderr
    fleet = json.loads((site / "reports/fleet.json").read_text())
    assert {name: entry["verdict"] for name, entry in fleet["nodes"].items()} == {
        "good-1": "pass",
        "good-2": "pass",
        "slow": "fail",
        "unlucky": "pass",
        "ill": "fail",
        "away": "fail",
    }
    assert calls(site, "good-1") == [["import"], None]
    assert calls(site, "slow") == [["import"], None, ["gemm"]]
    assert calls(site, "unlucky") == [["import"], None, ["gemm"]]
    assert calls(site, "ill") == [], "what asks to be isolated is not loaded"
    table = done.stdout.split("Rackwright benchmark")[1]
    order = [
        line.split()[0] for line in table.splitlines() if line[:5] in ("good-", "slow ", "unluc", "ill  ", "away ")
    ]
    assert order == ["slow", "away", "ill", "good-1", "good-2", "unlucky"]
    assert "slow gpu0: gemm_bfloat16_8192 641 TFLOP/s, 13.4 % below its peers (fail)" in table
    assert "measured twice (640 and 641), the better counts" in " ".join(table.split())
    assert "health.kernel_xid on gpu0: Something is wrong (isolate). Reset the GPU." in " ".join(table.split())
    cached = facts_of(site, "slow")["gpu_verdict"]
    assert (cached["verdict"], cached["simulated"], cached["run_id"]) == ("fail", False, fleet["run_id"])

    for name in ("ill", "away"):
        del nodes[name]
    again = play(site, nodes, "-e", "benchmark_level=quick", playbook=BENCH)

    assert again.returncode == 2
    assert calls(site, "good-1") == [["import"], None, ["import"]]
    assert calls(site, "slow")[3:] == [["import"], None, ["gemm"]]
    assert (
        f"good-1: nothing changed since run {fleet['run_id']} (pass, 0 minutes ago, torch 2.13.0+cu130)" in again.stdout
    )


def test_asked_for_all_of_one_suite_in_check_mode_and_in_earnest(site: Path) -> None:
    nodes = {"cpu-1": {"facts": no_gpu(), "benchmark": BENCHMARK, "health": HEALTHY}}
    arguments = ("-e", "benchmark=all", "-e", '{"benchmark_suites": ["gemm"]}')
    checked = play(site, nodes, *arguments, "--check", playbook=BENCH)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Rackwright benchmark (check mode: nothing was measured)" in checked.stdout
    assert not (site / "reports").exists()

    done = play(site, nodes, *arguments, playbook=BENCH)

    assert done.returncode == 0, done.stdout + done.stderr
    assert calls(site, "cpu-1")[-1] == ["gemm"]
    assert "0.05 TFLOP/s (CPU)" in done.stdout
    proofs = json.loads((site / "reports/proofs.json").read_text())["nodes"]
    assert "verdict" not in proofs["cpu-1"], "a part of a proof proves nothing"
    assert "gpu_verdict" not in facts_of(site, "cpu-1")


def test_each_group_has_its_own_gates(site: Path) -> None:
    lenient = {"prove_gates": {"gemm.hopper": {"warn": 0.5, "fail": 0.4}, "peers": {"warn": None, "fail": None}}}
    nodes = {"strict": node("a", 560.0, again=560.0), "lenient": {**node("b", 560.0), "vars": lenient}}
    done = play(site, nodes)

    verdicts = json.loads((site / "reports/fleet.json").read_text())["nodes"]
    assert {name: entry["verdict"] for name, entry in verdicts.items()} == {"strict": "fail", "lenient": "pass"}, (
        done.stdout
    )


@pytest.mark.parametrize("playbook", ["prove-nodes.yml", BENCH])
def test_a_repetition_is_asked_for_with_what_the_first_measurement_was(playbook: str) -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text(encoding="utf-8"))
    judging = yaml.safe_load((ROOT / "playbooks/judge-nodes.yml").read_text(encoding="utf-8"))
    options = ("level", "timeout", "llm_workload", "llm_goal")

    first = next(found for found in map(benchmark_of, plays) if found)
    again = next(found for found in map(benchmark_of, judging) if found)
    handed_on = next(one["vars"] for one in plays if one.get("ansible.builtin.import_playbook") == "judge-nodes.yml")

    assert {name for name in options if f"__judge_{name}" in again[name]} == set(options)
    assert {name for name in options if name in first} == {name for name in options if f"__judge_{name}" in handed_on}


def benchmark_of(play: dict[str, Any]) -> dict[str, Any] | None:
    """The options with which a play measures, None where it does not."""
    tasks = [task for entry in play.get("tasks", []) for task in entry.get("block", [])]
    asked: list[dict[str, Any]] = [task["torch_benchmark"] for task in tasks if "torch_benchmark" in task]
    return next((options for options in asked if "level" in options), None)
