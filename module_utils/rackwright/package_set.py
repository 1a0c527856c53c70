# SPDX-License-Identifier: Apache-2.0
"""Bring the packages of a Debian-family node to a wanted set in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .packages import Change, Installed, matching, security_only, split_request, unsatisfied
from .packages_apt import Apt

UPGRADES = {
    "safe": ("upgrade", "--with-new-pkgs"),
    "security": ("upgrade", "--with-new-pkgs"),
    "full": ("dist-upgrade",),
}


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
    waited_s: float = 0.0

    def to_result(self) -> dict[str, Any]:
        """Return the module's answer."""
        lines = [f"repair {name}" for name in self.repaired] + [change.text() for change in self.changes]
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
            "released": self.released,
            "lock_waited_s": round(self.waited_s, 1),
            "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)} if lines else {},
        }


class PackageSet:
    """One run over one node."""

    def __init__(self, apt: Apt, wish: Wish, check_mode: bool) -> None:
        self.apt, self.wish, self.check_mode = apt, wish, check_mode
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Repair, refresh, upgrade, install, hold: each only where it is needed."""
        statuses = self._repair()
        missing = unsatisfied(self.wish.packages + self.wish.optional, statuses)
        unwanted = [name for name in self.wish.remove if name in statuses]
        if missing or self.wish.upgrade != "none":
            self._refresh(missing)
        # holds come first so that the upgrade already respects them
        self._holds(statuses)
        self._upgrade()
        self._install(missing, unwanted)
        if self.outcome.changes and not self.check_mode:
            self._holds(self.apt.statuses())
        self.outcome.waited_s = self.apt.waited
        return self.outcome

    def _repair(self) -> dict[str, Installed]:
        if self.check_mode:
            statuses = self.apt.statuses()
            self.outcome.repaired = self.apt.interrupted(statuses)
            return statuses
        self.outcome.repaired = self.apt.repair()
        return self.apt.statuses()

    def _refresh(self, missing: list[str]) -> None:
        """Update the lists when they are older than allowed, or do not know something that is wanted."""
        age = self.apt.lists_age()
        stale = age is None or age > self.wish.cache_valid_time
        if self.check_mode or not (stale or self._unknown(missing)):
            return
        self.apt.update()
        self.outcome.cache_updated = True

    def _unknown(self, requests: list[str]) -> list[str]:
        """Return the requests no source can meet."""
        offered = self.apt.candidates(split_request(request)[0] for request in requests)
        versions = {(candidate.name, candidate.version) for candidate in offered}
        names = {candidate.name for candidate in offered}
        unknown = []
        for request in requests:
            name, version = split_request(request)
            if (name, version) not in versions if version else name not in names:
                unknown.append(request)
        return unknown

    def _upgrade(self) -> None:
        if self.wish.upgrade == "none" or (self.check_mode and self.outcome.repaired):
            return
        command = UPGRADES[self.wish.upgrade]
        changes = self.apt.simulate("plan the upgrade", *command)
        if self.wish.upgrade == "security":
            held = self.apt.holds()
            changes = [change for change in security_only(changes) if change.name not in held and change.old]
            command = ("install", "--only-upgrade", "--no-install-recommends", *(change.name for change in changes))
        if changes and not self.check_mode:
            self.apt.get("upgrade the packages", *command)
        self.outcome.changes += changes

    def _install(self, missing: list[str], unwanted: list[str]) -> None:
        """Install and remove in one transaction, so that a change of names never leaves the node with neither."""
        unknown = self._unknown(missing)
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
        removals = [f"{name}-" for name in unwanted]
        command = ["install", "--no-install-recommends", "--allow-change-held-packages", *wanted, *removals]
        if self.wish.allow_downgrade:
            command.insert(1, "--allow-downgrades")
        verb, names = ("install", wanted) if wanted else ("remove", unwanted)
        action = f"{verb} {', '.join(split_request(request)[0] for request in names)}"
        self.outcome.changes += self.apt.simulate(action, *command)
        if not self.check_mode:
            self.apt.get(action, *command)

    def _holds(self, statuses: dict[str, Installed]) -> None:
        wanted = set(matching(statuses, self.wish.hold))
        sources = set(matching({package.source for package in statuses.values()}, self.wish.hold_sources))
        wanted |= {name for name, package in statuses.items() if package.source in sources}
        if not (wanted or self.wish.release):
            return
        held = self.apt.holds()
        hold = sorted(wanted - held)
        release = sorted(set(matching(held, self.wish.release)) - wanted)
        if not self.check_mode:
            self.apt.set_holds(hold, release)
        self.outcome.on_hold = sorted(wanted)
        self.outcome.held = sorted({*self.outcome.held, *hold})
        self.outcome.released = sorted({*self.outcome.released, *release})
