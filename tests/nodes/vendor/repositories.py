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
from ..prerequisites import check_vendor
from . import apt_repo, dnf_repo
from .signing import throwaway_key

MOUNT = "/srv/vendor"
KINDS = ("deb", "rpm")
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


def ensure(kind: str) -> Path:
    """The folder that nodes see at /srv/vendor, of kind `deb` or `rpm`; two runs at once build it once."""
    target = _FOLDER / f"{kind}-{digest()}"
    if target.is_dir():
        return target
    with locked(f"vendor-{kind}"):
        if not target.is_dir():
            _build(kind, target)
    return target


def _build(kind: str, target: Path) -> None:
    require_free(CACHE, 0.5, "build the vendor's repositories")
    check_vendor(kind)
    started = time.monotonic()
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    say(f"Building the vendor's {kind} repositories (stub packages, a throwaway key; kept until their builder changes)")
    with throwaway_key() as key:
        key.public(fresh / KEY_FILE, armoured=True)
        (fresh / "fingerprint").write_text(f"{key.fingerprint}\n", encoding="ascii")
        if kind == "deb":
            count = sum(apt_repo.build(distro, fresh, MOUNT, key) for distro in apt_repo.DISTROS)
        else:
            count = sum(dnf_repo.build(distro, fresh, MOUNT, key) for distro in dnf_repo.DISTROS)
            count += sum(dnf_repo.build_base(major, fresh, key) for major in (8, 9, 10))
    fresh.rename(target)
    say(f"Built {count} stub packages in {time.monotonic() - started:.0f} s: {target}")


def publish(kind: str, build: Path, folder: Path) -> None:
    """Lay key and fingerprint into a fleet's folder, for the control side: vendor-deb.pub, vendor-deb.fingerprint."""
    for name, target in ((KEY_FILE, key_name(kind)), ("fingerprint", f"vendor-{kind}.fingerprint")):
        shutil.copyfile(build / name, folder / target)
    if kind == "deb":
        shutil.copyfile(build / KEY_FILE, folder / KEY_FILE)


def key_name(kind: str) -> str:
    """Name of the key in a fleet's folder."""
    return f"vendor-{kind}.pub"


def drop_old(in_use: set[str]) -> None:
    """Remove builds that no node has mounted any more."""
    keep = {*in_use, *(str(_FOLDER / f"{kind}-{digest()}") for kind in KINDS)}
    for path in _FOLDER.glob("[a-z0-9]*"):
        if str(path) not in keep and time.time() - path.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(path)
