# SPDX-License-Identifier: Apache-2.0
"""Which batches are measured when memory runs out, on stand-ins: none of it can be had from a CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
from unit.llm_fakes import GIB, FakeTorch, OutOfMemoryError, bench

from ansible.module_utils.rackwright import llm_measure, llm_workloads, torch_llm
from ansible.module_utils.rackwright.llm_goal import Goal
from ansible.module_utils.rackwright.llm_measure import Session
from ansible.module_utils.rackwright.llm_metrics import Peaks, Weights
from ansible.module_utils.rackwright.torch_bench import Bench, NotEnoughMemoryError

MHA = llm_workloads.find("llama2-7b-mha")
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


class FillDecoder:
    """Computes each group of prompts in a second of a clock that is moved by hand."""

    def __init__(self, batch: int, clock: list[float]) -> None:
        self.batch, self.group, self.clock = batch, 8, clock
        self.computed: list[tuple[int, int]] = []
        self.copied: int | None = None

    def prefill(self, prompts: list[int], row: int) -> None:
        assert prompts == list(range(row, min(row + 8, self.batch)))
        self.computed.append((row, len(prompts)))
        self.clock[0] += 1.0

    def repeat(self, rows: int) -> None:
        self.copied = rows


@pytest.mark.parametrize(
    ("batch", "seconds", "computed", "batch_s"),
    [
        (1, 10.0, 1, 1.0),
        (20, 10.0, 20, 3.0),
        (100, 3.5, 24, 12.5),  # three groups fit; a hundred prompts take 3 s * 100 / 24
        (100, 0.0, 8, 12.5),
    ],
)
def test_a_large_batch_is_filled_with_copies_and_its_time_is_in_proportion(
    monkeypatch: pytest.MonkeyPatch, batch: int, seconds: float, computed: int, batch_s: float
) -> None:
    clock = [0.0]
    monkeypatch.setattr(llm_measure.time, "perf_counter", lambda: clock[0])
    filled, timed = FillDecoder(batch, clock), llm_measure._Timed()
    llm_measure._fill(bench(FakeTorch()), filled, list(range(batch)), timed, seconds)
    assert sum(number for _, number in filled.computed) == timed.prompts == filled.copied == computed
    assert timed.batch_prefill_s == pytest.approx(batch_s)


class PlanDecoder:
    """Uses memory as a real one does: its slots, and what prompts take beside them."""

    widths = (576, 640)

    def prepare(self, width: int) -> None:
        assert width == 640, "the widest graph needs most"

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


@pytest.mark.parametrize(("fits", "tried"), [(8, [8]), (4, [8, 4]), (1, [8, 4, 2, 1]), (0, [8, 4, 2, 1])])
def test_a_group_of_prompts_that_does_not_fit_is_halved(
    monkeypatch: pytest.MonkeyPatch, fits: int, tried: list[int]
) -> None:
    groups: list[int] = []

    def made(torch: Any, model: Any, workload: Any, batch: int, device: str, dtype: Any) -> Any:
        groups.append(batch)
        if batch > fits:
            raise OutOfMemoryError("CUDA out of memory")
        return PlanDecoder(torch, model, workload, batch, device, dtype)

    monkeypatch.setattr(torch_llm, "Decoder", made)
    with contextlib.nullcontext() if fits else pytest.raises(NotEnoughMemoryError, match="not even one"):
        # beside 10 GiB in use and 1 GiB for prompts
        assert torch_llm.most_sequences(session(FakeTorch()), Goal()) == 106
    assert groups == tried


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
    monkeypatch.setattr(torch_llm, "quantised_points", lambda session, points, until: [])
    (only,) = torch_llm.llm_inference_suite(bench(torch, options=options, peak_missing="not in the catalogue"))
    assert (only["name"], only["value"]) == ("llm_goal_llama2-7b-mha", 0.0)
    assert only["details"]["verdict"] == "unattainable"
    assert "weights of 13.5 GB" in only["details"]["reason"]
    assert only["details"]["point"] is None


@pytest.mark.parametrize(
    ("step_ms", "seconds", "kept"),
    [
        (4.0, 115.0, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1375]),  # a fast card has time for all
        (56.0, 100.0, [32, 1375]),  # GB10 at the level standard
        (56.0, 0.0, [1375]),
        (None, 0.0, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1375]),
    ],
)
def test_a_slow_card_leaves_out_batches_between_and_keeps_the_largest(
    step_ms: float | None, seconds: float, kept: list[int]
) -> None:
    gqa = llm_workloads.find("7b-gqa4")
    weights = llm_workloads.read_bytes(gqa.shape)
    one = Session(bench(FakeTorch()), None, gqa, "bfloat16", Weights(weights, weights), Peaks())
    queue = llm_workloads.batches(1375, "standard")[1:]
    details = {"batch": 1, "tpot_ms": step_ms, "compile_s": 4.0, "ttft_ms": {"p50": 100.0}}
    assert torch_llm.affordable(one, queue, details, seconds) == kept


@pytest.mark.parametrize(("free", "refused"), [(26e9, True), (60e9, False)])
def test_a_cpu_is_not_filled_until_the_kernel_kills_somebody(
    monkeypatch: pytest.MonkeyPatch, free: float, refused: bool
) -> None:
    monkeypatch.setattr(Bench, "free_bytes", lambda self: int(free))
    on_cpu = dataclasses.replace(bench(FakeTorch()), device="cpu")
    built: list[str] = []
    monkeypatch.setattr(torch_llm.llm_model, "build", lambda torch, shape, device, *_: built.append(device))

    with pytest.raises(NotEnoughMemoryError, match="of llama2-7b-mha take") if refused else contextlib.nullcontext():
        torch_llm.open_session(on_cpu, MHA, "bfloat16")
    assert built == ([] if refused else ["cpu"])
