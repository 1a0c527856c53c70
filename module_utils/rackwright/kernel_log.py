# SPDX-License-Identifier: Apache-2.0
"""The kernel's own words of the last hours, from the journal, /dev/kmsg or a file: lines with time and boot.

Read-only and bounded: programs have a limit of time, every source a limit of size. What could not be read is a reason
in ``missing``, so that silence is never taken for health. Entries of earlier boots are kept: each line has its boot.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import time
import zlib
from typing import Any

from . import kernel_lines as forms
from .errors import InvalidInputError
from .kernel_lines import Line
from .programs import Run, run_program
from .sysfs import Tree

LINES_MAX = 50_000  # a flood of corrected PCIe errors: a day of it must not fill the memory of the node
BYTES_MAX = 32 * 1024 * 1024
PROGRAM_TIMEOUT_S = 30.0
SOURCES = ("auto", "journal", "kmsg", "file")
# What must not be lost below a flood: asked for once more, alone, when the journal had more lines than are read.
URGENT = "NVRM: |SXid|soft lockup|blocked for more than|Out of memory|oom-kill|Hardware Error|EDAC|Remounting"
_RECORD_BYTES = 8192  # the kernel cuts a record of /dev/kmsg below this size
_OVERTAKEN_MAX = 1000  # a kernel that writes faster than it is read is not waited for
_FIELDS = "MESSAGE,_BOOT_ID,_TRANSPORT"
_KERNEL = ("_TRANSPORT=kernel",)
_KERNEL_AND_LOSSES = (*_KERNEL, "+", "_TRANSPORT=driver")  # journald itself says how many messages it missed
_HIDDEN = ("insufficient permissions", "not seeing messages from other users and the system", "permission denied")
_EARLIEST = 0.0
_GZIP = b"\x1f\x8b"


class _Unreadable(Exception):
    """Why a source says nothing; caught here, told in ``missing``."""


def read(
    window_s: float | None,
    source: str = "auto",
    path: str | None = None,
    tree: Tree | None = None,
    now: float | None = None,
    run: Run = run_program,
) -> dict[str, Any]:
    """Return the kernel's lines of the last ``window_s`` seconds.

    Args:
        window_s: how far to look back, in seconds; None takes all there is.
        source: ``journal``, ``kmsg``, ``file``, or ``auto``: the file when ``path`` is given, a prepared tree's own
            kmsg, else the journal, then /dev/kmsg.
        path: a file in any form that kernel_lines.parse_file reads; lines without a time are kept, of unknown age.
        tree: the root below which /dev/kmsg and the boot id are read.
        now: seconds since 1970; give the time a support bundle was taken.

    Returns:
        ``lines`` (``time`` in ISO UTC or None, ``boot_id`` or None, ``text``; oldest first), ``source`` (None: nothing
        could be read), ``boot_id`` (of this boot), ``boots`` (of the lines, oldest first), ``missing`` (why nothing
        could be read, else None), ``truncated`` (older or other lines exist within the window), ``lost`` (how many
        messages kernel or journal say they dropped), ``oldest`` (ISO), ``now`` (seconds), ``window_s``.

    Raises:
        InvalidInputError: an unknown source, or ``file`` without a path.
    """
    if source not in SOURCES or (source == "file" and path is None):
        raise InvalidInputError(
            "read the kernel log",
            "this node",
            f"the source is {source!r}" + (" without a path" if source == "file" else ""),
            f"Use one of {', '.join(SOURCES)}, and a path with file",
            expected=list(SOURCES),
            found=source,
        )
    reader = _Reader(window_s, time.time() if now is None else now, tree or Tree(), run, path)
    reasons = []
    for name in _order(source, path, reader.tree):
        try:
            lines, truncated, lost = getattr(reader, name)()
        except _Unreadable as error:
            reasons.append(str(error))
            continue
        return _result(reader, name, lines, truncated, lost, None)
    return _result(reader, None, [], False, 0, "; ".join(reasons))


def boot_id(tree: Tree) -> str | None:
    """The boot that runs now, as the journal writes it."""
    return forms.boot_id(tree.line("proc/sys/kernel/random/boot_id"))


def _order(source: str, path: str | None, tree: Tree) -> tuple[str, ...]:
    if source != "auto":
        return (source,)
    if path is not None:
        return ("file",)
    # the journal of the machine that reads a prepared tree says nothing about that tree
    return ("journal", "kmsg") if tree.sysroot == "/" else ("kmsg",)


def _result(
    reader: _Reader, source: str | None, lines: list[Line], truncated: bool, lost: int, missing: str | None
) -> dict[str, Any]:
    kept = [line for line in lines if line.seconds is None or line.seconds >= reader.start]
    times = [line.seconds for line in kept if line.seconds is not None]
    return {
        "lines": [line.record() for line in kept],
        "source": source,
        "boot_id": reader.boot_id,
        "boots": list(dict.fromkeys(line.boot_id for line in kept if line.boot_id)),
        "missing": missing,
        "truncated": truncated,
        "lost": lost,
        "oldest": forms.iso(min(times)) if times else None,
        "now": reader.now,
        "window_s": reader.window_s,
    }


_Found = tuple[list[Line], bool, int]


class _Reader:
    """One look at one node; ``journal``, ``kmsg``, ``file`` give lines, whether they were cut, how many are lost."""

    def __init__(self, window_s: float | None, now: float, tree: Tree, run: Run, path: str | None) -> None:
        self.window_s = window_s
        self.now = now
        self.start = _EARLIEST if window_s is None else now - window_s
        self.tree = tree
        self.run = run
        self.path = path
        self.boot_id = boot_id(tree)

    def journal(self) -> _Found:
        since = [f"--since=@{int(self.start)}"]
        lines, lost, complaint = self._ask([*since, f"--lines={LINES_MAX + 1}"], _KERNEL_AND_LOSSES)
        if not lines:
            self._quiet_or_hidden(complaint)
            return [], False, lost
        if len(lines) <= LINES_MAX:
            return lines, False, lost
        lines = lines[-LINES_MAX:]
        return [*self._urgent(since, lines[0]), *lines], True, lost

    def _ask(self, options: list[str], matches: tuple[str, ...]) -> tuple[list[Line], int, str]:
        """Return lines, number of lost messages, and what journalctl said beside them."""
        # not -k, which would mean this boot only; not --quiet, which would hide that something is hidden; and --all,
        # without which a message above 4 KiB is null
        command = [
            "journalctl",
            "--no-pager",
            "--all",
            "--output=json",
            f"--output-fields={_FIELDS}",
            *options,
            *matches,
        ]
        try:
            status, output, complaint = self.run(command, PROGRAM_TIMEOUT_S)
        except TimeoutError as error:
            raise _Unreadable(f"the journal was not read: {error}") from error
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise _Unreadable(f"the journal was not read: journalctl: {why}") from error
        lines, lost = forms.parse_journal(output)
        if status != 0 and not lines:
            first = (complaint.strip().splitlines() or ["no message"])[0]
            raise _Unreadable(f"the journal was not read: journalctl ended with status {status} ({first})")
        return lines, lost, complaint

    def _urgent(self, since: list[str], oldest: Line) -> list[Line]:
        """Return what matters most among lines older than those that were read."""
        try:
            lines = self._ask([*since, f"--lines={LINES_MAX}", f"--grep={URGENT}"], _KERNEL)[0]
        except _Unreadable:  # built without --grep: `truncated` tells that something may be missing
            return []
        older = [line for line in lines if (line.seconds or 0.0) < (oldest.seconds or 0.0)]
        return sorted(older, key=lambda line: line.seconds or 0.0)  # with --grep and --lines the newest comes first

    def _quiet_or_hidden(self, complaint: str) -> None:
        """Tell a quiet kernel (returns) from a journal that does not show the kernel's messages (raises)."""
        if any(mark in complaint.lower() for mark in _HIDDEN):
            raise _Unreadable("the journal shows this user no kernel messages: use root or the group systemd-journal")
        if not self._ask(["--lines=1"], _KERNEL)[0]:
            raise _Unreadable("the journal has no kernel messages at all (a container, or not readable for this user)")

    def kmsg(self) -> _Found:
        path = self.tree.path("dev/kmsg")
        try:
            data, cut = _read_kmsg(path)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise _Unreadable(f"/dev/kmsg was not read: {why}") from error
        # the kernel stamps messages with its monotonic clock, which stands still while a machine sleeps
        lines, before, between = forms.parse_kmsg(data, self.boot_id, self.now - time.monotonic())
        # the buffer is a ring: what it dropped before its oldest line is of the window only when that line is
        within = before if not lines or (lines[0].seconds or 0.0) >= self.start else 0
        return lines, cut or within + between > 0, within + between

    def file(self) -> _Found:
        assert self.path is not None
        try:
            data, cut = _read_file(self.path)
        except (EOFError, zlib.error) as error:
            raise _Unreadable(f"{self.path} was not read: it is packed and broken ({error})") from error
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise _Unreadable(f"{self.path} was not read: {why}") from error
        lines, lost = forms.parse_file(data.decode("utf-8", "replace"), self.now)
        return lines, cut, lost


def _read_file(path: str) -> tuple[bytes, bool]:
    """Return the end of a file, or the beginning of a packed one, and whether that is not all of it.

    Raises:
        OSError: it cannot be read, or is no file: a pipe would be waited for.
        EOFError, zlib.error: it is packed and broken.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no file")
    with open(path, "rb") as stream:
        if stream.read(2) == _GZIP:
            stream.seek(0)
            with gzip.open(stream) as unpacked:
                data = unpacked.read(BYTES_MAX)
                return data, bool(unpacked.read(1))
        stream.seek(max(0, found.st_size - BYTES_MAX))
        data = stream.read(BYTES_MAX)
    cut = found.st_size > BYTES_MAX
    return (data[data.find(b"\n") + 1 :] if cut else data), cut


def _read_kmsg(path: str) -> tuple[str, bool]:
    """Return all records that are there now, and whether some were overwritten meanwhile. Never waits for new ones.

    Raises:
        OSError: it cannot be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    chunks, size, overwritten = [], 0, 0
    try:
        records = stat.S_ISCHR(os.fstat(descriptor).st_mode)
        while size < BYTES_MAX:
            try:
                chunk = os.read(descriptor, _RECORD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if not records or error.errno != errno.EPIPE or overwritten >= _OVERTAKEN_MAX:
                    raise
                overwritten += 1  # the next read goes on with the oldest that is left
                continue
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks).decode("utf-8", "replace"), overwritten > 0 or size >= BYTES_MAX
