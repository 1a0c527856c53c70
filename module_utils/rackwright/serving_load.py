# SPDX-License-Identifier: Apache-2.0
"""Offer one load to the server and note what happened: open loop, so a slow server does not slow the arrivals down.

A client that waits for an answer before it sends the next request measures fewer requests exactly when the server is
slow (coordinated omission). Here a request is sent when the schedule says; only ``max_concurrency`` holds one back, and
that wait is kept apart.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .serving_answer import Answer
from .serving_client import Client, clock
from .serving_prompts import Prompt, body
from .serving_timeline import Timeline

_HEARTBEAT_S = 0.02


@dataclass(frozen=True)
class Query:
    """What every request has in common.

    ``gives_reason``: the server says why an answer ended, so one that ends without a reason was broken off.
    """

    chat: bool
    model: str
    max_tokens: int
    ignore_eos: bool
    gives_reason: bool = False

    @property
    def path(self) -> str:
        """The endpoint below the prefix of the API."""
        return "/chat/completions" if self.chat else "/completions"

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The body of a request with this prompt."""
        return body(prompt, self.chat, self.model, self.max_tokens, self.ignore_eos)


@dataclass(frozen=True)
class Load:
    """One operating point.

    Attributes:
        offsets: when requests are planned, seconds from the begin; None: as soon as a place is free (closed loop).
        duration_s: when a closed loop stops sending.
        max_concurrency: requests at once, None for no limit.
        max_failures: failures after which nothing more is sent.
    """

    offsets: Sequence[float] | None
    duration_s: float | None
    max_concurrency: int | None
    max_failures: int


@dataclass
class Offered:
    """What came of a load: the timelines, how long it took, and what it cost the client.

    Attributes:
        loop_lag_s: how late the event loop was at each beat of a clock of 20 ms: the error of every time noted.
        cpu_fraction: CPU seconds of this process per second; near 1 the client is the bottleneck.
    """

    timelines: list[Timeline] = field(default_factory=list)
    duration_s: float = 0.0
    loop_lag_s: list[float] = field(default_factory=list)
    cpu_fraction: float = 0.0
    connections: int = 0


def raise_file_limit() -> int:
    """Let this process open as many connections as the hard limit allows; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def warm_up(client: Client, query: Query, prompts: Iterator[Prompt], count: int, concurrency: int) -> int:
    """Send ``count`` requests that are not counted; return how many failed."""
    gate = asyncio.Semaphore(concurrency)

    async def one(prompt: Prompt) -> bool:
        async with gate:
            answer = await client.ask(query.path, query.body(prompt))
        return answer.error is None

    answered = await asyncio.gather(*(one(prompt) for prompt in itertools.islice(prompts, count)))
    return answered.count(False)


async def offer(client: Client, query: Query, prompts: Iterator[Prompt], load: Load) -> Offered:
    """Send everything that ``load`` plans, wait for every answer, return what happened."""
    run = _Run(client, query, load)
    gc.collect()
    gc.freeze()  # a collection over a million prompts in the middle of the load would be seen as latency
    beat = asyncio.ensure_future(run.beat())
    cpu, opened = time.process_time(), client.opened
    run.begin = clock()
    try:
        await run.send(prompts)
        run.offered.duration_s = clock() - run.begin
    finally:
        beat.cancel()
        gc.unfreeze()
    if run.offered.duration_s > 0:
        run.offered.cpu_fraction = (time.process_time() - cpu) / run.offered.duration_s
    run.offered.connections = client.opened - opened
    return run.offered


def broken_off(answer: Answer, query: Query) -> str | None:
    """Return why an answer that looks whole is none, or None. Pure.

    A server that drops a request for a newer one (llama-cpp-python with ``interrupt_requests``) ends the stream with
    ``[DONE]`` like any other. Taken for an answer, it would be the quickest of all.
    """
    if answer.error not in (None, "no_tokens") or answer.finish_reason is not None or not query.gives_reason:
        return None
    return f"the stream ended after {len(answer.token_s)} pieces without a reason: the server broke the answer off"


class _Run:
    """State of one load while it runs."""

    def __init__(self, client: Client, query: Query, load: Load) -> None:
        self.client = client
        self.query = query
        self.load = load
        self.offered = Offered()
        self.begin = 0.0
        self._failures = 0
        self._gate = asyncio.Semaphore(load.max_concurrency) if load.max_concurrency else None

    @property
    def _stopped(self) -> bool:
        return self._failures >= self.load.max_failures

    def _now(self) -> float:
        return clock() - self.begin

    async def send(self, prompts: Iterator[Prompt]) -> None:
        """Send on schedule and wait for the last answer."""
        tasks: list[asyncio.Future[None]] = []
        work = self._open_loop if self.load.offsets is not None else self._closed_loop
        await work(prompts, lambda coroutine: tasks.append(asyncio.ensure_future(coroutine)))
        if tasks:
            await asyncio.gather(*tasks)

    async def _open_loop(self, prompts: Iterator[Prompt], start: Callable[..., None]) -> None:
        for index, (offset, prompt) in enumerate(zip(self.load.offsets or (), prompts)):
            wait = offset - self._now()
            # even without a wait the event loop gets its turn: a late client must not stop reading
            await asyncio.sleep(max(0.0, wait))
            timeline = self._timeline(index, offset, prompt)
            start(self._gated(timeline, prompt))

    async def _closed_loop(self, prompts: Iterator[Prompt], start: Callable[..., None]) -> None:
        assert self._gate is not None
        for index, prompt in enumerate(prompts):
            await self._gate.acquire()
            if self._stopped or self._now() >= (self.load.duration_s or 0.0):
                return
            start(self._released(self._timeline(index, self._now(), prompt), prompt))

    def _timeline(self, index: int, planned: float, prompt: Prompt) -> Timeline:
        timeline = Timeline(index, planned, released_s=self._now(), input_words=prompt.words)
        self.offered.timelines.append(timeline)
        return timeline

    async def _gated(self, timeline: Timeline, prompt: Prompt) -> None:
        if self._gate is None:
            await self._one(timeline, prompt)
            return
        async with self._gate:
            await self._one(timeline, prompt)

    async def _released(self, timeline: Timeline, prompt: Prompt) -> None:
        assert self._gate is not None
        try:
            await self._one(timeline, prompt)
        finally:
            self._gate.release()

    async def _one(self, timeline: Timeline, prompt: Prompt) -> None:
        timeline.start_s = self._now()
        if self._stopped:
            timeline.error, timeline.detail = "not_sent", "the load had been stopped"
            timeline.end_s = timeline.start_s
            return
        answer = await self.client.ask(self.query.path, self.query.body(prompt))
        cause = broken_off(answer, self.query)
        if cause:
            answer.error, answer.detail = "broken_stream", cause
        timeline.token_s = [moment - self.begin for moment in answer.token_s]
        timeline.end_s = self._now() if answer.error else answer.end_s - self.begin
        timeline.input_tokens = answer.usage.get("prompt_tokens")
        timeline.output_tokens = answer.usage.get("completion_tokens")
        timeline.cached_tokens = answer.usage.get("cached_tokens")
        timeline.finish_reason = answer.finish_reason
        timeline.error, timeline.detail, timeline.http_status = answer.error, answer.detail, answer.http_status
        if answer.error:
            self._failures += 1

    async def beat(self) -> None:
        """Note how late the event loop is, again and again."""
        while True:
            due = clock() + _HEARTBEAT_S
            await asyncio.sleep(_HEARTBEAT_S)
            self.offered.loop_lag_s.append(max(0.0, clock() - due))
