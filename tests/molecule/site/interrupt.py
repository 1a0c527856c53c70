# SPDX-License-Identifier: Apache-2.0
"""Kill the control process while a node unpacks packages: what comes next must repair it. Prints what it cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
SSH = ["ssh", "-F", str(ROOT / "build/nodes/site/ssh_config"), "gpu-a"]
PATIENCE = 240  # seconds until the package manager must have started


def unpacking() -> bool:
    """Whether dpkg unpacks or configures on gpu-a right now."""
    found = subprocess.run([*SSH, "pgrep", "-ax", "dpkg"], capture_output=True, text=True, timeout=30, check=False)
    return "--unpack" in found.stdout or "--configure" in found.stdout


def main() -> int:
    """Start the site, wait for dpkg, kill the control side and dpkg the hard way."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/site.yml", "--tags", "os_base"]
    for inventory in (ROOT / "tests/molecule/inventory/base.yml", HERE / "inventory/hosts.yml"):
        command += ["-i", str(inventory)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    log = ROOT / "build/molecule/site/interrupted.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        control = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + PATIENCE
    try:
        while not unpacking():
            if control.poll() is not None or time.monotonic() > deadline:
                print(f"Could not interrupt the run: dpkg never started on gpu-a. {log} tells why.", file=sys.stderr)
                return 1
            time.sleep(0.2)
    finally:
        if control.poll() is None:
            os.killpg(control.pid, signal.SIGKILL)
        control.wait()
    subprocess.run([*SSH, "sudo", "pkill", "-9", "-x", "dpkg"], timeout=30, check=False)
    audit = subprocess.run([*SSH, "sudo", "dpkg", "--audit"], capture_output=True, text=True, timeout=30, check=False)
    print(f"control process {control.pid} killed; dpkg --audit on gpu-a:\n{audit.stdout}{audit.stderr}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
