# SPDX-License-Identifier: Apache-2.0
"""apt's lists in a temporary folder: what sources offer that the node does not have yet. The node stays as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .packages import Candidate
from .packages_apt import Apt, Run


class PrivateLists:
    """A folder with lists and sources of its own; gone when the ``with`` block ends."""

    def __init__(self, run: Run, node: str, lock_timeout: int) -> None:
        self._run, self._node, self._lock_timeout = run, node, lock_timeout
        self._folder = Path()

    def __enter__(self) -> PrivateLists:
        self._folder = Path(tempfile.mkdtemp(prefix="rackwright-lists-"))
        self._folder.chmod(0o755)
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True)
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self._folder)

    def candidates(self, entries: Iterable[str], names: Iterable[str]) -> list[Candidate]:
        """Ask the mirrors of one-line source entries which versions of the named packages they offer."""
        (self._folder / "sources.list").write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
        places = {
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "Acquire::Languages": "none",
        }
        options = [part for key, value in places.items() for part in ("-o", f"{key}={value}")]
        apt = Apt(self._run, self._node, self._lock_timeout, options=options)
        apt.get("read the versions of the driver", "update")
        return apt.candidates(names)
