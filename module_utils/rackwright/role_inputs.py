# SPDX-License-Identifier: Apache-2.0
"""What a role would be run with now: option values, lock entries, and a digest of the files that do its work.

Control node only: reads the checkout, needs PyYAML. The values come templated from the caller, so that a role that ends
and the plan that looks at a thousand hosts compute the same digest with the same code.
"""

from __future__ import annotations

import datetime
import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import InvalidInputError
from .receipts import digest
from .remembered import files_below, remembered, signature
from .role_files import CODE_FOLDERS, RoleTree, files_digest

CHECKOUT = "{checkout}"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TRUE = {"y", "yes", "on", "1", "true", "t"}
_FALSE = {"n", "no", "off", "0", "false", "f"}


@dataclass(frozen=True)
class RoleFacts:
    """What the checkout says about a role.

    Attributes:
        role: its name.
        options: main options of its argument spec.
        defaults: its defaults as written, templates and all.
        lock: dotted keys of a node's locked stack that the role uses.
        files_digest: digest of the files that do its work.
    """

    role: str
    options: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]
    lock: Sequence[str]
    files_digest: str


def _load(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a file that is not there, or empty, is an empty one."""
    if not path.is_file():
        return {}
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise InvalidInputError("read", str(path), f"it is not YAML: {error}", "Correct the file") from error
    if content is not None and not isinstance(content, dict):
        raise InvalidInputError("read", str(path), "it is no mapping", "Correct the file")
    return content or {}


@functools.cache
def role_facts(root: Path, role: str) -> RoleFacts:
    """Return what the checkout at ``root`` says about a role; read once in a process (``role_facts.cache_clear()``).

    What was read is remembered below ``.cache`` of the checkout until any file of its roles or code changes.

    Raises:
        InvalidInputError: there is no such role, or one of its files cannot be used.
    """
    key = signature([*files_below(root / name for name in CODE_FOLDERS), *_extra_files(root, role)])
    place = root / ".cache" / "roles" / f"{role}.json"
    return RoleFacts(**remembered(place, key, lambda: asdict(_role_facts(root, role))))


def _extra_files(root: Path, role: str) -> list[str]:
    """Files that count although they lie elsewhere in the checkout; what is wrong with them is told later."""
    try:
        names = _load(root / "roles" / role / "meta/receipt.yml").get("files")
    except InvalidInputError:
        return []
    return [str(root / str(name)) for name in names] if isinstance(names, list) else []


def _role_facts(root: Path, role: str) -> RoleFacts:
    folder = root / "roles" / role
    specs = _load(folder / "meta/argument_specs.yml")
    if "main" not in (specs.get("argument_specs") or {}):
        raise InvalidInputError(
            "compute the receipt",
            f"the role {role}",
            f"{folder}/meta/argument_specs.yml has no entry point main",
            "Name a role of this checkout, with its own argument spec",
        )
    meta = _load(folder / "meta/receipt.yml")
    unknown = sorted(set(meta) - {"lock", "files"})
    if unknown or not all(isinstance(meta.get(key, []), list) for key in ("lock", "files")):
        raise InvalidInputError(
            "read",
            f"{folder}/meta/receipt.yml",
            f"it has {', '.join(unknown) or 'something else'} where only the lists lock and files are known",
            "Correct the file",
        )
    return RoleFacts(
        role=role,
        options=specs["argument_specs"]["main"].get("options") or {},
        defaults=_load(folder / "defaults/main.yml"),
        lock=sorted(str(key) for key in meta.get("lock", [])),
        files_digest=files_digest(RoleTree(root), role, [str(name) for name in meta.get("files", [])]),
    )


def expected(root: Path, role: str, values: Mapping[str, Any], stack: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``digest``, ``inputs`` (without secret ones), ``lock`` and ``files_digest`` of a role for one host.

    Args:
        root: the checkout.
        role: name of the role.
        values: templated value of every option; one without a value may be left out and counts as null.
        stack: the node's locked stack, None where there is none. Keys it lacks count as null.

    Raises:
        InvalidInputError: a value is no plain data or not of its option's type.
    """
    facts = role_facts(root, role)
    inputs = {}
    for name, option in sorted(facts.options.items()):
        try:
            inputs[name] = plain(coerce(values.get(name), option), root)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                "compute the receipt",
                f"the role {role}",
                f"{name} {error}",
                "Correct its value in the inventory",
                expected=option.get("type", "str"),
            ) from error
    lock = {key: plain(lock_entry(stack, key), root) for key in facts.lock}
    secret = {name for name, option in facts.options.items() if is_secret(option)}
    return {
        "digest": digest(inputs, lock, facts.files_digest),
        "inputs": {name: value for name, value in inputs.items() if name not in secret},
        "lock": lock,
        "files_digest": facts.files_digest,
    }


def is_secret(option: Mapping[str, Any]) -> bool:
    """Whether an option, or anything in it, is marked ``no_log``."""
    return bool(option.get("no_log")) or any(is_secret(part) for part in (option.get("options") or {}).values())


def lock_entry(stack: Mapping[str, Any] | None, key: str) -> Any:
    """Return the entry of a dotted key, None where the stack has none."""
    entry: Any = stack
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, Mapping) else None
    return entry


def coerce(value: Any, option: Mapping[str, Any]) -> Any:
    """Return a value in its option's type, so that ``-e x=true`` and ``x: true`` are the same input.

    Raises:
        ValueError: it is no value of that type.
    """
    kind = option.get("type", "str")
    if value is None or kind not in _COERCE:
        return value
    return _COERCE[kind](value)


def _bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"is {value!r}, not a boolean")
    return text in _TRUE


def _number(value: Any) -> int | float:
    try:
        number = float(str(value))
    except ValueError as error:
        raise ValueError(f"is {value!r}, not a number") from error
    return int(number) if number.is_integer() else number


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value)
    return str(value) if isinstance(value, (int, float)) else value


def _list(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


_COERCE: dict[str, Any] = {
    "bool": _bool,
    "int": _number,
    "float": _number,
    "str": _text,
    "path": _text,
    "list": _list,
}


def plain(value: Any, root: Path) -> Any:
    """Return a copy in plain JSON types, without the place of the checkout in it.

    Raises:
        TypeError: the value holds something that is no plain data.
    """
    if isinstance(value, str):
        return portable(str.__str__(value), root)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError("holds a number that is not finite")
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(value[key], root) for key in value}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item, root) for item in value]
        return sorted(items, key=str) if isinstance(value, (set, frozenset)) else items
    raise TypeError(f"holds a {type(value).__name__}, which is no plain data")


def portable(text: str, root: Path) -> str:
    """Return a text with the checkout's path as ``{checkout}``, so that a moved checkout has the same inputs."""
    for place in sorted({str(root), os.path.realpath(root)}, key=len, reverse=True):
        text = re.sub(rf"{re.escape(place)}(?=/|$)", CHECKOUT, text)
    return os.path.normpath(text) if text.startswith(f"{CHECKOUT}/") else text
