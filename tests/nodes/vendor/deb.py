# SPDX-License-Identifier: Apache-2.0
"""Debian packages, written without dpkg-deb: hundreds of tiny ones take a second instead of minutes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path, PurePosixPath

from .model import STUB, Package

_TIME = 1_600_000_000


def file_name(package: Package) -> str:
    """As NVIDIA's repositories name it; an epoch is no part of it."""
    return f"{package.name}_{package.version.rpartition(':')[2]}_{_arch(package)}.deb"


def _arch(package: Package) -> str:
    return package.arch or "amd64"


def control(package: Package, kibibytes: int) -> str:
    """The control file, in the order that dpkg writes."""
    relations = {
        "Depends": package.depends,
        "Recommends": package.recommends,
        "Conflicts": package.conflicts,
        "Replaces": package.replaces,
        "Provides": package.provides,
    }
    lines = [f"Package: {package.name}"]
    if package.source and package.source != package.name:
        lines.append(f"Source: {package.source}")
    lines += [
        f"Version: {package.version}",
        f"Architecture: {_arch(package)}",
        "Maintainer: Rackwright test nodes <nobody@localhost>",
        f"Installed-Size: {kibibytes}",
        *(f"{key}: {', '.join(values)}" for key, values in relations.items() if values),
        "Section: non-free/devel",
        "Priority: optional",
        f"Description: {package.summary or package.name} (stub)",
        f" {STUB}",
    ]
    return "\n".join(lines) + "\n"


def _tar(files: dict[str, tuple[bytes, int]], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders = {parent for path in [*files, *links] for parent in PurePosixPath(path).parents if str(parent) != "."}
        for folder in [".", *sorted(str(item) for item in folders)]:
            member = tarfile.TarInfo("./" if folder == "." else f"./{folder}/")
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, _TIME
            archive.addfile(member)
        for path, (data, mode) in sorted(files.items()):
            member = tarfile.TarInfo(f"./{path}")
            member.size, member.mode, member.mtime = len(data), mode, _TIME
            archive.addfile(member, io.BytesIO(data))
        for path, target in sorted(links.items()):
            member = tarfile.TarInfo(f"./{path}")
            member.type, member.linkname, member.mtime = tarfile.SYMTYPE, target, _TIME
            archive.addfile(member)
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def _member(name: str, data: bytes) -> bytes:
    head = f"{name:<16}{_TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)


def mode_of(path: str, data: bytes) -> int:
    """Programs and libraries are executable."""
    return 0o755 if data.startswith(b"#!") else 0o644


def build(package: Package) -> bytes:
    """The bytes of the .deb."""
    files = {path: (data, mode_of(path, data)) for path, data in package.files.items()}
    size = sum(len(data) for data in package.files.values()) // 1024 + 1
    inner = {"control": (control(package, size).encode(), 0o644)}
    if package.config:
        inner["conffiles"] = ("".join(f"{path}\n" for path in package.config).encode(), 0o644)
    inner.update({name: (text.encode(), 0o755) for name, text in package.scripts.items()})
    sums = "".join(f"{hashlib.md5(data).hexdigest()}  {path}\n" for path, data in sorted(package.files.items()))
    inner["md5sums"] = (sums.encode(), 0o644)
    parts = [("debian-binary", b"2.0\n"), ("control.tar.gz", _tar(inner, {}))]
    parts.append(("data.tar.gz", _tar(files, package.links)))
    return b"!<arch>\n" + b"".join(_member(name, data) for name, data in parts)


def entry(package: Package, name: str, data: bytes) -> str:
    """The package's stanza of the index."""
    size = sum(len(content) for content in package.files.values()) // 1024 + 1
    sums = "".join(
        f"{label}: {hashlib.new(kind, data).hexdigest()}\n"
        for label, kind in (("MD5sum", "md5"), ("SHA1", "sha1"), ("SHA256", "sha256"))
    )
    text, _, rest = control(package, size).partition("Description: ")
    return f"{text}Filename: ./{name}\nSize: {len(data)}\n{sums}Description: {rest}"


def write(packages: list[Package], folder: Path) -> str:
    """Write all packages and answer the text of the index Packages."""
    stanzas = []
    for package in sorted(packages, key=lambda item: (item.name, item.version)):
        data, name = build(package), file_name(package)
        if (folder / name).exists():
            raise ValueError(f"two packages {name}")
        (folder / name).write_bytes(data)
        stanzas.append(entry(package, name, data))
    return "\n".join(stanzas)
