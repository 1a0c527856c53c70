# SPDX-License-Identifier: Apache-2.0
"""Run the benchmark: a killable child process per device, and whatever happens to one of them becomes data."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_plan, torch_runner
from .benchmark_errors import absent, child_error, import_failure, unreadable
from .benchmark_node import burn_summaries, checksum_errors
from .child import ChildResult, run_in_child
from .child_group import run_group
from .sysfs import read_operating_system

SCHEMA = 1
#: How long the processes of one phase wait for what those of the phase before leave: taking down the contexts of eight
#: GPUs with all their memory takes the driver seconds.
SETTLE_S = 20.0
_REMOVE_AGAIN_S = (0.05, 0.2, 0.5)

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
    document["errors"] += [absent(name, first.torch) for name in first.unknown]
    return document


def _run_gpus(document: dict[str, Any], group: GroupRunner, request: Request, devices: list[str]) -> None:
    """Run the phases one after the other on the GPUs that are left; one that hung, crashed or is busy is left out."""
    for number, phase in enumerate(benchmark_plan.phases(request.suites) if devices else []):
        settle_s = SETTLE_S if number else 0.0
        if phase.kind == "node":
            _run_node(document, group, request, devices, phase.suites, settle_s)
            continue
        if phase.needs_two and len(devices) < 2:
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
        raise import_failure(request.python, request.timeout, outcome)
    return outcome, record


def _supervised(
    group: GroupRunner, func: Callable[[Any], Any], request: Request, payloads: Sequence[Mapping[str, Any]]
) -> list[tuple[ChildResult, _Record]]:
    """Run one child per payload; each writes what it knows to a file of its own, in a directory all of them see."""
    with _scratch() as scratch:
        paths = [os.path.join(scratch, f"progress-{number}.jsonl") for number in range(len(payloads))]
        complete = [{**_common(request), **p, "progress_path": q, "scratch": scratch} for p, q in zip(payloads, paths)]
        for payload in complete:
            payload["options"] = {**request.options, **payload["options"]}
            if "rank" in payload["options"]:
                payload["options"]["store_path"] = os.path.join(scratch, "store")
        outcomes = group(func, complete, request.timeout)
        return [(outcome, _read_progress(path)) for outcome, path in zip(outcomes, paths)]


@contextmanager
def _scratch() -> Iterator[str]:
    """Make a directory for one phase and remove it afterwards, whatever still writes to it.

    A compiler that a killed child had started may leave a file while it is removed; a process that nobody can end, and
    that has an entry in ``errors``, keeps its directory. Neither may cost the results that are already read.
    """
    path = tempfile.mkdtemp(prefix="torch-benchmark-")
    try:
        yield path
    finally:
        for pause_s in (0.0, *_REMOVE_AGAIN_S):
            time.sleep(pause_s)
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.exists(path):
                break


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
        document["errors"].append(child_error(device, outcome, record.started, request.timeout))
    elif record.unreadable is not None:
        document["errors"].append(unreadable(device, record.started, record.unreadable))


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
