# SPDX-License-Identifier: Apache-2.0
"""What the real bindings read from every profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simnvml.simnvml import profiles

MIB = 1024 * 1024
NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13
# profile: GPUs, name, memory in MiB, compute capability, PCI device, links, ECC, retired pages, row remapping
EXPECTED: dict[str, tuple[Any, ...]] = {
    "h100x8": (8, "NVIDIA H100 80GB HBM3", 81559, [9, 0], 0x2330, 18, 1, None, True),
    "h200x8": (8, "NVIDIA H200", 143771, [9, 0], 0x2335, 18, 1, None, True),
    "a100x4": (4, "NVIDIA A100-SXM4-80GB", 81920, [8, 0], 0x20B2, 12, 1, None, True),
    "mig-a100": (2, "NVIDIA A100-SXM4-40GB", 40960, [8, 0], 0x20B0, 0, 1, None, True),
    "b200x8": (8, "NVIDIA B200", 183359, [10, 0], 0x2901, 18, 1, None, True),
    "rtx4090x2": (2, "NVIDIA GeForce RTX 4090", 24564, [8, 9], 0x2684, 0, None, None, False),
    "rtx3060x1": (1, "NVIDIA GeForce RTX 3060", 12288, [8, 6], 0x2504, 0, None, None, False),
    "t4x1": (1, "Tesla T4", 15360, [7, 5], 0x1EB8, 0, 1, 0, False),
    "v100x4": (4, "Tesla V100-SXM2-32GB", 32768, [7, 0], 0x1DB5, 6, 1, 0, False),
    "gb10": (1, "NVIDIA GB10", None, [12, 1], 0x2E12, 0, None, None, False),
}
READ = """
def value(function, *args):
    try:
        return function(*args)
    except nv.NVMLError_NotSupported:
        return None

def links(gpu):
    return sum(value(nv.nvmlDeviceGetNvLinkState, gpu, link) == 1 for link in range(nv.NVML_NVLINK_MAX_LINKS))

def memory(gpu):
    found = value(nv.nvmlDeviceGetMemoryInfo, gpu)
    return found and found.total

emit([{
    "name": nv.nvmlDeviceGetName(g),
    "memory": memory(g),
    "capability": nv.nvmlDeviceGetCudaComputeCapability(g),
    "device": nv.nvmlDeviceGetPciInfo(g).pciDeviceId,
    "bus_id": nv.nvmlDeviceGetPciInfo(g).busId,
    "uuid": nv.nvmlDeviceGetUUID(g),
    "links": links(g),
    "ecc": value(nv.nvmlDeviceGetCurrentEccMode, g),
    "retired": value(lambda: len(nv.nvmlDeviceGetRetiredPages(g, 0))),
    "remap": value(nv.nvmlDeviceGetRemappedRows, g),
} for g in gpus])
"""
EVERYTHING = """
import inspect
odd, read = [], 0
for name, function in sorted(vars(nv).items()):
    if not name.startswith("nvmlDeviceGet") or not inspect.isfunction(function):
        continue
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if required not in (["handle"], ["device"]):
        continue
    for gpu in gpus:
        try:
            function(gpu)
            read += 1
        except nv.NVMLError as error:
            if error.value not in (3, 13):
                odd.append([name, error.value])
        except nv.NVMLLibraryMismatchError:
            pass
emit([read, odd])
"""


def test_the_table_has_every_profile() -> None:
    assert sorted(EXPECTED) == sorted(set(profiles.names()) - {"none"})


@pytest.mark.parametrize("profile", sorted(EXPECTED))
def test_identity_and_abilities(node: Callable[..., Any], profile: str) -> None:
    count, name, memory, capability, device, links, ecc, retired, remap = EXPECTED[profile]
    found = node(profile).python(READ)
    assert len(found) == count
    assert len({gpu["uuid"] for gpu in found}) == count
    assert len({gpu["bus_id"] for gpu in found}) == count
    for gpu in found:
        assert gpu["name"] == name
        assert gpu["memory"] == (memory * MIB if memory else None)
        assert gpu["capability"] == capability
        assert gpu["device"] == device << 16 | 0x10DE
        assert gpu["links"] == links
        assert gpu["ecc"] == ecc
        assert gpu["retired"] == retired
        assert (gpu["remap"] is not None) == remap


@pytest.mark.parametrize("profile", sorted(EXPECTED))
def test_every_plain_getter_has_a_value_or_says_not_supported(node: Callable[..., Any], profile: str) -> None:
    read, odd = node(profile).python(EVERYTHING)
    assert odd == []
    assert read >= 30 * EXPECTED[profile][0]


def test_simulated_data_is_recognisable(node: Callable[..., Any]) -> None:
    uuid, serial, version = node("h100x8").python(
        "library = ctypes.CDLL('libnvidia-ml.so.1')\n"
        "library.simnvmlVersion.restype = ctypes.c_char_p\n"
        "emit([nv.nvmlDeviceGetUUID(gpus[2]), nv.nvmlDeviceGetSerial(gpus[2]), library.simnvmlVersion().decode()])"
    )
    assert uuid == "GPU-00000003-aaaa-bbbb-cccc-000000000003"
    assert serial == "1650000000003"
    assert version


def test_a_node_without_gpu_has_no_driver(node: Callable[..., Any], uninitialised: str) -> None:
    assert node("none").python("emit(code(nv.nvmlInit))", start=uninitialised) == 9


def test_versions(node: Callable[..., Any]) -> None:
    found = node("h100x8").python(
        "emit([nv.nvmlSystemGetDriverVersion(), nv.nvmlSystemGetNVMLVersion(), nv.nvmlSystemGetCudaDriverVersion()])"
    )
    assert found == ["580.105.08", "13.580.105.08", 13000]


def test_links_end_at_the_switches_of_the_board(node: Callable[..., Any]) -> None:
    kinds, buses = node("h100x8").python(
        "r = range(18)\nemit([[nv.nvmlDeviceGetNvLinkRemoteDeviceType(gpus[0], i) for i in r],"
        " [nv.nvmlDeviceGetNvLinkRemotePciInfo(gpus[0], i).busId for i in r]])"
    )
    assert set(kinds) == {2}
    assert set(buses) == {f"00000000:{bus:02X}:00.0" for bus in (5, 6, 7, 8)}


def test_links_of_a_mesh_end_at_the_peers(node: Callable[..., Any]) -> None:
    buses = node("v100x4").python("emit([nv.nvmlDeviceGetNvLinkRemotePciInfo(gpus[1], i).busId for i in range(6)])")
    assert buses == [f"00000000:{bus}:00.0" for bus in ("15", "15", "3A", "3A", "3B", "3B")]


def test_topology_and_affinity(node: Callable[..., Any]) -> None:
    near, far, words, set_of_cpu = node("h100x8").python(
        "emit([nv.nvmlDeviceGetTopologyCommonAncestor(gpus[0], gpus[1]),"
        " nv.nvmlDeviceGetTopologyCommonAncestor(gpus[0], gpus[7]),"
        " list(nv.nvmlDeviceGetCpuAffinity(gpus[7], 2)),"
        " [nv.nvmlDeviceGetIndex(g) for g in nv.nvmlSystemGetTopologyGpuSet(60)]])"
    )
    assert (near, far) == (40, 50)
    assert words == [0xFF00000000000000, 0x0000FFFFFFFFFFFF]
    assert set_of_cpu == [4, 5, 6, 7]


def test_memory_versions_agree(node: Callable[..., Any]) -> None:
    one, two = node("h100x8").python(
        "a = nv.nvmlDeviceGetMemoryInfo(gpus[0])\nb = nv.nvmlDeviceGetMemoryInfo(gpus[0], nv.nvmlMemory_v2)\n"
        "emit([[a.total, a.free, a.used], [b.total, b.reserved, b.free, b.used]])"
    )
    assert one[0] == two[0] == sum(two[1:]) == sum(one[1:])
    assert one[2] == two[1] + two[3]
