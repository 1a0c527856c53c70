# SPDX-License-Identifier: Apache-2.0
"""Whether packages, fabric manager, container toolkit and CDI fit the driver, and the driver its lock. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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

FABRIC, TOOLKIT, CDI, SKEW = "fabric-manager", "container-toolkit", "cdi", "package-skew"
VERSION, FLAVOUR, HOLDS = "lock-version", "lock-flavour", "holds"
_MANAGER, _TOOLKIT, _SPECS, _PACKAGES = "fabric manager", "container toolkit", "CDI", "driver packages"
_DRIVER = "driver"
#: Packages whose version need not be the driver's: helpers that distributions version on their own, packages of one
#: kernel or one version beside others of their kind, and the fabric manager, which has a rule of its own.
_OWN_VERSION = re.compile(
    r"nvidia-(?:persistenced|modprobe|settings|xconfig|driver-pinning-.*|firmware-.*|fabric-?manager.*)"
    r"|kmod-nvidia-\d.*|linux-.*|libxnvctrl.*|cuda-drivers-fabricmanager.*"
)
_SHOWN = 4


def fabric_manager(view: View) -> list[Answer]:
    """Where NVSwitches are: installed, of exactly the driver's version, running."""
    record = view.software.get("fabric_manager") or {}
    reason = view.out_of_scope() or _no_fabric(view, record)
    if reason:
        return [not_applicable(FABRIC, _MANAGER, reason)]
    locked = (view.stack or {}).get("fabric_manager")
    needed = record.get("needed") or locked is not None
    if not record or (record.get("needed") is None and locked is None):
        return [unknown(FABRIC, _MANAGER, view.why("software.fabric_manager.needed"))]
    installed, wanted = record.get("installed"), view.user_space
    if installed is None and view.packages is None:
        return [unknown(FABRIC, _MANAGER, view.why("software.packages"))]
    if installed is None:
        return [_fabric(wanted, "not installed", "The node has NVSwitches and no fabric manager", _fabric_cure(view))]
    if wanted is None:
        return [unknown(FABRIC, _MANAGER, f"the driver's version is not known ({view.why('driver.library_version')})")]
    if installed != wanted:
        cause = f"The fabric manager is {installed} and the driver is {wanted}; they must be exactly the same"
        return [_fabric(wanted, installed, cause, _fabric_cure(view))]
    return [_fabric_runs(view, record, installed, bool(needed))]


def _no_fabric(view: View, record: Mapping[str, Any]) -> str | None:
    if view.contained:
        return "the fabric manager belongs to the host of this container"
    if view.simulated and record.get("installed") is None and (view.stack or {}).get("fabric_manager") is None:
        return "simulated NVSwitches need no fabric manager"
    if record.get("needed") is False and (view.stack or {}).get("fabric_manager") is None:
        return "the node has no NVSwitch"
    return None


def _fabric(expected: Any, found: str, cause: str, cure: str) -> Answer:
    consequence = "every CUDA program fails with error 802 (system not yet initialized)"
    return differs(FABRIC, _MANAGER, FAIL, expected=expected, found=found, cause=f"{cause}: {consequence}.", cure=cure)


def _fabric_cure(view: View) -> str:
    locked = (view.stack or {}).get("fabric_manager")
    if locked and locked.get("version") == view.user_space:
        return f"{SITE}: the role nvidia_driver installs {locked.get('package')} {view.user_space}."
    if view.stack is not None and not locked:
        return "Plan again (playbooks/plan-stack.yml): the lock has no fabric manager for this node."
    return f"Install the fabric manager in exactly version {view.user_space}, hold it, and start nvidia-fabricmanager."


def _fabric_runs(view: View, record: Mapping[str, Any], version: str, needed: bool) -> Answer:
    if record.get("running") is None:
        return unknown(FABRIC, _MANAGER, view.why("software.fabric_manager.running"))
    if view.loaded and view.loaded != version:
        cause = f"The fabric manager {version} does not start with the loaded module {view.loaded}"
        return _fabric(version, f"{version}, module {view.loaded}", cause, REBOOT)
    if not record["running"] and needed:
        cure = "Run systemctl enable --now nvidia-fabricmanager; if it ends again, read its journal (journalctl -u)."
        return _fabric(f"{version} running", f"{version} not running", "The fabric manager does not run", cure)
    return fits(FABRIC, _MANAGER, version)


def container_toolkit(view: View) -> list[Answer]:
    """All packages of the container toolkit are of one version."""
    record = view.software.get("container_toolkit")
    if record is None or (view.packages is None and not record["packages"]):
        return [unknown(TOOLKIT, _TOOLKIT, view.why("software.packages"))]
    packages: Mapping[str, str] = record["packages"]
    if not packages:
        return [not_applicable(TOOLKIT, _TOOLKIT, "the container toolkit is not installed")]
    version = record["version"]
    others = {name: found for name, found in packages.items() if found != version}
    if not others:
        return [fits(TOOLKIT, _TOOLKIT, version)]
    cause = f"Of the container toolkit {version}, {_listed(others)} is of another version."
    command = _install_command(view, {name: version for name in others})
    return [differs(TOOLKIT, _TOOLKIT, WARN, expected=version, found=_listed(others), cause=cause, cure=command)]


def cdi(view: View) -> list[Answer]:
    """Every CDI specification that is in force hands out the driver that is installed, and the GPUs that are there."""
    specs = view.software.get("cdi")
    if specs is None:
        return [unknown(CDI, _SPECS, view.why("software"))]
    reason = None if view.wsl else view.out_of_scope()
    if reason or view.contained:
        return [not_applicable(CDI, _SPECS, reason or "devices are handed out by the host of this container")]
    if not specs:
        return [not_applicable(CDI, _SPECS, "there is no CDI specification for NVIDIA GPUs")]
    return [_spec(view, spec, position, _hidden(spec, specs)) for position, spec in enumerate(specs)]


def _hidden(spec: Mapping[str, Any], specs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the later folder's specification that has all devices of this one: then this one is never used."""
    for other in specs:
        later = other["path"].startswith("/run/") and spec["path"].startswith("/etc/")
        if later and spec["devices"] and set(spec["devices"]) <= set(other["devices"] or []):
            return str(other["path"])
    return None


def _spec(view: View, spec: Mapping[str, Any], position: int, hidden: str | None) -> Answer:
    path, version = spec["path"], spec["driver_version"]
    if hidden:
        return not_applicable(CDI, path, f"{hidden} has all of its devices and comes first")
    if spec["devices"] is None:
        return unknown(CDI, path, view.why(f"software.cdi.{position}.driver_version"))
    cure = f"Run nvidia-ctk cdi generate --output={path}."
    if path.startswith("/run/"):
        cure = f"Run systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate --output={path}."
    if not view.wsl:
        if version is None or view.user_space is None:
            known = "driver.library_version" if version else f"software.cdi.{position}.driver_version"
            return unknown(CDI, path, view.why(known), cure)
        if version != view.user_space:
            cause = f"The CDI specification was made for the driver {version}, whose files containers no longer find."
            return differs(CDI, path, FAIL, expected=view.user_space, found=version, cause=cause, cure=cure)
    wrong = _wrong_devices(view, spec["devices"])
    if wrong:
        expected, found, cause = wrong
        return differs(CDI, path, WARN, expected=expected, found=found, cause=cause, cure=cure)
    return fits(CDI, path, version)


def _wrong_devices(view: View, names: Sequence[str]) -> tuple[str, str, str] | None:
    """Compare the names of a specification with GPUs and MIG instances, as far as it names them in a known way."""
    devices = [device for device in view.devices if device.get("index") is not None]
    if view.wsl or not devices or view.situation != "ready":
        return None  # under WSL2 all GPUs are one device; and a GPU that is lost now is no change of the node
    there = _names_of(devices)
    gone = sorted(name for name in names if _is_numbered(name) and name not in there)
    numbers = [str(device["index"]) for device in devices if (device.get("mig") or {}).get("mode") != "enabled"]
    uuids = {str(device["index"]): str(device.get("uuid")) for device in devices}
    numbered = [name for name in names if _is_numbered(name)]
    lacking = [number for number in numbers if numbered and number not in names and uuids[number] not in names]
    if gone:
        return (
            "devices that are there",
            ", ".join(gone[:_SHOWN]),
            f"The CDI specification names {', '.join(gone[:_SHOWN])}, which the node does not have (any more).",
        )
    if lacking:
        text = ", ".join(lacking[:_SHOWN])
        return "every GPU", f"without GPU {text}", f"The CDI specification does not have the GPU {text}."
    return None


def _is_numbered(name: str) -> bool:
    return bool(re.fullmatch(r"\d+(?::\d+)?|(?:GPU|MIG)-[0-9a-f-]{36}", name))


def _names_of(devices: Sequence[Mapping[str, Any]]) -> set[str]:
    names: set[str] = set()
    for device in devices:
        index = device["index"]
        names |= {str(index), str(device.get("uuid"))}
        for position, instance in enumerate((device.get("mig") or {}).get("instances") or []):
            names |= {f"{index}:{position}", str(instance.get("uuid"))}
    return names


def package_skew(view: View) -> list[Answer]:
    """All packages of the driver are of one version, whole, and the ones whose library programs use."""
    if view.wsl:
        return [not_applicable(SKEW, _PACKAGES, str(view.out_of_scope()))]
    if view.packages is None:
        return [unknown(SKEW, _PACKAGES, view.why("software.packages"))]
    chosen = {name: version for name, version in view.packages.items() if not _OWN_VERSION.fullmatch(_plain(name))}
    if not chosen:
        return [not_applicable(SKEW, _PACKAGES, "no package of the driver is installed")]
    broken = {name: version for name, version in chosen.items() if version.endswith(")")}
    if broken:
        cause = f"The package manager was interrupted: {_listed(broken)}."
        cure = f"Run dpkg --configure -a, then {SITE[:1].lower()}{SITE[1:]}."
        return [differs(SKEW, _PACKAGES, FAIL, expected="installed", found=_listed(broken), cause=cause, cure=cure)]
    versions = Counter(upstream(version) for version in chosen.values())
    wanted = view.library if view.library in versions else versions.most_common(1)[0][0]
    others = {name: version for name, version in chosen.items() if upstream(version) != wanted}
    if others:
        return [_skewed(view, str(wanted), others)]
    return [_other_library(view, str(wanted))]


def _plain(name: str) -> str:
    return name.partition(":")[0]


def _skewed(view: View, wanted: str, others: Mapping[str, str]) -> Answer:
    held = sorted(set(view.software.get("held") or []) & set(others))
    cure = f"{SITE}, which installs the whole driver in one version."
    if held:
        cure = f"Release the hold of {', '.join(held[:_SHOWN])}, then {cure[:1].lower()}{cure[1:]}"
    cause = f"The driver is {wanted}, and of another version are {_listed(others)}."
    return differs(SKEW, _PACKAGES, FAIL, expected=wanted, found=_listed(others), cause=cause, cure=cure)


def _other_library(view: View, packaged: str) -> Answer:
    if view.contained or view.library in (None, packaged):
        return fits(SKEW, _PACKAGES, packaged)
    cause = f"The packages are {packaged}, and the library that programs find is {view.library}: there is a second one."
    cure = "Find it with ldconfig -p | grep libnvidia-ml, and remove what no package owns (a .run file leaves such)."
    return differs(SKEW, _PACKAGES, FAIL, expected=packaged, found=view.library, cause=cause, cure=cure)


def lock_version(view: View) -> list[Answer]:
    """The driver is the one that the lock says."""
    reason = _no_lock(view)
    if reason:
        return [not_applicable(VERSION, _DRIVER, reason)]
    wanted, found = str(view.locked_driver.get("version")), view.user_space
    if found is None and view.packages is None:
        return [unknown(VERSION, _DRIVER, view.why("driver.library_version"))]
    # a branch (535) is a wish that every version of it fulfils
    target = upstream(wanted) or wanted
    if found is not None and (found == target or found.startswith(f"{target}.")):
        return [fits(VERSION, _DRIVER, found)]
    if found is None:
        cause, cure = f"The lock says {wanted} and no driver is installed.", f"{SITE}."
    else:
        cause = f"The lock says {wanted} and the node has {found}."
        cure = f"{SITE} to bring it to the lock, or plan again to lock what it has."
    return [differs(VERSION, _DRIVER, FAIL, expected=wanted, found=found or "none", cause=cause, cure=cure)]


def lock_flavour(view: View) -> list[Answer]:
    """The loaded module is of the flavour that the lock says."""
    reason = _no_lock(view)
    wanted = view.locked_driver.get("flavour")
    if reason or not wanted:
        return [not_applicable(FLAVOUR, _DRIVER, reason or "the lock names no flavour of the kernel module")]
    found = view.flavour
    if found == "unknown":
        return [unknown(FLAVOUR, _DRIVER, "the kernel module does not say its flavour")]
    if found == wanted:
        return [fits(FLAVOUR, _DRIVER, found)]
    on_disk = ((view.modules or {}).get(view.boots or view.running or "") or {}).get("flavour")
    cause = f"The lock says the {wanted} kernel module and the {found} one is loaded."
    cure = REBOOT if on_disk == wanted else f"{SITE}, then reboot."
    return [differs(FLAVOUR, _DRIVER, FAIL, expected=wanted, found=found, cause=cause, cure=cure)]


def _no_lock(view: View) -> str | None:
    reason = view.out_of_scope()
    if reason:
        return reason
    if view.stack is None:
        return "the node is not held against a lock"
    return None if view.locked_driver.get("version") else "the lock has no driver for this node"


def holds(view: View) -> list[Answer]:
    """The packages that the lock holds are held, so that no update moves them."""
    reason = _no_lock(view)
    if reason:
        return [not_applicable(HOLDS, _PACKAGES, reason)]
    held = view.software.get("held")
    if held is None or view.packages is None:
        return [unknown(HOLDS, _PACKAGES, view.why("software.held"))]
    manager = ((view.stack or {}).get("fabric_manager") or {}).get("package")
    wanted = [*(view.locked_driver.get("holds") or []), *([manager] if manager else [])]
    present = [name for name in wanted if name in view.packages]
    if not present:
        return [not_applicable(HOLDS, _PACKAGES, "none of the packages that the lock holds is installed")]
    free = sorted(set(present) - set(held))
    if not free:
        return [fits(HOLDS, _PACKAGES, f"{len(present)} held")]
    text = ", ".join(free[:_SHOWN]) + (f" and {len(free) - _SHOWN} more" if len(free) > _SHOWN else "")
    command = f"apt-mark hold {' '.join(free)}" if view.is_debian else f"dnf versionlock add {' '.join(free)}"
    cause = f"Any update may move {text} to another version than what is loaded."
    cure = f"{SITE}, or run {command}."
    return [differs(HOLDS, _PACKAGES, WARN, expected="held", found=f"not held: {text}", cause=cause, cure=cure)]


def _listed(packages: Mapping[str, str]) -> str:
    names = [f"{name} {version}" for name, version in sorted(packages.items())]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _install_command(view: View, wanted: Mapping[str, str]) -> str:
    if view.is_debian:
        packages = " ".join(f"{name}={version}" for name, version in sorted(wanted.items()))
        return f"Run apt-get install {packages}."
    return f"Run dnf install {' '.join(f'{name}-{version}' for name, version in sorted(wanted.items()))}."
