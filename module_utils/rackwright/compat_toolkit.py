# SPDX-License-Identifier: Apache-2.0
"""CUDA toolkits of a stack: which releases, where they come from, what they compile for. Pure."""

from __future__ import annotations

from typing import Any

from .compat_cuda import Runtime, toolkit_problems
from .compat_platform import Platform, repository, wsl_row
from .compat_rules import Case, Refusal, TablesLike, sources_of
from .stack_node import StackNode
from .torch_build import version_key

#: the libraries that packages beside the toolkit bring, and the key of their package names in the table of platforms
_CUDNN, _NCCL = "cudnn", "nccl"


def wished_toolkits(wish: str) -> list[str]:
    """Return the wished toolkits, lines (``12.8``) or releases (``12.8.1``), the chosen one first; [] for ``none``."""
    return [] if wish == "none" else list(dict.fromkeys(wish.split(",")))


def toolkit_release(tables: TablesLike, wish: str) -> dict[str, Any] | None:
    """Return the release itself (``12.8.1``), or the newest one of a line (``12.8``)."""
    rows = [row for row in tables.cuda["releases"] if wish in (row["toolkit"], row["release"])]
    return max(rows, key=lambda row: version_key(row["release"]), default=None)


def toolkit_platform(tables: TablesLike, node: StackNode, platform: Platform) -> Platform:
    """Where a toolkit comes from: WSL2 has a repository of its own."""
    return Platform(wsl_row(tables), node.arch, tables.platforms) if node.wsl else platform


def choose_toolkits(case: Case, platform: Platform, runtime: Runtime) -> list[dict[str, Any]]:
    """Return the release of every wished toolkit, [] when none is wished, or refuse."""
    wishes = wished_toolkits(case.intent.cuda_toolkit)
    if not wishes:
        case.decide("toolkit", None, "not asked for: the framework's wheels bring their own CUDA libraries")
        return []
    node = case.node
    if node.wsl and not node.os.startswith(("ubuntu", "wsl")):
        raise Refusal("platform", f"NVIDIA's repository for WSL2 is made for Ubuntu, not for {node.os_name}")
    if toolkit_platform(case.tables, node, platform).repository_arch is None:
        raise Refusal("platform", f"NVIDIA is not known to have a repository for {node.os_name} on {node.arch}")
    found = [_release(case, wish, runtime) for wish in wishes]
    lines = [release["toolkit"] for release in found]
    twice = sorted({line for line in lines if lines.count(line) > 1})
    if twice:
        raise Refusal("intent", f"two releases of CUDA toolkit {', '.join(twice)} cannot be side by side")
    for release in found:
        _tell(case, release, runtime, "toolkit.cuda" if release is found[0] else f"toolkit.{release['toolkit']}")
    return found


def _release(case: Case, wish: str, runtime: Runtime) -> dict[str, Any]:
    tables = case.tables
    release = toolkit_release(tables, wish)
    if release is None:
        newest = tables.cuda["releases"][-1]["toolkit"]
        raise Refusal("intent", f"CUDA toolkit {wish} is not in the table, whose newest is {newest}")
    problems = toolkit_problems(tables, release, runtime)
    if problems:
        texts = "; ".join(dict.fromkeys(text for _gate, text in problems))
        raise Refusal(problems[0][0], texts, ["Another stack_cuda_toolkit, or none: wheels bring their own libraries"])
    return release


def _tell(case: Case, release: dict[str, Any], runtime: Runtime, item: str) -> None:
    line = release["toolkit"]
    rule = f"release {release['release']}, asked for by name; compilers up to gcc {release.get('gcc_max')}"
    if runtime.native and version_key(runtime.native) < version_key(line):
        rule += (
            f"; the driver knows CUDA {runtime.native} in full, so compile for the GPUs themselves (SASS): PTX of "
            f"{line} is not compiled on it"
        )
    sources = sources_of(case.tables.cuda, release)
    case.decide(item, line, rule, f"cuda/releases/{release['release']}", sources)


def toolkit_part(platform: Platform, releases: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the ``toolkit`` of a stack, None without one.

    ``cuda`` is the line that ``/usr/local/cuda`` names, ``releases`` has all of them. The package of a line has the
    version of its release, and so has the metapackage of the Python index. Its repository is its own: under WSL2
    there is one for the toolkit and none for a driver.
    """
    if not releases:
        return None
    return {
        "cuda": releases[0]["toolkit"],
        "releases": [_release_part(platform, release) for release in releases],
        "libraries": _library_packages(platform),
        "repository": repository(platform),
    }


def _release_part(platform: Platform, release: dict[str, Any]) -> dict[str, Any]:
    first, second = release["toolkit"].split(".")
    return {
        "cuda": release["toolkit"],
        "version": release["release"],
        "package": platform.table["toolkit_packages"]["cuda"].format(major=first, minor=second),
        "host_gcc_max": release.get("gcc_max"),
        "compute_capabilities": list(release["compute_capabilities"]),
    }


def _library_packages(platform: Platform) -> dict[str, Any]:
    """Names of the packages of cuDNN ({major} is CUDA's) and NCCL; their versions are the stack's ``libraries``."""
    known = platform.table["toolkit_packages"]
    return {_CUDNN: [known["cudnn"]], _NCCL: list(known["nccl_deb" if platform.deb else "nccl_rpm"])}
