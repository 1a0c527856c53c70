# SPDX-License-Identifier: Apache-2.0
"""How old something is, in words and in seconds. Pure: the time that counts as now is always handed in."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

#: hours after which a cached fact counts as stale, where ``facts_max_age`` says nothing
MAX_AGE_HOURS = 168.0
#: clocks of nodes and control node differ a little; what is further ahead than this is told, seconds
_SKEW = 300.0
_RUN_ID = "%Y%m%dT%H%M%SZ"
_UNITS = (("minute", 60), ("hour", 3600), ("day", 86400), ("year", 365 * 86400))


def parse_time(text: Any) -> datetime.datetime | None:
    """Return a moment in UTC, None for what is none.

    Args:
        text: ISO 8601 like ``2026-11-23T01:02:03+00:00`` or ``...Z``, without an offset meant as UTC; or a run's
            identifier like ``20261123T010203Z``.
    """
    if not isinstance(text, str):
        return None
    try:
        # Python 3.9 reads neither the Z nor the short form
        moment = (
            datetime.datetime.strptime(text, _RUN_ID)
            if text.endswith("Z") and "-" not in text
            else datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        )
        zoned = moment.replace(tzinfo=datetime.timezone.utc) if moment.tzinfo is None else moment
        return zoned.astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return None


def age_seconds(text: Any, now: datetime.datetime) -> float | None:
    """Return how long before ``now`` (with a time zone) a moment was, None where ``text`` is no time.

    Negative where it is ahead of ``now``: a clock is wrong.
    """
    moment = parse_time(text)
    return None if moment is None else (now - moment).total_seconds()


def age_text(seconds: float | None) -> str:
    """Return ``3 days old``, in the largest unit that fits, cut and never rounded up."""
    if seconds is None:
        return "of unknown age"
    if seconds < -_SKEW:
        return f"dated {_amount(-seconds)} ahead: a clock is wrong"
    return "less than a minute old" if seconds < _UNITS[0][1] else f"{_amount(seconds)} old"


def _amount(seconds: float) -> str:
    unit, length = next((pair for pair in reversed(_UNITS) if seconds >= pair[1]), _UNITS[0])
    count = int(seconds // length)
    return f"{count} {unit}{'' if count == 1 else 's'}"


def is_stale(seconds: float | None, max_hours: float = MAX_AGE_HOURS) -> bool:
    """Return whether a fact of this age is too old to be believed; one of unknown age is."""
    return seconds is None or seconds > max_hours * 3600


def cache_lines(
    times: Mapping[str, Any], now: datetime.datetime, max_hours: float = MAX_AGE_HOURS, most: int = 8
) -> list[str]:
    """Return what has to be said where cached facts are used: how old they are, and which are stale.

    Args:
        times: node to the time stamp of its facts.
        now: with a time zone.
        max_hours: age above which facts are stale.
        most: stale nodes that are named.
    """
    if not times:
        return []
    ages = {name: age_seconds(moment, now) for name, moment in times.items()}
    known = sorted(seconds for seconds in ages.values() if seconds is not None)
    span = list(dict.fromkeys(age_text(seconds) for seconds in known[:1] + known[-1:])) or [age_text(None)]
    lines = [f"Cached facts of {next(iter(times)) if len(times) == 1 else f'{len(times)} nodes'}: {' to '.join(span)}."]
    stale = [f"{name} ({age_text(seconds)})" for name, seconds in ages.items() if is_stale(seconds, max_hours)]
    if stale:
        more = f" and {len(stale) - most} more" if len(stale) > most else ""
        lines.append(
            f"Stale, older than {max_hours:g} hours: {', '.join(stale[:most])}{more}. "
            "playbooks/gather-facts.yml asks them again."
        )
    return lines
