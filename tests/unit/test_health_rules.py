# SPDX-License-Identifier: Apache-2.0
"""Every check of health by three rows: what makes it a finding, what does not, what keeps it from being measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from unit import health_samples as samples
from unit.health_samples import ABSENT, BOOT, Missing

from ansible.module_utils.rackwright import health, kernel_events
from ansible.module_utils.rackwright.health_record import (
    ACTIONS,
    FINDING,
    NOT_APPLICABLE,
    NOT_MEASURED,
    OK,
    STATES,
    findings,
    rank,
    worst,
)
from ansible.module_utils.rackwright.health_table import RULES

Patch = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """``bad`` makes a finding of this severity, ``fine`` (with the healthy rest) does not, ``unread`` cannot be judged.

    ``words`` are in the reason of the finding, ``actions`` the beginning of its actions.
    """

    check: str
    bad: Patch
    severity: str
    fine: Patch = field(default_factory=dict)
    unread: Patch = field(default_factory=dict)
    words: str = ""
    actions: tuple[str, ...] = ()


def event(text: str, **more: Any) -> dict[str, Any]:
    """The event that a line of the kernel tells of."""
    line = {"time": samples.EARLIER, "boot_id": BOOT, "text": text, **more}
    [found] = kernel_events.parse([line], now=None)
    return found


XID_79 = "NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID_13 = "NVRM: Xid (PCI:0000:1b:00): 13, pid=4242, name=python3, Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0)"
SXID = "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up"
MLX5_POWER = (
    "mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 268269): Detected insufficient power on the PCIe slot (27W)."
)
NO_LOG = {"kernel": {"missing": "the journal was not read: journalctl: no such file"}}
NO_FABRIC = {f"gpu.health.fabric.{name}": Missing(ABSENT) for name in samples.device()["health"]["fabric"]}
NO_COUNTERS = {f"gpu.health.nvlink.{name}": Missing() for name in samples.baseline()["gpus"]["GPU-0"]["nvlink_errors"]}
NO_REPAIR = {f"gpu.health.repair.{name}": Missing() for name in ("channel_pending", "tpc_pending")}
EARLIER_COUNTERS = "baseline.gpus.GPU-0.event_counters_ns"
HOUR_NS = 3_600_000_000_000
PORT, DRIVE = samples.host()["nics"][0], samples.host()["nvme"][0]
FAILED_TEST = {"name": "memory", "results": [{"entity_group": "GPU", "entity_id": 0, "status": "Fail", "warnings": []}]}
PASSED_TEST = {"name": "memory", "results": [{"entity_group": "GPU", "entity_id": 0, "status": "Pass"}]}


def diagnostics(*tests: dict[str, Any]) -> Patch:
    return {"dcgm.document": {"DCGM Diagnostic": {"test_categories": [{"category": "Hardware", "tests": list(tests)}]}}}


def logged(text: str) -> Patch:
    return {"kernel.events": [event(text)]}


CASES = [
    # ---- the GPUs as such ----
    Case(
        "gpu.situation",
        {"node.situation": "driver_hung", "node.cause": "The driver does not answer."},
        "reboot",
        {"node.situation": "wsl2"},
        {"node.situation": "no_permission"},
        "The driver does not answer.",
        ("stop_workload", "drain", "collect_bug_report"),
    ),
    Case(
        "gpu.count",
        {"node.count": 1},
        "reboot",
        {"expected.gpu_count": 2},
        {"node.situation": "no_permission"},
        "1 GPU(s) can be used, 2 must be there",
        ("stop_workload", "drain", "restart_node"),
    ),
    Case(
        "gpu.identity",
        {"gpu.uuid": "GPU-9"},
        "monitor",
        {"baseline": {}},
        {"gpu.uuid": Missing(), "node.devices.1.uuid": None},
        "GPU-9 in place of GPU-0",
        ("accept",),
    ),
    Case(
        "gpu.state",
        {"gpu.state": "lost", "gpu.error_code": 15},
        "reboot",
        {},
        {"gpu.state": "no_permission"},
        "the GPU is lost (NVML 15)",
        ("stop_workload", "drain", "restart_node", "power_cycle"),
    ),
    Case(
        "gpu.recovery_action",
        {"gpu.recovery_action": "drain_and_reset"},
        "reset",
        {},
        {"gpu.recovery_action": Missing()},
        "drain and reset",
        ("drain", "stop_workload", "reset_gpu"),
    ),
    Case(
        "coherence",
        {"node.software.fabric_manager.installed": "595.10.01"},
        "reboot",
        {"expected.stack": {"driver": {"version": "580.105.08", "flavour": "open"}}},
        {"node.driver.library_version": None},
        "595.10.01",
        ("fix_configuration", "run_site"),
    ),
    Case(
        "driver.nouveau",
        {"node.driver.nouveau_loaded": True},
        "reboot",
        {},
        {"node.driver.nouveau_loaded": None, "node.missing": {"driver.nouveau_loaded": "/proc/modules cannot be read"}},
        "nouveau is loaded",
        ("blacklist_nouveau",),
    ),
    # ---- memory ----
    Case(
        "ecc.mode",
        {"gpu.ecc.pending": "disabled"},
        "monitor",
        {},
        {"gpu.ecc.current": Missing()},
        "after the next reset",
    ),
    Case(
        "ecc.uncorrected_volatile",
        {"gpu.ecc.counters.uncorrected.volatile": 3, "gpu.health.ecc.volatile.uncorrected.dram": 3},
        "reset",
        {"gpu.ecc.counters.corrected.volatile": 7},
        {"gpu.ecc.counters.uncorrected.volatile": Missing()},
        "3 uncorrected memory errors since the driver was loaded (3 in DRAM)",
        ("stop_workload", "drain", "reset_gpu"),
    ),
    Case(
        "ecc.sram_aggregate",
        {"gpu.health.ecc.sram_threshold_exceeded": True},
        "isolate",
        {"gpu.health.ecc.sram_threshold_exceeded": Missing()},
        {"gpu.health.ecc.aggregate.uncorrected.sram": Missing()},
        "NVIDIA's threshold",
        ("stop_workload", "drain", "run_field_diagnostics", "replace"),
    ),
    Case(
        "ecc.corrected",
        {"gpu.health.ecc.aggregate.corrected.sram": 10_001},
        "monitor",
        {"gpu.health.ecc.aggregate.corrected.sram": 10_000, "gpu.health.ecc.aggregate.corrected.dram": 20_000_000},
        {f"gpu.health.ecc.aggregate.corrected.{place}": Missing() for place in ("sram", "dram")},
        "10001 in SRAM",
    ),
    Case(
        "remap.pending",
        {"gpu.row_remap.pending": True},
        "reset",
        {"gpu.row_remap.correctable": 4},
        {"gpu.row_remap.pending": Missing()},
        actions=("stop_workload", "drain", "reset_gpu"),
    ),
    Case(
        "remap.failure",
        {"gpu.row_remap.failure": True},
        "isolate",
        {},
        {"gpu.row_remap.failure": Missing()},
        actions=("stop_workload", "drain", "run_field_diagnostics", "replace"),
    ),
    Case(
        "remap.uncorrectable",
        {"gpu.row_remap.uncorrectable": 512},
        "isolate",
        {"gpu.row_remap.uncorrectable": 511},
        {"gpu.row_remap.uncorrectable": Missing()},
    ),
    Case(
        "remap.banks",
        {"gpu.row_remap.banks.none": 1},
        "isolate",
        {"gpu.row_remap.banks.partial": 30},
        {"gpu.row_remap.banks.none": Missing()},
        "no spare row left",
    ),
    Case(
        "pages.retired",
        {"gpu.retired_pages.single_bit": 60, "gpu.retired_pages.double_bit": 3},
        "isolate",
        {"gpu.retired_pages.double_bit": 62},
        {"gpu.retired_pages.double_bit": Missing()},
        "63 pages",
    ),
    Case("pages.pending", {"gpu.retired_pages.pending": True}, "reset", {}, {"gpu.retired_pages.pending": Missing()}),
    Case("repair.pending", {"gpu.health.repair.tpc_pending": True}, "reset", {}, NO_REPAIR, "tpc pending"),
    # ---- links ----
    Case(
        "nvlink.inactive",
        {"gpu.nvlink.links.7.active": False},
        "reset",
        {"gpu.nvlink.links.7.active": False, "gpu.mig.mode": "enabled", "gpu.mig.pending": "enabled"},
        {"gpu.nvlink.links.7.active": None},
        "1 of 18 NVLinks are down: 7",
        ("stop_workload", "drain", "reset_gpu", "restart_node"),
    ),
    Case(
        "nvlink.count",
        {"gpu.nvlink.links": [{**samples.LINK, "link": link} for link in range(17)]},
        "reset",
        {"baseline": {}},
        {"gpu.nvlink.links": Missing(), "baseline": {}},
        "17 NVLinks are up, 18 must be",
    ),
    Case(
        "nvlink.speed",
        {"gpu.health.nvlink.speed_mbps.3": 13281},
        "reset",
        {"baseline": {}},
        {"gpu.health.nvlink.speed_mbps": Missing()},
        "less than 26562 MB/s",
    ),
    Case(
        "nvlink.errors",
        {"gpu.health.nvlink.replay.5": 2},
        "reset",
        {"gpu.health.nvlink.replay.5": 2, "baseline.gpus.GPU-0.nvlink_errors.replay.5": 2},
        NO_COUNTERS,
        "since the last check: 2 x replay 5",
        ("stop_workload", "drain", "reset_gpu", "check_link"),
    ),
    Case(
        "nvlink.ber",
        {"gpu.health.nvlink.effective_ber.2": 2e-12},
        "reset",
        {"gpu.health.nvlink.effective_ber.2": 1e-12},
        {"gpu.health.nvlink.effective_ber": Missing()},
        "link 2",
    ),
    Case(
        "nvlink.p2p",
        {"node.topology.p2p.0.1": "not_supported", "node.topology.p2p.1.0": "not_supported"},
        "reset",
        {},
        {"node.topology.p2p": None},
        "gpu0-gpu1",
    ),
    Case(
        "fabric.manager",
        {"node.software.fabric_manager.running": False},
        "reset",
        {"node.software.fabric_manager.needed": False},
        {"node.software.fabric_manager.running": None},
        "CUDA fails with error 802",
        ("start_fabric_manager",),
    ),
    Case(
        "fabric.state", {"gpu.fabric.state": "in_progress"}, "reset", {}, {"gpu.fabric.state": Missing()}, "in_progress"
    ),
    Case(
        "fabric.health",
        {"gpu.health.fabric.route_unhealthy": True},
        "reset",
        {"gpu.health.fabric.degraded_bandwidth": Missing(ABSENT)},
        {key: Missing() for key in NO_FABRIC},
        "route unhealthy",
    ),
    Case(
        "pcie.link",
        {"gpu.pcie.width": 8, "gpu.utilization.gpu_percent": 98},
        "reboot",
        {"gpu.pcie.generation": 1},
        {"gpu.pcie.generation": Missing()},
        "generation 5 x8, it can do generation 5 x16",
    ),
    Case(
        "pcie.capability",
        {"gpu.pcie.max_width": 8},
        "reboot",
        {"baseline": {}},
        {"gpu.pcie.max_width": Missing()},
        "could do generation 5 x16 at an earlier check",
    ),
    Case(
        "pcie.replay",
        {"gpu.pcie.replay_count": 1861},  # 31 a minute for 60 minutes
        "monitor",
        {"gpu.pcie.replay_count": 1860},
        {"gpu.pcie.replay_count": Missing()},
        "1861 PCIe replays since the last check, 1860 are allowed",
    ),
    Case(
        "pcie.acs",
        {"host.acs_bridges": ["0000:00:01.0"]},
        "monitor",
        {"host.acs_bridges": ["0000:00:01.0"], "host.virtual": True},
        {"host.acs_bridges": Missing("readable for root only")},
    ),
    Case(
        "gdr.peermem",
        {"node.driver.flavour": "proprietary"},
        "monitor",
        {"node.driver.flavour": "proprietary", "node.driver.kernel_modules": ["nvidia", "nvidia_peermem"]},
        {"node.driver.kernel_modules": None},
    ),
    # ---- power, heat, clocks, modes ----
    Case(
        "power.readable",
        {"gpu.power.draw_watts": Missing()},
        "monitor",
        {},
        {"gpu.power.draw_watts": Missing("the GPU is lost (NVML 15)"), "gpu.state": "lost"},
        "how much power",
    ),
    Case(
        "power.range",
        {"gpu.power.draw_watts": 0.0},
        "monitor",
        {"gpu.power.draw_watts": 769.0},
        {"gpu.power.draw_watts": Missing()},
    ),
    Case(
        "power.limit",
        {"gpu.power.limit_watts": 500.0},
        "monitor",
        {"gpu.power.limit_watts": 500.0, "gpu.power.enforced_limit_watts": 500.0, "modes.power_limit_w": {"all": 500}},
        {"gpu.power.limit_watts": Missing()},
        "the power limit is 500 W, the default is 700 W",
        ("set_modes",),
    ),
    Case(
        "temperature.margin",
        {"gpu.temperature.gpu_celsius": 87},
        "isolate",
        {"gpu.temperature.gpu_celsius": 82},
        {"gpu.temperature.gpu_celsius": Missing()},
        "87 C, the threshold is 87 C",
    ),
    Case(
        "temperature.memory",
        {"gpu.temperature.memory_celsius": 92},
        "monitor",
        {"gpu.temperature.memory_celsius": 90},
        {"gpu.temperature.memory_celsius": Missing()},
    ),
    Case(
        "throttle.hw",
        {"gpu.health.event_counters_ns.hw_power_brake_slowdown": HOUR_NS // 50},
        "isolate",
        {"gpu.health.event_counters_ns.hw_power_brake_slowdown": HOUR_NS // 100},
        {
            "gpu.throttle.reasons": Missing(),
            "gpu.health.event_counters_ns.hw_power_brake_slowdown": Missing(),
            "gpu.health.event_counters_ns.hw_thermal_slowdown": Missing(),
        },
        "2.0% of the time (hw power brake slowdown) since the last check",
        ("drain", "check_cooling", "check_power"),
    ),
    Case(
        "throttle.sw_thermal",
        {"gpu.health.event_counters_ns.sw_thermal_slowdown": HOUR_NS // 4},
        "isolate",
        {"gpu.health.event_counters_ns.sw_thermal_slowdown": HOUR_NS // 20},
        {"gpu.health.event_counters_ns.sw_thermal_slowdown": Missing()},
        "25.0%",
    ),
    Case("persistence", {"gpu.persistence_mode": False}, "monitor", {}, {"gpu.persistence_mode": Missing()}),
    Case(
        "clocks.application",
        {"gpu.health.clocks.application_graphics_mhz": 1949},
        "monitor",
        {"gpu.health.clocks.application_graphics_mhz": 1950},
        {"gpu.health.clocks.application_graphics_mhz": Missing()},
        "graphics 1949 of 1980 MHz",
    ),
    Case(
        "mig.mode",
        {"gpu.mig.pending": "enabled"},
        "reset",
        {"gpu.mig.mode": "enabled", "gpu.mig.pending": "enabled", "modes.mig": {"all": ["1g.10gb"]}},
        {"gpu.mig.mode": Missing()},
    ),
    Case(
        "vbios.uniform",
        {"gpu.vbios_version": "96.00.02"},
        "monitor",
        {"expected.vbios": ["96.00.01"]},
        {"gpu.vbios_version": Missing()},
        "differ in their VBIOS",
    ),
    Case(
        "inforom.uniform",
        {"gpu.health.inforom.image_version": "G999"},
        "monitor",
        {"gpu.health.inforom.image_version": "G999", "gpu.catalogue_id": "h100-pcie-80gb"},
        {"gpu.health.inforom.image_version": Missing()},
        "G520 on gpu1, G999 on gpu0",
    ),
    Case(
        "gsp.uniform",
        {"gpu.gsp_firmware_version": "570.1"},
        "monitor",
        {"gpu.gsp_firmware_version": Missing(ABSENT)},
        {"gpu.gsp_firmware_version": Missing()},
        "GSP firmware",
    ),
    Case("inforom", {"gpu.health.inforom.valid": False}, "isolate", {}, {"gpu.health.inforom.valid": Missing()}),
    Case(
        "processes.stale",
        {"gpu.health.memory.used_bytes": 9 << 30},
        "reset",
        {"gpu.health.memory.used_bytes": 9 << 30, "gpu.processes": [{"pid": 7, "name": "python3"}]},
        {"gpu.processes": Missing()},
        "9.0 GiB are in use and no process is seen",
    ),
    # ---- the kernel's log ----
    Case("kernel.log", {"kernel.truncated": True}, "monitor", {}, NO_LOG, "is not whole"),
    Case("kernel.xid", logged(XID_79), "reboot", {}, NO_LOG, "Xid 79", ("stop_workload", "drain")),
    Case("kernel.sxid", logged(SXID), "reset", {}, NO_LOG, "SXid 20034"),
    Case(
        "kernel.driver",
        logged("NVRM: GPU 0000:1b:00.0: GPU has fallen off the bus."),
        "reboot",
        {},
        NO_LOG,
        "fallen off",
    ),
    Case("kernel.nouveau", logged("nouveau 0000:01:00.0: NVIDIA GP107 (137000a1)"), "reboot", {}, NO_LOG),
    Case(
        "kernel.pcie",
        logged(
            "pcieport 0000:00:02.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Receiver ID)"
        ),
        "reboot",
        {},
        NO_LOG,
    ),
    Case(
        "kernel.lockup",
        logged("watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [python3:2254956]"),
        "monitor",
        {},
        NO_LOG,
    ),
    Case(
        "kernel.memory",
        logged("EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0)"),
        "reboot",
        {},
        NO_LOG,
    ),
    Case(
        "kernel.storage",
        logged("md/raid1:md0: Disk failure on nvme9n1p2, disabling device."),
        "isolate",
        {},
        NO_LOG,
    ),
    Case(
        "kernel.network",
        logged(MLX5_POWER),
        "monitor",
        logged("mlx5_core 0000:ab:00.0 mlx5_5: Port: 1 Link ACTIVE"),
        NO_LOG,
    ),
    Case(
        "kernel.other",
        {"kernel.events": [{**event(XID_13), "kind": "of_next_year", "code": None}]},
        "monitor",
        {},
        NO_LOG,
    ),
    # ---- the host ----
    Case(
        "host.swap",
        {"host.swap": [{"name": "/dev/sda2", "size_bytes": 1}], "expected.swap": "none"},
        "monitor",
        {"host.swap": [{"name": "/dev/sda2", "size_bytes": 1}], "expected.swap": "any"},
        {"host.swap": Missing("/proc/swaps cannot be read"), "expected.swap": "none"},
    ),
    Case(
        "host.governor",
        {"host.governors": {"performance": 60, "powersave": 4}, "expected.governor": "performance"},
        "monitor",
        {"expected.governor": "performance"},
        {"host.governors": Missing("cannot be read"), "expected.governor": "performance"},
        "4 processor(s)",
    ),
    Case(
        "host.thp",
        {"expected.thp": "always"},
        "monitor",
        {"expected.thp": "madvise"},
        {"expected.thp": "always", "host.thp": Missing("cannot be read")},
    ),
    Case(
        "host.numa_balancing",
        {"expected.numa_balancing": 0, "host.numa_balancing": 1},
        "monitor",
        {"expected.numa_balancing": 0},
        {"expected.numa_balancing": 0, "host.numa_balancing": Missing("cannot be read")},
    ),
    Case(
        "host.iommu",
        {"expected.iommu": "disabled"},
        "monitor",
        {"expected.iommu": "passthrough"},
        {"expected.iommu": "disabled", "host.iommu": Missing("cannot be read")},
    ),
    Case(
        "host.memory",
        {"host.memory_total_bytes": 480 << 30},
        "monitor",
        {"expected.memory_gib": 520},
        {"host.memory_total_bytes": Missing("cannot be read")},
        "it had 512.0 GiB",
    ),
    Case(
        "host.disk",
        {"host.mounts.0.inodes_percent": 96.0},
        "monitor",
        {"host.mounts.0.used_percent": 95.0},
        {"host.mounts": Missing("cannot be read")},
        "/ (inodes) 96 %",
    ),
    Case("host.readonly", {"host.mounts.0.read_only": True}, "isolate", {}, {"host.mounts": Missing("cannot be read")}),
    Case(
        "host.raid",
        {"host.arrays.0.members": "U_"},
        "monitor",
        {"host.arrays": []},
        {"host.arrays": Missing("cannot be read")},
    ),
    Case("host.time", {"host.clock.synchronised": False}, "monitor", {}, {"host.clock": Missing("the kernel refuses")}),
    Case(
        "host.failed_units",
        {"host.failed_units": ["nvidia-persistenced.service"]},
        "monitor",
        {},
        {"host.failed_units": Missing("systemctl does not run")},
        "nvidia-persistenced.service",
    ),
    Case(
        "host.leftovers",
        {"host.leftovers": [{"pid": pid, "command": "sg_inq", "age_s": 7200} for pid in (1, 2, 3)]},
        "monitor",
        {"host.leftovers": [{"pid": pid, "command": "AnsiballZ_x", "age_s": 60} for pid in range(9)]},
        {"host.leftovers": Missing("cannot be read")},
    ),
    Case(
        "env.blockers",
        {"host.environment": [{"name": "CUDA_VISIBLE_DEVICES", "file": "/etc/environment"}]},
        "monitor",
        {},
        {"host.environment": Missing("cannot be read")},
        "CUDA_VISIBLE_DEVICES in /etc/environment",
    ),
    Case(
        "nic.port",
        {"host.nics": [{**PORT, "state": "DOWN", "physical": "Disabled"}]},
        "isolate",
        {"host.nics": [{**PORT, "state": "DOWN"}], "baseline.nics": {}},
        {"host.nics": [{**PORT, "state": None}]},
        "the port is DOWN (Disabled)",
        ("drain", "check_network"),
    ),
    Case(
        "nic.rate",
        {"host.nics": [{**PORT, "rate_gbps": 200.0}]},
        "isolate",
        {"host.nics": [{**PORT, "rate_gbps": 200.0}], "expected.nics": {"mlx5_0": 200}},
        {"host.nics": [{**PORT, "rate_gbps": None}]},
        "200 Gb/s, it should at 400",
    ),
    Case(
        "nic.flaps",
        {"host.nics": [{**PORT, "link_downed": 5}]},
        "monitor",
        {"host.nics": [{**PORT, "link_downed": 4}]},
        {"host.nics": [{**PORT, "link_downed": None}]},
        "lost 5 times since the last check",
    ),
    Case(
        "nvme.state",
        {"host.nvme": [{**DRIVE, "state": "dead"}]},
        "isolate",
        {},
        {"host.nvme": [{**DRIVE, "state": None}]},
    ),
    Case(
        "nvme.smart",
        {"host.nvme.0.smart.critical_warning": 4},
        "isolate",
        {"host.nvme.0.smart.percent_used": 99},
        {"host.nvme.0.smart": None, "host.nvme.0.smart_reason": "/dev/nvme0 answers root only"},
    ),
    Case(
        "dcgm.diag",
        diagnostics(FAILED_TEST),
        "isolate",
        diagnostics(PASSED_TEST),
        {"dcgm": {"level": "1", "missing": "it hangs"}},
    ),
]
BY_ID = {case.check: case for case in CASES}


def answers(case: Case, patch: Patch) -> list[dict[str, Any]]:
    """The answers of this check about the first GPU or the node; nothing else may have changed with it unsaid."""
    checks = health.examine(samples.view(patch))
    found = [check for check in checks if check["id"] == case.check and "gpu1" not in str(check["subject"])]
    assert found, case.check
    return found


@pytest.mark.parametrize("check", BY_ID)
def test_what_triggers_it(check: str) -> None:
    case = BY_ID[check]
    found = findings(answers(case, case.bad))

    assert [one["severity"] for one in found] == [case.severity], found
    [one] = found
    assert case.words in one["reason"]
    words = tuple(step["action"] for step in one["actions"])
    assert words
    assert words[: len(case.actions)] == case.actions
    assert one["source"]


@pytest.mark.parametrize("check", BY_ID)
def test_what_does_not_trigger_it(check: str) -> None:
    case = BY_ID[check]
    states = {one["state"] for one in answers(case, case.fine)}

    assert states <= {OK, NOT_APPLICABLE}
    assert [one["state"] for one in answers(case, {})] != [FINDING]


@pytest.mark.parametrize("check", BY_ID)
def test_what_cannot_be_measured_is_no_success(check: str) -> None:
    case = BY_ID[check]
    assert case.unread, "every check can fail to be measured"
    found = answers(case, case.unread)

    assert {one["state"] for one in found} == {NOT_MEASURED}, found
    assert all(one["reason"] and one["severity"] is None and one["actions"] == [] for one in found)


def test_every_check_of_the_table_has_its_three_rows() -> None:
    assert list(BY_ID) == list(RULES)
    assert len(CASES) == len(BY_ID)


def test_a_healthy_node_has_no_finding_and_every_record_is_whole() -> None:
    checks = health.examine(samples.view())

    assert findings(checks) == []
    assert worst(checks) == "none"
    keys = {"id", "subject", "state", "observed", "expected", "severity", "actions", "reason", "source"}
    assert all(set(check) == keys for check in checks)
    assert all(check["state"] in STATES for check in checks)
    assert {check["id"] for check in checks} == set(RULES)
    silent = [check for check in checks if check["state"] in (NOT_APPLICABLE, NOT_MEASURED) and not check["reason"]]
    assert silent == []


def test_every_action_has_a_sentence() -> None:
    assert [word for rule in RULES.values() for word in rule.actions if word not in ACTIONS] == []


def test_a_gpu_that_is_gone_from_the_bus_is_isolated() -> None:
    checks = health.examine(samples.view({"node.count": 1, "node.pci_count": 1}))
    [found] = [check for check in findings(checks) if check["id"] == "gpu.count"]

    assert found["severity"] == "isolate"
    assert found["actions"][0]["action"] == "drain"


@pytest.mark.parametrize(
    ("on_bus", "state", "severity"), [(2, NOT_MEASURED, None), (1, FINDING, "isolate")], ids=["all there", "one gone"]
)
def test_without_a_driver_only_the_bus_is_counted(on_bus: int, state: str, severity: str | None) -> None:
    patch = {"node.situation": "driver_hung", "node.count": 0, "node.pci_count": on_bus, "expected.gpu_count": 2}
    [found] = [one for one in health.examine(samples.view(patch)) if one["id"] == "gpu.count"]

    assert (found["state"], found["severity"]) == (state, severity)


def test_gpus_that_belong_to_virtual_machines_are_not_missed() -> None:
    checks = health.examine(samples.view({"node.pci_count": 4}))
    assert [one["state"] for one in checks if one["id"] == "gpu.count"] == [OK]


def test_more_gpus_than_declared_are_told_and_harmless() -> None:
    [found] = [
        one for one in findings(health.examine(samples.view({"expected.gpu_count": 1}))) if one["id"] == "gpu.count"
    ]

    assert found["severity"] == "monitor"


@pytest.mark.parametrize(
    ("count", "severity"), [(0, None), (1, "monitor"), (4, "monitor"), (5, "isolate")], ids=lambda value: str(value)
)
def test_sram_errors_of_a_life_are_watched_before_they_isolate(count: int, severity: str | None) -> None:
    checks = health.examine(samples.view({"gpu.health.ecc.aggregate.uncorrected.sram": count}))
    found = [one["severity"] for one in checks if one["id"] == "ecc.sram_aggregate" and one["subject"] == "gpu0"]

    assert found == [severity]


def test_zeros_of_a_card_without_row_remapping_are_no_success() -> None:
    unlisted = {"gpu.catalogue_id": "rtx-4090"}
    unknown = {"gpu.catalogue_id": None, "gpu.missing": {"catalogue_id": "the catalogue has no such name"}}
    for patch, state in ((unlisted, NOT_APPLICABLE), (unknown, NOT_MEASURED)):
        checks = health.examine(samples.view(patch))
        found = [one["state"] for one in checks if one["id"].startswith("remap.") and one["subject"] == "gpu0"]
        assert found == [state] * 4
        broken = health.examine(samples.view({**patch, "gpu.row_remap.failure": True}))
        assert [one["id"] for one in findings(broken)] == ["remap.failure"]


def test_counters_of_before_a_restart_are_not_compared() -> None:
    """After a restart they start at zero: what is smaller than before counts from the start of the node."""
    for patch in ({"baseline.boot_id": "b" * 32}, {"baseline.gpus.GPU-0.nvlink_errors.replay.5": 9}):
        checks = findings(health.examine(samples.view({"gpu.health.nvlink.replay.5": 2, **patch})))
        [found] = [one for one in checks if one["id"] == "nvlink.errors"]
        assert (found["severity"], "since the node started" in found["reason"]) == ("monitor", True)


def test_crc_errors_are_judged_by_their_rate() -> None:
    slow, fast = 359_999, 360_000  # in an hour; 100 a second
    for count, severity in ((slow, "monitor"), (fast, "reset")):
        checks = findings(health.examine(samples.view({"gpu.health.nvlink.crc_flit.0": count})))
        assert [(one["id"], one["severity"]) for one in checks] == [("nvlink.errors", severity)]


def test_throttling_of_zero_seconds_never_counts_and_now_is_only_watched() -> None:
    """DCGM fails at 0.0 s of thermal violation (NVIDIA/DCGM#242)."""
    assert findings(health.examine(samples.view({"gpu.health.event_counters_ns.hw_thermal_slowdown": 0}))) == []
    checks = findings(health.examine(samples.view({"gpu.throttle.reasons": ["hw_thermal_slowdown"]})))
    assert [(one["id"], one["severity"]) for one in checks] == [("throttle.hw", "monitor")]


def test_power_cap_by_software_is_no_finding() -> None:
    patch = {"gpu.throttle.reasons": ["sw_power_cap"], "gpu.health.event_counters_ns.sw_power_cap": HOUR_NS}
    assert findings(health.examine(samples.view(patch))) == []


def test_cards_with_bridges_that_nobody_connected_are_fine() -> None:
    links = [{**samples.LINK, "link": link, "active": False, "remote_type": None} for link in range(12)]
    patch = {
        "gpu.catalogue_id": "a100-pcie-80gb",
        "gpu.nvlink.links": links,
        "baseline": {},
        "node.topology.matrix.0.1": "SYS",
    }
    checks = health.examine(samples.view(patch))
    state = {one["id"]: one["state"] for one in checks if one["subject"] == "gpu0"}

    assert (state["nvlink.inactive"], state["nvlink.count"]) == (NOT_APPLICABLE, NOT_APPLICABLE)


def test_links_that_were_up_before_have_to_be_up() -> None:
    links = [{**samples.LINK, "link": link, "active": link < 8} for link in range(12)]
    patch = {"gpu.catalogue_id": "a100-pcie-80gb", "gpu.nvlink.links": links, "baseline.gpus.GPU-0.nvlink_active": 12}
    found = {
        one["id"]: one["reason"] for one in findings(health.examine(samples.view(patch))) if one["subject"] == "gpu0"
    }

    assert "8 NVLinks are up, 12 must be" in found["nvlink.count"]


def test_an_application_xid_never_keeps_a_node_from_work() -> None:
    patch = {"kernel.events": [event(XID_13), event(XID_13.replace(": 13,", ": 31,"))]}
    assert worst(health.examine(samples.view(patch))) in ("none", "monitor")


def test_an_xid_of_before_the_restart_does_not_condemn_for_ever() -> None:
    before = event(XID_79, boot_id="b" * 32)
    patch = {"kernel.events": [before], "kernel.boots": ["b" * 32, BOOT]}
    checks = health.examine(samples.view(patch))
    assert [one["state"] for one in checks if one["id"] == "kernel.xid"] == [OK]


def test_the_worst_xid_of_a_gpu_speaks_and_the_others_are_counted() -> None:
    patch = {"kernel.events": [event(XID_13), event(XID_79)]}
    [found] = [one for one in findings(health.examine(samples.view(patch))) if one["id"] == "kernel.xid"]

    assert (found["subject"], found["severity"], found["observed"]["events"]) == ("gpu0", "reboot", 2)
    assert "Also: Xid 13" in found["reason"]


def test_findings_are_ordered_by_the_ladder() -> None:
    patch = {"gpu.persistence_mode": False, "gpu.row_remap.failure": True, "gpu.row_remap.pending": True}
    order = [rank(one["severity"]) for one in findings(health.examine(samples.view(patch)))]

    assert order == sorted(order, reverse=True) == [4, 2, 1]


def test_a_lost_gpu_has_one_finding_and_everything_else_not_measured() -> None:
    lost = {"index": 0, "state": "lost", "error_code": 15, "missing": dict.fromkeys(("uuid", "ecc"), "lost (NVML 15)")}
    checks = health.examine(samples.view({"node.devices": [lost, samples.device(1)]}))
    mine = [one for one in checks if one["subject"] == "gpu0"]

    assert [one["id"] for one in findings(mine)] == ["gpu.state"]
    assert {one["state"] for one in mine} == {FINDING, NOT_MEASURED, NOT_APPLICABLE} or {
        one["state"] for one in mine
    } == {
        FINDING,
        NOT_MEASURED,
    }


def test_settings_that_nobody_declared_are_not_judged() -> None:
    patch = {"host.swap": [{"name": "/dev/sda2"}], "host.governors": {"powersave": 64}, "host.thp": "never"}
    checks = health.examine(samples.view(patch))
    names = ("host.swap", "host.governor", "host.thp", "host.numa_balancing", "host.iommu")

    assert findings(checks) == []
    assert {one["state"] for one in checks if one["id"] in names} == {NOT_APPLICABLE}


def test_in_a_container_nothing_of_its_host_is_judged() -> None:
    patch = {
        "host.container": "podman",
        "host.swap": [{"name": "/dev/sda2"}],
        "host.clock.synchronised": False,
        **NO_LOG,
    }
    checks = health.examine(samples.view({**patch, "host.failed_units": Missing("systemctl does not run")}))
    theirs = [one for one in checks if one["id"].startswith(("host.", "kernel.", "nic.", "nvme.", "pcie.acs", "gdr."))]

    assert findings(checks) == []
    assert [one["id"] for one in theirs if one["state"] == OK] == ["host.leftovers"]
    assert [one["id"] for one in theirs if one["state"] == NOT_MEASURED] == []
    assert all("host of this podman container" in one["reason"] for one in theirs if one["id"].startswith("nic."))


def test_a_container_with_systemd_answers_for_its_own_units() -> None:
    patch = {"host.container": "podman", "host.failed_units": ["vllm@a.service"]}
    assert [one["id"] for one in findings(health.examine(samples.view(patch)))] == ["host.failed_units"]


def test_what_an_older_driver_has_no_function_for_does_not_apply_to_it() -> None:
    old = Missing("this driver version or its binding does not offer it (NVML 13)")
    checks = health.examine(samples.view({"gpu.health.repair.tpc_pending": old, "gpu.temperature.gpu_celsius": old}))
    state = {one["id"]: one["state"] for one in checks if one["subject"] == "gpu0"}

    assert (state["repair.pending"], state["temperature.margin"]) == (NOT_APPLICABLE, NOT_MEASURED)


def test_malformed_facts_raise_nothing() -> None:
    for fact in ({}, {"devices": None}, {"devices": ["?", {}]}, {"situation": "ready", "devices": [{"state": "ok"}]}):
        checks = health.examine(samples.View(gpu=fact))
        assert all(one["state"] in STATES for one in checks)
        assert all(one["reason"] for one in checks if one["state"] in (NOT_APPLICABLE, NOT_MEASURED))
