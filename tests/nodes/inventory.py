# SPDX-License-Identifier: Apache-2.0
"""An Ansible inventory of a running fleet, as JSON, which is YAML too."""

from __future__ import annotations

import json

from .fleet import state
from .identities import IDENTITIES
from .paths import fleet_dir
from .vendor.repositories import MOUNT, key_name

BOOT_TIME = "stat -c %Y /proc/1"


def inventory(fleet: str) -> str:
    """Inventory text; the demo and the molecule inventories say the same in YAML."""
    folder = fleet_dir(fleet)
    hosts = {}
    for name, node in state(fleet)["nodes"].items():
        hosts[name] = {"node_profile": node["profile"], "node_release": node["release"], "node_driver": node["driver"]}
        if node.get("vendor") == "yes":
            identity = IDENTITIES.get(node.get("os", ""))
            kind = "rpm" if identity and identity.redhat else "deb"
            hosts[name] |= {
                "stack_driver_source": "nvidia",
                "stack_repository_url": f"file://{MOUNT}/compute/cuda/repos/{{distro}}/{{arch}}/",
                "stack_repository_key": str(folder / key_name(kind)),
                "stack_repository_key_fingerprint": (folder / f"vendor-{kind}.fingerprint").read_text().strip(),
            }
    variables = {
        "ansible_ssh_common_args": f"-F {folder / 'ssh_config'}",
        "ansible_control_path_dir": str(folder / "cp"),
        "ansible_python_interpreter": "/usr/bin/python3",
        "gpu_facts_sysroot": "/run/simnvml/root",
        # A container's boot_id never changes; its first process does.
        "nvidia_driver_reboot_boot_time_command": BOOT_TIME,
        "os_base_reboot_boot_time_command": BOOT_TIME,
    }
    return json.dumps({"gpu_nodes": {"hosts": hosts, "vars": variables}}, indent=2) + "\n"
