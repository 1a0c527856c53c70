# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what differs, what is written, what is refused."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import files
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.files import apply, difference, wanted


def entry(path: Path, content: str | None = "text\n", state: str = "present", mode: str = "0640") -> dict[str, Any]:
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    return {"path": str(path), "content": content, "mode": mode, "owner": owner, "group": group, "state": state}


def test_write_then_nothing_then_change(tmp_path: Path) -> None:
    want = wanted(entry(tmp_path / "new/folder/file"))
    assert difference(want) is not None
    apply(want)
    assert difference(want) is None
    assert Path(want.path).stat().st_mode & 0o7777 == 0o640
    Path(want.path).write_text("edited\n", encoding="utf-8")
    found = difference(want)
    assert found is not None
    assert (found["before"], found["after"]) == ("edited\n", "text\n")


def test_a_wrong_mode_alone_is_a_difference(tmp_path: Path) -> None:
    want = wanted(entry(tmp_path / "file"))
    apply(want)
    os.chmod(want.path, 0o666)
    found = difference(want)
    assert found is not None
    assert found["before"].startswith("mode 0666")
    apply(want)
    assert difference(want) is None


def test_absent_files_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("x", encoding="utf-8")
    want = wanted(entry(path, None, "absent"))
    assert difference(want) is not None
    apply(want)
    assert not path.exists()
    assert difference(want) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "relative"}, "not absolute"),
        ({"content": None}, "no content"),
        ({"mode": "rw-"}, "not octal"),
        ({"owner": "nobody-of-that-name"}, "nobody-of-that-name"),
    ],
)
def test_wrong_entries_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RackwrightError, match=message):
        wanted({**entry(tmp_path / "file"), **change})


def test_a_full_disk_leaves_the_old_file_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old\n", encoding="utf-8")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RackwrightError, match=r"No space left on device\. Free space on that file system"):
        apply(wanted(entry(path)))
    assert path.read_text(encoding="utf-8") == "old\n"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]
