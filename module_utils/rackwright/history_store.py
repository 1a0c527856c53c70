# SPDX-License-Identifier: Apache-2.0
"""The file ``history.json`` beside the reports, on the control node: read, replaced whole, never lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import atomic, history
from .errors import RackwrightError

NAME = "history.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EACCES)


class HistoryError(RackwrightError):
    """The history could not be written."""

    kind = "history"


@dataclass(frozen=True)
class Kept:
    """What was found.

    Attributes:
        document: the history; an empty one where there is none or it is not understood.
        problem: one sentence where the file is there and is not understood, else None.
        leave: whether the file is to be left as it is: a newer version wrote it, or it cannot be read at all.
    """

    document: dict[str, Any]
    problem: str | None = None
    leave: bool = False


def path_of(directory: str) -> str:
    """Return where the history of a directory of reports is."""
    return os.path.join(directory, NAME)


def read(directory: str) -> Kept:
    """Return the history of a directory of reports. A damaged file is told, not believed, and does not end the run."""
    path = path_of(directory)
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except FileNotFoundError:
        return Kept(history.empty())
    except OSError as error:
        return Kept(history.empty(), _sentence(path, error.strerror or str(error)), leave=True)
    except (ValueError, RecursionError) as error:
        return Kept(history.empty(), _sentence(path, f"it is damaged: {error}"))
    wrong = history.problem(document)
    if wrong is None:
        return Kept(document)
    newer = isinstance(document, Mapping) and document.get("kind") == history.KIND and _above(document.get("schema"))
    return Kept(history.empty(), _sentence(path, wrong), newer)


def _above(schema: Any) -> bool:
    return isinstance(schema, int) and schema > history.SCHEMA


def _sentence(path: str, cause: str) -> str:
    return str(
        RackwrightError(
            "read the history",
            path,
            " ".join(cause.split())[:300],
            "Put an intact copy in its place; until then nothing is compared with earlier runs",
        )
    )


def write(directory: str, document: Mapping[str, Any], kept: Kept, run_id: str) -> str | None:
    """Replace the history; return where a file that was not understood was moved to, None when there was none.

    A file that is to be left is left: nothing is written then.

    Raises:
        HistoryError: it could not be written; the file is as it was.
    """
    path = path_of(directory)
    if kept.leave:
        return None
    try:
        aside = _aside(path, run_id) if kept.problem else None
        atomic.replace(path, _text(document).encode("utf-8"), mode=0o644, prefix=".history-")
    except OSError as error:
        raise HistoryError(
            "write the history",
            path,
            error.strerror or str(error),
            "Free space or choose another directory with rackwright_reports; the history is as it was",
            found=error.errno,
        ) from error
    return aside


def _aside(path: str, run_id: str) -> str | None:
    """Move a damaged file out of the way, where it stays until somebody looks at it."""
    target, number = f"{path}.damaged-{run_id}", 1
    while os.path.lexists(target):
        number += 1
        target = f"{path}.damaged-{run_id}.{number}"
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    return target


def _text(document: Mapping[str, Any]) -> str:
    """One line per card: small, and a difference between two versions shows which card it is of."""
    parts = []
    for name in ("cards", "machines"):
        lines = [
            f"{json.dumps(key)}:{json.dumps(entry, separators=(',', ':'), allow_nan=False)}"
            for key, entry in document[name].items()
        ]
        parts.append(f'"{name}":{{\n' + ",\n".join(lines) + "\n}")
    head = f'"schema":{document["schema"]},"kind":{json.dumps(document["kind"])}'
    return "{" + ",\n".join([head, *parts]) + "}\n"


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep other runs on this control node from writing the same records at once; file systems without locks go on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)
