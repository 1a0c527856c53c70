# SPDX-License-Identifier: Apache-2.0
"""Declared GPU modes (MIG layout, ECC, limits, clocks): what was asked for, is it possible, what has to be done. Pure.

Shapes used throughout:

* declaration: ``{mode: {selector: value}}``, a selector being ``all``, an index (``"0"``) or a UUID; an absent mode is
  left alone. This is what is kept in /etc/rackwright/gpu-modes.json.
* device: what ``gpu_modes_nvml.read_device`` returns; a mode that a GPU lacks is None, with its reason in ``missing``.
* remembered: the locked clocks of this boot by UUID, since NVML has no way to ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import mig_layout
from .mig_layout import Instance, LayoutError, Profile, spell_names

MODES = (
    "mig",
    "ecc",
    "persistence_mode",
    "power_limit_w",
    "compute_mode",
    "locked_clocks_mhz",
    "application_clocks_mhz",
)
LEFT_ALONE = "none"
DEFAULT = "default"
ALL = "all"
#: kinds of steps that nothing may run on the GPU for
DISTURBING = ("mig_mode", "destroy")
#: kinds of steps that only say what follows
ANNOUNCING = ("reset", "later")
_SWITCH = {True: True, "on": True, "true": True, "enabled": True, "yes": True}
_SWITCH.update({False: False, "off": False, "false": False, "disabled": False, "no": False})
_LABELS = {
    "mig": "MIG",
    "ecc": "ECC",
    "persistence_mode": "persistence mode",
    "power_limit_w": "power limit",
    "compute_mode": "compute mode",
    "locked_clocks_mhz": "locked clocks",
    "application_clocks_mhz": "application clocks",
}
_COMPUTE_MODES = ("default", "exclusive_process", "prohibited")


@dataclass(frozen=True)
class Step:
    """One thing to do on one GPU. ``before`` undoes it."""

    kind: str
    before: Any
    after: Any
    text: str


class DeclarationError(ValueError):
    """A value that is no declaration; the text is a clause that begins with the mode."""


# ---- what was declared ----


def declared(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the declaration in values as people write them. Raises DeclarationError."""
    result = {}
    for mode in MODES:
        value = values.get(mode, LEFT_ALONE)
        if value is None or value == LEFT_ALONE:
            continue
        result[mode] = {selector: _value(mode, one) for selector, one in sorted(_by_selector(mode, value).items())}
    return result


def _by_selector(mode: str, value: Any) -> dict[str, Any]:
    if mode == "mig" and not isinstance(value, Mapping):
        raise DeclarationError(
            "MIG is declared as a mapping such as {all: [1g.10gb x7]}, as {} (off) or as none, "
            f"and here it is {value!r}"
        )
    if mode == "mig" and not value:
        return {ALL: []}
    if isinstance(value, Mapping) and not (mode == "application_clocks_mhz" and set(value) <= {"memory", "graphics"}):
        return {str(selector).strip(): one for selector, one in value.items()}
    return {ALL: value}


def _value(mode: str, value: Any) -> Any:
    if mode == "mig":
        try:
            return mig_layout.parse(value or [])
        except LayoutError as error:
            raise DeclarationError(f"MIG: {error}") from error
    if mode in ("ecc", "persistence_mode"):
        return _switch(mode, value)
    if mode == "compute_mode":
        if value not in _COMPUTE_MODES:
            raise DeclarationError(f"compute mode is {value!r} and has to be one of {', '.join(_COMPUTE_MODES)}")
        return value
    if value == DEFAULT:
        return DEFAULT
    if mode == "power_limit_w":
        return _whole(mode, value, "watts")
    if mode == "locked_clocks_mhz":
        return _range(value)
    if not isinstance(value, Mapping) or set(value) != {"memory", "graphics"}:
        raise DeclarationError(f"application clocks are {value!r} and have to be {{memory: MHz, graphics: MHz}}")
    return {key: _whole(mode, value[key], "MHz") for key in ("memory", "graphics")}


def _switch(mode: str, value: Any) -> bool:
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (bool, str)) or key not in _SWITCH:
        raise DeclarationError(f"{_LABELS[mode]} is {value!r} and has to be on, off or none")
    return _SWITCH[key]


def _whole(mode: str, value: Any, unit: str) -> int:
    try:
        if isinstance(value, bool) or int(value) != float(value) or int(value) <= 0:
            raise ValueError
    except (TypeError, ValueError):
        raise DeclarationError(f"{_LABELS[mode]} is {value!r} and has to be a whole number of {unit}") from None
    return int(value)


def _range(value: Any) -> list[int]:
    ends = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(ends) != 2:
        raise DeclarationError(f"locked clocks are {value!r} and have to be one number or [lowest, highest] in MHz")
    low, high = (_whole("locked_clocks_mhz", one, "MHz") for one in ends)
    if low > high:
        raise DeclarationError(f"locked clocks begin at {low} MHz and end at {high} MHz, below that")
    return [low, high]


def wants_of(device: Mapping[str, Any], declaration: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is declared for one GPU; its UUID counts more than its index, and that more than ``all``."""
    wants = {}
    for mode, by_selector in declaration.items():
        for selector in (str(device["uuid"]), str(device["index"]), ALL):
            if selector in by_selector:
                wants[mode] = by_selector[selector]
                break
    return wants


def unknown_selectors(
    devices: Sequence[Mapping[str, Any]], declaration: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return, for each mode, selectors that no GPU answers to."""
    known = {ALL, *(str(one["index"]) for one in devices), *(str(one["uuid"]) for one in devices)}
    found = {mode: sorted(set(by_selector) - known) for mode, by_selector in declaration.items()}
    return {mode: names for mode, names in found.items() if names}


# ---- is it possible ----


def problems(device: Mapping[str, Any], wants: Mapping[str, Any]) -> list[str]:
    """Return why a GPU cannot have what is declared for it, one clause for each mode; nothing when it can."""
    if not wants:
        return []
    if device.get("error"):
        return [f"it does not answer: {device['error']}"]
    checks = {
        "mig": _mig_problem,
        "power_limit_w": _power_problem,
        "locked_clocks_mhz": _locked_problem,
        "application_clocks_mhz": _application_problem,
    }
    found = []
    for mode, value in wants.items():
        if _absent(device, mode):
            off = value in (False, [], DEFAULT)
            why = device["missing"].get(mode, "not supported on this device")
            found += [] if off else [f"it has no {_LABELS[mode]}: {why}"]
        elif mode in checks:
            problem = checks[mode](device, value)
            found += [problem] if problem else []
    return found


def _absent(device: Mapping[str, Any], mode: str) -> bool:
    return device.get(mode) is None


def _mig_problem(device: Mapping[str, Any], names: list[str]) -> str | None:
    profiles = profiles_of(device)
    if not names or not profiles:
        return None  # with MIG off some drivers tell no profile: they are checked once it is on
    try:
        mig_layout.check_fits(mig_layout.resolve(names, profiles))
    except LayoutError as error:
        return str(error)
    return None


def _power_problem(device: Mapping[str, Any], watts: Any) -> str | None:
    power = device["power_limit_w"]
    if watts == DEFAULT or power["min"] <= watts <= power["max"]:
        return None
    return f"a power limit of {watts} W is outside {power['min']:g} to {power['max']:g} W"


def _locked_problem(device: Mapping[str, Any], ends: Any) -> str | None:
    clocks = device["locked_clocks_mhz"]["supported"]
    if ends == DEFAULT or not clocks or (clocks[0] <= ends[0] and ends[1] <= clocks[-1]):
        return None
    return f"clocks of {ends[0]} to {ends[1]} MHz are outside {clocks[0]} to {clocks[-1]} MHz"


def _application_problem(device: Mapping[str, Any], wanted: Any) -> str | None:
    clocks = device["application_clocks_mhz"]
    if wanted == DEFAULT:
        return None
    for kind in ("memory", "graphics"):
        known = clocks[f"supported_{kind}"]
        if known and wanted[kind] not in known:
            near = sorted(sorted(known, key=lambda one: abs(one - wanted[kind]))[:2])
            return f"it has no {kind} clock of {wanted[kind]} MHz; nearest: {', '.join(map(str, near))} MHz"
    return None


def profiles_of(device: Mapping[str, Any]) -> list[Profile]:
    """Return the MIG profiles of a device as records."""
    found = (device.get("mig") or {}).get("profiles") or []
    return [Profile(**{**one, "starts": tuple(one["starts"])}) for one in found]


def instances_of(device: Mapping[str, Any]) -> list[Instance]:
    """Return the MIG instances of a device as records."""
    found = (device.get("mig") or {}).get("instances") or []
    return [Instance(**{**one, "compute": tuple(one["compute"])}) for one in found]


# ---- what has to be done ----


def plan(device: Mapping[str, Any], wants: Mapping[str, Any], remembered: Mapping[str, Any]) -> list[Step]:
    """Return the steps that bring one GPU to what is declared, in the order in which they have to be done.

    ``ecc`` and ``mig_mode`` set what holds after the next reset; ``reset`` stands where a mode waits for it. A layout
    whose profiles the driver does not tell yet follows once MIG is on. Raises LayoutError.
    """
    steps = _ecc_steps(device, wants) + _mig_mode_steps(device, wants)
    waiting = waits_for_reset(device, wants)
    if waiting and not steps:
        steps.append(Step("reset", None, None, f"{' and '.join(waiting)} mode waits for a reset of the GPU"))
    steps += _layout_steps(device, wants)
    for mode in ("persistence_mode", "power_limit_w", "compute_mode", "application_clocks_mhz"):
        steps += _simple_steps(device, wants, mode)
    return steps + _locked_steps(device, wants, remembered)


def waits_for_reset(device: Mapping[str, Any], wants: Mapping[str, Any]) -> list[str]:
    """Return which declared modes are set and not in force yet: ECC, MIG."""
    waiting = []
    for mode in ("ecc", "mig"):
        now = device.get(mode)
        if mode in wants and now and now["pending"] == bool(wants[mode]) != now["current"]:
            waiting.append(_LABELS[mode])
    return waiting


def _ecc_steps(device: Mapping[str, Any], wants: Mapping[str, Any]) -> list[Step]:
    now = device.get("ecc")
    if "ecc" not in wants or not now or now["pending"] == wants["ecc"]:
        return []
    text = f"ECC {_on(now['pending'])} -> {_on(wants['ecc'])} (in force after a reset of the GPU)"
    return [Step("ecc", now["pending"], wants["ecc"], text)]


def _mig_mode_steps(device: Mapping[str, Any], wants: Mapping[str, Any]) -> list[Step]:
    now = device.get("mig")
    if "mig" not in wants or not now or bool(wants["mig"]) == now["pending"]:
        return []
    on = bool(wants["mig"])
    steps = [] if on else _destroy_steps(instances_of(device), profiles_of(device))
    text = f"MIG mode {_on(now['pending'])} -> {_on(on)}" + ("" if now["resetless"] else " (resets the GPU)")
    return [*steps, Step("mig_mode", now["pending"], on, text)]


def _layout_steps(device: Mapping[str, Any], wants: Mapping[str, Any]) -> list[Step]:
    names, now = wants.get("mig"), device.get("mig")
    profiles = profiles_of(device)
    if not names or not now:
        return []
    if not profiles:
        return [] if now["current"] else [Step("later", None, None, f"then make {spell_names(names)}")]
    present = instances_of(device) if now["current"] else []
    change = mig_layout.change(mig_layout.resolve(names, profiles), present, profiles)
    made = [
        Step("create", None, [one.id, start, one.size, one.slices], f"create {one.name} at memory slice {start}")
        for one, start in change.create
    ]
    return [*_destroy_steps(change.destroy, profiles), *made]


def _destroy_steps(instances: Sequence[Instance], profiles: Sequence[Profile]) -> list[Step]:
    names = {profile.id: profile.name for profile in profiles}
    return [
        Step(
            "destroy",
            [one.profile_id, one.start, one.size, list(one.compute)],
            one.id,
            f"destroy {names.get(one.profile_id, 'the instance')} at memory slice {one.start}",
        )
        for one in instances
    ]


def _simple_steps(device: Mapping[str, Any], wants: Mapping[str, Any], mode: str) -> list[Step]:
    now = device.get(mode)
    if mode not in wants or now is None:
        return []
    wanted = wants[mode]
    current = now["current"] if isinstance(now, Mapping) else now
    if wanted == DEFAULT and isinstance(now, Mapping):
        wanted = now["default"]
    if wanted == current or wanted is None:
        return []
    return [Step(mode, current, wanted, f"{_LABELS[mode]} {_spell(mode, current)} -> {_spell(mode, wanted)}")]


def _locked_steps(device: Mapping[str, Any], wants: Mapping[str, Any], remembered: Mapping[str, Any]) -> list[Step]:
    mode = "locked_clocks_mhz"
    if mode not in wants or device.get(mode) is None:
        return []
    before = remembered.get(str(device["uuid"]))
    wanted = None if wants[mode] == DEFAULT else wants[mode]
    if before == wanted:
        return []
    return [Step(mode, before, wanted, f"{_LABELS[mode]} {_spell(mode, before)} -> {_spell(mode, wanted)}")]


def _on(value: bool) -> str:
    return "on" if value else "off"


def _spell(mode: str, value: Any) -> str:
    if mode == "persistence_mode":
        return _on(value)
    if mode == "power_limit_w":
        return f"{value:g} W"
    if mode == "application_clocks_mhz":
        return f"memory {value['memory']} MHz, graphics {value['graphics']} MHz"
    if mode == "locked_clocks_mhz":
        return "not locked" if value is None else f"{value[0]} to {value[1]} MHz"
    return str(value)


def busy_problem(device: Mapping[str, Any], steps: Sequence[Step]) -> str | None:
    """Return who keeps a GPU from steps that disturb its programs, None when nobody does."""
    disturbing = [step for step in steps if step.kind in DISTURBING]
    processes = device.get("processes") or []
    if not disturbing or not processes:
        return None
    who = ", ".join(f"{one['name'] or 'a process'} (pid {one['pid']})" for one in processes)
    return f"{who} is using it, and this would {disturbing[0].text}"
