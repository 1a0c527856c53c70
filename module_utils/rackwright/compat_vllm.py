# SPDX-License-Identifier: Apache-2.0
"""What vLLM demands beyond the PyTorch release it pins. Pure."""

from __future__ import annotations

from typing import Any

from .compat_cuda import Problem, Runtime
from .compat_rules import TablesLike, at_least, find, shown
from .torch_build import sass_runs, version_key

#: machines the table's architectures were read for
_MACHINES = ("x86_64",)


def capability_minimum(vllm: dict[str, Any], version: str) -> str | None:
    """Return the least compute capability of a vLLM release, None when nobody knows it."""
    key = version_key(version)
    for row in vllm["compute_capability_min"]:
        low, high = version_key(row["from"] or "0"), version_key(row["to"] or "9999")
        if low <= key and key[: len(high)] <= high:
            found: str | None = row["minimum"]
            return found
    return None


def vllm_problems(tables: TablesLike, release: dict[str, Any], runtime: Runtime) -> list[Problem]:
    """Return every reason why a vLLM release cannot use these GPUs; what the table does not know counts as one."""
    what = f"vLLM {release['version']}"
    if not runtime.gpus:
        return [("wheel-gpu", f"{what} needs a GPU that runs kernels: its wheel on PyPI is a CUDA build")]
    if runtime.arch not in (release.get("machines") or _MACHINES):
        return [("wheel-gpu", f"whether {what} has wheels for {runtime.arch} is not known")]
    vllm = tables.frameworks["vllm"]
    minimum = capability_minimum(vllm, release["version"])
    if minimum is None:
        return [("wheel-gpu", f"the least compute capability {what} supports is not known")]
    found = [
        ("wheel-gpu", f"{what} needs compute capability {minimum} or newer, and {shown(gpu)} has less")
        for gpu in runtime.gpus
        if not at_least(str(gpu.compute_capability), minimum)
    ]
    return found or _code(tables, release, runtime)


def _code(tables: TablesLike, release: dict[str, Any], runtime: Runtime) -> list[Problem]:
    """vLLM has GPU code of its own; where it was read, it must fit as PyTorch's does."""
    row = find(tables.frameworks["vllm"]["wheel_archs"], "version", release["version"])
    torch = find(tables.frameworks["pytorch"]["releases"], "version", release["torch"])
    if row is None or torch is None:
        return []
    cuda = torch["builds"][torch["pypi_default_build"]]["cuda"]
    codes = [code for code in row["core"] if code[-1].isdigit()]
    return [
        ("wheel-gpu", f"vLLM {release['version']} has no code for {shown(gpu)} (it has {', '.join(codes)})")
        for gpu in runtime.gpus
        if not any(sass_runs(tables.frameworks, code, str(gpu.compute_capability), cuda) for code in codes)
    ]


def glibc_minimum(tables: TablesLike, release: dict[str, Any]) -> str | None:
    """Return the glibc that vLLM's wheel needs; where it was not read, the highest that was read of any release."""
    known = [row.get("glibc_min") for row in tables.frameworks["vllm"]["releases"] if row.get("glibc_min")]
    least: str | None = release.get("glibc_min")
    return least or max(known, key=version_key, default=None)
