# SPDX-License-Identifier: Apache-2.0
"""Rules of power, heat, clocks and modes of one GPU. Pure: one device in, checks out."""

from __future__ import annotations

from typing import Any

from .gpu_daemons import is_named
from .health_record import ISOLATE, MONITOR, NOT_APPLICABLE, RESET, Check, finding, not_applicable, not_measured, ok
from .health_view import Record, View, listed, subject

_HARD = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
_HARD_COUNTERS = ("hw_thermal_slowdown", "hw_power_brake_slowdown")
_GIB = 1 << 30


def power_checks(view: View, device: Record) -> list[Check]:
    """Return every check of one GPU's power, heat, clocks and modes."""
    return [
        power_readable(view, device),
        power_range(view, device),
        power_limit(view, device),
        margin(view, device, "temperature.margin", "gpu_celsius", ("slowdown_celsius", "gpu_max_celsius")),
        margin(view, device, "temperature.memory", "memory_celsius", ("memory_max_celsius",)),
        hard_throttle(view, device),
        soft_throttle(view, device),
        persistence(view, device),
        application_clocks(view, device),
        mig_mode(view, device),
        inforom(view, device),
        stale_memory(view, device),
    ]


def power_readable(view: View, device: Record) -> Check:
    name, who = "power.readable", subject(device)
    draw = view.of(device, "power.draw_watts")
    if draw.known:
        return ok(name, who, draw.value)
    if draw.state == NOT_APPLICABLE or device.get("state") != "ok":
        return draw.without(name, who)
    return finding(
        name, who, MONITOR, f"the GPU answers, but not how much power it draws: {draw.reason}", expected="a reading"
    )


def power_range(view: View, device: Record) -> Check:
    name, who = "power.range", subject(device)
    draw, most = view.of(device, "power.draw_watts"), view.of(device, "power.max_limit_watts")
    if not draw.known:
        return draw.without(name, who)
    ceiling = most.value * view.limits["power_range"] if most.known else None
    if draw.value <= 0 or (ceiling is not None and draw.value > ceiling):
        reason = f"the GPU says that it draws {draw.value:g} W, which cannot be"
        return finding(
            name, who, MONITOR, reason, observed=draw.value, expected=f"0 to {ceiling:g} W" if ceiling else "> 0 W"
        )
    if ceiling is None:
        return most.without(name, who)
    return ok(name, who, draw.value, f"<= {ceiling:g} W")


def power_limit(view: View, device: Record) -> Check:
    name, who = "power.limit", subject(device)
    limit, declared = view.of(device, "power.limit_watts"), view.wants(device, "power_limit_w")
    wanted = view.of(device, "power.default_limit_watts") if declared is None else None
    if not limit.known:
        return limit.without(name, who)
    if wanted is not None and not wanted.known:
        return wanted.without(name, who)
    target = float(declared) if wanted is None else wanted.value
    enforced = view.of(device, "power.enforced_limit_watts").value
    tolerance = view.limits["power_limit"]
    if abs(limit.value - target) > tolerance:
        word = "declared" if wanted is None else "the default"
        reason = f"the power limit is {limit.value:g} W, {word} is {target:g} W"
        return finding(name, who, MONITOR, reason, observed=limit.value, expected=target)
    if enforced is not None and enforced < limit.value - tolerance:
        reason = f"something else limits the GPU to {enforced:g} W below its own limit of {limit.value:g} W"
        return finding(name, who, MONITOR, reason, observed=enforced, expected=limit.value, actions=("check_power",))
    return ok(name, who, limit.value, target)


def margin(view: View, device: Record, name: str, path: str, thresholds: tuple[str, ...]) -> Check:
    """Distance to the least of the thresholds; newer cards tell the distance of the GPU itself instead."""
    who, now = subject(device), view.of(device, f"temperature.{path}")
    if not now.known:
        return now.without(name, who)
    readings = [view.of(device, f"temperature.{threshold}") for threshold in thresholds]
    known = [one.value for one in readings if one.known and one.value > 0]
    told = view.of(device, "health.temperature.margin_celsius") if name == "temperature.margin" else None
    if not known and told is not None and told.known:
        known = [now.value + told.value]
    if not known:
        return (
            readings[0].without(name, who)
            if not readings[0].known
            else not_applicable(name, who, "it has no threshold")
        )
    threshold, least = min(known), view.limits["temperature_margin"]
    reason = f"{now.value} C, the threshold is {threshold} C"
    if now.value >= threshold:
        return finding(name, who, ISOLATE, reason, observed=now.value, expected=f"< {threshold} C")
    if threshold - now.value < least:
        expected = f"<= {threshold - least:g} C"
        return finding(name, who, MONITOR, reason, observed=now.value, expected=expected, actions=("check_cooling",))
    return ok(name, who, now.value, f"<= {threshold - least:g} C")


def hard_throttle(view: View, device: Record) -> Check:
    name, who = "throttle.hw", subject(device)
    fractions, since, unread = _fractions(view, device, _HARD_COUNTERS)
    limit = view.limits["throttle_hw_fraction"]
    reasons = view.of(device, "throttle.reasons")
    active = [one for one in reasons.value or [] if one in _HARD]
    over = {key: part for key, part in fractions.items() if part > limit}
    if over:
        reason = f"the hardware slowed the GPU down {_shares(over)} {since}"
        return finding(name, who, ISOLATE, reason, observed=_rounded(over), expected=f"<= {limit:g}")
    if active:
        reason = f"the hardware slows the GPU down now: {listed(active).replace('_', ' ')}"
        return finding(
            name, who, MONITOR, reason, observed=active, expected=[], actions=("check_cooling", "check_power")
        )
    if fractions or reasons.known:
        return ok(name, who, _rounded(fractions), f"<= {limit:g}")
    return not_measured(name, who, unread) if unread else reasons.without(name, who)


def soft_throttle(view: View, device: Record) -> Check:
    name, who = "throttle.sw_thermal", subject(device)
    fractions, since, unread = _fractions(view, device, ("sw_thermal_slowdown",))
    if not fractions:
        reading = view.of(device, "health.event_counters_ns.sw_thermal_slowdown")
        return not_measured(name, who, unread) if reading.known else reading.without(name, who)
    part = fractions["sw_thermal_slowdown"]
    watched, most = view.limits["throttle_sw_thermal_monitor"], view.limits["throttle_sw_thermal_isolate"]
    reason = f"the driver slowed the GPU down for heat {_shares(fractions)} {since}"
    if part > most:
        return finding(name, who, ISOLATE, reason, observed=round(part, 4), expected=f"<= {most:g}")
    if part > watched:
        expected = f"<= {watched:g}"
        return finding(
            name, who, MONITOR, reason, observed=round(part, 4), expected=expected, actions=("check_cooling",)
        )
    return ok(name, who, round(part, 4), f"<= {watched:g}")


def _fractions(view: View, device: Record, names: tuple[str, ...]) -> tuple[dict[str, float], str, str]:
    """Parts of the time by counter, since when, and why there are none where counters count and the time is unknown."""
    found, since, unread = {}, "", ""
    earlier = view.before(device).get("event_counters_ns") or {}
    for name in names:
        counter = view.of(device, f"health.event_counters_ns.{name}")
        if not counter.known:
            continue
        growth = view.growth(counter.value, earlier.get(name))
        if growth.fraction is None:
            unread = "how long the counters count is not known: neither an earlier check nor an uptime"
        else:
            found[name], since = growth.fraction, since or growth.since
    return found, since, unread


def _shares(parts: dict[str, float]) -> str:
    return listed(f"{part:.1%} of the time ({name.replace('_', ' ')})" for name, part in parts.items())


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(part, 4) for name, part in parts.items()}


def persistence(view: View, device: Record) -> Check:
    name, who = "persistence", subject(device)
    mode, wanted = view.of(device, "persistence_mode"), view.wants(device, "persistence_mode")
    if not mode.known:
        return mode.without(name, who)
    target = True if wanted is None else bool(wanted)
    if mode.value != target:
        reason = (
            "persistence mode is off: the driver starts the GPU anew for every program"
            if target
            else "persistence mode is on, declared off"
        )
        return finding(name, who, MONITOR, reason, observed=mode.value, expected=target)
    return ok(name, who, mode.value, target)


def application_clocks(view: View, device: Record) -> Check:
    name, who = "clocks.application", subject(device)
    declared = view.wants(device, "application_clocks_mhz") or {}
    now = {key: view.of(device, f"health.clocks.application_{key}_mhz") for key in ("graphics", "memory")}
    wanted: dict[str, Any] = {}
    for key in now:
        default = view.of(device, f"health.clocks.default_application_{key}_mhz")
        wanted[key] = declared.get(key) or default.value
    for key in now:
        if not now[key].known:
            return now[key].without(name, who)
    if None in wanted.values():
        return not_measured(name, who, "the default application clocks are not known, and none are declared")
    observed = {key: one.value for key, one in now.items()}
    low = [key for key in now if observed[key] < wanted[key] - view.limits["application_clock"]]
    if low:
        told = listed(f"{key} {observed[key]} of {wanted[key]} MHz" for key in low)
        reason = f"application clocks are lower than they should be: {told}"
        return finding(name, who, MONITOR, reason, observed=observed, expected=wanted)
    return ok(name, who, observed, wanted)


def mig_mode(view: View, device: Record) -> Check:
    name, who = "mig.mode", subject(device)
    mode, pending, layout = view.of(device, "mig.mode"), view.of(device, "mig.pending"), view.wants(device, "mig")
    wanted = None if layout is None else "enabled" if layout else "disabled"
    if not mode.known:
        if mode.state == NOT_APPLICABLE and wanted == "enabled":
            reason = "MIG is declared and the card has none"
            return finding(name, who, MONITOR, reason, expected=wanted, actions=("fix_configuration",))
        return mode.without(name, who)
    if pending.known and pending.value != mode.value:
        reason = f"MIG is {mode.value} and will be {pending.value} after a reset"
        actions = ("stop_workload", "reset_gpu")
        return finding(name, who, RESET, reason, observed=mode.value, expected=pending.value, actions=actions)
    if wanted is not None and mode.value != wanted:
        return finding(
            name, who, RESET, f"MIG is {mode.value}, declared is {wanted}", observed=mode.value, expected=wanted
        )
    return ok(name, who, mode.value, wanted)


def inforom(view: View, device: Record) -> Check:
    name, who = "inforom", subject(device)
    valid = view.of(device, "health.inforom.valid")
    if not valid.known:
        return valid.without(name, who)
    if not valid.value:
        return finding(
            name, who, ISOLATE, "the InfoROM is corrupted: its checksum does not fit", observed=False, expected=True
        )
    return ok(name, who, True, True)


def stale_memory(view: View, device: Record) -> Check:
    """Programs that run are no fault. Memory that is used and belongs to nobody is."""
    name, who = "processes.stale", subject(device)
    if (device.get("memory") or {}).get("type") == "unified":
        return not_applicable(name, who, "the GPU uses the memory of the system")
    processes, used = view.of(device, "processes"), view.of(device, "health.memory.used_bytes")
    for one in (processes, used):
        if not one.known:
            return one.without(name, who)
    work = [entry for entry in processes.value if not is_named(entry.get("name"))]
    limit = view.limits["unaccounted_memory"] * _GIB
    instances = (device.get("mig") or {}).get("instances")
    observed = {"used_gib": round(used.value / _GIB, 2), "processes": len(work)}
    if work or instances or used.value <= limit:
        return ok(name, who, observed, f"no memory above {limit / _GIB:g} GiB without a process")
    if view.gpu.get("platform") == "wsl2":
        return not_applicable(name, who, "under WSL2 processes of Windows are not seen")
    reason = f"{used.value / _GIB:.1f} GiB are in use and no process is seen on the GPU"
    return finding(name, who, RESET, reason, observed=observed, expected=f"<= {limit / _GIB:g} GiB")
