# SPDX-License-Identifier: Apache-2.0
"""The lane for a machine with real NVIDIA GPUs: modules run there as on any node, with ``connection: local``.

Needs torch with CUDA and pytest, no network. Where ansible-core is installed the modules are run by Ansible; otherwise
the code behind them is called directly, and the tests of Ansible itself are reported as skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "module_utils"))

HAS_ANSIBLE = importlib.util.find_spec("ansible") is not None
RunModule = Callable[..., dict[str, Any]]


def ansible_playbook(playbook: Path, *args: str, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    """Run a playbook on this machine under the project's own configuration."""
    inventory = () if "-i" in args else ("-i", "localhost,")
    return subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", *inventory, str(playbook), *args],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_CACHE_PLUGIN": "memory"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def torch_devices() -> list[dict[str, Any]]:
    """What torch itself says about the GPUs, asked in a process of its own; the lane stops where there are none."""
    script = (
        "import json, torch; n = torch.cuda.device_count(); p = torch.cuda.get_device_properties; "
        "print(json.dumps([{'name': p(i).name, 'uuid': 'GPU-' + str(p(i).uuid), 'memory': p(i).total_memory, "
        "'capability': [p(i).major, p(i).minor]} for i in range(n)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or json.loads(done.stdout) == []:
        pytest.exit(f"this lane needs a real GPU and torch with CUDA; torch says: {done.stdout}{done.stderr}", 2)
    devices: list[dict[str, Any]] = json.loads(done.stdout)
    return devices


@pytest.fixture
def run_module(tmp_path: Path) -> RunModule:
    """Return a function that runs gpu_facts or torch_benchmark on this machine and returns its result."""

    def by_ansible(name: str, **options: Any) -> dict[str, Any]:
        playbook, answer = tmp_path / "play.yml", tmp_path / "answer.json"
        task = {"name": "Run the module", name: options, "register": "__answer"}
        keep = {
            "name": "Keep its answer",
            "ansible.builtin.copy": {"content": "{{ __answer | to_json }}", "dest": str(answer), "mode": "0600"},
        }
        variables = {"ansible_python_interpreter": sys.executable}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables}
        playbook.write_text(json.dumps([{**play, "tasks": [task, keep]}]))
        done = ansible_playbook(playbook)
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(answer.read_text())
        return result

    return by_ansible if HAS_ANSIBLE else directly


def directly(name: str, **options: Any) -> dict[str, Any]:
    """Call what is behind a module, with the module's defaults."""
    if name == "gpu_facts":
        from rackwright.gpu_probe import probe

        return {"ansible_facts": {"gpu": probe(**options)}}
    from rackwright import benchmark, benchmark_levels

    level = options.get("level", "quick")
    names = ("burn_seconds", "llm_workload", "llm_goal")
    request = benchmark.Request(
        python=sys.executable,
        suites=tuple(options.get("suites", benchmark_levels.LEVEL_SUITES[level])),
        devices=tuple(options.get("devices", ["auto"])),
        level=level,
        timeout=float(options.get("timeout", benchmark_levels.CUDA_LEVELS[level].timeout_s)),
        options={name: options[name] for name in names if name in options},
        seed=options.get("seed", 1),
        allow_busy=options.get("allow_busy", False),
    )
    return {"torch_benchmark": {**benchmark.run(request), "run_id": None, "host": benchmark.host_summary()}}
