# SPDX-License-Identifier: Apache-2.0
"""Which kernel a node goes to, and the packages that bring it. Pure but for the one question to the package manager.

The new kernel has the flavour of the old one (``amd64``, ``generic``, ``cloud-amd64``); on the RHEL family, whose
kernels have no such word, the architecture stands there. The newest kernel is the newest of the series that is there
(6.1): backports and hardware enablement kernels are other series, and come only by name. A container boots no kernel:
there only headers and module come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import InvalidInputError, ProbeError
from .host import natural_key

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]
_DEBIAN = re.compile(r"(\d+(?:\.\d+)+(?:[-+~.]\w+)*?)-([a-z][\w-]*)")
_IMAGE = "linux-image-"


def present(host: Mapping[str, Any]) -> list[str]:
    """Return the kernels that are there, oldest first; in a container those that have headers."""
    kernel = host["kernel"]
    found = kernel.get("images") or kernel.get("installed") or (kernel.get("headers") if host["container"] else [])
    return sorted(found or [], key=natural_key)


def flavour(release: str) -> str:
    """Return ``amd64`` of ``6.1.0-56-amd64``; of ``5.14.0-611.el9.x86_64`` it is ``x86_64``."""
    match = _DEBIAN.fullmatch(release)
    return match.group(2) if match else release.rpartition(".")[2]


def series(release: str) -> str:
    """Return ``6.1`` of ``6.1.0-56-amd64``."""
    return ".".join(release.split(".")[:2])


def offered(run: Run, family: str, kind: str, node: str) -> list[str]:
    """Return the releases of this flavour that the node's sources have, oldest first.

    Raises:
        ProbeError: the package manager did not answer.
    """
    if family == "redhat":
        command = ["dnf", "-q", "repoquery", "--qf", "%{version}-%{release}.%{arch}\\n", "kernel-core"]
    else:
        command = ["apt-cache", "pkgnames", _IMAGE]
    code, out, err = run(command)
    if code != 0:
        step = "Run the same command on the node"
        raise ProbeError("list the kernels", node, f"{' '.join(command)}: {err.strip() or code}", step)
    names = [line.strip() for line in out.splitlines() if line.strip()]
    if family != "redhat":
        names = [name[len(_IMAGE) :] for name in names if not name.endswith(("-dbg", "-unsigned"))]
    fitting = {name for name in names if name[:1].isdigit() and flavour(name) == kind}
    return sorted(fitting, key=natural_key)


def plan(
    host: Mapping[str, Any], releases: Sequence[str], wanted: str, headers: Sequence[str], node: str
) -> dict[str, Any]:
    """Return the kernel a node goes to.

    Args:
        host: what host.inspect_host found.
        releases: what :func:`offered` returned.
        wanted: ``newest``, or a release like ``6.1.0-57-amd64``.
        headers: packages of headers with ``{kernel}`` for the release.
        node: name for messages.

    Returns:
        ``running``, ``present``, ``target``, ``container``, ``packages`` to install (empty when it is there), and
        ``current``: whether nothing has to be done.

    Raises:
        InvalidInputError: no source has the wanted kernel.
    """
    there = present(host)
    known = sorted({*releases, *there}, key=natural_key)
    if not known or (wanted != "newest" and wanted not in known):
        raise InvalidInputError(
            "choose the kernel",
            node,
            f"{'a kernel' if wanted == 'newest' else wanted} is offered by no source of it",
            f"Set update_kernel_version to one of {', '.join(known[-3:]) or 'its sources'}",
            expected=wanted,
            found=known,
        )
    same = [name for name in known if not there or series(name) == series(there[-1])]
    target = same[-1] if wanted == "newest" else wanted
    image = [] if host["container"] else [_image(target, host)]
    return {
        "running": host["kernel"]["running"],
        "present": there,
        "target": target,
        "container": bool(host["container"]),
        "packages": [] if target in there else [*image, *(name.replace("{kernel}", target) for name in headers)],
        "current": target in there and (bool(host["container"]) or host["kernel"]["running"] == target),
    }


def _image(release: str, host: Mapping[str, Any]) -> str:
    return f"kernel-{release}" if host["platform"]["family"] == "redhat" else f"{_IMAGE}{release}"


def removal(family: str, packages: Sequence[str]) -> list[tuple[list[str], str | None]]:
    """Return the commands, with their input, that take a kernel away again, also when it is the one that runs.

    Both families protect the running kernel: on Debian and Ubuntu a question of linux-base (answered beforehand), on
    the RHEL family a setting of dnf.
    """
    if family == "redhat":
        return [(["dnf", "-y", "--setopt=protect_running_kernel=False", "remove", *packages], None)]
    answer = "linux-base linux-base/removing-running-kernel boolean false\n"
    remove = ["apt-get", "-y", "-q", "--allow-change-held-packages", "remove", *packages]
    return [(["debconf-set-selections"], answer), (remove, None)]
