# SPDX-License-Identifier: Apache-2.0
"""The real nvidia-smi as a second witness; tests/simnvml/fetch-nvidia-smi gets it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

NVIDIA_SMI = Path(__file__).resolve().parents[3] / "build" / "nvidia-smi" / "nvidia-smi"


def smi(machine: Any, *arguments: str, **environment: str) -> Any:
    """Run nvidia-smi on a node."""
    return machine.run(
        [str(NVIDIA_SMI), *arguments],
        environment={"LD_LIBRARY_PATH": str(machine.library.parent), **environment},
    )


def report(machine: Any, *arguments: str) -> ElementTree.Element:
    """The complete report as XML."""
    done = smi(machine, "-q", "-x", *arguments)
    assert done.returncode == 0, done.stdout
    return ElementTree.fromstring(done.stdout[done.stdout.index("<nvidia_smi_log>") :])


def test_it_accepts_the_library(node: Callable[..., Any]) -> None:
    """The private table is no public interface: when this fails, the other tests of this file mean nothing."""
    done = smi(node())
    assert "Mismatch in versions between nvidia-smi and NVML" not in done.stdout
    assert done.returncode == 0
    assert done.stdout.count("NVIDIA H100 80GB HBM3") == 8


@pytest.mark.parametrize("profile", ["h100x8", "a100x4", "mig-a100", "b200x8", "rtx4090x2", "t4x1", "v100x4", "gb10"])
def test_complete_report(node: Callable[..., Any], profile: str) -> None:
    found = report(node(profile))
    gpus = found.findall("gpu")
    assert len(gpus) == int(found.findtext("attached_gpus", "0"))
    for gpu in gpus:
        texts = [element.text or "" for element in gpu.iter()]
        assert [text for text in texts if "ERR!" in text or "Unknown Error" in text or "Invalid" in text] == []
        assert gpu.findtext("product_name", "").startswith(("NVIDIA", "Tesla"))


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("board_part_number", "692-2G520-0200-000"),
        ("inforom_bbx_flush/latest_duration", "93088 us"),
        ("cc_protected_memory_usage/total", "0 MiB"),
        ("pci/pci_gpu_link_info/pcie_gen/max_host_link_gen", "N/A"),
        ("pci/pci_sub_system_id", "16C110DE"),
        ("fb_memory_usage/total", "81559 MiB"),
        ("fb_memory_usage/reserved", "480 MiB"),
        ("ecc_mode/current_ecc", "Enabled"),
        ("ecc_errors/aggregate/sram_threshold_exceeded", "No"),
        ("remapped_rows/row_remapper_histogram/row_remapper_histogram_max", "2560 bank(s)"),
        ("gpu_power_readings/power_draw", "68.92 W"),
        ("gpu_power_readings/max_power_limit", "700.00 W"),
        ("max_clocks/sm_clock", "1980 MHz"),
        ("gsp_firmware_version", "580.105.08"),
        ("temperature/memory_temp", "37 C"),
        ("product_architecture", "Hopper"),
    ],
)
def test_values_of_a_published_capture(node: Callable[..., Any], element: str, text: str) -> None:
    gpu = report(node(), "-i", "0").find("gpu")
    assert gpu is not None
    assert gpu.findtext(element) == text


TEMPERATURE = ["--query-gpu=temperature.gpu", "--format=csv"]


@pytest.mark.parametrize(
    ("keys", "arguments", "status", "part"),
    [
        (
            {"fail__init": "LIB_RM_VERSION_MISMATCH"},
            [],
            18,
            "Failed to initialize NVML: Driver/library version mismatch",
        ),
        ({"fail__init": "DRIVER_NOT_LOADED"}, [], 9, "couldn't communicate with the NVIDIA driver"),
        ({"fail__init": "NO_PERMISSION"}, [], 4, "Failed to initialize NVML: Insufficient Permissions"),
        ({"count": "0"}, ["-L"], 0, "No devices found."),
        ({"count": "0"}, [], 6, "No devices were found"),
        (
            {"gpu__3__fail": "GPU_IS_LOST"},
            [],
            15,
            "GPU is lost.  Reboot the system to recover this GPU",
        ),
        ({"gpu__3__fail": "RESET_REQUIRED"}, ["-L"], 255, "A GPU reset must occur before this GPU can be used again."),
        ({"gpu__2__temp__gpu": "N/A"}, TEMPERATURE, 0, "N/A"),
        ({"gpu__2__temp__gpu": "!UNKNOWN"}, TEMPERATURE, 0, "[Unknown Error]"),
        ({}, ["-i", "1", "-pl", "9000"], 2, "not a valid power limit which should be between 200.00 W and 700.00 W"),
    ],
)
def test_failures(node: Callable[..., Any], keys: dict[str, str], arguments: list[str], status: int, part: str) -> None:
    machine = node()
    machine.add(**keys)
    done = smi(machine, *arguments)
    assert part in done.stdout + done.stderr
    assert done.returncode == status


def test_a_gpu_missing(node: Callable[..., Any]) -> None:
    machine = node()
    machine.put("count", "7")
    done = smi(machine, "-L")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 7


def test_setters(node: Callable[..., Any]) -> None:
    machine = node()
    settings = (["-pl", "500"], ["-pm", "0"], ["-e", "0"], ["-lgc", "300,900"], ["-ac", "2619,1500"], ["-c", "3"])
    for arguments in settings:
        assert smi(machine, "-i", "2", *arguments).returncode == 0
    query = "--query-gpu=power.limit,persistence_mode,ecc.mode.pending,clocks.applications.graphics,compute_mode"
    done = smi(machine, "-i", "2", query, "--format=csv,noheader")
    assert done.stdout.strip() == "500.00 W, Disabled, Disabled, 1500 MHz, Exclusive_Process"


def test_an_ordinary_user_may_not_set(node: Callable[..., Any]) -> None:
    done = smi(node(), "-i", "2", "-pl", "600", SIMNVML_EUID="1000")
    assert done.returncode == 4
    assert "Insufficient Permissions" in done.stdout


def test_processes(node: Callable[..., Any]) -> None:
    machine = node()
    sleeper = subprocess.Popen(["sleep", "30"])
    try:
        machine.add(gpu__1__proc__0=f"{sleeper.pid} C 8589934592", gpu__1__proc__1=f"{os.getpid()} G 1048576")
        rows = smi(machine, "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader").stdout.splitlines()
        assert rows == [f"{sleeper.pid}, sleep, 8192 MiB"]
        assert f"{sleeper.pid}      C   sleep" in smi(machine).stdout
    finally:
        sleeper.kill()
        sleeper.wait()


def test_mig(node: Callable[..., Any]) -> None:
    machine = node("a100x4")
    assert smi(machine, "-i", "0", "-mig", "1").returncode == 0
    assert smi(machine, "mig", "-i", "0", "-cgi", "19,14,5", "-C").returncode == 0
    full = smi(machine, "mig", "-i", "0", "-cgi", "9")
    assert (full.returncode, "Insufficient Resources" in full.stdout) == (23, True)
    busy = smi(machine, "mig", "-i", "0", "-dgi", "-gi", "1")
    assert (busy.returncode, "In use by another client" in busy.stdout) == (19, True)
    devices = [line.split()[1] for line in smi(machine, "-L").stdout.splitlines() if line.startswith("  MIG")]
    assert devices == ["4g.40gb", "2g.20gb", "1g.10gb"]
    for arguments in (["mig", "-dci", "-i", "0"], ["mig", "-dgi", "-i", "0"], ["-i", "0", "-mig", "0"]):
        assert smi(machine, *arguments).returncode == 0
