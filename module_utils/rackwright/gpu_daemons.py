# SPDX-License-Identifier: Apache-2.0
"""Daemons that hold GPUs by design: none of them is work, and nobody has to wait for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

#: names of their programs; all are started by a package's own unit
DAEMONS = (
    "nvidia-persistenced",
    "nv-fabricmanager",
    "nvidia-imex",
    "nv-hostengine",
    "dcgm-exporter",
)
#: so much of a program's name the kernel keeps (/proc/PID/comm)
_COMM = 15


def is_named(comm: str | None, names: Iterable[str] = DAEMONS) -> bool:
    """Whether a process whose name in ``/proc/PID/comm`` is this runs one of the programs."""
    return comm is not None and any(name[:_COMM] == comm[:_COMM] for name in names)
