# SPDX-License-Identifier: Apache-2.0
"""Parts that NVIDIA's Debian and Ubuntu repositories share: fabric manager and companions, pinning, keyring, scripts.

Seen in public file lists of the repositories: nvidia-fabricmanager-570_570.172.08-1, nvidia-fabricmanager_580.65.06-1,
nvidia-fabricmanager_580.173.10-1ubuntu1 and _595.91.07-1ubuntu1 (Ubuntu), libnvidia-nscq/libnvsdm/nvidia-imex likewise;
nvidia-driver-pinning-610=610-2ubuntu1, nvidia-driver-pinning-595.71.05. Not seen, hence a guess of this catalogue: the
names of the -570 companions beyond the fabric manager, what the pinning packages provide and how their file is called.
"""

from __future__ import annotations

from .drivers import FABRIC_UNSUFFIXED_FROM, branch, fabric_manager, imex
from .model import Package, filled

LIB = "usr/lib/x86_64-linux-gnu"
UNITS = "usr/lib/systemd/system"
# 570.148 and later: "nvidia-dkms-570-open : Depends: dkms (>= 3.1.8)" (public apt output)
DKMS = "dkms (>= 3.1.8)"
NVLSM = "2025.10.12-1"  # the version that nvlink5-580 asked for (>=); the revision is a guess


def unit_scripts(*units: str, start: bool = True) -> dict[str, str]:
    """What debhelper writes for a unit: enabled at installation, started where systemd runs, stopped before removal."""
    names = " ".join(units)
    begin = (
        f"  [ -d /run/systemd/system ] && {{ systemctl daemon-reload; systemctl restart {names} || true; }}\n"
        if start
        else "  [ -d /run/systemd/system ] && systemctl daemon-reload\n"
    )
    enable = (
        f'if [ "$1" = configure ]; then\n  [ -n "$2" ] || systemctl enable {names} >/dev/null 2>&1 || true\n{begin}fi\n'
    )
    return {
        "postinst": f"#!/bin/sh\nset -e\n{enable}exit 0\n",
        "prerm": f'#!/bin/sh\n[ -d /run/systemd/system ] && [ "$1" = remove ] && systemctl stop {names}\nexit 0\n',
        "postrm": (
            f'#!/bin/sh\n[ "$1" = purge ] && systemctl disable {names} >/dev/null 2>&1\n'
            "[ -d /run/systemd/system ] && systemctl daemon-reload\nexit 0\n"
        ),
    }


def dkms_scripts(version: str) -> dict[str, str]:
    """As dh_dkms writes them: the build runs in postinst, and its failure leaves the package half-configured."""
    return {
        "postinst": filled("dkms.postinst", version=version).decode(),
        "prerm": filled("dkms.prerm", version=version).decode(),
    }


def fabric(version: str, revision: str) -> list[Package]:
    """Fabric manager, NSCQ, NVSDM and IMEX of one driver version."""
    number = branch(version)
    suffix = "" if number >= FABRIC_UNSUFFIXED_FROM else f"-{number}"
    full = f"{version}-{revision}"
    manager = f"nvidia-fabricmanager{suffix}"
    other = () if suffix else ("nvidia-fabricmanager-570",)
    return [
        Package(
            manager,
            full,
            source="fabricmanager",
            summary="Fabric Manager for NVSwitch based systems",
            provides=(f"nvidia-fabricmanager-{number}",) if not suffix else ("nvidia-fabricmanager",),
            conflicts=other or ("nvidia-fabricmanager",),
            replaces=other or ("nvidia-fabricmanager",),
            files=fabric_manager(version, UNITS),
            config=(),
            # NVIDIA's package enables the unit and does not start it (public report of its postinst)
            scripts=unit_scripts("nvidia-fabricmanager.service", start=False),
        ),
        Package(f"nvidia-fabricmanager-dev{suffix}", full, source="fabricmanager", depends=(f"{manager} (= {full})",)),
        Package(f"libnvidia-nscq{suffix}", full, source="libnvidia-nscq", summary="NVSwitch configuration and query"),
        Package(f"libnvsdm{suffix}", full, source="libnvsdm", summary="NVSwitch device monitor"),
        Package(
            f"nvidia-imex{suffix}",
            full,
            source="nvidia-imex",
            files=imex(version, UNITS),
            config=("/etc/nvidia-imex/nodes_config.cfg",),
            scripts=unit_scripts("nvidia-imex.service", start=False),
        ),
    ]


def nvlsm() -> Package:
    """The NVLink subnet manager, whose version is its own."""
    return Package(
        "nvlsm",
        NVLSM,
        summary="NVLink subnet manager",
        files={
            "opt/nvidia/nvlsm/sbin/nvlsm": filled("nvlsm", version=NVLSM.partition("-")[0]),
            "usr/share/nvidia/nvlsm/nvlsm.conf": b"# stand-in of the Rackwright test nodes\n",
        },
    )


def pinning(versions: tuple[str, ...], revision: str, first: int) -> list[Package]:
    """nvidia-driver-pinning-BRANCH and -VERSION: an apt preferences file with the pin that NVIDIA's guide prints.

    The file is a conffile, as debhelper makes everything below /etc: it stays, and works, until the package is purged.
    """
    wanted = {str(branch(version)): f"{branch(version)}.*" for version in versions if branch(version) >= first}
    wanted.update({version: f"{version}-*" for version in versions if branch(version) >= first})
    packages = []
    for name, pattern in sorted(wanted.items()):
        path = f"etc/apt/preferences.d/nvidia-driver-pinning-{name}"
        text = (
            "Package: src:*nvidia*:any src:cuda-drivers:any src:cuda-compat:any src:fabricmanager:any\n"
            f"Pin: version {pattern}\nPin-Priority: 1000\n"
        )
        packages.append(
            Package(
                f"nvidia-driver-pinning-{name}",
                f"{name}-{revision}",
                source="nvidia-driver-pinning",
                arch="all",
                summary=f"Pins the NVIDIA driver to {name}",
                provides=("nvidia-driver-pinning",),
                conflicts=("nvidia-driver-pinning",),
                replaces=("nvidia-driver-pinning",),
                files={path: text.encode()},
                config=(f"/{path}",),
            )
        )
    return packages


def keyring(distro: str, root: str, key: bytes) -> Package:
    """cuda-keyring with the stub repository's own key; its source list names the stub repository, never a host."""
    signed = "/usr/share/keyrings/cuda-archive-keyring.gpg"
    listed = f"etc/apt/sources.list.d/cuda-{distro}-x86_64.list"
    pin = "etc/apt/preferences.d/cuda-repository-pin-600"
    return Package(
        "cuda-keyring",
        "1.1-1",
        arch="all",
        summary="GPG keyring of the CUDA repository",
        files={
            signed[1:]: key,
            listed: f"deb [signed-by={signed}] file://{root}/compute/cuda/repos/{distro}/x86_64/ /\n".encode(),
            pin: pin_file(),
        },
        config=(f"/{listed}", f"/{pin}"),
    )


def pin_file() -> bytes:
    """The file that NVIDIA's repositories offer as cuda-DISTRO.pin."""
    return (
        b"Package: nsight-compute\nPin: origin *ubuntu.com*\nPin-Priority: -1\n\n"
        b"Package: nsight-systems\nPin: origin *ubuntu.com*\nPin-Priority: -1\n\n"
        b"Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n"
    )
