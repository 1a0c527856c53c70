# SPDX-License-Identifier: Apache-2.0
"""A child may answer, raise, crash, hang or lie; the caller always gets an answer in time."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import child
from ansible.module_utils.rackwright.child import run_in_child

ROOT = Path(__file__).resolve().parents[2]


def _add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


def _big(size: int) -> str:
    return "x" * size


def _raise(message: str) -> None:
    raise ValueError(message)


def _exit_quietly() -> None:
    raise SystemExit(0)


def _not_json() -> object:
    return object()


def _hang() -> None:
    time.sleep(600)


def _segfault() -> None:
    ctypes.string_at(0)


def _kill_self(number: int) -> None:
    os.kill(os.getpid(), number)


def _exit_now(code: int) -> None:
    os._exit(code)


def _half_answer() -> None:
    os.write(3, b"\0\0\0\0\0\0\4\0{half")
    os._exit(0)


def _noise() -> str:
    os.write(1, b"library chatter on stdout")
    os.write(2, b"last words")
    return "kept"


def _ignore_sigterm_and_hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def _pids() -> list[int]:
    return [os.getpid(), os.getpgrp()]


def _leave_grandchild(path: str) -> str:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    Path(path).write_text(str(pid), encoding="ascii")
    return "done"


def _grandchild_keeps_pipe_open() -> None:
    if os.fork() == 0:
        os.setsid()
        time.sleep(3)
        os._exit(0)
    os._exit(5)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_value_comes_back_with_its_type() -> None:
    result = run_in_child(_add, (2, 3))
    assert (result.status, result.value, result.signal) == ("ok", {"sum": 5}, None)


def test_answer_larger_than_a_pipe_is_complete() -> None:
    assert run_in_child(_big, (3_000_000,)).value == "x" * 3_000_000


def test_exception_is_named_with_its_traceback() -> None:
    result = run_in_child(_raise, ("wrong lane",))
    assert (result.status, result.error_type, result.detail) == ("error", "ValueError", "ValueError: wrong lane")
    assert "in _raise" in str(result.traceback)


@pytest.mark.parametrize(("func", "error_type"), [(_exit_quietly, "SystemExit"), (_not_json, "TypeError")])
def test_an_exit_or_an_unserialisable_value_is_an_error(func: Any, error_type: str) -> None:
    result = run_in_child(func)
    assert (result.status, result.error_type) == ("error", error_type)


@pytest.mark.parametrize(
    ("func", "args", "name"),
    [
        (_segfault, (), "SIGSEGV"),
        (_kill_self, (signal.SIGABRT,), "SIGABRT"),
        (_kill_self, (signal.SIGKILL,), "SIGKILL"),
    ],
)
def test_crash_names_its_signal(func: Any, args: tuple[int, ...], name: str) -> None:
    result = run_in_child(func, args)
    assert (result.status, result.signal, result.value) == ("crashed", name, None)
    assert name in result.detail


def test_exit_without_answer_is_a_crash() -> None:
    result = run_in_child(_exit_now, (3,))
    assert (result.status, result.signal) == ("crashed", None)
    assert "status 3" in result.detail
    assert "no answer" in result.detail


def test_half_an_answer_is_never_used() -> None:
    result = run_in_child(_half_answer)
    assert (result.status, result.value) == ("crashed", None)
    assert "incomplete answer" in result.detail


@pytest.mark.parametrize("func", [_hang, _ignore_sigterm_and_hang])
def test_hang_ends_in_time(func: Any) -> None:
    started = time.monotonic()
    result = run_in_child(func, timeout=0.3)
    assert result.status == "timeout"
    assert "0.3 s" in result.detail
    assert time.monotonic() - started < 0.3 + child.KILL_GRACE_S


def test_unkillable_child_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "KILL_GRACE_S", 0.3)
    survivors: list[int] = []
    real_kill = os.kill
    monkeypatch.setattr(child.os, "killpg", lambda pid, number: survivors.append(pid))
    monkeypatch.setattr(child.os, "kill", lambda pid, number: None)
    started = time.monotonic()
    result = run_in_child(_hang, timeout=0.2)
    elapsed = time.monotonic() - started
    real_kill(survivors[0], signal.SIGKILL)
    os.waitpid(survivors[0], 0)
    assert result.status == "timeout"
    assert "left behind" in result.detail
    assert elapsed < 2


def test_chatter_of_a_library_stays_out_of_the_callers_streams(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_in_child(_noise)
    assert (result.value, result.stderr) == ("kept", "last words")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_child_leads_its_own_process_group() -> None:
    pid, group = run_in_child(_pids).value
    assert pid == group != os.getpgrp()


def test_grandchildren_do_not_outlive_the_call(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    assert run_in_child(_leave_grandchild, (str(record),)).value == "done"
    pid = int(record.read_text(encoding="ascii"))
    deadline = time.monotonic() + 2
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def test_escaped_grandchild_holding_the_pipe_does_not_delay_the_answer() -> None:
    result = run_in_child(_grandchild_keeps_pipe_open, timeout=30)
    assert result.status == "crashed"
    assert result.duration_s < 2


def test_no_descriptor_is_leaked() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run_in_child(_add, (1, 1))
        run_in_child(_segfault)
    assert len(os.listdir("/proc/self/fd")) == before


def test_child_ends_with_a_killed_caller(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    program = (
        "import sys, os, time\n"
        f"sys.path.insert(0, {str(ROOT / 'module_utils')!r})\n"
        "from rackwright.child import run_in_child\n"
        "def hang(path):\n"
        "    open(path + '.new', 'w').write(str(os.getpid())); os.rename(path + '.new', path); time.sleep(600)\n"
        "run_in_child(hang, (sys.argv[1],), 600)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, str(record)])
    deadline = time.monotonic() + 20
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(record.read_text(encoding="ascii"))
    caller.kill()
    caller.wait()
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def test_works_with_closed_standard_streams(tmp_path: Path) -> None:
    record = tmp_path / "result"
    program = (
        "import sys, os, json\n"
        f"sys.path.insert(0, {str(ROOT / 'module_utils')!r})\n"
        "from rackwright.child import run_in_child\n"
        "os.close(0); os.close(1); os.close(2)\n"
        "r = run_in_child(lambda: 'here', (), 20)\n"
        "open(sys.argv[1], 'w').write(json.dumps([r.status, r.value]))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(record)], check=True, timeout=60)
    assert json.loads(record.read_text(encoding="utf-8")) == ["ok", "here"]
