# SPDX-License-Identifier: Apache-2.0
"""What happens around the measurement: captures that fail, kernels that do not run, batches that do not fit.

On stand-ins: none of it can be had from a CPU, and all of it must leave a number or a reason.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ansible.module_utils.rackwright import llm_measure, llm_workloads, torch_llm
from ansible.module_utils.rackwright.gpu_watch import Watch
from ansible.module_utils.rackwright.llm_decode import WARMUP_STEPS, Decoder, Kernel, is_out_of_memory, kernels
from ansible.module_utils.rackwright.llm_goal import Goal
from ansible.module_utils.rackwright.llm_measure import Session
from ansible.module_utils.rackwright.llm_metrics import Peaks, Weights
from ansible.module_utils.rackwright.torch_bench import Bench, NotEnoughMemoryError

MHA = llm_workloads.find("llama2-7b-mha")
GIB = 1 << 30


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


class FakeTensor:
    """Knows only where the sequences were put."""

    def __init__(self) -> None:
        self.value = 0

    def fill_(self, value: int) -> None:
        self.value = value


class FakeGraph:
    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


class FakeCuda:
    """Streams that only write down what they are asked; a capture that works or raises what it is told."""

    def __init__(self, log: list[str], failure: Exception | None = None) -> None:
        self.log, self.failure = log, failure
        self.used, self.total = 10 * GIB, 80 * GIB
        self.CUDAGraph = FakeGraph
        self.pools = 0

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.log.append("side waits"))

    def current_stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.log.append("main waits"))

    def stream(self, one: Any) -> Any:
        return contextlib.nullcontext()

    def synchronize(self, device: str | None = None) -> None:
        self.log.append("sync")

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: Any) -> Iterator[None]:
        self.log.append("capture")
        yield
        if self.failure is not None:
            raise self.failure

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return self.total - self.used, self.total

    def empty_cache(self) -> None:
        self.log.append("empty")


class FakeTorch:
    int64 = bfloat16 = "type"

    def __init__(self, failure: Exception | None = None, backends: tuple[str, ...] = ()) -> None:
        self.log: list[str] = []
        self.cuda = FakeCuda(self.log, failure)

        def sdpa() -> None:
            """Attention with enable_gqa."""

        self.nn = SimpleNamespace(functional=SimpleNamespace(scaled_dot_product_attention=sdpa))
        if backends:
            kinds = SimpleNamespace(**{name: name for name in backends})
            self.nn.attention = SimpleNamespace(SDPBackend=kinds, sdpa_kernel=lambda kind: f"with {kind}")

    def zeros(self, *size: Any, device: str, dtype: Any) -> FakeTensor:
        return FakeTensor()

    def arange(self, count: int, device: str) -> FakeTensor:
        return FakeTensor()

    def full(self, size: Any, value: float, device: str, dtype: Any) -> FakeTensor:
        return FakeTensor()


class FakeDecoder(Decoder):
    """A decoder whose eager step only counts, and moves on as the real one does."""

    steps = 0

    def step(self, width: int) -> None:
        self.steps += 1
        self.position.value += 1
        assert self.position.value <= self.workload.slot, "a write outside the cache"


def decoder(torch: FakeTorch, device: str = "cuda:0") -> FakeDecoder:
    return FakeDecoder(torch, None, MHA, 4, device, "bfloat16")


def test_a_step_is_warmed_up_on_a_side_stream_captured_and_replayed() -> None:
    torch = FakeTorch()
    found = decoder(torch)
    found.prepare(640)
    assert torch.log == ["side waits", "main waits", "sync", "capture"]
    assert found.steps == WARMUP_STEPS + 1
    assert found.graphs
    found.advance(640)
    assert found.steps == WARMUP_STEPS + 1, "a captured step must not run eagerly"
    assert found._graphs[640].replays == 1
    found.advance(704)  # no graph of this width
    assert found.steps == WARMUP_STEPS + 2


def test_all_widths_share_one_pool_and_another_kernel_starts_anew() -> None:
    torch = FakeTorch()
    found = decoder(torch)
    for width in found.widths:
        found.prepare(width)
    assert torch.cuda.pools == 1
    assert sorted(found._graphs) == found.widths
    found.use(kernels(torch, on_gpu=True)[0])
    assert not found.graphs
    found.prepare(640)
    assert torch.cuda.pools == 2


def test_a_capture_that_fails_leaves_eager_steps_and_a_reason() -> None:
    torch = FakeTorch(RuntimeError("operation not permitted when stream is capturing"))
    found = decoder(torch)
    found.prepare(640)
    assert not found.graphs
    assert found.graphs_missing == "capture failed: RuntimeError: operation not permitted when stream is capturing"
    before = found.steps
    found.advance(640)
    assert found.steps == before + 1
    found.prepare(704)
    assert torch.log.count("capture") == 1, "it is not tried again"


def test_a_capture_that_needs_too_much_memory_is_no_reason_to_go_on() -> None:
    found = decoder(FakeTorch(OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    with pytest.raises(OutOfMemoryError):
        found.prepare(640)
    assert found.graphs_missing is None


def test_a_cpu_has_no_graphs_and_says_so() -> None:
    torch = FakeTorch()
    found = decoder(torch, "cpu")
    found.prepare(640)
    assert (found.graphs, found.graphs_missing, torch.log) == (False, "the device is a CPU", [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("Tried to allocate"), True),
        (RuntimeError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("no"), False),
    ],
)
def test_what_says_that_memory_is_used_up(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("backends", "on_gpu", "names"),
    [
        ((), True, ["sdpa", "matmul"]),  # torch before 2.3
        (("EFFICIENT_ATTENTION",), True, ["matmul", "sdpa:efficient"]),  # before 2.5
        (("EFFICIENT_ATTENTION", "CUDNN_ATTENTION"), True, ["matmul", "sdpa:cudnn", "sdpa:efficient"]),
        (("EFFICIENT_ATTENTION", "CUDNN_ATTENTION"), False, ["sdpa", "matmul"]),
    ],
)
def test_the_ways_of_attention_are_those_of_this_torch(backends: Any, on_gpu: bool, names: list[str]) -> None:
    found = kernels(FakeTorch(backends=backends), on_gpu)
    assert [one.name for one in found] == names
    for one in found:
        if ":" in one.name:
            assert one.context() == f"with {one.name.split(':')[1].upper()}_ATTENTION"


class TrialDecoder:
    """Takes as long, by a clock that is moved by hand, as its kernel says; or does not run at all."""

    widths = (576, 640)
    workload = MHA

    def __init__(self, clock: list[float], seconds: dict[str, float | Exception]) -> None:
        self.clock, self.seconds, self.kernel = clock, seconds, Kernel("none", print)

    def use(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def prepare(self, width: int) -> None:
        assert width == 640, "the widest window decides"
        found = self.seconds[self.kernel.name]
        if isinstance(found, Exception):
            raise found

    def start(self, length: int) -> None:
        assert length == MHA.prompt

    def advance(self, width: int) -> None:
        self.clock[0] += float(self.seconds[self.kernel.name])  # type: ignore[arg-type]


def chosen(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float | Exception]) -> tuple[Any, Any, Any]:
    clock = [0.0]
    monkeypatch.setattr(llm_measure.time, "perf_counter", lambda: clock[0])
    trial = TrialDecoder(clock, seconds)
    candidates = [Kernel(name, print) for name in seconds]
    tried, step_s = llm_measure.choose(trial, lambda: None, candidates)
    return tried, step_s, trial.kernel.name


def test_the_fastest_way_that_runs_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    none = RuntimeError("No available kernel.\nAborting execution.")
    tried, step_s, name = chosen(monkeypatch, {"a": 0.03, "b": none, "c": 0.02, "d": OutOfMemoryError("x")})
    assert (name, step_s) == ("c", pytest.approx(0.02))
    assert tried["b"] == "RuntimeError: No available kernel. Aborting execution."
    assert tried["d"] == "OutOfMemoryError: x"
    assert tried["a"] == pytest.approx(0.03)


def test_when_no_way_runs_the_last_reason_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfMemoryError, match="too much"):
        chosen(monkeypatch, {"a": RuntimeError("no"), "b": OutOfMemoryError("too much")})
    with pytest.raises(ValueError, match="no way of attention"):
        chosen(monkeypatch, {})


class FakeMeter:
    """NVML's view of the card."""

    def __init__(self, used: int | None, total: int | None) -> None:
        self.used, self.total = used, total

    def used_bytes(self) -> int | None:
        return self.used

    def total_bytes(self) -> int | None:
        return self.total

    def energy_j(self) -> float | None:
        return None


def bench(torch: Any, meter: Any = None, level: str = "standard", **more: Any) -> Bench:
    info = {"name": "x", "compute_capability": [9, 0]}
    return Bench(torch, "cuda:0", level, 1, info, Watch(None, "no NVML"), meter=meter, **more)


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        (None, (10 * GIB, 80 * GIB, "cuda")),
        (FakeMeter(12 * GIB, 81 * GIB), (12 * GIB, 81 * GIB, "nvml")),
        (FakeMeter(None, 81 * GIB), (10 * GIB, 80 * GIB, "cuda")),
        (FakeMeter(12 * GIB, None), (10 * GIB, 80 * GIB, "cuda")),
        # NVML speaks of the whole card, this process was given a part of it
        (FakeMeter(12 * GIB, 160 * GIB), (10 * GIB, 80 * GIB, "cuda")),
    ],
)
def test_memory_is_nvmls_unless_it_speaks_of_something_else(meter: Any, expected: Any) -> None:
    assert llm_measure.memory_now(bench(FakeTorch(), meter)) == expected


def test_intervals_on_a_gpu_are_between_chained_events_read_after_one_synchronisation() -> None:
    torch: Any = FakeTorch()
    log = torch.log

    class Event:
        made = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.number, Event.made = Event.made, Event.made + 1

        def record(self) -> None:
            log.append(f"e{self.number}")

        def elapsed_time(self, end: Any) -> float:
            assert "sync" in log
            return 10.0 * end.number

    torch.cuda.Event = Event
    found = llm_measure.intervals(bench(torch), [lambda: log.append("step")] * 3)
    assert log == ["e0", "step", "e1", "step", "e2", "step", "e3", "sync"]
    assert found == [0.01, 0.02, 0.03]


SLOT = llm_workloads.slot_bytes(MHA)


def session(torch: Any = None) -> Session:
    return Session(bench(torch or FakeTorch()), None, MHA, "bfloat16", Weights(13.5e9, 13.2e9), Peaks())


def measured(fits: int, used: Callable[[int], int] = lambda batch: 0) -> tuple[Any, list[int]]:
    """A measurement that runs out of memory above ``fits`` sequences and uses so many bytes."""
    asked: list[int] = []

    def measure(_: Session, batch: int, budget_s: float) -> dict[str, Any]:
        asked.append(batch)
        assert budget_s >= 0
        if batch > fits:
            raise OutOfMemoryError("CUDA out of memory")
        return {"details": {"batch": batch, "peak_used_bytes": used(batch), "memory_total_bytes": 80 * GIB}}

    return measure, asked


def swept(most: int, measure: Any) -> list[int]:
    found = torch_llm.sweep(session(), most, Goal(), time.monotonic() + 1, measure)
    return [result["details"]["batch"] for result in found]


@pytest.mark.parametrize(
    ("most", "fits", "asked", "measured_at"),
    [
        (100, 100, [1, 2, 4, 8, 16, 32, 64, 100], [1, 2, 4, 8, 16, 32, 64, 100]),
        (100, 90, [1, 2, 4, 8, 16, 32, 64, 100, 82], [1, 2, 4, 8, 16, 32, 64, 82]),
        (100, 70, [1, 2, 4, 8, 16, 32, 64, 100, 82, 73, 68], [1, 2, 4, 8, 16, 32, 64, 68]),
        # what does not fit at 8 does not fit at 100 either
        (100, 5, [1, 2, 4, 8, 6, 5], [1, 2, 4, 5]),
        (1, 1, [1], [1]),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_towards_the_last_that_did(
    most: int, fits: int, asked: list[int], measured_at: list[int]
) -> None:
    measure, tried = measured(fits)
    assert swept(most, measure) == measured_at
    assert tried == asked


def test_when_not_even_one_sequence_fits_that_is_the_error() -> None:
    measure, tried = measured(0)
    with pytest.raises(OutOfMemoryError):
        swept(100, measure)
    assert tried == [1]


def test_any_other_failure_ends_the_sweep_and_keeps_what_was_measured() -> None:
    def measure(_: Session, batch: int, budget_s: float) -> dict[str, Any]:
        if batch == 4:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return {"details": {"batch": batch}}

    found = torch_llm.sweep(session(), 8, Goal(), time.monotonic(), measure)
    assert [next(found)["details"]["batch"] for _ in range(2)] == [1, 2]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        next(found)


def test_a_largest_batch_above_the_memory_of_the_goal_is_followed_by_one_that_keeps_it() -> None:
    limit = int(0.8 * 80 * GIB)
    measure, tried = measured(100, used=lambda batch: limit + (batch - 97) * SLOT + 1)
    assert swept(100, measure)[-2:] == [100, 96]
    assert tried[-1] == 96
    # and no third time, whatever is used then
    measure, tried = measured(100, used=lambda batch: limit + SLOT)
    assert swept(100, measure)[-2:] == [100, 99]


def test_memory_is_given_back_between_operating_points() -> None:
    torch = FakeTorch()
    measure, _ = measured(2)
    found = torch_llm.sweep(session(torch), 4, Goal(), time.monotonic(), measure)
    assert [result["details"]["batch"] for result in found] == [1, 2]
    assert torch.log.count("empty") == 4  # 1, 2, 4 and 3


class PlanDecoder:
    """Uses memory as a real one does: its slots, and what prompts take beside them."""

    def __init__(self, torch: Any, model: Any, workload: Any, batch: int, device: str, dtype: Any) -> None:
        self.torch, self.batch = torch, batch

    def fill(self, prompts: Any) -> None:
        self.torch.cuda.used += self.batch * SLOT + GIB


@pytest.mark.parametrize(("used_gib", "most"), [(14, 98), (62.4, 1), (40, 46)])
def test_slots_fill_the_goals_part_of_what_is_left(monkeypatch: pytest.MonkeyPatch, used_gib: float, most: int) -> None:
    monkeypatch.setattr(torch_llm, "Decoder", PlanDecoder)
    torch = FakeTorch()
    torch.cuda.used = int(used_gib * GIB)
    assert torch_llm.most_sequences(session(torch), Goal()) == most


def test_memory_that_others_use_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_llm, "Decoder", PlanDecoder)
    torch = FakeTorch()
    torch.cuda.used = 63 * GIB
    with pytest.raises(NotEnoughMemoryError, match="in use without any sequence"):
        torch_llm.most_sequences(session(torch), Goal())


def test_a_card_too_small_for_the_weights_is_judged_without_building_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch()
    torch.cuda.total = 12 * GIB
    options = {"llm_workload": "llama2-7b-mha"}
    monkeypatch.setattr(torch_llm, "quantised_points", lambda session, points: [])
    (only,) = torch_llm.llm_inference_suite(bench(torch, options=options, peak_missing="not in the catalogue"))
    assert (only["name"], only["value"]) == ("llm_goal_llama2-7b-mha", 0.0)
    assert only["details"]["verdict"] == "unattainable"
    assert "weights of 13.5 GB" in only["details"]["reason"]
    assert only["details"]["point"] is None
