# SPDX-License-Identifier: Apache-2.0
"""Shapes, parameters, formats and memory: every row of the table recomputed, and the rules one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_formats import cache_bytes, model_bytes, names, weight_format
from ansible.module_utils.rackwright.sizing_memory import (
    GIB,
    Serving,
    activation_bytes,
    kv_bytes,
    kv_bytes_local,
    kv_bytes_per_token,
    kv_bytes_per_token_global,
    kv_share,
    serving_memory,
    stage_weights,
    stages,
)
from ansible.module_utils.rackwright.sizing_params import count
from ansible.module_utils.rackwright.sizing_shape import Shape, find_row, shape_from_row

TABLES = Path(__file__).resolve().parents[2] / "roles/gpu_stack/files/tables"
MODELS: list[dict[str, Any]] = yaml.safe_load((TABLES / "models.yml").read_text(encoding="utf-8"))["models"]
SIZING: dict[str, Any] = yaml.safe_load((TABLES / "sizing.yml").read_text(encoding="utf-8"))
KNOWN = [row for row in MODELS if row["params_total"] is not None]


def named(name: str) -> Shape:
    return shape_from_row(find_row(MODELS, name))


def weights(name: str, form: str, *split: int) -> list[float]:
    """GiB of weights per stage."""
    shape = named(name)
    return [round(size / GIB, 2) for size in stage_weights(shape, weight_format(SIZING, form, shape), *split)]


def by_id(row: dict[str, Any]) -> str:
    return str(row["id"])


def test_the_table_has_not_shrunk() -> None:
    assert len(MODELS) >= 46
    assert len(KNOWN) >= 45


@pytest.mark.parametrize("row", KNOWN, ids=by_id)
def test_parameters_of_every_row_are_recomputed_exactly(row: dict[str, Any]) -> None:
    parameters = count(shape_from_row(row))

    assert parameters.total == row["params_total"]
    assert parameters.active == row["params_active"]
    assert parameters.embedding == row["params_embedding_lm_head"]
    if "expert_params" in row:
        assert parameters.experts == row["expert_params"]


@pytest.mark.parametrize("row", KNOWN, ids=by_id)
def test_the_plain_decoder_alone_is_within_half_a_percent(row: dict[str, Any]) -> None:
    plain = shape_from_row({**row, "model_type": "llama"})

    assert count(plain).total == pytest.approx(row["params_total"], rel=0.005)


@pytest.mark.parametrize("row", MODELS, ids=by_id)
def test_cache_of_every_row_is_exact(row: dict[str, Any]) -> None:
    shape = shape_from_row(row)

    assert kv_bytes_per_token(shape) == row["kv_bytes_per_token_bf16"]
    assert kv_bytes_per_token(shape, cache_bytes("fp8")) * 2 == row["kv_bytes_per_token_bf16"]
    if "kv_bytes_per_token_bf16_global_layers_only" in row:
        assert kv_bytes_per_token_global(shape) == row["kv_bytes_per_token_bf16_global_layers_only"]
        assert kv_bytes_local(shape) == row["kv_bytes_fixed_local_layers_bf16_full_window"]
    else:
        assert kv_bytes_local(shape) == 0


def test_a_model_with_layers_nobody_described_is_unknown_not_guessed() -> None:
    shape = named("Qwen3-Next-80B-A3B")

    assert kv_bytes_per_token(shape) == 24576
    with pytest.raises(InvalidInputError, match="36 of its 48 layers have linear attention"):
        count(shape)


# sizes as in the well-known size table that sizing.yml checks; without activations, which it leaves out
@pytest.mark.parametrize("row", SIZING["size_table_check"]["rows"], ids=lambda row: row["model"])
def test_the_size_table_is_met(row: dict[str, Any]) -> None:
    shape = named(f"{row['model']}-Instruct")

    def total(form: str, context: int) -> float:
        memory = serving_memory(shape, weight_format(SIZING, form, shape), Serving(context))
        return round((memory["total"] - memory["activations"]) / GIB, 1)

    assert round(model_bytes(weight_format(SIZING, "bf16", shape), count(shape)) / GIB, 1) == row["bf16_weights"]
    assert total("bf16", 8192) == row["bf16_8k"]
    assert total("int8", 4096) == row["int8_4k"]
    assert total("int8", 32768) == row["int8_32k"]
    assert total("int4", 8192) == row["int4_8k"]


@pytest.mark.parametrize("row", KNOWN, ids=by_id)
@pytest.mark.parametrize("form", ["bf16", "int4", "q4_k_m"])
def test_one_gpu_holds_the_whole_model(row: dict[str, Any], form: str) -> None:
    shape = shape_from_row(row)
    chosen = weight_format(SIZING, form, shape)

    assert stage_weights(shape, chosen) == [pytest.approx(model_bytes(chosen, count(shape)))]


@pytest.mark.parametrize(
    ("name", "form", "split", "expected"),
    [
        ("Llama-3.1-8B-Instruct", "bf16", (1, 1), [14.96]),
        ("Llama-3.1-8B-Instruct", "fp32", (1, 1), [29.92]),
        ("Llama-3.1-8B-Instruct", "bf16", (2, 1), [7.48]),
        ("Llama-3.1-8B-Instruct", "bf16", (1, 2), [7.48, 7.48]),
        ("Llama-3.1-8B-Instruct", "int8", (1, 1), [8.46]),  # embedding and lm_head stay 16 bit
        ("Qwen2.5-7B-Instruct", "int4", (1, 1), [5.19]),
        ("gpt-oss-20b", "native", (1, 1), [12.82]),  # experts at 4.25 bits, the rest at 16
        ("gpt-oss-20b", "bf16", (1, 1), [38.96]),
        ("DeepSeek-V3", "native", (8, 1), [79.27]),  # more than an eighth: MLA's down projections are on every rank
        ("Llama-3.2-1B-Instruct", "bf16", (1, 2), [1.4, 1.4]),  # the tied matrix is on the first and on the last stage
        ("Llama-3.1-8B-Instruct", "bf16", (16, 1), [0.97]),  # 8 kv_heads on 16 ranks: each twice, or it were 0.94
    ],
)
def test_weights_per_gpu(name: str, form: str, split: tuple[int, int], expected: list[float]) -> None:
    assert weights(name, form, *split) == expected


def test_every_layer_is_on_one_stage() -> None:
    for layers in (1, 7, 61, 94):
        for parts in range(1, min(layers, 9) + 1):
            cut = stages(layers, parts)
            assert [layer for part in cut for layer in part] == list(range(layers))
            assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert [len(part) for part in stages(61, 4)] == [15, 15, 16, 15]


@pytest.mark.parametrize(
    ("name", "tokens", "cache", "expected"),
    [
        ("Llama-3.1-8B-Instruct", 16, "bf16", 16 * 131072),
        ("Llama-3.1-8B-Instruct", 17, "bf16", 32 * 131072),  # whole blocks of 16
        ("Llama-3.1-8B-Instruct", 16, "fp8", 16 * 65536),
        ("Llama-2-7b-hf", 4096, "fp16", 4096 * 524288),  # no grouped queries: four times as much
        ("DeepSeek-V3", 1024, "bf16", 1024 * 70272),
        ("gemma-3-27b-it", 512, "bf16", 512 * 507904),  # shorter than the window: all layers alike
        ("gemma-3-27b-it", 32768, "bf16", 32768 * 81920 + 436207616),
        ("gpt-oss-20b", 131072, "bf16", 131072 * 24576 + 3145728),
    ],
)
def test_cache_of_a_sequence(name: str, tokens: int, cache: str, expected: int) -> None:
    assert kv_bytes(named(name), tokens, cache_bytes(cache)) == expected


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [
        ("Llama-3.1-8B-Instruct", 1, 1),
        ("Llama-3.1-8B-Instruct", 8, 1 / 8),
        ("Llama-3.1-8B-Instruct", 16, 1 / 8),  # replicated
        ("Qwen2.5-7B-Instruct", 8, 1 / 4),
        ("DeepSeek-V3", 8, 1),  # the latent is on every rank
    ],
)
def test_share_of_the_cache(name: str, ranks: int, expected: float) -> None:
    assert kv_share(named(name), ranks) == expected


def test_memory_is_itemised_and_adds_up() -> None:
    shape = named("Llama-3.1-8B-Instruct")
    serving = Serving(context=8192, concurrency=4, tensor_parallel=2, overhead=2 * GIB)
    memory = serving_memory(shape, weight_format(SIZING, "bf16", shape), serving)

    assert memory["kv_cache"] == 4 * 8192 * 131072 // 2
    assert memory["runtime"] == 2 * GIB
    assert memory["activations"] == activation_bytes(shape, serving) == 2048 * 2 * (2 * 4096 + 3 * 7168)
    assert memory["total"] == sum(size for item, size in memory.items() if item != "total")


def test_sampling_for_many_sequences_is_the_peak_of_the_activations() -> None:
    assert activation_bytes(named("Llama-3.1-8B-Instruct"), Serving(8192, concurrency=256)) == 256 * 128256 * 10


@given(
    context=st.integers(1, 200_000), more=st.integers(0, 5000), sequences=st.integers(1, 512), extra=st.integers(0, 64)
)
def test_memory_only_grows_with_context_and_sequences(context: int, more: int, sequences: int, extra: int) -> None:
    shape = named("gemma-2-9b-it")
    form = weight_format(SIZING, "bf16", shape)
    cut = stage_weights(shape, form)

    def total(tokens: int, number: int) -> int:
        return serving_memory(shape, form, Serving(tokens, number), cut)["total"]

    assert total(context, sequences) <= total(context + more, sequences) <= total(context + more, sequences + extra)


@pytest.mark.parametrize(("context", "concurrency"), [(0, 1), (-5, 1), (8192, 0)])
def test_nothing_to_serve_is_refused(context: int, concurrency: int) -> None:
    shape = named("phi-4")

    with pytest.raises(InvalidInputError, match="must be at least 1"):
        serving_memory(shape, weight_format(SIZING, "bf16", shape), Serving(context, concurrency))


@pytest.mark.parametrize(
    ("name", "bits", "acts_on"),
    [
        ("bf16", 16, "all"),
        ("FP16", 16, "all"),
        ("int8", 8, "matrices"),
        ("awq", 4.16, "matrices"),
        ("gptq", 4.16, "matrices"),
        ("nf4", 4.5, "matrices"),
        ("nf4-dq", 4.127, "matrices"),
        ("nvfp4", 4.5, "matrices"),
        ("gguf Q4_K_M", 4.8944, "all"),
        ("q8_0", 8.5008, "all"),
        ("native", 16, "all"),
    ],
)
def test_formats(name: str, bits: float, acts_on: str) -> None:
    form = weight_format(SIZING, name, named("Llama-3.1-8B-Instruct"))

    assert (form.bits, form.acts_on) == (bits, acts_on)


def test_every_row_of_the_formats_has_a_name() -> None:
    reached = {
        weight_format(SIZING, name, named("gpt-oss-20b")).bits for name in names(SIZING) if name not in ("native",)
    }

    assert reached == {row["bits"] for row in SIZING["weight_bits_per_param"]}


@pytest.mark.parametrize(("name", "native"), [("DeepSeek-R1", "fp8"), ("gpt-oss-120b", "mxfp4"), ("phi-4", "bf16")])
def test_native_format(name: str, native: str) -> None:
    assert weight_format(SIZING, "native", named(name)).name == native


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (lambda: weight_format(SIZING, "int5", named("phi-4")), "the table of formats does not have it"),
        (lambda: weight_format(SIZING, "mxfp4", named("phi-4")), "that is the format of the experts of gpt-oss"),
        (lambda: cache_bytes("int4"), "Use one of bf16, fp16, fp8, int8"),
        (lambda: find_row(MODELS, "qwen25-7b"), "close ones are Qwen2.5-7B-Instruct"),
        (lambda: find_row(MODELS, "zzzz"), "has no such name. Use a name of the table"),
    ],
)
def test_what_is_not_known_is_refused_in_a_sentence(action: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Could not ") as caught:
        action()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["deepseek-r1", "DEEPSEEK-V3", "deepseek-ai/DeepSeek-V3", "DeepSeek-V3.1"])
def test_a_model_is_found_by_name_alias_and_repository(name: str) -> None:
    assert find_row(MODELS, name)["id"] == "DeepSeek-V3"


BY_HAND: dict[str, Any] = {
    "id": "mine",
    "layers": 32,
    "hidden": 4096,
    "heads": 32,
    "kv_heads": 8,
    "intermediate": 14336,
    "vocab": 128256,
}


def test_a_shape_by_hand_needs_only_what_matters() -> None:
    assert count(shape_from_row(BY_HAND)).total == 8030261248


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers": None}, "its shape lacks layers"),
        ({"layer": 3}, "the unknown key layer (did you mean layers?)"),
        ({"hidden": "4096"}, "hidden is '4096'"),
        ({"vocab": 0}, "vocab is 0"),
        ({"kv_heads": True}, "kv_heads is True"),
        ({"heads": 30}, "hidden is no multiple of heads"),
        ({"kv_heads": 5}, "32 heads cannot share 5 kv_heads evenly"),
        ({"intermediate": None}, "32 of its layers have an MLP without a width"),
        ({"moe": 8}, "moe is 8"),
        ({"moe": {"experts": 8}}, "moe lacks experts_per_token"),
        ({"moe": {"experts": 2, "experts_per_token": 4, "moe_intermediate": 9}}, "uses more experts"),
        ({"mla": {"kv_lora_rank": 512}}, "mla lacks qk_rope_head_dim"),
        ({"sliding_window": {"window": 128}}, "do not add up to 32 layers"),
        ({"sliding_window": {"size": 128}}, "sliding_window has the unknown key size"),
        ({"model_type": "falcon"}, "the model_type falcon is not known"),
    ],
)
def test_a_wrong_shape_is_refused_with_the_key(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Could not size the model on mine: ") as caught:
        shape_from_row({**BY_HAND, **change})
    assert sentence in str(caught.value)


def test_experts_only_where_they_are() -> None:
    shape = named("DeepSeek-V3")
    dense = replace(shape, moe=None)

    assert [shape.is_dense_layer(layer) for layer in (0, 2, 3, 60)] == [True, True, False, False]
    assert count(dense).experts == 0
    assert count(shape).routed_active * 256 == count(shape).routed * 8
