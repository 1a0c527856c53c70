# SPDX-License-Identifier: Apache-2.0
"""What software lies on a node, from whole trees: packages of dpkg and rpm, kernels, fabric manager, toolkit, CDI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated_node import ROOT
from unit.software_samples import KERNEL, add_dkms, add_kernel, add_module, module_bytes, write
from unit.test_cdi import YAML

from ansible.module_utils.rackwright import software_record
from ansible.module_utils.rackwright.record import null_paths
from ansible.module_utils.rackwright.software_packages import (
    TOOLKIT,
    Package,
    Packages,
    parse_dpkg,
    parse_rpm,
    read_packages,
)
from ansible.module_utils.rackwright.software_record import read_software

V, OLD = "580.178.04", "580.65.06"
SCHEMA = json.loads((ROOT / "docs/schema/gpu.schema.json").read_text(encoding="utf-8"))

#: captured from Debian 12 with its driver of branch 535; descriptions and dependencies left out
DPKG = """Package: dpkg
Essential: yes
Status: install ok installed
Priority: required
Section: admin
Architecture: amd64
Multi-Arch: foreign
Version: 1.21.23
Description: Debian package management system

Package: libnvidia-ml1
Status: install ok installed
Priority: optional
Section: non-free/libs
Installed-Size: 2035
Maintainer: Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>
Architecture: amd64
Multi-Arch: same
Source: nvidia-graphics-drivers
Version: 535.309.01-0+deb12u1
Description: NVIDIA Management Library (NVML) runtime library

Package: nvidia-kernel-common
Status: install ok installed
Architecture: amd64
Source: nvidia-support
Version: 20220217+3~deb12u1

Package: nvidia-persistenced
Status: install ok installed
Architecture: amd64
Version: 535.171.04-1~deb12u1

Package: nvidia-smi
Status: hold ok installed
Priority: optional
Section: non-free/utils
Architecture: amd64
Source: nvidia-graphics-drivers
Version: 535.309.01-0+deb12u1
Description: NVIDIA System Management Interface
"""
#: what `rpm -qa --qf RPM_FORMAT` printed for packages of these names on a node with EL identity
RPM = """nvidia-kmod-common	3:580.178.04-1.el9	noarch
kmod-nvidia-open-dkms	3:580.178.04-1.el9	noarch
nvidia-persistenced	3:580.178.04-1.el9	noarch
nvidia-driver-cuda-libs	3:580.178.04-1.el9	noarch
nvidia-driver-cuda	3:580.178.04-1.el9	noarch
"""
VERSIONLOCK = """
# Added lock on Tue Nov 24 17:22:36 2026
nvidia-driver-cuda-3:580.178.04-1.el9.*
"""


def stanza(name: str, version: str, status: str = "install ok installed", architecture: str = "amd64") -> str:
    return f"\nPackage: {name}\nStatus: {status}\nArchitecture: {architecture}\nVersion: {version}\n"


def host(**changes: Any) -> dict[str, Any]:
    """Return the evidence of a node with two GPUs and no NVSwitch."""
    return {
        "kernel_release": KERNEL,
        "pci": {"gpus": [{}, {}], "switches": [], "reason": None},
        "module_version": None,
        "driver_text": None,
        "container": None,
        "simulated": False,
        "dxg": False,
        **changes,
    }


def record_of(
    root: Path, switches: tuple[bool | None, str] = (False, "none"), **changes: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the record and the reasons, after holding both against the schema and each other."""
    record, missing = read_software(host(**changes), switches, str(root))
    part = {**SCHEMA, "required": [], "properties": {"software": SCHEMA["properties"]["software"]}}
    jsonschema.validate({"software": record}, part)
    assert set(null_paths({"software": record})) == set(missing)
    assert all(missing.values())
    return record, missing


def test_dpkg_gives_the_drivers_packages_and_what_is_held() -> None:
    packages = Packages(parse_dpkg([DPKG]))
    assert packages.driver == {
        "libnvidia-ml1": "535.309.01-0+deb12u1",
        "nvidia-persistenced": "535.171.04-1~deb12u1",
        "nvidia-smi": "535.309.01-0+deb12u1",
    }
    assert (packages.held, packages.toolkit, packages.fabric_manager) == (["nvidia-smi"], {}, None)


#: what is added to the database, what the driver's packages then are besides
DATABASES = [
    (stanza("libcuda1", "535.309.01-1", architecture="i386"), {"libcuda1:i386": "535.309.01-1"}),
    (stanza("libcuda1", "535.309.01-1", "deinstall ok config-files"), {}),
    (stanza("libcuda1", "535.309.01-1", "install ok half-configured"), {"libcuda1": "535.309.01-1 (half-configured)"}),
    (stanza("nvidia-utils-580-server", "580.65.06-0ubuntu1"), {"nvidia-utils-580-server": "580.65.06-0ubuntu1"}),
    (stanza("nvidia-cuda-toolkit", "11.8.89~11.8.0-5"), {}),
    (stanza("nvidia-container-toolkit", "1.18.1-1"), {}),
    (stanza("linux-modules-nvidia-580-server-6.8.0-45-generic", "6.8.0-45.45"), {}),
    (stanza("cuda-drivers-580", "580.65.06-1", architecture="all"), {"cuda-drivers-580": "580.65.06-1"}),
    (stanza("libnvidia-egl-wayland1", "1:1.1.10-1"), {}),
]


@pytest.mark.parametrize(("added", "expected"), DATABASES)
def test_what_counts_as_the_driver(added: str, expected: dict[str, str]) -> None:
    before = Packages(parse_dpkg([DPKG])).driver
    assert Packages(parse_dpkg([DPKG + added])).driver == {**before, **expected}


def test_journal_of_a_dpkg_that_died_is_newer_than_the_database(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    write(tmp_path, "var/lib/dpkg/updates/0001", stanza("nvidia-smi", "550.1-1", "install ok unpacked")[1:])
    write(tmp_path, "var/lib/dpkg/updates/0002", stanza("libnvidia-ml1", "", "purge ok not-installed")[1:])
    write(tmp_path, "var/lib/dpkg/updates/tmp.i", stanza("libcuda1", "1")[1:])
    packages = read_packages(tmp_path, no_program, True)
    assert packages.driver == {"nvidia-persistenced": "535.171.04-1~deb12u1"}


def no_program(command: list[str]) -> tuple[int, str, str]:
    raise AssertionError(f"{command} was run")


def test_rpm_is_asked_once_for_what_matters(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/rpm").chmod(0o755)
    write(tmp_path, "etc/dnf/plugins/versionlock.list", VERSIONLOCK)
    asked: list[Sequence[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 0, RPM, ""

    packages = read_packages(tmp_path, run, True)
    assert packages.driver["nvidia-driver-cuda"] == "3:580.178.04-1.el9"
    assert len(packages.driver) == 5
    assert packages.held == ["nvidia-driver-cuda"]
    assert len(asked) == 1
    assert "not asked" in str(read_packages(tmp_path, no_program, False).reason)


def test_rpm_that_fails_is_a_reason(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/rpm").chmod(0o755)

    def hang(command: list[str]) -> tuple[int, str, str]:
        raise TimeoutError(f"{command[0]} did not answer within 8 s")

    packages = read_packages(tmp_path, hang, True)
    assert packages.reason == "the package database cannot be read (rpm did not answer within 8 s)"
    failed = read_packages(tmp_path, lambda _command: (1, "", "error: cannot open Packages index"), True)
    assert "cannot open Packages index" in str(failed.reason)


def test_several_versions_of_one_rpm_are_all_kept() -> None:
    rows = f"kmod-nvidia-open\t3:{OLD}-1.el9\tx86_64\nkmod-nvidia-open\t3:{V}-1.el9\tx86_64\n"
    assert parse_rpm(rows, []) == [
        Package(f"kmod-nvidia-open-3:{version}-1.el9.x86_64", f"3:{version}-1.el9", False) for version in (V, OLD)
    ]


@given(st.lists(st.sampled_from(["Package: nvidia-smi", "Status: install ok installed", "Version: 535.1.1", "", "x"])))
def test_no_database_makes_it_raise(lines: list[str]) -> None:
    for package in parse_dpkg(["\n".join(lines)]) + parse_rpm("\n".join(lines), []):
        assert package.name


def test_neither_dpkg_nor_rpm_is_a_reason_and_all_else_is_told(tmp_path: Path) -> None:
    folder = add_kernel(tmp_path)
    add_module(folder, "kernel/drivers/video/nvidia.ko", module_bytes(V, "NVIDIA"))
    record, missing = record_of(tmp_path)
    assert (record["packages"], record["held"]) == (None, None)
    assert missing["software.packages"] == "the node has neither dpkg's database nor rpm"
    assert record["modules"][KERNEL]["origin"] == "other"


def test_every_installed_kernel_and_the_running_one_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    new, running = "6.1.0-60-amd64", "6.1.0-50-cloud"
    add_module(add_kernel(tmp_path), "updates/dkms/nvidia.ko", module_bytes(OLD))
    add_kernel(tmp_path, new, headers=False)
    write(tmp_path, f"lib/modules/{running}/modules.dep")
    add_dkms(tmp_path, OLD, KERNEL, "installed", module_bytes(OLD))
    record, missing = record_of(tmp_path, kernel_release=running)
    modules = record["modules"]
    assert list(modules) == [KERNEL, new, running]
    assert [(m["version"], m["dkms"], m["headers"]) for m in modules.values()] == [
        (OLD, "installed", True),
        (None, "added", False),
        (None, "added", False),
    ]
    assert missing[f"software.modules.{new}.version"] == "there is no NVIDIA module for this kernel"
    assert record["running"] == running


def test_kernel_of_a_container_is_its_hosts(tmp_path: Path) -> None:
    add_kernel(tmp_path)
    record, missing = record_of(tmp_path, container="/run/.containerenv")
    assert (record["modules"], record["boots"]) == (None, None)
    assert "belongs to the host of this container" in missing["software.modules"]
    simulated, _missing = record_of(tmp_path, container="/run/.containerenv", simulated=True)
    assert list(simulated["modules"]) == [KERNEL]


#: NVSwitches, package, process: needed, installed, running
MANAGERS = [
    (False, None, None, (False, None, False)),
    (True, None, None, (True, None, False)),
    (True, f"{V}-1", None, (True, V, False)),
    (True, f"{V}-1", "nv-fabricmanage", (True, V, True)),
    (False, f"{V}-1", "nv-fabricmanage", (False, V, True)),
]


@pytest.mark.parametrize(("switches", "package", "process", "expected"), MANAGERS)
@pytest.mark.parametrize("name", ["nvidia-fabricmanager", "nvidia-fabricmanager-580"])
def test_fabric_manager_is_told_by_package_and_process(
    tmp_path: Path, switches: bool, package: str | None, process: str | None, expected: Any, name: str
) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG + (stanza(name, package) if package else ""))
    write(tmp_path, "proc/1/comm", "systemd\n")
    if process:
        write(tmp_path, "proc/77/comm", f"{process}\n")
    record, _missing = record_of(tmp_path, (switches, "the bus"))
    manager = record["fabric_manager"]
    assert (manager["needed"], manager["installed"], manager["running"]) == expected


def test_unknown_bus_does_not_mean_no_switch(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG)
    record, missing = record_of(tmp_path, (None, "no access"))
    assert record["fabric_manager"]["needed"] is None
    assert missing["software.fabric_manager.needed"] == "no access"


def test_toolkit_and_specifications_are_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/dpkg/status", DPKG + "".join(stanza(name, "1.18.1-1") for name in TOOLKIT))
    write(tmp_path, "etc/cdi/nvidia.yaml", YAML)
    record, _missing = record_of(tmp_path)
    assert record["container_toolkit"] == {"version": "1.18.1-1", "packages": dict.fromkeys(TOOLKIT, "1.18.1-1")}
    assert [spec["driver_version"] for spec in record["cdi"]] == ["575.64.03"]


def test_rpm_runs_with_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software_record, "_RPM_TIMEOUT_S", 0.2)
    with pytest.raises(TimeoutError, match=r"sleep did not answer within 0.2 s"):
        software_record._ask(["sleep", "5"])
    assert software_record._ask(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\n", "err\n")
