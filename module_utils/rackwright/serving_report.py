# SPDX-License-Identifier: Apache-2.0
"""A serving benchmark as a table in the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .serving_goals import FAIL
from .text_table import bullets, table

COLUMNS = (
    "rate",
    "sent",
    "failed",
    "req/s",
    "out tok/s",
    "ttft p50",
    "p99",
    "itl p50",
    "p99 ",
    "e2el p99",
    "good/s",
    "verdict",
)


def row(point: Mapping[str, Any]) -> dict[str, str]:
    """Return the table row of one operating point; latencies are milliseconds."""
    values = (
        str(point["request_rate"]),
        str(point["completed"] + point["failed"]),
        str(point["failed"]),
        number(point["request_throughput"]),
        number(point["output_throughput"]),
        number(point["median_ttft_ms"]),
        number(point["p99_ttft_ms"]),
        number(point["median_itl_ms"]),
        number(point["p99_itl_ms"]),
        number(point["p99_e2el_ms"]),
        number(point["request_goodput"]),
        str(point["verdict"]).replace("_", " "),
    )
    return dict(zip(COLUMNS, values))


def number(value: float | None) -> str:
    """Return a number with three digits or more, ``-`` for none."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table_text(document: Mapping[str, Any], report: str | None = None) -> str:
    """Return what a person reads: what was asked of whom, one line per rate, the verdict with its reasons."""
    lines = [
        f"Serving benchmark of {document['model'] or 'the first model'} at {document['url']}, client {document['host']}"
    ]
    lines.append(f"  {_workload(document)}")
    if document["planned"]:
        lines += ["", "  check mode: no request was sent", *_planned(document["planned"])]
        return "\n".join(lines)
    lines += ["", *table(COLUMNS, [row(point) for point in document["points"]]), "latencies in ms", ""]
    verdict = document["verdict"].replace("_", " ")
    best = document["best"]
    where = ", best rate" if document["verdict"] == FAIL else " at rate"
    lines.append(f"verdict: {verdict}{f'{where} {best}' if best else ''}")
    lines += bullets(document["reasons"])
    # what holds for every rate is said once
    said = dict.fromkeys(note for point in document["points"] for note in point["notes"])
    lines += bullets([f"note: {note}" for note in said])
    if report:
        lines.append(f"report: {report}")
    return "\n".join(lines)


def _workload(document: Mapping[str, Any]) -> str:
    prompts, load = document["prompts"], document["load"]
    what = f"file {prompts['file']}" if prompts["file"] else f"{prompts['wished_tokens']} random tokens"
    amount = f"{load['duration']:g} s" if load["duration"] else f"{load['requests']} requests"
    limit = f", at most {load['max_concurrency']} at once" if load["max_concurrency"] else ""
    return (
        f"{document['endpoint']}, prompts: {what}, answers: {document['max_tokens']} tokens; {amount} per rate{limit}"
    )


def _planned(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"  would send {entry['requests'] or 'as many as are answered'} requests at rate {entry['request_rate']}"
        f" within {entry['seconds']:.0f} s, then wait for the answers"
        for entry in planned
    ]
