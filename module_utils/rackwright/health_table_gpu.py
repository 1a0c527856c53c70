# SPDX-License-Identifier: Apache-2.0
"""The checks of GPUs: what each looks at, when it is a finding, what to do, and where the rule is from."""

from __future__ import annotations

from dataclasses import dataclass

_NVIDIA_MEMORY = "NVIDIA GPU Memory Error Management"
_NVML = "NVIDIA NVML API"
_DCGM = "NVIDIA/DCGM"
_DCGM_LINKS = f"{_DCGM} DcgmHealthWatch"
_GPUD = "leptonai/gpud"
_GCM = "facebookresearch/gcm"
_AZURE = "Azure azurehpc-health-checks"
_IMBUE = "imbue-ai/cluster-health"
_STAS = "stas00/ml-engineering"
_OCI = "oracle-quickstart/oci-hpc"


@dataclass(frozen=True)
class Rule:
    """What docs/health.md tells of one check; ``actions`` are the words in their order."""

    signal: str
    finding: str
    severity: str
    actions: tuple[str, ...]
    source: str


_DEAD = ("stop_workload", "drain", "restart_node", "power_cycle", "reseat", "run_field_diagnostics", "replace")
_RESET = ("stop_workload", "drain", "reset_gpu")
_EXCHANGE = ("stop_workload", "drain", "run_field_diagnostics", "replace")

GPU_RULES: dict[str, Rule] = {
    # ---- the node's GPUs as a whole ----
    "gpu.situation": Rule(
        "situation of gpu_facts: does NVML load and answer",
        "any situation but ready, no_gpu and wsl2",
        "reset to isolate",
        ("drain", "restart_node", "run_site"),
        f"{_DCGM}, {_GPUD}, {_IMBUE}",
    ),
    "gpu.count": Rule(
        "GPUs of NVML, of the PCI bus, declared, and at the last check",
        "fewer than declared, on the bus, or before",
        "reboot; isolate where the bus does not show them",
        _DEAD,
        "all tools read",
    ),
    "gpu.identity": Rule(
        "UUIDs of the GPUs against the last check",
        "another GPU in place of a known one",
        "monitor",
        ("accept",),
        "Rackwright: results of a card belong to that card",
    ),
    "gpu.state": Rule(
        "NVML_ERROR_GPU_IS_LOST, RESET_REQUIRED and other errors of one GPU",
        "any",
        "reset (reset required), else reboot",
        ("stop_workload", "drain", "reset_gpu", "restart_node", "reseat", "run_field_diagnostics"),
        f"{_GPUD}, {_DCGM}",
    ),
    "gpu.recovery_action": Rule(
        "field value NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
        "any but none",
        "as it says; drain_p2p is monitor",
        _RESET,
        f"{_NVML}: nvmlDeviceGpuRecoveryAction_t; {_DCGM}",
    ),
    "coherence": Rule(
        "the coherence rules (docs/verdicts.md): module, library, packages, fabric manager, CDI, lock",
        "a mismatch",
        "reboot where programs do not run; else monitor",
        ("run_site",),
        "Rackwright coherence rules",
    ),
    "driver.nouveau": Rule(
        "loaded kernel modules",
        "nouveau is loaded",
        "reboot",
        ("blacklist_nouveau", "restart_node"),
        f"{_DCGM}: denylist",
    ),
    # ---- memory ----
    "ecc.mode": Rule(
        "ECC mode now and after the next reset",
        "the two differ, it is not as declared, or off on a card that has ECC",
        "monitor",
        ("set_modes", "reset_gpu"),
        f"{_GPUD}, {_GCM}",
    ),
    "ecc.uncorrected_volatile": Rule(
        "uncorrected memory errors since the driver was loaded",
        "more than ecc_uncorrected_volatile",
        "reset",
        (*_RESET, "check_row_remap", "run_field_diagnostics"),
        f"{_DCGM}, {_AZURE}, {_GCM}, {_OCI}",
    ),
    "ecc.sram_aggregate": Rule(
        "uncorrected SRAM errors over the GPU's life, and NVIDIA's own threshold flag",
        "the flag, or more than ecc_sram_aggregate_isolate; more than ecc_sram_aggregate_monitor",
        "isolate; monitor",
        _EXCHANGE,
        f"{_NVML}: nvmlEccSramErrorStatus_t; {_AZURE}, {_OCI} above 0; {_STAS} RMA above 4",
    ),
    "ecc.corrected": Rule(
        "corrected errors over the GPU's life, SRAM and DRAM",
        "more than ecc_corrected_sram, ecc_corrected_dram",
        "monitor",
        ("watch", "run_field_diagnostics"),
        f"{_AZURE} conf",
    ),
    "remap.pending": Rule(
        "row remapping waits for a reset",
        "true",
        "reset",
        _RESET,
        f"{_NVIDIA_MEMORY}; {_DCGM}, {_GPUD}",
    ),
    "remap.failure": Rule("row remapping failed", "true", "isolate", _EXCHANGE, f"{_NVIDIA_MEMORY}; all tools read"),
    "remap.uncorrectable": Rule(
        "rows remapped for uncorrectable errors",
        "more than remap_uncorrectable",
        "isolate",
        _EXCHANGE,
        f"{_DCGM}, {_AZURE}, {_OCI}",
    ),
    "remap.banks": Rule(
        "spare rows left by bank (row remapper histogram)",
        "a bank with none; a bank with few",
        "isolate; monitor",
        ("watch", "run_field_diagnostics", "replace"),
        f"{_NVML}: nvmlRowRemapperHistogramValues_t; {_GCM} reads it",
    ),
    "pages.retired": Rule(
        "retired pages, Volta and older",
        "more than retired_pages",
        "isolate",
        _EXCHANGE,
        f"{_DCGM}, {_AZURE}",
    ),
    "pages.pending": Rule("a page waits to be retired", "true", "reset", _RESET, f"{_DCGM}, {_AZURE}"),
    "repair.pending": Rule(
        "channel or TPC repair waits for a reset",
        "true",
        "reset",
        _RESET,
        f"{_NVML}: nvmlRepairStatus_t",
    ),
    # ---- links ----
    "nvlink.inactive": Rule(
        "state of each NVLink",
        "a link that should be up is down",
        "reset",
        (*_RESET, "restart_node", "check_link", "run_field_diagnostics"),
        f"{_AZURE}, {_OCI}, {_GCM}",
    ),
    "nvlink.count": Rule(
        "active NVLinks against the catalogue's total and the last check",
        "fewer",
        "reset",
        (*_RESET, "restart_node", "check_link", "run_field_diagnostics"),
        f"{_OCI}, NVIDIA Health Validation",
    ),
    "nvlink.speed": Rule(
        "speed of each NVLink",
        "slower than its neighbours or than before",
        "reset",
        (*_RESET, "check_link"),
        f"{_OCI}, NVIDIA Health Validation",
    ),
    "nvlink.errors": Rule(
        "replay, recovery and CRC counters, growth since the last check or the start of the node",
        "replay or recovery grew since the last check, a recovery failed, CRC above nvlink_crc_per_s; any other count",
        "reset; monitor",
        (*_RESET, "check_link", "run_field_diagnostics"),
        _DCGM_LINKS,
    ),
    "nvlink.ber": Rule(
        "effective bit error rate (NVLink 5)",
        "more than nvlink_effective_ber",
        "reset",
        (*_RESET, "check_link", "run_field_diagnostics"),
        _DCGM_LINKS,
    ),
    "nvlink.p2p": Rule(
        "peer access of each pair on a node whose GPUs have NVLinks",
        "a pair without it",
        "reset",
        (*_RESET, "start_fabric_manager", "restart_node"),
        _GPUD,
    ),
    "fabric.manager": Rule(
        "process of the fabric manager on a node with NVSwitches",
        "it does not run",
        "reset",
        ("start_fabric_manager", "run_site"),
        f"{_GPUD}, {_IMBUE}, {_OCI}, {_DCGM}",
    ),
    "fabric.state": Rule(
        "NVML fabric state and status of each GPU",
        "not completed, or a status that is not success",
        "reset",
        ("start_fabric_manager", *_RESET, "restart_node"),
        f"{_NVML}: nvmlGpuFabricInfo; {_GPUD}",
    ),
    "fabric.health": Rule(
        "NVML fabric health bits",
        "route unhealthy, access timeout, wrong configuration; degraded bandwidth, route recovery",
        "reset; monitor",
        (*_RESET, "check_link"),
        f"{_NVML}: NVML_GPU_FABRIC_HEALTH_MASK",
    ),
    "pcie.link": Rule(
        "PCIe generation and width while the GPU works",
        "less than link and slot can (an idle link trains down: never a finding)",
        "reboot",
        ("stop_workload", "drain", "restart_node", "reseat", "check_slot"),
        f"{_OCI}, {_GCM}, {_IMBUE}",
    ),
    "pcie.capability": Rule(
        "generation and width that card and slot can together",
        "less than at the last check; fewer lanes than the catalogue's card",
        "reboot; monitor",
        ("drain", "check_slot", "reseat"),
        f"{_OCI}, {_GCM}",
    ),
    "pcie.replay": Rule(
        "PCIe replays, growth since the last check or the start of the node",
        "more than lanes x 0.15, 0.3, 0.48, 0.96, 1.92, 3.84 a minute (generation 1 to 6; bit error rate 1e-12)",
        "monitor",
        ("watch", "reseat", "check_slot"),
        f"{_DCGM}: PCIe replay rate",
    ),
    "pcie.acs": Rule(
        "ACS redirection of PCI bridges, on hardware with two or more GPUs",
        "on: peer traffic takes the way of the root complex",
        "monitor",
        ("check_bios",),
        "NVIDIA NCCL troubleshooting: PCI Access Control Services; " + _GPUD,
    ),
    "gdr.peermem": Rule(
        "module for GPU-direct RDMA where an RDMA port is active",
        "neither nvidia_peermem nor the open modules' dma-buf",
        "monitor",
        ("fix_configuration",),
        f"{_GPUD}, {_IMBUE}",
    ),
    # ---- power, heat, clocks, modes ----
    "power.readable": Rule(
        "power draw",
        "the sensor answers with an error",
        "monitor",
        ("watch", "restart_node"),
        f"{_DCGM}: POWER_UNREADABLE",
    ),
    "power.range": Rule(
        "power draw",
        "0 W, or more than power_range times the largest limit",
        "monitor",
        ("check_power",),
        "NVIDIA Health Validation",
    ),
    "power.limit": Rule(
        "power limit against the declared one or the default, and the enforced limit",
        "differs by more than power_limit",
        "monitor",
        ("set_modes", "check_power"),
        f"{_DCGM}, NVIDIA Health Validation",
    ),
    "temperature.margin": Rule(
        "GPU temperature against its slowdown threshold",
        "at it; less than temperature_margin below it",
        "isolate; monitor",
        ("drain", "check_cooling"),
        f"{_GPUD}, {_DCGM}",
    ),
    "temperature.memory": Rule(
        "memory temperature against its threshold",
        "at it; less than temperature_margin below it",
        "isolate; monitor",
        ("drain", "check_cooling"),
        f"{_GPUD}, {_DCGM}",
    ),
    "throttle.hw": Rule(
        "hardware and thermal slowdown, power brake: now, and as a part of the time since the last check or the start",
        "more than throttle_hw_fraction; active now",
        "isolate; monitor",
        ("drain", "check_cooling", "check_power", "inspect_hardware"),
        f"{_GPUD} hw-slowdown; {_AZURE}; NVIDIA/DCGM#242",
    ),
    "throttle.sw_thermal": Rule(
        "software thermal slowdown as a part of that time",
        "more than throttle_sw_thermal_isolate; throttle_sw_thermal_monitor",
        "isolate; monitor",
        ("drain", "check_cooling"),
        "field practice",
    ),
    "persistence": Rule("persistence mode", "off", "monitor", ("set_modes",), f"{_GPUD}, {_DCGM}, {_AZURE}"),
    "clocks.application": Rule(
        "application clocks against the declared or default ones",
        "lower by more than application_clock",
        "monitor",
        ("set_modes",),
        _GCM,
    ),
    "mig.mode": Rule(
        "MIG mode now, after the next reset, and declared",
        "they differ",
        "reset",
        ("set_modes", "reset_gpu"),
        _OCI,
    ),
    "vbios.uniform": Rule(
        "VBIOS of cards of one model, and the declared ones",
        "more than one, or none of those declared",
        "monitor",
        ("update_firmware",),
        _GCM,
    ),
    "inforom.uniform": Rule(
        "InfoROM image of cards of one model", "more than one version", "monitor", ("update_firmware",), _GCM
    ),
    "gsp.uniform": Rule(
        "GSP firmware of cards of one model",
        "more than one version",
        "monitor",
        ("update_firmware", "reload_driver"),
        _DCGM,
    ),
    "inforom": Rule(
        "nvmlDeviceValidateInforom",
        "corrupted",
        "isolate",
        ("drain", "run_field_diagnostics", "replace"),
        f"{_DCGM}: INFOROM; {_NVML}",
    ),
    "processes.stale": Rule(
        "memory used on a GPU without a process",
        "more than unaccounted_memory",
        "reset",
        ("drain", "reset_gpu"),
        f"{_GCM}, {_OCI}",
    ),
}
