# SPDX-License-Identifier: Apache-2.0
"""Which keys a scenario may hold, and of what kind their values are.

The list is the vocabulary of the C library; tests/unit/simnvml/test_keys.py compares it with the sources.
"""

from __future__ import annotations

import re

from .errors import ProfileError

NUMBER = r"-?(\d+|0x[0-9a-fA-F]+)|on|off|yes|no|true|false|enabled|disabled"
TEXT = r".+"
RANGES = r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*"

SYSTEM = {
    "driver_version": TEXT,
    "lib_version": TEXT,
    "nvml_version": TEXT,
    "cuda_version": NUMBER,
    "kernel_module": "open|proprietary",
    "nouveau": NUMBER,
    "generation": NUMBER,
    "count": NUMBER,
    "delay_ms": NUMBER,
}

# {i} is any number, {a|b} one of the words
_GPU_NUMBERS = """
    brand arch board_id multi_gpu_board module_id minor bus_type irq cores numa_node gpu_numa_node
    persistence compute_mode pstate virtualization host_vgpu_mode addressing_mode c2c c2c.links capabilities pdi
    recovery_action reset_required drain_and_reset
    display.{mode|active} accounting.{mode|buffer_size} restricted.{0|1} gom.{current|pending}
    driver_model.{current|pending} gsp.{enabled|default} platform.peer_type
    pci.{domain|bus|device|id|subsystem|class}
    memory.{total|reserved|used|bus_width} bar1.{total|used} cc_memory.{total|used}
    util.{gpu|memory|encoder|decoder|jpeg|ofa|period_us}
    temp.{gpu|memory|margin}
    temp.tlimit.{shutdown|slowdown|mem_max|gpu_max}
    temp.threshold.{shutdown|slowdown|mem_max|gpu_max|acoustic_min|acoustic_curr|acoustic_max|gps_curr}
    fan.{count|speed|rpm|min|max|policy}
    power.{draw|average|memory_average|limit|default|min|max|energy|source|management}
    clock.{graphics|sm|mem|video} clock.{max|app|app_default|boost_max}.{graphics|sm|mem|video}
    clock.{auto_boost|auto_boost_default|adaptive} clock.locked.{gpu|memory}.{min|max}
    event.{reasons|supported|types}
    violation.{power|thermal|sync_boost|board_limit|low_utilization|reliability|app_clocks|base_clocks}
    violation.{sw_thermal|hw_thermal|hw_power_brake}
    pcie.{gen|width|max_gen|max_width|gpu_max_gen|host_max_gen|max_speed_id|replay|replay_rollover|l0_to_recovery}
    pcie.{switch|root} pcie.throughput.{tx|rx} pcie.bytes.{tx|rx}
    pcie.error.{correctable|naks_received|receiver|bad_tlp|naks_sent|bad_dllp|non_fatal|fatal}
    nvlink.{links|version|state|speed} nvlink.{i}.state
    nvlink.{i}.error.{replay|recovery|crc_flit|crc_data|ecc_data|recovery_failed|effective_ber}
    fabric.{state|status|clique|health_mask|health_summary} topology.{i} p2p.pcie
    ecc.{current|pending|default|sram_threshold_exceeded}
    ecc.{volatile|aggregate}.{corrected|uncorrected}.{l1|l2|dram|register|texture|texture_shm|cbu|sram}
    ecc.{volatile|aggregate}.uncorrected.{sram_parity|sram_secded}
    ecc.aggregate.sram_source.{l2|sm|pcie|mcu|other}
    retired.{single_bit|double_bit|pending} repair.{channel_pending|tpc_pending}
    remap.{corrected|uncorrected|pending|failure} remap.histogram.{max|high|partial|low|none}
    mig.{current|pending|max_devices|resetless|independent_query}
    inforom.{checksum|valid} bbx.{flush_time_us|flush_duration_us}
    fail_after
"""

GPU_TEXTS = {
    "name": TEXT,
    "uuid": r"GPU-[0-9a-f-]{36}",
    "serial": TEXT,
    "vbios": TEXT,
    "board_part_number": TEXT,
    "inforom.{image|oem|ecc|power|den}": TEXT,
    "gsp.version": TEXT,
    "cc": r"\d+\.\d+",
    "cpu_affinity": RANGES,
    "pstates": RANGES,
    "clock.supported.{mem|graphics}": RANGES,
    "fabric.cluster_uuid": r"[0-9a-f-]{36}",
    "nvlink.{i}.remote": r"gpu \d+|switch [0-9a-f]+ [0-9a-f]+ [0-9a-f]+",
    "proc.{i}": r"\d+ [CGM] \d+( \d+ \d+)?",
    "mig.profile.{i}": r"(\d+ ){11}\S+ \d+(,\d+)*",
    "gi.{i}": r"\d+ \d+ \d+",
    "gi.{i}.ci.{i}": r"\d+ \d+ \d+",
    "fail": r"\w+",
    "fail.{f}": r"\w+",
}
INJECTIONS = {"fail.{f}": r"\w+", "crash.{f}": "hang|segv|abort|exit", "delay_ms.{f}": NUMBER}


def _pattern(key: str) -> str:
    pattern = re.escape(key)
    pattern = re.sub(r"\\\{([\w|\\]+)\\\}", lambda m: "{" + m[1].replace("\\", "") + "}", pattern)
    pattern = pattern.replace("{i}", r"\d+").replace("{f}", r"\w+")
    return re.sub(r"\{([^}]+)\}", r"(?:\1)", pattern)


def _rules() -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    gpu = r"gpu\.(?:\d+\.)?"
    rules = [(f"^{_pattern(key)}$", kind) for key, kind in {**SYSTEM, **INJECTIONS}.items()]
    rules += [(f"^{gpu}{_pattern(key)}$", NUMBER) for key in _GPU_NUMBERS.split()]
    rules += [(f"^{gpu}{_pattern(key)}$", kind) for key, kind in GPU_TEXTS.items()]
    return [(re.compile(key), re.compile(rf"N/A|-|!\w+|@/.*|(?:{kind})")) for key, kind in rules]


_RULES = _rules()


def known(key: str) -> bool:
    """Whether the library would ever look at this key."""
    return any(rule.match(key) for rule, _ in _RULES)


def check(values: dict[str, str], name: str) -> None:
    """Refuse a key that nothing reads and a value that would not be understood."""
    for key, value in values.items():
        kinds = [kind for rule, kind in _RULES if rule.match(key)]
        if not kinds:
            raise ProfileError(f"use {key} in {name}", "the library knows no such key", "See docs/simulation.md")
        if not any(kind.fullmatch(value) for kind in kinds):
            raise ProfileError(f"use {key} = {value} in {name}", "the value has another form", "See docs/simulation.md")
