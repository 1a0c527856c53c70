# SPDX-License-Identifier: Apache-2.0
"""Units through a stand-in for systemctl that keeps their states. The molecule scenario drain asks the real systemd."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.drains import Clock, request

from ansible.module_utils.rackwright.drain import sentence_of
from ansible.module_utils.rackwright.drain_run import Done
from ansible.module_utils.rackwright.drain_systemd import Systemd, complete_name, parse_units
from ansible.module_utils.rackwright.errors import RackwrightError

SHOWN = """Id=serve@a.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
RequiredBy=front.service multi=x.service

Id=gone.service
LoadState=not-found
ActiveState=inactive
"""


def test_paragraphs() -> None:
    units = parse_units(SHOWN)
    assert units["serve@a.service"]["RequiredBy"] == "front.service multi=x.service"
    assert units["gone.service"]["LoadState"] == "not-found"
    assert parse_units("\n") == {}


@pytest.mark.parametrize(
    ("name", "whole"),
    [("vllm", "vllm.service"), ("vllm@*", "vllm@*.service"), ("a.socket", "a.socket"), ("x.y", "x.y.service")],
)
def test_names_are_completed(name: str, whole: str) -> None:
    assert complete_name(name) == whole


class Machine:
    """Units: name -> properties. Stopping takes effect at the next look, unless the unit is stubborn."""

    def __init__(self, folder: Path, **units: dict[str, str]) -> None:
        self.units: dict[str, dict[str, str]] = {}
        self.folder = folder
        self.system = folder / "system"
        self.stubborn: set[str] = set()
        self.broken: set[str] = set()
        #: units that systemd knows by their own name only, until something loads them
        self.unloaded: set[str] = set()
        self.calls: list[str] = []
        for name, values in units.items():
            self.add(name.replace("__", "@") + ".service", **values)

    def add(self, name: str, **values: str) -> None:
        base = {"Id": name, "LoadState": "loaded", "ActiveState": "active", "SubState": "running"}
        self.units[name] = {**base, "UnitFileState": "enabled", "Transient": "no", **values}

    def run(self, argv: Sequence[str], timeout_s: float, extra: Any = None) -> Done:
        verb = argv[1]
        names = list(argv[argv.index("--") + 1 :]) if "--" in argv else []
        if verb != "show":
            self.calls.append(" ".join([verb, *names]))
        if verb == "show":
            return Done(0, "\n".join(self._show(names)), "")
        for name in names:
            if verb == "stop" and name not in self.stubborn:
                self.units[name].update(ActiveState="inactive", SubState="dead")
                self._with(name)
            elif verb == "start" and not self.held(name):
                self.units[name].update(ActiveState="failed" if name in self.broken else "active")
        return Done(0, "", "")

    def _show(self, names: list[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            fit = [u for u in self.units if u == name or (fnmatch.fnmatch(u, name) and u not in self.unloaded)]
            if not fit and "*" not in name:
                found.append(f"Id={name}\nLoadState=not-found\nActiveState=inactive\n")
            found += ["".join(f"{k}={v}\n" for k, v in self.units[unit].items()) for unit in fit]
        return found

    def _with(self, name: str) -> None:
        for other in self.units[name].get("RequiredBy", "").split():
            self.units[other].update(ActiveState="inactive", SubState="dead")

    def held(self, name: str) -> bool:
        """As systemd judges the drop-in: the unit does not start while the journal is there."""
        for path in self.system.glob(f"{name}.d/*.conf"):
            condition = path.read_text(encoding="utf-8").splitlines()[-1].removeprefix("ConditionPathExists=!")
            if Path(condition).exists():
                return True
        return False

    def active(self) -> list[str]:
        return sorted(n.split(".")[0] for n, u in self.units.items() if u["ActiveState"] == "active")

    def job(self, state: str = "drained", **options: Any) -> Systemd:
        folder = str(self.folder / "drains")
        wanted = request(state, adapter="systemd", **{"units": ["serve@*"], "state_dir": folder, **options})
        clock = Clock()
        return Systemd(wanted, self.run, clock, clock.sleep, str(self.system))

    def call(self, state: str = "drained", **options: Any) -> tuple[bool, dict[str, Any]]:
        job = self.job(state, **options)
        {"drained": job.drain, "resumed": job.resume, "status": job.status}[state]()
        return job.changed, job.report()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, serve__a={}, serve__b={"UnitFileState": "disabled"}, other={})


def test_there_and_back(machine: Machine) -> None:
    changed, drained = machine.call()
    assert (changed, drained["ours"], drained["drained"], machine.active()) == (True, True, True, ["other"])
    assert drained["units"] == [
        {"name": "serve@a.service", "was": "running", "enabled": "enabled"},
        {"name": "serve@b.service", "was": "running", "enabled": "disabled"},
    ]
    assert machine.call(record=drained["record"])[0] is False
    changed, back = machine.call("resumed", record=drained["record"], units=[])
    assert (changed, back["resumed"], machine.active()) == (True, True, ["other", "serve@a", "serve@b"])
    assert list(machine.system.rglob("*")) == []
    assert machine.call("resumed", record=drained["record"])[0] is False


def test_nothing_is_enabled_or_disabled(machine: Machine) -> None:
    machine.call()
    machine.call("resumed")
    assert {call.split()[0] for call in machine.calls} == {"stop", "start", "daemon-reload"}


def test_a_unit_that_did_not_run_is_not_started_and_yet_kept_off(machine: Machine) -> None:
    machine.units["serve@b.service"]["ActiveState"] = "failed"
    machine.call()
    assert machine.held("serve@b.service") is True
    machine.call("resumed")
    assert machine.active() == ["other", "serve@a"]
    assert machine.held("serve@b.service") is False


def test_an_enabled_unit_that_systemd_has_not_loaded_is_kept_off_a_reboot(machine: Machine) -> None:
    wants = machine.system / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "serve@c.service").symlink_to("/etc/systemd/system/serve@.service")
    machine.add("serve@c.service", ActiveState="inactive")
    machine.unloaded = {"serve@c.service"}
    machine.call()
    assert machine.held("serve@c.service") is True


@pytest.mark.parametrize("change", [{"UnitFileState": "disabled"}, {"UnitFileState": "masked", "LoadState": "masked"}])
def test_what_somebody_turned_off_since_stays_off(machine: Machine, change: dict[str, str]) -> None:
    machine.add("front.service", UnitFileState="static", Requires="serve@a.service")
    machine.units["serve@a.service"]["RequiredBy"] = "front.service"
    _changed, drained = machine.call()
    assert machine.active() == ["other"]  # systemd stopped front together with what it needs
    machine.units["serve@a.service"].update(change)
    _changed, back = machine.call("resumed", record=drained["record"])
    assert (back["overridden"], back["resumed"]) == (True, False)
    assert machine.active() == ["other", "serve@b"]
    assert "front.service is not started: it would start serve@a.service too" in back["note"]


def test_what_stops_with_a_unit_and_what_triggers_it_comes_back(machine: Machine) -> None:
    machine.add("front.service", UnitFileState="static")
    machine.add("serve@a.socket", SubState="listening")
    machine.units["serve@a.service"].update(RequiredBy="front.service", TriggeredBy="serve@a.socket")
    machine.call()
    assert "stop serve@a.service serve@a.socket serve@b.service" in machine.calls
    assert machine.active() == ["other"]
    machine.call("resumed")
    assert machine.active() == ["front", "other", "serve@a", "serve@a", "serve@b"]


def test_a_unit_that_does_not_stop(machine: Machine) -> None:
    machine.stubborn = {"serve@a.service"}
    job = machine.job(timeout_s=10)
    with pytest.raises(RackwrightError, match=r"serve@a.service \(active, running\)\."):
        job.drain()
    report = job.report()
    assert (report["ours"], report["drained"], report["state"]) == (True, False, "draining")
    assert machine.call(timeout_s=1, on_timeout="report")[1]["waiting_for"] == ["serve@a.service (active, running)"]
    assert machine.call("resumed", record=report["record"])[1]["resumed"] is True


def test_a_unit_that_does_not_come_back_can_be_resumed_later(machine: Machine) -> None:
    machine.call()
    machine.broken = {"serve@b.service"}
    with pytest.raises(RackwrightError, match=r"serve@b\.service is failed"):
        machine.call("resumed")
    machine.broken = set()
    assert machine.call("resumed")[1]["resumed"] is True


def test_a_cut_between_writing_down_and_stopping_loses_nothing(machine: Machine) -> None:
    job = machine.job()
    job.status()
    job._remember(job._with_dependents(["serve@a.service", "serve@b.service"]))  # and then the power fails
    machine.call()
    machine.units["serve@a.service"]["ActiveState"] = "inactive"
    assert machine.call()[1]["units"][0]["was"] == "running"
    machine.call("resumed")
    assert machine.active() == ["other", "serve@a", "serve@b"]


def test_two_drains_keep_a_unit_off_until_both_have_ended(machine: Machine) -> None:
    machine.call()
    changed, second = machine.call(id="run-2")
    assert (changed, second["note"]) == (True, "drain run-1 is open on this node too")
    machine.call("resumed", id="run-2")
    assert machine.active() == ["other"]
    machine.call("resumed")
    assert machine.active() == ["other", "serve@a", "serve@b"]


def test_check_mode_names_the_units(machine: Machine) -> None:
    job = machine.job(check_mode=True)
    job.drain()
    assert sentence_of(job.report(), "drained", True) == "would stop serve@a.service, serve@b.service"
    assert (machine.calls, machine.active()) == ([], ["other", "serve@a", "serve@b"])


def test_units_that_are_not_there_are_no_error(machine: Machine) -> None:
    _changed, drained = machine.call(units=["vllm", "sglang@*"])
    assert (drained["drained"], drained["note"]) == (True, "no unit vllm.service on this node")


def test_a_transient_unit_is_refused_before_anything_is_stopped(machine: Machine) -> None:
    machine.units["serve@b.service"]["Transient"] = "yes"
    with pytest.raises(RackwrightError, match="nothing can start it again"):
        machine.call()
    assert machine.active() == ["other", "serve@a", "serve@b"]


@pytest.mark.parametrize("units", [[], ["-x"], ["a;b"], ["a b"]])
def test_no_units_and_no_options_of_systemctl(machine: Machine, units: list[str]) -> None:
    with pytest.raises(RackwrightError, match="adapter systemd"):
        machine.call(units=units)


def test_without_hold_nothing_is_written_to_etc(machine: Machine) -> None:
    machine.call(hold=False)
    assert not machine.system.exists()
    assert machine.call("resumed")[1]["resumed"] is True
