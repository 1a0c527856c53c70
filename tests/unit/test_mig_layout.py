# SPDX-License-Identifier: Apache-2.0
"""MIG layouts: how they are written, what fits where, what stays and what goes."""

from __future__ import annotations

import itertools

import pytest
from unit.mig_samples import layout, made, offered

from ansible.module_utils.rackwright import mig_layout
from ansible.module_utils.rackwright.mig_layout import Instance, LayoutError


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (["1g.10gb x7"], ["1g.10gb"] * 7),
        (["2g.20gb x 2", "3g.40gb"], ["2g.20gb", "2g.20gb", "3g.40gb"]),
        (["7 x 1g.10gb"], ["1g.10gb"] * 7),
        (["2*1g.10gb"], ["1g.10gb"] * 2),
        ("1g.10gb+me", ["1g.10gb+me"]),
        (["MIG 1G.10GB"], ["1g.10gb"]),
        ([], []),
    ],
)
def test_ways_to_write_a_layout(entries: object, names: list[str]) -> None:
    assert mig_layout.parse(entries) == names


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("1c.3g.40gb", "divides a GPU instance into compute instances, which is not supported.*name.*'3g.40gb'"),
        ("1g.10gb x0", "asks for 0 instances"),
        ("1g.10gb x700", "asks for 700 instances"),
        ("seven slices", "is no MIG profile; write it as '1g.10gb' or '1g.10gb x7'"),
    ],
)
def test_ways_not_to_write_one(entry: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        mig_layout.parse([entry])


@pytest.mark.parametrize(
    ("profile", "name", "said"),
    [
        (
            "a100x4",
            "1g.5gb",
            r"no MIG profile '1g\.5gb' \(did you mean 1g\.\d0gb\?\); it offers 1g\.10gb, 1g\.10gb\+me",
        ),
        ("h100x8", "zebra", r"no MIG profile 'zebra'; it offers .*3g\.40gb, 4g\.40gb, 7g\.80gb"),
    ],
)
def test_a_profile_the_gpu_lacks(profile: str, name: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        mig_layout.resolve([name], offered(profile))


@pytest.mark.parametrize("profile", ["a100x4", "h100x8"])
@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("1g.10gb x7", [0, 1, 2, 3, 4, 5, 6]),
        ("3g.40gb x2", [0, 4]),
        ("3g.40gb, 4g.40gb", [0, 4]),  # made in this order, 3g would take the only place of 4g
        ("2g.20gb x3, 1g.10gb", [0, 2, 4, 6]),
        ("1g.20gb x4", [0, 2, 4, 6]),
        ("1g.10gb+me, 1g.10gb x6", [0, 1, 2, 3, 4, 5, 6]),
        ("7g.80gb", [0]),
    ],
)
def test_layouts_that_fit(profile: str, text: str, places: list[int]) -> None:
    wanted = layout(text, profile)
    found = mig_layout.place(wanted)
    assert found is not None
    assert sorted(start for _profile, start in found) == places
    assert sorted(one.name for one, _start in found) == sorted(one.name for one in wanted)
    cells = [cell for one, start in found for cell in range(start, start + one.size)]
    assert len(cells) == len(set(cells))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1g.10gb x8", "1g.10gb x8 does not fit on it: 1g.10gb x7 fits, 1g.10gb is left over; at most 7 of 1g.10gb"),
        ("4g.40gb x2", "4g.40gb fits, 4g.40gb is left over; at most 1 of 4g.40gb"),
        ("7g.80gb, 1g.10gb", "7g.80gb fits, 1g.10gb is left over$"),
        ("3g.40gb x2, 1g.10gb", "3g.40gb x2 fits, 1g.10gb is left over$"),
    ],
)
def test_layouts_that_do_not_fit_say_what_does(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        mig_layout.check_fits(layout(text))


def test_every_small_layout_is_placed_when_some_order_of_placing_it_works() -> None:
    """The search finds a place whenever trying every start of every instance does."""
    kinds = offered("a100x4")
    for wanted in itertools.combinations_with_replacement(kinds, 3):
        possible = any(
            len({cell for one, start in zip(wanted, starts) for cell in range(start, start + one.size)})
            == sum(one.size for one in wanted)
            for starts in itertools.product(*(one.starts for one in wanted))
        ) and all(wanted.count(one) <= one.most for one in wanted)
        assert (mig_layout.place(wanted) is not None) == possible, wanted


@pytest.mark.parametrize(
    ("before", "wanted", "destroyed", "created"),
    [
        ("1g.10gb x7", "1g.10gb x7", 0, []),
        ("1g.10gb x7", "1g.10gb x6", 1, []),
        ("1g.10gb x2", "1g.10gb x3", 0, [("1g.10gb", 2)]),
        ("3g.40gb x2", "3g.40gb, 1g.10gb x3", 1, [("1g.10gb", 4), ("1g.10gb", 5), ("1g.10gb", 6)]),
        ("3g.40gb", "4g.40gb, 3g.40gb", 1, [("4g.40gb", 0), ("3g.40gb", 4)]),  # the one there is in the way
    ],
)
def test_what_is_right_stays_where_the_rest_fits_around_it(
    before: str, wanted: str, destroyed: int, created: list[tuple[str, int]]
) -> None:
    change = mig_layout.change(layout(wanted), made(before), offered("a100x4"))
    assert len(change.destroy) == destroyed
    assert [(one.name, start) for one, start in change.create] == created
    assert bool(change) == bool(destroyed or created)


def test_an_instance_that_is_divided_further_is_made_anew() -> None:
    divided = Instance(1, 9, 0, 4, (1, 1, 1))
    change = mig_layout.change(layout("3g.40gb"), [divided], offered("a100x4"))
    assert change.destroy == (divided,)
    assert [one.name for one, _start in change.create] == ["3g.40gb"]
