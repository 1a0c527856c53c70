# SPDX-License-Identifier: Apache-2.0
"""Which Python environments of a machine hold torch, tensorflow or vllm, and what their files say. Imports nothing.

The search is a fixed list of patterns, never a walk: a home directory can hold millions of files. Versions come from
the metadata directories, CUDA and GPU code from the small files that the packages themselves read at import.
"""

from __future__ import annotations

import ast
import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .wheels import canonical

_HOMES = ("home/*", "root")
_BELOW_HOME = (
    *(".venv", "venv", "env", "*/.venv", "*/venv", "*/env", ".virtualenvs/*", ".conda/envs/*"),
    *(f"{name}{tail}" for name in ("*conda3", "mambaforge", "miniforge3", "micromamba") for tail in ("", "/envs/*")),
)
#: Where environments are usually put, below the root of the file system.
ENVIRONMENTS = (
    *("opt/*", "opt/*/*", "opt/*/.venv", "opt/*/envs/*", "srv/*/venv", "srv/*/.venv", "usr/local/*conda3"),
    *(f"{home}/{below}" for home in _HOMES for below in _BELOW_HOME),
)
#: Directories with packages that belong to an interpreter of the system, with that interpreter's directory.
SITES = (
    ("usr/lib/python3/dist-packages", "usr/bin", "system"),
    ("usr/lib*/python3.*/site-packages", "usr/bin", "system"),
    ("usr/local/lib/python3.*/dist-packages", "usr/bin", "system"),
    ("usr/local/lib*/python3.*/site-packages", "usr/local/bin", "system"),
    *((f"{home}/.local/lib/python3.*/site-packages", "usr/bin", "user") for home in _HOMES),
)
TENSORFLOWS = ("tensorflow", "tensorflow-gpu", "tensorflow-cpu")
_WANTED = ("torch", "vllm", *TENSORFLOWS)
_METADATA = re.compile(r"^(?P<name>.+?)-(?P<version>[^-]+)(-py[0-9.]+)?\.(dist|egg)-info$")
_MINOR = re.compile(r"python(3\.\d+)")
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_")
_OLD_MANYLINUX = {"manylinux2014": "2.17", "manylinux2010": "2.12", "manylinux1": "2.5"}
_VERSION_PY = re.compile(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(None|'[^']*'|\"[^\"]*\")", re.MULTILINE)
_BUILD_INFO = re.compile(r"^build_info\s*=\s*collections\.OrderedDict\((.*)\)\s*$", re.MULTILINE | re.DOTALL)
_LIBCUDA = re.compile(r"^libcuda\.so\.(\d+\.\d+(?:\.\d+)?)$")
_LIBRARY_DIRS = (
    *(
        ("driver", f"usr/lib/{triplet}-linux-gnu{tail}")
        for triplet in ("x86_64", "aarch64")
        for tail in ("", "/nvidia/*")
    ),
    *(("driver", "usr/lib64"), ("compat", "usr/local/cuda*/compat")),
)


@dataclass(frozen=True)
class Place:
    """One directory of packages and the interpreter that reads it; ``kind`` is venv, conda, user or system."""

    path: str
    kind: str
    site: str
    python: str | None


def find_places(root: str, given: list[str], search: bool) -> dict[str, list[Any]]:
    """Return ``places`` (fields of `Place`): given ones, and found ones with a framework.

    ``absent`` lists given paths that are none, ``closed`` the home directories this user may not look into.

    Only JSON data, so that it can be asked in a child process: a dead network file system blocks the first look at it.
    """
    places: dict[str, Place] = {}
    absent = []
    for path in given:
        found = places_of(_environment(path))
        places.update({os.path.realpath(place.site): place for place in found})
        if not found:
            absent.append(path)
    for place in _searched(root) if search else ():
        if any(name in _WANTED for name in read_versions(place.site)):
            places.setdefault(os.path.realpath(place.site), place)
    ordered = sorted(places.values(), key=lambda place: (place.path, place.site))
    return {
        "places": [[place.path, place.kind, place.site, place.python] for place in ordered],
        "absent": absent,
        "closed": _closed(root) if search else [],
    }


def _closed(root: str) -> list[str]:
    homes = [path for home in _HOMES for path in glob.glob(os.path.join(glob.escape(root), home))]
    return sorted(path for path in homes if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK))


def _searched(root: str) -> list[Place]:
    found = []
    for pattern in ENVIRONMENTS:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            found += places_of(path)
    for pattern, programs, kind in SITES:
        for site in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            minor = _MINOR.search(site)
            python = os.path.join(root, programs, f"python{minor[1]}" if minor else "python3")
            found.append(Place(site, kind, site, python if os.access(python, os.X_OK) else None))
    return found


def _environment(path: str) -> str:
    """Return the environment that a given path is: the directory itself, or that of an interpreter ``…/bin/python``."""
    parent, program = os.path.split(path.rstrip("/"))
    if program.startswith("python") and os.path.basename(parent) == "bin":
        return os.path.dirname(parent)
    return path.rstrip("/") or "/"


def places_of(path: str) -> list[Place]:
    """Return the places of one environment; none when the path is not one."""
    python = next((name for name in ("bin/python", "bin/python3") if os.path.lexists(os.path.join(path, name))), None)
    if python is None:
        return []
    kind = "conda" if os.path.isdir(os.path.join(path, "conda-meta")) else "venv"
    sites: dict[str, str] = {}
    for site in sorted(glob.glob(os.path.join(glob.escape(path), "lib*/python3.*/site-packages"))):
        sites.setdefault(os.path.realpath(site), site)
    return [Place(path, kind, site, os.path.join(path, python)) for site in sites.values()]


def read_versions(site: str) -> dict[str, tuple[str, str]]:
    """Return version and metadata path of each distribution in a directory, by canonical name."""
    found = {}
    try:
        names = sorted(os.listdir(site))
    except OSError:
        return {}
    for name in names:
        match = _METADATA.match(name)
        if match:
            found[canonical(match["name"])] = (match["version"], os.path.join(site, name))
    return found


def read_record(place: Place) -> dict[str, Any]:
    """Return what the files of one place say; each null has its reason in ``missing``."""
    versions = read_versions(place.site)
    minor = _MINOR.search(place.site)
    record: dict[str, Any] = {
        "path": place.path,
        "kind": place.kind,
        "python": place.python,
        "python_version": minor[1] if minor else None,
        "site": place.site,
        "torch": None,
        "tensorflow": None,
        "vllm": None,
        "missing": {},
    }
    missing: dict[str, str] = record["missing"]
    if place.python is None:
        missing["python"] = "the interpreter of this directory is not there"
    if minor is None:
        missing["python_version"] = "the path does not name it"
    if "torch" in versions:
        record["torch"] = _read_torch(place.site, *versions["torch"], missing)
    distribution = next((name for name in TENSORFLOWS if name in versions), None)
    if distribution:
        record["tensorflow"] = _read_tensorflow(place.site, distribution, versions, missing)
    if "vllm" in versions:
        record["vllm"] = {"version": versions["vllm"][0]}
    for name in ("torch", "tensorflow", "vllm"):
        if record[name] is None:
            missing[name] = "not installed"
    return record


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def build_name(version: str, cuda: str | None, hip: str | None) -> str:
    """Return the name a build of torch goes by: ``cu124``, ``cpu``, or ``rocm6.4`` as its version says it."""
    local = version.partition("+")[2]
    if cuda:
        return "cu" + "".join(cuda.split(".")[:2])
    if hip:
        return local or "rocm"
    return "cpu"


def _read_torch(site: str, version: str, metadata: str, missing: dict[str, str]) -> dict[str, Any]:
    found = {name: ast.literal_eval(value) for name, value in _VERSION_PY.findall(_text(f"{site}/torch/version.py"))}
    torch: dict[str, Any] = {
        "version": found.get("__version__") or version,
        "build": None,
        "cuda": found.get("cuda"),
        "hip": found.get("hip"),
        "arch_list": None,
        "basis": "files",
        "glibc_needed": glibc_needed(_text(os.path.join(metadata, "WHEEL"))),
    }
    if "cuda" in found:
        torch["build"] = build_name(torch["version"], torch["cuda"], torch["hip"])
    else:
        missing["torch.build"] = f"{site}/torch/version.py does not say it"
    if torch["glibc_needed"] is None:
        missing["torch.glibc_needed"] = "the package carries no manylinux tag"
    return torch


def glibc_needed(wheel: str) -> str | None:
    """Return the oldest C library a wheel runs on, from the tags in its ``WHEEL`` file; the mildest tag counts."""
    found = [f"{major}.{minor}" for major, minor in _GLIBC.findall(wheel)]
    found += [glibc for name, glibc in _OLD_MANYLINUX.items() if f"-{name}_" in wheel]
    return min(found, key=lambda text: [int(part) for part in text.split(".")]) if found else None


def _read_tensorflow(
    site: str, distribution: str, versions: dict[str, tuple[str, str]], missing: dict[str, str]
) -> dict[str, Any]:
    path = f"{site}/tensorflow/python/platform/build_info.py"
    info = _build_info(_text(path))
    if info is None:
        for name in ("cuda", "cudnn", "arch_list", "cuda_build"):
            missing[f"tensorflow.{name}"] = f"{path} cannot be read"
        info = {}
    return {
        "distribution": distribution,
        "version": versions[distribution][0],
        "cuda": info.get("cuda_version"),
        "cudnn": info.get("cudnn_version"),
        "arch_list": info.get("cuda_compute_capabilities"),
        "cuda_build": info.get("is_cuda_build"),
        "cuda_packages": any(name.startswith("nvidia-cudnn-cu") for name in versions),
    }


def _build_info(text: str) -> dict[str, Any] | None:
    """Return what ``tf.sysconfig.get_build_info()`` would: it hands out this dictionary, which holds literals only."""
    match = _BUILD_INFO.search(text)
    if not match:
        return None
    try:
        return dict(ast.literal_eval(match[1]))
    except (ValueError, SyntaxError, TypeError):
        return None


def read_system(root: str) -> dict[str, Any]:
    """Return the CUDA driver libraries that are installed and whether the fabric manager is there and runs."""
    libraries = []
    for kind, pattern in _LIBRARY_DIRS:
        for directory in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            for name in sorted(os.listdir(directory)) if os.access(directory, os.R_OK) else ():
                match = _LIBCUDA.match(name)
                if match and os.path.isfile(os.path.join(directory, name)):
                    libraries.append({"kind": kind, "path": os.path.join(directory, name), "version": match[1]})
    program = os.path.join(root, "usr/bin/nv-fabricmanager")
    # the kernel cuts names at 15 characters
    names = (_text(path).strip() for path in glob.glob(os.path.join(glob.escape(root), "proc/[0-9]*/comm")))
    manager = {"installed": os.path.exists(program), "running": any(n == "nv-fabricmanager"[:15] for n in names)}
    return {"driver_libraries": libraries, "fabric_manager": manager}
