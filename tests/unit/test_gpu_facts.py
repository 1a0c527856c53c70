# SPDX-License-Identifier: Apache-2.0
"""The module on simulated nodes: every profile and every failure, through both bindings, always honest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.simulated_node import CLOSED_MODULE, ROOT, SimulatedNode, profiles

from ansible.module_utils.rackwright.record import null_paths
from ansible.module_utils.rackwright.situation import SITUATIONS

SCHEMA = json.loads((ROOT / "docs/schema/gpu.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BINDINGS = ("auto", "ctypes")
VOLATILE = ("collected_at", "duration_ms", "source")

MakeNode = Callable[..., SimulatedNode]


@pytest.fixture
def node(tmp_path: Path) -> MakeNode:
    def make(profile: str = "h100x8", **options: Any) -> SimulatedNode:
        return SimulatedNode(tmp_path, profile, **options)

    return make


def assert_honest(gpu: dict[str, Any]) -> None:
    """The fact fits its schema, and exactly the values that are null have a reason."""
    errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in VALIDATOR.iter_errors(gpu)]
    assert errors == []
    for device in gpu["devices"]:
        reasons = set(device["missing"])
        assert set(null_paths({k: v for k, v in device.items() if k != "missing"})) == reasons
    top = {key: value for key, value in gpu.items() if key not in ("missing", "devices")}
    assert set(null_paths(top)) == set(gpu["missing"]) - {"source.nvml-pynvml"}
    assert gpu["count"] == sum(device["state"] == "ok" for device in gpu["devices"])


def both(simulated: SimulatedNode, **options: Any) -> dict[str, Any]:
    """Facts through pynvml, after checking that ctypes gives the very same."""
    first, second = (simulated.facts(binding, **options) for binding in BINDINGS)
    for gpu in (first, second):
        assert_honest(gpu)
    assert {k: v for k, v in first.items() if k not in VOLATILE} == {
        k: v for k, v in second.items() if k not in VOLATILE
    }
    return first


def test_schema_is_a_schema_and_names_every_situation() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert tuple(SCHEMA["properties"]["situation"]["enum"]) == SITUATIONS


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_fits_the_schema_through_both_bindings(node: MakeNode, profile: str) -> None:
    simulated = node(profile)
    gpu = both(simulated)
    expected = "ready" if simulated.pci_count else "no_gpu"
    assert (gpu["situation"], gpu["count"], gpu["pci_count"]) == (expected, simulated.pci_count, simulated.pci_count)
    assert gpu["simulated"] is True
    assert [device["pci"]["address"] for device in gpu["devices"]] == simulated.pci_addresses
    assert all(device["catalogue_id"] for device in gpu["devices"])


def test_hgx_node_is_described_completely(node: MakeNode) -> None:
    gpu = both(node("h100x8"))
    assert gpu["cause"] == "8 simulated GPUs answer through NVML."
    driver, device = gpu["driver"], gpu["devices"][3]
    assert (driver["kernel_module_version"], driver["flavour"], driver["nouveau_loaded"]) == (
        driver["library_version"],
        "open",
        False,
    )
    assert (device["catalogue_id"], device["architecture"], device["compute_capability"]) == (
        "h100-sxm5-80gb",
        "hopper",
        "9.0",
    )
    assert len(device["nvlink"]["links"]) == 18
    assert {link["remote_type"] for link in device["nvlink"]["links"]} == {"switch"}
    assert gpu["topology"]["matrix"][0][:3] == ["X", "NV18", "NV18"]
    assert gpu["topology"]["nvswitch_count"] == 4


def test_unified_memory_is_the_systems(node: MakeNode) -> None:
    device = both(node("gb10"))["devices"][0]
    assert device["memory"] == {
        "type": "unified",
        "total_bytes": 125829120 * 1024,
        "free_bytes": 104857600 * 1024,
        "used_bytes": (125829120 - 104857600) * 1024,
    }
    assert (device["catalogue_id"], device["architecture"]) == ("gb10-dgx-spark", "blackwell")


def test_mig_instances_are_listed(node: MakeNode) -> None:
    devices = both(node("mig-a100"))["devices"]
    mig = devices[0]["mig"]
    assert (mig["mode"], mig["pending"]) == ("enabled", "enabled")
    assert mig["instances"]
    for instance in mig["instances"]:
        assert instance["uuid"].startswith("MIG-")
        assert 0 < instance["memory_total_bytes"] < devices[0]["memory"]["total_bytes"]
    assert len({instance["uuid"] for instance in mig["instances"]}) == len(mig["instances"])


def test_mig_instances_that_may_not_be_read_are_not_called_none(node: MakeNode) -> None:
    simulated = node("mig-a100").set("fail.nvmlDeviceGetMigDeviceHandleByIndex", "NO_PERMISSION")
    device = both(simulated)["devices"][0]
    assert (device["mig"]["mode"], device["mig"]["instances"]) == ("enabled", None)
    assert "may not read it" in device["missing"]["mig.instances"]


def test_bindings_are_named(node: MakeNode) -> None:
    simulated = node("rtx4090x2")
    assert simulated.facts()["source"] == "nvml-pynvml"
    assert simulated.facts("ctypes")["source"] == "nvml-ctypes"


def test_proprietary_module_is_told_from_its_own_words(node: MakeNode) -> None:
    assert node("rtx4090x2", module=CLOSED_MODULE).facts()["driver"]["flavour"] == "proprietary"


# -- situations ----------------------------------------------------------------------------------------------------


def test_no_driver_still_tells_the_architecture(node: MakeNode) -> None:
    gpu = both(node("h100x8", driver=False))
    assert (gpu["situation"], gpu["source"], gpu["count"], gpu["pci_count"]) == ("no_driver", "pci-sysfs", 0, 8)
    device = gpu["devices"][0]
    assert (device["architecture"], device["compute_capability"]) == ("hopper", "9.0")
    assert device["catalogue_candidates"] == ["h100-sxm5-80gb"]
    assert device["catalogue_id"] is None
    assert "only the NVIDIA driver knows it" in device["missing"]["uuid"]


def test_nouveau_is_named_as_the_holder(node: MakeNode) -> None:
    simulated = node("rtx4090x2", driver=False).write("proc/modules", "nouveau 1 0 - Live 0x0\n")
    gpu = both(simulated)
    assert (gpu["situation"], gpu["driver"]["nouveau_loaded"]) == ("nouveau_in_use", True)


def test_module_not_loaded(node: MakeNode) -> None:
    simulated = node("h100x8").unload_module().set("fail.init", "DRIVER_NOT_LOADED")
    gpu = both(simulated)
    assert (gpu["situation"], gpu["source"], gpu["driver"]["kernel_module_version"]) == (
        "driver_not_loaded",
        "pci-sysfs",
        None,
    )
    assert gpu["driver"]["library_version"] == simulated.version


def test_version_mismatch_names_both_versions(node: MakeNode) -> None:
    simulated = node("h100x8").load_module("535.261.03").set("fail.init", "LIB_RM_VERSION_MISMATCH")
    gpu = both(simulated)
    assert gpu["situation"] == "version_mismatch"
    assert gpu["cause"] == (f"The kernel module 535.261.03 is loaded, but the NVIDIA library is {simulated.version}.")
    assert gpu["next_step"].startswith("Reboot")


def test_no_permission_at_init(node: MakeNode) -> None:
    gpu = both(node("h100x8").set("fail.init", "NO_PERMISSION"))
    assert (gpu["situation"], gpu["count"]) == ("no_permission", 0)


def test_unknown_init_error_is_named_with_its_number(node: MakeNode) -> None:
    gpu = both(node("h100x8").set("fail.init", "UNKNOWN"))
    assert gpu["situation"] == "nvml_error"
    assert "(NVML 999)" in gpu["cause"]


def test_lost_gpu_is_named_by_index_and_address(node: MakeNode) -> None:
    simulated = node("h100x8").set("gpu.3.fail", "GPU_IS_LOST")
    gpu = both(simulated)
    address = simulated.pci_addresses[3]
    assert (gpu["situation"], gpu["count"], gpu["lost_pci_addresses"]) == ("gpu_lost", 7, [address])
    assert f"GPU 3 at {address} is lost" in gpu["cause"]
    device = gpu["devices"][3]
    assert (device["state"], device["error_code"], device["uuid"]) == ("lost", 15, None)
    assert gpu["topology"]["matrix"][0][3] is None
    assert gpu["topology"]["matrix"][0][4] == "NV18"


def test_two_silent_gpus_are_not_given_an_address_by_guess(node: MakeNode) -> None:
    simulated = node("h100x8").set("gpu.3.fail", "GPU_IS_LOST").set("gpu.5.fail", "GPU_IS_LOST")
    gpu = both(simulated)
    assert gpu["lost_pci_addresses"] == [simulated.pci_addresses[3], simulated.pci_addresses[5]]
    assert [gpu["devices"][n]["pci"]["address"] for n in (3, 5)] == [None, None]
    assert all(address in gpu["cause"] for address in gpu["lost_pci_addresses"])


@pytest.mark.parametrize("calls", [1, 2, 5, 40, 90, 130])
def test_gpu_falling_off_during_the_probe_is_lost_and_the_rest_is_kept(node: MakeNode, calls: int) -> None:
    simulated = node("h100x8").set("gpu.3.fail", "GPU_IS_LOST").set("gpu.3.fail_after", calls)
    for binding in BINDINGS:
        gpu = simulated.facts(binding)
        assert_honest(gpu)
        assert (gpu["situation"], gpu["devices"][3]["state"], gpu["count"]) == ("gpu_lost", "lost", 7)


def test_lost_gpu_is_not_asked_again_and_again(node: MakeNode) -> None:
    simulated = node("h100x8")
    simulated.facts()
    healthy = len(simulated.called())
    simulated.trace.unlink()
    simulated.set("gpu.3.fail", "GPU_IS_LOST").facts()
    assert len(simulated.called()) < healthy * 0.92


def test_missing_gpu_is_named_by_its_address(node: MakeNode) -> None:
    simulated = node("h100x8").set("count", 7)
    gpu = both(simulated)
    assert (gpu["situation"], gpu["count"], gpu["pci_count"]) == ("gpu_lost", 7, 8)
    assert gpu["lost_pci_addresses"] == [simulated.pci_addresses[7]]
    assert simulated.pci_addresses[7] in gpu["cause"]


def test_driver_that_shows_none_of_the_gpus(node: MakeNode) -> None:
    simulated = node("h100x8").set("count", 0)
    gpu = both(simulated)
    assert (gpu["situation"], gpu["count"], gpu["lost_pci_addresses"]) == ("gpu_lost", 0, simulated.pci_addresses)


def test_reset_required(node: MakeNode) -> None:
    gpu = both(node("h100x8").set("gpu.2.fail", "RESET_REQUIRED"))
    assert (gpu["situation"], gpu["count"], gpu["devices"][2]["state"]) == ("gpu_reset_required", 7, "reset_required")
    assert "-i 2" in gpu["next_step"]


def test_one_forbidden_gpu(node: MakeNode) -> None:
    gpu = both(node("h100x8").set("gpu.1.fail", "NO_PERMISSION"))
    assert (gpu["situation"], gpu["count"]) == ("no_permission", 7)


VALUES = {
    "temp.gpu": "temperature.gpu_celsius",
    "power.draw": "power.draw_watts",
    "ecc.current": "ecc.current",
    "serial": "serial",
    "pcie.replay": "pcie.replay_count",
    "persistence": "persistence_mode",
    "event.reasons": "throttle.reasons",
    "recovery_action": "recovery_action",
}


@pytest.mark.parametrize(("answer", "code"), [("N/A", 3), ("!UNKNOWN", 999), ("!TIMEOUT", 10), ("!NO_PERMISSION", 4)])
@pytest.mark.parametrize("key", VALUES)
def test_one_bad_value_costs_only_itself(node: MakeNode, key: str, answer: str, code: int) -> None:
    gpu = node("rtx4090x2").set(f"gpu.1.{key}", answer).facts("ctypes")
    assert_honest(gpu)
    device = gpu["devices"][1]
    assert device["missing"][VALUES[key]].endswith(f"(NVML {code})")
    assert (gpu["situation"], device["state"], gpu["devices"][0]["name"]) == ("ready", "ok", device["name"])


def test_failing_function_is_an_older_driver(node: MakeNode) -> None:
    """The everyday case with a distribution's driver: newer functions are not there, their older twins are."""
    simulated = node("h100x8").set("fail.nvmlDeviceGetCurrentClocksEventReasons", "FUNCTION_NOT_FOUND")
    simulated.set("fail.nvmlDeviceGetGpuFabricInfoV", "FUNCTION_NOT_FOUND")
    gpu = both(simulated.set("fail.nvmlDeviceGetGraphicsRunningProcesses_v3", "FUNCTION_NOT_FOUND"))
    device = gpu["devices"][0]
    assert (gpu["situation"], device["throttle"]["reasons"], device["processes"]) == ("ready", ["gpu_idle"], [])


def test_link_that_is_down_is_not_counted(node: MakeNode) -> None:
    gpu = both(node("h100x8").set("gpu.3.nvlink.7.state", 0))
    assert gpu["devices"][3]["nvlink"]["links"][7]["active"] is False
    assert (gpu["topology"]["matrix"][3][0], gpu["topology"]["matrix"][0][1]) == ("NV17", "NV18")


def test_process_carries_its_memory_and_name(node: MakeNode) -> None:
    simulated = node("h100x8").set("gpu.2.proc.0", "4242 C 8589934592").write("proc/4242/comm", "trainer\n")
    assert both(simulated)["devices"][2]["processes"] == [
        {"pid": 4242, "types": ["compute"], "name": "trainer", "used_memory_bytes": 8589934592}
    ]


def test_unknown_gpu_has_no_catalogue_id_but_its_architecture(node: MakeNode) -> None:
    simulated = node("h100x8").set("gpu.name", "NVIDIA H999 96GB")
    device = both(simulated)["devices"][0]
    assert (device["catalogue_id"], device["architecture"]) == (None, "hopper")
    assert "'NVIDIA H999 96GB'" in device["missing"]["catalogue_id"]


def test_site_can_add_its_own_model(node: MakeNode) -> None:
    row = {"id": "h999", "nvml_names": ["NVIDIA H999 96GB"], "pci_device_ids": ["2330"], "memory_gb": 80}
    gpu = node("h100x8").set("gpu.name", "NVIDIA H999 96GB").facts(extra_gpus=[row])
    assert_honest(gpu)
    assert gpu["devices"][0]["catalogue_id"] == "h999"


# -- hanging, crashing, slow ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetName", "nvmlDeviceGetP2PStatus"])
def test_hanging_driver_is_reported_in_time(node: MakeNode, function: str) -> None:
    started = time.monotonic()
    gpu = node("h100x8").set(f"crash.{function}", "hang").facts(timeout=1)
    assert time.monotonic() - started < 10
    assert_honest(gpu)
    assert (gpu["situation"], gpu["source"], gpu["count"], gpu["pci_count"]) == ("driver_hung", "pci-sysfs", 0, 8)
    assert "no answer within 1 s" in gpu["cause"]
    assert gpu["simulated"] is True


def test_hanging_driver_fails_the_task_when_asked_to(node: MakeNode) -> None:
    result = node("h100x8").set("crash.nvmlDeviceGetName", "hang").run(timeout=0.5, on_timeout="fail")
    assert result["failed"] is True
    assert result["msg"].startswith("Could not read the GPU facts on this node: The NVIDIA driver does not answer")
    assert (result["expected"], result["found"], result["kind"]) == ("<= 0.5 s", "no answer", "timed_out")


@pytest.mark.parametrize(("how", "sign"), [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "status 1")])
def test_crashing_library_is_reported(node: MakeNode, how: str, sign: str) -> None:
    gpu = both(node("h100x8").set("crash.nvmlDeviceGetSerial", how))
    assert (gpu["situation"], gpu["count"]) == ("driver_crashed", 0)
    assert sign in gpu["cause"]


def test_kernel_files_that_never_answer_are_a_hung_driver(node: MakeNode) -> None:
    simulated = node("rtx4090x2")
    version = simulated.sysroot / "proc/driver/nvidia/version"
    version.unlink()
    os.mkfifo(version)  # reading it blocks, as the file of a driver that holds its lock for ever does
    gpu = simulated.facts(timeout=0.5)
    assert_honest(gpu)
    assert (gpu["situation"], gpu["pci_count"], gpu["count"]) == ("driver_hung", None, 0)


def test_slow_driver_is_waited_for(node: MakeNode) -> None:
    gpu = node("rtx4090x2").set("delay_ms.nvmlDeviceGetName", 300).facts(timeout=10)
    assert gpu["situation"] == "ready"
    assert gpu["duration_ms"] > 600


# -- places --------------------------------------------------------------------------------------------------------


def in_container(simulated: SimulatedNode) -> SimulatedNode:
    return simulated.write("run/.containerenv", "")


def test_container_with_some_of_the_gpus_has_lost_none(node: MakeNode) -> None:
    simulated = in_container(node("h100x8").set("count", 2))
    for number in range(2, 8):
        (simulated.sysroot / f"dev/nvidia{number}").unlink()
    gpu = both(simulated)
    assert (gpu["situation"], gpu["count"], gpu["platform"], gpu["lost_pci_addresses"]) == ("ready", 2, "container", [])
    assert "the other 6 of 8 NVIDIA GPUs are not given to this container" in gpu["cause"]


def test_container_without_devices(node: MakeNode) -> None:
    simulated = in_container(node("h100x8").set("fail.init", "DRIVER_NOT_LOADED"))
    for device in (simulated.sysroot / "dev").glob("nvidia*"):
        device.unlink()
    gpu = both(simulated)
    assert gpu["situation"] == "container_without_devices"
    assert "has no /dev/nvidia* devices" in gpu["cause"]


def test_container_that_lost_its_device_permission(node: MakeNode) -> None:
    gpu = both(in_container(node("h100x8").set("fail.init", "UNKNOWN")))
    assert gpu["situation"] == "container_without_devices"
    assert "control group" in gpu["cause"]


def test_wsl2_never_suggests_a_linux_driver(node: MakeNode) -> None:
    simulated = node("rtx4090x2").write("proc/version", "Linux version 5.15.90.1-microsoft-standard-WSL2\n")
    simulated.write("dev/dxg", "")
    gpu = both(simulated)
    assert (gpu["situation"], gpu["platform"], gpu["count"]) == ("wsl2", "wsl2", 2)
    assert "never install an NVIDIA driver inside WSL2" in gpu["next_step"]
    broken = both(simulated.set("fail.init", "DRIVER_NOT_LOADED"))
    assert (broken["situation"], broken["count"]) == ("wsl2", 0)
    assert "driver of Windows" in broken["next_step"]


def test_gpu_given_to_a_virtual_machine_is_not_lost(node: MakeNode) -> None:
    simulated = node("h100x8").set("count", 7)
    device = simulated.sysroot / "sys/bus/pci/devices" / simulated.pci_addresses[7]
    (device / "driver").symlink_to("../../../../bus/pci/drivers/vfio-pci")
    assert both(simulated)["situation"] == "ready"


def test_unreadable_pci_bus_is_not_zero_gpus(node: MakeNode) -> None:
    simulated = node("rtx4090x2")
    (simulated.sysroot / "sys/bus/pci/devices").rename(simulated.sysroot / "sys/elsewhere")
    gpu = both(simulated)
    assert (gpu["situation"], gpu["count"], gpu["pci_count"]) == ("ready", 2, None)
    assert gpu["devices"][0]["numa_node"] is None


# -- promises ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binding", BINDINGS)
def test_nothing_is_ever_set(node: MakeNode, binding: str) -> None:
    simulated = node("h100x8")
    simulated.facts(binding)
    called = set(simulated.called())
    assert "nvmlDeviceGetName" in called
    assert {name for name in called if "Get" not in name} <= {"nvmlInit_v2", "nvmlInitWithFlags", "nvmlShutdown"}
    assert not (simulated.conf.parent / "run/state.conf").exists()


def test_check_mode_gives_the_same(node: MakeNode) -> None:
    simulated = node("rtx4090x2")
    normal, check = simulated.run(), simulated.run(_ansible_check_mode=True)
    assert (normal["changed"], check["changed"]) == (False, False)
    assert {**check["ansible_facts"]["gpu"], "collected_at": 0, "duration_ms": 0} == {
        **normal["ansible_facts"]["gpu"],
        "collected_at": 0,
        "duration_ms": 0,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "Could not use the option timeout on gpu_facts: it is 0."),
        ({"timeout": 1e9}, "more than 0 and at most 3600"),
        ({"extra_gpus": [{"id": "x"}]}, "Could not use a row on extra_gpus[0]: it lacks nvml_names, pci_device_ids."),
        ({"on_timeout": "ignore"}, "value of on_timeout must be one of"),
    ],
)
def test_wrong_options_are_refused(node: MakeNode, options: dict[str, Any], words: str) -> None:
    result = node("none").run(**options)
    assert result["failed"] is True
    assert words in result["msg"]


# -- what only a check of health asks ------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", profiles())
def test_the_part_health_fits_the_schema_through_both_bindings(node: MakeNode, profile: str) -> None:
    gpu = both(node(profile), health=True)
    assert all("health" in device for device in gpu["devices"])


def test_facts_have_no_part_health_unless_asked_and_ask_nothing_for_it(node: MakeNode) -> None:
    simulated = node("h100x8")
    assert all("health" not in device for device in simulated.facts()["devices"])
    assert "nvmlDeviceGetNvLinkErrorCounter" not in simulated.called()


HEALTH_VALUES = {
    "ecc.volatile.uncorrected.dram": ("3", "ecc.volatile.uncorrected.dram", 3),
    "ecc.aggregate.uncorrected.sram_parity": ("2", "ecc.aggregate.uncorrected.sram", 2),
    "ecc.sram_threshold_exceeded": ("1", "ecc.sram_threshold_exceeded", True),
    "repair.channel_pending": ("1", "repair.channel_pending", True),
    "repair.tpc_pending": ("1", "repair.tpc_pending", True),
    "inforom.valid": ("0", "inforom.valid", False),
    "violation.hw_power_brake": ("7000000000", "event_counters_ns.hw_power_brake_slowdown", 7_000_000_000),
    "clock.app.graphics": ("1200", "clocks.application_graphics_mhz", 1200),
    "fabric.health_mask": ("0x119", "fabric.route_unhealthy", True),
    "temp.margin": ("-2", "temperature.margin_celsius", -2),
    "memory.reserved": ("1048576", "memory.reserved_bytes", 1048576),
}


@pytest.mark.parametrize("key", HEALTH_VALUES)
def test_each_value_of_health_is_read_where_it_is(node: MakeNode, key: str) -> None:
    value, path, expected = HEALTH_VALUES[key]
    device = both(node("h100x8").set(f"gpu.2.{key}", value), health=True)["devices"][2]
    found = device["health"]
    for part in path.split("."):
        found = found[part]
    assert found == expected


def test_fabric_bits_are_told_apart(node: MakeNode) -> None:
    # degraded bandwidth true, route recovery false, route unhealthy true, access timeout false, no partition
    mask = 1 | 2 << 2 | 1 << 4 | 2 << 6 | 4 << 8
    health = both(node("h100x8").set("gpu.0.fabric.health_mask", mask), health=True)["devices"][0]["health"]
    assert health["fabric"] == {
        "degraded_bandwidth": True,
        "route_recovery": False,
        "route_unhealthy": True,
        "access_timeout_recovery": False,
        "incorrect_configuration": "no_partition",
    }


def test_nvlink_counters_are_lists_by_link(node: MakeNode) -> None:
    simulated = node("h100x8").set("gpu.1.nvlink.5.error.replay", 9).set("gpu.1.nvlink.7.state", 0)
    device = both(simulated, health=True)["devices"][1]
    nvlink = device["health"]["nvlink"]
    assert (len(nvlink["replay"]), nvlink["replay"][5], nvlink["replay"][7]) == (18, 9, None)
    assert "health.nvlink.replay.7" in device["missing"]
    assert nvlink["speed_mbps"][0] == 26562
    assert nvlink["effective_ber"] is None


def test_fifth_generation_links_tell_their_bit_error_rate(node: MakeNode) -> None:
    simulated = node("b200x8").set("gpu.0.nvlink.3.error.effective_ber", 2 << 8 | 12)
    nvlink = both(simulated.set("gpu.0.nvlink.3.error.recovery_failed", 1), health=True)["devices"][0]["health"][
        "nvlink"
    ]
    assert nvlink["effective_ber"][3] == pytest.approx(2e-12)
    assert (nvlink["recovery_failed"][3], nvlink["recovery_failed"][2]) == (1, 0)


def test_an_older_driver_costs_only_what_it_lacks(node: MakeNode) -> None:
    simulated = node("h100x8").set("generation", 535)
    device = both(simulated, health=True)["devices"][0]
    assert device["health"]["repair"]["channel_pending"] is None
    assert "does not offer it" in device["missing"]["health.repair.channel_pending"]
    assert device["health"]["ecc"]["volatile"]["uncorrected"]["sram"] == 0


def test_a_lost_gpu_has_a_reason_for_every_value_of_health(node: MakeNode) -> None:
    device = both(node("h100x8").set("gpu.3.fail", "GPU_IS_LOST"), health=True)["devices"][3]
    assert set(null_paths(device["health"], "health")) <= set(device["missing"])
    assert device["health"]["inforom"]["valid"] is None
