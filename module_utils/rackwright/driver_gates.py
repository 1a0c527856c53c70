# SPDX-License-Identifier: Apache-2.0
"""Which driver branches can run which GPUs at all. Pure.

Source: data of the project's driver table (``supports_blackwell`` is false for every branch below 570; the open kernel
modules are the only ones for Blackwell, by NVIDIA's announcement of July 2024 and its kernel modules documentation).
"""

from __future__ import annotations

from typing import Any

from .driver_names import upstream
from .errors import InvalidInputError

BLACKWELL = "blackwell"
BLACKWELL_FIRST_BRANCH = 570


def refuse_unsupported(gpu: dict[str, Any], version: str, module_packages: list[str], node: str) -> None:
    """Raise InvalidInputError when the node has a GPU that this version, or its kernel module, cannot drive.

    Args:
        gpu: the fact ``gpu``; before any driver exists, unambiguous PCI ids tell the architecture.
        version: package version that was chosen.
        module_packages: kernel module packages that will be built, empty when none is.
        node: name of the node for the message.
    """
    cards = [device for device in gpu.get("devices") or [] if device.get("architecture") == BLACKWELL]
    if not cards:
        return
    branch = int(upstream(version).split(".")[0])
    if branch < BLACKWELL_FIRST_BRANCH:
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"driver {upstream(version)} does not know Blackwell GPUs, of which the node has {len(cards)}",
            f"Install branch {BLACKWELL_FIRST_BRANCH} or newer with open kernel modules from a source that has it",
            expected=f">= {BLACKWELL_FIRST_BRANCH}",
            found=branch,
        )
    if any("open" not in package for package in module_packages):
        raise InvalidInputError(
            "choose the kernel module",
            node,
            "Blackwell GPUs have no proprietary kernel module",
            "Set stack_module_flavour to open and plan again",
            expected="open",
            found=module_packages,
        )
