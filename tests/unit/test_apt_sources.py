# SPDX-License-Identifier: Apache-2.0
"""Adding components to a distribution's own sources, and to nobody else's."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.apt_sources import own_suites, with_components

WANTED = ["contrib", "non-free"]
SUITES = own_suites("bookworm")

ONE_LINE = """\
# Debian
deb http://mirror.test/debian bookworm main
deb [arch=amd64] http://mirror.test/debian bookworm-updates main contrib # kept
deb-src http://mirror.test/debian bookworm main
deb http://vendor.test/apt stable-vendor main
#deb http://mirror.test/debian bookworm-backports main
"""

DEB822 = """\
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# a vendor
Types: deb
URIs: http://vendor.test/apt
Suites: nodistro
Components: main

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
Enabled: no
"""


def test_one_line_entries_get_what_they_lack() -> None:
    edited = with_components(ONE_LINE, False, SUITES, WANTED)
    lines = edited.content.splitlines()
    assert lines[1] == "deb http://mirror.test/debian bookworm main contrib non-free"
    assert lines[2] == "deb [arch=amd64] http://mirror.test/debian bookworm-updates main contrib non-free # kept"
    assert lines[3:] == ONE_LINE.splitlines()[3:]
    assert edited.additions == [
        "deb http://mirror.test/debian bookworm contrib non-free",
        "deb [arch=amd64] http://mirror.test/debian bookworm-updates non-free",
    ]


def test_deb822_paragraphs_get_what_they_lack() -> None:
    edited = with_components(DEB822, True, SUITES, WANTED)
    assert edited.content == DEB822.replace("Components: main", "Components: main contrib non-free", 1)
    option = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert edited.additions == [
        f"deb {option} http://mirror.test/debian bookworm contrib non-free",
        f"deb {option} http://mirror.test/debian bookworm-updates contrib non-free",
    ]


@pytest.mark.parametrize(("content", "deb822"), [(ONE_LINE, False), (DEB822, True)])
def test_a_second_edit_changes_nothing(content: str, deb822: bool) -> None:
    once = with_components(content, deb822, SUITES, WANTED)
    twice = with_components(once.content, deb822, SUITES, WANTED)
    assert twice.content == once.content
    assert twice.additions == []
    assert twice.entries == once.entries


def test_components_over_several_lines_are_understood() -> None:
    text = "Types: deb\nURIs: http://m.test/d\nSuites: bookworm\nComponents: main\n contrib\n"
    edited = with_components(text, True, SUITES, WANTED)
    assert edited.content == text.replace("main\n contrib", "main contrib non-free")
