# SPDX-License-Identifier: Apache-2.0
"""RPM packages by rpmbuild: many stubs in one spec file, so that hundreds take seconds; signed in one go.

Signing is checked afterwards: on Debian rpmbuild and rpmsign look for gpg under another name, and then sign nothing
and say nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ..errors import NodesError
from ..host import run
from .deb import mode_of
from .model import STUB, Package
from .signing import USER, Key

_TAGS = {
    "depends": "Requires",
    "recommends": "Recommends",
    "provides": "Provides",
    "conflicts": "Conflicts",
    "replaces": "Obsoletes",
}
_QUIET = {
    "debug_package": "%{nil}",
    "__os_install_post": "%{nil}",
    "_build_id_links": "none",
    "_binary_payload": "w1.gzdio",
    "_buildhost": "localhost",
    # Debian's rpm would write into a home directory
    "_rpmlock_path": "%{_topdir}/lock",
}


def nevra(package: Package) -> str:
    """name-epoch:version-release.arch, with the epoch always there, as module documents want it."""
    epoch, _, rest = package.version.rpartition(":")
    return f"{package.name}-{epoch or '0'}:{rest}.{package.arch or 'x86_64'}"


def groups(packages: Sequence[Package]) -> list[list[Package]]:
    """Packages that can share a spec file: no name and no path twice."""
    found: list[tuple[list[Package], set[str]]] = []
    for package in packages:
        marks = {f"name {package.name}", *package.files, *package.links}
        for members, used in found:
            if not marks & used:
                members.append(package)
                used |= marks
                break
        else:
            found.append(([package], set(marks)))
    return [members for members, _used in found]


def spec(packages: Sequence[Package], tree: Path) -> str:
    """Text of a spec file that packs all of them from a tree of their files."""
    lines = [
        "Name: rackwright-stubs\nVersion: 1\nRelease: 1\nSummary: stubs\nLicense: Apache-2.0\n",
        f"%description\n{STUB}\n",
        f'%install\nmkdir -p "%{{buildroot}}"\ncp -a {tree}/. "%{{buildroot}}/"\n',
    ]
    for package in packages:
        epoch, _, rest = package.version.rpartition(":")
        version, _, release = rest.partition("-")
        head = [f"%package -n {package.name}", f"Version: {version}", f"Release: {release}"]
        head += [f"Epoch: {epoch}"] if epoch else []
        head += ["BuildArch: noarch"] if package.arch == "noarch" else []
        head += [f"Summary: {package.summary or package.name} (stub)", "License: Apache-2.0", "AutoReqProv: no"]
        for field, tag in _TAGS.items():
            head += [f"{tag}: {value}" for value in getattr(package, field)]
        lines.append("\n".join(head) + "\n")
        lines.append(f"%description -n {package.name}\n{STUB}\n")
        lines += [f"%{name} -n {package.name}\n{text}" for name, text in package.scripts.items()]
        # a folder that nobody owns would stay behind
        folders = {path.rpartition("/")[0] for path in package.files if path.startswith("usr/src/")}
        paths = [f'%dir "/{folder}"\n' for folder in sorted(folders)]
        paths += [_listed(package, path) for path in sorted([*package.files, *package.links])]
        lines.append(f"%files -n {package.name}\n" + "".join(paths))
    return "\n".join(lines)


def _listed(package: Package, path: str) -> str:
    kept = "%config(noreplace) " if f"/{path}" in package.config else ""
    return f'{kept}"/{path}"\n'


def _lay(packages: Sequence[Package], tree: Path) -> None:
    for package in packages:
        for path, data in package.files.items():
            target = tree / PurePosixPath(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode_of(path, data))
        for path, to in package.links.items():
            target = tree / PurePosixPath(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(to)


def build(packages: Sequence[Package], work: Path, target: Path) -> None:
    """Build all packages into a folder."""
    jobs = []
    for number, members in enumerate(groups(packages)):
        folder = work / str(number)
        tree = folder / "tree"
        tree.mkdir(parents=True)
        _lay(members, tree)
        (folder / "stubs.spec").write_text(spec(members, tree), encoding="utf-8")
        jobs.append(folder)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(_rpmbuild, jobs))
    target.mkdir(parents=True, exist_ok=True)
    for folder in jobs:
        for path in sorted((folder / "RPMS").glob("*/*.rpm")):
            shutil.move(path, target / path.name)


def _rpmbuild(folder: Path) -> None:
    defines = {"_topdir": str(folder), **_QUIET}
    options = [part for key, value in defines.items() for part in ("--define", f"{key} {value}")]
    command = ["rpmbuild", "--quiet", "-bb", "--target", "x86_64", *options, str(folder / "stubs.spec")]
    run(command, "build stub packages with rpmbuild", timeout=300)


def sign(paths: Sequence[Path], key: Key) -> None:
    """Sign packages, and make sure that they are."""
    defines = {"_gpg_name": USER, "__gpg": shutil.which("gpg") or "/usr/bin/gpg", "_gpg_path": str(key.home)}
    options = [part for name, value in defines.items() for part in ("--define", f"{name} {value}")]
    names = [str(path) for path in paths]
    half = (len(names) + 1) // 2
    with ThreadPoolExecutor(max_workers=2) as pool:
        parts = [part for part in (names[:half], names[half:]) if part]
        list(pool.map(lambda part: _rpmsign(options, part), parts))
    query = ["rpm", "-qp", "--nosignature", "--qf", "%{NAME} %{RSAHEADER:pgpsig}\n", *names]
    unsigned = [line.split()[0] for line in run(query, "check signatures").stdout.splitlines() if "Key ID" not in line]
    if unsigned:
        raise NodesError(
            "sign the stub packages",
            f"{len(unsigned)} have no signature, {unsigned[0]} among them",
            "Look at the output of rpmsign --addsign",
        )


def _rpmsign(options: list[str], names: list[str]) -> None:
    run(["rpmsign", *options, "--addsign", *names], "sign the stub packages", timeout=300)
