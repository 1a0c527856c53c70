# SPDX-License-Identifier: Apache-2.0
"""Which GPU instances a declared MIG layout asks for, whether they fit on the GPU, and where. Pure.

A GPU has memory slices in a row; a profile takes ``size`` of them and may begin only at some. NVML tells both, so
nothing here knows a GPU model. Places are looked for here, and not left to the driver's own order, because a layout
that fits can be spoilt by the order in which its instances are made (``3g`` before ``4g`` on an A100 takes the only
place where ``4g`` may lie).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_ENTRY = re.compile(r"(?P<name>[\w.+-]+?)(?:\s*[x*]\s*(?P<after>\d+))?")
_COUNTED_FIRST = re.compile(r"(?P<before>\d+)\s*[x*]\s*(?P<name>[\w.+-]+)")
_COMPUTE_PART = re.compile(r"\d+c\.")
#: more instances than any GPU can have; a layout beyond it is a slip of the pen, not a layout
_MOST = 64


class LayoutError(ValueError):
    """A layout that cannot be had; the text is a clause without a full stop."""


@dataclass(frozen=True)
class Profile:
    """One kind of GPU instance, as NVML describes it for one GPU.

    ``size`` and ``starts`` count memory slices, ``slices`` compute slices; ``most`` is how many the GPU can have.
    """

    id: int
    name: str
    slices: int
    size: int
    starts: tuple[int, ...]
    most: int
    memory_mb: int = 0


@dataclass(frozen=True)
class Instance:
    """A GPU instance that is there: its id, profile, first memory slice, and the slices of its compute instances."""

    id: int
    profile_id: int
    start: int
    size: int
    compute: tuple[int, ...] = ()


@dataclass(frozen=True)
class Change:
    """What turns the instances that are there into the wanted ones: ids to destroy, then profiles to make, in order."""

    destroy: tuple[Instance, ...]
    create: tuple[tuple[Profile, int], ...]

    def __bool__(self) -> bool:
        return bool(self.destroy or self.create)


def parse(entries: Any) -> list[str]:
    """Return the profile names of a layout, one for each instance: ``["1g.10gb x3", "4g.40gb"]`` gives four.

    A single text is a layout of one entry. Raises LayoutError.
    """
    names: list[str] = []
    for entry in [entries] if isinstance(entries, str) else entries:
        text = str(entry).strip()
        match = _COUNTED_FIRST.fullmatch(text) or _ENTRY.fullmatch(text.removeprefix("MIG "))
        if match is None:
            raise LayoutError(f"'{text}' is no MIG profile; write it as '1g.10gb' or '1g.10gb x7'")
        name, counted = match["name"].lower(), match.groupdict()
        count = int(counted.get("after") or counted.get("before") or 1)
        if _COMPUTE_PART.match(name):
            raise LayoutError(
                f"'{name}' divides a GPU instance into compute instances, which is not supported; "
                f"name the GPU instance, '{_COMPUTE_PART.sub('', name)}'"
            )
        if not 1 <= count <= _MOST:
            raise LayoutError(f"'{text}' asks for {count} instances")
        names += [name] * count
    return names


def resolve(names: Iterable[str], profiles: Sequence[Profile]) -> list[Profile]:
    """Return the profile of each name. Raises LayoutError that names what is nearest and what the GPU offers."""
    by_name = {profile.name.lower(): profile for profile in profiles}
    found = []
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise LayoutError(f"it has no MIG profile '{name}'{guess}; it offers {', '.join(_by_size(profiles))}")
        found.append(by_name[name])
    return found


def _by_size(profiles: Iterable[Profile]) -> list[str]:
    return [p.name for p in sorted(profiles, key=lambda p: (p.slices, p.size, p.name))]


def place(wanted: Sequence[Profile], taken: Sequence[Instance] = ()) -> list[tuple[Profile, int]] | None:
    """Return each wanted profile with its first memory slice, largest first, or None where they do not all fit."""
    busy = frozenset(cell for instance in taken for cell in range(instance.start, instance.start + instance.size))
    counts = Counter(profile.id for profile in wanted) + Counter(instance.profile_id for instance in taken)
    if any(counts[profile.id] > profile.most for profile in wanted):
        return None
    order = sorted(wanted, key=lambda p: (-p.size, -p.slices, len(p.starts), p.id))
    return _search(order, busy, -1)


def _search(order: Sequence[Profile], busy: frozenset[int], last: int) -> list[tuple[Profile, int]] | None:
    if not order:
        return []
    profile = order[0]
    # equal profiles are interchangeable: they are tried in rising order only
    again = len(order) > 1 and order[1].id == profile.id
    for start in profile.starts:
        cells = frozenset(range(start, start + profile.size))
        if start <= last or cells & busy:
            continue
        rest = _search(order[1:], busy | cells, start if again else -1)
        if rest is not None:
            return [(profile, start), *rest]
    return None


def what_fits(wanted: Sequence[Profile]) -> tuple[list[Profile], list[Profile]]:
    """Return the largest part of a layout that fits when taken in its own order, and what is left over."""
    fits: list[Profile] = []
    left: list[Profile] = []
    for profile in wanted:
        if place([*fits, profile]) is not None:
            fits.append(profile)
        else:
            left.append(profile)
    return fits, left


def check_fits(wanted: Sequence[Profile]) -> None:
    """Raise LayoutError, naming what fits, unless all wanted instances have a place."""
    if place(wanted) is not None:
        return
    fits, left = what_fits(wanted)
    first = left[0]
    limit = f"; at most {first.most} of {first.name} exist on it" if wanted.count(first) > first.most else ""
    raise LayoutError(f"{spell(wanted)} does not fit on it: {spell(fits)} fits, {spell(left)} is left over{limit}")


def spell(profiles: Iterable[Profile]) -> str:
    """Return a layout in words: ``3g.40gb, 1g.10gb x3``."""
    return spell_names(profile.name for profile in profiles)


def spell_names(names: Iterable[str]) -> str:
    """Return names with their counts, in the order in which they come first."""
    counts = Counter(names)
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items()) or "nothing"


def change(wanted: Sequence[Profile], present: Sequence[Instance], profiles: Sequence[Profile]) -> Change:
    """Return what to destroy and to create. Instances that are right stay where the rest can be placed around them.

    An instance is right when its profile is wanted and one compute instance covers it. Raises LayoutError.
    """
    check_fits(wanted)
    slices = {profile.id: profile.slices for profile in profiles}
    missing = Counter(profile.id for profile in wanted)
    kept: list[Instance] = []
    for instance in sorted(present, key=lambda one: one.start):
        if missing[instance.profile_id] and instance.compute == (slices.get(instance.profile_id),):
            missing[instance.profile_id] -= 1
            kept.append(instance)
    by_id = {profile.id: profile for profile in wanted}
    rest = [by_id[number] for number, count in missing.items() for _ in range(count)]
    places = place(rest, kept)
    if places is None:
        kept, places = [], place(wanted)
    gone = tuple(instance for instance in present if instance not in kept)
    return Change(gone, tuple(places or ()))
