# SPDX-License-Identifier: Apache-2.0
"""Choose framework, build, Python and serving engine for the driver that was chosen. Pure.

A serving engine pins one exact framework release, so it chooses first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .compat_cuda import Problem, Runtime, only_by_ptx, tensorflow_problems, torch_problems
from .compat_rules import GATES, Case, Refusal, TablesLike, at_least, find, source_texts
from .compat_vllm import glibc_minimum, vllm_problems
from .torch_build import builds_newest_first, version_key, wheel_problem

SYSTEM_PYTHON = "/usr/bin/python3"
NO_PYTHON = "the version of the node's Python is not known"
TELL_PYTHON = "Give the version: python in node_description, or stack_python for one that uv brings"


@dataclass(frozen=True)
class Python:
    """An interpreter: of the system with its path, or (``uv``) one that is fetched."""

    version: str
    interpreter: str | None
    source: str

    def as_dict(self) -> dict[str, Any]:
        return {"version": self.version, "interpreter": self.interpreter, "source": self.source}


@dataclass(frozen=True)
class Framework:
    """What was chosen. Without GPU ``build`` is ``cpu`` for PyTorch, None for TensorFlow; ``cuda`` is the build's."""

    name: str
    release: dict[str, Any]
    version: str
    build: str | None
    cuda: str | None
    python: Python
    serving: dict[str, Any] | None = None


def pythons_of(case: Case) -> list[Python]:
    """Return the interpreters to try, in order."""
    node, wanted = case.node, case.intent.python
    others = [Python(version, path, "system") for version, path in reversed(node.pythons) if version != node.python]
    system = [Python(node.python, SYSTEM_PYTHON, "system")] if node.python else []
    if wanted == "auto":
        return system + others
    return [python for python in system + others if python.version == wanted] or [Python(wanted, None, "uv")]


def matching(releases: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """Return the releases a wish means, newest first: all, one, or those of a line (``2.13``)."""
    newest_first = sorted(releases, key=lambda row: version_key(row["version"]), reverse=True)
    if wanted == "newest":
        return newest_first
    return [row for row in newest_first if row["version"] == wanted] or [
        row for row in newest_first if row["version"].startswith(f"{wanted}.")
    ]


def choose_framework(case: Case, runtime: Runtime) -> Framework | None:
    """Return framework, build and Python, None when no framework is wanted, or refuse."""
    intent = case.intent
    if intent.serving != "none":
        if intent.framework == "tensorflow":
            raise Refusal(
                "intent",
                f"{intent.serving} runs on PyTorch and stack_framework is tensorflow",
                ["Set stack_framework to pytorch", "Set stack_serving to none"],
            )
        found = _choose(case, _serving_candidates(case), runtime, _wish("vllm", intent.serving_version))
    elif intent.framework == "pytorch":
        wish = _wish("pytorch", intent.framework_version)
        found = _choose(case, _torch_candidates(case, runtime), runtime, wish)
    elif intent.framework == "tensorflow":
        wish = _wish("tensorflow", intent.framework_version)
        found = _choose(case, _tensorflow_candidates(case, runtime), runtime, wish)
    else:
        return None
    return found


@dataclass(frozen=True)
class _Candidate:
    name: str
    release: dict[str, Any]
    version: str
    build: str | None
    cuda: str | None
    serving: dict[str, Any] | None = None

    def problems(self, tables: TablesLike, runtime: Runtime) -> list[Problem]:
        """Reasons against it that do not depend on the interpreter."""
        found = list(vllm_problems(tables, self.serving, runtime)) if self.serving else []
        if self.cuda is None:
            return found
        if self.name == "tensorflow":
            return found + tensorflow_problems(tables, self.release, runtime)
        return found + torch_problems(tables, self.release, str(self.build), runtime)

    def wheel_problems(self, tables: TablesLike, python: Python, glibc: str | None) -> list[Problem]:
        """Reasons against it that depend on the interpreter and the C library."""
        rows = [(self.name, self.version, self.release)]
        if self.serving:
            known = {**self.serving, "glibc_min": glibc_minimum(tables, self.serving)}
            rows.insert(0, ("vllm", self.serving["version"], known))
        found = []
        for name, version, row in rows:
            problem = wheel_problem(row, python.version, glibc)
            if problem:
                found.append(("python-glibc", f"{label(name)} {version}: {problem}"))
        return found


def _wish(name: str, version: str) -> str:
    """``PyTorch`` when any release would do, ``PyTorch 2.13`` when one is wanted."""
    return label(name) if version == "newest" else f"{label(name)} {version}"


def label(name: str) -> str:
    """A framework as its makers write it."""
    return {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "vllm": "vLLM"}.get(name, name)


def _unknown(name: str, wanted: str, releases: list[dict[str, Any]], variable: str) -> Refusal:
    newest = max((row["version"] for row in releases), key=version_key)
    return Refusal(
        "intent",
        f"{label(name)} {wanted} is not in the table of releases, whose newest is {newest}",
        [f"Set {variable} to a release of the table, or add the release by stack_extra_tables"],
    )


def torch_builds(release: dict[str, Any], runtime: Runtime) -> list[str]:
    """Return the CUDA builds of a release, best first.

    One whose CUDA the driver knows in full comes before a newer one that runs by minor-version compatibility only: what
    compiles at run time (Triton) may then emit code the driver does not take.
    """
    builds = builds_newest_first(release)
    if runtime.native is None:
        return builds
    full = [build for build in builds if at_least(runtime.native, release["builds"][build]["cuda"])]
    return full + [build for build in builds if build not in full]


def _torch_candidates(case: Case, runtime: Runtime) -> Iterator[list[_Candidate]]:
    wanted, releases = case.intent.framework_version, case.tables.frameworks["pytorch"]["releases"]
    rows = matching(releases, wanted)
    if not rows:
        raise _unknown("pytorch", wanted, releases, "stack_framework_version")
    for row in rows:
        builds = torch_builds(row, runtime) if runtime.gpus else []
        yield [_Candidate("pytorch", row, row["version"], build, row["builds"][build]["cuda"]) for build in builds] or [
            _Candidate("pytorch", row, row["version"], "cpu", None)
        ]


def _tensorflow_candidates(case: Case, runtime: Runtime) -> Iterator[list[_Candidate]]:
    table, wanted = case.tables.frameworks["tensorflow"], case.intent.framework_version
    rows = matching(table["releases"], wanted)
    line = ".".join(wanted.split(".")[:2])
    rows = rows or [row for row in table["releases"] if row["version"] == line]
    if not rows:
        raise _unknown("tensorflow", wanted, table["releases"], "stack_framework_version")
    for row in rows:
        version = tensorflow_version(table, row, wanted)
        usable = bool(runtime.gpus)
        yield [_Candidate("tensorflow", row, version, "and-cuda" if usable else None, row["cuda"] if usable else None)]


def tensorflow_version(table: dict[str, Any], row: dict[str, Any], wanted: str) -> str:
    """The table knows lines of TensorFlow and one exact release of the newest; what a user names exactly is taken."""
    if wanted.count(".") >= 2:
        return wanted
    newest = str(table["newest"])
    return newest if newest.startswith(f"{row['version']}.") else str(row["version"])


def _serving_candidates(case: Case) -> Iterator[list[_Candidate]]:
    frameworks, intent = case.tables.frameworks, case.intent
    releases = frameworks["vllm"]["releases"]
    rows = matching(releases, intent.serving_version)
    if not rows:
        raise _unknown("vllm", intent.serving_version, releases, "stack_serving_version")
    fitting = [row for row in rows if pinned_torch(frameworks, row, intent.framework_version) is not None]
    if not fitting:
        pins = ", ".join(dict.fromkeys(row["torch"] for row in rows[:6]))
        raise Refusal(
            "intent",
            f"no such vLLM release pins PyTorch {intent.framework_version}: each pins one exactly ({pins}, ...)",
            ["Set stack_framework_version to newest, so that vLLM chooses it"],
        )
    for row in fitting:
        torch = pinned_torch(frameworks, row, intent.framework_version)
        assert torch is not None
        build = torch["pypi_default_build"]
        yield [_Candidate("pytorch", torch, torch["version"], build, torch["builds"][build]["cuda"], row)]


def pinned_torch(frameworks: dict[str, Any], vllm: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    """Return the row of the PyTorch release that a vLLM release pins, if the user can mean it."""
    row: dict[str, Any] | None = find(matching(frameworks["pytorch"]["releases"], wanted), "version", vllm["torch"])
    return row


def _choose(case: Case, groups: Iterator[list[_Candidate]], runtime: Runtime, wish: str) -> Framework:
    """Return the first candidate that passes every gate on the first interpreter that fits it.

    A group is one release with its builds; the reasons told are those of the first, which is the nearest to the wish.
    """
    pythons = pythons_of(case)
    nearest: list[_Judged] = []
    newest: Problem | None = None
    for group in groups:
        judged = []
        for candidate in group:
            python, problems = _judge(case, candidate, pythons, runtime)
            if python is not None:
                found = _framework(candidate, python)
                _explain(case, found, runtime, newest)
                return found
            judged.append((candidate, problems))
        newest = newest or judged[0][1][0]
        if not nearest or _reached(judged) > _reached(nearest):
            nearest = judged
    raise _refused(nearest, wish, runtime)


_Judged = tuple[_Candidate, list[Problem]]


def _judge(
    case: Case, candidate: _Candidate, pythons: list[Python], runtime: Runtime
) -> tuple[Python | None, list[Problem]]:
    """Return the interpreter a candidate runs on, or every reason why it does not run."""
    problems = candidate.problems(case.tables, runtime)
    if problems:
        return None, problems
    first: list[Problem] = []
    for python in pythons:
        problems = candidate.wheel_problems(case.tables, python, case.node.glibc)
        if not problems:
            return python, []
        first = first or problems
    return None, first or [("python-glibc", NO_PYTHON)]


def _reached(judged: list[_Judged]) -> int:
    """The last gate that a release came to with one of its builds."""
    return max(GATES.index(problems[0][0]) for _candidate, problems in judged)


def _framework(candidate: _Candidate, python: Python) -> Framework:
    c = candidate
    return Framework(c.name, c.release, c.version, c.build, c.cuda, python, c.serving)


def _refused(judged: list[_Judged], wish: str, runtime: Runtime) -> Refusal:
    """The gate is the one that all builds fail, else the one that the best build fails."""
    gates = [{gate for gate, _text in problems} for _candidate, problems in judged]
    common = set.intersection(*gates)
    ordered = [gate for gate, _text in judged[0][1]]
    gate = next((gate for gate in ordered if gate in common), ordered[0])
    texts = list(dict.fromkeys(text for _candidate, problems in judged for _gate, text in problems))
    engine = label("vllm" if judged[0][0].serving else judged[0][0].name)
    nearest = judged[0][0]
    version = f"vLLM {nearest.serving['version']}" if nearest.serving else f"{label(nearest.name)} {nearest.version}"
    named = "" if texts[0].startswith(version) else f"{version}: "
    prefix = f"no release of {wish} fits; {version} comes nearest: " if wish == engine else named
    if judged[0][1][0] == ("python-glibc", NO_PYTHON):
        return Refusal("python-glibc", NO_PYTHON, [TELL_PYTHON])
    remedies = {
        "driver-cuda": [
            "A newer NVIDIA driver in Windows" if runtime.windows else "A newer driver branch",
            f"An older release of {engine}, built for an older CUDA",
        ],
        "wheel-gpu": [f"Another release of {engine}, with code for these GPUs"],
        "python-glibc": [
            "Another Python by stack_python (installed by uv)",
            f"An older release of {engine}",
            "A newer operating system",
        ],
    }
    return Refusal(gate, prefix + "; ".join(texts), remedies.get(gate, []))


def _explain(case: Case, found: Framework, runtime: Runtime, newer: Problem | None) -> None:
    name, sources = found.name, found.release.get("sources") or []
    table = case.tables.frameworks[name]
    texts = source_texts(table, sources)
    row = f"frameworks/{name}/{found.release['version']}"
    skipped = f"; newer ones were passed over, the newest because {newer[1]}" if newer else ""
    wanted = case.intent.framework_version
    if found.serving:
        serving = found.serving
        wish = case.intent.serving_version
        rule = "newest release that passes every gate" if wish == "newest" else "asked for by name"
        case.decide(
            "serving.version",
            serving["version"],
            rule + skipped,
            f"frameworks/vllm/{serving['version']}",
            source_texts(case.tables.frameworks["vllm"], serving.get("sources") or []),
        )
        rule = f"vLLM {serving['version']} pins torch {serving['torch']} exactly"
    else:
        rule = "newest release that passes every gate" + skipped if wanted == "newest" else "asked for by name"
    case.decide("framework.version", found.version, rule, row, texts)
    case.decide("framework.build", found.build, _build_rule(case, found, runtime), row, texts)
    python = found.python
    rules = {
        "uv": "asked for by stack_python and not installed here: uv brings it",
        "system": "the node's own interpreter"
        if python.version == case.node.python
        else f"an interpreter of the node that the release has wheels for; its own is {case.node.python}",
    }
    case.decide("python.version", python.version, rules[python.source], row, texts)
    if case.node.glibc is None and found.release.get("glibc_min"):
        rule = f"the node's C library is not known; the wheels need glibc {found.release.get('glibc_min')}"
        case.decide("platform.glibc", None, rule, row, texts)


def _build_rule(case: Case, found: Framework, runtime: Runtime) -> str:
    if found.cuda is None:
        if case.node.simulated:
            return "the node's GPUs are simulated and cannot run kernels, so the CPU build"
        return "the node has no NVIDIA GPU, so the CPU build"
    code = f"code for every GPU ({', '.join(sorted({capability for _name, capability in runtime.named}))})"
    if found.serving:
        return f"the build on PyPI, which vLLM's wheel is made for; {code}"
    if found.name == "tensorflow":
        late = only_by_ptx(case.tables, found.release, runtime.gpus)
        names = ", ".join(gpu.name for gpu in late)
        return f"no SASS for {names}: its PTX is compiled at the first start, which takes minutes" if late else code
    if runtime.native and at_least(runtime.native, found.cuda):
        return f"newest build whose CUDA the driver knows in full ({runtime.native}); {code}"
    return f"runs by minor-version compatibility of CUDA {found.cuda.split('.')[0]}; {code}"
