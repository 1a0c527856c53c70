# SPDX-License-Identifier: Apache-2.0
"""Rules of GPU memory: ECC, row remapping, retired pages, repairs. Pure: one device in, checks out.

NVML answers with zeros also on cards that remap no rows, so whether a card does comes from the catalogue.
"""

from __future__ import annotations

from typing import Any

from .health_record import ISOLATE, MONITOR, RESET, Check, finding, not_applicable, not_measured, ok
from .health_view import Reading, Record, View, subject

_SRAM = "health.ecc.aggregate.uncorrected.sram"
_FLAG = "health.ecc.sram_threshold_exceeded"


def memory_checks(view: View, device: Record) -> list[Check]:
    """Return every check of one GPU's memory."""
    return [
        ecc_mode(view, device),
        uncorrected_volatile(view, device),
        sram_aggregate(view, device),
        corrected(view, device),
        *remapping(view, device),
        pages_retired(view, device),
        flag(view, device, "pages.pending", ("retired_pages.pending",)),
        flag(view, device, "repair.pending", ("health.repair.channel_pending", "health.repair.tpc_pending")),
    ]


def ecc_mode(view: View, device: Record) -> Check:
    name, who = "ecc.mode", subject(device)
    current, pending = view.of(device, "ecc.current"), view.of(device, "ecc.pending")
    if not current.known:
        return current.without(name, who)
    wanted = {True: "enabled", False: "disabled"}.get(view.wants(device, "ecc"))
    if pending.known and pending.value != current.value:
        reason = f"ECC is {current.value} and will be {pending.value} after the next reset"
        return finding(
            name, who, MONITOR, reason, observed=current.value, expected=pending.value, actions=("reset_gpu",)
        )
    if wanted is not None and current.value != wanted:
        reason = f"ECC is {current.value}, declared is {wanted}"
        return finding(name, who, MONITOR, reason, observed=current.value, expected=wanted)
    if wanted is None and current.value == "disabled" and view.spec(device).get("ecc"):
        reason = "ECC is off on a card whose memory has it, and nothing declares that"
        return finding(name, who, MONITOR, reason, observed="disabled", expected="enabled")
    return ok(name, who, current.value, wanted)


def uncorrected_volatile(view: View, device: Record) -> Check:
    name, who = "ecc.uncorrected_volatile", subject(device)
    total = view.of(device, "ecc.counters.uncorrected.volatile")
    if not total.known:
        return total.without(name, who)
    limit = view.limits["ecc_uncorrected_volatile"]
    parts = {place: view.of(device, f"health.ecc.volatile.uncorrected.{place}") for place in ("sram", "dram")}
    where = ", ".join(f"{one.value} in {place.upper()}" for place, one in parts.items() if one.known and one.value)
    if total.value > limit:
        reason = f"{total.value} uncorrected memory errors since the driver was loaded" + (
            f" ({where})" if where else ""
        )
        return finding(name, who, RESET, reason, observed=total.value, expected=f"<= {limit:g}")
    return ok(name, who, total.value, f"<= {limit:g}")


def sram_aggregate(view: View, device: Record) -> Check:
    """Errors over the card's life stay for ever, so few of them are watched only; NVIDIA's flag decides where it is."""
    name, who = "ecc.sram_aggregate", subject(device)
    count, exceeded = view.of(device, _SRAM), view.of(device, _FLAG)
    if exceeded.value is True:
        reason = "the driver says that uncorrected SRAM errors exceed NVIDIA's threshold for an exchange"
        return finding(name, who, ISOLATE, reason, observed=count.value, expected="threshold not exceeded")
    if not count.known:
        return count.without(name, who)
    most, watched = view.limits["ecc_sram_aggregate_isolate"], view.limits["ecc_sram_aggregate_monitor"]
    reason = f"{count.value} uncorrected SRAM errors over the life of the GPU"
    if count.value > most:
        return finding(name, who, ISOLATE, reason, observed=count.value, expected=f"<= {most:g}")
    if count.value > watched:
        return finding(name, who, MONITOR, reason, observed=count.value, expected=f"<= {watched:g}", actions=("watch",))
    return ok(name, who, count.value, f"<= {watched:g}")


def corrected(view: View, device: Record) -> Check:
    name, who = "ecc.corrected", subject(device)
    counts = {place: view.of(device, f"health.ecc.aggregate.corrected.{place}") for place in ("sram", "dram")}
    known = {place: one.value for place, one in counts.items() if one.known}
    if not known:
        return counts["dram"].without(name, who)
    limits = {place: view.limits[f"ecc_corrected_{place}"] for place in known}
    expected = {place: f"<= {limit:g}" for place, limit in limits.items()}
    over = [place for place, value in known.items() if value > limits[place]]
    if over:
        reason = "corrected memory errors over the life of the GPU: " + ", ".join(
            f"{known[p]} in {p.upper()}" for p in over
        )
        return finding(name, who, MONITOR, reason, observed=known, expected=expected)
    return ok(name, who, known, expected)


# ---- row remapping ----


def remapping(view: View, device: Record) -> list[Check]:
    return [
        _remap(view, device, "remap.pending", "row_remap.pending", _pending),
        _remap(view, device, "remap.failure", "row_remap.failure", _failure),
        _remap(view, device, "remap.uncorrectable", "row_remap.uncorrectable", _many),
        _remap(view, device, "remap.banks", "row_remap.banks.none", _banks),
    ]


def _remap(view: View, device: Record, name: str, path: str, judge: Any) -> Check:
    who, reading = subject(device), view.of(device, path)
    if not reading.known:
        return reading.without(name, who)
    found: Check = judge(view, device, name, who, reading)
    if found["state"] == "finding" or view.spec(device).get("row_remap"):
        return found
    if device.get("catalogue_id") is None:
        why = (device.get("missing") or {}).get("catalogue_id") or "the model is not in the catalogue"
        return not_measured(
            name, who, f"whether this card remaps rows is not known ({why}); NVML answers zeros either way"
        )
    return not_applicable(name, who, "the catalogue knows no row remapping of this card, and NVML answers zeros")


def _pending(view: View, device: Record, name: str, who: str, reading: Reading) -> Check:
    if reading.value:
        return finding(
            name, who, RESET, "row remapping takes effect with the next reset", observed=True, expected=False
        )
    return ok(name, who, False, False)


def _failure(view: View, device: Record, name: str, who: str, reading: Reading) -> Check:
    if reading.value:
        return finding(
            name,
            who,
            ISOLATE,
            "a row could not be remapped: the GPU has to be exchanged",
            observed=True,
            expected=False,
        )
    return ok(name, who, False, False)


def _many(view: View, device: Record, name: str, who: str, reading: Reading) -> Check:
    limit = view.limits["remap_uncorrectable"]
    if reading.value > limit:
        reason = f"{reading.value} rows were remapped for uncorrectable errors"
        return finding(name, who, ISOLATE, reason, observed=reading.value, expected=f"<= {limit:g}")
    return ok(name, who, reading.value, f"<= {limit:g}")


def _banks(view: View, device: Record, name: str, who: str, reading: Reading) -> Check:
    """The histogram counts banks by how many spare rows they have left."""
    empty, few = reading.value, view.of(device, "row_remap.banks.low").value or 0
    observed = {"none": empty, "low": few}
    if empty:
        reason = f"{empty} memory bank(s) have no spare row left: the next error there cannot be remapped"
        return finding(name, who, ISOLATE, reason, observed=observed, expected={"none": 0, "low": 0})
    if few:
        reason = f"{few} memory bank(s) have few spare rows left"
        return finding(
            name, who, MONITOR, reason, observed=observed, expected={"none": 0, "low": 0}, actions=("watch",)
        )
    return ok(name, who, observed, {"none": 0, "low": 0})


# ---- retired pages, and what waits for a reset ----


def pages_retired(view: View, device: Record) -> Check:
    name, who = "pages.retired", subject(device)
    single, double = view.of(device, "retired_pages.single_bit"), view.of(device, "retired_pages.double_bit")
    if not (single.known and double.known):
        return (double if single.known else single).without(name, who)
    total, limit = single.value + double.value, view.limits["retired_pages"]
    if total > limit:
        reason = f"{total} pages are retired ({double.value} for double-bit errors)"
        return finding(name, who, ISOLATE, reason, observed=total, expected=f"<= {limit:g}")
    return ok(name, who, total, f"<= {limit:g}")


def flag(view: View, device: Record, name: str, paths: tuple[str, ...]) -> Check:
    """A thing that waits for a reset: a finding where any of the flags is up, ok only where all could be read."""
    who = subject(device)
    readings = {path.rpartition(".")[2]: view.of(device, path) for path in paths}
    up = [key for key, one in readings.items() if one.value]
    if up:
        reason = f"{' and '.join(up).replace('_', ' ')}: it takes effect with the next reset"
        return finding(name, who, RESET, reason, observed=up, expected=[])
    unread = next((one for one in readings.values() if not one.known), None)
    return unread.without(name, who) if unread else ok(name, who, [], [])
