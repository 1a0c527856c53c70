# SPDX-License-Identifier: Apache-2.0
"""A node is proven after an update only when it is what it was, and as fast; what stands against beginning one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from unit.verdict_samples import gpu

from rackwright import rollout_state as state
from rackwright import update_check, update_judge
from rackwright.errors import InvalidInputError
from rackwright.update_check import differences, picture, problems

NEW = "590.48.01"


def node(**changes: Any) -> dict[str, Any]:
    """Facts of a node with two GPUs, links, modes and MIG."""
    facts = gpu(2)
    facts["driver"] = {"kernel_module_version": NEW, "library_version": NEW}
    for device in facts["devices"]:
        device.update(
            state="ok",
            nvlink={"links": [{"active": True}] * 18},
            ecc={"current": "enabled", "counters": {"uncorrected": {"volatile": 0, "aggregate": 1}}},
            mig={"mode": "disabled", "instances": []},
            persistence_mode=True,
            compute_mode="default",
            power={"limit_watts": 700.0},
        )
    return {**facts, **changes}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The node with one value of its second GPU changed; a dotted path."""
    facts = copy.deepcopy(node())
    place: Any = facts["devices"][1]
    *parents, last = path.split(".")
    for part in parents:
        place = place[part]
    place[last] = value
    return facts


def test_the_same_node_has_no_differences() -> None:
    assert differences(picture(node()), picture(node())) == []


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("state", "lost", "its state was ok and is lost"),
        ("nvlink.links", [{"active": True}] * 17 + [{"active": False}], "NVLinks up 18 → 17"),
        ("nvlink.links", None, "NVLinks up 18 → unknown"),
        ("pcie.width", 8, "PCIe lanes 16 → 8"),
        ("pcie.max_generation", 4, "PCIe generation 5 → 4"),
        ("ecc.current", "disabled", "ECC mode enabled → disabled"),
        ("ecc.counters.uncorrected.aggregate", 3, "uncorrected ECC errors 1 → 3"),
        ("mig.mode", "enabled", "MIG mode disabled → enabled"),
        ("mig.instances", [{"name": "1g.10gb"}], "MIG instances none → 1g.10gb"),
        ("persistence_mode", False, "persistence mode True → False"),
        ("compute_mode", "prohibited", "compute mode default → prohibited"),
        ("power.limit_watts", 500.0, "power limit 700 W → 500"),
    ],
)
def test_what_became_worse_is_named_with_its_gpu(path: str, value: Any, sentence: str) -> None:
    found = differences(picture(node()), picture(changed(path, value)))

    assert found == [f"GPU GPU-0000-1 at 0000:01:00.0: {sentence}"]


@pytest.mark.parametrize(
    ("path", "value"), [("pcie.generation", 1), ("ecc.counters.uncorrected.volatile", 5), ("memory.total_bytes", 1)]
)
def test_what_moves_by_itself_is_not_held_against_a_node(path: str, value: Any) -> None:
    assert differences(picture(node()), picture(changed(path, value))) == []


def test_a_lost_gpu_and_a_strange_one_are_named() -> None:
    after = node(devices=[node()["devices"][0], {**node()["devices"][1], "uuid": "GPU-other"}])

    found = differences(picture(node()), picture(after))

    assert found == ["GPU GPU-0000-1 at 0000:01:00.0 is gone", "GPU GPU-other at 0000:01:00.0 was not there before"]


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (None, None, 0),
        ({"a": 100.0}, {"a": 96.0}, 0),
        ({"a": 100.0}, {"a": 94.0}, 1),
        ({"a": 100.0}, {"a": 120.0}, 0),
        ({"a": 100.0, "b": 10.0}, {"a": 80.0}, 2),
        ({"a": 100.0}, None, 1),
        (None, {"a": 1.0}, 0),
    ],
)
def test_a_number_that_dropped_beyond_the_tolerance_is_told(before: Any, after: Any, count: int) -> None:
    assert len(update_check.slower(before, after, 5.0)) == count


def test_a_drop_is_told_in_percent() -> None:
    assert update_check.slower({"a": 100.0}, {"a": 80.0}, 5.0) == ["a dropped from 100 to 80, by 20 % (allowed: 5 %)"]


@pytest.mark.parametrize("text", ["", "fast", "[1]", "{}", '{"a": "x"}', '{"a": 0}', '{"a": true}', '{"a": NaN}'])
def test_a_benchmark_that_prints_no_numbers_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="update_benchmark_command"):
        update_check.numbers(text, "bench")


def test_numbers_are_the_last_line_and_torch_counts_by_gpu_with_times_as_rates() -> None:
    results = [
        {"name": "gemm", "device": "cuda:0", "dtype": "bf16", "unit": "TFLOP/s", "value": 600.0},
        {"name": "step", "device": "cuda:0", "unit": "s", "value": 0.5},
        {"name": "gemm", "device": "cpu", "unit": "TFLOP/s", "value": 1.0},
    ]

    found = update_check.measured(
        {"command": "bench", "stdout": 'warming up\n{"tokens_per_s": 12}', "torch": {"results": results}}
    )

    assert found == {"tokens_per_s": 12.0, "gemm bf16 cuda:0": 600.0, "step cuda:0 (1/s)": 2.0}
    assert update_check.measured({}) is None


def finding(name: str, severity: str = "fail") -> dict[str, Any]:
    return {"id": name, "subject": "driver", "severity": severity, "cause": f"{name} is wrong."}


@pytest.mark.parametrize(
    ("facts", "findings", "words"),
    [
        (node(), [], []),
        (node(situation="gpu_lost"), [], ["the GPUs are gpu_lost"]),
        (node(driver={"kernel_module_version": "580.1"}), [], ["580.1 is loaded, not 590.48.01"]),
        (node(driver={}), [], ["the kernel module none is loaded"]),
        (node(), [finding("package-skew")], ["package-skew: package-skew is wrong"]),
    ],
)
def test_a_node_is_proven_only_without_any_reason_against(facts: Any, findings: Any, words: list[str]) -> None:
    found = problems(picture(node()), picture(facts), NEW, findings, (None, None), 5.0)

    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found))


@pytest.mark.parametrize(
    ("phase", "severity", "known", "proven"),
    [
        (state.FORWARD, "warn", True, True),
        (state.FORWARD, "warn", False, False),
        (state.FORWARD, "fail", True, False),
        (state.BACK, "fail", True, True),
        (state.BACK, "fail", False, False),
    ],
)
def test_what_was_wrong_before_is_judged_by_direction(phase: str, severity: str, known: bool, proven: bool) -> None:
    found = finding("lock-flavour", severity)
    before = update_judge.picture(node(), [found] if known else [])
    record = {"before": before, "phase": phase, "what": "driver", "benchmark": None}

    reasons = update_judge.problems(record, node(), {"driver": {"version": NEW}}, [found], None, 5.0)

    assert (reasons == []) is proven


@pytest.mark.parametrize(
    ("facts", "findings", "found", "words"),
    [
        (node(), [], {}, []),
        (node(situation="version_mismatch"), [], {}, []),
        (node(situation="gpu_lost", cause="GPU 3 is lost."), [], {}, ["its GPUs are gpu_lost (GPU 3 is lost)"]),
        (node(), [finding("module-library")], {}, []),  # the update itself cures it
        (node(), [finding("unknown-rule")], {}, ["unknown-rule"]),
        (node(), [], {"needed_mib": {"/usr": 1024}, "free_mib": {"/usr": 10}}, ["/usr has 10 MiB free and 1024"]),
        (node(), [], {"needed_mib": {"/usr": 1024}, "free_mib": {"/usr": None}}, []),
        (node(), [], {"reboot_pending": "/run/reboot-required"}, ["a reboot is pending"]),
        (node(), [], {"unobtainable": ["a=1", "b=1", "c=1", "d=1"]}, ["a=1, b=1, c=1 and 1 more"]),
    ],
)
def test_what_stands_against_beginning_is_told(facts: Any, findings: Any, found: Any, words: list[str]) -> None:
    reasons = update_judge.obstacles(facts, findings, found, False)

    assert len(reasons) == len(words)
    assert all(word in text for word, text in zip(words, reasons))


def test_the_way_back_can_be_given_up_and_nothing_else() -> None:
    found = {"unobtainable": ["a=1"], "reboot_pending": "yes"}

    assert update_judge.obstacles(node(), [], found, True) == ["a reboot is pending (yes)"]


def test_a_picture_survives_the_record() -> None:
    before = update_judge.picture(node(), [])

    assert json.loads(json.dumps(before)) == before
    assert update_judge.picture(node(situation="no_driver"), []) is None
