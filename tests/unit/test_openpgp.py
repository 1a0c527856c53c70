# SPDX-License-Identifier: Apache-2.0
"""Reading public keys: the fingerprints gpg shows, and files that are no public key."""

from __future__ import annotations

import hashlib

import pytest
from unit.openpgp_samples import FINGERPRINT_ONE, FINGERPRINT_TWO, ONE, TWO

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.openpgp import certificates, dearmor, fingerprint, normal_fingerprint, packets

BINARY = dearmor(ONE, "sample")


def old_format(tag: int, body: bytes, size: int) -> bytes:
    """A packet with a header of the old format and a length of 1, 2 or 4 octets."""
    head = 0x80 | tag << 2 | {1: 0, 2: 1, 4: 2}[size]
    return bytes([head]) + len(body).to_bytes(size, "big") + body


def new_format(tag: int, body: bytes) -> bytes:
    """A packet with a header of the new format and the shortest length."""
    length = len(body)
    if length < 192:
        octets = bytes([length])
    elif length < 8384:
        octets = bytes([((length - 192) >> 8) + 192, (length - 192) & 0xFF])
    else:
        octets = b"\xff" + length.to_bytes(4, "big")
    return bytes([0xC0 | tag]) + octets + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ONE, [FINGERPRINT_ONE]),
        (BINARY, [FINGERPRINT_ONE]),
        (b"some words before\n" + ONE, [FINGERPRINT_ONE]),
        (ONE.replace(b"\n", b"\r\n"), [FINGERPRINT_ONE]),
        (ONE.replace(b"-----\n\n", b"-----\nVersion: GnuPG v2\nComment: NVIDIA\n\n"), [FINGERPRINT_ONE]),
        (ONE + TWO, [FINGERPRINT_ONE, FINGERPRINT_TWO]),
        (dearmor(TWO, "") + BINARY, [FINGERPRINT_TWO, FINGERPRINT_ONE]),
    ],
)
def test_fingerprints_are_those_gpg_shows(data: bytes, expected: list[str]) -> None:
    found = certificates(data, "sample")
    assert [one.fingerprint for one in found] == expected
    assert [one.key_id for one in found] == [one[-16:] for one in expected]


def test_a_certificate_is_cut_out_whole() -> None:
    both = certificates(ONE + TWO, "sample")
    assert [one.raw for one in both] == [BINARY, dearmor(TWO, "")]


@pytest.mark.parametrize("size", [1, 191, 192, 8383, 8384, 70000])
def test_every_form_of_length_is_read(size: int) -> None:
    body = bytes(size)
    forms = [new_format(13, body), old_format(13, body, 4)]
    forms += [old_format(13, body, 2)] if size < 1 << 16 else []
    forms += [old_format(13, body, 1)] if size < 256 else []
    for data in forms:
        assert [(packet.tag, packet.body, packet.raw) for packet in packets(data, "")] == [(13, body, data)]


def test_version_6_has_a_longer_fingerprint() -> None:
    body = b"\x06" + bytes(20)
    whole, key_id = fingerprint(body, "")
    assert whole == hashlib.sha256(b"\x9b\x00\x00\x00\x15" + body).hexdigest().upper()
    assert key_id == whole[:16]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "it holds no OpenPGP public key"),
        (b"<html>404 Not Found</html>", "it holds no OpenPGP public key"),
        (ONE.replace(b"=3MRD", b"=3MRE"), "its checksum does not fit"),
        (ONE.replace(b"mDMEawXQ", b"mDMEawXR"), "its checksum does not fit"),
        (ONE.replace(b"mDMEawXQ", b"mDME*wXQ"), "its armour is damaged"),
        (BINARY[:100], "it ends in the middle of a packet"),
        (BINARY + b"\x99", "it ends in the middle of a packet"),
        (new_format(13, b"only a user id"), "it holds no OpenPGP public key"),
        (new_format(5, bytes(20)), "it holds a secret key"),
        (new_format(6, b"\x03" + bytes(20)), "its key is of version 3"),
        (bytes([0xC6, 0xE1, 0x00]), "it ends in the middle of a packet"),  # a partial length
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"^Could not read the signing key on KEY: {cause}.*\. Give the public"
    ):
        certificates(data, "KEY")


@pytest.mark.parametrize(
    "text",
    [
        FINGERPRINT_ONE,
        FINGERPRINT_ONE.lower(),
        "0x" + FINGERPRINT_ONE,
        " ".join(FINGERPRINT_ONE[i : i + 4] for i in range(0, 40, 4)),
    ],
)
def test_fingerprints_are_read_as_people_write_them(text: str) -> None:
    assert normal_fingerprint(text, "n") == FINGERPRINT_ONE


@pytest.mark.parametrize("text", ["D931C6BBD5EB7FFC", "3BF863CC", "nonsense", FINGERPRINT_ONE + "A"])
def test_a_part_of_a_fingerprint_is_not_enough(text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{text}' is not a whole fingerprint. Give all 40 hex digits"):
        normal_fingerprint(text, "n")
