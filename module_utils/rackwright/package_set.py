# SPDX-License-Identifier: Apache-2.0
"""Bring the packages of a node to a wanted set in one transaction, with apt or with dnf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import MissingError, RackwrightError
from .packages import Change, Installed, matching
from .packages_base import PackageManager, Transaction
from .packages_repos import enable, missing_repositories


@dataclass(frozen=True)
class Wish:
    """What the caller wants."""

    packages: list[str]
    optional: list[str]
    remove: list[str]
    upgrade: str
    cache_valid_time: int
    hold: list[str]
    hold_sources: list[str]
    release: list[str]
    allow_downgrade: bool
    streams: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What was done, or in check mode would be done."""

    repaired: list[str] = field(default_factory=list)
    cache_updated: bool = False
    changes: list[Change] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    on_hold: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    enabled: list[str] = field(default_factory=list)
    waited_s: float = 0.0

    def to_result(self) -> dict[str, Any]:
        """Return the module's answer."""
        lines = [f"repair {name}" for name in self.repaired]
        lines += [f"enable the repository {name}" for name in self.enabled]
        lines += [f"enable the module stream {spec}" for spec in self.streams]
        lines += [change.text() for change in self.changes]
        lines += [
            f"install {name.replace('=', ' ')} (its dependencies are known once the package lists are updated)"
            for name in self.unresolved
        ]
        lines += [f"hold {name}" for name in self.held] + [f"release {name}" for name in self.released]
        return {
            "changed": bool(lines),
            "actions": lines,
            "repaired": self.repaired,
            "cache_updated": self.cache_updated,
            "unavailable": self.unavailable,
            "held": self.held,
            "on_hold": self.on_hold,
            "streams": self.streams,
            "enabled": self.enabled,
            "released": self.released,
            "lock_waited_s": round(self.waited_s, 1),
            "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)} if lines else {},
        }


class PackageSet:
    """One run over one node."""

    def __init__(self, manager: PackageManager, wish: Wish, check_mode: bool) -> None:
        self.manager, self.wish, self.check_mode = manager, wish, check_mode
        self.outcome = Outcome()
        self._unknown: list[str] | None = None
        # a repository comes with a package that check mode does not install
        self.unseen = False

    def run(self) -> Outcome:
        """Repair, refresh, upgrade, install, hold: each only where it is needed."""
        statuses = self._repair()
        self._enable()
        helpers = self.manager.hold_helpers() if self.wish.hold or self.wish.hold_sources else []
        missing = self.manager.unsatisfied([*helpers, *self.wish.packages, *self.wish.optional], statuses)
        unwanted = [name for name in self.wish.remove if name in statuses]
        self.outcome.streams = self.manager.pending_streams(self.wish.streams) if self.wish.streams else []
        if missing or self.outcome.streams or self.wish.upgrade != "none":
            self._refresh(missing)
        # holds come first so that the upgrade already respects them; what holds may have to be installed before
        if not helpers:
            self._holds(statuses)
            self._upgrade()
        self._change(missing, unwanted)
        if helpers and not self.check_mode:
            self._holds(self.manager.statuses())
            self._upgrade()
        if self.outcome.changes and not self.check_mode:
            self._holds(self.manager.statuses())
        self.outcome.waited_s = self.manager.waited
        return self.outcome

    def _repair(self) -> dict[str, Installed]:
        if self.check_mode:
            statuses = self.manager.statuses()
            self.outcome.repaired = self.manager.interrupted(statuses)
            return statuses
        try:
            self.outcome.repaired = self.manager.repair()
        except RackwrightError:
            statuses = self.manager.statuses()
            if not self._replaces(self.manager.interrupted(statuses), statuses):
                raise
        return self.manager.statuses()

    def _replaces(self, broken: list[str], statuses: dict[str, Installed]) -> bool:
        """Whether this transaction brings every broken package to another version, or removes it.

        A kernel module that does not compile cannot be configured: the way out of that is just such a transaction.
        """
        wanted = dict(request.partition("=")[::2] for request in self.wish.packages)
        unwanted = {
            name for name in broken if name in statuses and wanted.get(name) in (None, "", statuses[name].version)
        }
        return bool(broken) and unwanted <= set(self.wish.remove)

    def _enable(self) -> None:
        """Enable repositories the node knows, and install the packages that bring the others."""
        if not self.wish.enable:
            return
        found = missing_repositories(self.manager, self.wish.enable)
        self.outcome.enabled = [row.id for row in found.known]
        if self.check_mode:
            self.manager.assume_enabled = self.outcome.enabled
            self.unseen = bool(found.packages)
        else:
            enable(self.manager, found.known)
        if found.packages:
            transaction = Transaction(found.packages)
            self.outcome.changes += self.manager.plan(transaction)
            if not self.check_mode:
                self.manager.apply(transaction)

    def _refresh(self, missing: list[str]) -> None:
        """Update the lists when they are older than allowed, or do not know something that is wanted."""
        age = self.manager.lists_age()
        stale = age is None or age > self.wish.cache_valid_time
        if self.check_mode:
            return
        if not stale:
            self._unknown = self.manager.unknown(missing)
            if not self._unknown:
                return
        self._unknown = None
        self.manager.update()
        self.outcome.cache_updated = True

    def _upgrade(self) -> None:
        if self.wish.upgrade == "none" or (self.check_mode and self.outcome.repaired):
            return
        changes = self.manager.plan_upgrade(self.wish.upgrade)
        if changes and not self.check_mode:
            self.manager.upgrade(self.wish.upgrade, changes)
        self.outcome.changes += changes

    def _change(self, missing: list[str], unwanted: list[str]) -> None:
        """Switch module streams and install; where the installation fails, the earlier streams come back."""
        if not self.outcome.streams:
            self._install(missing, unwanted)
            return
        if self.check_mode:
            self.manager.ignore_streams = True
            self._install(missing, unwanted)
            return
        self._unknown = None
        saved = self.manager.switch_streams(self.outcome.streams)
        try:
            self._install(missing, unwanted)
        except RackwrightError:
            self.manager.restore_streams(saved)
            raise

    def _install(self, missing: list[str], unwanted: list[str]) -> None:
        """Install and remove in one transaction, so that a change of names never leaves the node with neither."""
        unknown = self.manager.unknown(missing) if self._unknown is None else self._unknown
        self.outcome.unavailable = [request for request in unknown if request in self.wish.optional]
        wanted = [request for request in missing if request not in self.outcome.unavailable]
        if self.check_mode:
            self.outcome.unresolved = [request for request in wanted if request in unknown]
            wanted = [request for request in wanted if request not in unknown]
            if self.outcome.repaired:
                self.outcome.unresolved += wanted
                return
        if not (wanted or unwanted):
            return
        transaction = Transaction(wanted, unwanted, self.wish.allow_downgrade, self.outcome.on_hold)
        try:
            self.outcome.changes += self.manager.plan(transaction)
        except MissingError:
            if not self.unseen:
                raise
            self.outcome.unresolved += wanted
        if not self.check_mode:
            self.manager.apply(transaction)

    def _holds(self, statuses: dict[str, Installed]) -> None:
        wanted = self.manager.matching_holds(statuses, self.wish.hold)
        sources = set(matching({package.source for package in statuses.values()}, self.wish.hold_sources))
        wanted |= {name for name, package in statuses.items() if package.source in sources}
        if not (wanted or self.wish.release):
            return
        held = self.manager.holds()
        hold = sorted(wanted - held)
        release = sorted(set(matching(held, self.wish.release)) - wanted)
        if not self.check_mode:
            self.manager.set_holds(hold, release)
        self.outcome.on_hold = sorted(wanted)
        self.outcome.held = sorted({*self.outcome.held, *hold})
        self.outcome.released = sorted({*self.outcome.released, *release})
