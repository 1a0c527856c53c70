# SPDX-License-Identifier: Apache-2.0
"""Bandwidth between the GPUs of a node (suite ``p2p``), in one process that sees all of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from . import measure
from .gpu_readings import open_gpu, watch_of
from .torch_bench import Bench, NotApplicableError, NotEnoughMemoryError, WrongAnswerError
from .torch_device import device_index, device_info

_BYTES = 256 << 20
_LEAST_BYTES = 16 << 20
#: A sample is as many copies as take this long: one alone is over in a third of a millisecond over NVLink, and it is
#: timed by the host's clock.
_SAMPLE_S = 0.02
_MOST_COPIES = 16
#: After this time a pair has enough samples: 8 GPUs have 84 pairs, and copies through the host are slow.
_PAIR_S = 0.25
_LEAST_SAMPLES = 3


def p2p_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Copy between every two GPUs, each direction alone and both at once; the copies' content is compared as well."""
    if not bench.on_gpu:
        raise NotApplicableError("the device is a CPU: it has no peers")
    if len(bench.peers) < 2:
        raise NotApplicableError(f"a pair needs two GPUs, and {len(bench.peers)} is measured")
    size = _buffer_bytes(bench)
    sides = {device: _open(bench, device, size) for device in bench.peers}
    found = []
    for source, target in itertools.permutations(bench.peers, 2):
        result = _uni(bench, sides[source], sides[target])
        found.append(result)
        yield result
    yield matrix(bench, found, "uni")
    found = []
    for source, target in itertools.combinations(bench.peers, 2):
        result = _bidirectional(bench, sides[source], sides[target])
        found.append(result)
        yield result
    yield matrix(bench, found, "bidirectional")


@dataclass(frozen=True)
class _Side:
    """One GPU's end: a buffer to read, one to write, and a stream for each direction."""

    device: str
    name: str | None
    watch: Any
    out: Any
    into: Any
    sends: Any
    receives: Any


def _buffer_bytes(bench: Bench) -> int:
    """Return one size for all, so that the numbers of a matrix are of the same copies."""
    free = {device: int(bench.torch.cuda.mem_get_info(device)[0]) for device in bench.peers}
    fullest = min(free, key=lambda device: free[device])
    size = min(_BYTES, free[fullest] // 4 // 4096 * 4096)
    if size < _LEAST_BYTES:
        raise NotEnoughMemoryError(f"only {free[fullest]} bytes are free on {fullest}")
    return size


def _open(bench: Bench, device: str, size: int) -> _Side:
    torch, elements = bench.torch, size // 4
    info = device_info(torch, device)
    # each GPU sends another ramp, so that what arrives tells whose it is
    out = torch.arange(elements, device=device, dtype=torch.int32).mul_(2 * device_index(device) + 3)
    streams = [torch.cuda.Stream(device=device) for _ in range(2)]
    into = torch.zeros(elements, device=device, dtype=torch.int32)
    return _Side(device, info.get("name"), watch_of(*open_gpu(info)), out, into, *streams)


def _uni(bench: Bench, source: _Side, target: _Side) -> dict[str, Any]:
    with source.watch.during() as record:
        timed = _timed(bench, [(source, target)])
    _verify(bench, source, target)
    return _result(bench, "uni", source, target, timed, record, source.out.nbytes)


def _bidirectional(bench: Bench, one: _Side, other: _Side) -> dict[str, Any]:
    with one.watch.during() as record:
        timed = _timed(bench, [(one, other), (other, one)])
    _verify(bench, one, other)
    _verify(bench, other, one)
    return _result(bench, "bidirectional", one, other, timed, record, one.out.nbytes + other.out.nbytes)


def _timed(bench: Bench, ways: Sequence[tuple[_Side, _Side]]) -> tuple[list[float], int]:
    """Return the seconds of one copy per way in each sample, and how many copies a sample is."""
    _sample(bench, ways, 1)  # pays for opening the way, which maps all memory of both sides
    begun = time.perf_counter()
    copies = max(1, min(_MOST_COPIES, int(_SAMPLE_S / _sample(bench, ways, 2))))
    seconds: list[float] = []
    while len(seconds) < bench.level.peer_samples:
        if len(seconds) >= _LEAST_SAMPLES and time.perf_counter() - begun > _PAIR_S:
            break
        seconds.append(_sample(bench, ways, copies))
    return seconds, copies


def _sample(bench: Bench, ways: Sequence[tuple[_Side, _Side]], copies: int) -> float:
    """Return the seconds of one copy per way, averaged over ``copies`` that are queued together."""
    torch = bench.torch
    for device in {side.device for way in ways for side in way}:
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for source, target in ways:
        with ExitStack() as stack:
            # torch orders a copy between the current streams of both devices: with a pair of streams for each way
            # the two ways do not wait for each other
            stack.enter_context(torch.cuda.stream(target.receives))
            stack.enter_context(torch.cuda.stream(source.sends))
            for _ in range(copies):
                target.into.copy_(source.out, non_blocking=True)
    for source, target in ways:
        source.sends.synchronize()
        target.receives.synchronize()
    return (time.perf_counter() - started) / copies


def _verify(bench: Bench, source: _Side, target: _Side) -> None:
    """Compare what arrived with what was sent, made anew on the receiver: a bridge can drop or divert copies."""
    torch = bench.torch
    with torch.cuda.device(target.device):
        sent = torch.arange(target.into.numel(), device=target.device, dtype=torch.int32)
        wrong = int((target.into != sent.mul_(2 * device_index(source.device) + 3)).sum())
        target.into.zero_()
        torch.cuda.synchronize(target.device)
    if wrong:
        raise WrongAnswerError(f"{wrong} elements copied from {source.device} to {target.device} arrived wrong")


def _result(
    bench: Bench, direction: str, source: _Side, target: _Side, timed: tuple[list[float], int], record: Any, moved: int
) -> dict[str, Any]:
    seconds, copies = timed
    access = bool(bench.torch.cuda.can_device_access_peer(device_index(source.device), device_index(target.device)))
    conditions = {"buffer_bytes": source.out.nbytes, "copies_per_sample": copies, "data": "ramp"}
    result = {
        "suite": "p2p",
        "name": f"p2p_{direction}",
        "unit": "GB/s",
        "dtype": None,
        "shape": [source.out.nbytes],
        "conditions": conditions,
        "details": {"peer": target.device, "direction": direction, "access": access},
    }
    completed = bench.completed(result, seconds, moved, 1e9, record)
    return {**completed, "device": source.device, "device_name": source.name}


def matrix(bench: Bench, found: Sequence[Mapping[str, Any]], direction: str) -> dict[str, Any]:
    """Return the summary of one direction: the slowest pair as the value, and the medians as rows of senders."""
    names = list(bench.peers)
    values = {(str(entry["device"]), str(entry["details"]["peer"])): float(entry["value"]) for entry in found}
    if direction == "bidirectional":
        values.update({(target, source): value for (source, target), value in list(values.items())})
    slowest = min(found, key=lambda entry: float(entry["value"]))
    numbers = measure.summarize([float(entry["value"]) for entry in found])
    return {
        "suite": "p2p",
        "name": f"p2p_{direction}_matrix",
        "unit": "GB/s",
        "device": "node",
        "device_name": None,
        "dtype": None,
        "shape": slowest["shape"],
        "level": bench.level_name,
        **numbers,
        "value": numbers["min"],
        "median_s": None,
        "conditions": {key: slowest["conditions"][key] for key in ("buffer_bytes", "data")},
        "clocks": None,
        "throttle": None,
        "missing": {key: "stands beside the number of each pair" for key in ("clocks", "throttle")},
        "details": {
            "devices": names,
            "matrix": [[values.get((source, target)) for target in names] for source in names],
            "slowest": [slowest["device"], slowest["details"]["peer"]],
            "without_access": [
                [entry["device"], entry["details"]["peer"]] for entry in found if not entry["details"]["access"]
            ],
        },
    }
