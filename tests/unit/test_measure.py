# SPDX-License-Identifier: Apache-2.0
"""Statistics hold for any timings, not only for the ones somebody thought of."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible.module_utils.rackwright import benchmark_levels, benchmark_plan, measure
from ansible.module_utils.rackwright.benchmark_levels import GIB, MIB
from ansible.module_utils.rackwright.errors import InvalidInputError

positive = st.floats(min_value=1e-9, max_value=1e9)
samples = st.lists(positive, min_size=1, max_size=200)


@given(samples)
def test_distribution_is_ordered_and_within_the_samples(values: list[float]) -> None:
    result = measure.summarize(values)
    order = [result[key] for key in ("min", "p5", "median", "p95", "max")]
    assert order == sorted(order)
    assert result["min"] == min(values)
    assert result["max"] == max(values)
    assert result["samples"] == len(values)
    assert result["spread"] >= 0


@given(samples, st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(values: list[float], random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert measure.summarize(shuffled) == measure.summarize(values)


@given(positive, st.integers(min_value=1, max_value=50))
def test_equal_samples_have_no_spread(value: float, count: int) -> None:
    result = measure.summarize([value] * count)
    assert result["spread"] == 0
    assert result["median"] == value


@given(samples, st.floats(min_value=0, max_value=1))
def test_percentile_lies_between_neighbours(values: list[float], fraction: float) -> None:
    ordered = sorted(values)
    value = measure.percentile(ordered, fraction)
    position = fraction * (len(ordered) - 1)
    assert ordered[math.floor(position)] <= value <= ordered[math.ceil(position)]


def test_percentiles_of_a_known_series() -> None:
    result = measure.summarize([float(value) for value in range(1, 102)])
    assert (result["p5"], result["median"], result["p95"]) == (6.0, 51.0, 96.0)
    assert result["spread"] == pytest.approx(90 / 51)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")], [0.0], [1.0, -1.0]])
def test_values_that_are_no_measurement_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"sample"):
        measure.summarize(values)


@pytest.mark.parametrize("seconds", [[0.0], [1.0, float("nan")], [-1.0]])
def test_timings_that_are_no_time_are_refused(seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="timing"):
        measure.rates(seconds, 1.0, 1.0)


@given(st.lists(positive, min_size=1), st.floats(min_value=1, max_value=1e15))
def test_a_rate_times_its_time_is_the_work(seconds: list[float], work: float) -> None:
    for second, rate in zip(seconds, measure.rates(seconds, work, 1.0)):
        assert rate * second == pytest.approx(work)


def test_work_of_one_product() -> None:
    assert measure.gemm_flop(8192, 8192, 8192) == 1_099_511_627_776
    assert measure.gemm_bytes(8192, 8192, 8192, "bfloat16") == 3 * 8192 * 8192 * 2
    assert measure.gemm_bytes(1024, 1024, 1024, "int8") == (2 + 4) * 1024 * 1024
    assert measure.gemm_bytes(1024, 1024, 1024, "float8_e4m3fn") == (2 + 2) * 1024 * 1024
    assert measure.TRAFFIC == {"copy": 2, "read": 1, "triad": 3}


def test_event_counters_become_fractions_of_the_time() -> None:
    before = {"hw_slowdown": 0, "sw_power_cap": 1_000_000_000, "lost": 5, "reset": 10}
    after = {"hw_slowdown": 500_000_000, "sw_power_cap": 1_000_000_000, "reset": 3, "unit": "x"}
    assert measure.event_fractions(before, after, 2.0) == {"hw_slowdown": 0.25, "sw_power_cap": 0.0}
    assert measure.event_fractions(before, after, 0.0) == {}


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.floats(min_value=1e-3, max_value=1e6))
def test_event_fraction_is_a_fraction(start: int, end: int, elapsed: float) -> None:
    for fraction in measure.event_fractions({"x": start}, {"x": end}, elapsed).values():
        assert 0 <= fraction <= 1


def test_sampled_reasons_become_fractions_of_the_samples() -> None:
    assert measure.sampled_fractions([["a"], ["a", "b"], [], ["a", "a"]]) == {"a": 0.75, "b": 0.25}


def test_series_leaves_out_what_was_not_read() -> None:
    assert measure.series([None, 3.0, 1.0, float("nan"), 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert measure.series([None, None]) is None


GOOD = {"value": 1.0, "median": 1.0, "p5": 0.5, "p95": 2.0, "min": 0.1, "max": 3}


@pytest.mark.parametrize("wrong", [None, 0, -1.0, float("nan"), float("inf"), "1", True])
@pytest.mark.parametrize("key", sorted(GOOD))
def test_one_wrong_number_makes_no_measurement(key: str, wrong: Any) -> None:
    assert measure.is_measurement(GOOD)
    assert not measure.is_measurement({**GOOD, key: wrong})


@pytest.mark.parametrize(
    ("free", "sizes"),
    [
        (140 * GIB, [8192, 4096, 16384]),
        (2 * GIB, [8192, 4096]),
        (300 * MIB, [4096]),
        (60 * MIB, [2048]),
        (0, []),
    ],
)
def test_shapes_follow_the_free_memory(free: int, sizes: list[int]) -> None:
    level = benchmark_levels.CUDA_LEVELS["standard"]
    assert benchmark_levels.gemm_sizes(level, free, "bfloat16") == sizes


@given(st.integers(0, 200 * GIB), st.sampled_from(["quick", "standard"]), st.sampled_from(["cpu", "cuda:0"]))
def test_shapes_never_exceed_the_free_memory(free: int, name: str, device: str) -> None:
    level = benchmark_levels.level_for(device, name)
    for size in benchmark_levels.gemm_sizes(level, free, "float32"):
        assert measure.gemm_bytes(size, size, size, "float32") <= free / 2
    buffer = benchmark_levels.memory_buffer_bytes(level, free, 50 * MIB)
    assert 3 * buffer <= free
    assert buffer == 0 or buffer >= 200 * MIB


@given(st.floats(min_value=0, max_value=1e4), st.sampled_from(["quick", "standard"]))
def test_sample_count_stays_within_the_level(seconds: float, name: str) -> None:
    level = benchmark_levels.CUDA_LEVELS[name]
    assert level.min_samples <= benchmark_levels.sample_count(level, seconds) <= level.max_samples


def test_flush_is_larger_than_the_cache() -> None:
    assert benchmark_levels.flush_bytes(0) == 256 * MIB
    assert benchmark_levels.flush_bytes(200 * MIB) == 400 * MIB


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cpu", None, "float32"),
        ("cuda:0", (9, 0), "bfloat16"),
        ("cuda:0", (8, 0), "bfloat16"),
        ("cuda:0", (7, 5), "float16"),
        ("cuda:0", (6, 1), "float32"),
    ],
)
def test_data_type_is_the_one_the_card_is_made_for(device: str, capability: Any, dtype: str) -> None:
    assert benchmark_levels.gemm_dtype(device, capability) == dtype


@pytest.mark.parametrize(
    ("wanted", "count", "chosen", "absent"),
    [
        (["auto"], 0, ["cpu"], []),
        (["auto"], 2, ["cuda:0", "cuda:1"], []),
        (["cuda"], 0, [], ["cuda"]),
        (["cpu"], 4, ["cpu"], []),
        (["1", "cuda:1", "7"], 2, ["cuda:1"], ["cuda:7"]),
        (["cpu", "0"], 1, ["cpu", "cuda:0"], []),
    ],
)
def test_devices_are_chosen(wanted: list[str], count: int, chosen: list[str], absent: list[str]) -> None:
    assert benchmark_plan.choose_devices(wanted, count) == (chosen, absent)


@pytest.mark.parametrize("wanted", [[], ["gpu"], ["-1"], ["cuda:x"], ["auto", "cpu"], ["0", "cuda"]])
def test_device_names_that_mean_nothing_are_refused(wanted: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="Could not choose devices"):
        benchmark_plan.check_wanted(wanted)


def test_plan_adds_up() -> None:
    plan = benchmark_plan.build_plan(["gemm", "memory"], "quick", ["cuda:0", "cuda:1"], "/venv/bin/python", 1)
    assert [entry["device"] for entry in plan["devices"]] == ["cuda:0", "cuda:1"]
    assert plan["estimated_s"] > 0
    assert benchmark_plan.build_plan(["gemm"], "quick", [], "p", 1, "no interpreter")["estimated_s"] is None


@pytest.mark.parametrize(
    ("device", "level", "count", "most"),
    [
        ("cpu", "quick", 1, 30),
        ("cuda:0", "quick", 1, 60),
        ("cuda:0", "quick", 8, 60),
        ("cuda:0", "standard", 1, 600),
        ("cuda:0", "standard", 8, 600),
    ],
)
def test_a_level_keeps_its_promise_per_node(device: str, level: str, count: int, most: int) -> None:
    suites = benchmark_plan.LEVEL_SUITES[level]
    assert 5 < benchmark_plan.estimated_seconds(suites, device, level, count) <= most


def test_every_suite_of_a_level_costs_time() -> None:
    for level in benchmark_plan.LEVELS:
        for suite in set(benchmark_plan.LEVEL_SUITES[level]) - {"import"}:
            without = [name for name in benchmark_plan.SUITES if name != suite]
            whole = benchmark_plan.estimated_seconds(benchmark_plan.SUITES, "cuda:0", level, 2)
            assert benchmark_plan.estimated_seconds(without, "cuda:0", level, 2) < whole, (level, suite)


def test_a_burn_of_another_length_is_in_the_plan() -> None:
    plans = [benchmark_plan.build_plan(["burn"], "quick", ["cuda:0"], "p", 1, burn_s=s) for s in (None, 500.0)]
    assert plans[1]["estimated_s"] - plans[0]["estimated_s"] == 500 - benchmark_levels.CUDA_LEVELS["quick"].burn_s


@pytest.mark.parametrize(
    ("suites", "kinds"),
    [
        (benchmark_plan.SUITES, ["devices", "node", "ranks", "ranks"]),
        (("import",), ["devices"]),
        (("burn",), ["ranks"]),
        (("p2p",), ["devices", "node"]),
        (("gemm", "burn"), ["devices", "ranks"]),
    ],
)
def test_phases_of_a_node_with_gpus(suites: tuple[str, ...], kinds: list[str]) -> None:
    found = benchmark_plan.phases(suites)
    assert [phase.kind for phase in found] == kinds
    assert {suite for phase in found for suite in phase.suites} == set(suites) - {"import"}


@pytest.mark.parametrize(
    ("capability", "able", "unable"),
    [
        ((9, 0), ["bfloat16", "float16", "tf32", "float32", "float8_e4m3fn", "int8"], []),
        ((8, 9), ["bfloat16", "float16", "tf32", "float32", "float8_e4m3fn", "int8"], []),
        ((8, 0), ["bfloat16", "float16", "tf32", "float32", "int8"], ["float8_e4m3fn"]),
        ((7, 5), ["float16", "float32", "int8"], ["bfloat16", "tf32", "float8_e4m3fn"]),
        ((7, 0), ["float16", "float32"], ["bfloat16", "tf32", "float8_e4m3fn", "int8"]),
        ((6, 1), ["float32"], ["bfloat16", "float16", "tf32", "float8_e4m3fn", "int8"]),
        (None, ["float32"], ["bfloat16", "float16", "tf32", "float8_e4m3fn", "int8"]),
    ],
)
def test_data_types_of_a_card(capability: Any, able: list[str], unable: list[str]) -> None:
    found, reasons = benchmark_levels.gemm_dtypes("cuda:0", capability)
    assert (found, list(reasons)) == (able, unable)
    assert found[0] == benchmark_levels.gemm_dtype("cuda:0", capability)
    assert all(reasons.values())
