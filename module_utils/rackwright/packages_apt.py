# SPDX-License-Identifier: Apache-2.0
"""apt and dpkg as one object: waits for their locks, repairs what was interrupted, explains what fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from .errors import RackwrightError, TimedOutError
from .packages import (
    STATUS_FORMAT,
    Candidate,
    Change,
    Installed,
    explain,
    is_lock_failure,
    last_cause,
    lock_error,
    parse_madison,
    parse_simulation,
    parse_status,
    security_only,
    split_request,
    unsatisfied,
)
from .packages_base import PackageManager, Run, Transaction, module_runner

__all__ = ["Apt", "Run", "module_runner"]

# a conffile a person changed is kept; Error-Mode makes `update` fail where it would go on with old lists
GET_OPTIONS = (
    "-y",
    "-q",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "APT::Update::Error-Mode=any",
)
UPGRADES = {
    "safe": ("upgrade", "--with-new-pkgs"),
    "security": ("upgrade", "--with-new-pkgs"),
    "full": ("dist-upgrade",),
}
STAMP = "var/lib/rackwright/apt-lists.stamp"


class Apt(PackageManager):
    """apt and dpkg of one node."""

    kind = "apt"

    # -- running ---------------------------------------------------------------------------------------------------

    def _is_locked(self, text: str) -> bool:
        return is_lock_failure(text)

    def _lock_error(self, text: str, waited: float) -> TimedOutError:
        return lock_error(text, self.node, waited)

    def get(self, action: str, *arguments: str) -> str:
        """Run apt-get; raise the explained error when it fails."""
        # apt waits for one of its locks only; the waiting for all of them is done here
        code, text = self._locked_run(
            ["apt-get", *GET_OPTIONS, "-o", "DPkg::Lock::Timeout=0", *self._options, *arguments]
        )
        if code != 0:
            raise explain(text, action, self.node, self.free_mib())
        return text

    def simulate(self, action: str, *arguments: str) -> list[Change]:
        """Return what apt-get would do."""
        code, out, err = self._run(
            ["apt-get", *GET_OPTIONS, "-s", "-o", "Debug::NoLocking=true", *self._options, *arguments]
        )
        if code != 0:
            raise explain(f"{out}\n{err}", action, self.node, self.free_mib())
        return parse_simulation(out)

    # -- looking ---------------------------------------------------------------------------------------------------

    def statuses(self) -> dict[str, Installed]:
        """Return dpkg's database."""
        code, out, err = self._run(["dpkg-query", "-W", "-f", STATUS_FORMAT])
        if code != 0 and not out:
            raise RackwrightError(
                "read dpkg's database",
                self.node,
                last_cause(err),
                "Restore /var/lib/dpkg/status from /var/backups/dpkg.status.*",
            )
        return parse_status(out)

    def candidates(self, names: Iterable[str]) -> list[Candidate]:
        """Return every version the sources offer of the named packages, newest first."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        _code, out, _err = self._run(["apt-cache", *self._options, "madison", *wanted])
        return parse_madison(out)

    def unsatisfied(self, requests: Iterable[str], statuses: dict[str, Installed]) -> list[str]:
        """Return the requests that dpkg's database does not meet."""
        return unsatisfied(requests, statuses)

    def unknown(self, requests: list[str]) -> list[str]:
        """Return the requests no source can meet."""
        offered = self.candidates(split_request(request)[0] for request in requests)
        versions = {(candidate.name, candidate.version) for candidate in offered}
        names = {candidate.name for candidate in offered}
        unknown = []
        for request in requests:
            name, version = split_request(request)
            if (name, version) not in versions if version else name not in names:
                unknown.append(request)
        return unknown

    def plan_upgrade(self, kind: str) -> list[Change]:
        """Return what an upgrade would do. Security updates leave packages on hold and install nothing new."""
        changes = self.simulate("plan the upgrade", *UPGRADES[kind])
        if kind == "security":
            held = self.holds()
            changes = [change for change in security_only(changes) if change.name not in held and change.old]
        return changes

    def upgrade(self, kind: str, changes: list[Change]) -> None:
        """Make the upgrade that was planned."""
        command: tuple[str, ...] = UPGRADES[kind]
        if kind == "security":
            command = ("install", "--only-upgrade", "--no-install-recommends", *(change.name for change in changes))
        self.get("upgrade the packages", *command)

    def _command(self, transaction: Transaction) -> list[str]:
        command = ["install", "--no-install-recommends", "--allow-change-held-packages"]
        if transaction.downgrade:
            command.insert(1, "--allow-downgrades")
        return [*command, *transaction.install, *(f"{name}-" for name in transaction.remove)]

    def plan(self, transaction: Transaction) -> list[Change]:
        """Return what a transaction would do."""
        return self.simulate(transaction.action, *self._command(transaction))

    def apply(self, transaction: Transaction) -> None:
        """Make a transaction."""
        self.get(transaction.action, *self._command(transaction))

    def holds(self) -> set[str]:
        """Return the packages on hold."""
        code, out, err = self._run(["apt-mark", "showhold"])
        if code != 0:
            raise explain(f"{out}\n{err}", "read the holds", self.node)
        return set(out.split())

    def lists_age(self) -> float | None:
        """Return the age of the package lists in seconds; None when there are none or the sources changed since."""
        lists, stamp = self._root / "var/lib/apt/lists", self._root / STAMP
        try:
            updated = stamp.stat().st_mtime
        except OSError:
            return None
        if not any(path.name.endswith(("_InRelease", "_Release")) for path in lists.glob("*")):
            return None
        sources = [self._root / "etc/apt/sources.list", *(self._root / "etc/apt/sources.list.d").glob("*")]
        if any(path.stat().st_mtime > updated for path in sources if path.exists()):
            return None
        return max(0.0, time.time() - updated)

    # -- acting ----------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Refresh the package lists and remember when."""
        self.get("update the package lists", "update")
        stamp = self._root / STAMP
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
        os.utime(stamp)

    def set_holds(self, hold: Sequence[str], release: Sequence[str]) -> None:
        """Put packages on hold and release others."""
        for verb, names in (("hold", hold), ("unhold", release)):
            if names:
                code, text = self._locked_run(["apt-mark", verb, *names])
                if code != 0:
                    raise explain(text, f"{verb} packages", self.node)

    def interrupted(self, statuses: dict[str, Installed]) -> list[str]:
        """Return what an interrupted run left half done; ``(journal)`` when dpkg died while writing its database."""
        names = sorted(name for name, package in statuses.items() if package.broken)
        journal = self._root / "var/lib/dpkg/updates"
        if not names and journal.is_dir() and any(path.name.isdigit() for path in journal.iterdir()):
            return ["(journal)"]
        return names

    def repair(self) -> list[str]:
        """Finish what an interrupted dpkg left; return the packages that needed it.

        Configure first. What then is still half unpacked has to be unpacked again from its archive, and what
        depends on packages that never came is completed by apt. Anything left after that is a real error.
        """
        before = self.statuses()
        names = self.interrupted(before)
        if not names:
            return []
        # no module can do this: ansible.builtin.apt fails before it acts on an interrupted database
        _code, text = self._locked_run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"])
        left = self.statuses()
        torn = sorted(name for name, package in left.items() if package.needs_unpack)
        if torn:
            self.get(
                f"unpack {', '.join(torn)} again",
                "install",
                "--reinstall",
                "--no-install-recommends",
                "--allow-change-held-packages",
                *torn,
            )
        if self.interrupted(self.statuses()):
            text = self.get(f"repair {', '.join(names)}", "install", "--fix-broken")
        still = self.interrupted(self.statuses())
        if still:
            raise explain(text, f"repair {', '.join(still)}", self.node, self.free_mib())
        return names
