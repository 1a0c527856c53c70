# SPDX-License-Identifier: Apache-2.0
"""Recognise a GPU model: PCI device id, NVML name and memory size must all agree.

One PCI id can carry several names (A2 and A16, 48 and 72 GB boards, vGPU profiles), and one name several boards. What
does not agree is not recognised, and the reason says what disagreed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .catalogue_data import GPUS
from .errors import InvalidInputError

#: NVML's total is below the marketing size (ECC, firmware); measured 0.93 to 1.0 on known boards
_LEAST_FRACTION = 0.90
_MOST_FRACTION = 1.03
_GIB = 1 << 30
_NEEDED = ("id", "nvml_names", "pci_device_ids")
_BY_CAPABILITY = {
    "3": "kepler",
    "5": "maxwell",
    "6": "pascal",
    "7.0": "volta",
    "7.2": "volta",
    "7.5": "turing",
    "8.0": "ampere",
    "8.6": "ampere",
    "8.7": "ampere",
    "8.9": "ada",
    "9": "hopper",
    "10": "blackwell",
    "11": "blackwell",
    "12": "blackwell",
}


def table(extra: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The catalogue with the site's own rows; a row with a known id replaces that one."""
    rows = {row["id"]: row for row in GPUS}
    for position, row in enumerate(extra):
        lacking = [key for key in _NEEDED if not row.get(key)]
        if lacking:
            raise InvalidInputError(
                "use a row",
                f"extra_gpus[{position}]",
                f"it lacks {', '.join(lacking)}",
                "Give every row at least id, nvml_names and pci_device_ids, as the table of the role gpu_stack does",
                expected=list(_NEEDED),
                found=sorted(row),
            )
        rows[row["id"]] = row
    return list(rows.values())


def recognise(
    rows: list[dict[str, Any]], device_id: str | None, name: str | None, total_bytes: int | None, unified: bool = False
) -> tuple[str | None, str | None]:
    """Return ``(catalogue id, None)`` or ``(None, why the model is not recognised)``."""
    if name is None or device_id is None:
        what = "name" if name is None else "PCI device id"
        return None, f"without the {what} a model cannot be told from others with the same {_other(what)}"
    same_id = [row for row in rows if device_id in [_normal_id(known) for known in row["pci_device_ids"]]]
    same_name = [row for row in rows if name in row["nvml_names"]]
    both = [row for row in same_id if row in same_name]
    if not both:
        return None, _disagreement(device_id, name, same_id, same_name)
    if unified:
        # the total is that of the whole system; only rows without a size of their own describe such a GPU
        fitting = [row for row in both if row.get("memory_gb") is None]
    else:
        fitting = [row for row in both if _memory_fits(row.get("memory_gb"), total_bytes)]
    if len(fitting) == 1:
        return fitting[0]["id"], None
    ids = ", ".join(row["id"] for row in both)
    if fitting:
        return None, f"name, PCI device id and memory fit more than one model: {ids}"
    return None, f"name and PCI device id fit {ids}, but the memory does not: {_gib(total_bytes)} here"


def candidates(rows: list[dict[str, Any]], device_id: str | None) -> list[str]:
    """Models that can have this PCI device id; no proof that it is one of them."""
    return [row["id"] for row in rows if device_id in [_normal_id(known) for known in row["pci_device_ids"]]]


def common_value(rows: list[dict[str, Any]], ids: list[str], column: str) -> Any:
    """A value on which all the given models agree, else None."""
    values = {row.get(column) for row in rows if row["id"] in ids}
    return values.pop() if len(values) == 1 else None


def architecture_name(table_name: str | None) -> str | None:
    """The table's ``Ada Lovelace`` as facts and group names have it: ``ada``."""
    return table_name.split()[0].lower() if table_name else None


def architecture_of(capability: str | None) -> str | None:
    """Architecture of a compute capability, for drivers that do not tell it."""
    if not capability:
        return None
    return _BY_CAPABILITY.get(capability) or _BY_CAPABILITY.get(capability.split(".")[0])


def _normal_id(device_id: Any) -> str:
    return str(device_id).lower().removeprefix("0x").zfill(4)


def _memory_fits(memory_gb: float | None, total_bytes: int | None) -> bool:
    if memory_gb is None or total_bytes is None:
        return False
    return _LEAST_FRACTION <= total_bytes / _GIB / memory_gb <= _MOST_FRACTION


def _gib(total_bytes: int | None) -> str:
    return f"{total_bytes / _GIB:.1f} GiB" if total_bytes is not None else "unknown size"


def _other(what: str) -> str:
    return "PCI device id" if what == "name" else "name"


def _disagreement(device_id: str, name: str, same_id: list[dict[str, Any]], same_name: list[dict[str, Any]]) -> str:
    if same_id:
        known = ", ".join(row["id"] for row in same_id)
        return f"the PCI device id {device_id} belongs to {known}, but the name {name!r} does not"
    if same_name:
        known = ", ".join(row["id"] for row in same_name)
        return f"the name {name!r} belongs to {known}, but the PCI device id {device_id} does not"
    return f"the catalogue has neither the name {name!r} nor the PCI device id {device_id}; add the model as extra_gpus"
