# SPDX-License-Identifier: Apache-2.0
"""dnf's side of the driver plan. Reads only; NVIDIA's repository is asked before it is configured, from a temporary
folder of .repo files. dnf keeps the metadata it fetched, under the name the repository will have."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import repository_rpm
from .driver_names import matches
from .driver_plan import Found, Request, available, choose_version, pending_changes
from .driver_plan_apt import Split, brought, by_name, driver_in, installed_version, refuse_strange, split
from .errors import InvalidInputError, MissingError, RackwrightError
from .fetch import shown
from .packages import Candidate, Change, Installed
from .packages_base import Run, Transaction
from .packages_dnf import Dnf
from .packages_repos import REPOSITORIES, missing_repositories
from .packages_rpm import parse_module_list
from .repository import Wish, repository_key, wish_from_options
from .repository_options import REPOSITORY

KMODS = ("kmod-nvidia*", "dkms-nvidia*")
# DKMS is in EPEL, and some of what EPEL has needs CRB
NEEDED = ("epel", "crb")
SIGNED = ("not signed by a key", "signature")


@dataclass
class Beside:
    """Repositories beside NVIDIA's: ids to enable, their kinds, and whether one comes with a missing package."""

    ids: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    unseen: bool = False


class DnfSide:
    """What dnf and the repositories of one node say about a driver."""

    manager = "dnf"

    def __init__(self, run: Run, node: str, lock_timeout: int, *, root: Path = Path("/")) -> None:
        self._run, self.node, self._lock_timeout, self._root = run, node, lock_timeout, root
        self.dnf = Dnf(run, node, lock_timeout, root=root)

    def statuses(self) -> dict[str, Installed]:
        """Return rpm's database."""
        return self.dnf.statuses()

    def resolve(self, request: Request, host: dict[str, Any], with_module: bool) -> Found:
        """Return exact versions for a request, or refuse it."""
        if request.source != "nvidia":
            raise InvalidInputError(
                "choose the driver packages",
                self.node,
                f"{host['platform']['name']} has no NVIDIA driver in its own repositories",
                "Set stack_driver_source to nvidia, and plan again",
                expected="nvidia",
                found=request.source,
            )
        options = {**request.repository, "name": REPOSITORY}
        wish = wish_from_options(options, self.node)
        key = repository_key(options, self.node, repository_rpm.keyring_path(self._root, REPOSITORY))
        with self._private(wish, key) as dnf:
            # the user-space packages need some module package, so which one it is has to be said in any case
            found = self._resolve(dnf, wish, request, True)
        found.repository = options
        return found

    def _resolve(self, dnf: Dnf, wish: Wish, request: Request, with_module: bool) -> Found:
        statuses = self.statuses()
        names = sorted({*request.names(with_module), *driver_in(statuses)})
        candidates = self._candidates(dnf, wish, names)
        versions = available(candidates, request.anchor)
        anchor = statuses.get(request.anchor)
        keep = anchor.version if anchor and (anchor.version in versions or not versions) else None
        chosen = choose_version(versions, keep, request.version, self.node, where=shown(wish.url))
        fate = split(chosen, request, by_name(candidates), statuses, with_module, self.node)
        fate = self._with_one_kmod(fate, statuses)
        streams, notes = self._streams(dnf, wish, request)
        found = Found(
            version=chosen,
            installed=installed_version(statuses, request.anchor),
            available=versions,
            packages=fate.packages,
            remove=fate.remove,
            streams=streams,
            pending=pending_changes(fate.packages, statuses, fate.remove),
            notes=notes,
        )
        beside = self._beside()
        changes = self._simulate(dnf, found, request, statuses, beside) if found.pending else []
        found.enable = beside.kinds if found.pending else []
        found.pending = [change.text() for change in changes] or found.pending
        found.pending += [f"enable the module stream {spec}" for spec in self.dnf.pending_streams(streams)]
        found.holds = sorted({*(row.partition("=")[0] for row in fate.packages), *brought(changes)})
        return found

    @contextmanager
    def _private(self, wish: Wish, key: bytes) -> Iterator[Dnf]:
        """Yield a dnf that sees the node's repositories and NVIDIA's, the packages of all of its streams included."""
        folder = Path(tempfile.mkdtemp(prefix="rackwright-repos-"))
        try:
            ring, own = folder / "key", repository_rpm.source_path(self._root, wish.name)
            ring.write_bytes(key)
            for path in (self._root / REPOSITORIES).glob("*.repo"):
                if path != own:
                    shutil.copy(path, folder / path.name)
            for path, _ids, text in repository_rpm.others(self._root, own, [wish.url, *wish.replaces]):
                (folder / path.name).write_text(text, encoding="utf-8", errors="surrogateescape")
            extra = ["module_hotfixes=1"]
            if repository_rpm.plan(wish, key, self._root).outcome.changed:
                # what an earlier plan fetched may have been of another key or of another state of the mirror
                extra.append("metadata_expire=0")
            text = repository_rpm.entry(wish, str(ring), *extra)
            (folder / own.name).write_text(text, encoding="utf-8")
            options = [f"--setopt=reposdir={folder}"]
            yield Dnf(self._run, self.node, self._lock_timeout, options=options, root=self._root)
        finally:
            shutil.rmtree(folder)

    def _candidates(self, dnf: Dnf, wish: Wish, names: list[str]) -> list[Candidate]:
        """Return what NVIDIA's repository offers, whatever is locked on the node."""
        only = f"--repo={repository_rpm.repository_id(wish.name)}"
        try:
            return dnf.offered(names, only, "--disableplugin=versionlock")
        except RackwrightError as error:
            raise _unusable(error, wish.url, self.node) from error

    def _streams(self, dnf: Dnf, wish: Wish, request: Request) -> tuple[list[str], list[str]]:
        """Return the streams to enable, or refuse one the repository does not have.

        A mirror that was made without the metadata of modules has no streams at all; there nothing filters packages.
        """
        if not request.streams:
            return [], []
        module = request.streams[0].partition(":")[0]
        only = f"--repo={repository_rpm.repository_id(wish.name)}"
        known = parse_module_list(dnf.get("read the module streams", only, "module", "list"))
        if module not in known:
            return [], [f"{shown(wish.url)} has no module {module}; exact versions and locks keep the branch."]
        missing = [spec for spec in request.streams if spec.partition(":")[2] not in known[module]]
        if missing:
            raise InvalidInputError(
                "choose the module stream",
                self.node,
                f"{shown(wish.url)} has no stream {', '.join(missing)}, only {', '.join(known[module])}",
                "Set stack_driver_branch to one of those it has, and plan again",
                expected=missing,
                found=known[module],
            )
        return list(request.streams), []

    @staticmethod
    def _with_one_kmod(fate: Split, statuses: dict[str, Installed]) -> Split:
        """Let an installed module of the other flavour go: the packages of two flavours conflict."""
        names = {row.partition("=")[0] for row in fate.packages}
        wanted = {name for name in names if matches(name, KMODS) and name not in statuses}
        other = {name for name in names if matches(name, KMODS)} - wanted if wanted else set()
        packages = [row for row in fate.packages if row.partition("=")[0] not in other]
        return Split(packages, sorted({*fate.remove, *other}))

    def _beside(self) -> Beside:
        """Return what of EPEL and CRB is switched off and known. What is not may not be needed: a site's own mirror may
        carry DKMS, and where nothing does the simulation says so."""
        found = Beside()
        for kind in NEEDED:
            try:
                missing = missing_repositories(self.dnf, [kind])
            except MissingError:
                continue
            found.ids += [row.id for row in missing.known]
            found.kinds += [kind] if missing.known or missing.packages else []
            found.unseen = found.unseen or bool(missing.packages)
        return found

    def _simulate(
        self, dnf: Dnf, found: Found, request: Request, statuses: dict[str, Installed], beside: Beside
    ) -> list[Change]:
        """Try the whole transaction; refuse one that moves the branch or takes others away."""
        movable = sorted(driver_in(statuses))
        options = [f"--enablerepo={one}" for one in beside.ids]
        try:
            changes = dnf.plan(Transaction(found.packages, found.remove, True, movable), *options)
        except MissingError as error:
            if not (beside.unseen and error.expected == "dkms"):
                raise
            found.notes.append("DKMS comes from EPEL, whose package (epel-release) is installed before the driver.")
            return []
        refuse_strange(changes, found, request, self.node)
        return changes


def _unusable(error: RackwrightError, url: str, node: str) -> RackwrightError:
    """Say what is wrong with a repository in terms of the inputs that name it."""
    if any(word in error.cause for word in SIGNED):
        return MissingError(
            "trust the repository",
            node,
            f"{shown(url)} is not signed by the expected key, or was changed after it was signed",
            "Make the mirror again, or give its own key as stack_repository_key; the check is never left out",
            found=error.cause,
        )
    if "lock" in error.action or "space left" in error.cause:
        return error
    return MissingError(
        "read the repository",
        node,
        f"{shown(url)} cannot be used: {error.cause}",
        "Correct stack_repository_url, or make it reachable from the node (DNS, route, proxy)",
        found=error.cause,
    )
