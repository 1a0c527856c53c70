# SPDX-License-Identifier: Apache-2.0
"""Bad luck that waits for a boot, and values of a node that the C library does not know.

A plant is `WHEN DRIVER KEY VALUE` in plants.conf below /var/lib/simnvml: WHEN is `once` or `every`, DRIVER a version or
`*`. At a boot that loads that driver the key is set as `simnvmlctl set` would; `once` is then forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path

# key -> form and default of values that only simnvmlctl and the tests read
NODE_KEYS = {"slowdown": (r"\d{1,2}(\.\d+)?", "0"), "sshd": ("never|normal", "normal")}


def is_node_key(key: str) -> bool:
    """Whether the key is one of the node's own."""
    return key in NODE_KEYS


def node_value_fits(key: str, value: str) -> bool:
    """Whether the value has the form that the key wants."""
    return re.fullmatch(NODE_KEYS[key][0], value) is not None


def read(path: Path) -> list[list[str]]:
    """All plants, each of four words; the value may contain blanks."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.split(" ", 3) for line in lines if len(line.split(" ", 3)) == 4]


def due(plants: list[list[str]], driver: str | None) -> tuple[dict[str, str], list[list[str]]]:
    """What a boot with this driver sets, and the plants that remain."""
    now, later = {}, []
    for when, wanted, key, value in plants:
        fits = wanted in ("*", driver)
        if fits:
            now[key] = value
        if not (fits and when == "once"):
            later.append([when, wanted, key, value])
    return now, later


def text(plants: list[list[str]]) -> str:
    """The file of these plants."""
    return "".join(" ".join(plant) + "\n" for plant in plants)
