# SPDX-License-Identifier: Apache-2.0
"""A small file is replaced whole, or stays as it was."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import atomic


def test_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        atomic.replace(path, b"\x00new", mode=0o644, owner=(os.getuid(), os.getgid()), flush_folder=True)
    finally:
        os.umask(before)

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"\x00new", 0o644)


@pytest.mark.parametrize("step", ["fdopen", "fchmod", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError, match="No space left"):
            atomic.replace(path, b"new")

    assert [(child.name, child.read_bytes()) for child in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize(("options", "synced"), [({}, 1), ({"flush": False}, 0), ({"flush_folder": True}, 2)])
def test_what_is_seen_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], synced: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)

    atomic.replace(tmp_path / "file", b"new", **options)

    assert len(calls) == synced


def test_a_name_without_a_folder_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic.replace("file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
