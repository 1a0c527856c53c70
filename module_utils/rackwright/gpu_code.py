# SPDX-License-Identifier: Apache-2.0
"""Whether the GPU code a build says it holds (``sm_90``, ``compute_90``) runs on a GPU. Pure.

The rule for code of the same major compute capability is `torch_build.sass_runs`, here for the names that compilers
and frameworks use. A letter binds code: ``sm_90a`` runs on 9.0 only, ``sm_100f`` on its family as plain code does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .torch_build import sass_runs, version_key

SASS, PTX, NONE = "sass", "ptx", "none"
_CODE = re.compile(r"^(sm|compute)_(\d{2,3})([af]?)$")


@dataclass(frozen=True)
class Code:
    """One entry: machine code (``ptx`` false) or PTX for a compute capability like ``9.0``, with its letter."""

    capability: str
    ptx: bool
    letter: str = ""

    @property
    def text(self) -> str:
        """``9.0`` or ``9.0a``; PTX says so."""
        return f"{self.capability}{self.letter}" + (" as PTX" if self.ptx else "")


def parse(names: Iterable[str]) -> list[Code]:
    """Return the codes among the names; names of other makers' GPUs (``gfx942``) are left out."""
    codes = []
    for name in names:
        match = _CODE.match(name)
        if match:
            digits = match[2]
            codes.append(Code(f"{digits[:-1]}.{digits[-1]}", match[1] == "compute", match[3]))
    return codes


def shown(codes: Iterable[Code]) -> str:
    """Return the codes as people list them."""
    return ", ".join(code.text for code in codes) or "none"


def how_it_runs(table: Mapping[str, Any], codes: Iterable[Code], device: str, cuda: str) -> str:
    """Return how a GPU of compute capability ``device`` runs codes: ``sass``, ``ptx`` (compiled first) or ``none``.

    ``table`` is ``frameworks.yml``, ``cuda`` the CUDA version that wrote the codes.
    """
    ways = {PTX if code.ptx else SASS for code in codes if _runs(table, code, device, cuda)}
    return SASS if SASS in ways else PTX if PTX in ways else NONE


def _runs(table: Mapping[str, Any], code: Code, device: str, cuda: str) -> bool:
    if code.letter == "a":
        return code.capability == device
    if code.ptx and not code.letter:
        return version_key(device) >= version_key(code.capability)
    return sass_runs(dict(table), code.capability, device, cuda)
