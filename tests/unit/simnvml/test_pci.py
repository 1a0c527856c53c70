# SPDX-License-Identifier: Apache-2.0
"""The PCI tree of a profile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from simnvml.simnvml import cli, pci, profiles


@pytest.mark.parametrize("profile", profiles.names())
def test_tree_and_scenario_agree(tmp_path: Path, profile: str) -> None:
    document = profiles.load(profile)
    written = pci.write(document, tmp_path)
    assert len(written) == len(set(written)) == len(document["gpus"]) + len(document["pci_devices"])
    for address in written:
        folder = tmp_path / address
        config = (folder / "config").read_bytes()
        vendor, device = struct.unpack_from("<HH", config)
        assert (folder / "vendor").read_text() == f"0x{vendor:04x}\n" == "0x10de\n"
        assert (folder / "device").read_text() == f"0x{device:04x}\n"
        assert (folder / "class").read_text() == f"0x{config[11]:02x}{config[10]:02x}{config[9]:02x}\n"
        assert len(config) == 256
        assert int((folder / "numa_node").read_text()) >= -1


def test_switches_are_bridges(tmp_path: Path) -> None:
    pci.write(profiles.load("h100x8"), tmp_path)
    classes = [(path / "class").read_text().strip() for path in sorted(tmp_path.iterdir())]
    assert classes == ["0x068000"] * 4 + ["0x030200"] * 8
    assert (tmp_path / "0000:05:00.0" / "device").read_text() == "0x22a3\n"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profiles"]) == 0
    assert "h100x8" in capsys.readouterr().out.split()
    assert cli.main(["flatten", "none"]) == 0
    assert capsys.readouterr().out.endswith("count = 0\n")
    assert cli.main(["pci", "rtx4090x2", str(tmp_path / "pci")]) == 0
    assert sorted(path.name for path in (tmp_path / "pci").iterdir()) == ["0000:01:00.0", "0000:41:00.0"]
    assert cli.main(["flatten", "nothing"]) == 1
    assert "Could not find the profile nothing" in capsys.readouterr().err
