# SPDX-License-Identifier: Apache-2.0
"""Sends requests and notes when each byte came. One event loop, one thread, connections kept and used again.

The time is taken in ``data_received``, where the event loop hands over what the kernel has, not in a task that wakes up
later. Names are resolved once: a lookup per request would measure the name service.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from .errors import MissingError
from .serving_answer import Answer
from .serving_http import Address, request_bytes

clock = time.perf_counter
_CONNECT_S = 10.0
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL)
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS)


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: Answer | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = clock()
        if self.answer is None:
            self.close()  # a server that speaks without being asked
            return
        self.answer.feed(data, now)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.answer is not None:
            self.answer.end(clock(), _words(exc) if exc else "")
            self._wake()

    @property
    def alive(self) -> bool:
        """True while the connection can carry a request."""
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        """Close at once; what is left in the buffers is of no interest."""
        if self.transport is not None:
            self.transport.abort()

    async def ask(self, request: bytes, answer: Answer) -> None:
        """Send one request and wait until ``answer`` is done."""
        self.answer = answer
        self.waiter = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(request)
        try:
            await self.waiter
        finally:
            self.answer = self.waiter = None
            self.used = True

    def _wake(self) -> None:
        if self.answer is not None and self.answer.done and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class _Call:
    """The answer of one request, which a second attempt replaces."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self.answer = Answer(stream)

    def again(self) -> None:
        """Begin with an empty answer."""
        self.answer = Answer(self._stream)


class Client:
    """Requests to one API."""

    def __init__(self, address: Address, api_key: str | None, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._api_key = api_key
        self._tls = tls
        self._hosts: list[str] = []
        self._idle: list[_Connection] = []
        #: connections that were opened
        self.opened = 0

    async def ask(
        self, path: str, body: Mapping[str, Any] | None, stream: bool = True, timeout_s: float | None = None
    ) -> Answer:
        """Send one request and return its answer, which says whatever failed; never raises for the network's sake."""
        limit = timeout_s or self.timeout_s
        request = request_bytes(self.address, "GET" if body is None else "POST", path, body, self._api_key)
        call = _Call(stream)
        try:
            await asyncio.wait_for(self._exchange(request, call), limit)
        except (OSError, asyncio.TimeoutError, ssl.CertificateError) as error:
            if isinstance(error, asyncio.TimeoutError) and getattr(error, "errno", None) is None:
                pieces = len(call.answer.token_s)
                call.answer.fail("timeout", f"no whole answer within {limit:g} s, {pieces} pieces came")
            else:
                call.answer.fail(_kind(error), _words(error))
        answer = call.answer
        if self._api_key and self._api_key in answer.detail:
            answer.detail = answer.detail.replace(self._api_key, "***")
        return answer

    def close(self) -> None:
        """Close every idle connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, request: bytes, call: _Call) -> None:
        connection = self._take_idle() or await self._open()
        while True:
            answer, reused = call.answer, connection.used
            try:
                await connection.ask(request, answer)
            finally:
                if answer.reusable:
                    self._idle.append(connection)
                else:
                    connection.close()
            if not (reused and answer.error == "broken_stream" and not answer.touched):
                return
            # the server had closed an idle connection before the request reached it: no failure of the request
            call.again()
            connection = await self._open()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if not self._hosts:
            found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
            self._hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        last: OSError | None = None
        for host in list(self._hosts):
            try:
                _, connection = await asyncio.wait_for(
                    loop.create_connection(
                        _Connection,
                        host,
                        self.address.port,
                        ssl=self._tls,
                        server_hostname=self.address.host if self._tls else None,
                    ),
                    _CONNECT_S,
                )
            except asyncio.TimeoutError:
                last = TimeoutError(errno.ETIMEDOUT, f"no connection within {_CONNECT_S:g} s")
                continue
            except OSError as error:
                last = error
                continue
            # of a name with several addresses the one that works is used from here on
            self._hosts = [host]
            self.opened += 1
            return connection
        raise last or OSError(errno.EHOSTUNREACH, "the name has no address")


def tls_context(verify: bool, ca_path: str | None) -> ssl.SSLContext:
    """Return how a certificate is checked: by the system's authorities, by ``ca_path`` (file or folder), not at all.

    Raises:
        MissingError: ``ca_path`` cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_path:
        place = "capath" if os.path.isdir(ca_path) else "cafile"
        try:
            context.load_verify_locations(**{place: ca_path})
        except (OSError, ssl.SSLError) as error:
            raise MissingError(
                "read the authority", ca_path, _words(error), "Give a file with certificates in PEM form in ca_path"
            ) from error
    return context


def _kind(error: BaseException) -> str:
    """Return the class of failure of an exception of the socket or TLS layer."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "unresolved"
    if isinstance(error, (ssl.SSLError, ssl.CertificateError)):
        return "tls"
    number = getattr(error, "errno", None)
    if number == errno.ETIMEDOUT:
        return "timeout"
    if number in _NO_FILES:
        return "client"
    if number in _UNREACHABLE:
        return "unreachable"
    return "broken_stream"


def _words(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    # asyncio puts an address in place of the system's words; name service and TLS have numbers of their own
    if isinstance(number, int) and not isinstance(error, (socket.gaierror, ssl.SSLError)):
        return os.strerror(number)
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return " ".join(text.partition(" (_ssl.c")[0].split())
