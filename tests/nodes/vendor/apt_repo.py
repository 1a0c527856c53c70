# SPDX-License-Identifier: Apache-2.0
"""A flat apt repository as NVIDIA lays it out: packages, Packages, Release and its signatures in one folder."""

from __future__ import annotations

import gzip
import hashlib
from datetime import datetime, timezone
from pathlib import Path

from . import cuda_deb, deb, debian, real_dkms, ubuntu
from .deb_common import keyring, pin_file
from .signing import Key

# distribution -> name of NVIDIA's key file there
DISTROS = {
    "debian12": "3bf863cc.pub",
    "debian13": "8793F200.pub",
    "ubuntu2204": "3bf863cc.pub",
    "ubuntu2404": "3bf863cc.pub",
}


def build(distro: str, root: Path, mounted_at: str, key: Key) -> int:
    """Fill the repository of one distribution; answers how many packages it has."""
    folder = root / "compute/cuda/repos" / distro / "x86_64"
    folder.mkdir(parents=True)
    key.public(folder / DISTROS[distro], armoured=True)
    binary = folder / "key.gpg"
    key.public(binary, armoured=False)
    catalogue = debian if distro.startswith("debian") else ubuntu
    packages = [
        *catalogue.packages(distro),
        *cuda_deb.packages(distro),
        keyring(distro, mounted_at, binary.read_bytes()),
        real_dkms.package(),
    ]
    binary.unlink()
    index = deb.write(packages, folder).encode()
    (folder / f"cuda-{distro}.pin").write_bytes(pin_file())
    (folder / "Packages").write_bytes(index)
    (folder / "Packages.gz").write_bytes(gzip.compress(index, 1, mtime=0))
    (folder / "Release").write_text(_release(folder), encoding="ascii")
    key.clear_sign(folder / "Release", folder / "InRelease")
    key.detach_sign(folder / "Release", folder / "Release.gpg")
    return len(packages)


def _release(folder: Path) -> str:
    # Origin and label as in NVIDIA/cuda-repo-management; pins and unattended-upgrades go by them.
    now = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S +0000")
    lines = ["Origin: NVIDIA", "Label: NVIDIA CUDA", "Architecture: x86_64", f"Date: {now}"]
    for label, kind in (("MD5Sum", "md5"), ("SHA1", "sha1"), ("SHA256", "sha256")):
        lines.append(f"{label}:")
        for name in ("Packages", "Packages.gz"):
            data = (folder / name).read_bytes()
            lines.append(f" {hashlib.new(kind, data).hexdigest()} {len(data)} {name}")
    return "\n".join(lines) + "\n"
