# SPDX-License-Identifier: Apache-2.0
"""The past of a card: what becomes part of it, what it is compared with, and that its file is never lost."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright import history, history_store
from rackwright.speed_metrics import Reading

LIMITS = {"warn": 0.95, "fail": 0.90}
KIND = "h100-sxm5-80gb, 80 GiB, 700 W, ECC enabled"
GEMM = ("gemm", "gemm_bfloat16_8192", "bfloat16", "quick", "TFLOP/s")
NODE_RATE = ("burn", "burn_node", "bfloat16", "standard", "TFLOP/s")
CONTEXT = {"at": "2026-11-01T00:00:00Z", "node": "gpu-a", "driver": "580.65.06", "vbios": "96", "torch": "2.13.0+cu130"}


def reading(value: float, card: str = "GPU-1", kind: str = KIND, metric: tuple[str, ...] = GEMM) -> Reading:
    return Reading("gpu-a", "gpu0", (card,), kind, metric, value, "2.13.0+cu130")


def of_node(value: float, *cards: str) -> Reading:
    return Reading("gpu-a", "node", cards, f"2 x {KIND}", NODE_RATE, value, "2.13.0+cu130")


def past(*values: float, card: str = "GPU-1", kind: str = KIND, metric: tuple[str, ...] = GEMM) -> dict[str, Any]:
    document = history.empty()
    for number, value in enumerate(values):
        context = {**CONTEXT, "at": f"2026-11-{number + 1:02d}T00:00:00Z"}
        document = history.add(document, f"R{number}", [(reading(value, card, kind, metric), context)])
    return document


@pytest.mark.parametrize(
    ("value", "step"),
    [(101.0, "pass"), (95.5, "pass"), (94.9, "warn"), (90.1, "warn"), (89.9, "fail"), (150.0, "pass")],
)
def test_a_number_is_held_against_the_median_of_its_past(value: float, step: str) -> None:
    found = history.stand(past(98, 100, 103), reading(value), CONTEXT, LIMITS)

    assert found is not None
    assert (found.step, found.base, found.n, found.last) == (step, 100, 3, "R2")


@pytest.mark.parametrize(
    ("document", "now"),
    [
        (history.empty(), reading(1.0)),
        (past(100.0), reading(1.0, card="GPU-2")),
        (past(100.0), reading(1.0, kind=KIND.replace("700", "500"))),
        (past(100.0), reading(1.0, metric=("gemm", "gemm_bfloat16_8192", "bfloat16", "standard", "TFLOP/s"))),
    ],
    ids=["nothing yet", "another card", "another power limit", "another level"],
)
def test_only_like_is_compared_with_like(document: dict[str, Any], now: Reading) -> None:
    assert history.stand(document, now, CONTEXT, LIMITS) is None


def test_longer_times_are_slower() -> None:
    times = ("llm_inference", "ttft", "bfloat16", "quick", "ms")
    document = past(10.0, 10.0, metric=times)

    slow = history.stand(document, reading(12.0, metric=times), CONTEXT, LIMITS)
    fast = history.stand(document, reading(8.0, metric=times), CONTEXT, LIMITS)

    assert slow is not None
    assert fast is not None
    assert (slow.step, fast.step) == ("fail", "pass")


def test_a_regression_names_what_changed_since_the_last_good_run() -> None:
    now = {**CONTEXT, "driver": "580.95.05", "torch": "2.14.0+cu130", "node": "gpu-b"}
    found = history.stand(past(100.0), reading(85.0), now, LIMITS)

    assert found is not None
    assert found.changed == (
        "driver 580.65.06 to 580.95.05",
        "torch 2.13.0+cu130 to 2.14.0+cu130",
        "node gpu-a to gpu-b",
    )
    said = history.text(found, reading(85.0))
    assert said.startswith("85 TFLOP/s, 15 % below its own 100 (1 earlier run, the last R0)")
    assert "driver 580.65.06 to 580.95.05" in said


def test_a_regression_without_a_cause_says_so() -> None:
    found = history.stand(past(100.0), reading(85.0), CONTEXT, LIMITS)

    assert found is not None
    assert history.text(found, reading(85.0)).endswith("changed since: nothing that is recorded")


def test_a_run_that_is_added_again_replaces_itself() -> None:
    document = history.add(past(100.0), "R0", [(reading(90.0), CONTEXT)])

    assert document["cards"]["GPU-1"]["metrics"][history.key_of(reading(1))] == [["R0", 90.0]]


def test_the_past_is_bounded_and_forgets_runs_that_nothing_refers_to() -> None:
    document = past(*range(100, 100 + history.KEEP + 5))
    entry = document["cards"]["GPU-1"]

    values = entry["metrics"][history.key_of(reading(1))]
    assert [value for _run, value in values] == list(range(105, 100 + history.KEEP + 5))
    assert sorted(entry["runs"]) == sorted(run for run, _value in values)


def test_metrics_and_cards_not_seen_for_the_longest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_CARDS", 3)
    monkeypatch.setattr(history, "MOST_METRICS", 2)
    document = history.empty()
    for number in range(4):
        context = {**CONTEXT, "at": f"2026-11-{number + 1:02d}T00:00:00Z"}
        document = history.add(document, f"R{number}", [(reading(1.0, card=f"GPU-{number}"), context)])
        metric = ("gemm", f"gemm_{number}", "bfloat16", "quick", "TFLOP/s")
        document = history.add(document, f"R{number}", [(reading(1.0, card="GPU-9", metric=metric), context)])

    assert set(document["cards"]) == {"GPU-2", "GPU-3", "GPU-9"}
    assert [key.split("|")[1] for key in document["cards"]["GPU-9"]["metrics"]] == ["gemm_2", "gemm_3"]


def test_a_slow_decline_is_seen_once_it_is_as_large_as_the_limits() -> None:
    value, steps = 100.0, []
    document = history.empty()
    for number in range(30):
        found = history.stand(document, reading(value), CONTEXT, LIMITS)
        steps.append(found.step if found else "none")
        document = history.add(document, f"R{number}", [(reading(value), CONTEXT)])
        value *= 0.985

    assert "warn" in steps


@pytest.mark.parametrize(
    ("cards", "known"),
    [
        (("GPU-1", "GPU-2", "GPU-3"), True),
        (("GPU-1", "GPU-2", "GPU-9"), True),
        (("GPU-1", "GPU-8", "GPU-9"), False),
        (("GPU-7", "GPU-8", "GPU-9"), False),
    ],
)
def test_a_machine_is_known_by_most_of_its_cards(cards: tuple[str, ...], known: bool) -> None:
    document = history.add(history.empty(), "R0", [(of_node(800.0, "GPU-1", "GPU-2", "GPU-3"), CONTEXT)])

    found = history.stand(document, of_node(700.0, *cards), CONTEXT, LIMITS)

    assert (found is not None) == known
    again = history.add(document, "R1", [(of_node(700.0, *cards), CONTEXT)])
    assert len(again["machines"]) == (1 if known else 2)


def test_cards_of_earlier_runs_are_peers_where_kind_and_torch_are_the_same() -> None:
    document = history.empty()
    for number, kind, torch in ((1, KIND, "2.13"), (2, KIND, "2.12"), (3, "rtx-4090", "2.13"), (4, KIND, "2.13")):
        one = reading(100.0 + number, card=f"GPU-{number}", kind=kind)
        document = history.add(document, "R0", [(one, {**CONTEXT, "torch": torch})])

    found = history.peers_of_before(document, {(KIND, history.key_of(reading(1))): {"2.13"}}, ["GPU-4"])

    assert found == {(KIND, history.key_of(reading(1))): [101.0]}


@given(st.lists(st.floats(min_value=0.01, max_value=1e6), min_size=1, max_size=15))
def test_what_is_written_is_read_and_stays_within_its_bounds(tmp_path_factory: Any, values: list[float]) -> None:
    folder = str(tmp_path_factory.mktemp("history"))
    document = past(*values)
    history_store.write(folder, document, history_store.read(folder), "R")

    kept = history_store.read(folder)

    assert (kept.problem, kept.document) == (None, document)
    assert history.problem(document) is None
    assert len(document["cards"]["GPU-1"]["runs"]) <= history.KEEP


def entry(values: Any, runs: Any = None) -> dict[str, Any]:
    return {"runs": {"R0": {}} if runs is None else runs, "metrics": {"a": values}}


def whole(**cards: Any) -> dict[str, Any]:
    return {**history.empty(), "cards": cards}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "it is damaged"),
        ('{"schema": 1, "cards": {', "it is damaged"),
        ("\x00\xff", "it is damaged"),
        ("[" * 100_000, "it is damaged"),
        ("[]", "not a history of measurements"),
        ('{"schema": 1}', "not a history of measurements"),
        (json.dumps({**history.empty(), "schema": 0}), "its schema is 0"),
        (json.dumps({**history.empty(), "machines": []}), "machines is not a dictionary"),
        (json.dumps(whole(g=[])), "cards.g is not a dictionary"),
        (json.dumps(whole(g={"runs": {}})), "has no runs or no metrics"),
        (json.dumps(whole(g=entry([], {"R0": 1}))), "a run that is not a dictionary"),
        (json.dumps(whole(g=entry([["R0", "x"]]))), "values of a"),
        (json.dumps(whole(g=entry([["R0", True]]))), "values of a"),
        (json.dumps(whole(g=entry([["R9", 1.0]]))), "values of a"),
        (json.dumps(whole(g=entry([["R0", math.nan]]))), "values of a"),
        (json.dumps(whole(g=entry([["R0", -1.0]]))), "values of a"),
    ],
)
def test_a_damaged_file_is_one_sentence_and_is_kept(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / history_store.NAME
    path.write_text(text, encoding="latin-1")
    before = path.read_bytes()
    kept = history_store.read(str(tmp_path))

    assert kept.document == history.empty()
    assert kept.problem is not None
    assert kept.problem.startswith(f"Could not read the history on {path}: ")
    assert cause in kept.problem
    assert "\n" not in kept.problem

    moved = history_store.write(str(tmp_path), past(100.0), kept, "R1")

    assert moved == f"{path}.damaged-R1"
    assert Path(moved).read_bytes() == before
    assert history_store.read(str(tmp_path)).document == past(100.0)


def test_a_second_damaged_file_of_a_run_takes_no_place_of_the_first(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / history_store.NAME).write_text(text, encoding="utf-8")
        history_store.write(str(tmp_path), history.empty(), history_store.read(str(tmp_path)), "R1")

    assert (tmp_path / "history.json.damaged-R1").read_text(encoding="utf-8") == "one"
    assert (tmp_path / "history.json.damaged-R1.2").read_text(encoding="utf-8") == "two"


@pytest.mark.parametrize("schema", [2, 17])
def test_a_newer_file_is_left_to_the_version_that_wrote_it(tmp_path: Path, schema: int) -> None:
    path = tmp_path / history_store.NAME
    path.write_text(json.dumps({**history.empty(), "schema": schema, "more": 1}), encoding="utf-8")
    before = path.read_bytes()
    kept = history_store.read(str(tmp_path))

    assert kept.problem is not None
    assert f"its schema is {schema}, this version understands 1" in kept.problem
    assert history_store.write(str(tmp_path), past(100.0), kept, "R1") is None
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / history_store.NAME
    path.mkdir()
    kept = history_store.read(str(tmp_path))

    assert kept.problem is not None
    assert "Is a directory" in kept.problem
    assert history_store.write(str(tmp_path), past(100.0), kept, "R1") is None
    assert path.is_dir()


def test_a_full_disk_leaves_the_history_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history_store.write(str(tmp_path), past(100.0), history_store.read(str(tmp_path)), "R0")
    before = (tmp_path / history_store.NAME).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(history_store.HistoryError, match="No space left on device"):
        history_store.write(str(tmp_path), past(1.0), history_store.read(str(tmp_path)), "R1")

    assert (tmp_path / history_store.NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [history_store.NAME]


def test_two_runs_at_once_wait_for_each_other(tmp_path: Path) -> None:
    import fcntl

    with history_store.locked(str(tmp_path)):
        descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
