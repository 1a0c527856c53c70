# SPDX-License-Identifier: Apache-2.0
"""Run the benchmark: a killable child process per device, and whatever happens to one of them becomes data."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_plan, torch_runner
from .benchmark_node import burn_summaries, checksum_errors
from .child import ChildResult, run_in_child
from .child_group import run_group
from .errors import MissingError, ProbeError, RackwrightError, TimedOutError
from .sysfs import read_operating_system

SCHEMA = 1
#: How long the processes of one phase wait for what those of the phase before leave: taking down the contexts of eight
#: GPUs with all their memory takes the driver seconds.
SETTLE_S = 20.0

Runner = Callable[[Callable[..., Any], Sequence[Any], float], ChildResult]
GroupRunner = Callable[[Callable[[Any], Any], Sequence[Any], float], list[ChildResult]]


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
    not_applicable: list[dict[str, Any]] = field(default_factory=list)
    started: str | None = None
    unreadable: str | None = None

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
        if "not_applicable" in line:
            self.not_applicable.append(line["not_applicable"])


def plan(request: Request, runner: Runner = run_in_child) -> dict[str, Any]:
    """Return what :func:`run` would do; imports torch in a child to list the devices, measures nothing."""
    _, record = _first(runner, request, plan_only=True)
    asked = request.options.get("burn_seconds")
    return benchmark_plan.build_plan(
        request.suites, request.level, record.devices, request.python, request.seed, burn_s=asked
    )


def run(request: Request, runner: Runner = run_in_child, group: GroupRunner = run_group) -> dict[str, Any]:
    """Run the suites on every device and return the result document.

    Raises:
        RackwrightError: torch could not be imported, so there is nothing to say about any device.
    """
    outcome, first = _first(runner, request)
    assert first.torch is not None
    document = _document(request, first)
    if first.devices == ["cpu"]:
        _merge(document, "cpu", outcome, first, request)
    else:
        document["results"] += first.results
        if "cpu" in first.devices:
            _run_group(document, group, request, ["cpu"], tuple(request.suites))
        _run_gpus(document, group, request, [device for device in first.devices if device != "cpu"])
    document["errors"] += [_absent(name, first.torch) for name in first.unknown]
    return document


def _run_gpus(document: dict[str, Any], group: GroupRunner, request: Request, devices: list[str]) -> None:
    """Run the phases one after the other on the GPUs that are left; one that hung, crashed or is busy is left out."""
    for number, phase in enumerate(benchmark_plan.phases(request.suites) if devices else []):
        settle_s = SETTLE_S if number else 0.0
        if phase.kind == "node":
            _run_node(document, group, request, devices, phase.suites, settle_s)
            continue
        if phase.kind == "ranks" and phase.suites == ("llm_training",) and len(devices) < 2:
            continue  # one GPU has trained in the first phase
        ranks = phase.kind == "ranks"
        devices = _run_group(document, group, request, devices, phase.suites, ranks, settle_s)
    document["results"] += burn_summaries(document["results"])
    document["errors"] += checksum_errors(document["results"])


def _run_group(
    document: dict[str, Any],
    group: GroupRunner,
    request: Request,
    devices: list[str],
    suites: tuple[str, ...],
    ranks: bool = False,
    settle_s: float = 0.0,
) -> list[str]:
    """Run suites on all devices at once, a process each, and return the devices that can go on."""
    payloads: list[dict[str, Any]] = []
    for rank, device in enumerate(devices):
        options = {"rank": rank, "world_size": len(devices)} if ranks else {}
        payload = {"device": device, "suites": list(suites), "peers": devices, "settle_s": settle_s}
        payloads.append({**payload, "options": options})
    left = []
    outcomes = _supervised(group, torch_runner.run_device, request, payloads)
    for device, (outcome, record) in zip(devices, outcomes):
        _merge(document, device, outcome, record, request)
        if outcome.status == "ok" and not any(error["suite"] is None for error in record.errors):
            left.append(device)
    return left


def _run_node(
    document: dict[str, Any],
    group: GroupRunner,
    request: Request,
    devices: list[str],
    suites: tuple[str, ...],
    settle_s: float,
) -> None:
    """Run suites in one process that sees all devices."""
    if len(devices) < 2:
        reason = f"a pair needs two GPUs, and {len(devices)} can be measured"
        document["not_applicable"] += [{"suite": name, "device": "node", "reason": reason} for name in suites]
        return
    payload = {"suites": list(suites), "peers": devices, "settle_s": settle_s}
    ((outcome, record),) = _supervised(group, torch_runner.run_node, request, [payload])
    _merge(document, "node", outcome, record, request)


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
        "not_applicable": [],
    }


def _first(runner: Runner, request: Request, plan_only: bool = False) -> tuple[ChildResult, _Record]:
    """Run the first child; raise unless it got as far as describing torch."""

    def alone(func: Callable[[Any], Any], payloads: Sequence[Any], timeout: float) -> list[ChildResult]:
        return [runner(func, [payload], timeout) for payload in payloads]

    ((outcome, record),) = _supervised(alone, torch_runner.run_first, request, [{"plan_only": plan_only}])
    if record.torch is None or (plan_only and outcome.status != "ok"):
        raise import_failure(request, outcome)
    return outcome, record


def _supervised(
    group: GroupRunner, func: Callable[[Any], Any], request: Request, payloads: Sequence[Mapping[str, Any]]
) -> list[tuple[ChildResult, _Record]]:
    """Run one child per payload; each writes what it knows to a file of its own, in a directory all of them see."""
    with tempfile.TemporaryDirectory(prefix="torch-benchmark-") as scratch:
        paths = [os.path.join(scratch, f"progress-{number}.jsonl") for number in range(len(payloads))]
        complete = [{**_common(request), **p, "progress_path": q, "scratch": scratch} for p, q in zip(payloads, paths)]
        for payload in complete:
            payload["options"] = {**request.options, **payload["options"]}
            if "rank" in payload["options"]:
                payload["options"]["store_path"] = os.path.join(scratch, "store")
        outcomes = group(func, complete, request.timeout)
        return [(outcome, _read_progress(path)) for outcome, path in zip(outcomes, paths)]


def _common(request: Request) -> dict[str, Any]:
    return {
        "suites": list(request.suites),
        "devices": list(request.devices),
        "level": request.level,
        "seed": request.seed,
        "allow_busy": request.allow_busy,
        "options": {},
    }


def _read_progress(path: str) -> _Record:
    record = _Record()
    if not os.path.exists(path):
        return record  # the child ended before it could write anything
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            if not line.endswith("\n"):
                break  # the child died while writing it
            try:
                record.add(json.loads(line))
            except (ValueError, AttributeError):  # only a process whose memory is damaged writes such a line
                record.unreadable = line[:80]
                break
    return record


def _merge(document: dict[str, Any], device: str, outcome: ChildResult, record: _Record, request: Request) -> None:
    if device != "node":
        document["devices"][device] = record.info or document["devices"].get(device)
    document["results"] += record.results
    document["errors"] += record.errors
    document["not_applicable"] += record.not_applicable
    if outcome.status != "ok":
        document["errors"].append(_child_error(device, outcome, record, request))
    elif record.unreadable is not None:
        detail = f"The process wrote down what cannot be read: {record.unreadable!r}."
        step = "Test the node's memory, and read the kernel log."
        entry = {"device": device, "suite": record.started, "reason": "error", "detail": detail, "next_step": step}
        document["errors"].append(entry)


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
