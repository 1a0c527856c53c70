# SPDX-License-Identifier: Apache-2.0
"""Choose the driver of a node: source, branch, version and kernel module flavour, by policy or by name. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from .compat_gpu import (
    OPEN_KERNEL,
    driver_problem,
    last_branch_for,
    mix_problem,
    needs_open,
    needs_proprietary,
    require_known_gpus,
)
from .compat_platform import Platform
from .compat_rules import (
    Case,
    Refusal,
    TablesLike,
    at_least,
    ended,
    find,
    listed,
    major,
    rank,
    shown,
    sources_of,
)

OPEN_DEFAULT_FROM = "560"
_SOON_DAYS = 90
_NO_VERSION = "the tables know no version of branch"


@dataclass(frozen=True)
class Driver:
    """A driver that drives every GPU of the node. ``row`` is its branch in the table."""

    row: dict[str, Any]
    version: str
    flavour: str
    source: str


def branch_key(row: dict[str, Any]) -> int:
    """Branches by age."""
    return int(row["branch"])


def choose_driver(case: Case, platform: Platform) -> Driver | None:
    """Return the driver of the node, None where none belongs, or refuse."""
    node = case.node
    if not node.gpus:
        case.decide("driver", None, "the node has no NVIDIA GPU, so no driver is planned")
        return None
    require_known_gpus(node.gpus)
    if node.wsl:
        rule = "WSL2: the driver belongs to Windows, and a Linux driver would break the pass-through of the GPU"
        case.decide("driver", None, rule, "platforms/wsl-ubuntu", platform.sources)
        return None
    source = _source(case, platform)
    problems: list[tuple[str, str, str]] = []
    for row, why in _candidates(case, platform, source):
        found = _fitting(case, platform, row, source)
        if isinstance(found, Driver):
            _explain(case, platform, found, why, problems)
            return found
        problems.append((row["branch"], *found))
    raise _refused(case, problems)


def _source(case: Case, platform: Platform) -> str:
    wanted = case.intent.driver_source
    if wanted == "auto":
        source = "nvidia" if platform.nvidia else "distribution"
        rule = (
            "NVIDIA's own repository serves this platform"
            if platform.nvidia
            else "NVIDIA's own repository does not serve this platform; its distribution has a driver"
        )
    else:
        source, rule = wanted, "asked for by stack_driver_source"
    if not platform.has_source(source):
        raise Refusal(
            "platform",
            f"the tables know no driver packages of the source {source} for {platform.id}",
            ["Set stack_driver_source to auto"],
        )
    case.decide("driver.source", source, rule, platform.row_id, platform.sources)
    return source


def _candidates(case: Case, platform: Platform, source: str) -> list[tuple[dict[str, Any], str]]:
    """Return the branches to try in order, with the rule that put each there."""
    rows = case.tables.drivers["branches"]
    named = _named_branch(case)
    if named is not None:
        row = find(rows, "branch", named)
        if row is None:
            known = ", ".join(sorted((row["branch"] for row in rows), key=int))
            raise Refusal("gpu-driver", f"branch {named} is not in the table of drivers (it has {known})")
        return [(row, "asked for by name")]
    live = [row for row in rows if eligible(row, case.today)]
    if source == "distribution":
        offered = platform.distribution_branches
        fitting = [row for row in live if row["branch"] in offered]
        if not fitting:
            raise Refusal(
                "gpu-driver",
                f"the archive of {platform.id} has no live branch: {_ends(case, offered)}",
                [f"Set stack_driver_branch to {branch} to take it all the same" for branch in offered],
            )
        live = fitting
    return _by_policy(case.intent.policy, live)


def _named_branch(case: Case) -> str | None:
    """The branch the user named, by itself or by an exact version."""
    branch, version = case.intent.driver_branch, case.intent.driver_version
    if version != "auto" and branch not in ("auto", major(version)):
        raise Refusal(
            "intent",
            f"driver version {version} does not belong to branch {branch}",
            [f"Set stack_driver_branch to {major(version)}, or stack_driver_version to auto"],
        )
    return branch if branch != "auto" else major(version) if version != "auto" else None


def eligible(row: dict[str, Any], today: str) -> bool:
    """Whether a branch may be chosen without being named: alive, and everything a choice depends on is known."""
    needed = ("type", "eol", "latest_known", "arch_min", "supports_blackwell", "cuda_max_native")
    if any(row.get(column) is None for column in needed) or row.get("type") == "developer":
        return False
    return not ended(row.get("eol"), today)


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=branch_key, reverse=True)


def _by_policy(policy: str, live: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    long_term = [(row, "newest live long-term branch (LTSB)") for row in _newest(live) if row.get("type") == "LTSB"]
    if policy == "lts":
        return [(row, f"policy lts: {why}") for row, why in long_term]
    if policy == "newest":
        return [(row, "policy newest: newest live branch about which all is known") for row in _newest(live)]
    production = [
        (row, "policy production: newest live production branch")
        for row in _newest(live)
        if row.get("type") == "production"
    ]
    return production + [(row, f"policy production, fallback: {why}") for row, why in long_term]


def _fitting(case: Case, platform: Platform, row: dict[str, Any], source: str) -> Driver | tuple[str, str]:
    """Return the driver of a branch, or (gate, why) it does not fit."""
    flavours = _flavours(case, row, source, platform)
    problems = [driver_problem(case.tables, row, flavour, case.node, platform, source) for flavour in flavours]
    fitting = [flavour for flavour, problem in zip(flavours, problems) if problem is None]
    first = problems[0]
    if not fitting and first is not None:
        return first
    version, why = _version(case, platform, row, source)
    return Driver(row, version, fitting[0], source) if version else ("gpu-driver", str(why))


def _version(case: Case, platform: Platform, row: dict[str, Any], source: str) -> tuple[str | None, str | None]:
    wanted = case.intent.driver_version
    if wanted != "auto":
        return wanted, None  # an archive moves with every update: only the node can tell whether it has this one
    offered = platform.distribution_version(row["branch"]) if source == "distribution" else row.get("latest_known")
    if offered is None:
        return None, f"{_NO_VERSION} {row['branch']} that could be pinned"
    return offered, None


def _flavours(case: Case, row: dict[str, Any], source: str, platform: Platform) -> list[str]:
    """Flavours to try, best first."""
    if case.intent.module_flavour != "auto":
        return [case.intent.module_flavour]
    if any(needs_proprietary(gpu) for gpu in case.node.gpus):
        return ["proprietary"]
    if any(needs_open(gpu) for gpu in case.node.gpus):
        return ["open"]
    open_first = ["open", "proprietary"]
    if source == "distribution":
        return [platform.distribution_flavour, *(f for f in open_first if f != platform.distribution_flavour)]
    return open_first if at_least(row["branch"], OPEN_DEFAULT_FROM) else open_first[::-1]


def _explain(case: Case, platform: Platform, driver: Driver, why: str, passed: list[tuple[str, str, str]]) -> None:
    row = driver.row
    table_row, sources = f"drivers/{row['branch']}", sources_of(case.tables.drivers, row)
    skipped = "".join(f"; branch {branch} was passed over: {problem}" for branch, _gate, problem in passed)
    case.decide("driver.branch", row["branch"], why + skipped, table_row, sources)
    exact = case.intent.driver_version
    if exact == "auto":
        rule = f"newest version of branch {row['branch']} known on {row.get('latest_known_asof')}"
        if driver.source == "distribution":
            rule = "the version in the distribution's archive"
    else:
        rule = "asked for by name"
        newest = row.get("latest_known")
        offered = platform.distribution_version(row["branch"]) if driver.source == "distribution" else None
        if offered and offered != exact:
            rule += f"; the version that the table knows in the distribution's archive is {offered}"
        elif newest and not at_least(newest, exact):
            rule += f"; newer than the newest version the table knows ({newest}), so nothing is known of it"
    case.decide("driver.version", driver.version, rule, table_row, sources)
    case.decide("driver.flavour", driver.flavour, *_flavour_rule(case, driver))
    case.decide("driver.eol", row.get("eol"), _eol_rule(row, case.today), table_row, sources)
    dkms = platform.dkms_minimum(driver.version)
    if dkms:
        known = _rule(case.tables, "debian12-dkms")
        text = f"{known['text']} Taken from {platform.row['dkms_minimum']['package_from']}"
        case.decide("os.dkms_minimum", dkms, text, "drivers/rules/debian12-dkms", known["source"])


def _rule(tables: TablesLike, rule_id: str) -> dict[str, Any]:
    return find(tables.drivers["rules"], "id", rule_id) or {"text": rule_id, "source": None}


def _flavour_rule(case: Case, driver: Driver) -> tuple[str, str, Any]:
    if case.intent.module_flavour != "auto":
        return "asked for by name, and possible with every GPU", f"drivers/{driver.row['branch']}", None
    for needs, gpus in ((needs_proprietary, case.node.gpus), (needs_open, case.node.gpus)):
        forcing = [shown(gpu) for gpu in gpus if needs(gpu)]
        if forcing:
            rule = _rule(case.tables, "no-mixed-host" if len(forcing) < len(gpus) else "open-only-arch")
            return f"{listed(forcing)} has only this one. {rule['text']}", f"drivers/rules/{rule['id']}", rule["source"]
    rule = _rule(case.tables, "open-only-arch")
    return rule["text"], "drivers/rules/open-only-arch", rule["source"]


def _eol_rule(row: dict[str, Any], today: str) -> str:
    soon = (date.fromisoformat(today) + timedelta(days=_SOON_DAYS)).isoformat()
    if row.get("eol") is None:
        text = "the end of life of this branch is not known"
    elif ended(row.get("eol"), today):
        text = f"warning: branch {row['branch']} ended on {row.get('eol')} and gets no security fixes; it was named"
    elif ended(row.get("eol"), soon):
        text = f"warning: branch {row['branch']} ends on {row.get('eol')}, in less than {_SOON_DAYS} days"
    else:
        text = f"branch {row['branch']} is supported until {row.get('eol')}"
    return f"{text} ({row.get('notes')})" if row.get("notes") else text


def _ends(case: Case, branches: Sequence[str]) -> str:
    rows = [find(case.tables.drivers["branches"], "branch", branch) for branch in branches]
    return listed(f"branch {row['branch']} ended {row.get('eol')}" for row in rows if row)


def _refused(case: Case, problems: list[tuple[str, str, str]]) -> Refusal:
    mixed = mix_problem(case.node.gpus)
    if mixed:
        return Refusal("gpu-driver", mixed, ["Move the older and the newer GPUs into different hosts"])
    if not problems:
        return Refusal("gpu-driver", f"no live branch fits the policy {case.intent.policy}", [_OTHER_BRANCH])
    remedies = []
    ages = [rank(gpu.architecture) or 0 for gpu in case.node.gpus]
    last = last_branch_for(case.tables, min(ages))
    row = find(case.tables.drivers["branches"], "branch", last)
    if row and ended(row.get("eol"), case.today) and case.intent.driver_branch == "auto":
        remedies.append(f"Set stack_driver_branch to {last}, which ended on {row.get('eol')}, to take it all the same")
    # the last branch that was tried is the oldest, which drives the most GPUs: its reason says the most
    gate = problems[-1][1]
    if gate == "kernel":
        remedies.append(f"Boot Linux {OPEN_KERNEL} or newer")
    if case.intent.module_flavour != "auto":
        remedies.append("Set stack_module_flavour to auto")
    if any(problem.startswith(_NO_VERSION) for _branch, _gate, problem in problems):
        remedies.append("Name an exact version by stack_driver_version")
    reasons = list(dict.fromkeys(problem for _branch, _gate, problem in reversed(problems)))
    return Refusal(gate, "; ".join(reasons), remedies or [_OTHER_BRANCH])


_OTHER_BRANCH = (
    "Name a branch that drives every GPU by stack_driver_branch, or add what you know of one by stack_extra_tables"
)
