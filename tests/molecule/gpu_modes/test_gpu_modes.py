# SPDX-License-Identifier: Apache-2.0
"""What the scenario leaves: MIG off on the eight GPUs, nothing declared on the two; fabric manager up or skipped."""

from __future__ import annotations

import json
from typing import Any

import pytest

MODES = "rackwright-gpu-modes.service"
KEPT = (
    "/etc/rackwright/gpu-modes.json",
    "/usr/local/lib/rackwright/gpu-modes.py",
    f"/etc/systemd/system/{MODES}",
    f"/etc/systemd/system/multi-user.target.wants/{MODES}",
)
UNITS = ("nvidia-fabricmanager", "nvidia-persistenced", "rackwright-gpu-nodes", MODES)
STATES = "systemctl show -p Id,ActiveState,Result,UnitFileState,ConditionResult"


@pytest.fixture
def eight(host: Any) -> bool:
    return bool(host.backend.get_pytest_id().endswith("modes-a"))


def test_the_declaration_is_kept_where_there_is_one(host: Any, eight: bool) -> None:
    there = host.run(f"ls -d {' '.join(KEPT)} 2>/dev/null").stdout.split()
    assert sorted(there) == (sorted(KEPT) if eight else [])
    if eight:
        kept = json.loads(host.check_output(f"cat {KEPT[0]}"))
        assert kept["declaration"]["mig"] == {"all": []}
        assert kept["declaration"]["ecc"] == {"1": False}


def test_the_driver_holds_it(host: Any, eight: bool) -> None:
    """The simulated driver itself is the second witness beside the code under test."""
    lines = host.check_output("simnvmlctl show").splitlines()
    held = dict(line.split(" = ", 1) for line in lines if " = " in line)
    if not eight:
        assert held["gpu.0.power.limit"] == "300000"  # withdrawn, not undone
        return
    assert [held[f"gpu.{n}.mig.current"] for n in range(8)] == ["0"] * 8
    assert [key for key in held if ".gi." in key and held[key] != "-"] == []
    assert held["gpu.1.ecc.current"] == "0"
    assert held["gpu.0.power.limit"] == "500000"
    assert held["gpu.0.clock.locked.gpu.max"] == "1980"


def test_units_run_where_their_hardware_is_and_are_skipped_elsewhere(host: Any, eight: bool) -> None:
    answers = host.check_output(f"{STATES} {' '.join(UNITS)}").split("\n\n")
    units = {unit["Id"]: unit for unit in (dict(line.split("=", 1) for line in one.splitlines()) for one in answers)}
    assert [unit["Id"] for unit in units.values() if unit["ActiveState"] == "failed"] == []
    manager = units["nvidia-fabricmanager.service"]
    assert (manager["ActiveState"], manager["Result"]) == (
        ("active", "success") if eight else ("inactive", "exec-condition")
    )
    assert manager["UnitFileState"] == "enabled"
    assert units["nvidia-persistenced.service"]["ActiveState"] == "active"
    nodes = units["rackwright-gpu-nodes.service"]  # a container's device nodes are its host's
    assert (nodes["ActiveState"], nodes["ConditionResult"], nodes["UnitFileState"]) == ("inactive", "no", "enabled")
    assert units[MODES]["ActiveState"] == ("active" if eight else "inactive")
