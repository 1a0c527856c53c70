# SPDX-License-Identifier: Apache-2.0
"""Run a function in several child processes at once, one payload each, under one deadline.

What :mod:`child` promises of one child holds for each: it may hang, crash, be killed or answer by halves without taking
the caller or another child with it, and none outlives the call.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import child
from .child import Child, ChildResult


@dataclass
class _Member:
    """One child of the group, and what became of it."""

    child: Child
    closed_at: float | None = None
    ended: bool = False
    result: ChildResult | None = None

    def finished(self, now: float) -> bool:
        """True when nothing more can come of it: it answered, it ended, or it closed its answer and does not end."""
        reader = self.child.reader
        if reader.complete or child.has_ended(self.child.pid):
            return True
        if not reader.done:
            return False
        self.closed_at = now if self.closed_at is None else self.closed_at
        return now - self.closed_at > child.KILL_GRACE_S

    def kill(self) -> None:
        """End the child, once; whether it had ended by itself is kept, because afterwards nobody can tell."""
        self.ended = child.has_ended(self.child.pid)
        child.kill_child(self.child.pid)

    def settle(self, timeout: float, grace_until: float) -> None:
        """Reap the killed child and keep what became of it."""
        self.child.reader.drain()
        status = child.reap_child(self.child.pid, max(0.0, grace_until - time.monotonic()))
        duration_s = time.monotonic() - self.child.started
        self.result = child.judge(self.child.reader, status, self.ended, timeout, duration_s)
        self.child.close()


def run_group(func: Callable[[Any], Any], payloads: Sequence[Any], timeout: float) -> list[ChildResult]:
    """Call ``func(payload)`` for every payload, each in a child of its own, all at once; results in the same order.

    The caller waits ``timeout`` seconds plus one short grace, however many of the children hang: whoever has not
    answered by then is killed with its process group. A child that has answered is ended at once, not at the deadline.

    Raises:
        OSError: a child could not be started (no more processes or descriptors); those that were are ended first.
    """
    deadline = time.monotonic() + timeout
    members: list[_Member] = []
    try:
        for payload in payloads:
            members.append(_Member(child.start(func, [payload])))
        while (running := _running(members)) and time.monotonic() < deadline:
            _read(running, min(child.POLL_S, deadline - time.monotonic()))
            _end([member for member in running if member.finished(time.monotonic())], timeout)
    finally:
        # also reached when the caller is interrupted: no child outlives the call
        _end(_running(members), timeout)
    return [member.result for member in members if member.result is not None]


def _end(members: Sequence[_Member], timeout: float) -> None:
    """Kill all before the first is waited for, so that many hanging children cost one grace, not one each."""
    for member in members:
        member.kill()
    grace_until = time.monotonic() + child.KILL_GRACE_S
    for member in members:
        member.settle(timeout, grace_until)


def _running(members: Sequence[_Member]) -> list[_Member]:
    return [member for member in members if member.result is None]


def _read(members: Sequence[_Member], wait_s: float) -> None:
    """Wait until any child has written something, then take what all of them have."""
    poll = select.poll()
    for member in members:
        for fd in member.child.reader.open_fds:
            poll.register(fd, select.POLLIN)
    poll.poll(max(0.0, wait_s) * 1000)
    for member in members:
        member.child.reader.read(0.0)
