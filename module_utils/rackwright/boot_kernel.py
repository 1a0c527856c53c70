# SPDX-License-Identifier: Apache-2.0
"""Which of the installed kernels the next boot takes, read from the boot loader's files. Runs nothing.

A kernel module that is built for the newest kernel helps nobody whose boot loader starts another one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

GRUB_CONFIGS = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")
GRUB_ENVIRONMENTS = ("boot/grub2/grubenv", "boot/grub/grubenv")
BLS_FOLDERS = ("boot/loader/entries", "boot/efi/loader/entries", "efi/loader/entries")
LINKS = ("vmlinuz", "boot/vmlinuz")
#: where a boot loader's choice stands; some systems show it to root alone
_PRIVATE = (*GRUB_CONFIGS, "boot/loader/entries", "boot/grub2")
_NATURAL = re.compile(r"\d+|[^\d]+")
_ENTRY = re.compile(r"""^(?:menuentry|submenu)\s+(?P<quote>['"])(?P<title>.*?)(?P=quote)(?P<rest>.*)\{$""")
_ID = re.compile(r"""(?:\$\{?menuentry_id_option\}?|--id)[\s=]+['"]?(?P<id>[^'"\s{]+)""")
_DEFAULT = re.compile(r"""^set\s+default=["']?(?P<value>[^"']*)["']?$""")
_LINUX = re.compile(r"^linux(?:16|efi)?\s+(?P<path>\S+)")
_IMAGE = re.compile(r"(?:^|/)vmlinu[zx]-(?P<release>\S+)$")


def natural_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sort kernel releases the way people count: 6.1.0-9 before 6.1.0-10."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _NATURAL.findall(version))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@dataclass
class Entry:
    """One line of a boot menu; a submenu has children and no kernel."""

    title: str
    id: str = ""
    kernel: str | None = None
    children: list[Entry] = field(default_factory=list)

    def named(self, name: str) -> bool:
        """Whether a default of the boot loader means this entry."""
        return name in (self.title, self.id)


def release_of(path: str) -> str | None:
    """Return the release in the name of a kernel image, None where the name has none."""
    match = _IMAGE.search(path)
    return match["release"] if match else None


def parse_grubenv(text: str) -> dict[str, str]:
    """Read GRUB's environment block."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, separator, value in pairs if separator}


def parse_grub_config(text: str) -> tuple[list[Entry], list[str]]:
    """Return the menu of a grub.cfg, and the values its ``default`` is set to in order."""
    root = Entry("")
    open_blocks: list[Entry | None] = [root]
    defaults: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        match, default, linux = _ENTRY.match(line), _DEFAULT.match(line), _LINUX.match(line)
        inner = open_blocks[-1]
        if match:
            found = _ID.search(match["rest"])
            entry = Entry(match["title"], found["id"] if found else "")
            if inner is not None:
                inner.children.append(entry)
            open_blocks.append(entry)
        elif line.endswith("{"):
            open_blocks.append(None)
        elif line == "}" and len(open_blocks) > 1:
            open_blocks.pop()
        elif default:
            defaults.append(default["value"])
        elif linux and inner is not None and inner.kernel is None:
            inner.kernel = release_of(linux["path"])
    return root.children, defaults


def pick(entries: list[Entry], wanted: str) -> str | None:
    """Return the kernel of a GRUB default: a number, a title or an id, through submenus with ``>``."""
    whole = next((entry for entry in entries if entry.named(wanted)), None)
    name, _separator, rest = (wanted, "", "") if whole else wanted.partition(">")
    if whole is None and name.isdigit() and int(name) < len(entries):
        whole = entries[int(name)]
    whole = whole or next((entry for entry in entries if entry.named(name)), None)
    if whole is None:
        return None
    if whole.children:
        return pick(whole.children, rest or "0")
    return whole.kernel


def _environment(root: Path) -> dict[str, str]:
    for name in GRUB_ENVIRONMENTS:
        found = parse_grubenv(_read(root / name))
        if found:
            return found
    return {}


def _by_grub(root: Path) -> tuple[str | None, str]:
    for name in GRUB_CONFIGS:
        entries, defaults = parse_grub_config(_read(root / name))
        if not any(entry.kernel or entry.children for entry in entries):
            continue
        environment = _environment(root)
        once = environment.get("next_entry") if "${next_entry}" in defaults else None
        fixed = [value for value in defaults if value != "${next_entry}"]
        wanted = fixed[-1] if fixed else "0"
        if wanted in ("${saved_entry}", "$saved_entry"):
            wanted = environment.get("saved_entry") or "0"
        return pick(entries, once or wanted or "0"), f"default entry {once or wanted or '0'} of /{name}"
    return None, ""


def parse_bls(text: str) -> str | None:
    """Return the kernel of an entry file of the Boot Loader Specification."""
    values = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    found = release_of(values.get("linux", "").strip())
    return found or values.get("version", "").strip() or None


def _by_bls(root: Path) -> tuple[str | None, str]:
    for folder in BLS_FOLDERS:
        try:
            files = sorted((root / folder).glob("*.conf"), key=lambda path: natural_key(path.stem), reverse=True)
        except OSError:
            continue
        entries = [Entry(path.stem, path.name, parse_bls(_read(path))) for path in files]
        if not entries:
            continue
        environment = _environment(root)
        wanted = environment.get("next_entry") or environment.get("saved_entry") or "0"
        return pick(entries, wanted), f"default entry {wanted} of /{folder}"
    return None, ""


def _by_link(root: Path) -> tuple[str | None, str]:
    for name in LINKS:
        link = root / name
        if link.is_symlink():
            return release_of(str(link.readlink())), f"the link /{name}"
    return None, ""


def kernel_that_boots(root: Path, images: list[str]) -> tuple[str | None, str]:
    """Return the kernel release that the next boot takes and how that is known; None and why where none boots.

    Args:
        root: root of the file system.
        images: releases of the kernels that are installed, oldest first. A boot loader that names another one is
            not believed.
    """
    if not images:
        return None, "no kernel is installed"
    for name in _PRIVATE:
        if os.path.exists(root / name) and not os.access(root / name, os.R_OK):
            return None, f"/{name} cannot be read as an unprivileged user"
    for rule in (_by_bls, _by_grub, _by_link):
        release, source = rule(root)
        if release in images:
            return release, source
    return images[-1], "the newest one that is installed"
