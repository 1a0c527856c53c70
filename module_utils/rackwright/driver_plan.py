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
    version: str | None
    branch: str | None
    update: bool
    kernel_module: str


def upstream(version: str) -> str:
    """Return NVIDIA's own version out of a package version: ``535.309.01-0+deb12u1`` is ``535.309.01``."""
    match = UPSTREAM.match(version)
    return match.group(1) if match else version


def available(candidates: list[Candidate], anchor: str) -> list[str]:
    """Return the package versions of the anchor package, newest first."""
    versions = dict.fromkeys(candidate.version for candidate in candidates if candidate.name == anchor)
    return sorted(versions, key=lambda version: natural_key(upstream(version)), reverse=True)


def in_branch(version: str, branch: str | None) -> bool:
    """Whether a version belongs to a driver branch; every version does when none is named."""
    return branch is None or upstream(version).split(".")[0] == str(branch)


def choose_version(versions: list[str], installed: str | None, request: Request, node: str) -> str:
    """Return the full package version to install.

    Without an exact version an installed driver of the branch stays where it is unless an update is asked for:
    a rerun must not move the driver of a node by itself.
    """
    shown = ", ".join(dict.fromkeys(upstream(version) for version in versions)) or "none"
    if request.version is not None:
        fitting = [version for version in versions if request.version in (version, upstream(version))]
        if not fitting:
            raise InvalidInputError(
                "choose the driver version",
                node,
                f"version {request.version} is not in the node's archive, which has {shown}",
                "Set nvidia_driver_version to one of these, or to null for the newest",
                expected=versions,
                found=request.version,
            )
        if not in_branch(fitting[0], request.branch):
            raise InvalidInputError(
                "choose the driver version",
                node,
                f"version {request.version} does not belong to branch {request.branch}",
                "Correct nvidia_driver_version or nvidia_driver_branch",
                expected=request.branch,
                found=request.version,
            )
        return installed if installed in fitting else fitting[0]
    fitting = [version for version in versions if in_branch(version, request.branch)]
    if installed is not None and in_branch(installed, request.branch) and not (request.update and fitting):
        return installed
    if not fitting:
        wish = (
            f"branch {request.branch} is not in the node's archive"
            if request.branch
            else "the node's archive has no NVIDIA driver"
        )
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"{wish}; it has {shown}",
            "Set nvidia_driver_branch to a branch it has, or to null",
            expected=versions,
            found=request.branch,
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
                "Choose another version or kernel module flavour",
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
        "Choose that version, or the other nvidia_driver_module_flavour",
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


def skip_reason(gpu: dict[str, Any], host: dict[str, Any], require_gpu: bool) -> str | None:
    """Return why no driver belongs on this node, or None."""
    if host["wsl"] or gpu.get("situation") == "wsl2":
        return (
            "This is WSL2: the driver belongs to Windows, and a Linux driver would break the pass-through of the GPU."
        )
    if require_gpu and not gpu.get("pci_count") and not gpu.get("count"):
        return "There is no NVIDIA GPU on the PCI bus of this node."
    return None
