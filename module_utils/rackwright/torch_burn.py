# SPDX-License-Identifier: Apache-2.0
"""Load a GPU fully while all others are loaded too (suite ``burn``), on a torch that is handed in.

Each product goes into another part of the memory until 95 % of it are written, then all parts are compared with the
first: heat, power and a bad row of memory show in the same minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import benchmark_levels, measure
from .gpu_watch import Recorder
from .torch_bench import Bench, NotEnoughMemoryError, WrongAnswerError
from .torch_product import Product, make_product, precision_of, stored_dtype

_SIZES = (8192, 4096, 2048, 1024, 512, 256)
_CPU_SIZE = 256
_CPU_BUFFERS = 4
#: Of the memory in all; the rest is the driver's, the operands' and the comparison's.
_FILL = 0.95
#: Where memory is the system's, so much of what is available: the kernel ends processes when there is none left.
_FILL_SHARED = 0.5
#: Operands and products are at most this part of the memory, so that filling it takes many of them.
_SIZE_PART = 64
#: Integers of this size: dense enough to draw the power of real data, and every sum of a product stays exact.
_MAGNITUDE = {"bfloat16": 63, "float16": 7, "float32": 31}
_CHUNK_S = 0.5
#: Between two comparisons while it burns: they read all memory, which draws less power than products do.
_CHECK_S = 10.0
_MOST_SERIES = 120


@dataclass
class _Load:
    """What the load of one GPU consists of and what has become of it."""

    bench: Bench
    product: Product
    buffers: list[Any]
    first: Any
    seconds: list[float] = field(default_factory=list)
    products: int = 0
    rounds: int = 0
    wrong: int = 0


def burn_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Multiply for the burn's time into nearly all of the memory; the sustained rate, and how it changed over time."""
    dtype = benchmark_levels.gemm_dtype(bench.device, bench.info.get("compute_capability"))
    size = _size(bench, dtype)
    seconds = benchmark_levels.burn_seconds(bench.level, bench.options)
    with precision_of(bench.torch, dtype), _full_sums(bench.torch):
        load = _prepare(bench, dtype, size)
        together = bench.meet()
        with bench.watch.during() as record:
            _burn(load, seconds)
        _check(load)
    yield _result(load, dtype, size, seconds, together, record)
    if load.wrong:
        raise WrongAnswerError(f"{load.wrong} elements of equal products differ after {load.products} products")


@contextmanager
def _full_sums(torch: Any) -> Iterator[None]:
    """Keep sums of 16-bit products in float32 to the end: rounded in between they would depend on the order."""
    matmul = torch.backends.cuda.matmul
    names = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
    before = {name: getattr(matmul, name) for name in names}
    for name in names:
        setattr(matmul, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)


def _size(bench: Bench, dtype: str) -> int:
    if not bench.on_gpu:
        return _CPU_SIZE
    room = bench.free_bytes() // _SIZE_PART
    found = next((size for size in _SIZES if size * size * measure.DTYPE_BYTES[dtype] <= room), None)
    if found is None:
        raise NotEnoughMemoryError(f"only {bench.free_bytes()} bytes are free")
    return found


def _prepare(bench: Bench, dtype: str, size: int) -> _Load:
    torch, limit = bench.torch, _MAGNITUDE[dtype]
    generator = torch.Generator(device=bench.device).manual_seed(bench.seed)
    a, b = (
        torch.randint(-limit, limit + 1, (size, size), generator=generator, device=bench.device).float()
        for _ in range(2)
    )
    stored = stored_dtype(torch, dtype)
    product = make_product(torch, dtype, a.to(stored), b.to(stored))
    product()
    # float32 sums these integers exactly on other units of the GPU, so rounding its product must give the same bits
    wrong = int((torch.mm(a, b).to(stored) != product.out).sum())
    if wrong:
        raise WrongAnswerError(f"{wrong} elements of a product differ from the float32 product of the same integers")
    del a, b
    bench.release()
    return _Load(bench, product, _fill(bench, product.out), product.out.clone())


def _fill(bench: Bench, like: Any) -> list[Any]:
    """Allocate parts of the product's form until the memory is full enough."""
    if not bench.on_gpu:
        return [bench.torch.empty_like(like) for _ in range(_CPU_BUFFERS)]
    free, total = bench.free_bytes(), int(bench.info.get("total_memory_bytes") or 0)
    # two more of its size are needed: the first product, and what a comparison makes
    room = int(free * _FILL_SHARED) if bench.info.get("unified_memory") else free - int(total * (1 - _FILL))
    count = max(1, room // like.nbytes - 2)
    return [bench.torch.empty_like(like) for _ in range(count)]


def _burn(load: _Load, seconds: float) -> None:
    bench = load.bench
    bench.heated = True  # the burn itself is the heat, and its beginning belongs to the series
    per_chunk, position = _per_chunk(load, bench.warm_up(load.product)), 0
    checked = time.perf_counter()
    deadline = checked + seconds
    while (started := time.perf_counter()) < deadline:
        for _ in range(per_chunk):
            load.product.run(load.buffers[position])
            position += 1
            if position == len(load.buffers):
                position = 0
                load.rounds += 1
        bench.synchronize()
        each = (time.perf_counter() - started) / per_chunk
        load.seconds.append(each)
        load.products += per_chunk
        per_chunk = _per_chunk(load, each)
        if load.rounds and time.perf_counter() - checked > _CHECK_S:
            _check(load)
            checked = time.perf_counter()
    # whatever was not reached by then is written now: comparing memory that nobody wrote says nothing
    for buffer in load.buffers[position:] if not load.rounds else []:
        load.product.run(buffer)
        load.products += 1
    bench.synchronize()


def _per_chunk(load: _Load, each_s: float) -> int:
    return max(1, min(int(_CHUNK_S / each_s), len(load.buffers)))


def _check(load: _Load) -> None:
    """Count the elements of all parts that differ from the first product."""
    total = load.bench.torch.zeros((), device=load.bench.device, dtype=load.bench.torch.int64)
    for buffer in load.buffers:
        total += (buffer != load.first).sum()
    load.wrong += int(total)


def _result(load: _Load, dtype: str, size: int, seconds: float, together: int, record: Recorder) -> dict[str, Any]:
    bench = load.bench
    written = sum(buffer.nbytes for buffer in load.buffers)
    total = int(bench.info.get("total_memory_bytes") or 0)
    result = {
        "suite": "burn",
        "name": f"burn_{dtype}",
        "unit": "TFLOP/s",
        "dtype": dtype,
        "shape": [size] * 3,
        "conditions": {"seconds": seconds, "data": "integers", "l2_flush_bytes": 0},
    }
    completed = bench.completed(result, load.seconds, measure.gemm_flop(size, size, size), 1e12, record)
    limit_w = bench.meter.power_limit_w() if bench.meter is not None else None
    completed["details"] = {
        "products": load.products,
        "rounds": load.rounds,
        "wrong_elements": load.wrong,
        "memory_bytes": written,
        "memory_fraction": written / total if total else None,
        "drift": drift(measure.rates(load.seconds, 1.0, 1.0)),
        "power_limit_w": limit_w,
        "gpus_at_once": together,
        "series": record.series(max(1.0, seconds / _MOST_SERIES)),
    }
    return completed


def drift(rates: list[float]) -> float | None:
    """Return the median of the last quarter over that of the first: below one the GPU slows down as it heats."""
    quarter = len(rates) // 4
    if quarter == 0:
        return None
    first, last = sorted(rates[:quarter]), sorted(rates[-quarter:])
    return measure.percentile(last, 0.5) / measure.percentile(first, 0.5)
