# SPDX-License-Identifier: Apache-2.0
"""Rules of RDMA ports and NVMe drives. Pure: a view in, checks out.

A port that nobody declared and that was never active is not in use. What was active once has to be active.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .health_record import ISOLATE, MONITOR, Check, finding, not_applicable, not_measured, ok
from .health_view import View

_DAY_S = 86400
_UNDECLARED = "neither declared (expected.nics) nor active at an earlier check"


def io_checks(view: View) -> list[Check]:
    """Return the checks of every port and drive."""
    if view.of_its_host:
        names = ("nic.port", "nic.rate", "nic.flaps", "nvme.state", "nvme.smart")
        return [not_applicable(name, "node", view.of_its_host) for name in names]
    return [*_port_checks(view), *_drive_checks(view)]


# ---- RDMA ports ----


def _wanted(view: View) -> dict[str, float | None]:
    """Ports that have to be active, with their rate in Gb/s as far as it is known."""
    before = view.baseline.get("nics")
    wanted: dict[str, float | None] = dict(before) if isinstance(before, Mapping) else {}
    declared = view.declared("nics")
    if isinstance(declared, Mapping):
        wanted.update({_port(name): rate for name, rate in declared.items()})
    elif isinstance(declared, list):
        wanted.update({_port(name): wanted.get(_port(name)) for name in declared})
    return wanted


def _port(name: Any) -> str:
    """``mlx5_0`` is its first port."""
    return str(name) if "/" in str(name) else f"{name}/1"


def _port_checks(view: View) -> list[Check]:
    names = ("nic.port", "nic.rate", "nic.flaps")
    ports, wanted = view.of_host("nics"), _wanted(view)
    if not ports.known:
        return [ports.without(name, "node") for name in names]
    known = {port["name"]: port for port in ports.value}
    if not known and not wanted:
        return [not_applicable(name, "node", "the node has no RDMA device") for name in names]
    checks = []
    for name in sorted({*known, *wanted}):
        port = known.get(name)
        checks += [_port_state(view, name, port, wanted), _port_rate(name, port, wanted)]
        if port is not None:
            checks.append(_flaps(view, name, port))
    return checks


def _port_state(view: View, name: str, port: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> Check:
    check_id, who = "nic.port", f"nic {name}"
    if port is None:
        return finding(check_id, who, ISOLATE, "the port is gone", observed="absent", expected="ACTIVE")
    state = port.get("state")
    if state == "ACTIVE":
        return ok(check_id, who, state, "ACTIVE")
    if name not in wanted:
        return not_applicable(check_id, who, f"the port is {state or 'in no known state'} and {_UNDECLARED}")
    if state is None:
        return not_measured(check_id, who, "the kernel does not tell the port's state")
    reason = f"the port is {state} ({port.get('physical') or 'physical state unknown'})"
    return finding(check_id, who, ISOLATE, reason, observed=state, expected="ACTIVE")


def _port_rate(name: str, port: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> Check:
    check_id, who = "nic.rate", f"nic {name}"
    if port is None or port.get("state") != "ACTIVE":
        return not_applicable(check_id, who, "the port is not active")
    rate, expected = port.get("rate_gbps"), wanted.get(name)
    if rate is None:
        return not_measured(check_id, who, "the kernel does not tell the port's rate")
    if expected is None:
        return not_applicable(check_id, who, "its rate is neither declared nor known from an earlier check")
    if rate < float(expected):
        reason = f"the port runs at {rate:g} Gb/s, it should at {float(expected):g}"
        return finding(check_id, who, ISOLATE, reason, observed=rate, expected=float(expected))
    return ok(check_id, who, rate, float(expected))


def _flaps(view: View, name: str, port: Mapping[str, Any]) -> Check:
    """The counter counts for ever, so its growth is scaled to a day where more than a day went by."""
    check_id, who = "nic.flaps", f"nic {name}"
    value, limit = port.get("link_downed"), view.limits["nic_flaps_per_day"]
    if value is None:
        return not_measured(check_id, who, "the port has no counter link_downed")
    growth = view.growth(value, (view.baseline.get("nic_downs") or {}).get(name))
    if growth.seconds is None:
        return not_measured(check_id, who, "how long the counter counts is not known")
    per_day = growth.amount / max(1.0, growth.seconds / _DAY_S)
    if per_day > limit:
        reason = f"the link was lost {growth.amount} times {growth.since}"
        return finding(check_id, who, MONITOR, reason, observed=growth.amount, expected=f"<= {limit:g} a day")
    return ok(check_id, who, growth.amount, f"<= {limit:g} a day")


# ---- NVMe drives ----


def _drive_checks(view: View) -> list[Check]:
    drives, before = view.of_host("nvme"), view.baseline.get("nvme") or []
    if not drives.known:
        return [drives.without(name, "node") for name in ("nvme.state", "nvme.smart")]
    known = {drive.get("serial") or drive["name"] for drive in drives.value}
    checks = [
        finding("nvme.state", f"nvme {name}", ISOLATE, "the drive is gone", observed="absent", expected="live")
        for name in before
        if name not in known
    ]
    if not drives.value and not checks:
        return [not_applicable(name, "node", "the node has no NVMe drive") for name in ("nvme.state", "nvme.smart")]
    for drive in drives.value:
        checks += [_drive_state(drive), _drive_smart(view, drive)]
    return checks


def _drive_state(drive: Mapping[str, Any]) -> Check:
    who, state = f"nvme {drive['name']}", drive.get("state")
    if state is None:
        return not_measured("nvme.state", who, "the kernel does not tell the controller's state")
    if state != "live":
        return finding("nvme.state", who, ISOLATE, f"the controller is {state}", observed=state, expected="live")
    return ok("nvme.state", who, state, "live")


def _drive_smart(view: View, drive: Mapping[str, Any]) -> Check:
    name, who, smart = "nvme.smart", f"nvme {drive['name']}", drive.get("smart")
    if not smart:
        return not_measured(name, who, str(drive.get("smart_reason") or "the drive was not asked"))
    warning, used = smart["critical_warning"], smart.get("percent_used")
    spare, least = smart.get("avail_spare"), smart.get("spare_thresh")
    if warning:
        reason = f"the drive gives a critical warning (bits {warning:#x})"
        return finding(
            name,
            who,
            ISOLATE,
            reason,
            observed=smart,
            expected={"critical_warning": 0},
            actions=("drain", "check_storage"),
        )
    limit = view.limits["nvme_percentage_used"]
    worn = used is not None and used > limit
    if worn or (spare is not None and least is not None and spare < least):
        reason = (
            f"the drive is worn: {used} % of its rated life used"
            if worn
            else f"{spare} % spare blocks are left of {least} %"
        )
        return finding(name, who, MONITOR, reason, observed=smart, expected={"percent_used": f"<= {limit:g}"})
    return ok(name, who, {"critical_warning": 0, "percent_used": used}, {"critical_warning": 0})
