# SPDX-License-Identifier: Apache-2.0
"""Add a vendor's repository to apt: one keyring, one source with one ``Signed-By``, nobody else's entry beside it."""

from __future__ import annotations

from pathlib import Path

from .apt_sources import without_repositories
from .errors import RackwrightError
from .fetch import shown
from .openpgp import certificates
from .repository import Draft, Outcome, Wish, read_text

LISTS = ("etc/apt/sources.list", "etc/apt/sources.list.d")
ROOT = Path("/")
TRUSTED = ("etc/apt/trusted.gpg", "etc/apt/trusted.gpg.d")


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
    draft = plan(wish, key, root)
    if not check_mode:
        draft.carry_out()
    return draft.outcome


def plan(wish: Wish, key: bytes | None, root: Path) -> Draft:
    """Return what has to change; reads only.

    The key comes first, so that the entry never names a keyring that is not there. What is written can be read by
    everybody: apt has to.
    """
    draft = Draft(root, readable=0o444)
    ring, source = keyring_path(root, wish.name), source_path(root, wish.name)
    if wish.present:
        draft.outcome.files = [draft.named(ring), draft.named(source)]
        for path, uris, content in others(root, source, [wish.url, *wish.replaces]):
            draft.switch_off(path, [shown(uri) for uri in uris], content)
        _distrust(wish, root, draft)
    draft.key(ring, key if wish.present else None)
    draft.text(source, entry(wish, draft.named(ring)) if wish.present else None)
    return draft


def others(root: Path, own: Path, beginnings: list[str]) -> list[tuple[Path, list[str], str]]:
    """Return the other source files with an entry of the repository: path, URLs of the entries, text without them."""
    single, folder = root / LISTS[0], root / LISTS[1]
    paths = [single] if single.is_file() else []
    if folder.is_dir():
        paths += sorted(path for path in folder.iterdir() if path.suffix in (".list", ".sources") and path != own)
    found = []
    for path in paths:
        content = read_text(path)
        if content is None:
            continue
        edited, uris = without_repositories(content, path.suffix == ".sources", beginnings)
        if uris:
            found.append((path, uris, edited))
    return found


def _distrust(wish: Wish, root: Path, draft: Draft) -> None:
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
        draft.outcome.removed_keys += [one.fingerprint for one in keys if one not in left]
        _leave(draft, path, b"".join(one.raw for one in left))
        draft.outcome.diff.append(
            {
                "before_header": draft.named(path),
                "after_header": draft.named(path),
                "before": "".join(f"key {one.fingerprint}\n" for one in keys),
                "after": "".join(f"key {one.fingerprint}\n" for one in left),
            }
        )


def _leave(draft: Draft, path: Path, left: bytes) -> None:
    """Leave these keys in a keyring; what was armoured is not any more, so its name changes."""
    if left and path.suffix == ".asc":
        draft.edit_key(path, None)
        path = path.with_suffix(".gpg")
    draft.edit_key(path, left or None)
