# SPDX-License-Identifier: Apache-2.0
"""Add a vendor's repository to dnf: its key, one .repo file that checks signatures, nobody else's entry beside it.

dnf takes packages from every repository that offers them, so a second entry of the same repository without a check of
signatures would undo this one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from .errors import RackwrightError
from .openpgp import armour, certificates, dearmor
from .packages_repos import REPOSITORIES, parse_repositories, with_enabled
from .packages_rpm_errors import last_cause
from .repository import Draft, Outcome, Wish, read_text

ROOT = Path("/")
KEYS = "etc/pki/rpm-gpg"
Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


def keyring_path(root: Path, name: str) -> Path:
    """Return where the key of a repository lies."""
    return root / KEYS / f"RPM-GPG-KEY-rackwright-{name}"


def source_path(root: Path, name: str) -> Path:
    """Return where the entry of a repository lies."""
    return root / REPOSITORIES / f"rackwright-{name}.repo"


def repository_id(name: str) -> str:
    """Return what dnf calls the repository."""
    return f"rackwright-{name}"


def entry(wish: Wish, keyring: str, *options: str) -> str:
    """Return the text of the .repo file. The metadata is checked too unless the vendor does not sign it."""
    signed = wish.options.get("signed_metadata")
    lines = ["# Managed by Rackwright; changes are overwritten.", f"[{repository_id(wish.name)}]"]
    lines += [f"name={wish.name} (Rackwright)", f"baseurl={wish.url}", "enabled=1", "gpgcheck=1"]
    lines += [f"repo_gpgcheck={int(signed is None or bool(signed))}", f"gpgkey=file://{keyring}"]
    lines += ["skip_if_unavailable=0", *options]
    return "".join(f"{line}\n" for line in lines)


def apply(wish: Wish, key: bytes | None, check_mode: bool, root: Path = ROOT, run: Run | None = None) -> Outcome:
    """Bring the repository to the wanted state, or in check mode say what would be done.

    Args:
        key: content of the key file; its fingerprint has been checked. None when the repository has to go.
        run: runs a program on the node; where it is given, the key is also imported into rpm's database, so that
            packages are checked against it without dnf asking for it.
    """
    draft = plan(wish, key, root)
    missing = _missing_keys(key, run) if key and wish.present and run else []
    if missing:
        text = "".join(f"key {one}\n" for one in missing)
        draft.outcome.diff.append(
            {"before_header": "rpm's keys", "after_header": "rpm's keys", "before": "", "after": text}
        )
    if check_mode:
        return draft.outcome
    draft.carry_out()
    if missing and run:
        _import(keyring_path(root, wish.name), run)
    return draft.outcome


def plan(wish: Wish, key: bytes | None, root: Path) -> Draft:
    """Return what has to change; reads only. The key comes first, so that no entry names a key that is not there.

    The key file is armoured: rpm imports no other form.
    """
    draft = Draft(root)
    ring, source = keyring_path(root, wish.name), source_path(root, wish.name)
    if wish.present:
        draft.outcome.files = [draft.named(ring), draft.named(source)]
        for path, ids, content in others(root, source, [wish.url, *wish.replaces]):
            draft.switch_off(path, ids, content)
    draft.key(ring, armour(dearmor(key, wish.name)) if key and wish.present else None)
    draft.text(source, entry(wish, draft.named(ring)) if wish.present else None)
    return draft


def others(root: Path, own: Path, beginnings: list[str]) -> list[tuple[Path, list[str], str]]:
    """Return the other .repo files with an enabled entry of the repository: path, ids, text with those switched off."""
    wanted = tuple(_comparable(url) for url in beginnings)
    found = []
    for path in sorted((root / REPOSITORIES).glob("*.repo")):
        text = read_text(path)
        if path == own or text is None:
            continue
        rows = parse_repositories(text, str(path))
        ids = [row.id for row in rows if row.enabled and _comparable(row.baseurl).startswith(wanted)]
        if ids:
            found.append((path, ids, with_enabled(text, set(ids), False)))
    return found


def _comparable(url: str) -> str:
    """Return a URL without its scheme, with one slash at the end: http and https name the same repository."""
    plain = url.strip().partition("://")[2] or url.strip()
    return f"{plain.rstrip('/')}/"


def _missing_keys(key: bytes, run: Run) -> list[str]:
    """Return the fingerprints that rpm's database does not have (it names keys by the end of their fingerprint)."""
    code, out, _err = run(["rpm", "-q", "gpg-pubkey", "--qf", "%{VERSION}\\n"])
    known = {line.strip().upper() for line in out.splitlines()} if code == 0 else set()
    found = [one.fingerprint for one in certificates(key, "the signing key")]
    # rpm 6 names keys by their whole fingerprint, earlier ones by the last 8 digits
    return [one for one in found if one not in known and one[-8:] not in known and one[-16:] not in known]


def _import(path: Path, run: Run) -> None:
    code, out, err = run(["rpmkeys", "--import", str(path)])
    if code != 0:
        raise RackwrightError(
            "import the signing key",
            str(path),
            last_cause(f"{out}\n{err}"),
            f"Run `rpmkeys --import {path}` on the node; the system's crypto policy may refuse its algorithms",
        )
