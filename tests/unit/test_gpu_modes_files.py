# SPDX-License-Identifier: Apache-2.0
"""What keeps the modes across boots: written, enabled, and gone again; whom a change of MIG is told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible.module_utils.rackwright import gpu_modes_files as files
from ansible.module_utils.rackwright import self_pack
from ansible.module_utils.rackwright.errors import RackwrightError

DECLARATION = {"power_limit_w": {"all": 300}}
UNIT = "[Service]\nExecStart=@PYTHON@ x\n[Install]\nWantedBy=multi-user.target\n"


class Node:
    """Files below a folder, and a systemctl that knows some units."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, known: tuple[str, ...] = ()) -> None:
        self.calls: list[list[str]] = []
        self.known = known
        for name in ("DECLARATION", "SCRIPT", "UNIT_FILE"):
            monkeypatch.setattr(files, name, f"{folder}/{getattr(files, name).rpartition('/')[2]}")

    def run(self, arguments: list[str]) -> tuple[int, str]:
        self.calls.append(arguments[1:])
        return (0, "") if arguments[1] != "cat" or arguments[-1] in self.known else (1, "No files found")

    def bring(self, declaration: dict[str, object], enabled: bool) -> list[str]:
        found = files.differences(files.wanted_files(declaration, UNIT, "py"))
        files.keep(found, bool(declaration), enabled, self.run)
        return [Path(want.path).name for want, _diff in found]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch, ("nvidia-cdi-refresh.service",))


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the files belong to root")
ALL = ["gpu-modes.json", "gpu-modes.py", "rackwright-gpu-modes.service"]


@root_only
def test_written_and_enabled_once_then_gone(node: Node, tmp_path: Path) -> None:
    assert node.bring(dict(DECLARATION), False) == ALL
    assert node.calls == [["daemon-reload"], ["enable", files.UNIT]]
    assert "ExecStart=py x\n" in (tmp_path / "rackwright-gpu-modes.service").read_text()
    node.calls.clear()
    assert node.bring(dict(DECLARATION), True) == []
    assert node.calls == []
    assert node.bring({}, True) == ALL
    assert node.calls == [["disable", "--now", files.UNIT], ["daemon-reload"]]
    assert list(tmp_path.iterdir()) == []


@root_only
def test_a_unit_somebody_disabled_is_enabled_again(node: Node) -> None:
    node.bring(dict(DECLARATION), False)
    node.calls.clear()
    assert node.bring(dict(DECLARATION), False) == []
    assert node.calls == [["enable", files.UNIT]]


def test_enabled_is_what_the_links_say(tmp_path: Path) -> None:
    assert not files.is_enabled(UNIT, str(tmp_path))
    link = tmp_path / f"etc/systemd/system/multi-user.target.wants/{files.UNIT}"
    link.parent.mkdir(parents=True)
    link.symlink_to("/nowhere")
    assert files.is_enabled(UNIT, str(tmp_path))


def test_only_units_that_are_there_are_told_and_nobody_waits(node: Node) -> None:
    assert files.notify(["nvidia-cdi-refresh.service", "other.service"], node.run) == ["nvidia-cdi-refresh.service"]
    assert [call for call in node.calls if call[0] == "restart"] == [
        ["restart", "--no-block", "nvidia-cdi-refresh.service"]
    ]


def test_what_systemctl_says_is_passed_on() -> None:
    with pytest.raises(RackwrightError, match=r"Could not keep the GPU modes across boots on .*: Access denied"):
        files.keep([], True, False, lambda _arguments: (1, "Access denied"))


def test_the_script_is_the_same_twice_and_whole() -> None:
    text = self_pack.pack("gpu_modes_boot")
    assert text == self_pack.pack("gpu_modes_boot")
    compile(text, "gpu-modes.py", "exec")
    for name in ("gpu_modes", "gpu_modes_apply", "gpu_modes_nvml", "mig_layout", "nvml_modes", "nvml_ctypes", "child"):
        assert f"'rackwright.{name}': " in text
    assert "'rackwright.self_pack'" not in text
