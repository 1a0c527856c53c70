# SPDX-License-Identifier: Apache-2.0
"""Reading small files from URLs: no network is needed for what can go wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ansible.module_utils.rackwright import fetch as module
from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError
from ansible.module_utils.rackwright.fetch import checked, fetch, shown


def ask(url: str) -> bytes:
    return fetch(url, node="gpu-a", what="the signing key", variable="stack_repository_key")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x99\x00binary")
    assert ask(f"file://{tmp_path}/key") == b"\x99\x00binary"


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    sentence = (
        r"^Could not fetch the signing key on gpu-a: file:///.*/none cannot be reached: .*No such file.*\. Make it"
    )
    with pytest.raises(MissingError, match=sentence):
        ask(f"file://{tmp_path}/none")


def test_a_host_that_refuses_is_a_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(MissingError, match=rf"http://127.0.0.1:{port}/key cannot be reached: .*or set stack_rep"):
            ask(f"http://127.0.0.1:{port}/key")


def test_a_file_that_is_no_key_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1 << 20)
    (tmp_path / "big").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(MissingError, match="is larger than 1 MiB"):
        ask(f"file://{tmp_path}/big")


@pytest.mark.parametrize(
    "url", ["", "mirror.lan/cuda", "htps://mirror.lan/", "file://relative", "ftp://m/", "http://a b/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is no URL\. Write it as http://HOST/PATH/"):
        checked(url, "the repository", "gpu-a")


@pytest.mark.parametrize("url", ["http://m.lan/x/", "https://m.lan", "https://u:p@m.lan:8443/x", "file:///srv/x/"])
def test_what_is_one_is_taken(url: str) -> None:
    assert checked(url, "the repository", "gpu-a") == url


def test_a_password_is_never_shown() -> None:
    assert shown("deb https://user:secret@mirror.lan/x") == "deb https://mirror.lan/x"
