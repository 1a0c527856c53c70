# SPDX-License-Identifier: Apache-2.0
"""Put a stack together: every gate in order, then the parts made of what was chosen. Pure."""

from __future__ import annotations

from typing import Any

from .compat_cuda import cuda_minimum, runtime_of
from .compat_driver import Driver, choose_driver
from .compat_framework import NO_PYTHON, TELL_PYTHON, Framework, choose_framework, pythons_of
from .compat_packages import (
    IMEX,
    container_toolkit_part,
    driver_part,
    extra_rule,
    fabric_manager_name,
    fabric_manager_part,
    os_part,
    unstated_nvswitch,
)
from .compat_parts import framework_part, libraries_part, serving_part
from .compat_platform import Platform, choose_platform
from .compat_rules import Case, Refusal, major, sources_of
from .compat_toolkit import choose_toolkits, toolkit_part, toolkit_platform
from .stack_node import StackNode
from .torch_build import version_key


def solve_case(case: Case) -> dict[str, Any]:
    """Return the stack of a case and note its decisions, or raise Refusal."""
    platform = choose_platform(case)
    driver = choose_driver(case, platform)
    if driver:
        _require_fabric_manager(case, platform, driver)
    runtime = runtime_of(case.node, case.tables, driver.version if driver else None)
    framework = choose_framework(case, runtime)
    toolkits = choose_toolkits(case, platform, runtime)
    cudas = [cuda for cuda in (framework and framework.cuda, *(row["toolkit"] for row in toolkits)) if cuda]
    minimum = _minimum(case, cudas)
    return {
        "platform": {
            "os": case.node.os,
            "arch": case.node.arch,
            "python": case.node.python,
            "glibc": case.node.glibc,
        },
        "gpus": gpus_part(case.node),
        "simulated": case.node.simulated,
        "os": os_part(platform, driver.version if driver else None, case.node.kernel),
        "driver": _driver(case, platform, driver, minimum),
        "fabric_manager": _fabric_manager(case, platform, driver),
        "toolkit": toolkit_part(toolkit_platform(case.tables, case.node, platform), toolkits),
        "libraries": libraries_part(framework),
        "container_toolkit": _container_toolkit(case, platform),
        "python": _python(case, framework),
        "framework": framework_part(case.tables, framework),
        "serving": serving_part(framework),
    }


def gpus_part(node: StackNode) -> list[dict[str, Any]]:
    """Return the ``gpus`` of a stack."""
    return [
        {"id": gpu.id, "name": gpu.name, "compute_capability": gpu.compute_capability, "count": gpu.count}
        for gpu in node.gpus
    ]


def _minimum(case: Case, cudas: list[str]) -> str | None:
    """The least driver that everything in the stack runs on."""
    least: str | None = None
    for cuda in cudas:
        minimum, row = cuda_minimum(case.tables, cuda)
        if minimum and (least is None or version_key(minimum) > version_key(least)):
            least = minimum
            item = "driver.minimum" if not case.node.wsl else "platform.windows_driver_minimum"
            whose = "the NVIDIA driver of Windows must be" if case.node.wsl else "the driver must be"
            case.decide(
                item,
                minimum,
                f"CUDA {major(cuda)}: {whose} {minimum} or newer (minor-version compatibility)",
                f"cuda/minor_version_compatibility/{major(cuda)}" if row else "frameworks/cuda_minimum_drivers",
                sources_of(case.tables.cuda, row or {}),
            )
    return least


def _driver(case: Case, platform: Platform, driver: Driver | None, minimum: str | None) -> dict[str, Any] | None:
    if driver is None:
        return None
    part = driver_part(
        platform,
        source=driver.source,
        row=driver.row,
        version=driver.version,
        flavour=driver.flavour,
        minimum=minimum,
        secure_boot=case.node.secure_boot,
        gpus=gpus_part(case.node),
    )
    note = platform.table["driver_packages"].get("secure_boot_note")
    rules = {
        None: "whether Secure Boot is on is not known; if it is, a module built by DKMS needs its key enrolled",
        "none": "Secure Boot is off, so the kernel module needs no signature",
        "mok": "Secure Boot is on: DKMS signs with a key of this machine (MOK) that a person enrols at the next boot",
        "prebuilt": "Secure Boot is on, and the distribution's prebuilt module is signed by the distribution",
    }
    case.decide("driver.signing", part["signing"], rules[part["signing"]], "platforms/driver_packages", note)
    names = platform.table["driver_packages"].get(platform.row.get("driver_packages") or "") or {}
    rule = "packages for computing only, all of one version"
    if IMEX in [package["name"] for package in part["packages"]]:
        rule += f"; {IMEX}: {extra_rule(platform, IMEX)}"
    if part["precedes"]:
        rule += f"; from branch 590 on names carry no branch, so {part['precedes'][0]} is installed first"
    case.decide(
        "driver.packages",
        [package["name"] for package in part["packages"]],
        rule,
        f"platforms/{platform.id}",
        names.get("sources") or names.get("source") if driver.source == "nvidia" else platform.sources,
    )
    return part


def _require_fabric_manager(case: Case, platform: Platform, driver: Driver) -> None:
    if case.node.nvswitch is not True or case.node.simulated or case.node.container:
        return
    if fabric_manager_name(platform, driver.source, driver.row["branch"]) is None:
        raise Refusal(
            "gpu-driver",
            f"the GPUs need the fabric manager, and the archive of {platform.row['os']} is not known to have it for "
            f"branch {driver.row['branch']}",
            ["Set stack_driver_source to nvidia"],
        )


def _fabric_manager(case: Case, platform: Platform, driver: Driver | None) -> dict[str, Any] | None:
    if driver is None:
        return None
    if case.node.simulated:
        case.decide("fabric_manager", None, "the GPUs are simulated, so there is no NVSwitch to manage")
        return None
    gpus, nvswitch = gpus_part(case.node), case.node.nvswitch
    if case.node.container:
        case.decide("fabric_manager", None, "the node is a container: the fabric manager belongs to its host")
        return None
    part = fabric_manager_part(
        platform,
        source=driver.source,
        branch=driver.row["branch"],
        version=driver.version,
        gpus=gpus,
        nvswitch=nvswitch,
    )
    table = platform.table["fabric_manager"]
    row, sources = "platforms/fabric_manager", table["sources"]
    if part:
        case.decide("fabric_manager.version", part["version"], f"NVSwitch: {table['rule']}", row, sources)
    elif unstated_nvswitch(gpus, nvswitch):
        rule = (
            "unknown: eight or more SXM GPUs usually sit on a board with NVSwitch, which needs the fabric manager; "
            "set nvswitch: true (or false) in node_description, or plan from facts"
        )
        case.decide("fabric_manager", None, rule, row, sources)
    else:
        case.decide("fabric_manager", None, "no NVSwitch in the node, where it would only fail to start", row, sources)
    return part


def _container_toolkit(case: Case, platform: Platform) -> dict[str, Any]:
    part = container_toolkit_part(platform)
    rule = "all its packages in one version; which is the newest is not in the tables"
    source = platform.table["container_toolkit"].get("source")
    case.decide("container_toolkit.version", None, rule, "platforms/container_toolkit", source)
    return part


def _python(case: Case, framework: Framework | None) -> dict[str, Any]:
    if framework:
        return framework.python.as_dict()
    found = pythons_of(case)
    if not found:
        raise Refusal("python-glibc", NO_PYTHON, [TELL_PYTHON])
    rule = "the node's own interpreter" if case.intent.python == "auto" else "asked for by stack_python"
    case.decide("python.version", found[0].version, rule)
    return found[0].as_dict()
