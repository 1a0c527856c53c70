# SPDX-License-Identifier: Apache-2.0
"""No reboot into a kernel without its NVIDIA module: what each kernel needs before, and what it lacks after. Pure, but
for reading files below a root."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .apt_sources import ONE_LINE
from .boot_kernel import natural_key
from .dkms import build_log, first_error, latest_log
from .driver_names import is_prebuilt, upstream
from .errors import InvalidInputError, MissingError, RackwrightError
from .kernel_module import dkms_of, find_module, read_dkms, read_kernel

BACKPORTS_SOURCE = "/etc/apt/sources.list.d/rackwright-backports.sources"
BACKPORTS_PIN = "/etc/apt/preferences.d/01-rackwright-dkms.pref"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MATCHED = ("kernel-devel-matched", "kernel-64k-devel-matched")
PAGES_64K = "+64k"
_META_SUFFIXES = ("-generic", "-generic-64k", "-lowlatency", "-aws", "-azure", "-gcp", "-oracle", "-nvidia")


@dataclass
class Needs:
    """What has to be there before the driver's packages, so that its module is built for every kernel.

    Attributes:
        headers: packages of kernel headers by kernel, of the kernels that have none yet.
        modules: module packages that the distribution built for exactly these kernels.
    """

    headers: dict[str, list[str]] = field(default_factory=dict)
    modules: dict[str, list[str]] = field(default_factory=dict)


def names_of(packages: Iterable[str]) -> list[str]:
    """Return the names of ``name=version`` requests."""
    return [package.partition("=")[0] for package in packages]


def builds_here(packages: Iterable[str]) -> bool:
    """Whether DKMS builds the module of these packages on the node.

    It does wherever no prebuilt module is among them: metapackages (``nvidia-open``) bring DKMS without its name.
    """
    names = names_of(packages)
    return bool(names) and not any(is_prebuilt(name) for name in names)


def header_packages(patterns: Iterable[str], kernel: str) -> list[str]:
    """Return the packages of the lock's ``os.headers`` for one kernel.

    On the Red Hat family ``kernel-devel-matched`` follows the newest kernel and would bring it; a kernel that is there
    gets the ``kernel-devel`` of its own release. That of a kernel with pages of 64 KiB has another name, and its
    release no ``+64k`` at the end.
    """
    release = kernel[: -len(PAGES_64K)] if kernel.endswith(PAGES_64K) else kernel
    devel = "kernel-64k-devel" if release != kernel else "kernel-devel"
    own = (f"{devel}-{release}" if name in MATCHED else name.replace("{kernel}", kernel) for name in patterns)
    return list(dict.fromkeys(own))


def prebuilt_packages(packages: Iterable[str], kernel: str) -> list[str]:
    """Return the prebuilt module packages for one kernel: a metapackage follows only the newest one."""
    found = []
    for name in names_of(packages):
        suffix = next((end for end in sorted(_META_SUFFIXES, key=len, reverse=True) if name.endswith(end)), None)
        if is_prebuilt(name) and suffix and kernel.endswith(suffix):
            found.append(f"{name[: -len(suffix)]}-{kernel}")
    return found


def needs(kernels: Iterable[str], with_headers: Iterable[str], packages: list[str], patterns: list[str]) -> Needs:
    """Return what the kernels lack.

    Args:
        kernels: kernels that get a module.
        with_headers: those whose headers are there.
        packages: what the plan installs.
        patterns: the lock's ``os.headers``.
    """
    have = set(with_headers)
    found = Needs()
    for kernel in kernels:
        prebuilt = prebuilt_packages(packages, kernel)
        if prebuilt:
            found.modules[kernel] = prebuilt
        elif kernel not in have and builds_here(packages):
            found.headers[kernel] = header_packages(patterns, kernel)
    return found


def refuse_unavailable(needed: Mapping[str, list[str]], unavailable: Iterable[str], what: str, node: str) -> None:
    """Raise MissingError where no source offers what a kernel needs. ``what`` is ``headers`` or ``module``."""
    missing = set(unavailable)
    for kernel, packages in needed.items():
        lacking = [name for name in packages if name in missing]
        if lacking:
            raise MissingError(
                f"prepare the kernel module of kernel {kernel}",
                node,
                f"no source of the node offers {', '.join(lacking)}, so that kernel would have no NVIDIA {what}"
                if what == "module"
                else f"its headers are not installed and no source of the node offers {', '.join(lacking)}",
                f"Remove the kernel {kernel}, or add the source it came from; nothing of the driver was installed",
                expected=packages,
                found=lacking,
            )


def enough(version: str | None, minimum: str) -> bool:
    """Whether a version of DKMS (also a package's) is at least the minimum."""
    return version is not None and natural_key(upstream(version)) >= natural_key(minimum)


def backports_files(entries: Iterable[str], codename: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return files (for ``config_files``) that offer DKMS from Debian's backports, and the same source as one-line
    entries. Every other package of the backports stays where its own pin puts it.

    Args:
        entries: one-line entries of the distribution's own sources; the backports are taken from the same mirrors.
        codename: ``bookworm``.
    """
    suite = f"{codename}-backports"
    matches = [match for match in map(ONE_LINE.match, entries) if match and match["suite"] == codename]
    mirrors = list(dict.fromkeys(match["uri"] for match in matches))
    if not mirrors:
        return [], []
    source = (
        "# Managed by Rackwright (role nvidia_driver); changes are overwritten.\n"
        f"Types: deb\nURIs: {' '.join(mirrors)}\nSuites: {suite}\nComponents: main\nSigned-By: {_KEYRING}\n"
    )
    pin = (
        "# Managed by Rackwright (role nvidia_driver); changes are overwritten.\n"
        "# The release's own DKMS is too old for this driver. Nothing else is taken from the backports.\n"
        f"Package: dkms\nPin: release n={suite}\nPin-Priority: 990\n"
    )
    files = [{"path": BACKPORTS_SOURCE, "content": source}, {"path": BACKPORTS_PIN, "content": pin}]
    return files, [f"deb [signed-by={_KEYRING}] {uri} {suite} main" for uri in mirrors]


def refuse_old_dkms(found: str | None, minimum: str, why: str, node: str) -> None:
    """Raise InvalidInputError: the node has or is offered only an older DKMS. ``why`` none newer was taken."""
    raise InvalidInputError(
        "prepare the build of the kernel module",
        node,
        f"this driver needs DKMS {minimum} or newer, the node has {found or 'none'}, and {why}",
        "Set nvidia_driver_backports to auto, or install a newer dkms from a source of your own;"
        " nothing of the driver was installed",
        expected=f">= {minimum}",
        found=found,
    )


def explain_build(root: Path, version: str, kernel: str, node: str) -> RackwrightError:
    """Return why the module of a version is not built for a kernel: the first error of its build log."""
    found = build_log(root, version, kernel)
    error = first_error(found[1]) if found else None
    if found and error:
        return _build_error(version, kernel, node, found[0], error.line, error.next_step)
    log = found[0] if found else f"/var/lib/dkms/nvidia*/{version}/build/make.log"
    return RackwrightError(
        f"build the NVIDIA module {version} for kernel {kernel}",
        node,
        "DKMS failed and its log names no error" if found else "DKMS left no build log for this kernel",
        f"Run `dkms build` for it on the node and read {log}; the node was not rebooted",
        found=log,
    )


def explain_failed_install(root: Path, node: str, since: float) -> RackwrightError | None:
    """Return why packages could not be configured, where a build that failed since then is the reason."""
    found = latest_log(root, since)
    error = first_error(found[3]) if found else None
    if found is None or error is None:
        return None
    version, kernel, path, _text = found
    return _build_error(version, kernel, node, path, error.line, error.next_step)


def _build_error(version: str, kernel: str, node: str, path: str, line: str, next_step: str) -> RackwrightError:
    return RackwrightError(
        f"build the NVIDIA module {version} for kernel {kernel}",
        node,
        f"the first error of {path} is: {line}",
        f"{next_step}; the node was not rebooted",
        found=line,
    )


def blocked_reboot(root: Path, kernel: Mapping[str, Any], container: str | None) -> str | None:
    """Return why the node must not be rebooted now: its driver would not come back; None otherwise.

    A node whose running kernel has no NVIDIA module loses nothing.
    """
    boots, running = kernel["boots"], kernel["running"]
    if container or boots is None or boots == running:
        return None
    modules = root / "lib/modules"
    if find_module(modules / running) is None or find_module(modules / boots) is not None:
        return None
    row = dkms_of(read_dkms(root) or [], boots)
    log = build_log(root, row["version"], boots) if row else None
    error = first_error(log[1]) if log else None
    if error:
        why = f"it did not build: {error.line}"
    elif boots not in kernel["headers"]:
        why = "its headers are not installed"
    else:
        why = "DKMS has not built it" if row else "no package brings it"
    return f"Kernel {boots} would boot ({kernel['boots_reason']}) and has no NVIDIA module: {why}."


def modules_on_disk(root: Path, kernels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return for each kernel the NVIDIA module that modprobe would load (see ``kernel_module.read_kernel``)."""
    rows = read_dkms(root) or []
    return {kernel: read_kernel(root / "lib/modules" / kernel, dkms_of(rows, kernel))[0] for kernel in kernels}


def wrong_module(version: str, kernels: Iterable[str], modules: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return which kernel would load a module of another version or none, in one sentence; None where all are right."""
    for kernel in kernels:
        module = modules[kernel]
        if module["path"] is None:
            return f"Kernel {kernel} has no NVIDIA module below /lib/modules/{kernel}."
        if module["version"] not in (None, version):
            return (
                f"Kernel {kernel} would load the NVIDIA module {module['version']} from"
                f" /lib/modules/{kernel}/{module['path']}, and {version} is installed."
            )
    return None
