# SPDX-License-Identifier: Apache-2.0
"""What role nvidia_driver leaves on a node whose driver comes from NVIDIA's apt repository (here a simulated one)."""

from __future__ import annotations

import re
from typing import Any

DRIVER = re.compile(r"^(?:lib)?(?:nvidia-(?!driver-pinning|container)|libcuda|libnvcuvid|libcudadebugger)")
KEYRING = "/usr/share/keyrings/rackwright-nvidia-cuda.gpg"
SOURCE = "/etc/apt/sources.list.d/rackwright-nvidia-cuda.sources"


def installed(host: Any) -> dict[str, str]:
    rows = host.check_output("dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n'").splitlines()
    parts = [row.split() for row in rows]
    return {
        row[1]: row[2] for row in parts if row[0][1] == "i" and DRIVER.match(row[1]) and re.match(r"\d{3}\.", row[2])
    }


def test_the_whole_driver_is_of_one_version_and_held(host: Any) -> None:
    packages = installed(host)
    assert len(packages) >= 5
    assert {version.partition("-")[0] for version in packages.values()} == {"580.178.04"}
    assert set(packages) <= set(host.check_output("apt-mark showhold").split())


def test_there_is_one_entry_of_the_repository_with_one_key(host: Any) -> None:
    assert host.check_output(f"grep -c ^Signed-By: {SOURCE}") == "1"
    assert (host.file(KEYRING).mode, host.file(SOURCE).mode) == (0o644, 0o644)
    assert host.check_output("grep -v '^#' /etc/apt/sources.list.d/cuda.list | wc -l") == "0"
    assert "Enabled: no" in host.file("/etc/apt/sources.list.d/cuda-old.sources").content_string
    assert host.run("apt-get update").rc == 0


def test_the_pin_wins_over_nvidias_own(host: Any) -> None:
    for name in installed(host):
        policy = host.check_output(f"apt-cache policy {name}")
        found, candidate = re.findall(r"(?:Installed|Candidate): (\S+)", policy)
        assert found == candidate, policy
    assert re.search(r"610\.57\.04-\S+ -1\n", host.check_output("apt-cache policy nvidia-modprobe"))


def test_an_upgrade_and_a_metapackage_would_leave_the_driver_alone(host: Any) -> None:
    upgrade = host.check_output("apt-get -s dist-upgrade")
    assert [line for line in upgrade.splitlines() if re.match(r"(?:Inst|Remv) \S*nvidia", line)] == []
    # NVIDIA's cuda-drivers asks for any newer version; the pin leaves none
    asked = host.run("apt-get -s install cuda-drivers").stdout
    rows = re.findall(r"^Inst (\S+) (?:\[[^]]*\] )?\((\d{3}\.\S+) ", asked, re.MULTILINE)
    moved = [
        row
        for row in rows
        if (DRIVER.match(row[0]) or row[0] == "cuda-drivers") and not row[1].startswith("580.178.04-")
    ]
    assert moved == []


def test_unattended_upgrades_would_leave_the_driver_alone(host: Any) -> None:
    assert '"^libnvidia-"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_no_pinning_package_of_another_branch_is_left(host: Any) -> None:
    rows = host.check_output("dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' 'nvidia-driver-pinning-*'")
    assert [row for row in rows.splitlines() if row.startswith("ii") or row.startswith("hi")] == []


def test_the_receipt_lists_repository_and_pins(host: Any) -> None:
    receipt = host.file("/var/lib/rackwright/receipts/nvidia_driver.json").content_string
    for path in (
        KEYRING,
        SOURCE,
        "/etc/apt/preferences.d/00-rackwright-nvidia.pref",
        "/etc/apt/apt.conf.d/52rackwright-nvidia",
    ):
        assert f'"{path}"' in receipt
