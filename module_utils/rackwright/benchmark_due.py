# SPDX-License-Identifier: Apache-2.0
"""Which nodes a benchmark measures: not those that must not be loaded, nor those that nothing changed on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from . import ages, proof, verdict_health
from .verdict_record import Evidence, dig


@dataclass(frozen=True)
class Wanted:
    """What is asked for: level, suites (None for those of the level), and whether unchanged nodes are measured too."""

    level: str
    suites: Sequence[str] | None = None
    again: bool = False


def decide(
    nodes: Mapping[str, Any], proofs: Mapping[str, Any], wanted: Wanted, now: datetime | None = None
) -> dict[str, Any]:
    """Return which nodes are measured (``due``, with the reason), which are not because nothing changed (``skipped``),
    and which must not be loaded or gave no facts (``unfit``).

    Args:
        nodes: per node ``facts``, ``health`` and ``benchmark`` (of the import of torch only) as they were registered.
        proofs: the record of proofs.
        now: the time, in UTC; by default the present one.
    """
    due: dict[str, str] = {}
    skipped: dict[str, str] = {}
    unfit: dict[str, str] = {}
    for name, node in nodes.items():
        evidence = Evidence(name, "", facts=node.get("facts") or {}, health=node.get("health") or {})
        reason = _unfit(evidence, node)
        if reason is not None:
            unfit[name] = reason
            continue
        last = None if wanted.again else proofs.get(name)
        torch = dig(node.get("benchmark"), "torch_benchmark.torch.version")
        why, earlier = proof.benchmark_due(last, evidence.gpu or {}, torch, wanted.level, wanted.suites)
        if why is None:
            skipped[name] = _unchanged(earlier, now or datetime.now(timezone.utc))
        else:
            due[name] = "asked for" if wanted.again else why
    return {"due": due, "skipped": skipped, "unfit": unfit}


def _unfit(evidence: Evidence, node: Mapping[str, Any]) -> str | None:
    for result in (node.get("facts") or {}, node.get("health") or {}):
        if result.get("unreachable"):
            return "it is unreachable"
    if evidence.gpu is None:
        return "it gave no GPU facts"
    severity = verdict_health.asks_for(evidence)
    return f"health asks for {severity}" if severity else None


def _unchanged(earlier: Mapping[str, Any], now: datetime) -> str:
    torch = f", torch {earlier['torch']}" if earlier.get("torch") else ""
    return (
        f"nothing changed since run {earlier.get('run_id')} ({earlier.get('verdict_text')}, "
        f"{age(str(earlier.get('at') or ''), now)} ago{torch})"
    )


def age(at: str, now: datetime) -> str:
    """Return how long ago a UTC time was, in its largest sensible unit: ``40 minutes``, ``5 hours``, ``12 days``."""
    known = ages.age_seconds(at, now)
    if known is None:
        return "an unknown time"
    seconds = max(0.0, known)
    for unit, length, most in (("minute", 60, 120), ("hour", 3600, 48), ("day", 86400, None)):
        count = int(seconds // length)
        if most is None or count < most:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("days have no limit")
