# SPDX-License-Identifier: Apache-2.0
"""The driver as NVIDIA's repositories package it for Debian: no branch in any name, revision `-1`.

Names: public package lists of machines that use that repository (580.105.08-1 on Debian 12, 595.71.05-1 on Debian 13).
That cuda-drivers-580 asks for `>=` of everything and so takes what is newest, of whatever branch, is in NVIDIA's forum
(thread 353805), as is its list of dependencies. All other dependencies are a reconstruction: their control files were
not to be had. Nothing here pulls in a library of Debian, so that a stub installs without a desktop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import drivers
from .deb_common import DKMS, LIB, UNITS, dkms_scripts, fabric, nvlsm, pinning, unit_scripts
from .drivers import VERSIONS, branch
from .model import Package, wanted

# a name that stands for the libraries of the driver, and on which nothing but the version matters
_PLAIN_LIBRARIES = (
    "libcudadebugger1",
    "libnvcuvid1",
    "libnvidia-allocator1",
    "libnvidia-encode1",
    "libnvidia-gpucomp",
    "libnvidia-nvvm4",
    "libnvidia-opticalflow1",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-ptxjitcompiler1",
    "libnvidia-sandboxutils",
    "firmware-nvidia-gsp",
)
_SOURCE = "nvidia-graphics-drivers"


def packages(_distro: str) -> list[Package]:
    """Everything of the driver for debian12 or debian13."""
    found = [nvlsm(), *pinning(VERSIONS, "1", 580)]
    for version in VERSIONS:
        found += _driver(version)
        found += fabric(version, "1")
    return found


def _driver(version: str) -> list[Package]:
    full = f"{version}-1"

    def same(*names: str) -> tuple[str, ...]:
        return tuple(f"{name} (= {full})" for name in names)

    def package(name: str, **more: Any) -> Package:
        return Package(name, full, source=more.pop("source", _SOURCE), **more)

    ml_files, ml_links = drivers.library(LIB, "libnvidia-ml.so", version, "libnvidia-ml.so.1")
    cuda_files, cuda_links = drivers.library(LIB, "libcuda.so", version, "libcuda.so.1")
    cfg_files, cfg_links = drivers.library(LIB, "libnvidia-cfg.so", version, "libnvidia-cfg.so.1")
    found = [package(name) for name in _PLAIN_LIBRARIES]
    found += [
        package("libnvidia-ml1", files=ml_files, links=ml_links),
        package("libnvidia-cfg1", files=cfg_files, links=cfg_links),
        package(
            "libcuda1",
            files=cuda_files,
            links=cuda_links,
            depends=same("libnvidia-ptxjitcompiler1", "libnvidia-nvvm4", "libnvidia-gpucomp"),
        ),
        package("nvidia-opencl-icd", depends=same("libcuda1")),
        package(
            "nvidia-driver-cuda",
            summary="NVIDIA driver for computing only",
            depends=same(
                "libcuda1",
                "libcudadebugger1",
                "libnvcuvid1",
                "libnvidia-encode1",
                "libnvidia-ml1",
                "libnvidia-opticalflow1",
                "libnvidia-sandboxutils",
                "nvidia-opencl-icd",
                "nvidia-persistenced",
            ),
            provides=("nvidia-smi",),
            conflicts=("nvidia-smi",),
            replaces=("nvidia-smi",),
            files=drivers.smi(version),
        ),
        package("nvidia-driver-libs", depends=same("libnvidia-gpucomp", "libnvidia-allocator1")),
        package("nvidia-driver", depends=same("nvidia-driver-libs", "nvidia-kernel-support")),
        package("nvidia-settings", source="nvidia-settings"),
        package("nvidia-xconfig", source="nvidia-xconfig"),
        package("nvidia-modprobe", source="nvidia-modprobe", files=drivers.modprobe(version)),
        package(
            "nvidia-persistenced",
            source="nvidia-persistenced",
            depends=same("libnvidia-cfg1"),
            files=drivers.persistenced(version, UNITS),
            scripts=unit_scripts("nvidia-persistenced.service"),
        ),
        package(
            "nvidia-kernel-support",
            depends=same("nvidia-modprobe", "firmware-nvidia-gsp"),
            files=drivers.blacklist("etc/modprobe.d"),
            config=("/etc/modprobe.d/nvidia-graphics-drivers.conf",),
        ),
        _module(version, "open"),
        _module(version, "proprietary"),
        package("nvidia-open", depends=_open(same)),
        Package("cuda-drivers", full, source="cuda-drivers", depends=_loose(full)),
    ]
    if branch(version) < drivers.UNSUFFIXED_FROM:
        found.append(
            Package(f"cuda-drivers-{branch(version)}", full, source="cuda-drivers", depends=_loose(full)),
        )
    return found


def _open(same: Callable[..., tuple[str, ...]]) -> tuple[str, ...]:
    names = ("nvidia-driver", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-settings", "nvidia-xconfig")
    return same(*names)


def _loose(full: str) -> tuple[str, ...]:
    names = ("nvidia-driver", "nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-settings", "nvidia-xconfig")
    return tuple(f"{name} (>= {full.partition('-')[0]})" for name in names)


def _module(version: str, flavour: str) -> Package:
    full = f"{version}-1"
    names = {"open": "nvidia-kernel-open-dkms", "proprietary": "nvidia-kernel-dkms"}
    other = names["proprietary" if flavour == "open" else "open"]
    return Package(
        names[flavour],
        full,
        source=_SOURCE,
        summary=f"NVIDIA kernel module, {flavour} (DKMS)",
        depends=(DKMS, f"nvidia-kernel-support (= {full})"),
        provides=("nvidia-kernel-dkms-any", f"nvidia-kernel-{version}"),
        conflicts=(other, "nvidia-kernel-dkms-any"),
        replaces=(other,),
        files=wanted(drivers.module_source(version, flavour), drivers.dkms_conf(version, "/updates/dkms")),
        scripts=dkms_scripts(version),
    )
