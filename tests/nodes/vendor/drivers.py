# SPDX-License-Identifier: Apache-2.0
"""Driver versions of the stub repositories, and what every packaging of a driver has in common.

Versions: roles/gpu_stack/files/tables/drivers.yml and field tables of 2026-11-22. `BROKEN` is a real module source
that no kernel can compile; with the others the build succeeds wherever kernel headers are.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from .model import filled

VERSIONS = ("570.211.01", "580.65.06", "580.178.04", "590.48.01", "595.45.04", "595.91.07", "610.57.04")
BROKEN = "570.211.01"
# CUDA that the driver brings (cuda_max_native of drivers.yml), as cuDriverGetVersion answers it.
CUDA = {570: 12080, 580: 13000, 590: 13010, 595: 13020, 610: 13030}
# From here on no package name carries the branch, and nvidia-driver-pinning-* selects it.
UNSUFFIXED_FROM = 590
# NVIDIA's name of the fabric manager and its companions lost the branch earlier.
FABRIC_UNSUFFIXED_FROM = 580


def branch(version: str) -> int:
    """580 of 580.178.04."""
    return int(version.partition(".")[0])


@lru_cache
def stub_library(soname: str, driver_version: int = 0) -> bytes:
    """A shared library that the loader accepts and that knows no GPU: real clients get an error, not a crash.

    libcuda answers cuInit with 100 (no device) as NVIDIA's does where no GPU can be used.
    """
    code = "int rackwright_stub(void) { return 1; }\n"
    if driver_version:
        code += (
            "int cuInit(unsigned flags) { (void)flags; return 100; }\n"
            f"int cuDriverGetVersion(int *v) {{ *v = {driver_version}; return 0; }}\n"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "stub.c", Path(folder) / "stub.so"
        source.write_text(code, encoding="ascii")
        command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-s", "-Wl,--build-id=none", f"-Wl,-soname,{soname}"]
        subprocess.run([*command, "-o", str(target), str(source)], check=True, capture_output=True)
        return target.read_bytes()


def library(folder: str, name: str, version: str, soname: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """File and links of one library as a driver package lays them."""
    cuda = CUDA[branch(version)] if name == "libcuda.so" else 0
    file = f"{name}.{version}"
    return {f"{folder}/{file}": stub_library(soname, cuda)}, {f"{folder}/{soname}": file}


def module_source(version: str, flavour: str) -> dict[str, bytes]:
    """Source of the kernel module below /usr/src, without dkms.conf: small, real, and named nvidia as NVIDIA's."""
    licence = "Dual MIT/GPL" if flavour == "open" else "NVIDIA"
    fault = filled("fault.c") if version == BROKEN else b""
    source = filled("nvidia.c", version=version, licence=licence, fault=fault.decode())
    return {f"usr/src/nvidia-{version}/nvidia.c": source, f"usr/src/nvidia-{version}/Makefile": filled("Makefile")}


def dkms_conf(version: str, destination: str) -> dict[str, bytes]:
    """The control file of the module; the destination differs between the distributions."""
    return {f"usr/src/nvidia-{version}/dkms.conf": filled("dkms.conf", version=version, destination=destination)}


def blacklist(folder: str) -> dict[str, bytes]:
    """What the driver packages write against nouveau."""
    return {f"{folder}/nvidia-graphics-drivers.conf": b"blacklist nouveau\nalias nouveau off\n"}


def smi(version: str) -> dict[str, bytes]:
    """A stand-in of nvidia-smi that asks the NVML that the node has."""
    return {"usr/bin/nvidia-smi": filled("nvidia-smi", version=version)}


def modprobe(version: str) -> dict[str, bytes]:
    """A stand-in of nvidia-modprobe."""
    return {"usr/bin/nvidia-modprobe": filled("nvidia-modprobe", version=version)}


def persistenced(version: str, units: str) -> dict[str, bytes]:
    """A stand-in of the persistence daemon and its unit."""
    return {
        "usr/bin/nvidia-persistenced": filled("nvidia-persistenced", version=version),
        f"{units}/nvidia-persistenced.service": filled("nvidia-persistenced.service"),
    }


def fabric_manager(version: str, units: str) -> dict[str, bytes]:
    """Stand-ins of the fabric manager, its start script, configuration and unit."""
    return {
        "usr/bin/nv-fabricmanager": filled("nv-fabricmanager", version=version),
        "usr/bin/nvidia-fabricmanager-start.sh": filled("nvidia-fabricmanager-start.sh"),
        "usr/share/nvidia/nvswitch/fabricmanager.cfg": filled("fabricmanager.cfg"),
        f"{units}/nvidia-fabricmanager.service": filled("nvidia-fabricmanager.service"),
    }


def imex(version: str, units: str) -> dict[str, bytes]:
    """Stand-ins of the IMEX daemon, its node list and unit."""
    return {
        "usr/bin/nvidia-imex": filled("nvidia-imex", version=version),
        "etc/nvidia-imex/nodes_config.cfg": b"# one address a line\n",
        f"{units}/nvidia-imex.service": filled("nvidia-imex.service"),
    }
