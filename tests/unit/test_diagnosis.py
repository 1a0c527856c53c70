# SPDX-License-Identifier: Apache-2.0
"""Every finding: evidence that triggers it, evidence that does not, and evidence that cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.verdict_samples import software

from ansible.module_utils.rackwright import diagnosis, gpu_code
from ansible.module_utils.rackwright.diagnosis import check_errors, diagnose, known_errors
from ansible.module_utils.rackwright.diagnosis_fix import planned
from ansible.module_utils.rackwright.diagnosis_record import Evidence
from ansible.module_utils.rackwright.diagnosis_text import fleet_text
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.stack_intent import Intent
from ansible.module_utils.rackwright.tables import load_tables

DIRECTORY = Path(__file__).parents[2] / "roles/gpu_stack/files/tables"
TABLES = load_tables(DIRECTORY)
ERRORS: dict[str, Any] = yaml.safe_load((DIRECTORY / "errors.yml").read_text(encoding="utf-8"))
GIB = 1024**3
CU124 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU128 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CARDS = {
    "P40": ("Tesla P40", "6.1"),
    "V100": ("Tesla V100-SXM2-32GB", "7.0"),
    "4090": ("NVIDIA GeForce RTX 4090", "8.9"),
    "H100": ("NVIDIA H100 80GB HBM3", "9.0"),
    "B200": ("NVIDIA B200", "10.0"),
    "5090": ("NVIDIA GeForce RTX 5090", "12.0"),
    "GB10": ("NVIDIA GB10", "12.1"),
}


def device(card: str, index: int = 0, **changes: Any) -> dict[str, Any]:
    name, capability = CARDS[card]
    return {
        "index": index,
        "name": name,
        "compute_capability": capability,
        "state": "ok",
        "catalogue_candidates": [],
        "memory": {"total_bytes": 32 * GIB, "used_bytes": GIB, "type": "dedicated"},
        "processes": [],
        "fabric": {"state": "not_supported"},
        **changes,
    }


def gpu(*cards: str, driver: str | None = "580.95.05", cuda: str | None = "13.0", **changes: Any) -> dict[str, Any]:
    devices = changes.pop("devices", [device(card, index) for index, card in enumerate(cards)])
    return {
        "situation": "ready" if devices else "no_gpu",
        "cause": "The cause.",
        "next_step": "The next step.",
        "simulated": False,
        "platform": "host",
        "os": {"machine": "x86_64"},
        "count": len(devices),
        "pci_count": len(devices),
        "driver": {
            "kernel_module_version": driver,
            "library_version": driver,
            "nvml_version": driver,
            "cuda_driver_version": cuda,
            "nouveau_loaded": False,
            "installed_module_version": None,
        },
        "devices": devices,
        "topology": {"nvswitch_count": 0},
        "software": software(driver or "580.95.05"),
        **changes,
    }


def torch(version: str, cuda: str | None, arch_list: list[str] | None, **changes: Any) -> dict[str, Any]:
    build = "cu" + "".join(cuda.split(".")[:2]) if cuda else "cpu"
    return {
        "version": version,
        "build": build,
        "cuda": cuda,
        "hip": None,
        "arch_list": arch_list,
        "basis": "import" if arch_list is not None else "files",
        "glibc_needed": "2.28",
        "import_error": None,
        **changes,
    }


def environment(**changes: Any) -> dict[str, Any]:
    return {
        "path": "/opt/app/venv",
        "kind": "venv",
        "python": "/opt/app/venv/bin/python",
        "python_version": "3.11.7",
        "site": "/opt/app/venv/lib/python3.11/site-packages",
        "torch": None,
        "tensorflow": None,
        "vllm": None,
        "missing": {},
        **changes,
    }


def frameworks(*environments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    system = {"driver_libraries": [], "fabric_manager": {"installed": False, "running": False}}
    return {
        "schema": 1,
        "environments": list(environments),
        "glibc": "2.36",
        "system": system,
        "missing": {},
        **changes,
    }


def host(reason: str | None = None) -> dict[str, Any]:
    return {"reboot": {"required": reason is not None, "reason": reason}}


def node(secure_boot: bool | None = False, **changes: Any) -> dict[str, Any]:
    return {
        "secure_boot": secure_boot,
        "secure_boot_reason": None if secure_boot is not None else "efivarfs is not mounted",
        **changes,
    }


def evidence(**changes: Any) -> Evidence:
    parts: dict[str, Any] = {"gpu": gpu("H100"), "host": host(), "frameworks": frameworks(), "node": node()}
    return Evidence("n1", **{**parts, **changes})


def told(found: Evidence, text: str | None = None) -> dict[str, Any]:
    return diagnose(found, TABLES, ERRORS, text)


def ids(found: Evidence) -> dict[str, str]:
    """Findings with their severity."""
    return {finding["id"]: finding["severity"] for finding in told(found)["findings"]}


def unmeasured(found: Evidence) -> dict[str, str]:
    return {entry["id"]: entry["reason"] for entry in told(found)["not_measured"]}


def finding(found: Evidence, name: str) -> dict[str, Any]:
    result: dict[str, Any] = next(entry for entry in told(found)["findings"] if entry["id"] == name)
    return result


def with_torch(version: str, cuda: str | None, codes: list[str] | None, *cards: str, **changes: Any) -> Evidence:
    facts = changes.pop("gpu", None) or gpu(*cards)
    return evidence(gpu=facts, frameworks=frameworks(environment(torch=torch(version, cuda, codes), **changes)))


def libraries(*entries: tuple[str, str, str], **changes: Any) -> dict[str, Any]:
    found = [{"kind": kind, "path": path, "version": version} for kind, path, version in entries]
    manager = changes.pop("fabric_manager", {"installed": False, "running": False})
    return frameworks(system={"driver_libraries": found, "fabric_manager": manager}, **changes)


def not_loaded(secure_boot: bool | None, installed: str | None = "580.95.05") -> Evidence:
    facts = gpu("H100", driver=None, cuda=None, situation="driver_not_loaded", count=0)
    facts["driver"]["installed_module_version"] = installed
    return evidence(gpu=facts, node=node(secure_boot))


def mismatch() -> dict[str, Any]:
    facts = gpu("H100", situation="version_mismatch", count=0)
    facts["driver"]["library_version"] = "580.105.08"
    return facts


def tensorflow(version: str = "2.18.0", distribution: str = "tensorflow", **changes: Any) -> dict[str, Any]:
    return {
        "distribution": distribution,
        "version": version,
        "cuda": "12.5.1",
        "cudnn": "9",
        "arch_list": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
        "cuda_build": True,
        "cuda_packages": True,
        **changes,
    }


def in_environment(facts: dict[str, Any] | None = None, **contents: Any) -> Evidence:
    return evidence(gpu=facts or gpu("H100"), frameworks=frameworks(environment(**contents)))


DRIVER = "/usr/lib/x86_64-linux-gnu/libcuda.so"
COMPAT = "/usr/local/cuda-13.0/compat/libcuda.so.580.65.06"
OLD = {"driver": "535.309.01", "cuda": "12.2"}


@pytest.mark.parametrize(
    ("name", "severity", "found"),
    [
        ("no-kernel-image", "error", with_torch("2.6.0+cu124", "12.4", CU124, "5090")),
        ("no-kernel-image", "error", with_torch("2.6.0+cu124", "12.4", CU124, "H100", "B200")),
        ("no-kernel-image", "error", with_torch("2.15.0", "13.2", ["sm_75", "sm_80", "sm_90a"], "V100")),
        ("no-kernel-image", "error", with_torch("2.15.0", "13.2", ["sm_90a"], "B200")),
        ("no-kernel-image", "error", with_torch("2.6.0+cu124", "12.4", None, "5090")),  # by the table: a scanned wheel
        ("no-kernel-image", "warning", with_torch("2.6.0+cu126", "12.6", None, "5090")),  # by a script: PTX is unknown
        ("no-kernel-image", "error", in_environment(gpu("5090"), tensorflow=tensorflow(arch_list=["sm_80", "sm_90"]))),
        ("unsupported-ptx", "error", with_torch("2.9.0", "12.8", ["compute_90"], gpu=gpu("5090", cuda="12.4"))),
        ("unsupported-ptx", "error", in_environment(gpu("5090", cuda="12.4"), tensorflow=tensorflow())),
        ("compiled-at-start", "info", with_torch("2.9.0", "12.8", ["sm_80", "compute_90"], "5090")),
        ("compiled-at-start", "info", in_environment(gpu("B200"), tensorflow=tensorflow())),
        ("driver-too-old", "error", with_torch("2.13.0", "13.0", ["sm_80", "sm_90"], gpu=gpu("H100", **OLD))),
        ("driver-too-old", "error", with_torch("2.6.0", "12.4", CU124, gpu=gpu("H100", driver="470.1", cuda="11.4"))),
        ("torch-build", "warning", with_torch("2.13.0+cpu", None, [], "H100")),
        ("torch-import", "error", in_environment(torch=torch("2.6.0", "12.4", None, import_error="no answer"))),
        ("glibc-too-old", "error", evidence(frameworks=frameworks(
            environment(torch=torch("2.9.0", "12.8", CU128)), glibc="2.17"))),
        ("tensorflow-gpu-stub", "error", in_environment(tensorflow=tensorflow("2.12.0", "tensorflow-gpu"))),
        ("tensorflow-gpu-stub", "warning", in_environment(tensorflow=tensorflow("2.11.0", "tensorflow-gpu"))),
        ("tensorflow-build", "warning", in_environment(tensorflow=tensorflow(distribution="tensorflow-cpu"))),
        ("tensorflow-build", "warning", in_environment(tensorflow=tensorflow(cuda_build=False, cuda=None))),
        ("tensorflow-build", "info", in_environment(tensorflow=tensorflow(cuda_packages=False))),
        ("vllm-torch-pin", "error", in_environment(
            torch=torch("2.14.0+cu130", "13.0", ["sm_90"]), vllm={"version": "0.32.0"})),
        ("driver-library-mismatch", "error", evidence(gpu=mismatch())),
        ("several-driver-libraries", "warning", evidence(
            frameworks=libraries(("driver", f"{DRIVER}.535.309.01", "535.309.01")))),
        ("forward-compatibility", "warning", evidence(
            gpu=gpu("4090"), frameworks=libraries(("compat", COMPAT, "580.65.06")))),
        ("fabric-manager", "error", evidence(gpu=gpu(devices=[device("H100", fabric={"state": "not_started"})]))),
        ("fabric-manager", "error", evidence(gpu=gpu(devices=[device("B200", fabric={"state": "in_progress"})]))),
        ("fabric-manager", "error", evidence(gpu=gpu("H100", topology={"nvswitch_count": 4}))),
        ("nouveau", "error", evidence(gpu=gpu("H100", situation="nouveau_in_use", count=0))),
        ("nouveau", "warning", evidence(gpu={**gpu("H100"), "driver": {"nouveau_loaded": True}})),
        ("reboot-pending", "warning", evidence(host=host("Kernel 6.1.0-57 is installed, 6.1.0-56 is running."))),
        ("secure-boot", "error", not_loaded(True)),
        ("wsl-linux-driver", "error", evidence(
            gpu=gpu("4090", platform="wsl2", situation="wsl2"), frameworks=libraries(("driver", DRIVER, "535.1")))),
        ("gpu-situation", "error", evidence(gpu=gpu("H100", situation="gpu_lost"))),
        ("gpu-situation", "error", not_loaded(False)),
        ("gpu-situation", "error", evidence(gpu=gpu(situation="wsl2", platform="wsl2"))),
        ("gpu-situation", "info", evidence(gpu=gpu())),
        ("gpu-memory-used", "info", evidence(gpu=gpu("H100", devices=[device("H100", memory={
            "total_bytes": 32 * GIB, "used_bytes": 17 * GIB, "type": "dedicated"})]))),
    ],
)  # fmt: skip
def test_triggers(name: str, severity: str, found: Evidence) -> None:
    assert ids(found).get(name) == severity
    entry = finding(found, name)
    assert entry["cause"].endswith((".", "!"))
    assert entry["steps"]
    assert all(step.strip() for step in entry["steps"])
    assert entry["source"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("no-kernel-image", with_torch("2.6.0+cu124", "12.4", CU124, "H100", "4090", "P40", "V100")),
        ("no-kernel-image", with_torch("2.9.0", "12.8", CU128, "B200", "5090", "GB10")),
        ("no-kernel-image", with_torch("2.9.0", "12.8", ["sm_120a", "sm_100f"], "5090", "B200")),
        ("no-kernel-image", with_torch("2.13.0+cpu", None, [], "5090")),
        ("no-kernel-image", with_torch("2.6.0+cu124", "12.4", CU124)),
        ("unsupported-ptx", with_torch("2.9.0", "12.8", ["sm_80", "compute_90"], gpu=gpu("5090", cuda="12.8"))),
        ("compiled-at-start", with_torch("2.9.0", "12.8", CU128, "5090")),
        ("driver-too-old", with_torch("2.6.0", "12.4", CU124, gpu=gpu("H100", driver="525.60.13", cuda="12.0"))),
        ("driver-too-old", with_torch("2.13.0", "13.0", ["sm_90"])),
        ("torch-build", with_torch("2.6.0+cu124", "12.4", CU124, "H100")),
        ("torch-build", with_torch("2.13.0+cpu", None, [])),
        ("torch-build", with_torch("2.13.0+cpu", None, [], gpu=gpu("H100", simulated=True))),
        ("torch-build", with_torch("2.13.0+cpu", None, [], gpu=gpu("H100", count=0, situation="no_driver"))),
        ("torch-import", with_torch("2.6.0+cu124", "12.4", CU124, "H100")),
        ("glibc-too-old", with_torch("2.6.0+cu124", "12.4", CU124, "H100")),
        ("tensorflow-gpu-stub", in_environment(tensorflow=tensorflow("2.12.0"))),
        ("tensorflow-build", in_environment(tensorflow=tensorflow())),
        ("tensorflow-build", in_environment(tensorflow=tensorflow(cuda_packages=False), kind="conda")),
        ("tensorflow-build", in_environment(tensorflow=tensorflow("2.11.0", "tensorflow-gpu", cuda_build=False))),
        ("vllm-torch-pin", in_environment(torch=torch("2.14.0", "13.0", ["sm_90"]), vllm={"version": "0.33.0"})),
        ("driver-library-mismatch", evidence()),
        ("several-driver-libraries", evidence(frameworks=libraries(("driver", DRIVER, "580.95.05")))),
        ("several-driver-libraries", evidence(gpu=mismatch(), frameworks=libraries(("driver", DRIVER, "580.105.08")))),
        ("forward-compatibility", evidence(frameworks=libraries(("compat", COMPAT, "580.65.06")))),
        ("fabric-manager", evidence()),
        ("fabric-manager", evidence(gpu=gpu("H100", devices=[device("H100", fabric={"state": "completed"})],
                                            topology={"nvswitch_count": 4}))),
        ("fabric-manager", evidence(gpu=gpu("H100", topology={"nvswitch_count": 6}), frameworks=libraries(
            fabric_manager={"installed": True, "running": True}))),
        ("fabric-manager", evidence(gpu=gpu("H100", topology={"nvswitch_count": 4}, simulated=True))),
        ("nouveau", evidence()),
        ("reboot-pending", evidence()),
        ("secure-boot", not_loaded(False)),
        ("secure-boot", not_loaded(True, installed=None)),
        ("secure-boot", evidence(node=node(True))),
        ("wsl-linux-driver", evidence(gpu=gpu("4090", platform="wsl2", situation="wsl2"))),
        ("wsl-linux-driver", evidence(frameworks=libraries(("driver", DRIVER, "580.95.05")))),
        ("gpu-situation", evidence()),
        ("gpu-situation", evidence(gpu=gpu("4090", platform="wsl2", situation="wsl2"))),
        ("gpu-memory-used", evidence()),
        ("gpu-memory-used", evidence(gpu=gpu("GB10", devices=[device("GB10", memory={
            "total_bytes": 32 * GIB, "used_bytes": 30 * GIB, "type": "unified"})]))),
    ],
)  # fmt: skip
def test_does_not_trigger(name: str, found: Evidence) -> None:
    assert name not in ids(found)
    assert name not in unmeasured(found)


NO_GPU_FACTS = evidence(gpu={}, node={}, silent={"gpu": "unreachable: timed out"})
NO_FRAMEWORKS = evidence(
    gpu=gpu("4090", topology={"nvswitch_count": 4}), frameworks={}, silent={"frameworks": "no Python"}
)


@pytest.mark.parametrize(
    ("name", "reason", "found"),
    [
        ("no-kernel-image", "unreachable: timed out", NO_GPU_FACTS),
        ("no-kernel-image", "no Python", NO_FRAMEWORKS),
        ("no-kernel-image", "compute capability is not known", with_torch(
            "2.6.0", "12.4", CU124, gpu=gpu("H100", devices=[device("H100", compute_capability=None)]))),
        ("no-kernel-image", "torch was not asked: it hung", in_environment(
            torch=torch("2.7.0+cu118", "11.8", None), missing={"torch.arch_list": "torch was not asked: it hung"})),
        ("no-kernel-image", "does not know this build", in_environment(torch=torch("2.99.0", "13.0", None))),
        ("no-kernel-image", "GPU code the build holds is not known", in_environment(
            gpu("H100", os={"machine": "aarch64"}), torch=torch("2.9.0", "12.8", None))),
        ("no-kernel-image", "there is no Python environment", evidence(frameworks=frameworks(
            missing={"environments./data/venv": "there is no Python environment"}))),
        ("unsupported-ptx", "CUDA version the driver knows", with_torch(
            "2.9.0", "12.8", ["compute_90"], gpu=gpu("5090", cuda=None))),
        ("driver-too-old", "driver version is not known", with_torch(
            "2.6.0", "12.4", CU124, gpu=gpu("H100", driver=None, cuda=None, situation="no_driver"))),
        ("driver-too-old", "which driver CUDA 14.0 needs", with_torch("3.0.0", "14.0", ["sm_90"], "H100")),
        ("torch-build", "version.py does not say it", in_environment(
            torch=torch("1.13.1", None, None, build=None), missing={"torch.build": "version.py does not say it"})),
        ("glibc-too-old", "C library does not say", evidence(frameworks=frameworks(
            environment(torch=torch("2.9.0", "12.8", CU128)), glibc=None))),
        ("tensorflow-build", "cannot be read", in_environment(
            tensorflow=tensorflow(cuda_build=None), missing={"tensorflow.cuda_build": "build_info.py cannot be read"})),
        ("vllm-torch-pin", "does not know this release", in_environment(vllm={"version": "0.99.0"})),
        ("vllm-torch-pin", "no torch beside it", in_environment(vllm={"version": "0.33.0"})),
        ("driver-library-mismatch", "unreachable", NO_GPU_FACTS),
        ("several-driver-libraries", "no Python", NO_FRAMEWORKS),
        ("several-driver-libraries", "loaded kernel module is not known", evidence(
            gpu=gpu("H100", driver=None), frameworks=libraries(("driver", DRIVER, "580.95.05")))),
        ("forward-compatibility", "no Python", NO_FRAMEWORKS),
        ("fabric-manager", "unreachable", NO_GPU_FACTS),
        ("fabric-manager", "no Python", NO_FRAMEWORKS),
        ("fabric-manager", "whether the node has NVSwitches", evidence(gpu=gpu("H100", topology={}))),
        ("nouveau", "unreachable", NO_GPU_FACTS),
        ("nouveau", "cannot be read", evidence(gpu={**gpu("H100"), "driver": {"nouveau_loaded": None}})),
        ("reboot-pending", "n1 gave nothing", evidence(host={}, silent={"host": "n1 gave nothing"})),
        ("secure-boot", "unreachable", NO_GPU_FACTS),
        ("secure-boot", "efivarfs is not mounted", not_loaded(None)),
        ("wsl-linux-driver", "no Python", evidence(
            gpu=gpu("4090", platform="wsl2", situation="wsl2"), frameworks={}, silent={"frameworks": "no Python"})),
        ("gpu-situation", "unreachable", NO_GPU_FACTS),
        ("gpu-memory-used", "unreachable", NO_GPU_FACTS),
        ("gpu-memory-used", "does not say", evidence(gpu=gpu("H100", devices=[device("H100", memory={})]))),
    ],
)  # fmt: skip
def test_cannot_tell(name: str, reason: str, found: Evidence) -> None:
    assert reason in unmeasured(found)[name]
    assert name not in ids(found)


def test_a_healthy_node_has_no_finding_and_nothing_unmeasured() -> None:
    result = told(with_torch("2.6.0+cu124", "12.4", CU124, "H100"))

    assert (result["findings"], result["not_measured"]) == ([], [])
    assert result["counts"] == {"error": 0, "warning": 0, "info": 0}
    assert not diagnosis.has_errors(result)


def installed(**changes: Any) -> Evidence:
    return evidence(gpu=gpu("H100", software={**software("580.95.05"), **changes}))


def test_what_does_not_fit_together_is_told_with_its_cure() -> None:
    entry = finding(installed(boots="6.1.1"), "boot-kernel")
    assert (entry["severity"], entry["subject"]) == ("error", "n1, kernel that boots next")
    assert "The kernel 6.1.1, which boots next, has no NVIDIA module" in entry["cause"]
    assert "playbooks/site.yml" in entry["steps"][0]
    specs = [{"path": "/etc/cdi/nvidia.yaml", "driver_version": "570.211.01", "devices": ["all"]}]
    entry = finding(installed(cdi=specs), "cdi")
    assert entry["steps"] == ["Run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"]
    mixed = {"nvidia-container-toolkit": "1.18.1-1", "libnvidia-container1": "1.17.8-1"}
    assert ids(installed(container_toolkit={"version": "1.18.1-1", "packages": mixed})) == {
        "container-toolkit": "warning"
    }


def test_what_another_finding_tells_better_is_not_told_twice() -> None:
    assert "module-library" not in ids(evidence(gpu=mismatch()))
    assert "driver-library-mismatch" in ids(evidence(gpu=mismatch()))


def test_what_is_installed_and_cannot_be_read_is_not_fine() -> None:
    assert "packages" in unmeasured(installed(packages=None))["package-skew"]
    assert (
        unmeasured(evidence(gpu=gpu("H100", software=None)))["coherence"] == "the facts do not tell what is installed"
    )


def test_a_node_that_does_not_answer_never_passes() -> None:
    silent = {part: "unreachable: timed out" for part in ("gpu", "host", "frameworks", "node")}
    result = told(Evidence("n1", silent=silent))

    assert result["findings"] == []
    assert len(result["not_measured"]) >= 8
    assert {entry["reason"] for entry in result["not_measured"]} == {"unreachable: timed out"}


def test_missing_code_is_explained_with_card_capability_and_what_the_wheel_has() -> None:
    entry = finding(with_torch("2.6.0+cu124", "12.4", CU124, "5090", "5090"), "no-kernel-image")

    assert entry["subject"] == "/opt/app/venv: torch 2.6.0+cu124 on NVIDIA GeForce RTX 5090"
    assert "no kernel image is available for execution on the device" in entry["cause"]
    assert "5.0, 6.0, 7.0, 7.5, 8.0, 8.6, 9.0 and none that runs on compute capability 12.0" in entry["cause"]
    assert "pytorch/pytorch #149845" in entry["source"]


def steps_of(found: Evidence, name: str = "no-kernel-image") -> list[str]:
    steps: list[str] = finding(found, name)["steps"]
    return steps


def test_fixes_come_in_the_order_of_the_table() -> None:
    order = TABLES.frameworks["pytorch"]["no_kernel_image"]["fix_order"]
    words = ("another CUDA build of the same release", "newer torch", "older torch", "build from source")
    assert all(word in text for word, text in zip(words, order))

    steps = steps_of(with_torch("2.9.0+cu130", "13.0", ["sm_75", "sm_80", "sm_90"], "P40"))

    starts = ["Another build of the same release, torch 2.9.0 cu126", "A newer release, torch 2.9.1 cu126"]
    starts += ["An older release, torch 2.8.0 cu126", "Or build torch from source for Tesla P40"]
    assert [step[: len(start)] for step, start in zip(steps, starts)] == starts
    assert '/opt/app/venv/bin/python -m pip install "torch==2.9.0+cu126" --index-url' in steps[0]
    assert "TORCH_CUDA_ARCH_LIST=6.1" in steps[3]
    assert "playbooks/plan-stack.yml" in steps[4]


@pytest.mark.parametrize(
    ("card", "driver", "cuda", "version", "build", "python", "expected"),
    [
        # a new card with an old torch: the first release with cu128, which the node's driver runs
        ("5090", "580.95.05", "13.0", "2.6.0", "cu124", "3.11.7", "A newer release, torch 2.7.0 cu128"),
        ("B200", "570.133.20", "12.8", "2.6.0", "cu124", "3.11.7", "A newer release, torch 2.7.0 cu128"),
        # a card that new releases dropped
        ("P40", "580.95.05", "13.0", "2.15.0", "cu132", "3.11.7", "An older release, torch 2.14.1 cu126"),
        # the environment's Python has no wheels of what would run
        ("5090", "580.95.05", "13.0", "2.3.0", "cu121", "3.8.10", "needs an environment with Python 3.9 to 3.13"),
    ],
)
def test_the_nearest_fix_fits_card_driver_and_python(
    card: str, driver: str, cuda: str, version: str, build: str, python: str, expected: str
) -> None:
    held = torch(version, f"{build[2:-1]}.{build[-1]}", ["sm_99"])
    found = in_environment(gpu(card, driver=driver, cuda=cuda), torch=held, python_version=python)

    assert expected in steps_of(found)[0]


def test_a_fix_that_needs_another_driver_says_so_first() -> None:
    found = with_torch("2.6.0+cu124", "12.4", CU124, gpu=gpu("5090", driver="470.256.02", cuda="11.4"))

    assert steps_of(found)[0].startswith("After a driver update: A newer release, torch 2.7.0 cu128")
    assert "needs driver 525.60.13 or newer" in steps_of(found)[0]
    assert steps_of(found, "driver-too-old")[0] == "Update the driver to 525.60.13 or newer, and reboot"


def test_an_old_driver_gets_the_build_that_runs_on_it() -> None:
    found = with_torch("2.13.0+cu130", "13.0", ["sm_80", "sm_90"], gpu=gpu("H100", driver="535.309.01", cuda="12.2"))

    steps = steps_of(found, "driver-too-old")
    assert steps[0] == "Update the driver to 580.65.06 or newer, and reboot"
    assert steps[1].startswith("Another build of the same release, torch 2.13.0 cu126:")


def test_an_old_driver_with_forward_compatibility_is_only_a_warning() -> None:
    state = libraries(("compat", COMPAT, "580.65.06"))
    state["environments"] = [environment(torch=torch("2.13.0", "13.0", ["sm_90"]))]

    entry = finding(evidence(gpu=gpu("H100", **OLD), frameworks=state), "driver-too-old")

    assert entry["severity"] == "warning"
    assert COMPAT in entry["cause"]


def test_vllm_is_changed_together_with_its_torch() -> None:
    found = in_environment(gpu("5090"), torch=torch("2.6.0+cu124", "12.4", CU124), vllm={"version": "0.8.5.post1"})

    assert steps_of(found)[0].startswith("vllm 0.8.5.post1 here pins its torch: take vllm ")


def test_every_named_build_has_code_for_every_card_of_the_node() -> None:
    """Nobody is sent from one missing kernel image to the next."""
    pattern = re.compile(r"torch (\d[\d.]*) (cu\d+):")
    releases = {row["version"]: row for row in TABLES.frameworks["pytorch"]["releases"]}
    named = 0
    for card in CARDS:
        for row in releases.values():
            for build in row["builds"]:
                held = torch(row["version"], row["builds"][build]["cuda"], ["sm_99"])
                found = in_environment(gpu(card, "H100"), torch=held)
                for step in steps_of(found):
                    for version, other in pattern.findall(step):
                        row_of = releases[version]["builds"][other]
                        codes = [gpu_code.Code(code, False) for code in row_of["sass_x86_64"]]
                        codes += [gpu_code.Code(codes[-1].capability, True)] if row_of["ptx"] else []
                        for device_card in (card, "H100"):
                            capability = CARDS[device_card][1]
                            way = gpu_code.how_it_runs(TABLES.frameworks, codes, capability, row_of["cuda"])
                            assert way != gpu_code.NONE, (card, step)
                        named += 1
    assert named > 100


def test_what_the_resolver_would_take_is_said() -> None:
    known = node(
        False,
        platform={"id": "ubuntu", "version": "24.04", "major": "24", "name": "Ubuntu 24.04"},
        kernel={"running": "6.8.0-50-generic"},
        machine="x86_64",
        python="3.12.3",
        pythons={},
        glibc="2.39",
        dkms="3.1.8",
        container=None,
        wsl=False,
    )
    found = evidence(gpu=gpu("5090"), node=known)

    sentence = planned("n1", found, TABLES, Intent(), "2026-11-24")

    assert sentence is not None
    assert sentence.startswith("which takes driver ")
    assert "(open) and pytorch 2." in sentence
    assert planned("n1", evidence(gpu=gpu("5090", simulated=True), node=known), TABLES, Intent(), "2026-11-24") is None
    assert planned("n1", evidence(gpu=gpu("5090"), node={}), TABLES, Intent(), "2026-11-24") is None


def test_worst_comes_first_and_the_same_evidence_gives_the_same_answer() -> None:
    def make() -> Evidence:
        return evidence(
            gpu=gpu("5090", "H100"),
            host=host("a kernel"),
            frameworks=frameworks(environment(torch=torch("2.6.0+cu124", "12.4", CU124), vllm={"version": "0.33.0"})),
        )

    severities = [entry["severity"] for entry in told(make())["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert told(make()) == told(make())


TEXTS: list[tuple[str, str]] = [
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "no-kernel-image"),
    ("NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.",
     "no-kernel-image"),
    ("CUDA error 222 at x.cu:6045: the provided PTX was compiled with an unsupported toolchain.", "unsupported-ptx"),
    ("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", "system-not-ready"),
    ("Error 803: system has unsupported display driver / cuda driver combination", "driver-mismatch"),
    ("Error 804: forward compatibility was attempted on non supported HW", "compat-not-supported"),
    ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95", "nvml-mismatch"),
    ("Failed to initialize NVML: Unknown Error", "nvml-unknown-error"),
    ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "key-rejected"),
    ("CUDA driver version is insufficient for CUDA runtime version", "driver-too-old"),
    ("The NVIDIA driver on your system is too old (found version 12020)", "driver-too-old"),
    ("RuntimeError: No CUDA GPUs are available", "no-device"),
    ("ggml: CUDA error 802 in line 7", "system-not-ready"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out-of-memory"),
    ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2006, ncclSystemError", "nccl"),
    ("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", "nccl"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "row"), TEXTS)
def test_known_texts(text: str, row: str) -> None:
    assert [entry["id"] for entry in known_errors(ERRORS, text)] == [row]
    assert [entry["id"] for entry in known_errors(ERRORS, text.upper().replace(" ", "  \n "))] == [row]


def test_every_row_of_the_table_is_recognised_by_a_test() -> None:
    assert {row for _text, row in TEXTS} == {entry["id"] for entry in ERRORS["errors"]}


@pytest.mark.parametrize(
    "text", ["", "everything is fine", "error code 209000", "CUDA error 2090: x", "make: *** Error 2"]
)
def test_other_texts_are_not_recognised(text: str) -> None:
    assert known_errors(ERRORS, text) == []


def test_a_pasted_error_leads_and_names_what_the_node_shows() -> None:
    found = with_torch("2.6.0+cu124", "12.4", CU124, gpu=gpu("5090", situation="gpu_lost"))

    first, second, *_rest = told(found, TEXTS[0][0])["findings"]

    assert first["id"] == "pasted-error"
    assert first["observed"] == "cudaErrorNoKernelImageForDevice (209)"
    assert first["cause"].endswith(
        "This node shows its cause: /opt/app/venv: torch 2.6.0+cu124 on NVIDIA GeForce RTX 5090."
    )
    assert second["id"] == "no-kernel-image"
    assert first["steps"] == second["steps"]


def test_a_pasted_error_that_the_node_does_not_show_has_general_steps() -> None:
    first = told(with_torch("2.6.0+cu124", "12.4", CU124, "H100"), TEXTS[0][0])["findings"][0]

    assert first["cause"].endswith("This node shows no cause of it now.")
    assert any("TORCH_CUDA_ARCH_LIST" in step for step in first["steps"])


def test_a_pasted_error_whose_cause_was_not_measured_says_so() -> None:
    first = told(NO_FRAMEWORKS, TEXTS[0][0])["findings"][0]

    assert first["cause"].endswith("Whether this node has its cause was not measured: no Python.")


def test_an_unknown_pasted_text_is_said_to_be_unknown() -> None:
    result = told(evidence(), "segmentation fault in my_kernel")

    assert result["findings"][0]["observed"] == "segmentation fault in my_kernel"
    assert "not among the known ones" in result["findings"][0]["cause"]


def test_a_pasted_text_alone_is_no_error_of_the_node() -> None:
    assert not diagnosis.has_errors(told(evidence(), TEXTS[0][0]))


def test_error_table_names_only_findings_that_exist_and_sources_it_has() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in Path(diagnosis.__file__ or "").parent.glob("diagnosis_*.py")
    )
    for row in ERRORS["errors"]:
        assert set(row["sources"]) <= set(ERRORS["sources"])
        assert all(f'"{name}"' in sources for name in row["findings"]), row["id"]
        assert row["steps"]
        assert row["code"] is None or re.fullmatch(r"\d+", row["code"])


@pytest.mark.parametrize("table", [None, [], {}, {"errors": []}, {"errors": ["x"]}, {"errors": [{"id": "x"}]}])
def test_a_damaged_error_table_is_refused(table: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"Could not use the table of error texts on errors\.yml"):
        check_errors(table, "errors.yml")


def test_the_error_table_is_accepted() -> None:
    assert check_errors(ERRORS, "errors.yml")["errors"] == ERRORS["errors"]


@pytest.mark.parametrize(
    ("names", "capability", "cuda", "way"),
    [
        (["sm_80"], "8.6", "12.4", "sass"),
        (["sm_86"], "8.0", "12.4", "none"),
        (["sm_86"], "8.7", "12.4", "none"),
        (["sm_86"], "8.7", "13.2", "sass"),
        (["sm_90a"], "9.0", "12.4", "sass"),
        (["sm_100a"], "10.3", "12.9", "none"),
        (["sm_100f"], "10.3", "12.9", "sass"),
        (["sm_100f"], "12.0", "12.9", "none"),
        (["compute_90"], "12.0", "12.4", "ptx"),
        (["compute_90a"], "12.0", "12.4", "none"),
        (["compute_120"], "10.0", "12.8", "none"),
        (["compute_80", "sm_120"], "12.0", "12.8", "sass"),
        (["sm_101"], "11.0", "13.0", "none"),
        (["gfx942", "gfx1201"], "9.0", "12.4", "none"),
        ([], "9.0", "12.4", "none"),
    ],
)
def test_how_code_runs(names: list[str], capability: str, cuda: str, way: str) -> None:
    assert gpu_code.how_it_runs(TABLES.frameworks, gpu_code.parse(names), capability, cuda) == way


def test_waiting_switches_of_the_newest_boards_get_their_own_step() -> None:
    waiting = evidence(gpu=gpu(devices=[device("B200", fabric={"state": "in_progress"})]))
    stopped = evidence(gpu=gpu(devices=[device("H100", fabric={"state": "not_started"})]))

    assert steps_of(waiting, "fabric-manager")[0].endswith("in exactly version 580.95.05 and start it")
    assert any("nvlsm" in step for step in steps_of(waiting, "fabric-manager"))
    assert not any("nvlsm" in step for step in steps_of(stopped, "fabric-manager"))


def test_text_is_readable_and_commands_stay_whole() -> None:
    broken = told(with_torch("2.6.0+cu124", "12.4", CU124, gpu=gpu("5090", simulated=True)))
    fine = {**told(evidence()), "node": "n2"}

    lines = fleet_text([broken, fine], "/tmp/x.json").splitlines()

    assert lines[0] == "Rackwright diagnosis"
    assert "n1 (simulated): 1 error" in lines
    assert any(line.startswith("  ERROR no-kernel-image, /opt/app/venv") for line in lines)
    assert any(line.startswith("    1. ") for line in lines)
    assert '"torch==2.7.0+cu128"' in "\n".join(lines)
    assert "Nothing found on n2." in lines
    assert lines[-2:] == ["2 node(s): 1 with errors.", "Report: /tmp/x.json"]


def test_a_node_with_nothing_but_a_pasted_error_says_so() -> None:
    assert "n1: no finding of its own" in fleet_text([told(evidence(), TEXTS[0][0])], None).splitlines()


def test_long_lists_are_cut_with_a_count() -> None:
    make: Callable[[int], dict[str, Any]] = lambda n: {**told(evidence(gpu=gpu())), "node": f"n{n}"}  # noqa: E731

    text = fleet_text([make(number) for number in range(45)], None)

    assert "... and 5 more nodes with findings, in the report" in text
