# SPDX-License-Identifier: Apache-2.0
"""Whose stack it is: the node that a locked stack describes, held against a node as it is now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .catalogue import architecture_of
from .compat_rules import TablesLike, find, listed
from .compat_stack import gpus_part
from .stack_node import WSL, Gpu, StackNode, gpu_of_row


def node_of(stack: dict[str, Any], tables: TablesLike) -> StackNode:
    """The node that a stack says it is for."""
    platform = stack["platform"]
    return StackNode(
        name="",
        os=platform["os"],
        os_name=platform["os"],
        arch=platform["arch"],
        python=platform["python"],
        glibc=platform["glibc"],
        wsl=platform["os"] == WSL or (bool(stack["gpus"]) and stack["driver"] is None),
        simulated=stack["simulated"],
        gpus=tuple(_gpu_of(gpu, tables) for gpu in stack["gpus"]),
    )


def unknown_models(stack: dict[str, Any], tables: TablesLike) -> Iterator[str]:
    """A model's name and compute capability are in the table."""
    for gpu in stack["gpus"]:
        row = find(tables.gpus["gpus"], "id", gpu["id"]) if gpu["id"] else None
        if gpu["id"] and row is None:
            yield f"GPU model {gpu['id']} is not in the table"
        elif row is not None and gpu["name"] not in row["nvml_names"]:
            yield f"the table does not call {gpu['id']} {gpu['name']}"
        elif row is not None and gpu["compute_capability"] != row["compute_capability"]:
            yield f"{gpu['id']} has compute capability {row['compute_capability']}, not {gpu['compute_capability']}"


def _gpu_of(gpu: Mapping[str, Any], tables: TablesLike) -> Gpu:
    row = find(tables.gpus["gpus"], "id", gpu["id"]) if gpu["id"] else None
    if row is not None:
        known = gpu_of_row(row, gpu["count"], gpu["name"])
        return replace(known, compute_capability=gpu["compute_capability"])
    capability = gpu["compute_capability"]
    return Gpu(gpu["id"], gpu["name"], capability, architecture_of(capability), gpu["count"])


def other_node(node: StackNode, described: StackNode, stack: dict[str, Any]) -> Iterator[str]:
    """What the node is that the stack was not made for."""
    if node.os != described.os or node.arch != described.arch:
        yield f"it is for {described.os} on {described.arch} and the node is {node.os} on {node.arch}"
    if node.simulated != described.simulated:
        yield "the stack and the node disagree on whether its GPUs are simulated"
    if not same_gpus(stack["gpus"], gpus_part(node)):
        fewer = sum(gpu["count"] for gpu in stack["gpus"]) > sum(gpu.count for gpu in node.gpus)
        look = " (where a GPU is missing, look for it before planning without it)" if fewer else ""
        yield f"it is for {_gpus(stack['gpus'])} and the node has {_gpus(gpus_part(node)) or 'none'}{look}"
    if node.origin == "facts":
        for what, have, said in (("Python", node.python, described.python), ("glibc", node.glibc, described.glibc)):
            if have != said:
                yield f"it is for {what} {said} and the node has {have}"


def same_gpus(planned: list[dict[str, Any]], found: list[dict[str, Any]]) -> bool:
    """Whether the GPUs a stack was made for are those of the node.

    Before any driver exists a PCI id may leave two models open (``a2 or a16``); once the driver tells which of them it
    is, the stack is as right as before, since it only rests on what both share.
    """
    left = list(found)
    for gpu in planned:
        match = next((other for other in left if _same_gpu(gpu, other)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _same_gpu(planned: dict[str, Any], found: dict[str, Any]) -> bool:
    if any(planned[key] != found[key] for key in ("compute_capability", "count")):
        return False
    if planned["id"] and found["id"]:
        return bool(planned["id"] == found["id"])
    one, other = (planned, found) if found["id"] else (found, planned)
    return other["id"] in one["name"].split(" or ") if other["id"] else bool(one["name"] == other["name"])


def _gpus(gpus: list[dict[str, Any]]) -> str:
    return listed(f"{gpu['count']} x {gpu['name']}" for gpu in gpus) if gpus else "no GPU"
