# SPDX-License-Identifier: Apache-2.0
"""Memory that training a model takes on each GPU, item by item: full, LoRA and QLoRA, sharded or not.

Pure; bytes throughout. Data parallelism only: every GPU runs whole layers on its own micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import InvalidInputError
from .sizing_formats import Format, model_bytes
from .sizing_memory import GIB
from .sizing_params import Parameters, count
from .sizing_shape import Shape

METHODS = ("full", "lora", "qlora")
OPTIMIZERS = ("adamw", "sgd", "adam8bit")
SHARDING = ("none", "zero1", "zero2", "zero3", "fsdp")
CHECKPOINTING = ("none", "full")
#: Matrices that adapters can go to, by group; ``all`` is every linear layer outside the experts' routers.
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
#: Bytes of optimizer state per trained parameter with an fp32 master copy: 4 + m and v (4 + 4, 4, 1 + 1).
#: ZeRO, arXiv 1910.02054; EleutherAI/cookbook calc_transformer_mem.py.
_STATES = {"adamw": 12, "sgd": 8, "adam8bit": 6}
#: The same without a master copy, for training purely in 16 bit: the states have the type of the parameters.
_STATES_16_BIT = {"adamw": 4, "sgd": 2, "adam8bit": 2}
#: DeepSpeed's defaults, in elements: communication bucket, and parameters that ZeRO-3 keeps gathered.
_BUCKET, _LIVE = 5e8, 1e9
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
#: Bytes per logit of the loss: 16-bit logits, their fp32 copy and the fp32 gradient.
_LOSS_BYTES = 2 + 4 + 4


@dataclass(frozen=True)
class Training:
    """How a model is trained; see ``training_memory`` for what each value does."""

    method: str = "full"
    sequence: int = 2048
    micro_batch: int = 1
    optimizer: str = "adamw"
    master_weights: bool = True
    fp32_gradients: bool = False
    sharding: str = "none"
    data_parallel: int = 1
    checkpointing: str = "full"
    flash_attention: bool = True
    loss_chunks: int = 1
    rank: int = 16
    targets: tuple[str, ...] = TARGETS
    overhead: int = int(1.5 * GIB)


def check(training: Training) -> Training:
    """Return the training if its words are known and its numbers positive.

    Raises:
        InvalidInputError: naming the first value that cannot be used.
    """
    for what, value, known in (
        ("method", training.method, METHODS),
        ("optimizer", training.optimizer, OPTIMIZERS),
        ("sharding", training.sharding, SHARDING),
        ("checkpointing", training.checkpointing, CHECKPOINTING),
        *(("LoRA target", target, TARGETS) for target in training.targets),
    ):
        if value not in known:
            raise _refuse(f"{what} {value}", "it is not known", f"Use one of {', '.join(known)}", list(known), value)
    for what, number in (
        ("sequence", training.sequence),
        ("micro_batch", training.micro_batch),
        ("data_parallel", training.data_parallel),
        ("loss_chunks", training.loss_chunks),
        ("rank", training.rank),
    ):
        if number < 1:
            raise _refuse(f"{what} {number}", "it is not positive", "Give at least 1", 1, number)
    return training


def adapter_parameters(shape: Shape, rank: int, targets: tuple[str, ...] = TARGETS) -> int:
    """Return the parameters of LoRA adapters: ``sum(r * (d_in + d_out))`` over the targets (arXiv 2106.09685).

    Experts get no adapters, only attention, dense MLPs and shared experts: that is what trainers target by default.

    Raises:
        InvalidInputError: the model has MLA, whose projections have other names.
    """
    if shape.mla:
        raise _refuse(
            f"adapters on {shape.name}",
            "multi-head latent attention has no q, k, v and o of the usual shape",
            "Size full training, or serve it",
        )
    width = shape.head_dim or 0
    queries, keys = shape.heads * width, shape.kv_heads * width
    sizes = {
        "q": shape.hidden + queries,
        "k": shape.hidden + keys,
        "v": shape.hidden + keys,
        "o": shape.hidden + queries,
    }
    total = sum(sizes[target] for target in targets if target in sizes) * shape.layers
    mlps = sum(1 for target in targets if target not in sizes)
    for layer in range(shape.layers):
        if shape.is_dense_layer(layer):
            total += mlps * (shape.hidden + (shape.intermediate or 0))
        elif shape.moe and shape.moe.shared:
            total += mlps * (shape.hidden + shape.moe.shared * shape.moe.intermediate)
    return total * rank


def activation_bytes(shape: Shape, training: Training) -> int:
    """Return what the forward pass keeps for the backward pass.

    One layer, 16 bit and without dropout, per token: two norms' inputs and outputs ``8 * hidden``, queries, keys,
    values and the attention's output ``4 * (heads + kv_heads) * head_dim``, gate, up, activation and product ``8 *
    intermediate``. For a Llama-like layer that is the ``34 * hidden`` of Korthikanti et al. (arXiv 2205.05198); wider
    MLPs keep more. Without flash attention the scores come on top, ``5 * heads * sequence`` (same paper). Full
    checkpointing keeps each layer's input, ``2 * hidden``, and recomputes one layer at a time.
    """
    tokens = training.sequence * training.micro_batch
    layer = _layer_activation(shape, training)
    if training.checkpointing == "full":
        return tokens * (2 * shape.hidden * shape.layers + layer)
    return tokens * shape.layers * layer


def loss_bytes(shape: Shape, training: Training) -> int:
    """Return the logits of one micro-batch: 16 bit, their fp32 copy and its gradient, 10 bytes each (derived).

    With a vocabulary above 100,000 this is often more than all other activations. A loss that is computed in
    ``loss_chunks`` parts holds one part at a time (torchtune's CEWithChunkedOutputLoss has 8).
    """
    tokens = -(-training.sequence * training.micro_batch // training.loss_chunks)
    return tokens * shape.vocab * _LOSS_BYTES


def training_memory(shape: Shape, base: Format, training: Training) -> dict[str, int]:
    """Return bytes per GPU by item, and their ``total``.

    Full training: 2 bytes per parameter of weights, 2 (or 4) of gradients, 12 of AdamW's states, 16 or 18 together
    (ZeRO, arXiv 1910.02054). LoRA and QLoRA: the frozen base in its format, all that only for the adapters. ZeRO
    divides by the data-parallel degree, not by the number of GPUs: stage 1 the states, 2 also the gradients, 3 and
    FSDP also the weights.

    Args:
        base: format of the frozen weights for LoRA and QLoRA; full training is in 16 bit.
    """
    check(training)
    parameters = count(shape)
    full = training.method == "full"
    trained = parameters.total if full else adapter_parameters(shape, training.rank, training.targets)
    frozen = 0.0 if full else model_bytes(base, parameters)
    stage = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}[training.sharding]
    shards = training.data_parallel
    states = (_STATES if training.master_weights else _STATES_16_BIT)[training.optimizer]
    gradients = trained * (4 if training.fp32_gradients else 2)
    items = {
        "weights": (frozen + 2 * trained) / (shards if stage >= 3 else 1),
        "gradients": gradients / (shards if stage >= 2 else 1),
        "optimizer": trained * states / (shards if stage >= 1 else 1),
        "activations": float(activation_bytes(shape, training)),
        "loss": float(loss_bytes(shape, training)),
        "buffers": _buffers(shape, parameters, trained, training),
        "runtime": float(training.overhead),
    }
    rounded = {name: round(value) for name, value in items.items()}
    return {**rounded, "total": sum(rounded.values())}


def _buffers(shape: Shape, parameters: Parameters, trained: int, training: Training) -> float:
    """DeepSpeed's bucket of 5e8 elements and the 1e9 live parameters of ZeRO-3; FSDP gathers two layers."""
    if training.data_parallel == 1 or training.sharding == "none":
        return 0.0
    if training.sharding == "fsdp":
        return 2 * 2 * (parameters.total - parameters.embedding) / shape.layers
    bucket = 2 * min(_BUCKET, trained)
    return bucket + (2 * min(_LIVE, parameters.total) if training.sharding == "zero3" else 0.0)


def _layer_activation(shape: Shape, training: Training) -> int:
    """Bytes per token that one layer keeps for its backward pass."""
    if shape.mla:
        attention = 2 * shape.heads * (2 * (shape.mla.nope + shape.mla.rope) + 2 * shape.mla.value)
    else:
        attention = 4 * (shape.heads + shape.kv_heads) * (shape.head_dim or 0)
    mlp = shape.intermediate or 0
    if shape.moe:
        routed = (shape.moe.per_token + shape.moe.shared) * shape.moe.intermediate
        mlp = max(routed, mlp if shape.moe.first_dense else 0)
    scores = 0 if training.flash_attention else 5 * shape.heads * training.sequence
    return 8 * shape.hidden + attention + 8 * mlp + scores


def _refuse(subject: str, cause: str, next_step: str, expected: Any = None, found: Any = None) -> InvalidInputError:
    return InvalidInputError("size the training", subject, cause, next_step, expected=expected, found=found)


def training_from(values: Mapping[str, Any]) -> Training:
    """Return the training that plain values describe; absent ones keep their defaults, numbers may be text.

    Raises:
        InvalidInputError: a key is unknown or a value has the wrong shape.
    """
    kinds = {one.name: str(one.type) for one in fields(Training) if one.name != "overhead"}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            known = ", ".join(kinds)
            raise _refuse(f"fit_training.{name}", "it is not known", f"Use {known}", list(kinds), name)
        if value is not None:
            given[name] = _converted(name, value, kinds[name])
    return check(Training(**given))


def _converted(name: str, value: Any, kind: str) -> Any:
    """Values of a command line are text; lists may be written with commas."""
    if kind.startswith("tuple"):
        parts = value.split(",") if isinstance(value, str) else list(value)
        return TARGETS if "all" in parts else tuple(str(part) for part in parts)
    flat = str(value).strip().lower()
    if kind == "int" and flat.isdigit():
        return int(flat)
    if kind == "bool" and flat in (*_TRUE, *_FALSE):
        return flat in _TRUE
    if kind == "str":
        return flat
    wanted = "a whole number" if kind == "int" else "true or false"
    raise _refuse(f"fit_training.{name}", f"{value!r} is not {wanted}", f"Give {wanted}", wanted, value)
