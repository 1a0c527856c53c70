# SPDX-License-Identifier: Apache-2.0
"""Ask each environment's own torch what GPU code it holds, without letting one that hangs or crashes matter.

``torch._C._cuda_getArchFlags()`` is a constant of the build. Unlike ``torch.cuda.get_arch_list()`` of older releases it
asks for no GPU, and nothing here does: a foreign node's driver may be the very thing that hangs. CPU builds lack it.
"""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .child import run_in_child, signal_name
from .framework_files import Place, build_name, find_places, read_record, read_system
from .pyenv import as_owner

_SEARCH_TIMEOUT_S = 20.0
#: Where a report of a thousand environments would help nobody.
MOST = 40
# Runs in the interpreter that is asked about, so it must be plain enough for any Python 3.
SCRIPT = """
import json, platform, sys
answer = {"python": "%d.%d.%d" % sys.version_info[:3], "version": None, "cuda": None, "hip": None, "flags": None}
if sys.argv[1] not in sys.path:
    spots = [i for i, entry in enumerate(sys.path) if entry.endswith("-packages")]
    sys.path.insert(spots[0] if spots else len(sys.path), sys.argv[1])
try:
    import torch
    answer.update(version=str(torch.__version__), cuda=torch.version.cuda, hip=getattr(torch.version, "hip", None))
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    answer["flags"] = flags() if flags else ""
except BaseException as error:
    lines = str(error).splitlines()
    answer["error"] = "%s: %s" % (type(error).__name__, lines[0] if lines else "")
print("RACKWRIGHT" + json.dumps(answer))
"""


@dataclass(frozen=True)
class FrameworkRequest:
    """Which environments to look at, and how long: ``timeout`` seconds for each, ``budget`` seconds for all."""

    root: str = "/"
    environments: list[str] = field(default_factory=list)
    search: bool = True
    timeout: float = 60.0
    budget: float = 300.0


def probe_frameworks(request: FrameworkRequest) -> dict[str, Any]:
    """Return the environments with what they hold, C library, driver libraries and the reasons for what is missing."""
    ends = time.monotonic() + request.budget
    missing: dict[str, str] = {}
    found = run_in_child(
        find_places, (request.root, request.environments, request.search), min(_SEARCH_TIMEOUT_S, request.budget)
    )
    if found.status != "ok":
        missing["environments"] = f"the search for Python environments gave no answer: {found.detail}"
    answer = found.value or {"places": [], "absent": [], "closed": []}
    for path in answer["absent"]:
        missing[f"environments.{path}"] = "there is no Python environment"
    for path in answer["closed"]:
        missing[f"environments.{path}"] = "this user may not look into it"
    places = [Place(*fields) for fields in answer["places"]]
    if len(places) > MOST:
        missing["environments"] = f"{len(places)} were found, only the first {MOST} are looked at: name the others"
    glibc = platform.libc_ver()[1] or None
    if glibc is None:
        missing["glibc"] = "the C library does not say its version"
    return {
        "schema": 1,
        "environments": [_look(place, request, ends) for place in places[:MOST]],
        "glibc": glibc,
        "system": read_system(request.root),
        "missing": missing,
    }


def _look(place: Place, request: FrameworkRequest, ends: float) -> dict[str, Any]:
    record = read_record(place)
    if record["torch"] is None:
        return record
    left = ends - time.monotonic()
    if left <= 0:
        answer = {"error": f"the time for all environments together ({request.budget:g} s) is spent"}
    else:
        answer = ask(place, min(request.timeout, left))
    if answer.get("python"):
        record["python_version"] = answer["python"]
        record["missing"].pop("python_version", None)
    if answer.get("error"):
        record["missing"]["torch.arch_list"] = f"torch was not asked: {answer['error']}"
        record["torch"]["import_error"] = answer["error"] if answer.get("asked") else None
        return record
    _take(record, answer)
    return record


def _take(record: dict[str, Any], answer: dict[str, Any]) -> None:
    torch, missing = record["torch"], record["missing"]
    torch.update(version=answer["version"], cuda=answer["cuda"], hip=answer["hip"], basis="import", import_error=None)
    torch["build"] = build_name(torch["version"], torch["cuda"], torch["hip"])
    missing.pop("torch.build", None)
    if answer["flags"] is None:
        missing["torch.arch_list"] = "this build of torch does not say it"
    else:
        torch["arch_list"] = answer["flags"].replace(";", " ").split()


def ask(place: Place, timeout: float) -> dict[str, Any]:
    """Return what torch of one place answers; ``error`` says why it does not, ``asked`` whether it was tried."""
    if place.python is None or not os.access(place.python, os.X_OK):
        return {"error": f"its interpreter {place.python} leads nowhere, or this user may not run it"}
    danger = _danger(place)
    if danger:
        return {"error": danger}
    # -B: not even a cached byte code is left behind
    command = as_owner([place.python, "-I", "-B", "-c", SCRIPT, place.site], _owned_by(place))
    result = run_in_child(_run, (command,), timeout)
    if result.status != "ok":
        why = f"no answer within {timeout:g} s" if result.status == "timeout" else result.detail
        return {"asked": True, "error": why}
    status, output, error = result.value
    for line in reversed(output.splitlines()):
        if line.startswith("RACKWRIGHT"):
            answer: dict[str, Any] = json.loads(line[len("RACKWRIGHT") :])
            return {**answer, "asked": True}
    ending = f"signal {signal_name(-status)}" if status < 0 else f"status {status}"
    last = (error.strip().splitlines() or ["it said nothing"])[-1]
    return {"asked": True, "error": f"the interpreter ended with {ending}: {last}"}


def _parts(place: Place) -> list[Path]:
    """Return everything whose writer decides what code the interpreter runs."""
    paths = (place.path, place.site, os.path.join(place.site, "torch"), os.path.realpath(place.python or "/"))
    return [Path(path) for path in paths if os.path.exists(path)]


def _owned_by(place: Place) -> Path:
    """Return the part whose owner's rights are enough: what an ordinary user can write never runs as root."""
    return next((path for path in _parts(place) if path.stat().st_uid != 0), Path(place.path))


def _danger(place: Place) -> str | None:
    if os.geteuid() != 0:
        return None
    for path in _parts(place):
        if path.stat().st_mode & stat.S_IWOTH:
            return f"everybody may write {path}, and root does not run such code"
    return None


def _run(command: list[str]) -> list[Any]:
    """Run a program in a bare environment, so that the caller's decides nothing; GPUs are hidden from it."""
    bare = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd="/", env=bare, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    tail = [stream.decode("utf-8", "replace")[-20000:] for stream in (done.stdout, done.stderr)]
    return [done.returncode, *tail]
