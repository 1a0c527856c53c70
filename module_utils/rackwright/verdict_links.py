# SPDX-License-Identifier: Apache-2.0
"""Checks on the links of GPUs under load: to the host over PCIe, to each other over NVLink. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import verdict_gates as gates
from .verdict_record import FAIL, NOT_MEASURED, PASS, Check, Evidence, check, dig
from .verdict_results import absent, asked, gpu_subjects, is_sliced, judged, of, shown

_NVLINK = re.compile(r"NV(\d+)")


def link_checks(evidence: Evidence) -> list[Check]:
    """Judge host links and peer-to-peer copies of real GPUs, where the benchmark was asked for them."""
    if evidence.measured is None or not evidence.has_real_gpus:
        return []
    checks: list[Check] = []
    names = {key: subject for key, subject in gpu_subjects(evidence) if key is not None}
    for (key, subject), device in zip(gpu_subjects(evidence), evidence.answering):
        if key is None or is_sliced(device):
            continue
        if asked(evidence, "pcie"):
            checks += _pcie(evidence, key, subject)
        if asked(evidence, "p2p"):
            checks += _p2p(evidence, key, subject, device, names)
    return checks


def _pcie(evidence: Evidence, key: str, subject: str) -> list[Check]:
    found = of(evidence, "pcie", key)
    if not found:
        return [absent(evidence, "pcie", key, subject)]
    return [_state(found, subject), *(_payload(evidence, entry, subject) for entry in found)]


def _state(found: list[Mapping[str, Any]], subject: str) -> Check:
    """The link while it is loaded: one that stays below what card and slot can do is a fault."""
    links = [entry["details"]["link"] for entry in found if isinstance(dig(entry, "details.link"), Mapping)]
    keys = ("generation", "width", "max_generation", "max_width")
    known = [link for link in links if all(isinstance(link.get(key), int) for key in keys)]
    if not known:
        reason = next((str(dig(entry, "missing.link") or "") for entry in found), "")
        reason = reason or "generation and width of the link were not read while it was loaded"
        return check("benchmark.pcie_link", NOT_MEASURED, subject, reason=reason)
    # the best of several readings: a link may still be training up when the first copy begins
    best = max(known, key=lambda link: (link["generation"], link["width"]))
    now, most = (best["generation"], best["width"]), (best["max_generation"], best["max_width"])
    common = {"observed": f"gen{now[0]} x{now[1]}", "expected": f"gen{most[0]} x{most[1]}"}
    if now[0] >= most[0] and now[1] >= most[1]:
        return check("benchmark.pcie_link", PASS, subject, **common)
    reason = f"the loaded link is gen{now[0]} x{now[1]}, card and slot can do gen{most[0]} x{most[1]}"
    step = "Read the kernel log for PCIe errors; reseat the card, its riser or cable; look at the slot in the BIOS."
    return check("benchmark.pcie_link", FAIL, subject, **common, reason=reason, next_step=step)


def _payload(evidence: Evidence, result: Mapping[str, Any], subject: str) -> Check:
    link = dig(result, "details.link")
    ceiling = gates.link_ceiling(dig(link, "generation"), dig(link, "width"))
    if ceiling is None:
        reason = "measured, not judged: the negotiated link is not known"
        return check("benchmark.pcie", PASS, subject, observed=shown([result]), reason=reason)
    source = f"the gen{dig(link, 'generation')} x{dig(link, 'width')} link's"
    return judged("benchmark.pcie", subject, result, (round(ceiling, 3), source), "pcie", evidence)


def _p2p(
    evidence: Evidence, key: str, subject: str, device: Mapping[str, Any], names: Mapping[str, str]
) -> list[Check]:
    found = of(evidence, "p2p", key)
    if not found:
        return [absent(evidence, "p2p", key, subject)] if len(names) > 1 else []
    checks, unjudged = [], []
    for result in found:
        peer = names.get(str(dig(result, "details.peer")))
        ceiling = _nvlink_ceiling(evidence, device, subject, peer)
        if ceiling is None or dig(result, "details.direction") not in (None, "uni"):
            unjudged.append(result)
            continue
        most = (round(ceiling, 3), "the NVLinks'")
        checks.append(judged("benchmark.p2p", f"{subject}-{peer}", result, most, "p2p.nvlink", evidence))
    if unjudged and not checks:
        reason = "measured, not judged: no NVLink joins these GPUs, and there is no agreed figure for copies over PCIe"
        checks.append(check("benchmark.p2p", PASS, subject, observed=shown(unjudged), reason=reason))
    return checks


def _nvlink_ceiling(evidence: Evidence, device: Mapping[str, Any], subject: str, peer: str | None) -> float | None:
    """GB/s that the NVLinks from a GPU to another carry in one direction, by the facts' matrix and the catalogue."""
    indices, matrix = dig(evidence.gpu, "topology.devices"), dig(evidence.gpu, "topology.matrix")
    row = evidence.catalogue.get(str(device.get("catalogue_id"))) or {}
    links = dig(device, "nvlink.links")
    if not isinstance(indices, list) or not isinstance(matrix, list) or not isinstance(links, list) or peer is None:
        return None
    place = {f"gpu{index}": position for position, index in enumerate(indices)}
    if subject not in place or peer not in place:
        return None
    joined = _NVLINK.fullmatch(str(matrix[place[subject]][place[peer]]))
    return gates.nvlink_ceiling(row.get("nvlink_total_gbps"), int(joined[1]), len(links)) if joined else None
