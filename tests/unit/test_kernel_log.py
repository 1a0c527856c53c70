# SPDX-License-Identifier: Apache-2.0
"""The kernel log is read within its window and limits, and silence is told apart from health."""

from __future__ import annotations

import errno
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.kernel_samples import BOOTS, LOGS, NOW

from ansible.module_utils.rackwright import kernel_events, kernel_lines, kernel_log
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sysfs import Tree

XID = "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus."
HINT = (
    "Hint: You are currently not seeing messages from other users and the system.\n"
    "      Users in groups 'adm', 'systemd-journal' can see all messages.\n"
)


def entry(text: Any, age_s: float = 60.0, boot: str = BOOTS[0], **fields: Any) -> str:
    stamp = str(int((NOW - age_s) * 1e6))
    return json.dumps(
        {"MESSAGE": text, "__REALTIME_TIMESTAMP": stamp, "_BOOT_ID": boot, "_TRANSPORT": "kernel", **fields}
    )


def journal(*answers: tuple[int, str, str] | OSError) -> tuple[Callable[..., tuple[int, str, str]], list[list[str]]]:
    """Return a journalctl that answers each call in turn, and the commands it was called with."""
    asked: list[list[str]] = []
    left = list(answers)

    def run(command: list[str], timeout_s: float) -> tuple[int, str, str]:
        assert timeout_s > 0
        asked.append(command)
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    return run, asked


def tree(tmp_path: Path, kmsg: str | None = None) -> Tree:
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\n")
    if kmsg is not None:
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/kmsg").write_text(kmsg)
    return Tree(str(tmp_path))


def read(window_s: float | None = 3600.0, **options: Any) -> dict[str, Any]:
    return kernel_log.read(window_s, now=NOW, **options)


def test_journal_over_boots(tmp_path: Path) -> None:
    run, asked = journal((0, "\n".join([entry("old", 50, BOOTS[1]), entry(XID, 10)]) + "\n", ""))
    log = read(source="journal", run=run, tree=tree(tmp_path))
    assert [line["text"] for line in log["lines"]] == ["old", XID]
    assert log["lines"][0] == {"time": kernel_lines.iso(NOW - 50), "boot_id": BOOTS[1], "text": "old"}
    assert (log["source"], log["missing"], log["truncated"], log["lost"]) == ("journal", None, False, 0)
    assert (log["boot_id"], log["boots"]) == (BOOTS[0], [BOOTS[1], BOOTS[0]])
    command = asked[0]
    assert f"--since=@{int(NOW - 3600)}" in command
    assert "_TRANSPORT=kernel" in command
    assert not {"-k", "-b", "--dmesg", "--boot", "-q", "--quiet"} & set(command)


def test_what_journalctl_252_really_prints() -> None:
    """Captured over a journal of two boots, written through systemd-journal-remote of the same version."""
    lines, lost = kernel_lines.parse_journal((LOGS / "journal.json").read_text(encoding="utf-8"))
    assert lost == 55
    assert [len(line.text) for line in lines] == [59, 148, 55, kernel_lines.TEXT_MAX, 58]
    assert len({line.boot_id for line in lines}) == 2
    found = kernel_events.parse([line.record() for line in lines])
    assert [(event["kind"], event["pci_address"], event["name"]) for event in found] == [
        ("xid", "0000:1b:00.0", None),
        ("fallen_off_bus", "0000:b3:00.0", None),
        ("edac", None, None),
        ("xid", "0000:1c:00.0", "日本"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (XID, XID),
        (list(XID.encode()), XID),
        (list(b"caf\xe9"), "caf\ufffd"),
        (["one", "two"], "one two"),
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5)",
            "NVRM: The NVIDIA GPU 0000:b3:00.0 NVRM: (PCI ID: 10de:26b5)",
        ),
        ("x" * 9000, "x" * kernel_lines.TEXT_MAX),
    ],
)
def test_journal_message_forms(value: Any, text: str) -> None:
    lines, _lost = kernel_lines.parse_journal(entry(value))
    assert [line.text for line in lines] == [text]


@pytest.mark.parametrize("value", [None, 7, [], [300], {"a": 1}, "", [[]]])
def test_journal_messages_without_text_are_no_lines(value: Any) -> None:
    assert kernel_lines.parse_journal(entry(value))[0] == []


def test_what_is_no_entry_is_skipped() -> None:
    output = "\n".join(["-- No entries --", "{", "[1]", "null", '{"MESSAGE": "no time", "_BOOT_ID": "zz"}', entry(XID)])
    lines, lost = kernel_lines.parse_journal(output)
    assert [(line.text, line.seconds is None, line.boot_id) for line in lines] == [
        ("no time", True, None),
        (XID, False, BOOTS[0]),
    ]
    assert lost == 0


def test_journald_says_what_it_missed() -> None:
    output = "\n".join(
        [entry("Missed 55 kernel messages", _TRANSPORT="driver"), entry("other", _TRANSPORT="driver"), entry(XID)]
    )
    run, _asked = journal((0, output, ""))
    log = read(source="journal", run=run)
    assert log["lost"] == 55
    assert len(log["lines"]) == 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(0, "-- No entries --\n", HINT)], "shows this user no kernel messages"),
        ([(1, "", "No journal files were opened due to insufficient permissions.\n")], "insufficient permissions"),
        ([(0, "", ""), (0, "", "")], "no kernel messages at all"),
        ([(1, "", "No journal files were found.\n")], "status 1 (No journal files were found.)"),
        ([(1, "", "")], "no message"),
        ([FileNotFoundError(errno.ENOENT, "x")], "no such file"),
        ([PermissionError(errno.EACCES, "x")], "permission denied"),
        ([TimeoutError("journalctl did not answer within 30 s")], "did not answer within 30 s"),
    ],
)
def test_silence_is_a_reason_never_health(answers: list[Any], words: str) -> None:
    run, _asked = journal(*answers)
    log = read(source="journal", run=run)
    assert words in log["missing"]
    assert (log["lines"], log["source"]) == ([], None)


def test_a_hanging_journalctl_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(kernel_log, "PROGRAM_TIMEOUT_S", 0.1)
    assert "did not answer within 0.1 s" in read(source="journal")["missing"]


def test_a_quiet_kernel_is_no_missing_one() -> None:
    run, asked = journal((0, "-- No entries --\n", ""), (0, entry("an old one", 900_000), ""))
    log = read(source="journal", run=run)
    assert (log["missing"], log["source"], log["lines"]) == (None, "journal", [])
    assert "--lines=1" in asked[1]


def test_a_flood_keeps_what_is_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "LINES_MAX", 4)
    flood = "\n".join(entry(f"aer {n}", 100 - n) for n in range(5))
    run, asked = journal(
        (0, flood, ""), (0, entry("NVRM: in both", 97) + "\n" + entry(XID, 1000) + "\n" + entry("SXid", 2000), "")
    )
    log = read(source="journal", run=run)
    assert [line["text"] for line in log["lines"]] == ["SXid", XID, "aer 1", "aer 2", "aer 3", "aer 4"]
    assert log["truncated"]
    assert any(word.startswith("--grep=") for word in asked[1])


def test_a_flood_without_grep_says_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "LINES_MAX", 4)
    flood = "\n".join(entry(f"aer {n}", 100 - n) for n in range(5))
    run, _asked = journal((0, flood, ""), (1, "", "Compiled without pattern matching support"))
    log = read(source="journal", run=run)
    assert log["truncated"]
    assert log["lines"][-1]["text"] == "aer 4"


def test_auto_asks_journal_then_kmsg() -> None:
    run, _asked = journal(FileNotFoundError(errno.ENOENT, "x"))
    log = read(run=run)
    assert log["source"] in (None, "kmsg")
    assert log["source"] == "kmsg" or "/dev/kmsg" in log["missing"]


def test_a_prepared_tree_is_never_answered_by_this_machines_journal(tmp_path: Path) -> None:
    run, asked = journal()
    log = read(run=run, tree=tree(tmp_path))
    assert asked == []
    assert log["missing"] == "/dev/kmsg was not read: no such file or directory"
    assert log["lines"] == []


def kmsg_record(sequence: int, age_s: float, text: str) -> str:
    return f"6,{sequence},{int((time.monotonic() - age_s) * 1e6)},-;{text}"


def test_kmsg_records(tmp_path: Path) -> None:
    records = [
        kmsg_record(0, 1000.0, "too old"),
        kmsg_record(1, 20.0, "NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: fallen off the bus"),
        " SUBSYSTEM=pci",
        " DEVICE=+pci:0000:b3:00.0",
        "12,9,77,-,caller=T1;written by a program",
        "no record",
        "6,x,1,-;no number",
    ]
    log = kernel_log.read(500.0, tree=tree(tmp_path, "\n".join(records) + "\n"))
    assert log["source"] == "kmsg"
    assert [line["text"] for line in log["lines"]] == ["NVRM: The NVIDIA GPU 0000:b3:00.0 NVRM: fallen off the bus"]
    assert log["lines"][0]["boot_id"] == BOOTS[0]
    age = log["now"] - (kernel_lines.seconds_of(log["lines"][0]["time"]) or 0.0)
    assert age == pytest.approx(20.0, abs=5.0)
    assert log["lost"] == 7


def test_a_ring_that_dropped_lines_of_the_window_is_truncated(tmp_path: Path) -> None:
    ring = "\n".join([kmsg_record(7000, 100.0, "a"), kmsg_record(7001, 50.0, "b")])
    prepared = tree(tmp_path, ring)
    whole = kernel_log.read(500.0, tree=prepared)
    assert (whole["truncated"], len(whole["lines"]), whole["lost"]) == (True, 2, 7000)
    covered = kernel_log.read(60.0, tree=prepared)
    assert (covered["truncated"], len(covered["lines"]), covered["lost"]) == (False, 1, 0)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_kmsg_without_permission_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> int:
        raise OSError(number, os.strerror(number))

    prepared = tree(tmp_path, "")
    monkeypatch.setattr(kernel_log.os, "open", refuse)
    log = read(source="kmsg", tree=prepared)
    assert log["missing"] == f"/dev/kmsg was not read: {os.strerror(number).lower()}"


@pytest.mark.parametrize(
    ("errors", "truncated"),
    [([], False), ([errno.EPIPE], True)],
)
def test_kmsg_device_is_read_until_it_would_block(
    monkeypatch: pytest.MonkeyPatch, errors: list[int], truncated: bool
) -> None:
    script: list[Any] = [OSError(number, "x") for number in errors]
    script += [b"6,0,1,-;one\n", b"6,1,2,-;two\n", BlockingIOError(errno.EAGAIN, "x")]

    def read_once(_descriptor: int, _size: int) -> bytes:
        answer = script.pop(0)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, bytes)
        return answer

    monkeypatch.setattr(kernel_log.stat, "S_ISCHR", lambda _mode: True)
    monkeypatch.setattr(kernel_log.os, "read", read_once)
    data, cut = kernel_log._read_kmsg(os.devnull)
    assert (data, cut) == ("6,0,1,-;one\n6,1,2,-;two\n", truncated)


def test_a_kernel_that_writes_faster_than_it_is_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def overrun(_descriptor: int, _size: int) -> bytes:
        raise OSError(errno.EPIPE, "x")

    monkeypatch.setattr(kernel_log.stat, "S_ISCHR", lambda _mode: True)
    monkeypatch.setattr(kernel_log.os, "read", overrun)
    with pytest.raises(OSError, match="x"):
        kernel_log._read_kmsg(os.devnull)


@pytest.mark.parametrize(
    ("row", "text", "timed"),
    [
        (f"[Thu May 28 20:26:00 2026] {XID}", XID, True),
        (f"2026-05-28T20:26:00,859532+00:00 {XID}", XID, True),
        (f"2026-05-28T20:26:00.859532-04:00 node kernel: [  261.273226] {XID}", XID, True),
        (f"kern  :err   : 2026-05-28T20:26:00,859532+00:00 {XID}", XID, True),
        (f"May 28 20:26:00 node kernel: [680111.646286] {XID}", XID, True),
        (f"May 28 20:26:00 node kernel: {XID}", XID, True),
        (f"[155044.078590] {XID}", XID, False),
        (f"<4>[155044.078590] {XID}", XID, False),
        (f"[  +0.000844] {XID}", XID, False),
        (f"[ 130.456250] [ T1946] {XID}", XID, False),
        (f"kernel: {XID}", XID, False),
        (f"4,7,155044078590,-;{XID}", XID, False),
        (XID, XID, False),
        ("python3[4711]: segfault at 7f79", "python3[4711]: segfault at 7f79", False),
    ],
)
def test_forms_of_a_file(row: str, text: str, timed: bool) -> None:
    (line,), _lost = kernel_lines.parse_file(row + "\n", NOW)
    assert (line.text, line.seconds is not None) == (text, timed)


@pytest.mark.parametrize(
    "row",
    ["May 28 20:26:00 node sshd[77]: NVRM: Xid (PCI:0000:1b:00): 79, not the kernel", "", "   ", "-- Boot 0123 --"],
)
def test_what_the_kernel_did_not_say_is_no_line(row: str) -> None:
    assert kernel_lines.parse_file(row, NOW)[0] == []


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:01.500Z", 1.5),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00-0130", 5400.0),
        ("2026-13-45T99:99:99Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times(stamp: str | None, seconds: float | None) -> None:
    assert kernel_lines.seconds_of(stamp) == seconds


def test_a_syslog_time_is_never_in_the_future() -> None:
    (line,), _lost = kernel_lines.parse_file(f"Dec 24 18:00:00 node kernel: {XID}", NOW)
    assert line.seconds is not None
    assert line.seconds < NOW


def test_a_file_within_the_window(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_text("\n".join([entry("old", 7200), entry(XID, 60)]))
    log = read(path=str(path))
    assert (log["source"], [line["text"] for line in log["lines"]]) == ("file", [XID])
    assert len(read(None, path=str(path))["lines"]) == 2
    assert kernel_events.parse(log["lines"], log["now"])[0]["age_s"] == pytest.approx(60.0, abs=0.01)


def test_a_large_file_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "BYTES_MAX", 100)
    path = tmp_path / "dmesg"
    path.write_text("x" * 500 + "\n" + XID + "\n")
    log = read(path=str(path))
    assert (log["truncated"], [line["text"] for line in log["lines"]]) == (True, [XID])


def test_a_packed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(f"{XID}\n{XID}\n".encode())
    (tmp_path / "bundle.gz").write_bytes(packed)
    log = read(path=str(tmp_path / "bundle.gz"))
    assert (len(log["lines"]), log["truncated"]) == (2, False)
    (tmp_path / "broken.gz").write_bytes(packed[:-9])
    assert "packed and broken" in read(path=str(tmp_path / "broken.gz"))["missing"]
    (tmp_path / "none.gz").write_bytes(packed[:2] + b"\x00" * 20)
    assert "was not read" in read(path=str(tmp_path / "none.gz"))["missing"]
    monkeypatch.setattr(kernel_log, "BYTES_MAX", len(XID) + 1)
    log = read(path=str(tmp_path / "bundle.gz"))
    assert (len(log["lines"]), log["truncated"]) == (1, True)


def test_bad_files(tmp_path: Path) -> None:
    assert "no such file" in read(path=str(tmp_path / "none"))["missing"]
    assert "it is no file" in read(path=str(tmp_path))["missing"]
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in read(path=str(tmp_path / "pipe"))["missing"]
    assert "it is no file" in read(path=os.devnull)["missing"]
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4)
    assert read(path=str(tmp_path / "binary"))["missing"] is None
    (tmp_path / "empty").write_text("")
    assert read(path=str(tmp_path / "empty"))["lines"] == []


@pytest.mark.parametrize("options", [{"source": "tape"}, {"source": "file"}])
def test_a_wrong_source_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="Could not read the kernel log"):
        read(**options)
