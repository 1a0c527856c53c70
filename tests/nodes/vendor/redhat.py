# SPDX-License-Identifier: Apache-2.0
"""The driver as NVIDIA's repositories package it for RHEL and its rebuilds: epoch 3, module streams on RHEL 8 and 9.

Relations: nvidia-driver.spec (570), nvidia-kmod-common.spec (570), dkms-nvidia.spec, dkms-open-nvidia.spec and
fabricmanager.spec of NVIDIA's yum-packaging-* repositories; streams, their profiles and the default: genmodules.py of
NVIDIA/cuda-repo-management; names of the fabric manager and its companions before and after 580: install.sh and
Dockerfile of NVIDIA/gpu-driver-container. Requirements outside NVIDIA's packages are left out but for linux-firmware.
What nvidia-open requires, and that nvidia-persistenced and nvidia-modprobe have the driver's epoch, is a guess.

The dkms scriptlets ignore failures, as NVIDIA's do: a build that fails leaves an installed package and no module.
NVIDIA's build for the running kernel; a container runs its host's, so here every kernel with headers is built for.
"""

from __future__ import annotations

from typing import Any

from . import drivers
from .drivers import FABRIC_UNSUFFIXED_FROM, VERSIONS, branch
from .model import Package, filled, wanted

LIB = "usr/lib64"
UNITS = "usr/lib/systemd/system"
EPOCH = "3"
# 70-nvidia-driver-cuda.preset of NVIDIA/yum-packaging-nvidia-driver
PRESET = {
    "usr/lib/systemd/system-preset/70-nvidia-driver-cuda.preset": (
        b"enable nvidia-persistenced.service\nenable nvidia-fabricmanager.service\nenable nvidia-imex.service\n"
    )
}
FOLLOW = "[ -x /opt/simnvml/bin/simnvmlctl ] && /opt/simnvml/bin/simnvmlctl sync || :\n"


def unit_scripts(unit: str) -> dict[str, str]:
    """What the systemd macros of RPM write; a preset decides, and on a server none enables it."""
    return {
        "post": f"[ -d /run/systemd/system ] && systemctl daemon-reload && systemctl --no-reload preset {unit} || :\n",
        "preun": f"[ $1 -eq 0 ] && systemctl --no-reload disable --now {unit} >/dev/null 2>&1 || :\n",
        "postun": "[ -d /run/systemd/system ] && systemctl daemon-reload || :\n",
    }


def packages(dist: str) -> list[Package]:
    """Everything of the driver; `dist` is el9 or el10."""
    found = [nvlsm()]
    for version in VERSIONS:
        found += _Driver(version, dist).packages()
        found += fabric(version)
    return found


class _Driver:
    """The packages of one version."""

    def __init__(self, version: str, dist: str) -> None:
        self.version = version
        self.full = f"{EPOCH}:{version}-1.{dist}"

    def exact(self, *names: str) -> tuple[str, ...]:
        """With release, as between the libraries."""
        return tuple(f"{name}(x86-64) = {self.full}" for name in names)

    def same(self, *names: str) -> tuple[str, ...]:
        """Of the same version."""
        return tuple(f"{name} = {EPOCH}:{self.version}" for name in names)

    def package(self, name: str, **more: Any) -> Package:
        noarch = more.get("arch") == "noarch"
        isa = () if noarch else (f"{name}(x86-64) = {self.full}",)
        provides = (*more.pop("provides", ()), f"{name} = {self.full}", *isa)
        return Package(name, self.full, provides=provides, **more)

    def packages(self) -> list[Package]:
        return [*self._libraries(), *self._driver(), *self._modules()]

    def _libraries(self) -> list[Package]:
        ml_files, ml_links = drivers.library(LIB, "libnvidia-ml.so", self.version, "libnvidia-ml.so.1")
        cuda_files, cuda_links = drivers.library(LIB, "libcuda.so", self.version, "libcuda.so.1")
        cfg_files, cfg_links = drivers.library(LIB, "libnvidia-cfg.so", self.version, "libnvidia-cfg.so.1")
        return [
            self.package(
                "libnvidia-ml",
                files=ml_files,
                links=ml_links,
                replaces=(f"nvidia-driver-NVML < {self.full}",),
                # the simulated NVML follows what is installed, as apt's hook lets it on Debian
                scripts={"posttrans": FOLLOW, "postun": FOLLOW},
            ),
            self.package("libnvidia-cfg", files=cfg_files, links=cfg_links),
            self.package("libnvidia-fbc", depends=self.exact("nvidia-driver-cuda-libs")),
            self.package(
                "nvidia-driver-cuda-libs",
                files=cuda_files,
                links=cuda_links,
                depends=self.exact("libnvidia-ml", "libnvidia-cfg"),
            ),
            self.package("nvidia-driver-libs", depends=self.exact("libnvidia-ml")),
        ]

    def _driver(self) -> list[Package]:
        kmod = self.same("nvidia-kmod-common")
        return [
            self.package(
                "nvidia-driver-cuda",
                summary="CUDA integration for the NVIDIA driver",
                depends=(*self.same("nvidia-driver-cuda-libs", "nvidia-persistenced"), *kmod),
                files=wanted(drivers.smi(self.version), PRESET),
            ),
            self.package("nvidia-driver", depends=(*self.same("nvidia-driver-libs"), *kmod)),
            self.package("xorg-x11-nvidia", depends=self.same("nvidia-driver")),
            self.package("nvidia-settings"),
            self.package("nvidia-libXNVCtrl"),
            self.package("nvidia-xconfig"),
            self.package("nvidia-modprobe", files=drivers.modprobe(self.version)),
            self.package(
                "nvidia-persistenced",
                depends=self.exact("libnvidia-cfg"),
                files=drivers.persistenced(self.version, UNITS),
                scripts=unit_scripts("nvidia-persistenced.service"),
            ),
            self.package(
                "cuda-drivers",
                depends=(
                    *self.same("nvidia-driver", "nvidia-driver-cuda", "nvidia-settings", "nvidia-xconfig"),
                    "nvidia-kmod",
                ),
            ),
            self.package(
                "nvidia-open",
                arch="noarch",
                depends=self.same("nvidia-driver", "nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-settings"),
            ),
        ]

    def _modules(self) -> list[Package]:
        common = self.package(
            "nvidia-kmod-common",
            arch="noarch",
            depends=("linux-firmware", "nvidia-modprobe", *self.same("nvidia-kmod")),
            files={"usr/lib/modprobe.d/nvidia.conf": b"blacklist nouveau\noptions nouveau modeset=0\n"},
        )
        found = [common]
        for flavour, name in (("open", "kmod-nvidia-open-dkms"), ("proprietary", "kmod-nvidia-latest-dkms")):
            other = "kmod-nvidia-latest-dkms" if flavour == "open" else "kmod-nvidia-open-dkms"
            found.append(
                self.package(
                    name,
                    summary=f"NVIDIA kernel module, {flavour} (DKMS)",
                    depends=(*self.same("nvidia-kmod-common"), "dkms"),
                    provides=self.same("nvidia-kmod"),
                    conflicts=(other,),
                    files=wanted(
                        drivers.module_source(self.version, flavour), drivers.dkms_conf(self.version, "/extra")
                    ),
                    scripts={
                        "post": filled("dkms.post", version=self.version).decode(),
                        "preun": f"dkms remove -m nvidia -v {self.version} -q --all >/dev/null 2>&1 || :\n",
                    },
                )
            )
        return found


def fabric(version: str) -> list[Package]:
    """Fabric manager, NSCQ, NVSDM and IMEX of one driver version; they have neither epoch nor distribution."""
    number, full = branch(version), f"{version}-1"
    new = number >= FABRIC_UNSUFFIXED_FROM
    manager = "nvidia-fabricmanager" if new else "nvidia-fabric-manager"
    suffix = "" if new else f"-{number}"
    provides = (f"nvidia-fabricmanager-{number} = {version}",)
    return [
        Package(
            manager,
            full,
            provides=provides if new else (f"nvidia-fabricmanager = {version}", *provides),
            replaces=("nvidia-fabric-manager < 580",) if new else (),
            files=drivers.fabric_manager(version, UNITS),
            scripts=unit_scripts("nvidia-fabricmanager.service"),
        ),
        Package("nvidia-fabric-manager-devel", full, depends=(f"{manager} = {version}",)),
        Package(f"libnvidia-nscq{suffix}", full),
        Package(f"libnvsdm{suffix}", full),
        Package(
            f"nvidia-imex{suffix}",
            full,
            files=drivers.imex(version, UNITS),
            config=("/etc/nvidia-imex/nodes_config.cfg",),
            scripts=unit_scripts("nvidia-imex.service"),
        ),
    ]


def nvlsm() -> Package:
    """The NVLink subnet manager, whose version is its own."""
    return Package(
        "nvlsm",
        "2025.10.12-1",
        files={
            "opt/nvidia/nvlsm/sbin/nvlsm": filled("nvlsm", version="2025.10.12"),
            "usr/share/nvidia/nvlsm/nvlsm.conf": b"# stand-in of the Rackwright test nodes\n",
        },
    )
