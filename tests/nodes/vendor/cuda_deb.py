# SPDX-License-Identifier: Apache-2.0
"""CUDA toolkits, cuDNN, NCCL and the container toolkit of the apt repositories, and what the rpm ones share with them.

Toolkit releases 12.8.1 and 13.0.2 with their nvcc builds; cuDNN and NCCL in the versions of the tables (2026-11-22).
2.30.7 of NCCL was not seen with a CUDA suffix: the suffixes here are a guess, 2.31.2-1+cuda13.3 is NVIDIA's.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Package, filled

CUDNN = "9.26.0.51"
NCCL = ("2.30.7-1+cuda12.9", "2.30.7-1+cuda13.0", "2.31.2-1+cuda13.3")
CONTAINER_TOOLKIT = ("1.19.0-1", "1.19.1-1")


@dataclass(frozen=True)
class Toolkit:
    """One CUDA toolkit: its line, its release, the build of its nvcc and the newest gcc it takes (cuda.yml)."""

    line: str
    release: str
    nvcc: str
    gcc_max: int

    @property
    def dashed(self) -> str:
        """The line as package names have it."""
        return self.line.replace(".", "-")

    @property
    def home(self) -> str:
        """Its folder, without the leading slash."""
        return f"usr/local/cuda-{self.line}"


TOOLKITS = (Toolkit("12.8", "12.8.1", "12.8.93", 14), Toolkit("13.0", "13.0.2", "13.0.88", 15))


def nvcc_files(toolkit: Toolkit) -> dict[str, bytes]:
    """The stand-in of nvcc."""
    text = filled("nvcc", release=toolkit.line, build=toolkit.nvcc, gcc_max=str(toolkit.gcc_max))
    return {f"{toolkit.home}/bin/nvcc": text}


def version_json(toolkit: Toolkit) -> dict[str, bytes]:
    """version.json, by which tools recognise an installed toolkit."""
    text = f'{{"cuda": {{"name": "CUDA SDK", "version": "{toolkit.release}", "stand_in": true}}}}\n'
    return {f"{toolkit.home}/version.json": text.encode()}


def alternatives(toolkit: Toolkit, program: str) -> tuple[str, str]:
    """Commands that make /usr/local/cuda an alternative, as cuda-toolkit-X-Y-config-common does, and undo it."""
    major = toolkit.line.partition(".")[0]
    home, priority = f"/{toolkit.home}", toolkit.line.replace(".", "")
    add = (
        f"{program} --install /usr/local/cuda cuda {home} {priority}\n"
        f"{program} --install /usr/local/cuda-{major} cuda-{major} {home} {priority}\n"
    )
    drop = f"{program} --remove cuda {home} || true\n{program} --remove cuda-{major} {home} || true\n"
    return add, drop


def packages(_distro: str) -> list[Package]:
    """Everything that is not the driver."""
    found = [Package("cuda-toolkit-config-common", "13.0.96-1", arch="all")]
    for toolkit in TOOLKITS:
        found += _toolkit(toolkit)
    return [*found, *_cudnn(), *_nccl(), *_container_toolkit()]


def _toolkit(toolkit: Toolkit) -> list[Package]:
    line, full, nvcc = toolkit.dashed, f"{toolkit.release}-1", f"{toolkit.nvcc}-1"
    add, drop = alternatives(toolkit, "update-alternatives")
    major = line.partition("-")[0]
    return [
        Package(f"cuda-toolkit-{major}-config-common", nvcc, arch="all"),
        Package(
            f"cuda-toolkit-{line}-config-common",
            nvcc,
            arch="all",
            depends=(f"cuda-toolkit-{major}-config-common", "cuda-toolkit-config-common"),
            files=version_json(toolkit),
            scripts={
                "postinst": f'#!/bin/sh\nset -e\n[ "$1" = configure ] || exit 0\n{add}exit 0\n',
                "prerm": f'#!/bin/sh\n[ "$1" = remove ] || exit 0\n{drop}exit 0\n',
            },
        ),
        Package(f"cuda-cudart-{line}", nvcc, depends=(f"cuda-toolkit-{line}-config-common",)),
        Package(
            f"cuda-nvcc-{line}",
            nvcc,
            depends=(f"cuda-cudart-{line}",),
            recommends=("build-essential",),
            files=nvcc_files(toolkit),
        ),
        Package(f"cuda-compiler-{line}", full, depends=(f"cuda-nvcc-{line} (>= {toolkit.nvcc})",)),
        Package(f"cuda-libraries-{line}", full, depends=(f"cuda-cudart-{line} (>= {toolkit.nvcc})",)),
        Package(f"cuda-libraries-dev-{line}", full, depends=(f"cuda-libraries-{line} (= {full})",)),
        Package(
            f"cuda-toolkit-{line}",
            full,
            depends=(
                f"cuda-compiler-{line} (>= {toolkit.release})",
                f"cuda-libraries-{line} (>= {toolkit.release})",
                f"cuda-libraries-dev-{line} (>= {toolkit.release})",
            ),
        ),
    ]


def _cudnn() -> list[Package]:
    found = []
    for major in ("12", "13"):
        full, lib = f"{CUDNN}-1", f"libcudnn9-cuda-{major}"
        found += [
            Package(lib, full, conflicts=("libcudnn9",), provides=("libcudnn9",)),
            Package(f"libcudnn9-dev-cuda-{major}", full, depends=(f"{lib} (= {full})",), files=cudnn_header()),
            Package(
                f"cudnn9-cuda-{major}",
                full,
                depends=(f"{lib} (= {full})", f"libcudnn9-dev-cuda-{major} (= {full})"),
            ),
        ]
    return found


def cudnn_header() -> dict[str, bytes]:
    """The header from which programs read cuDNN's version."""
    major, minor, patch = CUDNN.split(".")[:3]
    text = f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"
    return {"usr/include/cudnn_version.h": f"/* stand-in of the Rackwright test nodes */\n{text}".encode()}


def nccl_header(version: str) -> dict[str, bytes]:
    """The header from which programs read NCCL's version."""
    major, minor, patch = version.partition("-")[0].split(".")
    text = f"#define NCCL_MAJOR {major}\n#define NCCL_MINOR {minor}\n#define NCCL_PATCH {patch}\n"
    return {"usr/include/nccl.h": f"/* stand-in of the Rackwright test nodes */\n{text}".encode()}


def _nccl() -> list[Package]:
    found = []
    for version in NCCL:
        found += [
            Package("libnccl2", version, source="nccl"),
            Package(
                "libnccl-dev", version, source="nccl", depends=(f"libnccl2 (= {version})",), files=nccl_header(version)
            ),
        ]
    return found


def ctk_files(version: str) -> dict[str, bytes]:
    """The stand-in of nvidia-ctk."""
    return {"usr/bin/nvidia-ctk": filled("nvidia-ctk", version=version.partition("-")[0])}


def _container_toolkit() -> list[Package]:
    found = []
    for version in CONTAINER_TOOLKIT:
        tools = (f"libnvidia-container-tools (>= {version})", "libnvidia-container-tools (<< 2.0.0)")
        found += [
            Package("libnvidia-container1", version, source="libnvidia-container"),
            Package(
                "libnvidia-container-tools",
                version,
                source="libnvidia-container",
                depends=(f"libnvidia-container1 (= {version})",),
            ),
            Package("nvidia-container-toolkit-base", version, files=ctk_files(version)),
            Package(
                "nvidia-container-toolkit",
                version,
                depends=(*tools, f"nvidia-container-toolkit-base (= {version})"),
            ),
        ]
    return found
