# SPDX-License-Identifier: Apache-2.0
"""What a drain without a scheduler remembers, one file for each drain: written before anything is stopped."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from . import atomic
from .errors import ProbeError

DIRECTORY = "/var/lib/rackwright/drains"


class Journal:
    """The file of one drain. While it exists, the drain is open."""

    def __init__(self, directory: str, drain_id: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, f"{drain_id}.json")

    def read(self) -> dict[str, Any] | None:
        """Return what was written, None when this drain is not open."""
        return _load(self.path)

    def others(self) -> list[str]:
        """Ids of other drains that are open on this node."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        own = os.path.basename(self.path)
        return sorted(name[: -len(".json")] for name in names if name.endswith(".json") and name != own)

    def write(self, content: dict[str, Any]) -> None:
        """Replace the file in one step and see it on disk: the next line may stop services, or the power may fail."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
            atomic.replace(self.path, text.encode("utf-8"), flush_folder=True, prefix=".drain-")
        except OSError as error:
            raise ProbeError(
                "remember the drain",
                self.path,
                f"{os.strerror(error.errno or 0)}",
                "Nothing was changed; run as root (become: true) and check the file system, or set state_dir",
            ) from error

    def remove(self) -> None:
        """End the drain."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        step = "Read it as root; if it is damaged, put the node into service by hand and delete it"
        raise ProbeError("read the journal of the drain", path, f"{error}", step) from error
    if not isinstance(content, dict):
        step = "Put the node into service by hand and delete the file"
        raise ProbeError("read the journal of the drain", path, "it is no record", step)
    return content
