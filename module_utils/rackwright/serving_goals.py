# SPDX-License-Identifier: Apache-2.0
"""Measured load against goals: pass, warn, fail or not judged, each with its reason. Pure.

All goals have to be met at one operating point: the throughput of one rate and the latency of another belong to no
server.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InvalidInputError
from .serving_metrics import LATENCIES, PERCENTILES, SLO_NAMES

PASS, WARN, FAIL, NOT_JUDGED = "pass", "warn", "fail", "not_judged"
#: The chat objective of guidellm (``docs/guides/service_level_objectives.md``); the throughput wished of a 7B model.
DEFAULT_GOALS = {"p99_ttft_ms": 200.0, "p99_itl_ms": 50.0, "output_throughput": 5000.0}
DEFAULT_SLO = {"ttft": 200.0, "tpot": 50.0}
AT_LEAST = (
    "output_throughput",
    "total_token_throughput",
    "request_throughput",
    "request_goodput",
    "slo_attainment",
)
AT_MOST = tuple(
    f"{kind}_{name}_ms" for name in LATENCIES for kind in ("mean", "median", *(f"p{value}" for value in PERCENTILES))
)
#: Below the first a 99th percentile is all but the maximum; from the second on it rests on ten samples or more.
FEW_SAMPLES, ENOUGH_SAMPLES = 100, 1000
#: The client is in the way when it sends later than this, or uses this part of the one core it can use (own proposal).
LAG_MS, BUSY = 10.0, 0.9


def checked(limits: Mapping[str, Any], known: Sequence[str], what: str) -> dict[str, float]:
    """Return the limits as numbers; null or zero switches one off.

    Raises:
        InvalidInputError: a name is not known or a limit is no number.
    """
    result = {}
    for name, value in limits.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]}" if close else f"Name one of {', '.join(known)}"
            raise InvalidInputError(f"use the {what}", name, "there is no such measure", hint, expected=list(known))
        try:
            number = float(value or 0)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number < float("inf"):
            raise InvalidInputError(
                f"use the {what}", name, f"{value} is no number", "Give a number, or 0 for no limit"
            )
        if number:
            result[name] = number
    return result


def goals_of(limits: Mapping[str, Any]) -> dict[str, float]:
    """Return the goals: the default ones, replaced by ``limits``."""
    return checked({**DEFAULT_GOALS, **limits}, (*AT_LEAST, *AT_MOST), "goals")


def slo_of(limits: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits of a good request in milliseconds: the default ones, replaced by ``limits``."""
    return checked({**DEFAULT_SLO, **limits}, SLO_NAMES, "limits of a good request")


def judge_goal(name: str, limit: float, point: Mapping[str, Any], offered: Mapping[str, float]) -> dict[str, Any]:
    """Hold one measure against its goal.

    Args:
        offered: per throughput the most that this load could show, for loads of a finite rate.
    """
    observed = point.get(name)
    least = name in AT_LEAST
    goal = {"metric": name, "limit": limit, "bound": "at_least" if least else "at_most", "observed": observed}
    if observed is None:
        return {**goal, "status": NOT_JUDGED, "reason": "nothing was measured"}
    if least:
        return {**goal, **_judge_throughput(name, limit, observed, offered.get(name))}
    samples = point["samples"][name.split("_")[1]]
    return {**goal, "samples": samples, **_judge_latency(name, limit, observed, samples)}


def judge_point(point: Mapping[str, Any], goals: Mapping[str, float], offered: Mapping[str, float]) -> dict[str, Any]:
    """Return ``goals`` (each with status and reason), ``verdict`` and ``reasons`` of one operating point.

    A load in which requests failed never passes, whatever the answered ones say. Where the client was in the way, a
    goal that was missed says nothing about the server.
    """
    judged = [judge_goal(name, limit, point, offered) for name, limit in goals.items()]
    reasons = []
    failed, total = point["failed"], point["failed"] + point["completed"]
    if failed:
        often = max(point["errors"], key=lambda entry: entry["count"])
        example = f" ({often['examples'][0]})" if often["examples"] else ""
        reasons.append(f"{failed} of {total} requests failed, most by {often['class']}{example}. {often['next_step']}")
    statuses = [goal["status"] for goal in judged]
    reasons += [f"{goal['metric']}: {goal['reason']}" for goal in judged if goal["status"] != PASS]
    reasons += point["client"]["warnings"]
    slow_client = bool(point["client"]["warnings"])
    if failed or not total or (FAIL in statuses and not slow_client):
        verdict = FAIL
    elif FAIL in statuses or NOT_JUDGED in statuses or not judged:
        verdict = NOT_JUDGED
    else:
        verdict = WARN if WARN in statuses or slow_client else PASS
    if not total:
        reasons.append("no request was sent")
    if not judged:
        reasons.append("no goal was set")
    return {"goals": judged, "verdict": verdict, "reasons": reasons}


def judge_run(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return verdict, reasons and the best operating point of a sweep.

    The run passes when one point passes and no request failed at any other: failures elsewhere make it a warning.
    """
    met = [point for point in points if point["verdict"] in (PASS, WARN)]
    failures = sum(point["failed"] for point in points)
    if not points:
        return {"verdict": NOT_JUDGED, "reasons": ["nothing was measured"], "best": None}
    if not met:
        verdict = FAIL if any(point["verdict"] == FAIL for point in points) else NOT_JUDGED
        head = "no rate met all goals at once" if verdict == FAIL else "no rate could be judged on all goals"
        return {"verdict": verdict, "reasons": [head, *_by_rate(points)], "best": None}
    best = max(met, key=lambda point: (point["verdict"] == PASS, point["output_throughput"] or 0.0))
    reasons = [] if best["verdict"] == PASS else _by_rate([best])
    if failures:
        reasons.append(f"{failures} requests failed at other rates, so this run is no pass")
    verdict = PASS if best["verdict"] == PASS and not failures else WARN
    return {"verdict": verdict, "reasons": reasons, "best": best["request_rate"]}


def client_warnings(client: Mapping[str, Any], open_loop: bool) -> list[str]:
    """Return why the client may have been the bottleneck; nothing when it kept up.

    Args:
        client: ``schedule_lag_ms`` and ``loop_lag_ms`` as spreads, ``cpu_fraction``.
        open_loop: the schedule has times of its own; with everything at once the last one is always late.
    """
    found = []
    late = client["schedule_lag_ms"]["p99"]
    if open_loop and late is not None and late > LAG_MS:
        found.append(f"the client sent up to {late:.0f} ms (p99) later than planned")
    slow = client["loop_lag_ms"]["p99"]
    if slow is not None and slow > LAG_MS:
        found.append(f"the client noted arrivals up to {slow:.0f} ms (p99) late")
    if client["cpu_fraction"] > BUSY:
        found.append(f"the client used {client['cpu_fraction']:.0%} of a CPU core")
    if found:
        found[-1] += "; use a host with a faster or idle CPU, several hosts at a lower rate each, or a lower rate"
    return found


def _judge_throughput(name: str, limit: float, observed: float, offered: float | None) -> dict[str, Any]:
    if observed >= limit:
        return {"status": PASS, "reason": f"{observed:.4g} of {limit:.4g}"}
    if offered is not None and offered < limit:
        why = f"the load could show {offered:.4g} at most, the goal is {limit:.4g}: offer a higher rate"
        return {"status": NOT_JUDGED, "reason": why}
    return {"status": FAIL, "reason": f"{observed:.4g}, the goal is at least {limit:.4g}"}


def _judge_latency(name: str, limit: float, observed: float, samples: int) -> dict[str, Any]:
    if observed > limit:
        return {"status": FAIL, "reason": f"{observed:.4g} ms, the goal is at most {limit:.4g} ms"}
    reason = f"{observed:.4g} of {limit:.4g} ms"
    if not name.startswith("p99_") or samples >= ENOUGH_SAMPLES:
        return {"status": PASS, "reason": reason}
    if samples >= FEW_SAMPLES:
        return {"status": PASS, "reason": f"{reason}; of {samples} samples, {ENOUGH_SAMPLES} make a steady p99"}
    return {
        "status": WARN,
        "reason": f"{reason}, but of {samples} samples the p99 is all but their maximum: send {ENOUGH_SAMPLES} or more",
    }


def _by_rate(points: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"rate {point['request_rate']}: {reason}" for point in points for reason in point["reasons"]]
