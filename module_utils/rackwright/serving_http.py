# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 for a client that times what arrives. Pure: text to request bytes, response bytes to a body.

The standard library's client reads on its own terms and blocks; here every byte has to be seen when it arrives. Only
what a response can look like to such a client is understood: RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import InvalidInputError

LARGEST_HEAD = 1 << 16
#: Statuses whose responses have no body whatever their header says.
_BODILESS = (204, 304)


@dataclass(frozen=True)
class Address:
    """Where an API is: ``path`` is the prefix of its endpoints, with ``/v1``."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the port only when it is not the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address as text."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"


def parse_address(url: str) -> Address:
    """Return the address of an OpenAI-compatible API; ``/v1`` is added when the URL has no such end.

    Raises:
        InvalidInputError: it is no http or https URL, or has a password, query or fragment in it.
    """
    cause = None
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        parts, port, cause = urlsplit(""), None, str(error)
    if cause is None and (parts.scheme not in ("http", "https") or not parts.hostname):
        cause = "it is no URL that begins with http:// or https://"
    if cause is None and (parts.username is not None or parts.query or parts.fragment):
        cause = "it carries a user name, a query or a fragment"
    if cause is None and any(character <= " " or character == "\x7f" for character in parts.netloc + parts.path):
        cause = "it has a blank or control character in it"
    if cause is not None or not parts.hostname:
        raise InvalidInputError(
            "use the server",
            url.rpartition("@")[2],
            cause or "it names no host",
            "Write it like http://gpu-01:8000 and give a key in api_key",
            expected="http://HOST[:PORT][/PREFIX]",
        )
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    return Address(tls, parts.hostname, port or (443 if tls else 80), path if path.endswith("/v1") else f"{path}/v1")


def request_bytes(
    address: Address, method: str, path: str, body: Mapping[str, Any] | None, api_key: str | None
) -> bytes:
    """Return a whole request. ``path`` is below the prefix of the API (``/chat/completions``)."""
    content = b"" if body is None else json.dumps(body).encode("utf-8")
    lines = [
        f"{method} {address.path}{path} HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: rackwright",
        "Accept: text/event-stream, application/json",
        "Accept-Encoding: identity",
    ]
    if api_key:
        lines.append(f"Authorization: Bearer {api_key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", errors="replace") + content


class ResponseParser:
    """Takes the bytes of one response in any pieces and gives its body, without the framing.

    Attributes:
        status: number of the response, None until its head was read.
        headers: fields of the head by name in lower case.
        done: the body is complete.
        keep_alive: the connection can carry another request; known once ``done``.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.reason = ""
        self.headers: dict[str, str] = {}
        self.done = False
        self.keep_alive = False
        self._buffer = bytearray()
        self._framing = "head"
        self._left = 0

    def feed(self, piece: bytes) -> bytes:
        """Return the part of the body that ``piece`` holds.

        Raises:
            ValueError: the bytes are no HTTP response.
        """
        if self.done:
            raise ValueError("bytes after the end of the response")
        self._buffer += piece
        body = bytearray()
        while self._step(body):
            pass
        if self.done and self._buffer:
            self.keep_alive = False
        return bytes(body)

    def finish(self) -> bool:
        """Tell whether the response is whole now that the connection has ended."""
        if self._framing == "eof":
            self.done = True
        return self.done

    def _step(self, body: bytearray) -> bool:
        """Work off one element of the buffer; False when more bytes are needed."""
        if self.done:
            return False
        if self._framing == "head":
            return self._head()
        if self._framing in ("chunk-size", "chunk-end", "trailer"):
            return self._chunk_line()
        if not self._buffer:
            return False
        if self._framing == "eof":
            body += self._buffer
            self._buffer.clear()
            return False
        taken = self._buffer[: self._left]
        del self._buffer[: len(taken)]
        body += taken
        self._left -= len(taken)
        if self._left == 0:
            if self._framing == "length":
                self.done = True
            else:
                self._framing = "chunk-end"
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LARGEST_HEAD:
                raise ValueError("the head of the response has no end")
            if not b"HTTP/".startswith(bytes(self._buffer[:5])):
                raise ValueError("the answer is no HTTP")
            return False
        head = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        status = self._status_line(head[0])
        if 100 <= status < 200:
            return True  # an interim response: the real one follows
        self.status = status
        for line in head[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"a header line has no colon: {line[:80]!r}")
            self.headers[name.strip().lower()] = value.strip()
        self._choose_framing(head[0])
        return True

    def _status_line(self, line: str) -> int:
        version, _, rest = line.partition(" ")
        number, _, self.reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(number) != 3 or not number.isdecimal():
            raise ValueError(f"the status line is none: {line[:80]!r}")
        return int(number)

    def _choose_framing(self, status_line: str) -> None:
        connection = self.headers.get("connection", "").lower()
        self.keep_alive = "close" not in connection and (
            not status_line.startswith("HTTP/1.0") or "keep-alive" in connection
        )
        length = self.headers.get("content-length")
        if self.status in _BODILESS:
            self.done = True
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._framing = "chunk-size"
        elif length is not None:
            if not length.isdecimal():
                raise ValueError(f"the length of the body is no number: {length[:40]!r}")
            self._framing, self._left = "length", int(length)
            self.done = self._left == 0
        else:
            self._framing, self.keep_alive = "eof", False

    def _chunk_line(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > LARGEST_HEAD:
                raise ValueError("a chunk of the body has no size")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._framing == "trailer":
            self.done = not line
        elif self._framing == "chunk-end":
            if line:
                raise ValueError("a chunk of the body is longer than it says")
            self._framing = "chunk-size"
        else:
            digits = line.partition(b";")[0].strip()
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                raise ValueError(f"the size of a chunk is none: {line[:40]!r}")
            self._left = int(digits, 16)
            self._framing = "chunk" if self._left else "trailer"
        return True
