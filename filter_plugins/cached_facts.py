# SPDX-License-Identifier: Apache-2.0
"""What follows from cached facts: groups for ``zz-gpu.constructed.yml``, and how old a fact is.

One filter makes all groups, in place of an expression for each: every ``ansible`` command reads the inventory, and each
expression costs a millisecond per host.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright.ages import MAX_AGE_HOURS, age_seconds, age_text
from rackwright.fleet_groups import groups_of


def fleet_groups(gpu: Any, health: Any = None, verdict: Any = None, max_age: Any = None) -> list[str]:
    """Return the groups of a node.

    Args:
        gpu: its fact ``gpu``, empty where there is none; ``health`` and ``verdict`` likewise.
        max_age: hours after which a fact is stale; empty means a week.
    """
    facts = {"gpu": gpu or None, "gpu_health": health or None, "gpu_verdict": verdict or None}
    try:
        hours = float(max_age) if max_age not in (None, "") else MAX_AGE_HOURS
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(
            f"Could not use facts_max_age: {max_age!r} is no number. Give the hours, like 168."
        ) from error
    return groups_of(facts, hours, datetime.datetime.now(datetime.timezone.utc))


def fact_age(moment: Any) -> str:
    """Return ``3 days old`` for the time stamp of a fact."""
    return age_text(age_seconds(moment, datetime.datetime.now(datetime.timezone.utc)))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name them for templates."""
        return {"fleet_groups": fleet_groups, "fact_age": fact_age}
