# SPDX-License-Identifier: Apache-2.0
"""Build, repair and hand over one Python environment. ``pyenv`` decides, this acts."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import RackwrightError
from .pyenv import (
    MARKER,
    Run,
    VenvFound,
    VenvRequest,
    check_python,
    check_request,
    describe,
    guard_foreign,
    look,
    read_os_release,
    rebuild_reason,
    shown,
    venv_packages,
    wrong_owners,
)


@dataclass
class Outcome:
    """What one call did, or would do."""

    changed: bool = False
    created: bool = False  # built anew: whatever was installed inside is gone
    actions: list[str] = field(default_factory=list)
    missing_packages: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    interpreter: dict[str, Any] = field(default_factory=dict)


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def system_error(action: str, subject: str, error: OSError) -> RackwrightError:
    """Return an operating system's refusal (disk full, read-only, no permission) as a sentence."""
    where = f" ({error.filename})" if error.filename else ""
    return RackwrightError(
        action,
        subject,
        f"{error.strerror or error}{where}",
        "Put right what the operating system refuses, then run again: what was begun is repaired",
        expected="a file system that can be written to",
        found=str(error),
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def _command(request: VenvRequest, python: dict[str, Any]) -> list[str]:
    flags = ["--system-site-packages"] if request.system_site_packages else []
    if request.provider == "uv":
        uv = request.uv or "uv"
        offline = ["--no-config", "--no-cache", "--offline", "--no-python-downloads", "--allow-existing"]
        return [uv, "venv", "--quiet", *offline, "--python", python["executable"], *flags, request.path]
    return [python["executable"], "-I", "-m", "venv", *flags, request.path]


def _build(run: Run, request: VenvRequest, python: dict[str, Any]) -> None:
    """Build at the final path; the previous environment waits beside it and comes back when the build fails."""
    request.root.parent.mkdir(parents=True, exist_ok=True)
    if request.flag.exists():  # whatever is at the path now is the half of an interrupted build
        _remove(request.root)
    request.flag.write_text(f"{os.getpid()}\n", encoding="utf-8")
    _remove(request.replaced)
    if request.root.exists() or request.root.is_symlink():
        os.rename(request.root, request.replaced)
    request.root.mkdir(mode=request.mode)
    status, output, error = run(_command(request, python))
    if status != 0:
        _remove(request.root)
        if request.replaced.exists():
            os.rename(request.replaced, request.root)
        request.flag.unlink()
        said = (error or output).strip().splitlines()
        raise RackwrightError(
            "create a Python environment",
            request.path,
            said[-1] if said else f"{request.provider} ended with status {status}",
            "Read the provider's whole answer in the task's output, and free space or install what it misses",
            expected=f"{request.provider} to end with status 0",
            found=(error or output)[-2000:],
        )


def _finish(run: Run, request: VenvRequest, python: dict[str, Any]) -> None:
    """Prove that the new environment is whole, then write the marker, last of all."""
    request.flag.unlink()
    found = look(run, request)
    if not found.complete:
        raise RackwrightError(
            "create a Python environment",
            request.path,
            f"it was built and {found.reason}",
            f"Check that {python['executable']} is undamaged, then run again",
            expected="a complete environment",
            found=found.reason,
        )
    _write_marker(request, python)
    _remove(request.replaced)


def _write_marker(request: VenvRequest, python: dict[str, Any]) -> None:
    cfg = (request.root / "pyvenv.cfg").read_text(encoding="utf-8")
    content = {**describe(request, python), "pyvenv_cfg": cfg}
    write_atomically(request.root / MARKER, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _hand_over(request: VenvRequest) -> None:
    for path in wrong_owners(request.root, request.uid, request.gid):
        os.lchown(path, request.uid, request.gid)
    os.chmod(request.root, request.mode)


def _small_repairs(request: VenvRequest, found: VenvFound) -> list[str]:
    """Return what differs in an environment that need not be built anew."""
    repairs = []
    if found.marker is None:
        repairs.append("take over the environment that is there")
    elif found.cfg != found.marker.get("pyvenv_cfg"):
        repairs.append("restore pyvenv.cfg, which was edited")
    if found.wrong_owner:
        repairs.append(f"give {found.wrong_owner} files to their owner")
    if found.wrong_mode:
        repairs.append("set the directory's mode")
    return repairs


def _repair(request: VenvRequest, found: VenvFound, python: dict[str, Any]) -> None:
    if found.marker is not None and found.cfg != found.marker.get("pyvenv_cfg"):
        write_atomically(request.root / "pyvenv.cfg", str(found.marker["pyvenv_cfg"]))
    if found.marker is None:
        _write_marker(request, python)
    _hand_over(request)


def ensure(run: Run, request: VenvRequest, check_mode: bool) -> Outcome:
    """Bring the environment to what was asked for; one call decides and acts."""
    check_request(request)
    python = check_python(run, request)
    outcome = Outcome(interpreter=python)
    found = look(run, request)
    outcome.before = outcome.after = shown(request, found)
    reason = rebuild_reason(request, found, python)
    if not reason:
        outcome.actions = _small_repairs(request, found)
        outcome.changed = bool(outcome.actions)
        if outcome.changed and not check_mode:
            _repair(request, found, python)
    else:
        guard_foreign(request, found)
        outcome.changed = outcome.created = True
        outcome.actions = [f"build the environment: {reason}"]
        if request.provider == "venv":
            outcome.missing_packages = venv_packages(read_os_release(), python)
        if not check_mode and not outcome.missing_packages:
            _build(run, request, python)
            _finish(run, request, python)
            _hand_over(request)
    if outcome.changed:
        outcome.after = (
            _expected(request, python) if check_mode or outcome.missing_packages else shown(request, look(run, request))
        )
    return outcome


def _expected(request: VenvRequest, python: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": request.path,
        "state": "present",
        "python": python["version"],
        "executable": python["executable"],
        "system_site_packages": request.system_site_packages,
        "foreign_files": 0,
    }
