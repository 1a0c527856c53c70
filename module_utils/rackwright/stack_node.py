# SPDX-License-Identifier: Apache-2.0
"""What planning knows about one node: from a machine's facts, or from the description of one that is not there yet.

Pure. ``gpus_table`` is ``roles/gpu_stack/files/tables/gpus.yml`` as data, with the site's own rows merged in.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import catalogue, fabric
from .errors import InvalidInputError
from .torch_build import version_key

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "sbsa": "aarch64"}
_DESCRIPTION_KEYS = (
    *("os", "arch", "python", "pythons", "glibc", "kernel", "secure_boot", "nvswitch", "container", "wsl"),
    *("simulated", "dkms", "gpus", "installed_driver"),
)
_GPU_KEYS = ("model", "count")
_VERSION = re.compile(r"\d+(\.\d+)+")
_KERNEL = re.compile(r"\d+\.\d+\S*")
_TRUE, _FALSE = ("true", "yes"), ("false", "no")
_SPELLINGS = {
    "alma": "almalinux",
    "centosstream": "centos",
    "redhat": "rhel",
    "rockylinux": "rocky",
    "amazonlinux": "amzn",
}
WSL = "wsl-ubuntu"


@dataclass(frozen=True)
class Gpu:
    """Equal GPUs of a node. ``architecture`` is lower case (``ada``), ``compute_capability`` like ``"8.9"``."""

    id: str | None
    name: str
    compute_capability: str | None
    architecture: str | None
    count: int


@dataclass(frozen=True)
class StackNode:
    """Everything a plan depends on; None means that nobody knows.

    ``os`` is a platform id (``debian12``, ``ubuntu2404``, ``rocky9``, ``wsl-ubuntu``), ``python`` the minor version of
    the system's interpreter, ``pythons`` all its interpreters as (minor version, path), newest last.
    """

    name: str
    os: str
    os_name: str
    arch: str = "x86_64"
    python: str | None = None
    glibc: str | None = None
    kernel: str | None = None
    secure_boot: bool | None = None
    nvswitch: bool | None = None
    container: bool = False
    wsl: bool = False
    simulated: bool = False
    dkms: str | None = None
    gpus: tuple[Gpu, ...] = ()
    installed_driver: str | None = None
    origin: str = "description"
    pythons: tuple[tuple[str, str], ...] = ()


def minor(python: str | None) -> str | None:
    """``3.11.2`` as ``3.11``."""
    return ".".join(python.split(".")[:2]) if python else None


def platform_id(text: str) -> str:
    """``Ubuntu 24.04`` and ``ubuntu2404`` are the same platform, as are ``AlmaLinux 9`` and ``alma9``."""
    flat = re.sub(r"[\s._]", "", text.lower())
    if flat in ("wsl", "wsl2", "wslubuntu", "wsl2ubuntu"):
        return WSL
    name = re.split(r"\d", flat, maxsplit=1)[0]
    return f"{_SPELLINGS.get(name, name)}{flat[len(name) :]}"


def node_from_description(name: str, description: Mapping[str, Any], gpus_table: Mapping[str, Any]) -> StackNode:
    """Return the node that ``node_description`` describes.

    Raises:
        InvalidInputError: a key is unknown, a value has the wrong shape or a GPU model is not in the table.
    """
    if not isinstance(description, Mapping):
        raise _wrong(name, "", "it is not a mapping", "Write keys like os, arch, python and gpus", dict, description)
    for key in description:
        if key not in _DESCRIPTION_KEYS:
            near = _near(str(key), _DESCRIPTION_KEYS)
            raise _wrong(
                name, "", f"it has the unknown key {key}{near}", "Remove or correct it", _DESCRIPTION_KEYS, key
            )
    system = _text(name, description, "os")
    if system is None:
        raise _wrong(
            name, "os", "it is missing", "Give the platform, like ubuntu2404, debian12 or rocky9", "a platform"
        )
    os_id = platform_id(system)
    python = minor(_version(name, description, "python"))
    return StackNode(
        name=name,
        os=os_id,
        os_name=system,
        arch=_arch(name, description),
        python=python,
        glibc=_version(name, description, "glibc"),
        kernel=_kernel(name, description),
        secure_boot=_boolean(name, description, "secure_boot"),
        nvswitch=_boolean(name, description, "nvswitch"),
        container=bool(_boolean(name, description, "container")),
        wsl=os_id == WSL or bool(_boolean(name, description, "wsl")),
        simulated=bool(_boolean(name, description, "simulated")),
        dkms=_version(name, description, "dkms"),
        gpus=_described_gpus(name, description.get("gpus"), gpus_table["gpus"]),
        installed_driver=_version(name, description, "installed_driver"),
        origin="description",
        pythons=_described_pythons(name, description.get("pythons")),
    )


def node_from_facts(
    name: str, gpu: Mapping[str, Any], node: Mapping[str, Any], gpus_table: Mapping[str, Any]
) -> StackNode:
    """Return the node that the facts ``gpu`` (of gpu_facts) and ``node`` (of node_probe) tell of."""
    platform = node["platform"]
    version = platform["version"] if platform["id"] == "ubuntu" else platform["major"]
    driver = gpu.get("driver") or {}
    pythons = sorted((node.get("pythons") or {}).items(), key=lambda item: version_key(item[0]))
    return StackNode(
        name=name,
        os=platform_id(f"{platform['id']}{version}"),
        os_name=str(platform.get("name") or platform["id"]),
        arch=ARCHITECTURES.get(str(node.get("machine")), str(node.get("machine"))),
        python=minor(node.get("python")),
        glibc=node.get("glibc"),
        kernel=(node.get("kernel") or {}).get("running"),
        secure_boot=node.get("secure_boot"),
        nvswitch=fabric.nvswitch(gpu)[0],
        container=bool(node.get("container")),
        wsl=bool(node.get("wsl")) or gpu.get("situation") == "wsl2",
        simulated=bool(gpu.get("simulated")),
        dkms=node.get("dkms"),
        gpus=_found_gpus(gpu.get("devices") or [], gpus_table["gpus"]),
        installed_driver=driver.get("kernel_module_version") or driver.get("library_version"),
        origin="facts",
        pythons=tuple((version, path) for version, path in pythons),
    )


def gpu_of_row(row: Mapping[str, Any], count: int, name: str | None = None) -> Gpu:
    """Return ``count`` GPUs of one row of the table."""
    capability = row.get("compute_capability")
    architecture = catalogue.architecture_name(row.get("architecture")) or catalogue.architecture_of(capability)
    return Gpu(row["id"], name or row["nvml_names"][0], capability, architecture, count)


def _wrong(
    node: str, key: str, cause: str, next_step: str, expected: Any = None, found: Any = None
) -> InvalidInputError:
    subject = f"{node} (node_description{'.' + key if key else ''})"
    return InvalidInputError("use the description", subject, cause, next_step, expected=expected, found=found)


def _near(text: str, known: Any) -> str:
    """Return `` (did you mean x?)`` for what is close to something known."""
    flat = {re.sub(r"[^a-z0-9]", "", str(word).lower()): str(word) for word in known}
    wanted = re.sub(r"[^a-z0-9]", "", text.lower())
    close = [word for key, word in flat.items() if wanted and wanted in key]
    close += [flat[key] for key in difflib.get_close_matches(wanted, list(flat), n=3, cutoff=0.6)]
    words = list(dict.fromkeys(close))[:3]
    return f" (did you mean {' or '.join(words)}?)" if words else ""


def _text(node: str, description: Mapping[str, Any], key: str) -> str | None:
    value = description.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise _wrong(node, key, f"{value!r} is not a text", "Write it in quotes", "a text", value)
    return value.strip()


def _version(node: str, description: Mapping[str, Any], key: str) -> str | None:
    """A version must be quoted: YAML reads an unquoted 3.10 as the number 3.1."""
    value = _text(node, description, key)
    if value is not None and not _VERSION.fullmatch(value):
        raise _wrong(node, key, f"{value!r} is not a version", 'Write it like "3.12"', "a version", value)
    return value


def _kernel(node: str, description: Mapping[str, Any]) -> str | None:
    """A release as ``uname -r`` tells it; what is none would count as older than any other."""
    value = _text(node, description, "kernel")
    if value is not None and not _KERNEL.fullmatch(value):
        step = "Write it like 6.8.0-45-generic"
        raise _wrong(node, "kernel", f"{value!r} is not a kernel release", step, "a kernel release", value)
    return value


def _boolean(node: str, description: Mapping[str, Any], key: str) -> bool | None:
    value = description.get(key)
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise _wrong(node, key, f"{value!r} is neither true nor false", "Write true or false", "true or false", value)
    return text in _TRUE


def _arch(node: str, description: Mapping[str, Any]) -> str:
    value = _text(node, description, "arch") or "x86_64"
    if value.lower() not in ARCHITECTURES:
        raise _wrong(node, "arch", f"{value} is not known", "Write x86_64 or aarch64", ["x86_64", "aarch64"], value)
    return ARCHITECTURES[value.lower()]


def _described_pythons(node: str, value: Any) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping) or not all(
        isinstance(version, str) and _VERSION.fullmatch(version) and isinstance(path, str)
        for version, path in value.items()
    ):
        shape = '{"3.11": /usr/bin/python3.11}'
        raise _wrong(node, "pythons", "it does not map versions to paths", f"Write it like {shape}", shape, value)
    return tuple(sorted(value.items(), key=lambda item: version_key(item[0])))


def _described_gpus(node: str, value: Any, rows: list[dict[str, Any]]) -> tuple[Gpu, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _wrong(node, "gpus", "it is not a list", "Write it like [{model: rtx-4090, count: 2}]", "a list", value)
    counts: Counter[Gpu] = Counter()
    for position, item in enumerate(value):
        gpu = _described_gpu(node, f"gpus[{position}]", item, rows)
        counts[replace(gpu, count=1)] += gpu.count
    return _sorted_gpus(counts)


def _described_gpu(node: str, key: str, item: Any, rows: list[dict[str, Any]]) -> Gpu:
    if not isinstance(item, Mapping) or not item.get("model"):
        raise _wrong(node, key, "it names no model", "Write it like {model: rtx-4090, count: 2}", list(_GPU_KEYS), item)
    for name in item:
        if name not in _GPU_KEYS:
            raise _wrong(node, key, f"it has the unknown key {name}", "Give model and count only", _GPU_KEYS, name)
    count = item.get("count", 1)
    if isinstance(count, str) and count.isdigit():
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1024:
        raise _wrong(node, f"{key}.count", f"{count!r} is no number of GPUs", "Write 1 or more", "1 to 1024", count)
    model = str(item["model"])
    for row in rows:
        if model == row["id"] or model in row["nvml_names"]:
            return gpu_of_row(row, count, model if model in row["nvml_names"] else None)
    known = [row["id"] for row in rows] + [name for row in rows for name in row["nvml_names"]]
    raise _wrong(
        node,
        f"{key}.model",
        f"{model} is not in the table of GPU models{_near(model, known)}",
        "Use an id or NVML name of roles/gpu_stack/files/tables/gpus.yml, or add the model by stack_extra_tables",
        sorted(row["id"] for row in rows),
        model,
    )


def _sorted_gpus(counts: Mapping[Gpu, int]) -> tuple[Gpu, ...]:
    gpus = [replace(gpu, count=count) for gpu, count in counts.items()]
    return tuple(sorted(gpus, key=lambda gpu: (gpu.name, gpu.id or "", gpu.compute_capability or "")))


def _found_gpus(devices: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[Gpu, ...]:
    counts: Counter[Gpu] = Counter()
    for device in devices:
        if str((device.get("pci") or {}).get("kernel_driver") or "").startswith("vfio"):
            continue  # given to a virtual machine on purpose; this system drives it not
        counts[_found_gpu(device, rows)] += 1
    return _sorted_gpus(counts)


def _found_gpu(device: dict[str, Any], rows: list[dict[str, Any]]) -> Gpu:
    """One device. Before any driver exists its PCI id tells only what all models with that id share."""
    candidates = [str(model) for model in device.get("catalogue_candidates") or []]
    model = device.get("catalogue_id") or (candidates[0] if len(candidates) == 1 else None)
    ids = [model] if model else candidates
    capability = device.get("compute_capability") or catalogue.common_value(rows, ids, "compute_capability")
    architecture = (
        device.get("architecture")
        or catalogue.architecture_of(capability)
        or catalogue.architecture_name(catalogue.common_value(rows, ids, "architecture"))
    )
    name = device.get("name") or catalogue.common_value(
        [{**row, "name": row["nvml_names"][0]} for row in rows if row["id"] in ids], ids, "name"
    )
    if not name:
        device_id = (device.get("pci") or {}).get("device_id")
        name = " or ".join(candidates) or f"NVIDIA GPU with PCI device id {device_id or 'unknown'}"
    return Gpu(model, str(name), capability, architecture, 1)
