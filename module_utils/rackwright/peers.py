# SPDX-License-Identifier: Apache-2.0
"""How one value stands among those of its peers. Pure: numbers in, records out.

Modified z (Iglewicz and Hoaglin): ``0.6745 * (x - median) / MAD``. The GPUs of one kind are so much alike that their
MAD is close to nothing, and many of them would be outliers by z alone: a value is flagged only when it is also clearly
below the median. What slows all peers down alike moves the median with it and cannot be seen here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .verdict_gates import step_for

#: Makes the MAD of normally distributed values comparable with their standard deviation.
_NORMAL = 0.6745
#: A modified z at or below this is an outlier.
Z_LIMIT = -3.5
#: Below this many values a median and a MAD say nothing; the best of them is the measure then.
FEW = 5
#: Units in which less is better.
LESS_IS_BETTER = ("s", "ms", "us", "J/token")


@dataclass(frozen=True)
class Standing:
    """Where a value stands.

    Attributes:
        step: ``pass``, ``warn`` or ``fail``.
        n: how many values were compared, this one among them.
        against: ``median``, or ``best`` where they are few.
        reference: the median or the best, in the unit of the values.
        fraction: how fast this one is, as part of the reference; below 1 is slower, whatever the unit.
        z: modified z of the rate; None where the values are few or more than half of them are equal.
    """

    step: str
    n: int
    against: str
    reference: float
    fraction: float
    z: float | None


@dataclass(frozen=True)
class Distribution:
    """The values of one kind, as rates: more is better."""

    n: int
    median: float
    mad: float
    best: float
    less_is_better: bool

    def standing(self, value: float, limits: Mapping[str, float | None]) -> Standing | None:
        """Return where a value of these stands, None where it has no peer.

        Args:
            value: in the unit of the values.
            limits: ``warn`` and ``fail``, fractions of the median; None means that there is no such step.

        Raises:
            ValueError: the value is not a finite number above zero.
        """
        rate = _rate(value, self.less_is_better)
        if self.n < 2:
            return None
        few = self.n < FEW
        reference = self.best if few else self.median
        fraction = rate / reference
        z = None if few or self.mad <= 0 else _NORMAL * (rate - self.median) / self.mad
        # of few, the best is by chance better than the middle of its kind: only the wider limit is held against it
        steps = ("fail",) if few else ("fail", "warn")
        return Standing(
            step=step_for(fraction, limits, steps) if z is None or z <= Z_LIMIT else "pass",
            n=self.n,
            against="best" if few else "median",
            reference=1 / reference if self.less_is_better else reference,
            fraction=fraction,
            z=z,
        )


def describe(values: Iterable[float], less_is_better: bool = False) -> Distribution:
    """Return the distribution of the values of one kind.

    Raises:
        ValueError: there is none, or one is not a finite number above zero.
    """
    rates = sorted(_rate(value, less_is_better) for value in values)
    if not rates:
        raise ValueError("there is nothing to compare")
    median = middle(rates)
    mad = middle(sorted(abs(rate - median) for rate in rates))
    return Distribution(len(rates), median, mad, rates[-1], less_is_better)


def middle(ordered: list[float]) -> float:
    """Return the median of an ascending list."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def less_is_better(unit: str) -> bool:
    """True for times and costs, false for rates."""
    return unit in LESS_IS_BETTER


def text(standing: Standing, value: float, unit: str, outside: int = 0) -> str:
    """Return a standing in words: what was measured, against what, of how many, how sure.

    Args:
        outside: how many of the peers were not measured in this run.
    """
    head = f"{value:.4g} {unit}, {difference(standing.fraction)} the {standing.against} {standing.reference:.4g} {unit}"
    peers = f"of {standing.n} GPUs or nodes of its kind" + (f" ({outside} from earlier runs)" if outside else "")
    if standing.against == "best":
        return f"{head} {peers}; fewer than {FEW}, so compared with the best"
    shown = "more than half of them are equal" if standing.z is None else f"modified z {standing.z:.1f}"
    return f"{head} {peers}; {shown}"


def difference(fraction: float) -> str:
    """Return ``12 % below`` or ``3 % above`` for a fraction."""
    percent = round(abs(1 - fraction) * 100, 1)
    return f"{percent:g} % {'below' if fraction < 1 else 'above'}" if percent else "the same as"


def _rate(value: float, less: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is not a finite number above zero")
    return 1 / value if less else float(value)
