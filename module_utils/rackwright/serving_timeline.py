# SPDX-License-Identifier: Apache-2.0
"""What happened to one request, as times on one clock. Everything else is computed from these records."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Timeline:
    """One request. Times are seconds since the load began.

    Attributes:
        index: number of the request in the order it was planned.
        planned_s: when the arrival schedule wants it sent.
        released_s: when the client got to it; later than planned where the client is too slow.
        start_s: when it was sent; later than released where it waited for ``max_concurrency``.
        token_s: arrival of every piece of text, one or several tokens each.
        end_s: arrival of the last piece, or of the failure.
        input_words: words of the prompt, the estimate where the server counts no tokens.
        input_tokens: tokens of the prompt as the server counted them, None or 0 where it did not.
        output_tokens: tokens of the answer as the server counted them, None or 0 where it did not.
        cached_tokens: tokens of the prompt that came from a prefix cache, None where the server does not say.
        finish_reason: why the answer ended, in the server's word (``length``, ``stop``).
        error: class of the failure (one of :data:`ERRORS`), None when the request was answered in full.
        detail: the failure in one sentence.
        http_status: status of the answer, None when there was none.
    """

    index: int
    planned_s: float
    released_s: float = 0.0
    start_s: float = 0.0
    token_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    input_words: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    detail: str = ""
    http_status: int | None = None

    @property
    def ok(self) -> bool:
        """True when the whole answer came."""
        return self.error is None

    def tokens(self) -> int:
        """Tokens of the answer: the server's count, else (also where it counts none of what it sent) one per piece."""
        return self.output_tokens or len(self.token_s)


#: Classes of failure and what to look at next. The order is that of the report.
ERRORS = {
    "refused": "Nothing listens there: start the server, or correct url",
    "unresolved": "Correct the host name in url, or the name service of the host that runs the client",
    "unreachable": "Check route and firewall between client and server",
    "tls": "Set ca_path to the authority that signed the server's certificate, or correct the host name in url",
    "timeout": "The server is overloaded or hangs: lower rate or max_concurrency, or raise request_timeout",
    "http_status": "Read the server's message; 400, 422 want another option or model, 401, 403 api_key, 404 another "
    "url or model, 429, 503 less load",
    "not_streamed": "Name an endpoint that streams: the time to the first token cannot be seen otherwise",
    "server_error": "Read the server's log: it broke off the answer with a message of its own",
    "broken_stream": "Read the server's and any proxy's log: the answer ended in the middle or was no event stream",
    "no_tokens": "Read the server's log: it answered with no token; max_tokens or a stop word may be the cause",
    "client": "Raise the limit of open files (ulimit -n), or lower rate and max_concurrency",
    "not_sent": "The load was stopped after max_failures failures; look at those first",
}
