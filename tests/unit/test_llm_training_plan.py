# SPDX-License-Identifier: Apache-2.0
"""What the training benchmark decides to do, on which card, and what it makes of the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import llm_training_plan as plan
from ansible.module_utils.rackwright import llm_workloads
from ansible.module_utils.rackwright.llm_training_plan import GIB, Level, Size, Technique

LLAMA2 = llm_workloads.find("llama2-7b-mha").shape
LLAMA3 = llm_workloads.find("llama3-8b-gqa").shape
TINY = llm_workloads.find("tiny").shape


def test_parameters_are_those_of_the_published_models() -> None:
    # Llama-2-7b-hf and Llama-3.1-8B, from their model cards' safetensors indices
    assert plan.parameters(LLAMA2, 32) == (6738415616, 32000 * 4096)
    assert plan.parameters(LLAMA3, 32) == (8030261248, 128256 * 4096)
    whole, one = plan.parameters(LLAMA2, 32)[0], plan.parameters(LLAMA2, 1)[0]
    assert (whole - one) % 31 == 0


def test_flop_per_token_is_counted_by_hand() -> None:
    # one layer of tiny: q and o 64 x 64, k and v 64 x 32, gate, up and down 64 x 128, two norms; head and last norm
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    matmul = 2 * layer + 256 * 64 + 64
    assert plan.flops_per_token(TINY, 2, 32) == 6 * matmul + 12 * 2 * 4 * 16 * 32


@pytest.mark.parametrize(
    ("flop", "tokens_per_s", "peak", "devices", "expected"),
    [
        (40e9, 10000.0, 989.4, 1, 0.4043),
        (40e9, 20000.0, 989.4, 2, 0.4043),
        (40e9, 10000.0, None, 1, None),
        (40e9, 10000.0, 0, 1, None),
    ],
)
def test_mfu(flop: float, tokens_per_s: float, peak: float | None, devices: int, expected: float | None) -> None:
    found = plan.mfu(flop, tokens_per_s, peak, devices)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-3))


@pytest.mark.parametrize(
    ("shape", "level", "memory_gib", "size"),
    [
        (LLAMA2, "standard", 141, Size(8, 4, 2048)),
        (LLAMA2, "standard", 80, Size(8, 4, 2048)),
        (LLAMA2, "standard", 48, Size(6, 4, 2048)),
        (LLAMA2, "standard", 24, Size(2, 4, 2048)),
        (LLAMA2, "standard", 16, Size(1, 4, 2048)),
        (LLAMA2, "standard", 12, Size(1, 2, 1024)),
        (LLAMA2, "standard", 11, None),
        (LLAMA2, "quick", 24, Size(2, 4, 1024)),
        (LLAMA2, "full", 141, Size(12, 8, 2048)),
        (LLAMA2, "full", 180, Size(20, 8, 2048)),
        # a vocabulary of 128,256: 17 GB of optimizer state before the first layer
        (LLAMA3, "standard", 24, None),
        (LLAMA3, "standard", 80, Size(6, 4, 2048)),
        (LLAMA3, "standard", 94, Size(8, 4, 2048)),
        (TINY, "quick", 8, Size(2, 4, 1024)),
    ],
)
def test_the_model_fits_the_card(shape: Any, level: str, memory_gib: int, size: Size | None) -> None:
    found = plan.fit(shape, plan.CUDA_LEVELS[level], memory_gib * GIB)
    assert found == size
    if found is not None:
        room = plan.FILL * memory_gib * GIB
        assert plan.step_bytes(shape, found) <= room
        larger = [step for step in plan.LAYER_STEPS if step > found.layers]
        if larger and larger[-1] <= min(shape.layers, plan.CUDA_LEVELS[level].max_layers):
            assert plan.step_bytes(shape, Size(larger[-1], found.batch, found.sequence)) > room


def test_batch_gives_way_before_the_sequence_and_both_have_an_end() -> None:
    level = Level(1, 8, 2048, 1.0, 1.0, 1, 1)
    need = [plan.step_bytes(LLAMA2, Size(1, *pair)) / plan.FILL for pair in ((8, 2048), (4, 2048), (2, 2048), (2, 512))]
    assert plan.fit(LLAMA2, level, round(need[0]) + 1) == Size(1, 8, 2048)
    assert plan.fit(LLAMA2, level, round(need[0]) - GIB) == Size(1, 4, 2048)
    assert plan.fit(LLAMA2, level, round(need[2]) + 1) == Size(1, 2, 2048)
    assert plan.fit(LLAMA2, level, round(need[3]) + 1) == Size(1, 2, 512)
    assert plan.fit(LLAMA2, level, round(need[3]) - GIB) is None


@pytest.mark.parametrize(
    ("on_gpu", "capability", "dtype"),
    [
        (False, None, "bfloat16"),
        (True, [9, 0], "bfloat16"),
        (True, [8, 0], "bfloat16"),
        (True, [7, 5], "float16"),
        (True, [6, 0], "float16"),
        (True, None, "bfloat16"),
    ],
)
def test_the_plain_step_computes_in_what_the_card_is_made_for(
    on_gpu: bool, capability: list[int] | None, dtype: str
) -> None:
    assert plan.plain_dtype(on_gpu, capability) == dtype


def test_each_technique_differs_from_the_plain_step_in_what_its_name_says() -> None:
    chosen = plan.techniques("bfloat16", 4)
    assert chosen[0] == Technique("bf16", "bfloat16")
    assert [one.name for one in chosen] == [
        "bf16",
        "fp32",
        "fp16",
        "bf16_checkpointing",
        "bf16_accumulation4",
        "bf16_checkpointing_accumulation4",
    ]
    assert [one.name for one in plan.techniques("float16", 2)] == [
        "fp16",
        "fp32",
        "fp16_checkpointing",
        "fp16_accumulation2",
        "fp16_checkpointing_accumulation2",
    ]
    for one in (*chosen, *plan.sharded_techniques("bfloat16", 8)):
        assert one.checkpointing == ("checkpointing" in one.name)
        assert (one.micro_batches > 1) == ("accumulation" in one.name)
        assert (one.ranks == 8) == ("fsdp8" in one.name)
        record = one.record()
        assert record["grad_scaler"] == (one.dtype == "float16")
        assert record["amp"] == (None if one.name == "fp32" else one.dtype)


def test_a_reduced_model_says_so_in_its_name() -> None:
    assert plan.workload_name("llama2-7b-mha", 32, 8) == "llama2-7b-mha-l8"
    assert plan.workload_name("llama2-7b-mha", 32, 32) == "llama2-7b-mha"


@pytest.mark.parametrize(
    ("step_s", "warm", "count"),
    [(0.001, 3000, 60), (0.2, 15, 25), (0.5, 6, 10), (1.0, 3, 5), (1.01, 0, 2), (10.0, 0, 2), (0.0, 60, 60)],
)
def test_steps_within_the_level(step_s: float, warm: int, count: int) -> None:
    level = plan.CUDA_LEVELS["standard"]
    assert (plan.warmup_steps(level, step_s), plan.step_count(level, step_s)) == (warm, count)


@pytest.mark.parametrize(
    ("value", "reference", "expected"), [(2.0, 4.0, 0.5), (None, 4.0, None), (2.0, None, None), (0.0, 4.0, None)]
)
def test_ratio(value: float | None, reference: float | None, expected: float | None) -> None:
    assert plan.ratio(value, reference) == expected


def test_the_documented_sizes_are_those_that_are_chosen() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/llm-training.md").read_text(encoding="utf-8")
    header = next(line for line in page.splitlines() if line.startswith("| level, workload |"))
    cards = [int(number) for number in re.findall(r"(\d+) GiB", header)]
    rows = [line for line in page.splitlines() if re.match(r"\| `(quick|standard|full)`, ", line)]
    assert (len(cards), len(rows)) == (6, 4)
    for row in rows:
        first, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        level, workload = re.findall("`([^`]+)`", first)
        shape = llm_workloads.find(workload).shape
        sizes = [plan.fit(shape, plan.CUDA_LEVELS[level], card * GIB) for card in cards]
        assert cells == [f"{size.layers}, {size.batch} x {size.sequence}" if size else "-" for size in sizes], row


def test_the_table_says_what_each_technique_buys() -> None:
    plain = {
        "suite": "llm_training",
        "value": 12345.6,
        "details": {
            "technique": "bf16",
            "state": "measured",
            "mfu": 0.4123,
            "peak_memory_bytes": 48 * GIB,
            "tokens_ratio": None,
            "memory_ratio": None,
        },
    }
    less = {"technique": "bf16_checkpointing", "state": "measured", "peak_memory_bytes": 24 * GIB, "mfu": None}
    checkpointed = {
        "suite": "llm_training",
        "value": 9876.0,
        "details": {**less, "tokens_ratio": 0.8, "memory_ratio": 0.5},
    }
    full = {"suite": "llm_training", "value": 0.0, "details": {"technique": "fp32", "state": "out_of_memory"}}
    other = {"suite": "gemm", "value": 1.0}
    keys = ("technique", "tokens_per_s", "mfu", "peak_gib", "tokens", "memory", "note")
    assert [tuple(row[key] for key in keys) for row in plan.table([plain, other, checkpointed, full])] == [
        ("bf16", "12,346", "0.412", "48.00", "-", "-", ""),
        ("bf16_checkpointing", "9,876", "-", "24.00", "0.80 x", "0.50 x", ""),
        ("fp32", "-", "-", "-", "-", "-", "does not fit into the memory"),
    ]
