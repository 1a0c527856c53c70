# SPDX-License-Identifier: Apache-2.0
"""A fleet goes from one driver to the next, with everything that can go wrong. In the order of the file.

Drivers are stubs with NVIDIA's names, versions and dependencies, GPUs are simulated; apt, DKMS, ssh, reboots are real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FLEET = ROOT / "build" / "nodes" / "update"
REPORTS = ROOT / "build" / "molecule" / "update" / "reports"
INVENTORIES = [ROOT / "tests/molecule/inventory/base.yml", Path(__file__).parent / "inventory/hosts.yml"]
BIN = Path(sys.executable).parent
OLD, NEW, BROKEN = "580.178.04", "590.48.01", "570.211.01"
NODES = [f"gpu-{number}" for number in range(1, 7)]
PATIENCE = 180  # seconds until a run that is to be killed must have come to its step


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def command(playbook: str, *arguments: str) -> list[str]:
    """One of the project's playbooks on the scenario's fleet, as a user types it."""
    inventories = [argument for path in INVENTORIES for argument in ("-i", str(path))]
    reports = ("-e", f"rackwright_reports={REPORTS}")
    return [str(BIN / "ansible-playbook"), *inventories, f"playbooks/{playbook}", *reports, *arguments]


def play(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(playbook, *arguments),
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )


def update(*arguments: str) -> subprocess.CompletedProcess[str]:
    return play("update-driver.yml", "-e", f"stack_driver_version={NEW}", *arguments)


def ends(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Node to its end, out of the document of the last run."""
    return {name: node["end"] for name, node in document(result)["nodes"].items()}


def document(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The document of a run, which its output names."""
    lines = [line for line in result.stdout.splitlines() if line.startswith("Report: ")]
    assert lines, result.stdout[-3000:]
    found: dict[str, Any] = json.loads(Path(lines[-1].removeprefix("Report: ")).read_text(encoding="utf-8"))
    return found


def on(node: str, script: str) -> str:
    """Run a script as root on a node and return what it printed."""
    ssh = ["ssh", "-F", str(FLEET / "ssh_config"), node, "sudo", "sh", "-s"]
    done = subprocess.run(ssh, input=script, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{node}: {script}: {done.stderr}"
    return done.stdout.strip()


def nodes_tool(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "tests/nodes/nodes.py", *arguments],
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def simnvmlctl(node: str, *arguments: str) -> str:
    return on(node, f"/opt/simnvml/bin/simnvmlctl {' '.join(arguments)}")


def version(node: str) -> str:
    """Versions of the installed package and of the loaded (simulated) module; one text where they agree."""
    package = on(node, "dpkg-query -W -f '${Version}' nvidia-driver-cuda").split("-")[0]
    loaded = on(node, "grep -o -m1 '[0-9]\\{3\\}[.][0-9.]*' /run/simnvml/root/proc/driver/nvidia/version | head -1")
    return package if package == loaded else f"{package} installed, {loaded} loaded"


def drained(node: str) -> bool:
    return on(node, "test -e /srv/drained && echo yes || true") == "yes"


def calls(node: str) -> list[str]:
    """What the drain and resume commands were called for, in order."""
    return on(node, "cat /srv/calls 2>/dev/null || true").split()


def record(node: str) -> dict[str, Any]:
    """The node's own record."""
    found: dict[str, Any] = json.loads(on(node, "cat /var/lib/rackwright/update.json"))
    return found


def mirror(node: str) -> Path:
    return REPORTS / "updates" / f"{node}.json"


@pytest.fixture(scope="module", autouse=True)
def planned() -> None:
    """The lock goes to the next driver before the first test."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    result = play("plan-stack.yml", "-e", f"stack_driver_version={NEW}")
    assert result.returncode == 0, result.stdout[-3000:]
    assert (FLEET / "stack.lock.previous.yml").is_file()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("update_batch=many", "Could not use update_batch"),
        ("update_max_failures=0", "Could not use update_max_failures"),
        ("update_canaries=gpu-9", "gpu-9 is no node of this run"),
        ("update_drain=shutdown", "update_drain"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_before_any_node_is_contacted(wish: str, sentence: str) -> None:
    result = update("-e", wish)

    assert result.returncode != 0
    assert sentence in result.stdout
    assert "TASK [Probe the node]" not in result.stdout


def test_check_mode_tells_node_by_node_and_changes_nothing() -> None:
    result = update("--check")

    assert result.returncode == 0, result.stdout[-3000:]
    rows = [
        line.split() for line in result.stdout.splitlines() if line.startswith("gpu-") and NEW in line and OLD in line
    ]
    assert [row[0] for row in rows] == NODES
    assert all("package(s)" in row and row[-2:] == ["command", "reboot"] for row in rows)
    assert not (REPORTS / "updates").exists()
    assert [version(node) for node in NODES] == [OLD] * 6
    assert [calls(node) for node in NODES] == [[]] * 6
    assert "update.json" not in on("gpu-1", "ls /var/lib/rackwright")


def test_a_rollout_stops_at_the_limit_with_the_right_nodes_put_back() -> None:
    simnvmlctl("gpu-2", "set", "--every-boot", "--driver", NEW, "slowdown", "20")
    simnvmlctl("gpu-3", "set", "--at-boot", "gpu.3.fail", "GPU_IS_LOST")
    simnvmlctl("gpu-3", "set", "--every-boot", "count", "7")
    simnvmlctl("gpu-4", "busy", "2", "--name", "train")
    on("gpu-5", "touch /srv/foreign")

    result = update("-e", json.dumps({"update_batch": [4, 1], "update_max_unavailable": 4}))

    assert result.returncode != 0
    assert ends(result) == {
        "gpu-1": "done",
        "gpu-2": "rolled_back",
        "gpu-3": "stuck",
        "gpu-4": "busy",
        "gpu-5": "done",
        "gpu-6": "waiting",
    }, result.stdout[-6000:]
    reasons = {name: str(node["reason"]) for name, node in document(result)["nodes"].items()}
    assert "dropped from 1000 to 800, by 20 %" in reasons["gpu-2"]
    assert "NVML shows 7 of the 8 NVIDIA GPUs" in reasons["gpu-3"]
    assert "train" in reasons["gpu-4"]
    assert "update_max_failures is 1" in reasons["gpu-6"]
    assert "stopped: 2 node(s) failed (gpu-2, gpu-3)" in result.stdout
    assert {node: version(node) for node in NODES} == {
        "gpu-1": NEW,
        "gpu-2": OLD,
        "gpu-3": OLD,
        "gpu-4": OLD,
        "gpu-5": NEW,
        "gpu-6": OLD,
    }


def test_only_own_drains_were_lifted_and_what_is_stuck_stays_drained() -> None:
    assert {node: calls(node) for node in NODES} == {
        "gpu-1": ["drain", "resume"],
        "gpu-2": ["drain", "resume"],
        "gpu-3": ["drain"],
        "gpu-4": ["drain", "resume"],
        "gpu-5": [],
        "gpu-6": [],
    }
    assert drained("gpu-3")
    assert record("gpu-3")["state"] == "stuck"
    assert on("gpu-3", "stat -c '%a %U' /var/lib/rackwright/update.json") == "600 root"


def test_a_site_run_leaves_alone_what_the_update_left_unfinished() -> None:
    result = play("check-drift.yml", "-e", f"stack_driver_version={NEW}")

    told = " ".join(result.stdout.split())
    assert "gpu-2: set aside - its update to 590.48.01 failed and it was put back" in told
    assert "gpu-3: set aside - its update to 590.48.01 failed and it stays drained" in told
    assert "update_retry=gpu-3" in told
    assert "gpu-1: set aside" not in told


def begun(step: str, node: str) -> bool:
    """Whether a node's update has come to a step, as the control node has it."""
    if not mirror(node).exists():
        return False
    found = json.loads(mirror(node).read_text(encoding="utf-8"))
    return bool(found["state"] == "open" and found["step"] == step)


def test_a_killed_run_is_gone_on_with_and_nothing_is_done_twice() -> None:
    simnvmlctl("gpu-2", "unset", "slowdown")
    simnvmlctl("gpu-3", "unset", "count")
    on("gpu-4", "pkill -x train")
    stuck = record("gpu-3")
    wanted = ["-e", f"stack_driver_version={NEW}", "-e", "update_retry=gpu-3"]
    wanted += ["-e", json.dumps({"update_batch": ["100%"], "update_max_unavailable": "100%"})]
    log = ROOT / "build/molecule/update/killed.log"
    with log.open("w", encoding="utf-8") as output:
        control = subprocess.Popen(
            command("update-driver.yml", *wanted),
            cwd=ROOT,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not begun("install", "gpu-6"):
            assert control.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.1)
        time.sleep(2)
    finally:
        if control.poll() is None:
            os.killpg(control.pid, signal.SIGKILL)
        control.wait()
    before = {node: record(node) for node in ("gpu-2", "gpu-4", "gpu-6")}
    mirror("gpu-4").unlink()
    on("gpu-6", "rm /var/lib/rackwright/update.json")
    simnvmlctl("gpu-6", "set", "--at-boot", "sshd", "never")

    result = update(*wanted[2:])

    assert result.returncode != 0
    told = " ".join(result.stdout.split())
    for node in ("gpu-2", "gpu-3", "gpu-4", "gpu-6"):
        assert f"{node}: resumes after install (interrupted)" in told
    assert "gpu-4: the control node had no record of it" in told
    assert "gpu-6: the node lost its own record" in told
    assert ends(result) == {
        "gpu-1": "current",
        "gpu-2": "done",
        "gpu-3": "done",
        "gpu-4": "done",
        "gpu-5": "current",
        "gpu-6": "unreachable",
    }, result.stdout[-6000:]
    after = {node: record(node) for node in ("gpu-2", "gpu-3", "gpu-4")}
    assert {node: after[node]["return_point"] for node in ("gpu-2", "gpu-4")} == {
        node: before[node]["return_point"] for node in ("gpu-2", "gpu-4")
    }
    assert after["gpu-3"]["return_point"] == stuck["return_point"]
    assert calls("gpu-4")[2:] == ["drain", "resume"]
    assert calls("gpu-3") == ["drain", "resume"]
    assert [version(node) for node in NODES[:5]] == [NEW] * 5


def test_a_node_that_never_came_back_is_gone_on_with_once_it_answers() -> None:
    nodes_tool("stop", "--fleet", "update", "gpu-6")
    silent = update("--limit", "gpu-6")
    nodes_tool("start", "--fleet", "update", "gpu-6")

    assert ends(silent) == {"gpu-6": "unreachable"}

    result = update("--limit", "gpu-6")

    assert "gpu-6: resumes after" in " ".join(result.stdout.split())
    assert "(did not answer then, answers now)" in " ".join(result.stdout.split())
    assert ends(result) == {"gpu-6": "done"}, result.stdout[-6000:]
    assert version("gpu-6") == NEW
    assert calls("gpu-6") == ["drain", "resume"]


def test_a_module_that_does_not_build_leads_back_without_a_reboot_into_nothing() -> None:
    wish = ("-e", f"stack_driver_version={BROKEN}", "--limit", "gpu-6")
    planned = play("plan-stack.yml", *wish)
    result = play("update-driver.yml", *wish)

    assert planned.returncode == 0, planned.stdout[-3000:]
    assert ends(result) == {"gpu-6": "rolled_back"}, result.stdout[-6000:]
    assert "too few arguments" in str(document(result)["nodes"]["gpu-6"]["reason"])
    assert version("gpu-6") == NEW
    assert not drained("gpu-6")
    assert record("gpu-6")["state"] == "rolled_back"


def headers(node: str) -> list[str]:
    """Kernels whose headers are installed."""
    listed = on(node, "dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n' 'linux-headers-*-amd64'")
    rows = [line.split() for line in listed.splitlines()]
    return [row[0].removeprefix("linux-headers-") for row in rows if row[1:] == ["ii"] and row[0][14].isdigit()]


def other_kernel(node: str) -> str:
    """A kernel of the same series that the archive has and the node has not."""
    there = headers(node)
    start = there[0].rsplit("-", 2)[0]
    names = on(node, f"apt-cache pkgnames linux-headers-{start}-").split()
    offered = [name.removeprefix("linux-headers-") for name in names if re.fullmatch(rf".*-{start}-\d+-amd64", name)]
    left = sorted(set(offered) - set(there))
    assert left, f"the archive has no second kernel of {start}"
    return left[-1]


def kernel(version: str) -> subprocess.CompletedProcess[str]:
    wish = ("-e", f"stack_driver_version={NEW}", "-e", f"update_kernel_version={version}")
    assert play("plan-stack.yml", *wish, "--limit", "gpu-6").returncode == 0
    return play("update-kernel.yml", *wish, "--limit", "gpu-6")


def test_a_kernel_comes_with_a_module_or_not_at_all() -> None:
    """Real headers and real DKMS; no kernel is booted, for a container has none of its own."""
    before = headers("gpu-6")
    wanted = other_kernel("gpu-6")
    on("gpu-6", f"cp /usr/src/nvidia-{NEW}/nvidia.c /root/; echo '#error planted' >> /usr/src/nvidia-{NEW}/nvidia.c")

    failed = kernel(wanted)

    assert ends(failed) == {"gpu-6": "rolled_back"}, failed.stdout[-6000:]
    assert "does not build" in str(document(failed)["nodes"]["gpu-6"]["reason"])
    assert headers("gpu-6") == before
    assert not drained("gpu-6")

    on("gpu-6", f"cp /root/nvidia.c /usr/src/nvidia-{NEW}/nvidia.c")
    good = kernel(wanted)

    assert ends(good) == {"gpu-6": "done"}, good.stdout[-6000:]
    assert sorted(headers("gpu-6")) == sorted([*before, wanted])
    assert f"{wanted}, x86_64: installed" in on("gpu-6", "dkms status")


def test_a_rollback_by_hand_takes_the_same_way_and_the_locks_change_places() -> None:
    result = play("update-driver.yml", "-e", "update_rollback=true", "--limit", "gpu-1")

    assert result.returncode == 0, result.stdout[-6000:]
    assert ends(result) == {"gpu-1": "done"}
    assert version("gpu-1") == OLD
    assert "changed places for 1 node(s)" in " ".join(result.stdout.split())
    again = play("check-drift.yml", "--limit", "gpu-1")
    assert "1 node(s): 1 stale." in again.stdout, again.stdout[-3000:]
    assert "nvidia_driver" not in again.stdout.split("Rackwright state")[1].split("node(s):")[0]
