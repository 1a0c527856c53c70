# SPDX-License-Identifier: Apache-2.0
"""The module and its playbook as a user runs them, against a stand-in for a server; its options; its prompts."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serving_benchmark
from support.fake_openai_server import Behaviour, FakeServer

from ansible.module_utils.rackwright import serving_run
from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError, ProbeError, RackwrightError
from ansible.module_utils.rackwright.serving_client import Client
from ansible.module_utils.rackwright.serving_load import Offered
from ansible.module_utils.rackwright.serving_prompts import (
    Prompt,
    body,
    load_prompts,
    parse_prompts,
    random_prompts,
    repeated,
    words_for,
)
from ansible.module_utils.rackwright.serving_timeline import Timeline

ROOT = Path(__file__).resolve().parents[2]
NO_GOALS = {"p99_ttft_ms": 0, "p99_itl_ms": 0, "output_throughput": 0}
#: Goals that any answer on any machine meets.
EASY = {**NO_GOALS, "p50_ttft_ms": 60_000}


def always(how: Behaviour) -> Callable[[int, dict[str, Any]], Behaviour]:
    return lambda number, request: how


def params(**change: Any) -> dict[str, Any]:
    """Options as the module has them when ``change`` is all that was given."""
    defaults = {name: option.get("default") for name, option in serving_benchmark.ARGUMENT_SPEC.items()}
    return {**defaults, "url": "http://127.0.0.1:1", "requests": 6, "warmup": 0, **change}


def benchmark(server: FakeServer, **change: Any) -> dict[str, Any]:
    given = params(**{"url": server.url, "max_tokens": 4, "request_timeout": 5.0, **change})
    found = serving_benchmark.document_of(given, check_mode=False)
    json.dumps(found, allow_nan=False)
    return found


def test_a_sweep_of_two_rates() -> None:
    with FakeServer(always(Behaviour(tokens=4))) as server:
        found = benchmark(server, rates=["200", "inf"], warmup=2, goals=EASY, run_id="r1")

    assert (found["kind"], found["run_id"], found["model"], found["server"]) == (
        *("rackwright.serving", "r1", "fake-model", "fake"),
    )
    assert [point["request_rate"] for point in found["points"]] == ["200", "inf"]
    assert [point["completed"] for point in found["points"]] == [6, 6]
    assert found["points"][0]["total_output_tokens"] == 24
    assert found["points"][0]["tokens_counted_by"] == {"input": "usage", "output": "usage"}
    assert all(point["goals"][0]["status"] == "pass" for point in found["points"])
    assert len(server.asked) == 1 + 2 * (2 + 6)  # one probe, then warm-up and load of each rate
    texts = [seen.body["messages"][0]["content"] for seen in server.asked]
    assert len(set(texts)) == len(texts), "a prefix cache would answer a repeated prompt"


def test_the_same_seed_asks_the_same_in_another_run() -> None:
    texts = []
    for seed in (1, 1, 2):
        with FakeServer() as server:
            benchmark(server, seed=seed, prompt_tokens=8)
        texts.append(sorted(seen.body["messages"][0]["content"] for seen in server.asked))

    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_prompts_become_as_long_as_the_server_counts() -> None:
    with FakeServer(always(Behaviour(prompt_tokens=200))) as server:
        found = benchmark(server, prompt_tokens=100)

    assert found["prompts"]["words"] == 50
    lengths = [len(seen.body["messages"][0]["content"].split()) for seen in server.asked]
    assert lengths == [100] + [50] * 6


def test_without_a_count_of_the_server_pieces_are_counted_and_it_is_said() -> None:
    with FakeServer(always(Behaviour(tokens=3, usage=False))) as server:
        (point,) = benchmark(server, max_tokens=3, prompt_tokens=5)["points"]

    assert point["total_output_tokens"] == 18
    assert point["total_input_tokens"] == 30
    assert point["tokens_counted_by"] == {"input": "words", "output": "pieces"}
    assert any("counted by pieces" in note for note in point["notes"])


def test_a_failed_request_makes_a_failed_run() -> None:
    def plan(number: int, request: dict[str, Any]) -> Behaviour:
        return Behaviour(status=503, message="overloaded") if number == 3 else Behaviour()

    with FakeServer(plan) as server:
        found = benchmark(server, goals=EASY)

    assert found["verdict"] == "fail"
    assert found["points"][0]["errors"] == [
        {
            "class": "http_status",
            "count": 1,
            "examples": ["503 Unhappy: overloaded"],
            "next_step": found["points"][0]["errors"][0]["next_step"],
        }
    ]
    assert "1 of 6 requests failed" in " ".join(found["reasons"])


def test_too_many_failures_end_the_sweep() -> None:
    with FakeServer(lambda number, request: Behaviour(status=200 if number == 0 else 500)) as server:
        found = benchmark(server, rates=["inf", "inf"], max_failures=2, max_concurrency=1)

    assert len(found["points"]) == 1
    assert {entry["class"]: entry["count"] for entry in found["points"][0]["errors"]} == {
        "http_status": 2,
        "not_sent": 4,
    }


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            Behaviour(status=401, message="no key"),
            "401 Unhappy: no key. Read the server's message; 400, 422 want another option or model, 401, 403 api_key",
        ),
        (
            Behaviour(status=400, message="ignore_eos?"),
            "ignore_eos? Read the server's message; set ignore_eos to false",
        ),
        (Behaviour(content_type="application/json", raw=b"{}"), "not text/event-stream. Name an endpoint that streams"),
        (Behaviour(tokens=0), "without a token"),
    ],
)
def test_a_server_that_fails_the_probe_is_one_sentence(how: Behaviour, sentence: str) -> None:
    with FakeServer(always(how)) as server, pytest.raises(ProbeError) as caught:
        benchmark(server)

    assert str(caught.value).startswith(f"Could not ask the model on {server.url}/v1: ")
    assert sentence in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("models", [(), b"[]", b"nonsense", b'{"data": [{"name": "x"}]}', b'{"data": {}}'])
def test_a_server_without_models_wants_one_named(models: Any) -> None:
    with FakeServer(models=models) as server, pytest.raises(ProbeError, match=r"it lists no model\. Name one in model"):
        benchmark(server)


def test_nothing_listening_is_one_sentence() -> None:
    with FakeServer() as server:
        url = server.url
    with pytest.raises(
        ProbeError, match=r"Could not find a model on http.*: Connection refused\. Nothing listens there"
    ):
        serving_benchmark.document_of(params(url=url), check_mode=False)


def test_a_server_that_loads_its_model_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_run, "_PROBE_S", 0.01)
    with FakeServer(lambda number, request: Behaviour(status=503 if number < 3 else 200)) as server:
        found = benchmark(server, wait=30.0)

    assert found["points"][0]["completed"] == 6


def test_check_mode_contacts_nobody() -> None:
    with FakeServer() as server:
        given = params(url=server.url, rates=["2", "inf"], requests=10)
        found = serving_benchmark.document_of(given, check_mode=True)

    assert found["planned"] == [
        {"request_rate": "2", "requests": 10, "seconds": pytest.approx(5.0)},
        {"request_rate": "inf", "requests": 10, "seconds": 0.0},
    ]
    assert found["points"] == []
    assert found["verdict"] == "not_judged"
    assert server.connections == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rates": []}, "there is none"),
        ({"rates": ["often"]}, "no number of requests per second"),
        ({"requests": 0}, "0 is not above zero"),
        ({"duration": math.nan}, "nan is not above zero"),
        ({"warmup": -1}, "-1 is not zero or above"),
        ({"rates": ["inf"], "duration": 5.0}, "it would never end"),
        ({"rates": ["0.001"], "duration": 0.001}, "no request falls into the time"),
        ({"url": "gpu-01:8000"}, "no URL that begins with http"),
        ({"api_key": "a\nb"}, "it has several lines"),
        ({"goals": {"speed": 1}}, "there is no such measure"),
        ({"prompts_file": "/no/such.jsonl"}, "No such file"),
        ({"url": "https://h", "ca_path": "/no/such.pem"}, "Could not read the authority"),
    ],
)
def test_options_that_plan_nothing_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RackwrightError, match=sentence):
        serving_benchmark.document_of(params(**change), check_mode="ca_path" not in change)


def test_results_of_rates_are_put_together_and_a_broken_sweep_has_failed() -> None:
    with FakeServer() as server:
        one, two = (benchmark(server, rates=[rate], goals=EASY) for rate in ("300", "inf"))

    whole = serving_run.merge([one, two])
    assert [point["request_rate"] for point in whole["points"]] == ["300", "inf"]
    assert whole["verdict"] in ("pass", "warn")
    broken = serving_run.merge([one], "Could not ask the model on x: refused.")
    assert broken["verdict"] == "fail"
    assert broken["reasons"][0] == "broken off: Could not ask the model on x: refused."
    wrongs: list[list[dict[str, Any]]] = [[], [{}], [one, {**two, "url": "http://other/v1"}]]
    for wrong in wrongs:
        with pytest.raises(InvalidInputError, match="Could not put the results together"):
            serving_run.merge(wrong)


def request(**change: Any) -> serving_run.Request:
    return serving_benchmark.request_of(params(**change))


def test_a_point_is_made_of_timelines() -> None:
    lines = [
        Timeline(n, n * 0.1, n * 0.1 + 0.05, n * 0.1 + 0.05, [n * 0.1 + 0.15], n * 0.1 + 0.15, 9, 10, 3, 6, "stop")
        for n in range(4)
    ]
    point = serving_run.point_of(Offered(lines, 2.0, [0.001], 0.5, 4), "10", request(max_tokens=8), open_loop=True)

    assert point["mean_ttft_ms"] == pytest.approx(100.0)
    assert point["client"]["schedule_lag_ms"]["mean"] == pytest.approx(50.0)
    assert point["client"]["warnings"][0].startswith("the client sent up to 50 ms")
    assert point["notes"] == [
        "3.0 tokens come at once, so ITL is the gap between such pieces",
        "60% of the input came from the server's prefix cache: give another seed for a cold TTFT",
        "answers ended after 3 of 8 tokens: the engine does not ignore the end",
    ]
    by_name = {goal["metric"]: goal for goal in point["goals"]}
    assert by_name["output_throughput"]["status"] == "not_judged"  # 10/s of 8 tokens show 80 at most
    assert by_name["p99_itl_ms"]["reason"] == "nothing was measured"


def test_the_wait_for_the_last_answers_is_no_fault_of_the_server() -> None:
    """100 requests in 10 s, each answered in 2 s: 10/s of 8 tokens, yet only 800 tokens in the 12 s of the run."""
    lines = [Timeline(n, n * 0.1, n * 0.1, n * 0.1, [n * 0.1 + 1], n * 0.1 + 2, 9, 10, 8) for n in range(101)]
    most = serving_run.most_shown(lines, request(max_tokens=8))

    assert most["output_throughput"] == pytest.approx(101 * 8 / 12)
    assert most["total_token_throughput"] == pytest.approx(101 * 18 / 12)
    assert most["request_goodput"] == pytest.approx(101 / 12)
    goals = {**NO_GOALS, "output_throughput": 70}
    asked = request(max_tokens=8, goals=goals)
    (goal,) = serving_run.point_of(Offered(lines, 12.0), "10", asked, open_loop=True)["goals"]
    assert goal["status"] == "not_judged"
    # at rate inf nothing but the server keeps the throughput down
    (goal,) = serving_run.point_of(Offered(lines, 12.0), "inf", asked, open_loop=False)["goals"]
    assert goal["status"] == "fail"


def test_a_backlog_is_the_servers_fault() -> None:
    """The same load, answered one by one: the last answer comes after 202 s."""
    lines = [Timeline(n, n * 0.1, n * 0.1, n * 0.1, [n * 2 + 1], n * 2 + 2, 9, 10, 8) for n in range(101)]
    asked = request(max_tokens=8, goals={**NO_GOALS, "output_throughput": 60})
    point = serving_run.point_of(Offered(lines, 202.0), "10", asked, open_loop=True)

    assert point["output_throughput"] == pytest.approx(4.0)
    assert point["goals"][0]["status"] == "fail"
    assert point["verdict"] == "fail"


@pytest.mark.parametrize("line", ["[1]", "{", '{"prompt": 3}', '{"prompt": ""}', "{}", '{"messages": []}'])
def test_a_line_that_is_no_prompt_is_named(line: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Could not use the prompts on p\.jsonl, line 3: "):
        parse_prompts(f'{{"prompt": "a"}}\n\n{line}\n', "p.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        '{"messages": [{"role": "user"}]}',
        '{"messages": "hi"}',
        '{"prompt": "a", "messages": [{"role": "u", "content": ""}]}',
        '{"prompt": "a", "max_tokens": 0}',
        '{"prompt": "a", "max_tokens": "8"}',
        '{"prompt": "a", "max_tokens": true}',
    ],
)
def test_fields_of_a_line_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(InvalidInputError, match="line 1"):
        parse_prompts(line, "p.jsonl")


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    messages = b'{"messages": [{"role": "user", "content": "a b"}], "max_tokens": 5}'
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "wie gehts\xe2\x80\xa8"}\r\n' + messages + b"\n")
    prompts = load_prompts(str(path))

    assert prompts[0] == Prompt("wie gehts\u2028", 2)
    assert body(prompts[1], True, "m", 9, False) == {
        "model": "m",
        "messages": [{"role": "user", "content": "a b"}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body(prompts[1], False, "m", 9, True)["prompt"] == "a b"
    assert body(prompts[0], True, "m", 9, True)["max_tokens"] == 9
    assert {prompt.text for prompt in itertools.islice(repeated(prompts, "s"), 4)} == {"wie gehts\u2028", "a b"}


def test_a_file_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    for name, sentence in (("empty", "it has no line"), ("latin", "it is not UTF-8")):
        with pytest.raises(InvalidInputError, match=sentence):
            load_prompts(str(tmp_path / f"{name}.jsonl"))
    with pytest.raises(MissingError, match="Is a directory"):
        load_prompts(str(tmp_path))


def test_a_file_in_place_of_random_words(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    with FakeServer() as server:
        found = benchmark(server, prompts_file=str(path), endpoint="completions", model="named")

    assert {seen.body["prompt"] for seen in server.asked} == {"one", "two"}
    assert {seen.body["model"] for seen in server.asked} == {"named"}
    assert server.requests == server.asked, "a model that is named is not looked up"
    assert any("the 2 prompts were repeated" in note for note in found["points"][0]["notes"])


@pytest.mark.parametrize(
    ("wished", "words", "tokens", "expected"),
    [(512, 512, None, 512), (512, 512, 0, 512), (512, 512, 640, 410), (100, 100, 100_000, 25), (1, 1, 30, 1)],
)
def test_length_is_corrected_within_reason(wished: int, words: int, tokens: int | None, expected: int) -> None:
    assert words_for(wished, words, tokens) == expected


def test_random_prompts_have_the_words_wished() -> None:
    first, second = itertools.islice(random_prompts(50, "s"), 2)

    assert len(first.text.split()) == first.words == 50
    assert first != second


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    path = Path(sys.executable).parent / program
    return subprocess.run(
        [str(path), *arguments], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False
    )


def test_the_playbook_keeps_what_it_measured_of_a_server_that_dies(tmp_path: Path) -> None:
    key = "sk-very-secret"
    with FakeServer(lambda number, request: Behaviour(status=200 if number < 9 else 502)) as server:
        options = {
            **{"serving_url": server.url, "serving_requests": 8, "serving_warmup": 0, "serving_rates": "inf,200"},
            **{
                "serving_goals": EASY,
                "serving_api_key": key,
                "rackwright_reports": str(tmp_path),
                "serving_fail": True,
            },
        }
        done = run("ansible-playbook", "playbooks/benchmark-serving.yml", "-vv", "-e", json.dumps(options))
    (report,) = (tmp_path / "serving").glob("localhost-*.json")
    found = json.loads(report.read_text())

    assert done.returncode != 0
    assert "502 Unhappy" in done.stdout
    assert f"report: {report}" in done.stdout
    assert [point["completed"] for point in found["points"]] == [8]
    assert found["verdict"] == "fail"
    assert found["reasons"][0].startswith("broken off: Could not ask the model on ")
    assert server.asked[0].headers["authorization"] == f"Bearer {key}"
    assert key not in done.stdout + done.stderr + report.read_text()


def test_the_playbook_plans_in_check_mode(tmp_path: Path) -> None:
    options = {"serving_url": "http://127.0.0.1:1", "rackwright_reports": str(tmp_path), "serving_rates": [64]}
    done = run("ansible-playbook", "playbooks/benchmark-serving.yml", "--check", "-e", json.dumps(options))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "requests at rate 64 within 60 s" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_client_for_one_run_closes_its_connections() -> None:
    async def use(server: FakeServer) -> Client:
        asked = request(url=server.url, requests=3)
        client = Client(asked.address, None, None, 5.0)
        await serving_run.run(asked, client)
        return client

    with FakeServer() as server:
        client = asyncio.run(use(server))
    assert client._idle == []
