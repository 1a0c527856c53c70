# SPDX-License-Identifier: Apache-2.0
"""One benchmark of an OpenAI-compatible server: find the model, probe, warm up, offer each rate, judge."""

from __future__ import annotations

import asyncio
import datetime
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import serving_goals, serving_metrics, serving_prompts, serving_schedule
from .errors import InvalidInputError, ProbeError
from .serving_answer import Answer
from .serving_client import Client, clock
from .serving_http import Address
from .serving_load import Load, Offered, Query, offer, raise_file_limit, warm_up
from .serving_timeline import ERRORS, Timeline

SCHEMA, KIND = 1, "rackwright.serving"
_PROBE_S = 0.5
#: Failures of a server that is still loading its model.
_NOT_READY = ("refused", "timeout", "broken_stream")


@dataclass(frozen=True)
class Request:
    """What is to be benchmarked and how; the options of the module, checked."""

    address: Address
    chat: bool
    model: str | None
    rates: tuple[float, ...]
    requests: int
    duration_s: float | None
    burstiness: float
    max_concurrency: int | None
    warmup: int
    prompt_tokens: int
    prompts_file: str | None
    prompts: tuple[serving_prompts.Prompt, ...]
    max_tokens: int
    ignore_eos: bool
    timeout_s: float
    wait_s: float
    max_failures: int
    seed: int
    run_id: str
    host: str
    goals: Mapping[str, float] = field(default_factory=dict)
    slo: Mapping[str, float] = field(default_factory=dict)


def load_of(request: Request, rate: float) -> Load:
    """Return the schedule of one rate.

    Raises:
        InvalidInputError: it would be endless or too long.
    """
    closed = math.isinf(rate) and request.duration_s is not None and request.max_concurrency is not None
    offsets = None
    if not closed:
        offsets = serving_schedule.plan(rate, request.requests, request.duration_s, request.burstiness, request.seed)
        if not offsets:
            raise InvalidInputError(
                "plan the load",
                f"rate {serving_schedule.rate_text(rate)}",
                "no request falls into the time",
                "Give a longer duration, or requests",
            )
    return Load(offsets, request.duration_s, request.max_concurrency, request.max_failures)


def plan(request: Request) -> dict[str, Any]:
    """Return the document of a run that sends nothing."""
    planned = []
    for rate in request.rates:
        load = load_of(request, rate)
        offsets = load.offsets
        planned.append(
            {
                "request_rate": serving_schedule.rate_text(rate),
                "requests": len(offsets) if offsets is not None else None,
                "seconds": offsets[-1] if offsets else request.duration_s,
            }
        )
    return {**_head(request, request.model), "planned": planned, "points": [], **serving_goals.judge_run([])}


async def run(request: Request, client: Client) -> dict[str, Any]:
    """Benchmark the server and return the document.

    Raises:
        ProbeError: the server does not answer a first request.
        InvalidInputError: a rate cannot be planned.
    """
    loads = [load_of(request, rate) for rate in request.rates]
    raise_file_limit()
    try:
        model = request.model or await first_model(client, request.wait_s)
        query = Query(request.chat, model, request.max_tokens, request.ignore_eos)
        words, answer = await probe(client, query, request)
        query = replace(query, gives_reason=answer.finish_reason is not None)
        document = {**_head(request, model), "server": answer.server, "planned": [], "points": []}
        document["answered_as"] = answer.model
        document["prompts"]["words"] = words
        for rate, load in zip(request.rates, loads):
            point = await measure_rate(request, client, query, words, rate, load)
            point["notes"] += other_model(model, answer.model)
            document["points"].append(point)
            if point["failed"] >= request.max_failures or point["server_gone_after_s"] is not None:
                break
    finally:
        client.close()
    return {**document, **_judged(document["points"])}


async def first_model(client: Client, wait_s: float) -> str:
    """Return the name of the first model that the server offers."""
    answer = await _until_ready(client, "/models", None, wait_s)
    document = answer.json()
    models = document.get("data") if isinstance(document, dict) else None
    first = models[0].get("id") if isinstance(models, list) and models and isinstance(models[0], dict) else None
    if answer.error or not isinstance(first, str):
        cause = answer.detail if answer.error else "it lists no model"
        raise _silent(
            client,
            "find a model",
            answer.error,
            cause,
            "Name one in model" if not answer.error else ERRORS[answer.error],
        )
    return first


async def probe(client: Client, query: Query, request: Request) -> tuple[int | None, Answer]:
    """Send one request; return how many words make the wished prompt, and the answer.

    Raises:
        ProbeError: it is not answered in full.
    """
    prompt = next(_prompts(request, request.prompt_tokens, "probe"))
    answer = await _until_ready(client, query.path, query.body(prompt), request.wait_s)
    if answer.error:
        step = ERRORS[answer.error]
        # not for any 400: the same status says that the model is another one or the prompt too long
        if query.ignore_eos and "ignore_eos" in answer.detail:
            step = "Read the server's message; set ignore_eos to false for an engine that does not know it"
        raise _silent(client, "ask the model", answer.error, answer.detail, step)
    if request.prompts:
        return None, answer
    words = serving_prompts.words_for(request.prompt_tokens, prompt.words, answer.usage.get("prompt_tokens"))
    return words, answer


async def measure_rate(
    request: Request, client: Client, query: Query, words: int | None, rate: float, load: Load
) -> dict[str, Any]:
    """Warm up, offer one rate, return its numbers and their judgement."""
    name = serving_schedule.rate_text(rate)
    size = words or request.prompt_tokens
    concurrency = min(request.max_concurrency or request.warmup, request.warmup)
    cold = await warm_up(client, query, _prompts(request, size, f"warm {name}"), request.warmup, max(1, concurrency))
    begun = _now()
    offered = await offer(client, query, _prompts(request, size, f"rate {name}"), load)
    point = point_of(offered, name, request, load.offsets is not None and not math.isinf(rate))
    point["started_at"] = begun
    if cold:
        point["notes"].append(f"{cold} of {request.warmup} requests of the warm-up failed")
    return point


def point_of(offered: Offered, rate: str, request: Request, open_loop: bool) -> dict[str, Any]:
    """Return one operating point from what happened. Pure."""
    timelines = offered.timelines
    point: dict[str, Any] = {"request_rate": rate, "burstiness": _json_number(request.burstiness)}
    point["max_concurrency"] = request.max_concurrency
    point.update(serving_metrics.measure(timelines, offered.duration_s, request.slo))
    point["client_queue_time_ms"] = serving_metrics.queueing(timelines)
    point["errors"] = serving_metrics.errors(timelines)
    point["server_gone_after_s"] = serving_metrics.gone_after_s(timelines)
    point["client"] = {
        "schedule_lag_ms": serving_metrics.spread([entry.released_s - entry.planned_s for entry in timelines]),
        "loop_lag_ms": serving_metrics.spread(offered.loop_lag_s),
        "cpu_fraction": offered.cpu_fraction,
        "connections": offered.connections,
    }
    point["client"]["warnings"] = serving_goals.client_warnings(point["client"], open_loop)
    point["notes"] = notes(point, request)
    most = most_shown(timelines, request) if open_loop else {}
    point.update(serving_goals.judge_point(point, request.goals, most))
    return point


def notes(point: Mapping[str, Any], request: Request) -> list[str]:
    """Return what has to be known to read the numbers of one operating point."""
    found = []
    counted = point["tokens_counted_by"]
    if point["completed"] and counted["output"] != "usage":
        found.append(f"the server did not count every answer's tokens; they were counted by {counted['output']}")
    if point["tokens_per_piece"] and point["tokens_per_piece"] > 1.05:
        found.append(f"{point['tokens_per_piece']:.1f} tokens come at once, so ITL is the gap between such pieces")
    if (point["cached_input_tokens"] or 0) > 0.05 * point["total_input_tokens"]:
        share = point["cached_input_tokens"] / point["total_input_tokens"]
        found.append(f"{share:.0%} of the input came from the server's prefix cache: give another seed for a cold TTFT")
    mean = point["total_output_tokens"] / point["completed"] if point["completed"] else None
    own = any(prompt.max_tokens for prompt in request.prompts)
    # llama.cpp, for one, answers until its context is full and calls that a length too
    by_length = set(point["finish_reasons"]) == {"length"}
    short = mean is not None and not own and mean < 0.95 * request.max_tokens
    # where pieces are counted, a piece of two tokens is no early end
    if short and (counted["output"] == "usage" if by_length else request.ignore_eos):
        why = (
            "the server's context or a limit of its own ended them"
            if by_length
            else "the engine does not ignore the end"
        )
        found.append(f"answers ended after {mean:.0f} of {request.max_tokens} tokens: {why}")
    if request.prompts and point["completed"] + point["failed"] > len(request.prompts):
        found.append(f"the {len(request.prompts)} prompts were repeated; a prefix cache answers repetitions faster")
    return found


def other_model(asked: str, answered: str | None) -> list[str]:
    """Return a note where the server answers with another model than it was asked for: some serve any name."""
    if answered is None or answered == asked:
        return []
    return [f"the server answered as {answered}, whatever the name that was asked for"]


def merge(documents: Sequence[Mapping[str, Any]], broken_off: str | None = None) -> dict[str, Any]:
    """Return one document from the documents of single rates of one benchmark, judged as a whole.

    ``broken_off`` says why a further rate gave nothing: a server that stops answering in a sweep has failed.

    Raises:
        InvalidInputError: there is none, or they are of different servers, models or kinds.
    """
    if not documents or any(entry.get("kind") != KIND for entry in documents):
        raise InvalidInputError(
            "put the results together",
            "results",
            "they are no serving benchmarks",
            "Give what serving_benchmark returned",
        )
    for name in ("url", "model", "endpoint", "host"):
        values = sorted({str(entry[name]) for entry in documents})
        if len(values) > 1:
            cause = f"they differ in {name}: {', '.join(values)}"
            raise InvalidInputError("put the results together", "results", cause, "Give the rates of one benchmark")
    points = [point for entry in documents for point in entry["points"]]
    planned = [entry for document in documents for entry in document["planned"]]
    return {**documents[0], "planned": planned, "points": points, **_judged(points, broken_off)}


def most_shown(timelines: Sequence[Timeline], request: Request) -> dict[str, float]:
    """Return the throughputs that a server without any queue would have shown under this load. Pure.

    It could not have ended before the last request was planned and answered as quickly as the quickest one. Chance
    makes a short load smaller than its rate, and the wait for the last answers counts: neither is the server's fault.
    """
    good = [entry for entry in timelines if entry.ok]
    if not good:
        return {}
    sizes = [prompt.max_tokens or request.max_tokens for prompt in request.prompts] or [request.max_tokens]
    seconds = max(entry.planned_s for entry in timelines) + min(serving_metrics.e2el_s(entry) for entry in good)
    requests = len(timelines) / seconds
    output = requests * sum(sizes) / len(sizes)
    inputs = sum(entry.input_tokens or entry.input_words for entry in timelines)
    return {
        "request_throughput": requests,
        "request_goodput": requests,
        "output_throughput": output,
        "total_token_throughput": output + inputs / seconds,
    }


def _gone(point: Mapping[str, Any]) -> list[str]:
    seconds = point.get("server_gone_after_s")
    return [] if seconds is None else [f"nothing listened any more after the last answer at {seconds:.1f} s"]


def _judged(points: Sequence[Mapping[str, Any]], broken_off: str | None = None) -> dict[str, Any]:
    """Return the judgement of the run; a server that stopped answering has failed, whatever it showed before."""
    judged = serving_goals.judge_run(points)
    gone = [f"rate {point['request_rate']}: {words}" for point in points for words in _gone(point)]
    causes = [*gone, *([broken_off] if broken_off else [])]
    if causes:
        reasons = [*(f"broken off: {cause}" for cause in causes), *judged["reasons"]]
        judged = {**judged, "verdict": serving_goals.FAIL, "reasons": reasons}
    return judged


async def _until_ready(client: Client, path: str, body: Mapping[str, Any] | None, wait_s: float) -> Answer:
    until = clock() + wait_s
    while True:
        answer = await client.ask(path, body, stream=body is not None)
        loading = answer.error in _NOT_READY or answer.http_status == 503
        if answer.error is None or not loading or clock() >= until:
            return answer
        await asyncio.sleep(_PROBE_S)


def _prompts(request: Request, words: int, purpose: str) -> Iterator[serving_prompts.Prompt]:
    seed = f"{request.seed} {purpose}"
    if request.prompts:
        return serving_prompts.repeated(request.prompts, seed)
    return serving_prompts.random_prompts(words, seed)


def _head(request: Request, model: str | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "run_id": request.run_id,
        "host": request.host,
        "client_python": platform.python_version(),
        "started_at": _now(),
        "url": request.address.url,
        "endpoint": "chat" if request.chat else "completions",
        "model": model,
        "server": None,
        "answered_as": None,
        "prompts": {
            "file": request.prompts_file,
            "wished_tokens": None if request.prompts_file else request.prompt_tokens,
            "words": None,
        },
        "max_tokens": request.max_tokens,
        "ignore_eos": request.ignore_eos,
        "load": {
            "requests": None if request.duration_s else request.requests,
            "duration": request.duration_s,
            "burstiness": _json_number(request.burstiness),
            "max_concurrency": request.max_concurrency,
            "warmup": request.warmup,
            "request_timeout": request.timeout_s,
            "seed": request.seed,
        },
        "slo": dict(request.slo),
    }


def _silent(client: Client, action: str, kind: str | None, cause: str, step: str) -> ProbeError:
    return ProbeError(action, client.address.url, cause, step, found=kind)


def _json_number(value: float) -> float | str:
    return "inf" if math.isinf(value) else value


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
