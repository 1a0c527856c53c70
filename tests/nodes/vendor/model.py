# SPDX-License-Identifier: Apache-2.0
"""What a stub package is, in either format, and how a value in a file of `files/` is filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FILES = Path(__file__).resolve().parent / "files"
STUB = (
    "Stub of the Rackwright test nodes: the name, version and relations of a package of NVIDIA, nothing of its content."
)


@dataclass(frozen=True)
class Package:
    """One package; names of relations are those of its own format (Debian control fields or RPM tags).

    `version` is complete: with the revision, for RPM `[epoch:]version-release`. `files` and `links` are paths without
    the leading slash; a file that begins with `#!` is executable.
    """

    name: str
    version: str
    source: str = ""
    arch: str = ""
    summary: str = ""
    depends: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    config: tuple[str, ...] = ()
    scripts: dict[str, str] = field(default_factory=dict)

    @property
    def upstream(self) -> str:
        """The version without epoch and revision."""
        return self.version.rpartition(":")[2].partition("-")[0]

    @property
    def branch(self) -> int:
        """The first number of the version."""
        return int(self.upstream.partition(".")[0])


@lru_cache
def _text(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def filled(name: str, **values: str) -> bytes:
    """A file of `files/` with `@KEY@` replaced."""
    text = _text(name)
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    return text.encode()


def wanted(*groups: dict[str, bytes]) -> dict[str, bytes]:
    """Several sets of files as one; a path that occurs twice is a defect of the catalogue."""
    total: dict[str, bytes] = {}
    for group in groups:
        twice = total.keys() & group.keys()
        if twice:
            raise ValueError(f"two files at {sorted(twice)}")
        total.update(group)
    return total
