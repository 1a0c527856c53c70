# SPDX-License-Identifier: Apache-2.0
"""Read the shape of a model from its ``config.json`` (Hugging Face), for the architectures whose fields are known.

Pure: the file's content in, a shape out. A field that changes the memory and is not understood is refused, not ignored.
The defaults used for absent fields are those of the configuration classes of transformers, named where they matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .sizing_shape import FAMILIES, Experts, Latent, Shape, Small, Window, checked, refuse

#: Model types to the family whose small parameters they have.
MODEL_TYPES = {
    "llama": "llama",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "deepseek_v3": "deepseek_v3",
    "kimi_k2": "deepseek_v3",
    "gpt_oss": "gpt_oss",
    "glm4_moe": "glm4_moe",
    "minimax_m2": "minimax_m2",
}
#: Number of experts, experts per token, width of one expert: the names differ by family.
_EXPERT_FIELDS = {
    "mixtral": ("num_local_experts", "num_experts_per_tok", "intermediate_size"),
    "qwen3_moe": ("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    "deepseek_v3": ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"),
    "gpt_oss": ("num_local_experts", "num_experts_per_tok", "intermediate_size"),
    "glm4_moe": ("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"),
    "minimax_m2": ("num_local_experts", "num_experts_per_tok", "intermediate_size"),
}
#: Fields that only some layers use in a way this file does not know: anything but these values is refused.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
    "moe_layer_freq": (1, None),
    "alt_window": (None,),
}
_TIED_BY_DEFAULT = ("gemma2", "gemma3")
#: Where the window repeats: every second layer is global (gemma2, gpt_oss), every sixth (gemma3).
_PERIOD = {"gemma2": 2, "gpt_oss": 2, "gemma3": 6}


def shape_from_config(config: Mapping[str, Any], name: str) -> Shape:
    """Return the shape that a ``config.json`` describes.

    Args:
        config: the parsed file.
        name: how to call the model; usually its path.

    Raises:
        InvalidInputError: the model type is not known, a field is missing or has a value whose meaning is not known.
    """
    kind = config.get("model_type")
    if isinstance(config.get("text_config"), Mapping):
        text = dict(config["text_config"])
        text.setdefault("model_type", kind)
        shape = shape_from_config(text, name)
        note = "only the text decoder is counted: the vision tower's size is not described by these fields"
        return replace(shape, notes=(*shape.notes, note))
    if kind not in MODEL_TYPES:
        raise refuse(
            name,
            f"its config.json has the model_type {kind}, whose fields are not known here",
            "Give the shape as a mapping",
            expected=sorted(MODEL_TYPES),
            found=kind,
        )
    family = MODEL_TYPES[str(kind)]
    _refuse_unknown_values(config, name)
    moe = _experts(config, family, name)
    return checked(
        Shape(
            name=name,
            layers=_whole(config, "num_hidden_layers", name),
            hidden=_whole(config, "hidden_size", name),
            heads=_whole(config, "num_attention_heads", name),
            kv_heads=1 if family == "deepseek_v3" else _kv_heads(config, name),
            head_dim=None if family == "deepseek_v3" else _head_dim(config, family, name),
            intermediate=_dense_width(config, moe, name),
            vocab=_whole(config, "vocab_size", name),
            tied=bool(config.get("tie_word_embeddings", family in _TIED_BY_DEFAULT)),
            context=config.get("max_position_embeddings"),
            moe=moe,
            mla=_latent(config, name) if family == "deepseek_v3" else None,
            window=_window(config, family, name),
            small=_small(config, family),
            native=_native(config, name),
            notes=_notes(config),
        )
    )


def _refuse_unknown_values(config: Mapping[str, Any], name: str) -> None:
    for field, allowed in _NEUTRAL.items():
        if config.get(field) not in allowed:
            raise refuse(
                name,
                f"its config.json has {field} = {config[field]!r}: which layers that concerns is not known here",
                "Give the shape as a mapping",
                expected=allowed[0],
                found=config[field],
            )


def _whole(config: Mapping[str, Any], field: str, name: str) -> int:
    value = config.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refuse(
            name,
            f"its config.json has {field} = {value!r}" if field in config else f"its config.json lacks {field}",
            "Use the file that was published with the model",
            "a positive whole number",
            value,
        )
    return value


def _kv_heads(config: Mapping[str, Any], name: str) -> int:
    """Without the field every head has its own key and value (LlamaConfig)."""
    field = "num_key_value_heads"
    return _whole(config, field, name) if config.get(field) is not None else _whole(config, "num_attention_heads", name)


def _head_dim(config: Mapping[str, Any], family: str, name: str) -> int:
    if config.get("head_dim") is not None:
        return _whole(config, "head_dim", name)
    hidden, heads = _whole(config, "hidden_size", name), _whole(config, "num_attention_heads", name)
    # these classes have a default of their own that is not hidden / heads
    if family in ("gemma2", "gemma3", "qwen3", "qwen3_moe", "gpt_oss", "glm4_moe") or hidden % heads:
        raise refuse(name, "its config.json lacks head_dim", "Use the file that was published with the model")
    return hidden // heads


def _experts(config: Mapping[str, Any], family: str, name: str) -> Experts | None:
    if family not in _EXPERT_FIELDS:
        strange = [field for field in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(field)]
        if strange:
            raise refuse(
                name, f"its config.json has {strange[0]}, which this model_type has not", "Give the shape as a mapping"
            )
        return None
    experts, per_token, width = (_whole(config, field, name) for field in _EXPERT_FIELDS[family])
    shared = config.get("n_shared_experts") or 0
    dense = config.get("first_k_dense_replace") or 0
    return Experts(experts, per_token, width, shared, dense)


def _dense_width(config: Mapping[str, Any], moe: Experts | None, name: str) -> int | None:
    """Width of the ordinary MLPs; None where every layer has experts."""
    if moe is not None and moe.first_dense == 0:
        return None
    return _whole(config, "intermediate_size", name)


def _latent(config: Mapping[str, Any], name: str) -> Latent:
    ranks = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    kv_rank, rope, nope, value = (_whole(config, field, name) for field in ranks)
    query = _whole(config, "q_lora_rank", name) if config.get("q_lora_rank") is not None else None
    return Latent(kv_rank, rope, nope, value, query)


def _window(config: Mapping[str, Any], family: str, name: str) -> Window | None:
    """Local and global layers, from ``layer_types`` or from the family's period; a window on every layer else."""
    size, layers = config.get("sliding_window"), _whole(config, "num_hidden_layers", name)
    if not size or config.get("use_sliding_window") is False:
        return None
    context = config.get("max_position_embeddings")
    if context and size >= context:
        return None  # wider than the context: no effect
    kinds = config.get("layer_types")
    if kinds:
        strange = set(kinds) - {"sliding_attention", "full_attention"}
        if strange or len(kinds) != layers:
            raise refuse(
                name, f"its config.json has layer_types {sorted(set(kinds))} for {layers} layers", "Correct it"
            )
        local = sum(1 for kind in kinds if kind == "sliding_attention")
        return Window(size, local, layers - local)
    if family in _PERIOD:
        period = config.get("sliding_window_pattern") or _PERIOD[family]
        return Window(size, layers - layers // period, layers // period)
    if family in ("mistral", "mixtral", "phi3"):
        return Window(size, layers, 0)
    raise refuse(
        name,
        f"its config.json has a sliding_window of {size} and does not say on which layers",
        "Add layer_types, or give the shape as a mapping",
    )


def _small(config: Mapping[str, Any], family: str) -> Small:
    small = FAMILIES[family]
    if family == "glm4_moe":
        small = replace(small, qkv_bias=bool(config.get("attention_bias")), qk_norm=bool(config.get("use_qk_norm")))
    elif family == "llama":
        bias = bool(config.get("attention_bias"))
        small = replace(small, qkv_bias=bias, out_bias=bias, mlp_bias=bool(config.get("mlp_bias")))
    return small


def _native(config: Mapping[str, Any], name: str) -> str | None:
    """The format the file's weights are in, as ``quantization_config`` says; None for 16 bit."""
    quantization = config.get("quantization_config")
    if not quantization:
        return None
    method, bits = quantization.get("quant_method"), quantization.get("bits")
    known = {"fp8": "fp8", "mxfp4": "mxfp4", "awq": "int4", "gptq": "int4"}
    if method not in known or (method in ("awq", "gptq") and bits != 4):
        raise refuse(
            name,
            f"its config.json is quantised as {method} with {bits} bits, which is not known here",
            "Name the format with fit_format and remove quantization_config",
            expected=sorted(known),
            found=method,
        )
    return known[method]


def _notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    layers = config.get("num_nextn_predict_layers")  # not loaded to serve
    return (f"{layers} layer(s) for multi-token prediction are not counted",) if layers else ()
