# SPDX-License-Identifier: Apache-2.0
"""Steps as CUDA graphs and the ways of attention, on stand-ins: what fails must leave a reason and go on."""

from __future__ import annotations

from typing import Any

import pytest
from unit.llm_fakes import GIB, FakeMeter, FakeTorch, OutOfMemoryError, bench

from ansible.module_utils.rackwright import llm_measure, llm_workloads
from ansible.module_utils.rackwright.benchmark_errors import is_out_of_memory
from ansible.module_utils.rackwright.llm_decode import WARMUP_STEPS, Decoder, Kernel, kernels

MHA = llm_workloads.find("llama2-7b-mha")


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
    found.graphs_missing = "capture failed: the last kernel's own fault"
    found.use(kernels(torch, on_gpu=True)[0])
    assert not found.graphs
    assert found.graphs_missing is None
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
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
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

    def __init__(self, clock: list[float], seconds: dict[str, float | Exception], wrong: dict[str, float]) -> None:
        self.clock, self.seconds, self.wrong, self.kernel = clock, seconds, wrong, Kernel("none", print)

    def use(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def prepare(self, width: int) -> None:
        assert width == 640, "the widest window decides"
        found = self.seconds[self.kernel.name]
        if isinstance(found, Exception):
            raise found

    def start(self, length: int) -> None:
        assert length == MHA.prompt

    def difference(self, kernel: Kernel, width: int) -> float:
        assert (kernel.name, width) == (self.kernel.name, 640)
        return self.wrong.get(kernel.name, 0.002)

    def advance(self, width: int) -> None:
        self.clock[0] += float(self.seconds[self.kernel.name])  # type: ignore[arg-type]


def chosen(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float | Exception], **wrong: float
) -> tuple[Any, Any, Any]:
    clock = [0.0]
    monkeypatch.setattr(llm_measure.time, "perf_counter", lambda: clock[0])
    trial = TrialDecoder(clock, seconds, wrong)
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


@pytest.mark.parametrize("difference", [0.33, float("nan")])
def test_a_fast_way_that_gives_another_answer_is_not_used(monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    tried, _, name = chosen(monkeypatch, {"a": 0.03, "b": 0.01}, b=difference)
    assert name == "a"
    assert str(tried["b"]).startswith("WrongAnswerError: attention differs by")


def test_all_decoders_of_a_device_capture_on_one_stream() -> None:
    torch = FakeTorch()
    for _ in range(3):
        decoder(torch).prepare(640)
    assert torch.cuda.streams == 1
    assert len(set(torch.cuda.captured_on)) == 1


def test_when_no_way_runs_the_last_reason_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfMemoryError, match="too much"):
        chosen(monkeypatch, {"a": RuntimeError("no"), "b": OutOfMemoryError("too much")})
    with pytest.raises(ValueError, match="no way of attention"):
        chosen(monkeypatch, {})


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
    found = bench(torch).intervals([lambda: log.append("step")] * 3)
    assert log == ["e0", "step", "e1", "step", "e2", "step", "e3", "sync"]
    assert found == [0.01, 0.02, 0.03]
