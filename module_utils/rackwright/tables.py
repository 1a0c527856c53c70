# SPDX-License-Identifier: Apache-2.0
"""The tables of ``roles/gpu_stack/files/tables`` as one record, with a site's own rows merged in.

For the control node only: it reads files and needs a YAML parser. Nothing that travels to a node may import it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import InvalidInputError, MissingError
from .remembered import remembered, signature
from .tables_check import ROW_KEYS, TABLES, check_tables, kind_of, row_name

#: the variable a site writes its own rows in
EXTRA_VARIABLE = "stack_extra_tables"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CACHE: dict[tuple[Any, ...], Tables] = {}


@dataclass(frozen=True)
class Tables:
    """Each attribute is the document of the file of that name. The documents are shared: do not change them."""

    gpus: dict[str, Any]
    drivers: dict[str, Any]
    cuda: dict[str, Any]
    platforms: dict[str, Any]
    frameworks: dict[str, Any]
    models: dict[str, Any]
    sizing: dict[str, Any]
    xids: dict[str, Any]


def load_tables(directory: Path, extra: Mapping[str, Any] | str | None = None, cache: Path | None = None) -> Tables:
    """Return the tables of ``directory``, with ``extra`` merged in last.

    ``extra`` is a mapping from the name of a table to a part of its document (or the same as YAML text):
    ``{"drivers": {"branches": [{"branch": "580", "latest_known": "580.200.01"}]}}``. A row with a known key replaces
    the columns it gives, any other row is appended; maps and plain values are replaced key by key. What comes out is
    checked as a whole (``tables_check.check_tables``). ``cache`` is a file that remembers the shipped tables as parsed.

    Raises ``MissingError`` for a table that is not there, ``InvalidInputError`` for one that cannot be used.
    """
    paths = {name: Path(directory) / f"{name}.yml" for name in TABLES}
    key = tuple((str(path), _stamp(path)) for path in paths.values())
    if key not in _CACHE:
        _CACHE[key] = Tables(**_documents(paths, cache))
    shipped = _CACHE[key]
    return merge_extra(shipped, extra) if extra else shipped


def _documents(paths: Mapping[str, Path], cache: Path | None) -> dict[str, dict[str, Any]]:
    def parse() -> dict[str, dict[str, Any]]:
        return {name: _document(path) for name, path in paths.items()}

    if cache is None:
        return parse()
    documents: dict[str, dict[str, Any]] = remembered(cache, signature(map(str, paths.values())), parse)
    return documents


def extra_rows(said: Any) -> Any:
    """Return the rows that ``stack_extra_tables`` means: a mapping as it is, or the text of the file that it names.

    Raises ``InvalidInputError`` for a file that cannot be read.
    """
    if not isinstance(said, str) or not said:
        return said
    try:
        return Path(said).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            "read the extra tables", said, str(error), f"Name a file that can be read in {EXTRA_VARIABLE}"
        ) from error


def merge_extra(tables: Tables, extra: Mapping[str, Any] | str) -> Tables:
    """Return new tables with a site's rows in them; ``tables`` stays as it is. Raises ``InvalidInputError``."""
    given = _parsed(extra)
    documents = {name: getattr(tables, name) for name in TABLES}
    for name, part in given.items():
        if name not in documents:
            raise _refused(f"there is no table {name!r} (the tables are {', '.join(TABLES)})", found=name)
        if not isinstance(part, Mapping):
            raise _refused(f"{name} must be a map of the table's lists and is {kind_of(part)}", found=part)
        documents[name] = _merged_map(documents[name], part, (name,))
    merged = Tables(**documents)
    problems = check_tables(merged)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise _refused(problems[0] + more, found=problems)
    return merged


def tables_digest(tables: Tables) -> str:
    """Return the sha256 of the tables' content; order of keys, comments and layout of the files do not matter."""
    text = json.dumps(
        {name: getattr(tables, name) for name in TABLES}, sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise MissingError(
            "read a table", str(path), "it is not there", "Restore the file from the checkout", expected=list(TABLES)
        ) from error
    return status.st_mtime_ns, status.st_size


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise InvalidInputError(
            "read a table", str(path), f"it is not YAML: {error}", "Correct the file, or restore it from the checkout"
        ) from error
    if not isinstance(document, dict):
        raise InvalidInputError(
            "read a table",
            str(path),
            f"it must be a map and is {kind_of(document)}",
            "Correct the file, or restore it from the checkout",
        )
    return document


def _parsed(extra: Any) -> Mapping[str, Any]:
    if isinstance(extra, str):
        try:
            extra = yaml.load(extra, Loader=_LOADER)
        except yaml.YAMLError as error:
            raise _refused(f"it is not YAML: {error}") from error
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise _refused(f"it must be a map of tables and is {kind_of(extra)}", found=extra)
    return extra


def _refused(cause: str, found: Any = None) -> InvalidInputError:
    return InvalidInputError(
        "use the extra table",
        EXTRA_VARIABLE,
        cause,
        "Write it with the same names and lists as the tables in roles/gpu_stack/files/tables",
        expected=list(TABLES),
        found=found,
    )


def _holds_rows(path: tuple[str, ...]) -> bool:
    """Whether a list of rows is at or below this place: there, names that the tables do not have are mistakes."""
    return any(known[: len(path)] == path for known in ROW_KEYS)


def _merged_map(base: dict[str, Any], part: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in part.items():
        here = (*path, str(key))
        if key in base:
            merged[key] = _merged_value(base[key], value, here)
        elif _holds_rows(path):
            raise _refused(f"{'.'.join(path)} has no {key!r} (it has {', '.join(map(str, base))})", found=key)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _merged_value(base: Any, value: Any, path: tuple[str, ...]) -> Any:
    name = ".".join(path)
    if path in ROW_KEYS:
        return _merged_rows(base, value, path)
    if isinstance(base, dict):
        if not isinstance(value, Mapping):
            raise _refused(f"{name} must be a map and is {kind_of(value)}", found=value)
        return _merged_map(base, value, path)
    if base is not None and value is not None and kind_of(base) != kind_of(value):
        raise _refused(f"{name} must be {kind_of(base)} and is {kind_of(value)}", found=value)
    return copy.deepcopy(value)


def _merged_rows(base: list[dict[str, Any]], rows: Any, path: tuple[str, ...]) -> list[dict[str, Any]]:
    name, key = ".".join(path), ROW_KEYS[path]
    if not isinstance(rows, list):
        raise _refused(f"{name} must be a list of rows and is {kind_of(rows)}", found=rows)
    merged = {row[key]: row for row in base}
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise _refused(f"{name}[{position}] must be a map and is {kind_of(row)}", found=row)
        value = row.get(key)
        if value is None or isinstance(value, (dict, list)):
            raise _refused(f"{name}[{position}] lacks {key!r}, which names the row", found=dict(row))
        if merged and kind_of(value) != kind_of(next(iter(merged))):
            wanted = kind_of(next(iter(merged)))
            raise _refused(f"{row_name(path, value)}: {key} must be {wanted} and is {kind_of(value)}", found=value)
        merged[value] = {**merged.get(value, {}), **copy.deepcopy(dict(row))}
    return list(merged.values())
