# SPDX-License-Identifier: Apache-2.0
"""What adding a vendor's package repository has in common for apt and dnf: which key is trusted, what is written."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from . import atomic
from .errors import InvalidInputError, RackwrightError
from .fetch import checked, fetch, shown
from .files import WantedFile
from .files import apply as write_text
from .openpgp import Certificate, certificates, normal_fingerprint

KEY_MODE = 0o644


@dataclass(frozen=True)
class Wish:
    """A repository as the caller wants it.

    Attributes:
        name: short name, part of the file names.
        url: where it is, with a slash at the end.
        present: whether it has to be there.
        replaces: beginnings of URLs; entries of other files with such a URL are switched off.
        obsolete_keys: ends of fingerprints that must no longer be trusted (8 hex digits or more).
        options: what only one of the formats has.
    """

    name: str
    url: str
    present: bool = True
    replaces: Sequence[str] = ()
    obsolete_keys: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """What was done, or in check mode would be done.

    Attributes:
        files: the files of the repository (key, source), whether or not they changed.
        disabled: entries of others that were switched off, ``path: what``.
        removed_keys: fingerprints that are no longer trusted.
        diff: Ansible's differences.
    """

    files: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    removed_keys: list[str] = field(default_factory=list)
    diff: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.diff)


def wish_from_options(options: dict[str, Any], node: str) -> Wish:
    """Return the wish that the options of the module ``vendor_repository`` describe."""
    url = checked(options["url"], "the repository", node)
    return Wish(
        name=options["name"],
        url=f"{url.rstrip('/')}/",
        present=options.get("state", "present") == "present",
        replaces=options.get("replaces") or (),
        obsolete_keys=options.get("obsolete_keys") or (),
        options={key: options.get(key) for key in ("suite", "components", "signed_metadata")},
    )


def repository_key(options: dict[str, Any], node: str, keyring: Path) -> bytes:
    """Return the content of the keyring for the options of ``vendor_repository``; fetches the key where that is needed.

    Args:
        keyring: where the key lies on the node when the repository is there.
    """
    given = options.get("key")
    try:
        key = base64.b64decode(given, validate=True) if given else None
    except ValueError as error:
        raise InvalidInputError("read the signing key", node, "it is not base64", "Give the file in base64") from error

    def get(url: str) -> bytes:
        return fetch(url, node=node, what="the signing key", variable="stack_repository_key")

    return obtain_key(
        key, options.get("key_url") or "", options.get("fingerprint"), options.get("key_id"), keyring, node, get
    )


def wanted_fingerprint(fingerprint: str | None, has_key: bool, node: str, where: str) -> str | None:
    """Return the fingerprint the key must have; None where the operator gave the key itself and no fingerprint.

    Raises:
        InvalidInputError: neither is known, so nothing says which key may be trusted.
    """
    if fingerprint:
        return normal_fingerprint(fingerprint, node)
    if has_key:
        return None
    raise InvalidInputError(
        "trust the signing key",
        node,
        f"nobody has said which key signs {shown(where)}",
        "Set stack_repository_key to its public key, or stack_repository_key_fingerprint to its 40 hex digits",
        expected="a fingerprint or a key",
    )


def trusted(data: bytes, fingerprint: str | None, key_id: str | None, node: str, where: str) -> bytes:
    """Return what goes into a keyring: the one key with the fingerprint, or all of a file that was given as trusted.

    Args:
        data: a key file, armoured or not.
        fingerprint: as ``wanted_fingerprint`` returns it.
        key_id: end of the fingerprint that has to fit too, None where it is not known.
        where: path or URL of the key file, for messages.
    """
    found = certificates(data, shown(where))
    fitting = [one for one in found if _fits(one, fingerprint, key_id)]
    if fitting:
        return b"".join(one.raw for one in fitting)
    wanted = fingerprint or str(key_id)
    raise InvalidInputError(
        "trust the signing key",
        node,
        f"{shown(where)} has the fingerprint {', '.join(one.fingerprint for one in found)}, expected is {wanted}",
        "Find out who changed it; when the vendor did, set stack_repository_key_fingerprint to the new one",
        expected=wanted,
        found=[one.fingerprint for one in found],
    )


def _fits(key: Certificate, fingerprint: str | None, key_id: str | None) -> bool:
    if fingerprint and key.fingerprint != fingerprint:
        return False
    return not key_id or key.key_id.endswith(key_id.upper())


def fitting_keyring(path: Path, fingerprint: str | None) -> bytes | None:
    """Return an installed keyring that holds exactly the key with this fingerprint: then none has to be fetched."""
    if fingerprint is None:
        return None
    try:
        data = path.read_bytes()
        found = certificates(data, str(path))
    except (OSError, RackwrightError):
        # what cannot be read is fetched anew
        return None
    return data if [one.fingerprint for one in found] == [fingerprint] else None


def obtain_key(
    wish_key: bytes | None,
    key_url: str,
    fingerprint: str | None,
    key_id: str | None,
    keyring: Path,
    node: str,
    get: Callable[[str], bytes],
) -> bytes:
    """Return the keyring's content: from the key that was given, from the installed keyring, or from the key's URL."""
    wanted = wanted_fingerprint(fingerprint, wish_key is not None, node, key_url)
    if wish_key is not None:
        return trusted(wish_key, wanted, None if wanted is None else key_id, node, "the given key")
    installed = fitting_keyring(keyring, wanted)
    if installed is not None:
        return installed
    return trusted(get(key_url), wanted, key_id, node, key_url)


def key_difference(path: Path, content: bytes | None) -> dict[str, Any] | None:
    """Return Ansible's difference for a key file, told by fingerprints; None when it is right."""
    try:
        have: bytes | None = path.read_bytes()
        mode = path.stat().st_mode & 0o7777
    except OSError:
        have, mode = None, KEY_MODE
    if have == content and mode == KEY_MODE:
        return None
    return {
        "before_header": str(path),
        "after_header": str(path),
        "before": _told(have, path),
        "after": _told(content, path),
    }


def _told(data: bytes | None, path: Path) -> str:
    if data is None:
        return ""
    try:
        return "".join(f"key {one.fingerprint}\n" for one in certificates(data, str(path)))
    except RackwrightError:
        return "unreadable\n"


def write_key(path: Path, content: bytes | None) -> None:
    """Write or remove a key file; a reader sees the old one or the new one, never half of it."""
    try:
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomic.replace(path, content, mode=KEY_MODE)
    except OSError as error:
        raise RackwrightError(
            "write the signing key",
            str(path),
            error.strerror or str(error),
            "Look at the folder and the space on its file system, then run again",
        ) from error


class Draft:
    """What has to change for a repository, collected before anything is written.

    Edits are carried out in the order they are added. Bytes are keys, text is for people.
    """

    def __init__(self, root: Path, readable: int = 0) -> None:
        """Start with nothing to change.

        Args:
            root: root of the file system; messages and ``outcome`` name paths below it.
            readable: bits that a changed file of somebody else gets besides its own mode.
        """
        self.outcome = Outcome()
        self._root, self._readable = root, readable
        self._edits: list[tuple[Path, str | bytes | None]] = []

    def named(self, path: Path) -> str:
        """Return a path as the node has it."""
        return f"/{path.relative_to(self._root)}"

    def switch_off(self, path: Path, entries: Sequence[str], content: str) -> None:
        """Have a file of somebody else without these entries."""
        self.outcome.disabled += [f"{self.named(path)}: {entry}" for entry in entries]
        self._write(path, content)

    def key(self, path: Path, content: bytes | None) -> None:
        """Have this key file, or none; nothing is to be done where it is right."""
        difference = key_difference(path, content)
        if difference:
            self.outcome.diff.append(difference)
            self.edit_key(path, content)

    def edit_key(self, path: Path, content: bytes | None) -> None:
        """Write or remove a key file whose difference is told otherwise."""
        self._edits.append((path, b"" if content is None else content))

    def text(self, path: Path, content: str | None) -> None:
        """Have this text file, or none; nothing is to be done where it is right."""
        if read_text(path) != content:
            self._write(path, content)

    def _write(self, path: Path, content: str | None) -> None:
        self._edits.append((path, content))
        self.outcome.diff.append(
            {
                "before_header": self.named(path),
                "after_header": self.named(path),
                "before": shown(read_text(path) or ""),
                "after": shown(content or ""),
            }
        )

    def carry_out(self) -> None:
        """Write and remove."""
        for path, content in self._edits:
            if isinstance(content, bytes):
                write_key(path, content or None)
            else:
                write_text(WantedFile(str(path), content, self._mode(path), os.geteuid(), os.getegid()))

    def _mode(self, path: Path) -> int:
        """A file of somebody else keeps its mode."""
        try:
            return path.stat().st_mode & 0o777 | self._readable
        except OSError:
            return 0o644


def read_text(path: Path) -> str | None:
    """Return a file's text, None where there is none to be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
