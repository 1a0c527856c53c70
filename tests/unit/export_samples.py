# SPDX-License-Identifier: Apache-2.0
"""Made-up nodes and reports for the tests of the export."""

from __future__ import annotations

import datetime
from typing import Any

from unit import verdict_samples as samples

NOW = datetime.datetime(2026, 11, 30, 12, 0, tzinfo=datetime.timezone.utc)
RUN = "20261130T110000Z"
YESTERDAY = "2026-11-29T12:00:00+00:00"
LONG_AGO = "2026-11-20T12:00:00Z"


def cached(simulated: bool = False, **changes: Any) -> dict[str, Any]:
    """The cached facts of a node that was asked yesterday and proven an hour ago; None takes one out."""
    facts = {
        "gpu": samples.gpu(simulated=simulated, collected_at=YESTERDAY),
        "gpu_health": {
            "severity": "reset",
            "worst": "reset: gpu.ecc gpu0: uncorrected errors",
            "findings": [{"id": "gpu.ecc", "subject": "gpu0", "severity": "reset", "reason": "uncorrected errors"}],
            "findings_dropped": 0,
            "summary": {"ok": 40, "finding": 1, "not_applicable": 9, "not_measured": 2},
            "simulated": simulated,
            "collected_at": LONG_AGO,
        },
        "gpu_verdict": {"verdict": "warn", "run_id": RUN, "at": "2026-11-30T11:00:00Z", "simulated": simulated},
        **changes,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def report(node: str = "n1", simulated: bool = False, **changes: Any) -> dict[str, Any]:
    """A verdict document with the numbers of two real GPUs."""
    benchmark = samples.cuda_benchmark()["torch_benchmark"]
    return {
        "schema": 1,
        "kind": "rackwright.verdict",
        "node": node,
        "run_id": RUN,
        "verdict": "warn",
        "simulated": simulated,
        "torch": benchmark["torch"],
        "benchmark": benchmark,
        **changes,
    }


def host(facts: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A host as the action plugin hands it to the export."""
    return {
        "facts": cached() if facts is None else facts,
        "variables": {},
        "max_age": 168.0,
        "textfile": False,
        **changes,
    }
