# SPDX-License-Identifier: Apache-2.0
"""Who took a node out of service puts it back, and nobody else; whatever happens in between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drains import Clock, request

from ansible.module_utils.rackwright.drain import Job, NoJob, Seen, sentence_of
from ansible.module_utils.rackwright.drain_request import Request
from ansible.module_utils.rackwright.errors import InvalidInputError, ProbeError, TimedOutError


class Site:
    """A scheduler with one node: who took it out (None: in service), and how much work is left on it."""

    def __init__(self, mark: str | None = None, work: int = 0) -> None:
        self.mark = mark
        self.work = work
        self.writes: list[str] = []
        self.broken = False


class OnSite:
    """The adapter for it."""

    where = "the test"

    def __init__(self, site: Site, wanted: Request) -> None:
        self.site = site
        self.request = wanted

    def look(self) -> Seen:
        if self.site.mark is None:
            return Seen("in_service", before={"was": "free"})
        work = [f"work {n}" for n in range(self.site.work)]
        return Seen("draining" if work else "drained", self.site.mark, self.site.mark, "somebody", work, {"was": "out"})

    def take(self) -> list[str]:
        self.site.writes.append("take")
        self.site.mark = self.request.mark
        if self.site.broken:
            raise ProbeError("drain the node", "gpu-1", "the line was cut", "Try again")
        return ["drain"]

    def push(self, left_s: float) -> None:
        assert left_s > 0

    def give(self) -> list[str]:
        self.site.writes.append("give")
        self.site.mark = None
        return ["resume"]

    def close(self) -> None:
        self.site.writes.append("close")


def job(site: Site, clock: Clock | None = None, **options: Any) -> Job:
    wanted = request(**options)
    timer = clock or Clock()
    return Job(wanted, OnSite(site, wanted), timer, timer.sleep)


def drain(site: Site, **options: Any) -> dict[str, Any]:
    call = job(site, **options)
    call.drain()
    return call.report()


def resume(site: Site, **options: Any) -> tuple[bool, dict[str, Any]]:
    call = job(site, state="resumed", **options)
    call.resume()
    return call.changed, call.report()


def test_own_drain_there_and_back() -> None:
    site = Site()
    drained = drain(site)
    assert (drained["ours"], drained["drained"], drained["foreign"]) == (True, True, False)
    assert drained["before"] == {"was": "free"}
    assert site.mark == "rackwright:run-1 driver update"
    record = json.loads(json.dumps(drained["record"]))
    assert drain(site, record=record)["record"] == record
    assert site.writes == ["take"]

    assert resume(site, record=record)[0] is True
    changed, again = resume(site, record=record)
    assert (changed, again["resumed"]) == (False, True)
    assert site.writes == ["take", "give", "close"]


def test_the_id_alone_recognises_a_drain_whose_answer_was_lost() -> None:
    site = Site()
    drain(site)
    again = drain(site, reason="said differently this time")
    assert (again["ours"], site.writes) == (True, ["take"])
    assert resume(site)[1]["resumed"] is True


@pytest.mark.parametrize(
    "mark", ["DIMM A1 broken", "rackwright:run-2 driver update", "rackwright:run-10 driver update"]
)
def test_a_node_that_others_drained_is_left_to_them(mark: str) -> None:
    site = Site(mark)
    drained = drain(site)
    assert (drained["ours"], drained["foreign"], drained["drained"]) == (False, True, True)
    assert sentence_of(drained, "drained", False) == f"gpu-1 is drained, by somebody else ({mark}, somebody)"
    for options in ({"record": drained["record"]}, {}):
        changed, back = resume(site, **options)
        assert (changed, back["resumed"], site.mark) == (False, False, mark)
    assert site.writes == []


@pytest.mark.parametrize("mark", ["DIMM A1 broken", "rackwright:run-1 driver update and more", ""])
def test_a_drain_that_somebody_changed_since_is_left_to_them(mark: str) -> None:
    site = Site()
    record = drain(site)["record"]
    site.mark = mark
    changed, back = resume(site, record=record)
    assert (changed, back["resumed"], back["overridden"], back["ours"]) == (False, False, True, False)
    assert "somebody else decided so since" in back["note"]
    assert site.mark == mark
    assert drain(site, record=record)["overridden"] is True


def test_a_node_that_somebody_put_back_is_drained_again_and_known_again() -> None:
    site = Site()
    record = drain(site)["record"]
    site.mark = None
    again = drain(site, record=record, reason="another reason")
    assert (again["ours"], again["record"]["mark"]) == (True, "rackwright:run-1 another reason")
    assert resume(site, record=again["record"])[1]["resumed"] is True


def test_it_waits_for_work_and_names_what_is_left() -> None:
    site = Site(work=7)
    call = job(site, timeout_s=20)
    with pytest.raises(
        TimedOutError, match=r"after 20 s .* work 0; .*work 4 and 2 more\..*resume it with the returned"
    ):
        call.drain()
    report = call.report()
    assert (report["ours"], report["drained"], report["state"]) == (True, False, "draining")

    slice_ = drain(site, timeout_s=5, on_timeout="report", record=report["record"])
    assert (slice_["ours"], slice_["drained"], len(slice_["waiting_for"])) == (True, False, 7)

    clock = Clock(lambda now: setattr(site, "work", 0) if now > 30 else None)
    call = job(site, clock, record=report["record"])
    call.drain()
    assert (call.report()["drained"], call.changed) == (True, False)


def test_a_scheduler_that_is_restarted_meanwhile_is_asked_again() -> None:
    site = Site(work=1)
    clock = Clock()
    call = job(site, clock, timeout_s=60)
    look = call.adapter.look

    def away() -> Seen:
        if 10 <= clock.now < 30:
            raise TimedOutError("read the node", "gpu-1", "no answer", "Start it")
        site.work = 0 if clock.now >= 30 else 1
        return look()

    call.adapter.look = away
    call.drain()
    assert (call.report()["drained"], clock.now) == (True, 30)

    site.mark, site.work = None, 1
    clock.now = 0
    never = job(site, clock, timeout_s=20)
    never.adapter.look = away
    with pytest.raises(TimedOutError, match="no answer"):
        never.drain()
    assert never.report()["ours"] is True


def test_foreign_work_is_waited_for_too() -> None:
    assert drain(Site("theirs", work=1), on_timeout="report")["drained"] is False


def test_a_drain_that_was_cut_off_can_be_undone_with_its_record() -> None:
    site = Site()
    site.broken = True
    call = job(site)
    with pytest.raises(ProbeError):
        call.drain()
    report = call.report()
    assert (call.changed, report["ours"]) == (True, True)
    assert resume(site, record=report["record"])[1]["resumed"] is True


def test_a_node_put_back_while_its_work_runs_out_is_not_called_drained() -> None:
    site = Site(work=1)
    call = job(site, Clock(lambda now: setattr(site, "mark", None)))
    with pytest.raises(InvalidInputError, match="somebody put it back into service"):
        call.drain()
    assert call.report()["drained"] is False


@pytest.mark.parametrize(
    ("mark", "says"), [(None, "would drain gpu-1 in the test"), ("theirs", "gpu-1 is drained, by")]
)
def test_check_mode_says_and_does_nothing(mark: str | None, says: str) -> None:
    site = Site(mark, work=0)
    call = job(site, check_mode=True)
    call.drain()
    report = call.report()
    assert call.changed is (mark is None)
    assert sentence_of(report, "drained", True).startswith(says)
    assert (report["ours"], report["record"], site.writes, site.mark) == (False, None, [], mark)


def test_check_mode_of_resume() -> None:
    site = Site("rackwright:run-1 x")
    call = job(site, state="resumed", check_mode=True)
    call.resume()
    assert sentence_of(call.report(), "resumed", True) == "would put gpu-1 back into service in the test"
    assert (call.changed, site.writes) == (True, [])


EVENTS = st.sampled_from(["drain", "resume", "lose the record", "fault", "repair", "somebody resumes", "check"])


@given(st.lists(EVENTS, max_size=12))
def test_whatever_happens_a_fault_stays_until_it_is_repaired(events: list[str]) -> None:
    """No order of events puts a node back that somebody drained for a fault."""
    site = Site()
    record: dict[str, Any] | None = None
    for event in events:
        faulty = site.mark == "fault"
        if event == "drain":
            record = drain(site, record=record)["record"]
        elif event == "resume":
            resume(site, record=record)
        elif event == "check":
            job(site, check_mode=True, record=record).drain()
        elif event == "lose the record":
            record = None
        elif event == "fault":
            site.mark = "fault"
        elif event in ("repair", "somebody resumes") and (event == "repair" or not faulty):
            site.mark = None
        if faulty and event != "repair":
            assert site.mark == "fault"
        if event == "drain":
            assert site.mark is not None


def test_without_an_adapter_nothing_is_said_to_be_drained() -> None:
    call = NoJob(request(adapter="none"))
    call.drain()
    report = call.report()
    assert (report["drained"], report["ours"], report["resumed"], call.changed) == (True, False, True, False)
    assert set(report) == set(drain(Site()))


@pytest.mark.parametrize("name", ["ALL", "all", "gpu[1-8]", "gpu-1,gpu-2", "-o", "gpu 1", "a\nb", ""])
def test_only_one_node_can_be_named(name: str) -> None:
    with pytest.raises(InvalidInputError, match="node_name"):
        request(node_name=name)


@pytest.mark.parametrize("drain_id", ["-x", "a b", "a" * 65, "../x", "x\n"])
def test_an_id_is_a_word(drain_id: str) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        request(id=drain_id)


def test_a_record_of_another_drain_is_refused() -> None:
    record = drain(Site())["record"]
    for other in (
        {"node_name": "gpu-2"},
        {"adapter": "kubernetes"},
        {"id": "run-2"},
        {"record": {**record, "schema": 2}},
    ):
        with pytest.raises(InvalidInputError, match="unchanged"):
            request(**{"record": record, **other})
    assert request(record=record, id=None, node_name=None).id == "run-1"


def test_resuming_needs_to_know_which_drain() -> None:
    with pytest.raises(InvalidInputError, match="neither record nor id"):
        request("resumed", id=None)
    with pytest.raises(InvalidInputError, match="Set node_name"):
        request(node_name=None)
    assert request(adapter="command", node_name=None).node == "host-1"


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("driver update", "driver update"),
        ('say "hi"\n\tState=RESUME \\', "say hi State=RESUME"),
        ("", "maintenance"),
        ("'\"", "maintenance"),
        ("x" * 500, "x" * 160),
    ],
)
def test_a_reason_is_one_plain_line(reason: str, kept: str) -> None:
    assert request(reason=reason).reason == kept
