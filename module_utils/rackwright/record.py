# SPDX-License-Identifier: Apache-2.0
"""Records in which every value is either known or has a reason why it is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

#: a value, or None and the reason for it: what ``Record.put`` takes after the path
Answer = tuple[Any, Optional[str]]


class Record:
    """A nested dictionary filled by dotted paths, with the reason for every value that is None."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.data: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        for path in paths:
            self._assign(path, None)

    def put(self, path: str, value: Any, reason: str | None = None) -> None:
        """Set a value; None needs the reason, and a later value removes an earlier reason."""
        self._assign(path, value)
        if value is None:
            for below in [key for key in self.missing if key.startswith(path + ".")]:
                del self.missing[below]
            self.missing[path] = reason or "no source gave this value"
        else:
            self.missing.pop(path, None)

    def miss(self, path: str, reason: str) -> None:
        self.put(path, None, reason)

    def get(self, path: str) -> Any:
        return dig(self.data, path)

    def fill(self, path: str, value: Any) -> None:
        """Set a value only where none is known and this one is: a second source never overrides the first."""
        if self.get(path) is None and value is not None:
            self.put(path, value)

    def close(self, reason: str) -> None:
        """Give every value that is still None and has no reason this one."""
        for path in null_paths(self.data):
            self.missing.setdefault(path, reason)

    def result(self) -> dict[str, Any]:
        return {**self.data, "missing": dict(sorted(self.missing.items()))}

    def _assign(self, path: str, value: Any) -> None:
        node = self.data
        *parents, leaf = path.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value


def dig(record: Any, path: str) -> Any:
    """Return the value at a dotted path, or None where any part of the path is absent."""
    for key in path.split("."):
        # dict is asked first: the check for any mapping takes ten times as long, and this is called a million times
        if not isinstance(record, (dict, Mapping)):
            return None
        record = record.get(key)
    return record


def null_paths(data: Any, prefix: str = "") -> list[str]:
    """Dotted paths of every None in nested dictionaries and lists; list elements count by their position."""
    if data is None:
        return [prefix]
    items: Iterable[tuple[Any, Any]]
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    else:
        return []
    return [path for key, value in items for path in null_paths(value, f"{prefix}.{key}" if prefix else str(key))]
