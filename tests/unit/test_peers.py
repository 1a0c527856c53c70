# SPDX-License-Identifier: Apache-2.0
"""Where a value stands among its peers: planted cases, few peers, equal ones, ties, and numbers that are none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackwright import peers

LIMITS = {"warn": 0.95, "fail": 0.90}
#: a kind with a spread of about 1 %, as silicon has
KIND = [99.0, 99.4, 99.8, 100.0, 100.2, 100.6, 101.0]


def standing(values: list[float], value: float, less: bool = False, limits: Any = LIMITS) -> peers.Standing:
    found = peers.describe(values, less).standing(value, limits)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "step"),
    [(100.0, "pass"), (95.5, "pass"), (94.0, "warn"), (90.5, "warn"), (89.0, "fail"), (120.0, "pass")],
)
def test_a_planted_straggler_of_a_large_kind(value: float, step: str) -> None:
    found = standing([*KIND, value], value)

    assert (found.step, found.against, found.n) == (step, "median", 8)
    assert found.z is not None


def test_modified_z_is_the_published_formula() -> None:
    # median 3, deviations 2 1 0 1 97: MAD 1
    found = standing([1, 2, 3, 4, 100], 1)

    assert found.z == pytest.approx(0.6745 * (1 - 3) / 1)


def test_a_wide_kind_flags_nobody_who_is_only_below_its_median() -> None:
    values = [70.0, 80.0, 90.0, 100.0, 110.0, 120.0, 130.0]

    found = standing(values, 70.0)

    assert found.fraction == 0.7
    assert found.step == "pass", "far below the median, and no outlier of such a kind"


def test_an_outlier_by_z_alone_is_none() -> None:
    values = [100.0, 100.01, 100.02, 99.99, 99.98, 98.0]

    found = standing(values, 98.0)

    assert found.z is not None
    assert found.z < -50
    assert found.step == "pass"


@pytest.mark.parametrize(("value", "step"), [(100.0, "pass"), (96.0, "pass"), (94.0, "warn"), (89.0, "fail")])
def test_where_most_are_equal_the_relative_guard_alone_decides(value: float, step: str) -> None:
    found = standing([100.0] * 5 + [value], value)

    assert (found.z, found.step) == (None, step)


def test_all_equal_is_fine() -> None:
    assert standing([7.0] * 9, 7.0).step == "pass"


def test_one_alone_has_no_peer() -> None:
    assert peers.describe([100.0]).standing(100.0, LIMITS) is None


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize(("value", "step"), [(99.0, "pass"), (93.0, "pass"), (90.0, "pass"), (89.0, "fail")])
def test_few_are_held_to_ninety_percent_of_the_best(n: int, value: float, step: str) -> None:
    found = standing([100.0] * (n - 1) + [value], value)

    assert (found.against, found.reference, found.n, found.z) == ("best", 100.0, n, None)
    assert found.step == step


def test_from_five_on_the_median_is_the_measure() -> None:
    assert standing([100.0, 100.0, 100.0, 100.0, 92.0], 92.0).against == "median"


@pytest.mark.parametrize(("milliseconds", "step"), [(10.0, "pass"), (10.7, "warn"), (12.0, "fail"), (8.0, "pass")])
def test_of_times_the_longer_is_the_slower(milliseconds: float, step: str) -> None:
    found = standing([9.9, 9.95, 10.0, 10.0, 10.05, 10.1, milliseconds], milliseconds, less=True)

    assert found.step == step
    assert found.reference == pytest.approx(10.0, rel=0.01)
    assert (found.fraction < 1) == (milliseconds > found.reference)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -3.0, True, None, "fast"])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="not a finite number above zero"):
        peers.describe([1.0, 2.0, bad])
    with pytest.raises(ValueError, match="not a finite number above zero"):
        peers.describe([1.0, 2.0]).standing(bad, LIMITS)


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        peers.describe([])


def test_a_site_can_switch_a_step_off_or_move_it() -> None:
    assert standing([100.0] * 6 + [80.0], 80.0, limits={"warn": 0.95, "fail": None}).step == "warn"
    assert standing([100.0] * 6 + [80.0], 80.0, limits={"warn": 0.75, "fail": 0.7}).step == "pass"


def test_the_words_name_median_count_and_z() -> None:
    found = standing([*KIND, 80.0], 80.0)

    said = peers.text(found, 80.0, "TFLOP/s", outside=3)

    assert said.startswith("80 TFLOP/s, 19.9 % below the median 99.9 TFLOP/s of 8 GPUs or nodes of its kind")
    assert "(3 from earlier runs)" in said
    assert f"modified z {found.z:.1f}" in said
    assert "fewer than 5, so compared with the best" in peers.text(standing([10.0, 8.0], 8.0), 8.0, "GB/s")
    assert "more than half of them are equal" in peers.text(standing([9.0] * 6 + [8.0], 8.0), 8.0, "GB/s")


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.88, "12 % below"), (1.03, "3 % above"), (1.0, "the same as"), (0.9996, "the same as")]
)
def test_differences_in_words(fraction: float, said: str) -> None:
    assert peers.difference(fraction) == said


VALUES = st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=2, max_size=40)
ORDER = ("fail", "warn", "pass")


@given(VALUES, st.floats(min_value=1e-3, max_value=1e6), st.floats(min_value=1, max_value=10))
def test_who_is_faster_never_stands_worse(values: list[float], value: float, factor: float) -> None:
    distribution = peers.describe(values)
    slower, faster = distribution.standing(value, LIMITS), distribution.standing(value * factor, LIMITS)

    assert slower is not None
    assert faster is not None
    assert ORDER.index(faster.step) >= ORDER.index(slower.step)


@given(VALUES)
def test_the_best_of_a_kind_is_never_flagged_and_order_does_not_matter(values: list[float]) -> None:
    assert standing(values, max(values)).step == "pass"
    assert peers.describe(values) == peers.describe(list(reversed(values)))


@given(VALUES, st.integers(min_value=-8, max_value=8))
def test_the_unit_does_not_matter(values: list[float], exponent: int) -> None:
    scale = 2.0**exponent  # exact, so that no rounding decides
    for value in values:
        assert standing(values, value).step == standing([v * scale for v in values], value * scale).step


@given(VALUES)
def test_a_rate_and_its_time_stand_alike_far_from_the_limits(values: list[float]) -> None:
    for value in values:
        rate = standing(values, value)
        time = standing([1 / v for v in values], 1 / value, less=True)
        if all(abs(rate.fraction - limit) > 1e-6 for limit in LIMITS.values()) and (
            rate.z is None or abs(rate.z - peers.Z_LIMIT) > 1e-3
        ):
            assert rate.step == time.step or (rate.z is None) != (time.z is None)
