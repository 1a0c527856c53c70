# SPDX-License-Identifier: Apache-2.0
"""How many parameters a model has, in all, per token, and on one rank of a tensor-parallel group.

Pure. The counts are those of the released checkpoints: recomputed from the shape, they equal the published totals
(https://github.com/Lightning-AI/litgpt config table, DeepSeek-V3 config_671B.json, gpt-oss model.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from .sizing_shape import Shape, refuse


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters, by what happens to them.

    Attributes:
        matrices: weight matrices of attention and MLPs, experts not included: quantisation formats act on them.
        experts: weight matrices of all experts, shared ones included.
        embedding: token embedding and, where it is not tied, the output projection (lm_head).
        rest: norms, biases, routers, attention sinks: 16 bit in every format.
        active: what one token is computed with, embedding included.
        input_embedding: the token embedding that a step looks up but does not read; 0 where lm_head is the same matrix.
        routed_active: matrices of the routed experts that one token is computed with.
        routed: matrices of all routed experts.
    """

    matrices: int
    experts: int
    embedding: int
    rest: int
    active: int
    input_embedding: int
    routed_active: int
    routed: int

    @property
    def total(self) -> int:
        """All parameters of the model."""
        return self.matrices + self.experts + self.embedding + self.rest


def count(shape: Shape) -> Parameters:
    """Return the parameters of the model.

    Raises:
        InvalidInputError: the shape has layers of a kind nobody described (``shape.unknown``).
    """
    demand_known(shape)
    matrices = experts = rest = 0
    for layer, number in kinds(shape, range(shape.layers)):
        part = layer_parameters(shape, layer)
        matrices, experts = matrices + number * part.matrices, experts + number * part.experts
        rest += number * part.rest
    embedding = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    rest += shape.hidden
    routed, routed_active, idle_bias = _routed(shape)
    active = matrices + experts + embedding + rest - routed + routed_active - idle_bias
    lookup = 0 if shape.tied else shape.vocab * shape.hidden
    return Parameters(matrices, experts, embedding, rest, active, lookup, routed_active, routed)


def kinds(shape: Shape, layers: range) -> list[tuple[int, int]]:
    """Return one layer of each kind (dense or experts) among ``layers`` and how many are like it."""
    dense = sum(1 for layer in layers if shape.is_dense_layer(layer))
    found = [(layers[0], dense)] if dense else []
    return [*found, (layers[-1], len(layers) - dense)] if dense < len(layers) else found


def demand_known(shape: Shape) -> None:
    """Raise InvalidInputError where the parameters cannot be counted."""
    if shape.unknown:
        raise refuse(shape.name, f"its parameters are unknown: {shape.unknown}", "Choose another model")


@dataclass(frozen=True)
class Layer:
    """Parameters of one layer, or of the part of it that one rank holds; names as in ``Parameters``."""

    matrices: int
    experts: int
    rest: int


def layer_parameters(shape: Shape, index: int, tensor_parallel: int = 1) -> Layer:
    """Return what one rank of ``tensor_parallel`` holds of layer ``index``.

    Column- and row-parallel matrices are divided; key and value projections are replicated once there are more ranks
    than kv_heads; MLA's down projections, norms and routers are on every rank (vLLM 0.33.0 model code).
    """
    ranks = tensor_parallel
    attention, rest = _latent_attention(shape, ranks) if shape.mla else _attention(shape, ranks)
    rest += shape.hidden * shape.small.norms_per_layer
    if shape.is_dense_layer(index):
        width = _share(shape.intermediate or 0, ranks)
        biases = 2 * width + shape.hidden if shape.small.mlp_bias else 0
        return Layer(attention + 3 * shape.hidden * width, 0, rest + biases)
    moe = shape.moe
    assert moe is not None  # a layer that is not dense has experts
    width = _share(moe.intermediate, ranks)
    experts = (moe.experts + moe.shared) * 3 * shape.hidden * width
    rest += shape.hidden * moe.experts + (moe.experts if shape.small.router_bias else 0)
    rest += moe.experts * (2 * width + shape.hidden) if shape.small.mlp_bias else 0
    return Layer(attention, experts, rest)


def kv_heads_per_rank(shape: Shape, tensor_parallel: int) -> int:
    """``kv_heads / TP``, and 1 once there are more ranks than heads (vLLM 0.33.0 parallel config)."""
    return max(1, shape.kv_heads // tensor_parallel)


def _attention(shape: Shape, ranks: int) -> tuple[int, int]:
    """Query, key, value and output projection of grouped-query attention, and what is beside them."""
    small, width = shape.small, shape.head_dim or 0
    queries, keys = _share(shape.heads, ranks) * width, kv_heads_per_rank(shape, ranks) * width
    rest = queries + 2 * keys if small.qkv_bias else 0
    rest += shape.hidden if small.out_bias else 0
    rest += 2 * width if small.qk_norm else 0
    rest += _share(shape.heads, ranks) if small.sinks else 0
    return shape.hidden * (2 * queries + 2 * keys), rest


def _latent_attention(shape: Shape, ranks: int) -> tuple[int, int]:
    """MLA: down projections to the ranks, up projections per head, output (DeepSeek-V2, arXiv 2405.04434)."""
    mla = shape.mla
    assert mla is not None
    heads, key = _share(shape.heads, ranks), mla.nope + mla.rope
    if mla.q_rank is None:
        query, rest = shape.hidden * heads * key, 0
    else:
        query, rest = shape.hidden * mla.q_rank + mla.q_rank * heads * key, mla.q_rank
    down = shape.hidden * (mla.kv_rank + mla.rope)
    up = mla.kv_rank * heads * (mla.nope + mla.value)
    return query + down + up + heads * mla.value * shape.hidden, rest + mla.kv_rank


def _routed(shape: Shape) -> tuple[int, int, int]:
    """Matrices of all routed experts, of those one token uses, and the biases of the ones it does not use."""
    moe = shape.moe
    if moe is None:
        return 0, 0, 0
    layers = shape.layers - moe.first_dense
    one = 3 * shape.hidden * moe.intermediate
    bias = 2 * moe.intermediate + shape.hidden if shape.small.mlp_bias else 0
    idle = moe.experts - moe.per_token
    return layers * moe.experts * one, layers * moe.per_token * one, layers * idle * bias


def _share(size: int, ranks: int) -> int:
    """The largest part when ``size`` is divided among ``ranks``."""
    return -(-size // ranks)
