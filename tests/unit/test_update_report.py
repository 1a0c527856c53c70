# SPDX-License-Identifier: Apache-2.0
"""The document of a rollout, from the plan to its end, and what people read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rackwright import rollout, rollout_fleet, update_report
from rackwright import rollout_state as state
from rackwright.errors import InvalidInputError
from rackwright.fleet_plan import Member
from rackwright.rollout import Limits, Options, Seen
from rackwright.stack_intent import Intent

RUN = "20261124T170000Z"
OLD: dict[str, Any] = {"version": "580.178.04", "entries": {"driver": {"version": "580.178.04"}, "os.dkms": "3"}}
NEW: dict[str, Any] = {"version": "590.48.01", "entries": {"driver": {"version": "590.48.01"}, "os.dkms": "3"}}
HEAD = {
    "id": RUN,
    "what": "driver",
    "direction": "update",
    "lock": "l",
    "settings": {},
    "began": "2026-11-24T17:00:00+00:00",
}
LOCK: dict[str, Any] = {
    "nodes": {"a": "k", "b": "k"},
    "stacks": {"k": {"driver": {"version": "590.48.01"}, "os": {"dkms": "3"}, "intent": {}, "why": {}}},
}


def seen(name: str, **changes: Any) -> Seen:
    return Seen(name, **{"kind": "k", "target": NEW, "current": OLD, **changes})


def document(*known: Seen, **changes: Any) -> dict[str, Any]:
    return rollout_fleet.document({**HEAD, **changes}, known, Options(), Limits())


def record(name: str, end: str, **changes: Any) -> dict[str, Any]:
    began = state.advance(state.begin(name, "driver", RUN, OLD, NEW), "2026-11-24T17:00:00+00:00", {"step": "drain"})
    return state.advance(began, "2026-11-24T17:01:30+00:00", {"state": end, **changes})


def test_a_plan_names_batches_and_gives_every_host_its_stacks_and_record() -> None:
    known = [seen("a"), seen("b")]
    run = document(*known)
    places = rollout_fleet.placements(run, known, LOCK, "reports", False)

    assert run["batches"] == [["a"], ["b"]]
    assert run["canaries"] == ["a"]
    assert [place["name"] for place in places] == ["a", "b"]
    update = places[0]["variables"]["__update"]
    assert update["stack"]["driver"]["version"] == "590.48.01"
    assert update["return_stack"]["driver"]["version"] == "580.178.04"
    assert update["return_stack"]["os"] == {"dkms": "3"}
    assert update["record"]["state"] == state.OPEN
    assert LOCK["stacks"]["k"]["driver"]["version"] == "590.48.01"


def test_an_interrupted_node_keeps_its_return_point_and_where_it_came_from() -> None:
    before = {
        **record("a", state.OPEN, phase=state.FORWARD),
        "id": "20261101T000000Z",
        "return_point": {"packages": {}},
    }
    known = [seen("a", record=before, current=None, problem="no receipt")]
    update = rollout_fleet.placements(document(*known), known, LOCK, "reports", False)[0]["variables"]["__update"]

    assert update["record"]["id"] == "20261101T000000Z"
    assert update["record"]["run"] == RUN
    assert update["record"]["phase"] == state.FORWARD
    assert update["record"]["return_point"] == {"packages": {}}
    assert update["return_stack"]["driver"]["version"] == "580.178.04"


def test_without_a_return_point_there_is_no_stack_to_go_back_to() -> None:
    known = [seen("a", current=None, problem="no receipt")]
    run = rollout_fleet.document(HEAD, known, Options(without_return_point=True), Limits())

    assert rollout_fleet.placements(run, known, LOCK, "r", False)[0]["variables"]["__update"]["return_stack"] is None


def test_a_run_that_forgets_does_nothing_else() -> None:
    known = [
        seen("a", record=record("a", state.STUCK)),
        seen("b"),
        seen("c", record=record("c", state.STUCK), silent="gone"),
        seen("d"),
    ]
    run = rollout_fleet.document(HEAD, known, Options(), Limits(), ["a", "c", "d"])

    assert run["batches"] == [["a"]]
    assert [node["plan"] for node in run["nodes"].values()] == ["resume", "skipped", "forgotten", "skipped"]
    assert rollout_fleet.placements(run, known, LOCK, "r", True)[0]["variables"]["__update"]["forget"] is True


def test_a_name_to_forget_must_be_a_node() -> None:
    with pytest.raises(InvalidInputError, match="gpu-9"):
        rollout_fleet.check_names("update_forget", ["gpu-9"], ["gpu-1"])


@pytest.mark.parametrize(
    ("end", "good"),
    [
        (state.DONE, True),
        (state.ROLLED_BACK, False),
        (state.STUCK, False),
        (state.BUSY, False),
        (state.REFUSED, False),
        (state.UNREACHABLE, False),
        (state.OPEN, False),
    ],
)
def test_only_a_node_that_is_done_is_good(end: str, good: bool) -> None:
    final = update_report.ended(document(seen("a")), {"a": record("a", end, reason="why")})

    assert (update_report.bad(final) == {}) is good
    assert final["nodes"]["a"]["end"] == end
    assert final["nodes"]["a"]["seconds"] == (90 if end != state.OPEN else 0)


def test_a_node_that_was_not_begun_says_why_and_records_of_other_runs_do_not_speak_for_it() -> None:
    run = {**document(seen("a"), seen("b")), "held": {"b": "1 node(s) failed"}, "stopped": "1 node(s) failed"}
    records = {"a": record("a", state.STUCK, reason="no GPU"), "b": {**record("b", state.DONE), "run": "earlier"}}

    final = update_report.ended(run, records)
    text = update_report.ended_text(final, "reports/x.json", None)

    assert update_report.bad(final) == {"a": "stuck: no GPU", "b": "not begun: 1 node(s) failed"}
    assert "2 node(s): 1 stuck, 1 not begun; stopped: 1 node(s) failed." in text
    assert "580.178.04  590.48.01" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_what_is_foreseen_names_packages_drain_and_activation() -> None:
    run = document(seen("a"), seen("b"), seen("c", current=NEW))
    foreseen: dict[str, dict[str, Any]] = {
        "a": {"pending": ["x", "y"], "drain": "slurm", "activate": "reboot"},
        "b": {"failure": "no room"},
    }

    text = update_report.foreseen_text(run, foreseen)

    row = next(line for line in text.splitlines() if line.startswith("a "))
    assert row.split() == ["a", "580.178.04", "590.48.01", "1", "2", "package(s)", "slurm", "reboot"]
    assert "b: would be refused\n  - no room" in text
    assert "(check mode: nothing was changed)" in text


def test_progress_is_one_line() -> None:
    assert update_report.step_text(record("a", state.OPEN), "12:00:00") == "12:00:00  a: drain (to 590.48.01)"
    assert update_report.step_text(record("a", state.STUCK, reason="no"), "12:00:00") == "12:00:00  a: stuck: no"


def test_a_node_is_seen_through_its_receipt() -> None:
    expected = {"nvidia_driver": {"lock": NEW["entries"]}}
    receipt = {"lock": OLD["entries"], "drift": ["hold of x released"]}
    member = Member(
        "a",
        Intent(),
        gpu={"driver": {"library_version": "580"}},
        receipts={"nvidia_driver": receipt},
        expected=expected,
    )

    found = rollout_fleet.seen(member, LOCK, None, (None, None), None)
    damaged = dataclasses.replace(
        member, receipts={"nvidia_driver": {"problem": "the receipt is damaged", "drift": []}}
    )

    assert (found.target, found.current, found.installed) == (NEW, OLD, True)
    assert found.notes == ("drifted since it was installed: hold of x released",)
    assert rollout_fleet.seen(damaged, LOCK, None, (None, None), None).problem == "the receipt is damaged"
    assert rollout.decide(found, Options()).what == rollout.DUE
