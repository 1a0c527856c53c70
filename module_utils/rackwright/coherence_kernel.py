# SPDX-License-Identifier: Apache-2.0
"""Whether the loaded kernel module, the library, and the modules on the disk are of one version. Pure.

The version everything is compared with is that of the library that programs use: a module of another version answers
none of them. It holds for the running kernel, for the one that boots next, and for what DKMS built for every other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .coherence_view import (
    FAIL,
    REBOOT,
    SITE,
    WARN,
    Answer,
    View,
    differs,
    fits,
    not_applicable,
    unknown,
    upstream,
)

LIBRARY, DISK, DKMS, BOOT = "module-library", "module-disk", "dkms-kernel", "boot-kernel"
_LOADED, _RUNNING, _NEXT, _BUILDS = "loaded module", "module of the running kernel", "kernel that boots next", "DKMS"


def module_library(view: View) -> list[Answer]:
    """The loaded module and the library (NVML) are of one version."""
    reason = view.out_of_scope()
    if reason:
        return [not_applicable(LIBRARY, _LOADED, reason)]
    loaded, library = view.loaded, view.library
    if loaded is None or library is None:
        path = "driver.library_version" if library is None else "driver.kernel_module_version"
        what = "library" if library is None else "loaded module"
        reason = f"the version of the {what} is not known ({view.why(path)})"
        return [unknown(LIBRARY, _LOADED, reason, _to_know(view))]
    if loaded == library:
        return [fits(LIBRARY, _LOADED, loaded)]
    cause, cure = _why_other_library(view, loaded, library)
    return [differs(LIBRARY, _LOADED, FAIL, expected=library, found=loaded, cause=cause, cure=cure)]


def _to_know(view: View) -> str | None:
    if view.situation == "no_driver":
        return f"{SITE}: the role nvidia_driver installs a driver."
    return None if view.situation == "ready" else view.gpu.get("next_step")


def _why_other_library(view: View, loaded: str, library: str) -> tuple[str, str]:
    if view.contained:
        return (
            f"The host of this container runs the module {loaded}, and the container has the library {library}.",
            "Start the container again, so that it gets the libraries of the driver its host runs.",
        )
    locked = upstream(view.locked_driver.get("version"))
    if loaded == locked:
        return (
            f"The library was moved to {library} and the module {loaded}, which the lock says, is still loaded.",
            f"{SITE} to bring the libraries back to the lock before anything is rebooted.",
        )
    boots = view.boots or view.running or ""
    on_disk = _version(view, boots)
    if on_disk == library:
        cure = REBOOT if boots == view.running else f"Reboot the node, into the kernel {boots}."
        return f"The driver was updated to {library} and the module {loaded} is still loaded.", cure
    if on_disk is None or view.modules is None:
        return f"The library is {library} and the module {loaded} is loaded.", REBOOT
    return (
        f"The library was updated to {library}, the kernel {boots} still has the module {on_disk}: a reboot alone"
        " does not help.",
        _build_cure(view, boots),
    )


def module_disk(view: View) -> list[Answer]:
    """The module on the disk of the running kernel is what the library needs when it is loaded again."""
    reason = _no_disk(view)
    if reason:
        return [not_applicable(DISK, _RUNNING, reason)]
    kernel = view.running or ""
    if view.modules is None or view.user_space is None:
        return [unknown(DISK, _RUNNING, _unread(view))]
    if kernel not in view.modules:
        reason = f"there is no /lib/modules/{kernel or '<running kernel>'}"
        return [not_applicable(DISK, _RUNNING, reason) if view.simulated else unknown(DISK, _RUNNING, reason)]
    return [_judged(view, DISK, _RUNNING, kernel)]


def boot_kernel(view: View) -> list[Answer]:
    """The kernel that boots next has a module of the library's version; where none is known, every kernel has."""
    reason = _no_disk(view)
    if reason:
        return [not_applicable(BOOT, _NEXT, reason)]
    modules, boots = view.modules, view.boots
    if modules is None or view.user_space is None:
        return [unknown(BOOT, _NEXT, _unread(view))]
    if not modules:
        reason = "no kernel is installed here"
        return [not_applicable(BOOT, _NEXT, reason) if view.simulated else unknown(BOOT, _NEXT, reason)]
    if boots is None:
        return [_any_kernel(view, modules)]
    if boots == view.running:
        return [not_applicable(BOOT, _NEXT, f"the running kernel {boots} boots again: see {DISK}")]
    return [_judged(view, BOOT, _NEXT, boots)]


def dkms_kernels(view: View) -> list[Answer]:
    """DKMS installed the module of the library's version for every kernel whose module it builds."""
    reason = _no_disk(view)
    if reason:
        return [not_applicable(DKMS, _BUILDS, reason)]
    if view.modules is None or view.user_space is None:
        return [unknown(DKMS, _BUILDS, _unread(view))]
    ours = {kernel: row for kernel, row in view.modules.items() if row["dkms"] != "none"}
    if not ours:
        return [not_applicable(DKMS, _BUILDS, "DKMS builds no NVIDIA module on this node")]
    return [_dkms(view, kernel, row) for kernel, row in ours.items()]


def _no_disk(view: View) -> str | None:
    """Why no module on a disk is to be judged."""
    if view.contained:
        return "the kernel and its modules belong to the host of this container"
    reason = view.out_of_scope()
    if reason is None and view.modules is not None and view.user_space is None and not view.packages:
        built = [row for row in view.modules.values() if row["path"] or row["dkms"] != "none"]
        reason = None if built else "no NVIDIA driver is installed"
    return reason


def _unread(view: View) -> str:
    if view.modules is None:
        return view.why("software.modules")
    return f"the version the modules should have is not known ({view.why('driver.library_version')})"


def _version(view: View, kernel: str) -> str | None:
    return ((view.modules or {}).get(kernel) or {}).get("version")


def _judged(view: View, check: str, subject: str, kernel: str) -> Answer:
    """Hold the module of one kernel against the library."""
    wanted, row = view.user_space, (view.modules or {}).get(kernel) or {}
    found = row.get("version")
    if found == wanted:
        return fits(check, subject, found)
    if row.get("path") and found is None:
        return unknown(check, subject, view.why(f"software.modules.{kernel}.version"))
    if found is None:
        cause = f"The kernel {kernel}{_next(check)} has no NVIDIA module."
        cure = _build_cure(view, kernel)
    elif check == DISK and view.loaded == wanted:
        cause = f"The module for the kernel {kernel} was changed to {found}, the libraries are still {wanted}."
        cure = f"{SITE}, so that the whole driver is of one version before the next reboot."
    else:
        cause = f"The module for the kernel {kernel}{_next(check)} is {found}, the libraries are {wanted}."
        cure = _build_cure(view, kernel)
    severity = FAIL if _matters(view, kernel) else WARN
    return differs(check, subject, severity, expected=wanted, found=found or "none", cause=cause, cure=cure)


def _matters(view: View, kernel: str) -> bool:
    """Whether GPU programs need this kernel's module: it is loaded at the next boot, or has to be loaded now."""
    boots = view.boots or view.running
    return kernel == boots or (kernel == view.running and view.loaded != view.user_space)


def _next(check: str) -> str:
    return ", which boots next," if check == BOOT else ""


def _any_kernel(view: View, modules: Mapping[str, Mapping[str, Any]]) -> Answer:
    wrong = [kernel for kernel, row in modules.items() if row["version"] != view.user_space]
    if not wrong:
        return fits(BOOT, _NEXT, view.user_space)
    reason = (
        f"which kernel boots next is not known ({view.why('software.boots')}), and not every installed one has the"
        f" module {view.user_space}: {', '.join(wrong)}"
    )
    return unknown(BOOT, _NEXT, reason, _build_cure(view, wrong[0]))


def _dkms(view: View, kernel: str, row: Mapping[str, Any]) -> Answer:
    wanted, state = view.user_space, row["dkms"]
    if state is None:
        return unknown(DKMS, kernel, view.why(f"software.modules.{kernel}.dkms"))
    if row["origin"] == "package" and row["version"] == wanted:
        return not_applicable(DKMS, kernel, "a package brings the module of this kernel")
    version = row["version"] if state == "installed" and row["version"] else row["dkms_version"]
    if state == "installed" and version == wanted and row["path"]:
        return fits(DKMS, kernel, f"{wanted} installed")
    if state == "installed" and not row["path"]:
        cause = f"DKMS calls the module {version} installed for the kernel {kernel}, and its file is not there."
    elif state == "installed":
        cause = f"DKMS has installed the module {version} for the kernel {kernel}, the libraries are {wanted}."
    else:
        done = "built and not installed" if state == "built" else "only added and not built"
        cause = f"The module {version} is {done} for the kernel {kernel}."
    return differs(
        DKMS,
        kernel,
        FAIL if _matters(view, kernel) else WARN,
        expected=f"{wanted} installed",
        found=f"{version} {state}",
        cause=cause,
        cure=_build_cure(view, kernel),
    )


def _build_cure(view: View, kernel: str) -> str:
    """What makes the module of a kernel: by what brings it there."""
    row = (view.modules or {}).get(kernel) or {}
    dkms, wanted = row.get("dkms"), view.user_space
    if dkms in (None, "none"):
        return f"{SITE}: the role nvidia_driver brings the module {wanted} to the kernel {kernel}."
    if row.get("dkms_version") != wanted:
        return f"{SITE}: the role nvidia_driver installs the module package of {wanted}, and DKMS builds it."
    if not row.get("headers"):
        package = f"linux-headers-{kernel}" if view.is_debian else f"kernel-devel-{kernel}"
        return f"Install {package}, then run dkms autoinstall -k {kernel}."
    return (
        f"Run dkms autoinstall -k {kernel}; if it fails, the first error is in"
        f" /var/lib/dkms/nvidia*/{wanted}/build/make.log."
    )
