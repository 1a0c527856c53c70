# SPDX-License-Identifier: Apache-2.0
"""One plain script that looks at a node: built on the control node, run by the node's Python from standard input.

Ansible packs every module into an archive for every host and task, and the node unpacks it into a folder. Here the
same code is packed once, sent over the open connection and run without a file. What travels is one line of JSON (the
options) and the compressed sources; what comes back is one line behind a marker, so that banners and sudo's noise are
no trouble.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import atomic
from .role_files import imports_of

MARKER = "RACKWRIGHT-PROBE "
PACKAGE = "rackwright"
ENTRY = "node_record"
#: Run by ``python3 -c``; the rest comes through standard input. Nothing is imported from the folder one is in.
START = (
    "import sys;sys.path[:]=[p for p in sys.path if p];import zlib;"
    "i=sys.stdin.buffer;o=i.readline();exec(zlib.decompress(i.read()))"
)

# Plain enough for any Python 3, so that one that is too old can say so. `o` is the line with the options.
_BOOTSTRAP = '''
import json, sys

class Packed:
    """Imports the package from the texts that came along."""

    def find_spec(self, name, path=None, target=None):
        if name in SOURCES:
            return type(sys.__spec__)(name, self, origin="<packed %s>" % name, is_package=name == PACKAGE)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(SOURCES[module.__name__], "<packed %s>" % module.__name__, "exec"), module.__dict__)

def answer():
    if sys.version_info < (3, 9):
        return {"failed": True, "python": "%d.%d.%d" % sys.version_info[:3]}
    sys.meta_path.insert(0, Packed())
    try:
        import importlib
        return importlib.import_module(PACKAGE + "." + ENTRY).look(json.loads(o.decode("utf-8")))
    except Exception as error:
        import traceback
        result = {"failed": True, "msg": "%s: %s" % (type(error).__name__, error), "exception": traceback.format_exc()}
        if hasattr(error, "to_result"):
            result.update(error.to_result())
        return result

sys.stdout.write("\\n" + MARKER + json.dumps(answer()) + "\\n")
'''


def closure(package: Path, entry: str = ENTRY) -> list[Path]:
    """Return the files of the package that an entry module needs, transitively, sorted."""
    queue, found = [package / f"{entry}.py"], []
    while queue:
        path = queue.pop()
        if path not in found:
            found.append(path)
            queue.extend(imports_of(path, package))
    return sorted(found)


def build(package: Path) -> bytes:
    """Return the compressed script; the same sources give the same bytes."""
    name = package.name
    sources = {f"{name}.{path.stem}": path.read_text(encoding="utf-8") for path in closure(package)}
    sources[name] = ""
    head = f"SOURCES = {dict(sorted(sources.items()))!r}\nPACKAGE = {name!r}\nENTRY = {ENTRY!r}\nMARKER = {MARKER!r}\n"
    return zlib.compress((head + _BOOTSTRAP).encode("utf-8"), 9)


def signature(package: Path) -> str:
    """Return what tells one state of the package's files from another without reading them."""
    total = hashlib.sha256()
    with os.scandir(package) as entries:
        found = sorted((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py"))
    for name, status in found:
        total.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return total.hexdigest()[:32]


def packed(package: Path, cache: Path) -> bytes:
    """Return the compressed script, from the cache where it holds this state of the sources.

    A cache that cannot be written only costs time: every process builds the script for itself then.
    """
    path = cache / f"{signature(package)}.probe"
    with contextlib.suppress(OSError):
        return path.read_bytes()
    content = build(package)
    with contextlib.suppress(OSError):
        _keep(path, content)
    return content


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in path.parent.glob("*.probe"):
        old.unlink(missing_ok=True)
    atomic.replace(path, content, flush=False)


def message(options: Mapping[str, Any], content: bytes) -> bytes:
    """Return what the node's Python reads: the options in one line, then the script."""
    return json.dumps(options).encode("ascii") + b"\n" + content


def parse(output: str) -> dict[str, Any] | None:
    """Return the answer in what a node printed, None when there is none that is whole."""
    for line in reversed(output.splitlines()):
        if line.startswith(MARKER):
            try:
                answer = json.loads(line[len(MARKER) :])
            except ValueError:
                return None
            return answer if isinstance(answer, dict) else None
    return None
