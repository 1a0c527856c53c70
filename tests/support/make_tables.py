# SPDX-License-Identifier: Apache-2.0
"""Generate the Python form of tables for the modules: ``python tests/support/make_tables.py [--check]``.

Only Python files travel with a module to a node, so the columns a module needs are generated from the tables that
people edit, ``gpus.yml`` and ``xids.yml`` in ``roles/gpu_stack/files/tables``. ``--check`` writes nothing and fails
when a generated file is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLES = "roles/gpu_stack/files/tables"
TABLE = ROOT / TABLES / "gpus.yml"
XID_TABLE = ROOT / TABLES / "xids.yml"
PACKAGE = ROOT / "module_utils/rackwright"
IDENTITY = (
    "id",
    "nvml_names",
    "pci_device_ids",
    "memory_gb",
    "memory_type",
    "architecture",
    "chip",
    "compute_capability",
)
SPECIFICATION = (
    "segment",
    "sm_count",
    "boost_clock_mhz",
    "memory_gb",
    "memory_type",
    "memory_bandwidth_gbps",
    "peak_dense_tflops",
    "derived_fp16_tflops_at_boost",
    "half_rate_fp32_accumulate",
    "nvlink_generation",
    "nvlink_total_gbps",
    "pcie_generation",
    "pcie_lanes",
    "tdp_w",
    "ecc",
    "row_remap",
    "mig",
    "mig_max_instances",
    "dcgm_memory_bandwidth",
)
XID = (
    "mnemonic",
    "description",
    "immediate_action",
    "investigatory_action",
    "class",
    "fatal",
    "used",
    "dcgm_health",
    "aws_severity",
    "note",
    "sources",
)
HEADER = '''# SPDX-License-Identifier: Apache-2.0
"""{title}

Generated from {table} by tests/support/make_tables.py: edit the table, not this file.
None means that no source is known, as in the table.
"""

from __future__ import annotations

from typing import Any

'''


def load(table: Path = TABLE) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load(table.read_text(encoding="utf-8"))["gpus"]
    return rows


def load_xids(table: Path = XID_TABLE) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(table.read_text(encoding="utf-8"))
    return document


def render(title: str, name: str, kind: str, data: Any, table: str = "gpus.yml") -> str:
    """One row per line, as in the table: a change of one row there is a change of one line here."""
    if isinstance(data, dict):
        lines = [f"    {key!r}: {value!r}," for key, value in data.items()]
        opening, closing = "{", "}"
    else:
        lines = [f"    {value!r}," for value in data]
        opening, closing = "[", "]"
    body = "\n".join([f"{name}: {kind} = {opening}", *lines, closing])
    header = HEADER.format(title=title, table=f"{TABLES}/{table}")
    return f"{header}# fmt: off\n# ruff: noqa: E501\n{body}\n"


def generate(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the text of each generated file by its name."""
    identity = [{key: row.get(key) for key in IDENTITY} for row in rows]
    specification = {row["id"]: {key: row.get(key) for key in SPECIFICATION} for row in rows}
    return {
        "catalogue_data.py": render(
            "Which GPU models exist and how to recognise them.", "GPUS", "list[dict[str, Any]]", identity
        ),
        "catalogue_specs.py": render(
            "What each GPU model of the catalogue can do at best; units as in the table.",
            "SPECS",
            "dict[str, dict[str, Any]]",
            specification,
        ),
    }


def generate_xids(document: dict[str, Any]) -> dict[str, str]:
    """Return the text of the generated file of Xid codes by its name."""
    rows = {row["code"]: {key: row.get(key) for key in XID} for row in document["xids"]}
    title = "What NVIDIA and others say of each Xid code; columns as explained in the table."
    return {"xid_data.py": render(title, "XIDS", "dict[int, dict[str, Any]]", rows, "xids.yml")}


def generate_all() -> dict[str, str]:
    """Return the text of every generated file by its name."""
    return {**generate(load()), **generate_xids(load_xids())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is stale")
    check = parser.parse_args(arguments).check
    stale = []
    for name, text in generate_all().items():
        path = PACKAGE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name} {'is stale: run tests/support/make_tables.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
