# SPDX-License-Identifier: Apache-2.0
"""MIG profiles of the simulated GPUs, and layouts made of them."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml

from ansible.module_utils.rackwright import mig_layout
from ansible.module_utils.rackwright.mig_layout import Instance, Profile

PROFILES = Path(__file__).resolve().parents[1] / "simnvml/profiles"


@functools.cache
def offered(profile: str) -> tuple[Profile, ...]:
    """The MIG profiles of a simulated GPU."""
    table = yaml.safe_load((PROFILES / f"{profile}.yml").read_text(encoding="utf-8"))["gpu"]["mig"]["profile"]
    rows = []
    for row in table.values():
        number, slices, size, memory, _sms, most, *_engines, name, starts = row.split()
        places = tuple(int(start) for start in starts.split(","))
        rows.append(Profile(int(number), name, int(slices), int(size), places, int(most), int(memory)))
    return tuple(rows)


def layout(text: str, profile: str = "a100x4") -> list[Profile]:
    return mig_layout.resolve(mig_layout.parse(text.split(", ")), offered(profile))


def made(text: str) -> list[Instance]:
    """The instances that a layout becomes."""
    found = mig_layout.place(layout(text)) or []
    return [Instance(10 + n, one.id, start, one.size, (one.slices,)) for n, (one, start) in enumerate(found)]
