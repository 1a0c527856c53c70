# SPDX-License-Identifier: Apache-2.0
"""Drain a node of Slurm: ``scontrol`` and ``squeue`` in their text form, which is the same from 17.11 to 25.11.

The reason of the node is the mark. Slurm keeps it while the node reboots and while slurmd is away; whoever drains a
drained node again replaces it, and so says that the node is theirs now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .drain import Seen
from .drain_request import Request
from .drain_run import Done
from .errors import MissingError, ProbeError, RackwrightError, TimedOutError

_CALL_S = 60.0
#: a job in any of these has processes on the node; a suspended one leaves the node IDLE and its GPU memory full
_JOB_STATES = "RUNNING,SUSPENDED,COMPLETING,CONFIGURING,STOPPED"
_JOB = "%i|%u|%T|%j"
_STATE = re.compile(r"(?:^|\s)State=(\S+)")
_REASON = re.compile(r"(?:^|\s)Reason=(.*?)\s+\[([^@\[\]]+)@([^\[\]]+)\](?=\s|$)", re.MULTILINE)
#: suffixes by which older releases and sinfo write flags
_SUFFIXES = {
    "*": "NOT_RESPONDING",
    "~": "POWERED_DOWN",
    "#": "POWERING_UP",
    "!": "POWERING_DOWN",
    "%": "POWERING_DOWN",
    "$": "MAINTENANCE",
    "@": "REBOOT_REQUESTED",
    "^": "REBOOT_ISSUED",
    "-": "PLANNED",
}
#: one word that stands for a base state with the drain flag
_WORDS = {"DRAINED": {"IDLE", "DRAIN"}, "DRAINING": {"ALLOCATED", "DRAIN"}, "FAILING": {"ALLOCATED", "FAIL"}}
_BUSY = {"ALLOCATED", "MIXED", "COMPLETING"}
_AWAY = {"DOWN", "ERROR", "FUTURE"}


def flags_of(state: str) -> frozenset[str]:
    """Turn ``IDLE+DRAIN``, ``DOWN*+DRAIN`` or ``idle~`` into the set of its words."""
    flags: set[str] = set()
    for word in state.upper().split("+"):
        bare = word.rstrip("".join(_SUFFIXES))
        flags |= {_SUFFIXES[sign] for sign in word[len(bare) :]}
        flags |= _WORDS.get(bare, {bare} if bare else set())
    return frozenset(flags)


def parse_node(text: str) -> dict[str, Any] | None:
    """Read state, reason, who set it and when from ``scontrol show node NAME -o``; None where there is no node."""
    state = _STATE.search(text)
    if state is None:
        return None
    reason = _REASON.search(text)
    return {
        "state": state[1],
        "flags": flags_of(state[1]),
        "reason": reason[1] if reason else None,
        "by": reason[2] if reason else None,
        "since": reason[3] if reason else None,
    }


def parse_jobs(text: str) -> list[str]:
    """Turn squeue's ``id|user|state|name`` lines into one phrase for each job."""
    jobs = []
    for line in text.splitlines():
        number, user, state, name = [*line.strip().split("|", 3), "", "", ""][:4]
        if number:
            jobs.append(f"job {number} of {user or 'somebody'} ({name or 'no name'}, {state.lower() or 'unknown'})")
    return jobs


def situation(node: dict[str, Any], jobs: list[str]) -> Seen:
    """Judge what Slurm says. A node that Slurm keeps down takes no work either, so it counts as taken out by others."""
    flags = node["flags"]
    busy = jobs or [f"Slurm says {node['state']}"] if flags & _BUSY or jobs else []
    note = None
    if "DRAIN" in flags or "FAIL" in flags:
        state = "draining" if busy or "UNKNOWN" in flags else "drained"
        busy = busy or ([f"Slurm says {node['state']}"] if state == "draining" else [])
    elif flags & _AWAY:
        state = "down"
        note = f"Slurm keeps it down ({node['state']}); it may return by itself, depending on ReturnToService"
    elif "UNKNOWN" in flags or "INVALID_REG" in flags:
        state = "unknown"
        note = f"Slurm says {node['state']}"
    else:
        state = "in_service"
        busy = []
    before = {"state": node["state"], "reason": node["reason"], "by": node["by"]}
    # without the drain flag an old reason that still stands there marks nothing
    ours = None if "DRAIN" in flags else False
    return Seen(state, node["reason"], node["reason"], node["by"], busy, before, ours, note)


class Slurm:
    """The adapter. Runs where ``scontrol`` and ``squeue`` work: on the node or on the controller."""

    where = "Slurm"

    def __init__(self, request: Request, run: Callable[..., Done]) -> None:
        self.request = request
        self.run = run
        self.giving = False
        self.flags: frozenset[str] = frozenset()

    def look(self) -> Seen:
        done = self.run(["scontrol", "show", "node", self.request.node, "-o"], _CALL_S)
        node = parse_node(done.out) if done.rc == 0 else None
        if node is None:
            raise self._explain("read the node", done)
        jobs = self.run(
            ["squeue", "--noheader", f"--nodelist={self.request.node}", f"--states={_JOB_STATES}", f"--format={_JOB}"],
            _CALL_S,
        )
        if jobs.rc != 0:
            raise self._explain("list the jobs", jobs)
        self.flags = node["flags"]
        seen = situation(node, parse_jobs(jobs.out))
        if self.giving and seen.state == "in_service" and "NOT_RESPONDING" in node["flags"]:
            # resumed, but slurmd has not answered since: no job can start yet
            return Seen("unknown", seen.mark, seen.reason, seen.by, note=f"{node['state']}: slurmd does not answer")
        return seen

    def take(self) -> list[str]:
        node = self.request.node
        done = self._update("DRAIN", f"Reason={self.request.mark}")
        if done.rc != 0:
            raise self._explain("drain the node", done)
        return [f"drain {node} in Slurm"]

    def push(self, left_s: float) -> None:
        """Nothing: jobs end by themselves, or at their time limit."""

    def give(self) -> list[str]:
        if "INVALID_REG" in self.flags:
            cause = (
                "Slurm does not accept its registration (INVALID_REG): it has less than slurm.conf says, perhaps a GPU"
            )
            step = "Compare `slurmd -C` and the GPUs of the node with slurm.conf and gres.conf"
            raise ProbeError("resume the node", self.request.node, cause, step, found=sorted(self.flags))
        self.giving = True
        done = self._update("RESUME")
        # a controller that was restarted answers "Invalid node state" and resumes all the same: the next look decides
        if done.rc != 0 and "Invalid node state" not in done.said:
            raise self._explain("resume the node", done)
        return [f"resume {self.request.node} in Slurm"]

    def close(self) -> None:
        """Nothing: the mark went with the drain."""

    def _update(self, state: str, *more: str) -> Done:
        return self.run(["scontrol", "update", f"NodeName={self.request.node}", f"State={state}", *more], _CALL_S)

    def _explain(self, action: str, done: Done) -> RackwrightError:
        node, said = self.request.node, done.said
        if "not found" in said or "Invalid node name" in said:
            step = "Set node_name to the NodeName of slurm.conf (scontrol show hostnames; scontrol show node)"
            return MissingError(action, node, "Slurm knows no node of this name", step, found=said)
        if "Invalid user id" in said or "Access/permission denied" in said:
            step = "Run as root or SlurmUser on a host of the cluster (become: true, or delegate_to the controller)"
            return ProbeError(action, node, f"Slurm refuses: {said}", step)
        if "Unable to contact slurm controller" in said:
            return TimedOutError(action, node, "the Slurm controller does not answer", "Start slurmctld", found=said)
        return ProbeError(action, node, f"Slurm answered: {said}", "Look at the log of slurmctld")
