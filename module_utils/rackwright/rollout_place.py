# SPDX-License-Identifier: Apache-2.0
"""Where the control node keeps updates, and how settings from inventory or command line are read. Control node only."""

from __future__ import annotations

import json
import os
from typing import Any

from .errors import InvalidInputError
from .reports import file_name

_TRUE = ("true", "yes", "on", "1", "y", "t")


def mirror(reports: str, node: str) -> str:
    """Return the control node's copy of a node's record: a file for each node, for many are written at once."""
    return os.path.join(reports, "updates", file_name(node))


def run_path(reports: str, run: str) -> str:
    """Return where the document of a run is."""
    return os.path.join(reports, f"update-{run}.json")


def read_run(reports: str, run: str) -> dict[str, Any]:
    """Return the document of a run.

    Raises:
        InvalidInputError: it is gone, or cannot be read.
    """
    path = run_path(reports, run)
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError) as error:
        step = "Run the playbook again; it goes on with the records of the nodes"
        raise InvalidInputError("read the document of the run", path, str(error), step) from error
    return dict(found)


def truth(value: Any) -> bool:
    """Return a flag; with ``-e x=true`` it comes as a text."""
    return value if isinstance(value, bool) else str(value or "").strip().lower() in _TRUE


def names(value: Any) -> list[str]:
    """Return names out of a list or of a text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(part) for part in value or []]
