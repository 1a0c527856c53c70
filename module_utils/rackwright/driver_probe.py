# SPDX-License-Identifier: Apache-2.0
"""The node's side of the driver plan, whatever its package manager. Reads only."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Protocol

from .driver_gates import refuse_unsupported
from .driver_names import upstream
from .driver_plan import (
    Found,
    Request,
    busy_processes,
    kernels_to_build,
    refuse_busy,
    replaced_driver,
    skip_reason,
)
from .packages import Installed
from .packages_apt import Run


class Side(Protocol):
    """What a package manager's side of the plan does."""

    manager: str
    node: str

    def statuses(self) -> dict[str, Installed]:
        """Return what is installed."""

    def resolve(self, request: Request, host: dict[str, Any], with_module: bool) -> Found:
        """Return exact versions for a request, or refuse it."""


def side_for(run: Run, node: str, lock_timeout: int, host: dict[str, Any]) -> Side:
    """Return the side of the node's package manager."""
    if host["platform"]["family"] == "redhat":
        from .driver_probe_dnf import DnfSide

        found: Side = DnfSide(run, node, lock_timeout)
        return found
    from .driver_probe_apt import AptSide

    return AptSide(run, node, lock_timeout)


def make_plan(
    side: Side,
    host: dict[str, Any],
    gpu: dict[str, Any],
    request: Request,
    *,
    require_gpu: bool,
    replace_busy: bool,
) -> dict[str, Any]:
    """Return what the role has to do on this node."""
    reason = skip_reason(gpu, host, bool(request.version), require_gpu, side.node)
    if reason is not None:
        return {"action": "skip", "reason": reason}
    kernels, note = kernels_to_build(host, request.kernel_module)
    found = side.resolve(request, host, bool(kernels))
    refuse_unsupported(gpu, found.version, request.module_packages() if kernels else [], side.node)
    replaces = replaced_driver(found.installed, found.version)
    refuse_busy(gpu, replaces, found.version, replace_busy, side.node)
    return {
        "action": "install",
        "reason": None,
        "manager": side.manager,
        "source": request.source,
        "upstream": upstream(found.version),
        "anchor": request.anchor,
        "sources": request.sources,
        "kernels": kernels,
        "module_note": note,
        "replaces": replaces,
        "busy": busy_processes(gpu),
        **asdict(found),
    }


def installed_at(anchor: str) -> float | None:
    """Return when dpkg last unpacked the anchor package, in seconds since the epoch."""
    for name in (f"{anchor}.list", f"{anchor}:amd64.list", f"{anchor}:arm64.list"):
        try:
            return os.stat(f"/var/lib/dpkg/info/{name}").st_mtime
        except OSError:
            continue
    return None
