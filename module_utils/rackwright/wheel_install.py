# SPDX-License-Identifier: Apache-2.0
"""Install into one environment: from verified wheel files without any index, or from an index."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MissingError, RackwrightError
from .pyenv import MARKER, as_owner, ask_python
from .wheels import (
    Dist,
    Need,
    canonical,
    dist_problem,
    human,
    problems_of,
    read_dists,
    read_space,
    remove_dist,
    space_shortfall,
)

RunEnv = Callable[[list[str], dict[str, str]], "tuple[int, str, str]"]

# An environment's pip must not be confused by what the administrator's shell says.
PIP_ENV = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore"}


@dataclass(frozen=True)
class Venv:
    """An environment that exists, as packages see it."""

    root: Path
    interpreter: dict[str, Any]
    uv: str | None = None

    @property
    def python(self) -> str:
        return str(self.root / "bin" / "python")

    @property
    def site(self) -> Path:
        return Path(self.interpreter["site"])

    def dists(self) -> dict[str, list[Dist]]:
        return read_dists(self.site)

    def outer_names(self) -> set[str]:
        """Return the names the system's Python brings in, where the environment sees them."""
        names: set[str] = set()
        for site in self.interpreter.get("sites", []):
            if not site.startswith(f"{self.root}/"):
                names |= set(read_dists(Path(site)))
                names |= {canonical(entry.name.split("-")[0]) for entry in Path(site).glob("*.egg-info")}
        return names


def open_venv(run: RunEnv, path: str) -> Venv | None:
    """Return the environment at a path, or None when there is none that runs."""
    root = Path(path)
    interpreter = ask_python(lambda command: run(command, {}), str(root / "bin" / "python"), owner=root)
    if interpreter is None or interpreter["prefix"] == interpreter["base_prefix"]:
        return None
    uv = None
    with contextlib.suppress(OSError, ValueError):
        uv = json.loads((root / MARKER).read_text(encoding="utf-8")).get("uv")
    return Venv(root, interpreter, uv)


def open_or_foresee(
    run: RunEnv, path: str, python: str, what: str, next_step: str, *, tolerant: bool
) -> tuple[Venv | None, dict[str, Any]]:
    """Return the environment and its interpreter; with ``tolerant``, for an environment still to come, its future one.

    Raises:
        MissingError: there is no environment that runs and none is foreseen, or no interpreter at all.
    """
    venv = open_venv(run, path)
    interpreter = venv.interpreter if venv else ask_python(lambda command: run(command, {}), python)
    if interpreter is None or (venv is None and not tolerant):
        raise MissingError(
            what,
            path,
            "there is no Python environment that runs",
            next_step,
            expected="a Python environment",
            found="none",
        )
    return venv, interpreter


@contextlib.contextmanager
def acting_as(root: Path) -> Iterator[None]:
    """Work on an environment's files with its owner's rights, not with root's."""
    owner = root.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group, user = os.getegid(), os.geteuid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def verify_files(directory: str, files: list[dict[str, Any]]) -> None:
    """Refuse wheels that are not, byte for byte, what the control node has."""
    for entry in files:
        path = Path(directory) / entry["file"]
        found = file_digest(path) if path.is_file() else "absent"
        if found != entry["sha256"]:
            raise MissingError(
                "install from the wheelhouse",
                str(path),
                "the wheel on the node is not the one of the control node",
                f"Delete {directory} on the node and run again",
                expected=entry["sha256"],
                found=found,
            )


def discard_wheels(directory: str, files: list[dict[str, Any]]) -> None:
    """Remove copied wheels, and their directory when nothing else is in it."""
    for entry in files:
        with contextlib.suppress(FileNotFoundError):
            (Path(directory) / entry["file"]).unlink()
    if Path(directory).is_dir() and not any(Path(directory).iterdir()):
        Path(directory).rmdir()


def outdated(venv: Venv, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the wheels whose distribution is absent, of another version, or damaged."""
    dists = venv.dists()
    result = []
    for entry in files:
        present = dists.get(canonical(entry["name"]), [])
        if len(present) != 1 or present[0].version != entry["version"] or dist_problem(present[0]):
            result.append(entry)
    return result


def clear_damaged(venv: Venv, names: list[str]) -> None:
    """Remove distributions that pip would stumble over or mix with their successor."""
    with acting_as(venv.root):
        for name in names:
            remove_dist(venv.site, name, venv.root)


def check_space(what: str, needs: list[Need], space: dict[str, dict[str, int]]) -> None:
    """Refuse before anything is written when a file system lacks room."""
    shortfall = space_shortfall(needs, space)
    if shortfall:
        raise RackwrightError(
            f"install {what}",
            needs[0].path,
            shortfall,
            "Free space there, or choose a path on a larger file system",
            expected={need.path: human(need.size) for need in needs},
            found={path: human(value["free"]) for path, value in space.items()},
        )


def _fail(what: str, venv: Venv, said: str, hint: str) -> RackwrightError:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "No space left" in line]
    cause = (errors or lines or ["the installer said nothing"])[-1]
    return RackwrightError(f"install {what}", str(venv.root), cause, hint, found=said[-2000:])


def install_files(run: RunEnv, venv: Venv, what: str, directory: str, files: list[dict[str, Any]]) -> list[str]:
    """Install exactly these wheels, without resolving and without a network; return the distributions installed."""
    wanted = outdated(venv, files)
    if not wanted:
        return []
    verify_files(directory, wanted)
    clear_damaged(venv, [entry["name"] for entry in wanted])
    paths = [str(Path(directory) / entry["file"]) for entry in wanted]
    if venv.uv:
        command = [venv.uv, "pip", "install", "--quiet", "--python", venv.python, "--no-config", "--no-cache"]
        command += ["--offline", "--no-index", "--no-deps", "--compile-bytecode", "--link-mode", "copy", *paths]
    else:
        command = [venv.python, "-I", "-m", "pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-cache-dir", "--ignore-installed", *paths]
    status, output, error = run(as_owner(command, venv.root), PIP_ENV)
    if status != 0:
        said = error or output or f"the installer was ended by signal {-status}"
        raise _fail(what, venv, said, "Run again: what was half installed is repaired first")
    return [f"{entry['name']} {entry['version']}" for entry in wanted]


@dataclass(frozen=True)
class IndexSource:
    """How to ask an index."""

    index_url: str | None = None  # the site's own index; replaces the node's configured one
    extra_args: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One question to an index; the first that can be answered wins."""

    requirement: str
    extra_index_url: str | None = None


def _index_command(venv: Venv, source: IndexSource, attempt: Attempt, packages: list[str]) -> list[str]:
    if venv.uv:
        command = [venv.uv, "pip", "install", "--quiet", "--python", venv.python, "--compile-bytecode"]
        # uv asks the first index that has a name; torch lives on PyPI and on PyTorch's own index in different builds.
        command += ["--index-strategy", "unsafe-best-match"] if attempt.extra_index_url else []
    else:
        command = [venv.python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--retries", "1"] if attempt.extra_index_url else []
    if source.index_url:
        command += ["--index-url", source.index_url]
    if attempt.extra_index_url:
        command += ["--extra-index-url", attempt.extra_index_url]
    return [*command, *source.extra_args, attempt.requirement, *packages]


def install_index(
    run: RunEnv, venv: Venv, what: str, source: IndexSource, attempts: list[Attempt], packages: list[str]
) -> str:
    """Install from the first question an index can answer; return the requirement that was met."""
    clear_damaged(venv, [name for name in venv.dists() if problems_of(venv.dists(), name)])
    said = ""
    for attempt in attempts:
        command = as_owner(_index_command(venv, source, attempt, packages), venv.root)
        status, output, error = run(command, {**PIP_ENV, **dict(source.environment)})
        if status == 0:
            return attempt.requirement
        said += error or output
        if "No matching distribution" not in said and "no version of" not in said and "unsatisfiable" not in said:
            break
    hint = "Check the node's index configuration and pytorch_index_url, or use pytorch_source wheelhouse"
    raise _fail(what, venv, said, hint)


@dataclass(frozen=True)
class PinRequest:
    """Packages that must be in an environment in exactly these versions."""

    venv: str
    requirements: tuple[str, ...]
    source: str = "wheelhouse"
    python: str = "/usr/bin/python3"
    wheels_dir: str = "/var/cache/rackwright/wheels"
    index: IndexSource = IndexSource()


def _plain(version: str) -> str:
    """A version without zeros at its end: 13.0.3.0 and 13.0.3 are the same to every installer (PEP 440)."""
    return re.sub(r"(\.0)+$", "", version)


def pin_problems(venv: Venv, requirements: tuple[str, ...]) -> list[str]:
    """Return the pins an environment does not meet."""
    dists = venv.dists()
    problems = []
    for requirement in requirements:
        named, _, version = requirement.partition("==")
        name = named.partition("[")[0]
        problem = problems_of(dists, name)
        if problem is None and version and _plain(dists[canonical(name)][0].version) != _plain(version):
            problem = f"{name} {dists[canonical(name)][0].version} is installed instead of {version}"
        if problem:
            problems.append(problem)
    return problems


def pins_present(
    run: RunEnv, request: PinRequest, files: list[dict[str, Any]], *, installing: bool, tolerant: bool
) -> dict[str, Any]:
    """Say which pins are not met and, when ``installing``, meet them."""
    venv, interpreter = open_or_foresee(
        run, request.venv, request.python, "install packages", "Create it first", tolerant=tolerant
    )
    reasons = pin_problems(venv, request.requirements) if venv else ["the environment is not there yet"]
    dists = venv.dists() if venv else {}
    answer = {
        "schema": 1,
        "action": "install" if reasons else "none",
        "reasons": reasons,
        "interpreter": interpreter,
        "whole": {name: dists[name][0].version for name in dists if problems_of(dists, name) is None},
        "space": read_space([request.venv, request.wheels_dir]),
    }
    if venv and reasons and installing:
        what = ", ".join(request.requirements)
        if request.source == "wheelhouse":
            install_files(run, venv, what, request.wheels_dir, files)
        else:
            first, *others = request.requirements
            install_index(run, venv, what, request.index, [Attempt(first)], others)
        left = pin_problems(venv, request.requirements)
        if left:
            raise _fail(what, venv, left[0], "Check that the wheelhouse or the index has exactly this version")
    return answer
