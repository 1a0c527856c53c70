# SPDX-License-Identifier: Apache-2.0
"""The export as files: whole or not at all, changed only when it says something else, and no door for hostile text."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import run
from support.prometheus_text import parse
from support.simulated_node import ROOT
from unit.export_samples import NOW, RUN, cached, host, report

from ansible.module_utils.rackwright import fleet_export, inventory_text
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError

FILES = ["inventory.json", "inventory.yml", "facts.json", "rackwright.prom"]


def export(directory: Path, hosts: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    arguments = {"groups": {"all": ["n1"], "gpu_nodes": ["n1", "gone"], "empty": ["gone"]}, "now": NOW, **changes}
    return fleet_export.export(hosts or {"n1": host()}, directory=str(directory), **arguments)


def keep(directory: Path, document: Any, node: str = "n1", run_id: str = RUN) -> Path:
    path = directory / run_id / f"{node}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def facts_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "export/facts.json").read_text(encoding="utf-8"))
    return found


def test_every_file_is_written_and_says_the_same(tmp_path: Path) -> None:
    keep(tmp_path, report())
    result = export(tmp_path, {"n1": host(variables={"ansible_host": "192.0.2.1"}, textfile=True), "n2": host({})})
    folder = tmp_path / "export"
    listed = json.loads((folder / "inventory.json").read_text(encoding="utf-8"))
    metrics = (folder / "rackwright.prom").read_text(encoding="utf-8")

    assert sorted(os.listdir(folder)) == sorted(FILES)
    assert result["changed_files"] == result["files"] == FILES
    assert result["directory"] == str(folder)
    assert listed["gpu_nodes"]["hosts"] == ["n1"]
    assert listed["all"]["children"] == ["ungrouped", "gpu_nodes"]
    assert listed["ungrouped"]["hosts"] == ["n2"]
    assert listed["_meta"]["hostvars"]["n1"]["ansible_host"] == "192.0.2.1"
    assert listed["_meta"]["hostvars"]["n1"]["rackwright"]["verdict"]["verdict"] == "warn"
    assert listed["_meta"]["hostvars"]["n2"]["rackwright"] == {
        "simulated": None, "gpu": None, "health": None, "verdict": None,
    }  # fmt: skip
    assert "rackwright_gpu_benchmark_value" in parse(metrics)
    assert list(result["node_metrics"]) == ["n1"]
    assert parse(result["node_metrics"]["n1"]) == parse(metrics)
    assert "2 node(s) with 2 GPU(s)" in result["table_text"]
    assert "stale health: n1 (10 days old)" in result["table_text"]
    assert "no GPU facts are cached: run playbooks/gather-facts.yml: n2" in result["table_text"]


def test_the_same_again_changes_nothing_and_ages_go_on(tmp_path: Path) -> None:
    export(tmp_path)
    again = export(tmp_path, now=NOW.replace(hour=13))

    assert again["changed"] is False
    assert again["changed_files"] == []
    assert "nothing changed" in again["table_text"]
    assert facts_of(tmp_path)["nodes"]["n1"]["verdict"]["age"] == "2 hours old"


@pytest.mark.parametrize(
    ("name", "content"), [("facts.json", "{"), ("facts.json", "[1]"), ("inventory.yml", ""), ("rackwright.prom", None)]
)
def test_a_file_that_somebody_changed_is_put_right(tmp_path: Path, name: str, content: str | None) -> None:
    export(tmp_path)
    path = tmp_path / "export" / name
    before = path.read_bytes()
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")

    assert export(tmp_path)["changed_files"] == [name]
    assert path.read_bytes() == before


def test_another_verdict_is_a_change(tmp_path: Path) -> None:
    export(tmp_path)
    worse = host(cached(gpu_verdict={"verdict": "fail", "run_id": RUN, "at": "2026-11-30T11:00:00Z"}))

    assert export(tmp_path, {"n1": worse})["changed_files"] == FILES


def test_check_mode_says_what_would_change_and_writes_nothing(tmp_path: Path) -> None:
    result = export(tmp_path, check_mode=True)

    assert result["changed"] is True
    assert result["changed_files"] == FILES
    assert "would change" in result["table_text"]
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    wanted = {"n1": host(textfile=True)}

    assert export(tmp_path, wanted, include=["facts"])["node_metrics"] == {}
    shutil.rmtree(tmp_path / "export")
    assert export(tmp_path, include=["metrics"])["files"] == ["rackwright.prom"]
    assert os.listdir(tmp_path / "export") == ["rackwright.prom"]


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        (None, "it is not there"),
        ("", "it is damaged"),
        ('{"kind": "rackwright.verdict"', "it is damaged"),
        ("[]", "it is damaged"),
        ("[" * 5000, "it is damaged"),
        ('{"kind": "rackwright.fleet", "node": "n1"}', "it is no verdict of this node"),
        (json.dumps(report("n2")), "it is no verdict of this node"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_sentence(tmp_path: Path, document: str | None, cause: str) -> None:
    if document is not None:
        keep(tmp_path, document)
    result = export(tmp_path)
    reason = facts_of(tmp_path)["nodes"]["n1"]["missing"]["benchmark"]

    assert reason.startswith(f"Could not read the report on {RUN}/n1.json: ")
    assert cause in reason
    assert reason.endswith("Prove the node again with playbooks/prove-nodes.yml.")
    assert "\n" not in reason
    assert " ".join(result["table_text"].split()).count(f"Could not read the report on {RUN}/n1.json") == 1


def test_a_report_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    keep(tmp_path, report()).unlink()
    (tmp_path / RUN / "n1.json").mkdir()

    export(tmp_path)

    assert "Is a directory" in facts_of(tmp_path)["nodes"]["n1"]["missing"]["benchmark"]


def test_many_unreadable_reports_are_counted(tmp_path: Path) -> None:
    text = export(tmp_path, {f"n{i}": host() for i in range(9)})["table_text"]

    assert text.count("Could not read the report") == 3
    assert "... and 6 more reports that cannot be read" in text


@pytest.mark.parametrize(
    ("latest", "run_id", "told"),
    [
        ({}, "20261130T113000Z", 0),
        ({"benchmark": None}, RUN, 0),  # a run that measured nothing takes no number away
        ("{", RUN, 1),
        (None, RUN, 1),
    ],
)
def test_the_latest_benchmark_counts(tmp_path: Path, latest: Any, run_id: str, told: int) -> None:
    later = "20261130T113000Z"
    keep(tmp_path, report())
    if latest is not None:
        keep(tmp_path, latest if isinstance(latest, str) else report(run_id=later, **latest), run_id=later)
    benchmarks = {"quick": {"run_id": RUN}, "standard": {"run_id": later}}
    proofs = {"nodes": {"n1": {"verdict": "pass", "run_id": "20261130T100000Z", "benchmarks": benchmarks}}}
    (tmp_path / "proofs.json").write_text(json.dumps(proofs), encoding="utf-8")
    result = export(tmp_path, {"n1": host(cached(gpu_verdict=None))})

    assert facts_of(tmp_path)["nodes"]["n1"]["benchmark"]["run_id"] == run_id
    assert " ".join(result["table_text"].split()).count("Could not read the report") == told


@pytest.mark.parametrize("run_id", ["../../etc", "..", "a\0b"])
def test_no_identifier_of_a_run_leads_elsewhere(tmp_path: Path, run_id: str) -> None:
    export(tmp_path, {"n1": host(cached(gpu_verdict={"verdict": "pass", "run_id": run_id, "at": None}))})

    assert "the name cannot be a file name" in facts_of(tmp_path)["nodes"]["n1"]["missing"]["benchmark"]


def test_a_fleet_without_a_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no node"):
        fleet_export.export({}, {}, str(tmp_path), NOW)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("a file", encoding="utf-8")

    with pytest.raises(RackwrightError, match=r"^Could not write the report on .*/export: "):
        export(tmp_path)


def test_a_full_disk_leaves_the_files_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path)
    before = {name: (tmp_path / "export" / name).read_bytes() for name in FILES}

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        RackwrightError, match=r"Could not write the export on .*: No space left on device\. Free space"
    ):
        export(tmp_path, {"n1": host({})})

    assert {name: (tmp_path / "export" / name).read_bytes() for name in os.listdir(tmp_path / "export")} == before


def test_names_that_are_no_text_are_written_all_the_same(tmp_path: Path) -> None:
    name = "n\udc80"
    export(tmp_path, {name: host(variables={"rack": "\udc80"})}, groups={"g": [name]})

    assert sorted(os.listdir(tmp_path / "export")) == sorted(FILES)


@pytest.mark.parametrize(
    "name", ["ansible_password", "ansible_become_pass", "vault_token", "my_secret", "api_key", "TOKEN"]
)
def test_a_name_that_says_secret_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="its name says that it is a secret"):
        fleet_export.check_names(["ansible_host", name])


@pytest.mark.parametrize("name", ["ansible_host", "ansible_ssh_private_key_file", "rack", "passage", "tokens_per_s"])
def test_an_ordinary_name_may_be_exported(name: str) -> None:
    fleet_export.check_names([name])


NAMES = [
    "näme-集群",
    "with space",
    'q"uote',
    "it's",
    "new\nline",
    "a{{b}}",
    "fe80::1",
    "back\\slash",
    "#x",
    "- x",
    "~",
    "1",
]


def test_hostile_names_and_values_survive_both_forms_and_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = f"{{{{ lookup('pipe', 'touch {marker}') }}}}"
    hosts = {name: {"value": evil, "nested": [{"x": "{% raw %}"}, "plain: text"], "port": 22} for name in NAMES}
    groups = {"all": NAMES, "g-1": NAMES[:3], "empty": ["gone"]}
    written, script = tmp_path / "inventory.yml", tmp_path / "inventory"
    written.write_text(inventory_text.to_yaml(hosts, groups), encoding="utf-8")
    (tmp_path / "inventory.json").write_text(inventory_text.to_json(hosts, groups), encoding="utf-8")
    # what docs/inventory.md tells people to write
    script.write_text('#!/bin/sh\ncat "$(dirname "$0")/inventory.json"\n', encoding="utf-8")
    script.chmod(0o755)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    show = ("all", "-c", "local", "-m", "ansible.builtin.debug", "-a", "var=value")

    for form in (written, script):
        found = json.loads(run("ansible-inventory", "-i", str(form), "--list", environment=environment))
        assert sorted(found["_meta"]["hostvars"]) == sorted(NAMES)
        assert sorted(found["g-1"]["hosts"]) == sorted(NAMES[:3])
        assert found["_meta"]["hostvars"]["1"]["port"] == 22
        run("ansible", "-i", str(form), *show, environment=environment)
        assert not marker.exists()
    written.write_text(written.read_text(encoding="utf-8").replace("!unsafe ", ""), encoding="utf-8")
    run("ansible", "-i", str(written), *show, environment=environment)
    assert marker.exists(), "without the tag it would have run: this test sees what it looks for"


@pytest.mark.parametrize("name", ["gpu:22", "gpu[1:3]", "[fe80::1]:22", "gpu[a:c].lan"])
def test_a_name_that_yaml_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="reads this name as a port or as a range"):
        inventory_text.to_yaml({name: {}}, {})


PLAYBOOK = [str(ROOT / "playbooks/export-inventory.yml")]


FILL = """
- hosts: gpu_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        cacheable: true
        gpu: "{{ known.gpu }}"
        gpu_health: "{{ known.gpu_health }}"
        gpu_verdict: "{{ known.gpu_verdict }}"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Two hosts that nothing answers for, whose facts are cached, and a third that is this machine."""
    folder = tmp_path_factory.mktemp("export")
    site = folder / "site"
    site.mkdir()
    (folder / "textfiles").mkdir()
    shutil.copy(ROOT / "inventory/example/zz-gpu.constructed.yml", site)
    local = {"ansible_connection": "local", "ansible_become": False, "metrics_textfile_dir": f"{folder}/textfiles"}
    hosts = {
        "n1": {"ansible_host": "{{ inventory_hostname }}.invalid", "rack": "r1", "ansible_password": "hunter2"},
        "n2": {"ansible_host": "192.0.2.2", "facts_max_age": 12},
        "here": {**local, "ansible_python_interpreter": "{{ ansible_playbook_python }}"},
    }
    (site / "hosts.yml").write_text(yaml.safe_dump({"gpu_nodes": {"hosts": hosts}}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "cache"),
        "ANSIBLE_NOCOLOR": "1",
    }
    (folder / "fill.yml").write_text(FILL, encoding="utf-8")
    (folder / "known.json").write_text(json.dumps({"known": cached()}), encoding="utf-8")
    known = ("-e", f"@{folder}/known.json")
    run("ansible-playbook", "-i", str(site), str(folder / "fill.yml"), *known, environment=environment)
    return site, environment


@pytest.mark.skipif(os.geteuid() != 0, reason="the node's file belongs to root")
def test_the_playbook_exports_what_is_cached_and_no_secret(site: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    keep(tmp_path / "reports", report())
    command = ["-i", str(site[0]), *PLAYBOOK, "-e", f"rackwright_reports={tmp_path}/reports"]
    checked = run("ansible-playbook", *command, "--check", environment=site[1])
    assert not (tmp_path / "reports/export").exists()
    assert "would change" in checked
    text = run("ansible-playbook", *command, environment=site[1])
    again = run("ansible-playbook", *command, environment=site[1])
    folder = tmp_path / "reports/export"
    everything = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    own = parse((site[0].parent / "textfiles/rackwright.prom").read_text(encoding="utf-8"))

    assert "3 node(s) with 6 GPU(s)" in text
    assert "UNREACHABLE" not in text
    assert "changed=0" in again
    assert "changed=1" not in again
    assert "nothing changed" in again
    assert "hunter2" not in everything
    assert {dict(key)["node"] for samples in own.values() for key in samples} == {"here"}
    listed = yaml.safe_load((folder / "inventory.yml").read_text(encoding="utf-8"))["all"]
    assert listed["hosts"]["n1"]["ansible_host"] == "n1.invalid"
    assert "rack" not in listed["hosts"]["n1"]
    assert sorted(listed["children"]["verdict_warn"]["hosts"]) == ["here", "n1", "n2"]
    assert list(listed["children"]["facts_stale"]["hosts"]) == ["n2"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"export_vars": ["broken"], "broken": "{{ nowhere }}"}, "Could not export the variable on broken of here: "),
        ({"facts_max_age": "soon"}, "Could not use facts_max_age of the playbooks: "),
    ],
)
def test_the_playbook_refuses_in_one_sentence(
    site: tuple[Path, dict[str, str]], tmp_path: Path, extra: dict[str, Any], said: str
) -> None:
    # without the constructed groups, which refuse an age that is no number on their own
    command = [
        "-i",
        str(site[0] / "hosts.yml"),
        *PLAYBOOK,
        "-e",
        f"rackwright_reports={tmp_path}/reports",
        "-e",
        json.dumps(extra),
    ]
    with pytest.raises(AssertionError) as failed:
        run("ansible-playbook", *command, environment=site[1])

    assert said in " ".join(str(failed.value).split())
    assert "Traceback" not in str(failed.value)
    assert not (tmp_path / "reports").exists()


def test_what_is_in_a_vault_stays_there(site: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    password, hosts = tmp_path / "password", tmp_path / "hosts.yml"
    password.write_text("x\n", encoding="utf-8")
    vault = ("--vault-password-file", str(password))
    hidden = run("ansible-vault", "encrypt_string", *vault, "hunter2", "--name", "rack", environment=site[1])
    hosts.write_text(f"gpu_nodes:\n  hosts: {{n1: }}\n  vars:\n{textwrap.indent(hidden, '    ')}", encoding="utf-8")
    command = ["-i", str(hosts), *PLAYBOOK, *vault, "-e", f"rackwright_reports={tmp_path}/reports"]
    with pytest.raises(AssertionError, match="its value is in a vault"):
        run("ansible-playbook", *command, "-e", '{"export_vars": ["rack"]}', environment=site[1])
