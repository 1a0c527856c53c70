# SPDX-License-Identifier: Apache-2.0
"""What it takes to plan 100, 300 and 1,000 different nodes; printed, not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import bench, bench_nodes

SIZES = (100, 300, 1000)
SCRIPT = Path(__file__).with_name("plan_in_process.py")
PATHS = [str(bench.ROOT / name) for name in ("tests", "module_utils")]


def in_process(kind: str, count: int, *options: str) -> dict[str, Any]:
    code = f"import runpy, sys; sys.path[:0] = {PATHS!r}; import support.simulated_node; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(SCRIPT), kind, str(count), *options]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("kind", ["alike", "mixed", "distinct"])
def test_solving_in_process(kind: str) -> None:
    bench.step(f"solving {', '.join(map(str, SIZES))} described nodes in one process ({kind})")
    titles = (f"{title:>9}" for title in ("wall s", "CPU s", "ms/node", "peak MiB", "solved", "stacks", "lock KiB"))
    print(f"\n{kind + ' nodes, in process':<32}{''.join(titles)}")
    times = []
    for count in SIZES:
        found = in_process(kind, count)
        times.append(found["cpu"])
        print(
            f"{count:<32}{found['wall']:9.2f}{found['cpu']:9.2f}{found['cpu'] / count * 1000:9.2f}"
            f"{found['peak_mib']:9.0f}{found['solved']:9}{found['stacks']:9}{found['lock_kib']:9.0f}"
        )
        assert found["solved"] > count * 0.4, "most of these nodes are meant to be possible"
    print(f"grows with nodes to the power of {bench.growth(SIZES, times):.2f} (1 is linear)")
    traced = in_process(kind, 300, "trace")
    print(f"planning 300 of them allocates at most {traced['traced_mib']:.1f} MiB (tracemalloc)")


def test_the_whole_command(tmp_path: Path) -> None:
    print(f"\n{bench.machine()}")
    costs: dict[str, list[bench.Cost]] = {}
    environment = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts")}
    for kind, sizes in (("alike", SIZES), ("mixed", SIZES)):
        for count in sizes:
            bench.step(f"ansible-playbook plan-stack.yml, {count} described nodes ({kind}): no node is contacted")
            folder = tmp_path / f"{kind}{count}"
            bench.write_json(folder / "hosts.yml", {"gpu_nodes": {"hosts": getattr(bench_nodes, kind)(count)}})
            cost = bench.command(
                "ansible-playbook",
                "-i",
                str(folder),
                "playbooks/plan-stack.yml",
                environment=environment,
                may_fail=True,
            )
            assert f"{count} node(s):" in cost.output, cost.output[-3000:]
            costs[f"plan-stack.yml, {count} {kind}"] = [cost]
    bench.costs_table("whole command, descriptions", costs, f"plan-stack.yml, {SIZES[0]} alike")
    for kind in ("alike", "mixed"):
        cpu = [costs[f"plan-stack.yml, {count} {kind}"][0].cpu for count in SIZES]
        print(f"{kind}: CPU grows with nodes to the power of {bench.growth(SIZES, cpu):.2f}")
