# SPDX-License-Identifier: Apache-2.0
"""A Python environment as its files tell it: interpreter, settings, packages. Nothing of it is run or imported."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from .wheels import Dist, canonical, dist_problem, read_dists

_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\S+)", re.MULTILINE)


def read_venv(
    path: Path, packages: list[str] | None, judged: dict[Path, str | None] | None = None
) -> dict[str, Any] | None:
    """Return the record of one environment, None when it is not there.

    Args:
        path: directory of the environment.
        packages: names of the packages to record (one not installed is None); None records every package.
        judged: damage found before by directory of metadata; two roles may record the packages of one environment.

    Returns:
        ``python`` (version it was built for), ``executable`` (real path of its interpreter), ``settings`` (hash of
        pyvenv.cfg), ``packages`` by name, ``damage`` (packages whose recorded files are not all there), ``problems``,
        ``all`` (whether every package is recorded).

    Raises:
        OSError: the environment cannot be read.
    """
    try:
        names = set(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    settings = (path / "pyvenv.cfg").read_bytes() if "pyvenv.cfg" in names else b""
    version = _VERSION.search(settings.decode("utf-8", "replace"))
    executable = os.path.realpath(path / "bin/python")
    dists = _dists(path)
    known = {} if judged is None else judged
    wanted = sorted(dists) if packages is None else sorted(packages)
    return {
        "python": version.group(1) if version else None,
        "executable": executable,
        "settings": hashlib.sha256(settings).hexdigest() if settings else None,
        "packages": {name: _versions(dists.get(canonical(name), [])) for name in wanted},
        "damage": {name: why for name in wanted if (why := _damage(dists.get(canonical(name), []), known))},
        "problems": _problems(path, names, executable),
        "all": packages is None,
    }


def _dists(path: Path) -> dict[str, list[Dist]]:
    found: dict[str, list[Dist]] = {}
    seen = set()
    for site in sorted([*path.glob("lib/python3*/site-packages"), *path.glob("lib64/python3*/site-packages")]):
        real = os.path.realpath(site)  # lib64 is a link to lib where it is not a directory of its own
        if real not in seen:
            seen.add(real)
            for name, dists in read_dists(site).items():
                found.setdefault(name, []).extend(dists)
    return found


def _versions(dists: list[Dist]) -> str | None:
    return ", ".join(sorted(dist.version for dist in dists)) or None


def _damage(dists: list[Dist], judged: dict[Path, str | None]) -> str | None:
    for dist in dists:
        if dist.info not in judged:
            judged[dist.info] = dist_problem(dist)
        if judged[dist.info]:
            return judged[dist.info]
    return None


def _problems(path: Path, names: set[str], executable: str) -> list[str]:
    problems = []
    if not os.access(executable, os.X_OK) or os.path.isdir(executable):
        problems.append("has no interpreter that runs")
    if "pyvenv.cfg" not in names:
        problems.append("has no pyvenv.cfg")
    if not (path / "bin/activate").is_file():
        problems.append("has no bin/activate")
    return problems
