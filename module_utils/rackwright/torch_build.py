# SPDX-License-Identifier: Apache-2.0
"""Which build of a PyTorch release fits a node: tables and facts in, a choice or a refusal out.

Pure: nothing here looks at a machine. ``table`` is ``roles/gpu_stack/files/tables/frameworks.yml`` as data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import InvalidInputError


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


def _sass(table: dict[str, Any], release: dict[str, Any], build: str, arch: str) -> list[str] | None:
    if arch in {"aarch64", "arm64"}:
        # Known for the releases whose wheels carry the table (2.13 on); older ones stay unknown.
        known = version_key(release["version"]) >= (2, 13)
        return table["pytorch"]["sass_aarch64"].get(build) if known else None
    sass: list[str] | None = release["builds"][build]["sass_x86_64"]
    return sass


def why_not(table: dict[str, Any], release: dict[str, Any], build: str, node: Node) -> str | None:
    """Return the reason why a CUDA build cannot run on a node, or None when it can."""
    cuda = release["builds"][build]["cuda"]
    sass = _sass(table, release, build, node.arch)
    if sass is None:
        return f"the GPU architectures of {build} for {node.arch} are not known"
    for name, capability in node.gpus:
        if not any(sass_runs(table, code, capability, cuda) for code in sass):
            return f"{build} has no code for {name} (compute capability {capability}; it has {', '.join(sass)})"
    minimum = table["cuda_minimum_drivers"].get(cuda.split(".")[0])
    if node.driver and minimum and version_key(node.driver) < version_key(minimum):
        return f"{build} needs driver {minimum} or newer and the node has {node.driver}"
    if not node.driver:
        return f"{build} needs driver {minimum} or newer and the node's driver version is not known"
    return None


def python_problem(release: dict[str, Any], node: Node) -> str | None:
    """Return why a release has no wheels for the node's Python or C library, or None when it has."""
    pythons = release["pythons"]
    minor = ".".join(node.python.split(".")[:2])
    if minor not in pythons:
        return f"it has wheels for Python {pythons[0]} to {pythons[-1]} and the environment has {minor}"
    if release["glibc_min"] and node.glibc and version_key(node.glibc) < version_key(release["glibc_min"]):
        return f"its wheels need glibc {release['glibc_min']} and the node has {node.glibc}"
    return None


def _builds_newest_first(release: dict[str, Any]) -> list[str]:
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
        for build in _builds_newest_first(release):
            if why_not(table, release, build, node) is None:
                return f"The nearest that fits is {release['version']} with build {build}"
    return "No release in the table fits; set pytorch_build to cpu, or update the driver"


def _refuse(table: dict[str, Any], version: str, build: str, node: Node, cause: str) -> InvalidInputError:
    wanted = f"torch {version}" + ("" if build == "auto" else f" ({build})")
    return InvalidInputError(
        f"choose {wanted}",
        node.name,
        cause,
        _alternative(table, version, node),
        expected={"version": version, "build": build},
        found=asdict(node),
    )


def _requirements(release: dict[str, Any], build: str) -> list[str]:
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
        requirements=_requirements(release, build),
        installed_bytes=torch["installed_bytes_estimate"]["cpu" if build == "cpu" else "cuda"],
    )


def _cpu_reason(node: Node) -> str:
    if node.simulated:
        return "the node's GPUs are simulated and cannot run kernels"
    return f"the node has no usable GPU (situation {node.situation})"


def choose_build(table: dict[str, Any], version: str, build: str, node: Node) -> Choice:
    """Return the build to install, or refuse in one sentence with the gate that failed and the nearest alternative."""
    release = next((row for row in table["pytorch"]["releases"] if row["version"] == version), None)
    if release is None:
        raise _refuse(table, version, build, node, f"release {version} is not in the table of PyTorch releases")
    problem = python_problem(release, node)
    if problem:
        raise _refuse(table, version, build, node, f"torch {version} does not fit: {problem}")
    if build == "cpu":
        return _choice(table, release, "cpu", "the CPU build was asked for")
    if build == "auto":
        return _choose_auto(table, release, node)
    if build not in release["builds"]:
        known = ", ".join(["cpu", *sorted(release["builds"])])
        raise _refuse(table, version, build, node, f"torch {version} has no build {build} (it has {known})")
    if node.usable_gpu:
        problem = why_not(table, release, build, node)
        if problem:
            raise _refuse(table, version, build, node, problem)
    return _choice(table, release, build, f"build {build} was asked for")


def _choose_auto(table: dict[str, Any], release: dict[str, Any], node: Node) -> Choice:
    if not node.usable_gpu:
        return _choice(table, release, "cpu", _cpu_reason(node))
    problems = []
    for build in _builds_newest_first(release):
        problem = why_not(table, release, build, node)
        if problem is None:
            return _choice(table, release, build, f"newest build of {release['version']} for every GPU and the driver")
        problems.append(problem)
    raise _refuse(table, release["version"], "auto", node, "; ".join(problems))


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
