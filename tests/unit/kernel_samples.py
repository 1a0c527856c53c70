# SPDX-License-Identifier: Apache-2.0
"""Kernel logs of tests/unit/kernel_logs as cases, and lines as kernel_log gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOGS = Path(__file__).parent / "kernel_logs"
NOW = 1_780_000_000.0  # 2026-05-28
BOOTS = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)


@dataclass
class Case:
    """What one piece of a log must become: ``expect`` is kind, code, sub, severity, PCI address; None is no event."""

    origin: str
    expect: list[str | None] | None
    rows: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(word or "-" for word in self.expect or ["nothing"])


def cases(*names: str) -> list[Case]:
    """Read cases of these files; each has its origin, or the file is wrong."""
    found: list[Case] = []
    for name in names:
        origin = ""
        for row in (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines():
            if row.startswith("# origin: "):
                origin = row[len("# origin: ") :]
            elif row.startswith("# expect: "):
                words: list[str | None] = [None if word == "-" else word for word in row.split()[2:]]
                found.append(Case(origin, None if words == ["nothing"] else words))
                assert origin, row
                origin = ""
            elif row and not row.startswith("#"):
                found[-1].rows.append(row)
    return found


def line(text: str, age_s: float = 60.0, boot: str | None = BOOTS[0]) -> dict[str, Any]:
    """One line as kernel_log.read gives it, ``age_s`` seconds before NOW."""
    from ansible.module_utils.rackwright.kernel_lines import iso

    return {"time": iso(NOW - age_s), "boot_id": boot, "text": text}
