# SPDX-License-Identifier: Apache-2.0
"""Look at the items a role manages, on the node itself: what a receipt records, and what it is compared with later.

Only the standard library, no change of anything. The root of the file system is a parameter, so that tests feed it a
directory; programs (rpm, systemctl) are asked for the running system only.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import programs
from .host import container_of, kernels_of
from .receipt_items_packages import Run, read_dpkg, read_rpm
from .receipt_items_venvs import read_venv
from .receipts import item_drift

_TIMEOUT_S = 20
_TYPES = (
    (stat.S_ISREG, "file"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
)
# a unit that reads its configuration again is running all the same
_RUNNING = {"reloading": "active", "refreshing": "active"}
_UNIT_PROPERTIES = ("LoadState", "UnitFileState", "ActiveState")
_MODULE_FOLDERS = ("updates", "extra", "weak-updates")


def run_program(command: list[str]) -> tuple[int, str, str]:
    """Run a program in the C locale; one that is missing or hangs raises OSError."""
    return programs.run_program(command, _TIMEOUT_S)


def unreadable(name: str, error: OSError) -> dict[str, str]:
    """Return the record of an item that could not be looked at."""
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return {"error": f"could not read {name} as an unprivileged user"}
    return {"error": f"could not read {name}: {error.strerror or error}"}


class Node:
    """One node as its receipts are written or compared: what is dear to read is read once."""

    def __init__(self, root: str = "/", run: Run = run_program, running_kernel: str | None = None) -> None:
        self.root = root.rstrip("/") or "/"
        self.run = run
        self._running_kernel = running_kernel
        self._packages: dict[str, dict[str, Any] | None] = {}
        self._units: dict[str, dict[str, str]] = {}
        self._judged: dict[Path, str | None] = {}

    def path(self, absolute: str) -> str:
        """Return where a path of the node lies below the root."""
        return absolute if self.root == "/" else os.path.join(self.root, absolute.lstrip("/"))

    # -- one kind each ---------------------------------------------------------------------------------------------

    def file(self, path: str) -> dict[str, Any] | None:
        """Return type, content hash, owner, group and mode of a file, None when there is none."""
        try:
            info = os.lstat(self.path(path))
            kind = next((name for test, name in _TYPES if test(info.st_mode)), "thing of an unknown type")
            content = _sha256(self.path(path)) if kind == "file" else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return unreadable(path, error)
        return {"type": kind, "sha256": content, **ownership(info)}

    def load_packages(self, names: Iterable[str]) -> None:
        """Read the state of packages not known yet, from the package database the node has."""
        wanted = sorted(set(names) - set(self._packages))
        if not wanted:
            return
        try:
            if os.path.exists(self.path("/var/lib/dpkg/status")):
                self._packages.update(read_dpkg(Path(self.root), wanted))
            elif os.path.exists(self.path("/usr/bin/rpm")):
                self._packages.update(read_rpm(Path(self.root), wanted, self.run))
            else:
                raise OSError(0, "the node has neither dpkg's database nor rpm")
        except OSError as error:
            self._packages.update({name: unreadable(f"package {name}", error) for name in wanted})

    def load_units(self, names: Iterable[str]) -> None:
        """Ask systemd for all units not known yet, in one call."""
        wanted = sorted(set(names) - set(self._units))
        if not wanted:
            return
        try:
            code, out, err = self.run(["systemctl", "show", f"--property={','.join(_UNIT_PROPERTIES)}", "--", *wanted])
            blocks = [block for block in out.split("\n\n") if block.strip()]
            if code != 0 or len(blocks) != len(wanted):
                raise OSError(0, " ".join(err.split()) or "systemctl gave an incomplete answer")
        except OSError as error:
            self._units.update({name: unreadable(f"service {name}", error) for name in wanted})
            return
        for name, block in zip(wanted, blocks):
            self._units[name] = dict(line.partition("=")[::2] for line in block.strip().splitlines())

    def package(self, name: str) -> dict[str, Any] | None:
        """Return exact version and hold of a package, None when it is not installed."""
        self.load_packages([name])
        return self._packages[name]

    def installed(self, name: str) -> Any:
        """Return whether a package is installed in any version."""
        record = self.package(name)
        return record if record and "error" in record else record is not None

    def service(self, name: str, enabled: bool, active: bool) -> dict[str, Any]:
        """Return whether a unit is enabled and whether it runs, in systemd's words."""
        self.load_units([name])
        unit = self._units[name]
        if "error" in unit:
            return unit
        state = "not-found" if unit.get("LoadState") == "not-found" else unit.get("UnitFileState", "")
        running = unit.get("ActiveState", "")
        record = {"enabled": state} if enabled or state == "not-found" else {}
        return {**record, "active": _RUNNING.get(running, running)} if active else record

    def sysctl(self, name: str) -> Any:
        """Return the running value of a kernel setting with single blanks, None when the kernel has no such setting."""
        relative = name if "/" in name.split(".")[0] else name.replace("/", "\0").replace(".", "/").replace("\0", ".")
        try:
            text = Path(self.path(f"/proc/sys/{relative}")).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return unreadable(name, error)
        return " ".join(text.split())

    def kernels(self, modules: list[str]) -> dict[str, Any]:
        """Return every installed kernel with its headers and the named modules; none in a container."""
        root = Path(self.root)
        try:
            found = kernels_of(root, container_of(root), self._running_kernel or os.uname().release)
            return {
                release: {
                    "headers": release in found["headers"],
                    "modules": {name: module_file(root / "lib/modules" / release, name) for name in modules},
                }
                for release in found["installed"]
            }
        except OSError as error:
            return {"installed kernels": unreadable("the installed kernels", error)}

    def venv(self, path: str, packages: list[str] | None, environment: bool = True) -> dict[str, Any] | None:
        """Return interpreter, settings and packages of a Python environment, None when it is not there.

        Without ``environment`` only the packages: a role that installs into it does not manage what it was built from.
        """
        try:
            record = read_venv(Path(self.path(path)), packages, self._judged)
            if record is None:
                return None
            if not environment:
                return {key: record[key] for key in ("packages", "damage", "all")}
            return {**record, **ownership(os.stat(self.path(path)))}
        except OSError as error:
            return unreadable(path, error)


def ownership(info: os.stat_result) -> dict[str, str]:
    """Return owner and group by name (by number where they have none) and the octal mode."""
    try:
        owner = pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        owner = str(info.st_uid)
    try:
        group = grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        group = str(info.st_gid)
    return {"owner": owner, "group": group, "mode": f"{stat.S_IMODE(info.st_mode):04o}"}


def _sha256(path: str) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            total.update(chunk)
    return total.hexdigest()


def module_file(folder: Path, name: str) -> str | None:
    """Return ``<path> <bytes>`` of a kernel module as modprobe would find it, None when there is none.

    depmod's list names it; a module that is not listed yet is looked for where DKMS and vendors put theirs.
    """
    wanted = name.replace("-", "_")
    listed = folder / "modules.dep"
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.exists() else []
    paths = [line.partition(":")[0] for line in lines]
    paths += [
        str(path.relative_to(folder)) for place in _MODULE_FOLDERS for path in sorted((folder / place).rglob("*.ko*"))
    ]
    for path in paths:
        plain = os.path.basename(path).partition(".ko")[0].replace("-", "_")
        if plain == wanted and (folder / path).is_file():
            return f"{path} {(folder / path).stat().st_size}"
    return None


def collect(wanted: Mapping[str, Any], node: Node) -> dict[str, Any]:
    """Return the items of a receipt as they are now.

    Args:
        wanted: ``files`` and ``absent`` (paths), ``packages`` (names; version and hold), ``present`` (names of packages
            in any version), ``services`` (``name``, ``enabled``, ``active``: which of the two is recorded), ``sysctls``
            (names), ``kernels`` (whether), ``modules`` (names), ``venvs`` (``path``, ``packages``: names, or None for
            all, ``environment``: whether it is recorded itself). Every key may be left out.
        node: the node to look at.
    """
    services = wanted.get("services") or []
    node.load_packages([*(wanted.get("packages") or []), *(wanted.get("present") or [])])
    node.load_units(service["name"] for service in services)
    items: dict[str, Any] = {
        "files": {path: node.file(path) for path in [*(wanted.get("files") or []), *(wanted.get("absent") or [])]},
        "packages": {name: node.package(name) for name in wanted.get("packages") or []},
        "present": {name: node.installed(name) for name in wanted.get("present") or []},
        "services": {
            service["name"]: node.service(service["name"], service["enabled"], service["active"])
            for service in services
        },
        "sysctls": {name: node.sysctl(name) for name in wanted.get("sysctls") or []},
        "venvs": {
            venv["path"]: node.venv(venv["path"], venv["packages"], venv.get("environment", True))
            for venv in wanted.get("venvs") or []
        },
    }
    if wanted.get("kernels"):
        items["kernels"] = node.kernels(sorted(wanted.get("modules") or []))
    return {kind: dict(sorted(records.items())) for kind, records in items.items() if records or kind == "kernels"}


def wanted_of(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has to be looked at to compare these items with the node: the inverse of :func:`collect`."""
    kernels = items.get("kernels")
    return {
        "files": list(items.get("files") or {}),
        "packages": list(items.get("packages") or {}),
        "present": list(items.get("present") or {}),
        "services": [
            {"name": name, "enabled": "enabled" in record, "active": "active" in record}
            for name, record in (items.get("services") or {}).items()
        ],
        "sysctls": list(items.get("sysctls") or {}),
        "kernels": kernels is not None,
        "modules": sorted({name for record in (kernels or {}).values() for name in record["modules"]}),
        "venvs": [
            {
                "path": path,
                "packages": None if record["all"] else list(record["packages"]),
                "environment": "python" in record,
            }
            for path, record in (items.get("venvs") or {}).items()
        ],
    }


def drift(items: Mapping[str, Any], node: Node) -> list[str]:
    """Return one sentence for each recorded item that is not as it was."""
    return item_drift(items, collect(wanted_of(items), node))


def complaints(wanted: Mapping[str, Any], items: Mapping[str, Any]) -> list[str]:
    """Return why these items cannot be what a role leaves: one that it lists is missing, unreadable or misspelt.

    A package that is not installed is no complaint (see :func:`not_installed`): names may be groups, or provided names.
    """
    absent = set(wanted.get("absent") or [])
    found = []
    for kind, records in items.items():
        for name, record in records.items():
            if isinstance(record, Mapping) and "error" in record:
                found.append(str(record["error"]))
            elif kind == "files" and name in absent:
                found += [f"{name} should be absent and is there"] if record is not None else []
            elif kind == "files" and record is not None and record["type"] != "file":
                found.append(f"{name} is a {record['type']}, no regular file")
            elif kind != "packages" and record is None:
                found.append(f"{name} is not there")
            elif kind == "services" and record.get("enabled") == "not-found":
                found.append(f"systemd knows no service {name}")
            elif kind == "venvs":
                found += [f"{name} {problem}" for problem in record.get("problems", [])]
                found += [f"{name} has no package {package}" for package, got in record["packages"].items() if not got]
    return found


def not_installed(items: Mapping[str, Any]) -> list[str]:
    """Return the listed packages that are not installed; the receipt notices when one comes."""
    packages, present = items.get("packages") or {}, items.get("present") or {}
    return [name for name, record in {**packages, **present}.items() if record in (None, False)]
