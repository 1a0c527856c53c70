# SPDX-License-Identifier: Apache-2.0
"""Drain a node without a scheduler: stop the units that serve, and later start exactly those.

Whether a unit is enabled is never changed. So that enabled ones do not come back with a reboot in the middle of the
work, each gets a drop-in whose condition is the journal of this drain: while that file exists, the unit does not start.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from .drain_journal import Journal
from .drain_request import Request
from .drain_run import Done
from .errors import InvalidInputError, ProbeError, RackwrightError, TimedOutError

_CALL_S = 60.0
_RUNNING = {"active", "activating", "reloading", "refreshing"}
_STOPPED = {"inactive", "failed"}
_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Transient", "Result"),
    *("TriggeredBy", "RequiredBy", "BoundBy", "ConsistsOf", "Requires", "BindsTo", "Wants"),
)
#: what systemd stops together with a unit; starting that unit again does not start them
_DEPENDENTS = ("RequiredBy", "BoundBy", "ConsistsOf")
#: what systemd starts together with a unit
_PULLS = ("Requires", "BindsTo", "Wants")
_HOLDABLE = (".service", ".socket", ".timer", ".path")
#: a unit in one of these is not to be started, whatever it was before
_OFF = {"disabled", "masked", "masked-runtime"}
_NAME = re.compile(r"[A-Za-z0-9:_.@\\*?\[\]-]+")
_SYSTEM = "/etc/systemd/system"


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """Read the paragraphs of ``systemctl show`` into name -> properties."""
    units = {}
    for paragraph in text.split("\n\n"):
        pairs = (line.partition("=") for line in paragraph.splitlines() if "=" in line)
        values = {key: value for key, _equals, value in pairs}
        if values.get("Id"):
            units[values["Id"]] = values
    return units


def running(units: dict[str, dict[str, str]]) -> list[str]:
    """Names of the units that run or are about to."""
    return sorted(name for name, unit in units.items() if unit.get("ActiveState") in _RUNNING)


def complete_name(name: str) -> str:
    """``vllm`` is ``vllm.service``, as for systemctl."""
    return name if re.search(r"\.(service|socket|timer|path|target|scope|slice|mount)$", name) else f"{name}.service"


def drop_in(path: str, drain_id: str) -> str:
    """Text of the drop-in that keeps a unit off."""
    return (
        f"# Rackwright took this node out of service (drain {drain_id}) and keeps this unit off meanwhile.\n"
        f"# To end it by hand: delete {path}, this file, run systemctl daemon-reload and start the unit.\n"
        f"[Unit]\nConditionPathExists=!{path}\n"
    )


class Systemd:
    """One drain of the units of this node. Has the methods of ``drain.Job``."""

    where = "systemd"

    def __init__(
        self,
        request: Request,
        run: Callable[..., Done],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        system: str = _SYSTEM,
    ) -> None:
        self.request = request
        self.run = run
        self.clock = clock
        self.sleep = sleep
        self.system = system
        self.deadline = clock() + request.timeout_s
        self.journal = Journal(request.options["state_dir"], request.id)
        self.patterns = [complete_name(name) for name in request.options["units"] or []]
        self.changed = False
        self.resumed = False
        self.actions: list[str] = []
        self.notes: list[str] = []
        self.skipped = False
        self.entry: dict[str, Any] | None = None
        self.units: dict[str, dict[str, str]] = {}
        self._check()

    def _check(self) -> None:
        wrong = [name for name in self.patterns if not _NAME.fullmatch(name) or name.startswith("-")]
        record = self.request.record or {}
        if wrong or not (self.patterns or record.get("units") or self.journal.read()):
            cause = f"'{wrong[0]}' is no name or pattern of units" if wrong else "the option units is empty"
            step = "Name what serves on this node, for example units: [vllm@*.service]"
            raise InvalidInputError("use the adapter systemd", self.request.node, cause, step, found=wrong or None)

    # ---- what is ----

    def status(self) -> None:
        """Look, change nothing."""
        self.entry = self.journal.read()
        self.units = self._show([*self.patterns, *self._remembered(), *self._wanted_at_boot()])
        missing = [name for name in self.patterns if self.units.get(name, {}).get("LoadState") == "not-found"]
        for name in missing:
            del self.units[name]
        self.notes = [f"no unit {name} on this node" for name in missing]
        for other in self.journal.others():
            self.notes.append(f"drain {other} is open on this node too")
        self.resumed = self.entry is None and bool(running(self.units))

    def _remembered(self) -> list[str]:
        """Units of this drain, also where the options of this call name none."""
        stored = (self.entry or self.request.record or {}).get("units") or []
        return [unit["name"] for unit in stored]

    def _wanted_at_boot(self) -> list[str]:
        """Enabled units that fit a pattern: systemd does not know them by it before something loads them."""
        names: set[str] = set()
        for kind in ("wants", "requires"):
            for link in glob.glob(os.path.join(glob.escape(self.system), f"*.{kind}", "*")):
                names.add(os.path.basename(link))
        return sorted(n for n in names if any(fnmatch.fnmatchcase(n, pattern) for pattern in self.patterns))

    def _show(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        wanted = sorted(set(names))
        if not wanted:
            return {}
        done = self.run(["systemctl", "show", "--property=" + ",".join(_PROPERTIES), "--", *wanted], _CALL_S)
        if done.rc != 0:
            step = "Check that systemd runs on this node: systemctl is-system-running"
            raise ProbeError("read the units", self.request.node, f"systemctl answered: {done.said}", step)
        return parse_units(done.out)

    def _with_dependents(self, names: list[str]) -> dict[str, dict[str, str]]:
        """The units that run among ``names``, what triggers them, and what systemd stops with them."""
        found: dict[str, dict[str, str]] = {}
        ask = list(names)
        while ask:
            units = self._show(ask)
            found.update({name: units[name] for name in running(units)})
            related = {
                other
                for name in running(units)
                for key in ("TriggeredBy", *_DEPENDENTS)
                for other in units[name].get(key, "").split()
            }
            ask = sorted(related - set(found) - set(ask))
        return found

    # ---- drain ----

    def drain(self) -> None:
        """Stop what runs, after writing down what that is, and wait until it has stopped."""
        self.status()
        self.resumed = False
        affected = self._with_dependents(running(self.units))
        stop = self._to_stop(affected)
        self._refuse_transient(affected)
        if stop:
            self.changed = True
            self.actions.append(f"stop {', '.join(stop)}")
        if self.request.check_mode:
            return
        if stop or self.entry is None:
            self.changed = True
            self._remember(affected)
            self._hold()
        if stop:
            done = self.run(["systemctl", "stop", "--no-block", "--", *stop], _CALL_S)
            if done.rc != 0:
                step = "Read the unit with systemctl cat; a unit may refuse to be stopped"
                raise ProbeError("stop the units", self.request.node, f"systemctl answered: {done.said}", step)
        self._wait_until_stopped()

    def _to_stop(self, affected: dict[str, dict[str, str]]) -> list[str]:
        """What is named in ``stop``: the wanted units and their triggers; what depends on them follows by itself."""
        wanted = set(running(self.units))
        triggers = {other for name in affected for other in affected[name].get("TriggeredBy", "").split()}
        return sorted(wanted | (triggers & set(affected)))

    def _refuse_transient(self, affected: dict[str, dict[str, str]]) -> None:
        transient = [name for name, unit in affected.items() if unit.get("Transient") == "yes"]
        if transient:
            cause = f"{', '.join(sorted(transient))} was made by systemd-run: once stopped, nothing can start it again"
            step = "Stop it yourself, or give it a unit file"
            raise InvalidInputError("drain the node", self.request.node, cause, step, found=sorted(transient))

    def _remember(self, affected: dict[str, dict[str, str]]) -> None:
        known = {unit["name"]: unit for unit in (self.entry or {}).get("units") or []}
        for name in sorted({*self.units, *affected}):
            unit = affected.get(name) or self.units[name]
            was = "running" if name in affected else unit["ActiveState"]
            fresh = {"name": name, "was": was, "enabled": unit.get("UnitFileState") or "static"}
            if name not in known or was == "running":  # what ran when this drain began stays ours to start
                known[name] = fresh
        self.entry = {
            "adapter": "systemd",
            "id": self.request.id,
            "mark": self.request.mark,
            "node": self.request.node,
            "hold": bool(self.request.options["hold"]),
            "units": [known[name] for name in sorted(known)],
        }
        self.journal.write(self.entry)

    def _wait_until_stopped(self) -> None:
        while True:
            self.units = self._show([*self.patterns, *self._remembered()])
            if not self._left() or self.clock() >= self.deadline:
                break
            self.sleep(max(0.0, min(self.request.poll_s, 1.0, self.deadline - self.clock())))
        if self._left() and not self.request.report_timeout:
            raise TimedOutError(
                "stop the units",
                self.request.node,
                f"after {self.request.timeout_s:g} s it still waits for: {'; '.join(self._left())}",
                "Wait longer with a larger timeout_s (systemd kills a unit after its TimeoutStopSec), "
                "or resume it with the returned record",
                expected="inactive",
                found=self._left(),
            )

    def _left(self) -> list[str]:
        return [
            f"{name} ({unit.get('ActiveState')}, {unit.get('SubState')})"
            for name, unit in sorted(self.units.items())
            if unit.get("ActiveState") not in _STOPPED and name.endswith(_HOLDABLE)
        ]

    # ---- the drop-ins ----

    def _hold(self) -> None:
        if not (self.entry and self.entry["hold"]):
            return
        text = drop_in(self.journal.path, self.request.id)
        try:
            for name in self._holdable():
                path = self._drop_in_path(name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as stream:
                    stream.write(text)
        except OSError as error:
            step = "Run as root (become: true), or set hold: false where /etc cannot be written"
            cause = f"{error.filename}: {os.strerror(error.errno or 0)}"
            raise ProbeError("keep the units off", self.request.node, cause, step) from error
        self._reload()

    def _release(self) -> None:
        gone = False
        for name in self._holdable():
            path = self._drop_in_path(name)
            if os.path.exists(path):
                os.unlink(path)
                gone = True
            with contextlib.suppress(OSError):  # others may keep drop-ins there
                os.rmdir(os.path.dirname(path))
        if gone:
            self._reload()

    def _holdable(self) -> list[str]:
        return [unit["name"] for unit in (self.entry or {}).get("units") or [] if unit["name"].endswith(_HOLDABLE)]

    def _drop_in_path(self, unit: str) -> str:
        return os.path.join(self.system, f"{unit}.d", f"rackwright-drain-{self.request.id}.conf")

    def _reload(self) -> None:
        done = self.run(["systemctl", "daemon-reload"], _CALL_S)
        if done.rc != 0:
            raise ProbeError("reload systemd", self.request.node, done.said, "Run systemctl daemon-reload by hand")

    # ---- resume ----

    def resume(self) -> None:
        """Start what this drain stopped, except what somebody disabled or masked since."""
        self.status()
        if self.entry is None:
            self.notes.insert(0, "this drain is not open (any more), so nothing is started")
            return
        start = self._to_start()
        self.changed = True
        self.actions = [f"start {', '.join(start)}"] if start else ["end the drain; there is nothing to start"]
        if self.request.check_mode:
            return
        self._release()
        if start:
            done = self.run(["systemctl", "start", "--no-block", "--", *start], _CALL_S)
            if done.rc != 0:
                step = "Read why with systemctl status, then resume again with the same record"
                raise ProbeError("start the units", self.request.node, f"systemctl answered: {done.said}", step)
        self._wait_until_started(start)

    def _to_start(self) -> list[str]:
        ours = [unit for unit in (self.entry or {}).get("units") or [] if unit["was"] == "running"]
        off = {unit["name"]: why for unit in ours for why in [self._turned_off(unit)] if why}
        for _unit in ours:  # starting one that needs another would start that too
            for unit in ours:
                now = self.units.get(unit["name"], {})
                pulled = sorted(other for key in _PULLS for other in now.get(key, "").split() if other in off)
                if pulled:
                    off.setdefault(unit["name"], f"it would start {pulled[0]} too")
        self.notes += [f"{name} is not started: {off[name]}" for name in sorted(off)]
        self.skipped = bool(off)
        return [unit["name"] for unit in ours if unit["name"] not in off]

    def _turned_off(self, unit: dict[str, str]) -> str | None:
        now = self.units.get(unit["name"], {})
        if now.get("LoadState") == "not-found":
            return "it is gone"
        if now.get("UnitFileState") in _OFF and unit["enabled"] not in _OFF:
            return f"somebody has {now['UnitFileState']} it since"
        return "it is masked" if now.get("LoadState") == "masked" else None

    def _wait_until_started(self, start: list[str]) -> None:
        while True:
            self.units = {**self.units, **self._show(start)}
            states = {name: self.units[name].get("ActiveState", "") for name in start}
            waiting = [name for name, state in states.items() if state != "active"]
            failed = [name for name, state in states.items() if state == "failed"]
            if failed or not waiting or self.clock() >= self.deadline:
                break
            self.sleep(max(0.0, min(self.request.poll_s, 1.0, self.deadline - self.clock())))
        if not waiting:
            self.journal.remove()
            self.entry = None
            self.resumed = not self.skipped
            return
        if failed or not self.request.report_timeout:
            raise self._not_started(failed or waiting)

    def _not_started(self, names: list[str]) -> RackwrightError:
        said = "; ".join(
            f"{name} is {self.units[name].get('ActiveState')} ({self.units[name].get('Result') or 'no result'})"
            for name in names
        )
        step = f"Read `journalctl -u {names[0]}`, then resume again with the same record"
        return ProbeError("start the units", self.request.node, said, step, expected="active", found=said)

    # ---- the answer ----

    def report(self) -> dict[str, Any]:
        """The result ``drain`` of the module."""
        left = self._left()
        ours = self.entry is not None
        state = "draining" if ours and left else "drained" if not left else "in_service"
        mark = (self.entry or {}).get("mark")
        return {
            "adapter": "systemd",
            "node": self.request.node,
            "id": self.request.id,
            "state": state,
            "drained": not left,
            "ours": ours,
            "foreign": False,
            "overridden": self.skipped,
            "resumed": self.resumed,
            "reason": mark,
            "by": None,
            "before": {"running": [unit["name"] for unit in self._stored() if unit["was"] == "running"]},
            "units": self._stored(),
            "waiting_for": left,
            "actions": self.actions,
            "note": "; ".join(self.notes) or None,
            "record": self._record(ours),
        }

    def _stored(self) -> list[dict[str, str]]:
        return list((self.entry or self.request.record or {}).get("units") or [])

    def _record(self, ours: bool) -> dict[str, Any] | None:
        if self.request.check_mode:
            return self.request.record
        return {
            "schema": 1,
            "adapter": "systemd",
            "node": self.request.node,
            "id": self.request.id,
            "ours": ours,
            "mark": (self.entry or self.request.record or {}).get("mark") or self.request.mark,
            "before": None,
            "units": self._stored(),
        }
