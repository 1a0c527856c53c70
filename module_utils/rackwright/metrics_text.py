# SPDX-License-Identifier: Apache-2.0
"""Nodes as metrics in Prometheus' text format, for node-exporter's textfile collector. Pure.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). When something was true is
given as a time stamp, not as an age: a file that is not written again would show an age that stands still.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .ages import parse_time
from .fleet_groups import SEVERITIES, VERDICTS

#: every metric with its help, in the order of the file
FAMILIES = {
    "rackwright_node_info": "What a node runs, as it said when it was last asked. Always 1.",
    "rackwright_node_gpus": "GPUs that answered when the node was last asked.",
    "rackwright_node_gpus_on_bus": "GPUs on the PCI bus when the node was last asked.",
    "rackwright_facts_timestamp_seconds": "When the GPU facts were collected, in seconds since 1970.",
    "rackwright_node_verdict": "1 for the verdict of the node's last proof, 0 for the other words.",
    "rackwright_verdict_timestamp_seconds": "When the verdict was given, in seconds since 1970.",
    "rackwright_health_severity": "Worst health finding: 0 none, 1 monitor, 2 reset, 3 reboot, 4 isolate.",
    "rackwright_health_checks": "Health checks by what came of them.",
    "rackwright_health_timestamp_seconds": "When the health was checked, in seconds since 1970.",
    "rackwright_gpu_info": "A GPU, as the node said when it was last asked. Always 1.",
    "rackwright_gpu_memory_bytes": "Memory of the GPU.",
    "rackwright_gpu_benchmark_value": "Result of the last benchmark of a GPU, in the unit of the label unit.",
    "rackwright_node_benchmark_value": "Result of the last benchmark of a whole node, in the unit of the label unit.",
    "rackwright_benchmark_timestamp_seconds": "When the benchmark ran, in seconds since 1970.",
}
_LADDER = {severity: step for step, severity in enumerate(SEVERITIES)}
_Sample = tuple[str, dict[str, Any], Any]


def to_text(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the metrics of these nodes (name to :func:`fleet_facts.node_facts`); empty without a node."""
    found: dict[str, dict[str, str]] = {name: {} for name in FAMILIES}
    for node, record in nodes.items():
        common = {"node": node, "simulated": "true" if record["simulated"] else "false"}
        for name, labels, value in _samples(record):
            number = _number(value)
            if number is not None:
                found[name][_labels({**common, **labels})] = number
    lines = []
    for name, samples in found.items():
        if samples:
            lines += [f"# HELP {name} {_escaped(FAMILIES[name], quote=False)}", f"# TYPE {name} gauge"]
            lines += [f"{name}{{{labels}}} {number}" for labels, number in samples.items()]
    return "".join(f"{line}\n" for line in lines)


def _samples(record: Mapping[str, Any]) -> Iterator[_Sample]:
    if record["gpu"]:
        yield from _gpu(record["gpu"])
    if record["verdict"] and record["verdict"]["verdict"] in VERDICTS:
        said = record["verdict"]["verdict"]
        yield from (("rackwright_node_verdict", {"verdict": word}, int(word == said)) for word in VERDICTS)
        yield "rackwright_verdict_timestamp_seconds", {}, _seconds(record["verdict"]["at"])
    if record["health"]:
        yield "rackwright_health_severity", {}, _LADDER.get(str(record["health"]["severity"]))
        counts = record["health"]["summary"]
        if isinstance(counts, Mapping):
            yield from (("rackwright_health_checks", {"state": state}, count) for state, count in counts.items())
        yield "rackwright_health_timestamp_seconds", {}, _seconds(record["health"]["collected_at"])
    if record["benchmark"] and not record["simulated"]:
        yield from _benchmark(record)


def _gpu(gpu: Mapping[str, Any]) -> Iterator[_Sample]:
    driver, system = gpu["driver"], gpu["os"]
    labels = {
        "situation": gpu["situation"],
        "driver": driver["library"] or driver["kernel_module"],
        "cuda": driver["cuda"],
        "os": system["name"],
        "kernel": system["kernel"],
    }
    yield "rackwright_node_info", labels, 1
    yield "rackwright_node_gpus", {}, gpu["count"]
    yield "rackwright_node_gpus_on_bus", {}, gpu["pci_count"]
    yield "rackwright_facts_timestamp_seconds", {}, _seconds(gpu["collected_at"])
    for device in gpu["devices"]:
        named = {"gpu": device["index"], "uuid": device["uuid"]}
        details = {
            "name": device["name"],
            "model": device["catalogue_id"],
            "architecture": device["architecture"],
            "pci_address": device["pci_address"],
            "state": device["state"],
        }
        yield "rackwright_gpu_info", {**named, **details}, 1
        yield "rackwright_gpu_memory_bytes", named, device["memory_bytes"]


def _benchmark(record: Mapping[str, Any]) -> Iterator[_Sample]:
    """Numbers of GPUs and of whole nodes; what a CPU did says nothing about a GPU and is left out."""
    known = (record["gpu"] or {}).get("devices") or []
    indices = {device["uuid"]: device["index"] for device in known if device["uuid"]}
    for result in record["benchmark"]["results"]:
        labels = {key: result[key] for key in ("suite", "name", "dtype", "level", "unit")}
        kind, _, number = str(result["device"]).partition(":")
        if kind == "cuda":
            named = {"gpu": indices.get(result["uuid"], number), "uuid": result["uuid"]}
            yield "rackwright_gpu_benchmark_value", {**named, **labels}, result["value"]
        elif kind == "node":
            yield "rackwright_node_benchmark_value", labels, result["value"]
    if any(str(result["device"]) != "cpu" for result in record["benchmark"]["results"]):
        yield "rackwright_benchmark_timestamp_seconds", {}, _seconds(record["benchmark"]["at"])


def _seconds(text: Any) -> float | None:
    moment = parse_time(text)
    return None if moment is None else moment.timestamp()


def _number(value: Any) -> str | None:
    """A sample's value, None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _labels(labels: Mapping[str, Any]) -> str:
    """Labels in the text format; what is not known is left out, which Prometheus reads as empty."""
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items() if value not in (None, ""))


def _escaped(text: str, quote: bool = True) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
