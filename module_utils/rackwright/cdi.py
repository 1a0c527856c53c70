# SPDX-License-Identifier: Apache-2.0
"""Specifications of the Container Device Interface (CDI) for NVIDIA's GPUs: what container runtimes hand to containers.

A node has no YAML parser that can be counted on, and what is needed of a specification are two things: the version in
the names of the driver's files, and the names of its devices. Both stand the same way in YAML and JSON.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

#: Where runtimes look; a device of a later folder wins over one of the same name in an earlier one.
FOLDERS = ("etc/cdi", "run/cdi")
KIND = "nvidia.com/gpu"
_MOST_BYTES = 4 << 20
# libcuda and NVML are the driver; others of its libraries stand in when a specification has neither
_CORE = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.\d+(?:\.\d+)?)(?![\d.])")
_ANY = re.compile(r"/lib[\w-]*(?:nvidia|cuda|nvcuvid|nvoptix)[\w-]*\.so\.(\d{3}\.\d+(?:\.\d+)?)(?![\d.])")
_TOP = re.compile(r"^([A-Za-z]\w*):(.*)$")


def read_specs(root: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the specifications for NVIDIA's GPUs in the order runtimes read them, and why values are missing.

    Each has ``path``, ``driver_version`` and ``devices`` (names). The keys of the reasons begin with the position.
    """
    found: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            names = sorted(os.listdir(root / folder))
        except OSError:
            continue
        for name in names:
            if not name.endswith((".yaml", ".json")):
                continue
            spec, reasons = _read(root / folder / name, f"/{folder}/{name}")
            if spec is not None:
                missing.update({f"{len(found)}.{key}": reason for key, reason in reasons.items()})
                found.append(spec)
    return found, missing


def _read(path: Path, shown: str) -> tuple[dict[str, Any] | None, dict[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MOST_BYTES)
    except OSError as error:
        if "nvidia" not in path.name:
            return None, {}
        reason = f"{shown} cannot be read ({os.strerror(error.errno or 0).lower()})"
        unknown = {"path": shown, "driver_version": None, "devices": None}
        return unknown, {"driver_version": reason, "devices": reason}
    if kind_of(text) != KIND:
        return None, {}
    version, devices = driver_version_of(text), devices_of(text)
    reasons = {} if version else {"driver_version": "it names no library of the driver with a version"}
    return {"path": shown, "driver_version": version, "devices": devices}, reasons


def driver_version_of(text: str) -> str | None:
    """Return the driver version that a specification hands to containers, by the names of its libraries."""
    match = _CORE.search(text) or _ANY.search(text)
    return match[1] if match else None


def kind_of(text: str) -> str | None:
    """Return the kind of device a specification is for, None for a text that is no specification."""
    if text.lstrip().startswith("{"):
        value = _json(text).get("kind")
        return value if isinstance(value, str) else None
    for line in text.splitlines():
        match = _TOP.match(line)
        if match and match[1] == "kind":
            return _plain(match[2])
    return None


def devices_of(text: str) -> list[str]:
    """Return the names of a specification's devices in its order."""
    if text.lstrip().startswith("{"):
        devices = _json(text).get("devices")
        entries = devices if isinstance(devices, list) else []
        return [entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    return _yaml_names(text)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _yaml_names(text: str) -> list[str]:
    names: list[str] = []
    inside, dash = False, None
    for line in text.splitlines():
        if _TOP.match(line):
            inside, dash = line.startswith("devices:"), None
            continue
        if not inside or not line.strip():
            continue
        indent = len(line) - len(line.lstrip(" "))
        if dash is None and line[indent] == "-":
            dash = indent
        # a device's own name stands one step inside its dash; deeper ones belong to its hooks and nodes
        own = dash is not None and (indent == dash + 2 or (indent == dash and line[indent] == "-"))
        match = re.match(r"(?:- +)?name:(.*)$", line[indent:]) if own else None
        if match:
            names.append(_plain(match[1]))
    return [name for name in names if name]


def _plain(value: str) -> str:
    """Return a YAML scalar without quotes and comment."""
    text = re.sub(r"\s+#.*$", "", value).strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
