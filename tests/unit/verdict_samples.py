# SPDX-License-Identifier: Apache-2.0
"""Evidence of made-up nodes for the verdict tests."""

from __future__ import annotations

import copy
from typing import Any

RUN = "20261123T010203Z"
VERSION = "535.288.01"
H100 = ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb")


def device(index: int, name: str = H100[0], catalogue_id: str | None = H100[1]) -> dict[str, Any]:
    """Return the facts of one healthy GPU."""
    return {
        "index": index,
        "uuid": f"GPU-0000-{index}",
        "name": name,
        "catalogue_id": catalogue_id,
        "architecture": "hopper",
        "pci": {"address": f"0000:{index:02x}:00.0"},
        "memory": {"total_bytes": 85_520_809_984},
        "ecc": {"current": "enabled", "pending": "enabled", "counters": {"uncorrected": {"volatile": 0}}},
        "row_remap": {"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False, "banks": {}},
        "pcie": {"generation": 5, "width": 16, "max_generation": 5, "max_width": 16},
        "recovery_action": "none",
        "missing": {},
    }


def software(version: str = VERSION) -> dict[str, Any]:
    """Return what is installed where everything is of one version and one kernel is there."""
    module = {"version": version, "flavour": "proprietary", "origin": "dkms", "path": "updates/dkms/nvidia.ko"}
    return {
        "packages": {"nvidia-smi": f"{version}-1~deb12u1", "libnvidia-ml1": f"{version}-1~deb12u1"},
        "held": ["nvidia-smi", "libnvidia-ml1"],
        "running": "6.1.0",
        "boots": "6.1.0",
        "modules": {"6.1.0": {**module, "dkms": "installed", "dkms_version": version, "headers": True}},
        "fabric_manager": {"installed": None, "needed": False, "running": False},
        "container_toolkit": {"version": None, "packages": {}},
        "cdi": [],
    }


def gpu(count: int = 2, simulated: bool = False, **changes: Any) -> dict[str, Any]:
    """Return the facts of a node whose GPUs are ready."""
    return {
        "schema": 1,
        "collected_at": "2026-11-23T01:02:03Z",
        "source": "nvml-ctypes",
        "simulated": simulated,
        "situation": "ready",
        "cause": "The driver answers for every GPU.",
        "next_step": "Nothing to do.",
        "count": count,
        "pci_count": count,
        "driver": {"kernel_module_version": VERSION, "library_version": VERSION, "nvml_version": f"12.{VERSION}"},
        "devices": [device(index) for index in range(count)],
        "software": software(),
        "missing": {},
        **changes,
    }


def no_gpu() -> dict[str, Any]:
    """Return the facts of a node without GPUs."""
    return gpu(
        count=0, situation="no_gpu", cause="No NVIDIA GPU is on the PCI bus.", next_step="Nothing to do.", driver={}
    )


def result(suite: str, on: str, value: float, unit: str, **changes: Any) -> dict[str, Any]:
    """Return one benchmark result with a tight distribution."""
    clocks = None if on == "cpu" else {"sm_mhz": {"min": 1755, "median": 1755, "max": 1755}}
    fractions = {"sw_power_cap": 0.9, "hw_slowdown": 0.0}
    throttle = None if on == "cpu" else {"fractions": fractions, "source": {}, "active": ["sw_power_cap"]}
    missing = {"clocks": "the device is a CPU", "throttle": "the device is a CPU"} if on == "cpu" else {}
    return {
        "suite": suite,
        "name": suite,
        "unit": unit,
        "device": on,
        "dtype": "float32",
        "shape": [512, 512, 512],
        "level": "quick",
        "value": value,
        "samples": 20,
        **dict.fromkeys(("median", "p5", "p95", "min", "max"), value),
        "spread": 0.01,
        "clocks": clocks,
        "throttle": throttle,
        "missing": missing,
        **changes,
    }


def cpu_benchmark() -> dict[str, Any]:
    """Return the registered result of a benchmark on a CPU."""
    document = {
        "schema": 1,
        "run_id": RUN,
        "level": "quick",
        "suites": ["import", "kernel", "gemm", "memory"],
        "seed": 1,
        "python": {"path": "/opt/rackwright/venv/bin/python", "version": "3.11.2"},
        "host": {"os": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1.0", "cpus": 2, "reboot_required": False},
        "torch": {"version": "2.13.0+cpu", "cuda_build": None, "cuda_available": False, "cuda_device_count": 0},
        "device_kind": "cpu",
        "devices": {"cpu": {"device": "cpu", "name": "a processor"}},
        "results": [
            result("import", "cpu", 2.0, "s"),
            result("kernel", "cpu", 0.0, "wrong elements", spread=0.0),
            result("gemm", "cpu", 0.05, "TFLOP/s"),
            result("memory", "cpu", 10.0, "GB/s"),
        ],
        "errors": [],
    }
    return {"changed": False, "torch_benchmark": document}


def cuda_benchmark(count: int = 2, tflops: float = 740.0, gbps: float = 2540.0) -> dict[str, Any]:
    """Return the registered result of a benchmark on real GPUs."""
    registered = cpu_benchmark()
    document = registered["torch_benchmark"]
    names = [f"cuda:{index}" for index in range(count)]
    document["torch"] = {
        "version": "2.13.0+cu130",
        "cuda_build": "13.0",
        "cuda_available": True,
        "cuda_device_count": count,
    }
    document["device_kind"] = "cuda"
    document["devices"] = {name: {"device": name, "uuid": f"GPU-0000-{index}"} for index, name in enumerate(names)}
    document["results"] = [result("import", "cpu", 2.0, "s")]
    for name in names:
        document["results"] += [
            result("kernel", name, 0.0, "wrong elements", spread=0.0, throttle=None, clocks=None),
            result("gemm", name, tflops, "TFLOP/s", dtype="bfloat16", shape=[8192] * 3, name="gemm_bfloat16_8192"),
            result("memory", name, gbps, "GB/s", shape=[1 << 29], name="memory_copy"),
        ]
    return registered


def finding(rule: str, subject: str, severity: str | None, **more: Any) -> dict[str, Any]:
    """Return one check of gpu_health; without a severity one that is in order."""
    return {
        "id": rule,
        "subject": subject,
        "state": "finding" if severity else "ok",
        "observed": 3,
        "expected": 0,
        "severity": severity,
        "actions": [{"action": "reset_gpu", "text": "Reset the GPU."}] if severity else [],
        "reason": "Something is wrong." if severity else None,
        "source": "a table",
        **more,
    }


def health(*checks: dict[str, Any]) -> dict[str, Any]:
    """Return the document of gpu_health with these checks beside some that are in order."""
    every = [finding("host.disk", "node", None), finding("nvlink.count", "gpu0", None), *checks]
    ladder = ("none", "monitor", "reset", "reboot", "isolate")
    severities = [str(entry["severity"] or "none") for entry in every]
    return {
        "schema": 1,
        "kind": "rackwright.health",
        "collected_at": "2026-11-23T01:02:03+00:00",
        "boot_id": "b",
        "window_s": 86400.0,
        "simulated": False,
        "severity": max(severities, key=ladder.index),
        "summary": {"ok": 2, "finding": len(checks), "not_applicable": 0, "not_measured": 0},
        "checks": every,
        "events": [],
    }


def evidence(facts: dict[str, Any], benchmark: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one node's evidence as a playbook hands it to fleet_verdict."""
    return copy.deepcopy({"facts": {"ansible_facts": {"gpu": facts}}, "benchmark": benchmark, **more})


def own_uuids(facts: dict[str, Any], document: dict[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return facts and benchmark document of a node whose GPUs are no other node's."""
    facts, document = copy.deepcopy((facts, document))
    for index, entry in enumerate(facts["devices"]):
        entry["uuid"] = f"GPU-{prefix}-{index}"
        document["devices"][f"cuda:{index}"]["uuid"] = f"GPU-{prefix}-{index}"
    return facts, document
