# SPDX-License-Identifier: Apache-2.0
"""Gate platform: what a distribution is, what it ships, and which sources of drivers exist for it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from .compat_rules import Case, Refusal, TablesLike, at_least, ended, find, sources_of
from .stack_node import WSL, StackNode

PINNING_FROM = 590


@dataclass(frozen=True)
class Platform:
    """A supported platform on one architecture: its row of the table and the maps that row points to."""

    row: dict[str, Any]
    arch: str
    table: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def row_id(self) -> str:
        return f"platforms/{self.id}"

    @property
    def sources(self) -> list[str]:
        return sources_of(self.table, self.row)

    @property
    def deb(self) -> bool:
        return bool(self.row.get("repo_format") == "deb")

    @property
    def repository_arch(self) -> str | None:
        """Directory of the architecture in NVIDIA's repository (``sbsa`` for aarch64), None where there is none."""
        found: str | None = (self.row["arch_paths"] or {}).get(self.arch)
        return found

    @property
    def nvidia(self) -> dict[str, Any] | None:
        """How NVIDIA's repository calls its driver packages here, None where it has none for this machine."""
        key = self.row.get("driver_packages")
        known = key and self.row.get("nvidia_repo") and self.repository_arch
        return self.table["driver_packages"][key] if known else None

    @property
    def archive(self) -> dict[str, Any] | None:
        """The distribution's own driver: the one it has (Debian), or the patterns of its names (Ubuntu)."""
        own: dict[str, Any] | None = self.row.get("distribution_driver")
        if own:
            return own
        key = self.row.get("archive_packages")
        return self.table["driver_packages"][key] if key else None

    def has_source(self, source: str) -> bool:
        """Whether the tables know driver packages of a source (``nvidia`` or ``distribution``)."""
        return (self.nvidia if source == "nvidia" else self.archive) is not None

    @property
    def distribution_branches(self) -> list[str]:
        """Branches in the distribution's own archive."""
        own = self.archive or {}
        return [own["branch"]] if own.get("branch") else list(own.get("branches_seen") or [])

    def distribution_version(self, branch: str) -> str | None:
        """Version of a branch in the distribution's archive, None where nobody knows it."""
        own = self.archive or {}
        return own["version"] if own.get("branch") == branch else None

    @property
    def distribution_flavour(self) -> str:
        """What the distribution's own driver is by default: Debian's role builds the proprietary module."""
        return "proprietary" if self.row.get("distribution_driver") else "open"

    def source_problem(self, source: str, branch: str, flavour: str) -> tuple[str, str] | None:
        """Return (gate, why) the packages of a branch and flavour are not to be had from a source, or None."""
        if source == "distribution":
            if branch not in self.distribution_branches:
                shown = ", ".join(self.distribution_branches)
                return "platform", f"the archive of {self.row['os']} has branch {shown}, not {branch}"
            return None
        names = self.nvidia or {}
        if self.row.get("driver_packages") == "rhel10" and flavour == "proprietary":
            return "platform", f"the names of the proprietary driver packages for {self.row['os']} are not known"
        if int(branch) >= PINNING_FROM and self.deb and "branch_selection" not in str(names):
            return "platform", f"how to select branch {branch} on {self.row['os']} is not known"
        return None

    def dkms_minimum(self, driver_version: str) -> str | None:
        """Least version of DKMS that builds a driver here, None where the distribution's own does."""
        rule = self.row.get("dkms_minimum")
        return rule["version"] if rule and at_least(driver_version, rule["from_driver"]) else None


def platform_row(tables: TablesLike, os_id: str) -> dict[str, Any] | None:
    """Return the row of a platform, also by the name of a system that shares it (``rocky9`` is ``rhel9``)."""
    rows = tables.platforms["distros"]
    found: dict[str, Any] | None = next((row for row in rows if os_id == row["id"] or os_id in row["aliases"]), None)
    return found


def supported_platforms(tables: TablesLike) -> list[str]:
    """Ids of all platforms that can be planned for."""
    return [row["id"] for row in tables.platforms["distros"] if row["supported"]]


def find_platform(tables: TablesLike, node: StackNode) -> tuple[Platform | None, str | None]:
    """Return the platform of a node, or why there is none."""
    row = platform_row(tables, node.os)
    if row is None:
        told = node.os_name if node.os_name == node.os else f"{node.os_name} ({node.os})"
        return None, f"{told} is not in the table of platforms"
    if not row["supported"]:
        name = node.os_name if node.origin == "facts" else row["os"]
        return None, f"{name} is not supported: use {row.get('use_instead')} instead"
    if node.arch not in ("x86_64", "aarch64"):
        return None, f"the architecture {node.arch} is not supported: x86_64 and aarch64 are"
    return Platform(row, node.arch, tables.platforms), None


def choose_platform(case: Case) -> Platform:
    """Return the platform of the node with what is known of its Python and C library filled in, or refuse."""
    platform, problem = find_platform(case.tables, case.node)
    if platform is None:
        use = ", ".join(supported_platforms(case.tables))
        raise Refusal("platform", str(problem), [f"Install one of the supported platforms: {use}"])
    case.node = completed(case.node, platform)
    row = platform.row
    rule = f"{row['os']} is supported"
    if ended(row.get("standard_eol"), case.today):
        rule += f"; its standard support ended on {row.get('standard_eol')}"
        rule += f", long-term support ends on {row.get('lts_eol')}" if row.get("lts_eol") else ""
    if row.get("state") not in (None, "supported"):
        rule += f"; NVIDIA: {row['state']}"
    case.decide("platform.os", case.node.os, rule, platform.row_id, platform.sources)
    return platform


def completed(node: StackNode, platform: Platform) -> StackNode:
    """A description leaves out what its platform always ships."""
    if node.origin != "description":
        return node
    row = platform.row
    return replace(node, python=node.python or row.get("python"), glibc=node.glibc or row.get("glibc"))


def wsl_row(tables: TablesLike) -> dict[str, Any]:
    """The row of WSL2, whose repository differs from that of the same Ubuntu on a machine."""
    row = find(tables.platforms["distros"], "id", WSL)
    assert row is not None
    return dict(row)


def repository(platform: Platform) -> dict[str, Any]:
    """Return where NVIDIA's packages for a platform come from and how their signature is checked."""
    kind = "deb" if platform.deb else "rpm"
    names = {"distro": platform.row.get("nvidia_repo"), "arch": platform.repository_arch}
    template = platform.table["repositories"][kind]
    filled = {
        key: value.format(**names)
        for key, value in template.items()
        if key in ("url", "keyring_url", "key_url", "repo_file", "pin_file")
    }
    found = {"format": kind, "key_fingerprint": template["key_fingerprint"], **filled}
    own_key = platform.row.get("key_file")
    if own_key:
        found["key_url"] = re.sub(r"[^/]+$", own_key, found["key_url"])
        found["key_fingerprint"] = platform.row.get("key_fingerprint")
    if kind == "rpm":
        found["needs"] = list((platform.nvidia or {}).get("needs") or [])
    return found
