# SPDX-License-Identifier: Apache-2.0
"""The folder of receipts: whole or not there, never an old one after a failure, never fresh without a look."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import receipt_store, receipts
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.receipt_items import Node

EXPECTED = {"digest": "sha256:d", "inputs": {"a": 1}, "lock": {}, "files_digest": "sha256:f"}
KEYS = ("checksum", "digest", "files_digest", "inputs", "items", "lock", "role", "written_at")
NOW = "2026-01-31T12:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "var/lib/rackwright/receipts"


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    path = tmp_path / "managed"
    path.write_text("x", encoding="utf-8")
    return path


def record(store: Path, path: Path, now: str = NOW) -> bool:
    return receipt_store.record(str(store), "os_base", EXPECTED, {"files": [str(path)]}, Node(), now)[0]


def verify(store: Path) -> Any:
    return receipt_store.verify(str(store), Node())


def test_a_receipt_holds_until_something_changes(store: Path, managed: Path) -> None:
    assert record(store, managed)
    found, problem = verify(store)
    assert problem is None
    about = {"schema": 1, "role": "os_base", "written_at": NOW}
    assert found["os_base"] == {**EXPECTED, **about, "problem": None, "drift": []}
    assert receipts.stale_reasons("os_base", EXPECTED, found["os_base"]) == []

    managed.write_text("y", encoding="utf-8")
    assert verify(store)[0]["os_base"]["drift"] == [f"{managed} edited by hand"]


def test_only_root_may_look(store: Path, managed: Path) -> None:
    record(store, managed)

    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert stat.S_IMODE((store / "os_base.json").stat().st_mode) == 0o600
    assert os.listdir(store) == ["os_base.json"]


def test_the_same_receipt_is_not_written_again(store: Path, managed: Path) -> None:
    record(store, managed)
    before = (store / "os_base.json").read_bytes()

    assert not record(store, managed, "2027-01-01T00:00:00+00:00")
    assert (store / "os_base.json").read_bytes() == before


def test_an_item_that_is_not_there_leaves_no_receipt(store: Path, managed: Path) -> None:
    record(store, managed)
    managed.unlink()

    with pytest.raises(RackwrightError, match=f"{managed} is not there") as caught:
        record(store, managed)

    assert caught.value.to_result()["found"] == [f"{managed} is not there"]
    assert os.listdir(store) == []


@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
def test_a_full_disk_leaves_neither_the_old_receipt_nor_half_a_new_one(
    store: Path, managed: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    record(store, managed)
    managed.write_text("y", encoding="utf-8")

    def full(*arguments: Any, **_options: Any) -> Any:
        # the folder itself can still be synchronised after the old receipt went
        if step == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
            return
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(RackwrightError) as caught:
            record(store, managed)

    assert str(caught.value) == (
        f"Could not write the receipt on {store}/os_base.json: No space left on device. "
        "Free space on that file system and run the role again."
    )
    assert os.listdir(store) == []


def test_a_receipt_is_removed_once(store: Path, managed: Path) -> None:
    record(store, managed)

    assert receipt_store.remove(str(store), "os_base", check=True)
    assert receipt_store.remove(str(store), "os_base")
    assert not receipt_store.remove(str(store), "os_base")
    assert not receipt_store.remove(str(store / "no"), "os_base")
    assert verify(store) == ({}, None)


def test_a_receipt_that_cannot_be_removed_is_an_error(store: Path, managed: Path) -> None:
    (store / "os_base.json").mkdir(parents=True)

    with pytest.raises(RackwrightError, match="Could not remove the receipt"):
        receipt_store.remove(str(store), "os_base")


def test_no_folder_is_no_receipts(store: Path) -> None:
    assert verify(store) == ({}, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the receipt is damaged (not JSON)"),
        (b"\xff\xfe", "the receipt is damaged (not UTF-8)"),
        (b'{"schema": 1}', f"the receipt is damaged ({', '.join(KEYS)} missing or of the wrong type)"),
    ],
)  # fmt: skip
def test_damaged_receipts_do_not_hide_the_others(store: Path, managed: Path, content: bytes, problem: str) -> None:
    record(store, managed)
    (store / "pytorch.json").write_bytes(content)
    (store / ".receipt-left").write_bytes(b"{}")

    found, _problem = verify(store)

    assert found["os_base"]["drift"] == []
    assert found["pytorch"] == {"problem": problem, "drift": []}
    assert receipts.stale_reasons("pytorch", EXPECTED, found["pytorch"]) == [problem]
    assert sorted(found) == ["os_base", "pytorch"]


def test_a_copy_of_another_roles_receipt_is_not_believed(store: Path, managed: Path) -> None:
    record(store, managed)
    (store / "pytorch.json").write_bytes((store / "os_base.json").read_bytes())

    assert verify(store)[0]["pytorch"]["problem"] == "the receipt is of the role os_base"


@pytest.mark.parametrize(
    "items",
    [
        {"venvs": {"/v": {}}},
        {"services": {"x": 1}},
        {"kernels": {"6.1": {}}},
        {"packages": 3},
    ],
)
def test_items_of_an_unknown_shape_prove_nothing(store: Path, items: Any) -> None:
    store.mkdir(parents=True)
    receipt = receipts.document("os_base", EXPECTED, items, NOW)
    (store / "os_base.json").write_text(receipts.text(receipt), encoding="utf-8")

    entry = verify(store)[0]["os_base"]

    assert receipts.stale_reasons("os_base", EXPECTED, entry)


def test_an_unreadable_receipt_is_stale(store: Path, managed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(store, managed)

    def forbidden(*_arguments: Any, **_options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("builtins.open", forbidden)
    reason = "could not read the receipt as an unprivileged user"
    assert receipts.stale_reasons("os_base", EXPECTED, verify(store)[0]["os_base"]) == [reason]

    monkeypatch.setattr(os, "listdir", forbidden)
    found, problem = verify(store)
    reason = "could not read the receipts as an unprivileged user"
    assert receipts.stale_reasons("os_base", EXPECTED, found.get("os_base"), problem) == [reason]


def test_services_of_all_roles_are_asked_in_one_call(store: Path) -> None:
    calls = []

    def run(command: list[str]) -> tuple[int, str, str]:
        calls.append(command)
        names = command[command.index("--") + 1 :]
        return 0, "\n".join("LoadState=loaded\nUnitFileState=enabled\nActiveState=active\n" for _name in names), ""

    for role, unit in (("os_base", "chrony"), ("nvidia_driver", "nvidia-persistenced")):
        wanted = {"services": [{"name": unit, "enabled": True, "active": True}]}
        receipt_store.record(str(store), role, EXPECTED, wanted, Node("/", run), NOW)
    calls.clear()

    found, _problem = receipt_store.verify(str(store), Node("/", run))

    assert [entry["drift"] for entry in found.values()] == [[], []]
    assert [command[-2:] for command in calls] == [["chrony", "nvidia-persistenced"]]
