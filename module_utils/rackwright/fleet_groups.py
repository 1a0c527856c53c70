# SPDX-License-Identifier: Apache-2.0
"""Which groups a node belongs to by what is known of it. Pure: facts in, names of groups out."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .ages import age_seconds, is_stale

VERDICTS = ("pass", "warn", "fail", "unattainable")
#: severity of the fact ``gpu_health`` to what the group calls it, least to worst
SEVERITIES = {"none": "ok", "monitor": "monitor", "reset": "reset", "reboot": "reboot", "isolate": "isolate"}
#: kind of cached fact to its name and the key that says when it was true
KINDS = {"facts": ("gpu", "collected_at"), "health": ("gpu_health", "collected_at"), "verdict": ("gpu_verdict", "at")}


def groups_of(facts: Mapping[str, Any], max_hours: float, now: datetime.datetime) -> list[str]:
    """Return the groups of one node, each once, in a stable order.

    Args:
        facts: cached facts by name: ``gpu``, ``gpu_health``, ``gpu_verdict``; each may be missing or None.
        max_hours: age in hours after which a fact puts its node into ``facts_stale``, ``health_stale`` or
            ``verdict_stale``.
        now: with a time zone.
    """
    found = [*_gpu(facts.get("gpu")), *_words(facts)]
    for kind, (name, key) in KINDS.items():
        fact = facts.get(name)
        if isinstance(fact, Mapping) and is_stale(age_seconds(fact.get(key), now), max_hours):
            found.append(f"{kind}_stale")
    return list(dict.fromkeys(found))


def _gpu(gpu: Any) -> Iterator[str]:
    if not isinstance(gpu, Mapping):
        yield "facts_missing"
        return
    if gpu.get("simulated"):
        yield "gpu_simulated"
    for key in ("situation", "count"):
        if gpu.get(key) is not None:
            yield _name(f"gpu_{key}", gpu[key])
    devices = [device for device in gpu.get("devices") or [] if isinstance(device, Mapping)]
    for prefix, key in (("gpu_arch", "architecture"), ("gpu_model", "catalogue_id")):
        yield from (_name(prefix, device[key]) for device in devices if device.get(key))


def _words(facts: Mapping[str, Any]) -> Iterator[str]:
    """Groups of health and verdict; a word that is none of theirs makes no group."""
    health, verdict = facts.get("gpu_health"), facts.get("gpu_verdict")
    if isinstance(health, Mapping) and str(health.get("severity")) in SEVERITIES:
        yield f"health_{SEVERITIES[str(health['severity'])]}"
    if isinstance(verdict, Mapping) and verdict.get("verdict") in VERDICTS:
        yield f"verdict_{verdict['verdict']}"


def _name(prefix: str, value: Any) -> str:
    """A valid name of a group, whatever a node says of itself."""
    return f"{prefix}_{re.sub('[^A-Za-z0-9_]', '_', str(value))}"
