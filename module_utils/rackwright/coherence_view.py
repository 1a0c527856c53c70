# SPDX-License-Identifier: Apache-2.0
"""What the coherence rules look at, and what they answer. Pure.

An answer is ``ok``, ``mismatch``, ``unknown`` (it could not be told) or ``not_applicable``. Only the first says that
something is right; the last two have the reason as their cause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OK, MISMATCH, UNKNOWN, NOT_APPLICABLE = "ok", "mismatch", "unknown", "not_applicable"
#: GPU programs or containers do not run, or will not after the next boot; or the node is not what its lock says
FAIL = "fail"
#: works, and will not be what it should be some day
WARN = "warn"

SITE = "Run playbooks/site.yml on this node"
REBOOT = "Reboot the node, or unload the nvidia modules when no program uses a GPU and load them again."
_UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)+)")
_DEBIAN = ("debian", "ubuntu")

Answer = dict[str, Any]


def upstream(version: Any) -> str | None:
    """Return NVIDIA's own version out of a package's: ``580.65.06`` of ``1:580.65.06-0ubuntu1``."""
    match = _UPSTREAM.match(str(version or ""))
    return match[1] if match else None


def _answer(check: str, subject: str, state: str, **more: Any) -> Answer:
    empty = dict.fromkeys(("severity", "expected", "found", "cause", "cure"))
    return {"id": check, "subject": subject, "state": state, **empty, **more}


def fits(check: str, subject: str, found: Any) -> Answer:
    return _answer(check, subject, OK, expected=found, found=found)


def differs(check: str, subject: str, severity: str, *, expected: Any, found: Any, cause: str, cure: str) -> Answer:
    return _answer(check, subject, MISMATCH, severity=severity, expected=expected, found=found, cause=cause, cure=cure)


def unknown(check: str, subject: str, reason: str, cure: str | None = None) -> Answer:
    return _answer(check, subject, UNKNOWN, cause=reason, cure=cure)


def not_applicable(check: str, subject: str, reason: str) -> Answer:
    return _answer(check, subject, NOT_APPLICABLE, cause=reason)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class View:
    """The fact ``gpu`` of a node and its entry of the lock, None without one."""

    gpu: Mapping[str, Any]
    stack: Mapping[str, Any] | None = None

    @property
    def software(self) -> Mapping[str, Any]:
        return _mapping(self.gpu.get("software"))

    @property
    def _driver(self) -> Mapping[str, Any]:
        return _mapping(self.gpu.get("driver"))

    @property
    def situation(self) -> str:
        return str(self.gpu.get("situation"))

    @property
    def wsl(self) -> bool:
        return self.gpu.get("platform") == "wsl2" or self.situation == "wsl2"

    @property
    def contained(self) -> bool:
        """Whether the kernel belongs to the host of this container."""
        return self.gpu.get("platform") == "container" and not self.simulated

    @property
    def simulated(self) -> bool:
        return bool(self.gpu.get("simulated"))

    @property
    def loaded(self) -> str | None:
        return upstream(self._driver.get("kernel_module_version"))

    @property
    def flavour(self) -> str:
        return str(self._driver.get("flavour") or "unknown")

    @property
    def library(self) -> str | None:
        return upstream(self._driver.get("library_version"))

    @property
    def user_space(self) -> str | None:
        """The version that modules have to have: of the library programs use, else of the one loaded."""
        return self.library or self.loaded

    @property
    def modules(self) -> Mapping[str, Mapping[str, Any]] | None:
        modules: Mapping[str, Mapping[str, Any]] | None = self.software.get("modules")
        return modules

    @property
    def running(self) -> str | None:
        return self.software.get("running")

    @property
    def boots(self) -> str | None:
        return self.software.get("boots")

    @property
    def packages(self) -> Mapping[str, str] | None:
        packages: Mapping[str, str] | None = self.software.get("packages")
        return packages

    @property
    def is_debian(self) -> bool:
        return _mapping(self.gpu.get("os")).get("id") in _DEBIAN

    @property
    def devices(self) -> list[Mapping[str, Any]]:
        devices = self.gpu.get("devices")
        return [device for device in devices if isinstance(device, Mapping)] if isinstance(devices, list) else []

    @property
    def locked_driver(self) -> Mapping[str, Any]:
        return _mapping((self.stack or {}).get("driver"))

    def why(self, path: str) -> str:
        """Return why a value of the fact is missing."""
        missing = _mapping(self.gpu.get("missing"))
        if path.startswith("software") and not self.software:
            return str(missing.get("software") or "the facts do not tell what software is installed")
        return str(missing.get(path) or f"the facts do not tell {path}")

    def out_of_scope(self) -> str | None:
        """Return why nothing of a driver is to be judged on this node, None where something is."""
        if self.wsl:
            return "under WSL2 the driver belongs to Windows"
        if self.situation == "no_gpu":
            return "the node has no NVIDIA GPU"
        return None
