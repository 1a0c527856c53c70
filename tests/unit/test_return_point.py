# SPDX-License-Identifier: Apache-2.0
"""What a node needs to come back to its driver, and the exchange of loaded modules without a reboot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rackwright import driver_reload, return_point
from rackwright.packages import Candidate, Installed


class Packages:
    """A package manager with an installed driver of which one package is no longer offered and one is broken."""

    def statuses(self) -> dict[str, Installed]:
        rows = [
            ("nvidia-driver-cuda", "580.178.04-1", "ii "),
            ("nvidia-kernel-dkms", "580.178.04-1", "iF "),
            ("nvidia-container-toolkit", "1.19.1-1", "ii "),
            ("nvidia-fabricmanager", "580.178.04-1", "ii "),
            ("vim", "9", "ii "),
        ]
        return {name: Installed(name, version, status, "") for name, version, status in rows}

    def candidates(self, names: Sequence[str]) -> list[Candidate]:
        offered = [("nvidia-driver-cuda", "590.48.01-1"), ("nvidia-driver-cuda", "580.178.04-1")]
        return [Candidate(name, version, "file:///srv") for name, version in offered if name in names]

    def holds(self) -> set[str]:
        return {"nvidia-driver-cuda", "vim"}


def test_the_driver_is_recorded_with_what_no_source_has_any_more(tmp_path: Path) -> None:
    point = return_point.look(Packages(), [], [], {"/usr": 1}, tmp_path)

    assert set(point["packages"]) == {"nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-fabricmanager"}
    assert point["unobtainable"] == ["nvidia-fabricmanager=580.178.04-1", "nvidia-kernel-dkms=580.178.04-1"]
    assert point["broken"] == ["nvidia-kernel-dkms"]
    assert point["holds"] == ["nvidia-driver-cuda"]
    assert point["reboot_pending"] is None
    assert point["free_mib"]["/usr"] > 0


def test_a_pending_reboot_is_told_with_its_packages(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").write_text("", encoding="utf-8")
    (tmp_path / "run/reboot-required.pkgs").write_text("linux-image-6.1.0-57-amd64\ndbus\n", encoding="utf-8")

    assert return_point.reboot_pending(tmp_path) == "/run/reboot-required, for linux-image-6.1.0-57-amd64, dbus"


class Machine:
    """Services and modules; what is named as failing fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.commands = failing, list[str]()

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        line = " ".join(command)
        self.commands.append(line)
        if line.startswith("systemctl is-active"):
            return (0 if line.endswith("nvidia-persistenced") else 3), "", ""
        return (1, "", "Module nvidia is in use") if line == self.failing else (0, "", "")


def reload(machine: Any) -> list[str]:
    loaded = ["nvidia_uvm", "nvidia"]
    return driver_reload.reload(machine, "n1", driver_reload.SERVICES, loaded, lambda: ["train (42)"])


def test_modules_are_exchanged_users_first_and_what_ran_runs_again() -> None:
    machine = Machine()

    assert reload(machine) == [
        "stop nvidia-persistenced",
        "unload nvidia_uvm",
        "unload nvidia",
        "load nvidia",
        "load nvidia_uvm",
        "start nvidia-persistenced",
    ]


def test_a_module_in_use_names_its_holder_and_leaves_nothing_stopped() -> None:
    machine = Machine("modprobe -r nvidia")

    with pytest.raises(driver_reload.ReloadError, match=r"Module nvidia is in use; held by train \(42\)"):
        reload(machine)

    assert machine.commands[-1] == "systemctl start nvidia-persistenced"
    assert "modprobe nvidia" not in machine.commands
