# SPDX-License-Identifier: Apache-2.0
"""Rules of NVLink and of the NVSwitch fabric. Pure: one device (or the node) in, checks out."""

from __future__ import annotations

from typing import Any

from .health_record import MONITOR, RESET, Check, finding, not_applicable, not_measured, ok
from .health_view import Reading, Record, View, listed, subject

#: GB/s of one link, both directions, by generation: NVIDIA's figures for P100, V100, A100, H100 and B200
_LINK_GBPS = {1: 40, 2: 50, 3: 50, 4: 50, 5: 100}
#: counters any growth of which is serious, and those of bits that were repeated
_SERIOUS = ("replay", "recovery", "recovery_failed")
_CRC = ("crc_flit", "crc_data", "ecc_data")
_NO_LINKS = "the card has no NVLink, or none is connected"


def link_checks(view: View, device: Record) -> list[Check]:
    """Return every check of one GPU's links."""
    return [
        inactive(view, device),
        count(view, device),
        speed(view, device),
        errors(view, device),
        bit_errors(view, device),
        fabric_state(view, device),
        fabric_health(view, device),
    ]


def _links(view: View, device: Record) -> tuple[list[Record], Reading]:
    reading = view.of(device, "nvlink.links")
    return (reading.value or [], reading)


def expected_links(view: View, device: Record) -> int | None:
    """Links the card must have up: of the catalogue where all are on the board, else of the last check; None unknown.

    Cards with bridges have no total in the catalogue: how many links are bridged is the owner's choice.
    """
    spec = view.spec(device)
    total, rate = spec.get("nvlink_total_gbps"), _LINK_GBPS.get(spec.get("nvlink_generation") or 0)
    on_board = round(total / rate) if total and rate else None
    before = view.before(device).get("nvlink_active")
    known = [number for number in (on_board, before) if isinstance(number, int) and number > 0]
    return max(known) if known else None


def _excused(view: View, device: Record) -> str | None:
    """Why links that are down are no fault."""
    if (device.get("mig") or {}).get("mode") == "enabled":
        return "MIG is on: the GPU does not use its NVLinks"
    return None


def inactive(view: View, device: Record) -> Check:
    name, who = "nvlink.inactive", subject(device)
    links, reading = _links(view, device)
    if not reading.known:
        return reading.without(name, who)
    unread = [link["link"] for link in links if link.get("active") is None]
    down = [link["link"] for link in links if link.get("active") is False]
    up = len(links) - len(down) - len(unread)
    excuse = _excused(view, device)
    if not links or (down and excuse):
        return not_applicable(name, who, excuse or _NO_LINKS)
    if not up and not unread and expected_links(view, device) is None:
        return not_applicable(name, who, _NO_LINKS)
    if down:
        reason = f"{len(down)} of {len(links)} NVLinks are down: {listed(down)}"
        return finding(name, who, RESET, reason, observed={"inactive": down}, expected={"inactive": []})
    if unread:
        return not_measured(name, who, f"the state of {len(unread)} NVLink(s) could not be read: {listed(unread)}")
    return ok(name, who, {"active": up, "inactive": []}, {"inactive": []})


def count(view: View, device: Record) -> Check:
    name, who = "nvlink.count", subject(device)
    links, reading = _links(view, device)
    wanted = expected_links(view, device)
    if wanted is None:
        return (
            reading.without(name, who)
            if not reading.known
            else not_applicable(name, who, "how many it must have is not known")
        )
    active = sum(bool(link.get("active")) for link in links)
    if not reading.known and view.before(device).get("nvlink_active") is None:
        return reading.without(name, who)
    excuse = _excused(view, device)
    if active < wanted and excuse:
        return not_applicable(name, who, excuse)
    if active < wanted:
        reason = f"{active} NVLinks are up, {wanted} must be"
        return finding(name, who, RESET, reason, observed=active, expected=wanted)
    return ok(name, who, active, wanted)


def speed(view: View, device: Record) -> Check:
    """Links of one GPU run at one speed, and at the speed they had."""
    name, who = "nvlink.speed", subject(device)
    reading = view.of(device, "health.nvlink.speed_mbps")
    if not reading.known:
        return reading.without(name, who)
    links, _reading = _links(view, device)
    up = {link["link"] for link in links if link.get("active")}
    speeds = {link: value for link, value in enumerate(reading.value) if value and link in up}
    if not speeds:
        return not_applicable(name, who, "no NVLink is up")
    before = view.before(device).get("nvlink_speed_mbps")
    wanted = max([*speeds.values(), *([before] if isinstance(before, int) else [])])
    slow = {link: value for link, value in speeds.items() if value < wanted}
    if slow:
        reason = f"{len(slow)} NVLink(s) run at less than {wanted} MB/s: {listed(slow)}"
        return finding(name, who, RESET, reason, observed=slow, expected=wanted)
    return ok(name, who, wanted, wanted)


def errors(view: View, device: Record) -> Check:
    name, who = "nvlink.errors", subject(device)
    columns = {key: view.of(device, f"health.nvlink.{key}") for key in (*_SERIOUS, *_CRC)}
    known = {key: one.value for key, one in columns.items() if one.known}
    if not known:
        return columns["replay"].without(name, who)
    earlier = view.before(device).get("nvlink_errors") or {}
    grown: dict[str, int] = {}
    serious, since = [], ""
    for key, values in known.items():
        for link, value in enumerate(values):
            growth = view.growth(value, _at(earlier.get(key), link)) if value else None
            if growth is None or not growth.amount:
                continue
            grown[f"{key} {link}"], since = growth.amount, since or growth.since
            fast = bool(growth.seconds) and growth.amount / (growth.seconds or 1) >= view.limits["nvlink_crc_per_s"]
            if key == "recovery_failed" or (key in _SERIOUS and growth.recent) or (key in _CRC and fast):
                serious.append(f"{key} {link}")
    if not grown:
        return ok(name, who, {}, {})
    reason = f"errors of NVLinks {since}: {listed(f'{number} x {key}' for key, number in grown.items())}"
    if serious:
        return finding(name, who, RESET, reason, observed=grown, expected={})
    return finding(name, who, MONITOR, reason, observed=grown, expected={}, actions=("watch", "check_link"))


def _at(values: Any, link: int) -> Any:
    return values[link] if isinstance(values, list) and link < len(values) else None


def bit_errors(view: View, device: Record) -> Check:
    name, who = "nvlink.ber", subject(device)
    reading = view.of(device, "health.nvlink.effective_ber")
    if not reading.known:
        return reading.without(name, who)
    limit = view.limits["nvlink_effective_ber"]
    # the rate is a mantissa of one digit: what is equal but for rounding is not above the limit
    over = {link: value for link, value in enumerate(reading.value) if value is not None and value > limit * (1 + 1e-9)}
    if over:
        reason = f"effective bit error rate above {limit:g}: {listed(f'link {k}: {v:.1e}' for k, v in over.items())}"
        return finding(name, who, RESET, reason, observed=over, expected=f"<= {limit:g}")
    return ok(name, who, max((value or 0.0) for value in reading.value), f"<= {limit:g}")


# ---- the fabric ----


def fabric_state(view: View, device: Record) -> Check:
    name, who = "fabric.state", subject(device)
    state, status = view.of(device, "fabric.state"), view.of(device, "fabric.status_code")
    if not state.known:
        return state.without(name, who)
    if state.value == "not_supported":
        return not_applicable(name, who, "the GPU is in no NVSwitch fabric")
    if state.value != "completed" or status.value:
        reason = f"the GPU has not joined the NVSwitch fabric: {state.value}, status {status.value}"
        return finding(name, who, RESET, reason, observed=[state.value, status.value], expected=["completed", 0])
    return ok(name, who, state.value, "completed")


def fabric_health(view: View, device: Record) -> Check:
    name, who = "fabric.health", subject(device)
    fatal = {key: view.of(device, f"health.fabric.{key}") for key in ("route_unhealthy", "access_timeout_recovery")}
    mild = {key: view.of(device, f"health.fabric.{key}") for key in ("degraded_bandwidth", "route_recovery")}
    wrong = view.of(device, "health.fabric.incorrect_configuration")
    bad = [key for key, one in fatal.items() if one.value] + (
        [f"configuration: {wrong.value}"] if wrong.value not in (None, "none") else []
    )
    watch = [key for key, one in mild.items() if one.value]
    if bad or watch:
        reason = f"the driver says of the fabric: {listed([*bad, *watch]).replace('_', ' ')}"
        return finding(name, who, RESET if bad else MONITOR, reason, observed=[*bad, *watch], expected=[])
    readings = [*fatal.values(), *mild.values(), wrong]
    if not any(one.known for one in readings):
        return readings[0].without(name, who)
    return ok(name, who, [], [])


# ---- the node ----


def fabric_manager(view: View) -> Check:
    """Whether it runs where it is needed; that its version is the driver's is a rule of coherence."""
    name, who = "fabric.manager", "node"
    part = (view.gpu.get("software") or {}).get("fabric_manager") or {}
    if part.get("needed") is None:
        why = view.why("software.fabric_manager.needed", "whether it is needed is not known")
        return not_measured(name, who, why)
    if not part["needed"]:
        return not_applicable(name, who, "the node has no NVSwitch of its own")
    if view.gpu.get("simulated"):
        return not_applicable(name, who, "simulated NVSwitches need no fabric manager")
    if part.get("running") is None:
        why = view.why("software.fabric_manager.running", "its process was not looked for")
        return not_measured(name, who, why)
    if not part["running"]:
        reason = "the node has NVSwitches and no fabric manager runs: CUDA fails with error 802"
        return finding(name, who, RESET, reason, observed="not running", expected="running")
    return ok(name, who, "running", "running")


def peer_access(view: View) -> Check:
    """Every pair of GPUs that NVLinks of this node join must have peer access."""
    name, who = "nvlink.p2p", "node"
    topology = view.gpu.get("topology") or {}
    indices, matrix, p2p = topology.get("devices"), topology.get("matrix"), topology.get("p2p")
    if len(view.devices) < 2 and (view.devices or view.gpu.get("situation") == "no_gpu"):
        return not_applicable(name, who, "the node has no two GPUs")
    if not isinstance(matrix, list) or not isinstance(p2p, list) or not indices:
        return not_measured(name, who, view.why("topology.p2p", "the driver did not tell"))
    linked = [
        device.get("index") for device in view.devices if any(link.get("active") for link in _links(view, device)[0])
    ]
    pairs = [(a, b) for a in range(len(indices)) for b in range(a) if indices[a] in linked and indices[b] in linked]
    joined = [pair for pair in pairs if _joined(view, indices, matrix, *pair)]
    if not joined:
        return not_applicable(name, who, "no two GPUs of the node are joined by NVLinks")
    cut = [(a, b) for a, b in joined if p2p[a][b] not in ("ok", None) or not _is_nvlink(matrix[a][b])]
    unknown = [(a, b) for a, b in joined if p2p[a][b] is None]
    if cut:
        names = [f"gpu{indices[b]}-gpu{indices[a]}" for a, b in cut]
        reason = f"{len(cut)} of {len(joined)} pairs joined by NVLink have no peer access over it: {listed(names)}"
        return finding(name, who, RESET, reason, observed=names, expected=[])
    if unknown:
        return not_measured(name, who, f"the driver does not tell the peer access of {len(unknown)} pair(s)")
    return ok(name, who, f"{len(joined)} pairs", f"{len(joined)} pairs")


def _is_nvlink(cell: Any) -> bool:
    return cell is None or str(cell).startswith("NV")


def _joined(view: View, indices: list[int], matrix: list[Any], a: int, b: int) -> bool:
    """Through switches every pair is joined; direct links name their other end."""
    first, second = (next((d for d in view.devices if d.get("index") == indices[n]), {}) for n in (a, b))
    address = (second.get("pci") or {}).get("address")
    ends = [link for link in _links(view, first)[0] if link.get("active")]
    through = any(link.get("remote_type") == "switch" for link in ends)
    return through or any(link.get("remote_pci_address") == address for link in ends if address)
