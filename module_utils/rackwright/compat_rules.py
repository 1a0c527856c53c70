# SPDX-License-Identifier: Apache-2.0
"""What every part of the resolver shares: the case to solve, its decisions, the refusal, versions and dates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .stack_intent import Intent
from .stack_node import Gpu, StackNode
from .torch_build import version_key

#: the gates a refusal can name, in the order in which they are passed
GATES = ("intent", "platform", "gpu-driver", "secure-boot", "kernel", "driver-cuda", "wheel-gpu", "python-glibc")
ARCHITECTURES = ("kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "rubin")


class TablesLike(Protocol):
    """The attributes of ``tables.Tables`` that planning reads; naming them keeps this importable without yaml."""

    @property
    def gpus(self) -> dict[str, Any]: ...
    @property
    def drivers(self) -> dict[str, Any]: ...
    @property
    def cuda(self) -> dict[str, Any]: ...
    @property
    def platforms(self) -> dict[str, Any]: ...
    @property
    def frameworks(self) -> dict[str, Any]: ...


class Refusal(Exception):
    """The wish cannot be met; the gate says where it ended."""

    def __init__(self, gate: str, reason: str, remedies: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.gate = gate
        self.reason = reason
        self.remedies = list(remedies)


@dataclass
class Case:
    """One node and one intent to solve; decisions are noted as they are taken."""

    node: StackNode
    intent: Intent
    tables: TablesLike
    today: str
    decisions: list[dict[str, Any]] = field(default_factory=list)

    def decide(self, item: str, value: Any, rule: str, row: str | None = None, source: Any = None) -> None:
        """Note a decision: ``item`` is its dotted path in the stack, ``row`` the table row it rests on."""
        self.decisions.append({"item": item, "value": value, "rule": rule, "row": row, "source": source_text(source)})


def source_text(source: Any) -> str | None:
    """Sources of a row as one text."""
    if isinstance(source, (list, tuple)):
        return "; ".join(str(part) for part in source) or None
    return None if source is None else str(source)


def sources_of(table: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return the sources of a row as texts: a table names them once, its rows by id."""
    named = row.get("sources") or row.get("source") or []
    return source_texts(table, [named] if isinstance(named, str) else named)


def source_texts(table: Mapping[str, Any], ids: Iterable[Any]) -> list[str]:
    """Return what stands behind the ids of sources; what is no id is a text already."""
    known = table.get("sources")
    return [str(known.get(source, source)) if isinstance(known, dict) else str(source) for source in ids]


def find(rows: Iterable[Mapping[str, Any]], key: str, value: Any) -> Any:
    """Return the row whose ``key`` is ``value``, or None."""
    return next((row for row in rows if row.get(key) == value), None)


def at_least(version: str, minimum: str) -> bool:
    """Whether a dotted version is as new as another, or newer."""
    return version_key(version) >= version_key(minimum)


def major(version: str) -> str:
    """``580`` of ``580.65.06``, ``13`` of ``13.2``."""
    return version.split(".")[0]


def rank(architecture: str | None) -> int | None:
    """Age of an architecture: the higher, the newer; None for one nobody knows."""
    return ARCHITECTURES.index(architecture) if architecture in ARCHITECTURES else None


def ended(eol: str | None, today: str) -> bool:
    """Whether an end of life (``2027-03`` or ``2026-12-22``) lies before today; an unknown one does not."""
    return eol is not None and (eol if len(eol) == 10 else f"{eol[:7]}-31") < today


def shown(gpu: Gpu) -> str:
    """``NVIDIA H100 80GB HBM3 (Hopper, 9.0)``."""
    known = [part for part in ((gpu.architecture or "").capitalize(), gpu.compute_capability) if part]
    return f"{gpu.name} ({', '.join(known)})" if known else gpu.name


def listed(words: Iterable[str], joint: str = "and") -> str:
    """``a, b and c``."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joint} {items[-1]}" if items else "none"
