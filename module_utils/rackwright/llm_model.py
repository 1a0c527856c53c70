# SPDX-License-Identifier: Apache-2.0
"""A plain decoder of the Llama family with random weights. Runs only inside a child process; torch is handed in.

RMSNorm before attention and MLP (Llama, arXiv 2302.13971), rotary embedding on halves (arXiv 2104.09864), grouped-query
attention (arXiv 2305.13245), SwiGLU (arXiv 2002.05202). Queries, keys and values are one matrix, gate and up another:
fewer and larger kernels, the same bytes and arithmetic as in the models whose shapes are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .sizing_shape import Shape

EPSILON = 1e-5
STD = 0.02

#: ``attend(q, k, v, *state)``: q is [B, heads, T, head_dim], k and v are [B, kv_heads, T, head_dim]; returns q's shape.
Attend = Callable[..., Any]


def build(
    torch: Any, shape: Shape, device: str, dtype: Any, seed: int, theta: float = 10000.0, positions: int = 4096
) -> Any:
    """Return the model on ``device`` with normal(0, 0.02) weights.

    It is created without memory and filled where it will live: no copy of the weights ever passes through the host.
    ``model(tokens)`` with int64 tokens [B, T] is the full causal forward and returns logits [B, T, vocab]; autograd can
    go through it. Blocks are in ``model.layers``; every matrix is an ``nn.Linear`` without bias.

    Args:
        positions: length of the rotary table; longer sequences are an error of the caller.
    """
    with torch.device("meta"):
        model = classes(torch)["Llama"](shape)
    model = model.to(dtype=dtype).to_empty(device=device)
    fill(torch, model, torch.Generator(device=device).manual_seed(seed))
    model.set_rotary(*rotary_table(torch, shape.head_dim or 0, positions, theta, device, dtype))
    return model


def fill(torch: Any, part: Any, generator: Any) -> None:
    """Give a model, or a part of one, its weights: norms of one, matrices of normal(0, 0.02) in their order."""
    with torch.no_grad():
        for parameter in part.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, STD, generator=generator)


def rotary_table(torch: Any, width: int, positions: int, theta: float, device: str, dtype: Any) -> tuple[Any, Any]:
    """Return cosines and sines [positions, width]; computed in float32, kept in the model's type.

    The first half of the sines is negated, so that ``x * cos + roll(x, width / 2) * sin`` rotates each pair
    ``(x[i], x[i + width / 2])`` by ``position * theta ** (-2 i / width)``.
    """
    frequency = theta ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(torch: Any, x: Any, cos: Any, sin: Any) -> Any:
    """Return ``x`` [..., T, width] rotated by tables [..., T, width]: three kernels for queries and keys together."""
    return torch.addcmul(x * cos, torch.roll(x, x.shape[-1] // 2, -1), sin)


def causal(torch: Any, gqa: bool) -> Attend:
    """Return attention of a whole prompt to itself. ``gqa``: whether this torch groups heads by itself.

    It does so in a fused kernel only for 16 bit from compute capability 8.0 on (flash, cuDNN); everything else falls to
    plain products that keep the scores of all heads in memory, where a fused kernel takes repeated heads (torch's
    sdp_utils.cpp, constraints of the efficient and of the CPU's flash kernel).
    """
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def attend(q: Any, k: Any, v: Any) -> Any:
        if q.shape[1] == k.shape[1]:
            return sdpa(q, k, v, is_causal=True)
        if gqa and _fused_groups(torch, q):
            return sdpa(q, k, v, is_causal=True, enable_gqa=True)
        return sdpa(q, grouped(k, q.shape[1]), grouped(v, q.shape[1]), is_causal=True)

    return attend


def _fused_groups(torch: Any, q: Any) -> bool:
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        return False
    return bool(torch.cuda.get_device_capability(q.device)[0] >= 8)


def grouped(x: Any, heads: int) -> Any:
    """Return keys or values [B, kv_heads, T, D] as [B, heads, T, D]: each head repeated for its group of queries."""
    batch, kv_heads, length, width = x.shape
    return x[:, :, None].expand(batch, kv_heads, heads // kv_heads, length, width).reshape(batch, heads, length, width)


def has_gqa(torch: Any) -> bool:
    """Whether ``scaled_dot_product_attention`` knows ``enable_gqa`` (torch 2.5)."""
    return "enable_gqa" in (torch.nn.functional.scaled_dot_product_attention.__doc__ or "")


_CLASSES: dict[int, tuple[Any, dict[str, Any]]] = {}


def classes(torch: Any) -> dict[str, Any]:
    """Return the module classes, made once per torch: without torch there is nothing to derive them from."""
    known = _CLASSES.get(id(torch))
    if known is None:
        norm, unset = _norm_class(torch), _unset_classes(torch)
        block = _block_classes(torch, norm, unset["Linear"])
        made = {"RMSNorm": norm, **unset, **block, "Llama": _model_class(torch, norm, block["Block"], unset)}
        known = _CLASSES[id(torch)] = (torch, made)  # held, so that no other object gets its id
    return known[1]


def _unset_classes(torch: Any) -> dict[str, Any]:
    """Linear and Embedding that leave their weights alone: initialising what has no memory imports torch's compiler."""

    class Linear(torch.nn.Linear):
        def reset_parameters(self) -> None:
            """Nothing: ``build`` fills every weight."""

    class Embedding(torch.nn.Embedding):
        def reset_parameters(self) -> None:
            """Nothing: ``build`` fills every weight."""

    return {"Linear": Linear, "Embedding": Embedding}


def _norm_class(torch: Any) -> Any:
    fused = getattr(torch.nn.functional, "rms_norm", None)

    class RMSNorm(torch.nn.Module):
        """``x / sqrt(mean(x^2) + eps) * weight``, the mean in float32 where torch has no kernel of its own."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(width))

        def forward(self, x: Any) -> Any:
            if fused is not None:
                return fused(x, (x.shape[-1],), self.weight, EPSILON)
            wide = x.float()
            return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)).type_as(x) * self.weight

    return RMSNorm


def _block_classes(torch: Any, norm: Any, linear: Any) -> dict[str, Any]:
    silu = torch.nn.functional.silu

    class Attention(torch.nn.Module):
        """Grouped-query attention with one matrix for queries, keys and values."""

        def __init__(self, shape: Shape) -> None:
            super().__init__()
            self.heads, self.kv_heads, self.width = shape.heads, shape.kv_heads, shape.head_dim or 0
            self.wqkv = linear(shape.hidden, (self.heads + 2 * self.kv_heads) * self.width, bias=False)
            self.wo = linear(self.heads * self.width, shape.hidden, bias=False)

        def forward(self, x: Any, cos: Any, sin: Any, attend: Attend, state: tuple[Any, ...]) -> Any:
            batch, length, _ = x.shape
            qkv = self.wqkv(x).view(batch, length, self.heads + 2 * self.kv_heads, self.width).transpose(1, 2)
            rotated, values = qkv.split((self.heads + self.kv_heads, self.kv_heads), 1)
            queries, keys = rotate(torch, rotated, cos, sin).split((self.heads, self.kv_heads), 1)
            mixed = attend(queries, keys, values, *state)
            return self.wo(mixed.transpose(1, 2).reshape(batch, length, self.heads * self.width))

    class MLP(torch.nn.Module):
        """SwiGLU with gate and up in one matrix."""

        def __init__(self, shape: Shape) -> None:
            super().__init__()
            inner = shape.intermediate or 0
            self.w13, self.w2 = linear(shape.hidden, 2 * inner, bias=False), linear(inner, shape.hidden, bias=False)

        def forward(self, x: Any) -> Any:
            gate, up = self.w13(x).chunk(2, -1)
            return self.w2(silu(gate) * up)

    class Block(torch.nn.Module):
        """One layer: attention and MLP, each normed before and added to what came in."""

        def __init__(self, shape: Shape) -> None:
            super().__init__()
            self.attention_norm, self.attention = norm(shape.hidden), Attention(shape)
            self.mlp_norm, self.mlp = norm(shape.hidden), MLP(shape)

        def forward(self, x: Any, cos: Any, sin: Any, attend: Attend, state: tuple[Any, ...] = ()) -> Any:
            x = x + self.attention(self.attention_norm(x), cos, sin, attend, state)
            return x + self.mlp(self.mlp_norm(x))

    return {"Attention": Attention, "MLP": MLP, "Block": Block}


def _model_class(torch: Any, norm: Any, block: Any, unset: Any) -> Any:
    class Llama(torch.nn.Module):
        """Embedding, blocks, norm and an output matrix of its own."""

        def __init__(self, shape: Shape) -> None:
            super().__init__()
            self.embed = unset["Embedding"](shape.vocab, shape.hidden)
            self.layers = torch.nn.ModuleList(block(shape) for _ in range(shape.layers))
            self.norm = norm(shape.hidden)
            self.head = unset["Linear"](shape.hidden, shape.vocab, bias=False)
            self.causal = causal(torch, has_gqa(torch))

        def set_rotary(self, cos: Any, sin: Any) -> None:
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

        def forward(self, tokens: Any) -> Any:
            length = tokens.shape[1]
            hidden = self.hidden(tokens, self.cos[:length], self.sin[:length], self.causal)
            return self.head(hidden)

        def hidden(
            self, tokens: Any, cos: Any, sin: Any, attend: Attend, states: list[tuple[Any, ...]] | None = None
        ) -> Any:
            """Return the normed output of the last layer [B, T, hidden]; ``states[i]`` goes to layer i's ``attend``."""
            x = self.embed(tokens)
            for index, layer in enumerate(self.layers):
                x = layer(x, cos, sin, attend, states[index] if states is not None else ())
            return self.norm(x)

    return Llama
