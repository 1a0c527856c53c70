# SPDX-License-Identifier: Apache-2.0
"""Who holds a GPU: NVML's lists on simulated GPUs, and the open handles of real processes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.simulated_node import SimulatedNode, library

from ansible.module_utils.rackwright import gpu_holders
from ansible.module_utils.rackwright.child import run_in_child
from ansible.module_utils.rackwright.errors import ProbeError
from ansible.module_utils.rackwright.gpu_daemons import DAEMONS
from ansible.module_utils.rackwright.gpu_holders import (
    DriverHangsError,
    Holder,
    ancestors,
    ask_nvml,
    describe,
    look,
    merge,
    nvml_word,
    open_handles,
    started,
    unit_of,
)

GIB = 1 << 30


def ask(node: SimulatedNode) -> dict[str, Any]:
    """Read the lists of a simulated node."""
    result = run_in_child(_read, (str(node.conf),), timeout=60)
    assert result.status == "ok", (result.detail, result.traceback)
    value: dict[str, Any] = result.value
    return value


def _read(conf: str) -> dict[str, Any]:
    os.environ["SIMNVML_CONF"] = conf
    sys.modules["pynvml"] = None  # type: ignore[assignment]  # how Python itself marks "cannot be imported"
    ctypes.CDLL(str(library()))
    return gpu_holders.read_lists()


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], SimulatedNode]:
    return lambda profile: SimulatedNode(tmp_path, profile)


def test_the_lists_of_all_gpus(node: Callable[[str], SimulatedNode]) -> None:
    machine = node("h100x8").set("gpu.2.proc.0", f"4242 C {8 * GIB}").set("gpu.5.proc.0", f"4242 C {GIB}")
    machine.set("gpu.5.proc.1", f"77 G {GIB}").set("gpu.6.proc.0", f"99 M {GIB}")
    asked = ask(machine)
    assert nvml_word(asked) == "ok"
    assert [(h.pid, sorted(h.gpus), h.memory_bytes, sorted(h.types)) for h in merge(asked, {})] == [
        (77, [5], GIB, ["graphics"]),
        (99, [6], GIB, ["mps"]),
        (4242, [2, 5], 9 * GIB, ["compute"]),
    ]


def test_processes_of_mig_devices_count_once(node: Callable[[str], SimulatedNode]) -> None:
    asked = ask(node("mig-a100").set("gpu.0.proc.0", f"4242 C {4 * GIB} 1 0"))
    assert [(h.pid, sorted(h.gpus), h.memory_bytes) for h in merge(asked, {})] == [(4242, [0], 4 * GIB)]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("fail.init", "LIB_RM_VERSION_MISMATCH", "the NVML library does not fit the loaded kernel module (NVML 18)"),
        ("fail.init", "DRIVER_NOT_LOADED", "the NVIDIA driver is not loaded (NVML 9)"),
        (
            "gpu.3.fail",
            "GPU_IS_LOST",
            "GPU 3: the GPU is lost (it has fallen off the bus or is inaccessible) (NVML 15)",
        ),
        # one list of three is enough to know a card
        ("fail.nvmlDeviceGetGraphicsRunningProcesses", "NOT_SUPPORTED", "ok"),
    ],
)
def test_what_nvml_does_not_say(node: Callable[[str], SimulatedNode], key: str, value: str, word: str) -> None:
    assert nvml_word(ask(node("h100x8").set(key, value))) == word


def test_both_sources_are_one_list() -> None:
    asked = {
        "reason": None,
        "devices": [
            {"index": 0, "minor": 3, "reason": None, "processes": [[10, "compute", None]]},
            {"index": 1, "minor": 2, "reason": None, "processes": []},
        ],
    }
    handles = {10: {"/dev/nvidia3", "/dev/nvidiactl"}, 20: {"/dev/nvidia2"}, 30: {"/dev/nvidia-uvm"}}
    assert [holder.to_result() for holder in merge(asked, handles)] == [
        {**blank(10), "gpus": [0], "types": ["compute", "handle"], "devices": ["/dev/nvidia3", "/dev/nvidiactl"]},
        {**blank(20), "gpus": [1], "types": ["handle"], "devices": ["/dev/nvidia2"]},
        {**blank(30), "gpus": [], "types": ["handle"], "devices": ["/dev/nvidia-uvm"]},
    ]


def blank(pid: int) -> dict[str, Any]:
    return {"pid": pid, "name": None, "user": None, "unit": None, "memory_bytes": None}


# ---- real processes ----


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A real process that has two files of a root open: a device and something else."""
    root = tmp_path / "root"
    for name in ("dev/nvidia0", "dev/nvidia-caps/nvidia-cap1", "dev/null2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    script = (
        f"exec 3< {root}/dev/nvidia0 4< {root}/dev/nvidia-caps/nvidia-cap1 5< {root}/dev/null2; echo; exec sleep 600"
    )
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process, root
        process.kill()


def test_open_handles_of_a_real_process(sleeper: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, root = sleeper
    found, _unreadable = open_handles(sysroot=str(root))
    assert found[process.pid] == {"/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1"}
    assert os.getpid() not in found
    (root / "dev/nvidia0").unlink()
    assert "/dev/nvidia0" in open_handles(sysroot=str(root))[0][process.pid]
    assert process.pid not in open_handles()[0]


def test_a_real_process_is_described_until_it_ends(sleeper: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, _root = sleeper
    begun = started(process.pid)
    assert begun is not None
    assert started(os.getpid()) != begun
    assert {os.getpid(), os.getppid()} <= ancestors(os.getpid())
    assert process.pid not in ancestors(os.getpid())

    process.kill()
    while started(process.pid) is not None:  # a zombie counts as ended
        pass
    holder = Holder(2**22 + 1)
    describe(holder)
    assert (holder.name, holder.user, holder.started) == (None, None, None)


def test_processes_of_a_prepared_table(tmp_path: Path) -> None:
    folder = tmp_path / "4242"
    (folder / "fd").mkdir(parents=True)
    (folder / "fd/3").symlink_to("/dev/nvidia7")
    (folder / "fd/4").symlink_to("/dev/nvidiactl (deleted)")
    (folder / "fd/5").symlink_to("socket:[1]")
    (folder / "comm").write_text("nvidia-persiste\n", encoding="utf-8")
    (folder / "cmdline").write_bytes(b"/usr/bin/nvidia-persistenced\0--verbose\0")
    (folder / "cgroup").write_text("0::/system.slice/nvidia-persistenced.service\n", encoding="utf-8")
    (folder / "stat").write_text(f"4242 (a) b) S 1 {' '.join(['0'] * 17)} 555 0\n", encoding="utf-8")
    (tmp_path / "self").mkdir()
    assert open_handles(str(tmp_path)) == ({4242: {"/dev/nvidia7", "/dev/nvidiactl"}}, 0)
    holder = Holder(4242)
    describe(holder, str(tmp_path))
    assert (holder.program, holder.started, holder.user) == ("nvidia-persistenced", "555", "root")
    assert holder.unit == "nvidia-persistenced.service"
    assert ancestors(4242, str(tmp_path)) == {4242, 1}


@pytest.mark.parametrize(
    ("name", "program", "known"),
    [
        ("nvidia-persiste", "nvidia-persistenced", True),
        ("nvidia-persiste", None, True),
        ("nv-hostengine", None, True),
        ("python3", "dcgm-exporter", True),
        ("python3", "python3", False),
        ("dcgm", "dcgm", False),
        (None, None, False),
    ],
)
def test_daemons_by_name(name: str | None, program: str | None, known: bool) -> None:
    assert Holder(1, name=name, program=program).is_one_of(DAEMONS) is known


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/system-vllm.slice/vllm@a.service\n", "vllm@a.service"),
        ("0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n", "Slurm job_42"),
        ("12:memory:/slurm/uid_1000/job_42/step_batch\n1:name=systemd:/system.slice/slurmd.service\n", "Slurm job_42"),
        ("0::/system.slice/docker-0123abcd.scope\n", "docker-0123abcd.scope"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service\n", "jupyter.service"),
        ("0::/init.scope\n", None),
        ("", None),
    ],
)
def test_what_a_process_belongs_to(cgroup: str, unit: str | None) -> None:
    assert unit_of(cgroup) == unit


def test_phrase() -> None:
    holder = Holder(7, name="python3", user="alice", unit="vllm@a.service", gpus={1, 0})
    assert holder.phrase() == "python3 (pid 7 of alice, vllm@a.service, GPU 0, 1)"
    assert Holder(7).phrase() == "a process not visible from here (pid 7)"


# ---- bad luck ----


def _hang() -> None:
    import time

    time.sleep(600)


def _crash() -> None:
    os.abort()


@pytest.mark.parametrize(("broken", "error"), [(_hang, DriverHangsError), (_crash, ProbeError)])
def test_a_driver_that_hangs_or_crashes(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[], None], error: type[Exception]
) -> None:
    monkeypatch.setattr(gpu_holders, "read_lists", broken)
    with pytest.raises(error) as caught:
        ask_nvml(0.2)
    assert caught.value.kind == ("driver_hangs" if broken is _hang else "probe")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reason", "unreadable", "uid", "words"),
    [
        (None, 0, 1000, ("ok", "ok")),
        ("not loaded", 0, 0, ("not loaded", "ok")),
        (None, 3, 1000, ("ok", "3 processes could not be read; run as root (become: true)")),
        (None, 3, 0, ("ok", "3 processes could not be read; this root lacks CAP_SYS_PTRACE")),
        ("not loaded", 3, 0, ("not loaded", "3 processes could not be read; this root lacks CAP_SYS_PTRACE")),
        ("not loaded", 3, 1000, None),
    ],
)
def test_how_much_could_be_seen(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, unreadable: int, uid: int, words: tuple[str, str] | None
) -> None:
    monkeypatch.setattr(gpu_holders, "ask_nvml", lambda timeout_s: {"reason": reason, "devices": []})
    monkeypatch.setattr(gpu_holders, "open_handles", lambda procfs, sysroot: ({}, unreadable))
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    if words is None:
        with pytest.raises(ProbeError, match="Run as root"):
            look()
        return
    snapshot = look()
    assert (snapshot.nvml, snapshot.handles, snapshot.holders) == (*words, [])
