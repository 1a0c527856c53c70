# SPDX-License-Identifier: Apache-2.0
"""config.json of every known architecture gives the parameters of the released model; strange fields are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_config import MODEL_TYPES, shape_from_config
from ansible.module_utils.rackwright.sizing_memory import kv_bytes, kv_bytes_per_token
from ansible.module_utils.rackwright.sizing_params import count
from ansible.module_utils.rackwright.sizing_shape import find_row, shape_from_row

TABLES = Path(__file__).resolve().parents[2] / "roles/gpu_stack/files/tables"
MODELS: list[dict[str, Any]] = yaml.safe_load((TABLES / "models.yml").read_text(encoding="utf-8"))["models"]


def config(
    kind: str, layers: int, hidden: int, heads: int, keys: int, width: int | None, vocab: int, **more: Any
) -> Any:
    """The fields every architecture has, and what one adds."""
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": width,
        "vocab_size": vocab,
        **more,
    }


LLAMA = config("llama", 32, 4096, 32, 8, 14336, 128256, max_position_embeddings=131072, tie_word_embeddings=False)
GEMMA3 = config("gemma3_text", 62, 5376, 32, 16, 21504, 262144, head_dim=128, sliding_window=1024)
DEEPSEEK = config(
    *("deepseek_v3", 61, 7168, 128, 128, 18432, 129280),
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=256,
    num_experts_per_tok=8,
    n_shared_experts=1,
    moe_intermediate_size=2048,
    first_k_dense_replace=3,
    moe_layer_freq=1,
    num_nextn_predict_layers=1,
    quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
)
CONFIGS = {
    "Llama-3.1-8B-Instruct": LLAMA,
    "Mistral-7B-Instruct-v0.3": config("mistral", 32, 4096, 32, 8, 14336, 32768, sliding_window=None),
    "Mixtral-8x7B-Instruct-v0.1": config(
        *("mixtral", 32, 4096, 32, 8, 14336, 32000), num_local_experts=8, num_experts_per_tok=2
    ),
    "Qwen2.5-7B-Instruct": config(
        *("qwen2", 28, 3584, 28, 4, 18944, 152064), use_sliding_window=False, sliding_window=131072
    ),
    "Qwen2.5-0.5B-Instruct": config("qwen2", 24, 896, 14, 2, 4864, 151936, tie_word_embeddings=True),
    "Qwen3-8B": config("qwen3", 36, 4096, 32, 8, 12288, 151936, head_dim=128),
    "Qwen3-30B-A3B": config(
        *("qwen3_moe", 48, 2048, 32, 4, 6144, 151936),
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
    "gemma-2-9b-it": config("gemma2", 42, 3584, 16, 8, 14336, 256000, head_dim=256, sliding_window=4096),
    "gemma-3-27b-it": GEMMA3,
    "phi-4": config("phi3", 40, 5120, 40, 10, 17920, 100352, sliding_window=None),
    "DeepSeek-V3": DEEPSEEK,
    "gpt-oss-20b": config(
        *("gpt_oss", 24, 2880, 64, 8, 2880, 201088),
        head_dim=64,
        num_local_experts=32,
        num_experts_per_tok=4,
        sliding_window=128,
        layer_types=["sliding_attention", "full_attention"] * 12,
        quantization_config={"quant_method": "mxfp4"},
    ),
    "GLM-4.5-Air": config(
        *("glm4_moe", 46, 4096, 96, 8, 10944, 151552),
        head_dim=128,
        attention_bias=True,
        use_qk_norm=False,
        n_routed_experts=128,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=1408,
        first_k_dense_replace=1,
    ),
    "MiniMax-M2": config(
        *("minimax_m2", 62, 3072, 48, 8, 1536, 200064), head_dim=128, num_local_experts=256, num_experts_per_tok=8
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_the_row_of_the_table(name: str) -> None:
    row = find_row(MODELS, name)
    shape = shape_from_config(CONFIGS[name], name)

    assert count(shape).total == row["params_total"]
    assert count(shape).active == row["params_active"]
    assert kv_bytes_per_token(shape) == row["kv_bytes_per_token_bf16"]
    for tokens in (100, 50_000):
        assert kv_bytes(shape, tokens) == kv_bytes(shape_from_row(row), tokens)


def test_every_family_is_tried() -> None:
    tried = {MODEL_TYPES[entry["model_type"]] for entry in CONFIGS.values()}

    assert tried == set(MODEL_TYPES.values())


def test_quantised_weights_are_native() -> None:
    assert shape_from_config(DEEPSEEK, "x").native == "fp8"
    assert shape_from_config(CONFIGS["gpt-oss-20b"], "x").native == "mxfp4"
    assert shape_from_config({**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}, "x").native == "int4"


def test_prediction_layers_and_vision_towers_are_said() -> None:
    vision = {"model_type": "gemma3", "text_config": GEMMA3, "vision_config": {"hidden_size": 1152}}

    assert "multi-token prediction" in shape_from_config(DEEPSEEK, "x").notes[0]
    shape = shape_from_config(vision, "x")
    assert "vision tower" in shape.notes[-1]
    assert shape.tied
    assert shape.window is not None
    assert (shape.window.local_layers, shape.window.global_layers) == (52, 10)


def test_without_kv_heads_every_head_has_its_own() -> None:
    old = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}

    assert shape_from_config(old, "x").kv_heads == 32


def test_a_window_on_every_layer() -> None:
    first = config("mistral", 32, 4096, 32, 8, 14336, 32000, sliding_window=4096, max_position_embeddings=32768)
    shape = shape_from_config(first, "x")

    assert kv_bytes(shape, 32768) == kv_bytes(shape, 4096)


def test_a_window_wider_than_the_context_has_no_effect() -> None:
    wide = config("phi3", 32, 3072, 24, 8, 8192, 200064, sliding_window=262144, max_position_embeddings=131072)

    assert shape_from_config(wide, "x").window is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "the model_type mamba, whose fields are not known here"),
        ({"model_type": None}, "the model_type None"),
        ({"num_hidden_layers": None}, "num_hidden_layers = None"),
        ({"vocab_size": "big"}, "vocab_size = 'big'"),
        ({"num_local_experts": 8}, "has num_local_experts, which this model_type has not"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "quantised as gptq with 3 bits"),
        ({"quantization_config": {"quant_method": "exl9"}}, "quantised as exl9"),
        ({"sliding_window": 4096}, "does not say on which layers"),
        ({"sliding_window": 4096, "layer_types": ["full_attention"]}, "for 32 layers"),
        ({"sliding_window": 4096, "layer_types": ["linear_attention"] * 32}, "layer_types ['linear_attention']"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Could not size the model on model\.json: ") as caught:
        shape_from_config({**LLAMA, **change}, "model.json")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [0]}, "mlp_only_layers = [0]"),
        ("DeepSeek-V3", {"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        ("Qwen3-8B", {"head_dim": None}, "lacks head_dim"),
        ("DeepSeek-V3", {"kv_lora_rank": None}, "kv_lora_rank = None"),
    ],
)
def test_layers_of_another_kind_are_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        shape_from_config({**CONFIGS[name], **change}, "model.json")
    assert sentence in str(caught.value)
