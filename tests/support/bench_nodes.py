# SPDX-License-Identifier: Apache-2.0
"""Descriptions of many different nodes, drawn with a fixed seed: every card and system of the tables, many wishes."""

from __future__ import annotations

import random
from typing import Any

from support.simulated_node import ROOT

from ansible.module_utils.rackwright.tables import Tables, load_tables

SEED = 20261124
LIVING = ["debian12", "debian13", "ubuntu2204", "ubuntu2404", "ubuntu2604", "rhel9", "rocky9", "rhel10"]
TABLES = load_tables(ROOT / "roles/gpu_stack/files/tables")


def mixed(count: int, tables: Tables = TABLES, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """Return host name to its variables (``node_description`` and ``stack_*``), about as a site mixes them.

    A prefix is a prefix: the first 100 of 1,000 are the same as 100.
    """
    draw = random.Random(seed)
    return {f"node{number:04d}": _variables(draw, tables) for number in range(count)}


def distinct(count: int, tables: Tables = TABLES, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """Return the same with a kernel of its own for each node, so that no answer can be used twice: the worst case."""
    nodes = mixed(count, tables, seed)
    for number, variables in enumerate(nodes.values()):
        variables["node_description"]["kernel"] = f"6.8.0-{number}-generic"
    return nodes


def alike(count: int, tables: Tables = TABLES, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """Return the first twelve nodes over and over: a fleet that was bought in twelve batches."""
    kinds = list(mixed(12, tables, seed).values())
    return {f"node{number:04d}": kinds[number % len(kinds)] for number in range(count)}


def _variables(draw: random.Random, tables: Tables) -> dict[str, Any]:
    cards = [row["id"] for row in tables.gpus["gpus"]]
    # living systems more often than those that the tables only know in order to refuse them
    systems = [row["id"] for row in tables.platforms["distros"]] + 4 * LIVING
    description: dict[str, Any] = {
        "os": draw.choice(systems),
        "arch": draw.choice(["x86_64"] * 9 + ["aarch64"]),
        "gpus": [{"model": draw.choice(cards), "count": draw.choice([1, 2, 4, 8])}],
        "secure_boot": draw.choice([False, False, True]),
    }
    if draw.random() < 0.1:
        description["gpus"].append({"model": draw.choice(cards), "count": draw.choice([1, 2])})
    if draw.random() < 0.5:
        description["python"] = draw.choice(["3.9", "3.10", "3.11", "3.12", "3.13"])
    return {"node_description": description, **_wish(draw, tables)}


def _wish(draw: random.Random, tables: Tables) -> dict[str, str]:
    framework = draw.choice(["pytorch"] * 6 + ["tensorflow", "none"])
    wish = {"stack_framework": framework, "stack_policy": draw.choice(["production"] * 3 + ["lts", "newest"])}
    if framework != "none" and draw.random() < 0.3:
        wish["stack_framework_version"] = draw.choice(tables.frameworks[framework]["releases"])["version"]
    if framework == "pytorch" and draw.random() < 0.1:
        wish["stack_serving"] = "vllm"
        wish.pop("stack_framework_version", None)
    if draw.random() < 0.1:
        wish["stack_cuda_toolkit"] = draw.choice(tables.cuda["releases"])["toolkit"]
    if draw.random() < 0.1:
        wish["stack_driver_branch"] = draw.choice(tables.drivers["branches"])["branch"]
    return wish
