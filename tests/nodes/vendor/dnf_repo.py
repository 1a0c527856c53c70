# SPDX-License-Identifier: Apache-2.0
"""dnf repositories: NVIDIA's with module streams where RHEL has them, and the distribution's with its stand-ins."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..host import run
from . import cuda_rpm, el_base, redhat, rpm
from .drivers import VERSIONS, branch
from .model import Package
from .signing import Key

# NVIDIA's distribution -> (dist tag, whether it has module streams)
DISTROS = {"rhel8": ("el8", True), "rhel9": ("el9", True), "rhel10": ("el10", False)}
KEY_FILE = "D42D0685.pub"
# BRANCH_PKGS and OPTIONAL_PKGS of genmodules.py, and the names that their parts have had since
_STREAM_PACKAGES = (
    "nvidia-driver",
    "nvidia-driver-libs",
    "nvidia-driver-cuda",
    "nvidia-driver-cuda-libs",
    "libnvidia-ml",
    "libnvidia-cfg",
    "libnvidia-fbc",
    "nvidia-persistenced",
    "nvidia-modprobe",
    "nvidia-settings",
    "nvidia-libXNVCtrl",
    "nvidia-xconfig",
    "nvidia-kmod-common",
    "xorg-x11-nvidia",
    "cuda-drivers",
    "nvidia-open",
    "nvidia-fabric-manager",
    "nvidia-fabric-manager-devel",
)


def build(distro: str, root: Path, mounted_at: str, key: Key) -> int:
    """NVIDIA's repository for one distribution; answers how many packages it has."""
    dist, modular = DISTROS[distro]
    folder = root / "compute/cuda/repos" / distro / "x86_64"
    packages = [*redhat.packages(dist), *cuda_rpm.packages()]
    _fill(packages, folder, key, modules(packages, dist) if modular else None)
    key.public(folder / KEY_FILE, armoured=True)
    url = f"file://{mounted_at}/compute/cuda/repos/{distro}/x86_64"
    text = f"[cuda-{distro}-x86_64]\nname=cuda-{distro}-x86_64\nbaseurl={url}\nenabled=1\ngpgcheck=1\n"
    (folder / f"cuda-{distro}.repo").write_text(f"{text}gpgkey={url}/{KEY_FILE}\n", encoding="ascii")
    return len(packages)


def build_base(major: int, root: Path, key: Key) -> int:
    """BaseOS, CRB and EPEL of one release."""
    count = 0
    for name, packages in (("baseos", el_base.baseos), ("crb", el_base.crb), ("epel", el_base.epel)):
        found = packages(major)
        _fill(found, root / f"el/{major}/{name}/x86_64", key, None)
        count += len(found)
    key.public(root / "el/RPM-GPG-KEY-el", armoured=True)
    return count


def _fill(packages: Sequence[Package], folder: Path, key: Key, documents: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="rackwright-rpm-") as work:
        rpm.build(packages, Path(work), folder)
        rpm.sign(sorted(folder.glob("*.rpm")), key)
        run(["createrepo_c", "--quiet", str(folder)], "index the stub packages", timeout=300)
        if documents is not None:
            path = Path(work) / "modules.yaml"
            path.write_text(documents, encoding="utf-8")
            run(["modifyrepo_c", "--mdtype=modules", str(path), str(folder / "repodata")], "add the module streams")
    key.detach_sign(folder / "repodata/repomd.xml", folder / "repodata/repomd.xml.asc")
    key.public(folder / "repodata/repomd.xml.key", armoured=True)


def streams() -> dict[str, tuple[int, str]]:
    """Module streams: name -> (branch, what of the module it has)."""
    branches = sorted({branch(version) for version in VERSIONS})
    found = {"latest": (branches[-1], ""), "latest-dkms": (branches[-1], "dkms"), "open-dkms": (branches[-1], "open")}
    for number in branches:
        found.update({f"{number}{'-' if kind else ''}{kind}": (number, kind) for kind in ("", "dkms", "open")})
    return found


def modules(packages: Sequence[Package], dist: str) -> str:
    """modules.yaml as genmodules.py writes it; the streams without -dkms or -open have no precompiled modules here."""
    documents = []
    for name, (number, kind) in streams().items():
        kmod = {"": "", "dkms": "kmod-nvidia-latest-dkms", "open": "kmod-nvidia-open-dkms"}[kind]
        names = {*_STREAM_PACKAGES, kmod} - {""}
        members = [item for item in packages if item.name in names and item.branch == number]
        rpms = "".join(f"            - {rpm.nevra(item)}\n" for item in members)
        profile = "".join(
            f"                - {item}\n"
            for item in sorted({item.name for item in members if "fabric" not in item.name})
        )
        context = hashlib.md5(f"nvidia-driver{name}{dist}".encode()).hexdigest()[:10]
        documents.append(
            "document: modulemd\nversion: 2\ndata:\n"
            f"    name: nvidia-driver\n    stream: {name}\n    version: 20261122000000\n    context: {context}\n"
            f"    arch: x86_64\n    summary: Nvidia driver for {name} branch (stub)\n    description: >-\n"
            "        Stub of the Rackwright test nodes.\n    license:\n        module:\n            - MIT\n"
            f"    artifacts:\n        rpms:\n{rpms}    profiles:\n        default:\n"
            f"            description: Default installation\n            rpms:\n{profile}"
        )
    defaults = "".join(f"        {name}: [default]\n" for name in streams())
    documents.append(
        "document: modulemd-defaults\nversion: 1\ndata:\n    module: nvidia-driver\n    stream: latest-dkms\n"
        f"    profiles:\n{defaults}"
    )
    return "---\n" + "...\n---\n".join(documents) + "...\n"


def available() -> bool:
    """Whether this host has the programs."""
    return all(shutil.which(name) for name in ("rpmbuild", "rpmsign", "createrepo_c", "modifyrepo_c"))
