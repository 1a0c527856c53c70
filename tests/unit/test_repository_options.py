# SPDX-License-Identifier: Apache-2.0
"""The vendor's repository as the lock names it, with what a site puts in its place."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.repository_options import repository_options

VENDOR = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/"
FINGERPRINT = "EB693B3035CD5710E231E123A4B469963BF863CC"
DEB = {"format": "deb", "url": VENDOR, "key_url": f"{VENDOR}3bf863cc.pub", "key_fingerprint": FINGERPRINT}
RPM = {
    "format": "rpm",
    "url": VENDOR,
    "key_url": f"{VENDOR}D42D0685.pub",
    "key_fingerprint": None,
    "key_id": "9CD0A493D42D0685",
}


def test_an_archive_is_no_repository_to_add() -> None:
    options = repository_options({"format": "deb", "codename": "bookworm"})

    assert (options["url"], options["key_url"], options["fingerprint"]) == ("", "", "")


@pytest.mark.parametrize(
    ("entry", "site", "wanted"),
    [
        (DEB, {}, {"url": VENDOR, "key_url": f"{VENDOR}3bf863cc.pub", "fingerprint": FINGERPRINT, "key_id": ""}),
        (RPM, {}, {"fingerprint": "", "key_id": "9CD0A493D42D0685"}),
        (
            DEB,
            {"url": "file:///srv/vendor/{distro}/{arch}"},
            {
                "url": "file:///srv/vendor/debian12/x86_64",
                "key_url": "file:///srv/vendor/debian12/x86_64/3bf863cc.pub",
                "fingerprint": FINGERPRINT,
            },
        ),
        (
            DEB,
            {"url": "http://mirror/cuda/"},
            {"url": "http://mirror/cuda/", "key_url": "http://mirror/cuda/3bf863cc.pub"},
        ),
        (DEB, {"has_key": True}, {"key_url": "", "fingerprint": "", "key_id": ""}),
        (RPM, {"has_key": True, "fingerprint": "AB"}, {"key_url": "", "fingerprint": "AB", "key_id": ""}),
        (RPM, {"fingerprint": "AB"}, {"key_url": f"{VENDOR}D42D0685.pub", "fingerprint": "AB", "key_id": ""}),
    ],
)
def test_options(entry: dict[str, Any], site: dict[str, Any], wanted: dict[str, str]) -> None:
    options = repository_options(entry, **site)

    assert {key: options[key] for key in wanted} == wanted
    assert (options["name"], options["format"]) == ("nvidia-cuda", entry["format"])
