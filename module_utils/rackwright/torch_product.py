# SPDX-License-Identifier: Apache-2.0
"""One matrix product in any of the benchmark's data types, on a torch that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: How torch stores the operands where its name is not that of the data type.
_STORED = {"tf32": "float32"}
#: What the product is given in where it is not the operands' own type.
_PRODUCT = {"float8_e4m3fn": "bfloat16", "int8": "int32"}
#: These two are fast, and for fp8 exist, only with B stored by columns.
_BY_COLUMNS = ("float8_e4m3fn", "int8")


@dataclass(frozen=True)
class Product:
    """``run`` computes C = A B into ``out``, or into another tensor of its form."""

    run: Callable[[Any], Any]
    out: Any

    def __call__(self) -> Any:
        return self.run(self.out)


def stored_dtype(torch: Any, dtype: str) -> Any:
    """Return torch's data type of the operands. AttributeError: this release of torch does not have it."""
    return getattr(torch, _STORED.get(dtype, dtype))


def make_product(torch: Any, dtype: str, a: Any, b: Any) -> Product:
    """Return the product of two square matrices of the stored data type; allocates ``out`` and, where needed, a B.

    fp8 multiplies with unit scales and fast accumulation, which is what the published peaks are of.
    """
    out = torch.empty(a.shape[0], b.shape[1], device=a.device, dtype=stored_dtype(torch, _PRODUCT.get(dtype, dtype)))
    if dtype in _BY_COLUMNS:
        b = b.t().contiguous().t()
    if dtype == "int8":
        return Product(lambda target: torch._int_mm(a, b, out=target), out)
    if dtype == "float8_e4m3fn":
        one = torch.ones((), device=a.device, dtype=torch.float32)
        kind = out.dtype
        return Product(
            lambda target: torch._scaled_mm(a, b, one, one, out_dtype=kind, use_fast_accum=True, out=target), out
        )
    return Product(lambda target: torch.mm(a, b, out=target), out)


@contextmanager
def precision_of(torch: Any, dtype: str) -> Iterator[None]:
    """Let float32 products be computed in TF32 for ``tf32``, and in full for everything else."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def lacks_support(error: Exception, dtype: str) -> bool:
    """True when torch says that this release, build or card cannot multiply in this data type at all.

    The functions of fp8 and int8 are torch's own and have changed: before 2.5 the one of fp8 takes other arguments.
    """
    if isinstance(error, TypeError):
        return dtype in _BY_COLUMNS
    text = str(error).lower()
    words = ("not supported", "not_supported", "not implemented", "is only supported", "not compiled")
    return isinstance(error, (AttributeError, NotImplementedError)) or any(word in text for word in words)
