# SPDX-License-Identifier: Apache-2.0
"""Bandwidth between host and GPU (suite ``pcie``), on a torch that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .gpu_place import link_gbps, near
from .torch_bench import Bench, NotApplicableError, NotEnoughMemoryError, available_memory

#: A buffer smaller than this is over before the link has left its power saving state.
_LEAST_BYTES = 64 << 20
_WARM_UP_COPIES = 3


def pcie_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Copy pinned host memory to the GPU and back; decimal GB/s, with the state of the link while it is loaded."""
    if not bench.on_gpu:
        raise NotApplicableError("the device is a CPU: it has no link to itself")
    if bench.info.get("unified_memory"):
        raise NotApplicableError("the GPU shares the memory of the system: nothing is copied over a link")
    size = _buffer_bytes(bench)
    torch = bench.torch
    with near(bench.meter.pci_address() if bench.meter is not None else None) as place:
        # pinned before the turn is taken: the memory is the same, and the others need not wait for it
        host = torch.empty(size, dtype=torch.int8, pin_memory=True)
        host.fill_(1)
        device = torch.empty(size, dtype=torch.int8, device=bench.device)
        with bench.turn():
            yield _direction(bench, "h2d", lambda: device.copy_(host, non_blocking=True), size, place)
            yield _direction(bench, "d2h", lambda: host.copy_(device, non_blocking=True), size, place)


def _buffer_bytes(bench: Bench) -> int:
    room = min(bench.free_bytes() // 2, available_memory() // (4 * max(1, len(bench.peers))))
    size = min(bench.level.transfer_bytes, room)
    if size < _LEAST_BYTES:
        raise NotEnoughMemoryError(f"only {room} bytes can be had on host and device for one copy")
    return size


def _direction(bench: Bench, name: str, copy: Callable[[], Any], size: int, place: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_WARM_UP_COPIES):
        copy()
    bench.synchronize()
    result = {
        "suite": "pcie",
        "name": f"pcie_{name}",
        "unit": "GB/s",
        "dtype": None,
        "shape": [size],
        "conditions": {"pinned": True, "buffer_bytes": size, "data": "constant"},
    }
    with bench.watch.during() as record:
        seconds, link = timed_copies(bench, copy, bench.level.transfer_samples)
    completed = bench.completed(result, seconds, size, 1e9, record)
    wire = link_gbps(link.get("generation"), link.get("width"))
    completed["details"] = {"link": link, "link_gbps": wire, **place}
    if link.get("generation") is None or link.get("width") is None:
        completed["missing"] = {**completed["missing"], "link": "the driver does not tell the state of the link"}
    return completed


def timed_copies(bench: Bench, copy: Callable[[], Any], count: int) -> tuple[list[float], dict[str, Any]]:
    """Return the seconds of each copy, and the state of the link while they ran.

    All copies are queued before the first has ended, on one stream and without synchronisation in between, so that the
    host's launches stay out; the link is read meanwhile, because it trains down when it is idle.
    """
    event = bench.torch.cuda.Event
    pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(count)]
    for start, end in pairs:
        start.record()
        copy()
        end.record()
    link: dict[str, Any] = bench.meter.pcie_link() if bench.meter is not None else {}
    bench.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs], link
