# SPDX-License-Identifier: Apache-2.0
"""Shape and references of the tables: which lists of rows there are, what their columns hold, what they refer to.

Pure. ``null`` is allowed in every column that is not marked as needed: it means unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .catalogue import architecture_name

TABLES = ("gpus", "drivers", "cuda", "platforms", "frameworks", "models", "sizing", "xids")

#: lists of rows: where they are (table first), and the column that names a row
ROW_KEYS: dict[tuple[str, ...], str] = {
    ("gpus", "gpus"): "id",
    ("drivers", "rules"): "id",
    ("drivers", "branches"): "branch",
    ("cuda", "minor_version_compatibility"): "cuda_major",
    ("cuda", "architecture_lifecycle"): "id",
    ("cuda", "gpu_compute_capability"): "cc",
    ("cuda", "cudnn", "lines"): "id",
    ("cuda", "known_issues"): "id",
    ("cuda", "releases"): "release",
    ("platforms", "distros"): "id",
    ("platforms", "pitfalls"): "id",
    ("frameworks", "pytorch", "releases"): "version",
    ("frameworks", "tensorflow", "releases"): "version",
    ("frameworks", "vllm", "releases"): "version",
    ("frameworks", "vllm", "wheel_archs"): "version",
    ("models", "models"): "id",
    ("sizing", "weight_bits_per_param"): "id",
    ("sizing", "serving_budget", "overhead_rules"): "id",
    ("sizing", "training"): "id",
    ("xids", "xids"): "code",
}

#: columns that code relies on: kind, with "!" where a row without it is of no use
COLUMNS: dict[tuple[str, ...], dict[str, str]] = {
    ("gpus", "gpus"): {
        "id": "text!",
        "nvml_names": "texts!",
        "architecture": "text!",
        "compute_capability": "capability!",
        "pci_device_ids": "texts!",
        "sm_count": "number",
        "boost_clock_mhz": "number",
        "memory_gb": "number",
        "memory_bandwidth_gbps": "number",
        "peak_dense_tflops": "map",
        "nvlink_total_gbps": "number",
        "mig": "bool",
    },
    ("drivers", "rules"): {"id": "text!", "text": "text!", "source": "text"},
    ("drivers", "branches"): {
        "branch": "branch!",
        "type": "text",
        "released": "date",
        "eol": "date",
        "latest_known": "version",
        "latest_known_asof": "date",
        "cuda_max_native": "version",
        "max_cuda_major_without_forward_compat": "number",
        "arch_min": "text",
        "open_modules_available": "bool",
        "proprietary_modules_available": "bool",
        "supports_blackwell": "bool",
        "sources": "texts",
    },
    ("cuda", "minor_version_compatibility"): {
        "cuda_major": "number!",
        "min_driver": "version!",
        "min_branch": "branch!",
    },
    ("cuda", "architecture_lifecycle"): {
        "id": "text!",
        "arch": "text!",
        "caps": "capabilities!",
        "renamed": "maps",
        "first_toolkit": "version",
        "last_toolkit": "version",
        "dropped_in": "version",
        "last_driver": "branch",
    },
    ("cuda", "gpu_compute_capability"): {"cc": "capability!", "gpus": "texts!"},
    ("cuda", "known_issues"): {"id": "text!", "cuda": "text!", "issue": "text!", "workaround": "text"},
    ("cuda", "releases"): {
        "release": "version!",
        "toolkit": "version!",
        "toolkit_driver_linux_x86_64": "version",
        "runfile_driver_linux_x86_64": "version",
        "driver_bundled": "bool",
        "minor_compat_min_driver": "version",
        "minor_compat_min_branch": "branch",
        "compute_capabilities": "capabilities!",
        "arch_feature_variants": "texts",
        "gcc_max": "number",
        "clang_max": "number",
        "ubuntu_images": "texts",
        "sources": "texts",
    },
    ("platforms", "distros"): {
        "id": "text!",
        "os": "text!",
        "aliases": "texts!",
        "family": "text!",
        "supported": "bool!",
        "use_instead": "text",
        "repo_format": "text",
        "nvidia_repo": "text",
        "arch_paths": "map!",
        "standard_eol": "date",
        "lts_eol": "date",
        "python": "version",
        "glibc": "version",
        "dkms": "version",
        "dkms_minimum": "map",
        "headers": "texts",
        "headers_64k": "texts",
        "driver_packages": "text",
        "archive_packages": "text",
        "distribution_driver": "map",
        "sources": "texts",
    },
    ("frameworks", "pytorch", "releases"): {
        "version": "version!",
        "requires_python": "text",
        "pythons": "versions!",
        "glibc_min": "version",
        "pypi_default_build": "text!",
        "pypi_cuda_toolkit": "version",
        "cudnn": "version",
        "nccl": "version",
        "nvshmem": "version",
        "triton": "version",
        "builds": "maps!",
        "sources": "texts",
    },
    ("frameworks", "tensorflow", "releases"): {
        "version": "version!",
        "pythons": "versions!",
        "cuda": "version!",
        "cudnn": "version",
        "nccl": "text",
        "sass": "capabilities!",
        "ptx": "capabilities!",
        "and_cuda_extra": "bool!",
        "min_driver": "version",
        "sources": "texts",
    },
    ("frameworks", "vllm", "releases"): {
        "version": "version!",
        "requires_python": "text",
        "pythons": "versions!",
        "torch": "version!",
        "transformers": "text",
        "flashinfer": "text",
        "xgrammar": "text",
        "glibc_min": "version",
        "sources": "texts",
    },
    ("models", "models"): {
        "id": "text!",
        "hf_repo": "text",
        "attention": "text!",
        "layers": "number!",
        "hidden": "number!",
        "heads": "number!",
        "kv_heads": "number!",
        "head_dim": "number",
        "vocab": "number!",
        "tie_embeddings": "bool!",
        "context_config": "number",
        "params_total": "number",
        "params_active": "number",
        "kv_bytes_per_token_bf16": "number",
        "moe": "map",
        "mla": "map",
        "sliding_window": "map",
        "aliases": "texts",
        "sources": "texts",
    },
    ("sizing", "weight_bits_per_param"): {"id": "text!", "bits": "number!", "basis": "text"},
    ("sizing", "training"): {"id": "text!"},
    ("xids", "xids"): {
        "code": "number!",
        "mnemonic": "text",
        "description": "text",
        "class": "text!",
        "fatal": "bool",
        "used": "bool",
        "gpud": "map",
        "sources": "texts",
    },
}

_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?")
_VERSION = re.compile(r"\d+(\.\d+)*(\.?(post|rc|a|b|dev)\d+)?")
_CAPABILITY = re.compile(r"\d{1,2}\.\d[af]?")


def _is_list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(test(item) for item in value)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


#: kind -> (test, what the sentence about a wrong value says)
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (_is_text, "a text"),
    "texts": (_is_list_of(_is_text), "a list of texts"),
    "version": (_matches(_VERSION), 'a version in quotes ("12.8")'),
    "versions": (_is_list_of(_matches(_VERSION)), 'a list of versions in quotes (["3.11", "3.12"])'),
    "capability": (_matches(_CAPABILITY), 'a compute capability in quotes ("9.0")'),
    "capabilities": (_is_list_of(_matches(_CAPABILITY)), 'a list of compute capabilities in quotes (["8.0", "9.0"])'),
    "branch": (_matches(re.compile(r"\d{3}")), 'a driver branch in quotes ("580")'),
    "date": (_matches(_DATE), 'an ISO date in quotes ("2028-08-04" or "2028-08")'),
    "number": (_is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "map": (_is_map, "a map"),
    "maps": (lambda value: _is_map(value) and all(_is_map(item) for item in value.values()), "a map of maps"),
}


def kind_of(value: Any) -> str:
    """Return what a value is, in the words of YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, Mapping):
        return "a map"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def row_name(path: tuple[str, ...], value: Any) -> str:
    """Return how messages name a row: ``drivers.branches 580``."""
    return f"{'.'.join(path)} {value}"


def rows_at(tables: Any, path: tuple[str, ...]) -> Any:
    """Return the list at ``path`` (table first), or None where there is none."""
    place: Any = getattr(tables, path[0])
    for key in path[1:]:
        place = place.get(key) if isinstance(place, Mapping) else None
    return place


def check_tables(tables: Any) -> list[str]:
    """Return what is wrong with the tables, one sentence part each, naming table and row; [] means sound.

    References are only followed once every row has its shape.
    """
    problems = [problem for path in ROW_KEYS for problem in _shape_problems(rows_at(tables, path), path)]
    return problems or list(_reference_problems(tables))


def _shape_problems(rows: Any, path: tuple[str, ...]) -> Iterator[str]:
    key, columns = ROW_KEYS[path], COLUMNS.get(path, {})
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        yield f"{'.'.join(path)} must be a list of rows"
        return
    seen: set[Any] = set()
    for row in rows:
        name = row_name(path, row.get(key))
        if row.get(key) in seen:
            yield f"{name}: the row is there twice"
        seen.add(row.get(key))
        for column, kind in columns.items():
            problem = _column_problem(row.get(column), kind)
            if problem:
                yield f"{name}: {column} {problem}"


def _column_problem(value: Any, kind: str) -> str | None:
    if value is None:
        return "is needed and is null or missing" if kind.endswith("!") else None
    test, words = _KINDS[kind.rstrip("!")]
    return None if test(value) else f"must be {words} and is {value!r}"


def _reference_problems(tables: Any) -> Iterator[str]:
    toolkits = {row["toolkit"] for row in tables.cuda["releases"]}
    yield from _gpu_problems(tables)
    for row in tables.drivers["branches"]:
        native = row.get("cuda_max_native")
        if native not in {None, *toolkits}:
            yield f"drivers.branches {row['branch']}: cuda_max_native {native} is no toolkit of cuda.releases"
    yield from _platform_problems(tables)
    yield from _pytorch_problems(tables, toolkits)
    for row in tables.frameworks["tensorflow"]["releases"]:
        if ".".join(row["cuda"].split(".")[:2]) not in toolkits:
            yield f"frameworks.tensorflow.releases {row['version']}: cuda {row['cuda']} is no toolkit of cuda.releases"
    known = {row["version"] for row in tables.frameworks["pytorch"]["releases"]}
    for row in tables.frameworks["vllm"]["releases"]:
        if row["torch"] not in known:
            name = f"frameworks.vllm.releases {row['version']}"
            yield f"{name}: torch {row['torch']} is not in frameworks.pytorch.releases"


def _gpu_problems(tables: Any) -> Iterator[str]:
    capabilities: dict[str, set[str]] = {}
    for row in tables.cuda["architecture_lifecycle"]:
        renamed = {str(new.get("to")) for new in (row.get("renamed") or {}).values()}
        capabilities.setdefault(str(architecture_name(row["arch"])), set()).update(row["caps"], renamed)
    for row in tables.gpus["gpus"]:
        name, architecture = f"gpus.gpus {row['id']}", str(architecture_name(row["architecture"]))
        if architecture not in capabilities:
            yield f"{name}: architecture {row['architecture']} is not in cuda.architecture_lifecycle"
        elif row["compute_capability"] not in capabilities[architecture]:
            yield f"{name}: compute_capability {row['compute_capability']} is not one of {row['architecture']}"


def _platform_problems(tables: Any) -> Iterator[str]:
    branches = {row["branch"] for row in tables.drivers["branches"]}
    names: dict[str, str] = {}
    for row in tables.platforms["distros"]:
        name = f"platforms.distros {row['id']}"
        for column in ("driver_packages", "archive_packages"):
            if row.get(column) not in {None, *tables.platforms["driver_packages"]}:
                yield f"{name}: {column} {row[column]} is not in platforms.driver_packages"
        branch = (row.get("distribution_driver") or {}).get("branch")
        if branch is not None and str(branch) not in branches:
            yield f"{name}: the branch {branch} of distribution_driver is not in drivers.branches"
        for known_as in (row["id"], *row["aliases"]):
            if known_as in names:
                yield f"{name}: {known_as} also names the row {names[known_as]}"
            names[known_as] = row["id"]


def _pytorch_problems(tables: Any, toolkits: set[str]) -> Iterator[str]:
    bases = tables.frameworks["pytorch"]["bases"]
    for row in tables.frameworks["pytorch"]["releases"]:
        name = f"frameworks.pytorch.releases {row['version']}"
        if row["pypi_default_build"] not in row["builds"]:
            yield f"{name}: pypi_default_build {row['pypi_default_build']} is not one of its builds"
        for build, facts in row["builds"].items():
            if str(facts.get("cuda")) not in toolkits:
                yield f"{name}: cuda {facts.get('cuda')} of build {build} is no toolkit of cuda.releases"
            problem = _column_problem(facts.get("sass_x86_64"), "capabilities")
            if problem:
                yield f"{name}: sass_x86_64 of build {build} {problem}"
            if facts.get("basis") is not None and str(facts["basis"]) not in bases:
                yield f"{name}: basis {facts.get('basis')} of build {build} is not in frameworks.pytorch.bases"
