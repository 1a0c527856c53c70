# SPDX-License-Identifier: Apache-2.0
"""Run the benchmark: one killable child process per device, and whatever happens to one of them becomes data."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_plan, torch_runner
from .child import ChildResult, run_in_child
from .errors import MissingError, ProbeError, RackwrightError, TimedOutError
from .sysfs import read_operating_system

SCHEMA = 1

Runner = Callable[[Callable[..., Any], Sequence[Any], float], ChildResult]


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    python: str
    suites: tuple[str, ...]
    devices: tuple[str, ...]
    level: str
    timeout: float
    seed: int
    allow_busy: bool
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Record:
    """What a child has written down, in order."""

    torch: dict[str, Any] | None = None
    devices: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    info: dict[str, Any] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    started: str | None = None

    def add(self, line: Mapping[str, Any]) -> None:
        self.torch = line.get("torch", self.torch)
        self.devices = line.get("devices", self.devices)
        self.unknown = line.get("unknown", self.unknown)
        self.info = line.get("device_info", self.info)
        self.started = line.get("start", self.started)
        if "result" in line:
            self.results.append(line["result"])
        if "error" in line:
            self.errors.append(line["error"])


def plan(request: Request, runner: Runner = run_in_child) -> dict[str, Any]:
    """Return what :func:`run` would do; imports torch in a child to list the devices, measures nothing."""
    _, record = _run_child(runner, torch_runner.run_first, request, plan_only=True)
    return benchmark_plan.build_plan(request.suites, request.level, record.devices, request.python, request.seed)


def run(request: Request, runner: Runner = run_in_child) -> dict[str, Any]:
    """Run the suites on every device and return the result document.

    Raises:
        RackwrightError: torch could not be imported, so there is nothing to say about any device.
    """
    outcome, first = _run_child(runner, torch_runner.run_first, request)
    assert first.torch is not None
    document = _document(request, first)
    if first.devices == ["cpu"] and not first.unknown:
        _merge(document, "cpu", outcome, first, request)
        return document
    if first.devices == ["cpu"]:
        _merge(document, "cpu", outcome, first, request)
    else:
        document["results"] += first.results
        for device in first.devices:
            outcome, record = _supervised(runner, torch_runner.run_device, request, device=device, peers=first.devices)
            _merge(document, device, outcome, record, request)
    document["errors"] += [_absent(name, first.torch) for name in first.unknown]
    return document


def _document(request: Request, first: _Record) -> dict[str, Any]:
    kind = "cuda" if any(name.startswith("cuda") for name in first.devices) else "cpu"
    return {
        "schema": SCHEMA,
        "level": request.level,
        "suites": list(request.suites),
        "seed": request.seed,
        "python": {"path": request.python, "version": platform.python_version()},
        "torch": first.torch,
        "device_kind": kind if first.devices else None,
        "devices": {},
        "results": [],
        "errors": [],
    }


def _run_child(runner: Runner, func: Callable[..., Any], request: Request, **extra: Any) -> tuple[ChildResult, _Record]:
    """Run the first child; raise unless it got as far as describing torch."""
    outcome, record = _supervised(runner, func, request, **extra)
    if record.torch is None:
        raise import_failure(request, outcome)
    if extra.get("plan_only") and outcome.status != "ok":
        raise import_failure(request, outcome)
    return outcome, record


def _supervised(
    runner: Runner, func: Callable[..., Any], request: Request, **extra: Any
) -> tuple[ChildResult, _Record]:
    handle, path = tempfile.mkstemp(prefix="torch-benchmark-", suffix=".jsonl")
    os.close(handle)
    try:
        payload = {
            "suites": list(request.suites),
            "devices": list(request.devices),
            "level": request.level,
            "seed": request.seed,
            "allow_busy": request.allow_busy,
            "options": dict(request.options),
            "progress_path": path,
            **extra,
        }
        outcome = runner(func, [payload], request.timeout)
        return outcome, _read_progress(path)
    finally:
        os.unlink(path)


def _read_progress(path: str) -> _Record:
    record = _Record()
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            if not line.endswith("\n"):
                break  # the child died while writing it
            record.add(json.loads(line))
    return record


def _merge(document: dict[str, Any], device: str, outcome: ChildResult, record: _Record, request: Request) -> None:
    document["devices"][device] = record.info
    document["results"] += record.results
    document["errors"] += record.errors
    if outcome.status != "ok":
        document["errors"].append(_child_error(device, outcome, record, request))


def _child_error(device: str, outcome: ChildResult, record: _Record, request: Request) -> dict[str, Any]:
    doing = record.started if record.started != "device" else None
    entry: dict[str, Any] = {"device": device, "suite": doing, "reason": outcome.status}
    if outcome.status == "timeout":
        entry["detail"] = f"No result within {request.timeout:g} s; the process was killed."
        entry["next_step"] = "Read the kernel log for Xid messages, or raise timeout if the device is only slow."
    elif outcome.status == "crashed":
        entry["detail"] = _tail(outcome)
        entry["next_step"] = "Read the kernel log: an Xid, or the out-of-memory killer, usually names the cause."
    else:
        entry["detail"] = _tail(outcome)
        entry["next_step"] = "Run the suite alone with the node's interpreter to see the whole error."
    if outcome.signal == "SIGKILL":
        entry["reason"] = "out_of_memory"
        entry["detail"] += " Nothing but the kernel's out-of-memory killer or an operator sends this signal."
    return entry


def _tail(outcome: ChildResult) -> str:
    last = outcome.stderr.strip().splitlines()[-1:] if outcome.stderr else []
    return " ".join(" ".join([outcome.detail, *last]).split())[:500]


def _absent(name: str, torch: Mapping[str, Any]) -> dict[str, Any]:
    reason = torch.get("cuda_unavailable_reason")
    seen = f"torch sees {torch['cuda_device_count']} CUDA device(s)"
    return {
        "device": name,
        "suite": None,
        "reason": "no_device",
        "detail": f"{seen}: {reason}." if reason else f"{seen}.",
        "next_step": "Compare with gpu_facts, which says what GPUs the node has and why they may not be usable.",
    }


def import_failure(request: Request, outcome: ChildResult) -> RackwrightError:
    """Return the error for a torch that could not be imported or asked, by how the child ended."""
    common = {"found": outcome.status, "expected": "torch imports and answers"}
    subject = f"interpreter {request.python}"
    if outcome.status == "timeout":
        cause = f"torch did not import and list its devices within {request.timeout:g} s and was killed"
        step = "Check the driver with gpu_facts and the kernel log, or raise timeout if the disk is slow"
        return TimedOutError("import torch", subject, cause, step, **common)
    if outcome.status == "error" and outcome.error_type in ("ModuleNotFoundError", "ImportError"):
        step = "Install torch into that environment with the role pytorch, or name another interpreter in python"
        return MissingError("import torch", subject, outcome.detail, step, **common)
    step = "Reinstall torch in that environment: its libraries do not fit the node"
    return ProbeError("import torch", subject, _tail(outcome), step, **common)


def host_summary(root: str = "/") -> dict[str, Any]:
    """Return the few things about the node that belong beside every result: system, kernel, processors, reboot wish."""
    system, _missing = read_operating_system(root)
    return {
        "os": system["name"],
        "kernel": system["kernel"],
        "machine": system["machine"],
        "cpus": os.cpu_count(),
        "reboot_required": os.path.exists(os.path.join(root, "run/reboot-required")),
    }
