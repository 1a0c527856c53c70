# SPDX-License-Identifier: Apache-2.0
"""The nodes' mirror is the host's mirror, whatever way the host writes it down."""

from __future__ import annotations

from pathlib import Path

import pytest
from nodes import apt
from nodes.errors import NodesError

ARCHIVE = """\
Types: deb
# a comment that names another address: http://other.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
SECURITY = """\
Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
DEB822 = f"{ARCHIVE}\n{SECURITY}"
ONE_LINE = """\
# deb http://off.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # trailing words
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://sec.example/debian-security bookworm-security main
"""
VENDOR = """\
deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/linux bookworm main
deb https://vendor.example/tools nodistro main
"""
UBUNTU = "deb http://ubuntu.example/ubuntu noble main universe\n"


def test_deb822_names_archive_and_security() -> None:
    assert apt.find_mirror(apt.parse_deb822(DEB822), {}) == apt.Mirror(
        "http://mirror.example/debian", "http://mirror.example/debian-security"
    )


def test_one_line_sources_skip_comments_and_source_packages() -> None:
    sources = apt.parse_list(ONE_LINE)
    assert [source.uris for source in sources] == [
        ("http://mirror.example/debian",),
        ("http://sec.example/debian-security",),
    ]
    assert sources[0].components == ("main", "contrib")
    assert sources[1].signed_by == "/k/debian-archive-keyring.gpg"


@pytest.mark.parametrize("first", [True, False])
def test_a_vendor_that_uses_debian_suite_names_is_not_taken_for_debian(first: bool) -> None:
    sources = [*apt.parse_list(VENDOR), *apt.parse_deb822(DEB822)]
    assert apt.find_mirror(sources if first else sources[::-1], {}).archive == "http://mirror.example/debian"


@pytest.mark.parametrize("archive", [f"Enabled: no\n{ARCHIVE}", ARCHIVE.replace("Types: deb", "Types: deb-src")])
def test_stanzas_that_bring_no_packages_do_not_count(archive: str) -> None:
    assert [s.suites for s in apt.parse_deb822(f"{archive}\n{SECURITY}")] == [("bookworm-security",)]


def test_values_may_go_on_in_the_next_line() -> None:
    text = "Types: deb\nURIs: http://a.example/debian\nSuites: trixie\n trixie-updates\nComponents: main\n"
    assert [source.suites for source in apt.parse_deb822(text)] == [("trixie", "trixie-updates")]


def test_a_mirror_list_file_is_followed(tmp_path: Path) -> None:
    listing = tmp_path / "debian.list"
    listing.write_text("http://listed.example/debian/\nhttp://second.example/debian\n", encoding="utf-8")
    sources = apt.parse_list(f"deb mirror+file:{listing} bookworm main\n")
    assert apt.find_mirror(sources, {}).archive == "http://listed.example/debian"


@pytest.mark.parametrize("text", [UBUNTU, VENDOR, ""])
def test_a_host_without_debian_is_told_which_variable_to_set(text: str) -> None:
    with pytest.raises(NodesError, match=r"Could not find a Debian mirror .* Set RACKWRIGHT_DEBIAN_MIRROR"):
        apt.find_mirror(apt.parse_list(text), {})


def test_the_variable_wins_and_security_lies_beside_it() -> None:
    environ = {apt.MIRROR_VARIABLE: "http://named.example/pub/debian/"}
    assert apt.find_mirror(apt.parse_deb822(DEB822), environ) == apt.Mirror(
        "http://named.example/pub/debian", "http://named.example/pub/debian-security"
    )


def test_a_security_mirror_can_be_named_apart() -> None:
    environ = {apt.MIRROR_VARIABLE: "http://named.example/debian", apt.SECURITY_VARIABLE: "http://sec.example/d-s"}
    assert apt.find_mirror([], environ).security == "http://sec.example/d-s"


def test_a_named_mirror_must_be_an_address() -> None:
    with pytest.raises(NodesError, match="RACKWRIGHT_DEBIAN_MIRROR"):
        apt.find_mirror([], {apt.MIRROR_VARIABLE: "mirror.example/debian"})


def test_sources_of_a_node_read_back_as_the_same_mirror() -> None:
    mirror = apt.Mirror("http://m.example/debian", "http://s.example/debian-security")
    sources = apt.parse_deb822(mirror.deb822("trixie"))
    assert apt.find_mirror(sources, {}) == mirror
    assert all(source.components == apt.COMPONENTS for source in sources)
    assert len(apt.parse_list("\n".join(mirror.lines("trixie", ("main",))))) == 3


def test_files_that_apt_ignores_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(DEB822, encoding="utf-8")
    (folder / "old.list.save").write_text(ONE_LINE, encoding="utf-8")
    assert len(apt.read_sources(tmp_path)) == 2


DUMP = """\
Acquire "";
Acquire::Check-Valid-Until "false";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "http://localhost:3142";
Acquire::https::mirror.example::Verify-Peer "false";
Acquire::Languages:: "none";
Acquire::cdrom::mount "/media/cdrom/";
Acquire::Changelogs::URI::Origin::Debian "https://changelogs.example/@CHANGEPATH@";
"""


def test_only_settings_about_reaching_the_mirror_are_passed_on() -> None:
    # The https proxy is on the host's own loopback, where no node can reach it.
    assert apt.passed_on(DUMP, {}) == {
        "Acquire::Check-Valid-Until": "false",
        "Acquire::http::Proxy": "http://proxy.example:3128",
        "Acquire::https::mirror.example::Verify-Peer": "false",
        "Acquire::Languages::": "none",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
        "Acquire::Retries": "3",
    }


def test_a_proxy_of_the_environment_counts_unless_apt_names_one() -> None:
    settings = apt.passed_on(DUMP, {"http_proxy": "http://env.example:8080"})
    assert settings["Acquire::http::Proxy"] == "http://proxy.example:3128"
    settings = apt.passed_on("", {"http_proxy": "http://env.example:8080"})
    assert settings["Acquire::http::Proxy"] == "http://env.example:8080"


def test_settings_are_written_as_apt_reads_them() -> None:
    assert apt.conf_text({"Acquire::Retries": "3"}) == 'Acquire::Retries "3";\n'
