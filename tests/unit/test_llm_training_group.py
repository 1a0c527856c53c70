# SPDX-License-Identifier: Apache-2.0
"""What several processes agree on before they train together, and what one of them says when it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ansible.module_utils.rackwright import (
    benchmark_errors,
    llm_step,
    llm_training_plan,
    torch_training,
    training_group,
)
from ansible.module_utils.rackwright.gpu_watch import Watch
from ansible.module_utils.rackwright.llm_training_plan import GIB, Technique
from ansible.module_utils.rackwright.torch_bench import Bench


def cuda() -> Any:
    return SimpleNamespace(cuda=SimpleNamespace(empty_cache=lambda: None))


def bench_of(rank: int, capability: list[int] | None, memory_gib: int, torch: Any = None, **options: Any) -> Bench:
    info = {"name": "card", "compute_capability": capability, "total_memory_bytes": memory_gib * GIB}
    given = {"rank": rank, "world_size": 2, "store_path": "/nowhere", **options}
    return Bench(torch or cuda(), "cuda:0", "standard", 1, info, Watch(None, "none"), options=given)


class FakeGroup:
    """A group whose other member has these values."""

    def __init__(self, other: dict[str, float]) -> None:
        self._other = other

    def least(self, value: float) -> float:
        return min(value, self._other["fine" if value <= 1 else "capability" if value < 1000 else "memory"])

    def most(self, value: float) -> float:
        return max(value, self._other["seconds"])


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, list[Technique]]]:
    """What would be compared; every technique gives a result of its name."""
    seen: list[tuple[Any, list[Technique]]] = []

    def compare(bench: Bench, workload: Any, techniques: list[Technique], reference: Any) -> Iterator[dict[str, Any]]:
        seen.append((workload, techniques))
        for one in techniques:
            yield {"name": one.name, "device": "node", "compared_with": reference.name}

    def alone(bench: Bench, workload: Any, technique: Technique, reference: Any) -> dict[str, Any]:
        details = {"state": "measured", "peak_memory_bytes": 5}
        return {"name": technique.name, "value": 1.0, "details": details}

    @contextmanager
    def joined(bench: Bench) -> Iterator[FakeGroup]:
        yield FakeGroup({"fine": 1.0, "capability": 75, "memory": 16 * GIB, "seconds": 3.0})

    monkeypatch.setattr(torch_training, "compare", compare)
    monkeypatch.setattr(torch_training, "measure_technique", alone)
    monkeypatch.setattr(torch_training.training_group, "joined", joined)
    return seen


def test_a_mixed_node_trains_as_its_least_able_card(chosen: list[tuple[Any, list[Technique]]]) -> None:
    results = list(torch_training.training_suite(bench_of(0, [8, 0], 80)))
    ((workload, techniques),) = chosen
    assert {one.dtype for one in techniques} == {"float16"}
    assert workload.size == llm_training_plan.fit(workload.shape, llm_training_plan.CUDA_LEVELS["standard"], 16 * GIB)
    assert workload.agree(0.5) == 3.0
    assert [result["name"] for result in results] == ["fp16_fsdp2", "fp16_fsdp2_checkpointing"]
    assert {result["compared_with"] for result in results} == {"fp16"}


def test_only_the_first_process_has_results(chosen: list[tuple[Any, list[Technique]]]) -> None:
    assert list(torch_training.training_suite(bench_of(1, [9, 0], 80))) == []
    assert len(chosen) == 1


def test_cards_that_are_too_small_are_said_once(chosen: list[tuple[Any, list[Technique]]]) -> None:
    options = {"llm_workload": "llama3-8b-gqa"}
    (entry,) = torch_training.training_suite(bench_of(0, [8, 6], 24, **options))
    said = entry["not_applicable"]
    assert (said["suite"], said["device"]) == ("llm_training", "node")
    assert said["reason"].endswith("and the card has 16.0")
    assert list(torch_training.training_suite(bench_of(1, [8, 6], 24, **options))) == []
    assert chosen == []


@pytest.mark.parametrize(
    ("info", "free_gib", "expected_gib"),
    [
        ({"total_memory_bytes": 80 * GIB}, 50, 80),
        ({"total_memory_bytes": 120 * GIB, "unified_memory": True}, 90, 90),
        ({"total_memory_bytes": 80 * GIB, "unified_memory": False}, 50, 80),
        ({}, 7, 7),
    ],
)
def test_memory_that_belongs_to_the_system_too_is_not_all_taken(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], free_gib: int, expected_gib: int
) -> None:
    bench = bench_of(0, None, 1)
    bench.info = info
    monkeypatch.setattr(bench, "free_bytes", lambda: free_gib * GIB)
    assert torch_training.memory_bytes(bench) == expected_gib * GIB


@pytest.mark.parametrize("error", [RuntimeError("NCCL error"), MemoryError("out of memory")])
def test_a_process_that_fails_in_the_group_stops_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked, released = [], []

    def run(bench: Bench, workload: Any, technique: Technique) -> Any:
        asked.append(technique.name)
        raise error

    monkeypatch.setattr(torch_training, "_run", run)
    bench = bench_of(0, [9, 0], 80)
    monkeypatch.setattr(bench, "release", lambda: released.append(True))
    techniques = [Technique("sharded", "bfloat16", ranks=2), Technique("next", "bfloat16", ranks=2)]
    with pytest.raises(type(error), match=str(error)):
        list(torch_training.compare(bench, SimpleNamespace(), techniques))
    assert (asked, released) == (["sharded"], []), "releasing waits for kernels that wait for the other processes"


@pytest.mark.parametrize(
    ("mine", "theirs", "outcome"),
    [
        (None, 1.0, "compared"),
        (None, 0.0, "the step of one GPU alone did not run on every GPU of the node"),
        (MemoryError("out of memory"), 1.0, "the step of one GPU alone did not run on every GPU of the node"),
        (ValueError("broken"), 1.0, "fp16: ValueError: broken"),
    ],
)
def test_all_go_on_or_none(
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[tuple[Any, list[Technique]]],
    mine: Exception | None,
    theirs: float,
    outcome: str,
) -> None:
    def alone(bench: Bench, workload: Any, technique: Technique, reference: Any) -> dict[str, Any]:
        if isinstance(mine, ValueError):
            raise mine
        state = "out_of_memory" if mine else "measured"
        return {"name": technique.name, "value": 1.0, "details": {"state": state, "peak_memory_bytes": 5}}

    @contextmanager
    def joined(bench: Bench) -> Iterator[FakeGroup]:
        yield FakeGroup({"fine": theirs, "capability": 75, "memory": 16 * GIB, "seconds": 3.0})

    monkeypatch.setattr(torch_training, "measure_technique", alone)
    monkeypatch.setattr(torch_training.training_group, "joined", joined)
    suite = torch_training.training_suite(bench_of(0, [8, 0], 80))
    if isinstance(mine, ValueError):
        with pytest.raises(RuntimeError, match=outcome):
            list(suite)
    elif outcome == "compared":
        assert len(list(suite)) == 2
    else:
        assert [entry["not_applicable"]["reason"] for entry in suite] == [outcome]
    assert len(chosen) == (1 if outcome == "compared" else 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_a_lack_of_memory(error: Exception, expected: bool) -> None:
    assert benchmark_errors.is_out_of_memory(error) is expected


def left(monkeypatch: pytest.MonkeyPatch, fail: bool) -> list[str]:
    """Join a made-up group, perhaps fail in it, and return what was done to it."""
    done: list[str] = []
    torch = fake_torch(monkeypatch, True, True, True)
    distributed = vars(sys.modules["faketorch.distributed"])
    distributed["init_process_group"] = lambda *_, **__: done.append("joined")
    distributed["destroy_process_group"] = lambda: done.append("left")
    try:
        with training_group.joined(bench_of(0, [9, 0], 80, torch)):
            if fail:
                raise RuntimeError("cause")
    except RuntimeError:
        done.append("cause known")
    return done


def test_a_failed_process_does_not_wait_in_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(monkeypatch, fail=False) == ["joined", "left"]
    assert left(monkeypatch, fail=True) == ["joined", "cause known"]


def fake_torch(monkeypatch: pytest.MonkeyPatch, available: bool, nccl: bool, fsdp2: bool) -> Any:
    torch, distributed, fsdp = (ModuleType(f"faketorch{name}") for name in ("", ".distributed", ".distributed.fsdp"))
    vars(torch).update(__version__="2.5.1", cuda=SimpleNamespace(empty_cache=lambda: None))
    vars(distributed).update(is_available=lambda: available, is_nccl_available=lambda: nccl)
    if fsdp2:
        vars(fsdp).update(fully_shard=print)
    for module in (torch, distributed, fsdp):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return torch


@pytest.mark.parametrize(
    ("available", "nccl", "fsdp2", "reason"),
    [
        (False, True, True, "this build of torch has no nccl"),
        (True, False, True, "this build of torch has no nccl"),
        (True, True, False, "fully_shard is public since torch 2.6, and this is 2.5.1"),
    ],
)
def test_a_torch_that_cannot_shard_says_so_before_anybody_waits(
    monkeypatch: pytest.MonkeyPatch, available: bool, nccl: bool, fsdp2: bool, reason: str
) -> None:
    torch = fake_torch(monkeypatch, available, nccl, fsdp2)
    (entry,) = torch_training.training_suite(bench_of(0, [9, 0], 80, torch))
    assert entry["not_applicable"] == {"suite": "llm_training", "device": "node", "reason": reason}
    with pytest.raises(llm_step.UnsupportedError), training_group.joined(bench_of(1, [9, 0], 80, torch)):
        pytest.fail("joined all the same")
