# SPDX-License-Identifier: Apache-2.0
"""Whatever torch or a device does, the module answers with data. torch is a stand-in here; nodes run the real one."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch_benchmark
from ansible.module_utils.testing import patch_module_args
from support.fake_cuda import install

from ansible.module_utils.rackwright import benchmark, torch_runner, torch_suites
from ansible.module_utils.rackwright.torch_bench import Bench, single


def _good(bench: Bench) -> list[dict[str, Any]]:
    if bench.on_gpu:
        assert bench.torch.cuda.current == bench.device, "events would be recorded on another GPU"
    return [{"suite": "kernel", "device": bench.device, **single(0.0)}]


def _hang(_: Bench) -> list[dict[str, Any]]:
    time.sleep(600)
    return []


def _crash(_: Bench) -> list[dict[str, Any]]:
    ctypes.string_at(0)
    return []


def _killed(_: Bench) -> list[dict[str, Any]]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def _out_of_memory(_: Bench) -> list[dict[str, Any]]:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _no_image(_: Bench) -> list[dict[str, Any]]:
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def _exit(_: Bench) -> list[dict[str, Any]]:
    raise SystemExit(3)


class _Meter:
    def __init__(self, uuid: str) -> None:
        self.uuid, self.nvml, self.handle = uuid, None, None

    def peak(self) -> tuple[None, str]:
        return None, "no catalogue"


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    for suite in ("kernel", "gemm", "memory"):
        monkeypatch.setitem(torch_suites.SUITES, suite, _good)
    return install(tmp_path, monkeypatch)


def run_module(capsys: pytest.CaptureFixture[str], check: bool = False, **params: Any) -> dict[str, Any]:
    args = {"_ansible_check_mode": check, "timeout": 20, **params}
    with patch_module_args(args), pytest.raises(SystemExit):
        torch_benchmark.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_cpu_only_node(fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    fake_torch("cpu")
    result = run_module(capsys, run_id="r1")
    document = result["torch_benchmark"]
    assert result["changed"] is False
    assert document["run_id"] == "r1"
    assert document["device_kind"] == "cpu"
    assert document["torch"]["version"] == "2.13.0+cpu"
    assert document["torch"]["cuda_unavailable_reason"] == "this build of torch has no CUDA support"
    assert [(entry["suite"], entry["device"]) for entry in document["results"]][:2] == [
        ("import", "cpu"),
        ("kernel", "cpu"),
    ]
    assert document["errors"] == []
    assert document["host"]["cpus"] == os.cpu_count()


def test_every_gpu_is_measured_in_its_own_child(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_torch("cuda")
    document = run_module(capsys, suites=["import", "kernel"])["torch_benchmark"]
    assert document["device_kind"] == "cuda"
    assert list(document["devices"]) == ["cuda:0", "cuda:1", "cuda:2"]
    assert document["devices"]["cuda:1"]["uuid"] == "GPU-0000-1"
    assert [entry["device"] for entry in document["results"]] == ["cpu", "cuda:0", "cuda:1", "cuda:2"]
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("suite", "reason", "detail"),
    [
        (_hang, "timeout", "No result within 2 s"),
        (_crash, "crashed", "SIGSEGV"),
        (_killed, "out_of_memory", "SIGKILL"),
        (_out_of_memory, "out_of_memory", "Tried to allocate"),
        (_no_image, "no_kernel_image", "no kernel image"),
        (_exit, "error", "SystemExit"),
    ],
)
def test_a_bad_device_is_an_entry_and_the_others_keep_their_results(
    fake_torch: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    suite: Callable[[Bench], list[dict[str, Any]]],
    reason: str,
    detail: str,
) -> None:
    fake_torch("cuda")
    monkeypatch.setitem(
        torch_suites.SUITES, "gemm", lambda bench: suite(bench) if bench.device == "cuda:1" else _good(bench)
    )
    document = run_module(capsys, suites=["kernel", "gemm"], timeout=2)["torch_benchmark"]
    (error,) = document["errors"]
    assert (error["device"], error["suite"], error["reason"]) == ("cuda:1", "gemm", reason)
    assert detail in error["detail"]
    assert error["next_step"].endswith(".")
    assert "Traceback" not in error["detail"]
    devices = [entry["device"] for entry in document["results"]]
    # the suite before the bad one is kept too
    assert devices == ["cuda:0", "cuda:0", "cuda:1", "cuda:2", "cuda:2"]


def test_after_a_suite_that_raised_the_next_one_still_runs(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch("cpu")
    monkeypatch.setitem(torch_suites.SUITES, "gemm", _out_of_memory)
    document = run_module(capsys, suites=["gemm", "memory"])["torch_benchmark"]
    assert [entry["suite"] for entry in document["errors"]] == ["gemm"]
    assert len(document["results"]) == 1


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("hang", "timed_out", "did not import and list its devices within 1 s"),
        ("segfault", "probe", "SIGSEGV"),
        ("broken", "probe", "libcudart.so.13"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_a_clear_failure(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], mode: str, kind: str, message: str
) -> None:
    fake_torch(mode)
    result = run_module(capsys, timeout=1)
    assert result["failed"] is True
    assert result["kind"] == kind
    assert result["msg"].startswith("Could not import torch on interpreter")
    assert message in result["msg"]


def test_missing_torch_is_a_clear_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes the import fail whether or not this interpreter has torch
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run_module(capsys)
    assert result["kind"] == "missing"
    assert "role pytorch" in result["msg"]


def test_missing_interpreter_is_a_clear_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(capsys, python=str(tmp_path / "venv/bin/python"))
    assert result["failed"] is True
    assert "there is no such interpreter" in result["msg"]


@pytest.mark.parametrize(
    ("content", "mode", "cause"),
    [
        ("", 0o644, "it is not an executable file"),
        ("#!/bin/sh\necho cannot load libpython >&2\nexit 127\n", 0o755, "it does not run: cannot load libpython"),
        ("#!/bin/sh\necho False 3.6.8\n", 0o755, "it is older than Python 3.9"),
        ("#!/nonexistent/interpreter\n", 0o755, "it does not run"),
    ],
)
def test_unusable_interpreter_is_a_clear_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, mode: int, cause: str
) -> None:
    python = tmp_path / "python"
    python.write_text(content)
    python.chmod(mode)
    result = run_module(capsys, python=str(python))
    assert result["failed"] is True
    assert cause in result["msg"]


def test_check_mode_on_a_clean_node_plans_without_an_interpreter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_module(capsys, check=True, python=str(tmp_path / "venv/bin/python"))
    assert result["skipped"] is True
    assert result["changed"] is False
    assert "does not exist yet" in result["plan"]["devices_unknown"]


def test_check_mode_lists_devices_and_measures_nothing(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch("cuda")
    monkeypatch.setitem(torch_suites.SUITES, "gemm", _crash)
    result = run_module(capsys, check=True, suites=["gemm"])
    assert result["skipped"] is True
    assert [entry["device"] for entry in result["plan"]["devices"]] == ["cuda:0", "cuda:1", "cuda:2"]
    assert result["plan"]["estimated_s"] > 0
    assert "torch_benchmark" not in result


def test_check_mode_does_not_hide_a_torch_that_crashes_after_it_was_described(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch("cpu")
    monkeypatch.setattr(torch_runner.benchmark_plan, "choose_devices", lambda *_: os.kill(os.getpid(), signal.SIGABRT))
    result = run_module(capsys, check=True)
    assert "SIGABRT" in result["msg"]


def test_absent_devices_are_entries(fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    fake_torch("cuda")
    document = run_module(capsys, suites=["kernel"], devices=["0", "9"])["torch_benchmark"]
    assert [entry["device"] for entry in document["results"]] == ["cuda:0"]
    assert [(entry["device"], entry["reason"]) for entry in document["errors"]] == [("cuda:9", "no_device")]


def test_wanting_cuda_where_there_is_none_is_an_entry(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_torch("cpu")
    document = run_module(capsys, devices=["cuda"])["torch_benchmark"]
    assert document["device_kind"] is None
    (error,) = document["errors"]
    assert "this build of torch has no CUDA support" in error["detail"]


def test_nonsense_devices_are_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(capsys, devices=["gpu0"], python="/nonexistent")
    assert result["msg"].startswith("Could not choose devices on option devices: 'gpu0' is not a device.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "option timeout: 0 is no time"),
        ({"timeout": -5}, "option timeout: -5 is no time"),
        ({"burn_seconds": 0}, "option burn_seconds: 0.0 is no time"),
        ({"burn_seconds": "inf"}, "option burn_seconds: inf is no time"),
        ({"burn_seconds": "nan"}, "option burn_seconds: nan is no time"),
        ({"llm_workload": "llama-70000b"}, "there is no workload 'llama-70000b'"),
        ({"llm_goal": {"vram_fraction": 1.5}}, "above the whole memory"),
        ({"llm_goal": {"p99_ms": -1}}, "p99_ms is -1.0"),
        ({"level": "fast"}, "value of level must be one of"),
        ({"suites": ["gem"]}, "value of suites must be one or more of"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_options_that_mean_nothing_are_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], said: str, check: bool
) -> None:
    result = run_module(capsys, check=check, python="/nonexistent", **options)
    assert result["failed"] is True
    assert said in result["msg"]


def test_suites_and_time_limit_are_those_of_the_level(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[benchmark.Request] = []

    def plan(request: benchmark.Request) -> dict[str, Any]:
        asked.append(request)
        return {"devices": [], "estimated_s": 0}

    monkeypatch.setattr(benchmark, "plan", plan)
    for level in ("quick", "standard", "full"):
        run_module(capsys, check=True, level=level, timeout=None)
    run_module(capsys, check=True, level="standard", suites=["burn", "gemm"], burn_seconds=7, timeout=40)
    assert [request.timeout for request in asked] == [300, 900, 3600, 40]
    assert "llm_inference" not in asked[0].suites
    assert asked[1].suites == asked[2].suites == tuple(torch_benchmark.benchmark_plan.SUITES)
    assert (asked[3].suites, asked[3].options) == (("gemm", "burn"), {"burn_seconds": 7.0})


def test_a_busy_gpu_is_refused_unless_allowed(
    fake_torch: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torch("cuda")
    busy = {"GPU-0000-1": "1 process(es) use it: python (pid 7)"}
    meters = {"GPU-0000-1": _Meter("GPU-0000-1")}
    monkeypatch.setattr(torch_runner, "open_gpu", lambda info: (meters.get(info["uuid"]), "no NVML"))
    monkeypatch.setattr(torch_runner, "busy_of", lambda meter: meter and busy[meter.uuid])
    document = run_module(capsys, suites=["kernel"])["torch_benchmark"]
    assert [entry["device"] for entry in document["results"]] == ["cuda:0", "cuda:2"]
    (error,) = document["errors"]
    assert (error["device"], error["reason"]) == ("cuda:1", "busy")
    assert "pid 7" in error["detail"]
    allowed = run_module(capsys, suites=["kernel"], allow_busy=True)["torch_benchmark"]
    assert (len(allowed["results"]), allowed["errors"]) == (3, [])


def test_a_half_written_line_of_a_dead_child_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    path.write_text('{"start": "gemm"}\n{"result": {"suite"')
    record = benchmark._read_progress(str(path))
    assert (record.started, record.results) == ("gemm", [])


@pytest.mark.parametrize("line", ["{half}", "[]", '{"result": 1}{"start": 2}', "\ufffd"])
def test_what_a_damaged_process_wrote_is_no_traceback(
    fake_torch: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
) -> None:
    def damaged(bench: Bench) -> list[dict[str, Any]]:
        with open(os.path.join(str(bench.scratch), f"progress-{bench.index}.jsonl"), "a", encoding="utf-8") as handle:
            handle.write(line + "\n")
        return _good(bench)

    fake_torch("cuda")
    monkeypatch.setitem(torch_suites.SUITES, "gemm", damaged)
    document = run_module(capsys, suites=["kernel", "gemm"], devices=["0"])["torch_benchmark"]
    assert len(document["results"]) == 1, "what stands before it is kept"
    (error,) = document["errors"]
    assert (error["device"], error["suite"], error["reason"]) == ("cuda:0", "gemm", "error")
    assert "cannot be read" in error["detail"]


def test_no_temporary_file_stays(
    fake_torch: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fake_torch("cuda")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    assert run_module(capsys, suites=["kernel"])["torch_benchmark"]["errors"] == []
    assert sorted(tmp_path.iterdir()) == before


def test_documented_options_are_the_accepted_ones() -> None:
    import yaml

    documented = yaml.safe_load(torch_benchmark.DOCUMENTATION)["options"]
    assert set(documented) == set(torch_benchmark.ARGUMENT_SPEC)
    for name, spec in torch_benchmark.ARGUMENT_SPEC.items():
        assert set(documented[name].get("suboptions", {})) == set(spec.get("options", {}))
        for key in ("type", "elements", "choices", "default"):
            assert documented[name].get(key) == spec.get(key), f"{name}.{key}"
