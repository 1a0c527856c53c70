# SPDX-License-Identifier: Apache-2.0
"""Bytes to events to tokens: any division of the bytes gives the same, and nothing malformed passes for an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible.module_utils.rackwright import serving_sse
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.serving_answer import Answer, is_token
from ansible.module_utils.rackwright.serving_http import Address, ResponseParser, parse_address, request_bytes
from ansible.module_utils.rackwright.serving_sse import EventParser

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def divided(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def events(data: bytes, cuts: list[int] | None = None) -> list[str]:
    parser = EventParser()
    return [event for piece in divided(data, cuts or []) for event in parser.feed(piece)] + parser.finish()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b": ping\n\n: ping\n\ndata: a\n\n", ["a"]),
        (b"event: message\nid: 7\nretry: 10\ndata: a\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data\n\n", [""]),
        (b"\n\n\ndata: a\n\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        ("data: Zürich ☃\n\n".encode(), ["Zürich ☃"]),
        (b"data: a\x0bb\x0c\x1c\n\n", ["a\x0bb\x0c\x1c"]),  # only CR and LF end a line
        (b"data: \xff\n\n", ["�"]),
        (b"data: last", ["last"]),  # the server left before the empty line
        (b"data: last\n", ["last"]),
        (b"date: a\n\n", []),
        (b"", []),
    ],
)
def test_events_of_a_stream(data: bytes, expected: list[str]) -> None:
    assert events(data) == expected


TEXT = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20)


@given(
    texts=st.lists(TEXT, max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_any_division_gives_the_same_events(texts: list[str], end: str, cuts: list[int]) -> None:
    data = "".join(f"data: {text}{end}{end}" for text in texts).encode()

    assert events(data, cuts) == texts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_of_several_lines_stays_whole_wherever_it_is_cut(end: str) -> None:
    data = f"data: a{end}data: b{end}{end}data: c{end}{end}".encode()

    assert [events(data, [cut]) for cut in range(len(data))] == [["a\nb", "c"]] * len(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=10))
def test_bytes_of_any_kind_are_no_crash_and_divide_alike(data: bytes, cuts: list[int]) -> None:
    assert events(data, cuts) == events(data)


def test_a_line_without_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_sse, "LONGEST_LINE", 100)
    parser = EventParser()
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(ValueError, match="longer than 100"):
        parser.feed(b"x" * 10)


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


@given(body=st.binary(max_size=120), size=st.integers(1, 50), cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_a_chunked_body_is_put_together(body: bytes, size: int, cuts: list[int]) -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = ResponseParser()
    found = b""
    for piece in divided(head + chunked(body, size), cuts):
        assert not (parser.done and piece)
        if piece:
            found += parser.feed(piece)

    assert found == body
    assert parser.done
    assert parser.keep_alive
    assert parser.status == 200


@pytest.mark.parametrize(
    ("data", "body", "done", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", b"abc", True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", b"", True, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", b"ab", False, True),
        (b"HTTP/1.1 200 OK\r\n\r\nab", b"ab", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", b"a", True, False),  # more than it says: not used again
    ],
)
def test_framings_of_a_body(data: bytes, body: bytes, done: bool, keep_alive: bool) -> None:
    parser = ResponseParser()

    assert parser.feed(data) == body
    assert (parser.done, parser.keep_alive) == (done, keep_alive)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
def test_what_is_no_http_is_an_error(data: bytes) -> None:
    parser = ResponseParser()
    with pytest.raises(ValueError, match=r"no HTTP|status line|no colon|length of the body|chunk"):
        parser.feed(data)


def sse(*documents: Any) -> bytes:
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in documents]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}


def answer_of(*pieces: tuple[bytes, float], head: bytes = STREAM) -> Answer:
    """An answer whose pieces of a body without length arrive at the given times, then the connection ends at 99."""
    answer = Answer()
    answer.feed(head + b"\r\n", 0.0)
    for data, now in pieces:
        answer.feed(data, now)
    answer.end(99.0)
    return answer


def test_tokens_have_the_time_they_came_at() -> None:
    answer = answer_of(
        (sse(delta(role="assistant", content="")), 1.0),
        (sse(delta(content="a")), 2.0),
        (b": ping\n\n" + sse(delta(content="b"), delta(content="c")), 3.5),
        (sse(END), 4.0),
        (sse(USAGE, "[DONE]"), 5.0),
    )

    assert answer.error is None
    assert answer.token_s == [2.0, 3.5, 3.5]
    assert answer.end_s == 4.0
    assert answer.finish_reason == "length"
    assert answer.usage == {"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4}


@pytest.mark.parametrize(
    ("choice", "token"),
    [
        ({"delta": {"role": "assistant", "content": ""}}, False),
        ({"delta": {"role": "assistant"}}, False),
        ({"delta": {"role": "assistant", "content": "Hi"}}, True),
        ({"delta": {"content": "Hi"}}, True),
        ({"delta": {"content": ""}}, True),  # half of a character
        ({"delta": {"content": "", "role": None}}, True),
        ({"delta": {"content": ""}, "finish_reason": "stop"}, False),
        ({"delta": {"content": "."}, "finish_reason": "length"}, True),
        ({"delta": {}, "finish_reason": "stop"}, False),
        ({"delta": {}}, False),
        ({"delta": {"content": None, "reasoning_content": "hm"}}, True),
        ({"delta": {"reasoning": "hm"}}, True),
        ({"delta": {"tool_calls": [{"index": 0}]}}, True),
        ({"text": "Hi"}, True),
        ({"text": ""}, True),
        ({"text": "", "finish_reason": "length"}, False),
        ({"text": ".", "finish_reason": "length"}, True),
        ({"delta": None}, False),
        ({}, False),
    ],
)
def test_what_counts_as_a_token(choice: dict[str, Any], token: bool) -> None:
    assert is_token(choice) is token


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        (sse(delta(content="a")), "broken_stream", "stopped after 1 pieces"),
        (sse(delta(content="a"), "{broken"), "broken_stream", "no JSON object"),
        (sse(delta(content="a"), "[]"), "broken_stream", "no JSON object"),
        (sse("null"), "broken_stream", "no JSON object"),
        (sse({"error": {"message": "CUDA  out of\nmemory", "code": 500}}), "server_error", "CUDA out of memory"),
        (sse({"error": "overloaded"}), "server_error", "overloaded"),
        (sse('{"error": "no "quotes" here"}'), "server_error", 'no "quotes" here'),  # as transformers writes it
        (sse(delta(role="assistant"), END, "[DONE]"), "no_tokens", "without a token (length)"),
        (sse("[DONE]"), "no_tokens", "no reason given"),
        (b"", "broken_stream", "stopped after 0 pieces"),
    ],
)
def test_streams_that_are_no_answer(body: bytes, kind: str, detail: str) -> None:
    answer = answer_of((body, 1.0))

    assert answer.error == kind
    assert detail in answer.detail
    assert not answer.reusable


@pytest.mark.parametrize("oddity", [{"choices": None}, {"choices": [None]}, {"choices": "x"}, {}, {"usage": "many"}])
def test_events_without_use_are_passed_over(oddity: dict[str, Any]) -> None:
    assert answer_of((sse(delta(content="a"), oddity, END), 1.0)).error is None


@pytest.mark.parametrize("usage", [{"completion_tokens": True}, {"completion_tokens": -1}, {"completion_tokens": "3"}])
def test_a_count_that_is_none_is_not_believed(usage: dict[str, Any]) -> None:
    assert answer_of((sse(delta(content="a"), {"choices": [], "usage": usage}, END), 1.0)).usage == {}


@pytest.mark.parametrize("last", [sse(END), sse("[DONE]")])
def test_either_sign_of_the_end_is_enough(last: bytes) -> None:
    assert answer_of((sse(delta(content="a")), 1.0), (last, 2.0)).error is None


def test_a_server_that_never_closes_a_finished_stream_has_answered() -> None:
    answer = Answer()
    answer.feed(STREAM + b"\r\n" + sse(delta(content="a"), END, "[DONE]"), 1.0)
    answer.fail("timeout", "no whole answer within 5 s")

    assert answer.done
    assert answer.error is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', "404 Not Found: no such model"),
        (b'{"error": "no such model"}', "404 Not Found: no such model"),
        (b'{"object": "error", "message": "no such model"}', "404 Not Found: no such model"),
        (b'{"detail": "Not Found"}', "404 Not Found: Not Found"),
        (b"<html>\n nope</html>", "404 Not Found: <html> nope</html>"),
        (b"\xff\xfe", "404 Not Found: ��"),
        (b"", "404 Not Found"),
    ],
)
def test_a_status_comes_with_the_servers_message(body: bytes, message: str) -> None:
    answer = answer_of((body, 1.0), head=b"HTTP/1.1 404 Not Found\r\n")

    assert (answer.error, answer.http_status) == ("http_status", 404)
    assert answer.detail == message


def test_an_answer_in_one_piece_is_no_stream() -> None:
    answer = answer_of((b"{}", 1.0), head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")

    assert answer.error == "not_streamed"
    assert "application/json" in answer.detail


def test_a_connection_that_ends_unanswered_is_told_from_one_that_broke() -> None:
    untouched, touched = Answer(), Answer()
    untouched.end(1.0, "Connection reset by peer")
    touched.feed(b"HTTP/1.1 20", 0.5)
    touched.end(1.0)

    assert untouched.detail == "the connection ended unanswered (Connection reset by peer)"
    assert touched.detail == "the connection ended in the head of the answer"
    assert (untouched.touched, touched.touched) == (False, True)


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8))
def test_no_bytes_make_an_answer_crash(data: bytes, cuts: list[int]) -> None:
    for head in (b"", STREAM + b"\r\n"):
        answer = Answer()
        for piece in divided(head + data, cuts):
            answer.feed(piece, 1.0)
        answer.end(2.0)
        assert answer.done
        assert answer.error is not None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://gpu-01:8000", Address(False, "gpu-01", 8000, "/v1")),
        ("http://gpu-01:8000/v1/", Address(False, "gpu-01", 8000, "/v1")),
        ("https://llm.example.org", Address(True, "llm.example.org", 443, "/v1")),
        ("http://gpu-01", Address(False, "gpu-01", 80, "/v1")),
        (" http://h/openai/v1 ", Address(False, "h", 80, "/openai/v1")),
        ("http://[fd00::1]:8000", Address(False, "fd00::1", 8000, "/v1")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "gpu-01:8000", "ftp://h", "http://", "http://h:port", "http://h:99999", "http://u:secret@h"),
        *("http://h/?a=1", "http://h/#x", "http://h/a b", "http://h/\r\nX: y", "http://[::1"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInputError, match="Could not use the server") as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


def test_a_request_is_whole() -> None:
    address = parse_address("https://[fd00::1]/api")
    data = request_bytes(address, "POST", "/completions", {"prompt": "é"}, "key-1")
    head, _, body = data.partition(b"\r\n\r\n")

    assert head.split(b"\r\n")[:2] == [b"POST /api/v1/completions HTTP/1.1", b"Host: [fd00::1]"]
    assert b"\r\nAuthorization: Bearer key-1\r\n" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert json.loads(body) == {"prompt": "é"}
    assert b"Authorization" not in request_bytes(address, "GET", "/models", None, None)
