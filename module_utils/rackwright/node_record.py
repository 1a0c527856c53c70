# SPDX-License-Identifier: Apache-2.0
"""All that one look at a node tells: the facts ``gpu`` and ``node``, and what became of its receipts.

``node`` is what planning decides by beside the GPUs: distribution, kernels, Pythons, C library, secure boot, DKMS. Each
null value has its reason in ``missing``. Read-only; ``sysroot`` stands in front of kernel files only, as in gpu_facts.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidInputError
from .gpu_probe import probe
from .host import container_of, kernels_of, natural_key, platform_of
from .receipt_items import Node
from .receipt_store import verify
from .record import Record
from .update_store import read as read_update

SCHEMA = 1
TIMEOUT_MAX_S = 3600
_EFI = "sys/firmware/efi"
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_PYTHON_NAME = re.compile(r"python(3\.\d+)")
_PYTHON_FOLDERS = ("usr/bin", "usr/local/bin")
_UPSTREAM = re.compile(r"(?:\d+:)?([0-9][0-9.]*[0-9])")


def look(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the module node_probe returns.

    Args:
        options: ``sysroot``, ``timeout`` (seconds for the driver), ``extra_gpus``, ``receipts_dir``.

    Raises:
        InvalidInputError: the time limit or a row of ``extra_gpus`` cannot be used.
    """
    timeout = options["timeout"]
    if not 0 < timeout <= TIMEOUT_MAX_S:
        raise InvalidInputError(
            "use the option timeout",
            "node_probe",
            f"it is {timeout:g}",
            f"Give the seconds the driver may take, more than 0 and at most {TIMEOUT_MAX_S}",
            expected=f"0 < timeout <= {TIMEOUT_MAX_S}",
            found=timeout,
        )
    node = Node()
    receipts, problem = verify(options["receipts_dir"], node, also=["dkms"])
    return {
        "changed": False,
        "ansible_facts": {
            "gpu": probe(options["sysroot"], options["timeout"], options["extra_gpus"]),
            "node": read_node(node, Path(options["sysroot"])),
        },
        "receipts": receipts,
        "receipts_problem": problem,
        **dict(zip(("update", "update_problem"), read_update())),
    }


def read_node(node: Node, sysroot: Path) -> dict[str, Any]:
    """Return the fact ``node``; files are read below the root of ``node``, those of the kernel below ``sysroot``."""
    root = Path(node.root)
    system = os.uname()
    container = container_of(root)
    kernels = kernels_of(root, container, system.release)
    record = Record()
    record.put("schema", SCHEMA)
    record.put("platform", platform_of(root))
    record.put("kernel", {key: kernels[key] for key in ("running", "installed", "headers")})
    record.put("wsl", "microsoft" in system.release.lower())
    record.put("machine", system.machine)
    record.put("pythons", pythons_of(root))
    record.put("python", *system_python(node))
    record.put("glibc", *glibc())
    secure_boot, reason = secure_boot_of(sysroot, container)
    record.put("secure_boot", secure_boot, reason)
    record.put("dkms", *dkms(node))
    # null is an answer for these two: no container, and no reason where the state is known
    return {**record.result(), "container": container, "secure_boot_reason": reason}


def pythons_of(root: Path) -> dict[str, str]:
    """Return the interpreters of the system by minor version; the distribution's own before one in /usr/local."""
    found: dict[str, str] = {}
    for folder in _PYTHON_FOLDERS:
        try:
            names = os.listdir(root / folder)
        except OSError:
            continue
        for name in names:
            match = _PYTHON_NAME.fullmatch(name)
            path = root / folder / name
            if match and path.is_file() and os.access(path, os.X_OK):
                found.setdefault(match.group(1), f"/{folder}/{name}")
    return {minor: found[minor] for minor in sorted(found, key=natural_key)}


def system_python(node: Node) -> tuple[str | None, str | None]:
    """Return the version of /usr/bin/python3 or why there is none; it is asked unless it is the one that runs this."""
    python = node.path("/usr/bin/python3")
    if not os.access(python, os.X_OK):
        return None, "there is no /usr/bin/python3"
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return ".".join(map(str, sys.version_info[:3])), None
    try:
        code, out, err = node.run([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
    except OSError as error:
        return None, f"/usr/bin/python3 does not run ({error.strerror or error})"
    return (out.strip(), None) if code == 0 else (None, f"/usr/bin/python3 does not run ({' '.join(err.split())})")


def glibc() -> tuple[str | None, str | None]:
    """Return the version of the GNU C library, or why there is none."""
    try:
        name, _blank, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        name, version = "", ""
    return (version, None) if name == "glibc" and version else (None, "the C library is not GNU's")


def secure_boot_of(sysroot: Path, container: str | None) -> tuple[bool | None, str | None]:
    """Return whether the firmware enforces secure boot, or why that cannot be told.

    The last byte of the EFI variable SecureBoot says it, after four bytes of attributes. A system that was not started
    by EFI has no secure boot.
    """
    variables = sysroot / _EFI / "efivars"
    try:
        content = (variables / _SECURE_BOOT).read_bytes()
    except PermissionError:
        return None, f"/{_EFI}/efivars cannot be read as an unprivileged user"
    except OSError:
        return _without_variable(sysroot, variables, container)
    if len(content) != 5 or content[-1] > 1:
        return None, f"the EFI variable SecureBoot has {len(content)} bytes that say neither on nor off"
    return content[-1] == 1, None


def _without_variable(sysroot: Path, variables: Path, container: str | None) -> tuple[bool | None, str | None]:
    if container:
        return None, f"the firmware belongs to the host of this {container} container"
    if not (sysroot / "sys").is_dir():
        return None, "there is no /sys below the given root"
    if not (sysroot / _EFI).is_dir():
        return False, None
    mounted = variables.is_dir() and any(variables.iterdir())
    return None, "the EFI variable SecureBoot cannot be read" if mounted else f"/{_EFI}/efivars is not mounted"


def dkms(node: Node) -> tuple[str | None, str | None]:
    """Return DKMS's own version from the package database, else from the program; or why there is none."""
    package = node.package("dkms") or {}
    match = _UPSTREAM.match(package.get("version") or "")
    if match:
        return match.group(1), None
    program = node.path("/usr/sbin/dkms")
    if not os.access(program, os.X_OK):
        return None, package.get("error") or "dkms is not installed"
    try:
        _code, out, _err = node.run([program, "--version"])
    except OSError as error:
        return None, f"dkms does not run ({error.strerror or error})"
    match = re.search(r"[0-9][0-9.]*[0-9]", out)
    return (match.group(0), None) if match else (None, "dkms does not tell its version")
