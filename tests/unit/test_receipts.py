# SPDX-License-Identifier: Apache-2.0
"""When a receipt holds, and which sentence says that it does not. Pure: records in, sentences out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible.module_utils.rackwright import receipts

INPUTS = {"os_base_upgrade": "safe", "os_base_packages": ["cmake"], "os_base_limits": {"nofile": 10}}
LOCK = {"driver": {"version": "580.95.05", "branch": "580"}, "os.headers": None}
VENV = {
    "python": "3.11.2",
    "executable": "/usr/bin/python3.11",
    "settings": "aa",
    "owner": "root",
    "group": "root",
    "mode": "0755",
    "packages": {"numpy": "2.1", "torch": "2.13.0"},
    "damage": {},
    "problems": [],
    "all": False,
}
BUILT = {"headers": True, "modules": {"nvidia": "a 1"}}
UNBUILT = {"headers": True, "modules": {"nvidia": None}}
FILE = {"type": "file", "sha256": "aa", "owner": "root", "group": "root", "mode": "0644"}


def expected(inputs: Any = INPUTS, lock: Any = LOCK, files: str = "sha256:f", secret: Any = None) -> dict[str, Any]:
    everything = {**inputs, "os_base_password": secret}
    return {
        "digest": receipts.digest(everything, lock, files),
        "inputs": inputs,
        "lock": lock,
        "files_digest": files,
    }


def found(items: dict[str, Any] | None = None, drift: Any = (), **of: Any) -> dict[str, Any]:
    receipt = receipts.document("os_base", expected(**of), items or {}, "2026-01-31T12:00:00+00:00")
    return receipts.summary(receipt, None, list(drift))


def test_the_same_again_is_fresh() -> None:
    assert receipts.stale_reasons("os_base", expected(), found()) == []


@pytest.mark.parametrize(
    ("now", "reasons"),
    [
        ({"lock": {**LOCK, "driver": {**LOCK["driver"], "version": "580.105.08"}}},  # type: ignore[dict-item]
         ["inputs changed (driver.version 580.95.05 → 580.105.08)"]),
        ({"inputs": {**INPUTS, "os_base_upgrade": "full"}}, ["inputs changed (os_base_upgrade safe → full)"]),
        ({"inputs": {**INPUTS, "os_base_upgrade": None}}, ["inputs changed (os_base_upgrade safe → null)"]),
        ({"inputs": {**INPUTS, "os_base_packages": []}}, ['inputs changed (os_base_packages ["cmake"] → [])']),
        ({"inputs": {**INPUTS, "os_base_limits": {"nofile": 20}}}, ["inputs changed (os_base_limits.nofile 10 → 20)"]),
        ({"inputs": {**INPUTS, "os_base_new": True}}, ["inputs changed (os_base_new not there → true)"]),
        ({"files": "sha256:g"}, ["role files changed"]),
        ({"secret": "x"}, ["inputs changed (one that is kept secret)"]),
        ({"inputs": {"a": 1}, "files": "sha256:g"},
         ["inputs changed (a not there → 1, os_base_limits {\"nofile\":10} → not there, "
          "os_base_packages [\"cmake\"] → not there and 1 more)", "role files changed"]),
        ({"lock": {"driver": None, "os.headers": None}},
         ['inputs changed (driver {"branch":"580","version":"580.95.05"} → null)']),
    ],
)  # fmt: skip
def test_a_change_of_what_the_role_is_run_with_is_named(now: dict[str, Any], reasons: list[str]) -> None:
    assert receipts.stale_reasons("os_base", expected(**now), found()) == reasons


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "no receipt"),
        ({"problem": "the receipt is damaged (not JSON)", "drift": []}, "the receipt is damaged (not JSON)"),
        ({**found(), "role": "pytorch"}, "the receipt is of the role pytorch"),
        (
            {key: value for key, value in found().items() if key != "drift"},
            "the receipt was not compared with the node",
        ),
        ({**found(), "drift": None}, "the receipt was not compared with the node"),
        ({}, "the receipt is of the role null"),
        (found(drift=["/etc/x removed"]), "/etc/x removed"),
    ],
)
def test_what_cannot_be_believed_is_stale(entry: dict[str, Any] | None, reason: str) -> None:
    assert receipts.stale_reasons("os_base", expected(), entry) == [reason]


def test_unreadable_receipts_say_so_instead_of_none() -> None:
    reason = "could not read the receipts as an unprivileged user"

    assert receipts.stale_reasons("os_base", expected(), None, reason) == [reason]


def test_drift_and_changed_inputs_are_both_named() -> None:
    reasons = receipts.stale_reasons("os_base", expected(files="sha256:g"), found(drift=["/etc/x removed"]))

    assert reasons == ["role files changed", "/etc/x removed"]


@pytest.mark.parametrize(
    ("kind", "name", "before", "now", "sentences"),
    [
        ("files", "/etc/x", FILE, {**FILE, "sha256": "bb"}, ["/etc/x edited by hand"]),
        ("files", "/etc/x", FILE, {**FILE, "mode": "0600"}, ["/etc/x mode 0644 → 0600"]),
        ("files", "/etc/x", FILE, {**FILE, "owner": "bob"}, ["/etc/x owner root → bob"]),
        ("files", "/etc/x", FILE, {**FILE, "group": "bob"}, ["/etc/x group root → bob"]),
        ("files", "/etc/x", FILE, {**FILE, "sha256": "b", "mode": "0600"},
         ["/etc/x edited by hand", "/etc/x mode 0644 → 0600"]),
        ("files", "/etc/x", FILE, None, ["/etc/x removed"]),
        ("files", "/etc/x", None, FILE, ["/etc/x is back"]),
        ("files", "/etc/x", FILE, {**FILE, "type": "symbolic link", "sha256": None},
         ["/etc/x replaced by a symbolic link"]),
        ("files", "/etc/x", FILE, {"error": "could not read /etc/x as an unprivileged user"},
         ["could not read /etc/x as an unprivileged user"]),
        ("packages", "cmake", {"version": "3.25.1-1", "hold": False}, None, ["package cmake 3.25.1-1 → removed"]),
        ("packages", "cmake", {"version": "1", "hold": False}, {"version": "2", "hold": False},
         ["package cmake 1 → 2"]),
        ("packages", "cmake", None, {"version": "2", "hold": False}, ["package cmake not installed → 2"]),
        ("packages", "nvidia-smi", {"version": "1", "hold": True}, {"version": "1", "hold": False},
         ["hold of nvidia-smi released"]),
        ("packages", "nvidia-smi", {"version": "1", "hold": False}, {"version": "1", "hold": True},
         ["package nvidia-smi is on hold"]),
        ("present", "cmake", True, False, ["package cmake removed"]),
        ("present", "cmake", False, True, ["package cmake installed since"]),
        ("services", "x", {"enabled": "enabled", "active": "active"}, {"enabled": "disabled", "active": "active"},
         ["service x disabled"]),
        ("services", "x", {"enabled": "enabled", "active": "active"}, {"enabled": "masked", "active": "failed"},
         ["service x masked", "service x active → failed"]),
        ("services", "x", {"active": "active"}, {"enabled": "not-found", "active": "inactive"}, ["service x removed"]),
        ("sysctls", "vm.swappiness", "10", "60", ["vm.swappiness 10 → 60"]),
        ("sysctls", "vm.swappiness", "10", None, ["vm.swappiness 10 → not there"]),
        ("kernels", "6.1.0-57-amd64", None, {"headers": False, "modules": {}},
         ["kernel 6.1.0-57-amd64 installed since"]),
        ("kernels", "6.1", {"headers": True, "modules": {}}, None, ["kernel 6.1 removed"]),
        ("kernels", "6.1", {"headers": True, "modules": {}}, {"headers": False, "modules": {}},
         ["headers of kernel 6.1 removed"]),
        ("kernels", "6.1", BUILT, UNBUILT,
         ["module nvidia of kernel 6.1 removed"]),
        ("kernels", "6.1", UNBUILT, BUILT,
         ["module nvidia of kernel 6.1 built since"]),
        ("kernels", "6.1", BUILT, {**BUILT, "modules": {"nvidia": "a 2"}},
         ["module nvidia of kernel 6.1 is another file"]),
        ("venvs", "/v", VENV, None, ["/v removed"]),
        ("venvs", "/v", VENV, {**VENV, "packages": {"numpy": "2.0", "torch": "2.13.0"}}, ["numpy 2.1 → 2.0 in /v"]),
        ("venvs", "/v", VENV, {**VENV, "packages": {"numpy": None, "torch": "2.13.0"}}, ["numpy 2.1 → removed in /v"]),
        ("venvs", "/v", VENV, {**VENV, "packages": {**VENV["packages"], "foo": "1"}},  # type: ignore[dict-item]
         ["foo not there → 1 in /v"]),
        ("venvs", "/v", VENV, {**VENV, "python": "3.12.1", "executable": "/usr/bin/python3.12"},
         ["python of /v 3.11.2 → 3.12.1", "interpreter of /v /usr/bin/python3.11 → /usr/bin/python3.12"]),
        ("venvs", "/v", VENV, {**VENV, "problems": ["has no pyvenv.cfg"]}, ["/v has no pyvenv.cfg"]),
        ("venvs", "/v", VENV, {**VENV, "settings": "bb"}, ["/v/pyvenv.cfg edited by hand"]),
        ("venvs", "/v", VENV, {**VENV, "mode": "0700"}, ["/v mode 0755 → 0700"]),
        ("venvs", "/v", VENV, {**VENV, "damage": {"numpy": "numpy 2.1: 1 recorded files are missing"}},
         ["/v: numpy 2.1: 1 recorded files are missing"]),
        ("venvs", "/v", {**VENV, "damage": {"numpy": "torn"}}, VENV, ["/v is not as it was recorded"]),
        ("firewalls", "x", {}, {}, ["the receipt lists firewalls, which this version cannot check"]),
    ],
)  # fmt: skip
def test_every_kind_of_drift_names_its_item(kind: str, name: str, before: Any, now: Any, sentences: list[str]) -> None:
    recorded = {kind: {} if kind == "kernels" and before is None else {name: before}}
    present = {kind: {} if now is None else {name: now}}

    assert receipts.item_drift(recorded, present) == sentences


def test_an_item_like_it_was_is_no_drift() -> None:
    items = {"files": {"/etc/x": FILE, "/etc/y": None}, "venvs": {"/v": VENV}, "kernels": {}, "sysctls": {"a": "1"}}

    assert receipts.item_drift(items, json.loads(json.dumps(items))) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:-20], "the receipt is damaged (not JSON)"),
        (lambda text: "", "the receipt is damaged (not JSON)"),
        (lambda text: "[]", "the receipt is damaged (no JSON object)"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "the receipt has schema 2, this version writes 1"),
        (lambda text: text.replace('"schema": 1', '"schema": true'),
         "the receipt has schema true, this version writes 1"),
        (lambda text: text.replace('"items": {}', '"items": {"a": NaN}'), "the receipt is damaged (not JSON)"),
        (lambda text: text.replace('"items": {}', '"items": []'),
         "the receipt is damaged (items missing or of the wrong type)"),
        (lambda text: text.replace('"items"', '"item"'), "the receipt is damaged (items missing or of the wrong type)"),
        (lambda text: text.replace("2026-01", "2026-02"),
         "the receipt was edited or damaged (its checksum does not fit)"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_receipt(change: Any, problem: str) -> None:
    text = receipts.text(receipts.document("os_base", expected(), {}, "2026-01-31T12:00:00+00:00"))
    assert receipts.parse("os_base", text)[1] is None

    assert receipts.parse("os_base", change(text)) == (None, problem)


def test_another_roles_receipt_is_no_receipt() -> None:
    text = receipts.text(receipts.document("os_base", expected(), {}, "2026-01-31T12:00:00+00:00"))

    assert receipts.parse("pytorch", text) == (None, "the receipt is of the role os_base")


def test_only_the_time_of_writing_makes_no_new_receipt() -> None:
    one, later = (
        receipts.document("os_base", expected(), {}, f"2026-01-31T12:00:0{second}+00:00") for second in (1, 2)
    )

    assert receipts.same(one, later)
    assert not receipts.same(one, receipts.document("os_base", expected(files="sha256:g"), {}, one["written_at"]))
    assert not receipts.same(None, one)


def test_a_secret_input_is_in_the_digest_alone() -> None:
    receipt = receipts.document("os_base", expected(secret="hunter2"), {}, "2026-01-31T12:00:00+00:00")

    assert "hunter2" not in receipts.text(receipt)
    assert receipt["digest"] != expected()["digest"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.text(min_size=1, max_size=5), JSON, max_size=4)


@given(MAPPINGS, MAPPINGS, MAPPINGS, MAPPINGS, st.text(max_size=4), st.text(max_size=4))
def test_other_inputs_other_lock_or_other_files_are_never_fresh(
    inputs: Any, lock: Any, inputs_now: Any, lock_now: Any, files: str, files_now: str
) -> None:
    assume((receipts.canonical([inputs, lock]), files) != (receipts.canonical([inputs_now, lock_now]), files_now))
    written = found(inputs=inputs, lock=lock, files=files)

    reasons = receipts.stale_reasons("os_base", expected(inputs_now, lock_now, files_now), written)

    assert reasons
    assert "inputs changed (one that is kept secret)" not in reasons


@given(MAPPINGS, MAPPINGS, st.text(max_size=4))
def test_the_digest_does_not_depend_on_the_order_of_keys(inputs: Any, lock: Any, files: str) -> None:
    turned = dict(reversed(list(inputs.items())))

    assert receipts.digest(inputs, lock, files) == receipts.digest(turned, lock, files)


@given(st.data())
def test_a_receipt_with_any_byte_changed_is_not_believed(data: st.DataObject) -> None:
    receipt = receipts.document("os_base", expected(), {"files": {"/etc/x": FILE}}, "2026-01-31T12:00:00+00:00")
    text = receipts.text(receipt)
    position = data.draw(st.integers(0, len(text) - 1))
    changed = text[:position] + data.draw(st.characters(codec="ascii")) + text[position + 1 :]
    with contextlib.suppress(ValueError):
        assume(json.loads(changed) != receipt)

    assert receipts.parse("os_base", changed)[0] is None
