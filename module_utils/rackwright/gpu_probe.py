# SPDX-License-Identifier: Apache-2.0
"""Put the facts of one node together: kernel evidence first, then NVML, each in a child that may hang or crash."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterable
from typing import Any

from . import catalogue, devices, situation, topology
from .child import ChildResult, run_in_child
from .fabric import nvswitch
from .gpu_evidence import Evidence
from .nvml import find_library, read_nvml
from .nvml_errors import LIBRARY_NOT_FOUND, reason_for
from .record import Record
from .software_record import read_software
from .sysfs import read_host, read_operating_system

SCHEMA = 1
_HOST_TIMEOUT_S = 5.0
_SOFTWARE_TIMEOUT_S = 15.0
_NVML_VERSION = re.compile(r"\d{1,2}\.(\d{3}\.\d+(?:\.\d+)?)")
_DRIVER_VERSION = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")
_NOTHING: dict[str, Any] = {
    "kernel_release": None,
    "pci": {"gpus": [], "switches": []},
    "modules": None,
    "driver_text": None,
    "module_version": None,
    "device_nodes": [],
    "container": None,
    "wsl": False,
    "dxg": False,
    "simulated": False,
    "meminfo": {},
    "installed_module": None,
}


def probe(
    sysroot: str = "/", timeout: float = 30.0, extra_gpus: Iterable[dict[str, Any]] = (), health: bool = False
) -> dict[str, Any]:
    """Return the fact ``gpu`` of this node. Read-only, unprivileged, ends within ``timeout`` and a few seconds.

    ``health`` adds the part of that name to every device that NVML shows.
    """
    started = time.monotonic()
    rows = catalogue.table(extra_gpus)
    collected_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    evidence_child = run_in_child(_read_evidence, (sysroot,), min(_HOST_TIMEOUT_S, timeout))
    host, library = _evidence(evidence_child)
    if evidence_child.status == "timeout":
        answer = evidence_child
    elif library["found"]:
        answer = run_in_child(read_nvml, (sysroot, "auto", health), timeout)
    else:
        answer = ChildResult("ok", value=_without_library())
    facts = assemble(host, library, answer, rows)
    facts["os"], unknown = read_operating_system()
    facts["missing"].update(unknown)
    facts["software"], unknown = _software(host, nvswitch(facts))
    facts["missing"].update(unknown)
    facts["collected_at"] = collected_at
    facts["duration_ms"] = round((time.monotonic() - started) * 1000, 1)
    return facts


def _software(host: dict[str, Any], switches: tuple[bool | None, str]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """What is installed, read in a child too: a file system or a package database may hang as a driver may."""
    child = run_in_child(read_software, (host, switches), _SOFTWARE_TIMEOUT_S)
    if child.status == "ok":
        record, reasons = child.value
        return record, reasons
    return None, {"software": f"reading what is installed failed: {child.detail}"}


def _read_evidence(sysroot: str) -> dict[str, Any]:
    return {"host": read_host(sysroot), "library": find_library()}


def _evidence(child: ChildResult) -> tuple[dict[str, Any], dict[str, Any]]:
    if child.status == "ok":
        return child.value["host"], child.value["library"]
    reason = f"reading the system's files failed: {child.detail}"
    host = {**_NOTHING, "pci": {**_NOTHING["pci"], "reason": reason}}
    host.update(
        modules_reason=reason, driver_text_reason=reason, persistence_daemon={"running": None, "reason": reason}
    )
    return host, {"found": True, "path": None, "simulated": False, "reason": reason}


def _without_library() -> dict[str, Any]:
    reason = reason_for(LIBRARY_NOT_FOUND)
    system = {key: None for key in ("nvml_version", "driver_version", "cuda_version", "count")}
    return {
        "binding": "pci-sysfs",
        "binding_note": None,
        "init_error": LIBRARY_NOT_FOUND,
        "init_reason": reason,
        "system": {**system, "missing": {key: reason for key in system}},
        "devices": [],
        "pairs": [],
    }


def assemble(
    host: dict[str, Any], library: dict[str, Any], answer: ChildResult, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Build the fact from the evidence. Pure: the tests feed it captured evidence."""
    nvml = answer.value if answer.status == "ok" else None
    record = Record()
    driver = _driver(host, library, nvml, answer)
    silence = _silence(nvml, answer)
    built = devices.build(host, nvml, rows, silence)
    answering = built if nvml and nvml["devices"] else []
    evidence = Evidence(
        host=host,
        library=library,
        driver=driver.data,
        child_status=answer.status,
        child_detail=answer.detail,
        child_signal=answer.signal,
        init_error=nvml["init_error"] if nvml else None,
        init_reason=nvml.get("init_reason", "") if nvml else "",
        devices=answering,
        unseen=devices.unseen(answering, host),
    )
    verdict = situation.judge(evidence)
    record.put("schema", SCHEMA)
    record.put("source", nvml["binding"] if answering and nvml else "pci-sysfs")
    record.put("simulated", bool(library["simulated"] or host.get("simulated")))
    record.put("platform", _platform(host))
    record.put("situation", verdict.name)
    record.put("cause", verdict.cause)
    record.put("next_step", verdict.next_step)
    record.put("count", len(evidence.working))
    record.put("pci_count", len(host["pci"]["gpus"]) if host["pci"]["reason"] is None else None, host["pci"]["reason"])
    record.put("lost_pci_addresses", evidence.unseen if verdict.name in ("gpu_lost", "gpu_reset_required") else [])
    record.put("driver", driver.data)
    record.missing.update({f"driver.{path}": reason for path, reason in driver.missing.items()})
    if nvml and nvml["binding_note"]:
        record.missing["source.nvml-pynvml"] = nvml["binding_note"]
    record.put("devices", built)
    topology.build(record, built, nvml["pairs"] if nvml else [], host, silence)
    return record.result()


def _platform(host: dict[str, Any]) -> str:
    if host["wsl"]:
        return "wsl2"
    return "container" if host["container"] else "host"


def _silence(nvml: dict[str, Any] | None, answer: ChildResult) -> str:
    """Why there is nothing that only a driver knows."""
    if answer.status != "ok":
        return f"the driver was asked but gave no answer: {answer.detail}"
    if nvml and nvml["init_error"] is not None:
        return f"only the NVIDIA driver knows it, and {nvml['init_reason']}"
    return "the NVIDIA driver does not show this device"


def _driver(host: dict[str, Any], library: dict[str, Any], nvml: dict[str, Any] | None, answer: ChildResult) -> Record:
    record = Record()
    system = nvml["system"] if nvml else {"missing": {}}
    silence = answer.detail or "NVML was not asked"
    module = kernel_module_version(host) or system.get("driver_version")
    record.put("kernel_module_version", module, host["driver_text_reason"])
    nvml_version = system.get("nvml_version")
    record.put("nvml_version", nvml_version, system["missing"].get("nvml_version", silence))
    version, reason = library_version(library, nvml_version)
    record.put("library_version", version, reason)
    cuda = system.get("cuda_version")
    cuda_text = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
    why = (nvml or {}).get("init_reason") or system["missing"].get("cuda_version") or silence
    record.put("cuda_driver_version", cuda_text, why)
    record.put("flavour", flavour(host))
    installed = host["installed_module"] or {}
    asked = "a module is loaded, so none was looked for on disk" if module else "no GPU needs one"
    record.put("installed_module_version", installed.get("version"), installed.get("reason") or asked)
    record.put("kernel_modules", host["modules"], host["modules_reason"])
    nouveau = "nouveau" in host["modules"] if host["modules"] is not None else None
    record.put("nouveau_loaded", nouveau, host["modules_reason"])
    daemon = host["persistence_daemon"]
    record.put("persistence_daemon", daemon["running"], daemon["reason"])
    return record


def kernel_module_version(host: dict[str, Any]) -> str | None:
    """Version of the loaded kernel module, from the first line of /proc/driver/nvidia/version or from /sys."""
    text = (host["driver_text"] or "").split("\n", 1)[0]
    match = _DRIVER_VERSION.search(text)
    return match[1] if match else host["module_version"]


def library_version(library: dict[str, Any], nvml_version: str | None) -> tuple[str | None, str | None]:
    """Driver version of the installed library: from its file name, else from the version NVML tells before init."""
    if not library["found"]:
        return None, library["reason"]
    match = re.search(r"\.so\.(\d{3}\.\d+(?:\.\d+)?)$", library["path"] or "")
    if match is None:
        match = _NVML_VERSION.fullmatch(nvml_version or "")
    return (match[1], None) if match else (None, "neither the file name of the library nor NVML tells it")


def flavour(host: dict[str, Any]) -> str:
    """``open`` or ``proprietary`` kernel module, by its own words; ``unknown`` without them."""
    text = host["driver_text"] or ""
    if "NVIDIA" in text:
        return "open" if "Open Kernel Module" in text else "proprietary"
    licence = (host["installed_module"] or {}).get("license")
    if licence:
        return "proprietary" if licence == "NVIDIA" else "open"
    return "unknown"
