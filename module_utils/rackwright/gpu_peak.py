# SPDX-License-Identifier: Apache-2.0
"""What the catalogue says a GPU can do at best, looked up on the node itself. Pure."""

from __future__ import annotations

from typing import Any

from . import catalogue
from .catalogue_data import GPUS
from .catalogue_specs import SPECS

#: Data types whose dense peak equals that of fp16 on every card of the catalogue that has them.
_LIKE_FP16 = ("fp16", "bf16")


def peak_of(
    name: str | None, device_id: str | None, total_bytes: int | None, unified: bool = False
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the peaks of a model, or None and why there are none.

    ``device_id`` is the PCI device id in hexadecimal (``2330``). The record has ``catalogue_id``, ``bandwidth_gbps``
    (decimal GB/s or None), ``tflops`` (dense TFLOP/s per ``bf16 fp16 fp8 int8 tf32 fp32``, int8 in TOP/s, only what is
    known), ``derived`` (the data types computed from clock and number of multiprocessors instead of published) and
    ``source``: ``catalogue``, or ``derived`` where every matrix peak is.
    """
    catalogue_id, reason = catalogue.recognise(catalogue.table(), device_id, name, total_bytes, unified)
    if catalogue_id is None:
        return None, reason
    specs = SPECS.get(catalogue_id)
    if specs is None:
        return None, f"the catalogue has no peaks of {catalogue_id}"
    published = {key: float(value) for key, value in specs["peak_dense_tflops"].items() if value}
    derived = _derived(specs, published, _capability(catalogue_id))
    return {
        "catalogue_id": catalogue_id,
        "bandwidth_gbps": specs["memory_bandwidth_gbps"],
        "tflops": {**derived, **published},
        "derived": sorted(derived),
        "source": "catalogue" if any(key in published for key in _LIKE_FP16) else "derived",
    }, None


def _derived(specs: dict[str, Any], published: dict[str, float], capability: tuple[int, ...]) -> dict[str, float]:
    """Return the computed 16-bit peaks where none is published; bf16 runs at the rate of fp16 from 8.0 on."""
    value = specs.get("derived_fp16_tflops_at_boost")
    if not value or any(key in published for key in _LIKE_FP16):
        return {}
    return {key: float(value) for key in (_LIKE_FP16 if capability >= (8, 0) else _LIKE_FP16[:1])}


def _capability(catalogue_id: str) -> tuple[int, ...]:
    row = next(row for row in GPUS if row["id"] == catalogue_id)
    return tuple(int(number) for number in str(row.get("compute_capability") or "0.0").split("."))
