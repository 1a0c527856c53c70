# SPDX-License-Identifier: Apache-2.0
"""docs/llm-benchmark.md has the numbers of the code, and its examples are accepted by it."""

from __future__ import annotations

import re

import pytest
import yaml
from support.make_llm_doc import DOCUMENT, attainability, document_with

from ansible.module_utils.rackwright import llm_goal, llm_workloads

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_page_has_the_numbers_of_the_code() -> None:
    """After a change that is meant, run tests/support/make_llm_doc.py."""
    assert document_with(TEXT) == TEXT
    assert TEXT.count("<!-- computed: ") == 2
    assert TEXT.count("**unattainable**") > 5


def test_the_goal_on_the_page_is_the_default() -> None:
    found = re.search(r"^ +(llm_goal: .*)$", TEXT, re.MULTILINE)
    assert found is not None
    given = yaml.safe_load(found.group(1))["llm_goal"]
    assert llm_goal.goal_from(given) == llm_goal.Goal()
    assert list(given) == list(llm_goal.Goal().as_dict())


def test_the_seconds_on_the_page_are_those_of_the_levels() -> None:
    said = ", ".join(f"{effort.budget_s:.0f} s `{level}`" for level, effort in llm_workloads.EFFORT.items())
    assert f"(sweep: {said})" in TEXT


@pytest.mark.parametrize(
    ("card", "workload", "word"),
    [
        ("h200-sxm-141gb", "llama2-7b-mha", "yes"),
        ("a100-sxm4-80gb", "llama2-7b-mha", "unattainable"),
        ("rtx-4090", "llama3-8b-gqa", "unattainable"),
        ("rtx-3060", "llama2-7b-mha", "does not fit"),
    ],
)
def test_a_row_says_what_the_ceiling_says(card: str, workload: str, word: str) -> None:
    names = [load for load in llm_workloads.WORKLOADS if load != "tiny"]
    line = next(line for line in TEXT.splitlines() if line.startswith(f"| {card} |"))
    cell = line.split(" | ")[1 + names.index(workload)]
    assert word in cell
    top = attainability(card, llm_workloads.find(workload))["tokens_per_s"]
    assert (top >= 5000) == (word == "yes")
