# SPDX-License-Identifier: Apache-2.0
"""What makes a node pass, and everything that keeps it from passing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.verdict_samples import (
    RUN,
    VERSION,
    cpu_benchmark,
    cuda_benchmark,
    device,
    evidence,
    gpu,
    no_gpu,
    result,
    software,
)

from ansible.module_utils.rackwright import verdict, verdict_gates
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.evidence import catalogue_rows, read_evidence
from ansible.module_utils.rackwright.verdict_record import STATUSES, check

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/verdict.schema.json").read_text())


def judge(node: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Judge one node and hold the document against the published schema."""
    gates = options.pop("gates", {})
    document = verdict.judge_node(read_evidence({"n": node}, RUN, gates, **options)["n"])
    jsonschema.validate(document, SCHEMA)
    return document


def statuses(document: dict[str, Any], check_id: str) -> dict[str, str]:
    return {entry["subject"]: entry["status"] for entry in document["checks"] if entry["id"] == check_id}


def only_reason(document: dict[str, Any]) -> str:
    assert len(document["reasons"]) == 1, document["reasons"]
    return str(document["reasons"][0])


def test_healthy_real_node_passes() -> None:
    document = judge(evidence(gpu(), cuda_benchmark(), expected={"gpu_count": 2, "torch_version": "2.13.0"}))
    assert (document["verdict"], document["verdict_text"], document["reasons"]) == ("pass", "pass", [])
    assert statuses(document, "benchmark.gemm") == {"gpu0": "pass", "gpu1": "pass"}
    gemm = next(entry for entry in document["checks"] if entry["id"] == "benchmark.gemm")
    assert gemm["expected"] == {"peak": 989.0, "gate": "gemm.hopper", "warn": 0.70, "fail": 0.62, "calibrated": False}
    assert gemm["observed"]["fraction_of_peak"] == pytest.approx(740 / 989, abs=1e-4)


def test_simulated_node_passes_as_simulated_and_its_gpus_are_never_measured() -> None:
    document = judge(evidence(gpu(8, simulated=True), cpu_benchmark(), expected={"gpu_count": "8"}))
    assert (document["verdict"], document["verdict_text"], document["simulated"]) == ("pass", "pass (simulated)", True)
    for check_id in ("torch.kernel", "benchmark.gemm", "benchmark.memory"):
        assert statuses(document, check_id) == {"cpu": "pass", "gpu": "not_applicable"}
    reasons = {entry["reason"] for entry in document["checks"] if entry["subject"] == "gpu"}
    assert reasons == {"simulated GPU cannot run kernels"}


def test_numbers_that_claim_to_come_from_simulated_gpus_are_not_judged() -> None:
    node = evidence(gpu(2, simulated=True), cuda_benchmark(tflops=1.0))
    document = judge(node)
    assert statuses(document, "benchmark.gemm") == {"cpu": "fail", "gpu": "not_applicable"}


def test_node_without_gpu_passes_where_none_is_expected() -> None:
    document = judge(evidence(no_gpu(), cpu_benchmark()))
    assert document["verdict"] == "pass"
    assert statuses(document, "gpu.situation") == {"node": "not_applicable"}
    cpu = [entry for entry in document["checks"] if entry["subject"] == "cpu" and entry["id"] == "benchmark.gemm"]
    assert "compared with no catalogue" in cpu[0]["reason"]


@pytest.mark.parametrize("count", [1, "8"])
def test_node_without_gpu_fails_where_some_are_expected(count: Any) -> None:
    document = judge(evidence(no_gpu(), cpu_benchmark(), expected={"gpu_count": count}))
    assert document["verdict"] == "fail"
    assert f"the inventory expects {count} GPU(s), the node has none" in document["reasons"][0]


@pytest.mark.parametrize(
    "situation",
    ["no_driver", "driver_not_loaded", "version_mismatch", "gpu_lost", "gpu_reset_required", "driver_hung", "new_one"],
)
def test_every_other_situation_fails_with_its_cause(situation: str) -> None:
    facts = gpu(situation=situation, cause="Something is wrong.", next_step="Do this.")
    document = judge(evidence(facts, cpu_benchmark()))
    assert document["verdict"] == "fail"
    assert "fail: gpu.situation on node: Something is wrong. Do this." in document["reasons"]


def test_a_lost_gpu_is_one_line_of_its_own_and_the_others_are_judged() -> None:
    facts = gpu(3, situation="gpu_lost", cause="GPU 1 is lost.", next_step="Drain the node.")
    facts["count"] = 2
    lost = dict.fromkeys(facts["devices"][1]) | {"index": 1, "missing": {"uuid": "the GPU is lost (NVML 15)"}}
    facts["devices"][1] = lost
    node = evidence(facts, cuda_benchmark(2))
    node["benchmark"]["torch_benchmark"]["devices"] = {
        "cuda:0": {"uuid": "GPU-0000-0"},
        "cuda:1": {"uuid": "GPU-0000-2"},
    }
    document = judge(node)
    assert statuses(document, "gpu.answers") == {"gpu1": "fail"}
    assert statuses(document, "torch.kernel") == {"gpu0": "pass", "gpu2": "pass"}
    assert statuses(document, "gpu.ecc_mode") == {"gpu0": "pass", "gpu2": "pass"}
    assert [line.split(":")[1] for line in document["reasons"]] == [
        " gpu.situation on node",
        " gpu.count_bus on node",
        " gpu.answers on gpu1",
    ]


@pytest.mark.parametrize("situation", ["version_mismatch", "driver_crashed", "driver_not_loaded"])
def test_a_driver_that_does_not_answer_is_told_once_not_per_gpu(situation: str) -> None:
    silent = {"index": None, "uuid": None, "name": None, "missing": {"uuid": "only the driver knows it"}}
    facts = gpu(8, situation=situation, cause="Broken.", next_step="Repair.", devices=[silent] * 8, driver={})
    facts["count"] = 0
    document = judge(evidence(facts, cpu_benchmark()))
    assert document["reasons"][0] == "fail: gpu.situation on node: Broken. Repair."
    assert len(document["reasons"]) <= 2
    assert statuses(document, "coherence.module_library") == {"loaded module": "not_measured"}
    others = {entry["status"] for entry in document["checks"] if entry["id"].startswith("coherence.")}
    assert others <= {"pass", "not_measured", "not_applicable"}


def test_a_missing_driver_says_which_role_installs_it() -> None:
    facts = gpu(0, situation="no_driver", cause="No driver.", next_step="Install it.", pci_count=1, driver={})
    assert "the role nvidia_driver installs a driver." in " ".join(judge(evidence(facts, cpu_benchmark()))["reasons"])


def test_equal_findings_share_a_line() -> None:
    facts = gpu(8)
    for entry in facts["devices"][2:5]:
        entry["ecc"]["pending"] = "disabled"
    assert "warn: gpu.ecc_mode on gpu2, gpu3, gpu4: " in only_reason(judge(evidence(facts, cuda_benchmark(8))))


Change = Callable[[dict[str, Any]], None]


def _set(path: str, value: Any) -> Change:
    def change(node: dict[str, Any]) -> None:
        record: Any = node["facts"]["ansible_facts"]["gpu"]
        *parents, last = path.split(".")
        for key in parents:
            record = record[int(key)] if isinstance(record, list) else record[key]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "status", "check_id", "text"),
    [
        (_set("pci_count", None), "warn", "gpu.count_bus", "the PCI bus could not be read"),
        (_set("driver.kernel_module_version", "535.274.02"), "fail", "coherence.module_library", "535.274.02 is still"),
        (_set("driver.kernel_module_version", None), "warn", "coherence.module_library", "loaded module is not known"),
        (
            _set("software.boots", "6.1.1"),
            "fail",
            "coherence.boot_kernel",
            "6.1.1, which boots next, has no NVIDIA module",
        ),
        (_set("software.packages.nvidia-smi", "550.1.1"), "fail", "coherence.package_skew", "nvidia-smi 550.1.1"),
        (_set("devices.1.ecc.pending", "disabled"), "warn", "gpu.ecc_mode", "enabled, disabled after the next reset"),
        (_set("devices.1.ecc.counters.uncorrected.volatile", 3), "fail", "gpu.ecc_errors", "3 uncorrected"),
        (_set("devices.0.row_remap.failure", True), "fail", "gpu.row_remap", "could not be remapped"),
        (_set("devices.0.row_remap.pending", True), "warn", "gpu.row_remap", "waits to be remapped"),
        (_set("devices.0.recovery_action", "gpu_reset"), "fail", "gpu.recovery", "'gpu_reset'"),
        (_set("devices.0.recovery_action", "drain_p2p"), "warn", "gpu.recovery", "'drain_p2p'"),
        (_set("devices.0.catalogue_id", None), "warn", "gpu.catalogue", "reported, not judged"),
    ],
)
def test_one_fault_of_a_real_node(change: Change, status: str, check_id: str, text: str) -> None:
    node = evidence(gpu(), cuda_benchmark())
    change(node)
    document = judge(node)
    assert document["verdict"] == status
    reason = only_reason(document)
    assert check_id in reason
    assert text in reason


@pytest.mark.parametrize("on_bus", [0, 8])
def test_a_container_with_some_of_the_gpus_has_none_missing(on_bus: int) -> None:
    document = judge(evidence(gpu(2, pci_count=on_bus, platform="container"), cuda_benchmark(2)))
    assert (document["verdict"], statuses(document, "gpu.count_bus")) == ("pass", {"node": "not_applicable"})


def test_windows_numbers_its_driver_on_its_own() -> None:
    driver = {"kernel_module_version": "560.94", "library_version": "560.35.02", "nvml_version": "12.560.35.02"}
    facts = gpu(1, situation="wsl2", pci_count=0, driver=driver)
    document = judge(evidence(facts, cuda_benchmark(1), expected={"driver_version": "535"}))
    assert document["verdict"] == "pass"
    for check_id in ("coherence.module_library", "coherence.lock_version"):
        assert set(statuses(document, check_id).values()) == {"not_applicable"}


def test_cuda_without_its_fabric_manager_is_named() -> None:
    node = evidence(gpu(), cpu_benchmark())
    reason = "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized"
    node["benchmark"]["torch_benchmark"]["torch"].update(cuda_build="13.0", cuda_unavailable_reason=reason)
    assert any("Start nvidia-fabricmanager" in line for line in judge(node)["reasons"])


def test_installed_package_must_be_what_runs() -> None:
    facts = gpu(software=software("535.274.02"))
    assert any("there is a second one" in line for line in judge(evidence(facts, cuda_benchmark()))["reasons"])


def test_the_locks_entry_is_held_against_the_node() -> None:
    stack = {"driver": {"version": VERSION, "flavour": "open", "holds": ["nvidia-smi", "libnvidia-ml1"]}}
    facts = gpu()
    facts["driver"]["flavour"] = "open"
    assert judge(evidence(facts, cuda_benchmark(), expected={"stack": stack}))["verdict"] == "pass"
    facts["software"]["held"] = []
    document = judge(evidence(facts, cuda_benchmark(), expected={"stack": stack}))
    assert (document["verdict"], statuses(document, "coherence.holds")) == ("warn", {"driver packages": "warn"})
    facts["driver"]["flavour"] = "proprietary"
    document = judge(evidence(facts, cuda_benchmark(), expected={"stack": stack}))
    assert statuses(document, "coherence.lock_flavour") == {"driver": "fail"}


@pytest.mark.parametrize(
    ("wanted", "status"), [("535.288.01", "pass"), ("535", "pass"), ("550", "fail"), ("53", "fail")]
)
def test_wanted_driver(wanted: str, status: str) -> None:
    document = judge(evidence(gpu(), cuda_benchmark(), expected={"driver_version": wanted}))
    assert statuses(document, "coherence.lock_version") == {"driver": status}


def test_an_idle_link_is_information_only() -> None:
    node = evidence(gpu(), cuda_benchmark())
    _set("devices.0.pcie.generation", 1)(node)
    document = judge(node)
    assert document["verdict"] == "pass"
    link = next(entry for entry in document["checks"] if entry["id"] == "gpu.pcie_link")
    assert "idle link trains down" in link["reason"]


UNREAD = ("ecc.current", "ecc.counters.uncorrected.volatile", "row_remap.failure", "pcie.generation")


@pytest.mark.parametrize(
    ("reason", "verdict_of_node", "status"),
    [
        ("not supported on this device (NVML 3)", "pass", "not_applicable"),
        ("this driver version or its binding does not offer it (NVML 13)", "pass", "not_applicable"),
        ("the GPU is lost (NVML 15)", "warn", "not_measured"),
        ("this user may not read it (NVML 4)", "warn", "not_measured"),
        (None, "warn", "not_measured"),
    ],
)
def test_a_value_that_was_not_read_is_no_pass_and_one_that_does_not_exist_no_fault(
    reason: str | None, verdict_of_node: str, status: str
) -> None:
    facts = gpu(1)
    bare = {"index": 0, "uuid": "GPU-0000-0", "name": facts["devices"][0]["name"], "catalogue_id": "h100-sxm5-80gb"}
    facts["devices"] = [{**bare, "missing": dict.fromkeys(UNREAD, reason) if reason else {}}]
    document = judge(evidence(facts, cuda_benchmark(1)))
    assert document["verdict"] == verdict_of_node
    for check_id in ("gpu.ecc_mode", "gpu.ecc_errors", "gpu.row_remap", "gpu.pcie_link"):
        assert statuses(document, check_id) == {"gpu0": status}


@pytest.mark.parametrize(
    ("version", "wanted", "same"),
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.0+cu130", "2.13.0+cu130", True),
        ("2.13.0+cpu", "2.13.0+cu130", False),
        ("2.13.1", "2.13.0", False),
        ("2.13.0.post1", "2.13.0", False),
    ],
)
def test_wanted_torch(version: str, wanted: str, same: bool) -> None:
    node = evidence(no_gpu(), cpu_benchmark(), expected={"torch_version": wanted})
    node["benchmark"]["torch_benchmark"]["torch"]["version"] = version
    assert judge(node)["verdict"] == ("pass" if same else "fail")


def test_cpu_build_on_real_gpus_fails() -> None:
    document = judge(evidence(gpu(), cpu_benchmark()))
    assert document["verdict"] == "fail"
    assert any("torch 2.13.0+cpu is a CPU build, the node has 2 usable GPU(s)" in line for line in document["reasons"])
    assert statuses(document, "torch.kernel") == {"gpu0": "fail", "gpu1": "fail"}


def test_torch_that_cannot_use_cuda_fails_with_its_own_words() -> None:
    node = evidence(gpu(), cpu_benchmark())
    node["benchmark"]["torch_benchmark"]["torch"].update(
        cuda_build="13.0", cuda_unavailable_reason="The NVIDIA driver on your system is too old"
    )
    assert any("driver on your system is too old" in line for line in judge(node)["reasons"])


def test_a_gpu_torch_does_not_see_fails_alone() -> None:
    document = judge(evidence(gpu(2), cuda_benchmark(1)))
    assert statuses(document, "torch.kernel") == {"gpu0": "pass", "gpu1": "fail"}
    assert statuses(document, "benchmark.memory") == {"gpu0": "pass", "gpu1": "fail"}


def test_devices_are_matched_by_uuid_not_by_order() -> None:
    node = evidence(gpu(2), cuda_benchmark(2))
    document = node["benchmark"]["torch_benchmark"]
    document["devices"] = {"cuda:0": {"uuid": "GPU-0000-1"}, "cuda:1": {"uuid": "GPU-0000-0"}}
    slow = next(entry for entry in document["results"] if entry["device"] == "cuda:0" and entry["suite"] == "gemm")
    slow["value"] = 100.0
    assert statuses(judge(node), "benchmark.gemm") == {"gpu0": "pass", "gpu1": "fail"}


def test_mig_cards_are_matched_by_instance_and_never_judged_as_whole_cards() -> None:
    facts = gpu(2)
    for index, entry in enumerate(facts["devices"]):
        entry["mig"] = {"mode": "enabled", "pending": "enabled", "instances": [{"uuid": f"MIG-{index}"}]}
    node = evidence(facts, cuda_benchmark(1, tflops=90.0, gbps=300.0))
    node["benchmark"]["torch_benchmark"]["devices"]["cuda:0"]["uuid"] = "GPU-1"
    document = judge(node)
    assert document["verdict"] == "warn"
    for check_id in ("torch.kernel", "benchmark.gemm", "benchmark.memory"):
        assert statuses(document, check_id) == {"gpu0": "not_measured", "gpu1": "pass"}
    assert all("MIG is enabled" in line for line in document["reasons"])


def test_wrong_answers_of_a_kernel_fail() -> None:
    node = evidence(gpu(1), cuda_benchmark(1))
    kernel = next(e for e in node["benchmark"]["torch_benchmark"]["results"] if e["suite"] == "kernel")
    kernel["value"] = 3
    assert "3 elements of the answer are wrong" in only_reason(judge(node))


@pytest.mark.parametrize(
    ("tflops", "gbps", "gemm", "memory"),
    [
        (989 * 0.71, 3350 * 0.63, "pass", "pass"),
        (989 * 0.69, 3350 * 0.61, "warn", "warn"),
        (989 * 0.61, 3350 * 0.54, "fail", "fail"),
    ],
)
def test_numbers_against_the_catalogue(tflops: float, gbps: float, gemm: str, memory: str) -> None:
    document = judge(evidence(gpu(1), cuda_benchmark(1, tflops, gbps)))
    assert statuses(document, "benchmark.gemm") == {"gpu0": gemm}
    assert statuses(document, "benchmark.memory") == {"gpu0": memory}
    assert document["verdict"] == gemm
    assert all("not calibrated" in line for line in document["reasons"])


def test_a_site_can_set_its_own_gates() -> None:
    node = evidence(gpu(1), cuda_benchmark(1, tflops=500))
    assert judge(node)["verdict"] == "fail"
    assert judge(node, gates={"gemm.hopper": {"warn": 0.5, "fail": 0.4}})["verdict"] == "pass"


def test_a_card_outside_the_catalogue_is_measured_but_not_judged() -> None:
    facts = gpu(1)
    facts["devices"] = [device(0, "NVIDIA Something New", None)]
    document = judge(evidence(facts, cuda_benchmark(1, tflops=1.0)))
    assert document["verdict"] == "warn"
    assert statuses(document, "benchmark.gemm") == {"gpu0": "pass"}


def test_a_site_can_add_a_card() -> None:
    facts = gpu(1)
    facts["devices"] = [device(0, "NVIDIA Something New", "new")]
    row = {"id": "new", "memory_type": "GDDR7", "memory_bandwidth_gbps": 3000, "peak_dense_tflops": {"bf16": 10_000}}
    document = judge(evidence(facts, cuda_benchmark(1)), extra_gpus=[row])
    assert statuses(document, "benchmark.gemm") == {"gpu0": "warn"}
    assert statuses(document, "benchmark.memory") == {"gpu0": "pass"}


def test_a_card_with_ecc_in_its_data_is_not_held_to_the_bandwidth_of_one_without() -> None:
    facts = gpu(1)
    facts["devices"] = [device(0, "Tesla T4", "t4")]
    node = evidence(facts, cuda_benchmark(1, gbps=240))
    gemm = next(e for e in node["benchmark"]["torch_benchmark"]["results"] if e["suite"] == "gemm")
    gemm.update(dtype="float16", value=22.0)  # a third of its peak is what 70 W give
    assert statuses(judge(node), "benchmark.memory") == {"gpu0": "pass"}
    assert judge(node)["verdict"] == "pass"
    _set("devices.0.ecc.current", "disabled")(node)
    assert statuses(judge(node), "benchmark.memory") == {"gpu0": "warn"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -5.0, None, "many"])
@pytest.mark.parametrize("suite", ["gemm", "memory"])
def test_a_number_that_is_none_is_no_proof(suite: str, value: Any) -> None:
    node = evidence(no_gpu(), cpu_benchmark())
    entry = next(e for e in node["benchmark"]["torch_benchmark"]["results"] if e["suite"] == suite)
    entry["value"] = value
    document = verdict.judge_node(read_evidence({"n": node}, RUN, {})["n"])
    assert document["verdict"] == "fail"
    assert "is not a finite number above zero" in only_reason(document)


@pytest.mark.parametrize(
    ("fractions", "status"),
    [
        ({"sw_power_cap": 1.0, "gpu_idle": 1.0}, "pass"),
        ({"hw_slowdown": 0.005}, "pass"),
        ({"hw_thermal_slowdown": 0.02}, "fail"),
        ({"hw_power_brake_slowdown": 0.5}, "fail"),
        ({"sw_thermal_slowdown": 0.10}, "warn"),
        ({"sw_thermal_slowdown": 0.30}, "fail"),
    ],
)
def test_throttling(fractions: dict[str, float], status: str) -> None:
    node = evidence(gpu(1), cuda_benchmark(1))
    entry = next(e for e in node["benchmark"]["torch_benchmark"]["results"] if e["suite"] == "gemm")
    entry["throttle"] = {"fractions": fractions, "source": {}, "active": sorted(fractions)}
    document = judge(node)
    assert statuses(document, "benchmark.throttle") == {"gpu0": status}
    assert document["verdict"] == status


def test_numbers_without_clocks_are_not_a_clean_pass() -> None:
    node = evidence(gpu(1), cuda_benchmark(1))
    for entry in node["benchmark"]["torch_benchmark"]["results"]:
        entry.update(throttle=None, missing={"throttle": "NVML gives no readings"})
    document = judge(node)
    assert document["verdict"] == "warn"
    assert "NVML gives no readings" in only_reason(document)


def test_errors_of_the_benchmark_fail_with_their_device() -> None:
    node = evidence(gpu(2), cuda_benchmark(2))
    node["benchmark"]["torch_benchmark"]["errors"] = [
        {
            "device": "cuda:1",
            "suite": "gemm",
            "reason": "timeout",
            "detail": "No result within 600 s.",
            "next_step": "X.",
        }
    ]
    reason = only_reason(judge(node))
    assert reason == "fail: benchmark.run on cuda:1: gemm No result within 600 s. X."


@pytest.mark.parametrize(
    "more",
    [
        {"reboot": {"required": True, "reason": "Kernel 6.1.0-56 is installed, 6.1.0-50 is running."}},
        {"benchmark_host": True},
    ],
)
def test_a_pending_restart_warns(more: dict[str, Any]) -> None:
    node = evidence(gpu(), cuda_benchmark())
    if "reboot" in more:
        node.update(more)
    else:
        node["benchmark"]["torch_benchmark"]["host"]["reboot_required"] = True
    document = judge(node)
    assert document["verdict"] == "warn"
    assert statuses(document, "system.reboot") == {"node": "warn"}


UNREACHABLE = {"unreachable": True, "msg": "Connection\ntimed out"}


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({}, "nothing was registered for this node in this run"),
        ({"facts": UNREACHABLE}, "no proof: unreachable: Connection timed out"),
        ({"facts": {"failed": True, "msg": "boom"}}, "no proof: gpu_facts failed: boom"),
        ({"facts": {"skipped": True}}, "the GPU facts of this run are missing"),
        (
            {"set_aside": {"role": "pytorch", "task": "T", "message": "disk full"}},
            "role pytorch failed at 'T': disk full",
        ),
        ({"set_aside": {"role": None, "task": "T", "message": "unreachable: gone"}}, "no proof: unreachable: gone"),
    ],
)
def test_a_node_without_evidence_fails(node: dict[str, Any], text: str) -> None:
    document = judge(node)
    assert document["verdict"] == "fail"
    assert text in only_reason(document)
    assert document["gpu"] is None


def test_a_role_that_failed_counts_more_than_good_facts() -> None:
    node = evidence(gpu(), cuda_benchmark(), set_aside={"role": "nvidia_driver", "task": "T", "message": "mirror down"})
    assert "role nvidia_driver failed at 'T': mirror down" in only_reason(judge(node))


@pytest.mark.parametrize(
    ("benchmark", "text"),
    [
        ({}, "no benchmark was registered"),
        (
            {"failed": True, "msg": "Could not import torch. Install it.", "hint": "Install it."},
            "torch_benchmark failed",
        ),
        (UNREACHABLE, "unreachable: Connection timed out"),
        ({"torch_benchmark": {**cpu_benchmark()["torch_benchmark"], "run_id": "older"}}, "belongs to run older"),
    ],
)
def test_facts_without_a_benchmark_of_this_run_are_no_proof(benchmark: dict[str, Any], text: str) -> None:
    document = judge(evidence(gpu(simulated=True), benchmark))
    assert document["verdict"] == "fail"
    assert any(text in line for line in document["reasons"])
    assert all(line.count("Install it.") <= 1 for line in document["reasons"])


def test_nothing_failed_is_not_a_proof() -> None:
    node = evidence(no_gpu(), cpu_benchmark())
    document = node["benchmark"]["torch_benchmark"]
    document["results"] = [entry for entry in document["results"] if entry["suite"] != "kernel"]
    judged = judge(node)
    assert judged["verdict"] == "fail"
    assert "no kernel was launched" in only_reason(judged)
    assert verdict.overall([]) == "fail"
    assert verdict.overall([check("a.b", "not_applicable", "x", reason="y")]) == "fail"


def test_check_mode_is_no_proof_and_no_failure_of_the_benchmark() -> None:
    document = judge(evidence(gpu(simulated=True), {"skipped": True, "plan": {}}), check_mode=True)
    assert statuses(document, "torch.import") == {"node": "not_measured"}
    assert document["verdict"] == "warn"
    assert only_reason(document).startswith("not measured: torch.import")


def test_check_mode_tells_how_long_the_benchmark_would_take() -> None:
    planned = "Check mode: nothing was measured. It would take about 60 s on cuda:0."
    document = judge(evidence(gpu(simulated=True), {"skipped": True, "plan": {}, "msg": planned}), check_mode=True)
    assert any("It would take about 60 s on cuda:0" in reason for reason in document["reasons"])


@given(st.lists(st.sampled_from(STATUSES)))
def test_verdict_is_never_better_than_its_worst_check(found: list[str]) -> None:
    checks = [check("a.b", status, "x", reason="why") for status in found]
    judged = verdict.overall(checks)
    if "fail" in found:
        assert judged == "fail"
    elif "unattainable" in found:
        assert judged == "unattainable"
    elif {"warn", "not_measured"} & set(found):
        assert judged in ("warn", "fail")
    if judged == "pass":
        assert set(found) <= {"pass", "not_applicable"}
        assert "pass" in found


JSON = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 2.5, "", "x", "ready"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["device", "suite", "x"]), inner),
    max_leaves=5,
)
KEYS = (
    "situation",
    "devices",
    "driver",
    "count",
    "pci_count",
    "simulated",
    "torch",
    "results",
    "errors",
    "host",
    "x",
    "software",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_no_shape_of_evidence_ends_in_a_traceback_or_passes(facts: dict[str, Any], bench: dict[str, Any]) -> None:
    node = evidence(facts, {"torch_benchmark": {**bench, "run_id": RUN}})
    document = verdict.judge_node(read_evidence({"n": node}, RUN, {})["n"])
    assert document["verdict"] == "fail"
    assert document["reasons"]


def test_a_check_that_is_no_pass_says_why() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        check("a.b", "warn", "x")
    with pytest.raises(ValueError, match="unknown status"):
        check("a.b", "good", "x")


@pytest.mark.parametrize(
    ("nodes", "gates", "text"),
    [
        ({}, {}, "there is no node to judge"),
        ({"n": []}, {}, "its evidence is not a dictionary"),
        ({"n": {"fact": {}}}, {}, "unknown key(s) fact"),
        ({"n": {"facts": "x"}}, {}, "facts is not a dictionary"),
        ({"n": {"expected": {"gpu_count": "eight"}}}, {}, "gpu_count is 'eight', not a number"),
        ({"n": {"expected": {"gpu_count": -1}}}, {}, "gpu_count is negative"),
        ({"n": {"expected": {"gpus": 8}}}, {}, "unknown expectation gpus"),
        ({"n": {}}, {"gemm.hoper": {}}, "unknown gate(s) gemm.hoper"),
    ],
)
def test_evidence_that_is_not_understood_is_refused(nodes: Any, gates: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_evidence(nodes, RUN, gates)
    assert text in str(caught.value)


def test_every_catalogued_card_has_gates_that_fit_it() -> None:
    rows = catalogue_rows()
    assert len(rows) > 50
    assert verdict_gates.gemm_gate(rows["a100-sxm4-80gb"]) == "gemm.a100"
    assert verdict_gates.gemm_gate(rows["a100-pcie-40gb"]) == "gemm.a100_pcie"
    assert verdict_gates.gemm_gate(rows["h200-sxm-141gb"]) == "gemm.hopper"
    assert verdict_gates.gemm_gate(rows["gh200-96gb"]) == "gemm.hopper"
    assert verdict_gates.gemm_gate(rows["h100-pcie-80gb"]) == "gemm.other"
    assert verdict_gates.gemm_gate(rows["h200-nvl-141gb"]) == "gemm.other"
    assert verdict_gates.gemm_gate(rows["b200-sxm"]) == "gemm.blackwell_dc"
    assert verdict_gates.gemm_gate(rows["rtx-4090"]) == "gemm.other"
    assert verdict_gates.memory_gate(rows["rtx-4090"]) == "memory.gddr"
    assert verdict_gates.memory_gate(rows["a100-sxm4-80gb"]) == "memory.hbm2"
    assert verdict_gates.memory_gate(rows["b200-sxm"]) == "memory.hbm3"
    for row in rows.values():
        assert verdict_gates.gemm_gate(row) in (None, *verdict_gates.GATES)
        assert verdict_gates.memory_gate(row) in (None, *verdict_gates.GATES)


@given(st.floats(min_value=0, max_value=2), st.sampled_from(sorted(verdict_gates.GATES)))
def test_a_faster_card_is_never_judged_worse(fraction: float, name: str) -> None:
    gate, order = verdict_gates.GATES[name], ["fail", "warn", "pass"]
    faster = verdict_gates.step_for(math.nextafter(fraction, 3), gate)
    assert order.index(faster) >= order.index(verdict_gates.step_for(fraction, gate))


def test_sample_results_are_what_the_schema_says() -> None:
    jsonschema.validate(result("gemm", "cpu", 1.0, "TFLOP/s"), {**SCHEMA["$defs"]["result"], "$defs": SCHEMA["$defs"]})
