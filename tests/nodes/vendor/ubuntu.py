# SPDX-License-Identifier: Apache-2.0
"""The driver as NVIDIA's repositories package it for Ubuntu: names with the branch up to 580, without from 590 on.

Names and revisions: public file lists of ubuntu2204 (580.65.06-0ubuntu1) and ubuntu2604 (595.71.05-1ubuntu1), NVIDIA's
table of renamed packages. Relations: debian/templates/control.in of NVIDIA/ubuntu-packaging-nvidia-driver (branch
20.04, 2021), carried over to the names of today; libraries of Ubuntu's own are left out of the dependencies, so that a
stub installs without a desktop.
"""

from __future__ import annotations

from typing import Any

from . import drivers
from .deb_common import DKMS, LIB, UNITS, dkms_scripts, fabric, nvlsm, pinning, unit_scripts
from .drivers import UNSUFFIXED_FROM, VERSIONS, branch
from .model import Package, wanted

# no two branches of these can be installed at once: each provides the name and conflicts with it
_ONE_OF_A_KIND = ("libnvidia-extra", "libnvidia-decode", "libnvidia-encode", "libnvidia-fbc1", "libnvidia-gpucomp")
_PLAIN = ("nvidia-firmware",)
_EVERYTHING = (
    "libnvidia-gl",
    "libnvidia-compute",
    "libnvidia-extra",
    "nvidia-compute-utils",
    "libnvidia-decode",
    "libnvidia-encode",
    "nvidia-utils",
    "xserver-xorg-video-nvidia",
    "libnvidia-cfg1",
    "libnvidia-fbc1",
)


def revision(version: str) -> str:
    """What follows the driver's version."""
    return "1ubuntu1" if branch(version) >= UNSUFFIXED_FROM else "0ubuntu1"


def fabric_revision(version: str) -> str:
    """Of the fabric manager, whose revision changed within branch 580."""
    return "1ubuntu1" if branch(version) >= UNSUFFIXED_FROM or version == "580.178.04" else "1"


def packages(_distro: str) -> list[Package]:
    """Everything of the driver."""
    found = [nvlsm(), *pinning(VERSIONS, "1ubuntu1", 580)]
    for version in VERSIONS:
        found += _Names(version).packages()
        found += fabric(version, fabric_revision(version))
    return found


class _Names:
    """The packages of one version; `n` puts the branch into a name, or not."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.full = f"{version}-{revision(version)}"
        self.suffix = "" if branch(version) >= UNSUFFIXED_FROM else f"-{branch(version)}"
        self.source = f"nvidia-graphics-drivers{self.suffix}"

    def n(self, name: str, flavour: str = "") -> str:
        return f"{name}{self.suffix}{'-open' if flavour == 'open' else ''}"

    def same(self, *names: str) -> tuple[str, ...]:
        return tuple(f"{name} (= {self.full})" for name in names)

    def package(self, name: str, **more: Any) -> Package:
        return Package(name, self.full, source=more.pop("source", self.source), **more)

    def alone(self, kind: str, **more: Any) -> Package:
        """A package of which only one branch can be installed."""
        name = self.n(kind)
        virtual = (kind,) if name != kind else (f"{kind}-any",)
        others = tuple(f"{kind}-{number}" for number in (570, 580)) if name == kind else (kind,)
        return self.package(name, provides=virtual, conflicts=others, replaces=others, **more)

    def packages(self) -> list[Package]:
        return [*self._libraries(), *self._tools(), *self._modules(), *self._metapackages()]

    def _libraries(self) -> list[Package]:
        ml_files, ml_links = drivers.library(LIB, "libnvidia-ml.so", self.version, "libnvidia-ml.so.1")
        cuda_files, cuda_links = drivers.library(LIB, "libcuda.so", self.version, "libcuda.so.1")
        cfg_files, cfg_links = drivers.library(LIB, "libnvidia-cfg.so", self.version, "libnvidia-cfg.so.1")
        compute = self.alone(
            "libnvidia-compute",
            summary="NVIDIA libcompute package",
            depends=self.same(self.n("libnvidia-gpucomp")),
            files=wanted(ml_files, cuda_files),
            links={**ml_links, **cuda_links},
        )
        return [
            compute,
            self.alone("libnvidia-cfg1", files=cfg_files, links=cfg_links),
            self.alone("libnvidia-gl", depends=self.same(self.n("libnvidia-common"))),
            self.alone("libnvidia-common", arch="all"),
            *(self.alone(kind) for kind in _ONE_OF_A_KIND),
            *(self.package(self.n(name)) for name in _PLAIN),
            self.alone("xserver-xorg-video-nvidia", depends=self.same(self.n("libnvidia-cfg1"))),
        ]

    def _tools(self) -> list[Package]:
        return [
            self.alone("nvidia-utils", summary="NVIDIA driver support binaries", files=drivers.smi(self.version)),
            self.alone("nvidia-compute-utils", depends=(self.n("libnvidia-compute"),)),
            self.package("nvidia-settings", source="nvidia-settings"),
            self.package("nvidia-modprobe", source="nvidia-modprobe", files=drivers.modprobe(self.version)),
            self.package(
                "nvidia-persistenced",
                source="nvidia-persistenced",
                # of the newest names only, so that it goes with either branch's library
                depends=(f"{self.n('libnvidia-cfg1')} (>= {self.version})",),
                files=drivers.persistenced(self.version, UNITS),
                scripts=unit_scripts("nvidia-persistenced.service"),
            ),
        ]

    def _modules(self) -> list[Package]:
        common = self.alone(
            "nvidia-kernel-common",
            depends=(*self.same(self.n("nvidia-firmware")), f"nvidia-modprobe (>= {self.version})"),
            files=drivers.blacklist("etc/modprobe.d"),
            config=("/etc/modprobe.d/nvidia-graphics-drivers.conf",),
        )
        found = [common]
        for flavour in ("open", "proprietary"):
            source = self.n("nvidia-kernel-source", flavour)
            found += [
                self.package(
                    source,
                    provides=("nvidia-kernel-source-any",),
                    conflicts=("nvidia-kernel-source-any",),
                    replaces=("nvidia-kernel-source-any",),
                    files=drivers.module_source(self.version, flavour),
                ),
                self.package(
                    self.n("nvidia-dkms", flavour),
                    summary=f"NVIDIA DKMS package ({flavour} kernel module)",
                    depends=(DKMS, *self.same(source, self.n("nvidia-kernel-common"))),
                    provides=("nvidia-dkms-kernel",),
                    conflicts=("nvidia-dkms-kernel",),
                    replaces=("nvidia-dkms-kernel",),
                    files=drivers.dkms_conf(self.version, "/updates/dkms"),
                    scripts=dkms_scripts(self.version),
                ),
            ]
        return found

    def _metapackages(self) -> list[Package]:
        everything = [self.n(name) for name in _EVERYTHING]
        headless = [self.n(name) for name in ("libnvidia-compute", "nvidia-compute-utils", "libnvidia-cfg1")]
        found = []
        for flavour in ("open", "proprietary"):
            source, dkms = self.n("nvidia-kernel-source", flavour), self.n("nvidia-dkms", flavour)
            driver, bare = self.n("nvidia-driver", flavour), self.n("nvidia-headless-no-dkms", flavour)
            found += [
                self.package(driver, depends=self.same(*everything, dkms, source), recommends=("nvidia-persistenced",)),
                self.package(bare, depends=self.same(*headless, source)),
                self.package(self.n("nvidia-headless", flavour), depends=self.same(bare, dkms)),
            ]
        newest = f"(>= {self.version})"
        drivers_of = (f"{self.n('nvidia-driver')} {newest}",)
        open_of = (f"{self.n('nvidia-driver', 'open')} {newest}",)
        found += [
            Package("nvidia-open", self.full, source="nvidia-open", depends=open_of),
            Package("cuda-drivers", self.full, source="cuda-drivers", depends=drivers_of),
        ]
        if self.suffix:
            found += [
                Package(self.n("nvidia-open"), self.full, source="nvidia-open", depends=open_of),
                Package(self.n("cuda-drivers"), self.full, source="cuda-drivers", depends=drivers_of),
            ]
        return found
