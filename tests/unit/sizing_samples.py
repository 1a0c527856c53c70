# SPDX-License-Identifier: Apache-2.0
"""The tables as sizing reads them, and short ways to ask for what the tests need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ansible.module_utils.rackwright import sizing
from ansible.module_utils.rackwright.sizing_memory import Serving
from ansible.module_utils.rackwright.sizing_targets import Card, card_of_row

DIRECTORY = Path(__file__).resolve().parents[2] / "roles/gpu_stack/files/tables"
READ = {
    name: yaml.safe_load((DIRECTORY / f"{name}.yml").read_text(encoding="utf-8"))
    for name in ("models", "sizing", "gpus")
}
TABLES = sizing.Tables(READ["models"]["models"], READ["sizing"], READ["gpus"])
GPUS = READ["gpus"]["gpus"]


def shape(name: str) -> Any:
    return sizing.shape_of(name, TABLES.models)


def card(name: str) -> Card:
    return card_of_row(next(row for row in GPUS if row["id"] == name))


def one(model: str, card_id: str, **wish: Any) -> dict[str, Any]:
    """The record of one model on one card."""
    request = sizing.Request(**wish)
    document = sizing.plan(shape(model), request, sizing.targets_of({}, [card_id], TABLES), TABLES)
    assert len(document["results"]) == 1
    record: dict[str, Any] = document["results"][0]
    return record


def described(model: str, number: int) -> dict[str, Any]:
    return {"description": {"os": "ubuntu2404", "gpus": [{"model": model, "count": number}]}}


def serving(**more: Any) -> Serving:
    """A deployment with 8192 tokens per sequence."""
    return Serving(**{"context": 8192, **more})
