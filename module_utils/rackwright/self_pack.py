# SPDX-License-Identifier: Apache-2.0
"""Make one plain script of a module of this package and everything it imports from it.

The script needs nothing but the node's Python. It is made on the node, from the very sources that are running there,
so a boot does what the last run did.
"""

from __future__ import annotations

import ast
import importlib
from typing import Any

_PACKAGE = "rackwright"
_HEAD = '''# Managed by Rackwright; changes are overwritten. Made of {entry}.py and what that imports.
import sys

SOURCES = {{
{sources}}}


class Packed:
    """Imports the package from the texts above."""

    def find_spec(self, name, path=None, target=None):
        if name in SOURCES:
            return type(sys.__spec__)(name, self, origin="<packed %s>" % name, is_package=name == "{package}")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(SOURCES[module.__name__], "<packed %s>" % module.__name__, "exec"), module.__dict__)

    def get_source(self, name):
        return SOURCES[name]


sys.meta_path.insert(0, Packed())
from {package}.{entry} import main

sys.exit(main())
'''


def pack(entry: str) -> str:
    """Return the script that runs ``main()`` of one module of this package; the same sources give the same text."""
    queue, found = [entry], {}
    while queue:
        name = queue.pop()
        if name not in found:
            found[name] = source_of(name)
            queue += imports_of(found[name])
    texts = {_PACKAGE: "", **{f"{_PACKAGE}.{name}": text for name, text in found.items()}}
    lines = "".join(f"    {name!r}: {texts[name]!r},\n" for name in sorted(texts))
    return _HEAD.format(entry=entry, package=_PACKAGE, sources=lines)


def source_of(name: str) -> str:
    """Return the source of a module of this package, wherever it was loaded from (a folder or Ansible's archive)."""
    module: Any = importlib.import_module(f"{__package__}.{name}")
    return str(module.__loader__.get_source(module.__name__))


def imports_of(source: str) -> list[str]:
    """Return the modules of this package that a source imports, in every place of it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found.update([node.module] if node.module else [alias.name for alias in node.names])
    return sorted(found)
