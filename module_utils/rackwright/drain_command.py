# SPDX-License-Identifier: Apache-2.0
"""Drain a node by the site's own programs, for schedulers that Rackwright does not know.

Each command is a list of words that is run without a shell. It finds in its environment ``RACKWRIGHT_NODE``,
``RACKWRIGHT_ID``, ``RACKWRIGHT_REASON`` and ``RACKWRIGHT_TIMEOUT_S``. The status command answers with its exit status.
"""

from __future__ import annotations

from collections.abc import Callable

from .drain import Seen
from .drain_journal import Journal
from .drain_request import Request
from .drain_run import Done
from .errors import InvalidInputError, ProbeError, RackwrightError

_CALL_S = 60.0
#: exit status of the status command -> state
_STATES = {0: "drained", 1: "in_service", 2: "draining", 3: "drained"}
_FOREIGN = 3


class Command:
    """The adapter. Without a status command only the journal tells whether the node is drained."""

    where = "the site's scheduler"

    def __init__(self, request: Request, run: Callable[..., Done]) -> None:
        self.request = request
        self.run = run
        self.journal = Journal(request.options["state_dir"], request.id)
        if not request.options["drain_command"] or not request.options["resume_command"]:
            step = "Give drain_command and resume_command as lists of words; status_command is worth having too"
            raise InvalidInputError("use the adapter command", request.node, "a command is missing", step)

    def look(self) -> Seen:
        entry = self.journal.read()
        open_ = entry is not None
        mark = str(entry["mark"]) if entry else None
        argv = self.request.options["status_command"]
        if not argv:
            if entry is not None:
                # a drain command that failed may have done half of its work: drain again, or resume
                return Seen("drained" if entry.get("taken") else "unknown", mark, mark, ours=True)
            return Seen("in_service", note="there is no status_command, so only Rackwright's own drains are known")
        done = self._run(argv, _CALL_S)
        if done.rc not in _STATES:
            cause = f"the status command ended with status {done.rc}: {done.said}"
            step = "It has to end with 0 (drained), 1 (in service), 2 (draining) or 3 (drained by somebody else)"
            raise ProbeError("read the node", self.request.node, cause, step, expected=sorted(_STATES), found=done.rc)
        first = next((line.strip() for line in done.out.splitlines() if line.strip()), None)
        state = _STATES[done.rc]
        if state == "in_service":
            return Seen(state, before={"status": done.rc, "said": first})
        waiting = [first or "work that runs there"] if state == "draining" else []
        ours = open_ and done.rc != _FOREIGN
        return Seen(state, mark, first or mark, None, waiting, {"status": done.rc, "said": first}, ours)

    def take(self) -> list[str]:
        request = self.request
        entry = {"adapter": "command", "id": request.id, "mark": request.mark, "node": request.node, "taken": False}
        self.journal.write(entry)
        done = self._run(request.options["drain_command"], request.timeout_s)
        if done.rc != 0:
            raise self._failed("drain the node", done)
        self.journal.write({**entry, "taken": True})
        return [f"drain {request.node} with {request.options['drain_command'][0]}"]

    def push(self, left_s: float) -> None:
        """Nothing: work ends by itself, or the drain command ends it."""

    def give(self) -> list[str]:
        argv = self.request.options["resume_command"]
        done = self._run(argv, self.request.timeout_s)
        if done.rc != 0:
            raise self._failed("resume the node", done)
        self.close()
        return [f"put {self.request.node} back into service with {argv[0]}"]

    def close(self) -> None:
        self.journal.remove()

    def _run(self, argv: list[str], limit_s: float) -> Done:
        request = self.request
        extra = {
            "RACKWRIGHT_NODE": request.node,
            "RACKWRIGHT_ID": request.id,
            "RACKWRIGHT_REASON": request.reason,
            "RACKWRIGHT_TIMEOUT_S": f"{request.timeout_s:g}",
        }
        return self.run(argv, max(1.0, limit_s), extra)

    def _failed(self, action: str, done: Done) -> RackwrightError:
        cause = f"the command ended with status {done.rc}: {done.said}"
        return ProbeError(action, self.request.node, cause, "Run it by hand with the same environment")
