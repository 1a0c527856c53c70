# SPDX-License-Identifier: Apache-2.0
"""The playbooks as a user types them: they parse, and slips of the inventory stop a run before any contact."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_health
import pytest
import torch_benchmark
import yaml

from ansible.module_utils.rackwright.benchmark_plan import SUITES
from ansible.module_utils.rackwright.health_limits import LIMITS
from ansible.module_utils.rackwright.llm_workloads import WORKLOADS
from ansible.module_utils.rackwright.verdict_gates import GATES

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(ROOT.glob("playbooks/*.yml"))


def play(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook from the checkout under the project's own configuration."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PWD": str(cwd)}
    program = Path(sys.executable).parent / "ansible-playbook"
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, text=True, capture_output=True, timeout=120, check=False
    )


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts that nothing answers for: contacting one would fail the test by its message."""
    path = tmp_path / "hosts.yml"
    path.write_text(
        "gpu_nodes:\n  hosts:\n    n1: {ansible_host: 127.0.0.1, ansible_port: 1}\n"
        "    n2: {ansible_host: 127.0.0.2, ansible_port: 1}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_playbook_parses_with_the_example_inventory(playbook: Path) -> None:
    result = play("-i", "inventory/example", str(playbook), "--syntax-check")

    assert result.returncode == 0, result.stderr


def documented() -> set[str]:
    """Every variable that an argument spec of a role or of the playbooks names."""
    files = [*ROOT.glob("roles/*/meta/argument_specs.yml"), ROOT / "playbooks/meta/argument_specs.yml"]
    specs = [yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"] for path in files]
    return {name for spec in specs for entry in spec.values() for name in entry.get("options") or {}}


@pytest.mark.parametrize(
    "path",
    [*PLAYBOOKS, *sorted(ROOT.glob("playbooks/tasks/*.yml")), *sorted(ROOT.glob("playbooks/vars/*.yml"))],
    ids=lambda path: path.name,
)
def test_every_variable_that_a_playbook_reads_is_documented(path: Path) -> None:
    """What is read with a default or only where it is defined comes from the user: validation has to know the name."""
    text = re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    read = re.findall(r"(?<![.\w'\]])(?<!\| )([a-z][a-z0-9_]*) (?:\| default\(|is (?:not )?defined)", text)

    assert {name for name in read if not name.startswith("ansible_")} <= documented()


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_a_playbook_begins_with_what_it_is_for(playbook: Path) -> None:
    assert re.match(r"---\n# [A-Z][^\n]{20,}", playbook.read_text(encoding="utf-8"))


def test_a_sound_inventory_is_accepted_without_contact(inventory: Path) -> None:
    result = play("-i", str(inventory), "playbooks/validate-inventory.yml")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "UNREACHABLE" not in result.stdout


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("gpu_expected_cout=8", "Did you mean gpu_expected_count?"),
        ("gpu_expected_count=eight", "Could not use gpu_expected_count of the playbooks"),
        ("prove_level=thorough", "must be one of: quick, standard"),
        ("stack_framework_vresion=2.13.0", "Did you mean stack_framework_version?"),
        ("stack_framework=tensorflow-gpu", "tensorflow-gpu is a removed package without content."),
        ('{"stack_framework_version": 2.10}', "2.1 is not a text. Write it in quotes, like"),
    ],
)
def test_a_mistyped_variable_stops_the_site_before_any_contact(inventory: Path, mistake: str, sentence: str) -> None:
    result = play("-i", str(inventory), "playbooks/site.yml", "-e", mistake)

    assert result.returncode != 0
    assert sentence in result.stdout
    assert "no node was contacted" in result.stdout
    assert "UNREACHABLE" not in result.stdout


@pytest.mark.parametrize(
    ("playbook", "mistake", "sentence"),
    [
        ("check-health.yml", "health_limit=90", "Did you mean health_limits?"),
        ("check-health.yml", "health_fail_at=foo", "must be one of: monitor, reset, reboot, isolate, got: foo"),
        ("check-health.yml", '{"health_limits": {"disk_usd": 90}}', "health_limits.disk_usd is not known."),
        ("check-health.yml", '{"health_expected": {"swapp": "any"}}', "health_expected.swapp is not known."),
        ("benchmark-nodes.yml", "benchmark_suite=gemm", "Did you mean benchmark_suites?"),
        ("benchmark-nodes.yml", '{"benchmark_suites": ["gemm", "bogus"]}', "Got no match for: bogus"),
        ("benchmark-nodes.yml", '{"benchmark_llm_goal": {"token": 3}}', "benchmark_llm_goal.token is not known."),
        ("prove-nodes.yml", '{"prove_gates": {"gem.hopper": {"warn": 0.7}}}', "prove_gates.gem.hopper is not known."),
        ("prove-nodes.yml", "prove_levl=full", "Did you mean prove_level?"),
        ("export-inventory.yml", "export_includes=facts", "Did you mean export_include?"),
        ("benchmark-serving.yml", "serving_rate=2", "Did you mean serving_rates?"),
    ],
)
def test_a_mistyped_variable_stops_every_other_playbook_that_asks_nodes(
    inventory: Path, playbook: str, mistake: str, sentence: str
) -> None:
    result = play("-i", str(inventory), f"playbooks/{playbook}", "-e", mistake, "-e", "serving_url=http://127.0.0.1:9")

    assert result.returncode != 0
    assert sentence in result.stdout
    assert "no node was contacted" in result.stdout
    assert "UNREACHABLE" not in result.stdout
    assert "Connection refused" not in result.stdout


def test_the_documented_names_are_those_that_the_modules_know() -> None:
    """What validation knows and what the modules take is one list, or a sound inventory would be refused."""
    spec = yaml.safe_load((ROOT / "playbooks/meta/argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"]["options"]
    health: Any = gpu_health.ARGUMENT_SPEC
    of_health = set(health["expected"]["options"]) - {"gpu_count", "stack"}
    of_goal = set(torch_benchmark.ARGUMENT_SPEC["llm_goal"]["options"])

    assert set(options["health_limits"]["options"]) == set(LIMITS)
    assert set(options["health_expected"]["options"]) == of_health
    assert set(options["benchmark_llm_goal"]["options"]) == of_goal
    assert set(options["prove_gates"]["options"]) == set(GATES)
    assert options["benchmark_suites"]["choices"] == list(SUITES)
    assert options["benchmark_llm_workload"]["choices"] == list(WORKLOADS)


def test_a_host_pattern_that_matches_nothing_is_an_error(inventory: Path) -> None:
    result = play("-i", str(inventory), "playbooks/site.yml", "-e", "rackwright_hosts=gpu_nods")

    assert result.returncode != 0
    assert "Could not match supplied host pattern" in result.stdout + result.stderr


def test_an_inventory_file_that_does_not_parse_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "hosts.yml"
    broken.write_text("gpu_nodes:\n  hosts:\n   - n1: [\n", encoding="utf-8")

    result = play("-i", str(broken), "playbooks/site.yml")

    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr


DESCRIBED = """gpu_nodes:
  hosts:
    hopper:
      node_description: {os: ubuntu2404, nvswitch: true, gpus: [{model: h100-sxm5-80gb, count: 8}]}
    pascal:
      node_description: {os: rocky9, gpus: [{model: p40, count: 2}]}
"""


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A fleet that does not exist yet, in a directory of its own."""
    path = tmp_path / "site" / "hosts.yml"
    path.parent.mkdir()
    path.write_text(DESCRIBED, encoding="utf-8")
    return path


def plan(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return play("-i", str(inventory), "playbooks/plan-stack.yml", "-e", "plan_date=2026-11-24", *arguments)


def test_a_described_fleet_is_planned_without_contact_and_again_to_the_same_bytes(described: Path) -> None:
    first = plan(described)
    lock = described.parent / "stack.lock.yml"
    text = lock.read_text(encoding="utf-8")
    again = plan(described)

    assert (first.returncode, again.returncode) == (0, 0), first.stdout + first.stderr
    assert "2 node(s): 2 solved." in first.stdout
    assert "UNREACHABLE" not in first.stdout
    assert "(unchanged)" in again.stdout
    assert lock.read_text(encoding="utf-8") == text
    assert "pascal: rhel9-2x-p40" in text or "pascal: rocky9-2x-p40" in text


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), "[new]"),
        (("--limit", "new:pascal"), "[new]"),
        (("--skip-tags", "validate"), "[new]"),
        (("--limit", "hopper:pascal"), ""),
        (("-e", "plan_facts=cache"), ""),
    ],
)
def test_only_nodes_without_a_description_are_asked(described: Path, arguments: tuple[str, ...], asked: str) -> None:
    described.write_text(DESCRIBED + "    new: {ansible_host: 127.0.0.1, ansible_port: 1}\n", encoding="utf-8")
    result = plan(described, *arguments)
    contacts = [line.split(":")[1].strip() for line in result.stdout.splitlines() if "UNREACHABLE" in line]

    assert contacts == ([asked] if asked else [])
    assert "pascal: rocky9-2x-p40" in (described.parent / "stack.lock.yml").read_text(encoding="utf-8")


def test_a_plan_in_check_mode_writes_neither_lock_nor_report(described: Path, tmp_path: Path) -> None:
    result = plan(described, "--check", "--diff", "-e", f"plan_report={tmp_path}/plan.json")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "+  hopper: ubuntu2404-8x-h100-sxm5-80gb" in result.stdout
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["hosts.yml"]


def test_relative_paths_start_where_the_user_stands(described: Path, tmp_path: Path) -> None:
    playbook = str(ROOT / "playbooks/plan-stack.yml")
    names = ("-e", "stack_lock_file=own.lock.yml", "-e", "plan_report=new/plan.json")
    result = play("-i", str(described), playbook, *names, cwd=tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "own.lock.yml").is_file()
    assert (tmp_path / "new/plan.json").is_file()


def test_a_refusal_fails_the_run_and_the_others_have_their_plan(described: Path, tmp_path: Path) -> None:
    report = tmp_path / "plan.json"
    result = plan(described, "-e", "stack_module_flavour=open", "-e", f"plan_report={report}")
    nodes = json.loads(report.read_text(encoding="utf-8"))["nodes"]

    assert result.returncode != 0
    assert "pascal: refused by the gate gpu-driver" in result.stdout
    assert {name: node["status"] for name, node in nodes.items()} == {"hopper": "solved", "pascal": "refused"}
    assert nodes["pascal"]["gate"] == "gpu-driver"
    assert nodes["pascal"]["alternatives"]
    assert "hopper" in (described.parent / "stack.lock.yml").read_text(encoding="utf-8")
    assert "Traceback" not in result.stdout + result.stderr


def test_what_needs_attention_is_told_once_with_its_nodes(described: Path) -> None:
    text = DESCRIBED.replace("nvswitch: true, ", "").replace(
        "count: 2}]}", "count: 2}]}\n      stack_driver_branch: 535"
    )
    described.write_text(text, encoding="utf-8")
    said = " ".join(plan(described).stdout.split())

    assert "fabric_manager: unknown: eight or more SXM GPUs usually sit on a board with NVSwitch" in said
    assert "plan from facts (on hopper)" in said
    assert "driver.eol: warning: branch 535 ended on 2026-06 and gets no security fixes" in said


def test_a_limited_plan_leaves_the_other_nodes_in_the_lock(described: Path) -> None:
    plan(described)
    result = plan(described, "--limit", "pascal", "-e", "stack_framework=none")
    text = (described.parent / "stack.lock.yml").read_text(encoding="utf-8")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "pascal: changes" in result.stdout
    assert "  hopper: ubuntu2404-8x-h100-sxm5-80gb" in text


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("count: 2", "cuont: 2", "cuont"),
        ("p40", "p4o", "p40"),
        ("os: rocky9", "os: centos8", "Rocky"),
        ("rocky9,", "rocky9, phyton: '3.12',", "node_description.phyton is not known."),
        ("rocky9,", "rocky9, kernel: latest,", "'latest' is not a kernel release"),
    ],
)
def test_a_mistake_in_a_description_is_one_sentence(described: Path, old: str, new: str, sentence: str) -> None:
    described.write_text(DESCRIBED.replace(old, new), encoding="utf-8")
    result = plan(described)

    assert result.returncode != 0
    assert sentence in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize("date", ["tomorrow", "2026-13-45", "20261124"])
def test_a_date_that_is_none_is_refused_before_anything_is_solved(described: Path, date: str) -> None:
    result = plan(described, "-e", f"plan_date={date}")

    assert result.returncode != 0
    assert f"Could not use the date on plan_date: {date} is none. Write it like 2026-11-24." in result.stdout
    assert not (described.parent / "stack.lock.yml").exists()


def test_a_site_without_a_lock_is_told_to_plan_first(described: Path) -> None:
    described.write_text("gpu_nodes:\n  hosts:\n    n1: {ansible_host: 127.0.0.1, ansible_port: 1}\n", encoding="utf-8")
    result = play("-i", str(described), "playbooks/site.yml")

    assert result.returncode != 0
    assert "Run playbooks/plan-stack.yml" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_a_site_refuses_a_lock_that_was_edited_into_inconsistency(described: Path) -> None:
    plan(described)
    assert plan(described).returncode == 0, "read, accepted, and remembered as accepted"
    lock = described.parent / "stack.lock.yml"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text.replace("  version: 595.91.07\n", "  version: 535.309.01\n", 1), encoding="utf-8")
    described.write_text(
        "gpu_nodes:\n  hosts:\n    hopper: {ansible_host: 127.0.0.1, ansible_port: 1}\n", encoding="utf-8"
    )
    result = play("-i", str(described), "playbooks/site.yml")

    assert lock.read_text(encoding="utf-8") != text
    assert result.returncode != 0
    assert "Could not use the lock" in result.stdout


def test_the_lock_of_the_example_is_what_a_plan_makes_of_it(tmp_path: Path) -> None:
    site = tmp_path / "example"
    shutil.copytree(ROOT / "inventory/example", site)
    result = plan(site)

    assert result.returncode == 0, result.stdout + result.stderr
    assert (site / "stack.lock.yml").read_text(encoding="utf-8") == (
        ROOT / "inventory/example/stack.lock.yml"
    ).read_text(encoding="utf-8"), "plan the example again with -e plan_date=2026-11-24 and commit its lock"


def test_a_wheelhouse_is_built_from_a_lock_named_from_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "stack.lock.yml").write_text("schema: 1\nstacks: {}\nnodes: {}\n", encoding="utf-8")
    build = ("-i", "localhost,", str(ROOT / "playbooks/build-wheelhouse.yml"), "-e", f"wheelhouse_root={tmp_path}")

    found = play(*build, "-e", "wheelhouse_lock=stack.lock.yml", cwd=tmp_path)
    missed = play(*build, "-e", "wheelhouse_lock=other.lock.yml", cwd=tmp_path)

    assert found.returncode == 0, found.stdout + found.stderr
    assert missed.returncode != 0
    assert "other.lock.yml" in missed.stdout + missed.stderr
