# SPDX-License-Identifier: Apache-2.0
"""What kernel messages look like: one pattern per kind of event, with the forms of several kernel and driver versions.

A row is (kind, sub, pattern). Named groups become fields of the event: ``pci``, ``device``, ``pid``, ``name``; ``sub``
when the row gives none; every other group goes into ``data``. The first row that matches wins. Fixtures with the origin
of each form lie in tests/unit/kernel_logs.
"""

from __future__ import annotations

import re

_PCI = r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"

# Xid: "(PCI:0000:1b:00)", "(0000:01:00)" of old drivers, "(PCI:0000:01:00 GPU-I:05 GPU-CI:00)" with MIG
XID = re.compile(
    rf"NVRM: (?:GPU at [^ ]+: )?Xid \((?:PCI:)?{_PCI}(?: GPU-I:(?P<gpu_instance>\d+))?(?: GPU-CI:\d+)?\): "
    r"(?P<code>\d+)\b[,:]? ?(?P<rest>.*)"
)
# pid=1234, pid='1234', pid=<unknown>, pid='<unknown>'; the name may be missing, quoted, empty, or hold colons
XID_PROCESS = re.compile(r"pid='?(?P<pid>\d+|<unknown>|[^,']*)'?(?:, name=(?P<name>'[^']*'|[^,]*))?(?:, |$)")
# Xid 154: from 0x0 (None) to 0x1 (GPU Reset Required)
XID_RECOVERY = re.compile(
    r"recovery action changed from 0x(?P<from_value>[0-9a-fA-F]+) \((?P<from_label>[^)]*)\) "
    r"to 0x(?P<to_value>[0-9a-fA-F]+) \((?P<to_label>[^)]*)\)"
)
# Xid 144 to 150: unit, severity, crossbar, instance, link, and the words a sub-code is decoded from
XID_NVLINK5 = re.compile(
    r"(?P<unit>[A-Z][\w/]*)\s+(?P<severity>Link Fatal|Fatal|Non-?fatal)\s+(?:XC\d+\s+)?(?:i\d+\s+)?"
    r"Link (?P<link>-?\d+)(?:\s+\((?P<words>[0-9a-fx. ]+)\)?)?",
    re.IGNORECASE,
)
# Xid 45 of newer drivers says what it follows
XID_CAUSE = re.compile(r"caused by previous Xid (?P<code>\d+)")
XID_LINK = re.compile(r"\blink (?P<link>\d+)", re.IGNORECASE)
# SXid; what follows as "Severity ..." and "Data {...}" describes the message before it
SXID = re.compile(
    rf"(?P<device>nvidia-nvswitch\d+): SXid \(PCI:{_PCI}\): (?P<code>\d+), (?P<rest>.*)",
)
SXID_DETAIL = re.compile(r"(?:Severity \d|Data \{|Engine instance|Additional)")

ROWS: tuple[tuple[str, str | None, re.Pattern[str]], ...] = tuple(
    (kind, sub, re.compile(pattern))
    for kind, sub, pattern in (
        # the driver
        ("fallen_off_bus", None, rf"NVRM: .*?GPU (?:at PCI:)?{_PCI}.*fallen off the bus"),
        ("fallen_off_bus", None, r"NVRM: .*fallen off the bus"),
        ("rm_init_failed", None, rf"NVRM: GPU (?:at PCI:)?{_PCI}: RmInitAdapter failed! ?\(?(?P<status>[0-9a-fx:]*)"),
        ("rm_init_failed", None, rf"NVRM: GPU (?:at PCI:)?{_PCI}: rm_init_adapter failed"),
        (
            "rm_init_failed",
            None,
            r"NVRM: rm_init_adapter(?:\(\d+\))? failed(?:.* number (?P<minor>\d+))?",
        ),
        ("rm_init_failed", "probe", r"NVRM: The NVIDIA probe routine failed for (?P<devices>\d+) device"),
        (
            "rm_init_failed",
            "probe",
            r"NVRM: None of the NVIDIA (?:graphics adapters|devices) were (?:initialized|probed)",
        ),
        (
            "rm_init_failed",
            "probe",
            rf"nvidia(?: |: probe of ){_PCI}:? (?:probe with driver nvidia )?failed with error",
        ),
        ("bar_invalid", None, rf"NVRM: .*I/O region assigned to your NVIDIA device is invalid.*?\(PCI:{_PCI}\)"),
        ("bar_invalid", None, r"NVRM: .*I/O region assigned to your NVIDIA device is invalid"),
        ("gpu_unsupported", None, rf"NVRM: .*NVIDIA GPU {_PCI}.*is not supported"),
        (
            "api_mismatch",
            None,
            r"NVRM: API mismatch: (?:the )?client (?:'(?P<name>[^']*)' \(pid (?P<pid>\d+)\)|component)?"
            r"(?:.*?has the version (?P<client_version>[\d.]+[0-9]))?"
            r"(?:.*?kernel module has(?: NVRM:)? the version (?P<kernel_version>[\d.]+[0-9]))?",
        ),
        (
            "api_mismatch",
            None,
            r"nvidia-(?:nvswitch\w*|modeset): Version mismatch(?:, kernel version (?P<kernel_version>[\d.]+[0-9]))?"
            r"(?: user version (?P<client_version>[\d.]+[0-9]))?",
        ),
        ("suppressed", None, rf"NVRM: Rate limiting GSP RPC error prints for GPU at PCI:{_PCI}"),
        ("gsp", "heartbeat", r"NVRM: .*(?:GSP RM heartbeat timed out|_kgspIsHeartbeatTimedOut)"),
        (
            "gsp",
            "firmware",
            r"NVRM: .*(?:Cannot initialize GSP firmware RM|[Ff]ailed to (?:load|boot) .*GSP"
            r"|GSP (?:FW|firmware) .*fail)",
        ),
        (
            "gsp",
            "rpc",
            r"NVRM: (?:GPU\d+ )?(?:_?issueRpc\w*|rpcSendMessage|rpcRecvPoll|_?kgspRpc\w*)\b"
            r".*(?:fail|[Tt]imeout|timed out)",
        ),
        (
            "gsp",
            "crash",
            r"NVRM: .*(?:GPU crash dump has been created|GSP (?:task|has) .*(?:crash|exception)|GSP-CrashCat)",
        ),
        ("nvlink", None, r"NVRM: (?:GPU\d+ )?knvlink\w+: .*(?:fail|[Ee]rror|down|[Tt]imeout)"),
        ("nvlink", None, r"nvidia-nvlink: .*(?:fail|[Ee]rror)"),
        ("driver_loaded", None, r"NVRM: loading NVIDIA UNIX .*?(?P<version>\d{3}\.[\d.]*\d)\b"),
        ("peermem", None, r"nvidia-peermem .*ERROR detected invalid context"),
        ("nouveau", None, rf"nouveau {_PCI}: "),
        ("module_rejected", "lockdown", r"Lockdown: (?P<name>\S+): unsigned module loading is restricted"),
        (
            "module_rejected",
            "signature",
            r"Loading of (?:unsigned module|module with unavailable key|module with unsupported crypto) is rejected",
        ),
        ("module_rejected", "signature", r"PKCS#7 signature not signed with a trusted key"),
        ("module_rejected", "version", r"(?P<name>\w+): (?:disagrees about version of symbol|version magic)"),
        # PCIe
        ("aer", None, rf"{_PCI}: (?:AER: )?PCIe Bus Error: severity=(?P<severity>[\w ()-]+?), type=(?P<layer>[^,]*)"),
        (
            "aer",
            "announced",
            r"(?P<port>[0-9a-f:.]+): AER: (?:Multiple )?"
            r"(?P<severity>Corrected|Correctable|Uncorrect(?:ed|able) \((?:Non-)?Fatal\)) "
            rf"error (?:message )?received(?: from|:) {_PCI}",
        ),
        ("aer", "recovery_failed", rf"{_PCI}: AER: device recovery failed"),
        (
            "pcie_limited",
            None,
            rf"{_PCI}: (?P<available_gbps>[\d.]+) Gb/s available PCIe bandwidth, limited by (?P<limit>.+? link)"
            r" at (?P<at>[0-9a-f:.]+)"
            r"(?: \(capable of (?P<capable_gbps>[\d.]+) Gb/s)?",
        ),
        # processors and memory
        (
            "soft_lockup",
            "soft",
            r"BUG: soft lockup - CPU#(?P<device>\d+) stuck for (?P<seconds>\d+)s! \[(?P<name>.+):(?P<pid>\d+)\]",
        ),
        ("soft_lockup", "hard", r"Watchdog detected hard LOCKUP on cpu ?(?P<device>\d+)"),
        ("soft_lockup", "rcu", r"rcu: INFO: \w+ (?:self-)?detected (?:expedited )?stalls? on CPU"),
        (
            "hung_task",
            None,
            r"INFO: task (?P<name>.+):(?P<pid>\d+) blocked(?: on a \w+)?(?: in I/O wait)?"
            r" for more than (?P<seconds>\d+) seconds",
        ),
        ("oom", "cgroup", r"Memory cgroup out of memory: Kill(?:ed)? process (?P<pid>\d+) \((?P<name>[^)]*)\)"),
        (
            "oom",
            "system",
            r"Out of memory(?: \(oom_kill_allocating_task\))?: Kill(?:ed)? process (?P<pid>\d+) \((?P<name>[^)]*)\)",
        ),
        ("mce", "thermal", r"CPU(?P<device>\d+): (?:Core|Package) temperature(?:/speed)? (?:is )?above threshold"),
        ("mce", "memory", r"Memory failure: 0x(?P<page>[0-9a-f]+): .*[Rr]ecover"),
        ("mce", "uncorrected", r"mce: Uncorrected hardware memory error"),
        ("mce", None, r"\[Hardware Error\]: +event severity: (?P<sub>\w+)"),
        (
            "mce",
            "check",
            r"mce: \[Hardware Error\]: (?:CPU (?P<device>\d+): Machine Check|Machine check events logged)",
        ),
        ("edac", "corrected", r"EDAC (?P<device>MC\d+): (?P<errors>\d+) CE (?P<where>.*?)(?: \(|$)"),
        ("edac", "uncorrected", r"EDAC (?P<device>MC\d+): (?P<errors>\d+) UE (?P<where>.*?)(?: \(|$)"),
        ("kernel_oops", "panic", r"Kernel panic - not syncing"),
        (
            "kernel_oops",
            "oops",
            r"(?:BUG: unable to handle|kernel BUG at|(?:general protection fault|Oops)\b.*\[#\d+\])",
        ),
        # storage
        (
            "readonly_remount",
            None,
            r"(?:EXT[234]|F2FS)-fs \((?P<device>[^):]+)[^)]*\): Remounting filesystem read-only",
        ),
        (
            "readonly_remount",
            None,
            r"XFS \((?P<device>[^)]+)\): .*(?:[Ff]ilesystem has been shut down|Shutting down filesystem)",
        ),
        ("readonly_remount", None, r"BTRFS:? \w+ \(device (?P<device>[^):\s]+).*forced readonly"),
        ("md_fail", "disk", r"md/raid\d*:?(?P<device>\w+): Disk failure on (?P<disk>[\w/-]+)(?:,| detected)"),
        ("md_fail", "array", r"md/raid\d*:(?P<device>\w+): (?:not enough operational|Cannot continue operation)"),
        (
            "md_degraded",
            None,
            r"md/raid\d*:(?P<device>\w+): (?:raid level \d+ )?active with (?P<active>\d+) out of (?P<wanted>\d+) ",
        ),
        ("io_error", "nvme", r"block (?P<device>nvme\w+): no available path - failing I/O"),
        ("io_error", "medium", r"critical medium error, dev (?P<device>(?!sr|fd|loop)[\w-]+)"),
        ("io_error", None, r"I/O error,? (?:on )?dev(?:ice)? (?P<device>(?!sr\d|fd\d|loop)[\w-]+)"),
        (
            "io_error",
            "nvme",
            r"nvme (?P<device>nvme\d+): (?:I/O .*\btimeout|controller is down|Device not ready"
            r"|Disabling device after reset failure|Removing after probe failure)",
        ),
        (
            "io_error",
            "filesystem",
            r"(?:EXT[234]-fs error \(device (?P<device>[^):]+)|XFS \([^)]+\): (?:metadata I/O error|Corruption))",
        ),
        # network
        ("mlx5", "power", rf"mlx5_core {_PCI}: .*[Ii]nsufficient power on the PCIe slot(?: \((?P<watts>\d+)W\))?"),
        ("mlx5", "temperature", rf"mlx5_core {_PCI}: .*[Hh]igh [Tt]emperature"),
        ("mlx5", "module", rf"mlx5_core {_PCI}: .*Port module event\[error\]: module (?P<module>\d+), (?P<reason>.+)"),
        ("mlx5", "link_down", rf"mlx5_core {_PCI}:? (?P<device>[\w.-]+): (?:Port: \d+ )?Link (?:down|DOWN)"),
        ("mlx5", "link_up", rf"mlx5_core {_PCI}:? (?P<device>[\w.-]+): (?:Port: \d+ )?Link (?:up|ACTIVE)"),
        (
            "mlx5",
            "health",
            rf"mlx5_core {_PCI}:? .*(?:device's health compromised|firmware internal error|health recovery f)",
        ),
        # what the kernel itself left out
        ("suppressed", None, r"(?P<name>[\w.]+): (?P<callbacks>\d+) callbacks suppressed"),
    )
)

# A row is only tried when one of these words is in the text: most messages are none of this.
HINT = re.compile(
    r"NVRM(?=.*(?:Xid|fallen|RmInit|rm_init|probe|None of|I/O region|supported|API mism|GSP|[rR]pc|crash))"
    r"|NVRM(?=.*(?:nvlink|loading))"
    r"|nvidia.*failed with error"
    r"|nvidia-|nouveau|Lockdown|Loading of|PKCS#7|disagrees about|version magic|AER|PCIe Bus Error|PCIe bandwidth"
    r"|LOCKUP|lockup|rcu:|blocked|ut of memory|temperature|Hardware Error|Memory failure|mce:|EDAC|panic|BUG"
    r"|protection fault|Oops|-fs |XFS|BTRFS|md/raid|I/O error|medium error|nvme|mlx5_core|suppressed"
)
