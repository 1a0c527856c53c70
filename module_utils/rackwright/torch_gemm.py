# SPDX-License-Identifier: Apache-2.0
"""Matrix products: exact answers (suite ``kernel``) and speed (suite ``gemm``), on a torch that is handed in."""

from __future__ import annotations

import time
from typing import Any

from . import benchmark_plan, measure
from .torch_bench import Bench, NotEnoughMemoryError, WrongAnswerError, single

_EXACT_SIZE = 256


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


def gemm_suite(bench: Bench) -> list[dict[str, Any]]:
    """Matrix products of the level's sizes in the data type the device is made for."""
    dtype = benchmark_plan.gemm_dtype(bench.device, bench.info.get("compute_capability"))
    bench.prepare_flush()  # before asking what is free, because it takes its part
    sizes = benchmark_plan.gemm_sizes(bench.level, bench.free_bytes(), dtype)
    if not sizes:
        raise NotEnoughMemoryError(f"only {bench.free_bytes()} bytes are free")
    return [_gemm(bench, size, dtype) for size in sizes]


def _gemm(bench: Bench, size: int, dtype: str) -> dict[str, Any]:
    torch = bench.torch
    a, b = (bench.random(size, size, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=bench.device, dtype=getattr(torch, dtype))
    result = {"suite": "gemm", "name": f"gemm_{dtype}_{size}", "unit": "TFLOP/s", "dtype": dtype, "shape": [size] * 3}
    record = bench.measured(lambda: torch.mm(a, b, out=out), result, measure.gemm_flop(size, size, size), 1e12)
    if not bool(torch.isfinite(out).all()):
        raise WrongAnswerError(f"the {size} x {size} product contains values that are not finite")
    return record
