# SPDX-License-Identifier: Apache-2.0
"""CUDA toolkits, cuDNN, NCCL and the container toolkit of the dnf repositories; names as in the tables."""

from __future__ import annotations

from .cuda_deb import (
    CONTAINER_TOOLKIT,
    CUDNN,
    NCCL,
    TOOLKITS,
    Toolkit,
    alternatives,
    ctk_files,
    cudnn_header,
    nccl_header,
    nvcc_files,
    version_json,
)
from .model import Package


def packages() -> list[Package]:
    """Everything that is not the driver."""
    found = [Package("cuda-toolkit-config-common", "13.0.96-1", arch="noarch")]
    for toolkit in TOOLKITS:
        found += _toolkit(toolkit)
    return [*found, *_cudnn(), *_nccl(), *_container_toolkit()]


def _toolkit(toolkit: Toolkit) -> list[Package]:
    line, full, nvcc = toolkit.dashed, f"{toolkit.release}-1", f"{toolkit.nvcc}-1"
    major = line.partition("-")[0]
    add, drop = alternatives(toolkit, "update-alternatives")
    return [
        Package(f"cuda-toolkit-{major}-config-common", nvcc, arch="noarch"),
        Package(
            f"cuda-toolkit-{line}-config-common",
            nvcc,
            arch="noarch",
            depends=(f"cuda-toolkit-{major}-config-common", "cuda-toolkit-config-common"),
            files=version_json(toolkit),
            scripts={"post": add, "preun": f"if [ $1 -eq 0 ]; then\n{drop}fi\n"},
        ),
        Package(f"cuda-cudart-{line}", nvcc, depends=(f"cuda-toolkit-{line}-config-common",)),
        Package(f"cuda-nvcc-{line}", nvcc, depends=(f"cuda-cudart-{line}", "gcc-c++"), files=nvcc_files(toolkit)),
        Package(f"cuda-compiler-{line}", full, depends=(f"cuda-nvcc-{line} >= {toolkit.nvcc}",)),
        Package(f"cuda-libraries-{line}", full, depends=(f"cuda-cudart-{line} >= {toolkit.nvcc}",)),
        Package(f"cuda-libraries-devel-{line}", full, depends=(f"cuda-libraries-{line} >= {toolkit.release}",)),
        Package(
            f"cuda-toolkit-{line}",
            full,
            depends=(
                f"cuda-compiler-{line} >= {toolkit.release}",
                f"cuda-libraries-{line} >= {toolkit.release}",
                f"cuda-libraries-devel-{line} >= {toolkit.release}",
            ),
        ),
    ]


def _cudnn() -> list[Package]:
    found = []
    for major in ("12", "13"):
        full, lib = f"{CUDNN}-1", f"libcudnn9-cuda-{major}"
        header = {path: data for path, data in cudnn_header().items()}
        found += [
            Package(lib, full),
            Package(f"libcudnn9-devel-cuda-{major}", full, depends=(f"{lib} = {full}",), files=header),
            Package(
                f"cudnn9-cuda-{major}", full, depends=(f"{lib} = {full}", f"libcudnn9-devel-cuda-{major} = {full}")
            ),
        ]
    return found


def _nccl() -> list[Package]:
    found = []
    for version in NCCL:
        found += [
            Package("libnccl", version),
            Package("libnccl-devel", version, depends=(f"libnccl = {version}",), files=nccl_header(version)),
        ]
    return found


def _container_toolkit() -> list[Package]:
    found = []
    for version in CONTAINER_TOOLKIT:
        found += [
            Package("libnvidia-container1", version),
            Package("libnvidia-container-tools", version, depends=(f"libnvidia-container1 = {version}",)),
            Package("nvidia-container-toolkit-base", version, files=ctk_files(version)),
            Package(
                "nvidia-container-toolkit",
                version,
                depends=(f"libnvidia-container-tools >= {version}", f"nvidia-container-toolkit-base = {version}"),
            ),
        ]
    return found
