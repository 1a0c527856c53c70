# SPDX-License-Identifier: Apache-2.0
"""The lock before is the way back: a plan keeps it, a rollback lets the two change places."""

from __future__ import annotations

from typing import Any

from rackwright import lock, lock_file


def content(version: str) -> dict[str, Any]:
    return {
        "intent": {"stack_driver_version": version},
        "platform": {"os": "debian12", "arch": "x86_64"},
        "gpus": [{"id": "h100", "name": "H100", "count": 1}],
        "simulated": False,
        "driver": {"version": version},
        "why": {"driver.version": f"because {version}"},
    }


def locked(tables: str = "sha256:a", **versions: str) -> dict[str, Any]:
    return lock.build({name: content(version) for name, version in versions.items()}, tables)


def versions(document: dict[str, Any] | None) -> dict[str, str]:
    assert document is not None
    return {name: (lock.stack_of(document, name) or {})["driver"]["version"] for name in document["nodes"]}


def test_a_plan_that_moves_a_node_keeps_what_it_had() -> None:
    kept = lock_file.keep(locked(a="580", b="580"), locked(a="590", b="580"), None)

    assert versions(kept) == {"a": "580", "b": "580"}


def test_a_later_plan_takes_no_way_back_from_the_others() -> None:
    old, previous = locked(a="590", b="580"), locked(a="580", b="580")

    assert versions(lock_file.keep(old, locked(a="590", b="595"), previous)) == {"a": "580", "b": "580"}


def test_a_plan_that_moves_nothing_keeps_nothing() -> None:
    assert lock_file.keep(locked(a="580"), locked(a="580", b="590"), None) is None


def test_after_a_whole_rollback_the_files_have_changed_places_to_the_byte() -> None:
    current, previous = locked("sha256:new", a="590", b="590"), locked("sha256:old", a="580", b="580")

    here, there = lock_file.exchange(current, previous, ["a", "b"])

    assert (lock.to_text(here), lock.to_text(there)) == (lock.to_text(previous), lock.to_text(current))


def test_after_half_a_rollback_only_those_nodes_change_places() -> None:
    here, there = lock_file.exchange(locked(a="590", b="590", c="590"), locked(a="580", b="580"), ["a", "c"])

    assert versions(here) == {"a": "580", "b": "590", "c": "590"}
    assert versions(there) == {"a": "590", "b": "580"}


def test_the_lock_before_lies_beside_the_lock() -> None:
    assert lock_file.previous_path("/site/stack.lock.yml") == "/site/stack.lock.previous.yml"
