"""Planning as one table (``compat_cases.yml``): a node, a wish, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.compat_samples import SUPPORTED, TABLES, UNSUPPORTED, node, plan, value

from ansible.module_utils.rackwright.compat import Solution, check_stack
from ansible.module_utils.rackwright.compat_rules import GATES
from ansible.module_utils.rackwright.stack_node import StackNode

CASES = yaml.safe_load((Path(__file__).parent / "compat_cases.yml").read_text(encoding="utf-8"))
ACCEPTED, REFUSED = CASES["accepted"], CASES["refused"]
GENERATIONS = ("kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell")


def solved(case: dict[str, Any]) -> tuple[StackNode, Solution]:
    given = case["given"]
    machine = node(given["gpus"], **given.get("node", {}))
    return machine, plan(machine, **given.get("wish", {}))


@pytest.mark.parametrize("case", ACCEPTED, ids=[case["id"] for case in ACCEPTED])
def test_accepted(case: dict[str, Any]) -> None:
    machine, solution = solved(case)
    assert solution.status == "solved", solution.reason
    assert {path: value(solution.stack, path) for path in case["stack"]} == case["stack"]
    assert check_stack(machine, solution.stack, TABLES) == []
    assert check_stack(None, solution.stack, TABLES) == []
    assert (solution.gate, solution.reason, solution.alternatives) == (None, None, [])


@pytest.mark.parametrize("case", REFUSED, ids=[case["id"] for case in REFUSED])
def test_refused(case: dict[str, Any]) -> None:
    _machine, solution = solved(case)
    assert (solution.status, solution.gate, solution.stack) == ("refused", case["gate"], {})
    assert case["words"] in str(solution.reason)
    assert str(solution.reason).endswith(".")
    assert "\n" not in str(solution.reason)
    changes = [alternative["change"] for alternative in solution.alternatives]
    assert len(changes) <= 5
    assert (changes[0] if changes else None) == case["nearest"]
    assert solution.remedies or solution.alternatives


@pytest.mark.parametrize("os_id", SUPPORTED)
def test_every_supported_platform_is_planned(os_id: str) -> None:
    solution = plan(node("l40s", os=os_id, python="3.12"))
    assert solution.status == "solved", solution.reason
    assert solution.stack["framework"]["build"] == "cu132"


@pytest.mark.parametrize("os_id", UNSUPPORTED)
def test_every_other_platform_is_refused_with_what_to_use_instead(os_id: str) -> None:
    solution = plan(node("l40s", os=os_id, python="3.12"))
    assert (solution.status, solution.gate) == ("refused", "platform")
    row = next(row for row in TABLES.platforms["distros"] if row["id"] == os_id)
    assert f"use {row['use_instead']} instead" in str(solution.reason)
    assert solution.alternatives[0]["change"]["os"] in SUPPORTED


def test_every_generation_and_gate_is_accepted_and_refused() -> None:
    for cases in (ACCEPTED, REFUSED):
        names = [case["id"] for case in cases]
        assert [word for word in GENERATIONS if not any(name.startswith(word) for name in names)] == []
        assert len(names) == len(set(names)) >= 60
    # Secure Boot is answered by how the module is signed, and refuses nothing
    assert {case["gate"] for case in REFUSED} == set(GATES) - {"secure-boot"}
