# SPDX-License-Identifier: Apache-2.0
"""The suite as it runs on a GPU, with torch's own tensors on the CPU: only what belongs to CUDA is stood in for.

A captured graph is replayed by running its step again. So events, streams, memory and the goal's verdict go through the
same lines as on a card; what only a card can show (that a step can be captured, how fast it is) is in tests/gpu.
"""

from __future__ import annotations

import contextlib
import importlib
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from rackwright import llm_decode, llm_measure, llm_workloads, torch_bench, torch_llm
from rackwright.gpu_watch import Watch
from rackwright.llm_decode import Decoder
from rackwright.torch_bench import Bench

torch: Any = importlib.import_module("torch")
#: For torch a name of the CPU, for the suite the name of a GPU.
DEVICE = "cpu:0"
TINY = llm_workloads.find("tiny")
SLOT, TOTAL, BASE = llm_workloads.slot_bytes(TINY), 1_000_000, 300_000


class Traced(Decoder):
    """Remembers the last step, which a capture then belongs to."""

    last: Any = None

    def step(self, width: int) -> Any:
        Traced.last = (weakref.proxy(self), width)
        return super().step(width)


class Graph:
    """Replays by decoding again."""

    work: Any = None
    replays = 0

    def replay(self) -> None:
        Graph.replays += 1
        decoder, width = self.work
        Decoder.step(decoder, width)


class Event:
    """A moment on the host's clock."""

    def __init__(self, enable_timing: bool) -> None:
        self.moment = 0.0

    def record(self) -> None:
        self.moment = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return (end.moment - self.moment) * 1e3


class Cuda:
    """Memory grows by the slots that are held."""

    CUDAGraph, Event = Graph, Event

    def __init__(self, refuse_capture: bool = False, fits: int = 1000) -> None:
        self.refuse_capture, self.fits = refuse_capture, fits
        self.decoders: Any = weakref.WeakSet()

    @property
    def held(self) -> int:
        """Slots that exist: nothing that was dropped is counted."""
        return sum(decoder.batch for decoder in self.decoders)

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    def current_stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    def stream(self, one: Any) -> Any:
        return contextlib.nullcontext()

    def synchronize(self, device: str | None = None) -> None:
        pass

    def graph_pool_handle(self) -> int:
        return 1

    @contextlib.contextmanager
    def graph(self, graph: Graph, pool: int, stream: Any) -> Iterator[None]:
        assert pool == 1
        if self.refuse_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield
        graph.work = Traced.last

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return TOTAL - BASE - self.held * SLOT, TOTAL

    def reset_peak_memory_stats(self, device: str) -> None:
        pass

    def max_memory_reserved(self, device: str) -> int:
        return self.held * SLOT

    def empty_cache(self) -> None:
        pass


class Meter:
    """Ten joules each time it is asked."""

    def __init__(self) -> None:
        self.joules = 0.0

    def energy_j(self) -> float:
        self.joules += 10.0
        return self.joules

    def used_bytes(self) -> None:
        return None

    def total_bytes(self) -> None:
        return None


def run(cuda: Cuda, meter: Any = None, level: str = "quick", **options: Any) -> list[dict[str, Any]]:
    """Every result up to the summary, with decoders that report the memory they hold."""
    proxy = SimpleNamespace(**{**vars(torch), "cuda": cuda, "nn": torch.nn})
    info = {"name": "a card", "compute_capability": [9, 0]}
    peak = {"bandwidth_gbps": 100.0, "tflops": {"bf16": 10.0}, "derived": []}
    bench = Bench(proxy, DEVICE, level, 1, info, Watch(None, "no NVML"), meter=meter, peak=peak)
    bench.options = {"llm_workload": "tiny", **options}

    def held(torch_given: Any, model: Any, workload: Any, batch: int, device: str, dtype: Any) -> Decoder:
        if batch > cuda.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 MiB")
        decoder = Traced(torch_given, model, workload, batch, device, dtype)
        cuda.decoders.add(decoder)
        return decoder

    places: Any = (llm_measure, torch_llm)
    collecting: Any = torch_bench
    effort, collector = llm_workloads.EFFORT, collecting.gc
    # memory that only the collector could free would show up as slots that are still held
    collecting.gc = SimpleNamespace(collect=lambda: 0)
    for place in places:
        place.Decoder = held
    llm_workloads.EFFORT = {level: llm_workloads.Effort(30, 5, 1e6)}
    try:
        found = []
        for one in torch_llm.llm_inference_suite(bench):
            found.append(one)
            if one["name"].startswith("llm_goal"):
                break
        return found
    finally:
        Traced.last = None
        llm_workloads.EFFORT, collecting.gc = effort, collector
        for place in places:
            place.Decoder = Decoder


def batches(found: list[dict[str, Any]]) -> list[int]:
    return [one["details"]["batch"] for one in found[:-1]]


def test_slots_fill_eighty_percent_and_every_point_is_replayed_from_graphs() -> None:
    Graph.replays = 0
    found = run(Cuda(), Meter(), "standard", llm_goal={"tokens_per_s": 1})
    most = int((0.8 * TOTAL - BASE) // SLOT)
    assert batches(found) == [1, 2, 4, 8, 16, most]
    for one in found[:-1]:
        details = one["details"]
        assert (details["graphs"], details["graphs_missing"]) == (True, None)
        assert details["peak_vram_fraction"] == (BASE + details["batch"] * SLOT) / TOTAL <= 0.8
        assert details["memory_source"] == "cuda"
        assert details["itl_ms"]["samples"] == 30
        assert details["j_per_token"] == 10.0 / (30 * details["batch"])
        assert details["regime"] in ("memory", "compute")
        assert 0 < details["roofline_fraction"] == max(details["mbu"], details["mfu"])
        assert set(details["missing"]) == set()
    assert Graph.replays >= 6 * 30
    goal = found[-1]["details"]
    assert goal["verdict"] == "pass"
    assert goal["point"]["output_tokens_per_s"] == found[-1]["value"]
    assert "may stay in the card's cache" in goal["ceiling"]["reason"]


def test_without_captures_the_numbers_come_from_single_launches_and_say_so() -> None:
    found = run(Cuda(refuse_capture=True), llm_goal={"tokens_per_s": 1e9})
    for one in found[:-1]:
        details = one["details"]
        assert not details["graphs"]
        assert "not permitted when stream is capturing" in details["graphs_missing"]
        assert details["output_tokens_per_s"] > 0
        assert details["missing"] == {"j_per_token": "NVML counts no energy of this GPU"}
    assert "without CUDA graphs" in found[0]["details"]["hint"]
    assert found[-1]["details"]["verdict"] == "fail"


def test_a_batch_that_does_not_fit_costs_only_itself() -> None:
    found = run(Cuda(fits=20))
    assert batches(found) == [1, 8, 19]
    assert found[-1]["details"]["points"] == 3


def test_a_goal_of_less_memory_has_fewer_slots() -> None:
    assert batches(run(Cuda(), llm_goal={"vram_fraction": 0.4}))[-1] == int((0.4 * TOTAL - BASE) // SLOT)


def test_a_replayed_step_decodes_what_an_eager_one_decodes() -> None:
    proxy = SimpleNamespace(**{**vars(torch), "cuda": Cuda(), "nn": torch.nn})
    model = torch_llm.llm_model.build(torch, TINY.shape, "cpu", torch.float32, 3, positions=TINY.slot)
    prompts = torch.randint(0, 256, (3, TINY.prompt), generator=torch.Generator().manual_seed(1))
    answers = []
    for graphs in (False, True):
        decoder = Traced(proxy, model, TINY, 3, DEVICE, torch.float32)
        decoder.use(llm_decode.kernels(torch, on_gpu=False)[0])
        if graphs:
            for width in decoder.widths:
                decoder.prepare(width)
            assert decoder.graphs
        decoder.fill(prompts)
        tokens = []
        for length in range(TINY.prompt + 1, TINY.prompt + TINY.output):
            decoder.advance(decoder.width_at(length))
            tokens.append(decoder.tokens.tolist())
        answers.append(tokens)
    assert answers[0] == answers[1]
