# SPDX-License-Identifier: Apache-2.0
"""Decide which NVIDIA driver packages a node of the distribution's archive gets, or refuse with a reason. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError
from .host import natural_key
from .packages import Candidate, Installed

UPSTREAM = re.compile(r"^(?:\d+:)?(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Request:
    """What the caller wants, and the names of the distribution."""

    anchor: str
    userland: list[str]
    module_packages: list[str]
    sources: list[str]
    helpers: list[str]
    version: str
    kernel_module: str


def upstream(version: str) -> str:
    """Return NVIDIA's own version out of a package version: ``535.309.01-0+deb12u1`` is ``535.309.01``."""
    match = UPSTREAM.match(version)
    return match.group(1) if match else version


def available(candidates: list[Candidate], anchor: str) -> list[str]:
    """Return the package versions of the anchor package, newest first."""
    versions = dict.fromkeys(candidate.version for candidate in candidates if candidate.name == anchor)
    return sorted(versions, key=lambda version: natural_key(upstream(version)), reverse=True)


def choose_version(versions: list[str], installed: str | None, wanted: str, node: str) -> str:
    """Return the full package version of NVIDIA's version ``wanted`` (or of the package's own, taken as it is).

    What is installed in that version stays, also when the archive has moved on.
    """
    fitting = [version for version in versions if wanted in (version, upstream(version))]
    if installed is not None and wanted in (installed, upstream(installed)):
        return installed
    if not fitting:
        shown = ", ".join(dict.fromkeys(upstream(version) for version in versions)) or "none"
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"the lock says {wanted} and the node's archive has {shown}",
            "Set stack_driver_branch or stack_driver_version to what it has, and plan again",
            expected=wanted,
            found=versions,
        )
    return fitting[0]


def kernels_to_build(host: dict[str, Any], mode: str) -> tuple[list[str], str | None]:
    """Return the kernels a module is expected for, and why there are none."""
    kernel = host["kernel"]
    if mode == "none":
        return [], "nvidia_driver_kernel_module is none: the kernel module is somebody else's."
    if mode == "build":
        if kernel["headers"]:
            return kernel["headers"], None
        return [], "No kernel headers are installed, so no kernel module can be built."
    if host["container"]:
        return [], kernel["note"]
    with_headers = [name for name in kernel["installed"] if name in kernel["headers"]]
    if with_headers:
        return with_headers, None
    return (
        [],
        "None of the installed kernels has headers, so no kernel module can be built; install linux-headers for it.",
    )


def package_list(
    chosen: str,
    request: Request,
    candidates: list[Candidate],
    statuses: dict[str, Installed],
    with_module: bool,
    node: str,
) -> list[str]:
    """Return ``name=version`` for what is built from the driver's version, plain names for the rest.

    Installed packages of the same sources are part of the list: one that stayed behind would be a version skew.
    """
    offered: dict[str, list[str]] = {}
    for candidate in candidates:
        offered.setdefault(candidate.name, []).append(candidate.version)
    names = [*request.userland, *(request.module_packages if with_module else [])]
    names += sorted(
        name for name, package in statuses.items() if package.source in request.sources and name not in names
    )
    result = []
    for name in names:
        versions = offered.get(name, [])
        have = statuses.get(name)
        same = [version for version in versions if upstream(version) == upstream(chosen)]
        if have is not None and upstream(have.version) == upstream(chosen) and have.source in request.sources:
            result.append(f"{name}={have.version}")
        elif same:
            result.append(f"{name}={chosen if chosen in same else same[0]}")
        elif have is not None or versions:
            _refuse_missing(name, chosen, versions, request, node)
            result.append(name)
        else:
            raise InvalidInputError(
                "choose the driver packages",
                node,
                f"the archive has no {name}",
                "Set another stack_driver_version or stack_module_flavour, and plan again",
                expected=name,
            )
    return result


def _refuse_missing(name: str, chosen: str, versions: list[str], request: Request, node: str) -> None:
    """Refuse a kernel module package that exists, but not in the chosen version."""
    if name not in request.module_packages:
        return
    shown = ", ".join(upstream(version) for version in versions)
    raise InvalidInputError(
        "choose the kernel module",
        node,
        f"{name} is not available in version {upstream(chosen)}, only in {shown or 'none'}",
        "Set stack_driver_version to that, or the other stack_module_flavour, and plan again",
        expected=upstream(chosen),
        found=versions,
    )


def pending_changes(packages: list[str], statuses: dict[str, Installed]) -> list[str]:
    """Return what would change, one line for each package."""
    lines = []
    for request in packages:
        name, _separator, version = request.partition("=")
        have = statuses.get(name)
        if have is None:
            lines.append(f"install {name} {version}".strip())
        elif not have.complete:
            lines.append(f"repair {name} {have.version}")
        elif version and have.version != version:
            lines.append(f"change {name} {have.version} -> {version}")
    return lines


def preferences(chosen: str, sources: list[str], helpers: list[str]) -> str:
    """Return the pin that keeps apt from mixing versions: without it a security suite's newer parts win.

    Helpers have versions of their own. They are named so that an older pin on ``nvidia-*`` cannot hide them.
    """
    wanted = " ".join(f"src:{source}" for source in sources)
    return (
        "# Managed by Rackwright (role nvidia_driver); changes are overwritten.\n"
        "# One driver version for every package of it; above 1000 also when that means going back.\n"
        f"Package: {wanted}\nPin: version {upstream(chosen)}*\nPin-Priority: 1001\n\n"
        f"Package: {' '.join(f'src:{source}' for source in helpers)}\nPin: version *\nPin-Priority: 500\n"
    )


def skip_reason(gpu: dict[str, Any], host: dict[str, Any], locked: bool, require_gpu: bool, node: str) -> str | None:
    """Return why no driver belongs on this node, or None.

    Args:
        locked: whether the lock has a driver for the node. A GPU that it does not know of is refused: to leave such a
            node alone would look like success.
    """
    if host["wsl"] or gpu.get("situation") == "wsl2":
        return (
            "This is WSL2: the driver belongs to Windows, and a Linux driver would break the pass-through of the GPU."
        )
    count = gpu.get("pci_count") or gpu.get("count")
    if not count and (require_gpu or not locked):
        return "There is no NVIDIA GPU on the PCI bus of this node."
    if not locked:
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"the lock has no driver for it and it has {count} NVIDIA GPU(s)",
            "Run playbooks/plan-stack.yml again",
            expected="no GPU",
            found=count,
        )
    return None
