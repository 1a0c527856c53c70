# SPDX-License-Identifier: Apache-2.0
"""Which node is updated when, what stops a rollout, and what the record of a node is worth after bad luck."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright import rollout, update_store
from rackwright import rollout_state as state
from rackwright.errors import InvalidInputError, RackwrightError
from rackwright.rollout import Decision, Limits, Options, Seen

OLD: dict[str, Any] = {"version": "580.178.04", "entries": {"driver": {"version": "580.178.04"}}}
NEW: dict[str, Any] = {"version": "590.48.01", "entries": {"driver": {"version": "590.48.01"}}}
NOW = "2026-11-24T17:00:00+00:00"
RUN = "20261124T170000Z"


def record(**changes: Any) -> dict[str, Any]:
    """The record of n1, in the middle of its installation."""
    began = state.advance(state.begin("n1", "driver", RUN, OLD, NEW), NOW, {"step": "drain", "drain": {"ours": True}})
    return {**state.advance(began, NOW, {"step": "install", "phase": state.FORWARD}), **changes}


def seen(**changes: Any) -> Seen:
    return Seen("n1", **{"kind": "k", "target": NEW, "current": OLD, **changes})


@pytest.mark.parametrize(
    ("known", "options", "what", "words"),
    [
        (seen(), Options(), rollout.DUE, ""),
        (seen(current=NEW), Options(), rollout.CURRENT, ""),
        (seen(target=None), Options(), rollout.SKIPPED, "has no driver"),
        (seen(silent="unreachable: timed out"), Options(), state.UNREACHABLE, "timed out"),
        (seen(silent="unreachable", record=record()), Options(), state.UNREACHABLE, "is at install"),
        (seen(refusal="the lock does not have this node"), Options(), state.REFUSED, "does not have"),
        (seen(current=None, problem="no receipt"), Options(), state.REFUSED, "update_without_return_point"),
        (seen(current=None, problem="no receipt", installed=False), Options(), state.REFUSED, "site.yml"),
        (seen(current=None, problem="x"), Options(without_return_point=True), rollout.DUE, "without a return point"),
        (seen(record=record()), Options(), rollout.RESUME, "resumes after install (interrupted)"),
        # what stops a fresh update does not keep an interrupted one from being brought to an end
        (seen(record=record(), refusal="a GPU is missing", current=None), Options(), rollout.RESUME, "resumes"),
        (seen(record=record(state=state.UNREACHABLE)), Options(), rollout.RESUME, "answers now"),
        (seen(record=record(state=state.STUCK, reason="no way")), Options(), state.STUCK, "no way"),
        (seen(record=record(state=state.STUCK)), Options(retry=("n2",)), state.STUCK, "stuck since"),
        (seen(record=record(state=state.STUCK)), Options(retry=("n1",)), rollout.RESUME, "taken up again"),
        (seen(record=record(state=state.STUCK)), Options(retry=("all",)), rollout.RESUME, "taken up again"),
        (seen(record=record(state=state.ROLLED_BACK, reason="slow")), Options(), rollout.DUE, "failed: slow"),
        (seen(record=record(state=state.DONE), current=NEW), Options(), rollout.CURRENT, ""),
        (seen(current=NEW, target=OLD, locked=state.entries_digest(NEW["entries"])), Options(True), rollout.DUE, ""),
        (seen(current=OLD, target=NEW, locked="other"), Options(True), rollout.SKIPPED, "nothing to take back"),
    ],
)
def test_what_a_node_is_to_a_run(known: Seen, options: Options, what: str, words: str) -> None:
    decision = rollout.decide(known, options)

    assert decision.what == what
    assert words in (decision.reason or "")


@pytest.mark.parametrize(
    ("record_state", "phase", "step", "begins"),
    [
        (state.OPEN, state.PREPARE, "drain", state.PREPARE),
        (state.OPEN, state.FORWARD, "install", state.FORWARD),
        (state.OPEN, state.BACK, "back: install", state.BACK),
        (state.UNREACHABLE, state.BACK, "back: install", state.BACK),
        (state.UNREACHABLE, state.BACK, state.WAIT, state.FORWARD),
        (state.STUCK, state.BACK, "back: prove", state.FORWARD),
        (state.STUCK, state.PREPARE, "drain", state.PREPARE),
    ],
)
def test_an_update_goes_on_in_the_phase_it_was_in(record_state: str, phase: str, step: str, begins: str) -> None:
    known = seen(record=record(state=record_state, phase=phase, step=step))

    assert rollout.decide(known, Options(retry=("all",))).phase == begins


def todo(*names: str, **changes: Any) -> list[Decision]:
    return [Decision(name, **{"what": rollout.DUE, **changes}) for name in names]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (Limits(), [["a", "d"], ["b"], ["c"], ["e", "f"]]),
        (Limits(batch=("2",)), [["a", "d"], ["b", "c"], ["e", "f"]]),
        (Limits(batch=("100%",)), [["a", "d"], ["b", "c", "e", "f"]]),
        (Limits(batch=("100%",), max_unavailable="1"), [["a"], ["d"], ["b"], ["c"], ["e"], ["f"]]),
        (Limits(batch=("100%",), canaries=("c",)), [["c", "d"], ["a", "b", "e", "f"]]),
    ],
)
def test_canaries_of_each_kind_go_first_and_batches_grow(limit: Limits, expected: list[list[str]]) -> None:
    kinds = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y", "f": "y"}

    assert rollout.batches(todo(*kinds), kinds, set(), limit)[0] == expected


def test_interrupted_nodes_come_first_failed_ones_last_and_a_proven_kind_needs_no_canary() -> None:
    decisions = [
        *todo("a", last=True),
        *todo("b", "c"),
        *todo("d", what=rollout.RESUME),
        *todo("e", what=rollout.CURRENT),
    ]

    found, canaries = rollout.batches(decisions, dict.fromkeys("abcde", "k"), {"k"}, Limits(batch=("1", "50%")))

    assert found == [["d"], ["b"], ["c", "a"]]
    assert canaries == []


@given(
    st.integers(0, 40), st.lists(st.sampled_from(["1", "3", "10%", "30%", "100%"]), min_size=1, max_size=4), st.data()
)
def test_every_node_is_in_exactly_one_batch_and_no_batch_exceeds_the_limit(
    count: int, sizes: list[str], data: st.DataObject
) -> None:
    names = [f"n{number}" for number in range(count)]
    kinds = {name: data.draw(st.sampled_from("xyz")) for name in names}
    most = data.draw(st.sampled_from([None, "1", "2", "25%"]))

    found, _canaries = rollout.batches(todo(*names), kinds, set(), Limits(tuple(sizes), (), most))

    assert sorted(name for batch in found for name in batch) == sorted(names)
    assert all(batch for batch in found)
    assert most is None or all(len(batch) <= rollout.count_of(most, count) for batch in found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch": ["0"]}, "update_batch"),
        ({"batch": ["many"]}, "'many' is no size"),
        ({"batch": ["101%"]}, "1% to 100%"),
        ({"batch": [True]}, "update_batch"),
        ({"batch": ["-1"]}, "no node was contacted"),
        ({"max_unavailable": "0%"}, "update_max_unavailable"),
        ({"max_failures": 0}, "update_max_failures"),
        ({"max_failures": "two"}, "'two'"),
        ({"canaries": ["n9"]}, "n9 is no node of this run"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_in_one_sentence(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        rollout.limits(values, ["n1", "n2"])

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_may_come_from_the_command_line_as_text() -> None:
    found = rollout.limits(
        {"batch": "1,10%", "canaries": "n2", "max_unavailable": 2, "max_failures": "3"}, ["n1", "n2"]
    )

    assert found == Limits(("1", "10%"), ("n2",), "2", 3)


def run_document(*names: str, kind: str = "k", **changes: Any) -> dict[str, Any]:
    nodes = {name: {"kind": kind, "plan": rollout.DUE} for name in names}
    return {
        "id": RUN,
        "nodes": {**nodes, **changes.pop("nodes", {})},
        "proven": changes.pop("proven", [kind]),
        **changes,
    }


def ended(name: str, end: str, **changes: Any) -> dict[str, Any]:
    return record(node=name, state=end, **changes)


@pytest.mark.parametrize(
    ("end", "most", "go"),
    [
        (state.DONE, 1, True),
        (state.REFUSED, 1, True),
        (state.BUSY, 1, True),
        (state.ROLLED_BACK, 1, False),
        (state.STUCK, 1, False),
        (state.UNREACHABLE, 1, False),
        (state.OPEN, 1, False),  # begun in this run, not in this batch and without an end: it was lost
        (state.ROLLED_BACK, 2, True),
    ],
)
def test_no_further_node_is_begun_at_the_limit_of_failures(end: str, most: int, go: bool) -> None:
    found = rollout.gate(["b"], run_document("a", "b"), {"a": ended("a", end)}, Limits(max_failures=most))

    assert found["go"] is go
    assert found["admitted"] == (["b"] if go else [])
    assert go or "a" in found["held"]["b"]


def test_failures_of_earlier_runs_do_not_count() -> None:
    records = {"a": ended("a", state.ROLLED_BACK, run="20261101T000000Z")}

    assert rollout.gate(["b"], run_document("a", "b"), records, Limits())["go"] is True


def test_nodes_out_of_service_already_count_against_the_limit() -> None:
    document = run_document("b", "c", "d", nodes={"a": {"kind": "k", "plan": state.UNREACHABLE}})

    found = rollout.gate(["b", "c"], document, {}, Limits(max_unavailable="50%"))

    assert found["admitted"] == ["b"]
    assert "1 node(s) are out of service and update_max_unavailable is 50%" in found["held"]["c"]


def test_a_kind_without_a_good_node_goes_one_by_one() -> None:
    found = rollout.gate(["b", "c"], run_document("a", "b", "c", proven=[]), {"a": ended("a", state.BUSY)}, Limits())

    assert found["admitted"] == ["b"]
    assert "no node of its kind (k)" in found["held"]["c"]


def test_an_interrupted_node_is_admitted_although_no_place_is_free() -> None:
    document = run_document(
        "b", nodes={"a": {"kind": "k", "plan": state.STUCK}, "c": {"kind": "k", "plan": rollout.RESUME}}
    )

    assert rollout.gate(["c"], document, {}, Limits(max_unavailable="1"))["admitted"] == ["c"]


def test_a_return_point_is_recorded_once() -> None:
    first = state.advance(record(), NOW, {"return_point": {"packages": {"a": "1"}}, "before": {"devices": {}}})
    again = state.advance(first, NOW, {"return_point": {"packages": {"a": "2"}}, "before": {"devices": {"x": 1}}})

    assert again["return_point"] == {"packages": {"a": "1"}}
    assert again["before"] == {"devices": {}}
    assert again["serial"] == first["serial"] + 1


def test_steps_end_when_the_next_begins_or_the_update_ends() -> None:
    done = state.advance(record(), "2026-11-24T17:05:00+00:00", {"state": state.DONE})

    assert [(step["step"], step["ended"] is not None) for step in done["steps"]] == [("drain", True), ("install", True)]
    assert done["ended"] == "2026-11-24T17:05:00+00:00"
    assert record()["ended"] is None


@pytest.mark.parametrize(
    ("node", "control", "serial", "note"),
    [
        (None, None, None, None),
        (record(serial=3), None, 3, "taken from the node"),
        (None, record(serial=3), 3, "the node lost its own record"),
        (record(serial=3), record(serial=4), 4, None),
        (record(serial=5), record(serial=4), 5, None),
        (record(serial=1, id="20261201T000000Z"), record(serial=9), 1, None),
    ],
)
def test_of_two_copies_the_newer_is_believed(node: Any, control: Any, serial: int | None, note: str | None) -> None:
    found, said = state.newer(node, control)

    assert (found or {}).get("serial") == serial
    assert (note or "") in (said or "")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, None),
        (record(), "was interrupted at install"),
        (record(state=state.UNREACHABLE), "goes on where it was"),
        (record(state=state.STUCK, reason="GPU 3 is gone."), "stays drained: GPU 3 is gone. Repair it"),
        (record(state=state.ROLLED_BACK, reason="slow"), "was put back: slow"),
        (record(state=state.ROLLED_BACK, to=OLD), None),
        (record(state=state.DONE), None),
        (record(state=state.BUSY), None),
    ],
)
def test_a_site_run_leaves_alone_what_an_update_left_unfinished(found: Any, words: str | None) -> None:
    reason = state.set_aside(found, state.entries_digest(NEW["entries"]))

    assert (reason is None) == (words is None)
    assert (words or "") in (reason or "")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"schema": 2}', json.dumps({**record(), "state": "fine"}), json.dumps({"schema": 1})]
)
def test_a_damaged_record_is_none_and_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "update.json"
    path.write_text(content, encoding="utf-8")

    found, problem = update_store.read(str(path))

    assert found is None
    assert "damaged" in (problem or "")


def test_a_record_is_written_whole_for_root_only_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "update.json"
    update_store.write(str(path), record())

    assert update_store.read(str(path)) == (record(), None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["update.json"]
    assert (update_store.remove(str(path)), update_store.remove(str(path))) == (True, False)
    assert update_store.read(str(path)) == (None, None)


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(RackwrightError, match="Could not write the record of the update"):
        update_store.write(str(tmp_path / "file" / "update.json"), record())
