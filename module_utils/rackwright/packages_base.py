# SPDX-License-Identifier: Apache-2.0
"""What apt and dnf have in common here: they wait for other package managers and offer one surface to package_set."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from .errors import InvalidInputError, RackwrightError
from .packages import Candidate, Change, Installed, last_cause, matching

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

# NEEDRESTART_MODE=l: list what should restart, restart nothing behind the back of a run
ENVIRONMENT = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_MODE": "l",
}
RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Transaction:
    """What is installed (``name`` or ``name=version``) and removed (names) together, or not at all.

    ``movable`` names packages on hold that may move along.
    """

    install: list[str]
    remove: list[str] = field(default_factory=list)
    downgrade: bool = False
    movable: list[str] = field(default_factory=list)

    @property
    def action(self) -> str:
        """What it does, for a message."""
        verb, rows = ("install", self.install) if self.install else ("remove", self.remove)
        return f"{verb} {', '.join(row.partition('=')[0] for row in rows)}"


class PackageManager(ABC):
    """The package manager of one node."""

    kind = ""
    # packages of module streams that are about to be enabled count as offered (check mode)
    ignore_streams = False
    # repositories that are about to be enabled (check mode)
    assume_enabled: Sequence[str] = ()

    def __init__(
        self,
        run: Run,
        node: str,
        lock_timeout: int,
        *,
        options: Sequence[str] = (),
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self.node, self.lock_timeout = run, node, lock_timeout
        self._options, self._root, self._clock, self._sleep = list(options), root, clock, sleep
        self.waited = 0.0

    def _locked_run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command that takes a lock; as long as somebody else has it, wait and try again."""
        start = self._clock()
        while True:
            waited = self._clock() - start
            code, out, err = self._run(command)
            # progress lines are rewritten with carriage returns
            text = f"{out}\n{err}".replace("\r", "\n")
            if code == 0 or not self._is_locked(text):
                self.waited = max(self.waited, waited)
                return code, text
            if waited >= self.lock_timeout:
                raise self._lock_error(text, waited)
            self._sleep(RETRY_SECONDS)

    @property
    def root(self) -> Path:
        """Root of the node's file system."""
        return self._root

    def execute(self, action: str, command: Sequence[str]) -> str:
        """Run a command that belongs to the package manager; raise with its last words when it fails."""
        code, text = self._locked_run(command)
        if code != 0:
            raise RackwrightError(action, self.node, last_cause(text), f"Run `{' '.join(command)}` on the node")
        return text

    def free_mib(self) -> int | None:
        """Return the free space on /var, None when it cannot be told."""
        try:
            return shutil.disk_usage(str(self._root / "var")).free >> 20
        except OSError:
            return None

    @abstractmethod
    def _is_locked(self, text: str) -> bool:
        """Whether a command failed only because somebody else is working."""

    @abstractmethod
    def _lock_error(self, text: str, waited: float) -> Exception:
        """Explain that somebody else worked for longer than we may wait."""

    @abstractmethod
    def statuses(self) -> dict[str, Installed]:
        """Return what is installed."""

    @abstractmethod
    def candidates(self, names: Iterable[str]) -> list[Candidate]:
        """Return every version the sources offer of the named packages, newest first."""

    @abstractmethod
    def unsatisfied(self, requests: Iterable[str], statuses: dict[str, Installed]) -> list[str]:
        """Return the requests that the installed packages do not meet."""

    @abstractmethod
    def unknown(self, requests: list[str]) -> list[str]:
        """Return the requests that no source can meet."""

    @abstractmethod
    def interrupted(self, statuses: dict[str, Installed]) -> list[str]:
        """Return what an interrupted run left half done."""

    @abstractmethod
    def repair(self) -> list[str]:
        """Finish what an interrupted run left; return what needed it."""

    @abstractmethod
    def lists_age(self) -> float | None:
        """Return the age of the package lists in seconds; None when there are none or the sources changed since."""

    @abstractmethod
    def update(self) -> None:
        """Refresh the package lists and remember when."""

    @abstractmethod
    def plan_upgrade(self, kind: str) -> list[Change]:
        """Return what an upgrade (``security``, ``safe``, ``full``) would do."""

    @abstractmethod
    def upgrade(self, kind: str, changes: list[Change]) -> None:
        """Make the upgrade that was planned."""

    @abstractmethod
    def plan(self, transaction: Transaction) -> list[Change]:
        """Return what a transaction would do."""

    @abstractmethod
    def apply(self, transaction: Transaction) -> None:
        """Make a transaction."""

    @abstractmethod
    def holds(self) -> set[str]:
        """Return the packages on hold."""

    @abstractmethod
    def set_holds(self, hold: Sequence[str], release: Sequence[str]) -> None:
        """Put packages on hold and release others."""

    def matching_holds(self, statuses: dict[str, Installed], patterns: Sequence[str]) -> set[str]:
        """Return the installed packages that hold patterns name."""
        return set(matching(statuses, patterns))

    def hold_helpers(self) -> list[str]:
        """Return packages without which nothing can be held."""
        return []

    def pending_streams(self, wanted: Sequence[str]) -> list[str]:
        """Return the module streams that are not enabled yet."""
        return list(wanted)

    def switch_streams(self, wanted: Sequence[str]) -> dict[str, str | None]:
        """Enable module streams; return what brings the earlier ones back."""
        raise InvalidInputError(
            f"enable the module stream {', '.join(wanted)}",
            self.node,
            f"{self.kind} knows no module streams",
            "Leave `streams` empty on this node",
        )

    def restore_streams(self, saved: dict[str, str | None]) -> None:
        """Bring the earlier module streams back (here nothing can have been saved)."""
        assert not saved


def module_runner(module: Any) -> Run:
    """Return a runner on top of AnsibleModule.run_command with the package managers' environment."""

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(command), environ_update=ENVIRONMENT)
        return int(code), str(out), str(err)

    return run
