# SPDX-License-Identifier: Apache-2.0
"""What only a real GPU can show: facts that agree with torch, right answers, numbers within physics, faults kept in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gpu.bench import compare
from gpu.bench import run as bench_gpu
from gpu.conftest import HAS_ANSIBLE, ROOT, ansible_playbook

from rackwright import coherence, llm_training_plan, text_table
from rackwright.benchmark_levels import LEVEL_SUITES
from rackwright.evidence import catalogue_rows, read_evidence
from rackwright.verdict import judge_node
from rackwright.verdict_gates import peak_tflops

pytestmark = pytest.mark.gpu

RunModule = Callable[..., dict[str, Any]]
Devices = list[dict[str, Any]]

# 5 % above the catalogue's peak is a wrong clock, a wrong formula or a wrong row, never a good card
PHYSICS = 1.05

HOLD = """
import sys, torch
free, total = torch.cuda.mem_get_info(0)
held = torch.empty(int(free * float(sys.argv[1])), dtype=torch.int8, device="cuda:0").fill_(1)
torch.cuda.synchronize()
print("holding", flush=True)
sys.stdin.read()
"""


@contextmanager
def occupied_gpu(fraction: float) -> Iterator[None]:
    """Keep a fraction of the first GPU's free memory occupied by another process."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(fraction)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "holding\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(60)
        time.sleep(1)  # the driver frees the memory of a process a moment after its end


def facts_of(run_module: RunModule) -> dict[str, Any]:
    gpu: dict[str, Any] = run_module("gpu_facts")["ansible_facts"]["gpu"]
    return gpu


def test_facts_agree_with_torch(run_module: RunModule, torch_devices: Devices) -> None:
    gpu = facts_of(run_module)
    print(json.dumps(gpu, indent=1))
    assert (gpu["situation"], gpu["simulated"], gpu["count"]) == ("ready", False, len(torch_devices)), gpu["cause"]
    by_uuid = {device["uuid"]: device for device in gpu["devices"]}
    for seen in torch_devices:
        device = by_uuid[seen["uuid"]]
        assert device["name"] == seen["name"]
        assert device["compute_capability"] == ".".join(str(part) for part in seen["capability"])
        # torch does not count what the driver reserves
        assert 0.9 <= seen["memory"] / device["memory"]["total_bytes"] <= 1.0


def test_what_is_installed_fits_together(run_module: RunModule, torch_devices: Devices) -> None:
    gpu = facts_of(run_module)
    answers = coherence.examine(gpu)
    print(json.dumps([gpu["software"], answers], indent=1))
    loaded = next(answer for answer in answers if answer["id"] == "module-library")
    assert loaded["state"] == "ok", loaded
    for answer in answers:
        assert answer["state"] == "ok" or answer["cause"], answer


def test_facts_agree_with_nvidia_smi(run_module: RunModule, torch_devices: Devices) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not on this machine: no second witness")
    fields = "uuid,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.max,vbios_version"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    gpu = facts_of(run_module)
    by_uuid = {device["uuid"]: device for device in gpu["devices"]}
    for line in done.stdout.strip().splitlines():
        uuid, driver, memory, generation, width, _ = (part.strip() for part in line.split(","))
        device = by_uuid[uuid]
        assert gpu["driver"]["library_version"] == driver
        assert device["memory"]["total_bytes"] >> 20 == int(memory)
        assert (device["pcie"]["max_generation"], device["pcie"]["max_width"]) == (int(generation), int(width))


def test_the_quick_suites_on_every_gpu(run_module: RunModule, torch_devices: Devices) -> None:
    document = run_module("torch_benchmark")["torch_benchmark"]
    _show_fractions(document)
    assert document["errors"] == []
    assert document["device_kind"] == "cuda"
    gpu = facts_of(run_module)
    ids = {device["uuid"]: device["catalogue_id"] for device in gpu["devices"]}
    for index in range(len(torch_devices)):
        name = f"cuda:{index}"
        row = catalogue_rows().get(str(ids[document["devices"][name]["uuid"]]), {})
        found = [entry for entry in document["results"] if entry["device"] == name]
        assert {entry["suite"] for entry in found} == set(LEVEL_SUITES["quick"]) - {"import"}
        for entry in found:
            if entry["suite"] in ("kernel", "correctness"):
                assert entry["value"] == 0, entry
            elif entry["suite"] == "gemm":
                _within_physics(entry, peak_tflops(row, entry["dtype"]))
            elif entry["suite"] == "memory":
                _within_physics(entry, row.get("memory_bandwidth_gbps"))
            else:
                _within_physics(entry, entry["details"]["link_gbps"])


def test_every_data_type_is_measured_or_named(run_module: RunModule, torch_devices: Devices) -> None:
    document = run_module("torch_benchmark", suites=["gemm"], devices=["0"])["torch_benchmark"]
    assert document["errors"] == []
    measured = {entry["dtype"] for entry in document["results"]}
    absent = {entry["dtype"]: entry["reason"] for entry in document["not_applicable"]}
    print(json.dumps(absent, indent=1))
    assert measured | set(absent) == {"bfloat16", "float16", "tf32", "float32", "float8_e4m3fn", "int8"}
    assert not measured & set(absent)
    if tuple(torch_devices[0]["capability"]) >= (8, 9):
        assert absent == {}, "this card has matrix units for all of them"


def test_exact_products_agree_between_all_gpus(run_module: RunModule, torch_devices: Devices) -> None:
    document = run_module("torch_benchmark", suites=["correctness"])["torch_benchmark"]
    assert document["errors"] == []
    checksums: dict[str, set[str]] = {}
    for entry in document["results"]:
        assert (entry["value"], entry["details"]["differences"]) == (0, [])
        assert entry["details"]["products"] > 10
        checksums.setdefault(entry["name"], set()).add(entry["details"]["checksum"])
    assert "correctness_float32" in checksums
    assert all(len(found) == 1 for found in checksums.values())


def test_every_pair_of_gpus(run_module: RunModule, torch_devices: Devices) -> None:
    document = run_module("torch_benchmark", suites=["p2p"])["torch_benchmark"]
    assert document["errors"] == []
    count = len(torch_devices)
    if count < 2:
        assert [(entry["suite"], entry["device"]) for entry in document["not_applicable"]] == [("p2p", "node")]
        return
    names = [entry["name"] for entry in document["results"]]
    assert names.count("p2p_uni") == count * (count - 1)
    assert names.count("p2p_bidirectional") == count * (count - 1) // 2
    for entry in document["results"]:
        print(entry["device"], entry["name"], entry["details"].get("peer"), entry["value"])
        assert entry["value"] > 1, "slower than a gigabyte per second is no PCIe link"


def test_all_gpus_burn_at_once(run_module: RunModule, torch_devices: Devices) -> None:
    document = run_module("torch_benchmark", suites=["burn"], burn_seconds=5)["torch_benchmark"]
    _show_fractions(document)
    assert document["errors"] == []
    burnt = {entry["device"]: entry["details"] for entry in document["results"] if entry["device"] != "node"}
    assert set(burnt) == {f"cuda:{index}" for index in range(len(torch_devices))}
    for details in burnt.values():
        assert details["wrong_elements"] == 0
        assert details["gpus_at_once"] == len(torch_devices)
        assert 0.8 < details["memory_fraction"] <= 0.95
        assert max(reading["power_w"] or 0 for reading in details["series"]) > 0
    (node,) = [entry for entry in document["results"] if entry["device"] == "node"]
    assert node["value"] == min(entry["value"] for entry in document["results"])
    assert node["details"]["slowest"] in burnt


def test_language_models_within_physics(run_module: RunModule, torch_devices: Devices) -> None:
    options = {"suites": ["llm_inference", "llm_training"], "timeout": 900}
    document = run_module("torch_benchmark", **options)["torch_benchmark"]
    _show_fractions(document)
    print("\n".join(text_table.table(TRAINING_COLUMNS, llm_training_plan.table(document["results"]))))
    print(json.dumps(document["not_applicable"], indent=1))
    assert document["errors"] == []
    decoded = [entry for entry in document["results"] if entry["name"].startswith("llm_decode_")]
    trained = [entry for entry in document["results"] if entry["suite"] == "llm_training"]
    assert decoded or document["not_applicable"]
    for entry in decoded:
        details = entry["details"]
        assert entry["value"] > 0
        assert 0 < details["peak_vram_fraction"] <= 1
        for key in ("mbu", "mfu", "roofline_fraction"):
            assert details[key] is None or 0 < details[key] < PHYSICS, (entry["name"], key, details[key])
    for entry in trained:
        if entry["details"]["state"] == "measured":
            _trains(entry)
    kinds = {entry["details"]["technique"]: entry["details"] for entry in trained if entry["device"] == "cuda:0"}
    if {"bf16", "bf16_checkpointing"} <= set(kinds) and kinds["bf16_checkpointing"]["memory_ratio"] is not None:
        assert kinds["bf16_checkpointing"]["memory_ratio"] < 1, "checkpointing saves memory or it does nothing"


TRAINING_COLUMNS = ("technique", "tokens_per_s", "mfu", "peak_gib", "tokens", "memory", "note")


def _trains(entry: dict[str, Any]) -> None:
    details = entry["details"]
    assert details["loss"]["last"] < details["loss"]["first"], entry["name"]
    assert details["mfu"] is None or 0 < details["mfu"] < PHYSICS
    assert 0 < details["peak_memory_bytes"] <= details["peak_reserved_bytes"]


def _show_fractions(document: dict[str, Any]) -> None:
    for name, info in document["devices"].items():
        results = [entry for entry in document["results"] if entry["device"] == name]
        rows = compare.rooflines(results, bench_gpu.peak_of(info or {}))
        print(f"\n{name}: {(info or {}).get('name')}")
        print("\n".join(text_table.table(compare.ROOFLINE_COLUMNS, rows)))
    print(json.dumps(document, indent=1))


def _within_physics(result: dict[str, Any], peak: float | None) -> None:
    assert 0 < result["p5"] <= result["value"] <= result["p95"]
    assert result["samples"] >= 10
    assert result["clocks"]["sm_mhz"]["median"] > 0, "a number without its clocks proves nothing"
    assert result["throttle"] is not None
    if peak is not None:
        assert 0.2 * peak < result["value"] < PHYSICS * peak


def test_two_runs_agree(run_module: RunModule, torch_devices: Devices) -> None:
    first, second = (
        run_module("torch_benchmark", suites=["gemm"], devices=["0"])["torch_benchmark"]["results"][0]["value"]
        for _ in range(2)
    )
    assert abs(first - second) / max(first, second) < 0.10


def test_a_device_that_takes_too_long_is_ended_and_works_afterwards(
    run_module: RunModule, torch_devices: Devices
) -> None:
    # long enough to import torch and to describe the devices, too short for half a minute of heat
    started = time.monotonic()
    options = {"suites": ["kernel", "gemm"], "devices": ["0"]}
    document = run_module("torch_benchmark", level="standard", timeout=30, **options)["torch_benchmark"]
    assert time.monotonic() - started < 120
    (error,) = document["errors"]
    assert (error["device"], error["suite"], error["reason"]) == ("cuda:0", "gemm", "timeout")
    assert [entry["suite"] for entry in document["results"]] == ["kernel"]
    again = run_module("torch_benchmark", suites=["kernel"], devices=["0"])["torch_benchmark"]
    assert (again["errors"], again["results"][0]["value"]) == ([], 0)


def test_a_busy_gpu_is_refused(run_module: RunModule, torch_devices: Devices) -> None:
    options = {"suites": ["kernel"], "devices": ["0"]}
    with occupied_gpu(0.2):
        refused = run_module("torch_benchmark", **options)["torch_benchmark"]
        allowed = run_module("torch_benchmark", allow_busy=True, **options)["torch_benchmark"]
    assert [(entry["device"], entry["reason"]) for entry in refused["errors"]] == [("cuda:0", "busy")]
    assert (allowed["errors"], allowed["results"][0]["value"]) == ([], 0)


def test_a_full_gpu_gives_smaller_shapes_or_an_entry(run_module: RunModule, torch_devices: Devices) -> None:
    with occupied_gpu(0.99):
        options = {"suites": ["kernel", "gemm", "memory"], "devices": ["0"], "allow_busy": True}
        document = run_module("torch_benchmark", **options)["torch_benchmark"]
    outcomes = {entry["suite"]: "measured" for entry in document["results"]}
    outcomes.update({entry["suite"]: entry["reason"] for entry in document["errors"]})
    assert set(outcomes) == {"kernel", "gemm", "memory"}
    assert set(outcomes.values()) <= {"measured", "out_of_memory"}


def test_the_node_gets_a_verdict(run_module: RunModule, torch_devices: Devices) -> None:
    benchmark = run_module("torch_benchmark")
    run_id = "gpu-lane"
    benchmark["torch_benchmark"]["run_id"] = run_id
    node = {"facts": run_module("gpu_facts"), "benchmark": benchmark, "expected": {"gpu_count": len(torch_devices)}}
    document = judge_node(read_evidence({"here": node}, run_id, {})["here"])
    print(json.dumps({key: document[key] for key in ("verdict_text", "reasons", "summary")}, indent=1))
    assert document["simulated"] is False
    # slow or throttled hardware may warn or fail here; what may not be is a missing proof
    assert not [reason for reason in document["reasons"] if "no proof" in reason], document["reasons"]


@pytest.mark.skipif(not HAS_ANSIBLE, reason="ansible-core is not installed here: only the code behind the modules ran")
def test_the_playbook_proves_this_machine(tmp_path: Path, torch_devices: Devices) -> None:
    prefix = tmp_path / "venv"
    (prefix / "bin").mkdir(parents=True)
    python = prefix / "bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    site = {"pytorch_env_path": str(prefix), "rackwright_reports": str(tmp_path / "reports")}
    variables = {**host, **site, "gpu_expected_count": len(torch_devices)}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(json.dumps({"gpu_nodes": {"hosts": {"here": variables}}}))
    done = ansible_playbook(ROOT / "playbooks/prove-nodes.yml", "-i", str(inventory))
    print(done.stdout)
    fleet = json.loads((tmp_path / "reports/fleet.json").read_text())
    verdict = fleet["nodes"]["here"]["verdict"]
    assert done.returncode == (2 if verdict == "fail" else 0), done.stdout + done.stderr
    assert "simulated" not in done.stdout.split("Rackwright verdicts")[1]
