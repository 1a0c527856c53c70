# SPDX-License-Identifier: Apache-2.0
"""The state role os_base leaves on a node. Runs on test nodes and on real ones alike."""

from __future__ import annotations

import json
from typing import Any

import pytest


def is_container(host: Any) -> bool:
    return bool(host.run("systemd-detect-virt --container").rc == 0)


def test_dpkg_has_nothing_half_done(host: Any) -> None:
    assert host.check_output("dpkg --audit") == ""


def test_the_compiler_compiles(host: Any) -> None:
    assert host.run("echo 'int main(void){return 7;}' | gcc -x c -o /tmp/seven - && /tmp/seven").rc == 7
    assert host.run("cmake --version").rc == 0


def test_apt_waits_for_its_lock(host: Any) -> None:
    assert "DPkg::Lock::Timeout" in host.check_output("apt-config dump DPkg::Lock::Timeout")


def test_automatic_updates_leave_the_driver_alone(host: Any) -> None:
    dump = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert '"^nvidia-"' in dump
    assert '"^libnvidia-"' in dump


@pytest.mark.parametrize(
    "path",
    [
        "/etc/apt/apt.conf.d/50rackwright",
        "/etc/modprobe.d/rackwright-nouveau.conf",
        "/etc/security/limits.d/90-rackwright.conf",
        "/etc/systemd/system.conf.d/90-rackwright.conf",
    ],
)
def test_configuration_belongs_to_root_and_is_readable(host: Any, path: str) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_nouveau_is_kept_away(host: Any) -> None:
    lines = host.file("/etc/modprobe.d/rackwright-nouveau.conf").content_string.splitlines()
    assert "blacklist nouveau" in lines
    assert "options nouveau modeset=0" in lines


def test_a_login_still_works_under_the_limits(host: Any) -> None:
    """A limit above the hard limit of a container makes pam_limits refuse every login."""
    wanted = dict(
        line.split()[2:4]
        for line in host.file("/etc/security/limits.d/90-rackwright.conf").content_string.splitlines()
        if line.startswith("* ")
    )
    assert host.check_output("su - rackwright -c 'ulimit -Hn'") == wanted["nofile"]


def test_the_time_daemon_is_enabled(host: Any) -> None:
    states = [host.run(f"systemctl is-enabled {unit}").stdout.strip() for unit in ("systemd-timesyncd", "chrony")]
    assert "enabled" in states


def test_kernels_are_held_and_have_headers(host: Any) -> None:
    kernels = host.run("ls /boot/vmlinuz-* 2>/dev/null").stdout.split()
    if is_container(host):
        assert kernels == []
        return
    held = host.check_output("apt-mark showhold").split()
    metas = host.run("dpkg-query -W -f '${Package}\\n' 'linux-image-amd64' 'linux-image-generic'").stdout.split()
    assert set(metas) <= set(held)
    for kernel in kernels:
        assert host.file(f"/usr/src/linux-headers-{kernel.rpartition('vmlinuz-')[2]}").exists


def test_systemd_is_content(host: Any) -> None:
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""


def test_the_role_left_a_receipt_that_only_root_can_read(host: Any) -> None:
    receipt = host.file("/var/lib/rackwright/receipts/os_base.json")
    assert (receipt.user, receipt.mode) == ("root", 0o600)
    assert json.loads(receipt.content_string)["role"] == "os_base"
