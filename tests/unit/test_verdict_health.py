# SPDX-License-Identifier: Apache-2.0
"""What gpu_health found, as checks of a verdict: every severity, every state, told once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from unit.verdict_samples import RUN, cuda_benchmark, evidence, finding, gpu, health

from ansible.module_utils.rackwright import verdict, verdict_health
from ansible.module_utils.rackwright.evidence import read_evidence

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/verdict.schema.json").read_text())


def judge(*checks: dict[str, Any], registered: Any = None, **more: Any) -> dict[str, Any]:
    """Judge a healthy node with these checks of gpu_health."""
    result = {"gpu_health": health(*checks)} if registered is None else registered
    given = evidence(gpu(2), cuda_benchmark(2), health=result, **more)
    document = verdict.judge_node(read_evidence({"n": given}, RUN, {})["n"])
    jsonschema.validate(document, SCHEMA)
    return document


def statuses(document: dict[str, Any], beginning: str = "health.") -> dict[str, str]:
    return {f"{e['id']} {e['subject']}": e["status"] for e in document["checks"] if e["id"].startswith(beginning)}


@pytest.mark.parametrize(
    ("severity", "status"),
    [("monitor", "warn"), ("reset", "fail"), ("reboot", "fail"), ("isolate", "fail"), ("panic", "fail")],
)
def test_a_finding_weighs_what_it_asks_for(severity: str, status: str) -> None:
    entry = finding("kernel.xid", "gpu1", "isolate" if severity == "panic" else severity)
    entry["severity"] = severity
    registered = {"gpu_health": {**health(), "checks": [entry]}}
    document = judge(registered=registered)

    assert statuses(document) == {"health.kernel_xid gpu1": status}
    assert document["verdict"] == status
    assert severity in document["reasons"][0]
    assert document["reasons"][0].endswith("Reset the GPU.")


def test_actions_are_told_in_their_order() -> None:
    actions = [{"action": "drain", "text": "Drain the node."}, {"action": "reset_gpu", "text": None}, "restart_node"]
    document = judge(finding("kernel.xid", "gpu1", "reset", actions=actions))

    found = next(entry for entry in document["checks"] if entry["id"] == "health.kernel_xid")
    assert found["next_step"] == "Drain the node. Then: reset_gpu. Then: restart node."


def test_what_is_in_order_is_one_check_per_rule() -> None:
    more = [finding("nvlink.count", f"gpu{number}", None) for number in (1, 2)]
    document = judge(*more)

    assert statuses(document) == {"health.host_disk node": "pass", "health.nvlink_count gpu0, gpu1, gpu2": "pass"}
    assert document["verdict"] == "pass"
    assert document["health"]["severity"] == "none"
    assert "checks" not in document["health"]


@pytest.mark.parametrize(
    ("state", "status", "overall"),
    [
        ("not_applicable", "not_applicable", "pass"),
        ("not_measured", "not_measured", "warn"),
        ("new", "not_measured", "warn"),
    ],
)
def test_what_could_not_be_read_is_no_pass(state: str, status: str, overall: str) -> None:
    document = judge(finding("nvme.smart", "node", None, state=state, reason="there is no such drive"))

    assert statuses(document)["health.nvme_smart node"] == status
    assert document["verdict"] == overall


def test_what_is_unknown_because_no_gpu_answers_is_said_once() -> None:
    unread = [finding(f"ecc.rule{n}", "gpu0", None, state="not_measured", reason="no driver") for n in range(40)]
    facts = gpu(2, situation="driver_not_loaded", cause="The module is not loaded.", next_step="Load it.")
    given = evidence(facts, cuda_benchmark(2), health={"gpu_health": health(*unread)})
    document = verdict.judge_node(read_evidence({"n": given}, RUN, {})["n"])

    assert document["verdict"] == "fail"
    assert not [reason for reason in document["reasons"] if "health." in reason]
    assert statuses(document)["health.ecc_rule0 gpu0"] == "not_applicable"


@pytest.mark.parametrize("rule", ["coherence", "coherence.module", "gpu.situation", "gpu.count"])
def test_what_verdicts_judge_themselves_is_not_told_twice(rule: str) -> None:
    document = judge(finding(rule, "node", "reboot"))

    assert not [name for name in statuses(document) if name.startswith(f"health.{rule.replace('.', '_')}")]
    assert document["verdict"] == "pass"


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        ("gpu.ecc_errors", "ecc.uncorrected_volatile"),
        ("gpu.ecc_mode", "ecc.mode"),
        ("gpu.row_remap", "remap.pending"),
        ("gpu.recovery", "gpu.recovery_action"),
    ],
)
@pytest.mark.parametrize("state", ["ok", "finding", "not_measured"])
def test_health_speaks_for_a_gpu_where_it_could_read_it(own: str, rule: str, state: str) -> None:
    severity = "reset" if state == "finding" else None
    document = judge(finding(rule, "gpu0", severity, state=state, reason=None if state == "ok" else "why"))
    told = statuses(document, own)

    assert f"{own} gpu1" in told
    assert (f"{own} gpu0" in told) == (state == "not_measured")


@pytest.mark.parametrize(
    ("registered", "status", "text"),
    [
        (
            {"failed": True, "msg": "no sudo\nhere", "hint": "Set health_become."},
            "fail",
            "gpu_health failed: no sudo here",
        ),
        ({"gpu_health": []}, "fail", "it gave no document"),
        ({"gpu_health": {"severity": "none"}}, "fail", "it gave no document"),
        ({"skipped": True}, "not_measured", "was not run"),
    ],
)
def test_no_answer_is_no_health(registered: dict[str, Any], status: str, text: str) -> None:
    document = judge(registered=registered)

    assert statuses(document) == {"health.answer node": status}
    assert text in document["reasons"][0]
    assert document["health"] is None


def test_a_node_that_was_lost_while_its_health_was_read_is_unreachable() -> None:
    document = judge(registered={"unreachable": True, "msg": "timed out"})

    assert document["verdict"] == "fail"
    assert "unreachable: timed out" in document["reasons"][0]


def test_alike_checks_of_several_gpus_speak_for_all_of_them() -> None:
    document = judge(finding("ecc.mode", "gpu0, gpu1", None))

    assert not statuses(document, "gpu.ecc_mode")
    assert statuses(document)["health.ecc_mode gpu0, gpu1"] == "pass"


def test_without_health_there_is_no_check_of_it() -> None:
    assert statuses(judge(registered={})) == {}


@pytest.mark.parametrize("junk", [None, 3, "x", [], {"id": None}, {"id": "é ü", "state": None}])
def test_no_shape_of_a_check_ends_in_a_traceback(junk: Any) -> None:
    document = judge(registered={"gpu_health": {**health(), "checks": [junk]}})

    assert document["verdict"] in ("pass", "warn")


@pytest.mark.parametrize(
    ("severity", "asked"),
    [("none", None), ("monitor", None), ("reset", None), ("reboot", "reboot"), ("isolate", "isolate"), ("x", None)],
)
def test_what_asks_for_a_restart_or_worse_is_not_loaded(severity: str, asked: str | None) -> None:
    given = evidence(gpu(1), {}, health={"gpu_health": {**health(), "severity": severity}})
    found = read_evidence({"n": given}, RUN, {})["n"]

    assert verdict_health.asks_for(found) == asked
    document = verdict.judge_node(found)
    imported = next(entry for entry in document["checks"] if entry["id"] == "torch.import")
    assert imported["status"] == ("not_measured" if asked else "fail")
