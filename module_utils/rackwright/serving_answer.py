# SPDX-License-Identifier: Apache-2.0
"""The answer to one request: bytes with their times in, tokens with their times out. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .serving_http import ResponseParser
from .serving_sse import EventParser

#: Bytes kept of a body that is no stream: a list of models, or a message.
_BODY_KEPT = 1 << 20
_DETAIL = 300
_DONE = "[DONE]"
#: Fields of a chat delta that hold generated text; the ones for reasoning are those of vLLM, SGLang and DeepSeek.
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def is_token(choice: Mapping[str, Any]) -> bool:
    """Tell whether one choice of a streamed chunk stands for generated tokens.

    A chunk that only names the role (sent by some servers before the prompt is read) or only the reason of the end is
    none. An empty text in the middle is one: a token that is half of a character.
    """
    delta = choice.get("delta")
    if not isinstance(delta, Mapping):
        text = choice.get("text")
        return bool(text) or (isinstance(text, str) and not choice.get("finish_reason"))
    if any(delta.get(name) for name in _TEXTS) or delta.get("tool_calls"):
        return True
    return isinstance(delta.get("content"), str) and not delta.get("role") and not choice.get("finish_reason")


class Answer:
    """What arrives for one request.

    Attributes:
        done: nothing more will come.
        reusable: the connection can carry another request.
        token_s: time of every piece of text.
        end_s: time of the last piece or of the reason of the end.
        model: name of the model that answers, as the server gives it; None while it gives none.
        error: class of the failure, None so far; ``detail`` says it in words.
        touched: at least one byte came.
    """

    def __init__(self, stream: bool = True) -> None:
        self._stream_wanted = stream
        self.done = False
        self.reusable = False
        self.touched = False
        self.token_s: list[float] = []
        self.end_s = 0.0
        self.usage: dict[str, int] = {}
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.error: str | None = None
        self.detail = ""
        self._response = ResponseParser()
        self._events = EventParser()
        self._complete = False
        self._body = bytearray()

    @property
    def http_status(self) -> int | None:
        """Status of the response, None before its head came."""
        return self._response.status

    @property
    def server(self) -> str | None:
        """What the server calls itself."""
        return self._response.headers.get("server")

    def json(self) -> Any:
        """Return the parsed body of a response that is no stream, or None."""
        try:
            return json.loads(bytes(self._body))
        except ValueError:
            return None

    def feed(self, piece: bytes, now: float) -> None:
        """Take bytes that arrived at ``now``; whatever is wrong with them becomes ``error``."""
        if self.done:
            return
        self.touched = True
        try:
            body = self._response.feed(piece)
            if self._is_stream():
                for data in self._events.feed(body):
                    self._event(data, now)
            else:
                self._body += body[: max(0, _BODY_KEPT - len(self._body))]
        except ValueError as error:
            self._fail("broken_stream", str(error))
        if self._response.done and not self.done:
            self._finish(now, whole=True)

    def end(self, now: float, cause: str = "") -> None:
        """The connection ended at ``now``."""
        if not self.done:
            self._finish(now, whole=self._response.finish(), cause=cause)

    def fail(self, kind: str, detail: str) -> None:
        """End the answer from outside: the time limit is over, or no connection came about."""
        if self.done:
            return
        if kind == "timeout" and self._complete:
            # every token is there; the server only never closed the stream
            self.done = True
            self._judge_stream(whole=True, cause="")
        else:
            self._fail(kind, detail)

    def _is_stream(self) -> bool:
        head = self._response
        return head.status == 200 and head.headers.get("content-type", "").lower().startswith("text/event-stream")

    def _finish(self, now: float, whole: bool, cause: str = "") -> None:
        if self._is_stream():
            for data in self._events.finish():
                self._event(data, now)
        if self.done:
            return
        self.done = True
        self.reusable = whole and self._response.keep_alive
        status = self._response.status
        if status is None:
            what = (
                "the connection ended in the head of the answer" if self.touched else "the connection ended unanswered"
            )
            self._fail("broken_stream", f"{what}{f' ({cause})' if cause else ''}")
        elif status != 200:
            self._fail("http_status", f"{status} {self._response.reason}: {self._message()}".strip(" :"), keep=True)
        elif self._is_stream():
            self._judge_stream(whole, cause)
        elif not whole:
            self._fail("broken_stream", f"the answer stopped in the middle: {cause or 'the connection was closed'}")
        elif self._stream_wanted:
            kind = self._response.headers.get("content-type") or "no content type"
            self._fail("not_streamed", f"the answer is {kind}, not text/event-stream", keep=True)

    def _judge_stream(self, whole: bool, cause: str) -> None:
        if not self._complete:
            how = cause or ("the server ended it" if whole else "the connection was closed")
            self._fail("broken_stream", f"the stream stopped after {len(self.token_s)} pieces: {how}")
        elif not self.token_s:
            self._fail(
                "no_tokens", f"the stream ended without a token ({self.finish_reason or 'no reason given'})", keep=True
            )

    def _event(self, data: str, now: float) -> None:
        if self.done:
            return
        if data.strip() == _DONE:
            self._complete = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            # transformers serve puts the words of an error into JSON without quoting them
            kind = "server_error" if data.lstrip().startswith('{"error"') else "broken_stream"
            self._fail(kind, f"an event is no JSON object: {data[: 80 if kind == 'broken_stream' else _DETAIL]!r}")
            return
        if event.get("error"):
            self._fail("server_error", _text_of(event["error"]))
            return
        self._usage(event.get("usage"))
        if self.model is None and isinstance(event.get("model"), str):
            self.model = event["model"]
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._choice(choice, now)

    def _choice(self, choice: Mapping[str, Any], now: float) -> None:
        if is_token(choice):
            self.token_s.append(now)
            self.end_s = now
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
            self.end_s = now
            self._complete = True

    def _usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        found = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        for name, value in {**found, "cached_tokens": cached}.items():
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                self.usage[name] = value

    def _message(self) -> str:
        document = self.json()
        if isinstance(document, dict):
            return _text_of(document.get("error") or document.get("detail") or document.get("message") or document)
        return " ".join(bytes(self._body).decode("utf-8", errors="replace").split())[:_DETAIL]

    def _fail(self, kind: str, detail: str, keep: bool = False) -> None:
        self.error, self.detail = kind, detail[:_DETAIL]
        self.done = True
        self.reusable = self.reusable and keep


def _text_of(error: Any) -> str:
    """Return the words of an error in any of the forms servers use."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        error = error["message"]
    text = error if isinstance(error, str) else json.dumps(error)
    return " ".join(text.split())[:_DETAIL]
