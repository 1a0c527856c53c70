# SPDX-License-Identifier: Apache-2.0
"""Loading and unloading of the simulated module: what is loaded, what uses it, and the words of modprobe and rmmod."""

from __future__ import annotations

import os
from pathlib import Path

# module -> modules that it needs
NEEDS = {
    "nvidia": (),
    "nvidia_modeset": ("nvidia",),
    "nvidia_drm": ("nvidia_modeset",),
    "nvidia_uvm": ("nvidia",),
}
LABEL = "simnvml (simulated module)"


def canonical(name: str) -> str:
    """The kernel takes - and _ for the same; Debian's packages call the module nvidia-current."""
    plain = name.replace("-", "_")
    return plain.replace("nvidia_current", "nvidia") if plain.startswith("nvidia_current") else plain


def is_ours(name: str) -> bool:
    """Whether a module is simulated."""
    return canonical(name) in NEEDS


def with_needs(names: list[str]) -> list[str]:
    """The modules and what they need, in an order in which they can be loaded."""
    found: list[str] = []
    for name in names:
        for needed in (*with_needs(list(NEEDS[name])), name):
            if needed not in found:
                found.append(needed)
    return found


def users(name: str, loaded: list[str]) -> list[str]:
    """Loaded modules that need this one."""
    return [other for other in loaded if name in NEEDS[other]]


def holders(device_folder: Path, proc: Path = Path("/proc")) -> list[int]:
    """Processes that have a device file of the simulated driver open."""
    found = []
    prefix = f"{os.path.realpath(device_folder)}/nvidia"
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            targets = [os.readlink(link) for link in (entry / "fd").iterdir()]
        except OSError:
            continue  # it ended meanwhile
        if any(target.startswith(prefix) for target in targets):
            found.append(int(entry.name))
    return sorted(found)


def unload(names: list[str], loaded: list[str], busy: list[int]) -> tuple[list[str], str | None]:
    """Modules that remain after `rmmod NAMES`, and the words with which it fails."""
    left = list(loaded)
    for name in names:
        if name not in left:
            return left, f"Module {name} is not currently loaded"
        others = users(name, left)
        if others:
            return left, f"Module {name} is in use by: {' '.join(others)}"
        if name == "nvidia" and busy:
            return left, f"Module {name} is in use"
        left.remove(name)
    return left, None
