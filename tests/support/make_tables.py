# SPDX-License-Identifier: Apache-2.0
"""Generate the Python form of the GPU table for the modules: ``python tests/support/make_tables.py [--check]``.

Only Python files travel with a module to a node, so the columns a module needs are generated from the table that people
edit, ``roles/gpu_stack/files/tables/gpus.yml``. ``--check`` writes nothing and fails when a generated file is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "roles/gpu_stack/files/tables/gpus.yml"
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
HEADER = '''# SPDX-License-Identifier: Apache-2.0
"""{title}

Generated from roles/gpu_stack/files/tables/gpus.yml by tests/support/make_tables.py: edit the table, not this file.
None means that no source is known, as in the table.
"""

from __future__ import annotations

from typing import Any

'''


def load(table: Path = TABLE) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load(table.read_text(encoding="utf-8"))["gpus"]
    return rows


def render(title: str, name: str, kind: str, data: Any) -> str:
    """One row per line, as in the table: a change of one model is a change of one line."""
    if isinstance(data, dict):
        lines = [f"    {key!r}: {value!r}," for key, value in data.items()]
        opening, closing = "{", "}"
    else:
        lines = [f"    {value!r}," for value in data]
        opening, closing = "[", "]"
    body = "\n".join([f"{name}: {kind} = {opening}", *lines, closing])
    return f"{HEADER.format(title=title)}# fmt: off\n# ruff: noqa: E501\n{body}\n"


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is stale")
    check = parser.parse_args(arguments).check
    stale = []
    for name, text in generate(load()).items():
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
