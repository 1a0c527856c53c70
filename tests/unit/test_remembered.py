# SPDX-License-Identifier: Apache-2.0
"""What is remembered of files: only as long as nothing changed, and never instead of the truth."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import remembered as module
from ansible.module_utils.rackwright.remembered import files_below, remembered, signature


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that the test has just written count as old."""
    monkeypatch.setattr(module, "_SETTLED", -1000.0)


class Maker:
    def __init__(self, value: Any) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.value


def test_the_same_key_is_answered_from_the_file_and_another_is_not(tmp_path: Path) -> None:
    place = tmp_path / "new" / "place.json"
    make = Maker({"a": [1, None, "x"]})
    assert [remembered(place, "k", make) for _ in range(2)] == [make.value] * 2
    assert make.calls == 1
    assert remembered(place, "other", Maker("y")) == "y"
    assert remembered(place, "k", make) == make.value
    assert make.calls == 2


def test_without_a_key_nothing_is_kept(tmp_path: Path) -> None:
    make = Maker(1)
    assert [remembered(tmp_path / "place", None, make) for _ in range(2)] == [1, 1]
    assert make.calls == 2
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"key": "k"}', '{"value": 1}', '{"key": "other", "value": 2}']
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: str) -> None:
    place = tmp_path / "place"
    place.write_text(content)
    make = Maker("right")
    assert [remembered(place, "k", make) for _ in range(2)] == ["right", "right"]
    assert make.calls == 1


@pytest.mark.parametrize("value", [{1: "a"}, ("a",), {"a": datetime.date(2026, 1, 1)}, {"s"}])
def test_what_json_would_change_is_never_kept(tmp_path: Path, value: Any) -> None:
    make = Maker(value)
    assert [remembered(tmp_path / "place", "k", make) for _ in range(2)] == [value, value]
    assert make.calls == 2


def test_a_place_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    make = Maker(1)
    assert [remembered(tmp_path / "file" / "place", "k", make) for _ in range(2)] == [1, 1]
    assert make.calls == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_is_nothing_to_remember(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        remembered(tmp_path / "place", "k", fail)
    assert not (tmp_path / "place").exists()


@pytest.mark.usefixtures("settled")
def test_every_change_of_a_file_changes_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    seen = [signature([str(path)])]

    def changed() -> bool:
        seen.append(signature([str(path)]))
        return seen[-1] is not None and seen[-1] not in seen[:-1]

    time.sleep(0.02)  # longer than a tick of the file system's clock
    before = path.stat()
    path.write_text("two")  # the same length, and the time of the old content given back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed()
    path.write_text("longer")
    assert changed()
    (tmp_path / "b").write_text("")
    assert signature([str(path), str(tmp_path / "b")]) not in seen


def test_a_fresh_or_missing_file_has_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    assert signature([str(path)]) is None
    assert signature([str(tmp_path / "none")]) is None
    monkeypatch.setattr(module, "_SETTLED", -1000.0)
    assert signature([str(path)]) is not None


def test_files_below_folders_without_what_python_compiled(tmp_path: Path) -> None:
    for name in ("a/one.py", "a/deep/two.yml", "a/__pycache__/one.pyc", "b/three"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [os.path.relpath(path, tmp_path) for path in files_below([tmp_path / "a", tmp_path / "none"])]
    assert sorted(found) == ["a/deep/two.yml", "a/one.py"]
