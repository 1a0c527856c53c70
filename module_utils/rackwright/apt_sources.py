# SPDX-License-Identifier: Apache-2.0
"""Read apt's source files (one-line and deb822): add components to the distribution's, switch off others. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

ONE_LINE = re.compile(
    r"^(?P<type>deb)\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+?)\s*(?P<comment>#.*)?$"
)
ENTRY = re.compile(r"^(?:deb|deb-src)\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s")
USERINFO = re.compile(r"^([a-z]+://)[^/@\s]+@")
OFF = "# switched off by Rackwright, which has this repository in a file of its own: "
FIELD = re.compile(r"^(?P<name>[A-Za-z-]+):[ \t]*(?P<value>.*)$")


@dataclass
class Edited:
    """One source file: its new text, and one-line entries for just the components that were missing."""

    content: str
    additions: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)


def own_suites(codename: str) -> set[str]:
    """Return the suites of a distribution release that carry its packages."""
    names = {codename, "stable", "oldstable"}
    return names | {f"{name}{pocket}" for name in names for pocket in ("-updates", "-security", "/updates")}


def with_components(content: str, deb822: bool, suites: set[str], wanted: list[str]) -> Edited:
    """Return the file with the wanted components in every entry of the given suites that has ``main``."""
    return _edit_deb822(content, suites, wanted) if deb822 else _edit_one_line(content, suites, wanted)


def _edit_one_line(content: str, suites: set[str], wanted: list[str]) -> Edited:
    edited, lines = Edited(""), []
    for line in content.splitlines():
        match = ONE_LINE.match(line.strip())
        have = match["components"].split() if match else []
        if match and match["suite"] in suites and "main" in have:
            options = (match["options"] or "").strip()
            head = " ".join(part for part in ("deb", options, match["uri"], match["suite"]) if part)
            missing = [component for component in wanted if component not in have]
            edited.entries.append(f"{head} {_asked(have, wanted)}")
            if missing:
                edited.additions.append(f"{head} {' '.join(missing)}")
                line = " ".join([head, *have, *missing]) + (f" {match['comment']}" if match["comment"] else "")
        lines.append(line)
    edited.content = "".join(f"{line}\n" for line in lines)
    return edited


def _asked(have: list[str], wanted: list[str]) -> str:
    """Return the components to ask a mirror for: main with the wanted ones, or those that are there."""
    return " ".join(dict.fromkeys(["main", *wanted] if wanted else have))


def _edit_deb822(content: str, suites: set[str], wanted: list[str]) -> Edited:
    edited = Edited("")
    paragraphs = re.split(r"(\n[ \t]*\n+)", content)
    for position in range(0, len(paragraphs), 2):
        paragraphs[position] = _edit_paragraph(paragraphs[position], suites, wanted, edited)
    edited.content = "".join(paragraphs)
    return edited


def _fields(paragraph: str) -> dict[str, str]:
    """Return a paragraph's fields, continuation lines joined, names in lower case."""
    fields: dict[str, str] = {}
    last = ""
    for line in paragraph.splitlines():
        match = FIELD.match(line)
        if match:
            last = match["name"].lower()
            fields[last] = match["value"].strip()
        elif last and line[:1] in (" ", "\t"):
            fields[last] += "\n" + line.strip()
    return fields


def _edit_paragraph(paragraph: str, suites: set[str], wanted: list[str], edited: Edited) -> str:
    fields = _fields(paragraph)
    have = fields.get("components", "").split()
    own = [suite for suite in fields.get("suites", "").split() if suite in suites]
    if "deb" not in fields.get("types", "").split() or not own or "main" not in have:
        return paragraph
    if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
        return paragraph
    # a key that is written out in the entry cannot be carried over into a one-line entry
    signed = fields.get("signed-by", "")
    option = f"[signed-by={signed}] " if signed.startswith("/") and "\n" not in signed else ""
    missing = [component for component in wanted if component not in have]
    for uri in fields.get("uris", "").split():
        for suite in own:
            edited.entries.append(f"deb {option}{uri} {suite} {_asked(have, wanted)}")
            if missing:
                edited.additions.append(f"deb {option}{uri} {suite} {' '.join(missing)}")
    if not missing:
        return paragraph
    return re.sub(
        r"(?im)^(components:[ \t]*)([^\n]*(?:\n[ \t]+[^\n]*)*)",
        lambda found: f"{found[1]}{' '.join([*have, *missing])}",
        paragraph,
        count=1,
    )


def uris(content: str) -> list[str]:
    """Return the URLs of a deb822 file's entries."""
    paragraphs = re.split(r"\n[ \t]*\n+", content)
    return [uri for paragraph in paragraphs for uri in _fields(paragraph).get("uris", "").split()]


def comparable(url: str) -> str:
    """Return a URL as ``apt-cache`` prints it: no password, one slash after ``file:``, one slash at the end."""
    return re.sub(r"^file:/+", "file:/", USERINFO.sub(r"\1", url)).rstrip("/") + "/"


def without_repositories(content: str, deb822: bool, beginnings: Sequence[str]) -> tuple[str, list[str]]:
    """Switch off every entry whose URL starts with one of the given ones.

    Two entries of one repository with different ``Signed-By`` make apt refuse all sources.

    Returns:
        The new text, and the URLs that were switched off.
    """
    starts = tuple(comparable(one) for one in beginnings)
    return _off_deb822(content, starts) if deb822 else _off_one_line(content, starts)


def _off_one_line(content: str, starts: tuple[str, ...]) -> tuple[str, list[str]]:
    lines, off = [], []
    for line in content.splitlines(keepends=True):
        match = ENTRY.match(line.strip())
        if match and comparable(match["uri"]).startswith(starts):
            off.append(match["uri"])
            line = f"{OFF}{line}"
        lines.append(line)
    return "".join(lines), off


def _off_deb822(content: str, starts: tuple[str, ...]) -> tuple[str, list[str]]:
    paragraphs, off = re.split(r"(\n[ \t]*\n+)", content), []
    for position in range(0, len(paragraphs), 2):
        fields = _fields(paragraphs[position])
        uris = fields.get("uris", "").split()
        mine = [uri for uri in uris if comparable(uri).startswith(starts)]
        if not mine or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        off += mine
        others = [uri for uri in uris if uri not in mine]
        paragraphs[position] = (
            _replace_field(paragraphs[position], "URIs", " ".join(others))
            if others
            else _replace_field(paragraphs[position], "Enabled", "no")
        )
    return "".join(paragraphs), off


def _replace_field(paragraph: str, name: str, value: str) -> str:
    """Set a field of a paragraph, added at its end where it has none."""
    pattern = re.compile(rf"(?im)^{name}:[^\n]*(?:\n[ \t]+[^\n]*)*")
    if pattern.search(paragraph):
        return pattern.sub(lambda _found: f"{name}: {value}", paragraph, count=1)
    ending = "\n" if paragraph.endswith("\n") else ""
    return f"{paragraph.rstrip()}\n{name}: {value}{ending}"
