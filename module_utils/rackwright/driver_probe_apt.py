# SPDX-License-Identifier: Apache-2.0
"""apt's side of the driver plan. Reads only; lists that the node does not have go to a temporary folder."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import repository_apt
from .apt_private import PrivateLists
from .apt_sources import own_suites, uris, with_components
from .driver_names import PINNING, upstream
from .driver_plan import Found, Request, available, choose_version, pending_changes
from .driver_plan_apt import (
    Split,
    brought,
    by_name,
    driver_in,
    exact,
    installed_version,
    offered_by,
    precedes,
    preferences,
    refuse_strange,
    split,
    unattended,
)
from .errors import RackwrightError
from .fetch import shown
from .packages import Candidate, Change, Installed
from .packages_apt import Apt, Run
from .repository import Wish, repository_key, wish_from_options
from .repository_options import NVIDIA_REPOSITORIES, REPOSITORY

SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d")
PIN = "/etc/apt/preferences.d/00-rackwright-nvidia.pref"
UNATTENDED = "/etc/apt/apt.conf.d/52rackwright-nvidia"


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
        found.entries += [entry.replace(" main ", " ", 1) if components else entry for entry in edited.entries]
        name = f"/{path.relative_to(root)}"
        if edited.entries:
            found.paths.append(name)
        if edited.additions or (edited.entries and not _in_order(path)):
            mode = f"{stat.S_IMODE(path.stat().st_mode) | 0o444:04o}"
            found.files.append({"path": name, "content": edited.content, "mode": mode})
    found.entries = list(dict.fromkeys(found.entries))
    return found


def vendor_urls(root: Path, own: Path) -> list[str]:
    """Return where NVIDIA's repositories are on this node: its own address, and the mirror in our entry."""
    return [NVIDIA_REPOSITORIES, *uris(own.read_text(encoding="utf-8") if own.is_file() else "")]


class AptSide:
    """What apt and the sources of one node say about a driver."""

    manager = "apt"

    def __init__(self, run: Run, node: str, lock_timeout: int, *, root: Path = Path("/")) -> None:
        self._run, self.node, self._root = run, node, root
        self.apt = Apt(run, node, lock_timeout, root=root)

    def statuses(self) -> dict[str, Installed]:
        """Return dpkg's database."""
        return self.apt.statuses()

    def resolve(self, request: Request, host: dict[str, Any], with_module: bool) -> Found:
        """Return exact versions for a request, or refuse it."""
        statuses = self.statuses()
        names = [*request.names(with_module), *request.precedes, *driver_in(statuses)]
        try:
            if request.source == "nvidia":
                return self._from_vendor(request, statuses, names, with_module)
            return self._from_archive(request, statuses, names, with_module, host["platform"]["codename"])
        except OSError as error:
            raise RackwrightError(
                "read the package lists",
                self.node,
                f"{error.strerror or error} ({error.filename or tempfile.gettempdir()})",
                f"Look at the file, or free space in {tempfile.gettempdir()}, and run again",
            ) from error

    def _found(self, chosen: str, request: Request, statuses: dict[str, Installed], fate: Split) -> Found:
        return Found(
            version=chosen,
            installed=installed_version(statuses, request.anchor),
            packages=fate.packages,
            remove=fate.remove,
            holds=sorted(row.partition("=")[0] for row in fate.packages),
            pending=pending_changes(fate.packages, statuses, fate.remove),
            files=[
                {"path": PIN, "content": preferences(chosen, request)},
                {"path": UNATTENDED, "content": unattended()},
            ],
        )

    # -- the distribution's archive ---------------------------------------------------------------------------------

    def _from_archive(
        self, request: Request, statuses: dict[str, Installed], names: list[str], with_module: bool, codename: str
    ) -> Found:
        sources = own_sources(self._root, codename, list(request.repository.get("components") or []))
        every = self._archive_candidates(request, names, sources)
        ours = repository_apt.source_path(self._root, REPOSITORY)
        candidates = offered_by(every, vendor_urls(self._root, ours), inside=False)
        anchor = statuses.get(request.anchor)
        versions = available(candidates, request.anchor)
        chosen = choose_version(versions, anchor.version if anchor else None, request.version, self.node)
        fate = split(chosen, request, by_name(candidates), statuses, with_module, self.node)
        # the archive's own helper is named exactly where another repository offers a newer one
        fate.packages = [exact(row, by_name(candidates), by_name(every)) for row in fate.packages]
        found = self._found(chosen, request, statuses, fate)
        found.available, found.source_paths, found.source_files = versions, sources.paths, sources.files
        found.precedes_remove = [name for name in sorted(statuses) if name.startswith(PINNING)]
        return found

    def _archive_candidates(self, request: Request, names: list[str], sources: Sources) -> list[Candidate]:
        """Return the offered versions; from the mirror itself where the node's own lists cannot answer."""
        candidates = [] if sources.files else self.apt.candidates(names)
        versions = available(candidates, request.anchor)
        if any(request.version in (version, upstream(version)) for version in versions):
            return candidates
        if not sources.entries:
            return candidates
        with PrivateLists(self._run, self.node, self.apt.lock_timeout, self._root) as lists:
            return lists.candidates(sources.entries, names)

    # -- NVIDIA's repository, a mirror or a bundle of it --------------------------------------------------------------

    def _from_vendor(
        self, request: Request, statuses: dict[str, Installed], names: list[str], with_module: bool
    ) -> Found:
        options = {**request.repository, "name": REPOSITORY}
        wish = wish_from_options(options, self.node)
        ring = repository_apt.keyring_path(self._root, REPOSITORY)
        key = repository_key(options, self.node, ring)
        configured = not repository_apt.plan(wish, key, self._root).outcome.changed and self.apt.lists_age() is not None
        with PrivateLists(self._run, self.node, self.apt.lock_timeout, self._root) as lists:
            lists.add_repository(wish, key)
            candidates = self._vendor_candidates(lists, wish, request, names, configured)
            versions = available(candidates, request.anchor)
            anchor = statuses.get(request.anchor)
            keep = anchor.version if anchor and (anchor.version in versions or not versions) else None
            chosen = choose_version(versions, keep, request.version, self.node, where=shown(wish.url))
            offers = by_name(candidates)
            fate = split(chosen, request, offers, statuses, with_module, self.node)
            found = self._found(chosen, request, statuses, fate)
            found.available, found.repository = versions, options
            found.precedes, found.precedes_remove, found.notes = precedes(request, offers, statuses)
            found.pending += pending_changes(found.precedes, statuses, found.precedes_remove)
            changes = self._simulate(lists, found, request) if found.pending else []
        found.pending = [change.text() for change in changes] or found.pending
        found.holds = sorted({*found.holds, *brought(changes), *(row.partition("=")[0] for row in found.precedes)})
        return found

    def _vendor_candidates(
        self, lists: PrivateLists, wish: Wish, request: Request, names: list[str], configured: bool
    ) -> list[Candidate]:
        """Return what the repository offers, asked anew unless the node's own lists of it have the version."""
        if configured:
            candidates = offered_by(lists.offered(names), [wish.url], inside=True)
            if any(upstream(version) == upstream(request.version) for version in available(candidates, request.anchor)):
                return candidates
        lists.update(wish)
        return offered_by(lists.offered(names), [wish.url], inside=True)

    def _simulate(self, lists: PrivateLists, found: Found, request: Request) -> list[Change]:
        """Try the whole transaction under the pins to come; refuse one that moves the branch or takes others away."""
        lists.use_preferences(str(found.files[0]["content"]), Path(PIN).name)
        removals = [f"{name}-" for name in [*found.remove, *found.precedes_remove]]
        flags = ["--allow-downgrades", "--no-install-recommends", "--allow-change-held-packages"]
        changes = lists.simulate(
            f"plan driver {upstream(found.version)}", "install", *flags, *found.precedes, *found.packages, *removals
        )
        refuse_strange(changes, found, request, self.node)
        return changes
