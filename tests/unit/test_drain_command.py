# SPDX-License-Identifier: Apache-2.0
"""The site's own commands, as real programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.drains import Clock, request

from ansible.module_utils.rackwright.drain import Job
from ansible.module_utils.rackwright.drain_command import Command
from ansible.module_utils.rackwright.drain_run import run
from ansible.module_utils.rackwright.errors import RackwrightError

SCRIPT = """#!/bin/sh
echo "$1 $RACKWRIGHT_NODE $RACKWRIGHT_ID $RACKWRIGHT_REASON $RACKWRIGHT_TIMEOUT_S" >> {folder}/log
case $1 in
  drain) echo mine > {folder}/out ;;
  resume) rm {folder}/out ;;
  status) cat {folder}/says; exit "$(cat {folder}/code)" ;;
esac
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "scheduler"
        self.script.write_text(SCRIPT.format(folder=folder), encoding="utf-8")
        self.script.chmod(0o755)
        self.status(1)

    def status(self, code: int, says: str = "") -> None:
        (self.folder / "code").write_text(str(code), encoding="utf-8")
        (self.folder / "says").write_text(says, encoding="utf-8")

    def job(self, state: str = "drained", status: bool = True, **options: Any) -> Job:
        program = str(self.script)
        commands = {f"{verb}_command": [program, verb] for verb in ("drain", "resume")}
        commands["status_command"] = [program, "status"] if status else []
        folder = str(self.folder / "drains")
        wanted = request(state, adapter="command", **{**commands, "state_dir": folder, "timeout_s": 9, **options})
        clock = Clock()
        return Job(wanted, Command(wanted, run), clock, clock.sleep)

    def call(self, state: str = "drained", **options: Any) -> tuple[bool, dict[str, Any]]:
        job = self.job(state, **options)
        {"drained": job.drain, "resumed": job.resume, "status": job.status}[state]()
        return job.changed, job.report()

    def log(self) -> list[str]:
        return (self.folder / "log").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_without_a_status_command_there_and_back(site: Site) -> None:
    changed, drained = site.call(status=False)
    assert (changed, drained["ours"], drained["drained"]) == (True, True, True)
    assert site.call(status=False)[0] is False
    assert site.call("resumed", status=False, record=drained["record"])[0] is True
    assert site.call("resumed", status=False, record=drained["record"])[0] is False
    assert site.log() == ["drain gpu-1 run-1 driver update 9", "resume gpu-1 run-1 driver update 9"]
    assert list((site.folder / "drains").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "state", "ours", "waiting"),
    [(0, "drained", True, []), (2, "draining", True, ["3 jobs"]), (3, "drained", False, [])],
)
def test_status_by_exit_code(site: Site, code: int, state: str, ours: bool, waiting: list[str]) -> None:
    job = site.job(on_timeout="report")
    job.adapter.take()
    site.status(code, "\n3 jobs\n")
    job.drain()
    report = job.report()
    assert (report["state"], report["ours"], report["waiting_for"]) == (state, ours, waiting)
    assert report["reason"] == "3 jobs"


def test_a_node_that_was_drained_before_is_left_alone(site: Site) -> None:
    site.status(0, "maintenance by alice")
    changed, drained = site.call()
    assert (changed, drained["foreign"], drained["reason"]) == (False, True, "maintenance by alice")
    assert site.call("resumed", record=drained["record"])[0] is False
    assert [line.split()[0] for line in site.log()] == ["status", "status"]


def test_a_node_that_somebody_put_back_is_forgotten(site: Site) -> None:
    site.job().adapter.take()
    assert site.call("resumed")[1]["resumed"] is True  # the status command says: in service
    site.status(0)
    assert site.call("status")[1]["ours"] is False


def test_a_failing_drain_command_can_be_repeated_and_undone(site: Site) -> None:
    failing = site.job(status=False, drain_command=["sh", "-c", "echo no room >&2; exit 4"])
    with pytest.raises(RackwrightError, match="status 4: no room"):
        failing.drain()
    assert failing.report()["ours"] is True
    assert failing.report()["drained"] is False
    assert site.call(status=False)[1]["drained"] is True
    with pytest.raises(RackwrightError, match="status 4"):
        site.job("resumed", status=False, resume_command=["sh", "-c", "exit 4"]).resume()
    assert site.call("resumed", status=False)[1]["resumed"] is True


def test_an_answer_that_means_nothing(site: Site) -> None:
    site.status(5, "what?")
    with pytest.raises(RackwrightError, match=r"ended with status 5: what\?"):
        site.call()


def test_both_commands_are_needed(site: Site) -> None:
    with pytest.raises(RackwrightError, match="a command is missing"):
        site.job(resume_command=[])


def test_a_command_that_hangs_is_ended_with_what_it_started(site: Site) -> None:
    job = site.job(status=False, timeout_s=1, drain_command=["sh", "-c", "sleep 60 & wait"])
    with pytest.raises(RackwrightError, match="no end within 1 s") as caught:
        job.drain()
    assert caught.value.kind == "timed_out"


def test_a_journal_that_cannot_be_written_stops_everything_before_it_begins(site: Site) -> None:
    with pytest.raises(RackwrightError, match="Nothing was changed"):
        site.call(state_dir="/proc/nobody-can-write-here")
    assert [line.split()[0] for line in site.log()] == ["status"]


def test_a_damaged_journal_is_not_guessed_at(site: Site) -> None:
    (site.folder / "drains").mkdir()
    (site.folder / "drains/run-1.json").write_text("{", encoding="utf-8")
    with pytest.raises(RackwrightError, match="by hand and delete it"):
        site.call()
