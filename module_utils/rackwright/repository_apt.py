# SPDX-License-Identifier: Apache-2.0
"""Add a vendor's repository to apt: one keyring, one source with one ``Signed-By``, nobody else's entry beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .apt_sources import without_repositories
from .errors import RackwrightError
from .fetch import shown
from .openpgp import certificates
from .repository import Outcome, Wish, key_difference, write_file, write_key

LISTS = ("etc/apt/sources.list", "etc/apt/sources.list.d")
ROOT = Path("/")
TRUSTED = ("etc/apt/trusted.gpg", "etc/apt/trusted.gpg.d")


@dataclass
class Edit:
    """One file to write (``content``, ``key`` for binary) or to remove (both None)."""

    path: Path
    content: str | None = None
    key: bytes | None = None
    binary: bool = False


def keyring_path(root: Path, name: str) -> Path:
    """Return where the key of a repository lies."""
    return root / f"usr/share/keyrings/rackwright-{name}.gpg"


def source_path(root: Path, name: str) -> Path:
    """Return where the entry of a repository lies."""
    return root / f"etc/apt/sources.list.d/rackwright-{name}.sources"


def entry(wish: Wish, keyring: str) -> str:
    """Return the text of the source file. A suite that ends with a slash has no components."""
    suite = wish.options.get("suite") or "/"
    components = wish.options.get("components") or []
    lines = ["# Managed by Rackwright; changes are overwritten."]
    lines += ["Types: deb", f"URIs: {wish.url}", f"Suites: {suite}"]
    lines += [f"Components: {' '.join(components)}"] if components else []
    lines += [f"Signed-By: {keyring}"]
    return "".join(f"{line}\n" for line in lines)


def apply(wish: Wish, key: bytes | None, check_mode: bool, root: Path = ROOT) -> Outcome:
    """Bring the repository to the wanted state, or in check mode say what would be done.

    Args:
        key: content of the keyring; its fingerprint has been checked. None when the repository has to go.
    """
    outcome, edits = plan(wish, key, root)
    if check_mode:
        return outcome
    for edit in edits:
        if edit.binary:
            write_key(edit.path, edit.key)
        else:
            write_file(edit.path, edit.content, _mode(edit.path))
    return outcome


def _mode(path: Path) -> int:
    """A file of somebody else keeps its mode; apt has to be able to read it."""
    try:
        return path.stat().st_mode & 0o777 | 0o444
    except OSError:
        return 0o644


def plan(wish: Wish, key: bytes | None, root: Path) -> tuple[Outcome, list[Edit]]:
    """Return what has to change; reads only.

    The key comes first, so that the entry never names a keyring that is not there.
    """
    outcome, edits = Outcome(), []
    ring, source = keyring_path(root, wish.name), source_path(root, wish.name)
    if wish.present:
        outcome.files = [_named(ring, root), _named(source, root)]
        for path, uris, content in others(root, source, [wish.url, *wish.replaces]):
            outcome.disabled += [f"{_named(path, root)}: {shown(uri)}" for uri in uris]
            outcome.diff.append(_difference(path, root, content))
            edits.append(Edit(path, content))
        _distrust(wish, root, outcome, edits)
    difference = key_difference(ring, key if wish.present else None)
    if difference:
        outcome.diff.append(difference)
        edits.append(Edit(ring, key=key if wish.present else None, binary=True))
    text = entry(wish, _named(ring, root)) if wish.present else None
    if _read(source) != text:
        outcome.diff.append(_difference(source, root, text))
        edits.append(Edit(source, text))
    return outcome, edits


def others(root: Path, own: Path, beginnings: list[str]) -> list[tuple[Path, list[str], str]]:
    """Return the other source files with an entry of the repository: path, URLs of the entries, text without them."""
    single, folder = root / LISTS[0], root / LISTS[1]
    paths = [single] if single.is_file() else []
    if folder.is_dir():
        paths += sorted(path for path in folder.iterdir() if path.suffix in (".list", ".sources") and path != own)
    found = []
    for path in paths:
        content = _read(path)
        if content is None:
            continue
        edited, uris = without_repositories(content, path.suffix == ".sources", beginnings)
        if uris:
            found.append((path, uris, edited))
    return found


def _distrust(wish: Wish, root: Path, outcome: Outcome, edits: list[Edit]) -> None:
    """Take obsolete keys out of the keyrings that apt trusts for every repository."""
    ends = tuple(end.upper() for end in wish.obsolete_keys)
    if not ends:
        return
    single, folder = root / TRUSTED[0], root / TRUSTED[1]
    paths = [single] if single.is_file() else []
    if folder.is_dir():
        paths += sorted(path for path in folder.iterdir() if path.suffix in (".gpg", ".asc"))
    for path in paths:
        try:
            keys = certificates(path.read_bytes(), str(path))
        except (OSError, RackwrightError):
            # empty, or in a form that apt does not read either
            continue
        left = [one for one in keys if not one.fingerprint.endswith(ends)]
        if len(left) == len(keys):
            continue
        outcome.removed_keys += [one.fingerprint for one in keys if one not in left]
        edits += _keyring_edits(path, b"".join(one.raw for one in left))
        outcome.diff.append(
            {
                "before_header": _named(path, root),
                "after_header": _named(path, root),
                "before": "".join(f"key {one.fingerprint}\n" for one in keys),
                "after": "".join(f"key {one.fingerprint}\n" for one in left),
            }
        )


def _keyring_edits(path: Path, left: bytes) -> list[Edit]:
    """Return the edits that leave these keys; what was armoured is not any more, so its name changes."""
    if not left:
        return [Edit(path, binary=True)]
    if path.suffix == ".asc":
        return [Edit(path, binary=True), Edit(path.with_suffix(".gpg"), key=left, binary=True)]
    return [Edit(path, key=left, binary=True)]


def _difference(path: Path, root: Path, content: str | None) -> dict[str, Any]:
    return {
        "before_header": _named(path, root),
        "after_header": _named(path, root),
        "before": shown(_read(path) or ""),
        "after": shown(content or ""),
    }


def _named(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
