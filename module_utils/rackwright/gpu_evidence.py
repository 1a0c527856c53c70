# SPDX-License-Identifier: Apache-2.0
"""What the rules about a node's GPU situation may look at, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Situation:
    """What a node's GPUs are in; ``cause`` and ``next_step`` are one sentence each."""

    name: str
    cause: str
    next_step: str


@dataclass
class Evidence:
    """All a rule may look at."""

    host: dict[str, Any]
    library: dict[str, Any]
    driver: dict[str, Any]
    child_status: str = "ok"
    child_detail: str = ""
    child_signal: str | None = None
    init_error: int | None = None
    init_reason: str = ""
    devices: list[dict[str, Any]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @property
    def gpus(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.host["pci"]["gpus"]
        return found

    @property
    def initialised(self) -> bool:
        return self.child_status == "ok" and self.init_error is None

    @property
    def working(self) -> list[dict[str, Any]]:
        return [device for device in self.devices if device["state"] == "ok"]

    @property
    def module_loaded(self) -> bool:
        return bool(self.host["driver_text"] or self.host["module_version"] or "nvidia" in (self.host["modules"] or []))

    @property
    def numbered_nodes(self) -> list[str]:
        return [name for name in self.host["device_nodes"] if name != "nvidiactl"]

    @property
    def nouveau(self) -> bool:
        bound = any(gpu["kernel_driver"] in ("nouveau", "nova_core", "NovaCore") for gpu in self.gpus)
        return bound or "nouveau" in (self.host["modules"] or [])

    def count_text(self) -> str:
        return plural(len(self.gpus), "NVIDIA GPU")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
