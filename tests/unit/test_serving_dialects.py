# SPDX-License-Identifier: Apache-2.0
"""What real servers send, shortened: transformers serve 5.24, the server of llama.cpp (xllamacpp 2026.10), and
llama-cpp-python 0.3.36, each asked for three tokens of a model of random weights on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import serving_benchmark
from support.fake_openai_server import Behaviour, FakeServer

from ansible.module_utils.rackwright.errors import ProbeError
from ansible.module_utils.rackwright.serving_answer import Answer
from ansible.module_utils.rackwright.serving_load import Query, broken_off
from ansible.module_utils.rackwright.serving_metrics import gone_after_s
from ansible.module_utils.rackwright.serving_report import table_text
from ansible.module_utils.rackwright.serving_run import merge, other_model
from ansible.module_utils.rackwright.serving_timeline import Timeline

NO_GOALS = {"p99_ttft_ms": 0, "p99_itl_ms": 0, "output_throughput": 0}


def sse(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


#: The usage comes with the reason of the end, asked for or not, and there is no [DONE].
TRANSFORMERS_CHAT = sse(
    '{"id":"4","choices":[{"delta":{"role":"assistant"},"index":0}],"model":"tiny","system_fingerprint":""}',
    '{"id":"4","choices":[{"delta":{"content":"as"},"index":0}],"model":"tiny","system_fingerprint":""}',
    '{"id":"4","choices":[{"delta":{"content":" idea"},"index":0}],"model":"tiny","system_fingerprint":""}',
    '{"id":"4","choices":[{"delta":{},"index":0,"finish_reason":"length"}],"model":"tiny","system_fingerprint":"",'
    '"usage":{"completion_tokens":3,"prompt_tokens":8,"total_tokens":11}}',
)
TRANSFORMERS_TEXT = sse(
    '{"id":"e","choices":[{"index":0,"text":"as"}],"model":"tiny","object":"text_completion"}',
    '{"id":"e","choices":[{"index":0,"text":" one"}],"model":"tiny","object":"text_completion"}',
    '{"id":"e","choices":[{"finish_reason":"length","index":0,"text":""}],"model":"tiny","object":"text_completion",'
    '"usage":{"completion_tokens":3,"prompt_tokens":8,"total_tokens":11}}',
)
#: The role comes with a content of null. Usage comes apart for a chat and with the reason for a text.
LLAMA_CHAT = sse(
    '{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"model":"tiny"}',
    '{"choices":[{"finish_reason":null,"index":0,"delta":{"content":" an"}}],"model":"tiny"}',
    '{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"\ufffdso"}}],"model":"tiny"}',
    '{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"model":"tiny"}',
    '{"choices":[],"model":"tiny","usage":{"completion_tokens":3,"prompt_tokens":8,"total_tokens":11,'
    '"prompt_tokens_details":{"cached_tokens":0}},"timings":{"prompt_n":8,"prompt_ms":7.654,"predicted_n":3}}',
    "[DONE]",
)
LLAMA_TEXT = sse(
    '{"choices":[{"text":"rst","index":0,"logprobs":null,"finish_reason":null}],"model":"tiny"}',
    '{"choices":[{"text":"\ufffdanother","index":0,"logprobs":null,"finish_reason":null}],"model":"tiny"}',
    '{"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"model":"tiny","usage":'
    '{"completion_tokens":3,"prompt_tokens":8,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":0}}}',
    "[DONE]",
)
#: No usage, whatever was asked for.
LLAMA_PYTHON_CHAT = sse(
    '{"model": "tiny", "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}',
    '{"model": "tiny", "choices": [{"index": 0, "delta": {"content": " just"}, "finish_reason": null}]}',
    '{"model": "tiny", "choices": [{"index": 0, "delta": {"content": "ry"}, "finish_reason": null}]}',
    '{"model": "tiny", "choices": [{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"}]}',
    "[DONE]",
)


def params(server: FakeServer, **change: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in serving_benchmark.ARGUMENT_SPEC.items()}
    own = {"url": server.url, "requests": 4, "warmup": 0, "max_tokens": 3, "prompt_tokens": 8, "request_timeout": 5.0}
    return {**defaults, **own, "goals": NO_GOALS, **change}


def benchmark(server: FakeServer, **change: Any) -> dict[str, Any]:
    return serving_benchmark.document_of(params(server, **change), check_mode=False)


@pytest.mark.parametrize("stutter", [0, 11])
@pytest.mark.parametrize(
    ("endpoint", "stream", "counted"),
    [
        ("chat", TRANSFORMERS_CHAT, True),
        ("completions", TRANSFORMERS_TEXT, True),
        ("chat", LLAMA_CHAT, True),
        ("completions", LLAMA_TEXT, True),
        ("chat", LLAMA_PYTHON_CHAT, False),
    ],
)
def test_each_dialect_is_an_answer_of_two_pieces(endpoint: str, stream: bytes, counted: bool, stutter: int) -> None:
    """The role alone is no token, nor is the reason of the end; two pieces are three tokens where the server counts."""
    with FakeServer(lambda number, body: Behaviour(raw=stream, stutter=stutter), models=("tiny",)) as server:
        found = benchmark(server, endpoint=endpoint, max_concurrency=1)
    (point,) = found["points"]

    assert (point["completed"], point["failed"]) == (4, 0)
    assert point["samples"]["itl"] == 4
    assert point["total_output_tokens"] == (12 if counted else 8)
    assert point["tokens_per_piece"] == (1.5 if counted else 1.0)
    assert point["tokens_counted_by"] == (
        {"input": "usage", "output": "usage"} if counted else {"input": "words", "output": "pieces"}
    )
    assert point["finish_reasons"] == {"length": 4}
    assert found["answered_as"] == "tiny"


def test_a_server_that_closes_after_each_stream_and_says_it_keeps_the_connection_loses_nothing() -> None:
    """The server of llama.cpp sends ``Keep-Alive: timeout=5, max=100`` and closes at the end of the stream."""
    with FakeServer(lambda number, body: Behaviour(raw=LLAMA_CHAT, close=True, sneaky=True)) as server:
        (point,) = benchmark(server, max_concurrency=1)["points"]

    assert point["completed"] == 4
    assert len(server.asked) == 5


@pytest.mark.parametrize("pieces", [0, 2])
def test_done_without_a_reason_is_no_answer_of_a_server_that_gives_reasons(pieces: int) -> None:
    """llama-cpp-python drops a request for a newer one and ends its stream with [DONE] like any other."""

    def plan(number: int, body: dict[str, Any]) -> Behaviour:
        return Behaviour(tokens=pieces, finish=False, usage=False) if number == 2 else Behaviour(tokens=3)

    with FakeServer(plan) as server:
        (point,) = benchmark(server, max_concurrency=1)["points"]

    assert (point["completed"], point["failed"]) == (3, 1)
    (error,) = point["errors"]
    assert error["class"] == "broken_stream"
    assert error["examples"] == [
        f"the stream ended after {pieces} pieces without a reason: the server broke the answer off"
    ]


def test_a_server_that_never_gives_a_reason_is_believed() -> None:
    with FakeServer(lambda number, body: Behaviour(tokens=3, finish=False)) as server:
        (point,) = benchmark(server)["points"]

    assert (point["completed"], point["finish_reasons"]) == (4, {"none": 4})


@pytest.mark.parametrize(
    ("error", "reason", "gives", "broken"),
    [
        (None, None, True, True),
        ("no_tokens", None, True, True),
        (None, "stop", True, False),
        ("no_tokens", "stop", True, False),
        (None, None, False, False),
        ("timeout", None, True, False),  # has a class of its own
        ("server_error", None, True, False),
    ],
)
def test_what_was_broken_off(error: str | None, reason: str | None, gives: bool, broken: bool) -> None:
    answer = Answer()
    answer.error, answer.finish_reason = error, reason

    assert (broken_off(answer, Query(True, "m", 4, True, gives)) is not None) is broken


UNEXPECTED = json.dumps({"detail": "Unexpected fields in the request: {'ignore_eos'}"}).encode()
PINNED = json.dumps({"detail": "Server is pinned to 'tiny'; requested 'other'."}).encode()
TOO_LONG = json.dumps(
    {"error": {"code": 400, "message": "request (6004 tokens) exceeds the available context size (2048 tokens)"}}
).encode()


@pytest.mark.parametrize(
    ("status", "body", "cause", "step"),
    [
        (422, UNEXPECTED, "422 Unhappy: Unexpected fields in the request", "set ignore_eos to false"),
        (400, PINNED, "400 Unhappy: Server is pinned to 'tiny'", "400, 422 want another option or model"),
        (400, TOO_LONG, "400 Unhappy: request (6004 tokens) exceeds", "400, 422 want another option or model"),
    ],
)
def test_a_refusal_names_ignore_eos_only_where_the_server_does(status: int, body: bytes, cause: str, step: str) -> None:
    with (
        FakeServer(lambda number, request: Behaviour(status=status, body=body)) as server,
        pytest.raises(ProbeError) as caught,
    ):
        benchmark(server)

    assert cause in str(caught.value)
    assert step in str(caught.value)
    assert ("ignore_eos to false" in str(caught.value)) == (body == UNEXPECTED)


def test_a_server_that_serves_any_name_is_noted_once() -> None:
    """llama.cpp does not look at the name of the model."""
    with FakeServer(lambda number, body: Behaviour(tokens=3, model="tiny")) as server:
        found = benchmark(server, model="no/such", rates=["inf", "500"])

    note = "the server answered as tiny, whatever the name that was asked for"
    assert (found["model"], found["answered_as"]) == ("no/such", "tiny")
    assert [note in point["notes"] for point in found["points"]] == [True, True]
    assert table_text(found).count(f"note: {note}") == 1
    assert (other_model("tiny", "tiny"), other_model("tiny", None)) == ([], [])


@pytest.mark.parametrize(
    ("finish", "usage", "ignore_eos", "why"),
    [
        (True, True, True, ["the server's context or a limit of its own ended them"]),
        (True, True, False, ["the server's context or a limit of its own ended them"]),
        (True, False, True, []),  # three pieces may be eight tokens
        (False, True, True, ["the engine does not ignore the end"]),
        (False, False, True, ["the engine does not ignore the end"]),
        (False, True, False, []),  # nobody asked for more
    ],
)
def test_why_answers_are_short(finish: bool, usage: bool, ignore_eos: bool, why: list[str]) -> None:
    """llama.cpp answers until its context is full and gives ``length`` as the reason."""
    with FakeServer(lambda number, body: Behaviour(tokens=3, finish=finish, usage=usage)) as server:
        (point,) = benchmark(server, max_tokens=8, ignore_eos=ignore_eos)["points"]

    begin = "answers ended after 3 of 8 tokens: "
    assert [note[len(begin) :] for note in point["notes"] if note.startswith(begin)] == why


def entry(start: float, end: float, error: str | None = None) -> Timeline:
    return Timeline(0, start, start, start, end_s=end, error=error)


@pytest.mark.parametrize(
    ("timelines", "gone"),
    [
        ([], None),
        ([entry(0, 1), entry(1, 2)], None),
        ([entry(0, 1), entry(1, 2.5), entry(2, 3, "broken_stream"), entry(3, 3, "refused")], 2.5),
        ([entry(0, 1), entry(3, 3, "unreachable"), entry(4, 4, "not_sent")], 1),
        ([entry(0, 1), entry(1, 1, "refused"), entry(2, 3)], None),  # it came back
        ([entry(0, 1), entry(1, 9, "timeout")], None),
        ([entry(0, 0, "refused")], 0.0),
    ],
)
def test_when_a_server_has_gone(timelines: list[Timeline], gone: float | None) -> None:
    assert gone_after_s(timelines) == gone


def test_no_further_rate_is_offered_to_a_server_that_has_gone() -> None:
    """What the first rate showed is kept, and the run has failed."""

    def stop(number: int, body: dict[str, Any]) -> Behaviour:
        if number == 8:
            calls[0]()
            return Behaviour(vanish=True)
        return Behaviour(tokens=3)

    calls: list[Callable[[], None]] = []
    with FakeServer(stop) as server:
        calls.append(server.stop_listening)
        goals = {**NO_GOALS, "p50_ttft_ms": 60_000}
        found = benchmark(server, rates=["inf"] * 3, requests=6, max_concurrency=1, goals=goals)

    words = "nothing listened any more after the last answer at "
    _, point = found["points"]
    assert [(entry["completed"], entry["failed"]) for entry in found["points"]] == [(6, 0), (1, 5)]
    assert found["points"][0]["server_gone_after_s"] is None
    assert point["server_gone_after_s"] > 0
    assert (found["verdict"], found["best"]) == ("fail", "inf")
    assert found["reasons"][0].startswith(f"broken off: rate inf: {words}")
    whole = merge([found], "Could not ask")
    assert whole["verdict"] == "fail"
    assert whole["reasons"][:2] == [found["reasons"][0], "broken off: Could not ask"]
    assert "\nverdict: fail, best rate inf\n" in table_text(whole)
