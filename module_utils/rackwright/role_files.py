# SPDX-License-Identifier: Apache-2.0
"""Which files of the checkout do a role's work, and one digest over them. Control node only.

A role's own files (its README apart), the modules of library/ its tasks name, their action plugins, what those import
from module_utils, and the same for the roles it includes. A change of any of them makes the role's receipts stale.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import InvalidInputError

PACKAGE = "rackwright"
#: folders of the checkout whose files can do a role's work
CODE_FOLDERS = ("roles", "library", "action_plugins", f"module_utils/{PACKAGE}")
# Rackwright's bookkeeping: changes nothing on a node, so a change of it gives no reason to run a role again.
_BOOKKEEPING = {"receipt", "node_probe", "gpu_plan"}
# Changes nothing on a node either. What it decides reaches a role through the lock, whose entries are in the digest.
_PLANNING_ROLE = "gpu_stack"
_PREFIXES = ("ansible.builtin.", "ansible.legacy.")
_INCLUDES = ("include_role", "import_role")
_IGNORED_SUFFIXES = (".pyc", ".pyo", ".swp", ".orig", ".rej", "~")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads task files as data; what !vault and !unsafe mean does not matter here."""


def _scalar_or_more(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _scalar_or_more)


class RoleTree:
    """The checkout, with what was parsed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {path.stem for path in (root / "library").glob("*.py")} - _BOOKKEEPING

    @functools.cached_property
    def package(self) -> Path:
        """Folder of the shared Python code."""
        return self.root / "module_utils" / PACKAGE

    def role_files(self, role: str) -> list[Path]:
        """Return the files of one role, without its README and what editors and interpreters leave behind."""
        folder = self.root / "roles" / role
        return [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and path.relative_to(folder).parts[0] != "README.md"
            and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
            and not path.name.endswith(_IGNORED_SUFFIXES)
        ]

    def roles_of(self, role: str) -> list[str]:
        """Return a role and, transitively, every role it includes or depends on; not the role that only plans."""
        found: list[str] = []
        queue = [role]
        while queue:
            name = queue.pop()
            if name not in found and name != _PLANNING_ROLE:
                found.append(name)
                queue.extend(self._included(name))
        return sorted(found)

    def _included(self, role: str) -> Iterator[str]:
        meta = self._document(self.root / "roles" / role / "meta" / "main.yml")
        for entry in (meta or {}).get("dependencies") or [] if isinstance(meta, dict) else []:
            yield str(entry.get("role") or entry.get("name")) if isinstance(entry, dict) else str(entry)
        for path in self._task_files(role):
            for key, value in _pairs(self._document(path)):
                if _plain_name(key) in _INCLUDES:
                    yield self._role_name(path, value)

    def _role_name(self, path: Path, value: Any) -> str:
        name = value.get("name") if isinstance(value, dict) else value
        if not isinstance(name, str) or "{{" in name or not (self.root / "roles" / name).is_dir():
            raise InvalidInputError(
                "compute the receipt",
                str(path.relative_to(self.root)),
                f"it includes the role {name!r}, which is not the plain name of a role of this checkout",
                "Name the included role literally, so that a change of it is noticed",
            )
        return name

    def _task_files(self, role: str) -> list[Path]:
        return [
            path
            for path in self.role_files(role)
            if path.suffix in (".yml", ".yaml")
            and path.relative_to(self.root / "roles" / role).parts[0] in ("tasks", "handlers")
        ]

    def _document(self, path: Path) -> Any:
        if not path.is_file():
            return None
        try:
            # a subclass of the safe loader: it builds plain data only
            return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        except yaml.YAMLError as error:
            raise InvalidInputError(
                "compute the receipt", str(path.relative_to(self.root)), f"it is not YAML: {error}", "Correct the file"
            ) from error

    def modules_of(self, role: str) -> list[str]:
        """Return the modules of library/ that a role's tasks name, also as module_defaults."""
        keys = {_plain_name(key) for path in self._task_files(role) for key, _value in _pairs(self._document(path))}
        return sorted(keys & self.modules)

    def code_of(self, modules: list[str]) -> list[Path]:
        """Return the files of the named modules and action plugins and, transitively, of what they import."""
        queue = [self.root / folder / f"{name}.py" for name in modules for folder in ("library", "action_plugins")]
        found: list[Path] = []
        while queue:
            path = queue.pop()
            if path.is_file() and path not in found:
                found.append(path)
                queue.extend(imports_of(path, self.package))
        return sorted(found)


def imports_of(path: Path, package: Path) -> list[Path]:
    """Return the files of the shared package that a Python file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = _package_name(node, path.parent == package)
            if base is not None:
                found += [base] if base else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [part for alias in node.names if (part := _below_package(alias.name))]
    return sorted({package / f"{name.split('.')[0]}.py" for name in found})


def _package_name(node: ast.ImportFrom, inside: bool) -> str | None:
    """Module below the package of ``from X import …``: empty for the package itself, None for anything else."""
    if node.level:
        return node.module or "" if inside else None
    return _below_package(node.module or "")


def _below_package(name: str) -> str | None:
    for prefix in (f"ansible.module_utils.{PACKAGE}", PACKAGE):
        if name == prefix:
            return ""
        if name.startswith(f"{prefix}."):
            return name[len(prefix) + 1 :]
    return None


def _plain_name(key: Any) -> str:
    name = str(key)
    return next((name[len(prefix) :] for prefix in _PREFIXES if name.startswith(prefix)), name)


def _pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every key with its value, however deep: a task's module is a key of it, also inside blocks."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield key, value
            yield from _pairs(value)
    elif isinstance(data, list):
        for item in data:
            yield from _pairs(item)


def files_of(tree: RoleTree, role: str, extra: list[str]) -> list[Path]:
    """Return every file whose change makes a role's receipts stale, sorted.

    Raises:
        InvalidInputError: an extra file is not there, or a role is included by a name that cannot be followed.
    """
    roles = tree.roles_of(role)
    files = {path for name in roles for path in tree.role_files(name)}
    files |= set(tree.code_of(sorted({module for name in roles for module in tree.modules_of(name)})))
    for name in extra:
        path = tree.root / name
        if not path.is_file():
            raise InvalidInputError(
                "compute the receipt",
                f"roles/{role}/meta/receipt.yml",
                f"its file {name} is not in the checkout",
                "Give paths of files below the checkout",
            )
        files.add(path)
    return sorted(files)


def files_digest(tree: RoleTree, role: str, extra: list[str]) -> str:
    """Return one digest over names and contents of :func:`files_of`."""
    total = hashlib.sha256()
    for path in files_of(tree, role, extra):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(tree.root).as_posix()}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"
