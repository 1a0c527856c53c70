# SPDX-License-Identifier: Apache-2.0
"""Gate GPU -> driver: which branches and kernel modules drive which GPUs. Pure; what is unknown counts as no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .catalogue import architecture_name
from .compat_platform import Platform
from .compat_rules import Refusal, TablesLike, at_least, listed, major, rank, shown
from .stack_node import Gpu, StackNode
from .torch_build import version_key

OPEN_KERNEL = "4.15"
_AGE_TURING = rank("turing") or 0
_AGE_BLACKWELL = rank("blackwell") or 0


def native_cuda(tables: TablesLike, branch: str) -> str | None:
    """Newest CUDA a branch knows in full; of a branch nobody says it of, that of the branch before it at least."""
    known = [
        row.get("cuda_max_native")
        for row in tables.drivers["branches"]
        if int(row["branch"]) <= int(branch) and row.get("cuda_max_native")
    ]
    return max(known, key=version_key, default=None)


def needs_open(gpu: Gpu) -> bool:
    """Blackwell and newer, and Hopper in Grace Hopper boards, have no proprietary kernel module."""
    age = rank(gpu.architecture)
    return (age is not None and age >= _AGE_BLACKWELL) or "GH200" in gpu.name.upper()


def needs_proprietary(gpu: Gpu) -> bool:
    """GPUs older than Turing have no open kernel module."""
    age = rank(gpu.architecture)
    return age is not None and age < _AGE_TURING


def require_known_gpus(gpus: Sequence[Gpu]) -> None:
    """Refuse GPUs about which too little is known to choose anything for them."""
    for gpu in gpus:
        if gpu.compute_capability is None or rank(gpu.architecture) is None:
            raise Refusal(
                "gpu-driver",
                f"the architecture and compute capability of {gpu.name} are not known",
                [
                    "Add the model by gpu_facts_extra_gpus and stack_extra_tables (table gpus), with its "
                    "compute_capability"
                ],
            )


def branch_problem(tables: TablesLike, row: dict[str, Any], gpu: Gpu) -> str | None:
    """Return why a branch does not drive a GPU, or None when it does; what the table does not know counts as no."""
    branch = row["branch"]
    oldest = rank(architecture_name(row.get("arch_min")))
    if oldest is None:
        return f"the table does not know which GPUs branch {branch} drives"
    age = rank(gpu.architecture)
    if age is None or gpu.compute_capability is None:
        return f"the architecture of {gpu.name} is not known"
    if age < oldest:
        last = last_branch_for(tables, age)
        return f"branch {branch} drives {row.get('arch_min')} and newer, not {shown(gpu)}, whose last branch is {last}"
    if age >= _AGE_BLACKWELL and row.get("supports_blackwell") is not True:
        known = "does not drive" if row.get("supports_blackwell") is False else "is not known to drive"
        return f"branch {branch} {known} {shown(gpu)}"
    return _too_new(tables, branch, gpu)


def _too_new(tables: TablesLike, branch: str, gpu: Gpu) -> str | None:
    """A driver older than the first toolkit with a compute capability cannot know GPUs that have it."""
    first = next(
        (
            row.get("first_toolkit")
            for row in tables.cuda["architecture_lifecycle"]
            if gpu.compute_capability in row["caps"]
        ),
        None,
    )
    native = native_cuda(tables, branch)
    if first is None or native is None or at_least(native, first):
        return None
    return (
        f"branch {branch} knows CUDA {native} and {shown(gpu)} came with CUDA {first}, so it is not known to drive it"
    )


def last_branch_for(tables: TablesLike, age: int) -> str:
    """Newest branch that still drives an architecture."""
    fitting = [
        row["branch"]
        for row in tables.drivers["branches"]
        if (rank(architecture_name(row.get("arch_min"))) or 0) <= age and row.get("arch_min")
    ]
    return max(fitting, key=int, default="unknown")


def flavour_problem(row: dict[str, Any], flavour: str, node: StackNode) -> tuple[str, str] | None:
    """Return (gate, why) a kernel module flavour is impossible on the node with this branch, or None."""
    branch = row["branch"]
    if row.get(f"{flavour}_modules_available") is not True:
        known = "has no" if row.get(f"{flavour}_modules_available") is False else "is not known to have"
        return "gpu-driver", f"branch {branch} {known} {flavour} kernel modules"
    for gpu in node.gpus:
        if flavour == "open" and needs_proprietary(gpu):
            return "gpu-driver", f"{shown(gpu)} has no open kernel module: it needs the proprietary one"
        if flavour == "proprietary" and needs_open(gpu):
            return "gpu-driver", f"{shown(gpu)} has no proprietary kernel module: it needs the open one"
    if flavour == "open" and node.kernel and not at_least(_kernel(node.kernel), OPEN_KERNEL):
        return "kernel", f"open kernel modules need Linux {OPEN_KERNEL} or newer and the node runs {node.kernel}"
    return None


def _kernel(release: str) -> str:
    return release.split("-")[0]


def mix_problem(gpus: Sequence[Gpu]) -> str | None:
    """Return why no driver at all can serve these GPUs in one host, or None."""
    old = [shown(gpu) for gpu in gpus if needs_proprietary(gpu)]
    new = [shown(gpu) for gpu in gpus if needs_open(gpu)]
    if not (old and new):
        return None
    return (
        f"{listed(old)} needs the proprietary kernel module and {listed(new)} the open one, and a host loads only one: "
        "no driver serves both"
    )


def driver_problem(
    tables: TablesLike, row: dict[str, Any], flavour: str, node: StackNode, platform: Platform, source: str
) -> tuple[str, str] | None:
    """Return (gate, why) a branch with a flavour from a source is impossible on a node, or None."""
    problem = mix_problem(node.gpus)
    if problem:
        return "gpu-driver", problem
    for gpu in node.gpus:
        problem = branch_problem(tables, row, gpu)
        if problem:
            return "gpu-driver", problem
    return flavour_problem(row, flavour, node) or platform.source_problem(source, row["branch"], flavour)


def version_problem(row: dict[str, Any], version: str) -> str | None:
    """Return why a version cannot be of a branch, or None."""
    if major(version) != row["branch"]:
        return f"driver version {version} does not belong to branch {row['branch']}"
    return None
