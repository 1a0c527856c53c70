# SPDX-License-Identifier: Apache-2.0
"""Take a node out of service before work on it, and put it back only if this drain took it out.

The rule that everything here serves: **what somebody else took out of service stays out of service.** A drain leaves a
mark with its id where the drain itself is kept (the reason in Slurm, an annotation in Kubernetes, a journal on the node
otherwise). Resuming acts only while exactly that mark is still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .drain_request import SCHEMA, Request
from .errors import InvalidInputError, TimedOutError


@dataclass(frozen=True)
class Seen:
    """What an adapter found. ``state`` is in_service, draining (out, work is left), drained, down or unknown."""

    state: str
    mark: str | None = None
    reason: str | None = None
    by: str | None = None
    waiting_for: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    #: said by the adapter itself where a mark cannot tell (None: compare marks)
    ours: bool | None = None
    note: str | None = None

    @property
    def empty(self) -> bool:
        """Out of service and without work."""
        return self.state in ("drained", "down") and not self.waiting_for


class Adapter(Protocol):
    """One way to take a node out of service."""

    where: str

    def look(self) -> Seen: ...

    def take(self) -> list[str]: ...

    def push(self, left_s: float) -> None: ...

    def give(self) -> list[str]: ...

    def close(self) -> None:
        """Forget this drain; the node is in service, whoever put it there."""


class Job:
    """One call: what is asked, the adapter that can do it, and what has been done so far.

    ``report()`` is complete at any moment, also after an error: what failed half-way is undone by its record.
    """

    def __init__(
        self,
        request: Request,
        adapter: Adapter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.request = request
        self.adapter = adapter
        self.clock = clock
        self.sleep = sleep
        self.deadline = clock() + request.timeout_s
        self.changed = False
        self.ours = False
        self.overridden = False
        self.resumed = False
        self.actions: list[str] = []
        self.note: str | None = None
        self.before: dict[str, Any] | None = (request.record or {}).get("before")
        self.mark: str | None = (request.record or {}).get("mark")
        self.seen = Seen("unknown")

    # ---- status ----

    def status(self) -> None:
        """Look, change nothing."""
        self.seen = self.adapter.look()
        self._judge()

    def _judge(self) -> None:
        out = self.seen.state != "in_service"
        mine = self.seen.ours if self.seen.ours is not None else self.request.owns(self.seen.mark)
        claimed = bool(self.request.record and self.request.record.get("ours"))
        self.ours = out and mine
        self.overridden = out and claimed and not mine
        self.resumed = not out
        self.note = self.seen.note

    # ---- drain ----

    def drain(self) -> None:
        """Take the node out of service unless it is, and wait until no work is left on it."""
        self.status()
        self.resumed = False
        if self.seen.state in ("in_service", "unknown"):
            self.before = self.seen.before
            self.changed = True
            if self.request.check_mode:
                self.actions = [f"drain {self.request.node} in {self.adapter.where}"]
                return
            self.mark = self.request.mark
            self.ours = True  # from here on something may have been changed, also when the next line fails
            self.actions += self.adapter.take()
            self.seen = self.adapter.look()
        elif self.before is None:
            self.before = self.seen.before
        if not self.request.check_mode:
            self._wait_until_empty()

    def _wait_until_empty(self) -> None:
        while not self.seen.empty:
            left = self.deadline - self.clock()
            if left <= 0:
                self._timed_out("drain the node", self.seen.waiting_for)
                return
            self._look_again(left)
            self._refuse_lost()
            if not self.seen.empty:
                self.sleep(max(0.0, min(self.request.poll_s, self.deadline - self.clock())))

    def _look_again(self, push_s: float | None = None) -> None:
        """Look while waiting: a scheduler that is just being restarted is asked again until the time is over."""
        try:
            if push_s is not None:
                self.adapter.push(push_s)
            self.seen = self.adapter.look()
        except TimedOutError:
            if self.clock() + self.request.poll_s >= self.deadline:
                raise

    def _refuse_lost(self) -> None:
        """Somebody put the node back into service while this drain waits: new work may have come."""
        if self.seen.state == "in_service":
            self.ours = False
            raise InvalidInputError(
                "drain the node",
                self.request.node,
                "somebody put it back into service while its work was running out",
                "Ask who did, then start again",
                expected="drained",
                found="in_service",
            )

    def _timed_out(self, action: str, waiting_for: list[str]) -> None:
        if self.request.report_timeout:
            return
        shown = "; ".join(waiting_for[:5]) + (f" and {len(waiting_for) - 5} more" if len(waiting_for) > 5 else "")
        raise TimedOutError(
            action,
            self.request.node,
            f"after {self.request.timeout_s:g} s it still waits for: {shown or self.seen.state}",
            "It takes no new work; wait longer with a larger timeout_s, or resume it with the returned record",
            expected="drained",
            found=self.seen.state,
        )

    # ---- resume ----

    def resume(self) -> None:
        """Put the node back into service if, and only if, this drain took it out and nobody changed that since."""
        record = self.request.record
        if record and not record.get("ours"):
            self.status()
            self.ours = False
            if not self.resumed:
                self.note = "Left out of service: it was not this drain that took it out."
            return
        self.status()
        if self.resumed:
            if not self.request.check_mode:
                self.adapter.close()
            return
        if not self.ours:
            self.overridden = True
            self.note = f"Left out of service: somebody else decided so since ({self._other()})."
            return
        self.changed = True
        if self.request.check_mode:
            self.actions = [f"put {self.request.node} back into service in {self.adapter.where}"]
            return
        self.actions += self.adapter.give()
        self._wait_until_back()

    def _other(self) -> str:
        return f"{self.seen.reason or 'no reason given'}{', ' + self.seen.by if self.seen.by else ''}"

    def _wait_until_back(self) -> None:
        self.seen = self.adapter.look()
        while self.seen.state != "in_service":
            if self.clock() >= self.deadline:
                break
            self.sleep(max(0.0, min(self.request.poll_s, self.deadline - self.clock())))
            self._look_again()
        self.resumed = self.seen.state == "in_service"
        self.ours = not self.resumed
        self.note = self.seen.note
        if not self.resumed and not self.request.report_timeout:
            raise TimedOutError(
                "put the node back into service",
                self.request.node,
                f"{self.adapter.where} was told and still says {self.seen.note or self.seen.reason or self.seen.state}",
                "Check the node's own service, then resume again with the same record",
                expected="in_service",
                found=self.seen.state,
            )

    # ---- the answer ----

    def report(self) -> dict[str, Any]:
        """The result ``drain`` of the module."""
        request, seen = self.request, self.seen
        return {
            "adapter": request.adapter,
            "node": request.node,
            "id": request.id,
            "state": seen.state,
            "drained": seen.empty,
            "ours": self.ours,
            "foreign": seen.state in ("draining", "drained", "down") and not self.ours,
            "overridden": self.overridden,
            "resumed": self.resumed,
            "reason": seen.reason,
            "by": seen.by,
            "before": self.before,
            "units": [],
            "waiting_for": seen.waiting_for,
            "actions": self.actions,
            "note": self.note,
            "record": self._record(),
        }

    def _record(self) -> dict[str, Any] | None:
        request = self.request
        if request.check_mode:
            return request.record
        return {
            "schema": SCHEMA,
            "adapter": request.adapter,
            "node": request.node,
            "id": request.id,
            "ours": self.ours,
            "mark": self.mark or (self.seen.mark if self.ours else None) or request.mark,
            "before": self.before,
        }


class NoJob:
    """The adapter none: nobody is told, so nothing is taken out of service and nothing put back."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.changed = False

    def status(self) -> None:
        """Nothing to look at."""

    drain = resume = status

    def report(self) -> dict[str, Any]:
        """The result ``drain`` of the module."""
        request = self.request
        record = {"schema": SCHEMA, "adapter": "none", "node": request.node, "id": request.id, "ours": False}
        return {
            "adapter": "none",
            "node": request.node,
            "id": request.id,
            "state": "unknown",
            "drained": True,
            "ours": False,
            "foreign": False,
            "overridden": False,
            "resumed": True,
            "reason": None,
            "by": None,
            "before": None,
            "units": [],
            "waiting_for": [],
            "actions": [],
            "note": "no adapter is set: nothing is drained",
            "record": request.record if request.check_mode else {**record, "mark": None, "before": None},
        }


def sentence_of(report: dict[str, Any], state: str, check_mode: bool) -> str:
    """One line for people: what was done, or in check mode what would be done."""
    node = report["node"]
    if report["adapter"] == "none":
        return f"{node}: {report['note']}"
    if report["actions"]:
        return ("would " if check_mode else "") + ", ".join(report["actions"])
    if state == "resumed" and report["note"]:
        return f"{node}: {report['note']}"
    if report["foreign"]:
        why = f" ({report['reason']}{', ' + report['by'] if report['by'] else ''})" if report["reason"] else ""
        return f"{node} is {report['state']}, by somebody else{why}"
    return f"{node} is {report['state'].replace('_', ' ')}"
