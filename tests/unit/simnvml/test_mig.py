# SPDX-License-Identifier: Apache-2.0
"""The MIG life cycle: mode, instances, places, conflicts, devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

HELPERS = """
from ctypes import byref

def create(profile):
    try:
        return nv.nvmlGpuInstanceGetInfo(nv.nvmlDeviceCreateGpuInstance(gpus[0], profile)).id
    except nv.NVMLError as error:
        return -error.value

def places(profile):
    instance = nv.nvmlDeviceCreateGpuInstance(gpus[0], profile)
    info = nv.nvmlGpuInstanceGetInfo(instance)
    return [info.placement.start, info.placement.size]
"""
ONE, TWO, THREE, FOUR, SEVEN = 19, 14, 9, 5, 0
NO_ROOM, IN_USE, NOT_SUPPORTED = 23, 19, 3


@pytest.fixture
def divided(node: Callable[..., Any]) -> Any:
    """A node whose first GPU is in MIG mode, without instances."""
    machine = node("a100x4")
    machine.python("emit(nv.nvmlDeviceSetMigMode(gpus[0], 1))")
    return machine


def test_the_mode_is_seen_and_survives_a_boot(divided: Any) -> None:
    assert divided.python("emit([nv.nvmlDeviceGetMigMode(g) for g in gpus])") == [[1, 1], [0, 0], [0, 0], [0, 0]]
    divided.ctl("boot")
    assert divided.python("emit(nv.nvmlDeviceGetMigMode(gpus[0]))") == [1, 1]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ([ONE] * 8, [13, 11, 12, 7, 8, 9, 10, -NO_ROOM]),
        ([ONE, TWO, FOUR, THREE], [13, 5, 1, -NO_ROOM]),
        ([THREE, THREE, ONE], [2, 1, -NO_ROOM]),
        ([SEVEN, ONE], [0, -NO_ROOM]),
        ([TWO, TWO, TWO, ONE], [5, 3, 4, 13]),
    ],
)
def test_instances_lie_where_the_driver_puts_them(divided: Any, wanted: list[int], ids: list[int]) -> None:
    assert divided.python(f"{HELPERS}\nemit([create(p) for p in {wanted}])") == ids


def test_a_place_can_be_chosen_once(divided: Any) -> None:
    found = divided.python(
        f"{HELPERS}\nplace = nv.c_nvmlGpuInstancePlacement_t(4, 2)\n"
        "first = nv.nvmlDeviceCreateGpuInstanceWithPlacement(gpus[0], 14, byref(place))\n"
        "emit([nv.nvmlGpuInstanceGetInfo(first).id,"
        " code(nv.nvmlDeviceCreateGpuInstanceWithPlacement, gpus[0], 14, byref(place))])"
    )
    assert found == [5, NO_ROOM]


def test_capacity_shrinks(divided: Any) -> None:
    found = divided.python(
        f"{HELPERS}\nbefore = nv.nvmlDeviceGetGpuInstanceRemainingCapacity(gpus[0], 19)\ncreate(9)\n"
        "emit([before, nv.nvmlDeviceGetGpuInstanceRemainingCapacity(gpus[0], 19),"
        " nv.nvmlDeviceGetGpuInstanceRemainingCapacity(gpus[0], 0)])"
    )
    assert found == [7, 4, 0]


def test_the_whole_life(divided: Any) -> None:
    created = divided.python(
        f"{HELPERS}\ninstance = nv.nvmlDeviceCreateGpuInstance(gpus[0], 9)\n"
        "compute = nv.nvmlGpuInstanceCreateComputeInstance(instance, 0)\n"
        "rest = nv.nvmlGpuInstanceCreateComputeInstance(instance, 1)\n"
        "emit([nv.nvmlComputeInstanceGetInfo(rest).placement.start,"
        " code(nv.nvmlGpuInstanceCreateComputeInstance, instance, 0), code(nv.nvmlGpuInstanceDestroy, instance),"
        " code(nv.nvmlDeviceSetMigMode, gpus[0], 0)])"
    )
    assert created == [1, NO_ROOM, IN_USE, IN_USE]
    seen = divided.python(
        "devices = [nv.nvmlDeviceGetMigDeviceHandleByIndex(gpus[0], i) for i in range(2)]\n"
        "emit([[nv.nvmlDeviceGetName(d), nv.nvmlDeviceGetUUID(d), nv.nvmlDeviceGetGpuInstanceId(d),"
        " nv.nvmlDeviceGetComputeInstanceId(d), nv.nvmlDeviceGetMemoryInfo(d).total // 1048576,"
        " nv.nvmlDeviceGetAttributes(d).multiprocessorCount, nv.nvmlDeviceGetIndex(d),"
        " nv.nvmlDeviceIsMigDeviceHandle(d).value] for d in devices]"
        " + [code(nv.nvmlDeviceGetMigDeviceHandleByIndex, gpus[0], 2)])"
    )
    name = "NVIDIA A100-SXM4-80GB MIG"
    assert seen[0] == [f"{name} 1c.3g.40gb", "MIG-00000001-aaaa-0002-0000-000000000001", 2, 0, 40192, 14, 0, 1]
    assert seen[1] == [f"{name} 2c.3g.40gb", "MIG-00000001-aaaa-0002-0001-000000000001", 2, 1, 40192, 28, 1, 1]
    assert seen[2] == 6
    destroyed = divided.python(
        "instance = nv.nvmlDeviceGetGpuInstanceById(gpus[0], 2)\n"
        "for i in (0, 1):\n    nv.nvmlComputeInstanceDestroy(nv.nvmlGpuInstanceGetComputeInstanceById(instance, i))\n"
        "nv.nvmlGpuInstanceDestroy(instance)\n"
        "emit([code(nv.nvmlGpuInstanceGetInfo, instance), code(nv.nvmlDeviceGetGpuInstanceById, gpus[0], 2),"
        " nv.nvmlDeviceSetMigMode(gpus[0], 0), nv.nvmlDeviceGetMigMode(gpus[0])])"
    )
    assert destroyed == [2, 6, 0, [0, 0]]


def test_a_process_keeps_its_compute_instance(divided: Any) -> None:
    divided.python(
        "instance = nv.nvmlDeviceCreateGpuInstance(gpus[0], 19)\nnv.nvmlGpuInstanceCreateComputeInstance(instance, 0)"
    )
    divided.put("gpu.0.proc.0", "1 C 1048576 13 0")
    found = divided.python(
        "instance = nv.nvmlDeviceGetGpuInstanceById(gpus[0], 13)\n"
        "compute = nv.nvmlGpuInstanceGetComputeInstanceById(instance, 0)\n"
        "emit(code(nv.nvmlComputeInstanceDestroy, compute))"
    )
    assert found == IN_USE


def test_the_mode_waits_for_a_busy_gpu(node: Callable[..., Any]) -> None:
    busy = node("a100x4")
    busy.put("gpu.0.proc.0", "1 C 1048576")
    found = busy.python("emit([nv.nvmlDeviceSetMigMode(gpus[0], 1), nv.nvmlDeviceGetMigMode(gpus[0])])")
    assert found == [IN_USE, [0, 1]]
    busy.ctl("gpu-reset", "0")
    assert busy.python("emit(nv.nvmlDeviceGetMigMode(gpus[0]))") == [1, 1]


def test_instances_need_the_mode(node: Callable[..., Any]) -> None:
    assert node("a100x4").python("emit(code(nv.nvmlDeviceCreateGpuInstance, gpus[0], 19))") == NOT_SUPPORTED


def test_the_divided_profile(node: Callable[..., Any]) -> None:
    names, utilization, second = node("mig-a100").python(
        "devices = [nv.nvmlDeviceGetMigDeviceHandleByIndex(gpus[0], i) for i in range(3)]\n"
        "emit([[nv.nvmlDeviceGetName(d).split()[-1] for d in devices], code(nv.nvmlDeviceGetUtilizationRates, gpus[0]),"
        " [nv.nvmlDeviceGetMigMode(gpus[1]), code(nv.nvmlDeviceGetMigDeviceHandleByIndex, gpus[1], 0)]])"
    )
    assert names == ["3g.20gb", "2g.10gb", "1g.5gb"]
    assert utilization == NOT_SUPPORTED
    assert second == [[0, 0], 6]


def test_a_device_is_found_by_its_uuid(node: Callable[..., Any]) -> None:
    found = node("mig-a100").python(
        "device = nv.nvmlDeviceGetHandleByUUID('MIG-00000001-aaaa-0004-0000-000000000001')\n"
        "parent = nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)\n"
        "emit([nv.nvmlDeviceGetGpuInstanceId(device), nv.nvmlDeviceGetIndex(parent)])"
    )
    assert found == [4, 0]
