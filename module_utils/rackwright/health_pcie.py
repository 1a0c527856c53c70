# SPDX-License-Identifier: Apache-2.0
"""Rules of the PCIe link. Pure: one device in, checks out.

An idle link trains down to save power, which is no fault: generation and width of the moment are judged only while the
GPU works. What card and slot can do together is judged always, against the catalogue and against what it was.
"""

from __future__ import annotations

import math

from .health_record import MONITOR, REBOOT, Check, finding, not_applicable, not_measured, ok
from .health_view import Record, View, subject

#: replays a minute that a bit error rate of 1e-12 allows, per lane, by generation (DCGM's allowance)
_REPLAYS = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
#: utilization from which the GPU counts as working; an idle one shows 0 or 1
_WORKING_PERCENT = 10


def pcie_checks(view: View, device: Record) -> list[Check]:
    """Return every check of one GPU's PCIe link."""
    return [link(view, device), capability(view, device), replay(view, device)]


def link(view: View, device: Record) -> Check:
    name, who = "pcie.link", subject(device)
    readings = {key: view.of(device, f"pcie.{key}") for key in ("generation", "width", "max_generation", "max_width")}
    unread = next((one for one in readings.values() if not one.known), None)
    if unread:
        return unread.without(name, who)
    now = [readings["generation"].value, readings["width"].value]
    most = [readings["max_generation"].value, readings["max_width"].value]
    if now[0] >= most[0] and now[1] >= most[1]:
        return ok(name, who, _words(*now), _words(*most))
    load = view.of(device, "utilization.gpu_percent")
    if not load.known or load.value < _WORKING_PERCENT:
        reason = f"the GPU is idle and its link at {_words(*now)}: only a busy link shows what it can"
        return not_applicable(name, who, reason)
    reason = f"the link of a working GPU runs at {_words(*now)}, it can do {_words(*most)}"
    return finding(name, who, REBOOT, reason, observed=_words(*now), expected=_words(*most))


def capability(view: View, device: Record) -> Check:
    name, who = "pcie.capability", subject(device)
    generation, width = view.of(device, "pcie.max_generation"), view.of(device, "pcie.max_width")
    for one in (generation, width):
        if not one.known:
            return one.without(name, who)
    now, before = (generation.value, width.value), view.before(device)
    was = (before.get("pcie_max_generation"), before.get("pcie_max_width"))
    observed = _words(*now)
    if all(isinstance(one, int) for one in was) and (now[0] < was[0] or now[1] < was[1]):
        reason = f"card and slot can do {observed}, and could do {_words(*was)} at an earlier check"
        return finding(name, who, REBOOT, reason, observed=observed, expected=_words(*was))
    lanes = view.spec(device).get("pcie_lanes")
    if lanes and now[1] < lanes:
        reason = f"the slot gives {now[1]} lanes to a card that has {lanes}"
        return finding(name, who, MONITOR, reason, observed=observed, expected=f"x{lanes}", actions=("check_slot",))
    return ok(name, who, observed, f"x{lanes}" if lanes else None)


def replay(view: View, device: Record) -> Check:
    name, who = "pcie.replay", subject(device)
    counter = view.of(device, "pcie.replay_count")
    if not counter.known:
        return counter.without(name, who)
    generation, width = view.of(device, "pcie.max_generation").value, view.of(device, "pcie.max_width").value
    if generation not in _REPLAYS or not width:
        return not_measured(name, who, "without generation and width of the link no allowance can be computed")
    growth = view.growth(counter.value, view.before(device).get("pcie_replays"))
    if growth.seconds is None:
        return not_measured(
            name, who, "how long the counter counts is not known: neither an earlier check nor an uptime"
        )
    allowed = math.ceil(width * _REPLAYS[generation]) * max(1.0, growth.seconds / 60)
    if growth.amount > allowed:
        reason = f"{growth.amount} PCIe replays {growth.since}, {math.floor(allowed)} are allowed"
        return finding(name, who, MONITOR, reason, observed=growth.amount, expected=f"<= {math.floor(allowed)}")
    return ok(name, who, growth.amount, f"<= {math.floor(allowed)}")


def access_control(view: View) -> Check:
    """ACS sends peer traffic through the root complex; in a virtual machine the hypervisor needs it."""
    name, who = "pcie.acs", "node"
    if view.of_its_host:
        return not_applicable(name, who, view.of_its_host)
    virtual = view.of_host("virtual")
    if virtual.value:
        return not_applicable(name, who, "a virtual machine: its host keeps guests apart by ACS")
    if (view.gpu.get("pci_count") or 0) < 2:
        return not_applicable(name, who, "it matters between two or more GPUs only")
    bridges = view.of_host("acs_bridges")
    if not bridges.known:
        return bridges.without(name, who)
    if bridges.value:
        reason = f"ACS is on at {len(bridges.value)} PCI bridge(s), which slows or stops traffic from GPU to GPU"
        return finding(name, who, MONITOR, reason, observed=bridges.value[:16], expected=[])
    return ok(name, who, [], [])


def peer_memory(view: View) -> Check:
    """GPU-direct RDMA needs nvidia_peermem, or the dma-buf of the open modules."""
    name, who = "gdr.peermem", "node"
    ports, modules = view.of_host("nics"), (view.gpu.get("driver") or {}).get("kernel_modules")
    if not view.devices:
        return not_applicable(name, who, "the node has no NVIDIA GPU")
    if view.of_its_host:
        return not_applicable(name, who, view.of_its_host)
    if not ports.known:
        return ports.without(name, who)
    if not any(port.get("state") == "ACTIVE" for port in ports.value):
        return not_applicable(name, who, "no RDMA port is active")
    if modules is None:
        return not_measured(name, who, view.why("driver.kernel_modules", "modules were not read"))
    flavour = (view.gpu.get("driver") or {}).get("flavour")
    if "nvidia_peermem" in modules or flavour == "open":
        return ok(name, who, "nvidia_peermem" if "nvidia_peermem" in modules else "dma-buf of the open modules")
    if flavour == "unknown":
        return not_measured(
            name, who, "whether the loaded module is the open one, which needs no nvidia_peermem, is not known"
        )
    reason = "an RDMA port is active and nvidia_peermem is not loaded: transfers go through the memory of the host"
    return finding(name, who, MONITOR, reason, observed=modules, expected="nvidia_peermem")


def _words(generation: object, width: object) -> str:
    return f"generation {generation} x{width}"
