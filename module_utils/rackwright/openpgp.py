# SPDX-License-Identifier: Apache-2.0
"""Read OpenPGP public keys: armour, packets, fingerprints. Pure Python, so that no node needs gpg. Pure.

Nothing is verified here but which key it is. Formats and fingerprints: RFC 4880 (4.2, 6.2, 12.2) and RFC 9580 (5.5.4).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidInputError

ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(?P<body>.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
PUBLIC_KEY, SECRET_KEY = 6, 5
HEX = re.compile(r"^(?:[0-9A-F]{40}|[0-9A-F]{64})$")


@dataclass(frozen=True)
class Packet:
    """One packet: its kind, its content, and its bytes with the header."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class Certificate:
    """A primary key with everything that belongs to it (identities, signatures, subkeys)."""

    fingerprint: str
    key_id: str
    raw: bytes


def normal_fingerprint(text: str, subject: str) -> str:
    """Return a fingerprint as upper-case hex digits without spaces.

    Raises:
        InvalidInputError: it is not a whole fingerprint; a key id of 8 or 16 digits can be forged.
    """
    plain = re.sub(r"[\s:]", "", text).upper()
    plain = plain[2:] if plain.startswith("0X") else plain
    if not HEX.match(plain):
        raise InvalidInputError(
            "check the signing key",
            subject,
            f"'{text}' is not a whole fingerprint",
            "Give all 40 hex digits (gpg --show-keys --with-fingerprint FILE shows them)",
            expected="40 hex digits",
            found=text,
        )
    return plain


def dearmor(data: bytes, subject: str) -> bytes:
    """Return the packets of a key file, armoured or not.

    Raises:
        InvalidInputError: the armour is damaged, or there is no key in it at all (an error page, for example).
    """
    blocks = [match["body"] for match in ARMOUR.finditer(data)]
    if not blocks:
        if data[:1] and data[0] & 0x80:
            return data
        raise _unreadable(subject, "it holds no OpenPGP public key")
    return b"".join(_decode(block, subject) for block in blocks)


def _decode(block: bytes, subject: str) -> bytes:
    """Return the bytes of one armoured block, whose checksum has to fit where there is one."""
    text = block.replace(b"\r\n", b"\n")
    _headers, separator, body = text.partition(b"\n\n")
    lines = (body if separator else text).split()
    checksum = lines.pop()[1:] if lines and lines[-1].startswith(b"=") and len(lines[-1]) == 5 else None
    try:
        data = base64.b64decode(b"".join(lines), validate=True)
        wanted = base64.b64decode(checksum, validate=True) if checksum is not None else None
    except binascii.Error as error:
        raise _unreadable(subject, "its armour is damaged") from error
    if wanted is not None and _crc24(data).to_bytes(3, "big") != wanted:
        raise _unreadable(subject, "its checksum does not fit")
    return data


def armour(data: bytes) -> bytes:
    """Return binary OpenPGP data as an armoured public key: rpm imports no other form."""
    text = base64.b64encode(data)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    checksum = b"=" + base64.b64encode(_crc24(data).to_bytes(3, "big"))
    head, tail = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"-----END PGP PUBLIC KEY BLOCK-----\n"
    return b"\n".join([head, *lines, checksum, tail])


def _crc24(data: bytes) -> int:
    """Return the checksum of an armoured block (RFC 4880, 6.1)."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF


def packets(data: bytes, subject: str) -> Iterator[Packet]:
    """Split binary OpenPGP data into packets."""
    position = 0
    while position < len(data):
        head = data[position]
        if not head & 0x80:
            raise _unreadable(subject, "it is no OpenPGP data")
        try:
            tag, start, length = _new_header(data, position) if head & 0x40 else _old_header(data, position)
        except IndexError as error:
            raise _unreadable(subject, "it ends in the middle of a packet") from error
        end = start + length
        if end > len(data):
            raise _unreadable(subject, "it ends in the middle of a packet")
        yield Packet(tag, data[start:end], data[position:end])
        position = end


def _new_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return kind, start of the content and its length of a packet in the new format."""
    tag, first = data[position] & 0x3F, data[position + 1]
    if first < 192:
        return tag, position + 2, first
    if first < 224:
        return tag, position + 3, ((first - 192) << 8) + data[position + 2] + 192
    if first == 255:
        return tag, position + 6, int.from_bytes(data[position + 2 : position + 6], "big")
    raise IndexError("partial lengths are for data, not for keys")


def _old_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return kind, start of the content and its length of a packet in the old format."""
    head = data[position]
    tag, size = (head >> 2) & 0x0F, (1, 2, 4, 0)[head & 0x03]
    if size == 0:
        return tag, position + 1, len(data) - position - 1
    start = position + 1 + size
    return tag, start, int.from_bytes(data[position + 1 : start], "big")


def fingerprint(body: bytes, subject: str) -> tuple[str, str]:
    """Return fingerprint and key id of the content of a public key packet."""
    version = body[0] if body else 0
    if version == 4:
        whole = b"\x99" + len(body).to_bytes(2, "big") + body
        digest = hashlib.new("sha1", whole, usedforsecurity=False).hexdigest().upper()
        return digest, digest[-16:]
    if version == 6:
        digest = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
        return digest, digest[:16]
    raise _unreadable(subject, f"its key is of version {version}, and only versions 4 and 6 have a usable fingerprint")


def certificates(data: bytes, subject: str) -> list[Certificate]:
    """Return the public keys of a key file, armoured or not, in their order.

    Args:
        subject: what the file is, for messages: a path or a URL.
    """
    found: list[tuple[Packet, list[bytes]]] = []
    for packet in packets(dearmor(data, subject), subject):
        if packet.tag == SECRET_KEY:
            raise _unreadable(subject, "it holds a secret key")
        if packet.tag == PUBLIC_KEY:
            found.append((packet, [packet.raw]))
        elif found:
            found[-1][1].append(packet.raw)
    if not found:
        raise _unreadable(subject, "it holds no OpenPGP public key")
    return [Certificate(*fingerprint(packet.body, subject), b"".join(parts)) for packet, parts in found]


def _unreadable(subject: str, cause: str) -> InvalidInputError:
    return InvalidInputError(
        "read the signing key", subject, cause, "Give the public key as gpg --export writes it, armoured or not"
    )
