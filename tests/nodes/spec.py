# SPDX-License-Identifier: Apache-2.0
"""What a person asks for: `gpu-a=h100x8:bookworm,driver=installed`."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace

from .apt import COMPONENTS, RELEASES
from .errors import NodesError
from .identities import IDENTITIES, Identity

FORM = (
    "NAME=PROFILE:RELEASE[,driver=none|installed][,mirror=host|none][,components=main+contrib][,tmpfs=/path:SIZE]"
    "[,vendor=yes][,os=rocky9]"
)
DRIVERS = ("none", "installed")
MIRRORS = ("host", "none")
VENDORS = ("no", "yes")
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
_FLEET = re.compile(r"^[a-z][a-z0-9_-]{0,30}$")
_TMPFS = re.compile(r"^/[A-Za-z0-9_./-]+:[0-9]+[kmg]$")


@dataclass(frozen=True)
class NodeSpec:
    """One node as asked for."""

    name: str
    profile: str
    release: str
    driver: str = "none"
    mirror: str = "host"
    components: str = "+".join(COMPONENTS)
    tmpfs: tuple[str, ...] = ()
    vendor: str = "no"
    os: str = ""

    def digest(self, image: str, scenario: str, vendor: str = "") -> str:
        """Changes exactly when the node has to be made anew; `vendor` is the build of the repositories it mounts."""
        text = json.dumps([asdict(self), image, scenario, vendor], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def identity(self) -> Identity | None:
        """The system that the node pretends to be; None: the Debian that it is."""
        return IDENTITIES.get(self.os)

    @property
    def repositories(self) -> str:
        """Kind of the vendor's repositories that the node mounts: deb, rpm or none; RHEL's own are among the latter."""
        if self.identity and self.identity.redhat:
            return "rpm"
        return "deb" if self.vendor == "yes" else ""

    @property
    def text(self) -> str:
        """The node in the form in which it is asked for."""
        extras = [f",driver={self.driver}"] if self.driver != "none" else []
        extras += [f",mirror={self.mirror}"] if self.mirror != "host" else []
        extras += [f",components={self.components}"] if self.components != "+".join(COMPONENTS) else []
        extras += [f",tmpfs={item}" for item in self.tmpfs]
        extras += [f",vendor={self.vendor}"] if self.vendor != "no" else []
        extras += [f",os={self.os}"] if self.os else []
        return f"{self.name}={self.profile}:{self.release}{''.join(extras)}"


def _refuse(text: str, cause: str) -> NodesError:
    return NodesError(f"read the node {text!r}", cause, f"The form is {FORM}")


def parse_node(text: str, defaults: NodeSpec | None = None) -> NodeSpec:
    """Read one node; options given for the whole fleet come as defaults."""
    head, *options = text.split(",")
    match = re.fullmatch(r"([^=]+)=([^:=]+):([^:=]+)", head)
    if not match:
        raise _refuse(text, "it has not the right form")
    name, profile, release = match.groups()
    if not _NAME.fullmatch(name):
        raise _refuse(text, "a name is made of a-z, 0-9 and '-', starts with a letter and has 31 characters at most")
    if release not in RELEASES:
        raise _refuse(text, f"release {release!r} is not one of {', '.join(RELEASES)}")
    spec = replace(defaults or NodeSpec("", "", ""), name=name, profile=profile, release=release)
    for option in options:
        key, _, value = option.partition("=")
        spec = _apply(spec, text, key, value)
    return spec


def _apply(spec: NodeSpec, text: str, key: str, value: str) -> NodeSpec:
    if key == "driver" and value in DRIVERS:
        return replace(spec, driver=value)
    if key == "mirror" and value in MIRRORS:
        return replace(spec, mirror=value)
    if key == "components" and value and set(value.split("+")) <= set(COMPONENTS):
        return replace(spec, components=value)
    if key == "vendor" and value in VENDORS:
        return replace(spec, vendor=value)
    if key == "os" and value in IDENTITIES:
        return replace(spec, os=value)
    if key == "tmpfs" and _TMPFS.fullmatch(value):
        return replace(spec, tmpfs=(*spec.tmpfs, value))
    raise _refuse(text, f"the option {key}={value} is unknown or has a value that is not allowed")


def parse_fleet(texts: list[str], defaults: NodeSpec | None = None) -> list[NodeSpec]:
    """Read all nodes of a fleet."""
    nodes = [parse_node(text, defaults) for text in texts]
    names = [node.name for node in nodes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NodesError(
            "read the fleet", f"these names occur twice: {', '.join(twice)}", "Give each node its own name"
        )
    if not nodes:
        raise NodesError("read the fleet", "it has no node", f"The form of a node is {FORM}")
    return nodes


def check_fleet_name(name: str) -> str:
    """Fleet names become parts of container names and paths."""
    if not _FLEET.fullmatch(name):
        raise NodesError(
            f"use the fleet name {name!r}",
            "it is not made of a-z, 0-9, '-' and '_' with a letter first",
            "Choose a name such as demo",
        )
    return name
