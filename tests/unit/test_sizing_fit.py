# SPDX-License-Identifier: Apache-2.0
"""Where a model fits: GPUs, splits, limits, the largest context and batch, and the other way round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.sizing_samples import TABLES, card, described, one, shape

from ansible.module_utils.rackwright import sizing, sizing_report
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_fit import largest, split_problem, splits
from ansible.module_utils.rackwright.sizing_formats import weight_format
from ansible.module_utils.rackwright.sizing_memory import Serving, serving_memory
from ansible.module_utils.rackwright.sizing_targets import Target, counts_up_to


@pytest.mark.parametrize(
    ("model", "card_id", "form", "expected"),
    [
        ("Qwen2.5-7B-Instruct", "rtx-4090", "bf16", ("fits", 1, 1)),
        ("Qwen2.5-7B-Instruct", "rtx-3060", "int4", ("fits", 1, 1)),
        ("Qwen2.5-14B-Instruct", "rtx-4090", "bf16", ("fits", 2, 2)),
        ("Qwen2.5-14B-Instruct", "rtx-4090", "int8", ("marginal", 1, 1)),
        ("Qwen2.5-32B-Instruct", "rtx-4090", "int4", ("fits", 2, 2)),  # one has 24 GB: the size table said 40 to 48
        ("Qwen2.5-32B-Instruct", "a100-pcie-40gb", "int8", ("fits", 2, 2)),
        ("Qwen2.5-32B-Instruct", "rtx-a6000", "int8", ("marginal", 1, 1)),
        ("Llama-3.1-405B-Instruct", "h100-sxm5-80gb", "fp8", ("fits", 8, 8)),
        ("Llama-3.1-405B-Instruct", "h100-sxm5-80gb", "bf16", ("does not fit", 8, 8)),
        ("gpt-oss-120b", "h100-sxm5-80gb", "native", ("marginal", 1, 1)),
        ("Qwen2.5-7B-Instruct", "gb10-dgx-spark", "bf16", ("unknown", None, None)),
        ("Qwen3-Next-80B-A3B", "b200-sxm", "bf16", ("unknown", None, None)),
    ],
)
def test_verdict_and_number_of_gpus(model: str, card_id: str, form: str, expected: tuple[Any, ...]) -> None:
    found = one(model, card_id, formats=(form,))

    assert (found["verdict"], found["gpus"], found["tensor_parallel"]) == expected
    if expected[0] == "fits":
        assert found["reason"] is None
        assert found["memory"]["total"] <= found["memory_limit"]
    else:
        assert found["reason"]


def test_a_misfit_says_what_would_do() -> None:
    found = one("Llama-3.1-405B-Instruct", "h100-sxm5-80gb", formats=("bf16",))

    assert found["reason"] == (
        "96.7 GiB on each of 8 GPUs, 64.0 GiB allowed; 16 such GPUs would do, this is more than one node"
    )
    assert (found["largest_context"], found["largest_concurrency"], found["ceiling"]) == (0, 0, None)


def test_a_marginal_fit_says_how_much_nvml_must_show() -> None:
    found = one("Qwen2.5-14B-Instruct", "rtx-4090", formats=("int8",))

    assert found["reason"] == "only where NVML shows 23.0 GiB or more; boards of this size show 22.3 to 24.0 GiB"


@pytest.mark.parametrize(
    ("model", "card_id", "wish"),
    [
        ("Llama-3.1-8B-Instruct", "rtx-4090", {}),
        ("Llama-3.1-8B-Instruct", "rtx-4090", {"kv_dtype": "fp8", "concurrency": 3, "context": 4000}),
        ("gemma-3-27b-it", "h100-sxm5-80gb", {"concurrency": 16}),
        ("Qwen3-30B-A3B", "l40s", {"formats": ("fp8",), "context": 20000}),
        ("DeepSeek-V3", "b200-sxm", {"concurrency": 4}),
    ],
)
def test_the_largest_context_and_batch_fit_and_one_more_does_not(
    model: str, card_id: str, wish: dict[str, Any]
) -> None:
    found = one(model, card_id, **wish)
    form = weight_format(TABLES.sizing, found["format"], shape(model))
    request = sizing.Request(**wish)
    serving = Serving(
        request.context,
        request.concurrency,
        1 if request.kv_dtype == "fp8" else 2,
        found["tensor_parallel"],
        found["pipeline_parallel"],
    )

    def fits(**change: int) -> bool:
        return serving_memory(shape(model), form, replace(serving, **change))["total"] <= found["memory_limit"]

    context, sequences = found["largest_context"], found["largest_concurrency"]
    assert fits(context=context)
    assert context == shape(model).context or not fits(context=context + 1)
    assert fits(concurrency=sequences)
    assert not fits(concurrency=sequences + 1)
    assert context >= request.context
    assert sequences >= request.concurrency


def test_largest_is_the_last_that_fits() -> None:
    assert [largest(100, lambda number, most=most: number <= most) for most in (0, 1, 57, 100, 200)] == [
        0,
        1,
        57,
        100,
        100,
    ]


@pytest.mark.parametrize(
    ("model", "gpus", "expected"),
    [
        ("Llama-3.1-8B-Instruct", 8, [(8, 1), (4, 2), (2, 4), (1, 8)]),
        ("Llama-3.1-8B-Instruct", 6, [(2, 3), (1, 6)]),
        ("Qwen2.5-7B-Instruct", 8, [(4, 2), (2, 4), (1, 8)]),  # 28 heads
        ("Qwen2.5-0.5B-Instruct", 4, [(2, 2), (1, 4)]),  # 14 heads
        ("DeepSeek-V3", 16, [(16, 1), (8, 2), (4, 4), (2, 8), (1, 16)]),  # MLA has no kv_heads to divide
        ("gemma-3-1b-it", 4, [(4, 1), (2, 2), (1, 4)]),  # one kv_head, repeated
    ],
)
def test_splits(model: str, gpus: int, expected: list[tuple[int, int]]) -> None:
    assert splits(shape(model), gpus) == expected


@pytest.mark.parametrize(
    ("model", "tensor", "pipeline", "sentence"),
    [
        ("Llama-3.1-8B-Instruct", 3, 1, "32 heads cannot be divided among 3 GPUs"),
        ("phi-4", 8, 1, "10 kv_heads cannot be divided or repeated among 8 GPUs"),
        ("GLM-4.5-Air", 24, 1, "an MLP of 1408 cannot be divided among 24 GPUs"),
        ("Llama-3.2-1B-Instruct", 1, 17, "16 layers are fewer than 17 stages"),
        ("Qwen3-30B-A3B", 1, 1, None),
    ],
)
def test_why_a_split_is_impossible(model: str, tensor: int, pipeline: int, sentence: str | None) -> None:
    assert split_problem(shape(model), tensor, pipeline) == sentence


def test_a_forced_split_is_used_or_refused() -> None:
    assert one("Llama-3.1-8B-Instruct", "rtx-4090", tensor_parallel=2)["gpus"] == 2
    both = one("Llama-3.1-8B-Instruct", "rtx-4090", tensor_parallel=2, pipeline_parallel=3)
    assert (both["gpus"], both["tensor_parallel"], both["pipeline_parallel"]) == (6, 2, 3)
    assert (
        one("Llama-3.1-8B-Instruct", "rtx-4090", tensor_parallel=3)["reason"]
        == "32 heads cannot be divided among 3 GPUs"
    )


def test_counts_are_powers_of_two_and_all() -> None:
    assert [counts_up_to(number) for number in (1, 2, 3, 6, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 6), (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("model", "card_id", "wish", "sentence"),
    [
        (
            "phi-4",
            "t4",
            {"formats": ("int4",), "kv_dtype": "bf16"},
            "bf16 needs compute capability 8.0 and this GPU has 7.5",
        ),
        ("phi-4", "a100-sxm4-80gb", {"formats": ("fp8",)}, "fp8 arithmetic needs compute capability 8.9"),
        ("phi-4", "a100-sxm4-80gb", {"kv_dtype": "fp8"}, "fp8 arithmetic needs compute capability 8.9"),
        ("DeepSeek-V3", "h200-sxm-141gb", {"tensor_parallel": 8}, "the latent cache is on every GPU"),
        ("Qwen3-30B-A3B", "rtx-4090", {"tensor_parallel": 8}, "4 kv_heads on 8 GPUs: each is kept 2 times"),
        ("Llama-2-7b-hf", "h100-sxm5-80gb", {}, "the context of 8192 is beyond the model's own 4096"),
    ],
)
def test_what_a_deployment_lacks_is_noted(model: str, card_id: str, wish: dict[str, Any], sentence: str) -> None:
    assert any(note.startswith(sentence) for note in one(model, card_id, **wish)["notes"])


def test_nothing_is_noted_where_nothing_is_lacking() -> None:
    assert one("phi-4", "h100-sxm5-80gb", formats=("fp8",), kv_dtype="fp8")["notes"] == []


def test_a_node_lists_every_model_of_the_table() -> None:
    target = sizing.node_target("n", {"n": described("rtx-4090", 2)}, TABLES)
    document = sizing.models_for(sizing.Request(), target, TABLES)
    able = {(row["model"], row["format"]): row for row in document["results"] if row["verdict"] == "fits"}

    assert {row["model"] for row in document["results"]} == {row["id"] for row in TABLES.models}
    assert able["Qwen2.5-7B-Instruct", "bf16"]["gpus"] == 1
    assert able["Qwen2.5-32B-Instruct", "int4"]["gpus"] == 2
    assert ("Llama-3.1-70B-Instruct", "int4") not in able
    assert able["gpt-oss-20b", "mxfp4"]["gpus"] == 1
    text = sizing_report.text(document)
    assert text.startswith("What n can run: NVIDIA GeForce RTX 4090, 24.0 GiB each, PCIe gen 4\n")
    assert "in none of these formats: DeepSeek-V3" in text
    assert "Qwen3-Next-80B-A3B: its parameters are unknown" in text


def test_the_kind_with_the_most_memory_stands_for_a_node() -> None:
    gpus = [{"model": "l4", "count": 4}, {"model": "h100-sxm5-80gb", "count": 2}]
    target = sizing.node_target("n", {"n": {"description": {"os": "debian12", "gpus": gpus}}}, TABLES)

    assert target.card.id == "h100-sxm5-80gb"


@pytest.mark.parametrize(
    ("name", "nodes", "sentence"),
    [
        ("n9", {"n": described("l4", 1)}, "the inventory has no such node. Use one of n."),
        ("n", {"n": {}}, "it has neither facts nor a description"),
        ("n", {"n": {"gpu": {"situation": "no_gpu", "devices": []}}}, "it shows no usable GPU (no_gpu)"),
        ("n", {"n": {"description": {"os": "debian12", "gpus": []}}}, "the description has no GPU of the catalogue"),
    ],
)
def test_a_node_of_which_nothing_is_known_is_refused(name: str, nodes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        sizing.node_target(name, nodes, TABLES)
    assert sentence in str(caught.value)


def test_the_text_is_never_wider_than_the_terminal_and_says_what_is_simulated() -> None:
    request = sizing.Request(formats=("bf16", "int4"), goal={"tokens_per_s": 5000, "p99_ms": 200})
    targets = sizing.targets_of({"a-node-with-quite-a-long-name": described("h200-sxm-141gb", 8)}, ["all"], TABLES)
    targets[0] = replace(targets[0], simulated=True)
    for model in ("DeepSeek-V3", "Qwen2.5-32B-Instruct", "Qwen3-Next-80B-A3B"):
        text = sizing_report.text(sizing.plan(shape(model), request, targets, TABLES))
        assert max(map(len, text.splitlines())) <= 120
        assert "(simulated)" in text


def test_a_simulated_target_stays_one() -> None:
    target = Target("n", card("l4"), (1,), "facts", "none", simulated=True)
    document = sizing.plan(shape("phi-4"), sizing.Request(formats=("int4",)), [target], TABLES)

    assert document["results"][0]["simulated"]
