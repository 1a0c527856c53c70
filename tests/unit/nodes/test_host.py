# SPDX-License-Identifier: Apache-2.0
"""Running, ending and removing on the host, and taking turns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from nodes import host, prerequisites
from nodes.errors import NodesError
from nodes.paths import ROOT


@pytest.fixture
def removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been removed. Nothing is: a defect of the guard must not cost a single file."""
    commands: list[str] = []

    def record(command: Sequence[str], *_args: object, **_options: object) -> None:
        commands.append(command[-1])

    monkeypatch.setattr(host, "run", record)
    monkeypatch.setattr(host, "NODES", tmp_path / "build" / "nodes")
    monkeypatch.setattr(host, "CACHE", tmp_path / "build" / "cache")
    for name in ("build/nodes/demo/gpu-a", "build/cache", "build/simnvml", "tests", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "build" / "nodes" / "link").symlink_to(tmp_path / "elsewhere")
    return commands


@pytest.mark.parametrize(
    "name",
    [
        "",
        "build",
        "build/simnvml",
        "tests",
        "build/../tests",
        "build/nodes/../../tests",
        "build/nodes/demo/..",
        "build/nodes/link",
        "build/nodes-other",
    ],
)
def test_nothing_but_folders_of_the_test_nodes_can_be_removed(name: str, tmp_path: Path, removed: list[str]) -> None:
    with pytest.raises(NodesError, match="not a folder of the test nodes"):
        host.remove_tree(tmp_path / name)
    assert removed == []


@pytest.mark.parametrize("name", ["build/nodes", "build/nodes/demo", "build/nodes/demo/gpu-a", "build/cache"])
def test_folders_of_the_test_nodes_are_removed(name: str, tmp_path: Path, removed: list[str]) -> None:
    host.remove_tree(tmp_path / name)
    assert removed == [str(tmp_path / name)]


def test_what_is_not_there_needs_no_removal(tmp_path: Path, removed: list[str]) -> None:
    host.remove_tree(tmp_path / "build" / "nodes" / "never")
    assert removed == []


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NodesError, match=r"Could not build it: only .* GB are free .* Make 1e\+09 GB free"):
        host.require_free(tmp_path / "not" / "there", 1e9, "build it")


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("I: ok\nE: Failed to fetch x\nE: tool failed to run\n", "Failed to fetch x"),
        ("Error: no such image\n", "no such image"),
        ("E: dpkg failed\ncp: No space left on device\nE: more\n", "cp: No space left on device"),
        ("something odd\nlast line\n", "last line"),
        ("", "exit status 1"),
    ],
)
def test_the_cause_is_the_first_complaint(stderr: str, cause: str) -> None:
    assert host.last_words(subprocess.CompletedProcess([], 1, "", stderr), 5) == cause


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(NodesError, match="no answer within 1 s"):
        host.run(["sleep", "30"], "wait", timeout=1)


def test_a_program_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(NodesError, match="Could not look"):
        host.run(["no-such-program-here"], "look")


def test_the_output_of_a_long_command_is_shown_as_it_comes(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "as_root", list)
    out = tmp_path / "out"
    host.stream(["sh", "-c", "cat >&2; echo data"], "copy", prefix="[x] ", stdin=b"one\ntwo\n", stdout_to=out)
    assert capfd.readouterr().err == "[x] one\n[x] two\n"
    assert out.read_text(encoding="utf-8") == "data\n"


def test_a_lock_is_held_against_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "NODES", tmp_path)
    lock = tmp_path / ".locks" / "x.lock"
    probe = f"import fcntl; fcntl.flock(open({str(lock)!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with host.locked("x"):
        inside = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
        assert b"BlockingIOError" in inside.stderr
        assert lock.read_text(encoding="utf-8") == str(os.getpid())
    after = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    assert after.returncode == 0


def test_everything_that_is_missing_is_named_at_once() -> None:
    missing = prerequisites.missing_packages(lambda _name: None, lambda _path: False, lambda _name: None)
    wanted = "podman runc mmdebstrap iptables openssh-client gcc make netavark debian-archive-keyring libc6-dev"
    assert missing == [*wanted.split(), "python3-venv"]


def test_a_complete_host_lacks_nothing() -> None:
    assert prerequisites.missing_packages(lambda name: name, lambda _path: True, lambda name: name) == []


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nNAME="x"\n', {"ubuntu", "debian"}),
        ('ID="rocky"\nID_LIKE="rhel centos"\n', {"rocky", "rhel", "centos"}),
    ],
)
def test_the_distribution_is_read_from_os_release(text: str, ids: set[str]) -> None:
    assert prerequisites.os_ids(text) == ids


def test_the_program_needs_nothing_but_the_standard_library() -> None:
    program = [sys.executable, "-I", "-S", str(ROOT / "tests" / "nodes" / "nodes.py"), "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prerequisites" in done.stdout
