# SPDX-License-Identifier: Apache-2.0
"""What a check looks like, and the evidence that checks are made from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import verdict_gates
from .record import dig

PASS = "pass"
WARN = "warn"
FAIL = "fail"
#: The wish exceeds the physics of the card: no fault of the node, and no pass either.
UNATTAINABLE = "unattainable"
NOT_MEASURED = "not_measured"
NOT_APPLICABLE = "not_applicable"
STATUSES = (PASS, WARN, UNATTAINABLE, FAIL, NOT_MEASURED, NOT_APPLICABLE)

Check = dict[str, Any]

SIMULATED_REASON = "simulated GPU cannot run kernels"


def check(
    check_id: str,
    status: str,
    subject: str,
    *,
    observed: Any = None,
    expected: Any = None,
    reason: str | None = None,
    next_step: str | None = None,
) -> Check:
    """Return one check. Whatever is not a pass says why."""
    if status not in STATUSES:
        raise ValueError(f"unknown status {status!r}")
    if status != PASS and not reason:
        raise ValueError(f"check {check_id} is {status} without a reason")
    return {
        "id": check_id,
        "status": status,
        "subject": subject,
        "observed": observed,
        "expected": expected,
        "reason": reason,
        "next_step": next_step,
    }


def part(record: Any, path: str) -> Mapping[str, Any]:
    """Return the dictionary at a dotted path, or an empty one where there is none."""
    value = dig(record, path)
    return value if isinstance(value, Mapping) else {}


def entries(record: Any, path: str) -> list[Mapping[str, Any]]:
    """Return the dictionaries of the list at a dotted path, none where there is no list."""
    value = dig(record, path)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


@dataclass(frozen=True)
class Evidence:
    """What one run registered about one node.

    ``facts``, ``health`` and ``benchmark`` are the registered results of gpu_facts, gpu_health and torch_benchmark in
    this run, never a cache. ``set_aside`` is the role failure that took the node out of the run, ``expected`` what the
    inventory demands, ``suites`` what of a proof was asked for, None for all of it.
    """

    node: str
    run_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    set_aside: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    reboot: Mapping[str, Any] = field(default_factory=dict)
    catalogue: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gates: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    suites: frozenset[str] | None = None
    check_mode: bool = False

    def wants(self, suite: str) -> bool:
        """True when a suite belongs to what was asked of this node."""
        return self.suites is None or suite in self.suites

    @cached_property
    def limits(self) -> Mapping[str, Mapping[str, float | None]]:
        """The gates of this node: the built-in ones with its own over them."""
        return verdict_gates.merged(self.gates)

    @cached_property
    def gpu(self) -> Mapping[str, Any] | None:
        """The GPU facts of this run."""
        value = dig(self.facts, "ansible_facts.gpu")
        return value if isinstance(value, Mapping) and value else None

    @cached_property
    def measured(self) -> Mapping[str, Any] | None:
        """The benchmark document of this run; one with another run's identifier is not evidence."""
        value = self.benchmark.get("torch_benchmark")
        if not isinstance(value, Mapping) or value.get("run_id") != self.run_id:
            return None
        return value

    @cached_property
    def health_document(self) -> Mapping[str, Any] | None:
        """What gpu_health returned in this run."""
        value = self.health.get("gpu_health")
        return value if isinstance(value, Mapping) and isinstance(value.get("checks"), list) else None

    @cached_property
    def results(self) -> list[Mapping[str, Any]]:
        """The well-formed results of this run's benchmark."""
        return entries(self.measured, "results")

    @cached_property
    def by_device(self) -> dict[str, list[Mapping[str, Any]]]:
        """The results by torch's name of the device."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for entry in self.results:
            found.setdefault(str(entry.get("device")), []).append(entry)
        return found

    @property
    def simulated(self) -> bool:
        return bool(dig(self.gpu, "simulated"))

    @property
    def situation(self) -> str:
        return str(dig(self.gpu, "situation") or "unknown")

    @property
    def devices(self) -> list[Mapping[str, Any]]:
        return entries(self.gpu, "devices")

    @property
    def answering(self) -> list[Mapping[str, Any]]:
        """The devices the driver answers for: one that is lost, or only seen on the bus, has no UUID."""
        return [device for device in self.devices if device.get("uuid")]

    @property
    def has_real_gpus(self) -> bool:
        """True when the driver answers for at least one GPU that is not a simulation."""
        return not self.simulated and bool(dig(self.gpu, "count"))

    @property
    def torch(self) -> dict[str, Any] | None:
        value = dig(self.measured, "torch")
        return dict(value) if isinstance(value, Mapping) else None

    @property
    def host(self) -> dict[str, Any] | None:
        value = dig(self.measured, "host")
        return dict(value) if isinstance(value, Mapping) else None

    def failure(self) -> Check | None:
        """Return the failed check of a node that could not be asked at all, or None."""
        if self.facts.get("unreachable"):
            return self._unreachable(self.facts)
        if self.set_aside:
            return self._set_aside()
        for result in (self.health, self.benchmark):
            if result.get("unreachable"):
                return self._unreachable(result)
        if self.facts.get("failed"):
            return self._no_proof(f"gpu_facts failed: {_message(self.facts)}", "Repair what it names, then run again.")
        if not self.facts:
            return self._no_proof(
                "nothing was registered for this node in this run: it failed or was unreachable before the proof",
                "Read the first error of this node above.",
            )
        return None

    def _set_aside(self) -> Check:
        role, message = self.set_aside.get("role"), str(self.set_aside.get("message") or "no message")
        if role is None:
            step = self.set_aside.get("next_step", "Make the node reachable over SSH, then run again.")
            return self._no_proof(message, str(step))
        task = self.set_aside.get("task")
        return self._no_proof(f"role {role} failed at '{task}': {message}", "Repair the cause, then run again.")

    def _unreachable(self, result: Mapping[str, Any]) -> Check:
        return self._no_proof(f"unreachable: {_message(result)}", "Make the node reachable over SSH, then run again.")

    def _no_proof(self, cause: str, next_step: str) -> Check:
        return check(
            "facts.present", FAIL, self.node, reason=f"no proof: {' '.join(cause.split())}", next_step=next_step
        )


def _message(result: Mapping[str, Any]) -> str:
    return " ".join(str(result.get("msg") or "no message").split())
