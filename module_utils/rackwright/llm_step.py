# SPDX-License-Identifier: Apache-2.0
"""One training step of a language model with what people use to make it fit and go fast. torch is handed in.

Mixed precision is ``torch.amp`` (bf16, or fp16 with a GradScaler): weights, gradients and AdamW's state stay in fp32.
Activation checkpointing is ``torch.utils.checkpoint`` with ``use_reentrant=False``, block by block. Several GPUs are
FSDP2, ``torch.distributed.fsdp.fully_shard``, public since torch 2.6 (pytorch/pytorch#141868).
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Sequence
from typing import Any

from .llm_training_plan import Technique

LEARNING_RATE = 1e-4
#: GradScaler's first scale and what it multiplies it by after a step with infinite gradients (torch.amp's defaults).
_FIRST_SCALE, _BACKOFF = 65536.0, 0.5


class UnsupportedError(Exception):
    """This torch cannot do what the technique needs."""


def checkpoint_blocks(torch: Any, blocks: Sequence[Any]) -> None:
    """Let each block keep only its input for the backward pass, and compute the rest again there."""
    checkpoint = _module(torch, "utils.checkpoint").checkpoint
    for block in blocks:
        block.forward = _checkpointed(checkpoint, block.forward)


def _checkpointed(checkpoint: Any, forward: Any) -> Any:
    def forward_again(*args: Any, **kwargs: Any) -> Any:
        # nothing in a block is random, so there is no state of a generator to keep
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return forward_again


def shard(torch: Any, model: Any, blocks: Sequence[Any], dtype: str, device_type: str) -> Any:
    """Shard the model over the group of processes, block by block and then the rest; returns the model.

    Weights, gradients and optimizer state are spread in fp32; blocks compute in ``dtype`` and gradients are reduced in
    fp32. That policy of FSDP2 takes the place of autocast.
    """
    fsdp, distributed = _module(torch, "distributed.fsdp"), _module(torch, "distributed")
    policy = fsdp.MixedPrecisionPolicy()
    if dtype != "float32":
        policy = fsdp.MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)
    # said and not left to torch, which takes the GPUs of a machine that has some
    mesh = _module(torch, "distributed.device_mesh").init_device_mesh(device_type, (distributed.get_world_size(),))
    for part in (*blocks, model):
        fsdp.fully_shard(part, mesh=mesh, mp_policy=policy)
    return model


def grad_scaler(torch: Any, device_type: str) -> Any:
    """Return a GradScaler: ``torch.amp.GradScaler`` since torch 2.3, before that the one of CUDA alone."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type, init_scale=_FIRST_SCALE, backoff_factor=_BACKOFF)
    if device_type != "cuda":
        raise UnsupportedError(f"a GradScaler for {device_type} needs torch 2.3, and this is {torch.__version__}")
    return torch.cuda.amp.GradScaler(init_scale=_FIRST_SCALE, backoff_factor=_BACKOFF)


class Step:
    """A model, its optimizer and one fixed batch, ready to take step after step.

    Args:
        model: ``model(tokens)`` returns logits ``[batch, sequence, vocab]``; its weights are in fp32 and, for a
            technique with ranks, already sharded.
        tokens: ``[batch, sequence + 1]`` of int64 on the model's device; each position predicts the next token.
    """

    def __init__(self, torch: Any, model: Any, technique: Technique, tokens: Any) -> None:
        self._torch = torch
        self._model = model
        self._device_type = str(tokens.device.type)
        self._parts = tokens.chunk(technique.micro_batches)
        self._dtype = technique.dtype
        self._autocasts = technique.dtype != "float32" and technique.ranks == 1
        on_gpu = self._device_type == "cuda"
        # the fused kernel needs no temporary copy of all weights, which would be the peak of the whole step
        options = {"fused": True} if on_gpu else {}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, **options)
        self.scaler = grad_scaler(torch, self._device_type) if technique.dtype == "float16" else None

    def run(self) -> Any:
        """Take one step and return its loss as a tensor on the device, the mean over the whole batch."""
        total = self.backward()
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def backward(self) -> Any:
        """Fill the gradients from the whole batch, part by part, and return the loss."""
        total = None
        for number, part in enumerate(self._parts, start=1):
            self._communicate(number == len(self._parts))
            with self._autocast():
                loss = self._loss(part) / len(self._parts)
            (self.scaler.scale(loss) if self.scaler is not None else loss).backward()
            total = loss.detach() if total is None else total + loss.detach()
        return total

    def skipped_steps(self) -> int:
        """Return how many steps the scaler has left out because gradients were infinite; zero without a scaler.

        The scale only falls in so short a run: it grows after 2,000 good steps.
        """
        if self.scaler is None:
            return 0
        return round(math.log(float(self.scaler.get_scale()) / _FIRST_SCALE, _BACKOFF))

    def _loss(self, part: Any) -> Any:
        # the loss in fp32, as trainers do: a softmax over a large vocabulary loses too much in 16 bit
        logits = self._model(part[:, :-1]).float()
        return self._torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())

    def _autocast(self) -> Any:
        if not self._autocasts:
            return contextlib.nullcontext()
        return self._torch.autocast(self._device_type, dtype=getattr(self._torch, self._dtype))

    def _communicate(self, last: bool) -> None:
        """With FSDP2, reduce gradients between the GPUs only once per step."""
        if hasattr(self._model, "set_requires_gradient_sync"):
            self._model.set_requires_gradient_sync(last)


def _module(torch: Any, name: str) -> Any:
    """Import a part of the torch that was handed in, which does not load all of its parts by itself."""
    return importlib.import_module(f"{torch.__name__}.{name}")
