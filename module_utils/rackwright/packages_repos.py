# SPDX-License-Identifier: Apache-2.0
"""The repositories a Red Hat family node knows: which there are, and how those that are switched off are enabled.

EPEL and CRB are no part of a bare installation, and DKMS comes from EPEL. CRB is there but switched off, under a name
that differs between RHEL, its rebuilds and the release; EPEL comes with a package, or in a file somebody lays down.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import MissingError
from .files import WantedFile
from .files import apply as write_file
from .packages_base import PackageManager

REPOSITORIES = "etc/yum.repos.d"
#: subscription-manager writes this file; what is edited in it by hand is lost
MANAGED = "redhat.repo"
#: what a repository is called on RHEL, on its rebuilds and on release 8
NAMES = {
    "crb": re.compile(r"^(?:crb|powertools|codeready-builder-for-rhel-\d+-[a-z0-9_]+-rpms|ol\d+_codeready_builder)$"),
    "epel": re.compile(r"^(?:epel|ol\d+_developer_EPEL)$"),
}
#: packages that bring a repository's file
PACKAGES = {"epel": "epel-release"}
_HEADER = re.compile(r"^\[([^\]]+)\]\s*$")


@dataclass(frozen=True)
class Repository:
    """One section of a .repo file."""

    id: str
    path: str
    enabled: bool
    baseurl: str = ""


@dataclass
class Missing:
    """What has to be done for repositories that are not enabled."""

    known: list[Repository] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)


def parse_repositories(text: str, path: str) -> list[Repository]:
    """Return the sections of a .repo file. ``enabled`` is on where nothing is said, as dnf has it."""
    found = []
    for block in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        header = _HEADER.match(block.partition("\n")[0])
        if header:
            values = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
            on = values.get("enabled", "1").lower() in ("1", "true", "yes", "on")
            found.append(Repository(header[1], path, on, values.get("baseurl", "")))
    return found


def repositories(root: Path) -> list[Repository]:
    """Return every repository that the node's files name."""
    found: list[Repository] = []
    for path in sorted((root / REPOSITORIES).glob("*.repo")):
        found += parse_repositories(path.read_text(encoding="utf-8", errors="replace"), str(path))
    return found


def with_enabled(text: str, ids: set[str], value: bool) -> str:
    """Return the text of a .repo file with some of its sections switched on or off; the rest stays as it is."""
    wanted, lines, section, done = f"enabled={int(value)}", [], "", True
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            section, done = header[1], header[1] not in ids
            lines.append(line)
            if not done and not re.search(rf"^\[{re.escape(section)}\][^\[]*^enabled[ \t]*=", text, re.MULTILINE):
                lines.append(wanted)
            continue
        if section in ids and re.match(r"enabled[ \t]*=", line):
            line = wanted
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def missing_repositories(manager: PackageManager, wanted: list[str]) -> Missing:
    """Return what enables the wanted kinds of repository (``epel``, ``crb``).

    Raises:
        MissingError: the node knows none of that kind, and no package that brings it is offered.
    """
    found, rows = Missing(), repositories(manager.root)
    for kind in dict.fromkeys(name.lower() for name in wanted):
        pattern = NAMES.get(kind) or re.compile(rf"^{re.escape(kind)}$")
        known = [row for row in rows if pattern.match(row.id)]
        if any(row.enabled for row in known):
            continue
        package = PACKAGES.get(kind)
        if known:
            found.known.append(known[0])
        elif package and not manager.unknown([package]):
            found.packages.append(package)
        else:
            raise _nobody_knows(kind, package, manager.node)
    return found


def _nobody_knows(kind: str, package: str | None, node: str) -> MissingError:
    cause = f"the node knows no repository of that name{f' and no repository offers {package}' if package else ''}"
    return MissingError(
        f"enable the repository {kind.upper()}",
        node,
        cause,
        f"Lay a .repo file for {kind.upper()} or your mirror of it into /etc/yum.repos.d, or leave it out of the list",
        expected=kind,
    )


def enable(manager: PackageManager, rows: list[Repository]) -> None:
    """Enable repositories in the way their files are kept."""
    for row in rows:
        path = Path(row.path)
        if path.name == MANAGED and (manager.root / "usr/sbin/subscription-manager").exists():
            manager.execute(f"enable the repository {row.id}", ["subscription-manager", "repos", f"--enable={row.id}"])
            continue
        content = with_enabled(path.read_text(encoding="utf-8", errors="replace"), {row.id}, True)
        write_file(WantedFile(row.path, content, 0o644, os.geteuid(), os.getegid()))
