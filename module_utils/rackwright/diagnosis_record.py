# SPDX-License-Identifier: Apache-2.0
"""What a diagnosis is made from and what it is made of: evidence of one node in, findings out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .compat_rules import TablesLike, find

INFO, WARNING, ERROR = "info", "warning", "error"
SEVERITIES = (ERROR, WARNING, INFO)


@dataclass(frozen=True)
class Evidence:
    """Facts of one node, each part named after what it tells: ``gpu`` is the fact of gpu_facts, ``host`` of host_state,
    ``frameworks`` of framework_state, ``node`` of node_probe.

    An empty mapping means that this was not measured; ``silent`` then says why, by the same name. ``plan`` is what the
    resolver would put on the node, as half a sentence, where it was asked.
    """

    name: str
    gpu: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    frameworks: Mapping[str, Any] = field(default_factory=dict)
    node: Mapping[str, Any] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    plan: str | None = None

    def why(self, part: str) -> str:
        return self.silent.get(part, f"the node gave no {part} facts")

    @property
    def situation(self) -> str | None:
        return self.gpu.get("situation")

    @property
    def simulated(self) -> bool:
        return bool(self.gpu.get("simulated"))

    @property
    def wsl(self) -> bool:
        return self.gpu.get("platform") == "wsl2" or self.situation == "wsl2"

    @property
    def arch(self) -> str:
        return str((self.gpu.get("os") or {}).get("machine") or "x86_64")

    @property
    def driver(self) -> str | None:
        """Version of the driver that decides what runs: the loaded kernel module's, else the one NVML tells."""
        driver = self.gpu.get("driver") or {}
        return driver.get("kernel_module_version") or driver.get("nvml_version")

    @property
    def devices(self) -> list[Mapping[str, Any]]:
        return list(self.gpu.get("devices") or [])

    @property
    def has_gpu(self) -> bool:
        return bool(self.devices or self.gpu.get("pci_count"))

    @property
    def environments(self) -> list[Mapping[str, Any]]:
        return list(self.frameworks.get("environments") or [])

    @property
    def system(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.frameworks.get("system") or {}
        return found


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or worth knowing), its cause in one sentence, and what to do in this order."""

    id: str
    subject: str
    severity: str
    observed: Any
    expected: Any
    cause: str
    steps: Sequence[str]
    source: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "subject": self.subject,
            "severity": self.severity,
            "observed": self.observed,
            "expected": self.expected,
            "cause": self.cause,
            "steps": list(self.steps),
            "source": self.source,
        }


@dataclass
class Report:
    """Collects what the rules say about one node."""

    evidence: Evidence
    tables: TablesLike
    findings: list[Finding] = field(default_factory=list)
    not_measured: list[dict[str, str]] = field(default_factory=list)

    def add(
        self,
        finding: str,
        subject: str,
        severity: str,
        *,
        observed: Any,
        expected: Any,
        cause: str,
        steps: Sequence[str],
        source: str,
    ) -> None:
        self.findings.append(Finding(finding, subject, severity, observed, expected, cause, steps, source))

    def unknown(self, finding: str, subject: str, reason: str) -> None:
        """Note that a check could not be made, and why."""
        self.not_measured.append({"id": finding, "subject": subject, "reason": reason})

    def pitfall(self, row: str) -> Mapping[str, Any]:
        """Return a row of the table of known pitfalls; a table without it has nothing to add."""
        return find(self.tables.platforms.get("pitfalls") or [], "id", row) or {}

    def fixes(self, row: str, *first: str) -> list[str]:
        """Return ``first`` and then the table's own steps as sentences."""
        return [*first, *(text[:1].upper() + text[1:] for text in self.pitfall(row).get("fix") or [])]

    def evidence_of(self, row: str) -> str:
        """Return where a pitfall is known from."""
        known = "; ".join(self.pitfall(row).get("evidence") or [])
        return f"platforms.yml, pitfall {row}" + (f" ({known})" if known else "")
