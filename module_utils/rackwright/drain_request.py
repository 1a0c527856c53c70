# SPDX-License-Identifier: Apache-2.0
"""What one call of the drain asks for: checked once, the same for all adapters."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError

SCHEMA = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REASON_LENGTH = 160


@dataclass(frozen=True)
class Request:
    """What one call asks for. ``options`` are those of the adapter."""

    adapter: str
    node: str
    id: str
    reason: str
    record: dict[str, Any] | None
    timeout_s: float
    poll_s: float
    report_timeout: bool
    check_mode: bool
    options: dict[str, Any]

    @property
    def prefix(self) -> str:
        """What the mark of every drain with this id begins with."""
        return f"rackwright:{self.id} "

    @property
    def mark(self) -> str:
        """Text that this drain leaves where the node is drained."""
        return self.prefix + self.reason

    def owns(self, mark: str | None) -> bool:
        """Whether a mark found is this drain's own, word for word where a record says which words were left."""
        if mark is None:
            return False
        left = (self.record or {}).get("mark")
        return mark == left if left else mark.startswith(self.prefix)


def make_request(params: dict[str, Any], state: str, check_mode: bool, hostname: str) -> Request:
    """Check the module's options and return the request.

    Raises:
        InvalidInputError: a name, id or record that cannot be used.
    """
    record = params["record"] or None
    drain_id = params["id"] or (record or {}).get("id")
    if params["adapter"] in ("slurm", "kubernetes") and not (params["node_name"] or (record or {}).get("node")):
        raise InvalidInputError(
            "use the option node_name",
            hostname,
            f"{params['adapter']} needs the node's own name there, and this host may be another one",
            "Set node_name",
        )
    if state == "resumed" and params["adapter"] != "none" and not drain_id:
        raise InvalidInputError(
            "resume the node",
            params["node_name"] or hostname,
            "neither record nor id says which drain is to be ended",
            "Give drain.record of the call that drained it",
        )
    drain_id = drain_id or uuid.uuid4().hex[:12]
    node = params["node_name"] or (record or {}).get("node") or hostname
    _check_names(drain_id, node)
    _check_record(record, params["adapter"], node, drain_id)
    reason = "".join(c if c.isprintable() and c not in "\"'\\" else " " for c in params["reason"])
    return Request(
        adapter=params["adapter"],
        node=node,
        id=drain_id,
        reason=" ".join(reason.split())[:_REASON_LENGTH].strip() or "maintenance",
        record=record,
        timeout_s=float(params["timeout_s"]),
        poll_s=float(params["poll_s"]),
        report_timeout=params["on_timeout"] == "report",
        check_mode=check_mode,
        options=params,
    )


def _check_names(drain_id: str, node: str) -> None:
    if not _ID.fullmatch(drain_id):
        raise InvalidInputError(
            "use the option id",
            node,
            f"'{drain_id}' is no identifier",
            "Use 1 to 64 letters, digits, dots, dashes and underscores",
            expected=_ID.pattern,
            found=drain_id,
        )
    # Slurm reads ALL, lists and ranges as many nodes
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", node) or node.upper() == "ALL":
        raise InvalidInputError(
            "use the option node_name",
            node,
            "it is not the name of one node",
            "Give one name without ranges, commas and spaces",
            found=node,
        )


def _check_record(record: dict[str, Any] | None, adapter: str, node: str, drain_id: str) -> None:
    if record is None:
        return
    wanted = {"schema": SCHEMA, "adapter": adapter, "node": node, "id": drain_id}
    for key, value in wanted.items():
        if record.get(key) != value:
            raise InvalidInputError(
                "use the option record",
                node,
                f"its {key} is {record.get(key)!r}, this call is about {value!r}",
                "Give the record of the drain of this node, unchanged",
                expected=value,
                found=record.get(key),
            )
