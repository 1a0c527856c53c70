# SPDX-License-Identifier: Apache-2.0
"""Read what a run registered about its nodes into :class:`Evidence`, refusing what is not understood. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import verdict_gates
from .catalogue_data import GPUS
from .catalogue_specs import SPECS
from .errors import InvalidInputError
from .verdict_record import Evidence

_MAPPINGS = ("facts", "benchmark", "set_aside", "expected", "reboot")
_EXPECTED = ("gpu_count", "torch_version", "driver_version", "stack")


def read_evidence(
    nodes: Mapping[str, Any],
    run_id: str,
    gates: Mapping[str, Any],
    extra_gpus: Sequence[Mapping[str, Any]] = (),
    check_mode: bool = False,
) -> dict[str, Evidence]:
    """Return the evidence per node, in the order given.

    Raises:
        InvalidInputError: a key, a number or a gate that means nothing; judging on would hide the slip.
    """
    if not nodes:
        raise _refuse("option nodes", "there is no node to judge", "Check the host pattern of the run", None)
    try:
        verdict_gates.merged(gates)
    except ValueError as error:
        raise _refuse("option gates", str(error), "Correct the name of the gate", sorted(gates)) from error
    catalogue = catalogue_rows(extra_gpus)
    return {
        node: Evidence(
            node=node,
            run_id=run_id,
            catalogue=catalogue,
            gates=gates,
            check_mode=check_mode,
            **_fields(node, value),
        )
        for node, value in nodes.items()
    }


def catalogue_rows(extra_gpus: Sequence[Mapping[str, Any]] = ()) -> dict[str, Mapping[str, Any]]:
    """Return what each model can do at best, by catalogue id; a site's own rows come last and win."""
    rows: dict[str, Mapping[str, Any]] = {row["id"]: {**row, **SPECS.get(row["id"], {})} for row in GPUS}
    return {**rows, **{str(row["id"]): row for row in extra_gpus if row.get("id")}}


def _fields(node: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(f"node {node}", "its evidence is not a dictionary", "Give facts and benchmark by name", value)
    unknown = sorted(set(value) - set(_MAPPINGS))
    if unknown:
        raise _refuse(
            f"node {node}", f"unknown key(s) {', '.join(unknown)}", f"Known are {', '.join(_MAPPINGS)}", unknown
        )
    fields: dict[str, Any] = {key: _mapping(node, key, value.get(key)) for key in _MAPPINGS}
    fields["expected"] = _expected(node, fields["expected"])
    return fields


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
