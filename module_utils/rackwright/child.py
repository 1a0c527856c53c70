# SPDX-License-Identifier: Apache-2.0
"""Run a function in a child process that may hang or crash without taking the caller with it.

Driver calls can block for ever (even uninterruptibly) and native libraries can abort the process. The caller of
:func:`run_in_child` always gets an answer within ``timeout`` plus a short grace, whatever happens to the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

#: How long a killed child may take to disappear. One in uninterruptible sleep never does, and is left behind.
KILL_GRACE_S = 2.0
POLL_S = 0.1
_HEADER = struct.Struct(">Q")
_STDERR_TAIL = 2000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ChildResult:
    """What became of the child.

    ``status`` is ``ok`` (``value`` holds what the function returned), ``timeout``, ``crashed`` (ended by ``signal``, or
    ended without a complete answer) or ``error`` (the function raised: ``error_type`` and ``detail`` say what).
    ``detail`` is one sentence for people, ``stderr`` the end of what the child wrote there.
    """

    status: str
    value: Any = None
    signal: str | None = None
    detail: str = ""
    error_type: str | None = None
    traceback: str | None = None
    stderr: str = ""
    duration_s: float = 0.0


class Reader:
    """Collects the framed answer and the end of standard error while the child runs."""

    def __init__(self, answer_fd: int, stderr_fd: int) -> None:
        self.answer_fd = answer_fd
        self.stderr_fd = stderr_fd
        self.open_fds = {answer_fd, stderr_fd}
        self.answer = bytearray()
        self.stderr = bytearray()
        for fd in (answer_fd, stderr_fd):
            os.set_blocking(fd, False)

    def read(self, wait_s: float) -> None:
        """Wait at most ``wait_s`` for data and take what is there."""
        if not self.open_fds:
            return
        poll = select.poll()
        for fd in self.open_fds:
            poll.register(fd, select.POLLIN)
        for fd, _event in poll.poll(max(0.0, wait_s) * 1000):
            self._take(fd)

    def _take(self, fd: int) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.open_fds.discard(fd)
        elif fd == self.answer_fd:
            self.answer += data
        else:
            self.stderr = (self.stderr + data)[-_STDERR_TAIL:]

    def drain(self) -> None:
        """Take everything the dead child left in the pipes; never waits."""
        while self.open_fds:
            before = len(self.answer), len(self.stderr), len(self.open_fds)
            self.read(0.0)
            if (len(self.answer), len(self.stderr), len(self.open_fds)) == before:
                return

    @property
    def expected(self) -> int | None:
        """Length of the announced answer, or None while the header is incomplete."""
        if len(self.answer) < _HEADER.size:
            return None
        return int(_HEADER.unpack_from(self.answer)[0])

    @property
    def complete(self) -> bool:
        return self.expected is not None and len(self.answer) - _HEADER.size >= self.expected

    @property
    def done(self) -> bool:
        """True when nothing more can come: a whole answer, or the child closed its end."""
        return self.complete or self.answer_fd not in self.open_fds


def run_in_child(func: Callable[..., Any], args: Sequence[Any] = (), timeout: float = 30.0) -> ChildResult:
    """Call ``func(*args)`` in a forked child and return what became of it.

    The function's value must be JSON data. The child leads its own process group, which is killed as a whole, and
    shares no open file with the caller but the two pipes, so not even an unkillable child holds the caller's streams.
    """
    child = start(func, args)
    try:
        return _supervise(child.pid, child.reader, child.started, timeout)
    finally:
        child.close()


@dataclass
class Child:
    """A child that runs, and the ends of its two pipes on this side."""

    pid: int
    reader: Reader
    started: float

    def close(self) -> None:
        """Close the pipes; the process is ended elsewhere."""
        os.close(self.reader.answer_fd)
        os.close(self.reader.stderr_fd)


def start(func: Callable[..., Any], args: Sequence[Any] = ()) -> Child:
    """Fork the child that calls ``func(*args)``. Whoever calls this ends the child and closes the pipes."""
    started = time.monotonic()
    answer_read, answer_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        for fd in (answer_read, answer_write, stderr_read, stderr_write):
            os.close(fd)
        raise
    if pid == 0:
        _child_main(func, args, answer_write, stderr_write, parent)
    os.close(answer_write)
    os.close(stderr_write)
    return Child(pid, Reader(answer_read, stderr_read), started)


def _supervise(pid: int, reader: Reader, started: float, timeout: float) -> ChildResult:
    deadline = started + timeout
    try:
        while not reader.done and time.monotonic() < deadline and not has_ended(pid):
            reader.read(min(POLL_S, deadline - time.monotonic()))
        if reader.done and not reader.complete:
            _wait_for_end(pid, min(KILL_GRACE_S, max(0.0, deadline - time.monotonic())))
        ended = has_ended(pid)
        reader.drain()
    finally:
        # also reached when the caller is interrupted: no child outlives the call
        status = _end_child(pid)
    return judge(reader, status, ended, timeout, time.monotonic() - started)


def judge(reader: Reader, status: int | None, ended: bool, timeout: float, duration_s: float) -> ChildResult:
    """Return what became of a child whose pipes are drained; ``ended`` is whether it ended before it was killed."""
    stderr = bytes(reader.stderr).decode("utf-8", "replace").strip()
    if reader.complete:
        return _decode(bytes(reader.answer[_HEADER.size :]), stderr, duration_s)
    if not ended:
        detail = f"No answer within {timeout:g} s"
        detail += (
            "; the process was ended."
            if status is not None
            else ("; the process cannot be ended (it sleeps uninterruptibly inside the kernel) and was left behind.")
        )
        return ChildResult("timeout", detail=detail, stderr=stderr, duration_s=duration_s)
    received = f"{len(reader.answer)} bytes of an incomplete answer" if reader.answer else "no answer"
    if status is not None and os.WIFSIGNALED(status):
        name = signal_name(os.WTERMSIG(status))
        detail = f"The process was ended by signal {name} and left {received}."
        return ChildResult("crashed", signal=name, detail=detail, stderr=stderr, duration_s=duration_s)
    code = os.WEXITSTATUS(status) if status is not None else None
    detail = f"The process exited with status {code} and left {received}."
    return ChildResult("crashed", detail=detail, stderr=stderr, duration_s=duration_s)


def _decode(payload: bytes, stderr: str, duration_s: float) -> ChildResult:
    try:
        message = json.loads(payload.decode("utf-8"))
        if message["ok"]:
            return ChildResult("ok", value=message["value"], stderr=stderr, duration_s=duration_s)
        texts = {"detail": message["detail"], "error_type": message["type"], "traceback": message["traceback"]}
    except (ValueError, KeyError, TypeError) as error:  # only a child whose memory is damaged writes such a thing
        detail = f"The process left an answer that cannot be read ({type(error).__name__})."
        return ChildResult("crashed", detail=detail, stderr=stderr, duration_s=duration_s)
    return ChildResult("error", stderr=stderr, duration_s=duration_s, **texts)


def signal_name(number: int) -> str:
    """Return ``SIGSEGV`` for 11; a number without a name stays ``signal <n>``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def has_ended(pid: int) -> bool:
    """True once the child is a zombie; it is not reaped, so its pid and group cannot be reused yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait_for_end(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    pause = 0.001
    while not has_ended(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _end_child(pid: int) -> int | None:
    """Kill what is left of the child's process group and reap the child; None when it cannot be killed."""
    kill_child(pid)
    return reap_child(pid, KILL_GRACE_S)


def kill_child(pid: int) -> None:
    """Send SIGKILL to the child's process group and to the child; returns at once."""
    for kill in (os.killpg, os.kill):  # the group does not exist until the child has made it
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def reap_child(pid: int, limit_s: float) -> int | None:
    """Wait at most ``limit_s`` for a killed child and return its status; None when it is still there."""
    if not _wait_for_end(pid, limit_s):
        return None
    return os.waitpid(pid, 0)[1]


def _child_main(func: Callable[..., Any], args: Sequence[Any], answer_fd: int, stderr_fd: int, parent: int) -> NoReturn:
    """Body of the child. It never returns and runs no exit handler of the caller."""
    code = 70
    try:
        answer_fd = _isolate(answer_fd, stderr_fd, parent)
        payload = _answer(func, args)
        _write_all(answer_fd, _HEADER.pack(len(payload)) + payload)
        code = 0
    finally:
        os._exit(code)


def _isolate(answer_fd: int, stderr_fd: int, parent: int) -> int:
    """Leave the caller's process group, streams, signal handlers and open files; return the answer's new descriptor."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # high numbers first, so that neither is overwritten when the pipes themselves are among 0 to 3
    answer_copy, stderr_copy = (os.dup2(fd, 200 + n, inheritable=False) for n, fd in enumerate((answer_fd, stderr_fd)))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(stderr_copy, 2)
    os.dup2(answer_copy, 3, inheritable=False)
    for fd in _open_fds():
        if fd > 3:
            _close_quietly(fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with(parent)
    return 3


def _open_fds() -> list[int]:
    """List what is open instead of trying every possible number: containers allow a thousand million of them."""
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return list(range(4096))


def _close_quietly(fd: int) -> None:
    # the descriptor of the listing itself is already closed, and a guessed number may never have been open
    with contextlib.suppress(OSError):
        os.close(fd)


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when the caller ends, however it ends."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # a C library without prctl: the caller's own kill remains
    if os.getppid() != parent:
        os._exit(70)


def _answer(func: Callable[..., Any], args: Sequence[Any]) -> bytes:
    try:
        message: dict[str, Any] = {"ok": True, "value": func(*args)}
        return json.dumps(message).encode("utf-8")
    except BaseException as error:  # everything, SystemExit included, must reach the caller as data
        message = {
            "ok": False,
            "type": type(error).__name__,
            "detail": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(*sys.exc_info())),
        }
        return json.dumps(message).encode("utf-8")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
