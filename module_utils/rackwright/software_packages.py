# SPDX-License-Identifier: Apache-2.0
"""The installed packages of NVIDIA's driver and container toolkit, on systems with dpkg, with rpm, or with neither."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from .driver_names import is_driver, upstream
from .receipt_items_packages import RPM_FORMAT, Run, hold_patterns, is_held

#: Only names with one of these are looked at any closer.
_PARTS = ("nvidia", "cuda", "libnv", "libxnvctrl")
#: What rpm is asked for, so that it does not list the whole system.
_RPM_PATTERNS = ("*nvidia*", "cuda-drivers*", "libnvsdm*", "libcudadebugger*")
# a literal beginning is found ten times as fast as one that is looked for at each line
_STANZA = re.compile(r"\nPackage: (\S+)")
_FIELD = re.compile(r"^(Status|Version|Architecture): *(.*?) *$", re.MULTILINE)
_GONE = ("not-installed", "config-files")
TOOLKIT = (
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
)
_FABRIC_MANAGER = re.compile(r"nvidia-fabric-?manager(?:-\d+)?")


@dataclass(frozen=True)
class Package:
    """One installed package; a version that is not in order has its state behind it: ``535.309.01-1 (unpacked)``."""

    name: str
    version: str
    held: bool


@dataclass(frozen=True)
class Packages:
    """All packages that matter, or why they are not known."""

    found: list[Package] = field(default_factory=list)
    reason: str | None = None

    @property
    def driver(self) -> dict[str, str]:
        """Name to version of the driver family: what carries a version of the driver."""
        return {package.name: package.version for package in self.found if package.name not in TOOLKIT}

    @property
    def toolkit(self) -> dict[str, str]:
        """Name to version of the container toolkit's packages."""
        return {package.name: package.version for package in self.found if package.name in TOOLKIT}

    @property
    def held(self) -> list[str]:
        return [package.name for package in self.found if package.held]

    @property
    def fabric_manager(self) -> str | None:
        """NVIDIA's version of the installed fabric manager."""
        names = {package.name: package.version for package in self.found}
        versions = [upstream(version) for name, version in names.items() if _FABRIC_MANAGER.fullmatch(name)]
        return versions[0] if versions else None


def _belongs(name: str, version: str) -> bool:
    """Whether a package is the driver's; one of another architecture is named as such (``libcuda1:i386``)."""
    return name not in TOOLKIT and is_driver(name.partition(":")[0], version)


def read_packages(root: Path, run: Run, wanted: bool) -> Packages:
    """Return NVIDIA's packages from dpkg's database, else from one call of rpm.

    Args:
        root: root of the file system.
        run: runs a program and returns status, output and errors.
        wanted: whether the call of rpm is worth its time: there is a sign of an NVIDIA GPU or driver.
    """
    database = root / "var/lib/dpkg/status"
    try:
        if database.exists():
            return Packages(_dpkg(root, database))
        if not os.access(root / "usr/bin/rpm", os.X_OK):
            return Packages(reason="the node has neither dpkg's database nor rpm")
        if not wanted:
            return Packages(reason="rpm was not asked: nothing else shows an NVIDIA GPU or driver")
        code, out, err = run(["rpm", "-qa", "--qf", RPM_FORMAT, *_RPM_PATTERNS])
        if code:
            raise OSError(0, f"rpm failed: {' '.join(err.split()) or f'status {code}'}")
        return Packages(parse_rpm(out, hold_patterns(root)))
    except OSError as error:
        return Packages(reason=f"the package database cannot be read ({error.strerror or error})")


def _dpkg(root: Path, database: Path) -> list[Package]:
    updates = root / "var/lib/dpkg/updates"
    journal = sorted(path for path in updates.iterdir() if path.name.isdigit()) if updates.is_dir() else []
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in (database, *journal)]
    return parse_dpkg(texts)


def parse_dpkg(texts: list[str]) -> list[Package]:
    """Read dpkg's database and the journal of a dpkg that is running or died, which is newer; sorted by name."""
    native = _native(texts[0]) if texts else ""
    found: dict[str, Package | None] = {}
    for text in texts:
        text = f"\n{text}"
        for match in _STANZA.finditer(text):
            if not any(part in match[1] for part in _PARTS):
                continue
            start = text.rfind("\n\n", 0, match.start()) + 1
            end = text.find("\n\n", match.end())
            fields = dict(_FIELD.findall(text[start : end if end >= 0 else len(text)]))
            architecture = fields.get("Architecture", "")
            name = match[1] if architecture in (native, "all", "") else f"{match[1]}:{architecture}"
            found[name] = _dpkg_package(name, fields)
    return [package for _name, package in sorted(found.items()) if package is not None]


def _dpkg_package(name: str, fields: dict[str, str]) -> Package | None:
    selection, _flag, status = ([*fields.get("Status", "").split(), "", "", ""])[:3]
    version = fields.get("Version", "")
    if status in ("", *_GONE) or not (_belongs(name, version) or name in TOOLKIT):
        return None
    return Package(name, version if status == "installed" else f"{version} ({status})", selection == "hold")


def _native(text: str) -> str:
    text = f"\n{text}"
    start = text.find("\nPackage: dpkg\n")
    match = re.compile(r"^Architecture: *(\S+)", re.MULTILINE).search(text, start) if start >= 0 else None
    return match[1] if match else ""


def parse_rpm(output: str, patterns: list[str]) -> list[Package]:
    """Read what ``rpm -qa --qf RPM_FORMAT`` prints; of a name installed several times every version is kept."""
    rows = sorted({tuple(line.split("\t")) for line in output.splitlines() if line.count("\t") == 2})
    count: dict[str, int] = {}
    for name, _version, _arch in rows:
        count[name] = count.get(name, 0) + 1
    packages = []
    for name, version, arch in rows:
        if _belongs(name, version) or name in TOOLKIT:
            shown = name if count[name] == 1 else f"{name}-{version}.{arch}"
            packages.append(Package(shown, version, is_held(name, version, arch, patterns)))
    return packages
