# SPDX-License-Identifier: Apache-2.0
"""Kernel files: what they say, and what their absence does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible.module_utils.rackwright import sysfs
from ansible.module_utils.rackwright.gpu_probe import flavour, kernel_module_version, library_version


def put(root: Path, relative: str, text: str = "") -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def device(root: Path, address: str, **files: str) -> Path:
    where = f"sys/bus/pci/devices/{address}"
    defaults = {"vendor": "0x10de", "device": "0x2330", "class": "0x030200", "subsystem_vendor": "0x10de"}
    for name, text in {**defaults, "subsystem_device": "0x16c1", **files}.items():
        put(root, f"{where}/{name}", text + "\n")
    return root / where


def test_only_nvidias_displays_are_gpus_and_only_its_bridges_switches(tmp_path: Path) -> None:
    device(tmp_path, "0000:01:00.0", **{"class": "0x030000"})
    device(tmp_path, "0000:01:00.1", **{"class": "0x040300"})  # its sound device
    device(tmp_path, "0000:05:00.0", **{"class": "0x068000"})  # an NVSwitch
    device(tmp_path, "0000:06:00.0", vendor="0x8086", **{"class": "0x030000"})
    device(tmp_path, "0000:07:00.0")
    (device(tmp_path, "0000:07:00.4") / "physfn").symlink_to("../0000:07:00.0")  # a virtual function
    pci = sysfs.read_host(str(tmp_path))["pci"]
    assert [gpu["address"] for gpu in pci["gpus"]] == ["0000:01:00.0", "0000:07:00.0"]
    assert (pci["switches"], pci["reason"]) == (["0000:05:00.0"], None)


def test_gpu_of_the_bus_is_read_completely(tmp_path: Path) -> None:
    where = device(
        tmp_path,
        "0000:1B:00.0",
        numa_node="1",
        local_cpulist="0-3,8",
        current_link_speed="16.0 GT/s PCIe",
        max_link_speed="32.0 GT/s PCIe",
        current_link_width="8",
        max_link_width="16",
    )
    (where / "driver").symlink_to("../../../../bus/pci/drivers/vfio-pci")
    assert sysfs.read_pci(sysfs.Tree(str(tmp_path)))["gpus"] == [
        {
            "address": "0000:1b:00.0",
            "vendor_id": "10de",
            "device_id": "2330",
            "subsystem_id": "10de:16c1",
            "kernel_driver": "vfio-pci",
            "numa_node": 1,
            "cpu_affinity": "0-3,8",
            "generation": 4,
            "max_generation": 5,
            "width": 8,
            "max_width": 16,
        }
    ]


def test_absent_numbers_are_unknown_not_zero(tmp_path: Path) -> None:
    device(tmp_path, "0000:01:00.0", numa_node="-1", current_link_width="255", current_link_speed="Unknown")
    gpu = sysfs.read_pci(sysfs.Tree(str(tmp_path)))["gpus"][0]
    assert {gpu[key] for key in ("numa_node", "width", "generation", "cpu_affinity", "max_width")} == {None}


@pytest.mark.parametrize(
    ("speed", "generation"),
    [
        ("2.5 GT/s PCIe", 1),
        ("5.0 GT/s PCIe", 2),
        ("8.0 GT/s PCIe", 3),
        ("64.0 GT/s PCIe", 6),
        ("Unknown", None),
        (None, None),
    ],
)
def test_link_speeds(speed: str | None, generation: int | None) -> None:
    assert sysfs.pcie_generation(speed) == generation


def test_an_unreadable_bus_has_a_reason(tmp_path: Path) -> None:
    pci = sysfs.read_host(str(tmp_path))["pci"]
    assert pci["gpus"] == []
    assert pci["reason"] == "/sys/bus/pci/devices cannot be read (no such file or directory)"


OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build\nGCC version: 12.2.0"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue Jun  3 2025\nGCC version:  gcc version 12.2.0"


@pytest.mark.parametrize(
    ("text", "module", "licence", "expected"),
    [
        (OPEN, None, None, ("580.105.08", "open")),
        (CLOSED, None, None, ("535.261.03", "proprietary")),
        (None, "550.163.01", None, ("550.163.01", "unknown")),
        (None, None, "Dual MIT/GPL", (None, "open")),
        (None, None, "NVIDIA", (None, "proprietary")),
        (None, None, None, (None, "unknown")),
    ],
)
def test_module_version_and_flavour(
    text: str | None, module: str | None, licence: str | None, expected: tuple[str | None, str]
) -> None:
    host = {"driver_text": text, "module_version": module, "installed_module": {"license": licence}}
    assert (kernel_module_version(host), flavour(host)) == expected


@pytest.mark.parametrize(
    ("path", "nvml", "version"),
    [
        ("/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.535.309.01", "12.535.309.01", "535.309.01"),
        ("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.590.48.01", None, "590.48.01"),
        ("/opt/x/libnvidia-ml.so.1", "13.580.105.08", "580.105.08"),
        ("/opt/x/libnvidia-ml.so.1", "nonsense", None),
        (None, None, None),
    ],
)
def test_library_version(path: str | None, nvml: str | None, version: str | None) -> None:
    found, reason = library_version({"found": True, "path": path, "reason": None}, nvml)
    assert found == version
    assert (reason is None) == (version is not None)


@pytest.mark.parametrize("marker", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_container_signs(tmp_path: Path, marker: str) -> None:
    assert sysfs.container_marker(sysfs.Tree(str(tmp_path))) is None
    put(tmp_path, marker)
    assert sysfs.container_marker(sysfs.Tree(str(tmp_path))) == f"/{marker}"


def test_container_without_files_is_seen_by_its_root(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/mountinfo", "1104 941 0:118 / / rw,relatime - overlay overlay rw,lowerdir=/x\n")
    assert sysfs.container_marker(sysfs.Tree(str(tmp_path))) == "overlay root file system"


def test_signs_that_a_prepared_tree_only_links_are_not_its_own(tmp_path: Path) -> None:
    put(tmp_path, "real/run/.containerenv")
    put(tmp_path, "real/proc/self/mountinfo", "1 2 0:1 / / rw - overlay overlay rw\n")
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "run").symlink_to(tmp_path / "real/run")
    (root / "proc/self").symlink_to(tmp_path / "real/proc/self")
    assert sysfs.container_marker(sysfs.Tree(str(root))) is None


@pytest.mark.parametrize(
    ("pid", "comm", "running"),
    [
        (None, None, False),
        ("77", "nvidia-persiste", True),
        ("77", "bash", False),
        ("77", None, False),
        ("junk", None, False),
    ],
)
def test_persistence_daemon_is_a_living_process_of_that_name(
    tmp_path: Path, pid: str | None, comm: str | None, running: bool
) -> None:
    put(tmp_path, "run/utmp")
    if pid:
        put(tmp_path, "run/nvidia-persistenced/nvidia-persistenced.pid", pid + "\n")
    if comm:
        put(tmp_path, f"proc/{pid}/comm", comm + "\n")
    assert sysfs.persistence_daemon(sysfs.Tree(str(tmp_path))) == {"running": running, "reason": None}


def test_only_one_file_of_the_gpu_facts_reads_the_kernels_files() -> None:
    package = Path(sysfs.__file__).parent
    parts = ("nvml*.py", "devices.py", "topology.py", "situation.py", "gpu_evidence.py", "gpu_probe.py", "catalogue.py")
    for pattern in parts:
        for path in package.glob(pattern):
            code = path.read_text(encoding="utf-8")
            assert "open(" not in code.replace("reader.open(", "").replace("def open(", "")


@pytest.mark.parametrize(
    ("text", "name", "missing"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n', "Debian GNU/Linux 12", set()),
        ("ID=arch\n", None, {"os.name", "os.version_id"}),
        (None, None, {"os.name", "os.id", "os.version_id"}),
    ],
)
def test_the_operating_system_or_the_reason(
    tmp_path: Path, text: str | None, name: str | None, missing: set[str]
) -> None:
    if text is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text(text, encoding="utf-8")

    system, reasons = sysfs.read_operating_system(str(tmp_path))

    assert system["name"] == name
    assert set(reasons) == missing
    assert system["kernel"]


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulated_node_says_so_before_any_driver(tmp_path: Path, simulated: bool) -> None:
    device(tmp_path, "0000:07:00.0")
    if simulated:
        put(tmp_path, "proc/simulated-gpus", "The GPUs of this node are simulated.\n")

    assert sysfs.read_host(str(tmp_path))["simulated"] is simulated
