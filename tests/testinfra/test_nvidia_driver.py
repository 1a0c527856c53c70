# SPDX-License-Identifier: Apache-2.0
"""The state role nvidia_driver leaves on a node with GPUs. Runs on test nodes and on real ones alike."""

from __future__ import annotations

import json
from typing import Any

FORMAT = "${Package} ${Version} ${source:Package}\\n"
SOURCES = ("nvidia-graphics-drivers", "nvidia-open-gpu-kernel-modules", "firmware-nvidia-graphics")


def driver_packages(host: Any) -> dict[str, str]:
    rows = (line.split() for line in host.check_output(f"dpkg-query -W -f '{FORMAT}'").splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] in SOURCES}


def gpus_on_the_bus(host: Any) -> int:
    """Count what sysfs lists as NVIDIA display and 3D controllers."""
    script = "grep -lx 0x10de /sys/bus/pci/devices/*/vendor | xargs -n1 dirname | xargs -I{} grep -l ^0x030 {}/class"
    return len(host.run(script).stdout.split())


def test_all_packages_are_of_one_version(host: Any) -> None:
    packages = driver_packages(host)
    assert {"nvidia-smi", "libcuda1", "libnvidia-ml1"} <= packages.keys()
    assert len({version.partition("-")[0] for version in packages.values()}) == 1


def test_all_packages_are_held(host: Any) -> None:
    assert set(driver_packages(host)) <= set(host.check_output("apt-mark showhold").split())


def test_the_pin_wins_over_every_other_preference(host: Any) -> None:
    policy = host.check_output("apt-cache policy nvidia-smi")
    installed, candidate = (
        next(line.split()[1] for line in policy.splitlines() if word in line) for word in ("Installed:", "Candidate:")
    )
    assert installed == candidate
    assert " 1001" in policy


def test_an_upgrade_would_leave_the_driver_alone(host: Any) -> None:
    simulated = host.check_output("apt-get -s dist-upgrade")
    assert [line for line in simulated.splitlines() if line.startswith("Inst ") and "nvidia" in line] == []


def test_there_is_no_x(host: Any) -> None:
    assert not host.package("xserver-xorg-core").is_installed


def test_nvidia_smi_shows_the_installed_version_and_every_gpu(host: Any) -> None:
    query = host.check_output("nvidia-smi --query-gpu=driver_version --format=csv,noheader").splitlines()
    assert set(query) == {driver_packages(host)["nvidia-smi"].partition("-")[0]}
    assert len(query) == gpus_on_the_bus(host)


def test_the_persistence_daemon_is_enabled_and_not_failed(host: Any) -> None:
    assert host.service("nvidia-persistenced").is_enabled
    assert host.run("systemctl is-failed nvidia-persistenced").stdout.strip() != "failed"
    shown = host.check_output("systemctl show -P DropInPaths nvidia-persistenced")
    assert "10-rackwright.conf" in shown


def test_sources_of_others_are_untouched_and_the_own_are_readable(host: Any) -> None:
    files = host.check_output("find /etc/apt -path '/etc/apt/sources.list*' -type f").split()
    assert files
    assert [path for path in files if host.file(path).mode & 0o444 != 0o444] == []


def test_the_role_left_a_receipt_that_only_root_can_read(host: Any) -> None:
    receipt = host.file("/var/lib/rackwright/receipts/nvidia_driver.json")
    assert (receipt.user, receipt.mode) == ("root", 0o600)
    assert json.loads(receipt.content_string)["role"] == "nvidia_driver"
