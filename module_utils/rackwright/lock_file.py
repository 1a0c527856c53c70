# SPDX-License-Identifier: Apache-2.0
"""The lock as a file, and the one it replaced: what every node had before its stack last changed. Control node only."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from . import files, lock
from .errors import InvalidInputError, MissingError
from .remembered import files_below, remembered, signature

NAME = "stack.lock.yml"
_SCHEMA = Path("roles/gpu_stack/files/stack.lock.schema.json")


def previous_path(path: str) -> str:
    """Return where the lock before is kept: ``stack.lock.previous.yml`` beside ``stack.lock.yml``."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.previous{suffix}"


def present_path(previous: str) -> str:
    """Return the lock beside which a kept one lies."""
    stem, suffix = os.path.splitext(previous)
    return f"{stem[: -len('.previous')]}{suffix}"


def locate(said: Any, folder: Any) -> str:
    """Return where the lock is: as said, else beside the inventory.

    Raises:
        InvalidInputError: nothing was said, and the inventory has no directory.
    """
    if said:
        return os.path.abspath(os.path.expanduser(str(said)))
    if folder is None:
        step = "Set stack_lock_file, or use an inventory file"
        raise InvalidInputError("find the lock", "this inventory", "it is not a file and has no directory", step)
    return os.path.join(str(folder), NAME)


def read(path: str, root: Path, next_step: str) -> dict[str, Any]:
    """Return a lock that is there and whole.

    Args:
        path: the file.
        root: the checkout, for the schema.
        next_step: what to do where there is none.

    Raises:
        MissingError: there is no such file.
        InvalidInputError: it cannot be read, or is no lock.
    """
    if not os.path.exists(path):
        raise MissingError("read the lock", path, "there is none", next_step)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError("read the lock", path, str(error), "Make it a file that can be read") from error
    schema, code = (root / _SCHEMA).read_text(encoding="utf-8"), signature(files_below([root / "module_utils"]))
    # accepted before, to the byte and by the same code: parsing and checking it again would find the same
    accepted: dict[str, Any] = remembered(
        root / ".cache" / ("lock.previous.json" if ".previous." in os.path.basename(path) else "lock.json"),
        code and lock.digest([text, schema, code]),
        lambda: lock.from_text(text, path, json.loads(schema)),
    )
    return accepted


def write(path: str, document: Mapping[str, Any]) -> None:
    """Write a lock; a reader sees the old one or the new one."""
    files.apply(files.WantedFile(path, lock.to_text(document), 0o644, os.getuid(), os.getgid()))


def keep(old: Mapping[str, Any], new: Mapping[str, Any], previous: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the lock of what every node had before, or None when no stack changes from ``old`` to ``new``.

    A node whose stack stays keeps its earlier entry: a second plan that changes one node must not take the way back
    from the others.
    """
    contents: dict[str, Mapping[str, Any]] = {}
    moved = False
    for node in old["nodes"]:
        before = lock.content_of(old, node) or {}
        if lock.stack_of(new, node) != lock.stack_of(old, node):
            contents[node], moved = before, True
        else:
            contents[node] = lock.content_of(previous, node) or before
    return lock.build(contents, old["digests"]["tables"]) if moved else None


def exchange(
    current: Mapping[str, Any], previous: Mapping[str, Any], names: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both locks after some nodes went back: these nodes' entries change places.

    When all nodes whose stacks differ went back, the two files change places to the byte.
    """
    swapped = set(names) & set(current["nodes"]) & set(previous["nodes"])
    left = [n for n in current["nodes"] if n not in swapped and _differs(current, previous, n)]
    if not left and set(current["nodes"]) == set(previous["nodes"]):
        return dict(previous), dict(current)
    here = {n: lock.content_of(previous if n in swapped else current, n) or {} for n in current["nodes"]}
    there = {n: lock.content_of(current if n in swapped else previous, n) or {} for n in previous["nodes"]}
    return lock.build(here, current["digests"]["tables"]), lock.build(there, previous["digests"]["tables"])


def _differs(one: Mapping[str, Any], other: Mapping[str, Any], node: str) -> bool:
    return lock.stack_of(one, node) != lock.stack_of(other, node)
