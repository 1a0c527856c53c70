# SPDX-License-Identifier: Apache-2.0
"""What rpm and dnf print, as records; the files they keep, as records. Pure: text in, records out.

Tables are read as dnf 4 and dnf 5 print them; both wrap a row whose name does not fit into its column.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .packages import Candidate, Change, Installed, split_request
from .receipt_items_packages import forms

RPM_FORMAT = (
    r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\t%|SOURCERPM?{%{SOURCERPM}}:{}|"
    r"\t%|INSTALLTIME?{%{INSTALLTIME}}:{0}|\n"
)
REPOQUERY_FORMAT = r"%{name}\t%{epoch}:%{version}-%{release}\t%{arch}\t%{repoid}\n"
#: installed side by side by dnf's default (installonlypkgs): several versions of them are no duplicates
INSTALL_ONLY = re.compile(r"^(?:kernel|kernel-.*|installonlypkg.*|gpg-pubkey)$")
_SEGMENT = re.compile(r"\d+|[A-Za-z]+|~|\^")
_SECTION = re.compile(r"^([A-Z][A-Za-z/ ]*?):\s*$")
_CHANGES = ("Installing", "Upgrading", "Downgrading")
_REMOVALS = ("Removing",)


@dataclass(frozen=True)
class Rpm:
    """One installed copy of a package; ``version`` is ``[epoch:]version-release``, ``installed_at`` epoch seconds."""

    name: str
    version: str
    arch: str
    source: str
    installed_at: int

    def is_version(self, wanted: str) -> bool:
        """Whether this is the wanted version, written with its epoch or without."""
        return wanted in (self.version, self.version.partition(":")[2] or self.version)

    @property
    def locked_form(self) -> str:
        """How ``dnf versionlock`` writes this version down."""
        version = self.version if ":" in self.version else f"0:{self.version}"
        return f"{self.name}-{version}.*"


def plain_version(version: str) -> str:
    """Leave out the epoch where it is the usual 0."""
    return version[2:] if version.startswith("0:") else version


def parse_rpms(text: str) -> list[Rpm]:
    """Read ``rpm -qa --qf RPM_FORMAT``; public keys are no packages."""
    rows = []
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 5 and fields[0] != "gpg-pubkey":
            name, version, arch, source, when = fields
            origin = source.rsplit("-", 2)[0] if source.count("-") >= 2 else name
            rows.append(Rpm(name, plain_version(version), arch, origin, int(when) if when.isdigit() else 0))
    return sorted(rows, key=lambda row: (row.name, row.arch, version_key(row.version)))


def as_statuses(rows: Iterable[Rpm]) -> dict[str, Installed]:
    """Return the newest copy of each package under its name."""
    return {row.name: Installed(row.name, row.version, "ii", row.source) for row in rows}


def duplicates(rows: Iterable[Rpm]) -> list[str]:
    """Return the packages an interrupted transaction left in two versions: the new one came, the old one stayed."""
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        if not INSTALL_ONLY.match(row.name):
            seen[row.name, row.arch] = seen.get((row.name, row.arch), 0) + 1
    return sorted({name for (name, _arch), count in seen.items() if count > 1})


def parse_repoquery(text: str) -> list[Candidate]:
    """Read ``dnf repoquery --qf REPOQUERY_FORMAT``: newest first, each version once."""
    seen: dict[tuple[str, str], Candidate] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 4:
            version = plain_version(fields[1])
            seen.setdefault((fields[0], version), Candidate(fields[0], version, fields[3]))
    return sorted(seen.values(), key=lambda row: version_key(row.version), reverse=True)


def request_spec(request: str) -> str:
    """Return what dnf calls a request: ``smi=3:580-1.el9`` is ``smi-3:580-1.el9``."""
    name, version = split_request(request)
    return f"{name}-{version}" if version else name


def meets(request: str, row: Rpm) -> bool:
    """Whether an installed package is what a request asks for."""
    name, version = split_request(request)
    if version is None:
        return name in forms(row.name, row.version, row.arch)
    return row.name == name and row.is_version(version)


def offers(request: str, candidate: Candidate, arch: str = "*") -> bool:
    """Whether an offered version is what a request asks for."""
    name, version = split_request(request)
    if version is None:
        known = forms(candidate.name, candidate.version, arch)
        return name in known or any(fnmatch.fnmatchcase(name, form) for form in known if form.endswith(".*"))
    return candidate.name == name and version in (
        candidate.version,
        candidate.version.partition(":")[2] or candidate.version,
    )


def parse_transaction(text: str, installed: dict[str, Installed]) -> list[Change]:
    """Read the table of a transaction (``dnf --assumeno``); the old versions come from what is installed."""
    changes: list[Change] = []
    section, row = "", [""]
    for line in text.splitlines():
        heading = _SECTION.match(line)
        if line.startswith("Transaction Summary") or (heading and not line.startswith(" ")):
            section, row = (heading[1] if heading else ""), []
            continue
        if not section or not line.startswith(" "):
            continue
        words = line.split()
        if words and words[0] == "replacing":
            changes += _replaced(words, changes, installed)
            continue
        row = words if re.match(r"^ \S", line) else [*row, *words]
        if len(row) >= 5:
            changes += _change(section, row, installed)
            row = []
    return list(dict.fromkeys(changes))


def _change(section: str, row: list[str], installed: dict[str, Installed]) -> list[Change]:
    name, _arch, version, origin = row[:4]
    version = plain_version(version)
    if section.startswith(_REMOVALS):
        return [Change(name, version, None, origin)]
    if not section.startswith(_CHANGES):
        return []
    have = installed.get(name)
    # what dnf installs beside an older copy (a kernel) replaces nothing
    old = have.version if have and not section.startswith("Installing") else None
    return [Change(name, old, version, origin)]


def _replaced(words: list[str], changes: list[Change], installed: dict[str, Installed]) -> list[Change]:
    """A row under another: what is obsoleted goes away; dnf 5 also lists the older version of the package itself."""
    name = words[1]
    if name not in installed and "." in name:
        name = name.rpartition(".")[0]
    if (changes and changes[-1].name == name) or name not in installed:
        return []
    return [Change(name, installed[name].version, None)]


def parse_streams(text: str) -> dict[str, str]:
    """Read a file of ``/etc/dnf/modules.d``: the enabled stream of each module in it."""
    found = {}
    for block in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        values = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
        if values.get("state") == "enabled" and values.get("stream"):
            found[block.partition("]")[0]] = values["stream"]
    return found


def parse_module_list(text: str) -> dict[str, list[str]]:
    """Read ``dnf module list``: the streams of each module, in their order and without their marks."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and not line[0].isspace() and re.match(r"^[\w.+-]+ +[\w.+-]+(?: |$)", line):
            found.setdefault(words[0], []).append(words[1])
    for heading in ("Name", "Last"):
        found.pop(heading, None)
    return found


def read_locks(text: str) -> list[str]:
    """Return the entries of a versionlock list; comments and exclusions (``!``) are none."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line[0] not in "#!"]


def lock_name(entry: str) -> str:
    """Return the name in a lock entry (``name-epoch:version-release.arch``)."""
    return entry.rsplit("-", 2)[0]


def is_about(request: str, name: str) -> bool:
    """Whether a request means a package: by its name, or by a full name (``kernel-devel-5.14.0-503.el9.x86_64``)."""
    return request == name or bool(re.match(rf"{re.escape(name)}-\d[^-]*-\d", request))


def lock_names(entry: str, name: str, installed: Iterable[Rpm]) -> bool:
    """Whether a lock entry is about a package: by its own name, or by a pattern that fits what is installed."""
    if entry.count("-") >= 2 and fnmatch.fnmatchcase(name, lock_name(entry)):
        return True
    rows = (row for row in installed if row.name == name)
    return entry == name or any(
        fnmatch.fnmatchcase(form, entry) for row in rows for form in forms(row.name, row.version, row.arch)
    )


def edit_locks(text: str, drop: Iterable[str], add: Iterable[str]) -> str:
    """Return a versionlock list without some entries (and the comments above them) and with others."""
    unwanted = set(drop)
    kept: list[str] = []
    for line in text.splitlines():
        if line.strip() in unwanted:
            while kept and kept[-1].startswith("# Added lock"):
                kept.pop()
            continue
        kept.append(line)
    present = set(read_locks("\n".join(kept)))
    kept += [entry for entry in add if entry not in present]
    return "".join(f"{line}\n" for line in kept)


def _compare(left: str, right: str) -> int:
    """Compare two versions or releases as rpm does: ``~`` sorts before the end, ``^`` after it."""
    mine, theirs = _SEGMENT.findall(left), _SEGMENT.findall(right)
    for one, other in zip(mine, theirs):
        if one == other:
            continue
        return _segment_order(one, other)
    if len(mine) == len(theirs):
        return 0
    longer, sign = (mine, 1) if len(mine) > len(theirs) else (theirs, -1)
    return -sign if longer[min(len(mine), len(theirs))] == "~" else sign


def _segment_order(one: str, other: str) -> int:
    if "~" in (one, other):
        return -1 if one == "~" else 1
    if "^" in (one, other):
        return -1 if one == "^" else 1
    if one.isdigit() and other.isdigit():
        return (int(one) > int(other)) - (int(one) < int(other))
    if one.isdigit() != other.isdigit():
        return 1 if one.isdigit() else -1
    return (one > other) - (one < other)


def compare_versions(left: str, right: str) -> int:
    """Compare ``[epoch:]version-release``; negative, 0 or positive like rpm's own comparison."""
    for one, other in zip(_parts(left), _parts(right)):
        order = _compare(one, other)
        if order:
            return order
    return 0


def _parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    number, _dash, release = (rest if colon else epoch).rpartition("-")
    return (epoch if colon else "0"), number or release, release if number else ""


#: sort key of ``[epoch:]version-release``
version_key = functools.cmp_to_key(compare_versions)
