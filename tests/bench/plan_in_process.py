# SPDX-License-Identifier: Apache-2.0
"""Solve N described nodes in this process, print what it took as a line of JSON: ``alike|mixed|distinct N [trace]``.

A process of its own, because peak memory is the process's and never goes down again. With ``trace`` the time is not
worth quoting: it counts the bytes that planning allocates.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import tracemalloc

from support import bench_nodes

from ansible.module_utils.rackwright import fleet_plan, lock
from ansible.module_utils.rackwright.stack_intent import intent_from_vars


def main(kind: str, count: int, trace: bool) -> None:
    nodes = getattr(bench_nodes, kind)(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if trace:
        tracemalloc.start()
    begun, cpu = time.perf_counter(), time.process_time()
    members = [
        fleet_plan.Member(name, intent_from_vars(name, of), description=of["node_description"])
        for name, of in nodes.items()
    ]
    solver = fleet_plan.Solver(bench_nodes.TABLES, "2026-11-24")
    planned = fleet_plan.plan_fleet(members, solver, None)
    text = lock.to_text(planned["lock"])
    solved = sum(1 for plan in planned["plans"].values() if plan["status"] == fleet_plan.SOLVED)
    answer = {
        "wall": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "traced_mib": tracemalloc.get_traced_memory()[1] / 2**20 if trace else None,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "start_mib": before / 1024,
        "solved": solved,
        "stacks": len(planned["lock"]["stacks"]),
        "lock_kib": len(text.encode()) / 1024,
    }
    print(json.dumps(answer))


main(sys.argv[1], int(sys.argv[2]), "trace" in sys.argv[3:])
