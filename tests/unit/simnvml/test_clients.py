# SPDX-License-Identifier: Apache-2.0
"""Programs that people use: gpustat and nvitop read the simulated GPUs unchanged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def client(machine: Any, name: str, *arguments: str) -> Any:
    """Run a console program of the test environment; it finds the library as any program does."""
    program = Path(sys.executable).parent / name
    return machine.run(
        [sys.executable, str(program), *arguments],
        environment={"LD_LIBRARY_PATH": str(machine.library.parent), "COLUMNS": "120", "LINES": "60"},
    )


def test_gpustat(node: Callable[..., Any]) -> None:
    machine = node()
    machine.add(gpu__3__temp__gpu="91", gpu__2__proc__0=f"{os.getpid()} C 8589934592")
    done = client(machine, "gpustat", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["driver_version"] == "580.105.08"
    gpus = found["gpus"]
    assert [gpu["name"] for gpu in gpus] == ["NVIDIA H100 80GB HBM3"] * 8
    assert {gpu["memory.total"] for gpu in gpus} == {81559}
    assert gpus[3]["temperature.gpu"] == 91
    assert [process["pid"] for process in gpus[2]["processes"]] == [os.getpid()]
    assert gpus[2]["processes"][0]["gpu_memory_usage"] == 8192


def test_gpustat_with_a_lost_gpu(node: Callable[..., Any]) -> None:
    machine = node()
    machine.put("gpu.3.fail", "GPU_IS_LOST")
    done = client(machine, "gpustat", "--no-color")
    assert "((GPU is lost))" in done.stdout


def test_gpustat_without_a_driver(node: Callable[..., Any]) -> None:
    machine = node()
    machine.put("fail.init", "DRIVER_NOT_LOADED")
    done = client(machine, "gpustat")
    assert done.returncode != 0
    assert "Driver Not Loaded" in done.stdout + done.stderr


def test_nvitop(node: Callable[..., Any]) -> None:
    done = client(node("rtx4090x2"), "nvitop", "--once")
    assert done.returncode == 0, done.stderr
    assert "GeForce RTX 4090" in done.stdout
    assert "24564MiB" in done.stdout.replace(" ", "") or "23.99GiB" in done.stdout.replace(" ", "")


def test_nvitop_with_a_lost_gpu(node: Callable[..., Any]) -> None:
    machine = node()
    machine.put("gpu.3.fail", "GPU_IS_LOST")
    done = client(machine, "nvitop", "--once")
    assert "GPU is Lost" in done.stdout
