# SPDX-License-Identifier: Apache-2.0
"""Roles see the same tables as planning does, a site's own rows included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stack_table() -> Any:
    spec = importlib.util.spec_from_file_location("stack_tables", ROOT / "filter_plugins/stack_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()["stack_table"]


def versions(table: dict[str, Any]) -> list[str]:
    return [row["version"] for row in table["pytorch"]["releases"]]


def test_without_own_rows_it_is_the_shipped_table(stack_table: Any) -> None:
    assert "2.13.0" in versions(stack_table(None, "frameworks"))


def test_own_rows_are_in_it(stack_table: Any) -> None:
    shipped = stack_table(None, "frameworks")
    row = {**shipped["pytorch"]["releases"][-1], "version": "2.99.0"}

    table = stack_table({"frameworks": {"pytorch": {"releases": [row]}}}, "frameworks")

    assert versions(table) == [*versions(shipped), "2.99.0"]


def test_a_wrong_row_is_refused_in_one_sentence(stack_table: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="Could not use the extra table"):
        stack_table({"frameworks": {"pytorch": {"releases": "2.99.0"}}}, "frameworks")
