# SPDX-License-Identifier: Apache-2.0
"""What was worked out of files, kept in a file of its own until one of them changes. Control node only.

A run reads tables, roles and modules that changed last week; working out anew what follows from them costs more than
asking forty nodes. A file counts as unchanged while name, size, and both times of its inode are the same. No tool sets
the second time (ctime) at will, so ``touch -d`` or ``rsync -t`` fool nobody. Files that changed a moment ago are worked
out anew every time: two changes within one tick of the clock could not be told apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import atomic

#: younger changes are not trusted, seconds; clocks of file systems tick far more often
_SETTLED = 2.0


def files_below(folders: Iterable[Path]) -> Iterator[str]:
    """Name every file below the folders; what Python compiled is left out."""
    for folder in folders:
        for parent, inside, names in os.walk(folder):
            inside[:] = [name for name in inside if name != "__pycache__"]
            for name in names:
                yield os.path.join(parent, name)


def signature(paths: Iterable[str]) -> str | None:
    """Return what tells one state of these files from another without reading them.

    None when one of them changed within the last seconds, or cannot be looked at: then nothing can be remembered.
    """
    newest = (time.time() - _SETTLED) * 1e9
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            status = os.stat(path)
        except OSError:
            return None
        if max(status.st_ctime_ns, status.st_mtime_ns) > newest:
            return None
        total.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return total.hexdigest()


def remembered(place: Path, key: str | None, make: Callable[[], Any]) -> Any:
    """Return what ``make`` returns: plain JSON data, read from ``place`` where it was kept under the same key.

    Args:
        place: file of the cache; it holds what was made last. One that cannot be read or written only costs time.
        key: what the result depends on (:func:`signature`, or a digest of contents); None keeps nothing.
        make: works the result out. What JSON cannot give back unchanged is returned and not kept.
    """
    if key is None:
        return make()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known["value"]
    value = make()
    with contextlib.suppress(OSError, ValueError, TypeError):
        text = json.dumps({"key": key, "value": value})
        if json.loads(text)["value"] == value:
            _keep(place, text)
    return value


def _keep(place: Path, text: str) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.replace(place, text.encode("utf-8"), flush=False)
