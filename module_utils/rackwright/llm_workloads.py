# SPDX-License-Identifier: Apache-2.0
"""The named workloads of the LLM benchmark: which model, how long the prompts and answers, how large the slots.

Pure. Parameters, bytes and arithmetic come from the same formulas that plan deployments (``sizing_*.py``). Weights are
random, so only shapes matter: a named workload costs exactly what the model it is shaped like costs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError
from .sizing_memory import kv_bytes_per_token
from .sizing_params import count
from .sizing_shape import Shape

#: Widths of the attention's window over the cache: one graph per width, so that a step reads little beyond its tokens.
BUCKET = 64


@dataclass(frozen=True)
class Workload:
    """One model shape with the lengths of its requests, in tokens.

    Attributes:
        prompt: tokens of each prompt.
        output: tokens of each answer, the first one included.
        slot: tokens of cache kept for each sequence; at least ``prompt + output``.
        theta: base of the rotary embedding.
    """

    name: str
    shape: Shape
    prompt: int
    output: int
    slot: int
    theta: float

    @property
    def mean_length(self) -> float:
        """Tokens that a step attends to, on average: from ``prompt + 1`` to ``prompt + output - 1``.

        The first token of an answer comes from the prompt, so an answer takes ``output - 1`` decode steps.
        """
        return self.prompt + self.output / 2


def _shape(name: str, sizes: tuple[int, int, int, int, int, int, int]) -> Shape:
    layers, hidden, heads, kv_heads, head_dim, intermediate, vocab = sizes
    return Shape(name, layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, tied=False)


#: Sizes are those of Llama-2-7b-hf, Llama-3.1-8B and Qwen2.5-7B (without its small biases) in ``models.yml``.
WORKLOADS: dict[str, Workload] = {
    load.name: load
    for load in (
        Workload(
            "llama2-7b-mha", _shape("llama2-7b-mha", (32, 4096, 32, 32, 128, 11008, 32000)), 512, 256, 1024, 10000.0
        ),
        Workload(
            "llama3-8b-gqa", _shape("llama3-8b-gqa", (32, 4096, 32, 8, 128, 14336, 128256)), 512, 256, 1024, 500000.0
        ),
        Workload("7b-gqa4", _shape("7b-gqa4", (28, 3584, 28, 4, 128, 18944, 152064)), 512, 256, 1024, 1000000.0),
        Workload("tiny", _shape("tiny", (2, 64, 4, 2, 16, 128, 256)), 32, 16, 64, 10000.0),
    )
}
DEFAULT_GPU, DEFAULT_CPU = "7b-gqa4", "tiny"


def find(name: Any) -> Workload:
    """Return a workload by name.

    Raises:
        InvalidInputError: there is none of that name.
    """
    known = WORKLOADS.get(str(name).strip())
    if known is not None:
        return known
    near = difflib.get_close_matches(str(name), WORKLOADS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InvalidInputError(
        "choose the workload",
        "llm_workload",
        f"there is no workload {name!r}{hint}",
        f"Use one of {', '.join(WORKLOADS)}",
        expected=list(WORKLOADS),
        found=name,
    )


def chosen(options: Mapping[str, Any], on_gpu: bool) -> Workload:
    """Return the workload that was asked for, or the default of the kind of device."""
    wanted = options.get("llm_workload")
    return find(wanted if wanted is not None else DEFAULT_GPU if on_gpu else DEFAULT_CPU)


def dtype_for(device: str, capability: Sequence[int] | None) -> str:
    """Return torch's data type that a device serves models in: bf16 from 8.0 on, fp16 on 7.x, else fp32."""
    if device == "cpu" or not capability or capability[0] < 7:
        return "float32"
    return "bfloat16" if capability[0] >= 8 else "float16"


def parameters(shape: Shape) -> int:
    """Return how many parameters the model has."""
    return count(shape).total


def weight_bytes(shape: Shape, bytes_each: float = 2) -> int:
    """Return the bytes that all weights occupy."""
    return round(count(shape).total * bytes_each)


def read_bytes(shape: Shape, bytes_each: float = 2) -> int:
    """Return the bytes of weights that one decode step reads: all but the embedding, a table of rows."""
    known = count(shape)
    return round((known.total - known.input_embedding) * bytes_each)


def flops_per_token(shape: Shape) -> int:
    """Return the arithmetic of one decoded token without attention: ``2 * (P - P_embedding)``."""
    known = count(shape)
    return 2 * (known.active - known.input_embedding)


def slot_bytes(workload: Workload, cache_bytes: int = 2) -> int:
    """Return the bytes of cache that one sequence occupies: its whole slot, however much of it is in use."""
    return workload.slot * kv_bytes_per_token(workload.shape, cache_bytes)


def step_bytes(workload: Workload, batch: int, weights_read: float, cache_bytes: int = 2) -> float:
    """Return what one decode step must read on average: the weights once, and the cache of every sequence."""
    return weights_read + batch * workload.mean_length * kv_bytes_per_token(workload.shape, cache_bytes)


def most_sequences(workload: Workload, memory: float, weights: float, cache_bytes: int = 2) -> int:
    """Return how many slots fit in ``memory`` bytes beside the weights; 0 where not even one does."""
    return max(0, int((memory - weights) // slot_bytes(workload, cache_bytes)))


def batches(most: int, level: str) -> list[int]:
    """Return the batch sizes of a sweep, ascending: powers of two and the largest that fits; three at ``quick``."""
    if most < 1:
        return []
    powers = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    every = sorted({*powers, most})
    if level != "quick" or len(every) <= 3:
        return every
    return [1, every[len(every) // 2], most]


def between(good: int, bad: int) -> int | None:
    """Return the batch to try after ``bad`` did not fit and ``good`` did (0: none yet): half way, or None to stop.

    Stops once the gap is an eighth of what fits: a finer search would cost minutes and move the result by little.
    """
    middle = (good + bad) // 2
    if middle <= good or middle >= bad or (bad - good) * 8 <= good:
        return None
    return middle


def buckets(workload: Workload) -> list[int]:
    """Return the widths over which decode steps attend, ascending: multiples of 64 from prompt to end, in the slot."""
    first, last = workload.prompt + 1, workload.prompt + workload.output - 1
    widths: Iterable[int] = range(-(-first // BUCKET), -(-last // BUCKET) + 1)
    return sorted({min(width * BUCKET, workload.slot) for width in widths})


def bucket_of(length: int, widths: Iterable[int]) -> int:
    """Return the smallest width that holds ``length`` tokens."""
    return min(width for width in widths if width >= length)


@dataclass(frozen=True)
class Effort:
    """How much of each thing a level wishes to time per operating point, and the seconds all of them may take."""

    steps: int
    prompts: int
    budget_s: float


#: The budget is for the sweep on one GPU, building the model and capturing graphs included.
EFFORT = {"quick": Effort(200, 20, 20.0), "standard": Effort(1000, 100, 120.0), "full": Effort(4000, 400, 450.0)}
#: On a CPU the point is that everything works and gives numbers.
MOST_ON_CPU = {"quick": 4, "standard": 8, "full": 16}


def answers(workload: Workload, wished: int, step_s: float, seconds: float) -> int:
    """Return how many whole answers to decode: ``wished`` steps or what fits in ``seconds``, at least one answer.

    Only whole ones, because a step is slower the longer the sequences are.
    """
    each = workload.output - 1
    most = -(-wished // each)
    return max(1, min(most, int(seconds / (step_s * each)))) if step_s > 0 else most


#: Prompts that are timed one by one however short the time is.
LEAST_PROMPTS = 5


def prompts(wished: int, each_s: float, seconds: float) -> int:
    """Return how many prompts to time one by one: ``wished`` or what fits in ``seconds``, at least the least."""
    return max(LEAST_PROMPTS, min(wished, int(seconds / each_s))) if each_s > 0 else wished
