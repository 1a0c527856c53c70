# SPDX-License-Identifier: Apache-2.0
"""Requests of the drain, and a clock that passes only when somebody sleeps."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.rackwright.drain_request import Request, make_request

OPTIONS: dict[str, Any] = {
    "adapter": "slurm",
    "node_name": "gpu-1",
    "id": "run-1",
    "reason": "driver update",
    "record": None,
    "timeout_s": 60,
    "poll_s": 5,
    "on_timeout": "fail",
    "units": [],
    "hold": True,
    "drain_command": [],
    "resume_command": [],
    "status_command": [],
    "state_dir": "/nonexistent",
    "kubectl": "kubectl",
    "kubeconfig": None,
    "kube_context": None,
    "delete_emptydir_data": False,
    "force": False,
    "pod_selector": None,
    "grace_period_s": None,
}


def request(state: str = "drained", check_mode: bool = False, **options: Any) -> Request:
    """What the module makes of these options."""
    return make_request({**OPTIONS, **options}, state, check_mode, "host-1")


class Clock:
    """Time that tests own; ``then`` is called with the time after each sleep."""

    def __init__(self, then: Any = None) -> None:
        self.now = 0.0
        self.then = then

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 0.01)
        if self.then:
            self.then(self.now)
