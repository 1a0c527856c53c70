# SPDX-License-Identifier: Apache-2.0
"""Receipts: what a role was run with and what it left, and every reason not to believe one any more. Pure.

A role is fresh on a node only when nothing here finds a reason against it: no receipt, one that was damaged, edited or
belongs to another role, other inputs, other role files, a managed item that is not as the role left it, or an item that
could not be looked at. What is not known is never taken for fresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 1
#: where a node keeps them, unless told otherwise
DIRECTORY = "/var/lib/rackwright/receipts"

_KEYS = {
    "schema": int,
    "role": str,
    "digest": str,
    "inputs": dict,
    "lock": dict,
    "files_digest": str,
    "items": dict,
    "written_at": str,
    "checksum": str,
}
_SUMMARY = ("schema", "role", "digest", "inputs", "lock", "files_digest", "written_at")
_ABSENT = object()
_SHOWN = 3
_VALUE_WIDTH = 60


def canonical(value: Any) -> str:
    """Return a value as JSON that is the same for equal values, whatever the order of their keys.

    Raises:
        TypeError: the value holds something that is no plain data.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_of(value: Any) -> str:
    """Return ``sha256:<hex>`` of a value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def digest(inputs: Mapping[str, Any], lock_entries: Mapping[str, Any], files_digest: str) -> str:
    """Return the digest of everything a role is run with; ``inputs`` holds the secret ones too."""
    return hash_of({"inputs": dict(inputs), "lock": dict(lock_entries), "files": files_digest})


def document(role: str, expected: Mapping[str, Any], items: Mapping[str, Any], written_at: str) -> dict[str, Any]:
    """Return the receipt: ``expected`` as of role_inputs, ``items`` as of receipt_items, and a checksum over all."""
    receipt = {
        "schema": SCHEMA,
        "role": role,
        "digest": expected["digest"],
        "inputs": expected["inputs"],
        "lock": expected["lock"],
        "files_digest": expected["files_digest"],
        "items": dict(items),
        "written_at": written_at,
    }
    return {**receipt, "checksum": hash_of(receipt)}


def text(receipt: Mapping[str, Any]) -> str:
    """Return the file's text: JSON that people can read, the same for equal receipts."""
    return json.dumps(receipt, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether two receipts say the same but for the time they were written."""
    later = ("written_at", "checksum")
    return one is not None and {k: v for k, v in one.items() if k not in later} == {
        k: v for k, v in other.items() if k not in later
    }


def parse(role: str, content: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return the receipt in a file's text, or None and why it cannot be believed."""
    try:
        found = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None, "the receipt is damaged (not JSON)"
    if not isinstance(found, dict):
        return None, "the receipt is damaged (no JSON object)"
    if found.get("schema") != SCHEMA or isinstance(found.get("schema"), bool):
        return None, f"the receipt has schema {_value(found.get('schema'))}, this version writes {SCHEMA}"
    wrong = sorted(key for key, kind in _KEYS.items() if not isinstance(found.get(key), kind))
    if wrong:
        return None, f"the receipt is damaged ({', '.join(wrong)} missing or of the wrong type)"
    if found["checksum"] != hash_of({key: value for key, value in found.items() if key != "checksum"}):
        return None, "the receipt was edited or damaged (its checksum does not fit)"
    if found["role"] != role:
        return None, f"the receipt is of the role {found['role']}"
    return found, None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def summary(receipt: Mapping[str, Any] | None, problem: str | None, drift: list[str]) -> dict[str, Any]:
    """Return what travels to the control node about one receipt: everything but the items, and what drifted."""
    known = {key: receipt[key] for key in _SUMMARY} if receipt else {}
    return {**known, "problem": problem, "drift": drift}


def stale_reasons(
    role: str, expected: Mapping[str, Any], found: Mapping[str, Any] | None, problem: str | None = None
) -> list[str]:
    """Return why a role has to run on a node; an empty list means that its receipt holds.

    Args:
        role: name of the role.
        expected: ``digest``, ``inputs``, ``lock`` and ``files_digest`` as they are now (role_inputs.expected).
        found: the role's entry in what node_probe returns as ``receipts``; None when it has none.
        problem: ``receipts_problem`` of node_probe, the reason why no receipt could be looked at.
    """
    if found is None:
        return [problem or "no receipt"]
    if found.get("problem"):
        return [str(found["problem"])]
    if found.get("role") != role:
        return [f"the receipt is of the role {_value(found.get('role'))}"]
    drift = found.get("drift")
    if not isinstance(drift, list):
        return ["the receipt was not compared with the node"]
    return [*_input_reasons(expected, found), *(str(item) for item in drift)]


def _input_reasons(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if found.get("digest") == expected["digest"]:
        return []
    changes = changed_values(found.get("lock"), expected["lock"])
    changes += changed_values(found.get("inputs"), expected["inputs"])
    reasons = []
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        reasons.append(f"inputs changed ({', '.join(changes[:_SHOWN])}{more})")
    if found.get("files_digest") != expected["files_digest"]:
        reasons.append("role files changed")
    return reasons or ["inputs changed (one that is kept secret)"]


def changed_values(old: Any, new: Any, path: str = "") -> list[str]:
    """Return ``driver.version 580.95.05 → 580.105.08`` for every value that differs, by sorted dotted name."""
    if canonical_or_none(old) == canonical_or_none(new):
        return []
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [f"{path or 'value'} {_value(old)} → {_value(new)}"]
    changes = []
    for name in sorted({*old, *new}, key=str):
        below = f"{path}.{name}" if path else str(name)
        changes += changed_values(old.get(name, _ABSENT), new.get(name, _ABSENT), below)
    return changes


def canonical_or_none(value: Any) -> str | None:
    """Return canonical JSON, None for a value that is not there at all."""
    return None if value is _ABSENT else canonical(value)


def _value(value: Any) -> str:
    if value is _ABSENT:
        return "not there"
    shown = value if isinstance(value, str) and value else canonical(value)
    return shown if len(shown) <= _VALUE_WIDTH else f"{shown[: _VALUE_WIDTH - 1]}…"


def item_drift(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each managed item that is not as it was recorded, by kind and name.

    Both arguments have the shape of receipt_items.collect. An item that could not be read is ``{"error": sentence}``
    and counts as drift, as does one of a kind this version does not know.
    """
    sentences = [
        f"the receipt lists {kind}, which this version cannot check" for kind in sorted({*recorded} - {*_DRIFT})
    ]
    for kind, sentences_of in _DRIFT.items():
        before, now = recorded.get(kind) or {}, found.get(kind) or {}
        # only kernels are complete lists: one that came since is drift too
        for name in sorted({*before, *now} if kind == "kernels" else before):
            sentences += _one_item(sentences_of, name, before.get(name), now.get(name))
    return sentences


def _one_item(sentences_of: Callable[[str, Any, Any], list[str]], name: str, before: Any, now: Any) -> list[str]:
    if isinstance(now, Mapping) and "error" in now:
        return [str(now["error"])]
    if canonical(before) == canonical(now):
        return []
    # a difference that no sentence names is still a difference
    return sentences_of(name, before, now) or [f"{name} is not as it was recorded"]


def _fields(name: str, before: Mapping[str, Any], now: Mapping[str, Any], fields: tuple[str, ...]) -> list[str]:
    return [
        f"{name} {field} {_value(before.get(field))} → {_value(now.get(field))}"
        for field in fields
        if before.get(field) != now.get(field)
    ]


def _file(path: str, before: Any, now: Any) -> list[str]:
    if before is None:
        return [f"{path} is back"]
    if now is None:
        return [f"{path} removed"]
    if now.get("type") != before.get("type"):
        return [f"{path} replaced by a {now.get('type')}"]
    edited = [f"{path} edited by hand"] if before.get("sha256") != now.get("sha256") else []
    return edited + _fields(path, before, now, ("owner", "group", "mode"))


def _package(name: str, before: Any, now: Any) -> list[str]:
    old, new = before or {}, now or {}
    if old.get("version") != new.get("version"):
        return [f"package {name} {old.get('version') or 'not installed'} → {new.get('version') or 'removed'}"]
    return [f"hold of {name} released" if old.get("hold") else f"package {name} is on hold"]


def _present(name: str, before: Any, now: Any) -> list[str]:
    return [f"package {name} {'installed since' if now else 'removed'}"]


def _service(name: str, before: Any, now: Any) -> list[str]:
    old, new = before or {}, now or {}
    if new.get("enabled") == "not-found":
        return [f"service {name} removed"]
    sentences = (
        [f"service {name} {new.get('enabled') or 'has no unit file'}"]
        if old.get("enabled") != new.get("enabled")
        else []
    )
    if old.get("active") != new.get("active"):
        sentences.append(f"service {name} {old.get('active')} → {new.get('active')}")
    return sentences


def _sysctl(name: str, before: Any, now: Any) -> list[str]:
    return [f"{name} {_value(before)} → {'not there' if now is None else _value(now)}"]


def _kernel(release: str, before: Any, now: Any) -> list[str]:
    if before is None:
        return [f"kernel {release} installed since"]
    if now is None:
        return [f"kernel {release} removed"]
    sentences = []
    if before.get("headers") != now.get("headers"):
        sentences.append(f"headers of kernel {release} {'installed since' if now.get('headers') else 'removed'}")
    old, new = before.get("modules") or {}, now.get("modules") or {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            verb = "removed" if not new.get(name) else ("built since" if not old.get(name) else "is another file")
            sentences.append(f"module {name} of kernel {release} {verb}")
    return sentences


def _venv(path: str, before: Any, now: Any) -> list[str]:
    if now is None:
        return [f"{path} removed"]
    old, new = before or {}, now
    sentences = [
        f"{path} {problem}" for problem in new.get("problems") or [] if problem not in (old.get("problems") or [])
    ]
    if old.get("python") != new.get("python"):
        sentences.append(f"python of {path} {_value(old.get('python'))} → {_value(new.get('python'))}")
    if old.get("executable") != new.get("executable"):
        sentences.append(f"interpreter of {path} {_value(old.get('executable'))} → {_value(new.get('executable'))}")
    if old.get("settings") != new.get("settings"):
        sentences.append(f"{path}/pyvenv.cfg edited by hand")
    sentences += _fields(path, old, new, ("owner", "group", "mode"))
    had, has = old.get("packages") or {}, new.get("packages") or {}
    for name in sorted({*had, *has}):
        if had.get(name) != has.get(name):
            sentences.append(f"{name} {had.get(name) or 'not there'} → {has.get(name) or 'removed'} in {path}")
    damage = new.get("damage") or {}
    sentences += [
        f"{path}: {why}" for name, why in sorted(damage.items()) if (old.get("damage") or {}).get(name) != why
    ]
    return sentences


_DRIFT: dict[str, Callable[[str, Any, Any], list[str]]] = {
    "files": _file,
    "packages": _package,
    "present": _present,
    "services": _service,
    "sysctls": _sysctl,
    "kernels": _kernel,
    "venvs": _venv,
}
