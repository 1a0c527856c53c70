# SPDX-License-Identifier: Apache-2.0
"""The module and its playbook as a user runs them: fleets, nodes, cards, files, and slips of the finger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_fit
import pytest
import yaml
from support.commands import simulation
from support.simulated_node import SimulatedNode

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError

ROOT = Path(__file__).resolve().parents[2]
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def play(
    playbook: str, *arguments: str, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a playbook from ``cwd`` under the project's own configuration."""
    program = Path(sys.executable).parent / "ansible-playbook"
    return subprocess.run(
        [str(program), str(ROOT / "playbooks" / playbook), *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            **(environment or {}),
            "PWD": str(cwd),
        },
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def fit(*arguments: str, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """The output of a run that succeeds and changes nothing."""
    done = play("fit-models.yml", *arguments, cwd=cwd, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An inventory with a described node and one that nothing is known of."""
    description = {"os": "ubuntu2404", "gpus": [{"model": "rtx-4090", "count": 2}]}
    hosts = {"planned": {"node_description": description}, "silent": {}, "node": {"ansible_connection": "local"}}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"gpu_nodes": {"hosts": hosts}}), encoding="utf-8")
    return path


def test_the_fleet_is_the_nodes_of_which_something_is_known(site: Path, tmp_path: Path) -> None:
    text = fit(
        *("-i", str(site), "-e", "fit_model=Qwen2.5-14B-Instruct", "-e", "fit_formats=bf16,int4"),
        *("-e", "fit_report=fit.json"),
        cwd=tmp_path,
        environment={"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache")},
    )
    document = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))

    assert "Qwen2.5-14B-Instruct: 14.77 B parameters, 192.0 KiB of cache per token, context 131072" in text
    found = [(row["target"], row["format"], row["verdict"], row["gpus"]) for row in document["results"]]
    assert found == [("planned", "bf16", "fits", 2), ("planned", "int4", "fits", 1)]
    assert document["results"][0]["memory"]["total"] < 24 * 2**30 * 0.8


def test_facts_of_a_node_answer_what_it_can_run(site: Path, tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, "h100x8")
    environment = simulation(node, tmp_path / "cache")
    sysroot = ("-e", f"gpu_facts_sysroot={node.sysroot}")
    gathered = play("gather-facts.yml", "-i", str(site), "--limit", "node", *sysroot, environment=environment)
    assert gathered.returncode == 0, gathered.stdout
    text = fit("-i", str(site), "-e", "node=node", environment=environment)

    assert "What node can run: NVIDIA H100 80GB HBM3 (simulated), 79.6 GiB each, NVLink on every pair" in text
    assert "Llama-3.1-405B-Instruct" in text


def test_without_anything_known_the_catalogue_answers(tmp_path: Path) -> None:
    cache = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path)}
    text = fit("-i", "localhost,", "-e", "fit_model=phi-4", environment=cache)
    alone = fit(
        "-i",
        "localhost,",
        "-e",
        "fit_model=phi-4",
        "-e",
        "fit_cards=l4",
        "-e",
        "rackwright_hosts=all",
        environment=cache,
    )

    assert "rtx-3060" in text
    assert "b300-sxm" in text
    assert "b300-sxm" not in alone


def test_a_goal_and_a_training_on_the_command_line() -> None:
    goal = fit("-e", "fit_model=phi-4", "-e", "fit_cards=rtx-4090", "-e", "fit_goal=tokens_per_s=500000,p99_ms=200")
    training = fit("-e", "fit_model=phi-4", "-e", "fit_cards=rtx-4090", "-e", "fit_training=method=qlora,rank=8")

    assert "goal unattainable" in goal
    assert "tokens_per_s 500000: unattainable, at most" in goal
    assert "qlora rank 8" in training


def test_a_config_json_from_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    text = fit("-e", "fit_model=config.json", "-e", "fit_cards=rtx-4090", cwd=tmp_path)

    assert f"{tmp_path}/config.json: 8.03 B parameters" in text


def test_check_mode_computes_and_writes_nothing(tmp_path: Path) -> None:
    report = tmp_path / "fit.json"
    text = fit("--check", "-e", "fit_model=phi-4", "-e", "fit_cards=l4", "-e", f"fit_report={report}")

    assert "phi-4: 14.66 B parameters" in text
    assert not report.exists()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({}, "Could not size the model on fit_model: no model is named."),
        ({"node": "nobody"}, "Could not size for the node on nobody: the inventory has no such node."),
        ({"node": "silent"}, "Could not size for the node on silent: it has neither facts nor a description."),
        ({"fit_model": "phi-4", "fit_kv_dtype": "int4"}, "value of kv_dtype must be one of: bf16, fp16, fp8, int8"),
        ({"fit_model": "phi-4", "fit_report": "/nowhere/fit.json"}, "Could not write the report on /nowhere"),
    ],
)
def test_a_slip_is_one_sentence(site: Path, tmp_path: Path, wish: dict[str, Any], sentence: str) -> None:
    done = play(
        *("fit-models.yml", "-i", str(site), "-e", json.dumps(wish)),
        environment={"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache")},
    )

    assert done.returncode != 0
    assert sentence in " ".join(done.stdout.split()) + " ".join(done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr


def computed(**options: Any) -> dict[str, Any]:
    """What the module computes for these options."""
    defaults = {name: option.get("default") for name, option in model_fit.ARGUMENT_SPEC.items()}
    return model_fit.compute({**defaults, "tables": str(ROOT / "roles/gpu_stack/files/tables"), **options})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "qwen25-7b"}, "close ones are Qwen2.5-7B-Instruct"),
        ({"model": {"layers": 3}}, "its shape lacks hidden, heads, kv_heads, vocab."),
        ({"model": "nowhere.json"}, "Could not read the model on nowhere.json: [Errno 2]"),
        ({"model": "phi-4", "cards": ["rtx-9090"]}, "the catalogue has no such id."),
        ({"model": "phi-4", "tables": "/nowhere"}, "Could not read a table on /nowhere/gpus.yml"),
        (
            {"model": "phi-4", "extra_tables": {"models": {"rows": []}}},
            "Could not use the extra table on stack_extra_tables: ",
        ),
    ],
)
def test_what_cannot_be_computed_says_why(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RackwrightError, match=r"^Could not [^\n]+\.$") as caught:
        computed(**options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"), [("[1, 2", "Could not read the model on"), ("[1, 2]", "it holds no object")]
)
def test_a_broken_config_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(InvalidInputError, match=sentence):
        computed(model=str(path), cards=["l4"])


def test_a_row_of_the_site_is_a_model_like_any_other() -> None:
    row = {
        **{"id": "ours-1b", "layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64},
        **{"intermediate": 8192, "vocab": 128256, "tie_embeddings": True, "attention": "gqa", "hf_repo": None},
        **{"context_config": 8192, "params_total": 1235814400, "params_active": 1235814400},
        **{"params_embedding_lm_head": 262668288, "kv_bytes_per_token_bf16": 32768, "sources": []},
    }
    document = computed(model="ours-1b", cards=["l4"], extra_tables={"models": {"models": [row]}})

    assert document["model"]["params_total"] == 1235814400
    assert document["results"][0]["verdict"] == "fits"
