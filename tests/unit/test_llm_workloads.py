# SPDX-License-Identifier: Apache-2.0
"""Shapes, bytes and plans of the LLM benchmark: tables of known numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright import llm_workloads as loads
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.measure import DTYPE_BYTES

MODELS = Path(__file__).resolve().parents[2] / "roles/gpu_stack/files/tables/models.yml"
MHA, GQA, NARROW, TINY = (loads.find(name) for name in ("llama2-7b-mha", "llama3-8b-gqa", "7b-gqa4", "tiny"))
GB = 1e9
#: Biases of queries, keys and values, which Qwen2.5-7B has and the workload of its shape does not.
QWEN_BIASES = 28 * (28 + 4 + 4) * 128


@pytest.mark.parametrize(
    ("load", "row", "beside", "read_gb", "slot_mib"),
    [
        (MHA, "Llama-2-7b-hf", 0, 13.2, 512),
        (GQA, "Llama-3.1-8B-Instruct", 0, 15.0, 128),
        (NARROW, "Qwen2.5-7B-Instruct", QWEN_BIASES, 14.1, 56),
    ],
)
def test_a_workload_costs_what_the_model_of_its_shape_costs(
    load: loads.Workload, row: str, beside: int, read_gb: float, slot_mib: int
) -> None:
    rows = {one["id"]: one for one in yaml.safe_load(MODELS.read_text(encoding="utf-8"))["models"]}

    assert loads.parameters(load.shape) + beside == rows[row]["params_total"]
    assert loads.weight_bytes(load.shape) == 2 * loads.parameters(load.shape)
    assert round(loads.read_bytes(load.shape) / GB, 1) == read_gb
    assert loads.slot_bytes(load) == slot_mib << 20
    assert loads.slot_bytes(load) // load.slot == rows[row]["kv_bytes_per_token_bf16"]
    assert loads.flops_per_token(load.shape) == loads.read_bytes(load.shape)  # 2 FLOP and 2 bytes per parameter


def test_lengths_are_those_the_attainability_table_is_about() -> None:
    for load in (MHA, GQA, NARROW):
        assert (load.prompt, load.output, load.slot) == (512, 256, 1024)
        assert load.mean_length == 640


@pytest.mark.parametrize("load", loads.WORKLOADS.values(), ids=lambda load: load.name)
def test_every_workload_can_be_run(load: loads.Workload) -> None:
    assert load.prompt + load.output <= load.slot
    assert load.shape.heads % load.shape.kv_heads == 0
    assert load.output > 5, "capturing a step runs four steps from the prompt on"
    lengths = range(load.prompt + 1, load.prompt + load.output)
    assert sum(lengths) / len(lengths) == load.mean_length
    widths = loads.buckets(load)
    assert widths == sorted(set(widths))
    for length in lengths:
        width = loads.bucket_of(length, widths)
        assert length <= width <= min(load.slot, length + loads.BUCKET - 1)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("7b-gqa", "did you mean 7b-gqa4?"), ("gpt-5", "Use one of llama2-7b-mha"), (7, "no workload 7"), ("", "")],
)
def test_an_unknown_workload_is_refused_by_name(wanted: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        loads.find(wanted)
    assert said in str(caught.value)
    assert caught.value.expected == list(loads.WORKLOADS)


@pytest.mark.parametrize(
    ("options", "on_gpu", "name"),
    [
        ({}, False, "tiny"),
        ({}, True, "7b-gqa4"),
        ({"llm_workload": None}, True, "7b-gqa4"),
        ({"llm_workload": "llama2-7b-mha"}, True, "llama2-7b-mha"),
        ({"llm_workload": " tiny "}, True, "tiny"),
    ],
)
def test_the_workload_is_the_asked_one_or_that_of_the_device(options: Any, on_gpu: bool, name: str) -> None:
    assert loads.chosen(options, on_gpu).name == name


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cpu", None, "float32"),
        ("cuda:0", None, "float32"),
        ("cuda:0", [6, 1], "float32"),
        ("cuda:0", [7, 5], "float16"),
        ("cuda:0", [8, 0], "bfloat16"),
        ("cuda:0", [12, 0], "bfloat16"),
    ],
)
def test_the_data_type_is_what_the_device_serves_in(device: str, capability: Any, dtype: str) -> None:
    assert loads.dtype_for(device, capability) == dtype
    assert dtype in DTYPE_BYTES


@pytest.mark.parametrize(
    ("memory_gb", "most"),
    [(0, 0), (13.4, 0), (13.47 + 0.53, 0), (13.48 + 0.537, 1), (64.0 + 13.48, 119)],
)
def test_slots_fill_what_the_weights_leave(memory_gb: float, most: int) -> None:
    weights = loads.weight_bytes(MHA.shape)
    assert loads.most_sequences(MHA, memory_gb * GB, weights) == most


@pytest.mark.parametrize(
    ("most", "level", "expected"),
    [
        (0, "standard", []),
        (1, "standard", [1]),
        (2, "quick", [1, 2]),
        (102, "standard", [1, 2, 4, 8, 16, 32, 64, 102]),
        (64, "full", [1, 2, 4, 8, 16, 32, 64]),
        (102, "quick", [1, 16, 102]),
    ],
)
def test_batches_double_up_to_the_largest(most: int, level: str, expected: list[int]) -> None:
    assert loads.batches(most, level) == expected


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [(64, 102, 83), (0, 8, 4), (0, 1, None), (0, 2, 1), (1, 2, None), (64, 72, None), (64, 73, 68), (5, 5, None)],
)
def test_after_too_large_a_batch_half_way_is_tried(good: int, bad: int, expected: int | None) -> None:
    assert loads.between(good, bad) == expected


def test_halving_always_ends() -> None:
    for good in range(0, 70):
        bad, tries = 200, 0
        while (next_bad := loads.between(good, bad)) is not None:
            assert good < next_bad < bad
            bad, tries = next_bad, tries + 1
        assert tries <= 8


@pytest.mark.parametrize(
    ("wished", "step_s", "seconds", "expected"),
    [(1000, 0.001, 100, 4), (200, 0.001, 100, 1), (1000, 0.1, 60, 2), (1000, 1.0, 10, 1), (1000, 0.0, 1, 4)],
)
def test_whole_answers_are_decoded_within_the_time(wished: int, step_s: float, seconds: float, expected: int) -> None:
    assert loads.answers(MHA, wished, step_s, seconds) == expected


def test_standard_wishes_for_a_thousand_steps() -> None:
    assert loads.answers(MHA, loads.EFFORT["standard"].steps, 1e-3, 1e9) * (MHA.output - 1) >= 1000
    assert set(loads.EFFORT) == set(loads.MOST_ON_CPU) == {"quick", "standard", "full"}


@pytest.mark.parametrize(("each_s", "seconds", "expected"), [(0.01, 10, 100), (1.0, 20, 20), (1.0, 0, 5), (1.0, -3, 5)])
def test_prompts_are_timed_within_the_time_but_never_too_few(each_s: float, seconds: float, expected: int) -> None:
    assert loads.prompts(100, each_s, seconds) == expected


def test_a_step_reads_weights_once_and_every_sequences_cache() -> None:
    short = replace(MHA, prompt=100, output=100)
    assert loads.step_bytes(short, 3, 1000.0) == 1000 + 3 * 150 * 524288
