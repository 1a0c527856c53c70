"""Nodes and tables that the planning tests share. GPU generations the catalogue lacks come from a site's extra rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.rackwright.compat import Solution, solve
from ansible.module_utils.rackwright.stack_intent import intent_from_vars
from ansible.module_utils.rackwright.stack_node import StackNode, node_from_description
from ansible.module_utils.rackwright.tables import Tables, load_tables

TODAY = "2026-11-24"


def _card(model: str, name: str, architecture: str, capability: str, device_id: str) -> dict[str, Any]:
    return {
        "id": model,
        "nvml_names": [name],
        "architecture": architecture,
        "compute_capability": capability,
        "pci_device_ids": [device_id],
    }


EXTRA = {
    "gpus": {
        "gpus": [
            _card("k80", "Tesla K80", "Kepler", "3.7", "102d"),
            _card("m40", "Tesla M40", "Maxwell", "5.2", "17fd"),
            _card("r100", "NVIDIA R100", "Rubin", "10.7", "fff0"),
        ]
    }
}
TABLES: Tables = load_tables(Path(__file__).parents[2] / "roles" / "gpu_stack" / "files" / "tables", EXTRA)
SUPPORTED = [row["id"] for row in TABLES.platforms["distros"] if row["supported"]]
UNSUPPORTED = [row["id"] for row in TABLES.platforms["distros"] if not row["supported"]]


def node(gpus: str = "", **description: Any) -> StackNode:
    """Return a node; ``gpus`` is like ``8 h100-sxm5-80gb + t4``."""
    wanted = []
    for part in filter(None, (part.strip() for part in gpus.split("+"))):
        count, _space, model = part.rpartition(" ")
        wanted.append({"model": model, "count": count or 1})
    return node_from_description("gpu-a", {"os": "ubuntu2404", **description, "gpus": wanted}, TABLES.gpus)


def plan(machine: StackNode, tables: Tables = TABLES, today: str = TODAY, **wishes: Any) -> Solution:
    """Solve a node; wishes are written without ``stack_``."""
    variables = {f"stack_{name}": value for name, value in wishes.items()}
    return solve(machine, intent_from_vars("gpu-a", variables), tables, today)


def value(document: Any, path: str) -> Any:
    """Return what stands at a dotted path; ``packages`` are named only."""
    for key in path.split("."):
        document = document[key] if isinstance(document, dict) else document[int(key)]
    if path == "driver.packages":
        return [package["name"] for package in document]
    return document
