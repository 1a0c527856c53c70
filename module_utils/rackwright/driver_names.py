# SPDX-License-Identifier: Apache-2.0
"""Which packages belong to an NVIDIA driver, whatever repository and naming scheme they come from. Pure.

Sources: NVIDIA's driver installation guide (names up to 580 carry the branch on Ubuntu, from 590 they do not; Debian's
never did), NVIDIA/ubuntu-packaging-nvidia-driver, the package lists of Debian and Ubuntu.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only a name in annotations; every node that is looked at would have to compile the module
    from .packages import Installed

UPSTREAM = re.compile(r"^(?:\d+:)?(\d+(?:\.\d+)+)")
#: what NVIDIA's driver versions look like: 535.309.01, 580.142, 495.46
DRIVER_VERSION = re.compile(r"^[3-9]\d\d\.\d{2,3}(?:\.\d{1,2})?$")

#: names of driver packages; a package is one only when its version is a driver version too
FAMILY = (
    "cuda-drivers*",
    "firmware-nvidia-*",
    "kmod-nvidia*",
    "libcuda1",
    "libcudadebugger1",
    "libegl-nvidia*",
    "libgl1-nvidia-*",
    "libgles-nvidia*",
    "libglx-nvidia*",
    "libnvcuvid1",
    "libnvidia-*",
    "libnvoptix1",
    "libnvsdm*",
    "libxnvctrl*",
    "nvidia-*",
    "xorg-x11-nvidia*",
    "xserver-xorg-video-nvidia*",
)
#: names that look alike and are not the driver's
STRANGERS = (
    "libnvidia-container*",
    "libnvidia-ml-dev",
    "nvidia-container-*",
    "nvidia-cuda-*",
    "nvidia-docker*",
    "nvidia-driver-assistant",
    "nvidia-driver-pinning-*",
    "nvidia-fs*",
    "nvidia-gds*",
    "nvidia-opencl-dev",
)
#: modules that Ubuntu builds for each kernel: they are versioned after the kernel
PREBUILT = ("linux-modules-nvidia-*", "linux-objects-nvidia-*", "linux-signatures-nvidia-*")
#: packages that are only wanted where a kernel module is built or loaded
MODULES = (
    "*-dkms",
    "*-dkms-open",
    "*-dkms-[0-9]*",
    "kmod-nvidia*",
    "nvidia-kernel-support",
    "nvidia-open-kernel-support",
    *PREBUILT,
)
PINNING = "nvidia-driver-pinning-"

#: source packages of a distribution's archive that carry the driver's version
ARCHIVE_SOURCES = ("nvidia-graphics-drivers*", "nvidia-open-gpu-kernel-modules", "firmware-nvidia-graphics")
#: source packages beside them with versions of their own
ARCHIVE_HELPERS = ("nvidia-persistenced", "nvidia-modprobe", "nvidia-support", "glx-alternatives")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def upstream(version: str) -> str:
    """Return NVIDIA's own version out of a package version: ``535.309.01-0+deb12u1`` is ``535.309.01``."""
    match = UPSTREAM.match(version)
    return match.group(1) if match else version


def is_driver(name: str, version: str) -> bool:
    """Whether a package of this name and version is part of an NVIDIA driver, of whatever version."""
    if matches(name, STRANGERS) or not matches(name, FAMILY):
        return False
    return bool(DRIVER_VERSION.match(upstream(version)))


def is_module(name: str) -> bool:
    """Whether a package brings the kernel module (and is not wanted where none is built)."""
    return matches(name, MODULES) and not name.startswith("nvidia-headless-no-dkms")


def is_prebuilt(name: str) -> bool:
    """Whether a package is a module that Ubuntu built for one kernel."""
    return matches(name, PREBUILT)


def members(statuses: dict[str, Installed], sources: Iterable[str]) -> dict[str, Installed]:
    """Return the installed packages that must have the driver's version.

    Args:
        sources: patterns of source package names, for a distribution's archive (there the persistence daemon and its
        like
            have versions of their own); empty for NVIDIA's repositories, where every package of the driver has its
            version.
    """
    wanted = tuple(sources)
    if wanted:
        return {name: package for name, package in sorted(statuses.items()) if matches(package.source, wanted)}
    return {name: package for name, package in sorted(statuses.items()) if is_driver(name, package.version)}
