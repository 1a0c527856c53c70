# SPDX-License-Identifier: Apache-2.0
"""What would be possible instead of a refused wish: small changes of the intent, each of them really solved. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from .compat_driver import eligible
from .compat_framework import label
from .compat_gpu import last_branch_for
from .compat_platform import find_platform, platform_row, supported_platforms
from .compat_rules import Case, Refusal, ended, find, rank
from .compat_stack import solve_case
from .compat_toolkit import wished_toolkits
from .torch_build import version_key

MOST = 5
#: with fewer single changes that help, pairs of changes are tried too
_ENOUGH = 3
#: neighbours of one variable that are tried, and pairs of changes
_NEIGHBOURS = 6
_PAIRS = 240
#: what a change costs a user, beside how far it goes
_WEIGHT = {
    "stack_module_flavour": 1,
    "stack_driver_version": 1,
    "stack_policy": 2,
    "stack_driver_branch": 2,
    "stack_framework_version": 3,
    "stack_serving_version": 3,
    "stack_driver_source": 4,
    "stack_python": 4,
    "stack_cuda_toolkit": 4,
    "stack_serving": 6,
    "stack_framework": 8,
    "os": 9,
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz-"
Change = dict[str, str]


def find_alternatives(case: Case, refusal: Refusal) -> list[dict[str, Any]]:
    """Return at most five changes that make the case solvable, nearest first; each was solved."""
    singles = sorted(_single_changes(case, refusal), key=lambda pair: pair[1])
    found = _solved(case, singles)
    if len(found) < _ENOUGH:
        # a pair that holds a change that is enough by itself is no other way
        enough = [item["change"].items() for item in found]
        left = [(change, cost) for change, cost in singles if not any(change.items() == one for one in enough)]
        found += _solved(case, _pairs(left))
    return diverse(found)


def _single_changes(case: Case, refusal: Refusal) -> Iterator[tuple[Change, float]]:
    """Changes of one variable with their cost."""
    if refusal.gate == "platform":
        yield from _systems(case)
    for variable, values in _values(case):
        for distance, value in enumerate(values):
            yield {variable: value}, _WEIGHT[variable] + distance / 10


def _values(case: Case) -> Iterator[tuple[str, list[str]]]:
    """Other values of each variable, nearest first."""
    intent = case.intent
    yield "stack_module_flavour", _other(intent.module_flavour, ["auto"])
    yield "stack_driver_version", _other(intent.driver_version, ["auto"])
    if intent.driver_branch == "auto":
        yield "stack_policy", _other(intent.policy, ["production", "lts", "newest"])
    yield "stack_driver_branch", _branches(case)
    yield "stack_driver_source", _other(intent.driver_source, ["auto", "nvidia", "distribution"])
    yield "stack_framework_version", _framework_versions(case)
    if intent.serving != "none":
        rows = case.tables.frameworks["vllm"]["releases"]
        yield "stack_serving_version", _neighbours([row["version"] for row in rows], intent.serving_version)
        yield "stack_serving", ["none"]
    if intent.framework == "tensorflow":
        yield "stack_framework", ["pytorch"]
    yield "stack_python", _pythons(case)
    if intent.cuda_toolkit != "none":
        lines = list(dict.fromkeys(row["toolkit"] for row in case.tables.cuda["releases"]))
        wished = wished_toolkits(intent.cuda_toolkit)
        # of several, each alone; of one, its neighbours
        near = wished if len(wished) > 1 else _neighbours(lines, wished[0])
        yield "stack_cuda_toolkit", [*near, "none"]


def _other(now: str, values: Iterable[str]) -> list[str]:
    return [value for value in values if value != now]


def _neighbours(versions: Sequence[str], wanted: str) -> list[str]:
    """Versions around the wished one, nearest first and the newer of two equally near; ``newest`` last."""
    if wanted == "newest":
        return []
    ordered = sorted(versions, key=version_key)
    key = version_key(wanted)
    place = sum(1 for version in ordered if version_key(version) < key)
    ranked = sorted(range(len(ordered)), key=lambda index: (abs(index - place), -index))
    near = [ordered[index] for index in ranked if ordered[index] != wanted][:_NEIGHBOURS]
    return [*near, "newest"]


def _framework_versions(case: Case) -> list[str]:
    name = case.intent.framework
    if name == "none":
        return []
    rows = case.tables.frameworks[name]["releases"]
    return _neighbours([row["version"] for row in rows], case.intent.framework_version)


def _branches(case: Case) -> list[str]:
    """Live branches, what the distribution has, and the last one for the oldest GPU."""
    rows = case.tables.drivers["branches"]
    live = [row["branch"] for row in reversed(rows) if eligible(row, case.today)]
    ages = [age for age in (rank(gpu.architecture) for gpu in case.node.gpus) if age is not None]
    last = [last_branch_for(case.tables, min(ages))] if ages else []
    platform, _problem = find_platform(case.tables, case.node)
    own = platform.distribution_branches if platform and case.intent.driver_source == "distribution" else []
    wanted = ["auto", *live, *(branch for branch in last if branch not in live), *own]
    return [branch for branch in dict.fromkeys(wanted) if branch != case.intent.driver_branch]


def _pythons(case: Case) -> list[str]:
    """Pythons near the node's own that any release of the framework has wheels for."""
    name = case.intent.framework if case.intent.serving == "none" else "vllm"
    if name == "none":
        return []
    known = {python for row in case.tables.frameworks[name]["releases"] for python in row["pythons"]}
    now = case.intent.python if case.intent.python != "auto" else case.node.python
    # without a Python to be near to: the middle of those that the newest release has wheels for
    newest = max(case.tables.frameworks[name]["releases"], key=lambda row: version_key(row["version"]))["pythons"]
    near = version_key(now or newest[len(newest) // 2])[-1]
    ordered = sorted(known, key=lambda python: (abs(version_key(python)[-1] - near), -version_key(python)[-1]))
    return [python for python in ordered if python != now][:4] + _other(case.intent.python, ["auto"])


def _systems(case: Case) -> Iterator[tuple[Change, float]]:
    """Other operating systems: what the table says to use instead, the same distribution, the same family."""
    row = platform_row(case.tables, case.node.os) or {}
    for position, name in enumerate(supported_platforms(case.tables)):
        other = find(case.tables.platforms["distros"], "id", name)
        if other["family"] == "wsl" or name == row.get("id"):
            continue
        letters = name.rstrip("0123456789")
        closeness = (
            0
            if other["os"] in (row.get("use_instead") or "")
            else 1
            if case.node.os.startswith(letters)
            else 2
            if other["family"] == row.get("family")
            else 3
        )
        number = 0 if row and name[len(letters) :] == case.node.os.lstrip(_LETTERS) else 0.5
        yield {"os": name}, _WEIGHT["os"] + closeness + number + position / 100


def _pairs(singles: list[tuple[Change, float]]) -> list[tuple[Change, float]]:
    pairs = [
        ({**one, **two}, cost_one + cost_two)
        for (one, cost_one), (two, cost_two) in combinations(singles, 2)
        if one.keys() != two.keys()
    ]
    return sorted(pairs, key=lambda pair: pair[1])[:_PAIRS]


def _solved(case: Case, changes: list[tuple[Change, float]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for change, _cost in changes:
        solved = _try(case, change)
        if solved is not None:
            summary = summary_of(solved)
            note = _note(case, solved)
            sentence = f"With {_told(change)}: {summary}{note}."
            found.append({"change": change, "sentence": sentence, "stack_summary": summary})
    return found


def _try(case: Case, change: Change) -> dict[str, Any] | None:
    node = case.node
    if "os" in change:
        row = find(case.tables.platforms["distros"], "id", change["os"])
        node = replace(
            node,
            os=row["id"],
            os_name=row["os"],
            python=row.get("python"),
            glibc=row.get("glibc"),
            pythons=(),
            dkms=None,
        )
    wishes = {name: value for name, value in change.items() if name != "os"}
    try:
        return solve_case(Case(node, case.intent.changed(wishes), case.tables, case.today))
    except Refusal:
        return None


def _told(change: Change) -> str:
    words = [f"{name} {value}" if name != "os" else f"the operating system {value}" for name, value in change.items()]
    return " and ".join(words)


def _note(case: Case, stack: dict[str, Any]) -> str:
    driver = stack["driver"]
    if driver and ended(driver["eol"], case.today):
        return f" (branch {driver['branch']} ended on {driver['eol']})"
    return ""


def diverse(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the nearest, no stack twice and no more than two values of the same variables."""
    kept: list[dict[str, Any]] = []
    for alternative in found:
        names = alternative["change"].keys()
        like = [other for other in kept if other["change"].keys() == names]
        same = any(other["stack_summary"] == alternative["stack_summary"] for other in kept)
        if not same and len(like) < 2:
            kept.append(alternative)
    return kept[:MOST]


def summary_of(stack: dict[str, Any]) -> str:
    """Return a stack in one line: ``driver 580.178.04 proprietary, PyTorch 2.14.1 cu126, Python 3.12``."""
    parts: list[str] = []
    driver, framework, serving, toolkit = (stack[key] for key in ("driver", "framework", "serving", "toolkit"))
    parts.append(f"driver {driver['version']} {driver['flavour']}" if driver else "no driver")
    if framework:
        build = f" {framework['build']}" if framework["build"] else ""
        parts.append(f"{label(framework['name'])} {framework['version']}{build}")
    if serving:
        parts.append(f"{label(serving['engine'])} {serving['version']}")
    if toolkit:
        parts.append(f"CUDA toolkit {', '.join(row['cuda'] for row in toolkit['releases'])}")
    parts.append(f"Python {stack['python']['version'] or 'unknown'}")
    return ", ".join(parts)
