# SPDX-License-Identifier: Apache-2.0
"""Exact version and hold of packages, straight from dpkg's database or from one call of rpm."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[list[str]], "tuple[int, str, str]"]

RPM_FORMAT = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n"
_FIELD = re.compile(r"^(Package|Status|Version|Architecture): *(.*?) *$", re.MULTILINE)
_EXCLUDES = re.compile(r"^(?:excludepkgs|exclude)\s*=\s*((?:.*)(?:\n[ \t]+.*)*)", re.MULTILINE)
_LOCKLIST = re.compile(r"^\s*locklist\s*=\s*(\S+)", re.MULTILINE)
_TOML_NAME = re.compile(r"^\s*name\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


def read_dpkg(root: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """Return version and hold of the named packages (``name`` or ``name:architecture``), None for one not installed.

    The journal of a dpkg that is running, or died, lies beside the database and is newer than it.

    Raises:
        OSError: the database cannot be read.
    """
    database = root / "var/lib/dpkg/status"
    names = {name.partition(":")[0] for name in wanted} | {"dpkg"}
    stanzas = parse_stanzas(database.read_text(encoding="utf-8", errors="replace"), names)
    updates = root / "var/lib/dpkg/updates"
    journal = sorted(path for path in updates.iterdir() if path.name.isdigit()) if updates.is_dir() else []
    for path in journal:
        stanzas.update(parse_stanzas(path.read_text(encoding="utf-8", errors="replace"), names))
    native = next((arch for name, arch in stanzas if name == "dpkg"), "")
    return {name: dpkg_package(stanzas, name, native) for name in wanted}


def parse_stanzas(text: str, names: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the stanzas of the named packages by name and architecture; the other thousands are not parsed."""
    wanted = set(names)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for stanza in text.split("\n\n"):
        start = 0 if stanza.startswith("Package: ") else stanza.find("\nPackage: ") + 1
        if stanza.startswith("Package: ", start):
            end = stanza.find("\n", start)
            name = stanza[start + 9 : end if end >= 0 else None].strip()
            if name in wanted:
                fields = dict(_FIELD.findall(stanza))
                found[name, fields.get("Architecture", "")] = fields
    return found


def dpkg_package(stanzas: dict[tuple[str, str], dict[str, str]], name: str, native: str) -> dict[str, Any] | None:
    """Return version and hold of one package; the native architecture counts where none is named."""
    plain, _colon, asked = name.partition(":")
    of_name = {
        arch: state for (package, arch), fields in stanzas.items() if package == plain and (state := _state(fields))
    }
    order = [asked] if asked else [native, "all", *sorted(of_name)]
    return next((of_name[arch] for arch in order if arch in of_name), None)


def _state(fields: dict[str, str]) -> dict[str, Any] | None:
    selection, _flag, status = ([*fields.get("Status", "").split(), "", "", ""])[:3]
    if status in ("", "not-installed", "config-files"):
        return None
    version = fields.get("Version", "")
    # half installed, half configured or waiting for triggers is another state than the version alone
    return {"version": version if status == "installed" else f"{version} ({status})", "hold": selection == "hold"}


def read_rpm(root: Path, wanted: Sequence[str], run: Run) -> dict[str, dict[str, Any] | None]:
    """Return version and hold of the named packages; several installed versions are joined.

    Raises:
        OSError: rpm gave no usable answer.
    """
    plain = [name for name in wanted if not name.startswith("@")]
    _code, out, err = run(["rpm", "-q", "--qf", RPM_FORMAT, "--", *plain]) if plain else (0, "", "")
    answers = out.splitlines()
    if len(answers) < len(plain):
        raise OSError(0, f"rpm gave an incomplete answer: {' '.join(err.split()) or 'nothing'}")
    found = [fields for line in answers if len(fields := line.split("\t")) == 3]
    locks, excludes = lock_patterns(root), exclude_patterns(root)
    return {
        name: _rpm_package([fields for fields in found if name in forms(*fields)], locks, excludes) for name in wanted
    }


def _rpm_package(found: list[list[str]], locks: list[str], excludes: list[str]) -> dict[str, Any] | None:
    if not found:
        return None
    held = all(
        is_locked(name, version, arch, locks) or is_held(name, version, arch, excludes) for name, version, arch in found
    )
    # one that was asked for several times (by name and by full name) is answered several times
    return {"version": ", ".join(sorted({version for _name, version, _arch in found})), "hold": held}


def lock_patterns(root: Path) -> list[str]:
    """Return the entries of the versionlock lists of dnf 4 and 5; those of dnf 5 name packages alone."""
    plugin = _text(root / "etc/dnf/plugins/versionlock.conf")
    named = _LOCKLIST.findall(plugin) or ["/etc/dnf/plugins/versionlock.list"]
    listed = _text(root / named[-1].lstrip("/"))
    patterns = [line.strip() for line in listed.splitlines() if line.strip() and line.strip()[0] not in "#!"]
    return patterns + [f"{name}-*" for name in _TOML_NAME.findall(_text(root / "etc/dnf/versionlock.toml"))]


def exclude_patterns(root: Path) -> list[str]:
    """Return what dnf.conf excludes from every repository."""
    patterns: list[str] = []
    for value in _EXCLUDES.findall(_text(root / "etc/dnf/dnf.conf")):
        patterns += value.replace(",", " ").split()
    return patterns


def hold_patterns(root: Path) -> list[str]:
    """Return everything that dnf is told to leave alone."""
    return lock_patterns(root) + exclude_patterns(root)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def forms(name: str, version: str, arch: str) -> list[str]:
    """Return the names under which dnf and rpm know one installed package."""
    epoch, colon, rest = version.rpartition(":")
    known = [name, f"{name}.{arch}"]
    for full in (rest, f"{epoch if colon else '0'}:{rest}"):
        known += [f"{name}-{full}", f"{name}-{full}.{arch}"]
    return known


def is_held(name: str, version: str, arch: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern (name or name-epoch:version-release.arch, with wildcards) names this package."""
    known = forms(name, version, arch)
    return any(fnmatch.fnmatchcase(form, pattern) for pattern in patterns for form in known)


def is_locked(name: str, version: str, arch: str, entries: Iterable[str]) -> bool:
    """Whether a versionlock entry keeps this package in this version. A name alone lets every version through."""
    known = forms(name, version, arch)[2:]
    return any(fnmatch.fnmatchcase(form, entry) for entry in entries for form in known)
