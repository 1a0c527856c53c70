# SPDX-License-Identifier: Apache-2.0
"""The lock: the same solutions give the same bytes, and what is no lock is refused in one sentence."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rackwright import lock
from rackwright.errors import InvalidInputError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "roles/gpu_stack/files/stack.lock.schema.json").read_text(encoding="utf-8"))
TABLES = lock.digest("tables")


def content(
    version: str = "580.178.04", gpu: str | None = "h100-sxm5-80gb", count: int = 8, **more: Any
) -> dict[str, Any]:
    """A stack as the resolver makes it, reduced to what the lock itself looks at."""
    gpus = [{"id": gpu, "name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "count": count}] if count else []
    driver = {
        "source": "nvidia",
        "branch": version.split(".")[0],
        "version": version,
        "flavour": "open",
        "packages": [{"name": "nvidia-open", "version": f"{version}*"}],
    }
    return {
        "intent": {"stack_framework": "pytorch", "stack_policy": "lts"},
        "platform": {"os": "ubuntu2404", "arch": "x86_64", "python": "3.12", "glibc": "2.39"},
        "gpus": gpus,
        "simulated": False,
        "os": {"headers": ["linux-headers-{kernel}"]},
        "driver": driver if count else None,
        "fabric_manager": None,
        "toolkit": None,
        "libraries": {"cudnn": None, "nccl": None},
        "container_toolkit": None,
        "python": {"version": "3.12", "interpreter": "/usr/bin/python3", "source": "system"},
        "framework": {
            "name": "pytorch",
            "version": "2.15.0",
            "build": "cu130",
            "requirements": ["torch==2.15.0+cu130"],
        },
        "serving": None,
        "why": {"driver.version": f"newest known of branch {version.split('.')[0]}"},
        **more,
    }


def read(document: Any) -> dict[str, Any]:
    return lock.from_text(yaml.safe_dump(document), "stack.lock.yml", SCHEMA)


def test_what_is_written_is_read_back_the_same() -> None:
    document = lock.build({"n1": content(), "n2": content(count=0)}, TABLES)

    assert lock.from_text(lock.to_text(document), "stack.lock.yml", SCHEMA) == document


def test_nodes_of_one_kind_share_a_stack_that_says_what_they_are() -> None:
    document = lock.build({"a": content(), "b": content(), "c": content(count=0)}, TABLES)

    assert document["nodes"] == {
        "a": "ubuntu2404-8x-h100-sxm5-80gb",
        "b": "ubuntu2404-8x-h100-sxm5-80gb",
        "c": "ubuntu2404-cpu",
    }


def test_kinds_that_read_alike_get_names_of_their_own() -> None:
    document = lock.build({"a": content("580.95.05"), "b": content(), "c": content("595.91.07")}, TABLES)

    assert len(set(document["nodes"].values())) == 3
    assert {name.split("--")[0] for name in document["stacks"]} == {"ubuntu2404-8x-h100-sxm5-80gb"}


@given(st.permutations(["n1", "n2", "n3", "n4"]))
def test_the_order_of_nodes_changes_no_byte(order: list[str]) -> None:
    kinds = {"n1": content(), "n2": content(count=0), "n3": content("595.91.07"), "n4": content()}
    first = lock.to_text(lock.build(kinds, TABLES))

    assert lock.to_text(lock.build({name: kinds[name] for name in order}, TABLES)) == first


def test_nodes_that_were_not_planned_keep_their_entry() -> None:
    old = lock.build({"n1": content("580.95.05"), "n2": content(count=0)}, TABLES)

    document = lock.build({**lock.kept_contents(old, {"n1"}), "n1": content()}, TABLES)

    assert lock.content_of(document, "n2") == lock.content_of(old, "n2")
    assert lock.stack_of(document, "n1")["driver"]["version"] == "580.178.04"  # type: ignore[index]


def test_the_text_passes_the_linter_of_the_project() -> None:
    text = lock.to_text(lock.build({"n1": content()}, TABLES))
    program = Path(sys.executable).parent / "yamllint"
    said = subprocess.run(
        [str(program), "-s", "-c", str(ROOT / ".yamllint"), "-"], input=text, text=True, capture_output=True
    )

    assert (said.returncode, said.stdout) == (0, "")


def edited(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(lock.build({"n1": content()}, TABLES))
    target: Any = document
    *parents, leaf = path.split("/")
    for key in parents:
        target = target[key]
    target[leaf] = value
    return document


STACK = "stacks/ubuntu2404-8x-h100-sxm5-80gb"


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ([], "it is empty"),
        ({}, "it is empty"),
        (["schema"], "schema None"),
        (None, "it is empty"),
        (edited("schema", 2), "it has schema 2 and this release reads 1"),
        (edited("nodes/n1", "other"), "node n1 has the stack other, which is not in it"),
        (edited("nodes", {}), "no node has the stack"),
        (edited("digests/tables", "md5:1"), "digests.tables"),
        (edited(f"{STACK}/intent/stack_policy", "newest"), "the intents in it are not those it was planned from"),
        (edited(f"{STACK}/driver/version", 580.1), "driver.version"),
        (edited(f"{STACK}/driver/flavour", "nouveau"), "driver.flavour"),
        (edited(f"{STACK}/driver", {}), "driver"),
        (edited(f"{STACK}/python/version", "2.7"), "python.version"),
        (edited(f"{STACK}/gpus", "8"), "gpus"),
        (edited(f"{STACK}/more", 1), "more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_lock_is_refused(document: Any, cause: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        read(document)

    assert cause in str(refusal.value)
    assert "plan-stack.yml" in str(refusal.value)


def test_text_that_is_not_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInputError, match="not YAML in line 2"):
        lock.from_text("schema: 1\n\tnodes: {}\n", "stack.lock.yml", SCHEMA)


def bomb() -> str:
    lines = ["schema: 1", "a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    return "\n".join([*lines, "stacks: *a11", ""])


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda text: text.replace("digests:", "<<<<<<< HEAD\ndigests:", 1), r"an unresolved merge \(line 5\)"),
        (lambda text: f"{text}>>>>>>> theirs\n", "an unresolved merge"),
        (lambda text: f"{text}nodes: {{}}\n", "the key nodes stands twice in one place"),
        (
            lambda text: text.replace("flavour: open", "flavour: open\n      flavour: proprietary"),
            "the key flavour stands",
        ),
        (lambda text: bomb(), "an alias"),
        (lambda text: "", "it is empty"),
    ],
    ids=["merge", "merge at the end", "a part twice", "a value twice", "aliases", "empty"],
)
def test_a_damaged_file_is_refused_by_what_happened_to_it(damage: Any, cause: str) -> None:
    text = damage(lock.to_text(lock.build({"n1": content()}, TABLES)))

    with pytest.raises(InvalidInputError, match=cause):
        lock.from_text(text, "stack.lock.yml", SCHEMA)


def test_a_difference_names_item_values_and_reason() -> None:
    changes = lock.difference(content("580.95.05"), content())

    assert {change["item"] for change in changes} == {"driver.version", "driver.packages"}
    version = next(change for change in changes if change["item"] == "driver.version")
    assert (version["from"], version["to"], version["why"]) == ("580.95.05", "580.178.04", "newest known of branch 580")
    assert lock.needs_reboot(changes)


@pytest.mark.parametrize(
    ("old", "new", "reboot"),
    [
        (content(), content(), False),
        (content(), content(why={"driver.version": "told otherwise"}), False),
        (content(), {**content(), "framework": None}, False),
        (content(), {**content(), "driver": None}, False),
        (content(count=0), content(), True),
        (content("580.178.04"), content("595.91.07"), True),
    ],
)
def test_only_a_new_kernel_module_needs_a_reboot(old: dict[str, Any], new: dict[str, Any], reboot: bool) -> None:
    assert lock.needs_reboot(lock.difference(old, new)) is reboot


def test_a_proof_is_held_against_what_the_lock_promises() -> None:
    document = lock.build({"n1": content(), "n2": content(count=0, framework=None)}, TABLES)

    promised = lock.promises(document, "n1")
    assert promised["torch_version"] == "2.15.0"
    assert promised["stack"]["driver"]["version"] == "580.178.04"
    assert set(promised["stack"]["driver"]) == {"version", "flavour", "holds"}
    assert "torch_version" not in lock.promises(document, "n2")
    assert lock.promises(None, "n1") == {}
