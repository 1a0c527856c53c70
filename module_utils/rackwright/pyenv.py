# SPDX-License-Identifier: Apache-2.0
"""Bring one Python environment to what was asked for, and notice every way in which it is not.

The environment is built at its own path (scripts inside carry it) with a flag file beside it while that goes on, and a
marker inside written last. A flag without an end, or no marker and no complete environment, means: build again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidInputError, MissingError, RackwrightError
from .wheels import problems_of, read_dists

Run = Callable[[list[str]], tuple[int, str, str]]

MARKER = ".rackwright-venv.json"
FORBIDDEN = {"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sbin", "/srv"}
FORBIDDEN |= {"/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var", "/var/lib"}

# Runs in the interpreter that is asked about, so it must be plain enough for any Python 3.
ASK = """
import json, os, platform, sys, sysconfig
def has(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
v = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps({
    "version": v, "minor": "%d.%d" % sys.version_info[:2], "prefix": sys.prefix, "base_prefix": sys.base_prefix,
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "site": sysconfig.get_path("purelib"), "sites": [p for p in sys.path if p.endswith("-packages")],
    "has_venv": has("venv") and has("ensurepip"),
    "tag": "cp%d%d" % sys.version_info[:2], "arch": platform.machine(), "glibc": platform.libc_ver()[1] or None,
    "markers": {
        "implementation_name": sys.implementation.name, "implementation_version": v, "os_name": os.name,
        "platform_machine": platform.machine(), "platform_release": platform.release(),
        "platform_system": platform.system(), "platform_version": platform.version(),
        "platform_python_implementation": platform.python_implementation(), "python_full_version": v,
        "python_version": "%d.%d" % sys.version_info[:2], "sys_platform": sys.platform}}))
"""


@dataclass(frozen=True)
class VenvRequest:
    """What the environment should be."""

    path: str
    python: str = "/usr/bin/python3"
    version: str | None = None  # Python the interpreter must be, such as 3.11; None takes any
    provider: str = "venv"
    uv: str | None = None
    system_site_packages: bool = False
    uid: int = 0
    gid: int = 0
    mode: int = 0o755

    @property
    def root(self) -> Path:
        return Path(self.path)

    @property
    def flag(self) -> Path:
        return self.root.parent / f".{self.root.name}.building"

    @property
    def replaced(self) -> Path:
        return self.root.parent / f".{self.root.name}.replaced"


@dataclass
class VenvFound:
    """What is at the path now."""

    exists: bool = False
    complete: bool = False
    marker: dict[str, Any] | None = None
    cfg: str | None = None
    interpreter: dict[str, Any] | None = None
    wrong_owner: int = 0
    wrong_mode: bool = False
    reason: str = ""


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def check_request(request: VenvRequest) -> None:
    """Refuse what cannot or must not be built, before anything is touched."""
    if request.provider == "conda":
        raise InvalidInputError(
            "create a conda environment",
            request.path,
            "this release of Rackwright builds environments with venv and uv only, conda is not there yet",
            "Set python_env_provider to venv or uv",
            expected=["venv", "uv"],
            found="conda",
        )
    path = request.root
    if not path.is_absolute() or ".." in path.parts or str(path) in FORBIDDEN:
        raise InvalidInputError(
            "create a Python environment",
            request.path,
            "the path is not an absolute directory of its own",
            "Choose one like /opt/rackwright/venv",
            expected="an absolute path that belongs to nothing else",
            found=request.path,
        )


def as_owner(command: list[str], root: Path) -> list[str]:
    """Return a command that runs with the rights of an environment's owner.

    What an unprivileged user can write must never be executed by root.
    """
    if os.geteuid() != 0 or not root.exists():
        return command
    owner = root.stat()
    if owner.st_uid == 0:
        return command
    return ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--", *command]


def ask_python(run: Run, python: str, owner: Path | None = None) -> dict[str, Any] | None:
    """Return what an interpreter says about itself, or None when it does not run."""
    if not os.access(python, os.X_OK):
        return None
    command = [python, "-I", "-c", ASK]
    status, output, _ = run(as_owner(command, owner) if owner else command)
    if status != 0:
        return None
    try:
        answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return answer


def check_python(run: Run, request: VenvRequest) -> dict[str, Any]:
    """Return what the wanted interpreter is, or refuse."""
    python = request.python if "/" in request.python else (shutil.which(request.python) or request.python)
    found = ask_python(run, python)
    if found is None:
        raise MissingError(
            "create a Python environment",
            request.path,
            f"{request.python} is not a Python interpreter that runs here",
            "Install it, or set stack_python to one that is there and plan again",
            expected=f"a Python {request.version or '3'}",
            found=request.python,
        )
    if request.version and found["minor"] != request.version:
        raise InvalidInputError(
            "create a Python environment",
            request.path,
            f"{request.python} is Python {found['version']} and the lock says {request.version}",
            "Run playbooks/plan-stack.yml again, or bring that Python back",
            expected=request.version,
            found=found["version"],
        )
    if found["prefix"] != found["base_prefix"]:
        raise InvalidInputError(
            "create a Python environment",
            request.path,
            f"{request.python} belongs to another virtual environment",
            "Use the interpreter that environment was made from",
            expected="a base interpreter",
            found=found["prefix"],
        )
    return found


def venv_packages(os_release: dict[str, str], interpreter: dict[str, Any]) -> list[str]:
    """Return the OS packages that bring ``venv`` to an interpreter that came without it."""
    if interpreter["has_venv"]:
        return []
    like = f"{os_release.get('ID', '')} {os_release.get('ID_LIKE', '')}".split()
    if {"debian", "ubuntu"} & set(like) and interpreter["executable"].startswith("/usr/bin/"):
        return [f"python{interpreter['minor']}-venv"]
    raise MissingError(
        "create a Python environment",
        interpreter["executable"],
        "this Python has no venv and ensurepip modules",
        "Install the package that brings them, or set another stack_python and plan again",
        expected="modules venv and ensurepip",
        found=interpreter["executable"],
    )


def read_os_release(path: str = "/etc/os-release") -> dict[str, str]:
    """Return /etc/os-release as a mapping; an absent file gives an empty one."""
    pairs: dict[str, str] = {}
    if not os.path.exists(path):
        return pairs
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            name, found, value = line.strip().partition("=")
            if found:
                pairs[name] = value.strip("'\"")
    return pairs


def _read_marker(root: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("schema") == 1 else None


def wrong_owners(root: Path, uid: int, gid: int) -> list[str]:
    """Return every path below ``root``, itself included, that belongs to somebody else."""
    wrong = []
    queue = [str(root)]
    status = os.lstat(root)
    if (status.st_uid, status.st_gid) != (uid, gid):
        wrong.append(str(root))
    while queue:
        with os.scandir(queue.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if (status.st_uid, status.st_gid) != (uid, gid):
                    wrong.append(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)
    return wrong


def _interpreter_problem(found: VenvFound, root: Path) -> str:
    """Return why the environment's own interpreter cannot be trusted, or an empty string."""
    python = root / "bin" / "python"
    if not python.exists():
        return "its interpreter is gone" if python.is_symlink() else "it has no interpreter"
    if found.interpreter is None:
        return "its interpreter does not run"
    if os.path.realpath(found.interpreter["prefix"]) != os.path.realpath(root):
        return f"its interpreter believes to be in {found.interpreter['prefix']}"
    if not (root / "lib" / f"python{found.interpreter['minor']}" / "site-packages").is_dir():
        return f"it was built for another Python than {found.interpreter['minor']}, which its interpreter is now"
    return ""


def _completeness_problem(found: VenvFound, request: VenvRequest) -> str:
    """Return what is missing in an environment; ``python -m venv`` installs pip and writes ``activate`` last."""
    if request.flag.exists():
        return "an earlier build was interrupted"
    if found.cfg is None:
        return "it has no pyvenv.cfg" if found.marker is None else ""
    problem = _interpreter_problem(found, request.root)
    if problem:
        return problem
    if not (request.root / "bin" / "activate").is_file():
        return "it is half built (no bin/activate)"
    if request.provider == "venv":
        assert found.interpreter is not None
        site = request.root / "lib" / f"python{found.interpreter['minor']}" / "site-packages"
        pip = problems_of(read_dists(site), "pip")
        if pip:
            return f"its pip is not whole: {pip}"
    return ""


def look(run: Run, request: VenvRequest) -> VenvFound:
    """Return what is at the path."""
    root = request.root
    found = VenvFound(exists=root.is_dir() and any(root.iterdir()))
    if not found.exists:
        if root.exists() and not root.is_dir():
            found.exists = True
            found.reason = "a file is in the way"
        return found
    found.marker = _read_marker(root)
    cfg = root / "pyvenv.cfg"
    if cfg.is_file():
        found.cfg = cfg.read_text(encoding="utf-8", errors="replace")
    found.interpreter = ask_python(run, str(root / "bin" / "python"), owner=root)
    found.reason = _completeness_problem(found, request)
    found.complete = not found.reason
    found.wrong_owner = len(wrong_owners(root, request.uid, request.gid))
    found.wrong_mode = (root.stat().st_mode & 0o7777) != request.mode
    return found


def cfg_flag(cfg: str | None) -> bool | None:
    """Return ``include-system-site-packages`` of a pyvenv.cfg, or None when it does not say."""
    for line in (cfg or "").splitlines():
        name, found, value = line.partition("=")
        if found and name.strip().lower() == "include-system-site-packages":
            return value.strip().lower() == "true"
    return None


def rebuild_reason(request: VenvRequest, found: VenvFound, python: dict[str, Any]) -> str:
    """Return why the environment must be built anew, or an empty string."""
    if not found.exists:
        return "it is not there"
    if not found.complete:
        return found.reason
    built = found.marker or {
        "executable": (found.interpreter or {}).get("executable"),
        "system_site_packages": cfg_flag(found.cfg),
        "provider": request.provider,
    }
    if built["executable"] != python["executable"]:
        return f"it was built with {built['executable']} and {python['executable']} is wanted"
    if bool(built["system_site_packages"]) != request.system_site_packages:
        return f"system site-packages should be {'visible' if request.system_site_packages else 'hidden'}"
    if built["provider"] != request.provider:
        return f"it was built by {built['provider']} and {request.provider} is wanted"
    return ""


def guard_foreign(request: VenvRequest, found: VenvFound) -> None:
    """Refuse to replace a directory that was never a Python environment."""
    if not found.exists or found.marker or found.cfg is not None or request.flag.exists():
        return
    if (request.root / "bin" / "python").is_symlink():
        return
    raise RackwrightError(
        "create a Python environment",
        request.path,
        "there is something that is not a Python environment, and it would be deleted",
        "Move it away, or set python_env_path to another path",
        expected="an empty path or a Python environment",
        found=request.path,
    )


def describe(request: VenvRequest, python: dict[str, Any]) -> dict[str, Any]:
    """Return the marker's content, without what is only known after the build."""
    return {
        "schema": 1,
        "provider": request.provider,
        "uv": request.uv if request.provider == "uv" else None,
        "executable": python["executable"],
        "python": python["version"],
        "system_site_packages": request.system_site_packages,
    }


def shown(request: VenvRequest, found: VenvFound) -> dict[str, Any]:
    """Return the state for a diff: what people recognise, nothing else."""
    if not found.exists:
        return {"path": request.path, "state": "absent"}
    state = found.reason or "present"
    result: dict[str, Any] = {"path": request.path, "state": state}
    if found.interpreter:
        result["python"] = found.interpreter["version"]
        result["executable"] = found.interpreter["executable"]
    result["system_site_packages"] = cfg_flag(found.cfg)
    result["foreign_files"] = found.wrong_owner
    return result
