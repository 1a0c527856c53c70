# SPDX-License-Identifier: Apache-2.0
"""dnf and rpm as one object: waits for their locks, repairs what was interrupted, explains what fails.

Only the programs ``dnf`` and ``rpm`` are called, none of their Python bindings: those exist for the platform's own
interpreter alone, which on EL 8 is too old for modules. rpm waits for its own lock by itself and without a limit.
"""

from __future__ import annotations

import configparser
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import MissingError, RackwrightError, TimedOutError
from .files import WantedFile
from .files import apply as write_file
from .packages import Candidate, Change, Installed, split_request
from .packages_base import PackageManager, Transaction
from .packages_rpm import (
    REPOQUERY_FORMAT,
    RPM_FORMAT,
    Rpm,
    as_statuses,
    duplicates,
    edit_locks,
    is_about,
    lock_name,
    lock_names,
    meets,
    offers,
    parse_repoquery,
    parse_rpms,
    parse_streams,
    parse_transaction,
    read_locks,
    request_spec,
)
from .packages_rpm_errors import (
    PLUGIN,
    explain,
    is_lock_failure,
    last_cause,
    lock_error,
    plugin_error,
    removal_error,
)
from .receipt_items_packages import is_held, is_locked

# dnf would wait for its lock without a limit; the waiting is done here
COMMON = ("-y", "--setopt=exit_on_lock=1")
# an exact version is installed or the call fails; nothing is skipped in silence
EXACT = ("--setopt=install_weak_deps=0", "--setopt=best=1")
UPGRADES = {
    "safe": ("upgrade", "--setopt=best=0"),
    "security": ("upgrade", "--security", "--setopt=best=0"),
    "full": ("upgrade", "--allowerasing"),
}
STAMP = "var/lib/rackwright/dnf-lists.stamp"
PLUGINS = "etc/dnf/plugins"
STREAMS = "etc/dnf/modules.d"


class Dnf(PackageManager):
    """dnf and rpm of one node."""

    kind = "dnf"
    _rows: list[Rpm] | None = None

    # -- running ---------------------------------------------------------------------------------------------------

    def _is_locked(self, text: str) -> bool:
        return is_lock_failure(text)

    def _lock_error(self, text: str, waited: float) -> TimedOutError:
        return lock_error(text, self.node, waited)

    def _command(self, *arguments: str) -> list[str]:
        hotfixes = ["--setopt=*.module_hotfixes=1"] if self.ignore_streams else []
        enabled = [f"--enablerepo={one}" for one in self.assume_enabled]
        return ["dnf", *COMMON, *self._options, *enabled, *hotfixes, *arguments]

    def get(self, action: str, *arguments: str) -> str:
        """Run dnf; raise the explained error when it fails."""
        self._rows = None
        code, text = self._locked_run(self._command(*arguments))
        if code != 0:
            raise explain(text, action, self.node, self.free_mib())
        return text

    def simulate(self, action: str, *arguments: str) -> list[Change]:
        """Return what dnf would do. It ends with status 1 when it would do something."""
        code, text = self._locked_run(self._command("--assumeno", *arguments))
        if code != 0 and "Operation aborted" not in text:
            raise explain(text, action, self.node, self.free_mib())
        return parse_transaction(text, self.statuses())

    # -- looking ---------------------------------------------------------------------------------------------------

    def installed(self) -> list[Rpm]:
        """Return every installed copy of every package; rpm is asked again only after something was changed here."""
        if self._rows is not None:
            return self._rows
        code, out, err = self._run(["rpm", "-qa", "--qf", RPM_FORMAT])
        if code != 0 or err.lstrip().startswith("error:"):
            step = "Run this without check mode, which rebuilds it, or `rpm --rebuilddb` on the node"
            raise RackwrightError("read rpm's database", self.node, last_cause(err), step)
        self._rows = parse_rpms(out)
        return self._rows

    def statuses(self) -> dict[str, Installed]:
        """Return the newest copy of each installed package."""
        return as_statuses(self.installed())

    def candidates(self, names: Iterable[str]) -> list[Candidate]:
        """Return every version the enabled repositories offer of the named packages, newest first."""
        wanted = sorted(set(names))
        return self.offered(wanted) if wanted else []

    def offered(self, wanted: Sequence[str], *options: str) -> list[Candidate]:
        """Return the offered versions of packages (names or dnf's own specs), asked with options of dnf."""
        command = self._command(*options, "repoquery", "--qf", REPOQUERY_FORMAT, *wanted)
        code, text = self._locked_run(command)
        if code != 0:
            raise explain(text, "read what the repositories offer", self.node)
        return parse_repoquery(text)

    def unsatisfied(self, requests: Iterable[str], statuses: dict[str, Installed]) -> list[str]:
        """Return the requests that no installed package meets: by name, by full name, or by what it provides."""
        rows = self.installed()
        left = [request for request in requests if not any(meets(request, row) for row in rows)]
        return [
            request
            for request in left
            if "=" in request or self._run(["rpm", "-q", "--quiet", "--whatprovides", request])[0] != 0
        ]

    def unknown(self, requests: list[str]) -> list[str]:
        """Return the requests that no enabled repository can meet."""
        if not requests:
            return []
        names = [split_request(request)[0] for request in requests]
        with self._unlocked(names) as options:
            offered = self.offered(sorted(set(names)), *options)
            left = [request for request in requests if not any(offers(request, row) for row in offered)]
            return [
                request for request in left if "=" in request or not self.offered(["--whatprovides", request], *options)
            ]

    def holds(self) -> set[str]:
        """Return the packages that the versionlock list keeps in the version they have."""
        rows, entries = self.installed(), read_locks(self._lock_text())
        locked = {row.name for row in rows if is_locked(row.name, row.version, row.arch, entries)}
        return locked - {row.name for row in rows if not is_locked(row.name, row.version, row.arch, entries)}

    def matching_holds(self, statuses: dict[str, Installed], patterns: Sequence[str]) -> set[str]:
        """Return the installed packages that hold patterns name, by name or (``*nvidia*580*``) by name and version."""
        return {row.name for row in self.installed() if is_held(row.name, row.version, row.arch, patterns)}

    def lists_age(self) -> float | None:
        """Return the age of dnf's metadata in seconds; None when there is none or the repositories changed since."""
        try:
            updated = (self._root / STAMP).stat().st_mtime
        except OSError:
            return None
        if not any((self._root / "var/cache/dnf").glob("*.solv")):
            return None
        sources = [self._root / "etc/dnf/dnf.conf", *(self._root / "etc/yum.repos.d").glob("*.repo")]
        if any(path.stat().st_mtime > updated for path in sources if path.exists()):
            return None
        return max(0.0, time.time() - updated)

    # -- acting ----------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Refresh the metadata of the repositories and remember when."""
        self.get("update the metadata of the repositories", "makecache", "--refresh")
        stamp = self._root / STAMP
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
        os.utime(stamp)

    def plan_upgrade(self, kind: str) -> list[Change]:
        """Return what an upgrade would do; what is locked or excluded does not move."""
        return self.simulate("plan the upgrade", *UPGRADES[kind])

    def upgrade(self, kind: str, changes: list[Change]) -> None:
        """Make the upgrade that was planned."""
        self.get("upgrade the packages", *UPGRADES[kind])

    def plan(self, transaction: Transaction, *more: str) -> list[Change]:
        """Return what a transaction would do; refuse one that takes away what nobody named.

        Args:
            more: further options of dnf.
        """
        with self._unlocked(self._names(transaction)) as options, self._script(transaction) as words:
            changes = self.simulate(transaction.action, *options, *more, *EXACT, *words)
        staying = {change.name for change in changes if change.new}
        extra = {change.name for change in changes if change.new is None} - set(transaction.remove) - staying
        if extra:
            raise removal_error(transaction.action, self.node, sorted(extra))
        return changes

    def apply(self, transaction: Transaction) -> None:
        """Make a transaction, and look whether all of it came about: dnf's shell ends well also when a line fails."""
        names = self._names(transaction)
        locked = {name for name in self.holds() if any(is_about(word, name) for word in names)}
        with self._unlocked(names) as options, self._script(transaction) as words:
            text = self.get(transaction.action, *options, *EXACT, *words)
        statuses = self.statuses()
        if self.unsatisfied(transaction.install, statuses) or set(transaction.remove) & set(statuses):
            raise explain(text, transaction.action, self.node, self.free_mib())
        # what was held stays so, in its new version
        self.set_holds(sorted(locked & set(statuses)), sorted(locked - set(statuses)))

    @staticmethod
    def _names(transaction: Transaction) -> list[str]:
        asked = [split_request(request)[0] for request in transaction.install]
        return [*asked, *transaction.remove, *transaction.movable]

    @contextmanager
    def _script(self, transaction: Transaction) -> Iterator[list[str]]:
        """Yield dnf's words for a transaction: one command, or a script for dnf's shell where packages also go."""
        specs = [request_spec(request) for request in transaction.install]
        if not transaction.remove:
            yield ["install", *specs]
        elif not specs:
            yield ["remove", "--noautoremove", *transaction.remove]
        else:
            with tempfile.NamedTemporaryFile("w", prefix="rackwright-dnf-", encoding="utf-8") as script:
                script.write(f"remove {' '.join(transaction.remove)}\ninstall {' '.join(specs)}\nrun\n")
                script.flush()
                yield ["--setopt=clean_requirements_on_remove=0", "shell", script.name]

    def interrupted(self, statuses: dict[str, Installed]) -> list[str]:
        """Return the packages an interrupted transaction left in two versions."""
        return duplicates(self.installed())

    def repair(self) -> list[str]:
        """Rebuild a database that cannot be read, and finish an interrupted transaction; return what needed it.

        rpm enters a package into its database when all its files are there, and takes the older one out later. A
        transaction that was cut off therefore leaves both; the newer one is installed again and the older one goes.
        """
        repaired = []
        try:
            rows = self.installed()
        except RackwrightError:
            rows, repaired = self._rebuilt(), ["(database)"]
        names = duplicates(rows)
        if not names:
            return repaired
        text = self.get(f"repair {', '.join(names)}", "remove", "--duplicates")
        still = duplicates(self.installed())
        if still:
            raise explain(text, f"repair {', '.join(still)}", self.node, self.free_mib())
        return [*repaired, *names]

    def _rebuilt(self) -> list[Rpm]:
        """Rebuild the indexes of rpm's database and return what it holds."""
        _code, text = self._locked_run(["rpm", "--rebuilddb"])
        try:
            return self.installed()
        except RackwrightError as error:
            raise RackwrightError(
                "repair rpm's database",
                self.node,
                f"rebuilding it did not help: {last_cause(text)}",
                "Restore it (/var/lib/rpm or /usr/lib/sysimage/rpm) from a backup, then run again",
            ) from error

    # -- locks -----------------------------------------------------------------------------------------------------

    def _lock_list(self) -> Path:
        """Return the file that dnf's versionlock plugin reads."""
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read(self._root / PLUGINS / "versionlock.conf", encoding="utf-8")
        named = parser.get("main", "locklist", fallback="/etc/dnf/plugins/versionlock.list")
        return self._root / named.lstrip("/")

    def _lock_text(self) -> str:
        path = self._lock_list()
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def hold_helpers(self) -> list[str]:
        """Return the package of the versionlock plugin where it is missing."""
        return [] if any(self._root.glob("usr/lib/python3*/*-packages/dnf-plugins/versionlock.py")) else [PLUGIN]

    def set_holds(self, hold: Sequence[str], release: Sequence[str]) -> None:
        """Lock packages in the versions they have, and take locks away."""
        if not (hold or release):
            return
        if hold and self.hold_helpers():
            raise plugin_error(self.node)
        rows, text = self.installed(), self._lock_text()
        entries = read_locks(text)
        drop = [entry for entry in entries if any(lock_names(entry, name, rows) for name in (*hold, *release))]
        add = [row.locked_form for row in rows if row.name in set(hold)]
        path = self._lock_list()
        content = edit_locks(text, [entry for entry in drop if entry not in add], add)
        write_file(WantedFile(str(path), content, 0o644, os.geteuid(), os.getegid()))

    @contextmanager
    def _unlocked(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Yield options under which dnf does not see the locks of some packages.

        The list itself stays as it is until the packages have moved, so a failure leaves every lock in place.
        """
        text, rows = self._lock_text(), self.installed()
        entries = {entry: lock_name(entry) for entry in read_locks(text)}
        drop = [
            entry
            for entry, locked in entries.items()
            if any(is_about(name, locked) or lock_names(entry, name, rows) for name in names)
        ]
        if not drop:
            yield []
            return
        folder = Path(tempfile.mkdtemp(prefix="rackwright-dnf-"))
        try:
            for path in (self._root / PLUGINS).glob("*.conf"):
                shutil.copy(path, folder)
            (folder / "list").write_text(edit_locks(text, drop, []), encoding="utf-8")
            (folder / "versionlock.conf").write_text(f"[main]\nenabled=1\nlocklist={folder}/list\n", encoding="utf-8")
            yield [f"--setopt=pluginconfpath={folder}"]
        finally:
            shutil.rmtree(folder)

    # -- module streams --------------------------------------------------------------------------------------------

    def streams(self) -> dict[str, str]:
        """Return the enabled stream of each module."""
        found: dict[str, str] = {}
        for path in sorted((self._root / STREAMS).glob("*.module")):
            found.update(parse_streams(path.read_text(encoding="utf-8", errors="replace")))
        return found

    def pending_streams(self, wanted: Sequence[str]) -> list[str]:
        """Return the wanted streams (``module:stream``) that are not enabled."""
        enabled = self.streams()
        return [spec for spec in wanted if enabled.get(spec.partition(":")[0]) != spec.partition(":")[2]]

    def switch_streams(self, wanted: Sequence[str]) -> dict[str, str | None]:
        """Enable streams in place of those that are; return the earlier files, for ``restore_streams``."""
        enabled, saved = self.streams(), {}
        for spec in wanted:
            module = spec.partition(":")[0]
            path = self._root / STREAMS / f"{module}.module"
            saved[str(path)] = path.read_text(encoding="utf-8") if path.exists() else None
        try:
            for spec in wanted:
                module = spec.partition(":")[0]
                if module in enabled:
                    self.get(f"leave the module stream {module}:{enabled[module]}", "module", "reset", module)
                self.get(f"enable the module stream {spec}", "module", "enable", spec)
        except RackwrightError:
            self.restore_streams(saved)
            raise
        if self.pending_streams(wanted):
            self.restore_streams(saved)
            raise MissingError(
                f"enable the module stream {', '.join(wanted)}",
                self.node,
                "dnf did not enable it",
                "Look at `dnf module list` on the node",
            )
        return saved

    def restore_streams(self, saved: dict[str, str | None]) -> None:
        """Bring the earlier streams back."""
        for path, content in saved.items():
            write_file_or_nothing(Path(path), content)


def write_file_or_nothing(path: Path, content: str | None) -> None:
    """Give a file back its content, or take it away where there was none."""
    if content is not None or path.exists():
        write_file(WantedFile(str(path), content, 0o644, os.geteuid(), os.getegid()))
