# SPDX-License-Identifier: Apache-2.0
"""A driver that cannot run the node's GPUs is refused before anything is installed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_gates import refuse_unsupported
from ansible.module_utils.rackwright.errors import InvalidInputError


def gpu(*architectures: str | None) -> dict[str, Any]:
    return {"devices": [{"architecture": name} for name in architectures]}


@pytest.mark.parametrize(
    ("facts", "version", "modules"),
    [
        (gpu(), "535.309.01-1", ["nvidia-kernel-dkms"]),
        (gpu("hopper", "ada", None), "535.309.01-1", ["nvidia-kernel-dkms"]),
        (gpu("blackwell"), "570.148.08-1", ["nvidia-open-kernel-dkms"]),
        (gpu("blackwell"), "580.95.05-1", []),
        ({}, "535.309.01-1", []),
    ],
)
def test_a_driver_that_fits_is_accepted(facts: dict[str, Any], version: str, modules: list[str]) -> None:
    refuse_unsupported(facts, version, modules, "n1")  # raises when it does not fit


@pytest.mark.parametrize(
    ("facts", "version", "modules", "sentence"),
    [
        (gpu("blackwell"), "550.163.01-2", [], "driver 550.163.01 does not know Blackwell GPUs"),
        (gpu("hopper", "blackwell"), "535.309.01-1", ["nvidia-open-kernel-dkms"], "of which the node has 1"),
        (gpu("blackwell"), "580.95.05-1", ["nvidia-kernel-dkms"], "no proprietary kernel module"),
    ],
)
def test_a_driver_that_cannot_work_is_refused(
    facts: dict[str, Any], version: str, modules: list[str], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        refuse_unsupported(facts, version, modules, "n1")
