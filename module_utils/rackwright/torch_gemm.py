# SPDX-License-Identifier: Apache-2.0
"""Matrix products: exact answers (suite ``kernel``) and speed (suite ``gemm``), on a torch that is handed in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from . import benchmark_levels, measure
from .torch_bench import Bench, NotEnoughMemoryError, WrongAnswerError, single
from .torch_product import lacks_support, make_product, precision_of, stored_dtype

_EXACT_SIZE = 256
_UNITS = {"int8": "TOP/s"}


def kernel_suite(bench: Bench) -> list[dict[str, Any]]:
    """Run kernels whose exact answer is known and count the elements that are wrong."""
    torch = bench.torch
    generator = torch.Generator(device="cpu").manual_seed(bench.seed)
    size = (_EXACT_SIZE, _EXACT_SIZE)
    # small integers: every product and sum is exact in float32 and in TF32, so one wrong bit is a wrong answer
    a, b = (torch.randint(-3, 4, size, generator=generator, dtype=torch.int64) for _ in range(2))
    started = time.perf_counter()
    product = (a.to(bench.device, torch.float32) @ b.to(bench.device, torch.float32)).to(torch.int64).cpu()
    ramp = torch.arange(1 << 16, device=bench.device).mul(3).add(1).cpu()
    bench.synchronize()
    elapsed = time.perf_counter() - started
    wrong = int((product != a @ b).sum()) + int((ramp != torch.arange(1 << 16).mul(3).add(1)).sum())
    if wrong:
        raise WrongAnswerError(f"{wrong} of {product.numel() + ramp.numel()} elements are wrong")
    return [
        {
            "suite": "kernel",
            "name": "exact_answer",
            "unit": "wrong elements",
            "dtype": "float32",
            "shape": list(size),
            "device": bench.device,
            "device_name": bench.info.get("name"),
            "level": bench.level_name,
            **single(0.0),
            "median_s": elapsed,
            "conditions": {"data": "small integers"},
            "clocks": None,
            "throttle": None,
            "missing": {"clocks": "a launch is too short to sample", "throttle": "a launch is too short to sample"},
        }
    ]


def gemm_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Products of the level's sizes in every data type the device has matrix units for, the primary one first."""
    bench.prepare_flush()  # before asking what is free, because it takes its part
    able, unable = benchmark_levels.gemm_dtypes(bench.device, bench.info.get("compute_capability"))
    for position, dtype in enumerate(able):
        bench.release()
        sizes = benchmark_levels.gemm_sizes(bench.level, bench.free_bytes(), dtype, primary=position == 0)
        if not sizes:
            raise NotEnoughMemoryError(f"only {bench.free_bytes()} bytes are free")
        try:
            with precision_of(bench.torch, dtype):
                for size in sizes:
                    yield _gemm(bench, size, dtype)
        except (RuntimeError, AttributeError, TypeError) as error:
            if position == 0 or not lacks_support(error, dtype):
                raise
            unable[dtype] = f"this torch cannot: {' '.join(str(error).split())[:200]}"
    for dtype, reason in unable.items():
        yield bench.not_applicable("gemm", reason, dtype=dtype)


def _gemm(bench: Bench, size: int, dtype: str) -> dict[str, Any]:
    torch = bench.torch
    a, b = (operand(bench, size, dtype) for _ in range(2))
    product = make_product(torch, dtype, a, b)
    result = {
        "suite": "gemm",
        "name": f"gemm_{dtype}_{size}",
        "unit": _UNITS.get(dtype, "TFLOP/s"),
        "dtype": dtype,
        "shape": [size] * 3,
        "conditions": {"data": "uniform"} if dtype == "int8" else {},
    }
    record = bench.measured(product, result, measure.gemm_flop(size, size, size), 1e12)
    if dtype != "int8" and not bool(torch.isfinite(product.out).all()):
        raise WrongAnswerError(f"the {size} x {size} product contains values that are not finite")
    return record


def operand(bench: Bench, size: int, dtype: str) -> Any:
    """Return a square matrix of random data; normally distributed, for int8 uniform over its whole range."""
    torch = bench.torch
    if dtype == "int8":
        generator = torch.Generator(device=bench.device).manual_seed(bench.seed)
        shape = (size, size)
        return torch.randint(-128, 128, shape, generator=generator, device=bench.device, dtype=torch.int8)
    stored = stored_dtype(torch, dtype)
    if dtype == "float8_e4m3fn":
        return bench.random(size, size, dtype="bfloat16").to(stored)
    return bench.random(size, size, dtype=str(stored).partition(".")[2])
