# SPDX-License-Identifier: Apache-2.0
"""Bring one environment to an exact release and build of PyTorch: decide, install what is missing, verify, remember."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidInputError, MissingError, RackwrightError
from .pyenv_build import write_atomically
from .torch_build import choose_build, node_from_facts, version_key, wanted_installed
from .torch_check import ask_torch, check_kernels
from .wheel_install import (
    Attempt,
    IndexSource,
    RunEnv,
    Venv,
    acting_as,
    check_space,
    install_files,
    install_index,
    open_or_foresee,
    outdated,
)
from .wheels import Need, canonical, closure, problems_of, read_space

MARKER = ".rackwright-pytorch.json"


@dataclass(frozen=True)
class TorchRequest:
    """What PyTorch should be there, and where it may come from."""

    venv: str
    version: str
    table: dict[str, Any]
    build: str
    source: str = "wheelhouse"
    packages: tuple[str, ...] = ("numpy",)
    gpu: dict[str, Any] = field(default_factory=dict)
    node: str = "this node"
    python: str = "/usr/bin/python3"
    wheels_dir: str = "/var/cache/rackwright/wheels"
    index: IndexSource = field(default_factory=IndexSource)
    timeout: int = 180


@dataclass
class TorchState:
    """What was found, what it should be and what is to be done."""

    interpreter: dict[str, Any]
    choice: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    torch: dict[str, Any] | None = None
    packages: dict[str, str] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    space: dict[str, dict[str, int]] = field(default_factory=dict)
    installed: list[str] = field(default_factory=list)
    usable_gpus: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "action": "install" if self.reasons else "none",
            "reasons": self.reasons,
            "choice": self.choice,
            "interpreter": self.interpreter,
            "torch": self.torch,
            "packages": self.packages,
            "whole": self.whole,
            "space": self.space,
            "installed": self.installed,
            "kernels_launched": len((self.torch or {}).get("devices") or []),
        }


def requirement_name(requirement: str) -> str:
    """Return the distribution a requirement such as ``numpy>=2`` is about."""
    for index, character in enumerate(requirement):
        if character in " <>=!~;[(":
            return canonical(requirement[:index])
    return canonical(requirement)


def _pin(requirement: str) -> str | None:
    _, found, version = requirement.partition("==")
    return version.strip() if found and not version.startswith("=") else None


def _package_problem(venv: Venv, requirement: str) -> str | None:
    dists = venv.dists()
    name = requirement_name(requirement)
    if name not in dists:
        return None if name in venv.outer_names() else f"{name} is not installed"
    problem = problems_of(dists, name)
    pin = _pin(requirement)
    if problem is None and pin and dists[name][0].version != pin:
        return f"{name} {dists[name][0].version} is installed instead of {pin}"
    return problem


def _marker(venv: Venv) -> dict[str, Any] | None:
    try:
        content = json.loads((venv.root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == 1 else None


def file_problems(venv: Venv, request: TorchRequest, choice: dict[str, Any]) -> list[str]:
    """Return what is wrong without importing anything."""
    dists = venv.dists()
    problem = problems_of(dists, "torch")
    if problem:
        return [problem]
    found = dists["torch"][0].version
    if found.split("+")[0] != choice["version"]:
        return [f"torch {found} is installed instead of {choice['version']}"]
    problems = [_package_problem(venv, requirement) for requirement in request.packages]
    marker = _marker(venv)
    if marker is None:
        problems.append("an earlier install did not end, or was not made by Rackwright")
    else:
        recorded = marker.get("packages", {})
        names = set(recorded) - {requirement_name(item) for item in request.packages}
        outer = venv.outer_names()
        problems += [problems_of(dists, name) for name in sorted(names) if name in dists or name not in outer]
        problems += [
            f"{name} {dists[name][0].version} is installed instead of {recorded[name]}"
            for name in sorted(recorded)
            if name in dists and dists[name][0].version != recorded[name]
        ]
    return [problem for problem in problems if problem]


def _system_problems(venv: Venv, request: TorchRequest) -> list[str]:
    """Return what hides the system's torch from an environment."""
    if not any(not site.startswith(f"{venv.root}/") for site in venv.interpreter.get("sites", [])):
        raise InvalidInputError(
            "use the system's torch",
            request.venv,
            "the environment does not see the system's packages",
            "Set python_env_system_site_packages to true, or use another pytorch_source",
            expected="system site-packages visible",
            found="hidden",
        )
    return ["torch is installed in the environment itself"] if "torch" in venv.dists() else []


def decide(run: RunEnv, request: TorchRequest, check_mode: bool) -> tuple[TorchState, Venv | None]:
    """Hold the build against the node and compare it with what is there; nothing is changed."""
    step = "Apply the role python_env first, with the same path"
    venv, interpreter = open_or_foresee(run, request.venv, request.python, "install torch", step, tolerant=check_mode)
    node = node_from_facts(
        request.gpu,
        name=request.node,
        arch=interpreter["arch"],
        python=interpreter["version"],
        glibc=interpreter["glibc"],
        need_gpu=request.build != "cpu",
    )
    choice = choose_build(request.table, request.version, request.build, node).to_dict()
    state = TorchState(interpreter, choice)
    state.usable_gpus = node.cuda_devices if node.usable_gpu and choice["build"] != "cpu" else 0
    state.space = read_space([request.venv, request.wheels_dir, tempfile.gettempdir()])
    if venv is None:
        state.reasons = ["the environment is not there yet"]
        return state, None
    if request.source == "system":
        state.reasons = _system_problems(venv, request)
    else:
        state.reasons = file_problems(venv, request, choice)
    if not state.reasons:
        _verify_import(run, request, venv, state)
    if state.reasons:
        dists = venv.dists()
        state.whole = {name: dists[name][0].version for name in dists if problems_of(dists, name) is None}
    return state, venv


def _verify_import(run: RunEnv, request: TorchRequest, venv: Venv, state: TorchState) -> None:
    answer = ask_torch(run, venv, state.usable_gpus > 0, request.timeout)
    if answer.get("error"):
        state.reasons.append(f"torch does not import: {answer['error']}")
        return
    state.torch = answer
    wrong = wanted_installed(state.choice, answer["version"], answer["cuda"])
    if wrong:
        state.reasons.append(wrong)
        return
    if state.usable_gpus:
        check_kernels(venv, answer, state.usable_gpus)
    dists = venv.dists()
    state.packages = closure(dists, ["torch", *(requirement_name(item) for item in request.packages)])


def check_system_candidate(request: TorchRequest, state: TorchState, candidate: str | None) -> None:
    """Refuse before anything changes when the distribution's torch is another release, or there is none."""
    if candidate is None:
        cause = "the node's package sources have no torch"
    elif version_key(candidate) != version_key(request.version):
        cause = f"the distribution has torch {candidate} and {request.version} is wanted"
    elif state.choice["build"] != "cpu":
        cause = f"the distribution's torch is a CPU build and {state.choice['build']} is wanted"
    else:
        return
    raise InvalidInputError(
        "use the system's torch",
        request.node,
        cause,
        f"Set stack_framework_version to {candidate} and plan again"
        if candidate
        else "Use pytorch_source wheelhouse or index",
        expected=request.version,
        found=candidate,
    )


def _label(choice: dict[str, Any]) -> str:
    return f"torch {choice['version']} ({choice['build']})"


def wheel_needs(request: TorchRequest, venv: Venv, files: list[dict[str, Any]]) -> list[Need]:
    """Return what an install from these wheels will write into the environment, with 5 % to spare."""
    size = sum(entry["installed"] for entry in outdated(venv, files))
    return [Need(request.venv, int(size * 1.05))]


def _index_needs(request: TorchRequest, choice: dict[str, Any]) -> list[Need]:
    size = choice["installed_bytes"]
    return [Need(request.venv, size), Need(tempfile.gettempdir(), size // 3)]


def _attempts(request: TorchRequest, choice: dict[str, Any]) -> list[Attempt]:
    """Return the questions for an index: what the node is configured for first, PyTorch's own index after it."""
    attempts = [Attempt(requirement) for requirement in choice["requirements"]]
    if not request.index.index_url and "--no-index" not in request.index.extra_args:
        attempts.append(Attempt(choice["requirements"][0], choice["index_url"]))
    return attempts


def present(run: RunEnv, request: TorchRequest, files: list[dict[str, Any]], check_mode: bool) -> TorchState:
    """Decide, and install when something is missing; afterwards everything is verified again."""
    state, venv = decide(run, request, check_mode)
    if not state.reasons or check_mode or venv is None:
        return state
    choice = state.choice
    if request.source == "system":
        raise MissingError(
            "use the system's torch",
            request.venv,
            state.reasons[0],
            "Check pytorch_system_packages and that no other torch is in the environment",
            expected=request.version,
            found=state.torch,
        )
    reasons = state.reasons
    if request.source == "wheelhouse":
        check_space(_label(choice), wheel_needs(request, venv, files), state.space)
        _forget(venv)
        installed = install_files(run, venv, _label(choice), request.wheels_dir, files)
    else:
        check_space(_label(choice), _index_needs(request, choice), state.space)
        _forget(venv)
        packages = list(request.packages)
        installed = [install_index(run, venv, _label(choice), request.index, _attempts(request, choice), packages)]
    _remember(venv, request, choice)
    state, _ = decide(run, request, check_mode)
    if state.reasons:
        _forget(venv)
        raise RackwrightError(
            f"install {_label(choice)}",
            request.venv,
            state.reasons[0],
            "Read what the environment holds, and remove what brings another torch with it",
            expected=choice,
            found=state.torch,
        )
    state.installed = installed or ["recorded what was there"]
    state.reasons = []
    state.choice["was"] = reasons
    return state


def _forget(venv: Venv) -> None:
    with acting_as(venv.root), contextlib.suppress(FileNotFoundError):
        (venv.root / MARKER).unlink()


def _remember(venv: Venv, request: TorchRequest, choice: dict[str, Any]) -> None:
    names = ["torch", *(requirement_name(item) for item in request.packages)]
    content = {
        "schema": 1,
        "version": choice["version"],
        "build": choice["build"],
        "packages": closure(venv.dists(), names),
    }
    with acting_as(venv.root):
        write_atomically(venv.root / MARKER, json.dumps(content, indent=1, sort_keys=True) + "\n")
