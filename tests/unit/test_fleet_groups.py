# SPDX-License-Identifier: Apache-2.0
"""Cached facts become groups: what follows from them, and what ansible-inventory makes of a prepared cache."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import run
from support.simulated_node import ROOT

from ansible.module_utils.rackwright.fleet_groups import KINDS, SEVERITIES, VERDICTS, groups_of

NOW = datetime.datetime(2026, 11, 30, 12, 0, tzinfo=datetime.timezone.utc)
FRESH, OLD = "2026-11-30T11:00:00+00:00", "2026-11-01T11:00:00Z"
CARD = {"architecture": "hopper", "catalogue_id": "h100-sxm5-80gb"}


def gpu(**changes: Any) -> dict[str, Any]:
    """The parts of the fact that groups are made of."""
    return {
        "situation": "ready",
        "simulated": False,
        "count": 2,
        "devices": [CARD, CARD],
        "collected_at": FRESH,
        **changes,
    }


READY = ["gpu_situation_ready", "gpu_count_2", "gpu_arch_hopper", "gpu_model_h100_sxm5_80gb"]


@pytest.mark.parametrize(
    ("facts", "groups"),
    [
        ({}, ["facts_missing"]),
        ({"gpu": None, "gpu_health": None, "gpu_verdict": None}, ["facts_missing"]),
        ({"gpu": "text"}, ["facts_missing"]),
        ({"gpu": gpu()}, READY),
        ({"gpu": gpu(simulated=True)}, ["gpu_simulated", *READY]),
        ({"gpu": gpu(collected_at=OLD)}, [*READY, "facts_stale"]),
        ({"gpu": gpu(collected_at=None)}, [*READY, "facts_stale"]),
        ({"gpu": gpu(count=0, devices=[], situation="no_gpu")}, ["gpu_situation_no_gpu", "gpu_count_0"]),
        (
            {"gpu": gpu(devices=[{"architecture": None, "catalogue_id": "own card.2"}, CARD])},
            [*READY[:2], "gpu_arch_hopper", "gpu_model_own_card_2", "gpu_model_h100_sxm5_80gb"],
        ),
        ({"gpu": gpu(), "gpu_health": {"severity": "none", "collected_at": FRESH}}, [*READY, "health_ok"]),
        (
            {"gpu": gpu(), "gpu_health": {"severity": "isolate", "collected_at": OLD}},
            [*READY, "health_isolate", "health_stale"],
        ),
        ({"gpu": gpu(), "gpu_verdict": {"verdict": "fail", "at": FRESH}}, [*READY, "verdict_fail"]),
        ({"gpu": gpu(), "gpu_verdict": {"verdict": "pass", "at": OLD}}, [*READY, "verdict_pass", "verdict_stale"]),
        (
            {"gpu": gpu(), "gpu_health": {"severity": ["odd"]}, "gpu_verdict": {"verdict": []}},
            [*READY, "health_stale", "verdict_stale"],
        ),
    ],
)
def test_groups_follow_from_facts(facts: dict[str, Any], groups: list[str]) -> None:
    assert groups_of(facts, 168, NOW) == groups


@pytest.mark.parametrize("word", ["{{ 1 }}", "a b", "ü\n", "x-y"])
def test_no_word_of_a_node_makes_a_name_that_is_none(word: str) -> None:
    facts = gpu(situation=word, devices=[{"architecture": word, "catalogue_id": word}])

    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in groups_of({"gpu": facts}, 168, NOW))


FILES = ("zz-gpu.constructed.yml", "gpu-groups.yml")
FILL = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        cacheable: true
        gpu: "{{ known[inventory_hostname].gpu | default(omit) }}"
        gpu_health: "{{ known[inventory_hostname].gpu_health | default(omit) }}"
        gpu_verdict: "{{ known[inventory_hostname].gpu_verdict | default(omit) }}"
      when: inventory_hostname in known
"""


def ago(hours: float) -> str:
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=hours)
    return moment.isoformat(timespec="seconds")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An inventory with a host for every verdict and severity, and a cache filled for it."""
    folder = tmp_path_factory.mktemp("groups")
    site = folder / "site"
    (site / "group_vars").mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / "inventory/example" / name, site)
    facts = {
        f"v-{word}": {"gpu": gpu(collected_at=ago(1)), "gpu_verdict": {"verdict": word, "at": ago(30)}}
        for word in VERDICTS
    }
    facts.update(
        {f"h-{word}": {"gpu_health": {"severity": word, "collected_at": ago(1)}, "gpu": gpu(collected_at=ago(99))}
         for word in SEVERITIES}
    )  # fmt: skip
    hosts = {"gpu_nodes": {"hosts": {name: None for name in [*facts, "unasked"]}}}
    (site / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    (site / "group_vars/gpu_nodes.yml").write_text("facts_max_age: 48\n", encoding="utf-8")
    (folder / "fill.yml").write_text(FILL, encoding="utf-8")
    (folder / "known.json").write_text(json.dumps({"known": facts}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "cache"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    run("ansible-playbook", "-i", str(site), str(folder / "fill.yml"), "-e", f"@{folder}/known.json",
        environment=environment)  # fmt: skip
    return site, environment


def groups(site: tuple[Path, dict[str, str]], *arguments: str) -> dict[str, list[str]]:
    text = run("ansible-inventory", "-i", str(site[0]), "--list", *arguments, environment=site[1])
    return {name: group.get("hosts", []) for name, group in json.loads(text).items() if name != "_meta"}


def test_a_filled_cache_gives_the_groups(site: tuple[Path, dict[str, str]]) -> None:
    found = groups(site)

    for word in VERDICTS:
        assert found[f"verdict_{word}"] == [f"v-{word}"]
    for word, name in SEVERITIES.items():
        assert found[f"health_{name}"] == [f"h-{word}"]
    assert found["facts_stale"] == sorted(f"h-{word}" for word in SEVERITIES)
    assert found["facts_missing"] == ["unasked"]
    assert not found.get("health_stale")
    assert not found.get("verdict_stale")


def test_the_limit_of_age_may_be_given_with_the_command(site: tuple[Path, dict[str, str]]) -> None:
    found = groups(site, "-e", "facts_max_age=24")

    assert found["verdict_stale"] == sorted(f"v-{word}" for word in VERDICTS)
    assert not groups(site, "-e", "facts_max_age=999").get("facts_stale")


def test_a_limit_of_age_that_is_no_number_is_told_and_not_swallowed(site: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(AssertionError, match="'soon' is no number"):
        groups(site, "-e", "facts_max_age=soon")


def test_a_pattern_may_leave_out_a_group_that_is_empty(site: tuple[Path, dict[str, str]]) -> None:
    hosts = run("ansible", "-i", str(site[0]), "verdict_pass:!verdict_stale", "--list-hosts", environment=site[1])

    assert hosts.split() == ["hosts", "(1):", "v-pass"]


def test_every_group_with_a_fixed_name_exists_while_it_is_empty() -> None:
    named = yaml.safe_load((ROOT / "inventory/example/gpu-groups.yml").read_text(encoding="utf-8"))
    of_health = {f"health_{name}" for name in SEVERITIES.values()}
    of_age = {f"{kind}_stale" for kind in KINDS}

    assert set(named) == {f"verdict_{word}" for word in VERDICTS} | of_health | of_age | {
        "facts_missing",
        "gpu_simulated",
    }
    assert set(named.values()) == {None}


@pytest.mark.parametrize("name", FILES)
def test_both_sites_make_the_same_groups(name: str) -> None:
    files = sorted(ROOT.glob(f"inventory/*/{name}"))

    assert len(files) == 2
    assert len({path.read_bytes() for path in files}) == 1
