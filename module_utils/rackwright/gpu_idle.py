# SPDX-License-Identifier: Apache-2.0
"""Wait until no process holds a GPU, or make it so.

Only processes that the kernel shows with an open NVIDIA device are ever ended. A number that only NVML names could
belong to another process namespace, and so to somebody else here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidInputError, ProbeError, RackwrightError
from .gpu_holders import Holder, Snapshot, ancestors, started

#: how long a process may take to disappear after SIGKILL; one that sleeps inside the driver never does
KILL_WAIT_S = 10.0
_SHOWN = 5


class BusyError(RackwrightError):
    """Processes hold the GPUs."""

    kind = "busy"


@dataclass(frozen=True)
class Wish:
    """Options of one call. ``policy`` is wait, fail or terminate."""

    policy: str = "wait"
    timeout_s: float = 300.0
    grace_s: float = 30.0
    poll_s: float = 2.0
    report_timeout: bool = False
    ignore: tuple[str, ...] = ()
    check_mode: bool = False


@dataclass
class Machine:
    """What touches the world, so that tests can stand in for it."""

    look: Callable[[], Snapshot]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    kill: Callable[[int, int], None] = os.kill
    started: Callable[[int], str | None] = started
    spared: Callable[[], set[int]] = field(default=lambda: ancestors(os.getpid()))
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)


class Settling:
    """One call. ``report()`` is complete at any moment, also after an error."""

    def __init__(self, wish: Wish, machine: Machine, node: str) -> None:
        self.wish = wish
        self.machine = machine
        self.node = node
        self.begun = machine.clock()
        self.snapshot: Snapshot | None = None
        self.terminated: dict[int, dict[str, Any]] = {}
        self.msg = ""

    @property
    def holders(self) -> list[Holder]:
        """Those that are waited for."""
        found = self.snapshot.holders if self.snapshot else []
        return [holder for holder in found if not holder.is_one_of(self.wish.ignore)]

    @property
    def daemons(self) -> list[Holder]:
        """Those that hold GPUs by design."""
        found = self.snapshot.holders if self.snapshot else []
        return [holder for holder in found if holder.is_one_of(self.wish.ignore)]

    def run(self) -> None:
        """Do what the policy says.

        Raises:
            BusyError: processes still hold GPUs. ProbeError: one cannot be ended. InvalidInputError: not root.
        """
        if self.wish.policy == "terminate" and not self.machine.is_root and not self.wish.check_mode:
            step = "Run the task with become: true"
            raise InvalidInputError("end the processes", self.node, "the policy terminate needs root", step)
        self._look()
        if self.wish.check_mode:
            self.msg = self._foresee()
            return
        if self.holders and self.wish.policy != "fail":
            self._wait(self.wish.timeout_s)
        if self.holders and self.wish.policy == "terminate":
            self._terminate()
        if not self.holders:
            self.msg = "no process holds a GPU"
            return
        self.msg = f"{len(self.holders)} process(es) hold a GPU: {phrases(self.holders)}"
        if not (self.wish.report_timeout and self.wish.policy == "wait"):
            raise self._busy()

    def _look(self) -> None:
        self.snapshot = self.machine.look()

    def _wait(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Look again until nobody is left, or ``until`` says so, for at most ``seconds``."""
        deadline = self.machine.clock() + seconds
        while self.holders and not (until and until()):
            left = deadline - self.machine.clock()
            if left <= 0:
                return
            self.machine.sleep(min(self.wish.poll_s, left))
            self._look()

    def _foresee(self) -> str:
        if not self.holders:
            return "no process holds a GPU"
        verb = {"wait": "would wait for", "fail": "would fail because of", "terminate": "would terminate"}
        victims = self._victims() if self.wish.policy == "terminate" else self.holders
        return f"{verb[self.wish.policy]} {phrases(victims or self.holders)}"

    # ---- ending processes ----

    def _victims(self) -> list[Holder]:
        spared = self.machine.spared() | {0, 1}
        return [h for h in self.holders if h.devices and h.started and h.pid not in spared]

    def _terminate(self) -> None:
        targets = {holder.pid: holder for holder in self._victims()}
        self._signal(targets, signal.SIGTERM)

        def gone() -> bool:
            return all(self.machine.started(pid) != target.started for pid, target in targets.items())

        self._wait(self.wish.grace_s, gone)
        left = {pid: t for pid, t in targets.items() if self.machine.started(pid) == t.started}
        if left:
            self._signal(left, signal.SIGKILL)
            self._wait(KILL_WAIT_S, gone)
        self._look()
        stuck = [t for pid, t in left.items() if self.machine.started(pid) == t.started]
        if stuck:
            raise ProbeError(
                "end the processes",
                self.node,
                f"{phrases(stuck)} does not even end with SIGKILL: it waits inside the driver",
                "Restart the node",
                found=[holder.to_result() for holder in stuck],
            )

    def _signal(self, targets: dict[int, Holder], number: signal.Signals) -> None:
        for pid, target in sorted(targets.items()):
            if self.machine.started(pid) != target.started:
                continue  # ended meanwhile; the number may already be somebody else's
            try:
                self.machine.kill(pid, number)
            except ProcessLookupError:
                continue
            self.terminated[pid] = {"pid": pid, "name": target.name, "user": target.user, "signal": number.name}

    # ---- the answer ----

    def _busy(self) -> BusyError:
        after = "" if self.wish.policy == "fail" else f" after {self.machine.clock() - self.begun:.0f} s"
        step = "Drain what starts them, wait longer with a larger timeout_s, or allow policy: terminate"
        if self.wish.policy == "terminate":
            hidden = [holder for holder in self.holders if not holder.devices]
            step = (
                "End them where they are visible: they belong to another process namespace, or NVML's list is stale"
                if hidden
                else "Stop the service that starts them again; list it in the drain adapter"
            )
        return BusyError(
            "free the GPUs",
            self.node,
            f"{len(self.holders)} process(es) hold them{after}: {phrases(self.holders)}",
            step,
            expected=[],
            found=[holder.to_result() for holder in self.holders],
        )

    def report(self) -> dict[str, Any]:
        """The module's result."""
        snapshot = self.snapshot
        return {
            "changed": bool(self.terminated),
            "idle": snapshot is not None and not self.holders,
            "holders": [holder.to_result() for holder in self.holders],
            "daemons": [holder.to_result() for holder in self.daemons],
            "terminated": [self.terminated[pid] for pid in sorted(self.terminated)],
            "waited_s": round(self.machine.clock() - self.begun, 1),
            "sources": {"nvml": snapshot.nvml, "handles": snapshot.handles} if snapshot else None,
        }


def phrases(holders: list[Holder]) -> str:
    """Name holders for a message, not more than a person reads."""
    more = f" and {len(holders) - _SHOWN} more" if len(holders) > _SHOWN else ""
    return "; ".join(holder.phrase() for holder in holders[:_SHOWN]) + more
