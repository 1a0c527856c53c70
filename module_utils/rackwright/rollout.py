# SPDX-License-Identifier: Apache-2.0
"""Which node is updated when: what may not be touched, canaries, batches, and when to stop. Pure.

Sizes are counts or percentages of the nodes of the run; a percentage is rounded up: one node is always possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import rollout_state as state
from .errors import InvalidInputError

#: what a node is to this run
DUE, RESUME, CURRENT, SKIPPED = "todo", "resume", "current", "skipped"
#: what this run is to bring to its end
PLANNED = (DUE, RESUME)
#: planned and not begun: the run stopped, or too many nodes were out of service
WAITING = "waiting"
_SIZE = re.compile(r"(\d+)(%?)")
_DEFAULT_BATCH = (1, "10%", "30%")


@dataclass(frozen=True)
class Limits:
    """How fast a rollout may go.

    Attributes:
        batch: sizes of the batches after the canaries; the last one repeats.
        canaries: nodes that the user named to go first.
        max_unavailable: nodes that may be out of service at once, None for no limit beside the batch.
        max_failures: failures at which no further node is begun.
    """

    batch: tuple[str, ...] = tuple(str(size) for size in _DEFAULT_BATCH)
    canaries: tuple[str, ...] = ()
    max_unavailable: str | None = None
    max_failures: int = 1


@dataclass(frozen=True)
class Seen:
    """What a run knows about one node before it begins.

    Attributes:
        name: its name.
        kind: name of its stack in the lock, None where the lock does not have it.
        refusal: why the lock cannot be applied to it, None when it can.
        silent: why it did not answer, None when it did.
        target: ``version`` and ``entries`` that the lock gives it; None without a driver in its stack.
        current: the same of its receipt; None where there is none to believe.
        problem: why there is none.
        installed: whether any driver is installed.
        record: its update record, the newer of both copies.
        locked: digest of its entries in the present lock (of interest in a rollback only).
        notes: what people should know.
    """

    name: str
    kind: str | None = None
    refusal: str | None = None
    silent: str | None = None
    target: Mapping[str, Any] | None = None
    current: Mapping[str, Any] | None = None
    problem: str | None = None
    installed: bool = True
    record: Mapping[str, Any] | None = None
    locked: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Decisions of the user: going back, nodes to take up again, and whether a way back is demanded."""

    rollback: bool = False
    retry: tuple[str, ...] = ()
    without_return_point: bool = False


@dataclass(frozen=True)
class Decision:
    """What a node is to this run, and why.

    Attributes:
        what: DUE, RESUME, CURRENT, SKIPPED, or an end state of rollout_state.
        phase: where work on it begins.
        last: it failed before, so the others go first.
    """

    name: str
    what: str
    reason: str | None = None
    phase: str = state.PREPARE
    last: bool = False
    notes: tuple[str, ...] = field(default=())


def limits(values: Mapping[str, Any], names: Sequence[str]) -> Limits:
    """Return the limits out of what the user wrote.

    Args:
        values: ``batch``, ``canaries``, ``max_unavailable``, ``max_failures``.
        names: nodes of the run.

    Raises:
        InvalidInputError: one of them cannot be meant.
    """
    batch = tuple(_size("update_batch", size) for size in _list(values.get("batch")) or _DEFAULT_BATCH)
    canaries = tuple(str(name) for name in _list(values.get("canaries")))
    unknown = sorted(set(canaries) - set(names))
    if unknown:
        raise _refuse("update_canaries", f"{', '.join(unknown)} is no node of this run", "Name nodes of this run")
    most = values.get("max_unavailable")
    failures = str(values.get("max_failures", 1)).strip()
    if not failures.isdigit() or int(failures) < 1:
        raise _refuse("update_max_failures", f"it is {failures!r}", "Give a number of nodes, 1 or more")
    return Limits(
        batch,
        canaries,
        None if most in (None, "") else _size("update_max_unavailable", most),
        int(failures),
    )


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[] ").split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _size(name: str, value: Any) -> str:
    text = str(value).strip().strip("'\"")
    match = None if isinstance(value, bool) else _SIZE.fullmatch(text)
    if not match or int(match.group(1)) < 1 or (match.group(2) and int(match.group(1)) > 100):
        raise _refuse(name, f"{value!r} is no size", 'Give a count like 2, or a part like "30%" from 1% to 100%')
    return text


def _refuse(name: str, cause: str, step: str) -> InvalidInputError:
    return InvalidInputError(f"use {name}", "the update", f"{cause}, and no node was contacted", step)


def count_of(size: str, total: int) -> int:
    """Return how many nodes a size is: ``"30%"`` of 7 is 3."""
    match = _SIZE.fullmatch(size)
    number = int(match.group(1)) if match else 1
    return max(1, math.ceil(total * number / 100)) if size.endswith("%") else number


def decide(seen: Seen, options: Options) -> Decision:
    """Return what a node is to this run."""
    record = seen.record
    if seen.silent:
        at = f" Its update {state.where(record)} is at {state.last_step(record)}." if _open(record) and record else ""
        return Decision(seen.name, state.UNREACHABLE, f"{seen.silent}{at}", notes=seen.notes)
    if record is not None and _open(record):
        return _taken_up(seen, record, options)
    if seen.refusal:
        return Decision(seen.name, state.REFUSED, seen.refusal, notes=seen.notes)
    if seen.target is None:
        return Decision(seen.name, SKIPPED, "its stack has no driver", notes=seen.notes)
    return _fresh(seen, seen.target, options)


def _open(record: Mapping[str, Any] | None) -> bool:
    return state.unfinished(record)


def _taken_up(seen: Seen, record: Mapping[str, Any], options: Options) -> Decision:
    """A node with an update that did not end."""
    step = state.last_step(record)
    if record["state"] != state.STUCK:
        why = "did not answer then, answers now" if record["state"] == state.UNREACHABLE else "interrupted"
        # nothing of the way back was done, and the node may be as good as new: the proof decides
        phase = state.FORWARD if step == state.WAIT else str(record["phase"])
        return Decision(seen.name, RESUME, f"resumes after {step} ({why})", phase, notes=seen.notes)
    if seen.name not in options.retry and "all" not in options.retry:
        reason = f"stuck since run {record['run']}: {record.get('reason')}"
        return Decision(seen.name, state.STUCK, reason, notes=seen.notes)
    phase = state.PREPARE if record["phase"] == state.PREPARE else state.FORWARD
    return Decision(seen.name, RESUME, f"taken up again, was stuck at {step}", phase, True, seen.notes)


def _fresh(seen: Seen, target: Mapping[str, Any], options: Options) -> Decision:
    """A node without an open update."""
    wanted = state.entries_digest(target.get("entries"))
    if seen.current is None:
        if not seen.installed:
            why = "no driver is installed by Rackwright yet. Run playbooks/site.yml, which installs it"
            return Decision(seen.name, state.REFUSED, why, notes=seen.notes)
        if not options.without_return_point:
            why = (
                f"there is no return point, for its driver has no receipt to believe ({seen.problem}). Run "
                "playbooks/site.yml with the lock it was installed from, or accept that with "
                "-e update_without_return_point=true"
            )
            return Decision(seen.name, state.REFUSED, why, notes=seen.notes)
        return Decision(seen.name, DUE, "without a return point", notes=seen.notes)
    found = state.entries_digest(seen.current.get("entries"))
    if found == wanted:
        return Decision(seen.name, CURRENT, notes=seen.notes)
    if options.rollback and found != seen.locked:
        return Decision(seen.name, SKIPPED, "it does not have what stack.lock.yml says: nothing to take back")
    failed = seen.record is not None and seen.record["state"] == state.ROLLED_BACK
    known = f"its last update failed: {seen.record['reason']}" if failed and seen.record else None
    return Decision(seen.name, DUE, known, last=failed, notes=seen.notes)


def batches(
    decisions: Sequence[Decision], kinds: Mapping[str, str | None], proven: set[str | None], limit: Limits
) -> tuple[list[list[str]], list[str]]:
    """Return the order of the rollout, batch by batch, and which nodes are canaries.

    Args:
        decisions: in the order of the inventory, the least important node first.
        kinds: node to its kind.
        proven: kinds of which a node already has the new stack, proven: they need no canary.
        limit: sizes.

    Nodes whose update was interrupted come first, they are out of service already. Then one canary of each kind, then
    the rest in batches; nodes that failed before come last.
    """
    waiting = [d for d in decisions if d.what == RESUME and not d.last]
    order = sorted((d for d in decisions if d.what == DUE or (d.what == RESUME and d.last)), key=lambda d: d.last)
    names = [decision.name for decision in order]
    named = [name for name in limit.canaries if name in names]
    canaries, having = list(named), {kinds[name] for name in named} | proven
    for name in names:
        if kinds[name] not in having:
            canaries.append(name)
            having.add(kinds[name])
    total = len(names) + len(waiting)
    most = count_of(limit.max_unavailable, len(decisions)) if limit.max_unavailable else total
    found = _cut([d.name for d in waiting], most) + _cut(canaries, most)
    rest = [name for name in names if name not in canaries]
    sizes = list(limit.batch)
    while rest:
        size = min(most, count_of(sizes[0], total))
        found.append(rest[:size])
        rest = rest[size:]
        sizes = sizes[1:] or sizes
    return [batch for batch in found if batch], canaries


def _cut(names: Sequence[str], size: int) -> list[list[str]]:
    return [list(names[start : start + size]) for start in range(0, len(names), max(1, size))]


def gate(
    batch: Sequence[str], run: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], limit: Limits
) -> dict[str, Any]:
    """Return which nodes of a batch may begin now.

    Args:
        batch: names.
        run: document of the run: ``id`` and ``nodes`` (``kind``, ``plan``).
        records: node to its record.
        limit: the limits.

    Returns:
        ``go`` (False: no node is begun any more), ``reason``, ``admitted``, ``held`` (node to why it is not begun).
    """
    nodes, of_run = run["nodes"], {name: r for name, r in records.items() if r.get("run") == run["id"]}
    failed = sorted(
        name for name, r in of_run.items() if r["state"] in state.FAILED or (_open(r) and name not in batch)
    )
    if len(failed) >= limit.max_failures:
        reason = (
            f"{len(failed)} node(s) failed ({', '.join(failed[:4])}) and update_max_failures is {limit.max_failures}"
        )
        return {"go": False, "reason": reason, "admitted": [], "held": dict.fromkeys(batch, reason)}
    out = {name for name, node in nodes.items() if node["plan"] in (state.UNREACHABLE, state.STUCK)}
    out |= {name for name, r in of_run.items() if r["state"] in (state.STUCK, state.UNREACHABLE) or _open(r)}
    out -= set(batch)
    free = len(nodes) if limit.max_unavailable is None else count_of(limit.max_unavailable, len(nodes)) - len(out)
    full = f"{len(out)} node(s) are out of service and update_max_unavailable is {limit.max_unavailable}"
    return _admit(batch, run, records, free, full)


def _admit(
    batch: Sequence[str], run: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], free: int, full: str
) -> dict[str, Any]:
    nodes = run["nodes"]
    proven = set(run.get("proven") or [])
    of_run = {name: r for name, r in records.items() if name in nodes and r["run"] == run["id"]}
    proven |= {nodes[name]["kind"] for name, record in of_run.items() if record["state"] == state.DONE}
    admitted: list[str] = []
    held: dict[str, str] = {}
    first: set[Any] = set()
    for name in batch:
        kind = nodes[name]["kind"]
        if nodes[name]["plan"] == RESUME:
            admitted.append(name)
        elif len(admitted) >= free:
            held[name] = full
        elif kind not in proven and kind in first:
            held[name] = f"no node of its kind ({kind}) has the new version yet, so one goes alone"
        else:
            admitted.append(name)
            first.add(kind)
    return {"go": True, "reason": None, "admitted": admitted, "held": held}
