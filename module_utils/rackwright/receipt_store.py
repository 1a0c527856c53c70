# SPDX-License-Identifier: Apache-2.0
"""The folder of receipts on a node: write one whole or not at all, remove one, compare all of them with the node."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import atomic, receipts
from .errors import RackwrightError
from .receipt_items import Node, collect, complaints, drift, unreadable

_NEXT_STEPS = {
    errno.ENOSPC: "Free space on that file system and run the role again",
    errno.EDQUOT: "Free space on that file system and run the role again",
    errno.EROFS: "Mount the file system writable and run the role again",
    errno.EACCES: "Run with become: true",
    errno.EPERM: "Run with become: true, and look for an immutable flag (lsattr)",
}


def _path(directory: str, role: str) -> str:
    return os.path.join(directory, f"{role}.json")


def _explain(action: str, path: str, error: OSError) -> RackwrightError:
    step = _NEXT_STEPS.get(error.errno or 0, "Look at the file and its folder, then run the role again")
    return RackwrightError(action, path, error.strerror or str(error), step)


def remove(directory: str, role: str, *, check: bool = False) -> bool:
    """Remove a role's receipt; return whether there was one. With ``check`` nothing is touched.

    Raises:
        RackwrightError: it is there and cannot be removed.
    """
    path = _path(directory, role)
    try:
        if check:
            return os.path.lexists(path)
        os.unlink(path)
        atomic.sync_folder(directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _explain("remove the receipt", path, error) from error
    return True


def read(directory: str, role: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return a role's receipt, or None and why there is none that can be believed."""
    path = _path(directory, role)
    try:
        with open(path, encoding="utf-8") as stream:
            return receipts.parse(role, stream.read())
    except FileNotFoundError:
        return None, "no receipt"
    except UnicodeDecodeError:
        return None, "the receipt is damaged (not UTF-8)"
    except OSError as error:
        return None, unreadable("the receipt", error)["error"]


def write(directory: str, role: str, receipt: Mapping[str, Any]) -> bool:
    """Write a receipt; return False where the same one is there already. After an error there is none.

    Raises:
        RackwrightError: it could not be written; the old one is gone then.
    """
    if receipts.same(read(directory, role)[0], receipt):
        return False
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
        data = receipts.text(receipt).encode("utf-8")
        atomic.replace(_path(directory, role), data, flush_folder=True, prefix=".receipt-")
    except OSError as error:
        remove(directory, role)
        raise _explain("write the receipt", _path(directory, role), error) from error
    return True


def record(
    directory: str, role: str, expected: Mapping[str, Any], wanted: Mapping[str, Any], node: Node, written_at: str
) -> tuple[bool, dict[str, Any]]:
    """Look at what a role lists and write its receipt; return whether one was written, and the items as found.

    Raises:
        RackwrightError: the items are not what a role leaves, or the receipt cannot be written. No receipt is left.
    """
    items = collect(wanted, node)
    problems = complaints(wanted, items)
    if problems:
        remove(directory, role)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RackwrightError(
            "write the receipt",
            f"the role {role}",
            f"{problems[0]}{more}",
            "The role did not reach what it lists, or lists what it does not manage: run it again, or correct its list",
            expected="every listed item as the role leaves it",
            found=problems,
        )
    return write(directory, role, receipts.document(role, expected, items, written_at)), items


def verify(directory: str, node: Node, also: Iterable[str] = ()) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Compare every receipt of a node with the node. Packages named by ``also`` are read along with the receipts'.

    Returns:
        Per role what :func:`receipts.summary` gives; and why the receipts could not be looked at, None when they could.
    """
    try:
        roles = sorted(name[: -len(".json")] for name in os.listdir(directory) if _is_receipt(name))
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, unreadable("the receipts", error)["error"]
    found = {role: read(directory, role) for role in roles}
    _read_ahead(node, [receipt["items"] for receipt, _problem in found.values() if receipt], also)
    return {role: _verified(receipt, problem, node) for role, (receipt, problem) in found.items()}, None


def _is_receipt(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _read_ahead(node: Node, all_items: list[dict[str, Any]], also: Iterable[str]) -> None:
    """Ask for the packages and services of all receipts together: one look, one call."""
    kinds = ("packages", "present")
    names = [name for items in all_items for kind in kinds for name in _names(items, kind)]
    node.load_packages([*names, *also])
    node.load_units(name for items in all_items for name in _names(items, "services"))


def _names(items: Mapping[str, Any], kind: str) -> list[str]:
    records = items.get(kind)
    return list(records) if isinstance(records, Mapping) else []


def _verified(receipt: dict[str, Any] | None, problem: str | None, node: Node) -> dict[str, Any]:
    if receipt is None:
        return receipts.summary(None, problem, [])
    try:
        return receipts.summary(receipt, None, drift(receipt["items"], node))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # a checksum fits whatever was written; items of an unknown shape are no proof of anything
        return receipts.summary(None, f"the receipt's items cannot be read ({type(error).__name__}: {error})", [])
