# SPDX-License-Identifier: Apache-2.0
"""Read what a run registered about its nodes into :class:`Evidence`, refusing what is not understood. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import verdict_gates, verdict_repeat
from .catalogue_data import GPUS
from .catalogue_specs import SPECS
from .errors import InvalidInputError
from .verdict_record import Evidence

_MAPPINGS = ("facts", "health", "benchmark", "again", "set_aside", "expected", "reboot", "gates")
_EXPECTED = ("gpu_count", "torch_version", "driver_version", "stack")


def read_evidence(
    nodes: Mapping[str, Any],
    run_id: str,
    gates: Mapping[str, Any],
    extra_gpus: Sequence[Mapping[str, Any]] = (),
    check_mode: bool = False,
    suites: Sequence[str] | None = None,
) -> dict[str, Evidence]:
    """Return the evidence per node, in the order given.

    Args:
        nodes: per node ``facts``, ``health``, ``benchmark`` and ``again`` (the repetition of some suites) as they were
            registered, ``set_aside``, ``expected``, ``reboot`` and its own ``gates``; each may be missing.
        gates: those of all nodes; a node's own ones win.
        suites: what was asked for, None for a whole proof.

    Raises:
        InvalidInputError: a key, a number or a gate that means nothing; judging on would hide the slip.
    """
    if not nodes:
        raise _refuse("option nodes", "there is no node to judge", "Check the host pattern of the run", None)
    _check_gates("option gates", gates)
    catalogue = catalogue_rows(extra_gpus)
    return {
        node: Evidence(
            node=node,
            run_id=run_id,
            catalogue=catalogue,
            check_mode=check_mode,
            suites=None if suites is None else frozenset(suites),
            **_fields(node, value, gates, run_id),
        )
        for node, value in nodes.items()
    }


def catalogue_rows(extra_gpus: Sequence[Mapping[str, Any]] = ()) -> dict[str, Mapping[str, Any]]:
    """Return what each model can do at best, by catalogue id; a site's own rows come last and win."""
    rows: dict[str, Mapping[str, Any]] = {row["id"]: {**row, **SPECS.get(row["id"], {})} for row in GPUS}
    return {**rows, **{str(row["id"]): row for row in extra_gpus if row.get("id")}}


def _check_gates(subject: str, gates: Mapping[str, Any]) -> None:
    try:
        verdict_gates.merged(gates)
    except ValueError as error:
        raise _refuse(subject, str(error), "Correct prove_gates; docs/verdicts.md lists them", sorted(gates)) from error


def _fields(node: str, value: Any, gates: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(f"node {node}", "its evidence is not a dictionary", "Give facts and benchmark by name", value)
    unknown = sorted(set(value) - set(_MAPPINGS))
    if unknown:
        raise _refuse(
            f"node {node}", f"unknown key(s) {', '.join(unknown)}", f"Known are {', '.join(_MAPPINGS)}", unknown
        )
    fields: dict[str, Any] = {key: _mapping(node, key, value.get(key)) for key in _MAPPINGS}
    fields["expected"] = _expected(node, fields["expected"])
    own = fields["gates"]
    if own:
        _check_gates(f"node {node}", own)
    fields["gates"] = {**gates, **{name: {**(gates.get(name) or {}), **(gate or {})} for name, gate in own.items()}}
    fields["benchmark"] = _with(fields["benchmark"], fields.pop("again"), run_id)
    return fields


def _with(first: Mapping[str, Any], again: Mapping[str, Any], run_id: str) -> Mapping[str, Any]:
    """The benchmark with its repetition, where that belongs to the same run; one that gave nothing changes nothing."""
    before, after = first.get("torch_benchmark"), again.get("torch_benchmark")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or after.get("run_id") != run_id:
        return first
    return {**first, "torch_benchmark": verdict_repeat.merged(before, after)}


def _mapping(node: str, key: str, value: Any) -> Mapping[str, Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise _refuse(f"node {node}", f"{key} is not a dictionary", "Give the registered result", value)
    return value


def _expected(node: str, value: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(value) - set(_EXPECTED))
    if unknown:
        raise _refuse(
            f"node {node}", f"unknown expectation {', '.join(unknown)}", f"Known: {', '.join(_EXPECTED)}", unknown
        )
    count = value.get("gpu_count")
    if count is not None and count != "":
        try:
            count = int(count)
        except (TypeError, ValueError) as error:
            step = "Set gpu_expected_count to a whole number"
            raise _refuse(f"node {node}", f"gpu_count is {count!r}, not a number", step, count) from error
        if count < 0:
            raise _refuse(f"node {node}", "gpu_count is negative", "Set gpu_expected_count to 0 or more", count)
    return {**{key: value.get(key) or None for key in _EXPECTED}, "gpu_count": None if count == "" else count}


def _refuse(subject: str, cause: str, next_step: str, found: Any) -> InvalidInputError:
    return InvalidInputError("judge the run", subject, cause, next_step, found=found)
