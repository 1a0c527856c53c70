# SPDX-License-Identifier: Apache-2.0
"""All GPUs of a node at once: phases, what the processes know of each other, and GPUs that are lost on the way."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_cuda import install

from ansible.module_utils.rackwright import benchmark, torch_suites
from ansible.module_utils.rackwright.benchmark_levels import SUITES
from ansible.module_utils.rackwright.torch_bench import Bench, NotApplicableError, single

Results = Iterator[dict[str, Any]]


def number(bench: Bench, suite: str, value: float = 1.0, **more: Any) -> dict[str, Any]:
    """Return a result as a suite gives it, without measuring."""
    return {
        "suite": suite,
        "name": suite,
        "unit": "TFLOP/s",
        "dtype": "bfloat16",
        "shape": [1],
        "device": bench.device,
        "level": bench.level_name,
        "conditions": {},
        "clocks": None,
        **single(value),
        **more,
    }


def _plain(suite: str) -> Callable[[Bench], Results]:
    def run(bench: Bench) -> Results:
        options = {key: bench.options[key] for key in sorted(bench.options)}
        yield number(bench, suite, details={"options": options, "peers": list(bench.peers), "pid": os.getpid()})

    return run


def _correctness(bench: Bench) -> Results:
    yield number(bench, "correctness", 0.0, details={"checksum": "00"})


def _burn(bench: Bench) -> Results:
    together = bench.meet(limit_s=20)
    yield number(bench, "burn", 100.0 + bench.index, details={"gpus_at_once": together, "drift": 1.0})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the benchmark on a node with three GPUs whose suites measure nothing."""
    install(tmp_path, monkeypatch)("cuda")
    for suite in SUITES[1:]:
        monkeypatch.setitem(torch_suites.SUITES, suite, _plain(suite))
    monkeypatch.setitem(torch_suites.SUITES, "correctness", _correctness)
    monkeypatch.setitem(torch_suites.SUITES, "burn", _burn)

    def run(*suites: str, timeout: float = 30.0, **options: Any) -> dict[str, Any]:
        wanted = suites or SUITES
        request = benchmark.Request(sys.executable, wanted, ("auto",), "quick", timeout, 1, False, options)
        return benchmark.run(request)

    return run


def _of(document: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    return [entry for entry in document["results"] if entry["suite"] == suite]


def test_every_suite_runs_where_it_belongs(node: Callable[..., dict[str, Any]]) -> None:
    document = node()
    assert document["errors"] == []
    assert list(document["devices"]) == ["cuda:0", "cuda:1", "cuda:2"]
    devices = {suite: [entry["device"] for entry in _of(document, suite)] for suite in SUITES}
    three = ["cuda:0", "cuda:1", "cuda:2"]
    for suite in ("kernel", "gemm", "memory", "correctness", "pcie", "llm_inference"):
        assert devices[suite] == three, suite
    assert devices["p2p"] == ["node"]
    assert devices["burn"] == [*three, "node"]
    assert devices["llm_training"] == [*three, *three]


def test_suites_of_several_ranks_know_of_each_other_and_the_others_do_not(node: Callable[..., dict[str, Any]]) -> None:
    trained = _of(node("llm_training", burn_seconds=3), "llm_training")
    alone, together = trained[:3], trained[3:]
    assert [entry["details"]["options"] for entry in alone] == [{"burn_seconds": 3}] * 3
    ranks = [entry["details"]["options"] for entry in together]
    assert [(entry["rank"], entry["world_size"], entry["burn_seconds"]) for entry in ranks] == [
        (n, 3, 3) for n in range(3)
    ]
    assert len({entry["store_path"] for entry in ranks}) == 1
    assert not os.path.exists(os.path.dirname(ranks[0]["store_path"])), "the directory they share is gone afterwards"
    assert all(entry["details"]["peers"] == ["cuda:0", "cuda:1", "cuda:2"] for entry in trained)


def test_all_gpus_burn_at_once_and_the_slowest_is_named(node: Callable[..., dict[str, Any]]) -> None:
    *gpus, summary = _of(node("burn"), "burn")
    # each waits for the other two: one after the other they would never be three
    assert [entry["details"]["gpus_at_once"] for entry in gpus] == [3, 3, 3]
    assert (summary["value"], summary["details"]["slowest"]) == (100.0, "cuda:0")
    assert summary["details"]["spread_over_gpus"] == pytest.approx(2 / 101)


def test_one_process_sees_all_gpus_of_a_pair(node: Callable[..., dict[str, Any]]) -> None:
    (entry,) = _of(node("p2p"), "p2p")
    assert (entry["device"], entry["details"]["peers"]) == ("node", ["cuda:0", "cuda:1", "cuda:2"])


def _hang(_: Bench) -> Results:
    time.sleep(600)
    yield {}


def _crash(_: Bench) -> Results:
    ctypes.string_at(0)
    yield {}


def _killed(_: Bench) -> Results:
    os.kill(os.getpid(), signal.SIGKILL)
    yield {}


def _half_a_line(bench: Bench) -> Results:
    """Die while a result is written: what is on disk ends in the middle of a line."""
    yield number(bench, "burn", details={"gpus_at_once": 1})
    with open(os.path.join(str(bench.scratch), "progress-0.jsonl"), "a", encoding="utf-8") as handle:
        handle.write('{"result": {"suite": "bu')
    os._exit(9)


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (_hang, "timeout", "No result within 2 s"),
        (_crash, "crashed", "SIGSEGV"),
        (_killed, "out_of_memory", "SIGKILL"),
    ],
)
@pytest.mark.parametrize("suite", ["gemm", "burn"])
def test_a_gpu_that_is_lost_in_one_phase_is_left_out_of_the_next(
    node: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    suite: str,
    bad: Callable[[Bench], Results],
    reason: str,
    detail: str,
) -> None:
    good = torch_suites.SUITES[suite]
    monkeypatch.setitem(torch_suites.SUITES, suite, lambda bench: (bad if bench.index == 1 else good)(bench))
    monkeypatch.setattr(Bench, "meet", lambda bench, limit_s=0: bench.options["world_size"])
    document = node("gemm", "p2p", "burn", "llm_training", timeout=2)
    (error,) = document["errors"]
    assert (error["device"], error["suite"], error["reason"]) == ("cuda:1", suite, reason)
    assert detail in error["detail"]
    left = ["cuda:0", "cuda:2"]
    together = [entry["device"] for entry in _of(document, "llm_training") if "rank" in entry["details"]["options"]]
    assert together == left
    if suite == "gemm":
        assert [entry["device"] for entry in _of(document, "gemm")] == left
        assert _of(document, "p2p")[0]["details"]["peers"] == left
    assert [entry["device"] for entry in _of(document, "burn")] == [*left, "node"]
    assert document["devices"]["cuda:1"]["uuid"] == "GPU-0000-1", "what it is stays known"


def test_what_a_dying_process_had_written_is_kept(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _plain("burn")
    monkeypatch.setitem(torch_suites.SUITES, "burn", lambda bench: (plain if bench.index else _half_a_line)(bench))
    monkeypatch.setattr(benchmark, "burn_summaries", lambda results: [])
    document = node("burn")
    assert sorted(entry["device"] for entry in _of(document, "burn")) == ["cuda:0", "cuda:1", "cuda:2"]
    assert [(error["device"], error["reason"]) for error in document["errors"]] == [("cuda:0", "crashed")]


def test_files_that_appear_while_the_directory_is_removed_cost_no_result(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = benchmark.shutil.rmtree, []

    def busy_directory(path: str, ignore_errors: bool = False) -> None:
        tried.append(path)
        if len([one for one in tried if one == path]) < 3:
            assert ignore_errors, "a compiler's file made the removal an error of the whole run"
            return
        real(path)

    monkeypatch.setattr(benchmark, "_REMOVE_AGAIN_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(benchmark.shutil, "rmtree", busy_directory)
    document = node("gemm", "burn")
    assert (len(_of(document, "gemm")), document["errors"]) == (3, [])
    assert tried
    assert not any(os.path.exists(path) for path in tried)


def test_a_directory_that_stays_costs_no_result(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark, "_REMOVE_AGAIN_S", (0.0,))
    monkeypatch.setattr(benchmark.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(benchmark.shutil, "rmtree", lambda path, ignore_errors=False: None)
    assert len(_of(node("gemm"), "gemm")) == 3


def test_a_pair_that_hangs_is_an_entry_of_the_node(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_suites.SUITES, "p2p", _hang)
    document = node("kernel", "p2p", "burn", timeout=2)
    assert [(e["device"], e["suite"], e["reason"]) for e in document["errors"]] == [("node", "p2p", "timeout")]
    assert "node" not in document["devices"]
    assert len(_of(document, "kernel")) == 3
    assert len(_of(document, "burn")) == 4, "the GPUs themselves are not lost by it"


def test_all_gpus_lost_leaves_entries_and_no_number(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_suites.SUITES, "gemm", _crash)
    document = node()
    assert [error["device"] for error in document["errors"]] == ["cuda:0", "cuda:1", "cuda:2"]
    assert {entry["suite"] for entry in document["results"]} == {"import", "kernel"}
    assert [entry["reason"] for entry in document["not_applicable"]] == ["a pair needs two GPUs, and 0 can be measured"]


def test_a_device_that_answers_nothing_any_more_ends_there_and_says_what_was_not_measured(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Bench) -> Results:
        if bench.index == 1:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        yield number(bench, "gemm")

    def release(bench: Bench) -> None:
        if bench.device == "cuda:1":
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setitem(torch_suites.SUITES, "gemm", broken)
    monkeypatch.setattr(Bench, "release", release)
    monkeypatch.setitem(torch_suites.SUITES, "kernel", lambda bench: iter(()))
    document = node("gemm", "memory", "llm_inference", "p2p")
    first, last = document["errors"]
    assert (first["device"], first["suite"]) == ("cuda:1", "gemm")
    assert first["next_step"].startswith("Take the device out of service")
    assert (last["device"], last["suite"]) == ("cuda:1", None)
    assert "Not measured: memory, llm_inference." in last["detail"]
    assert [entry["device"] for entry in _of(document, "memory")] == ["cuda:0", "cuda:2"]
    assert _of(document, "p2p")[0]["details"]["peers"] == ["cuda:0", "cuda:2"]


def test_one_gpu_has_no_pair_and_trains_once(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark.benchmark_plan, "choose_devices", lambda wanted, count: (["cuda:2"], []))
    document = node("p2p", "burn", "llm_training")
    assert len(_of(document, "llm_training")) == 1
    assert [(e["suite"], e["device"]) for e in document["not_applicable"]] == [("p2p", "node")]
    assert [entry["device"] for entry in _of(document, "burn")] == ["cuda:2", "node"]


def test_a_suite_says_what_does_not_apply(node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(bench: Bench) -> Results:
        yield bench.not_applicable("gemm", "no units for it", dtype="int8")
        yield number(bench, "gemm")

    def nothing(bench: Bench) -> Results:
        raise NotApplicableError("there is no link")

    monkeypatch.setitem(torch_suites.SUITES, "gemm", parts)
    monkeypatch.setitem(torch_suites.SUITES, "pcie", nothing)
    document = node("gemm", "pcie")
    assert document["errors"] == []
    assert len(_of(document, "gemm")) == 3
    first = [entry for entry in document["not_applicable"] if entry["device"] == "cuda:0"]
    assert first == [
        {"suite": "gemm", "device": "cuda:0", "reason": "no units for it", "dtype": "int8"},
        {"suite": "pcie", "device": "cuda:0", "reason": "there is no link"},
    ]


def test_a_checksum_that_differs_names_its_device(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(bench: Bench) -> Results:
        yield number(bench, "correctness", 0.0, details={"checksum": "ff" if bench.index == 2 else "00"})

    monkeypatch.setitem(torch_suites.SUITES, "correctness", other)
    (error,) = node("correctness")["errors"]
    assert (error["device"], error["suite"], error["reason"]) == ("cuda:2", "correctness", "wrong_answer")
    assert "2 of 3 devices have 00" in error["detail"]


def test_what_gpus_share_goes_by_turns(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = tmp_path / "turns"

    def pcie(bench: Bench) -> Results:
        bench.meet()
        with bench.turn():
            with record.open("a") as handle:
                handle.write(f"in {bench.device}\n")
            time.sleep(0.05)
            with record.open("a") as handle:
                handle.write(f"out {bench.device}\n")
        yield number(bench, "pcie")

    monkeypatch.setitem(torch_suites.SUITES, "pcie", pcie)
    assert node("pcie")["errors"] == []
    lines = record.read_text().split()
    assert lines[0::4] == ["in"] * 3
    assert lines[2::4] == ["out"] * 3
    assert lines[1::4] == lines[3::4]


def test_a_killed_process_gives_its_turn_back(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pcie(bench: Bench) -> Results:
        if bench.index:
            while not os.path.exists(os.path.join(str(bench.scratch), "taken")):
                time.sleep(0.005)
        with bench.turn(limit_s=20):
            if bench.index == 0:
                with open(os.path.join(str(bench.scratch), "taken"), "w", encoding="ascii"):
                    pass
                os.kill(os.getpid(), signal.SIGKILL)
            yield number(bench, "pcie")

    monkeypatch.setitem(torch_suites.SUITES, "pcie", pcie)
    document = node("pcie")
    assert [entry["device"] for entry in _of(document, "pcie")] == ["cuda:1", "cuda:2"]
    assert [error["device"] for error in document["errors"]] == ["cuda:0"]


def test_who_waits_too_long_for_its_turn_says_so(
    node: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pcie(bench: Bench) -> Results:
        taken = os.path.join(str(bench.scratch), "taken")
        if bench.index == 0:
            with bench.turn():
                Path(taken).touch()
                while len([n for n in os.listdir(str(bench.scratch)) if n.startswith("gave-up")]) < 2:
                    time.sleep(0.005)
            yield number(bench, "pcie")
            return
        while not os.path.exists(taken):
            time.sleep(0.005)
        try:
            with bench.turn(limit_s=0.05):
                yield number(bench, "pcie")
        finally:
            Path(str(bench.scratch), f"gave-up-{bench.index}").touch()

    monkeypatch.setitem(torch_suites.SUITES, "pcie", pcie)
    document = node("pcie")
    assert [entry["device"] for entry in _of(document, "pcie")] == ["cuda:0"]
    assert [(error["device"], error["reason"]) for error in document["errors"]] == [
        ("cuda:1", "timeout"),
        ("cuda:2", "timeout"),
    ]
    assert "host link" in document["errors"][0]["detail"]
