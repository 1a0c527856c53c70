# SPDX-License-Identifier: Apache-2.0
"""make bench-gpu: its statistics and tables, its refusals, and its whole course on a stand-in for the measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu.bench import compare, run

from rackwright.child import ChildResult


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command adds suites of its own to the registry, which is no business of other tests."""
    monkeypatch.setattr(run.torch_suites, "SUITES", dict(run.torch_suites.SUITES))


def result(name: str, value: float, suite: str = "gemm", **more: Any) -> dict[str, Any]:
    return {"suite": suite, "name": name, "unit": "TFLOP/s", "value": value, "dtype": "bfloat16", **more}


@pytest.mark.parametrize(
    ("values", "middle", "apart"),
    [
        ([3.0, 1.0, 2.0], 2.0, 1.0),
        ([4.0, 1.0, 2.0, 3.0], 2.5, 1.2),
        ([7.0], 7.0, None),
        ([0.0, 0.0], 0.0, None),
        ([100.0, 98.0, 103.0], 100.0, 0.05),
    ],
)
def test_median_and_spread(values: list[float], middle: float, apart: float | None) -> None:
    assert compare.median(values) == middle
    assert compare.spread(values) == (None if apart is None else pytest.approx(apart))


def test_there_is_no_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="median of nothing"):
        compare.median([])


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (999.96, "1000"), (3.14159, "3.142"), (0.00012345, "0.0001234"), (0, "0")]
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert compare.number(value) == text


def test_equal_names_stand_side_by_side() -> None:
    ours = [result("a", 700.0), result("b", 9.0), result("a", 710.0), result("alone", 1.0), result("a", 690.0)]
    theirs = [
        result("a", 650.0, "peer_gemm"),
        result("b", 10.0, "peer_gemm", note="a note"),
        result("c", 1.0, "peer_x"),
    ]
    first, second, alone = compare.side_by_side(ours, theirs, {"a": 1000.0, "b": None, "alone": 2.0})
    assert first == {
        "what": "a",
        "unit": "TFLOP/s",
        "ours": "700",
        "spread": "2.9 %",
        "theirs": "650",
        "their spread": "-",
        "ratio": "1.077",
        "of peak": "70.0 %",
        "note": "",
    }
    assert (second["ratio"], second["of peak"], second["note"]) == ("0.900", "-", "a note")
    assert (alone["ours"], alone["theirs"], alone["ratio"], alone["of peak"], alone["note"]) == (
        "1",
        "-",
        "-",
        "50.0 %",
        "",
    )
    (far,) = compare.side_by_side([result("b", 8.9)], theirs, {})
    assert far["note"] == "more than 10 % apart; a note"
    assert compare.notes([first, second]) == ["b: a note"]


def test_a_rival_that_measured_zero_is_no_divisor() -> None:
    assert compare.side_by_side([], [], {}) == []
    (row,) = compare.side_by_side([result("a", 1.0)], [result("a", 0.0, "peer")], {})
    assert (row["theirs"], row["ratio"]) == ("0", "-")


def test_runs_are_held_against_each_other() -> None:
    runs = [
        [result("a", 100.0, spread=0.01), result("b", 5.0)],
        [result("a", 104.0, spread=0.03), result("b", 6.0)],
        [result("a", 102.0, spread=0.02)],
    ]
    steady, missing = compare.repeatability(runs)
    assert (steady["runs"], steady["median"], steady["least"], steady["most"]) == ("3", "102", "100", "104")
    assert (steady["spread"], steady["within a run"], steady["note"]) == ("3.9 %", "2.0 %", "")
    assert (missing["runs"], missing["within a run"]) == ("2", "-")
    assert missing["note"] == "missing in 1 of 3 runs; runs more than 5 % apart"


def test_peaks_come_from_the_catalogue() -> None:
    peak = {"bandwidth_gbps": 4800.0, "tflops": {"bf16": 989.4, "fp8": 1978.9}}
    results = [
        result("gemm_bfloat16_8192", 1.0),
        result("gemm_float8_e4m3fn_8192", 1.0, dtype="float8_e4m3fn"),
        result("gemm_float32_8192", 1.0, dtype="float32"),
        result("memory_copy", 1.0, "memory"),
        result("llm", 1.0, "llm_inference"),
    ]
    assert compare.peaks_by_name(results, peak) == {
        "gemm_bfloat16_8192": 989.4,
        "gemm_float8_e4m3fn_8192": 1978.9,
        "gemm_float32_8192": None,
        "memory_copy": 4800.0,
    }
    assert set(compare.peaks_by_name(results, None).values()) == {None}


def test_fractions_of_the_roofline() -> None:
    peak = {"bandwidth_gbps": 4800.0, "tflops": {"bf16": 989.4}}
    results = [
        result("gemm_bfloat16_8192", 700.0),
        result("burn_bfloat16", 650.0, "burn"),
        result("memory_copy", 3600.0, "memory"),
        result("pcie_h2d", 50.0, "pcie", details={"link_gbps": 63.0}),
        result("pcie_d2h", 50.0, "pcie", details={"link_gbps": None}),
        result("llm_decode", 200.0, "llm_inference", details={"roofline_fraction": 0.71}),
        result("llm_train", 9000.0, "llm_training", details={"mfu": 0.4}),
        result("exact_answer", 0.0, "kernel"),
        result("llm_goal", 200.0, "llm_inference", details={"verdict": "pass"}),
    ]
    found = [(row["what"], row["fraction"], row["of"]) for row in compare.rooflines(results, peak)]
    assert found == [
        ("gemm_bfloat16_8192", "70.7 %", "peak of the catalogue"),
        ("burn_bfloat16", "65.7 %", "peak of the catalogue"),
        ("memory_copy", "75.0 %", "peak of the catalogue"),
        ("pcie_h2d", "79.4 %", "negotiated link"),
        ("pcie_d2h", "-", "negotiated link"),
        ("llm_decode", "71.0 %", "memory or arithmetic of the step"),
        ("llm_train", "40.0 %", "arithmetic (MFU)"),
    ]
    assert {row["fraction"] for row in compare.rooflines(results[:3], None)} == {"-"}


def test_a_child_that_died_keeps_what_it_had_written() -> None:
    lines: list[dict[str, Any]] = [
        {"start": "device", "device": "cuda:0"},
        {"result": result("a", 1.0)},
        {"not_applicable": {"suite": "peer_decode", "device": "cuda:0", "reason": "transformers is not installed"}},
        {"start": "peer_gemm", "device": "cuda:0"},
    ]
    document = run.document_of(lines, ChildResult("timeout", detail="No answer within 5 s; the process was ended."))
    assert [entry["name"] for entry in document["results"]] == ["a"]
    assert document["not_applicable"][0]["suite"] == "peer_decode"
    assert document["errors"] == [
        {"suite": "peer_gemm", "reason": "timeout", "detail": "No answer within 5 s; the process was ended."}
    ]
    assert run.document_of(lines, ChildResult("ok"))["errors"] == []
    assert run.document_of([], ChildResult("crashed", stderr="boom"))["errors"][0]["suite"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["everything"], "'everything' is none of gemm, memory, decode, repeat"),
        (["--runs", "0"], "'0' is not a whole number above zero"),
        (["--rounds", "-1"], "is not a whole number above zero"),
        (["--suites", "gemm,burn"], "'burn' is none of"),
        (["--level", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run.main(arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--cpu"], ["gemm"]])
def test_without_torch_it_says_which_interpreter_to_name(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run.main(arguments) == 2
    said = capsys.readouterr()
    assert "Could not import torch on interpreter" in said.err
    assert "TORCH_PYTHON=PATH" in said.err
    assert said.out == ""


def test_without_a_gpu_it_refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.benchmark, "plan", lambda request: {"devices": []})
    assert run.main([]) == 2
    assert "Could not run bench-gpu on GPU 0 of this machine: torch sees no such GPU." in capsys.readouterr().err


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Replace what measures by made-up numbers; returns the suites that were run, process by process."""
    ran: list[tuple[str, ...]] = []

    def in_child(func: Any, args: list[dict[str, Any]], timeout: float) -> ChildResult:
        ran.append(tuple(args[0]["suites"]))
        entries = [_made_up(suite, number) for number, suite in enumerate(args[0]["suites"])]
        Path(args[0]["progress_path"]).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return ChildResult("ok", value="done")

    def whole(request: Any) -> dict[str, Any]:
        ran.append(request.suites)
        results = [result("gemm_bfloat16_8192", 700.0 + 10 * len(ran), spread=0.01)]
        devices = {"cuda:0": {"name": "card", "compute_capability": None}}
        return {"results": results, "errors": [], "not_applicable": [], "devices": devices}

    monkeypatch.setattr(run.benchmark, "plan", lambda request: {"devices": [{"device": request.devices[0]}]})
    monkeypatch.setattr(run.benchmark, "run", whole)
    monkeypatch.setattr(run.child, "run_in_child", in_child)
    return ran


def _made_up(suite: str, number: int) -> dict[str, Any]:
    if suite == "peer_decode":
        reason = "transformers is not installed"
        return {"not_applicable": {"suite": suite, "device": "cuda:0", "reason": reason}}
    return {"result": result("same", 100.0 + number, suite, spread=0.01)}


def test_a_run_from_beginning_to_end(
    measured: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "out.json"
    assert run.main(["--rounds", "2", "--runs", "2", "--suites", "gemm", "--json", str(written)]) == 0
    out = capsys.readouterr().out
    assert measured == [
        ("gemm", "peer_gemm") * 2,
        ("memory", "peer_memory") * 2,
        ("our_decode", "peer_decode") * 2,
        ("gemm",),
        ("gemm",),
    ]
    assert "gemm: ours beside theirs, 2 rounds in turns" in out
    assert "0.990" in out  # the median of 100 and 102 by that of 101 and 103
    assert out.count("not applicable: peer_decode: transformers is not installed") == 1
    assert "repeat: 2 runs of every suite" in out
    assert "mean nothing" not in out
    assert set(json.loads(written.read_text())) == set(run.PARTS)
    assert max(len(line) for line in out.splitlines()) <= 120


def test_numbers_of_a_cpu_are_called_what_they_are(
    measured: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--cpu", "gemm"]) == 0
    assert "CPU: these numbers mean nothing." in capsys.readouterr().out


def test_what_could_not_be_measured_shows_in_the_exit_status(
    measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.child, "run_in_child", lambda *_: ChildResult("crashed", detail="Signal SIGSEGV."))
    assert run.main(["memory"]) == 1
    assert "not measured: None: crashed: Signal SIGSEGV." in capsys.readouterr().out
