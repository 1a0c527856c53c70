# SPDX-License-Identifier: Apache-2.0
"""Which of apt's source files are the distribution's own, and what is written into them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible.module_utils.rackwright import driver_probe_apt
from ansible.module_utils.rackwright.driver_plan import Request
from ansible.module_utils.rackwright.driver_probe_apt import AptSide, own_sources
from ansible.module_utils.rackwright.errors import RackwrightError

WANTED = ["contrib", "non-free"]


def lay_out(root: Path, **files: str) -> None:
    folder = root / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")


def stanza(suite: str, components: str, uri: str = "http://mirror.test/debian") -> str:
    return f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\n"


def test_own_files_are_named_whether_or_not_they_lack_something(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        a_sources=stanza("bookworm", "main"),
        b_sources=stanza("bookworm-updates", "main contrib non-free"),
        vendor_sources=stanza("nodistro", "main", "http://vendor.test/apt"),
    )

    found = own_sources(tmp_path, "bookworm", WANTED)

    assert found.paths == ["/etc/apt/sources.list.d/a.sources", "/etc/apt/sources.list.d/b.sources"]
    assert [file["path"] for file in found.files] == ["/etc/apt/sources.list.d/a.sources"]
    assert "Components: main contrib non-free\n" in found.files[0]["content"]
    assert found.entries == [
        "deb http://mirror.test/debian bookworm contrib non-free",
        "deb http://mirror.test/debian bookworm-updates contrib non-free",
    ]


def test_a_second_look_writes_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, a_sources=stanza("bookworm", "main"))
    first = own_sources(tmp_path, "bookworm", WANTED)
    (tmp_path / "etc/apt/sources.list.d/a.sources").write_text(first.files[0]["content"], encoding="utf-8")

    second = own_sources(tmp_path, "bookworm", WANTED)

    assert (second.paths, second.files) == (first.paths, [])


def test_a_file_nobody_else_can_read_is_written_anew(tmp_path: Path) -> None:
    lay_out(tmp_path, a_sources=stanza("bookworm", "main contrib non-free"))
    path = tmp_path / "etc/apt/sources.list.d/a.sources"
    path.chmod(0o600)

    found = own_sources(tmp_path, "bookworm", WANTED)

    assert [(file["path"], file["mode"]) for file in found.files] == [("/etc/apt/sources.list.d/a.sources", "0644")]
    assert found.files[0]["content"] == path.read_text(encoding="utf-8")


def test_no_room_for_lists_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/rackwright-lists-x/sources.list")

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        return 0, "", ""

    monkeypatch.setattr(driver_probe_apt, "PrivateLists", full)
    lay_out(tmp_path, a_sources=stanza("bookworm", "main"))
    request = Request("distribution", "535.309.01", ["nvidia-smi"], [], [], [], {"components": WANTED}, "auto")
    sentence = (
        r"^Could not read the package lists on gpu-a: No space left on device \(/tmp/rackwright.*\)\. Look at the file"
    )
    with pytest.raises(RackwrightError, match=sentence):
        AptSide(run, "gpu-a", 5, root=tmp_path).resolve(request, {"platform": {"codename": "bookworm"}}, False)
