# SPDX-License-Identifier: Apache-2.0
"""What a role is run with: the same digest for the same thing, another one for anything that could change the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright import receipts
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.role_files import RoleTree, files_of
from ansible.module_utils.rackwright.role_inputs import coerce, expected, plain, portable, role_facts

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "web_port": {"type": "int", "default": 80},
    "web_tls": {"type": "bool", "default": False},
    "web_names": {"type": "list", "elements": "str", "default": []},
    "web_dir": {"type": "path"},
    "web_title": {"type": "str"},
    "web_key": {"type": "str", "no_log": True},
    "web_users": {"type": "list", "elements": "dict", "options": {"password": {"type": "str", "no_log": True}}},
}
FILES = {
    "roles/web/meta/argument_specs.yml": yaml.safe_dump({"argument_specs": {"main": {"options": OPTIONS}}}),
    "roles/web/meta/receipt.yml": "lock: [driver, framework.version]\nfiles: [roles/plan/files/table.yml]\n",
    "roles/web/meta/main.yml": "dependencies:\n  - role: base\n",
    "roles/web/README.md": "# Web\n",
    "roles/web/defaults/main.yml": "web_port: 80\n",
    "roles/web/tasks/main.yml": """
- name: Read the lock
  ansible.builtin.include_role:
    name: gpu_stack
- block:
    - name: Write
      web_files:
        a: 1
  rescue:
    - ansible.builtin.import_role: {name: shared, tasks_from: x}
- name: Secret
  ansible.builtin.debug: {msg: !vault x}
- receipt: {role: web}
""",
    "roles/web/handlers/main.yml": "- name: Restart\n  web_restart: {}\n",
    "roles/web/templates/etc/web.conf.j2": "x\n",
    "roles/web/tasks/__pycache__/x.pyc": "x",
    "roles/web/tasks/main.yml~": "x",
    "roles/web/.hidden": "x",
    "roles/base/tasks/main.yml": "- name: Base\n  base_thing: {}\n",
    "roles/shared/tasks/x.yml": "- name: X\n  module_defaults:\n    shared_thing: {}\n  block: []\n",
    "roles/gpu_stack/tasks/main.yml": "- name: Entry\n  gpu_plan: {}\n",
    "roles/plan/files/table.yml": "a: 1\n",
    "library/web_files.py": "from ansible.module_utils.rackwright.files import apply\n",
    "library/web_restart.py": "def main():\n    from ansible.module_utils.rackwright import lazy\n",
    "library/base_thing.py": "import ansible.module_utils.rackwright.base\n",
    "library/shared_thing.py": "",
    "library/unused.py": "from ansible.module_utils.rackwright.unused import x\n",
    "library/receipt.py": "from ansible.module_utils.rackwright.receipts import x\n",
    "library/gpu_plan.py": "",
    "action_plugins/web_files.py": "from rackwright.deep import x\n",
    "module_utils/rackwright/files.py": "from .errors import E\nfrom os import path\n",
    "module_utils/rackwright/errors.py": "",
    "module_utils/rackwright/lazy.py": "from . import deeper\n",
    "module_utils/rackwright/deeper.py": "from .files import x\n",
    "module_utils/rackwright/deep.py": "",
    "module_utils/rackwright/base.py": "",
    "module_utils/rackwright/unused.py": "",
    "module_utils/rackwright/receipts.py": "",
}
COUNTED = {
    "roles/web/meta/argument_specs.yml",
    "roles/web/meta/receipt.yml",
    "roles/web/meta/main.yml",
    "roles/web/defaults/main.yml",
    "roles/web/tasks/main.yml",
    "roles/web/handlers/main.yml",
    "roles/web/templates/etc/web.conf.j2",
    "roles/base/tasks/main.yml",
    "roles/shared/tasks/x.yml",
    "roles/plan/files/table.yml",
    "library/web_files.py",
    "library/web_restart.py",
    "library/base_thing.py",
    "library/shared_thing.py",
    "action_plugins/web_files.py",
    "module_utils/rackwright/files.py",
    "module_utils/rackwright/errors.py",
    "module_utils/rackwright/lazy.py",
    "module_utils/rackwright/deeper.py",
    "module_utils/rackwright/deep.py",
    "module_utils/rackwright/base.py",
}
VALUES = {"web_port": 80, "web_tls": False, "web_names": ["a", "b"], "web_dir": "/srv", "web_title": "x"}
STACK = {"driver": {"version": "580.95.05"}, "framework": {"version": "2.13.0", "build": "cu130"}, "python": {}}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    role_facts.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


def now(checkout: Path, stack: Any = STACK, **values: Any) -> dict[str, Any]:
    return expected(checkout, "web", {**VALUES, **values}, stack)


def test_the_files_that_do_the_work_count_and_no_others(checkout: Path) -> None:
    found = files_of(RoleTree(checkout), "web", ["roles/plan/files/table.yml"])

    assert {path.relative_to(checkout).as_posix() for path in found} == COUNTED


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_change_of_a_file_changes_the_digest_if_the_file_does_the_work(checkout: Path, name: str) -> None:
    before = now(checkout)
    path = checkout / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    role_facts.cache_clear()

    after = now(checkout)

    assert (after["files_digest"] != before["files_digest"]) is (name in COUNTED)
    assert (after["digest"] != before["digest"]) is (name in COUNTED)


def test_a_new_a_renamed_and_a_removed_file_change_the_digest(checkout: Path) -> None:
    digests = {now(checkout)["digest"]}
    new = checkout / "roles/web/tasks/new.yml"
    for step in (new.touch, lambda: new.rename(new.with_name("other.yml")), new.with_name("main.yml").unlink):
        step()
        role_facts.cache_clear()
        digests.add(now(checkout)["digest"])

    assert len(digests) == 4


def test_what_a_receipt_is_compared_with(checkout: Path) -> None:
    found = now(checkout)

    assert found["inputs"] == {**VALUES}
    assert found["lock"] == {"driver": {"version": "580.95.05"}, "framework.version": "2.13.0"}
    everything = {**VALUES, "web_key": None, "web_users": None}
    assert found["digest"] == receipts.digest(everything, found["lock"], found["files_digest"])


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_changes_the_digest_and_secret_ones_nothing_else(checkout: Path, name: str) -> None:
    other: dict[str, Any] = {"web_port": 81, "web_tls": True, "web_names": ["b", "a"], "web_users": [{"password": "q"}]}
    before, after = now(checkout), now(checkout, **{name: other.get(name, "other")})

    assert before["digest"] != after["digest"]
    secret = name in ("web_key", "web_users")
    assert (before["inputs"] == after["inputs"]) is secret
    assert (name in after["inputs"]) is not secret


@pytest.mark.parametrize(
    ("stack", "same"),
    [
        ({**STACK, "python": {"version": "3.12"}}, True),
        ({**STACK, "framework": {"version": "2.13.0", "build": "cpu"}}, True),
        ({**STACK, "framework": {"version": "2.14.0"}}, False),
        ({**STACK, "driver": {"version": "580.95.05", "flavour": "open"}}, False),
        ({**STACK, "driver": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_the_entries_of_the_lock_that_the_role_names_count(checkout: Path, stack: Any, same: bool) -> None:
    assert (now(checkout)["digest"] == now(checkout, stack)["digest"]) is same


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("web_port", 8080, "8080"),
        ("web_tls", True, "true"),
        ("web_tls", False, "no"),
        ("web_tls", True, 1),
        ("web_title", "580", 580),
        ("web_names", ["a", "b"], "a, b"),
        ("web_names", ["a"], ("a",)),
        ("web_dir", "/srv", "/srv"),
    ],
)
def test_one_value_in_two_spellings_is_one_input(checkout: Path, name: str, one: Any, other: Any) -> None:
    assert now(checkout, **{name: one}) == now(checkout, **{name: other})


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("web_port", "many", "web_port is 'many', not a number"),
        ("web_tls", "maybe", "web_tls is 'maybe', not a boolean"),
        ("web_names", [object], "web_names holds a type, which is no plain data"),
        ("web_port", float("nan"), "web_port holds a number that is not finite"),
    ],
)
def test_a_value_that_means_nothing_is_refused(checkout: Path, name: str, value: Any, cause: str) -> None:
    with pytest.raises(InvalidInputError, match=f"Could not compute the receipt on the role web: {cause}. Correct"):
        now(checkout, **{name: value})


def test_a_moved_checkout_has_the_same_inputs(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "checkout"
    here = now(checkout, web_dir=f"{checkout}/roles/web/../../build/wheelhouse", web_title=f"--dir={checkout}/x")
    checkout.rename(moved)

    assert now(moved, web_dir=f"{moved}/build/wheelhouse", web_title=f"--dir={moved}/x") == here
    assert here["inputs"]["web_dir"] == "{checkout}/build/wheelhouse"


def test_a_checkout_reached_through_a_link_is_the_same(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("link") / "link"
    link.symlink_to(checkout)

    assert portable(f"{checkout}/x", link) == portable(f"{link}/x", link) == "{checkout}/x"
    assert portable(f"{checkout}-other/x", checkout) == f"{checkout}-other/x"
    assert portable(str(checkout), checkout) == "{checkout}"


def test_plain_data_of_any_kind() -> None:
    class Text(str):
        __slots__ = ()

    value = plain({"b": (Text("x"), {"q", "p"}), 1: None, "f": 1.5}, Path("/nowhere"))

    assert value == {"b": ["x", ["p", "q"]], "1": None, "f": 1.5}
    assert type(value["b"][0]) is str
    assert coerce(None, {"type": "bool"}) is None
    assert coerce({"a": 1}, {"type": "dict"}) == {"a": 1}


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("roles/web/meta/receipt.yml", "locks: [driver]\n", "it has locks where only"),
        ("roles/web/meta/receipt.yml", "lock: driver\n", "where only the lists lock and files are known"),
        ("roles/web/meta/receipt.yml", "- x\n", "it is no mapping"),
        ("roles/web/meta/receipt.yml", "files: [no/such]\n", "its file no/such is not in the checkout"),
        ("roles/web/meta/argument_specs.yml", "argument_specs: {}\n", "has no entry point main"),
        ("roles/web/meta/argument_specs.yml", "a: [\n", "it is not YAML"),
        ("roles/web/tasks/main.yml", "a: [\n", "it is not YAML"),
        (
            "roles/web/tasks/main.yml",
            "- include_role: {name: '{{ x }}'}\n",
            "it includes the role '{{ x }}', which is not",
        ),
        ("roles/web/tasks/main.yml", "- include_role: {name: nobody}\n", "it includes the role 'nobody', which is not"),
    ],
)
def test_what_cannot_be_followed_is_refused(checkout: Path, name: str, content: str, cause: str) -> None:
    (checkout / name).write_text(content, encoding="utf-8")

    with pytest.raises(InvalidInputError) as caught:
        now(checkout)

    assert cause in str(caught.value)


@pytest.mark.parametrize("role", sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/receipt.yml")))
def test_every_role_of_the_project_can_be_computed(role: str) -> None:
    facts = role_facts(ROOT, role)
    found = expected(ROOT, role, {name: None for name in facts.options}, None)

    assert set(found) == {"digest", "inputs", "lock", "files_digest"}
    assert set(facts.defaults) <= set(facts.options)
    tree = RoleTree(ROOT)
    assert ROOT / "library/receipt.py" not in files_of(tree, role, [])
    assert {ROOT / "library" / f"{name}.py" for name in tree.modules_of(role)} <= set(files_of(tree, role, []))
