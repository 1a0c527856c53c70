# SPDX-License-Identifier: Apache-2.0
"""The node's side of the driver plan: source files, package lists, DKMS.

Reads only; lists the node does not have go to a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .apt_sources import own_suites, with_components
from .driver_gates import refuse_unsupported
from .driver_plan import (
    Request,
    available,
    choose_version,
    kernels_to_build,
    package_list,
    pending_changes,
    preferences,
    skip_reason,
    upstream,
)
from .packages import Candidate, Installed
from .packages_apt import Apt, Run

SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d")


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
        found.entries += [entry.replace(" main ", " ", 1) for entry in edited.entries]
        name = f"/{path.relative_to(root)}"
        if edited.entries:
            found.paths.append(name)
        if edited.additions or (edited.entries and not _in_order(path)):
            mode = f"{stat.S_IMODE(path.stat().st_mode) | 0o444:04o}"
            found.files.append({"path": name, "content": edited.content, "mode": mode})
    found.entries = list(dict.fromkeys(found.entries))
    return found


def private_candidates(run: Run, node: str, lock_timeout: int, entries: list[str], names: list[str]) -> list[Candidate]:
    """Ask the mirror what it offers without touching the node's own lists and sources."""
    folder = Path(tempfile.mkdtemp(prefix="rackwright-lists-"))
    try:
        folder.chmod(0o755)
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
        places = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
        }
        options = [part for key, value in places.items() for part in ("-o", f"{key}={value}")]
        apt = Apt(run, node, lock_timeout, options=options)
        apt.get("read the versions of the driver", "update")
        return apt.candidates(names)
    finally:
        shutil.rmtree(folder)


def gather_candidates(
    apt: Apt, run: Run, request: Request, names: list[str], entries: list[str], incomplete: bool
) -> list[Candidate]:
    """Return the offered versions; from the mirror itself where the node's own lists cannot answer."""
    candidates = [] if incomplete else apt.candidates(names)
    versions = available(candidates, request.anchor)
    if any(request.version in (version, upstream(version)) for version in versions):
        return candidates
    return private_candidates(run, apt.node, apt.lock_timeout, entries, names) if entries else candidates


def make_plan(
    apt: Apt,
    run: Run,
    host: dict[str, Any],
    gpu: dict[str, Any],
    request: Request,
    components: list[str],
    require_gpu: bool,
) -> dict[str, Any]:
    """Return what the role has to do on this node."""
    reason = skip_reason(gpu, host, bool(request.version), require_gpu, apt.node)
    if reason is not None:
        return {"action": "skip", "reason": reason}
    statuses = apt.statuses()
    kernels, note = kernels_to_build(host, request.kernel_module)
    sources = own_sources(Path("/"), host["platform"]["codename"], components)
    anchor = statuses.get(request.anchor)
    names = [*request.userland, *(request.module_packages if kernels else [])]
    names += [name for name, package in statuses.items() if package.source in request.sources]
    candidates = gather_candidates(apt, run, request, names, sources.entries, bool(sources.files))
    versions = available(candidates, request.anchor)
    chosen = choose_version(versions, anchor.version if anchor else None, request.version, apt.node)
    refuse_unsupported(gpu, chosen, request.module_packages if kernels else [], apt.node)
    packages = package_list(chosen, request, candidates, statuses, bool(kernels), apt.node)
    return {
        "action": "install",
        "reason": None,
        "version": chosen,
        "upstream": upstream(chosen),
        "installed": anchor.version if anchor else None,
        "available": versions,
        "packages": packages,
        "pending": pending_changes(packages, statuses),
        "kernels": kernels,
        "module_note": note,
        "source_paths": sources.paths,
        "source_files": sources.files,
        "preferences": preferences(chosen, request.sources, request.helpers),
    }


def installed_at(anchor: str) -> float | None:
    """Return when dpkg last unpacked the anchor package, in seconds since the epoch."""
    for name in (f"{anchor}.list", f"{anchor}:amd64.list", f"{anchor}:arm64.list"):
        try:
            return os.stat(f"/var/lib/dpkg/info/{name}").st_mtime
        except OSError:
            continue
    return None


def source_packages(statuses: dict[str, Installed], sources: list[str]) -> dict[str, str]:
    """Return the installed packages of the driver with their versions."""
    return {name: package.version for name, package in sorted(statuses.items()) if package.source in sources}
