# SPDX-License-Identifier: Apache-2.0
"""Weight formats and cache types: how many bits a parameter takes, and which parameters a format leaves alone.

Pure. The bits come from ``weight_bits_per_param`` of ``sizing.yml``; the names here only say how people call its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError
from .sizing_params import Parameters
from .sizing_shape import Shape

#: What people write, to the row of the table.
_NAMES = {
    "bf16": "bf16/fp16",
    "fp16": "bf16/fp16",
    "fp32": "fp32",
    "fp8": "fp8",
    "int8": "int8 (LLM.int8/W8A8)",
    "int4": "awq/gptq int4 g128",
    "awq": "awq/gptq int4 g128",
    "gptq": "awq/gptq int4 g128",
    "nf4": "nf4",
    "nf4-dq": "nf4 double quant",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}
#: Bytes of one cached element. What the server keeps beside an 8-bit cache (scales per tensor) is below 0.1 %.
CACHE_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
_16_BIT = 2


@dataclass(frozen=True)
class Format:
    """A weight format.

    Attributes:
        name: as the user named it, in lower case (``bf16``, ``int4``, ``q4_k_m``).
        bits: per parameter it acts on.
        acts_on: ``all`` parameters, ``matrices`` (embedding, lm_head, norms and routers stay 16 bit) or ``experts``.
        arithmetic: the table's key of the peak it computes with at best: ``bf16``, ``fp8``, ``int8`` or ``fp32``.
        basis: where the bits come from.
    """

    name: str
    bits: float
    acts_on: str
    arithmetic: str
    basis: str


def names(sizing: Mapping[str, Any]) -> list[str]:
    """Every name a format can be asked for by."""
    return [*_NAMES, "native", *(_gguf_name(row) for row in sizing["weight_bits_per_param"] if _is_gguf(row))]


def weight_format(sizing: Mapping[str, Any], name: str, shape: Shape) -> Format:
    """Return the format called ``name``; ``native`` is what the model was released in, bf16 unless its row says more.

    Raises:
        InvalidInputError: no such format, or one that this model cannot have.
    """
    wanted = str(name).strip().lower().replace(" ", "-").removeprefix("gguf-")
    if wanted == "native":
        wanted = shape.native or "bf16"
    rows = {row["id"]: row for row in sizing["weight_bits_per_param"]}
    gguf = {_gguf_name(row): row for row in rows.values() if _is_gguf(row)}
    row = gguf.get(wanted) or rows.get(_NAMES.get(wanted, ""))
    if row is None:
        raise InvalidInputError(
            "size the model",
            f"format {name}",
            "the table of formats does not have it",
            f"Use one of {', '.join(names(sizing))}",
            expected=names(sizing),
            found=name,
        )
    if wanted == "mxfp4" and shape.moe is None:
        raise InvalidInputError(
            "size the model",
            f"{shape.name} as mxfp4",
            "that is the format of the experts of gpt-oss, and this model has none",
            "Use int4, nvfp4 or fp8",
        )
    acts_on = "all" if wanted in gguf or wanted in ("bf16", "fp16", "fp32") else "matrices"
    arithmetic = {"fp8": "fp8", "int8": "int8", "fp32": "fp32"}.get(wanted, "bf16")
    return Format(wanted, row["bits"], "experts" if wanted == "mxfp4" else acts_on, arithmetic, str(row["basis"]))


def cache_bytes(name: str) -> int:
    """Return the bytes of one cached element.

    Raises:
        InvalidInputError: the type is not bf16, fp16, fp8 or int8.
    """
    wanted = str(name).strip().lower()
    if wanted not in CACHE_BYTES:
        raise InvalidInputError(
            "size the model",
            f"cache type {name}",
            "it is not known",
            f"Use one of {', '.join(CACHE_BYTES)}",
            expected=list(CACHE_BYTES),
            found=name,
        )
    return CACHE_BYTES[wanted]


def weight_bytes(form: Format, matrices: float, experts: float, others: float) -> float:
    """Return the bytes of so many parameters: matrices (no experts), experts, and what stays at 16 bit."""
    bytes_each = form.bits / 8
    if form.acts_on == "all":
        return (matrices + experts + others) * bytes_each
    if form.acts_on == "experts":
        return experts * bytes_each + (matrices + others) * _16_BIT
    return (matrices + experts) * bytes_each + others * _16_BIT


def model_bytes(form: Format, parameters: Parameters) -> float:
    """Return the bytes of the whole model's weights: ``sum(parameters * bits / 8)``."""
    return weight_bytes(form, parameters.matrices, parameters.experts, parameters.embedding + parameters.rest)


def _is_gguf(row: Mapping[str, Any]) -> bool:
    return str(row["id"]).startswith("gguf ")


def _gguf_name(row: Mapping[str, Any]) -> str:
    return str(row["id"]).removeprefix("gguf ").lower()
