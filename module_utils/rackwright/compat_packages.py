# SPDX-License-Identifier: Apache-2.0
"""Names, versions and origins of the packages that a solved driver consists of. Pure.

A stack is checked by making these parts again from its versions, so everything here depends on nothing else.
"""

from __future__ import annotations

import re
from typing import Any

from .compat_platform import PINNING_FROM, Platform, repository
from .compat_rules import at_least, find

#: from this branch on the fabric manager's package has no branch in its name
FABRIC_MANAGER_RENAMED = "580"
#: from this branch on the persistence daemon was seen as a package of its own on Ubuntu
PERSISTENCED_FROM = 570
_HGX = re.compile(r"-sxm\d?(-|$)")
_FOURTH_GENERATION = ("b200", "b300")
_RACK = ("gb200", "gb300")
_PREBUILT = "linux-modules-nvidia-"
IMEX = "nvidia-imex"
#: how releases of kernels with pages of 64 KiB end (``5.14.0-503.el9.aarch64+64k``)
PAGES_64K = "64k"


def pin(version: str) -> str:
    """The packages of a driver version, whatever revision the packager gave them."""
    return f"{version}*"


def driver_names(platform: Platform, source: str, branch: str, flavour: str) -> list[str]:
    """Return the driver's packages for computing: module, libraries and tools; nothing of a desktop."""
    if source == "distribution":
        return _archive_names(platform, branch, flavour)
    names = platform.nvidia or {}
    key = platform.row.get("driver_packages")
    if key == "nvidia_repo_ubuntu":
        only = names["compute_only"]["from_590" if int(branch) >= PINNING_FROM else "upto_580"]
        extras = only["extras_before_570"] if int(branch) < PERSISTENCED_FROM else only["extras"]
        return [name.format(branch=branch) for name in [*only[flavour], *extras]]
    if key == "nvidia_repo_debian":
        return [*names["compute_only"][flavour], *names["compute_only"]["extras"]]
    return list(names[f"compute_only_{flavour}"])


def _archive_names(platform: Platform, branch: str, flavour: str) -> list[str]:
    own = platform.row.get("distribution_driver")
    if own:
        return [*own["userland"], *own["modules"][flavour]]
    series = "{branch}-server-open" if flavour == "open" else "{branch}-server"
    wanted = [f"nvidia-headless-no-dkms-{series}", f"linux-modules-nvidia-{series}-generic"]
    known = (platform.archive or {})["patterns"]
    return [name.format(branch=branch) for name in [*wanted, "nvidia-utils-{branch}-server"] if name in known]


def driver_part(
    platform: Platform,
    *,
    source: str,
    row: dict[str, Any],
    version: str,
    flavour: str,
    minimum: str | None,
    secure_boot: bool | None,
    gpus: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the ``driver`` of a stack. ``row`` is its branch in the table, ``gpus`` those of the stack.

    Nodes of GB200/GB300 racks also get ``nvidia-imex``: their NVSwitches are in the rack, not in the node.
    """
    branch = row["branch"]
    names = driver_names(platform, source, branch, flavour)
    if source == "nvidia" and any(str(gpu["id"]).startswith(_RACK) for gpu in gpus):
        names.append(IMEX)
    # versioned after the kernel, after a source of their own, or in a way that nobody has said
    archive = (platform.row.get("distribution_driver") or {}) if source == "distribution" else {}
    others = (IMEX, *archive.get("own_version", ()))
    own_version = [name for name in names if name.startswith(_PREBUILT) or name in others]
    prebuilt = any(name.startswith(_PREBUILT) for name in names)
    return {
        "source": source,
        "branch": branch,
        "version": version,
        "flavour": flavour,
        "minimum": minimum,
        "signing": signing(secure_boot, prebuilt),
        "repository": repository(platform) if source == "nvidia" else _archive(platform),
        "packages": [{"name": name, "version": None if name in own_version else pin(version)} for name in names],
        "modules": _module_streams(platform, source, branch, flavour),
        "precedes": _precedes(platform, source, branch),
        "holds": _holds(platform, source, version, names),
        "eol": row.get("eol"),
    }


def signing(secure_boot: bool | None, prebuilt: bool) -> str | None:
    """How the module passes Secure Boot: ``none`` needed, ``mok`` key to enrol, ``prebuilt`` signed; None unknown."""
    if secure_boot is None:
        return None
    if not secure_boot:
        return "none"
    return "prebuilt" if prebuilt else "mok"


def _archive(platform: Platform) -> dict[str, Any] | None:
    own = platform.row.get("distribution_driver")
    if not own:
        return None
    return {
        "format": platform.row.get("repo_format"),
        "codename": own["codename"],
        "components": list(own["components"]),
    }


def _module_streams(platform: Platform, source: str, branch: str, flavour: str) -> list[str]:
    if source != "nvidia" or platform.row.get("driver_packages") != "rhel8_9":
        return []
    stream = "nvidia-driver:{branch}-open" if flavour == "open" else "nvidia-driver:{branch}-dkms"
    known = (platform.nvidia or {})["modules"]
    return [stream.format(branch=branch)] if stream in known else []


def _precedes(platform: Platform, source: str, branch: str) -> list[str]:
    """Packages to install before the driver: they pin its branch where package names carry none."""
    if source == "nvidia" and platform.deb and int(branch) >= PINNING_FROM:
        return [f"nvidia-driver-pinning-{branch}"]
    return []


def _holds(platform: Platform, source: str, version: str, names: list[str]) -> list[str]:
    if source == "nvidia" and platform.row.get("driver_packages") == "rhel10":
        return [f"*nvidia*{version}*"]
    return sorted(names)


def fabric_manager_name(platform: Platform, source: str, branch: str) -> str | None:
    """Return the package of the fabric manager, None where the tables know none."""
    known = platform.table["fabric_manager"]
    if source == "distribution":
        seen = re.findall(r"\b\d{3}\b", known["ubuntu"]["ubuntu_archive"])
        ubuntu = platform.row.get("archive_packages") == "ubuntu_archive"
        return f"nvidia-fabricmanager-{branch}" if ubuntu and branch in seen else None
    renamed = at_least(branch, FABRIC_MANAGER_RENAMED)
    if platform.deb:
        name = known["ubuntu"]["from_580" if renamed else "before_580"]
        return str(name.split("=")[0].format(branch=branch))
    return str(known["rpm"]["from_580" if renamed else "before_580"])


def fabric_manager_part(
    platform: Platform, *, source: str, branch: str, version: str, gpus: list[dict[str, Any]], nvswitch: bool | None
) -> dict[str, Any] | None:
    """Return the ``fabric_manager`` of a stack, None where the node needs none.

    Its version is the driver's, digit for digit.
    """
    if nvswitch is not True:
        return None
    extras = []
    if any(str(gpu["id"]).startswith(_FOURTH_GENERATION) for gpu in gpus):
        rule = extra_rule(platform, "nvlsm")
        extras += [{"package": name, "why": rule} for name in ("nvlsm", "infiniband-diags")]
    if source == "nvidia":
        # the suffix goes with the other package names at 590; DGX OS names it without
        suffixed = "libnvidia-nscq-{branch}" if int(branch) < PINNING_FROM else "libnvidia-nscq"
        name = suffixed.format(branch=branch)
        extras.append({"package": name, "why": extra_rule(platform, "libnvidia-nscq-{branch}")})
    return {"package": fabric_manager_name(platform, source, branch), "version": version, "extras": extras}


def extra_rule(platform: Platform, package: str) -> str:
    """When a package beside the fabric manager is needed."""
    row = find(platform.table["fabric_manager"]["extras"], "package", package)
    return str(row["when"]) if row else ""


def unstated_nvswitch(gpus: list[dict[str, Any]], nvswitch: bool | None) -> bool:
    """Whether these look like an HGX board with NVSwitch, of which nobody has said whether it has one."""
    boards = [gpu for gpu in gpus if _HGX.search(str(gpu["id"] or "")) and gpu["count"] >= 8]
    return nvswitch is None and any(at_least(str(gpu["compute_capability"] or "0"), "8.0") for gpu in boards)


def container_toolkit_part(platform: Platform) -> dict[str, Any]:
    """Return the ``container_toolkit`` of a stack. Its version is not in the tables."""
    known = platform.table["container_toolkit"]
    deb = platform.deb
    return {
        "repository": {
            "format": "deb" if deb else "rpm",
            "list": known["deb_list"] if deb else known["rpm_repo"],
            "key_url": known["deb_key"] if deb else None,
        },
        "packages": list(known["packages"]),
        "version": None,
        "same_version_required": known["same_version_required"],
    }


def os_part(platform: Platform, driver_version: str | None, kernel: str | None) -> dict[str, Any]:
    """Return the ``os`` of a stack: what a kernel module needs to be built.

    ``repositories``, where there are some: what has to be enabled beside the driver's own (``epel`` has DKMS).

    Kernels with pages of 64 KiB have headers of their own; of a kernel nobody knows the usual ones are taken.
    """
    minimum = platform.dkms_minimum(driver_version) if driver_version else None
    large_pages = platform.row.get("headers_64k") if (kernel or "").endswith(PAGES_64K) else None
    part = {"headers": list(large_pages or platform.row.get("headers") or []), "dkms_minimum": minimum}
    needs = (platform.nvidia or {}).get("needs") if driver_version else None
    return {**part, "repositories": [name.lower() for name in needs]} if needs else part
