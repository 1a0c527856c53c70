# SPDX-License-Identifier: Apache-2.0
"""Decide what the training benchmark does: model size, batch, techniques, and what each of them bought. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .measure import DTYPE_SHORT
from .sizing_params import count
from .sizing_shape import Shape

GIB = 1 << 30

#: Bytes per parameter: weights, gradients and both moments of AdamW, all of which torch.amp leaves in fp32, and the
#: 16-bit copy of each matrix that autocast keeps from the forward to the backward pass.
STATE_BYTES = 16
AUTOCAST_BYTES = 2
#: Context of the driver, workspaces of the matrix libraries, fragmentation of the allocator.
OVERHEAD_BYTES = int(1.5 * GIB)
#: Part of the card's memory that the estimate of the plain step may fill; the estimate is coarse.
FILL = 0.85
#: Reduced layer counts, so that one name means one amount of work on every card that has it.
LAYER_STEPS = (80, 64, 48, 40, 32, 28, 24, 20, 16, 12, 8, 6, 4, 3, 2, 1)
#: Least batch: gradient accumulation needs two micro-batches. Least sequence: below it only overhead is measured.
_MIN_BATCH, _MIN_SEQUENCE = 2, 512

#: What is timed of a technique whose steps are too long for the level: fp32 without TF32 on many a card.
LEAST_STEPS = 2


@dataclass(frozen=True)
class Technique:
    """One way to take the step.

    ``dtype`` is what autocast computes in (``float32``: no autocast), ``micro_batches`` above one is gradient
    accumulation over parts of the same batch, ``ranks`` above one is FSDP2 over as many GPUs.
    """

    name: str
    dtype: str
    checkpointing: bool = False
    micro_batches: int = 1
    ranks: int = 1

    def record(self) -> dict[str, Any]:
        """Return the switches as the result's ``techniques``."""
        amp = None if self.dtype == "float32" else self.dtype
        return {
            "amp": amp,
            "grad_scaler": self.dtype == "float16",
            "checkpointing": self.checkpointing,
            "accumulation": self.micro_batches,
            "fsdp": self.ranks,
        }


@dataclass(frozen=True)
class Level:
    """Largest number of layers, sequences per step, tokens per sequence, seconds of warm-up and of timing, steps.

    A technique of which fewer than ``min_steps`` fit into the seconds of timing is slow: two of its steps are timed.
    """

    max_layers: int
    batch: int
    sequence: int
    warmup_s: float
    budget_s: float
    min_steps: int
    max_steps: int


CPU_LEVELS = {
    "quick": Level(2, 4, 32, 0.1, 0.2, 3, 10),
    "standard": Level(2, 4, 64, 0.2, 0.5, 3, 20),
    "full": Level(2, 8, 64, 1.0, 2.0, 5, 40),
}
#: Eight layers show what a technique does to speed and memory as well as all of them, in a quarter of the time.
CUDA_LEVELS = {
    "quick": Level(2, 4, 1024, 0.5, 1.5, 3, 30),
    "standard": Level(8, 4, 2048, 3.0, 5.0, 5, 60),
    "full": Level(32, 8, 2048, 10.0, 20.0, 10, 100),
}


@dataclass(frozen=True)
class Size:
    """What is trained: layers of the workload's shape, sequences per step and tokens per sequence."""

    layers: int
    batch: int
    sequence: int

    @property
    def tokens(self) -> int:
        """Tokens of one step on one device."""
        return self.batch * self.sequence


def level_for(device: str, level: str) -> Level:
    """Return the level's numbers on a kind of device."""
    return (CPU_LEVELS if device == "cpu" else CUDA_LEVELS)[level]


def reduced(shape: Shape, layers: int) -> Shape:
    """Return the same shape with another number of layers."""
    return replace(shape, layers=layers)


def parameters(shape: Shape, layers: int) -> tuple[int, int]:
    """Return all parameters, and those of the input embedding, which a step looks up but does not multiply by."""
    known = count(reduced(shape, layers))
    return known.total, known.input_embedding


def flops_per_token(shape: Shape, layers: int, sequence: int) -> int:
    """Return the FLOP that the model needs per trained token: ``6 * (P - P_embedding) + 12 * L * H * Q * T``.

    torchtitan's formula (pytorch/torchtitan, torchtitan/models/utils.py: quadratic_attention_flops_per_token and
    get_nparams_and_active_nparams; from PaLM, arXiv 2204.02311): a multiply and an add per parameter, forward once and
    backward twice; attention without a discount for the causal mask. Recomputation by activation checkpointing is not
    counted, so checkpointing lowers the MFU.
    """
    total, embedding = parameters(shape, layers)
    return 6 * (total - embedding) + 12 * layers * shape.heads * (shape.head_dim or 0) * sequence


def mfu(flop: float, tokens_per_s: float, peak_tflops: float | None, devices: int = 1) -> float | None:
    """Return the fraction of the devices' dense peak that the model's arithmetic uses; None without a peak."""
    return flop * tokens_per_s / (peak_tflops * 1e12 * devices) if peak_tflops else None


def activation_bytes(shape: Shape, layers: int, tokens: int) -> int:
    """Return about what the plain autocast step keeps for its backward pass.

    Per layer and token, with fp32 weights: the residual stream and both norms in fp32 with their 16-bit copies ``28 *
    hidden``, queries, keys, values and the attention's output in 16 bit, as projected and as rotated ``4 * (heads +
    kv_heads) * head_dim + 2 * heads * head_dim``, gate, up, activation and product ``8 * intermediate`` (Korthikanti et
    al., arXiv 2205.05198, counted again for SwiGLU and for what autocast adds). The loss: 16-bit logits, their fp32
    copy and the fp32 softmax, then the gradients of the same sizes in their place, 10 bytes each.
    """
    width = shape.head_dim or 0
    attention = 4 * (shape.heads + shape.kv_heads) * width + 2 * shape.heads * width
    layer = 28 * shape.hidden + attention + 8 * (shape.intermediate or 0)
    return tokens * (layers * layer + 10 * shape.vocab)


def step_bytes(shape: Shape, size: Size) -> int:
    """Return about what the plain step occupies: weights, gradients, AdamW's state, activations, overhead."""
    total, embedding = parameters(shape, size.layers)
    state = STATE_BYTES * total + AUTOCAST_BYTES * (total - embedding)
    return state + activation_bytes(shape, size.layers, size.tokens) + OVERHEAD_BYTES


def fit(shape: Shape, level: Level, memory_bytes: int) -> Size | None:
    """Return the largest size of the level whose plain step fits into the device's memory, or None.

    Layers give way first, then sequences per step, then tokens per sequence. ``memory_bytes`` is the card's whole
    memory and not what is free at the moment, so that equal cards get equal work.
    """
    room = int(memory_bytes * FILL)
    most = min(level.max_layers, shape.layers)
    counts = [most, *(count for count in LAYER_STEPS if count < most)]
    for batch, sequence in _smaller(level):
        for layers in counts if (batch, sequence) == (level.batch, level.sequence) else counts[-1:]:
            size = Size(layers, batch, sequence)
            if step_bytes(shape, size) <= room:
                return size
    return None


def smallest(level: Level) -> Size:
    """Return what is tried last: one layer, the least batch, the shortest sequence."""
    return Size(1, *_smaller(level)[-1])


def _smaller(level: Level) -> list[tuple[int, int]]:
    """Return batch and sequence of the level and what may be taken instead, in the order of trying."""
    tried, batch, sequence = [(level.batch, level.sequence)], level.batch, level.sequence
    while batch > _MIN_BATCH:
        batch = max(_MIN_BATCH, batch // 2)
        tried.append((batch, sequence))
    while sequence > _MIN_SEQUENCE:
        sequence = max(_MIN_SEQUENCE, sequence // 2)
        tried.append((batch, sequence))
    return tried


def workload_name(workload: str, full_layers: int, layers: int) -> str:
    """Return the name of the trained model: with fewer layers than the workload it says how many (``...-l8``)."""
    return workload if layers == full_layers else f"{workload}-l{layers}"


def techniques(plain_dtype: str, batch: int) -> list[Technique]:
    """Return the steps to compare on one device, the plain one first because the others are held against it."""
    short = DTYPE_SHORT[plain_dtype]
    other = [] if plain_dtype == "float16" else [Technique("fp16", "float16")]
    return [
        Technique(short, plain_dtype),
        Technique("fp32", "float32"),
        *other,
        Technique(f"{short}_checkpointing", plain_dtype, checkpointing=True),
        Technique(f"{short}_accumulation{batch}", plain_dtype, micro_batches=batch),
        Technique(f"{short}_checkpointing_accumulation{batch}", plain_dtype, True, batch),
    ]


def sharded_techniques(plain_dtype: str, ranks: int) -> list[Technique]:
    """Return the steps of a group of GPUs: the plain one on each by itself, then sharded over all of them."""
    short = DTYPE_SHORT[plain_dtype]
    return [
        Technique(short, plain_dtype),
        Technique(f"{short}_fsdp{ranks}", plain_dtype, ranks=ranks),
        Technique(f"{short}_fsdp{ranks}_checkpointing", plain_dtype, checkpointing=True, ranks=ranks),
    ]


def plain_dtype(on_gpu: bool, compute_capability: Sequence[int] | None) -> str:
    """Return what the plain step computes in: bf16, or fp16 on a GPU whose matrix units lack bf16 (before 8.0)."""
    if on_gpu and compute_capability and int(compute_capability[0]) < 8:
        return "float16"
    return "bfloat16"


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return value / reference, or None where either is unknown or zero."""
    return value / reference if value and reference else None


def warmup_steps(level: Level, step_s: float) -> int:
    """Return how many steps warm the card up; none where a few steps alone take more than the level's time."""
    if step_s <= 0:
        return level.max_steps
    return 0 if _slow(level, step_s) else max(1, round(level.warmup_s / step_s))


def step_count(level: Level, step_s: float) -> int:
    """Return how many steps are timed: what fits the level's time within its least and most, of a slow card two."""
    if step_s <= 0:
        return level.max_steps
    return LEAST_STEPS if _slow(level, step_s) else min(level.max_steps, int(level.budget_s / step_s))


def _slow(level: Level, step_s: float) -> bool:
    return level.min_steps * step_s > level.budget_s


def table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return one row of text per training result: what each technique costs and buys on this card.

    Columns: ``technique tokens_per_s mfu peak_gib tokens memory note``; ``tokens`` and ``memory`` are ratios to the
    plain step of the same device.
    """
    return [_row(entry) for entry in results if entry.get("suite") == "llm_training"]


def _row(result: Mapping[str, Any]) -> dict[str, str]:
    details: Mapping[str, Any] = result.get("details") or {}
    measured = details.get("state") == "measured"
    peak = details.get("peak_memory_bytes")
    return {
        "technique": str(details.get("technique")),
        "tokens_per_s": f"{result['value']:,.0f}" if measured else "-",
        "mfu": _number(details.get("mfu"), "{:.3f}"),
        "peak_gib": _number(peak / GIB if peak else None, "{:.2f}"),
        "tokens": _number(details.get("tokens_ratio"), "{:.2f} x"),
        "memory": _number(details.get("memory_ratio"), "{:.2f} x"),
        "note": "" if measured else "does not fit into the memory",
    }


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
