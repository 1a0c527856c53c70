# SPDX-License-Identifier: Apache-2.0
"""Read apt's source files (one-line and deb822) and add components to the distribution's own entries. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ONE_LINE = re.compile(
    r"^(?P<type>deb)\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+?)\s*(?P<comment>#.*)?$"
)
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
            edited.entries.append(f"{head} {' '.join(dict.fromkeys(['main', *wanted]))}")
            if missing:
                edited.additions.append(f"{head} {' '.join(missing)}")
                line = " ".join([head, *have, *missing]) + (f" {match['comment']}" if match["comment"] else "")
        lines.append(line)
    edited.content = "".join(f"{line}\n" for line in lines)
    return edited


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
            edited.entries.append(f"deb {option}{uri} {suite} {' '.join(dict.fromkeys(['main', *wanted]))}")
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
