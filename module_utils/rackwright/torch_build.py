# SPDX-License-Identifier: Apache-2.0
"""Whether a build of a PyTorch release fits a node: tables and facts in, a choice or a refusal out.

Pure: nothing here looks at a machine. ``table`` is ``roles/gpu_stack/files/tables/frameworks.yml`` as data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from .errors import InvalidInputError


@lru_cache(maxsize=4096)
def version_key(text: str) -> tuple[int, ...]:
    """Return ``2.13.0`` or ``580.65.06`` as numbers that compare in the right order."""
    return tuple(int(part) if part.isdigit() else 0 for part in str(text).split("+")[0].split("."))


@dataclass(frozen=True)
class Node:
    """What the choice depends on."""

    arch: str = "x86_64"
    python: str = "3.11"
    glibc: str | None = None
    situation: str = "unknown"
    simulated: bool = False
    driver: str | None = None
    gpus: tuple[tuple[str, str], ...] = ()  # (name, compute capability)
    native_cuda: str | None = None  # newest CUDA the driver knows in full
    sliced: bool = False  # a GPU is in MIG mode
    name: str = "this node"

    @property
    def usable_gpu(self) -> bool:
        """Simulated GPUs answer questions but cannot run kernels."""
        # under WSL2 the situation keeps its name also when the GPU answers; without that there are no records
        return self.situation in ("ready", "wsl2") and not self.simulated and bool(self.gpus)

    @property
    def cuda_devices(self) -> int:
        """How many devices a CUDA process must see: with MIG anywhere it is given one instance and nothing else."""
        return min(1, len(self.gpus)) if self.sliced else len(self.gpus)


@dataclass(frozen=True)
class Choice:
    """One build of one release, where it comes from, and why it was taken."""

    version: str
    build: str
    cuda: str | None
    reason: str
    index_url: str
    requirements: list[str] = field(default_factory=list)
    installed_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def node_from_facts(
    gpu: dict[str, Any], *, name: str, arch: str, python: str, glibc: str | None, need_gpu: bool = True
) -> Node:
    """Build a ``Node`` from the facts of ``gpu_facts``; without them nothing is known about its GPUs."""
    if not need_gpu:
        return Node(arch=arch, python=python, glibc=glibc, situation="not asked", name=name)
    driver = gpu.get("driver") or {}
    gpus = []
    for device in gpu.get("devices") or []:
        capability = device.get("compute_capability")
        if capability:
            gpus.append((str(device.get("name") or "GPU"), str(capability)))
    return Node(
        arch=arch,
        python=python,
        glibc=glibc,
        situation=str(gpu.get("situation") or "unknown"),
        simulated=bool(gpu.get("simulated")),
        driver=driver.get("kernel_module_version") or driver.get("nvml_version"),
        gpus=tuple(gpus),
        native_cuda=driver.get("cuda_driver_version"),
        sliced=any((device.get("mig") or {}).get("mode") == "enabled" for device in gpu.get("devices") or []),
        name=name,
    )


def sass_runs(table: dict[str, Any], code: str, device: str, cuda: str) -> bool:
    """Return whether GPU code compiled for ``code`` runs on a GPU of compute capability ``device``."""
    torch = table["pytorch"]
    if version_key(cuda) >= (13,):
        device = torch["renamed_capabilities"].get(device, device)
    code_key, device_key = version_key(code), version_key(device)
    if code_key[0] != device_key[0] or device_key < code_key:
        return False
    if version_key(cuda) >= version_key(torch["sass_unified_since"]):
        return True
    return device not in torch["sass_excludes"].get(code, [])


def minimum_driver(table: dict[str, Any], cuda: str) -> str | None:
    """Return the oldest driver that runs programs of a CUDA version (minor-version compatibility), None if unknown."""
    found: str | None = table["cuda_minimum_drivers"].get(cuda.split(".")[0])
    return found


def build_sass(table: dict[str, Any], release: dict[str, Any], build: str, arch: str) -> list[str] | None:
    """Return the compute capabilities a build has code for, or None when nobody knows."""
    if arch in {"aarch64", "arm64"}:
        # Known for the releases whose wheels carry the table (2.13 on); older ones stay unknown.
        known = version_key(release["version"]) >= (2, 13)
        return table["pytorch"]["sass_aarch64"].get(build) if known else None
    sass: list[str] | None = release["builds"][build].get("sass_x86_64")
    return sass


def ptx_runs(codes: Iterable[str], device: str, cuda: str, native_cuda: str | None) -> bool:
    """Return whether PTX for one of ``codes`` can be compiled for a GPU by its driver.

    PTX serves newer GPUs only, and a driver compiles no PTX of a CUDA newer than its own (``native_cuda``):
    minor-version compatibility does not cover it.
    """
    if native_cuda is None or version_key(native_cuda)[:2] < version_key(cuda)[:2]:
        return False
    return any(version_key(code) <= version_key(device) for code in codes)


def code_problem(
    table: dict[str, Any],
    release: dict[str, Any],
    build: str,
    arch: str,
    gpus: Iterable[tuple[str, str]],
    native_cuda: str | None = None,
) -> str | None:
    """Return which GPU a build has no code for, neither SASS nor PTX its driver can compile, or None.

    Args:
        table: the frameworks table.
        release: row of the release.
        build: name of the build, like ``cu130``.
        arch: ``x86_64`` or ``aarch64``.
        gpus: (name, compute capability) of each GPU.
        native_cuda: newest CUDA the driver knows in full; without it PTX does not count.
    """
    row = release["builds"][build]
    sass = build_sass(table, release, build, arch)
    if sass is None:
        return f"the GPU architectures of {build} for {arch} are not known"
    # a build that keeps PTX keeps it for its newest architecture; null is unknown and does not count
    ptx = sorted(sass, key=version_key)[-1:] if row.get("ptx") is True else []
    for name, capability in gpus:
        if any(sass_runs(table, code, capability, row["cuda"]) for code in sass):
            continue
        if not ptx_runs(ptx, capability, row["cuda"], native_cuda):
            return f"{build} has no code for {name} (compute capability {capability}; it has {', '.join(sass)})"
    return None


def why_not(table: dict[str, Any], release: dict[str, Any], build: str, node: Node) -> str | None:
    """Return the reason why a CUDA build cannot run on a node, or None when it can."""
    problem = code_problem(table, release, build, node.arch, node.gpus, node.native_cuda)
    if problem:
        return problem
    minimum = minimum_driver(table, release["builds"][build]["cuda"])
    if node.driver and minimum and version_key(node.driver) < version_key(minimum):
        return f"{build} needs driver {minimum} or newer and the node has {node.driver}"
    if not node.driver:
        return f"{build} needs driver {minimum} or newer and the node's driver version is not known"
    return None


def wheel_problem(release: dict[str, Any], python: str, glibc: str | None) -> str | None:
    """Return why a release has no wheels for a Python or a C library, or None when it has."""
    pythons = release["pythons"]
    minor = ".".join(python.split(".")[:2])
    if minor not in pythons:
        return f"it has wheels for Python {pythons[0]} to {pythons[-1]} and the environment has {minor}"
    least = release.get("glibc_min")
    if least and glibc and version_key(glibc) < version_key(least):
        return f"its wheels need glibc {least} and the node has {glibc}"
    return None


def python_problem(release: dict[str, Any], node: Node) -> str | None:
    """Return why a release has no wheels for the node's Python or C library, or None when it has."""
    return wheel_problem(release, node.python, node.glibc)


def builds_newest_first(release: dict[str, Any]) -> list[str]:
    """Return the names of a release's CUDA builds, newest CUDA first."""
    return sorted(release["builds"], key=lambda build: version_key(release["builds"][build]["cuda"]), reverse=True)


def _alternative(table: dict[str, Any], wanted: str, node: Node) -> str:
    """Return the nearest release and build that would run on the node, as a half sentence."""
    releases = table["pytorch"]["releases"]
    key = version_key(wanted)
    position = sum(1 for release in releases if version_key(release["version"]) < key)
    ranked = sorted(range(len(releases)), key=lambda index: (abs(index - position), -index))
    for index in ranked:
        release = releases[index]
        if python_problem(release, node):
            continue
        if not node.usable_gpu:
            return f"The nearest release that fits is {release['version']} (build cpu)"
        for build in builds_newest_first(release):
            if why_not(table, release, build, node) is None:
                return f"The nearest that fits is {release['version']} with build {build}"
    return "No release in the table fits; plan again with playbooks/plan-stack.yml"


def _refuse(table: dict[str, Any], version: str, build: str, node: Node, cause: str) -> InvalidInputError:
    return InvalidInputError(
        f"choose torch {version} ({build})",
        node.name,
        cause,
        _alternative(table, version, node),
        expected={"version": version, "build": build},
        found=asdict(node),
    )


def requirements(release: dict[str, Any], build: str) -> list[str]:
    """Return what to ask an index for, most exact first.

    A local version (``+cpu``) cannot be mistaken for another build. PyPI carries the default build without one: ``===``
    asks for exactly that name, because ``==2.13.0`` would also accept 2.13.0+cpu.
    """
    requirements = [f"torch=={release['version']}+{build}"]
    if build == release["pypi_default_build"]:
        requirements.append(f"torch==={release['version']}")
    return requirements


def _choice(table: dict[str, Any], release: dict[str, Any], build: str, reason: str) -> Choice:
    torch = table["pytorch"]
    return Choice(
        version=release["version"],
        build=build,
        cuda=None if build == "cpu" else release["builds"][build]["cuda"],
        reason=reason,
        index_url=f"{torch['index_base']}/{build}",
        requirements=requirements(release, build),
        installed_bytes=torch["installed_bytes_estimate"]["cpu" if build == "cpu" else "cuda"],
    )


def choose_build(table: dict[str, Any], version: str, build: str, node: Node) -> Choice:
    """Return the locked build with where it comes from, or refuse in one sentence with the gate that failed and the
    nearest alternative.

    GPUs that answer are held against it; where they do not (no driver yet, a reboot due) it is taken at its word.
    """
    release = next((row for row in table["pytorch"]["releases"] if row["version"] == version), None)
    if release is None:
        raise _refuse(table, version, build, node, f"release {version} is not in the table of PyTorch releases")
    problem = python_problem(release, node)
    if problem:
        raise _refuse(table, version, build, node, f"torch {version} does not fit: {problem}")
    if build == "cpu":
        return _choice(table, release, "cpu", "the CPU build is locked")
    if build not in release["builds"]:
        known = ", ".join(["cpu", *sorted(release["builds"])])
        raise _refuse(table, version, build, node, f"torch {version} has no build {build} (it has {known})")
    if node.usable_gpu:
        problem = why_not(table, release, build, node)
        if problem:
            raise _refuse(table, version, build, node, problem)
    return _choice(table, release, build, f"build {build} is locked")


def wanted_installed(choice: dict[str, Any], found_version: str, found_cuda: str | None) -> str | None:
    """Return what is wrong with an installed torch, or None when it is the chosen release and build."""
    base, _, local = found_version.partition("+")
    if base != choice["version"]:
        return f"torch {found_version} is installed instead of {choice['version']}"
    built = "cpu" if not found_cuda else "cu" + "".join(found_cuda.split(".")[:2])
    if built != choice["build"]:
        return f"torch {found_version} is build {built} instead of {choice['build']}"
    if local.startswith("cu") and local != choice["build"]:
        return f"torch {found_version} calls itself {local} instead of {choice['build']}"
    return None
