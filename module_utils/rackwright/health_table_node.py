# SPDX-License-Identifier: Apache-2.0
"""The checks of the kernel's log and of the host: signal, finding, actions and source of each."""

from __future__ import annotations

from .health_table_gpu import Rule

_DCGM = "NVIDIA/DCGM"
_GPUD = "leptonai/gpud"
_GCM = "facebookresearch/gcm"
_AZURE = "Azure azurehpc-health-checks"
_IMBUE = "imbue-ai/cluster-health"
_STAS = "stas00/ml-engineering"
_OCI = "oracle-quickstart/oci-hpc"
_NHC = "mej/nhc"
_DECLARED = ("fix_configuration",)
_EVENT = ("watch",)

NODE_RULES: dict[str, Rule] = {
    # ---- what the kernel says ----
    "kernel.log": Rule(
        "journal of the kernel, else /dev/kmsg", "cut, or messages lost", "monitor", _EVENT, "Rackwright"
    ),
    "kernel.xid": Rule(
        "Xid events",
        "by NVIDIA's bucket of the code",
        "monitor to isolate",
        _EVENT,
        "NVIDIA Xid catalogue; docs/health.md",
    ),
    "kernel.sxid": Rule(
        "SXid events of NVSwitches", "fatal; non-fatal", "reset; monitor", _EVENT, "NVIDIA Fabric Manager User Guide"
    ),
    "kernel.driver": Rule(
        "other messages of the NVIDIA driver: fallen off the bus, GSP, RmInit, module load",
        "any",
        "monitor to isolate",
        _EVENT,
        "NVIDIA driver",
    ),
    "kernel.nouveau": Rule("messages of nouveau", "any", "reboot", ("blacklist_nouveau",), f"{_DCGM}: denylist"),
    "kernel.pcie": Rule(
        "PCIe AER and links limited below what the device can", "any", "monitor to reboot", _EVENT, _IMBUE
    ),
    "kernel.lockup": Rule(
        "soft and hard lockups, tasks blocked for 120 s, RCU stalls",
        "any",
        "monitor to reboot",
        _EVENT,
        f"{_GPUD}, {_GCM}, {_NHC}",
    ),
    "kernel.memory": Rule(
        "machine checks, EDAC, out of memory", "any", "monitor to isolate", _EVENT, f"{_GPUD}, {_NHC}"
    ),
    "kernel.storage": Rule(
        "I/O errors, file systems turned read-only, failed arrays",
        "any",
        "monitor to isolate",
        _EVENT,
        f"{_AZURE}, {_GPUD}",
    ),
    "kernel.network": Rule("mlx5 power and temperature, links", "any", "monitor", _EVENT, _GPUD),
    "kernel.other": Rule("other events of the kernel, like an oops", "any", "as judged", _EVENT, "Linux kernel"),
    # ---- the host ----
    "host.swap": Rule(
        "swap devices", "any where it is declared as none (expected.swap)", "monitor", _DECLARED, f"{_NHC}, {_AZURE}"
    ),
    "host.governor": Rule(
        "CPU frequency governor",
        "not the declared one (expected.governor)",
        "monitor",
        _DECLARED,
        f"{_AZURE}, {_STAS}",
    ),
    "host.thp": Rule("transparent huge pages", "not the declared mode (expected.thp)", "monitor", _DECLARED, _AZURE),
    "host.numa_balancing": Rule(
        "kernel.numa_balancing", "not as declared (expected.numa_balancing)", "monitor", _DECLARED, _STAS
    ),
    "host.iommu": Rule("IOMMU", "not as declared (expected.iommu)", "monitor", ("check_bios",), _STAS),
    "host.memory": Rule(
        "memory of the node against the declared one or the last check",
        "less by more than memory_tolerance",
        "monitor",
        ("check_memory", "reseat"),
        f"{_AZURE}, {_NHC}, {_GCM}",
    ),
    "host.disk": Rule(
        "use of each local file system", "more than disk_used", "monitor", ("free_space",), f"{_IMBUE}, {_GPUD}, {_NHC}"
    ),
    "host.readonly": Rule(
        "local file systems mounted read-only although fstab does not say so",
        "any",
        "isolate",
        ("drain", "check_storage"),
        f"{_AZURE}, {_GPUD}",
    ),
    "host.raid": Rule(
        "/proc/mdstat", "an array with a failed or missing device", "monitor", ("check_storage",), f"{_AZURE}, {_GPUD}"
    ),
    "host.time": Rule(
        "the kernel's own word whether its clock is synchronised",
        "it is not",
        "monitor",
        ("restart_service",),
        f"{_GCM}, {_IMBUE}",
    ),
    "host.failed_units": Rule("systemd units", "failed", "monitor", ("restart_service",), "systemd"),
    "host.leftovers": Rule(
        "processes of Ansible and sg_inq that never ended",
        "more than leftovers, older than leftover_age",
        "monitor",
        ("close_leftovers",),
        f"{_IMBUE}: fact gathering hangs",
    ),
    "env.blockers": Rule(
        "variables set for everybody (/etc/environment, /etc/profile.d, PAM) that change or slow down CUDA",
        "any",
        "monitor",
        _DECLARED,
        f"{_DCGM} Software plugin: bad environment variables; {_GPUD}",
    ),
    "nic.port": Rule(
        "state of each RDMA port that is declared or was active before",
        "not active",
        "isolate",
        ("drain", "check_network"),
        f"{_GPUD}, {_AZURE}, {_GCM}, {_OCI}",
    ),
    "nic.rate": Rule(
        "rate of each active RDMA port against the declared one or the last check",
        "lower",
        "isolate",
        ("drain", "check_network"),
        f"{_GPUD}, {_AZURE}",
    ),
    "nic.flaps": Rule(
        "losses of link of each RDMA port", "more than nic_flaps_per_day", "monitor", ("check_network",), _AZURE
    ),
    "nvme.state": Rule(
        "NVMe controllers in sysfs, and those of the last check",
        "not live, or gone",
        "isolate",
        ("drain", "check_storage"),
        f"{_AZURE}, {_OCI}",
    ),
    "nvme.smart": Rule(
        "SMART log of each NVMe drive (root)",
        "a critical warning; worn or out of spare blocks",
        "isolate; monitor",
        ("check_storage",),
        f"{_AZURE}, NVM Express",
    ),
    "dcgm.diag": Rule(
        "dcgmi diag -r LEVEL -j, where it was asked for",
        "a test that failed",
        "as DCGM's error severity says",
        ("drain", "run_field_diagnostics"),
        f"{_DCGM}: dcgmErrorSeverity_enum",
    ),
}
