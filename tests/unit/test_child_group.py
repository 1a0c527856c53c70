# SPDX-License-Identifier: Apache-2.0
"""Several children at once: whatever some of them do, each has its answer in time and none stays."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import child, child_group
from ansible.module_utils.rackwright.child_group import run_group


def _good(payload: dict[str, Any]) -> dict[str, Any]:
    return {"sum": payload["a"] + payload["b"], "pid": os.getpid(), "group": os.getpgrp()}


def _hang(_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def _crash(_: Any) -> None:
    ctypes.string_at(0)


def _killed_for_memory(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _no_memory(_: Any) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    return len(bytearray(1 << 31))


def _half_answer(_: Any) -> None:
    os.write(3, b"\0\0\0\0\0\0\4\0{half")
    os._exit(0)


def _half_answer_and_hang(_: Any) -> None:
    os.write(3, b"\0\0\0\0\0\0\4\0{half")
    time.sleep(600)


def _garbage(_: Any) -> None:
    os.write(3, b"\0\0\0\0\0\0\0\4\xff\xfe{]")
    os._exit(0)


def _close_and_hang(_: Any) -> None:
    os.close(3)
    time.sleep(600)


def _grandchild(path: str) -> str:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    Path(path).write_text(str(pid), encoding="ascii")
    return "done"


_KINDS = {
    "good": _good,
    "hang": _hang,
    "crash": _crash,
    "killed": _killed_for_memory,
    "memory": _no_memory,
    "half": _half_answer,
    "half_hang": _half_answer_and_hang,
    "garbage": _garbage,
    "close_hang": _close_and_hang,
}


def _by_kind(payload: dict[str, Any]) -> Any:
    return _KINDS[payload["kind"]](payload)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()}


def test_answers_come_back_in_the_order_of_the_payloads() -> None:
    results = run_group(_good, [{"a": number, "b": 1} for number in range(20)], 30)
    assert [result.value["sum"] for result in results] == list(range(1, 21))
    assert all(result.value["pid"] == result.value["group"] != os.getpgrp() for result in results)


def test_nothing_to_do_is_no_result() -> None:
    assert run_group(_good, [], 1) == []


@pytest.mark.parametrize(
    ("kind", "status", "said", "signal_name"),
    [
        ("hang", "timeout", "No answer within 0.6 s", None),
        ("half_hang", "timeout", "No answer within 0.6 s", None),
        ("close_hang", "timeout", "No answer within 0.6 s", None),
        ("crash", "crashed", "SIGSEGV", "SIGSEGV"),
        ("killed", "crashed", "SIGKILL", "SIGKILL"),
        ("memory", "error", "MemoryError", None),
        ("half", "crashed", "incomplete answer", None),
        ("garbage", "crashed", "cannot be read", None),
    ],
)
def test_one_bad_child_leaves_the_others_their_answers(
    kind: str, status: str, said: str, signal_name: str | None
) -> None:
    before = _children()
    payloads = [{"kind": "good", "a": 1, "b": 2}, {"kind": kind}, {"kind": "good", "a": 3, "b": 4}]
    first, bad, last = run_group(_by_kind, payloads, 0.6 if status == "timeout" else 30)
    assert (first.value["sum"], last.value["sum"]) == (3, 7)
    assert (bad.status, bad.signal, bad.value) == (status, signal_name, None)
    assert said in bad.detail
    assert _children() == before, "a child outlived the call"


def test_many_hanging_children_cost_one_deadline() -> None:
    results = run_group(_hang, range(12), 0.3)
    assert [result.status for result in results] == ["timeout"] * 12
    assert max(result.duration_s for result in results) < 0.3 + 2 * child.KILL_GRACE_S


def test_all_at_once_not_one_after_the_other(tmp_path: Path) -> None:
    # each waits for the other's file: one after the other neither would ever answer
    def meet(number: int) -> bool:
        (tmp_path / str(number)).touch()
        while not (tmp_path / str(1 - number)).exists():
            time.sleep(0.005)
        return True

    assert [result.value for result in run_group(meet, [0, 1], 20)] == [True, True]


def test_a_child_that_answered_is_ended_while_others_still_run(tmp_path: Path) -> None:
    record = tmp_path / "pid"

    def work(number: int) -> str:
        if number == 0:
            return _grandchild(str(record))
        while not record.exists() or not record.read_text() or _alive(int(record.read_text())):
            time.sleep(0.01)  # ends only when the first child's whole group is gone
        return "saw it"

    assert [result.value for result in run_group(work, [0, 1], 20)] == ["done", "saw it"]


def test_unkillable_children_do_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "KILL_GRACE_S", 0.2)
    survivors: set[int] = set()
    real_kill = os.kill
    monkeypatch.setattr(child.os, "killpg", lambda pid, number: survivors.add(pid))
    monkeypatch.setattr(child.os, "kill", lambda pid, number: None)
    results = run_group(_hang, range(3), 0.2)
    for pid in survivors:
        real_kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert [result.status for result in results] == ["timeout"] * 3
    assert all("left behind" in result.detail for result in results)
    assert max(result.duration_s for result in results) < 2


def test_when_one_cannot_be_started_the_others_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _children()
    started: list[Any] = []
    real = child.start

    def start(func: Any, args: Any) -> Any:
        if len(started) == 2:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(real(func, args))
        return started[-1]

    monkeypatch.setattr(child_group.child, "start", start)
    with pytest.raises(OSError, match="temporarily"):
        run_group(_hang, range(5), 30)
    assert _children() == before


def test_an_interrupted_caller_leaves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _children()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child_group, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_group(_hang, range(3), 30)
    assert _children() == before


def test_no_descriptor_is_leaked() -> None:
    before = len(os.listdir("/proc/self/fd"))
    run_group(_by_kind, [{"kind": kind} for kind in ("good", "crash", "half", "hang")], 0.3)
    assert len(os.listdir("/proc/self/fd")) == before
