# SPDX-License-Identifier: Apache-2.0
"""The playbooks of proofs and benchmarks on stand-in modules: no hardware, no torch, the rest as users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from unit.verdict_samples import cpu_benchmark, gpu, health

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """#!/usr/bin/python
import json
from ansible.module_utils.basic import AnsibleModule
spec = {name: {"type": "raw"} for name in %r}
module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
data = json.load(open(%s))
if isinstance(data, str):
    module.fail_json(msg=data)
%s
"""
#: where each stand-in finds what it answers: a path in an option that the playbooks pass through from the inventory
WHERE = {
    "gpu_facts": ("gpu_facts_sysroot", 'module.params["sysroot"]', "facts"),
    "gpu_health": ("health_kernel_log", 'module.params["kernel_log"]', "health"),
    "torch_benchmark": ("pytorch_env_path", 'module.params["python"].rsplit("/bin/", 1)[0]', "benchmark"),
}
BODY = {
    "gpu_facts": 'module.exit_json(changed=False, ansible_facts={"gpu": data})',
    "gpu_health": "module.exit_json(changed=False, **data)",
    # a second answer is what a repetition of some suites gives; every call is written down
    "torch_benchmark": """
asked, part = module.params["suites"], data.get("again")
with open(WHERE + ".calls", "a") as calls:
    print(json.dumps(asked), file=calls)
data = data.get("first", data)
if part and asked and asked != ["import"]:
    data = {**part, "suites": asked}
module.exit_json(changed=False, torch_benchmark={**data, "run_id": module.params["run_id"]})
""".replace("WHERE", WHERE["torch_benchmark"][1]),
}
OPTIONS = [
    *("sysroot", "timeout", "python", "level", "run_id", "extra_gpus", "suites", "devices", "llm_workload"),
    *("expected", "modes", "baseline", "limits", "window_s", "kernel_log", "llm_goal"),
]

HEALTHY = {"gpu_health": health(), "ansible_facts": {"gpu_health": {"severity": "none"}}}
BENCHMARK = cpu_benchmark()["torch_benchmark"]
GOOD: dict[str, Any] = {
    "facts": gpu(8, simulated=True),
    "benchmark": BENCHMARK,
    "vars": {"gpu_expected_count": 8},
}
AWAY: dict[str, Any] = {"vars": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}}


def build(folder: Path) -> Path:
    """Return a copy of what the playbooks need, with modules in place of those that need hardware and torch."""
    for name in ("module_utils", "action_plugins", "callback_plugins", "playbooks", "roles", "ansible.cfg"):
        (folder / name).symlink_to(ROOT / name)
    library = folder / "library"
    library.mkdir()
    for name in ("fleet_verdict.py", "gpu_plan.py", "validate_inventory.py"):
        (library / name).symlink_to(ROOT / "library" / name)
    for name, (_variable, where, _key) in WHERE.items():
        (library / f"{name}.py").write_text(STAND_IN % (OPTIONS, where, BODY[name]))
    return folder


def play(
    site: Path, nodes: dict[str, dict[str, Any]], *args: str, playbook: str = "prove-nodes.yml"
) -> subprocess.CompletedProcess[str]:
    """Run a playbook on nodes, each with ``facts``, ``health``, ``benchmark`` and ``vars``."""
    hosts: dict[str, Any] = {}
    for name, node in nodes.items():
        hosts[name] = dict(node.get("vars", {}))
        for variable, _where, key in WHERE.values():
            path = site / f"{name}.{key}.json"
            path.write_text(json.dumps(node.get(key, HEALTHY if key == "health" else None)))
            hosts[name][variable] = str(path)
    common = {
        "health_become": False,
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
    }
    inventory = site / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"gpu_nodes": {"hosts": hosts, "vars": common}}))
    program = str(Path(sys.executable).parent / "ansible-playbook")
    return subprocess.run(
        [
            program,
            "-i",
            str(inventory),
            str(ROOT / "playbooks" / playbook),
            "-e",
            f"rackwright_reports={site}/reports",
            *args,
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(site / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(site / "facts"),
        },
        cwd=site,
        capture_output=True,
        text=True,
        timeout=120,
    )


def calls(site: Path, node: str) -> list[Any]:
    """Return the suites of every call of torch_benchmark on a node, None for those of its level."""
    path = site / f"{node}.benchmark.json.calls"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
