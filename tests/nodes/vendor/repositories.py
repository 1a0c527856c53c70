# SPDX-License-Identifier: Apache-2.0
"""The vendor's repositories, built once per state of this folder and kept in build/cache/vendor."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

from ..host import locked, require_free, say
from ..paths import CACHE
from . import apt_repo
from .signing import throwaway_key

MOUNT = "/srv/vendor"
KEY_FILE = "vendor.pub"
_FOLDER = CACHE / "vendor"
_BUILDER = Path(__file__).resolve().parent
_OLD_SECONDS = 3600


def digest(folder: Path = _BUILDER) -> str:
    """Changes when anything of the builder does."""
    total = hashlib.sha256(MOUNT.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            data = path.read_bytes()
            total.update(f"{path.relative_to(folder)}\0{len(data)}\0".encode() + data)
    return total.hexdigest()[:12]


def ensure() -> Path:
    """The folder that nodes see at /srv/vendor; two runs at once build it once."""
    target = _FOLDER / digest()
    if target.is_dir():
        return target
    with locked("vendor"):
        if not target.is_dir():
            _build(target)
    return target


def _build(target: Path) -> None:
    require_free(CACHE, 0.5, "build the vendor's repositories")
    started = time.monotonic()
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    say("Building the vendor's repositories (stub packages, a throwaway key; once, kept until their builder changes)")
    with throwaway_key() as key:
        key.public(fresh / KEY_FILE, armoured=True)
        (fresh / "fingerprint").write_text(f"{key.fingerprint}\n", encoding="ascii")
        count = sum(apt_repo.build(distro, fresh, MOUNT, key) for distro in apt_repo.DISTROS)
    fresh.rename(target)
    say(f"Built {count} stub packages in {time.monotonic() - started:.0f} s: {target}")


def drop_old(in_use: set[str]) -> None:
    """Remove builds that no node has mounted any more."""
    keep = {*in_use, str(_FOLDER / digest())}
    for path in _FOLDER.glob("[0-9a-f]*"):
        if str(path) not in keep and time.time() - path.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(path)
