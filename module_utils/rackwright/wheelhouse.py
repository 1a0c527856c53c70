# SPDX-License-Identifier: Apache-2.0
"""Sets of wheels on the control node, one per release, build, Python and architecture, complete and verified.

Runs on the control node only. Wheels are chosen for the *node's* Python, C library and architecture. pip evaluates
environment markers for the interpreter it runs under, so the set is closed again here under the node's markers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from .errors import InvalidInputError, MissingError, RackwrightError
from .pyenv_build import write_atomically
from .wheel_install import Attempt, check_space, file_digest
from .wheels import Need, canonical

Run = Callable[[list[str]], "tuple[int, str, str]"]

MANIFEST = "manifest.json"
# The oldest C library that current PyTorch wheels run on; a set made for it serves every newer node of the same Python.
GLIBC = (2, 28)
_ROUNDS = 6


@dataclass(frozen=True)
class Target:
    """The Python the wheels are for."""

    python: str
    arch: str = "x86_64"
    markers: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        major, minor = self.python.split(".")[:2]
        return f"cp{major}{minor}"

    def environment(self) -> dict[str, str]:
        """Return the node's environment markers; what is not known follows from Python and architecture."""
        minor = ".".join(self.python.split(".")[:2])
        known = {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": minor,
            "sys_platform": "linux",
        }
        return {**known, **self.markers}

    def pip_arguments(self) -> list[str]:
        """Return how pip is told to choose for the node instead of for the interpreter it runs under."""
        arguments = ["--only-binary=:all:", "--python-version", ".".join(self.python.split(".")[:2])]
        arguments += ["--implementation", "cp", "--abi", self.tag, "--abi", "abi3", "--abi", "none"]
        platforms = [f"manylinux_2_{minor}_{self.arch}" for minor in range(GLIBC[1], 4, -1)]
        platforms += [f"{name}_{self.arch}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
        for platform in platforms:
            arguments += ["--platform", platform]
        return arguments


@dataclass(frozen=True)
class SetRequest:
    """One set of wheels."""

    root: Path
    name: str
    attempts: tuple[Attempt, ...]
    packages: tuple[str, ...]
    target: Target
    index_url: str | None = None
    extra_args: tuple[str, ...] = ()
    estimate: int = 0

    @property
    def key(self) -> str:
        plain = f"{self.name}-{self.target.tag}-{self.target.arch}"
        if self.packages in ((), ("numpy",)):
            return plain
        return f"{plain}-{hashlib.sha256(' '.join(sorted(self.packages)).encode()).hexdigest()[:8]}"

    @property
    def directory(self) -> Path:
        return self.root / self.key


def requirements_module() -> Any:
    """Return ``packaging.requirements``, also from the copy inside pip."""
    try:
        from packaging import requirements
    except ImportError:
        from pip._vendor.packaging import requirements  # type: ignore[no-redef,import-not-found,unused-ignore]
    return requirements


def wheel_name(file: str) -> tuple[str, str]:
    """Return distribution and version of a wheel's file name."""
    match = re.match(r"^([^-]+)-([^-]+)-.+\.whl$", file)
    if match is None:
        raise InvalidInputError(
            "read the wheelhouse", file, "it is not a wheel", "Remove the file", expected="*.whl", found=file
        )
    return canonical(match[1]), match[2]


def wheel_requires(path: Path) -> list[str]:
    """Return the requirements a wheel declares."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
        text = archive.read(names[0]).decode("utf-8", "replace")
    return [str(line) for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or []]


def close(wheels: dict[str, list[str]], roots: list[str], environment: dict[str, str]) -> tuple[set[str], list[str]]:
    """Return the distributions the roots need in an environment, and the requirements no wheel meets.

    ``wheels`` maps a distribution to what it requires. Extras are followed.
    """
    parse = requirements_module().Requirement
    queue: list[tuple[str, frozenset[str]]] = []
    missing: list[str] = []

    def visit(text: str) -> None:
        requirement = parse(text)
        name = canonical(requirement.name)
        if name in wheels:
            queue.append((name, frozenset(requirement.extras)))
        else:
            requirement.marker = None
            missing.append(str(requirement))

    for root in roots:
        visit(root)
    done: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, extras = queue.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        for text in wheels[name]:
            marker = parse(text).marker
            candidates = [*extras, ""]
            if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in candidates):
                visit(text)
    return {name for name, _ in done}, sorted(set(missing))


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Return a set's manifest when every file is what it says, else None."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("schema") != 1:
        return None
    for entry in manifest["files"]:
        path = directory / entry["file"]
        if not path.is_file() or path.stat().st_size != entry["size"] or file_digest(path) != entry["sha256"]:
            return None
    return manifest


def describe_wheel(path: Path) -> dict[str, Any]:
    """Return what nodes must know about a wheel: its hash, and its size as a file and unpacked."""
    name, version = wheel_name(path.name)
    with zipfile.ZipFile(path) as archive:
        installed = sum(member.file_size for member in archive.infolist())
    return {
        "file": path.name,
        "name": name,
        "version": version,
        "size": path.stat().st_size,
        "installed": installed,
        "sha256": file_digest(path),
    }


@contextmanager
def locked(request: SetRequest) -> Iterator[None]:
    """Let one process at a time make a set; the others wait and find it made."""
    request.root.mkdir(parents=True, exist_ok=True)
    with (request.root / f".{request.key}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _pip(request: SetRequest, staging: Path, attempt: Attempt | None, requirements: list[str]) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(staging), *request.target.pip_arguments()]
    if request.index_url:
        command += ["--index-url", request.index_url]
    if attempt and attempt.extra_index_url:
        command += ["--retries", "0", "--timeout", "15", "--extra-index-url", attempt.extra_index_url]
    return [*command, *request.extra_args, *requirements]


def _nothing_found(said: str) -> bool:
    return "No matching distribution found" in said or "Could not find a version" in said


def _download_root(run: Run, request: SetRequest, staging: Path) -> Attempt:
    said = ""
    for attempt in request.attempts:
        status, output, error = run(_pip(request, staging, attempt, [attempt.requirement, *request.packages]))
        if status == 0:
            return attempt
        said += error or output
        if not _nothing_found(error or output):
            break
    target = request.target
    asked = " or ".join(dict.fromkeys(attempt.requirement for attempt in request.attempts))
    if _nothing_found(said):
        cause = f"no index or folder that pip knows here offers {asked} as a wheel for {target.tag} on {target.arch}"
    else:
        cause = ([line for line in said.splitlines() if "ERROR" in line] or said.splitlines() or ["pip failed"])[-1]
    raise MissingError(
        "download wheels",
        str(request.directory),
        cause,
        "Configure pip on the control node for an index that has it, or put a prepared wheelhouse there",
        expected=asked,
        found=said[-2000:],
    )


def _wheels(staging: Path) -> dict[str, Path]:
    return {wheel_name(path.name)[0]: path for path in sorted(staging.glob("*.whl"))}


def _complete(run: Run, request: SetRequest, staging: Path, attempt: Attempt) -> None:
    """Download what the node's markers ask for beyond what pip took, and drop what they do not."""
    roots = [attempt.requirement.replace("===", "=="), *request.packages]
    environment = request.target.environment()
    for _ in range(_ROUNDS):
        wheels = _wheels(staging)
        needed, missing = close({name: wheel_requires(path) for name, path in wheels.items()}, roots, environment)
        if not missing:
            for name in set(wheels) - needed:
                wheels[name].unlink()
            return
        status, output, error = run([*_pip(request, staging, attempt, missing), "--no-deps"])
        if status != 0:
            raise MissingError(
                "download wheels",
                str(request.directory),
                f"{', '.join(missing)} cannot be had for {request.target.tag} on {request.target.arch}",
                "Configure pip on the control node for an index that has it",
                expected=missing,
                found=(error or output)[-2000:],
            )
    raise RackwrightError(
        "download wheels", str(request.directory), f"the set is not complete after {_ROUNDS} rounds", "Report this"
    )


def make_set(run: Run, request: SetRequest, check_mode: bool) -> tuple[dict[str, Any], bool]:
    """Return a set's manifest and whether it had to be made; in check mode the manifest may be empty."""
    if not check_mode:
        with locked(request):
            return _make_set(run, request)
    manifest = read_manifest(request.directory)
    return manifest or {"schema": 1, "files": []}, manifest is None


def _make_set(run: Run, request: SetRequest) -> tuple[dict[str, Any], bool]:
    present = read_manifest(request.directory)
    if present is not None:
        return present, False
    free = shutil.disk_usage(request.root).free
    check_space(
        request.name,
        [Need(str(request.root), request.estimate)],
        {str(request.root): {"device": 0, "free": free}},
    )
    staging = request.root / f".{request.key}.partial"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    attempt = _download_root(run, request, staging)
    _complete(run, request, staging, attempt)
    manifest = {
        "schema": 1,
        "requirement": attempt.requirement,
        "packages": list(request.packages),
        "python": request.target.tag,
        "arch": request.target.arch,
        "files": [describe_wheel(path) for path in _wheels(staging).values()],
    }
    write_atomically(staging / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    if request.directory.exists():
        shutil.rmtree(request.directory)
    os.rename(staging, request.directory)
    return manifest, True
