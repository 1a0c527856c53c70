# SPDX-License-Identifier: Apache-2.0
"""Gates driver -> CUDA and build -> GPU: what runs on the GPUs and the driver of a node. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .compat_gpu import native_cuda
from .compat_rules import TablesLike, at_least, find, major, shown
from .stack_node import Gpu, StackNode
from .torch_build import code_problem, minimum_driver, ptx_runs, sass_runs, version_key

Problem = tuple[str, str]


@dataclass(frozen=True)
class Runtime:
    """What GPU programs meet on a node: its usable GPUs, and its driver as far as it is known.

    ``driver`` is the planned version; under WSL2 that of Windows where facts tell it. ``native`` is the newest CUDA it
    knows in full. ``windows`` says whose driver it is, for messages.
    """

    arch: str
    gpus: tuple[Gpu, ...]
    driver: str | None
    native: str | None
    windows: bool = False

    @property
    def named(self) -> list[tuple[str, str]]:
        """(name, compute capability) of every kind of GPU."""
        return [(gpu.name, gpu.compute_capability) for gpu in self.gpus if gpu.compute_capability]


def runtime_of(node: StackNode, tables: TablesLike, driver_version: str | None) -> Runtime:
    """Return the runtime of a node: simulated GPUs answer questions but run no kernels, so they do not count."""
    version = node.installed_driver if node.wsl else driver_version
    native = native_cuda(tables, major(version)) if version else None
    return Runtime(node.arch, () if node.simulated else node.gpus, version, native, node.wsl)


def cuda_minimum(tables: TablesLike, cuda: str) -> tuple[str | None, dict[str, Any] | None]:
    """Return the oldest driver for programs of a CUDA version (minor-version compatibility) and its row."""
    row = find(tables.cuda["minor_version_compatibility"], "cuda_major", int(major(cuda)))
    return (row["min_driver"], row) if row else (minimum_driver(tables.frameworks, cuda), None)


def driver_cuda_problem(tables: TablesLike, what: str, cuda: str, runtime: Runtime) -> Problem | None:
    """Gate driver -> CUDA: the exact version counts, not only the branch."""
    minimum, _row = cuda_minimum(tables, cuda)
    if minimum is None:
        return "driver-cuda", f"the table does not know which driver {what} (CUDA {cuda}) needs"
    if runtime.driver is None or at_least(runtime.driver, minimum):
        return None
    whose = "the NVIDIA driver of Windows is" if runtime.windows else "the driver is"
    return "driver-cuda", f"{what} (CUDA {cuda}) needs driver {minimum} or newer and {whose} {runtime.driver}"


def torch_problems(tables: TablesLike, release: dict[str, Any], build: str, runtime: Runtime) -> list[Problem]:
    """Return every reason why a CUDA build of PyTorch cannot run here, in the order of the gates."""
    cuda = release["builds"][build]["cuda"]
    found = [driver_cuda_problem(tables, build, cuda, runtime)]
    code = code_problem(tables.frameworks, release, build, runtime.arch, runtime.named, runtime.native)
    return [problem for problem in (*found, ("wheel-gpu", code) if code else None) if problem]


def tensorflow_problems(tables: TablesLike, release: dict[str, Any], runtime: Runtime) -> list[Problem]:
    """Return every reason why the wheel of a TensorFlow release cannot use these GPUs, in the order of the gates."""
    what, cuda = f"TensorFlow {release['version']}", release["cuda"]
    found: list[Problem | None] = [driver_cuda_problem(tables, what, cuda, runtime)]
    if not release["and_cuda_extra"]:
        found.append(("wheel-gpu", f"{what} brings no CUDA libraries (its extra and-cuda came with 2.14)"))
    elif runtime.arch != "x86_64":
        found.append(("wheel-gpu", f"the GPU architectures of {what} for {runtime.arch} are not known"))
    else:
        found += [_tensorflow_code(tables, release, gpu, runtime) for gpu in runtime.gpus]
    return [problem for problem in found if problem]


def _tensorflow_code(tables: TablesLike, release: dict[str, Any], gpu: Gpu, runtime: Runtime) -> Problem | None:
    capability, cuda = str(gpu.compute_capability), release["cuda"]
    if any(sass_runs(tables.frameworks, code, capability, cuda) for code in release["sass"]):
        return None
    if ptx_runs(release["ptx"], capability, cuda, runtime.native):
        return None
    text = f"TensorFlow {release['version']} has no code for {shown(gpu)} (it has {', '.join(release['sass'])}"
    newer = any(version_key(code) <= version_key(capability) for code in release["ptx"])
    if newer:
        text += f"; its PTX needs a driver that knows CUDA {cuda}"
    return "wheel-gpu", text + ")"


def only_by_ptx(tables: TablesLike, release: dict[str, Any], gpus: Iterable[Gpu]) -> list[Gpu]:
    """GPUs that a TensorFlow release serves only by compiling its PTX when it starts."""
    return [
        gpu
        for gpu in gpus
        if not any(
            sass_runs(tables.frameworks, code, str(gpu.compute_capability), release["cuda"]) for code in release["sass"]
        )
    ]


def toolkit_problems(tables: TablesLike, release: dict[str, Any], runtime: Runtime) -> list[Problem]:
    """Return every reason why programs compiled with a toolkit cannot run here, in the order of the gates."""
    what = f"CUDA toolkit {release['toolkit']}"
    found = [driver_cuda_problem(tables, what, release["toolkit"], runtime)]
    for gpu in runtime.gpus:
        if gpu.compute_capability not in release["compute_capabilities"]:
            oldest, newest = release["compute_capabilities"][0], release["compute_capabilities"][-1]
            reason = f"{what} compiles for compute capability {oldest} to {newest}, not for {shown(gpu)}"
            found.append(("wheel-gpu", reason))
    return [problem for problem in found if problem]
