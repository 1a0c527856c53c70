# SPDX-License-Identifier: Apache-2.0
"""What every package manager's side of the driver plan shares: the request, versions, refusals. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .driver_names import ARCHIVE_SOURCES, is_module, upstream
from .errors import InvalidInputError, RackwrightError
from .gpu_daemons import is_named
from .host import natural_key
from .packages import Candidate, Installed

#: programs that belong to the driver and hold a GPU by design


@dataclass(frozen=True)
class Request:
    """What the lock and the role's inputs ask for.

    Attributes:
        source: ``nvidia`` (its repositories, a mirror or a bundle of them) or ``distribution``.
        version: NVIDIA's version, or the package's own; empty where the lock has no driver for the node.
        versioned: packages that carry the driver's version.
        loose: packages with versions of their own.
        precedes: packages to install before the driver.
        streams: module streams of dnf.
        repository: the lock's ``driver.repository``, with what the role's inputs replace in it.
        kernel_module: ``auto``, ``build`` or ``none``.
    """

    source: str
    version: str
    versioned: list[str]
    loose: list[str]
    precedes: list[str]
    streams: list[str]
    repository: dict[str, Any]
    kernel_module: str

    @property
    def anchor(self) -> str:
        """The package whose versions are the driver's versions: the first that is wanted on every node."""
        return next((name for name in self.versioned if not is_module(name)), self.versioned[0])

    @property
    def sources(self) -> list[str]:
        """Patterns of the source packages that have the driver's version; none where names tell them."""
        return list(ARCHIVE_SOURCES) if self.source == "distribution" else []

    def names(self, with_module: bool) -> list[str]:
        """Return the wanted packages, those of the kernel module only where one is built."""
        return [name for name in [*self.versioned, *self.loose] if with_module or not is_module(name)]

    def module_packages(self) -> list[str]:
        """Return the packages of the kernel module."""
        return [name for name in [*self.versioned, *self.loose] if is_module(name)]


def request_from_lock(
    driver: dict[str, Any] | None, repository: dict[str, Any], extra: list[str], kernel_module: str
) -> Request:
    """Return the request of a node. ``driver`` is the stack's entry of that name, None where the lock has no driver."""
    if driver is None:
        return Request("distribution", "", [], [], [], [], {}, kernel_module)
    packages = driver["packages"]
    return Request(
        source=driver["source"],
        version=driver["version"],
        versioned=[row["name"] for row in packages if row["version"] is not None] + list(extra),
        loose=[row["name"] for row in packages if row["version"] is None],
        precedes=list(driver.get("precedes") or []),
        streams=list(driver.get("modules") or []),
        repository=repository or driver.get("repository") or {},
        kernel_module=kernel_module,
    )


@dataclass
class Found:
    """What a package manager's side found out.

    Attributes:
        version: chosen version of the anchor package, as its package manager writes it.
        installed: version of the driver that is installed, whatever its packages are called; None when there is none.
        available: versions that are offered, newest first.
        packages: ``name=version``, or the name alone for packages with versions of their own.
        remove: installed packages that go in the same transaction.
        precedes: ``name=version`` of what is installed before the driver; ``precedes_remove`` goes with it.
        enable: repositories beside the driver's own that have to be enabled and that the node knows (``epel``).
        holds: names to hold.
        pending: what would change, one line for each package.
        files: configuration files (for ``config_files``) that keep the package manager from moving the driver.
        source_paths, source_files: the distribution's own source files, and those to write.
        repository: what ``vendor_repository`` is called with, empty where no repository is added.
        notes: what people should know, in sentences.
    """

    version: str
    installed: str | None = None
    available: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    precedes: list[str] = field(default_factory=list)
    precedes_remove: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    source_paths: list[str] = field(default_factory=list)
    source_files: list[dict[str, Any]] = field(default_factory=list)
    repository: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def available(candidates: list[Candidate], anchor: str) -> list[str]:
    """Return the package versions of the anchor package, newest first."""
    versions = dict.fromkeys(candidate.version for candidate in candidates if candidate.name == anchor)
    return sorted(versions, key=lambda version: natural_key(upstream(version)), reverse=True)


def choose_version(
    versions: list[str], installed: str | None, wanted: str, node: str, *, where: str = "the node's archive"
) -> str:
    """Return the full package version of NVIDIA's version ``wanted`` (or of the package's own, taken as it is).

    What is installed in that version stays, also when the archive has moved on.

    Args:
        versions: what is offered, newest first.
        installed: version of the anchor package that may stay, None where there is none or it has to move.
        where: what offers the versions, for the message.
    """
    fitting = [version for version in versions if wanted in (version, upstream(version))]
    if installed is not None and wanted in (installed, upstream(installed)):
        return installed
    if not fitting:
        shown = ", ".join(dict.fromkeys(upstream(version) for version in versions)) or "none"
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"the lock says {wanted} and {where} has {shown}",
            "Set stack_driver_branch or stack_driver_version to what it has, and plan again",
            expected=wanted,
            found=versions,
        )
    return fitting[0]


def kernels_to_build(host: dict[str, Any], mode: str) -> tuple[list[str], str | None]:
    """Return the kernels a module is expected for, and why there are none.

    On a machine that is every installed kernel, with headers or without: the role brings those that lack, or refuses.
    """
    kernel = host["kernel"]
    if mode == "none":
        return [], "nvidia_driver_kernel_module is none: the kernel module is somebody else's."
    if mode == "build":
        wanted = sorted({*kernel["headers"], *kernel["images"]}, key=natural_key)
        return wanted, None if wanted else "No kernel headers are installed, so no kernel module can be built."
    if host["container"]:
        return [], kernel["note"]
    installed: list[str] = kernel["installed"]
    return installed, None if installed else "No kernel is installed, so there is nothing to build a module for."


def pending_changes(packages: list[str], statuses: dict[str, Installed], remove: list[str] | None = None) -> list[str]:
    """Return what would change, one line for each package."""
    lines = []
    for request in packages:
        name, _separator, version = request.partition("=")
        have = statuses.get(name)
        if have is None:
            lines.append(f"install {name} {version}".strip())
        elif not have.complete:
            lines.append(f"repair {name} {have.version}")
        elif version and have.version != version:
            lines.append(f"change {name} {have.version} -> {version}")
    lines += [f"remove {name} {statuses[name].version}" for name in remove or [] if name in statuses]
    return lines


def busy_processes(gpu: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the processes that compute on a GPU: ``pid``, ``name`` and ``gpu`` (its index) of each."""
    return [
        {"pid": row["pid"], "name": row["name"], "gpu": device.get("index")}
        for device in gpu.get("devices") or []
        for row in device.get("processes") or []
        if set(row["types"]) & {"compute", "mps"} and not is_named(row["name"])
    ]


def replaced_driver(installed: str | None, chosen: str) -> str | None:
    """Return the installed driver version that another one would replace, None where nothing is replaced."""
    if installed is None or upstream(installed) == upstream(chosen):
        return None
    return upstream(installed)


def refuse_busy(gpu: dict[str, Any], replaces: str | None, chosen: str, allowed: bool, node: str) -> None:
    """Refuse to replace a loaded driver while processes compute on a GPU: they would lose it."""
    loaded = (gpu.get("driver") or {}).get("kernel_module_version")
    holders = busy_processes(gpu)
    if replaces is None or not loaded or not holders or allowed:
        return
    shown = ", ".join(f"{row['name'] or 'process'} ({row['pid']}) on GPU {row['gpu']}" for row in holders[:4])
    more = f" and {len(holders) - 4} more" if len(holders) > 4 else ""
    raise RackwrightError(
        "replace the NVIDIA driver",
        node,
        f"driver {replaces} is in use by {shown}{more}, and {upstream(chosen)} would replace it",
        "Run playbooks/update-driver.yml, which drains the node first, or set nvidia_driver_replace_busy to true",
        expected="no process on a GPU",
        found=[row["pid"] for row in holders],
    )


def skip_reason(gpu: dict[str, Any], host: dict[str, Any], locked: bool, require_gpu: bool, node: str) -> str | None:
    """Return why no driver belongs on this node, or None.

    Args:
        locked: whether the lock has a driver for the node. A GPU that it does not know of is refused: to leave such a
            node alone would look like success.
    """
    if host["wsl"] or gpu.get("situation") == "wsl2":
        return (
            "This is WSL2: the driver belongs to Windows, and a Linux driver would break the pass-through of the GPU."
        )
    count = gpu.get("pci_count") or gpu.get("count")
    if not count and (require_gpu or not locked):
        return "There is no NVIDIA GPU on the PCI bus of this node."
    if not locked:
        raise InvalidInputError(
            "choose the driver version",
            node,
            f"the lock has no driver for it and it has {count} NVIDIA GPU(s)",
            "Run playbooks/plan-stack.yml again",
            expected="no GPU",
            found=count,
        )
    return None
