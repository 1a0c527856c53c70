# SPDX-License-Identifier: Apache-2.0
"""``receipt`` and ``node_probe`` as Ansible runs them, on this machine: both ways to a node, one answer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import node_probe
import pytest
import yaml

from ansible.module_utils.rackwright.receipts import stale_reasons
from ansible.module_utils.rackwright.role_inputs import expected, role_facts

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = "roles/os_base/defaults/main.yml"


def ansible(tmp_path: Path, module: str, arguments: dict[str, Any], *more: str, rc: int = 0, **set_to: str) -> Any:
    """Run one module on localhost and return its result."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts"),
        "ANSIBLE_NOCOLOR": "1",
        **set_to,
    }
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local"]
    command += [
        "-m",
        module,
        *(["-a", json.dumps(arguments)] if arguments else []),
        "--tree",
        str(tmp_path / "tree"),
        *more,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == rc, done.stdout + done.stderr
    return json.loads((tmp_path / "tree" / "localhost").read_text(encoding="utf-8"))


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    path = tmp_path / "managed.conf"
    path.write_text("x\n", encoding="utf-8")
    return path


def test_what_a_role_leaves_is_fresh_until_somebody_touches_it(tmp_path: Path, managed: Path) -> None:
    arguments: dict[str, Any] = {"role": "os_base", "directory": str(tmp_path / "receipts"), "files": [str(managed)]}
    stack = {"os": {"headers": ["linux-headers-{kernel}"]}}
    given = ("-e", f"@{DEFAULTS}", "-e", json.dumps({"__stack": stack, "os_base_upgrade": "{{ 'fu' ~ 'll' }}"}))
    dry = ansible(tmp_path, "receipt", arguments, *given, "--check")
    assert (dry["written"], (tmp_path / "receipts").exists()) == (False, False)

    written = ansible(tmp_path, "receipt", arguments, *given)
    assert (written["written"], written["changed"]) == (True, False)
    probed = ansible(tmp_path, "node_probe", {"receipts_dir": arguments["directory"]})["receipts"]["os_base"]

    values = {**yaml.safe_load((ROOT / DEFAULTS).read_text(encoding="utf-8")), "os_base_upgrade": "full"}
    role_facts.cache_clear()
    now = expected(ROOT, "os_base", values, stack)
    assert stale_reasons("os_base", now, probed) == []
    assert stale_reasons(
        "os_base", expected(ROOT, "os_base", {**values, "os_base_upgrade": "safe"}, stack), probed
    ) == ["inputs changed (os_base_upgrade full → safe)"]

    managed.chmod(0o600)
    probed = ansible(tmp_path, "node_probe", {"receipts_dir": arguments["directory"]})["receipts"]["os_base"]
    assert stale_reasons("os_base", now, probed) == [f"{managed} mode 0644 → 0600"]

    removed = ansible(tmp_path, "receipt", {**arguments, "files": [], "state": "absent"})
    assert (removed["written"], removed["changed"]) == (True, False)
    assert os.listdir(arguments["directory"]) == []


def test_an_input_without_a_value_makes_no_receipt(tmp_path: Path) -> None:
    arguments = {"role": "os_base", "directory": str(tmp_path / "receipts")}
    given = ("-e", f"@{DEFAULTS}", "-e", json.dumps({"os_base_upgrade": "{{ nobody_set_this }}"}))

    failed = ansible(tmp_path, "receipt", arguments, *given, rc=2)

    assert "os_base_upgrade has no value" in failed["msg"]
    assert not (tmp_path / "receipts").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"role": "no_such_role"}, "Could not compute the receipt on the role no_such_role"),
        (
            {"role": "os_base", "files": ["/no/such"]},
            "Could not write the receipt on the role os_base: /no/such is not",
        ),
        ({"role": "os_base", "modules": ["nvidia"]}, "Could not record kernel modules on the role os_base"),
        ({"role": "../x", "state": "absent"}, "'../x' names no role"),
    ],
)
def test_a_receipt_that_would_mean_nothing_is_refused(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    directory = {"directory": str(tmp_path / "receipts")}

    failed = ansible(tmp_path, "receipt", {**arguments, **directory}, "-e", f"@{DEFAULTS}", rc=2)

    assert sentence in failed["msg"]
    assert not (tmp_path / "receipts").exists()


def test_both_ways_to_a_node_give_one_answer_and_cache_both_facts(tmp_path: Path) -> None:
    results = []
    for pipelining in ("1", "0"):
        result = ansible(tmp_path, "node_probe", {}, ANSIBLE_PIPELINING=pipelining)
        cached = (tmp_path / "facts" / "s1_localhost").read_text(encoding="utf-8")
        facts = json.loads(json.loads(cached)["__payload__"])
        assert {"gpu", "node"} <= set(facts)
        for key in ("collected_at", "duration_ms"):
            result["ansible_facts"]["gpu"].pop(key)
        (tmp_path / "facts" / "s1_localhost").unlink()
        results.append({key: result[key] for key in ("ansible_facts", "receipts", "receipts_problem", "changed")})

    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (None, "does not start"),
        ("#!/bin/sh\nexit 3\n", "ended with status 3 and gave no whole answer (no output)"),
        ("#!/bin/sh\necho hello\n", "ended with status 0 and gave no whole answer (hello)"),
        ('#!/bin/sh\necho \'RACKWRIGHT-PROBE {"failed": true, "python": "3.6.8"}\'\n', "is Python 3.6.8"),
    ],
)
def test_an_interpreter_that_gives_no_answer_is_named(tmp_path: Path, script: str | None, sentence: str) -> None:
    interpreter = tmp_path / "python"
    if script:
        interpreter.write_text(script, encoding="utf-8")
        interpreter.chmod(0o755)

    failed = ansible(tmp_path, "node_probe", {}, "-e", f"ansible_python_interpreter={interpreter}", rc=2)

    assert failed["msg"].startswith(f"Could not probe the node on localhost: {interpreter} ")
    assert sentence in failed["msg"]


def test_noise_around_the_answer_does_not_matter(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\necho "Welcome {{"\n{sys.executable} "$@"\necho }}\n', encoding="utf-8")
    interpreter.chmod(0o755)

    result = ansible(tmp_path, "node_probe", {}, "-e", f"ansible_python_interpreter={interpreter}")

    assert set(result["ansible_facts"]) >= {"gpu", "node"}


def test_both_halves_know_the_same_options() -> None:
    spec = importlib.util.spec_from_file_location("action_node_probe", ROOT / "action_plugins/node_probe.py")
    assert spec is not None
    assert spec.loader is not None
    action = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(action)

    # a path is expanded on the node, not on the control node
    module = {name: {**option, "type": "str"} for name, option in node_probe.ARGUMENT_SPEC.items()}
    assert {name: {**option, "type": "str"} for name, option in action.ARGUMENT_SPEC.items()} == module


def test_a_node_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    more = ("-c", "ssh", "-e", "ansible_host=127.0.0.1 ansible_port=1")

    result = ansible(tmp_path, "node_probe", {}, *more, rc=4)

    assert result["unreachable"]
