# SPDX-License-Identifier: Apache-2.0
"""The update record as a file, on a node or on the control node: whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import atomic, rollout_state
from .errors import RackwrightError


def read(path: str = rollout_state.PATH) -> tuple[dict[str, Any] | None, str | None]:
    """Return the record in a file, or None and why none can be believed; no file is no record and no reason."""
    try:
        with open(path, encoding="utf-8") as stream:
            return rollout_state.parse(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except UnicodeDecodeError:
        return None, "the record of its update is damaged (not UTF-8)"
    except PermissionError:
        # probes without privileges look for no receipts either; whoever changes nodes has them
        return None, None
    except OSError as error:
        return None, f"could not read {path}: {error.strerror or error}"


def write(path: str, record: Mapping[str, Any], mode: int = 0o600) -> None:
    """Write a record beside its place and move it there, safe against a power failure.

    Raises:
        RackwrightError: it could not be written; the one before is intact.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        atomic.replace(
            path, rollout_state.text(record).encode("utf-8"), mode=mode, flush_folder=True, prefix=".update-"
        )
    except OSError as error:
        raise RackwrightError(
            "write the record of the update", path, error.strerror or str(error), "Free space there and run again"
        ) from error


def remove(path: str) -> bool:
    """Remove a record; return whether there was one."""
    try:
        os.unlink(path)
        atomic.sync_folder(os.path.dirname(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        step = "Look at the file and its folder, then run again"
        raise RackwrightError("remove the record of the update", path, error.strerror or str(error), step) from error
    return True
