# SPDX-License-Identifier: Apache-2.0
"""The shape of a language model: what its memory and its speed are computed from.

Pure. A shape comes from a row of ``models.yml``, from a mapping somebody wrote by hand with the same keys, or from a
``config.json`` (``sizing_config.py``). What a shape does not say is None and is never guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidInputError


@dataclass(frozen=True)
class Experts:
    """Mixture of experts. Layers before ``first_dense`` have an ordinary MLP; sizes in elements."""

    experts: int
    per_token: int
    intermediate: int
    shared: int = 0
    first_dense: int = 0


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (MLA): ranks and head widths in elements; without ``q_rank`` queries stay whole."""

    kv_rank: int
    rope: int
    nope: int
    value: int
    q_rank: int | None = None


@dataclass(frozen=True)
class Window:
    """Sliding-window attention: ``local_layers`` keep ``window`` tokens, ``global_layers`` keep all."""

    window: int
    local_layers: int
    global_layers: int


@dataclass(frozen=True)
class Small:
    """Parameters beside the big matrices; together less than 0.05 % of a model, kept so that totals are exact."""

    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    router_bias: bool = False
    sinks: bool = False


@dataclass(frozen=True)
class Shape:
    """A decoder-only language model. ``head_dim`` is None with MLA, ``intermediate`` where every layer has experts."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int | None
    intermediate: int | None
    vocab: int
    tied: bool
    context: int | None = None
    moe: Experts | None = None
    mla: Latent | None = None
    window: Window | None = None
    small: Small = field(default_factory=Small)
    native: str | None = None
    cache_layers: int | None = None
    unknown: str | None = None
    notes: tuple[str, ...] = ()

    def is_dense_layer(self, index: int) -> bool:
        """Whether the layer has an ordinary MLP instead of experts."""
        return self.moe is None or index < self.moe.first_dense


#: What each family adds to the plain decoder. Model types are those of ``config.json``.
FAMILIES: dict[str, Small] = {
    "llama": Small(),
    "mistral": Small(),
    "mixtral": Small(),
    "phi3": Small(),
    "qwen2": Small(qkv_bias=True),
    "qwen3": Small(qk_norm=True),
    "qwen3_moe": Small(qk_norm=True),
    "gemma2": Small(norms_per_layer=4),
    "gemma3": Small(norms_per_layer=4, qk_norm=True),
    "deepseek_v3": Small(router_bias=True),
    "gpt_oss": Small(qkv_bias=True, out_bias=True, mlp_bias=True, router_bias=True, sinks=True),
    "glm4_moe": Small(qkv_bias=True, router_bias=True),
    "glm4_moe_qk_norm": Small(qkv_bias=True, qk_norm=True, router_bias=True),
    "minimax_m2": Small(router_bias=True),
}

#: Names in the table to the family; the first that matches. A model of no family counts as the plain decoder.
_FAMILY_OF_NAME = (
    (r"Qwen2\.5-|QwQ-", "qwen2"),
    (r"Qwen3-\d+(\.\d+)?B(-A\d+B)?$", "qwen3"),
    (r"gemma-2-", "gemma2"),
    (r"gemma-3-", "gemma3"),
    (r"DeepSeek-(V3|R1)|Kimi-K2", "deepseek_v3"),
    (r"gpt-oss-", "gpt_oss"),
    (r"GLM-4\.5-Air", "glm4_moe"),
    (r"GLM-4\.", "glm4_moe_qk_norm"),
    (r"MiniMax-M2", "minimax_m2"),
)

_NEEDED = ("layers", "hidden", "heads", "kv_heads", "vocab")
_INTEGERS = (*_NEEDED, "head_dim", "intermediate", "context_config", "full_attention_layers")
_KNOWN = (
    *_INTEGERS,
    *(
        "id",
        "aliases",
        "hf_repo",
        "attention",
        "tie_embeddings",
        "moe",
        "mla",
        "sliding_window",
        "native_dtype",
        "notes",
    ),
    *(
        "params_total",
        "params_active",
        "params_embedding_lm_head",
        "kv_bytes_per_token_bf16",
        "expert_params",
        "source",
        "sources",
    ),
    *("kv_bytes_per_token_bf16_global_layers_only", "kv_bytes_fixed_local_layers_bf16_full_window", "published"),
    *("params_basis", "linear_attention_layers", "model_type"),
)


def refuse(subject: str, cause: str, next_step: str, expected: Any = None, found: Any = None) -> InvalidInputError:
    """Return the error for something that cannot be sized."""
    return InvalidInputError("size the model", subject, cause, next_step, expected=expected, found=found)


def find_row(models: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Return the row whose id, alias or repository is ``name`` (case does not matter).

    Raises:
        InvalidInputError: no row has that name; close names are suggested.
    """
    names: dict[str, Mapping[str, Any]] = {}
    for row in models:
        for known in (row["id"], *(row.get("aliases") or []), row.get("hf_repo") or row["id"]):
            names.setdefault(str(known).lower(), row)
    if name.strip().lower() in names:
        return names[name.strip().lower()]
    flat = {re.sub(r"[^a-z0-9]", "", known): str(row["id"]) for known, row in names.items()}
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    near = [row for key, row in flat.items() if wanted and wanted in key]
    near += [flat[key] for key in difflib.get_close_matches(wanted, list(flat), n=3, cutoff=0.5)]
    hint = " or ".join(list(dict.fromkeys(near))[:3])
    raise refuse(
        name,
        f"the table of models has no such name{f'; close ones are {hint}' if hint else ''}",
        "Use a name of the table, give the shape as a mapping, or the path of a config.json",
        expected=sorted({str(row["id"]) for row in names.values()}),
        found=name,
    )


def shape_from_row(row: Mapping[str, Any]) -> Shape:
    """Return the shape of a row of ``models.yml`` or of a mapping with the same keys.

    Raises:
        InvalidInputError: a key is missing, unknown, no positive integer, or contradicts another.
    """
    name = str(row.get("id") or "the model")
    _check_keys(name, row)
    head_dim, mla = row.get("head_dim"), _latent(name, row.get("mla"))
    if head_dim is None and mla is None:
        if row["hidden"] % row["heads"]:
            raise refuse(name, "it has no head_dim and hidden is no multiple of heads", "Give head_dim")
        head_dim = row["hidden"] // row["heads"]
    shape = Shape(
        name=name,
        layers=row["layers"],
        hidden=row["hidden"],
        heads=row["heads"],
        kv_heads=row["kv_heads"],
        head_dim=head_dim,
        intermediate=row.get("intermediate"),
        vocab=row["vocab"],
        tied=bool(row.get("tie_embeddings", False)),
        context=row.get("context_config"),
        moe=_experts(name, row.get("moe")),
        mla=mla,
        window=_window(name, row.get("sliding_window"), row["layers"]),
        small=_small(row),
        native=native_format(row.get("native_dtype")),
        cache_layers=row.get("full_attention_layers"),
        unknown=_unknown(row),
        notes=tuple(str(note) for note in row.get("notes") or ()),
    )
    return checked(shape)


def checked(shape: Shape) -> Shape:
    """Return the shape if its parts agree.

    Raises:
        InvalidInputError: an MLP width is missing, heads do not group, or more experts are used than there are.
    """
    dense_layers = shape.layers if shape.moe is None else shape.moe.first_dense
    if dense_layers and shape.intermediate is None:
        raise refuse(shape.name, f"{dense_layers} of its layers have an MLP without a width", "Give intermediate")
    if shape.mla is None and shape.heads % shape.kv_heads:
        raise refuse(
            shape.name,
            f"{shape.heads} heads cannot share {shape.kv_heads} kv_heads evenly",
            "Correct heads or kv_heads",
        )
    if shape.moe and (shape.moe.per_token > shape.moe.experts or shape.moe.first_dense > shape.layers):
        raise refuse(shape.name, "it uses more experts or dense layers than it has", "Correct the keys of moe")
    return shape


def native_format(text: Any) -> str | None:
    """``fp8 (e4m3, …)`` as ``fp8``, ``MXFP4 experts + bf16 rest`` as ``mxfp4``."""
    flat = str(text or "").lower()
    return next((known for known in ("mxfp4", "fp8") if flat.startswith(known)), None)


def _check_keys(name: str, row: Mapping[str, Any]) -> None:
    for key in row:
        if key not in _KNOWN:
            near = difflib.get_close_matches(str(key), _KNOWN, n=1)
            raise refuse(
                name,
                f"its shape has the unknown key {key}{f' (did you mean {near[0]}?)' if near else ''}",
                "Remove or correct it",
                expected=sorted(_KNOWN),
                found=key,
            )
    lacking = [key for key in _NEEDED if row.get(key) is None]
    if lacking:
        raise refuse(
            name, f"its shape lacks {', '.join(lacking)}", "Give them", expected=list(_NEEDED), found=sorted(row)
        )
    for key in _INTEGERS:
        _positive(name, key, row.get(key))


def _positive(name: str, key: str, value: Any, least: int = 1) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise refuse(name, f"{key} is {value!r}", f"Give a whole number of at least {least}", "a number", value)


def _part(name: str, what: str, value: Any, needed: Mapping[str, int]) -> dict[str, int]:
    """Return a nested mapping whose keys are exactly known; ``needed`` gives the least value of each."""
    if not isinstance(value, Mapping):
        raise refuse(name, f"{what} is {value!r}", f"Give a mapping with {', '.join(needed)}", list(needed), value)
    unknown = [key for key in value if key not in needed]
    if unknown:
        raise refuse(name, f"{what} has the unknown key {unknown[0]}", "Remove or correct it", list(needed), unknown)
    for key, least in needed.items():
        _positive(name, f"{what}.{key}", value.get(key), least)
    return {key: value[key] for key in needed if value.get(key) is not None}


def _experts(name: str, value: Any) -> Experts | None:
    if value is None:
        return None
    needed = {"experts": 1, "experts_per_token": 1, "moe_intermediate": 1, "shared_experts": 0, "first_k_dense": 0}
    part = _part(name, "moe", value, needed)
    for key in ("experts", "experts_per_token", "moe_intermediate"):
        if key not in part:
            raise refuse(name, f"moe lacks {key}", "Give it", list(needed), sorted(part))
    return Experts(
        part["experts"],
        part["experts_per_token"],
        part["moe_intermediate"],
        part.get("shared_experts", 0),
        part.get("first_k_dense", 0),
    )


def _latent(name: str, value: Any) -> Latent | None:
    if value is None:
        return None
    needed = {"kv_lora_rank": 1, "qk_rope_head_dim": 1, "qk_nope_head_dim": 1, "v_head_dim": 1, "q_lora_rank": 1}
    part = _part(name, "mla", value, needed)
    for key in list(needed)[:4]:
        if key not in part:
            raise refuse(name, f"mla lacks {key}", "Give it", list(needed), sorted(part))
    return Latent(
        part["kv_lora_rank"],
        part["qk_rope_head_dim"],
        part["qk_nope_head_dim"],
        part["v_head_dim"],
        part.get("q_lora_rank"),
    )


def _window(name: str, value: Any, layers: int) -> Window | None:
    if value is None:
        return None
    part = _part(name, "sliding_window", value, {"window": 1, "local_layers": 0, "global_layers": 0})
    if len(part) < 3 or part["local_layers"] + part["global_layers"] != layers:
        raise refuse(
            name,
            f"local and global layers of sliding_window do not add up to {layers} layers",
            "Give window, local_layers and global_layers",
        )
    return Window(part["window"], part["local_layers"], part["global_layers"])


def _small(row: Mapping[str, Any]) -> Small:
    family = row.get("model_type")
    if family is None:
        name = str(row.get("id") or "")
        family = next((known for pattern, known in _FAMILY_OF_NAME if re.match(pattern, name)), "llama")
    if family not in FAMILIES:
        raise refuse(str(row.get("id")), f"the model_type {family} is not known", "Use a known one", sorted(FAMILIES))
    return FAMILIES[family]


def _unknown(row: Mapping[str, Any]) -> str | None:
    """Why the totals of a model cannot be computed; None where they can."""
    layers = row.get("linear_attention_layers")
    if layers:
        return (
            f"{layers} of its {row['layers']} layers have linear attention, whose weights and state "
            "the table does not describe"
        )
    return None
