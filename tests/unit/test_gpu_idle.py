# SPDX-License-Identifier: Apache-2.0
"""Waiting for GPUs to become free, and ending what holds them: who is spared, and what is said."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from support.drains import Clock

from ansible.module_utils.rackwright.errors import InvalidInputError, ProbeError
from ansible.module_utils.rackwright.gpu_holders import Holder, Snapshot
from ansible.module_utils.rackwright.gpu_idle import BusyError, Machine, Settling, Wish

DEAF, STUCK, LISTENS = "ignores SIGTERM", "ignores everything", "listens"


class World:
    """Processes that hold GPUs: pid -> how it takes a signal."""

    def __init__(self, **natures: str) -> None:
        self.holders: dict[int, Holder] = {}
        self.natures: dict[int, str] = {}
        self.signals: list[tuple[int, str]] = []
        self.restarts = False
        self.clock = Clock()
        self.root = True
        self.spared: set[int] = set()
        for pid, nature in natures.items():
            self.add(int(pid[1:]), nature)

    def add(self, pid: int, nature: str = LISTENS, **values: Any) -> Holder:
        holder = {"name": "python3", "started": f"t{pid}", "devices": {"/dev/nvidia0"}, **values}
        self.holders[pid] = Holder(pid, **holder)
        self.natures[pid] = nature
        return self.holders[pid]

    def kill(self, pid: int, number: int) -> None:
        name = signal.Signals(number).name
        self.signals.append((pid, name))
        if self.natures[pid] == LISTENS or (self.natures[pid] == DEAF and name == "SIGKILL"):
            del self.holders[pid]
            if self.restarts:
                self.add(pid + 1000)

    def started(self, pid: int) -> str | None:
        return self.holders[pid].started if pid in self.holders else None

    def settle(self, **wish: Any) -> Settling:
        machine = Machine(
            look=lambda: Snapshot([self.holders[pid] for pid in sorted(self.holders)], "ok", "ok"),
            clock=self.clock,
            sleep=self.clock.sleep,
            kill=self.kill,
            started=self.started,
            spared=lambda: self.spared,
            is_root=self.root,
        )
        return Settling(Wish(**{"ignore": ("nv-hostengine",), **wish}), machine, "gpu-1")


def run(world: World, **wish: Any) -> dict[str, Any]:
    settling = world.settle(**wish)
    settling.run()
    return {**settling.report(), "msg": settling.msg}


@pytest.mark.parametrize("policy", ["wait", "fail", "terminate"])
def test_an_idle_node_is_idle_at_once(policy: str) -> None:
    world = World()
    world.add(5, name="nv-hostengine")
    result = run(world, policy=policy)
    assert (result["idle"], result["changed"], result["waited_s"], result["holders"]) == (True, False, 0, [])
    assert [daemon["pid"] for daemon in result["daemons"]] == [5]
    assert world.signals == []


def test_it_waits_until_they_end() -> None:
    world = World(p10=LISTENS)
    world.clock.then = lambda now: world.holders.clear() if now >= 20 else None
    result = run(world, timeout_s=60)
    assert (result["idle"], result["waited_s"], world.signals) == (True, 20.0, [])


def test_the_deadline_names_them() -> None:
    world = World()
    for pid in range(10, 17):
        world.add(pid, user="alice", gpus={1})
    settling = world.settle(timeout_s=10)
    with pytest.raises(
        BusyError, match=r"7 process\(es\) hold them after 10 s: python3 \(pid 10 of alice, GPU 1\).* and 2"
    ):
        settling.run()
    report = settling.report()
    assert (report["idle"], len(report["holders"]), report["waited_s"]) == (False, 7, 10.0)
    assert BusyError.kind == "busy"


def test_a_slice_reports_instead() -> None:
    result = run(World(p10=LISTENS), timeout_s=3, report_timeout=True)
    assert (result["idle"], result["waited_s"]) == (False, 3.0)
    assert "python3 (pid 10" in result["msg"]


def test_fail_does_not_wait() -> None:
    world = World(p10=LISTENS)
    with pytest.raises(BusyError):
        world.settle(policy="fail", timeout_s=60, report_timeout=True).run()
    assert world.clock.now == 0


def test_terminate_asks_first_and_kills_only_the_deaf() -> None:
    world = World(p10=LISTENS, p11=DEAF)
    world.add(12, name="nv-hostengine")
    result = run(world, policy="terminate", timeout_s=5, grace_s=20)
    assert world.signals == [(10, "SIGTERM"), (11, "SIGTERM"), (11, "SIGKILL")]
    assert (result["idle"], result["changed"]) == (True, True)
    assert [(entry["pid"], entry["signal"]) for entry in result["terminated"]] == [(10, "SIGTERM"), (11, "SIGKILL")]
    assert 25 <= result["waited_s"] < 36


def test_terminate_waits_before() -> None:
    world = World(p10=LISTENS)
    world.clock.then = lambda now: world.holders.clear() if now >= 4 else None
    assert run(world, policy="terminate", timeout_s=5)["changed"] is False


@pytest.mark.parametrize(
    "values",
    [
        {"pid": 1},
        {"pid": 10, "devices": set()},  # NVML names it and nothing here has a device open under this number
        {"pid": 10, "started": None},  # not visible from here
        {"pid": 77},  # what this task runs under
    ],
)
def test_who_is_never_ended(values: dict[str, Any]) -> None:
    world = World()
    world.add(**values)
    world.spared = {77}
    settling = world.settle(policy="terminate", timeout_s=0)
    with pytest.raises(BusyError):
        settling.run()
    assert world.signals == []
    assert settling.report()["changed"] is False


def test_a_number_that_became_somebody_elses_is_not_ended() -> None:
    world = World(p10=DEAF)
    seen = world.holders[10]

    def reused(now: float) -> None:
        if now > 3:
            world.holders.pop(10, None)
            world.natures[10] = LISTENS

    world.clock.then = reused
    world.started = lambda pid: seen.started if pid in world.holders else "later"  # type: ignore[method-assign]
    assert run(world, policy="terminate", timeout_s=0)["idle"] is True
    assert world.signals == [(10, "SIGTERM")]


def test_one_that_sleeps_inside_the_driver_asks_for_a_restart() -> None:
    world = World(p10=STUCK)
    settling = world.settle(policy="terminate", timeout_s=0)
    with pytest.raises(ProbeError, match=r"does not even end with SIGKILL.*Restart the node"):
        settling.run()
    assert settling.report()["terminated"][0]["signal"] == "SIGKILL"


def test_one_that_comes_back_points_to_its_service() -> None:
    world = World(p10=LISTENS)
    world.restarts = True
    settling = world.settle(policy="terminate", timeout_s=0)
    with pytest.raises(BusyError, match="Stop the service that starts them again"):
        settling.run()
    assert settling.report()["changed"] is True


def test_ending_needs_root() -> None:
    world = World(p10=LISTENS)
    world.root = False
    with pytest.raises(InvalidInputError, match="needs root"):
        world.settle(policy="terminate").run()


@pytest.mark.parametrize(
    ("policy", "says"),
    [("wait", "would wait for"), ("fail", "would fail because of"), ("terminate", "would terminate")],
)
def test_check_mode_foresees(policy: str, says: str) -> None:
    world = World(p10=LISTENS)
    result = run(world, policy=policy, check_mode=True)
    assert result["msg"] == f"{says} python3 (pid 10)"
    assert (result["idle"], world.clock.now, world.signals) == (False, 0, [])
