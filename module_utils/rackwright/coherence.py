# SPDX-License-Identifier: Apache-2.0
"""One check of everything that has to be of one version on a node with NVIDIA GPUs. Pure: facts in, answers out.

Loaded module, library, modules on the disk of every kernel, DKMS, packages, fabric manager, container toolkit, CDI
specifications, and the lock. What cannot be told and what does not apply have states of their own: they are no success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import coherence_kernel as kernel
from . import coherence_software as software
from .coherence_view import FAIL, MISMATCH, UNKNOWN, WARN, Answer, View

RULES = (
    kernel.module_library,
    kernel.module_disk,
    kernel.boot_kernel,
    kernel.dkms_kernels,
    software.package_skew,
    software.fabric_manager,
    software.container_toolkit,
    software.cdi,
    software.lock_version,
    software.lock_flavour,
    software.holds,
)
IDS = (
    *(kernel.LIBRARY, kernel.DISK, kernel.BOOT, kernel.DKMS),
    *(software.SKEW, software.FABRIC, software.TOOLKIT, software.CDI),
    *(software.VERSION, software.FLAVOUR, software.HOLDS),
)
#: what a node has to be known to have right before it can be called coherent
_NEEDED = (kernel.LIBRARY, kernel.DISK, kernel.BOOT, software.SKEW, software.FABRIC, software.VERSION)


def examine(gpu: Mapping[str, Any], stack: Mapping[str, Any] | None = None) -> list[Answer]:
    """Return the answer of every rule.

    Args:
        gpu: the fact ``gpu``.
        stack: the node's entry of the lock, None where the node is not held against one.

    Returns:
        Records with ``id`` (of :data:`IDS`), ``subject``, ``state`` (``ok``, ``mismatch``, ``unknown``,
        ``not_applicable``), ``severity`` (``fail`` or ``warn`` of a mismatch, else None), ``expected``, ``found``,
        ``cause`` and ``cure``. A mismatch has all of them; what is unknown or does not apply has its reason as cause.
    """
    view = View(gpu, stack)
    return [answer for rule in RULES for answer in rule(view)]


def findings(gpu: Mapping[str, Any], stack: Mapping[str, Any] | None = None) -> list[Answer]:
    """Return the mismatches, those that stop GPU programs first."""
    wrong = [answer for answer in examine(gpu, stack) if answer["state"] == MISMATCH]
    return sorted(wrong, key=lambda answer: (FAIL, WARN).index(answer["severity"]))


def coherent(gpu: Mapping[str, Any], stack: Mapping[str, Any] | None = None) -> bool | None:
    """Return whether everything fits: False with a mismatch of severity ``fail``, None where too little is known."""
    answers = examine(gpu, stack)
    if any(answer["severity"] == FAIL for answer in answers):
        return False
    open_ids = {answer["id"] for answer in answers if answer["state"] == UNKNOWN}
    return None if open_ids & set(_NEEDED) else True


def lines(gpu: Mapping[str, Any], stack: Mapping[str, Any] | None = None) -> list[str]:
    """Return the mismatches for people: one line each with cause and cure."""
    return [f"{a['severity']}: {a['id']}, {a['subject']}: {a['cause']} {a['cure']}" for a in findings(gpu, stack)]
