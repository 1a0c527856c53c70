# SPDX-License-Identifier: Apache-2.0
"""Framework, libraries and serving engine of a stack, made of the release and build that were chosen. Pure."""

from __future__ import annotations

from typing import Any

from .compat_framework import Framework
from .compat_rules import TablesLike
from .torch_build import requirements


def framework_part(tables: TablesLike, found: Framework | None) -> dict[str, Any] | None:
    """Return the ``framework`` of a stack: exact version, build, and what to ask an index for, most exact first."""
    if found is None:
        return None
    common = {"name": found.name, "version": found.version, "build": found.build, "cuda": found.cuda}
    if found.name == "tensorflow":
        extra = "[and-cuda]" if found.build else ""
        # the table has exact releases of the newest line only; of the others it names the line
        exact = found.version if found.version.count(".") >= 2 else f"{found.version}.*"
        return {**common, "index_url": None, "requirements": [f"tensorflow{extra}=={exact}"]}
    build = str(found.build)
    return {
        **common,
        "index_url": f"{tables.frameworks['pytorch']['index_base']}/{build}",
        "requirements": requirements(found.release, build),
    }


def libraries_part(found: Framework | None) -> dict[str, Any]:
    """Return the ``libraries`` of a stack: versions that the build brings itself, null where nobody knows them."""
    if found is None or found.cuda is None:
        return {"cudnn": None, "nccl": None}
    if found.name == "tensorflow":
        return {"cudnn": found.release.get("cudnn"), "nccl": found.release.get("nccl")}
    build = found.release["builds"][found.build]
    default = found.release if found.build == found.release["pypi_default_build"] else {}
    return {key: build.get(key) or default.get(key) for key in ("cudnn", "nccl")}


def serving_part(found: Framework | None) -> dict[str, Any] | None:
    """Return the ``serving`` of a stack, with the pins that come with the engine."""
    if found is None or found.serving is None:
        return None
    row = found.serving
    names = {"transformers": "transformers", "flashinfer": "flashinfer-python", "xgrammar": "xgrammar"}
    pins = [f"{package}{row[key]}" for key, package in names.items() if row.get(key)]
    return {
        "engine": "vllm",
        "version": row["version"],
        "requirements": [f"vllm=={row['version']}", f"torch=={row['torch']}", *pins],
    }
