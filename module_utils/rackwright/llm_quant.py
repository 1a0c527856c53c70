# SPDX-License-Identifier: Apache-2.0
"""Decode with 8-bit weights where torchao is installed: int8 and fp8, weight-only. torch is handed in.

Weights are kept in 8 bit with one scale per output row and multiplied in the type of the activations: ``quantize_``
with ``Int8WeightOnlyConfig`` or ``Float8WeightOnlyConfig`` (seen with torchao 0.18 and torch 2.13). A small batch is
bound by the bytes of the weights, so half the bytes can be nearly twice the speed, but only where converting them is
fused into the product, which only ``torch.compile`` does. Here it is done for single rows, the batch of one. Larger
batches convert the weights first and are slower than 16 bit, which the numbers then show.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from . import llm_measure, llm_model
from .benchmark_errors import is_out_of_memory
from .llm_measure import Session
from .llm_metrics import Weights
from .torch_bench import Bench

SUITE = "llm_inference"
#: Seconds of measuring per operating point; building and compiling come on top.
BUDGET_S = {"quick": 2.0, "standard": 15.0, "full": 60.0}


@dataclass(frozen=True)
class Kind:
    """One format of the weights: the suffix of its results, torchao's configuration, oldest GPU that converts it."""

    name: str
    config: str
    capability: tuple[int, int]


#: fp8 is converted by instructions of compute capability 8.9 on; without them triton refuses to compile the kernel.
KINDS = (Kind("int8wo", "Int8WeightOnlyConfig", (7, 0)), Kind("fp8wo", "Float8WeightOnlyConfig", (8, 9)))


def quantised_points(
    session: Session, points: Sequence[Mapping[str, Any]], deadline: float = float("inf")
) -> Iterator[dict[str, Any]]:
    """Yield an operating point for each format and batch, or why there is none.

    A model that is too large in 16 bit may fit in 8: it is quantised block by block while it is built.

    Args:
        session: like that of the sweep in 16 bit, whose model must be gone: two do not fit into every memory.
        points: details of that sweep's results; the new ones are held against those of the same batch.
        deadline: of ``time.monotonic``; no format is begun after it, because a compiler needs about a minute for one.
    """
    bench = session.bench
    torchao, missing = load(bench)
    if bench.on_gpu and bench.level_name == "quick":
        missing = missing or "compiling its kernels takes longer than the level quick has"
    for kind in KINDS:
        late = "the time that the level has for inference is used up" if time.monotonic() > deadline else None
        reason = missing or unfit(bench, torchao, kind) or late
        if reason is not None:
            yield bench.not_applicable(SUITE, reason, weights=kind.name)
            continue
        bench.collect()
        yield from _points(session, torchao, kind, points)


def load(bench: Bench) -> tuple[Any, str | None]:
    """Return torchao's module of quantisation, or None and why there is none."""
    keep_caches_in(bench.scratch)  # importing torchao imports the compiler, which decides then where its caches are
    try:
        return importlib.import_module("torchao.quantization"), None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "torchao":
            return None, "torchao is not installed"
        return None, _unusable(bench, error)
    except Exception as error:  # a torchao of another torch fails in its own ways; inference in 16 bit goes on without
        return None, _unusable(bench, error)


def _unusable(bench: Bench, error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"torchao is installed and does not import with torch {bench.torch.__version__}: {text}"


def unfit(bench: Bench, torchao: Any, kind: Kind) -> str | None:
    """Return why a format cannot be used with this torchao on this device, or None."""
    if not hasattr(torchao, "quantize_") or not hasattr(torchao, kind.config):
        return f"torchao {version() or 'of an unknown version'} has no {kind.config}"
    capability = bench.info.get("compute_capability")
    if bench.on_gpu and capability and tuple(int(part) for part in capability) < kind.capability:
        need = ".".join(str(part) for part in kind.capability)
        return f"it needs compute capability {need}, and the card has {'.'.join(str(part) for part in capability)}"
    return None


def version() -> str | None:
    """Return the version of the installed torchao; None where it is a bare folder on the path."""
    try:
        return metadata.version("torchao")
    except metadata.PackageNotFoundError:
        return None


def build(session: Session, torchao: Any, kind: Kind) -> Any:
    """Return the model with 8-bit matrices: the random weights of ``llm_model.build``, quantised part by part.

    No more than one block ever exists in 16 bit. Embedding and norms stay as they are. torchao sets options of the
    compiler at the same time, and its older versions the precision of every float32 product of the process, which is
    put back: later measurements must not become faster by it.
    """
    bench, load = session.bench, session.workload
    torch, dtype, shape = bench.torch, getattr(bench.torch, session.dtype), session.workload.shape
    with torch.device("meta"):
        model = llm_model.classes(torch)["Llama"](shape).to(dtype=dtype)
    generator = torch.Generator(device=bench.device).manual_seed(bench.seed)
    precision = torch.get_float32_matmul_precision()
    try:
        for part in (model.embed, *model.layers, model.norm, model.head):
            part.to_empty(device=bench.device)
            llm_model.fill(torch, part, generator)
            torchao.quantize_(part, getattr(torchao, kind.config)())
    finally:
        torch.set_float32_matmul_precision(precision)
    tables = llm_model.rotary_table(torch, shape.head_dim or 0, load.slot, load.theta, bench.device, dtype)
    model.set_rotary(*tables)
    return model


def compile_linears(torch: Any, model: Any, device: str, dtype: Any) -> str | None:
    """Compile the products of single rows; returns why that is not possible (no compiler, no triton), or None.

    Every shape of weights is compiled once; torch gives up on a function after eight variants unless told otherwise.
    """
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    limits = importlib.import_module(f"{torch.__name__}._dynamo").config
    name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
    setattr(limits, name, max(int(getattr(limits, name)), 64))
    plain = [linear.forward for linear in linears]
    for linear in linears:
        linear.forward = _for_one_row(linear.forward, torch.compile(linear.forward, dynamic=False))
    try:
        with torch.no_grad():
            for linear in linears:
                linear(torch.zeros(1, linear.in_features, device=device, dtype=dtype))
    except Exception as error:  # without compiler or triton the same numbers come from slower kernels
        if is_out_of_memory(error):
            raise
        for linear, forward in zip(linears, plain):
            linear.forward = forward
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return None


def _for_one_row(plain: Callable[[Any], Any], compiled: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One row goes in as [1, width] whatever its shape, so that each shape of weights is compiled once."""

    def forward(x: Any) -> Any:
        if x.numel() != x.shape[-1]:
            return plain(x)
        return compiled(x.reshape(1, -1)).reshape(*x.shape[:-1], -1)

    return forward


def keep_caches_in(scratch: str | None) -> None:
    """Let the compiler keep what it makes in the run's own directory: a benchmark leaves nothing on the node."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR") if scratch else ():
        os.environ.setdefault(name, os.path.join(str(scratch), name.split("_")[0].lower()))


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes a tensor occupies; one of torchao's consists of several, its values and their scales."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return int(tensor.numel() * tensor.element_size())
    parts = (getattr(tensor, name) for name in flatten()[0])
    return sum(tensor_bytes(part) for part in parts if part is not None)


def weights_of(model: Any) -> Weights:
    """Return the bytes of the model's weights, and those a decode step reads: all but the embedding's."""
    total = sum(tensor_bytes(parameter.data) for parameter in model.parameters())
    return Weights(total, total - tensor_bytes(model.embed.weight.data))


def _points(
    session: Session, torchao: Any, kind: Kind, points: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    bench, chosen = session.bench, batches(points, session.bench.level_name)
    quantised: Session | None = None
    try:
        quantised = _session(session, torchao, kind)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    if quantised is None:
        yield bench.not_applicable(SUITE, "the model does not fit into the memory in 8 bit either", weights=kind.name)
        return
    for batch, reference in chosen.items():
        result = _attempt(quantised, batch)
        bench.collect()
        if result is None:
            yield bench.not_applicable(
                SUITE, f"a batch of {batch} does not fit beside the weights it converts", weights=kind.name
            )
        else:
            yield compared(result, reference)


def _attempt(session: Session, batch: int) -> dict[str, Any] | None:
    try:
        return llm_measure.measure_point(session, batch, BUDGET_S[session.bench.level_name])
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def batches(points: Sequence[Mapping[str, Any]], level: str) -> dict[int, Mapping[str, Any] | None]:
    """Return the batches to measure, each with the details in 16 bit: one sequence, and at ``full`` the fastest too."""
    swept = {int(point["batch"]): point for point in points}
    chosen = {1: swept.get(1)}
    if level == "full" and swept:
        fastest = max(swept, key=lambda batch: float(swept[batch]["output_tokens_per_s"]))
        chosen[fastest] = swept[fastest]
    return chosen


def compared(result: dict[str, Any], reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the result with what the format bought: ratios of speed and of bytes of weights to 16 bit."""
    details = result["details"]
    before = reference or {}
    for ratio, key in (("tokens_ratio", "output_tokens_per_s"), ("weights_ratio", "weight_bytes")):
        details[ratio] = details[key] / before[key] if before.get(key) else None
    details["compared_with"] = f"llm_decode_{before['workload']}_b{before['batch']}" if reference else None
    if reference is None:
        details["missing"]["tokens_ratio"] = "this batch was not measured in 16 bit"
    return result


def _session(session: Session, torchao: Any, kind: Kind) -> Session:
    bench = session.bench
    started = time.perf_counter()
    model = build(session, torchao, kind)
    dtype = getattr(bench.torch, session.dtype)
    why = compile_linears(bench.torch, model, bench.device, dtype) if bench.on_gpu else "the device is a CPU"
    bench.synchronize()
    extra = {"weights": kind.name, "torchao": version(), "compiled": why is None, "compiled_missing": why}
    return replace(
        session,
        model=model,
        weights=weights_of(model),
        suffix=f"_{kind.name}",
        build_s=time.perf_counter() - started,
        extra={**session.extra, **extra},
    )
