# SPDX-License-Identifier: Apache-2.0
"""Gather what health is judged by: the fact gpu with its part health, the host, the kernel's log, DCGM. Read-only.

Each part is read in a child process with a limit of time: a driver, a dead file system or a drive may hang.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from . import gpu_modes, kernel_events, kernel_log
from .child import run_in_child
from .errors import InvalidInputError
from .gpu_probe import probe
from .health import digest, document
from .health_dcgm import TIMEOUTS_S, run_diagnostics
from .health_host_read import HOST_PATHS, read_host_health
from .health_limits import merged
from .health_view import View
from .programs import run_program
from .sysfs import Tree

WINDOW_MAX_S = 30 * 86400.0
_HOST_TIMEOUT_S = 60.0
_KERNEL_TIMEOUT_S = 60.0
_GRACE_S = 10.0


def check_node(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the module gpu_health returns.

    Args:
        options: ``sysroot``, ``timeout`` (seconds for the driver), ``extra_gpus``, ``window_s``, ``kernel_log`` (a
            file, or None), ``expected``, ``modes``, ``baseline``, ``limits``, ``dcgm_level``, ``smart``.

    Raises:
        InvalidInputError: an option cannot be used.
    """
    _check_range("timeout", options["timeout"], 3600)
    _check_range("window_s", options["window_s"], WINDOW_MAX_S)
    limits, modes = merged(options["limits"]), _modes(options["modes"])
    expected = {key: value for key, value in (options["expected"] or {}).items() if value is not None}
    if expected.get("driver_version") and not expected.get("stack"):
        expected["stack"] = {"driver": {"version": str(expected["driver_version"])}}
    sysroot = options["sysroot"]
    gpu = probe(sysroot, options["timeout"], options["extra_gpus"], health=True)
    view = View(
        gpu=gpu,
        host=_host(sysroot, options["smart"]),
        kernel=_kernel(sysroot, options["window_s"], options["kernel_log"]),
        expected=expected,
        modes=modes,
        baseline=_baseline(options["baseline"]),
        limits=limits,
        dcgm=_diagnostics(options["dcgm_level"], gpu),
        extra_gpus=tuple(options["extra_gpus"]),
        now=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        boot_id=kernel_log.boot_id(Tree(sysroot)),
    )
    told = document(view, options["window_s"])
    return {"changed": False, "gpu_health": told, "ansible_facts": {"gpu_health": digest(told)}}


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise InvalidInputError(
            f"use the option {name}",
            "gpu_health",
            f"it is {value:g}",
            f"Give seconds, more than 0 and at most {most:g}",
            expected=f"0 < {name} <= {most:g}",
            found=value,
        )


def _modes(values: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    unknown = sorted(set(values or {}) - set(gpu_modes.MODES))
    try:
        if unknown:
            raise gpu_modes.DeclarationError(f"{unknown[0]} is no mode")
        return gpu_modes.declared(values or {})
    except gpu_modes.DeclarationError as error:
        raise InvalidInputError(
            "use what is declared of the GPUs' modes",
            "the option modes",
            str(error),
            "Declare it as for the role nvidia_driver (docs/drivers.md)",
            expected=list(gpu_modes.MODES),
            found=dict(values or {}),
        ) from error


def _baseline(value: Any) -> Mapping[str, Any]:
    """An empty one where there is none, or where another version of Rackwright wrote it in a form of its own."""
    return value if isinstance(value, Mapping) and value.get("schema") == 1 else {}


def _host(sysroot: str, smart: bool) -> dict[str, Any]:
    child = run_in_child(_read_host, (sysroot, smart), _HOST_TIMEOUT_S)
    if child.status == "ok":
        record: dict[str, Any] = child.value
        return record
    reason = f"reading the host failed: {child.detail}"
    return {"missing": dict.fromkeys(HOST_PATHS, reason)}


def _read_host(sysroot: str, smart: bool) -> dict[str, Any]:
    return read_host_health(sysroot, smart=smart)


def _kernel(sysroot: str, window_s: float, path: str | None) -> dict[str, Any]:
    child = run_in_child(_read_kernel, (sysroot, window_s, path), _KERNEL_TIMEOUT_S)
    if child.status == "ok":
        return {**child.value, "named": path is not None}
    return {"missing": f"reading the kernel's log failed: {child.detail}", "named": path is not None}


def _read_kernel(sysroot: str, window_s: float, path: str | None) -> dict[str, Any]:
    """The log without its lines: their events are all that leaves the child."""
    log = kernel_log.read(window_s, path=path, tree=Tree(sysroot))
    lines = log.pop("lines")
    return {**log, "line_count": len(lines), "events": kernel_events.parse(lines, now=log["now"])}


def _diagnostics(level: str, gpu: Mapping[str, Any]) -> dict[str, Any]:
    if level != "none" and gpu.get("simulated"):
        return {"level": level, "absent": "simulated GPUs run nothing"}
    timeout = TIMEOUTS_S.get(level, 0) + _GRACE_S
    child = run_in_child(_ask_dcgm, (level,), timeout)
    if child.status == "ok":
        answer: dict[str, Any] = child.value
        return answer
    return {"level": level, "missing": f"dcgmi failed: {child.detail}"}


def _ask_dcgm(level: str) -> dict[str, Any]:
    return run_diagnostics(level, run_program)
