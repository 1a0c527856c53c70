# SPDX-License-Identifier: Apache-2.0
"""Forms a kernel log comes in, as lines with time and boot: journal JSON, /dev/kmsg records, dmesg and syslog text.

Pure, and never raises: what is no entry is skipped, what has no time has None.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from dataclasses import dataclass
from typing import Any

TEXT_MAX = 2000  # characters of one message; a register dump is cut, its first line says what happened
_HEX32 = re.compile(r"[0-9a-f]{32}")
_MISSED = re.compile(r"Missed (\d+) kernel messages")
_KMSG = re.compile(r"(\d+),(\d+),(\d+),[^;]*;(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
_MONOTONIC = re.compile(r"(?:<\d+>)?\[\s*(\+?\d+\.\d+)\] ?(?:\[\s*[TC]\d+\] )?(.*)")
_DECODED = re.compile(r"\w+\s*:\w+\s*: (?=[\d\[])")  # dmesg --decode: "kern  :err   : "
_CTIME = re.compile(r"\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\] (.*)")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:?\d\d)?\s+(.*)")
_SYSLOG = re.compile(r"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)\s+(.*)")
# an identifier in front of the message: "host kernel: [ 12.3] text", "kernel: text"
_IDENTIFIER = re.compile(r"(?:\S+ )?kernel:\s*(?:\[\s*\d+\.\d+\]\s*)?(.*)")
_FOREIGN = re.compile(r"[^\s:]+ [\w.@/-]+\[\d+\]: ")
_DAY_S = 86400.0


@dataclass(frozen=True)
class Line:
    """One message: seconds since 1970 (None: the log does not say), boot id (None: likewise) and text."""

    seconds: float | None
    boot_id: str | None
    text: str

    def record(self) -> dict[str, str | None]:
        return {"time": iso(self.seconds), "boot_id": self.boot_id, "text": self.text}


def iso(seconds: float | None) -> str | None:
    """Return ISO 8601 in UTC with milliseconds; None for None and for what no calendar has."""
    if seconds is None:
        return None
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return None
    return f"{stamp}.{int(seconds % 1 * 1000):03d}Z"


def seconds_of(stamp: str | None) -> float | None:
    """Return what ``iso`` was given; None for what is no such time."""
    match = _ISO.match(f"{stamp} ") if stamp else None
    return _iso_seconds(match) if match else None


def boot_id(value: Any) -> str | None:
    """Return a boot id as the journal writes it, 32 hexadecimal digits; None for anything else."""
    text = str(value).strip().lower().replace("-", "") if value is not None else ""
    return text if _HEX32.fullmatch(text) else None


def parse_journal(output: str) -> tuple[list[Line], int]:
    """Return the kernel's entries of ``journalctl -o json`` in their order, and how many messages journald missed."""
    lines, lost = [], 0
    for row in output.splitlines():
        entry = _entry(row)
        if entry is None:
            continue
        text = message(entry.get("MESSAGE"))
        if entry.get("_TRANSPORT") == "driver":
            missed = _MISSED.search(text)
            lost += int(missed.group(1)) if missed else 0
        elif entry.get("_TRANSPORT") in ("kernel", None) and text:
            lines.append(Line(_journal_seconds(entry), boot_id(entry.get("_BOOT_ID")), text))
    return lines, lost


def _entry(row: str) -> dict[str, Any] | None:
    if not row.startswith("{"):
        return None
    try:
        entry = json.loads(row)
    except (ValueError, RecursionError):  # the last row of a program that was stopped
        return None
    return entry if isinstance(entry, dict) else None


def message(value: Any) -> str:
    """Return a journal field as text: a string, an array of bytes (not UTF-8), or several values of one field."""
    if isinstance(value, str):
        return _flat(value)
    if isinstance(value, list):
        if value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
            return _flat(bytes(value).decode("utf-8", "replace"))
        return _flat(" ".join(message(item) for item in value if isinstance(item, (str, list))))
    return ""


def _flat(text: str) -> str:
    """One line: a message of several lines (API mismatch, fallen off the bus) is one event."""
    return " ".join(text.split())[:TEXT_MAX]


def _journal_seconds(entry: dict[str, Any]) -> float | None:
    try:
        return int(entry["__REALTIME_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError, ValueError):
        return None


def parse_kmsg(data: str, boot: str | None, started: float | None) -> tuple[list[Line], int, int]:
    """Return the messages of /dev/kmsg, how many the ring buffer dropped before them, and how many between them.

    Args:
        data: records ``level,sequence,microseconds,flags;text``; rows that begin with a space belong to the one before.
        boot: the boot they are of.
        started: wall-clock seconds at which the kernel's clock was zero; None leaves lines without time.
    """
    lines: list[Line] = []
    before, between, following = 0, 0, None
    for row in data.split("\n"):
        match = _KMSG.match(row)
        if match is None:
            continue
        sequence = int(match.group(2))
        if following is None:
            before = sequence
        else:
            between += max(0, sequence - following)
        following = sequence + 1
        text = _flat(_ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), match.group(4)))
        if text:
            lines.append(Line(None if started is None else started + int(match.group(3)) / 1e6, boot, text))
    return lines, before, between


def parse_file(data: str, now: float) -> tuple[list[Line], int]:
    """Return the kernel lines of a file: journal JSON, kmsg records, dmesg (plain, -T, iso) or syslog text.

    Times without a zone are of this system's zone, as dmesg -T and syslog write them; a syslog time has no year: the
    last one that is not after ``now``. A plain dmesg has seconds since a boot that nobody names: no time.
    """
    if data.lstrip().startswith("{"):
        return parse_journal(data)
    lines, records = [], []
    for row in data.splitlines():
        if _KMSG.match(row):
            records.append(row)
            continue
        line = _text_line(row.rstrip(), now)
        if line is not None and line.text:
            lines.append(line)
    # a saved kmsg may begin anywhere: what went before was not lost, it was not saved
    return lines + parse_kmsg("\n".join(records), None, None)[0], 0


def _text_line(row: str, now: float) -> Line | None:
    if not row.strip() or row.startswith("-- "):
        return None
    row = _DECODED.sub("", row, count=1)
    for pattern, seconds in ((_CTIME, _ctime_seconds), (_ISO, _iso_seconds), (_MONOTONIC, None)):
        match = pattern.match(row)
        if match is not None:
            text = match.group(match.lastindex or 0)
            return _identified(seconds(match) if seconds else None, text)
    match = _SYSLOG.match(row)
    if match is not None:
        return _identified(_syslog_seconds(match.group(1), now), match.group(2))
    return _identified(None, row)


def _identified(seconds: float | None, text: str) -> Line | None:
    """Drop the identifier; what another program than the kernel wrote is no kernel message."""
    match = _IDENTIFIER.match(text)
    if match is not None:
        return Line(seconds, None, _flat(match.group(1)))
    if _FOREIGN.match(text):
        return None
    return Line(seconds, None, _flat(text))


def _ctime_seconds(match: re.Match[str]) -> float | None:
    return _local(match.group(1), "%a %b %d %H:%M:%S %Y")


def _syslog_seconds(stamp: str, now: float) -> float | None:
    year = time.localtime(now).tm_year
    seconds = _local(f"{stamp} {year}", "%b %d %H:%M:%S %Y")
    if seconds is not None and seconds > now + _DAY_S:
        return _local(f"{stamp} {year - 1}", "%b %d %H:%M:%S %Y")
    return seconds


def _local(stamp: str, form: str) -> float | None:
    try:
        return time.mktime(time.strptime(stamp, form))
    except (OverflowError, ValueError):
        return None


def _iso_seconds(match: re.Match[str]) -> float | None:
    stamp = f"{match.group(1)} {match.group(2)}"
    zone = match.group(4)
    fraction = float(f"0.{match.group(3)}") if match.group(3) else 0.0
    if zone is None:
        local = _local(stamp, "%Y-%m-%d %H:%M:%S")
        return None if local is None else local + fraction
    try:
        seconds = calendar.timegm(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))
    except (OverflowError, ValueError):
        return None
    if zone == "Z":
        return seconds + fraction
    digits = zone[1:].replace(":", "")
    shift = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return seconds + fraction - (shift if zone[0] == "+" else -shift)
