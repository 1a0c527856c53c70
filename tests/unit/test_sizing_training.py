# SPDX-License-Identifier: Apache-2.0
"""Memory of training: bytes per parameter, sharding, adapters, activations, and what fits."""

from __future__ import annotations

from typing import Any

import pytest
from unit.sizing_samples import TABLES

from ansible.module_utils.rackwright import sizing, sizing_report
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.sizing_formats import model_bytes, weight_format
from ansible.module_utils.rackwright.sizing_params import count
from ansible.module_utils.rackwright.sizing_training import (
    Training,
    activation_bytes,
    adapter_parameters,
    loss_bytes,
    training_from,
    training_memory,
)

LLAMA = sizing.shape_of("Llama-3.1-8B-Instruct", TABLES.models)
SIZE = count(LLAMA).total
BF16 = weight_format(TABLES.sizing, "bf16", LLAMA)


def memory(**values: Any) -> dict[str, int]:
    return training_memory(LLAMA, BF16, training_from(values))


@pytest.mark.parametrize(
    ("values", "weights", "gradients", "optimizer"),
    [
        ({}, 2, 2, 12),  # 16 bytes per parameter
        ({"fp32_gradients": True}, 2, 4, 12),  # 18
        ({"optimizer": "sgd"}, 2, 2, 8),
        ({"optimizer": "adam8bit"}, 2, 2, 6),
        ({"master_weights": False}, 2, 2, 4),  # purely in 16 bit
        ({"master_weights": False, "optimizer": "adam8bit"}, 2, 2, 2),
        ({"data_parallel": 8}, 2, 2, 12),  # without sharding, more GPUs hold the same
        ({"data_parallel": 8, "sharding": "zero1"}, 2, 2, 1.5),
        ({"data_parallel": 8, "sharding": "zero2"}, 2, 0.25, 1.5),
        ({"data_parallel": 8, "sharding": "zero3"}, 0.25, 0.25, 1.5),
        ({"data_parallel": 8, "sharding": "fsdp"}, 0.25, 0.25, 1.5),
    ],
)
def test_bytes_per_parameter(values: dict[str, Any], weights: float, gradients: float, optimizer: float) -> None:
    found = memory(**values)

    assert found["weights"] == pytest.approx(weights * SIZE)
    assert found["gradients"] == pytest.approx(gradients * SIZE)
    assert found["optimizer"] == pytest.approx(optimizer * SIZE)
    assert found["total"] == sum(size for item, size in found.items() if item != "total")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 0),
        ({"sharding": "zero3"}, 0),  # alone, there is nobody to talk to
        ({"sharding": "zero1", "data_parallel": 8}, 1e9),
        ({"sharding": "zero3", "data_parallel": 8}, 3e9),
        ({"sharding": "fsdp", "data_parallel": 8}, 2 * 2 * (SIZE - 2 * 128256 * 4096) / 32),
        ({"method": "lora", "sharding": "zero2", "data_parallel": 8}, 2 * 41943040),
    ],
)
def test_communication_buffers(values: dict[str, Any], expected: float) -> None:
    assert memory(**values)["buffers"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("q",), 32 * 16 * (4096 + 4096)),
        (("k", "v"), 32 * 16 * 2 * (4096 + 1024)),
        (("down",), 32 * 16 * (4096 + 14336)),
        (("q", "k", "v", "o", "gate", "up", "down"), 41943040),  # the number that trainers print for rank 16
    ],
)
def test_adapters(targets: tuple[str, ...], expected: int) -> None:
    assert adapter_parameters(LLAMA, 16, targets) == expected


def test_adapters_of_experts_and_of_latent_attention() -> None:
    moe = sizing.shape_of("Qwen3-30B-A3B", TABLES.models)
    shared = sizing.shape_of("GLM-4.5-Air", TABLES.models)

    assert adapter_parameters(moe, 8, ("gate",)) == 0
    assert adapter_parameters(shared, 8, ("gate",)) == 8 * ((4096 + 10944) + 45 * (4096 + 1408))
    with pytest.raises(InvalidInputError, match="multi-head latent attention"):
        adapter_parameters(sizing.shape_of("DeepSeek-V3", TABLES.models), 8)


def test_lora_pays_for_the_adapters_only() -> None:
    found = memory(method="lora", rank=16)

    assert found["weights"] == 2 * SIZE + 2 * 41943040
    assert found["gradients"] == 2 * 41943040
    assert found["optimizer"] == 12 * 41943040


def test_qlora_has_a_quantised_base() -> None:
    base = weight_format(TABLES.sizing, "nf4-dq", LLAMA)
    found = training_memory(LLAMA, base, training_from({"method": "qlora"}))

    assert found["weights"] == pytest.approx(model_bytes(base, count(LLAMA)) + 2 * 41943040)


def test_activations() -> None:
    tokens, layer = 2 * 1024, 8 * 4096 + 4 * 40 * 128 + 8 * 14336
    kept = activation_bytes(LLAMA, training_from({"checkpointing": "none", "sequence": 1024, "micro_batch": 2}))
    again = activation_bytes(LLAMA, training_from({"checkpointing": "full", "sequence": 1024, "micro_batch": 2}))

    assert kept == tokens * 32 * layer
    assert again == tokens * (2 * 4096 * 32 + layer)


def test_a_llama_like_layer_keeps_what_the_paper_says() -> None:
    plain = sizing.shape_of("Llama-2-7b-hf", TABLES.models)
    kept = activation_bytes(plain, training_from({"checkpointing": "none", "sequence": 1}))

    assert kept == pytest.approx(34 * 4096 * 32, rel=0.11)


def test_scores_are_kept_without_flash_attention() -> None:
    with_flash = activation_bytes(LLAMA, training_from({"checkpointing": "none", "sequence": 1000}))
    without = activation_bytes(
        LLAMA, training_from({"checkpointing": "none", "sequence": 1000, "flash_attention": False})
    )

    assert without - with_flash == 1000 * 32 * 5 * 32 * 1000


def test_the_loss_holds_logits_of_the_whole_vocabulary() -> None:
    assert loss_bytes(LLAMA, training_from({"sequence": 4096})) == 4096 * 128256 * 10
    assert loss_bytes(LLAMA, training_from({"sequence": 4096, "loss_chunks": 8})) == 512 * 128256 * 10


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"rank": "8", "flash_attention": "no", "targets": "q,v"},
            Training(rank=8, flash_attention=False, targets=("q", "v")),
        ),
        ({"targets": ["all"]}, Training()),
        ({"optimizer": "SGD", "sequence": None}, Training(optimizer="sgd")),
        ({}, Training()),
    ],
)
def test_values_of_the_command_line(values: dict[str, Any], expected: Training) -> None:
    assert training_from(values) == expected


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"method": "dora"}, "method dora: it is not known. Use one of full, lora, qlora."),
        ({"optimizer": "lion"}, "optimizer lion"),
        ({"sharding": "zero4"}, "sharding zero4"),
        ({"checkpointing": "selective"}, "checkpointing selective"),
        ({"targets": ["q", "x"]}, "LoRA target x"),
        ({"rank": 0}, "rank 0: it is not positive"),
        ({"rank": "many"}, "'many' is not a whole number"),
        ({"sequence": 1.5}, "1.5 is not a whole number"),
        ({"flash_attention": "maybe"}, "'maybe' is not true or false"),
        ({"batch": 4}, "fit_training.batch: it is not known"),
        ({"overhead": 4}, "fit_training.overhead: it is not known"),
    ],
)
def test_what_cannot_be_used_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Could not size the training on ") as caught:
        training_from(values)
    assert sentence in str(caught.value)


def plan(card: str, **training: Any) -> dict[str, Any]:
    document = sizing.plan(LLAMA, sizing.Request(training=training), sizing.targets_of({}, [card], TABLES), TABLES)
    record: dict[str, Any] = document["results"][0]
    return record


@pytest.mark.parametrize(
    ("card", "training", "verdict", "gpus"),
    [
        ("h100-sxm5-80gb", {"method": "full"}, "does not fit", 8),
        ("h100-sxm5-80gb", {"method": "full", "sharding": "fsdp"}, "fits", 4),
        ("h100-sxm5-80gb", {"method": "lora"}, "fits", 1),
        ("rtx-4090", {"method": "lora"}, "does not fit", 8),
        ("rtx-4090", {"method": "lora", "loss_chunks": 8}, "marginal", 1),
        ("rtx-4090", {"method": "lora", "sharding": "fsdp"}, "fits", 2),
        ("rtx-4090", {"method": "qlora"}, "fits", 1),
        ("gb10-dgx-spark", {"method": "qlora"}, "unknown", None),
    ],
)
def test_where_training_fits(card: str, training: dict[str, Any], verdict: str, gpus: int | None) -> None:
    found = plan(card, **training)

    assert (found["verdict"], found["gpus"]) == (verdict, gpus)
    if verdict == "fits":
        assert found["memory"]["total"] <= found["memory_limit"]
        assert found["largest_micro_batch"] >= 1


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    found = plan("h100-sxm5-80gb", method="lora", sequence=1024)

    def total(batch: int) -> int:
        return memory(method="lora", sequence=1024, micro_batch=batch)["total"]

    assert total(found["largest_micro_batch"]) <= found["memory_limit"] < total(found["largest_micro_batch"] + 1)


def test_a_node_may_be_one_of_several() -> None:
    found = plan("h100-sxm5-80gb", method="full", sharding="zero3", data_parallel=64)

    assert (found["verdict"], found["gpus"], found["data_parallel"]) == ("fits", 1, 64)


def test_the_text_of_training() -> None:
    targets = sizing.targets_of({}, ["rtx-4090", "t4", "gb10-dgx-spark"], TABLES)
    text = sizing_report.text(sizing.plan(LLAMA, sizing.Request(training={"method": "qlora"}), targets, TABLES))

    assert "qlora rank 16, adamw, sharding none, checkpointing full, 1 x 2048 tokens" in text
    assert "train in fp16 with loss scaling" in text
    assert max(map(len, text.splitlines())) <= 120
