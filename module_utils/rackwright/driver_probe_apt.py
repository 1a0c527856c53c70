# SPDX-License-Identifier: Apache-2.0
"""apt's side of the driver plan. Reads only; lists that the node does not have go to a temporary folder."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .apt_private import PrivateLists
from .apt_sources import own_suites, with_components
from .driver_names import upstream
from .driver_plan import Found, Request, available, choose_version, pending_changes
from .driver_plan_apt import by_name, driver_in, preferences, split
from .packages import Candidate, Installed
from .packages_apt import Apt, Run

SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d")
PIN = "/etc/apt/preferences.d/00-rackwright-nvidia.pref"


def source_files(root: Path) -> list[Path]:
    """Return apt's source files in the order apt reads them."""
    single, folder = root / SOURCES[0], root / SOURCES[1]
    found = [single] if single.is_file() else []
    if folder.is_dir():
        found += sorted(path for path in folder.iterdir() if path.suffix in (".list", ".sources") and path.is_file())
    return found


@dataclass
class Sources:
    """The distribution's own entries among apt's sources: every file that has some, those to write, and entries with
    just the components."""

    paths: list[str]
    files: list[dict[str, Any]]
    entries: list[str]


def _in_order(path: Path) -> bool:
    """Whether everybody can read a source file and it has the owner of its folder: apt's own rules."""
    own, folder = path.stat(), path.parent.stat()
    return own.st_mode & 0o444 == 0o444 and (own.st_uid, own.st_gid) == (folder.st_uid, folder.st_gid)


def own_sources(root: Path, codename: str, components: list[str]) -> Sources:
    """Return the distribution's source files, and what to write (for ``config_files``) into those that are not right:
    a component lacks, or not everybody can read them."""
    found = Sources([], [], [])
    for path in source_files(root):
        content = path.read_text(encoding="utf-8", errors="replace")
        edited = with_components(content, path.suffix == ".sources", own_suites(codename), components)
        found.entries += [entry.replace(" main ", " ", 1) for entry in edited.entries]
        name = f"/{path.relative_to(root)}"
        if edited.entries:
            found.paths.append(name)
        if edited.additions or (edited.entries and not _in_order(path)):
            mode = f"{stat.S_IMODE(path.stat().st_mode) | 0o444:04o}"
            found.files.append({"path": name, "content": edited.content, "mode": mode})
    found.entries = list(dict.fromkeys(found.entries))
    return found


class AptSide:
    """What apt and the sources of one node say about a driver."""

    manager = "apt"

    def __init__(self, run: Run, node: str, lock_timeout: int, *, root: Path = Path("/")) -> None:
        self._run, self.node, self._root = run, node, root
        self.apt = Apt(run, node, lock_timeout)

    def statuses(self) -> dict[str, Installed]:
        """Return dpkg's database."""
        return self.apt.statuses()

    def resolve(self, request: Request, host: dict[str, Any], with_module: bool) -> Found:
        """Return exact versions for a request, or refuse it."""
        statuses = self.statuses()
        codename = host["platform"]["codename"]
        sources = own_sources(self._root, codename, list(request.repository.get("components") or []))
        names = [*request.names(with_module), *driver_in(statuses)]
        candidates = self._candidates(request, names, sources)
        anchor = statuses.get(request.anchor)
        versions = available(candidates, request.anchor)
        installed = anchor.version if anchor else None
        chosen = choose_version(versions, installed, request.version, self.node)
        offers = by_name(candidates)
        fate = split(chosen, request, offers, statuses, with_module, self.node)
        return Found(
            version=chosen,
            installed=installed,
            available=versions,
            packages=fate.packages,
            remove=fate.remove,
            holds=sorted(row.partition("=")[0] for row in fate.packages),
            pending=pending_changes(fate.packages, statuses, fate.remove),
            files=[{"path": PIN, "content": preferences(chosen, request)}],
            source_paths=sources.paths,
            source_files=sources.files,
        )

    def _candidates(self, request: Request, names: list[str], sources: Sources) -> list[Candidate]:
        """Return the offered versions; from the mirror itself where the node's own lists cannot answer."""
        candidates = [] if sources.files else self.apt.candidates(names)
        versions = available(candidates, request.anchor)
        if any(request.version in (version, upstream(version)) for version in versions):
            return candidates
        if not sources.entries:
            return candidates
        with PrivateLists(self._run, self.node, self.apt.lock_timeout) as lists:
            return lists.candidates(sources.entries, names)
