# SPDX-License-Identifier: Apache-2.0
"""What keeps the declared modes across boots: the declaration, a script and a unit; and what is told of a change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import RackwrightError
from .files import WantedFile, apply, difference
from .gpu_modes_boot import DECLARATION, text_of
from .self_pack import pack

UNIT = "rackwright-gpu-modes.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
SCRIPT = "/usr/local/lib/rackwright/gpu-modes.py"
_ENTRY = "gpu_modes_boot"
_PYTHON = "@PYTHON@"
_ENABLED_AT = re.compile(r"^WantedBy=(?P<targets>.+)$", re.MULTILINE)
#: arguments -> exit status and both outputs as one text
Run = Callable[[list[str]], "tuple[int, str]"]


def wanted_files(declaration: Mapping[str, Any], unit: str, python: str) -> list[WantedFile]:
    """Return the three files as they have to be; none of them may be there when nothing is declared."""
    texts = {
        DECLARATION: text_of(declaration),
        SCRIPT: pack(_ENTRY),
        UNIT_FILE: unit.replace(_PYTHON, python),
    }
    modes = {DECLARATION: 0o644, SCRIPT: 0o644, UNIT_FILE: 0o644}
    return [WantedFile(path, text if declaration else None, modes[path], 0, 0) for path, text in texts.items()]


def differences(wanted: list[WantedFile]) -> list[tuple[WantedFile, dict[str, Any]]]:
    """Return the files that are not as they have to be, each with its difference; that of the script is one line."""
    found = []
    for want in wanted:
        diff = difference(want)
        if diff and want.path == SCRIPT:
            diff = {
                **diff,
                "before": f"{'a script' if diff['before'] else 'none'}\n",
                "after": "the script of this run\n",
            }
            if want.content is None:
                diff["after"] = "none\n"
        if diff:
            found.append((want, diff))
    return found


def is_enabled(unit: str, root: str = "/") -> bool:
    """Whether the unit is linked into each target that its text names."""
    match = _ENABLED_AT.search(unit)
    targets = match["targets"].split() if match else []
    return all(os.path.lexists(os.path.join(root, f"etc/systemd/system/{one}.wants/{UNIT}")) for one in targets)


def keep(found: list[tuple[WantedFile, dict[str, Any]]], declared: bool, enabled: bool, run: Run) -> None:
    """Write or remove the files and make systemd know. Raises RackwrightError."""
    unit_changes = any(want.path == UNIT_FILE for want, _diff in found)
    if not declared and enabled and unit_changes:
        _systemctl(run, "disable", "--now", UNIT)  # it stays active after its work
    for want, _diff in found:
        apply(want)
    if unit_changes:
        _systemctl(run, "daemon-reload")
    if declared and not enabled:
        _systemctl(run, "enable", UNIT)


def _systemctl(run: Run, *arguments: str) -> None:
    status, said = run(["systemctl", *arguments])
    if status:
        cause = said or f"systemctl {arguments[0]} ended with status {status}"
        raise RackwrightError("keep the GPU modes across boots", UNIT, cause, f"Look at `systemctl status {UNIT}`")


def notify(units: list[str], run: Run) -> list[str]:
    """Restart the units that are there, without waiting for them; returns those that were told."""
    told = []
    for unit in units:
        if run(["systemctl", "cat", "--", unit])[0] == 0:
            _systemctl(run, "restart", "--no-block", unit)
            told.append(unit)
    return told
