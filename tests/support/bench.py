# SPDX-License-Identifier: Apache-2.0
"""Measuring and printing for tests/bench: figures side by side as ratios, never asserted."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.simulated_node import ROOT

_TITLE = 58


@dataclass(frozen=True)
class Cost:
    """What one command cost here: wall and CPU seconds of it and all it waited for, and the biggest process in MiB.

    ``node_cpu`` are the CPU seconds of all nodes, where those were measured. The ssh processes that ControlPersist
    leaves behind are nobody's children: their CPU time is in neither.
    """

    wall: float
    cpu: float
    mib: float
    output: str
    node_cpu: float | None = None


def command(
    program: str, *arguments: str, environment: Mapping[str, str] | None = None, may_fail: bool = False
) -> Cost:
    """Run a program of the control node's environment from the checkout's root.

    Args:
        program: its name, like ``ansible-playbook``.
        arguments: its arguments.
        environment: variables beside the present ones.
        may_fail: whether another status than 0 is an answer, too.
    """
    whole = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **(environment or {})}
    with tempfile.TemporaryFile("w+") as output:
        begun = time.perf_counter()
        child = subprocess.Popen(
            [str(Path(sys.executable).parent / program), *arguments],
            cwd=ROOT,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _pid, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    assert may_fail or child.returncode == 0, text[-4000:]
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def interleaved(actions: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, list[Cost]]:
    """Measure several commands in turn, so that what else the machine does falls on all of them alike."""
    found: dict[str, list[Cost]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            found[name].append(action())
    return found


def line(title: str, times: list[float], base: float) -> float:
    """Print median, least and most, and the median as a multiple of ``base``; return the median."""
    median = statistics.median(times)
    print(f"{title:<{_TITLE}} {median:8.1f} {min(times):8.1f} {max(times):8.1f} {median / base:7.1f}x")
    return median


def costs_table(title: str, costs: Mapping[str, Sequence[Cost]], base: str) -> None:
    """Print wall and CPU seconds and memory of each, medians, with their ratios to ``base``."""
    wall = {name: statistics.median(cost.wall for cost in found) for name, found in costs.items()}
    cpu = {name: statistics.median(cost.cpu for cost in found) for name, found in costs.items()}
    heads = (
        f"{'n':>3} {'wall s':>8} {'min':>7} {'max':>7} {'ratio':>7} {'CPU s':>7} {'ratio':>7} {'MiB':>6} {'nodes s':>8}"
    )
    print(f"\n{title:<{_TITLE}} {heads}")
    for name, found in costs.items():
        walls = [cost.wall for cost in found]
        print(
            f"{name:<{_TITLE}} {len(found):>3} {wall[name]:8.2f} {min(walls):7.2f} {max(walls):7.2f} "
            f"{wall[name] / wall[base]:6.2f}x {cpu[name]:7.2f} {cpu[name] / cpu[base]:6.2f}x "
            f"{max(cost.mib for cost in found):6.0f} {_on_nodes(found):>8}"
        )


def _on_nodes(found: Sequence[Cost]) -> str:
    times = [cost.node_cpu for cost in found if cost.node_cpu is not None]
    return f"{statistics.median(times):.2f}" if times else "-"


def growth(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the exponent b of ``value = a * size ** b``, fitted over all points: 1 is linear."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle_x, middle_y = statistics.mean(x), statistics.mean(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def machine() -> str:
    """Return in one line what the figures were measured on, and how busy it was before."""
    versions = command("ansible", "--version").output.splitlines()[0]
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}, load average {load}"


def step(text: str) -> None:
    """Say what a long step is doing, at once."""
    print(f"==> {time.strftime('%H:%M:%S')} {text}", flush=True)


def write_json(path: Path, document: Any) -> Path:
    """Write a file of an inventory; JSON is YAML, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path
