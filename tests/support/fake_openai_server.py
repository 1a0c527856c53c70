# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model server that speaks the OpenAI API and knows no model: what it says and when is programmed.

Listens on the loopback only and stops by itself after ``lifetime_s``, whatever becomes of its caller.

    with FakeServer(lambda number, body: Behaviour(tokens=8)) as server:
        ... server.url, server.requests ...

As a program, for playbooks: ``fake_openai_server.py --port 8099 --tokens 8 --first-ms 5 --gap-ms 1 --lifetime 60``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Behaviour:
    """How one request is answered.

    Attributes:
        tokens: pieces of text.
        first_ms: milliseconds before the first one; ``gap_ms`` between two.
        usage: whether the tokens are counted in the end, ``per_piece`` tokens for each piece.
        status: anything but 200 is an error with ``message``, or with ``body`` as it is.
        model: name of the model in every event, None for none.
        hang_after: pieces after which nothing more comes (-1: not even a head).
        drop_after: pieces after which the connection is closed.
        raw: bytes that are sent after the head in place of the events.
        role_first: a chunk that only names the role comes at once, before the first token.
        done: whether ``[DONE]`` ends the stream; ``finish``: whether a finish_reason does.
        close: whether the connection is closed after the answer, without saying so before (``sneaky``).
        stutter: bytes per write, 0 for whole events.
        vanish: the connection is closed without a byte.
    """

    tokens: int = 4
    first_ms: float = 0.0
    gap_ms: float = 0.0
    usage: bool = True
    per_piece: int = 1
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    status: int = 200
    message: str = "out of luck"
    body: bytes | None = None
    model: str | None = None
    hang_after: int | None = None
    drop_after: int | None = None
    raw: bytes | None = None
    content_type: str = "text/event-stream"
    role_first: bool = True
    done: bool = True
    finish: bool = True
    close: bool = False
    sneaky: bool = False
    stutter: int = 0
    error_after: int | None = None
    vanish: bool = False


Plan = Callable[[int, dict[str, Any]], Behaviour]


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class FakeServer:
    """The server in a thread of its own; a context manager."""

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        port: int = 0,
        lifetime_s: float = 60.0,
        models: Any = ("fake-model",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.plan = plan or (lambda number, body: Behaviour())
        self.models = models
        self.requests: list[Seen] = []
        self.connections = 0
        self.most_open = 0
        self.port = port
        self._open = 0
        self._tls = tls
        self._lifetime_s = lifetime_s
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._server: asyncio.AbstractServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Seen]:
        """The requests for text."""
        return [seen for seen in self.requests if seen.path.endswith("completions")]

    def __enter__(self) -> FakeServer:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the fake server does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        with contextlib.suppress(RuntimeError):  # it had stopped by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def stop_listening(self) -> None:
        """Refuse connections from now on; to be called by the plan, in the thread of the server."""
        assert self._server is not None
        self._server.close()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=self._tls, backlog=1024)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._lifetime_s)
        server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        begin = await reader.readexactly(3)
        if not begin.isalpha():  # a TLS handshake, say
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        head = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(head[0].split()[1], headers, json.loads(content) if content else {})
        self.requests.append(seen)
        if seen.path.endswith("/models"):
            return await self._models(writer)
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        try:
            return await self._answer(writer, seen, self.plan(len(self.asked) - 1, seen.body))
        finally:
            self._open -= 1

    async def _models(self, writer: asyncio.StreamWriter) -> bool:
        listed = self.models if isinstance(self.models, bytes) else None
        body = listed or json.dumps({"object": "list", "data": [{"id": name} for name in self.models]}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        return True

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, how: Behaviour) -> bool:
        if how.vanish:
            return False
        if how.hang_after is not None and how.hang_after < 0:
            await asyncio.sleep(3600)
        if how.status != 200:
            body = how.body or json.dumps({"error": {"message": how.message, "code": how.status}}).encode()
            writer.write(b"HTTP/1.1 %d Unhappy\r\nContent-Length: %d\r\n\r\n" % (how.status, len(body)) + body)
            await writer.drain()
            return True
        connection = b"Connection: close\r\n" if how.close and not how.sneaky else b""
        kind = how.content_type.encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nServer: fake\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n"
            % (kind, connection)
        )
        if how.raw is not None:
            await self._chunk(writer, how.raw, how)
        elif not await self._events(writer, seen, how):
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not how.close

    async def _events(self, writer: asyncio.StreamWriter, seen: Seen, how: Behaviour) -> bool:
        chat = seen.path.endswith("/chat/completions")
        if chat and how.role_first:
            await self._event(writer, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}, how)
        await asyncio.sleep(how.first_ms / 1000)
        for number in range(how.tokens):
            if how.hang_after == number:
                await asyncio.sleep(3600)
            if how.drop_after == number:
                await writer.drain()
                return False
            if how.error_after == number:
                await self._event(writer, {"error": {"message": how.message}}, how)
                return True
            if number:
                await asyncio.sleep(how.gap_ms / 1000)
            text = f"word{number} "
            await self._event(
                writer, {"choices": [{"index": 0, **({"delta": {"content": text}} if chat else {"text": text})}]}, how
            )
        if how.finish:
            end: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
            await self._event(writer, {"choices": [{"index": 0, **end, "finish_reason": "length"}]}, how)
        if how.usage and (seen.body.get("stream_options") or {}).get("include_usage"):
            await self._event(writer, {"choices": [], "usage": self._usage(seen, how)}, how)
        if how.done:
            await self._chunk(writer, b"data: [DONE]\n\n", how)
        return True

    @staticmethod
    def _usage(seen: Seen, how: Behaviour) -> dict[str, Any]:
        text = seen.body.get("prompt") or " ".join(str(entry["content"]) for entry in seen.body.get("messages", []))
        usage: dict[str, Any] = {
            "prompt_tokens": how.prompt_tokens or len(text.split()),
            "completion_tokens": how.tokens * how.per_piece,
        }
        if how.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": how.cached_tokens}
        return usage

    async def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any], how: Behaviour) -> None:
        named = event if how.model is None else {**event, "model": how.model}
        await self._chunk(writer, b"data: " + json.dumps(named).encode() + b"\n\n", how)

    @staticmethod
    async def _chunk(writer: asyncio.StreamWriter, data: bytes, how: Behaviour) -> None:
        step = how.stutter or len(data) or 1
        for start in range(0, len(data), step):
            part = data[start : start + step]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            if how.stutter:
                await writer.drain()
                await asyncio.sleep(0)
        await writer.drain()


def main() -> None:
    """Serve until the lifetime is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--first-ms", type=float, default=5.0)
    parser.add_argument("--gap-ms", type=float, default=1.0)
    parser.add_argument("--lifetime", type=float, default=60.0)
    options = parser.parse_args()
    how = Behaviour(tokens=options.tokens, first_ms=options.first_ms, gap_ms=options.gap_ms)
    with FakeServer(lambda number, body: how, port=options.port, lifetime_s=options.lifetime) as server:
        server._thread.join()


if __name__ == "__main__":
    main()
