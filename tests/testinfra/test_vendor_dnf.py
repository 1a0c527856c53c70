# SPDX-License-Identifier: Apache-2.0
"""What os_base and nvidia_driver leave on a node of the Red Hat family whose driver comes from NVIDIA's dnf repository.

Here the node is a Debian that wears an EL identity and the repository is simulated; dnf and rpm are real.
"""

from __future__ import annotations

import json
import re
from typing import Any

LIST = "/etc/dnf/plugins/versionlock.list"
SOURCE = "/etc/yum.repos.d/rackwright-nvidia-cuda.repo"
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-rackwright-nvidia-cuda"


def driver(host: Any) -> dict[str, str]:
    """Installed packages of the driver: ``[epoch:]version-release`` by name."""
    query = r"%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n"
    rows = [line.split() for line in host.check_output(f"rpm -qa --qf '{query}'").splitlines()]
    return {name: version for name, version in rows if re.match(r"(3:)?\d{3}\.\d+\.\d+-", version)}


def test_the_whole_driver_is_of_one_version_with_its_epoch_and_locked(host: Any) -> None:
    packages = driver(host)
    assert {"nvidia-driver-cuda", "nvidia-driver-cuda-libs", "kmod-nvidia-open-dkms"} <= set(packages)
    assert {re.sub(r"^3:|-.*", "", version) for version in packages.values()} == {"580.178.04"}
    locks = host.file(LIST).content_string.splitlines()
    for name, version in packages.items():
        assert f"{name}-{version if ':' in version else '0:' + version}.*" in locks


def test_what_people_locked_stays_locked(host: Any) -> None:
    assert host.file(LIST).content_string.startswith("# by hand\nnvidia-container-toolkit-0:1.0-1.*\n")


def test_there_is_one_entry_of_the_repository_and_it_checks_everything(host: Any) -> None:
    text = host.file(SOURCE).content_string
    assert "gpgcheck=1\nrepo_gpgcheck=1\n" in text
    assert "enabled=0" in host.file("/etc/yum.repos.d/cuda.repo").content_string
    enabled = host.check_output("dnf -q repolist --enabled")
    assert "rackwright-nvidia-cuda" in enabled
    assert "cuda-by-hand" not in enabled
    assert host.file(KEY).mode == 0o644
    assert host.run("rpm -q gpg-pubkey").rc == 0


def test_the_stream_of_the_branch_is_enabled_where_there_are_streams(host: Any) -> None:
    path = host.file("/etc/dnf/modules.d/nvidia-driver.module")
    if "rocky" in host.file("/etc/os-release").content_string:
        assert "stream=580-open\n" in path.content_string
    else:
        assert not path.exists


def test_an_upgrade_and_dnf_automatic_would_leave_the_driver_alone(host: Any) -> None:
    upgrade = host.run("dnf --assumeno upgrade").stdout
    assert re.search("Nothing to do|Operation aborted", upgrade)
    assert [line for line in upgrade.splitlines() if re.search(r"^ \S*nvidia", line)] == []
    # dnf-automatic takes the same updates with the same plugins; without the lock there would be some
    check = "dnf -q '--setopt=*.module_hotfixes=1' check-update nvidia-driver-cuda"
    assert host.run(check).rc == 0
    assert host.run(f"{check} --disableplugin=versionlock").rc == 100


def test_the_database_is_whole(host: Any) -> None:
    assert host.run("dnf -q check").rc == 0


def test_the_receipts_name_versions_with_epoch_and_their_locks(host: Any) -> None:
    receipt = json.loads(host.file("/var/lib/rackwright/receipts/nvidia_driver.json").content_string)
    packages = receipt["items"]["packages"]
    for name, version in driver(host).items():
        assert packages[name] == {"version": version, "hold": True}
    base = json.loads(host.file("/var/lib/rackwright/receipts/os_base.json").content_string)
    assert base["items"]["packages"]["patch"]["hold"] is True
