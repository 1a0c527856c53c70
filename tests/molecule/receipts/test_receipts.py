# SPDX-License-Identifier: Apache-2.0
"""Whatever somebody does to what a role manages: exactly that role is stale, by name, and the next site run undoes it.

Not here, because a container has no kernel and no setting of its own: kernels, their modules and headers, services that
run, sysctls (tests/unit/test_receipt*.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SSH = ["ssh", "-F", str(ROOT / "build/nodes/receipts/ssh_config"), "rcp-a", "sudo", "sh", "-eu", "-s"]
INVENTORIES = [ROOT / "tests/molecule/inventory/base.yml", Path(__file__).parent / "inventory/hosts.yml"]
RECEIPTS = "/var/lib/rackwright/receipts"
VENV = "/opt/rackwright/venv"
SITE = f"{VENV}/lib/python3.11/site-packages"
SOURCES = "/etc/apt/sources.list.d/debian.sources"

#: role -> (what somebody does, what the drift report says of it)
DIRT: dict[str, list[tuple[str, str]]] = {
    "os_base": [
        ("echo '# mine' >> /etc/security/limits.d/90-rackwright.conf", "limits.d/90-rackwright.conf edited by hand"),
        ("rm /etc/systemd/system.conf.d/90-rackwright.conf", "/etc/systemd/system.conf.d/90-rackwright.conf removed"),
        ("chmod 0600 /etc/apt/apt.conf.d/50rackwright", "/etc/apt/apt.conf.d/50rackwright mode 0644 → 0600"),
        ("chown nobody /etc/apt/apt.conf.d/52*-unattended*", "52rackwright-unattended-upgrades owner root → nobody"),
        ("chgrp nogroup /etc/apt/apt.conf.d/52*-unattended*", "52rackwright-unattended-upgrades group root → nogroup"),
        ("touch /etc/modprobe.d/rackwright-nouveau.conf", "/etc/modprobe.d/rackwright-nouveau.conf is back"),
        ("dpkg -r time", "package time removed"),
        ("apt-mark unhold hello", "hold of hello released"),
        ("systemctl disable systemd-timesyncd", "service systemd-timesyncd disabled"),
    ],
    "nvidia_driver": [
        (
            "cd $(mktemp -d); old=$(apt-cache madison libcuda1 | tail -1 | cut -d'|' -f2 | tr -d ' ')\n"
            "apt-get -q download libcuda1=$old; dpkg --force-depends -i libcuda1_*.deb",
            "package libcuda1 535.309.01",
        ),
        ("dpkg -r --force-depends nvidia-modprobe", "package nvidia-modprobe"),
        ("apt-mark unhold nvidia-smi", "hold of nvidia-smi released"),
        ("echo >> /etc/apt/preferences.d/00-rackwright-nvidia.pref", "00-rackwright-nvidia.pref edited by hand"),
        ("chmod 0600 /etc/systemd/system/nvidia-persistenced.service.d/*.conf", "10-rackwright.conf mode 0644 → 0600"),
        (f"sed -i 's/ non-free-firmware//' {SOURCES}", f"{SOURCES} edited by hand"),
        (f"chmod 0600 {SOURCES}", f"{SOURCES} mode 0644 → 0600"),
        ("systemctl disable nvidia-persistenced", "service nvidia-persistenced disabled"),
    ],
    "cuda_toolkit": [("touch /etc/profile.d/rackwright-cuda.sh", "/etc/profile.d/rackwright-cuda.sh is back")],
    "python_env": [
        (f"echo 'mine = 1' >> {VENV}/pyvenv.cfg", f"{VENV}/pyvenv.cfg edited by hand"),
        (f"chmod 0700 {VENV}", f"{VENV} mode 0755 → 0700"),
        (f"chown nobody {VENV}", f"{VENV} owner root → nobody"),
    ],
    "pytorch": [
        (f"rm -r {SITE}/filelock {SITE}/filelock-*.dist-info", "filelock"),
        (f"cd {SITE}; mv mpmath-*.dist-info mpmath-0.9.dist-info", "→ 0.9 in /opt/rackwright/venv"),
        (f": > {SITE}/numpy/version.py", f"{VENV}: numpy"),
    ],
}


def on_the_node(script: str) -> str:
    """Run a script as root on the node."""
    done = subprocess.run(SSH, input=script, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def play(playbook: str, reports: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's playbooks on the node."""
    inventories = [argument for path in INVENTORIES for argument in ("-i", str(path))]
    return subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible-playbook"), *inventories, f"playbooks/{playbook}"),
            *("-e", f"rackwright_reports={reports}", *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        text=True,
        capture_output=True,
        timeout=400,
        check=False,
    )


def drift(folder: Path) -> dict[str, list[str]]:
    """Which roles are stale, each with its reasons, as check-drift.yml reports it."""
    report = folder / "drift.json"
    report.unlink(missing_ok=True)
    result = play("check-drift.yml", folder, "-e", f"drift_report={report}")
    assert result.returncode == 0, result.stdout[-3000:]
    stale: dict[str, list[str]] = json.loads(report.read_text(encoding="utf-8"))["nodes"]["rcp-a"]["stale"]
    return stale


def site(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the site without its proof."""
    return play("site.yml", folder, "--skip-tags", "prove", *arguments)


def receipts() -> dict[str, dict[str, Any]]:
    """Every receipt of the node, with the inode of its file: a role that ran wrote a new one."""
    answer = on_the_node(f"cd {RECEIPTS}; for name in *.json; do stat -c %i.%Z $name; tr -d '\\n' < $name; echo; done")
    lines = answer.splitlines()
    found = [(identity, json.loads(text)) for identity, text in zip(lines[::2], lines[1::2])]
    return {document["role"]: {"file": identity, "items": document["items"]} for identity, document in found}


def rerun(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {role for role in after if after[role]["file"] != before.get(role, {}).get("file")}


def test_a_converged_node_is_fresh(tmp_path: Path) -> None:
    before = receipts()
    assert set(before) == set(DIRT)
    assert drift(tmp_path) == {}

    result = site(tmp_path)

    assert result.returncode == 0, result.stdout[-3000:]
    assert rerun(before, receipts()) == set()


@pytest.mark.parametrize("role", list(DIRT))
def test_every_kind_of_dirt_is_named_and_undone_by_exactly_its_role(tmp_path: Path, role: str) -> None:
    before = receipts()
    for number, (script, sentence) in enumerate(DIRT[role], 1):
        on_the_node(script)
        stale = drift(tmp_path)
        assert set(stale) == {role}, script
        assert [reason for reason in stale[role] if sentence in reason], f"{script}: {stale[role]}"
        assert len(stale[role]) >= number

    result = site(tmp_path)

    assert result.returncode == 0, result.stdout[-3000:]
    after = receipts()
    assert rerun(before, after) == {role}
    assert after[role]["items"] == before[role]["items"]  # undone, not merely accepted
    assert drift(tmp_path) == {}


def test_a_role_that_failed_leaves_no_receipt(tmp_path: Path) -> None:
    before = receipts()

    failed = site(tmp_path, "-e", '{"os_base_extra_packages": ["no-such-package"]}')

    assert "no-such-package" in failed.stdout
    assert set(receipts()) == set(before) - {"os_base"}
    assert drift(tmp_path) == {"os_base": ["no receipt"]}
    assert site(tmp_path).returncode == 0
    assert rerun(before, receipts()) == {"os_base"}


def test_an_environment_built_anew_gets_its_packages_in_the_same_run(tmp_path: Path) -> None:
    """What an upgrade of the system's Python leaves. PyTorch's own receipt has no reason to be stale before."""
    before = receipts()
    on_the_node(f"ln -sfn /usr/bin/python3.0 {VENV}/bin/python; : > {SITE}/pip/__init__.py")
    stale = drift(tmp_path)
    assert set(stale) == {"python_env"}
    assert any("interpreter" in reason for reason in stale["python_env"])
    assert any(f"{VENV}: pip" in reason for reason in stale["python_env"])

    result = site(tmp_path)

    assert result.returncode == 0, result.stdout[-3000:]
    after = receipts()
    assert rerun(before, after) == {"python_env", "pytorch"}
    assert after["pytorch"]["items"] == before["pytorch"]["items"]
    assert on_the_node(f"{VENV}/bin/python -I -c 'import torch; print(torch.__version__)'").startswith("2.13.0")
