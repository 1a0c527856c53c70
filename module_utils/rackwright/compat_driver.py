# SPDX-License-Identifier: Apache-2.0
"""Gate GPU -> driver: which branch, version and kernel module flavour drive every GPU of a node. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .catalogue import architecture_name
from .compat_platform import Platform
from .compat_rules import Case, Refusal, TablesLike, at_least, ended, find, listed, major, rank, shown, sources_of
from .stack_node import Gpu, StackNode
from .torch_build import version_key

OPEN_KERNEL = "4.15"
OPEN_DEFAULT_FROM = "560"


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


def native_cuda(tables: TablesLike, branch: str) -> str | None:
    """Newest CUDA a branch knows in full; of a branch nobody says it of, that of the branch before it at least."""
    known = [
        row.get("cuda_max_native")
        for row in tables.drivers["branches"]
        if int(row["branch"]) <= int(branch) and row.get("cuda_max_native")
    ]
    return max(known, key=version_key, default=None)


def needs_open(gpu: Gpu) -> bool:
    """Blackwell and newer, and Hopper in Grace Hopper boards, have no proprietary kernel module."""
    age = rank(gpu.architecture)
    return (age is not None and age >= _AGE_BLACKWELL) or "GH200" in gpu.name.upper()


def needs_proprietary(gpu: Gpu) -> bool:
    """GPUs older than Turing have no open kernel module."""
    age = rank(gpu.architecture)
    return age is not None and age < _AGE_TURING


_AGE_TURING = rank("turing") or 0
_AGE_BLACKWELL = rank("blackwell") or 0


def require_known_gpus(gpus: Sequence[Gpu]) -> None:
    """Refuse GPUs about which too little is known to choose anything for them."""
    for gpu in gpus:
        if gpu.compute_capability is None or rank(gpu.architecture) is None:
            raise Refusal(
                "gpu-driver",
                f"the architecture and compute capability of {gpu.name} are not known",
                [
                    "Add the model by gpu_facts_extra_gpus and stack_extra_tables (table gpus), with its "
                    "compute_capability"
                ],
            )


def branch_problem(tables: TablesLike, row: dict[str, Any], gpu: Gpu) -> str | None:
    """Return why a branch does not drive a GPU, or None when it does; what the table does not know counts as no."""
    branch = row["branch"]
    oldest = rank(architecture_name(row.get("arch_min")))
    if oldest is None:
        return f"the table does not know which GPUs branch {branch} drives"
    age = rank(gpu.architecture)
    if age is None or gpu.compute_capability is None:
        return f"the architecture of {gpu.name} is not known"
    if age < oldest:
        last = last_branch_for(tables, age)
        return f"branch {branch} drives {row.get('arch_min')} and newer, not {shown(gpu)}, whose last branch is {last}"
    if age >= _AGE_BLACKWELL and row.get("supports_blackwell") is not True:
        known = "does not drive" if row.get("supports_blackwell") is False else "is not known to drive"
        return f"branch {branch} {known} {shown(gpu)}"
    return _too_new(tables, branch, gpu)


def _too_new(tables: TablesLike, branch: str, gpu: Gpu) -> str | None:
    """A driver older than the first toolkit with a compute capability cannot know GPUs that have it."""
    first = next(
        (
            row.get("first_toolkit")
            for row in tables.cuda["architecture_lifecycle"]
            if gpu.compute_capability in row["caps"]
        ),
        None,
    )
    native = native_cuda(tables, branch)
    if first is None or native is None or at_least(native, first):
        return None
    return (
        f"branch {branch} knows CUDA {native} and {shown(gpu)} came with CUDA {first}, so it is not known to drive it"
    )


def last_branch_for(tables: TablesLike, age: int) -> str:
    """Newest branch that still drives an architecture."""
    fitting = [
        row["branch"]
        for row in tables.drivers["branches"]
        if (rank(architecture_name(row.get("arch_min"))) or 0) <= age and row.get("arch_min")
    ]
    return max(fitting, key=int, default="unknown")


def flavour_problem(row: dict[str, Any], flavour: str, node: StackNode) -> tuple[str, str] | None:
    """Return (gate, why) a kernel module flavour is impossible on the node with this branch, or None."""
    branch = row["branch"]
    if row.get(f"{flavour}_modules_available") is not True:
        known = "has no" if row.get(f"{flavour}_modules_available") is False else "is not known to have"
        return "gpu-driver", f"branch {branch} {known} {flavour} kernel modules"
    for gpu in node.gpus:
        if flavour == "open" and needs_proprietary(gpu):
            return "gpu-driver", f"{shown(gpu)} has no open kernel module: it needs the proprietary one"
        if flavour == "proprietary" and needs_open(gpu):
            return "gpu-driver", f"{shown(gpu)} has no proprietary kernel module: it needs the open one"
    if flavour == "open" and node.kernel and not at_least(_kernel(node.kernel), OPEN_KERNEL):
        return "kernel", f"open kernel modules need Linux {OPEN_KERNEL} or newer and the node runs {node.kernel}"
    return None


def _kernel(release: str) -> str:
    return release.split("-")[0]


def mix_problem(gpus: Sequence[Gpu]) -> str | None:
    """Return why no driver at all can serve these GPUs in one host, or None."""
    old = [shown(gpu) for gpu in gpus if needs_proprietary(gpu)]
    new = [shown(gpu) for gpu in gpus if needs_open(gpu)]
    if not (old and new):
        return None
    return (
        f"{listed(old)} needs the proprietary kernel module and {listed(new)} the open one, and a host loads only one: "
        "no driver serves both"
    )


def driver_problem(
    tables: TablesLike, row: dict[str, Any], flavour: str, node: StackNode, platform: Platform, source: str
) -> tuple[str, str] | None:
    """Return (gate, why) a branch with a flavour from a source is impossible on a node, or None."""
    problem = mix_problem(node.gpus)
    if problem:
        return "gpu-driver", problem
    for gpu in node.gpus:
        problem = branch_problem(tables, row, gpu)
        if problem:
            return "gpu-driver", problem
    return flavour_problem(row, flavour, node) or platform.source_problem(source, row["branch"], flavour)


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
    raise _refused(case, platform, problems)


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
    version, problem = _version(case, platform, row, source)
    if version is None:
        return "gpu-driver", str(problem)
    flavours = _flavours(case, row, source, platform)
    first: tuple[str, str] | None = None
    for flavour in flavours:
        found = driver_problem(case.tables, row, flavour, case.node, platform, source)
        if found is None:
            return Driver(row, version, flavour, source)
        first = first or found
    assert first is not None
    return first


def _version(case: Case, platform: Platform, row: dict[str, Any], source: str) -> tuple[str | None, str | None]:
    wanted = case.intent.driver_version
    offered = platform.distribution_version(row["branch"]) if source == "distribution" else row.get("latest_known")
    if wanted != "auto" and source == "nvidia":
        return wanted, None
    if offered is None:
        known = "its archive has none of that branch" if source == "distribution" else "the table knows none"
        return None, f"no version of branch {row['branch']} can be pinned: {known}"
    if wanted not in ("auto", offered):
        return None, f"the archive of {platform.id} has version {offered} of branch {row['branch']}, not {wanted}"
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
        if newest and not at_least(newest, exact):
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
    if row.get("eol") is None:
        text = "the end of life of this branch is not known"
    elif ended(row.get("eol"), today):
        text = f"warning: branch {row['branch']} ended on {row.get('eol')} and gets no security fixes; it was named"
    else:
        text = f"branch {row['branch']} is supported until {row.get('eol')}"
    return f"{text} ({row.get('notes')})" if row.get("notes") else text


def _ends(case: Case, branches: Sequence[str]) -> str:
    rows = [find(case.tables.drivers["branches"], "branch", branch) for branch in branches]
    return listed(f"branch {row['branch']} ended {row.get('eol')}" for row in rows if row)


def _refused(case: Case, platform: Platform, problems: list[tuple[str, str, str]]) -> Refusal:
    mixed = mix_problem(case.node.gpus)
    if mixed:
        return Refusal("gpu-driver", mixed, ["Move the older and the newer GPUs into different hosts"])
    if not problems:
        return Refusal("gpu-driver", f"no live branch fits the policy {case.intent.policy}", ["Name a branch"])
    remedies = []
    ages = [rank(gpu.architecture) or 0 for gpu in case.node.gpus]
    last = last_branch_for(case.tables, min(ages))
    row = find(case.tables.drivers["branches"], "branch", last)
    if row and ended(row.get("eol"), case.today) and case.intent.driver_branch == "auto":
        remedies.append(f"Set stack_driver_branch to {last}, which ended on {row.get('eol')}, to take it all the same")
    reasons = list(dict.fromkeys(problem for _branch, _gate, problem in problems))
    return Refusal(problems[0][1], "; ".join(reasons), remedies)


def version_problem(row: dict[str, Any], version: str) -> str | None:
    """Return why a version cannot be of a branch, or None."""
    if major(version) != row["branch"]:
        return f"driver version {version} does not belong to branch {row['branch']}"
    return None
