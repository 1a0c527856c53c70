# SPDX-License-Identifier: Apache-2.0
"""What is read of a host, from prepared trees: values, and a reason for each that is missing."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import health_drives, health_host_read, health_pci, health_system
from ansible.module_utils.rackwright.programs import Run
from ansible.module_utils.rackwright.sysfs import Tree


def write(root: Path, files: Mapping[str, str | bytes]) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Tree(str(root))


def answering(output: str = "", status: int = 0, complaint: str = "") -> Run:
    return lambda command, timeout_s: (status, output, complaint)


def absent(command: list[str], timeout_s: float) -> tuple[int, str, str]:
    raise FileNotFoundError(2, "no such file", command[0])


def read(root: Path, files: Mapping[str, str | bytes], run: Run | None = None) -> dict[str, Any]:
    write(root, files)
    return health_host_read.read_host_health(str(root), str(root), run or answering())


def test_an_empty_tree_gives_a_reason_for_everything_and_raises_nothing(tmp_path: Path) -> None:
    record = health_host_read.read_host_health(str(tmp_path), str(tmp_path), absent)

    assert set(record) - {"missing"} == set(health_host_read.HOST_PATHS)
    silent = [path for path in health_host_read.HOST_PATHS if record[path] is None and not record["missing"].get(path)]
    assert silent == ["container"]


FILES = {
    "proc/uptime": "864000.50 1.00\n",
    "proc/meminfo": "MemTotal:       1056 kB\nMemFree: 1 kB\n",
    "proc/cpuinfo": "processor : 0\nflags\t\t: fpu vme hypervisor lahf_lm\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 1000 5 100\n",
    "proc/sys/kernel/numa_balancing": "1\n",
    "proc/cmdline": "quiet intel_iommu=on iommu=pt\n",
    "proc/mdstat": (
        "Personalities : [raid1]\nmd0 : active raid1 sdb1[1] sda1[0](F)\n"
        "      976630464 blocks super 1.2 [2/1] [_U]\n\nunused devices: <none>\n"
    ),
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/iommu_groups/0/x": "",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "not a processor\n",
}


def test_values_of_a_host(tmp_path: Path) -> None:
    record = read(tmp_path, FILES)

    assert record["uptime_s"] == 864000.5
    assert record["memory_total_bytes"] == 1056 * 1024
    assert record["virtual"] is True
    assert record["swap"] == [{"name": "/dev/zram0", "size_bytes": 1024000}]
    assert record["governors"] == {"performance": 1, "powersave": 1}
    assert (record["thp"], record["numa_balancing"], record["iommu"]) == ("madvise", 1, "passthrough")
    assert record["arrays"] == [{"name": "md0", "state": "active", "members": "_U", "failed": ["sda1"]}]


@pytest.mark.parametrize(
    ("cmdline", "groups", "mode"),
    [("iommu=pt", True, "passthrough"), ("intel_iommu=on", True, "enabled"), ("iommu=pt", False, "disabled")],
)
def test_modes_of_the_iommu(tmp_path: Path, cmdline: str, groups: bool, mode: str) -> None:
    files = {"proc/cmdline": cmdline, "sys/kernel/x": "", **({"sys/kernel/iommu_groups/0/y": ""} if groups else {})}
    assert read(tmp_path, files)["iommu"] == mode


def test_a_host_without_arrays_swap_or_devices_is_known_to_have_none(tmp_path: Path) -> None:
    record = read(
        tmp_path, {"proc/swaps": "Filename Type Size Used Priority\n", "sys/class/x": "", "proc/uptime": "1 1\n"}
    )

    assert (record["swap"], record["arrays"], record["nics"], record["nvme"]) == ([], [], [], [])


@pytest.mark.parametrize(("files", "kind"), [({"run/systemd/container": "podman\n"}, "podman"), ({"proc/x": ""}, None)])
def test_a_container_is_known_as_one(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    assert read(tmp_path, files)["container"] == kind


def test_mounts_are_local_and_read_only_only_where_fstab_does_not_ask(tmp_path: Path) -> None:
    record = read(
        tmp_path,
        {
            "proc/self/mounts": (
                "/dev/sda1 / ext4 rw,relatime 0 0\n"
                "/dev/sdb1 /data\\040one xfs ro,noatime 0 0\n"
                "/dev/sdc1 /media ext4 ro 0 0\n"
                "/dev/sda1 /also/the/root ext4 rw 0 0\n"
                "server:/x /nfs nfs4 rw 0 0\n"
                "tmpfs /run tmpfs rw 0 0\n"
                "broken line\n"
            ),
            "etc/fstab": "# /dev/x /data\\040one xfs ro\n/dev/sdc1 /media ext4 ro,nofail 0 2\n",
        },
    )

    mounts = {mount["path"]: mount for mount in record["mounts"]}
    assert set(mounts) == {"/", "/data one", "/media"}
    assert {path: mount["read_only"] for path, mount in mounts.items()} == {
        "/": False,
        "/data one": True,
        "/media": False,
    }
    assert 0 <= mounts["/"]["used_percent"] <= 100
    assert mounts["/data one"]["used_percent"] is None
    assert "no such file" in mounts["/data one"]["reason"]


# -- clock, units, processes, variables ----------------------------------------------------------------------------


def test_the_clock_is_asked_without_setting_it() -> None:
    value, reason = health_system.clock_synchronised()

    assert (value is None) == (reason is not None)
    if value is not None:
        assert isinstance(value["synchronised"], bool)
        assert value["max_error_ms"] >= 0


@pytest.mark.parametrize(
    ("run", "units", "reason"),
    [
        (
            answering("a.service loaded failed failed A\nb@1.service loaded failed failed B\n"),
            ["a.service", "b@1.service"],
            None,
        ),
        (answering(), [], None),
        (
            answering(status=1, complaint="System has not been booted\nwith systemd"),
            None,
            "System has not been booted with",
        ),
        (absent, None, "systemctl does not run"),
    ],
)
def test_failed_units(run: Run, units: list[str] | None, reason: str | None) -> None:
    value, why = health_system.failed_units(run)

    assert value == units
    assert (why is None) if reason is None else reason in str(why)


def test_processes_left_behind_have_their_age(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")

    def stat(start_s: int) -> str:
        return "7 (python3 (x)) S " + " ".join(["0"] * 18) + f" {start_s * ticks} 0 0\n"

    tree = write(
        tmp_path,
        {
            "proc/uptime": "10000.00 1\n",
            "proc/7/cmdline": "python3\0/root/.ansible/tmp/ansible-tmp-1/AnsiballZ_setup.py\0",
            "proc/7/stat": stat(1000),
            "proc/8/cmdline": "sg_inq\0/dev/sg0\0",
            "proc/8/stat": stat(9990),
            "proc/9/cmdline": "vllm\0serve\0",
            "proc/9/stat": stat(1),
            "proc/10/cmdline": "sg_inq\0",
            "proc/10/stat": "gone",
            "proc/self/cmdline": "sg_inq\0",
        },
    )

    value, reason = health_system.leftovers(tree)
    assert reason is None
    assert {entry["pid"]: entry["age_s"] for entry in value} == {7: 9000, 8: 10}


def test_variables_that_are_set_for_everybody(tmp_path: Path) -> None:
    tree = write(
        tmp_path,
        {
            "etc/environment": "PATH=/bin\n#CUDA_PROFILE=1\nCUDA_VISIBLE_DEVICES=0,1\nMY_CUDA_PROFILE=1\n",
            "etc/profile.d/cuda.sh": "  export CUDA_LAUNCH_BLOCKING=1\nif true; then :; fi\n",
            "etc/security/pam_env.conf": "COMPUTE_PROFILE DEFAULT=1\n",
            "etc/profile.d/\u00fcmlaut.sh": b"\xff\xfe export NSIGHT_CUDA_DEBUGGER = 1\n",
        },
    )

    value, reason = health_system.environment_blockers(tree)
    assert reason is None
    assert [(entry["name"], entry["file"]) for entry in value] == [
        ("CUDA_VISIBLE_DEVICES", "/etc/environment"),
        ("COMPUTE_PROFILE", "/etc/security/pam_env.conf"),
        ("CUDA_LAUNCH_BLOCKING", "/etc/profile.d/cuda.sh"),
    ]


# -- ports and drives ----------------------------------------------------------------------------------------------


def test_rdma_ports(tmp_path: Path) -> None:
    where = "sys/class/infiniband/mlx5_0/ports/1"
    tree = write(
        tmp_path,
        {
            f"{where}/state": "4: ACTIVE\n",
            f"{where}/phys_state": "5: LinkUp\n",
            f"{where}/link_layer": "InfiniBand\n",
            f"{where}/rate": "400 Gb/sec (4X NDR)\n",
            f"{where}/counters/link_downed": "3\n",
            "sys/class/infiniband/mlx5_1/ports/1/state": "1: DOWN\n",
            "sys/class/infiniband/odd/ports/1/rate": "fast\n",
        },
    )

    ports, reason = health_drives.rdma_ports(tree)
    assert reason is None
    assert ports[0] == {
        "name": "mlx5_0/1",
        "state": "ACTIVE",
        "physical": "LinkUp",
        "link_layer": "InfiniBand",
        "rate_gbps": 400.0,
        "link_downed": 3,
    }
    assert [(port["name"], port["state"], port["rate_gbps"]) for port in ports[1:]] == [
        ("mlx5_1/1", "DOWN", None),
        ("odd/1", None, None),
    ]


def page(**at: int) -> bytes:
    """A SMART log: 512 bytes with these values at ``b<offset>``."""
    found = bytearray(512)
    for place, value in at.items():
        found[int(place[1:])] = value
    return bytes(found)


def drives_of(tmp_path: Path, ask: Any, smart: bool = True) -> list[dict[str, Any]]:
    tree = write(tmp_path, {"sys/class/nvme/nvme0/state": "live\n", "sys/class/nvme/nvme0/serial": " S1 \n"})
    (tmp_path / "sys/class/nvme/nvme-fabrics").mkdir()
    drives, reason = health_drives.nvme_drives(tree, smart, ask)
    assert reason is None
    found: list[dict[str, Any]] = drives
    return found


def test_the_smart_log_of_a_drive(tmp_path: Path) -> None:
    asked = []

    def ask(device: str) -> bytes:
        asked.append(device)
        return page(b0=4, b1=0x3A, b2=1, b3=100, b4=10, b5=120, b160=7)

    [drive] = drives_of(tmp_path, ask)
    assert asked == ["/dev/nvme0"]
    assert (drive["name"], drive["state"], drive["serial"], drive["smart_reason"]) == ("nvme0", "live", "S1", None)
    assert drive["smart"] == {
        "critical_warning": 4,
        "temperature_kelvin": 314,
        "avail_spare": 100,
        "spare_thresh": 10,
        "percent_used": 120,
        "media_errors": 7,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "denied"), "answers root only"),
        (OSError(25, "x"), "inappropriate ioctl"),
        (OSError(), "does not"),
    ],
)
def test_a_drive_that_does_not_tell_its_smart_log(tmp_path: Path, error: OSError, reason: str) -> None:
    def ask(device: str) -> bytes:
        raise error

    [drive] = drives_of(tmp_path, ask)
    assert drive["smart"] is None
    assert reason in drive["smart_reason"]


def test_drives_of_a_prepared_tree_are_never_asked(tmp_path: Path) -> None:
    [drive] = drives_of(tmp_path, None)
    assert (drive["smart"], drive["smart_reason"]) == (None, "the drive was not asked")


def test_a_device_that_is_no_drive_is_an_error_of_the_system() -> None:
    """The command has the kernel's size and number, and what is not a drive refuses it."""
    assert (health_drives._COMMAND.size, health_drives._ADMIN_COMMAND) == (72, 0xC0484E41)
    with pytest.raises(OSError, match=r".+"):
        health_drives.smart_log("/dev/null")


# -- access control services ---------------------------------------------------------------------------------------


def config(control: int | None, before: int = 0x148) -> bytes:
    """A configuration space with another capability at 0x100 and ACS behind it."""
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | (before if control is not None else 0) << 20)
    if control is not None:
        struct.pack_into("<IHH", space, before, 0x000D | 1 << 16, 0x5F, control)
    return bytes(space)


@pytest.mark.parametrize(
    ("space", "control"),
    [
        (config(0x1D), 0x1D),
        (config(0), 0),
        (config(None), None),
        (config(0x1D)[:64], None),
        (b"", None),
        (b"\xff" * 4096, None),
        (struct.pack("<I", 0x100 << 20 | 1).rjust(0x104, b"\0") + bytes(16), None),  # a list that ends in itself
    ],
)
def test_the_acs_register(space: bytes, control: int | None) -> None:
    assert health_pci.acs_control(space) == control


def test_bridges_that_redirect(tmp_path: Path) -> None:
    base = "sys/bus/pci/devices"
    tree = write(
        tmp_path,
        {
            f"{base}/0000:00:01.0/class": "0x060400\n",
            f"{base}/0000:00:01.0/config": config(0x1D),
            f"{base}/0000:00:02.0/class": "0x060400\n",
            f"{base}/0000:00:02.0/config": config(0x01),  # source validation alone redirects nothing
            f"{base}/0000:1b:00.0/class": "0x030200\n",
            f"{base}/0000:1b:00.0/config": config(0x1D),
        },
    )
    assert health_pci.acs_bridges(tree) == (["0000:00:01.0"], None)


def test_bridges_that_only_root_may_read(tmp_path: Path) -> None:
    base = "sys/bus/pci/devices/0000:00:01.0"
    tree = write(tmp_path, {f"{base}/class": "0x060400\n", f"{base}/config": config(0x1D)[:64]})
    value, reason = health_pci.acs_bridges(tree)

    assert value is None
    assert "root only" in str(reason)


def test_the_record_is_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(read(tmp_path, FILES)))["thp"] == "madvise"


def test_a_program_that_hangs_is_a_reason() -> None:
    def hang(command: list[str], timeout_s: float) -> tuple[int, str, str]:
        raise TimeoutError(f"{command[0]} did not answer within {timeout_s:g} s")

    assert "did not answer within 10 s" in str(health_system.failed_units(hang)[1])
