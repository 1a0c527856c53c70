# SPDX-License-Identifier: Apache-2.0
"""A fleet is solved kind by kind, held against its lock node by node, and only what is stale is placed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rackwright import fleet_plan, lock, plan_report, proof, receipts
from rackwright.errors import InvalidInputError
from rackwright.fleet_plan import Member, Solver
from rackwright.stack_intent import Intent, intent_from_vars
from rackwright.tables import load_tables

ROOT = Path(__file__).resolve().parents[2]
TABLES = load_tables(ROOT / "roles/gpu_stack/files/tables")
TODAY = "2026-11-24"
ROLES = ["os_base", "nvidia_driver"]
H100: dict[str, Any] = {"os": "ubuntu2404", "nvswitch": True, "gpus": [{"model": "h100-sxm5-80gb", "count": 8}]}
PASCAL: dict[str, Any] = {"os": "rocky9", "gpus": [{"model": "p40", "count": 2}]}
CPU: dict[str, Any] = {"os": "debian12"}
IMPOSSIBLE: dict[str, Any] = {
    "os": "ubuntu2404",
    "gpus": [{"model": "v100-sxm2-16gb", "count": 1}, {"model": "b200-sxm", "count": 1}],
}


@pytest.fixture
def solver() -> Solver:
    return Solver(TABLES, TODAY)


def described(name: str, description: dict[str, Any], **wishes: str) -> Member:
    return Member(name, intent_from_vars(name, wishes), description=description)


def facts(name: str = "debian") -> dict[str, Any]:
    """The fact ``node`` of a Debian 12 machine."""
    return {
        "schema": 1,
        "platform": {"id": name, "version": "12", "major": "12", "name": "Debian GNU/Linux 12", "family": "debian"},
        "kernel": {"running": "6.1.0-56-amd64", "installed": [], "headers": []},
        "container": None,
        "wsl": False,
        "machine": "x86_64",
        "python": "3.11.2",
        "pythons": {"3.11": "/usr/bin/python3.11"},
        "glibc": "2.36",
        "secure_boot": None,
        "dkms": None,
    }


NO_GPU: dict[str, Any] = {"situation": "no_gpu", "simulated": False, "driver": {}, "devices": [], "count": 0}


def expected(**inputs: Any) -> dict[str, dict[str, Any]]:
    digest = receipts.digest(inputs, {}, "files")
    return {role: {"digest": digest, "inputs": inputs, "lock": {}, "files_digest": "files"} for role in ROLES}


def receipt(role: str, **inputs: Any) -> dict[str, Any]:
    return {"schema": 1, "role": role, **expected(**inputs)[role], "drift": []}


def answering(name: str = "n1", **changes: Any) -> Member:
    """A CPU node that is as it was left."""
    known: dict[str, Any] = {
        "gpu": NO_GPU,
        "node": facts(),
        "receipts": {role: receipt(role, x=1) for role in ROLES},
        "expected": expected(x=1),
        "proof": {"verdict": "pass", "run_id": "R", "fingerprint": proof.fingerprint(NO_GPU)},
    }
    return Member(name, **{"intent": Intent(), **known, **changes})


@pytest.fixture
def locked(solver: Solver) -> dict[str, Any]:
    planned = fleet_plan.plan_fleet([answering()], solver, None)
    assert planned["plans"]["n1"]["status"] == "solved", planned["plans"]["n1"]
    document: dict[str, Any] = planned["lock"]
    return document


def test_a_mixed_fleet_is_planned_and_what_cannot_be_is_left_out(solver: Solver) -> None:
    members = [
        described("hopper", H100),
        described("pascal", PASCAL),
        described("cpu", CPU),
        described("mixed", IMPOSSIBLE),
        described("slip", {"os": "ubuntu2404", "gpu": []}),
        Member("away", Intent(), failure="unreachable: no route"),
    ]

    planned = fleet_plan.plan_fleet(members, solver, None)

    assert {name: plan["status"] for name, plan in planned["plans"].items()} == {
        **dict.fromkeys(("hopper", "pascal", "cpu"), "solved"),
        **dict.fromkeys(("mixed", "slip"), "refused"),
        "away": "unreachable",
    }
    assert sorted(planned["lock"]["nodes"]) == ["cpu", "hopper", "pascal"]
    assert planned["plans"]["mixed"]["gate"] == "gpu-driver"
    assert "gpu" in planned["plans"]["slip"]["reason"]
    assert "no route" in planned["plans"]["away"]["reason"]


def test_a_wish_with_a_mistake_refuses_its_node_alone(solver: Solver) -> None:
    wrong = InvalidInputError("use the intent", "bad (stack_policy)", "'fast' is no policy", "Correct it")
    members = [Member("bad", wrong, description=CPU), described("good", CPU)]

    planned = fleet_plan.plan_fleet(members, solver, None)

    assert planned["plans"]["bad"]["status"] == "refused"
    assert "'fast' is no policy" in planned["plans"]["bad"]["reason"]
    assert planned["plans"]["good"]["status"] == "solved"


def test_each_kind_of_node_is_solved_once(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = fleet_plan.compat.solve

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(fleet_plan.compat, "solve", counted)

    planned = fleet_plan.plan_fleet([described(f"n{i}", H100) for i in range(50)], solver, None)

    assert len(calls) == 1
    assert len(planned["lock"]["stacks"]) == 1
    assert len(planned["lock"]["nodes"]) == 50


def test_the_same_fleet_gives_the_same_bytes_in_any_order(solver: Solver) -> None:
    members = [described("a", H100), described("b", PASCAL), described("c", CPU)]
    first = lock.to_text(fleet_plan.plan_fleet(members, solver, None)["lock"])
    again = fleet_plan.plan_fleet(list(reversed(members)), Solver(TABLES, TODAY), None)["lock"]

    assert lock.to_text(again) == first


def test_a_limited_plan_keeps_the_rest_and_a_silent_node_its_entry(solver: Solver) -> None:
    old = fleet_plan.plan_fleet([described("a", H100), described("b", PASCAL), described("c", CPU)], solver, None)[
        "lock"
    ]

    members = [described("c", CPU, stack_framework="none"), Member("a", Intent(), failure="unreachable: timed out")]
    planned = fleet_plan.plan_fleet(members, solver, old)

    for untouched in ("a", "b"):
        assert lock.content_of(planned["lock"], untouched) == lock.content_of(old, untouched)
    assert planned["changes"]["a"]["state"] == "same"
    assert planned["changes"]["c"]["state"] == "changed"
    assert planned["changes"]["c"]["reboot"] is False


def test_a_node_that_can_no_longer_be_solved_leaves_the_lock(solver: Solver) -> None:
    old = fleet_plan.plan_fleet([described("a", H100)], solver, None)["lock"]

    planned = fleet_plan.plan_fleet([described("a", IMPOSSIBLE)], solver, old)

    assert planned["lock"]["nodes"] == {}
    assert planned["changes"]["a"]["state"] == "removed"


@pytest.mark.parametrize("slip", [{"os": "ubuntu2404", "gpus": [{"model": "h1000"}]}, {"os": "ubuntu2404", "gpu": []}])
def test_a_slip_of_the_pen_costs_no_entry_of_the_lock(solver: Solver, slip: dict[str, Any]) -> None:
    old = fleet_plan.plan_fleet([described("a", H100)], solver, None)["lock"]

    planned = fleet_plan.plan_fleet([described("a", slip)], solver, old)

    assert planned["plans"]["a"]["status"] == "refused"
    assert lock.content_of(planned["lock"], "a") == lock.content_of(old, "a")


def test_a_long_table_shows_what_needs_a_decision_before_new_nodes(solver: Solver) -> None:
    members = [described(f"new{i:02}", CPU) for i in range(60)]
    members += [described("late", IMPOSSIBLE), Member("silent", Intent(), failure="unreachable: x")]

    text = plan_report.plan_text(fleet_plan.plan_fleet(members, solver, None), "stack.lock.yml", "written")
    table = text.split("\n\n")[1]

    assert "late " in table
    assert "silent " in table
    assert len(table.splitlines()) == 2 + 40 + 1


def test_another_driver_is_a_change_with_reboot_and_reason(solver: Solver) -> None:
    old = fleet_plan.plan_fleet([described("a", H100, stack_policy="lts")], solver, None)["lock"]

    planned = fleet_plan.plan_fleet([described("a", H100, stack_policy="production")], solver, old)
    text = plan_report.plan_text(planned, "stack.lock.yml", "written")

    assert planned["changes"]["a"]["reboot"] is True
    assert "driver.version: 580." in text
    assert "these nodes will need a reboot" in text
    assert "driver.precedes: none → nvidia-driver-pinning-595" in text
    assert "→ libnvidia-compute 595.91.07*, nvidia-dkms-open 595.91.07*" in " ".join(text.split())
    assert "{" not in text


def test_what_people_read_names_refusals_with_gate_and_fits_the_terminal(solver: Solver) -> None:
    members = [
        described("hopper", H100),
        described("mixed", IMPOSSIBLE),
        Member("away", Intent(), failure="unreachable: x"),
    ]

    text = plan_report.plan_text(fleet_plan.plan_fleet(members, solver, None), "stack.lock.yml", "written")

    assert "mixed: refused by the gate gpu-driver" in text
    assert "3 node(s): 1 solved, 1 refused, 1 unreachable." in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_document_for_programs_has_every_value_with_rule_and_source(solver: Solver) -> None:
    document = plan_report.plan_document(
        fleet_plan.plan_fleet([described("hopper", H100), described("mixed", IMPOSSIBLE)], solver, None),
        "stack.lock.yml",
    )

    solved, refused = document["nodes"]["hopper"], document["nodes"]["mixed"]
    assert solved["status"] == "solved"
    assert all(decision["rule"] for decision in solved["decisions"])
    assert {"driver.branch", "framework.version"} <= {decision["item"] for decision in solved["decisions"]}
    assert (refused["status"], refused["gate"]) == ("refused", "gpu-driver")
    assert refused["reason"]
    assert document["summary"] == {"solved": 1, "refused": 1, "unreachable": 0}


def check(member: Member, locked: Mapping[str, Any], solver: Solver, ignore: bool = False) -> dict[str, Any]:
    state: dict[str, Any] = fleet_plan.check_fleet([member], locked, solver, ROLES, ignore)[member.name]
    return state


def test_a_node_as_it_was_left_needs_nothing(locked: dict[str, Any], solver: Solver) -> None:
    state = check(answering(), locked, solver)

    assert (state["state"], state["stale"], state["prove"]) == ("converged", {}, None)
    assert fleet_plan.placements({"n1": state}, locked, prove_all=False) == []


def test_only_the_role_that_is_stale_is_placed(locked: dict[str, Any], solver: Solver) -> None:
    drifted = {**receipt("nvidia_driver", x=1), "drift": ["/etc/x edited by hand"]}
    member = answering(receipts={"os_base": receipt("os_base", x=1), "nvidia_driver": drifted})

    state = check(member, locked, solver)
    placed = fleet_plan.placements({"n1": state}, locked, prove_all=False)

    assert state["stale"] == {"nvidia_driver": ["/etc/x edited by hand"]}
    assert placed[0]["groups"] == ["stale_nvidia_driver", "stale_prove"]
    assert placed[0]["variables"]["__stack"]["platform"]["os"] == "debian12"
    assert "why" not in placed[0]["variables"]["__stack"]


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"receipts": {}}, ROLES),
        ({"receipts": {"os_base": receipt("os_base", x=1)}}, ["nvidia_driver"]),
        ({"expected": expected(x=2)}, ROLES),
    ],
)
def test_a_receipt_that_is_missing_or_old_makes_its_role_stale(
    changes: dict[str, Any], stale: list[str], locked: dict[str, Any], solver: Solver
) -> None:
    state = check(answering(**changes), locked, solver)

    assert (state["state"], list(state["stale"])) == ("stale", stale)
    assert state["prove"]


def test_receipts_that_cannot_be_read_are_named_as_the_reason(locked: dict[str, Any], solver: Solver) -> None:
    state = check(answering(receipts={}, receipts_problem="the receipts are not readable without root"), locked, solver)

    assert "not readable without root" in state["stale"]["os_base"][0]


def test_ignored_receipts_make_every_role_stale(locked: dict[str, Any], solver: Solver) -> None:
    assert list(check(answering(), locked, solver, ignore=True)["stale"]) == ROLES


def test_a_converged_node_whose_gpus_changed_is_proven_again(locked: dict[str, Any], solver: Solver) -> None:
    lost = {**NO_GPU, "situation": "gpu_lost"}

    state = check(answering(gpu=lost), locked, solver)

    assert (state["state"], state["prove"]) == ("converged", "situation changed since the last proof")
    assert fleet_plan.placements({"n1": state}, locked, prove_all=False)[0]["groups"] == ["stale_prove"]
    text = plan_report.state_text({"n1": state}, {}, "stack.lock.yml", [])
    assert "proof due: situation changed since the last proof (on n1)" in text


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (answering("n2"), "the lock does not have this node"),
        (answering(intent=Intent(framework="none")), "stack_framework pytorch → none"),
        (answering(intent=InvalidInputError("use", "n1", "no", "Do")), "Could not use on n1"),
        (
            answering(node={**facts(), "platform": {**facts()["platform"], "version": "13", "major": "13"}}),
            "does not fit",
        ),
        (answering(failure="unreachable: no route"), "no route"),
    ],
    ids=["unknown node", "other intent", "wrong intent", "other system", "silent"],
)
def test_what_must_not_be_touched_is_set_aside_with_its_reason(
    member: Member, reason: str, locked: dict[str, Any], solver: Solver
) -> None:
    state = check(member, locked, solver)
    placed = fleet_plan.placements({member.name: state}, locked, prove_all=False)

    assert state["state"] == "set aside"
    assert reason in state["reason"]
    assert placed[0]["groups"] == ["stale_prove"]
    assert reason in placed[0]["variables"]["__site_failure"]["message"]


def test_a_lock_that_was_edited_into_inconsistency_is_found(solver: Solver) -> None:
    locked = fleet_plan.plan_fleet([described("a", H100)], solver, None)["lock"]
    (name,) = locked["stacks"]
    stack = lock.stack_of(locked, "a")
    assert stack is not None
    assert solver.problems(None, name, stack) == []

    edited = copy.deepcopy(stack)
    edited["driver"]["version"] = "535.309.01"

    assert Solver(TABLES, TODAY).problems(None, name, edited) != []


def test_the_state_of_a_fleet_tells_shared_reasons_once(locked: dict[str, Any], solver: Solver) -> None:
    drift = {role: {**receipt(role, x=1), "drift": ["package cmake removed"]} for role in ROLES}
    states = {f"n{i}": check(answering(receipts=drift), locked, solver) for i in range(9)}

    text = plan_report.state_text(states, {}, "stack.lock.yml", [])

    assert text.count("package cmake removed") == 2
    assert "n0, n1, n2, n3 and 5 more" in text
    assert "9 node(s): 9 stale." in text
    assert max(map(len, text.splitlines())) <= 120
