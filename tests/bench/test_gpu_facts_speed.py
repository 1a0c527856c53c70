# SPDX-License-Identifier: Apache-2.0
"""How long gpu_facts takes on 8 simulated GPUs, printed side by side; nothing here asserts a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.bench import line
from support.commands import run, simulation
from support.simulated_node import SimulatedNode

REPEATS = 7


def milliseconds(action: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append((time.perf_counter() - begun) * 1000)
    return times


def test_probe_and_round_trip_on_eight_simulated_gpus(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, "h100x8")
    print(
        f"\n{'milliseconds, 8 simulated GPUs, n=' + str(REPEATS):<58} {'median':>8} {'min':>8} {'max':>8} {'ratio':>8}"
    )
    probes = {binding: [node.facts(binding)["duration_ms"] for _ in range(REPEATS)] for binding in ("ctypes", "auto")}
    base = line("probe through ctypes (duration_ms)", probes["ctypes"], statistics.median(probes["ctypes"]))
    line("probe through pynvml (duration_ms)", probes["auto"], base)
    (tmp_path / "bare").mkdir()
    bare = SimulatedNode(tmp_path / "bare", "h100x8", driver=False)
    line("probe without a driver (duration_ms)", [bare.facts()["duration_ms"] for _ in range(REPEATS)], base)
    line("module in this process (main, both children)", milliseconds(lambda: node.run("ctypes")), base)
    environment = simulation(node, tmp_path / "cache")
    local = ["localhost", "-i", "localhost,", "-c", "local", "-m"]
    ping = milliseconds(lambda: run("ansible", *local, "ping", environment=environment), 3)
    facts = ["gpu_facts", "-a", f"sysroot={node.sysroot}"]
    whole = milliseconds(lambda: run("ansible", *local, *facts, environment=environment), 3)
    line("whole command: ansible -m ping", ping, base)
    line("whole command: ansible -m gpu_facts", whole, base)
    line("gpu_facts beyond ping (round trip of the module)", [max(w - min(ping), 0) for w in whole], base)
    called = len(node.called())
    assert called > 0
