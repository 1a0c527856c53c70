# SPDX-License-Identifier: Apache-2.0
"""Node profiles: YAML files whose parts are merged, the profile's own values last."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from .errors import ProfileError

FOLDER = Path(__file__).resolve().parents[1] / "profiles"
SECTIONS = {"description", "parts", "driver", "gpu", "gpus", "pci_devices"}


def names() -> list[str]:
    """Every profile that can be asked for."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values of ``over`` replace those of ``base``; mappings are merged."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _read(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ProfileError(f"read {path.name}", "it is not a mapping", "Start it with the sections of another profile")
    unknown = sorted(set(document) - SECTIONS)
    if unknown:
        raise ProfileError(
            f"read {path.name}", f"unknown section {', '.join(unknown)}", f"Use {', '.join(sorted(SECTIONS))}"
        )
    return document


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """One profile with its parts merged."""
    path = folder / f"{name}.yml"
    if not path.is_file():
        raise ProfileError(f"find the profile {name}", "there is no such file", f"Use one of {', '.join(names())}")
    own = _read(path)
    result: dict[str, Any] = {"driver": {}, "gpu": {}, "gpus": [], "pci_devices": []}
    for part in own.pop("parts", []):
        result = merge(result, _read(folder / "parts" / f"{part}.yml"))
    return merge(result, own)
