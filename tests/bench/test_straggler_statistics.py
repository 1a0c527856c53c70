# SPDX-License-Identifier: Apache-2.0
"""How often a planted straggler is found among its peers, and how often nobody's fault raises an alarm.

Simulated fleets: every GPU is as fast as its kind but for the normal spread of silicon and air flow. The figures are
of the rule with its default limits, not of any hardware; docs/verdicts.md shows them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rackwright import peers
from rackwright.verdict_gates import GATES

FLEETS = 1000
SIZES = (4, 8, 32, 256)
SPREADS = (0.01, 0.02)
DROPS = (0.05, 0.07, 0.10, 0.15, 0.20)
_SEED = 20261130
_ALARMS = ("warn", "fail")


def fleets(size: int, spread: float) -> list[list[float]]:
    """Return the speeds of the GPUs of many fleets without a fault, in parts of their kind's."""
    source = random.Random(f"{_SEED} {size} {spread}")
    return [[source.gauss(1.0, spread) for _ in range(size)] for _ in range(FLEETS)]


def steps(values: list[float]) -> list[str]:
    """Return the step of every GPU of a fleet."""
    distribution = peers.describe(values)
    standings = [distribution.standing(value, GATES["peers"]) for value in values]
    return [standing.step for standing in standings if standing is not None]


def slowed(values: list[float], drop: float, share: float = 0.0) -> tuple[list[float], int]:
    """Return a fleet of which the first GPUs (one, or a share of all) are slower, and how many they are."""
    count = max(1, round(len(values) * share))
    return [value * (1 - drop) for value in values[:count]] + values[count:], count


def rate(every: list[list[float]], drop: float, wanted: Callable[[str], bool], share: float = 0.0) -> float:
    """Return the part of the planted stragglers that get a wanted step."""
    hits = total = 0
    for values in every:
        changed, count = slowed(values, drop, share)
        distribution = peers.describe(changed)
        for value in changed[:count]:
            standing = distribution.standing(value, GATES["peers"])
            hits += standing is not None and wanted(standing.step)
            total += 1
    return hits / total


@pytest.mark.parametrize("spread", SPREADS)
def test_stragglers_of_simulated_fleets(spread: float) -> None:
    heads = " ".join(f"{f'-{drop:.0%}':>15}" for drop in DROPS)
    print(f"\n{FLEETS} simulated fleets, spread {spread:.0%} (normal); found: as warn or fail / as fail")
    print(f"{'GPUs':>5} {'false alarms':>24} {heads}")
    print(f"{'':>5} {'fleets / GPUs / fails':>24}")
    for size in SIZES:
        every = fleets(size, spread)
        told = [steps(values) for values in every]
        alarmed = sum(any(step in _ALARMS for step in found) for found in told) / FLEETS
        alarms = sum(step in _ALARMS for found in told for step in found) / (FLEETS * size)
        fails = sum(step == "fail" for found in told for step in found) / (FLEETS * size)
        seen = {drop: rate(every, drop, lambda step: step in _ALARMS) for drop in DROPS}
        failed = {drop: rate(every, drop, lambda step: step == "fail") for drop in DROPS}
        cells = " ".join(f"{f'{seen[drop]:.1%} / {failed[drop]:.1%}':>15}" for drop in DROPS)
        print(f"{size:>5} {f'{alarmed:.1%} / {alarms:.3%} / {fails:.3%}':>24} {cells}")
        # bounds that only a broken rule leaves: the seed is fixed
        assert seen[0.20] > 0.98, "a GPU that lost a fifth is found"
        assert fails < 0.001, "nobody fails for being what its kind is"
        assert seen[0.05] <= seen[0.10] <= seen[0.20]


def test_a_tenth_of_the_fleet_is_slow() -> None:
    print(f"\n{FLEETS} simulated fleets of which a tenth is slow, spread 1 %; found: as warn or fail / as fail")
    for size in (32, 256):
        every = fleets(size, 0.01)
        cells = []
        for drop in DROPS:
            seen = rate(every, drop, lambda step: step in _ALARMS, share=0.1)
            failed = rate(every, drop, lambda step: step == "fail", share=0.1)
            cells.append(f"{f'{seen:.1%} / {failed:.1%}':>15}")
        print(f"{size:>5} {'':>24} {' '.join(cells)}")


def test_fleet_wide_slowness_is_invisible_to_peers() -> None:
    every = fleets(32, 0.01)
    seen = rate(every, 0.20, lambda step: step in _ALARMS, share=1.0)
    print(f"\nall of a fleet 20 % slower: {seen:.1%} of its GPUs are flagged by their peers")
    assert seen < 0.01
