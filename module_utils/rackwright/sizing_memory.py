# SPDX-License-Identifier: Apache-2.0
"""Memory that serving a model takes on each GPU, item by item.

Pure; bytes throughout. ``weights/TP + KV/TP + activation peak + runtime overhead``, on the pipeline stage that holds
most. The sources of the formulas are in ``sizing.yml`` and named at each function.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidInputError
from .sizing_formats import Format, weight_bytes
from .sizing_params import demand_known, kinds, kv_heads_per_rank, layer_parameters
from .sizing_shape import Shape

GIB = 1 << 30
#: Tokens of a cache block (vLLM 0.33.0); a sequence holds whole blocks.
BLOCK = 16
#: Tokens that servers compute at once at most: longer prompts are cut into chunks of this (vLLM's chunked prefill).
PREFILL_CHUNK = 2048
#: Bytes per logit of a sampled token: 16-bit logits, their fp32 copy and the probabilities.
_SAMPLER_BYTES = 2 + 4 + 4


@dataclass(frozen=True)
class Serving:
    """How a model is served.

    Attributes:
        context: tokens of each sequence, prompt and answer together.
        concurrency: sequences in the cache at once.
        cache_bytes: bytes of a cached element, 1 or 2.
        tensor_parallel, pipeline_parallel: GPUs that share each layer, and stages the layers are divided into.
        overhead: bytes per GPU of CUDA context, libraries, graphs, communication buffers and fragmentation.
    """

    context: int
    concurrency: int = 1
    cache_bytes: int = 2
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    overhead: int = int(1.5 * GIB)


def kv_bytes_per_token(shape: Shape, cache_bytes: int = 2) -> int:
    """Return what one token adds to the cache while no layer's window is full, over all layers and heads.

    ``2 * layers * kv_heads * head_dim * bytes``; MLA ``layers * (kv_lora_rank + rope) * bytes`` (vLLM 0.33.0
    ``v1/kv_cache_interface.py``). Layers with linear attention keep a state of fixed size instead.
    """
    return (shape.cache_layers or shape.layers) * _layer_kv(shape, cache_bytes)


def kv_bytes_per_token_global(shape: Shape, cache_bytes: int = 2) -> int:
    """Return what one token adds once every sliding window is full: only the layers that see all tokens grow."""
    layers = shape.window.global_layers if shape.window else (shape.cache_layers or shape.layers)
    return layers * _layer_kv(shape, cache_bytes)


def kv_bytes_local(shape: Shape, cache_bytes: int = 2) -> int:
    """Return what the layers with a sliding window hold of one sequence once it is full; 0 without such layers."""
    return shape.window.local_layers * shape.window.window * _layer_kv(shape, cache_bytes) if shape.window else 0


def kv_bytes(shape: Shape, tokens: int, cache_bytes: int = 2, block: int = BLOCK) -> int:
    """Return the cache of one sequence of ``tokens``, over all layers and heads.

    Local layers hold ``min(window, tokens)``, global ones all; both in whole blocks (vLLM 0.33.0 SlidingWindowSpec).
    """
    each = _layer_kv(shape, cache_bytes)
    if shape.window is None:
        return (shape.cache_layers or shape.layers) * each * _blocks(tokens, block)
    local = shape.window.local_layers * _blocks(min(shape.window.window, tokens), block)
    return each * (local + shape.window.global_layers * _blocks(tokens, block))


def kv_share(shape: Shape, tensor_parallel: int) -> float:
    """Return the part of each token's cache that one rank holds.

    ``kv_heads / TP``, replicated once there are more ranks than heads; MLA's latent is on every rank.
    """
    return 1.0 if shape.mla else kv_heads_per_rank(shape, tensor_parallel) / shape.kv_heads


def stages(layers: int, pipeline_parallel: int) -> list[range]:
    """Return the layers of every pipeline stage; an odd layer goes to a middle one, the outer ones hold tables."""
    base, extra = divmod(layers, pipeline_parallel)
    sizes = [base] * pipeline_parallel
    order = [*range(pipeline_parallel - 2, 0, -1), 0, pipeline_parallel - 1]
    for position in order[:extra]:
        sizes[position] += 1
    starts = [sum(sizes[:position]) for position in range(pipeline_parallel)]
    return [range(start, start + size) for start, size in zip(starts, sizes)]


def stage_weights(shape: Shape, form: Format, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> list[float]:
    """Return the bytes of weights on one rank of every pipeline stage.

    The first stage adds the token embedding, the last one lm_head and the final norm; a tied matrix is on both.
    """
    demand_known(shape)
    table = -(-shape.vocab // tensor_parallel) * shape.hidden
    found = []
    for position, layers in enumerate(stages(shape.layers, pipeline_parallel)):
        parts = [(layer_parameters(shape, layer, tensor_parallel), number) for layer, number in kinds(shape, layers)]
        last = position == pipeline_parallel - 1
        tables = (position == 0) + (last and not (shape.tied and position == 0))
        others = sum(part.rest * number for part, number in parts) + tables * table + (shape.hidden if last else 0)
        matrices = sum(part.matrices * number for part, number in parts)
        experts = sum(part.experts * number for part, number in parts)
        found.append(weight_bytes(form, matrices, experts, others))
    return found


def activation_bytes(shape: Shape, serving: Serving) -> int:
    """Return the peak of temporary memory: one chunk of prompts through the widest layer, or sampling.

    Derived, 16 bit: residual and normed input ``2 * T * hidden``, then the wider of ``T * (heads + 2 kv_heads) *
    head_dim`` with the attention's output and ``3 * T * intermediate``; sampling holds ``vocab`` logits per sequence.
    Servers that profile with more tokens or sequences reserve more: that is what the range of the overhead is for.
    """
    ranks = serving.tensor_parallel
    tokens = min(PREFILL_CHUNK, serving.context * serving.concurrency)
    widest = max(_attention_width(shape, ranks), _mlp_width(shape, ranks))
    forward = tokens * 2 * (2 * shape.hidden + widest)
    return max(forward, serving.concurrency * shape.vocab * _SAMPLER_BYTES)


def serving_memory(shape: Shape, form: Format, serving: Serving, weights: list[float] | None = None) -> dict[str, int]:
    """Return ``weights``, ``kv_cache``, ``activations``, ``runtime`` and their ``total`` on the fullest GPU, in bytes.

    Args:
        weights: what ``stage_weights`` returned for this split, where a search asks many times.

    Raises:
        InvalidInputError: the parameters are unknown, or context or concurrency are below 1.
    """
    if serving.context < 1 or serving.concurrency < 1:
        raise InvalidInputError(
            "size the model",
            shape.name,
            f"context {serving.context} and concurrency {serving.concurrency} must be at least 1",
            "Correct fit_context or fit_concurrency",
        )
    if weights is None:
        weights = stage_weights(shape, form, serving.tensor_parallel, serving.pipeline_parallel)
    sequence = kv_bytes(shape, serving.context, serving.cache_bytes) * kv_share(shape, serving.tensor_parallel)
    parts = stages(shape.layers, serving.pipeline_parallel)
    caches = [serving.concurrency * sequence * len(part) / shape.layers for part in parts]
    fullest = max(range(len(parts)), key=lambda position: weights[position] + caches[position])
    items = {
        "weights": round(weights[fullest]),
        "kv_cache": round(caches[fullest]),
        "activations": activation_bytes(shape, serving),
        "runtime": serving.overhead,
    }
    return {**items, "total": sum(items.values())}


def _layer_kv(shape: Shape, cache_bytes: int) -> int:
    """Bytes of one token in one layer, all heads."""
    if shape.mla:
        return (shape.mla.kv_rank + shape.mla.rope) * cache_bytes
    return 2 * shape.kv_heads * (shape.head_dim or 0) * cache_bytes


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block) * block


def _attention_width(shape: Shape, ranks: int) -> int:
    """Elements per token of queries, keys, values and the attention's output on one rank."""
    heads = -(-shape.heads // ranks)
    if shape.mla:
        return heads * (2 * (shape.mla.nope + shape.mla.rope) + 2 * shape.mla.value)
    return (2 * heads + 2 * kv_heads_per_rank(shape, ranks)) * (shape.head_dim or 0)


def _mlp_width(shape: Shape, ranks: int) -> int:
    """Elements per token of gate, up and their product on one rank; with experts, of those a token uses."""
    dense = 3 * -(-(shape.intermediate or 0) // ranks)
    if shape.moe is None:
        return dense
    routed = 3 * (shape.moe.per_token + shape.moe.shared) * -(-shape.moe.intermediate // ranks)
    return max(dense if shape.moe.first_dense else 0, routed)
