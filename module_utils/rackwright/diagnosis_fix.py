# SPDX-License-Identifier: Apache-2.0
"""Which builds and releases would run here instead: the order of ``no_kernel_image.fix_order``, made concrete. Pure.

Every build that is named has passed the resolver's own gates for all GPUs of the node, its driver, and the Python and C
library of the environment it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .compat import solve
from .compat_cuda import Runtime, cuda_minimum, torch_problems
from .compat_framework import torch_builds
from .compat_rules import TablesLike, find
from .diagnosis_record import Evidence
from .stack_intent import Intent
from .stack_node import ARCHITECTURES, Gpu, minor, node_from_facts
from .torch_build import requirements, version_key, wheel_problem

_PLAN = "Or let Rackwright choose and install a whole stack that fits: ansible-playbook playbooks/plan-stack.yml"


@dataclass(frozen=True)
class _Place:
    """An environment with the node around it."""

    tables: TablesLike
    runtime: Runtime
    python: str | None
    program: str
    glibc: str | None

    def builds(self, release: dict[str, Any]) -> list[str]:
        """Return the builds of a release that run on this node, best first, whatever the Python."""
        names = torch_builds(release, self.runtime)
        return [name for name in names if not torch_problems(self.tables, release, name, self.runtime)]

    def loads(self, release: dict[str, Any]) -> bool:
        return self.python is not None and wheel_problem(release, self.python, self.glibc) is None


def runtime_here(evidence: Evidence) -> Runtime:
    """Return what GPU programs meet on the node as it is now.

    Simulated GPUs count: what is asked is which code would run on such cards. The newest CUDA is what NVML says itself.
    """
    gpus = {}
    for device in evidence.devices:
        name, capability = str(device.get("name") or "GPU"), device.get("compute_capability")
        gpus[(name, capability)] = Gpu(None, name, capability, None, 1)
    driver = evidence.gpu.get("driver") or {}
    arch = ARCHITECTURES.get(evidence.arch, evidence.arch)
    return Runtime(arch, tuple(gpus.values()), evidence.driver, driver.get("cuda_driver_version"), evidence.wsl)


def torch_steps(
    evidence: Evidence,
    tables: TablesLike,
    environment: Mapping[str, Any],
    name: str | None,
    capability: str | None,
) -> list[str]:
    """Return what to install instead of the torch of an environment, nearest first, as sentences with commands.

    ``name`` and ``capability`` are those of the GPU that has no code; without, nothing is built from source.
    """
    torch = environment["torch"]
    program = str(environment["python"] or "python")
    place = _Place(
        tables, runtime_here(evidence), minor(environment["python_version"]), program, evidence.frameworks.get("glibc")
    )
    steps = _ways(place, torch["version"].partition("+")[0], torch["build"])
    if not steps and evidence.driver:
        later = replace(place, runtime=replace(place.runtime, driver=None, native=None))
        steps = [f"After a driver update: {step}" for step in _ways(later, torch["version"].partition("+")[0], "")]
    if environment["vllm"]:
        steps = [_vllm_for(place, environment["vllm"]["version"]), *steps]
    if capability:
        steps.append(f"Or build torch from source for {name}: TORCH_CUDA_ARCH_LIST={capability}")
    return [*steps, f"{_PLAN}, {evidence.plan}" if evidence.plan else _PLAN]


def planned(name: str, evidence: Evidence, tables: TablesLike, intent: Intent, today: str) -> str | None:
    """Return what the resolver would put on this node, as half a sentence; None where its facts do not suffice.

    A simulated GPU gets a CPU build, which says nothing about the card it plays: then there is nothing to tell.
    """
    if not evidence.gpu or not evidence.node or evidence.simulated or not evidence.has_gpu:
        return None
    solution = solve(node_from_facts(name, evidence.gpu, evidence.node, tables.gpus), intent, tables, today)
    if solution.status != "solved":
        first = solution.alternatives[0]["sentence"] if solution.alternatives else "no alternative was found"
        return f"which cannot meet its present wish ({solution.reason} {first})"
    driver, framework = solution.stack["driver"], solution.stack["framework"]
    parts = [f"driver {driver['version']} ({driver['flavour']})"] if driver else []
    parts += [f"{framework['name']} {framework['version']} {framework['build'] or ''}".strip()] if framework else []
    return f"which takes {' and '.join(parts)}" if parts else None


def _ways(place: _Place, version: str, build: str | None) -> list[str]:
    """Return another build of the release, the nearest newer one and the nearest older one, as far as there are any."""
    releases = sorted(place.tables.frameworks["pytorch"]["releases"], key=lambda row: version_key(row["version"]))
    here = version_key(version)
    same = [row for row in releases if version_key(row["version"]) == here]
    newer = [row for row in releases if version_key(row["version"]) > here]
    older = [row for row in reversed(releases) if version_key(row["version"]) < here]
    steps = [
        _nearest(place, same, "Another build of the same release", lambda name: name != build),
        _nearest(place, newer, "A newer release", lambda name: True),
        _nearest(place, older, "An older release", lambda name: True),
    ]
    return [step for step in steps if step]


def _nearest(place: _Place, releases: Iterable[dict[str, Any]], what: str, wanted: Callable[[str], bool]) -> str | None:
    """Return the first release with a build that runs; one for this Python before one that needs another Python."""
    fitting = [(row, name) for row in releases for name in place.builds(row) if wanted(name)]
    loading = [(row, name) for row, name in fitting if place.loads(row)]
    if not fitting:
        return None
    release, build = (loading or fitting)[0]
    text = f"{what}, torch {release['version']} {build}: {place.program} -m pip install"
    text += (
        f' "{requirements(release, build)[0]}" --index-url {place.tables.frameworks["pytorch"]["index_base"]}/{build}'
    )
    minimum, _row = cuda_minimum(place.tables, release["builds"][build]["cuda"])
    notes = []
    if place.runtime.driver is None:
        notes.append(f"driver {minimum} or newer")
    if not loading:
        pythons = release["pythons"]
        notes.append(f"an environment with Python {pythons[0]} to {pythons[-1]}")
        if release.get("glibc_min"):
            notes.append(f"glibc {release['glibc_min']}")
    return text + (f" (needs {' and '.join(notes)})" if notes else "")


def _vllm_for(place: _Place, installed: str) -> str:
    """Return the sentence for an environment whose torch is pinned by vllm."""
    frameworks = place.tables.frameworks
    torches = {row["version"]: row for row in frameworks["pytorch"]["releases"]}
    rows = [row for row in frameworks["vllm"]["releases"] if version_key(row["version"]) > version_key(installed)]
    for row in sorted(rows, key=lambda entry: version_key(entry["version"])):
        torch = torches.get(row["torch"])
        if torch and torch["pypi_default_build"] in place.builds(torch):
            return (
                f"vllm {installed} here pins its torch: take vllm {row['version']}, which brings torch {row['torch']}"
                f" ({place.program} -m pip install vllm=={row['version']}), not another torch alone"
            )
    return f"vllm {installed} here pins its torch: changing torch alone breaks it"


def vllm_step(tables: TablesLike, vllm: str, torch: str) -> str:
    """Return how to bring vllm and torch together again."""
    releases = tables.frameworks["vllm"]["releases"]
    pinned = find(releases, "version", vllm)["torch"]
    base = torch.partition("+")[0]
    others = [row["version"] for row in releases if row["torch"] == base]
    also = f", or vllm {others[0]}, which is made for torch {base}" if others else ""
    return f"Install torch {pinned} again{also}"
