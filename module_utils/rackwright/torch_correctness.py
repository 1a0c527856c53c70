# SPDX-License-Identifier: Apache-2.0
"""Silent data corruption (suite ``correctness``): large products of integers whose exact answer is known.

The first product of each data type is compared with an answer computed on the CPU, every further one with the first,
bit for bit. The operands make every partial sum exact (see exact_answers): no order of additions excuses a difference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from . import benchmark_levels, measure
from .exact_answers import exact_operands
from .torch_bench import Bench, NotEnoughMemoryError, WrongAnswerError, single
from .torch_product import Product, lacks_support, make_product, precision_of, stored_dtype

_ROWS_AT_ONCE = 1024
#: Weights below this keep every sum of 8192 int8 products below 2**53, where float64 holds every integer.
_WEIGHT_LIMIT = 1 << 12
_CHUNK = 4
_MASK = (1 << 64) - 1


def correctness_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Multiply in every data type that is exact, each for the level's time; a difference is a WrongAnswerError."""
    able, unable = benchmark_levels.gemm_dtypes(bench.device, bench.info.get("compute_capability"))
    able += [] if bench.on_gpu else ["int8"]
    dtypes = [dtype for dtype in benchmark_levels.EXACT_DTYPES if dtype in able]
    wrong: list[str] = []
    for dtype in dtypes:
        bench.release()
        try:
            with precision_of(bench.torch, dtype):
                result = _repeat(bench, dtype, _size(bench, dtype))
        except (RuntimeError, AttributeError, TypeError) as error:
            if not lacks_support(error, dtype):
                raise
            unable[dtype] = f"this torch cannot: {' '.join(str(error).split())[:200]}"
            continue
        wrong += [f"{dtype}: {text}" for text in result["details"]["differences"]]
        yield result
    for dtype, reason in unable.items():
        if dtype in benchmark_levels.EXACT_DTYPES:
            yield bench.not_applicable("correctness", reason, dtype=dtype)
    if wrong:
        raise WrongAnswerError("; ".join(wrong))


def _size(bench: Bench, dtype: str) -> int:
    """Return the level's size, or the largest half of it whose five matrices fit."""
    size = bench.level.correctness_size
    while size >= 256:
        if 2 * measure.gemm_bytes(size, size, size, dtype) <= bench.free_bytes() // 2:
            return size
        size //= 2
    raise NotEnoughMemoryError(f"only {bench.free_bytes()} bytes are free")


def _repeat(bench: Bench, dtype: str, size: int) -> dict[str, Any]:
    torch = bench.torch
    a, b = integers(torch, dtype, size, bench.seed)
    stored = stored_dtype(torch, dtype)
    product = make_product(torch, dtype, a.to(bench.device, stored), b.to(bench.device, stored))
    product()
    first = product.out.clone()
    wrong, where, checksum = compare(torch, a, b, first.cpu(), bench.seed)
    # the comparison is the CPU's work: only what follows is the GPU's, and is watched
    with bench.watch.during() as record:
        started = time.perf_counter()
        products, changed = _again(bench, product, first)
        elapsed = time.perf_counter() - started
    differences = [where] if where is not None else []
    if changed:
        differences.append(f"{changed} elements changed between {products} equal products")
    return {
        "suite": "correctness",
        "name": f"correctness_{dtype}",
        "unit": "wrong elements",
        "dtype": dtype,
        "shape": [size] * 3,
        "device": bench.device,
        "device_name": bench.info.get("name"),
        "level": bench.level_name,
        **single(float(wrong + changed)),
        "median_s": elapsed / products,
        "conditions": {"data": "integers"},
        "details": {"products": products, "seconds": elapsed, "checksum": checksum, "differences": differences},
        **record.result(),
    }


def _again(bench: Bench, product: Product, first: Any) -> tuple[int, int]:
    """Repeat the product for the level's time; return how many there were and how many elements differed in all."""
    torch = bench.torch
    wrong = torch.zeros((), device=bench.device, dtype=torch.int64)
    deadline, count = time.perf_counter() + bench.level.correctness_s, 0
    while time.perf_counter() < deadline or count == 0:
        for _ in range(_CHUNK):
            product()
            wrong += (product.out != first).sum()
            count += 1
        bench.synchronize()
    return count, int(wrong)


def integers(torch: Any, dtype: str, size: int, seed: int) -> tuple[Any, Any]:
    """Return A and B as int8 on the CPU: the same on every node for one seed, so that answers can be compared."""
    exact = exact_operands(dtype, size)
    generator = torch.Generator().manual_seed(seed)

    def one() -> Any:
        kinds = 2 * exact.magnitude  # -magnitude to -1 and 1 to magnitude
        draw = torch.randint(0, kinds * exact.one_in, (size, size), generator=generator, dtype=torch.int16)
        values = draw - exact.magnitude + (draw >= exact.magnitude)
        return values.mul_(draw < kinds).to(torch.int8)  # whatever was drawn beyond the kinds is zero

    return one(), one()


def compare(torch: Any, a: Any, b: Any, c: Any, seed: int) -> tuple[int, str | None, str]:
    """Compare C, on the CPU, with A B by way of vectors.

    Returns how many elements are wrong at least, where they are (None where none is), and a checksum of C.

    ``C x`` must be ``A (B x)`` and ``y C`` must be ``(y A) B`` for random positive integers x and y (Freivalds 1977):
    products of a matrix and a vector instead of one of two matrices. One wrong element is always found, and where it
    is; several that share rows and columns stay unseen with a chance of 1 in 4095 at most. Sizes up to 8192.
    """
    size = a.shape[0]
    generator = torch.Generator().manual_seed(seed + 1)
    x, y = (torch.randint(1, _WEIGHT_LIMIT, (size,), generator=generator).double() for _ in range(2))
    rows = _times(torch, c, x)
    columns = _times(torch, c.t(), y)
    bad_rows = (rows != _times(torch, a, _times(torch, b, x))).nonzero().flatten().tolist()
    bad_columns = (columns != _times(torch, b.t(), _times(torch, a.t(), y))).nonzero().flatten().tolist()
    weighted = rows.to(torch.int64) * y.to(torch.int64)  # may wrap around, on every machine alike
    checksum = f"{int(weighted.sum()) & _MASK:016x}"
    wrong = max(len(bad_rows), len(bad_columns))
    where = f"the product is not the exact answer in rows {_first(bad_rows)}, columns {_first(bad_columns)}"
    return wrong, where if wrong else None, checksum


def _times(torch: Any, matrix: Any, vector: Any) -> Any:
    """Return the product with a vector in float64, in pieces: all at once would take eight times the room."""
    parts = [
        torch.mv(matrix[start : start + _ROWS_AT_ONCE].double(), vector)
        for start in range(0, matrix.shape[0], _ROWS_AT_ONCE)
    ]
    return torch.cat(parts)


def _first(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return (", ".join(str(number) for number in numbers[:3]) or "none") + more
