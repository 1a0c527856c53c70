# SPDX-License-Identifier: Apache-2.0
"""What is installed in an environment, read from its metadata: which distributions, and whether they are whole.

No package is imported and no index is asked: pip writes ``RECORD`` last, so a distribution without one, or with files
that are gone or of another size, was interrupted or damaged.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_METADATA_NAME = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)\.dist-info$")
_REQUIREMENT_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
# How compiled files are recorded, without size and hash: Python makes those that are gone anew.
_COMPILED = ".pyc,,"
# Import packages that do not carry the name of their distribution.
_TOP_LEVEL = {"torch": ("torch", "torchgen", "functorch")}


def canonical(name: str) -> str:
    """Return a distribution's name the way indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Dist:
    """One distribution's metadata directory."""

    name: str
    version: str
    info: Path

    @property
    def site(self) -> Path:
        return self.info.parent


def read_dists(site: Path) -> dict[str, list[Dist]]:
    """Return the distributions of one site-packages directory by canonical name; a name may occur twice."""
    found: dict[str, list[Dist]] = {}
    if not site.is_dir():
        return found
    for entry in sorted(site.iterdir()):
        match = _METADATA_NAME.match(entry.name)
        if match and not entry.name.startswith("~"):
            name = canonical(match["name"])
            found.setdefault(name, []).append(Dist(name, match["version"], entry))
    return found


def _record_rows(info: Path, leave_out: str = "\0") -> list[list[str]] | None:
    """Rows of the record, without lines of this ending."""
    try:
        with (info / "RECORD").open(newline="", encoding="utf-8") as stream:
            return [row for row in csv.reader(line for line in stream if not line.rstrip().endswith(leave_out)) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None


def dist_problem(dist: Dist) -> str | None:
    """Return what is wrong with one distribution, or None when every recorded file is there with its size."""
    if not (dist.info / "METADATA").is_file():
        return f"{dist.name} {dist.version} has no METADATA"
    rows = _record_rows(dist.info, _COMPILED)
    if not rows:
        return f"{dist.name} {dist.version} has no readable RECORD (interrupted install)"
    wrong, first = 0, ""
    # twenty thousand files: from the directory's descriptor each is found in fewer steps than by its whole path
    site = os.open(dist.site, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for row in rows:
            if not _is_there(row, site):
                wrong += 1
                first = first or row[0]
    finally:
        os.close(site)
    return (
        f"{dist.name} {dist.version}: {wrong} recorded files are missing or changed, first {first}" if wrong else None
    )


def _is_there(row: list[str], site: int) -> bool:
    size = row[2] if len(row) > 2 else ""
    try:
        status = os.stat(row[0], dir_fd=site)
        return not size or status.st_size == int(size)
    except (OSError, ValueError):
        return False


def problems_of(dists: dict[str, list[Dist]], name: str) -> str | None:
    """Return what is wrong with a distribution that should be installed once and whole."""
    entries = dists.get(canonical(name), [])
    if not entries:
        return f"{name} is not installed"
    if len(entries) > 1:
        return f"{name} is registered twice: {', '.join(entry.version for entry in entries)}"
    return dist_problem(entries[0])


def required_names(dist: Dist) -> set[str]:
    """Return the names a distribution may require (markers are not evaluated, extras are left out)."""
    names: set[str] = set()
    try:
        text = (dist.info / "METADATA").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return names
    for line in text.split("\n\n", 1)[0].splitlines():
        if line.startswith("Requires-Dist:") and "extra ==" not in line:
            match = _REQUIREMENT_NAME.match(line.split(":", 1)[1])
            if match:
                names.add(canonical(match[1]))
    return names


def closure(dists: dict[str, list[Dist]], roots: list[str]) -> dict[str, str]:
    """Return name and version of the roots and of everything they need that is installed here."""
    result: dict[str, str] = {}
    queue = [canonical(root) for root in roots]
    while queue:
        name = queue.pop()
        if name in result or name not in dists:
            continue
        result[name] = dists[name][0].version
        queue.extend(required_names(dists[name][0]))
    return dict(sorted(result.items()))


def _remove_recorded(dist: Dist, prefix: Path) -> None:
    parents = set()
    for row in _record_rows(dist.info) or []:
        target = Path(os.path.normpath(dist.site / row[0]))
        if prefix in target.parents and (target.is_file() or target.is_symlink()):
            target.unlink()
            parents.add(target.parent)
    for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        while parent != dist.site and prefix in parent.parents and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent


def remove_dist(site: Path, name: str, prefix: Path) -> None:
    """Remove every trace of a distribution, also of one that pip refuses to uninstall because its RECORD is gone."""
    name = canonical(name)
    for dist in read_dists(site).get(name, []):
        _remove_recorded(dist, prefix)
        if dist.info.exists():
            shutil.rmtree(dist.info)
    plain = name.replace("-", "_")
    for package in _TOP_LEVEL.get(name, (plain,)):
        if (site / package).is_dir() and not (site / package).is_symlink():
            shutil.rmtree(site / package)
    for leftover in site.glob(f"~{plain[1:]}*"):  # what pip leaves when it is killed while replacing a package
        shutil.rmtree(leftover)


def human(size: float) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@dataclass(frozen=True)
class Need:
    """Bytes that will be written below a path."""

    path: str
    size: int


def space_shortfall(needs: list[Need], space: dict[str, dict[str, int]]) -> str | None:
    """Return one sentence when a file system lacks room; paths on the same device share its free space."""
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        if need.path in space:
            by_device.setdefault(space[need.path]["device"], []).append(need)
    for together in by_device.values():
        total = sum(need.size for need in together)
        free = min(space[need.path]["free"] for need in together)
        if total > free:
            where = " and ".join(sorted({need.path for need in together}))
            return f"{where} needs {human(total)} and has {human(free)} free"
    return None


def read_space(paths: list[str]) -> dict[str, dict[str, int]]:
    """Return device number and free bytes of the file system each path is or will be on."""
    result = {}
    for path in paths:
        probe = Path(path)
        while not probe.exists() and probe != probe.parent:
            probe = probe.parent
        status = os.statvfs(probe)
        result[path] = {"device": os.stat(probe).st_dev, "free": status.f_bavail * status.f_frsize}
    return result
