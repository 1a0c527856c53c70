# SPDX-License-Identifier: Apache-2.0
"""Where a model fits: cards, described nodes and facts, splits, limits, ceilings and wishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright import sizing, sizing_report
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_fit import largest, split_problem, splits
from ansible.module_utils.rackwright.sizing_formats import weight_format
from ansible.module_utils.rackwright.sizing_memory import GIB, Serving, serving_memory
from ansible.module_utils.rackwright.sizing_params import count
from ansible.module_utils.rackwright.sizing_speed import ceiling, peak_of, prefill_flops, read_bytes
from ansible.module_utils.rackwright.sizing_targets import Card, Target, card_of_row, counts_up_to, from_facts

DIRECTORY = Path(__file__).resolve().parents[2] / "roles/gpu_stack/files/tables"
READ = {
    name: yaml.safe_load((DIRECTORY / f"{name}.yml").read_text(encoding="utf-8"))
    for name in ("models", "sizing", "gpus")
}
TABLES = sizing.Tables(READ["models"]["models"], READ["sizing"], READ["gpus"])
GPUS = READ["gpus"]["gpus"]


def shape(name: str) -> Any:
    return sizing.shape_of(name, TABLES.models)


def card(name: str) -> Card:
    return card_of_row(next(row for row in GPUS if row["id"] == name))


def one(model: str, card_id: str, **wish: Any) -> dict[str, Any]:
    """The record of one model on one card."""
    request = sizing.Request(**wish)
    document = sizing.plan(shape(model), request, sizing.targets_of({}, [card_id], TABLES), TABLES)
    assert len(document["results"]) == 1
    record: dict[str, Any] = document["results"][0]
    return record


def described(model: str, number: int) -> dict[str, Any]:
    return {"description": {"os": "ubuntu2404", "gpus": [{"model": model, "count": number}]}}


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


# ---- what there is to run on


def device(index: int, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "index": index,
        "state": "ok",
        "name": "NVIDIA H100 80GB HBM3",
        "catalogue_id": "h100-sxm5-80gb",
        "compute_capability": "9.0",
        "memory": {"total_bytes": 81559 << 20},
        "mig": {"mode": "disabled", "instances": []},
    }
    return {**base, **more}


def facts(devices: list[dict[str, Any]], path: str = "NV18") -> dict[str, Any]:
    order = [entry["index"] for entry in devices]
    matrix = [["X" if a == b else path for b in order] for a in order]
    return {
        "situation": "ready",
        "simulated": False,
        "devices": devices,
        "topology": {"devices": order, "matrix": matrix},
    }


def test_a_node_with_facts_has_the_memory_that_nvml_showed() -> None:
    (found,) = from_facts("n1", facts([device(0), device(1)]), GPUS)

    assert found.card.memory == found.card.least_memory == 81559 << 20
    assert (found.counts, found.link, found.problem) == ((1, 2), "NVLink on every pair", None)


@pytest.mark.parametrize(("path", "link"), [("PHB", "PCIe (PHB)"), ("SYS", "PCIe (SYS)")])
def test_the_topology_says_the_link(path: str, link: str) -> None:
    (found,) = from_facts("n1", facts([device(0), device(1)], path), GPUS)

    assert found.link == link


def test_some_pairs_with_nvlink() -> None:
    known = facts([device(0), device(1), device(2)])
    known["topology"]["matrix"][0][2] = known["topology"]["matrix"][2][0] = "PXB"

    assert from_facts("n1", known, GPUS)[0].link == "NVLink on some pairs, PCIe on others"


def test_kinds_of_gpus_do_not_work_together() -> None:
    other = device(1, name="NVIDIA L40S", catalogue_id="l40s", compute_capability="8.9")
    found = from_facts("n1", facts([device(0), other, device(2)]), GPUS)

    assert [(target.card.id, target.counts) for target in found] == [("h100-sxm5-80gb", (1, 2)), ("l40s", (1,))]
    assert found[0].name != found[1].name


def test_mig_instances_stand_alone_and_their_speed_is_unknown() -> None:
    slices = [{"name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "memory_total_bytes": 40 * GIB}] * 2
    (found,) = from_facts("n1", facts([device(0, mig={"mode": "enabled", "instances": slices})]), GPUS)

    assert (found.counts, found.card.memory, found.card.bandwidth, found.card.peaks) == ((1,), 40 * GIB, None, {})


def test_an_unknown_card_has_its_memory_and_no_speed() -> None:
    strange = device(0, name="NVIDIA X1", catalogue_id=None, compute_capability="8.6")
    (found,) = from_facts("n1", facts([strange]), GPUS)

    assert (found.card.memory, found.card.bandwidth, found.card.capability) == (81559 << 20, None, (8, 6))


def test_gpus_that_do_not_answer_are_not_counted() -> None:
    (found,) = from_facts("n1", facts([device(0), device(1, state="lost")]), GPUS)
    (nothing,) = from_facts("n2", {"situation": "no_driver", "devices": [], "simulated": False}, GPUS)

    assert found.counts == (1,)
    assert nothing.problem == "it shows no usable GPU (no_driver)"


def test_nodes_come_first_and_facts_win_over_descriptions() -> None:
    nodes = {
        "a": described("rtx-4090", 2),
        "b": {"gpu": facts([device(0)]), **described("rtx-4090", 2)},
        "c": {},
    }
    found = sizing.targets_of(nodes, ["l4"], TABLES)

    assert [(target.name, target.card.id, target.origin) for target in found] == [
        ("a", "rtx-4090", "description"),
        ("b", "h100-sxm5-80gb", "facts"),
        ("c", None, "unknown"),
        ("l4", "l4", "catalogue"),
    ]
    assert found[2].problem == "it has neither facts nor a description"


def test_all_cards_are_the_whole_catalogue() -> None:
    assert len(sizing.targets_of({}, ["all"], TABLES)) == len(GPUS)


# ---- speed


def serving(**more: Any) -> Serving:
    return Serving(**{"context": 8192, **more})


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


# ---- wishes


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


# ---- the other way round, and the text


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
