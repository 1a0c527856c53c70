# SPDX-License-Identifier: Apache-2.0
"""What every GPU gave in earlier runs, and how it stands against that now. Pure; history_store keeps the file.

A card is known by its UUID, so its past follows it through renames and moves. Numbers of a whole node belong to the
machine that has most of the same cards. Only values of nodes that did not fail become part of the past: a fault must
not become what is normal.

A document is ``{"schema": 1, "kind": "rackwright-history", "cards": {UUID: entry}, "machines": {name: entry}}``. An
entry has ``cards`` (machines only), ``runs`` (run_id to :data:`CONTEXT`) and ``metrics`` (key to
``[[run_id, value], ...]``, oldest first, at most :data:`KEEP`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import peers
from .speed_metrics import Reading
from .verdict_gates import step_for

SCHEMA = 1
KIND = "rackwright-history"
#: Values kept per metric. The base is the median of them, so a slow decline is seen once it is as large as the limits.
KEEP = 10
#: Metrics kept per card, and cards kept at all; those not measured for the longest go first.
MOST_METRICS = 200
MOST_CARDS = 20_000
#: What is remembered of a run; differences are named beside a regression. ``kind`` must be equal to compare at all.
CONTEXT = ("at", "node", "kind", "driver", "vbios", "torch", "kernel")
_NAMED = ("driver", "vbios", "torch", "kernel", "node")
_SEPARATOR = "|"


@dataclass(frozen=True)
class Past:
    """How a number stands against the past of its card.

    Attributes:
        step: ``pass``, ``warn`` or ``fail``.
        base: median of the earlier values.
        n: how many they are.
        fraction: how fast this one is, as part of the base; below 1 is slower, whatever the unit.
        last: identifier of the last earlier run.
        changed: what is different from that run, in words; empty where nothing that is recorded is.
    """

    step: str
    base: float
    n: int
    fraction: float
    last: str
    changed: tuple[str, ...]


def empty() -> dict[str, Any]:
    """Return a history in which nothing happened yet."""
    return {"schema": SCHEMA, "kind": KIND, "cards": {}, "machines": {}}


def problem(document: Any) -> str | None:
    """Return why something is no history that this version understands, None when it is one."""
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        return "it is not a history of measurements"
    if document.get("schema") != SCHEMA:
        return f"its schema is {document.get('schema')!r}, this version understands {SCHEMA}"
    for part in ("cards", "machines"):
        entries = document.get(part)
        if not isinstance(entries, Mapping):
            return f"{part} is not a dictionary"
        for name, entry in entries.items():
            wrong = _entry_problem(entry)
            if wrong:
                return f"{part}.{name} {wrong}"
    return None


def _entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return "is not a dictionary"
    runs, metrics = entry.get("runs"), entry.get("metrics")
    if not isinstance(runs, Mapping) or not isinstance(metrics, Mapping):
        return "has no runs or no metrics"
    if not all(isinstance(context, Mapping) for context in runs.values()):
        return "has a run that is not a dictionary"
    for key, values in metrics.items():
        if not isinstance(values, list) or not all(_is_value(value, runs) for value in values):
            return f"has values of {key} that are not pairs of a known run and a number above zero"
    return None


def _is_value(value: Any, runs: Mapping[str, Any]) -> bool:
    if not isinstance(value, list) or len(value) != 2 or value[0] not in runs:
        return False
    number = value[1]
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < float("inf")


def stand(
    history: Mapping[str, Any], reading: Reading, context: Mapping[str, Any], limits: Mapping[str, float | None]
) -> Past | None:
    """Return how a number stands against the past of its card (or machine), None where it has none.

    Args:
        context: :data:`CONTEXT` of this run.
        limits: ``warn`` and ``fail``, fractions of the base.
    """
    entry = _entry(history, reading)
    if entry is None:
        return None
    values = [
        (run, value)
        for run, value in entry["metrics"].get(key_of(reading), [])
        if entry["runs"][run].get("kind") == reading.kind
    ]
    if not values:
        return None
    base = peers.middle(sorted(value for _run, value in values))
    fraction = base / reading.value if peers.less_is_better(reading.unit) else reading.value / base
    last = values[-1][0]
    return Past(
        step=step_for(fraction, limits),
        base=base,
        n=len(values),
        fraction=fraction,
        last=last,
        changed=_changed(entry["runs"][last], context),
    )


def text(past: Past, reading: Reading) -> str:
    """Return a standing in words: what it was, how often, what is different now."""
    runs = f"{past.n} earlier run{'' if past.n == 1 else 's'}, the last {past.last}"
    said = f"{reading.value:.4g} {reading.unit}, {peers.difference(past.fraction)} its own {past.base:.4g} ({runs})"
    if past.step == "pass":
        return said
    return f"{said}; changed since: {', '.join(past.changed) or 'nothing that is recorded'}"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{name} {before.get(name)} to {now.get(name)}"
        for name in _NAMED
        if before.get(name) and now.get(name) and before.get(name) != now.get(name)
    )


def key_of(reading: Reading) -> str:
    """Return the name of a reading's metric in the document."""
    return _SEPARATOR.join(reading.metric)


def _entry(history: Mapping[str, Any], reading: Reading) -> dict[str, Any] | None:
    if reading.of_node:
        name = _machine(history, reading.cards)
        return history["machines"].get(name) if name else None
    entry: dict[str, Any] | None = history["cards"].get(reading.cards[0])
    return entry


def _machine(history: Mapping[str, Any], cards: Sequence[str]) -> str | None:
    """The machine that has more than half of the same cards: it stays the same when one of them is replaced."""
    own = history["machines"].get(cards[0])
    if own is not None and own.get("cards") == list(cards):
        return cards[0]  # nothing changed: to look through the fleet for every number takes minutes in a large one
    wanted = set(cards)
    shares = {
        name: len(wanted & set(entry.get("cards") or [])) / len(wanted) for name, entry in history["machines"].items()
    }
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] > 0.5 else None


def peers_of_before(
    history: Mapping[str, Any], wanted: Mapping[tuple[str, str], set[str]], present: Iterable[str]
) -> dict[tuple[str, str], list[float]]:
    """Return the last good values of cards that are not in this run, so that a node that is measured alone has peers.

    Args:
        wanted: (kind, metric key) to the releases of torch whose values are comparable.
        present: UUIDs of the cards of this run.
    """
    here = set(present)
    found: dict[tuple[str, str], list[float]] = {}
    for uuid, entry in history["cards"].items():
        if uuid in here:
            continue
        for key, values in entry["metrics"].items():
            if not values:
                continue
            run, value = values[-1]
            context = entry["runs"][run]
            place = (str(context.get("kind")), key)
            if place in wanted and context.get("torch") in wanted[place]:
                found.setdefault(place, []).append(value)
    return found


def add(
    history: Mapping[str, Any], run_id: str, measured: Iterable[tuple[Reading, Mapping[str, Any]]]
) -> dict[str, Any]:
    """Return the history with the numbers of one run added; a run that is added again replaces itself.

    Args:
        measured: readings of nodes that did not fail, each with the :data:`CONTEXT` of its card.
    """
    new = {
        **history,
        "cards": {name: _copy(entry) for name, entry in history["cards"].items()},
        "machines": {name: _copy(entry) for name, entry in history["machines"].items()},
    }
    for reading, context in measured:
        entry = _place(new, reading)
        entry["runs"][run_id] = {name: context.get(name) for name in CONTEXT} | {"kind": reading.kind}
        kept = [value for value in entry["metrics"].get(key_of(reading), []) if value[0] != run_id]
        entry["metrics"].pop(key_of(reading), None)  # the newest metric stands last
        entry["metrics"][key_of(reading)] = [*kept, [run_id, float(f"{reading.value:.6g}")]][-KEEP:]
    for part in ("cards", "machines"):
        new[part] = _bounded(new[part])
    return new


def _copy(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "runs": dict(entry["runs"]), "metrics": dict(entry["metrics"])}


def _place(history: dict[str, Any], reading: Reading) -> dict[str, Any]:
    if not reading.of_node:
        entry: dict[str, Any] = history["cards"].setdefault(reading.cards[0], {"runs": {}, "metrics": {}})
        return entry
    name = _machine(history, reading.cards) or _free_name(history["machines"], reading.cards[0])
    machine: dict[str, Any] = history["machines"].setdefault(name, {"runs": {}, "metrics": {}})
    machine["cards"] = list(reading.cards)
    return machine


def _free_name(machines: Mapping[str, Any], wanted: str) -> str:
    """A card that moved may have given its name to the machine it came from."""
    name, number = wanted, 1
    while name in machines:
        number += 1
        name = f"{wanted}.{number}"
    return name


def _bounded(entries: Mapping[str, Any]) -> dict[str, Any]:
    if len(entries) > MOST_CARDS:
        kept = sorted(entries, key=lambda name: _last(entries[name]), reverse=True)[:MOST_CARDS]
        entries = {name: entries[name] for name in sorted(kept)}
    return {name: _pruned(entry) for name, entry in entries.items()}


def _pruned(entry: Mapping[str, Any]) -> dict[str, Any]:
    metrics = dict(list(entry["metrics"].items())[-MOST_METRICS:])
    used = {value[0] for values in metrics.values() for value in values}
    if len(metrics) == len(entry["metrics"]) and len(used) == len(entry["runs"]):
        return dict(entry)
    return {**entry, "metrics": metrics, "runs": {run: entry["runs"][run] for run in entry["runs"] if run in used}}


def _last(entry: Mapping[str, Any]) -> str:
    return max((str(context.get("at") or "") for context in entry["runs"].values()), default="")
