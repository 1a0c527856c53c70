# SPDX-License-Identifier: Apache-2.0
"""Ceilings of speed, and whether a wish lies below them."""

from __future__ import annotations

from typing import Any

import pytest
from unit.sizing_samples import TABLES, card, one, serving, shape

from ansible.module_utils.rackwright import sizing
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_formats import weight_format
from ansible.module_utils.rackwright.sizing_params import count
from ansible.module_utils.rackwright.sizing_speed import ceiling, peak_of, prefill_flops, read_bytes
from ansible.module_utils.rackwright.sizing_targets import Card


def test_decode_of_one_sequence_reads_weights_and_cache() -> None:
    model, form = shape("Llama-3.1-8B-Instruct"), weight_format(TABLES.sizing, "bf16", shape("Llama-3.1-8B-Instruct"))
    top = ceiling(model, form, serving(), card("h100-sxm5-80gb"), 512)
    weights = 2 * (8030261248 - 128256 * 4096)  # the embedding is looked up, not read
    cache = 131072 * (512 + 8192) // 2  # the mean length of an answer that grows

    assert top["tpot_ms"] == pytest.approx((weights + cache) / 3350e9 * 1e3)
    assert top["tokens_per_s"] == pytest.approx(1e3 / top["tpot_ms"])
    assert top["tokens_bound"] == "memory bandwidth"


def test_many_sequences_share_the_reading_of_weights() -> None:
    model, form = shape("Llama-3.1-8B-Instruct"), weight_format(TABLES.sizing, "bf16", shape("Llama-3.1-8B-Instruct"))
    found = [
        ceiling(model, form, serving(context=512, concurrency=number), card("h100-sxm5-80gb"), 512)
        for number in (1, 32, 2048)
    ]

    assert found[0]["tokens_per_s"] * 25 < found[1]["tokens_per_s"] < found[0]["tokens_per_s"] * 32
    assert found[0]["tpot_ms"] < found[1]["tpot_ms"] < found[2]["tpot_ms"]
    gqa_bound = found[2]["tokens_per_s"]
    assert gqa_bound < 3350e9 / (131072 * 512)  # however many, every token reads its own cache


def test_tensor_parallelism_shortens_a_token_and_pipelining_does_not() -> None:
    model, form = shape("Llama-3.1-70B-Instruct"), weight_format(TABLES.sizing, "bf16", shape("Llama-3.1-70B-Instruct"))

    def at(tensor: int, pipeline: int, number: int) -> dict[str, Any]:
        split = serving(tensor_parallel=tensor, pipeline_parallel=pipeline, concurrency=number)
        return ceiling(model, form, split, card("h100-sxm5-80gb"), 512)

    assert at(4, 1, 1)["tpot_ms"] == pytest.approx(at(1, 1, 1)["tpot_ms"] / 4)
    assert at(1, 4, 1)["tpot_ms"] == pytest.approx(at(1, 1, 1)["tpot_ms"])
    assert at(1, 4, 8)["tokens_per_s"] == pytest.approx(4 * at(1, 1, 8)["tokens_per_s"])


def test_experts_are_read_as_tokens_choose_them() -> None:
    model = shape("Qwen3-30B-A3B")
    form, parameters = weight_format(TABLES.sizing, "bf16", model), count(model)
    read = [read_bytes(model, form, parameters, number) for number in (1, 4, 10_000)]
    lookup = 2 * parameters.input_embedding

    assert read[0] == pytest.approx(2 * parameters.active - lookup)
    assert read[0] < read[1] < 4 * read[0]
    assert read[2] == pytest.approx(2 * parameters.total - lookup)


def test_prefill_counts_matrices_and_attention() -> None:
    model = shape("Llama-3.1-8B-Instruct")
    matrices = 2 * (8030261248 - 2 * 128256 * 4096) * 1000
    attention = 2 * 32 * 32 * 128 * 1000**2

    assert prefill_flops(model, 1000) == pytest.approx(matrices + attention)
    assert (
        prefill_flops(shape("gpt-oss-20b"), 100_000) < 2 * 1e5 * 4.2e9 + 2 * 24 * 64 * 64 * 1e10
    )  # local layers see 128


@pytest.mark.parametrize(
    ("card_id", "form", "flops", "how"),
    [
        ("h100-sxm5-80gb", "bf16", 989e12, "bf16 peak"),
        ("h100-sxm5-80gb", "fp8", 1979e12, "fp8 peak"),
        ("h100-sxm5-80gb", "int4", 989e12, "bf16 peak"),  # widened to 16 bit before it multiplies
        ("a100-sxm4-80gb", "fp8", 312e12, "bf16 peak"),  # no fp8 arithmetic below 8.9
        ("a100-sxm4-80gb", "int8", 624e12, "int8 peak"),
        ("t4", "bf16", 65e12, "fp16 peak"),
        ("p40", "fp16", 11.8e12, "fp32 peak"),  # its fp16 is slower than its fp32
        ("rtx-3060", "bf16", 25.5e12, "16-bit peak 25.5 TFLOP/s from clock and SMs"),
        ("l20", "bf16", None, "the catalogue has no arithmetic peak for NVIDIA L20"),
    ],
)
def test_peak(card_id: str, form: str, flops: float | None, how: str) -> None:
    found = peak_of(card(card_id), weight_format(TABLES.sizing, form, shape("phi-4")))

    assert found.flops == (None if flops is None else pytest.approx(flops, rel=0.01))
    assert found.how.startswith(how)


def test_without_bandwidth_and_peak_no_speed_is_told() -> None:
    form = weight_format(TABLES.sizing, "bf16", shape("phi-4"))
    top = ceiling(shape("phi-4"), form, serving(), Card("x"), 512)

    assert (top["tokens_per_s"], top["tpot_ms"], top["ttft_ms"], top["complete"]) == (None, None, None, False)
    assert top["tokens_bound"] == "neither bandwidth nor arithmetic peak is known"


@pytest.mark.parametrize(
    ("card_id", "wish", "verdict", "terms"),
    [
        ("h100-sxm5-80gb", {"tokens_per_s": 5000, "p99_ms": 200, "memory": 0.8}, "attainable", {"attainable"}),
        ("h100-sxm5-80gb", {"tokens_per_s": 5e6}, "unattainable", {"unattainable"}),
        ("h100-sxm5-80gb", {"ttft_ms": 0.5}, "unattainable", {"unattainable"}),
        ("h100-sxm5-80gb", {"tpot_ms": 0.1, "ttft_ms": 500}, "unattainable", {"attainable", "unattainable"}),
        ("l20", {"tokens_per_s": 100}, "unknown", {"unknown"}),
        ("l20", {"tpot_ms": 0.01}, "unattainable", {"unattainable"}),  # bandwidth alone excludes it
        ("h100-sxm5-80gb", {"memory": 0.5}, "attainable", set()),
    ],
)
def test_goals(card_id: str, wish: dict[str, float], verdict: str, terms: set[str]) -> None:
    goal = one("Qwen2.5-7B-Instruct", card_id, goal=wish)["goal"]

    assert goal["verdict"] == verdict
    assert {term["verdict"] for term in goal["terms"]} == terms
    assert all(term["because"] for term in goal["terms"])


def test_a_throughput_says_how_many_sequences_reach_it() -> None:
    found = one("Qwen2.5-7B-Instruct", "h100-sxm5-80gb", goal={"tokens_per_s": 5000})
    term = found["goal"]["terms"][0]
    enough = int(term["because"].split()[1])
    form = weight_format(TABLES.sizing, "bf16", shape("Qwen2.5-7B-Instruct"))

    def rate(number: int) -> float:
        split = serving(concurrency=number, tensor_parallel=found["tensor_parallel"])
        speed: float = ceiling(shape("Qwen2.5-7B-Instruct"), form, split, card("h100-sxm5-80gb"), 512)["tokens_per_s"]
        return speed

    assert rate(enough - 1) < 5000 <= rate(enough)
    assert term["limit"] == pytest.approx(rate(found["largest_concurrency"]))


def test_throughput_and_latency_must_hold_together() -> None:
    only: dict[str, Any] = {"context": 2048, "tensor_parallel": 1, "pipeline_parallel": 1}
    alone = one("Llama-3.1-8B-Instruct", "l4", goal={"tpot_ms": 52}, **only)["goal"]
    both = one("Llama-3.1-8B-Instruct", "l4", goal={"tpot_ms": 52, "tokens_per_s": 120}, **only)["goal"]

    assert alone["verdict"] == "attainable"
    assert both["verdict"] == "unattainable"
    assert [term["verdict"] for term in both["terms"]] == ["attainable", "unattainable"]


@pytest.mark.parametrize(
    ("model", "card_id", "wish", "because"),
    [
        ("Llama-2-7b-hf", "rtx-4090", {"context": 4096}, "memory bandwidth: a cache of 2304 tokens"),
        ("Llama-3.1-8B-Instruct", "rtx-4090", {}, "memory: more sequences at once"),
        ("gemma-3-1b-it", "p40", {"context": 600}, "arithmetic: fp32 peak 11.8"),
    ],
)
def test_what_binds_a_throughput_is_named(model: str, card_id: str, wish: dict[str, Any], because: str) -> None:
    goals = {"Llama-2-7b-hf": 5000, "Llama-3.1-8B-Instruct": 1500, "gemma-3-1b-it": 1e5}
    alone = {"tensor_parallel": 1, "pipeline_parallel": 1}
    term = one(model, card_id, goal={"tokens_per_s": goals[model]}, **alone, **wish)["goal"]["terms"][0]

    assert term["verdict"] == "unattainable"
    assert term["because"].startswith(because)


def test_more_gpus_are_used_where_a_goal_needs_them() -> None:
    assert one("Qwen2.5-7B-Instruct", "rtx-4090")["gpus"] == 1
    assert one("Qwen2.5-7B-Instruct", "rtx-4090", goal={"tokens_per_s": 5000})["gpus"] == 4


def test_where_no_number_of_gpus_is_enough_the_most_are_shown() -> None:
    found = one("Qwen2.5-7B-Instruct", "h100-sxm5-80gb", goal={"tokens_per_s": 1e9})

    assert (found["gpus"], found["tensor_parallel"], found["pipeline_parallel"]) == (8, 4, 2)
    assert found["goal"]["verdict"] == "unattainable"


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"goal": {"tokens": 5}}, "on fit_goal.tokens: it is not known"),
        ({"goal": {"tokens_per_s": 0}}, "0 is no positive number"),
        ({"goal": {"p99_ms": "fast"}}, "'fast' is no number"),
        ({"goal": {"memory": 1.5}}, "the memory limit: 1.5"),
        ({"memory_limit": 0.0}, "the memory limit: 0.0"),
        ({"prompt": 9000}, "9000 tokens are not within the context of 8192"),
        ({"prompt": 0}, "0 tokens are not within"),
        ({"context": 0}, "must be at least 1"),
        ({"concurrency": -1}, "must be at least 1"),
        ({"overhead_gib": -1}, "-1 is negative"),
        ({"tensor_parallel": 0}, "fit_tensor_parallel: 0 is below 1"),
        ({"formats": ("int3",)}, "the table of formats does not have it"),
        ({"kv_dtype": "int2"}, "cache type int2"),
    ],
)
def test_a_wish_that_cannot_be_used_is_refused_in_a_sentence(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Could not [^\n]+\.$") as caught:
        one("Qwen2.5-7B-Instruct", "rtx-4090", **wish)
    assert sentence in str(caught.value)


def test_numbers_of_the_command_line_are_text() -> None:
    assert one("Qwen2.5-7B-Instruct", "rtx-4090", goal={"tokens_per_s": "50"})["goal"]["terms"][0]["wished"] == 50


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the catalogue has no such id"):
        sizing.targets_of({}, ["rtx-9090"], TABLES)
