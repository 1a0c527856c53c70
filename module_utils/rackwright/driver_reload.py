# SPDX-License-Identifier: Apache-2.0
"""Replace the loaded NVIDIA kernel modules by the installed ones without a reboot, or say who is in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .errors import RackwrightError

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]
#: what holds the modules by design; stopped before, started again after, only where it ran
SERVICES = (
    "dcgm-exporter",
    "nvidia-dcgm",
    "nv-hostengine",
    "nvidia-fabricmanager",
    "nvidia-imex",
    "nvidia-persistenced",
)
#: users before what they use
MODULES = ("nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "nvidia")
_AGAIN = ("nvidia", "nvidia_uvm")


class ReloadError(RackwrightError):
    """The modules could not be replaced; what ran before runs again."""

    kind = "reload"


def reload(
    run: Run, node: str, services: Sequence[str], loaded: Sequence[str], holders: Callable[[], list[str]]
) -> list[str]:
    """Stop the services, exchange the modules, start the services; return what was done.

    Args:
        run: runs a command and returns status, output and errors.
        node: name for messages.
        services: units that may hold the modules.
        loaded: modules that are loaded.
        holders: names the processes that hold a GPU.

    Raises:
        ReloadError: a module is in use or does not load. The services that ran are started again.
    """
    active = [name for name in services if run(["systemctl", "is-active", "--quiet", name])[0] == 0]
    done = []
    try:
        for name in active:
            _must(run, ["systemctl", "stop", name], node, holders)
            done.append(f"stop {name}")
        for name in [module for module in MODULES if module in loaded]:
            _must(run, ["modprobe", "-r", name], node, holders)
            done.append(f"unload {name}")
        for name in _AGAIN:
            _must(run, ["modprobe", name], node, holders)
            done.append(f"load {name}")
    finally:
        started = [name for name in reversed(active) if run(["systemctl", "start", name])[0] == 0]
    return [*done, *(f"start {name}" for name in started)]


def _must(run: Run, command: Sequence[str], node: str, holders: Callable[[], list[str]]) -> None:
    code, out, err = run(command)
    if code == 0:
        return
    said = " ".join(f"{err} {out}".split())[-200:] or f"status {code}"
    users = holders()
    held = f"; held by {', '.join(users[:5])}" if users else ""
    raise ReloadError(
        "reload the driver",
        node,
        f"{' '.join(command)}: {said}{held}",
        "Stop what holds the GPUs, or use update_activate: reboot",
        found=users,
    )
