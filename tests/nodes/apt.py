# SPDX-License-Identifier: Apache-2.0
"""The Debian mirror of the nodes, read from the host's own apt configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import NodesError

RELEASES = ("bookworm", "trixie")
COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR_VARIABLE = "RACKWRIGHT_DEBIAN_MIRROR"
SECURITY_VARIABLE = "RACKWRIGHT_DEBIAN_SECURITY_MIRROR"

_CODENAMES = r"(bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)"
_ARCHIVE_SUITE = re.compile(rf"^{_CODENAMES}(-updates)?$")
_SECURITY_SUITE = re.compile(rf"^{_CODENAMES}-security$")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")

# Settings of the host that say how its mirror must be talked to; everything else is the host's own business.
_PASSED_ON = re.compile(
    r"^Acquire::(Check-Valid-Until|Check-Date|Max-FutureTime|ForceIPv[46]|Languages(::)?|GzipIndexes"
    r"|https?::(\S+::)?(Proxy|Verify-Peer|Verify-Host|Pipeline-Depth|No-Cache)|https?::Proxy::\S+)$"
)
_LOCAL_PROXY = re.compile(r"//(localhost|127\.|\[::1\])")


@dataclass(frozen=True)
class Source:
    """One line or stanza of an apt sources file."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


@dataclass(frozen=True)
class Mirror:
    """Where Debian and its security updates come from."""

    archive: str
    security: str

    def suites(self, release: str) -> list[tuple[str, str]]:
        """Pairs of address and suite, with the security updates first in line for resolution."""
        return [
            (self.archive, release),
            (self.archive, f"{release}-updates"),
            (self.security, f"{release}-security"),
        ]

    def lines(self, release: str, components: tuple[str, ...]) -> list[str]:
        """One-line form, as mmdebstrap takes it."""
        return [f"deb {uri} {suite} {' '.join(components)}" for uri, suite in self.suites(release)]

    def deb822(self, release: str, components: tuple[str, ...] = COMPONENTS) -> str:
        """The sources file of a node."""
        stanzas = [(self.archive, f"{release} {release}-updates"), (self.security, f"{release}-security")]
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {' '.join(components)}\nSigned-By: {KEYRING}\n"
            for uri, suites in stanzas
        )


def parse_deb822(text: str) -> list[Source]:
    """Sources of a .sources file; disabled and source-only stanzas are left out."""
    sources = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if enabled and "deb" in fields.get("types", "").split():
            sources.append(
                Source(
                    tuple(fields.get("uris", "").split()),
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    fields.get("signed-by", ""),
                )
            )
    return sources


def parse_list(text: str) -> list[Source]:
    """Sources of a one-line-per-entry file."""
    sources = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match:
            signed = re.search(r"signed-by=(\S+)", match["options"] or "")
            sources.append(
                Source(
                    (match["uri"],),
                    (match["suite"],),
                    tuple(match["components"].split()),
                    signed[1] if signed else "",
                )
            )
    return sources


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """All package sources that the host has switched on."""
    sources: list[Source] = []
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in (".list", ".sources"):
            text = path.read_text(encoding="utf-8", errors="replace")
            sources.extend(parse_deb822(text) if path.suffix == ".sources" else parse_list(text))
    return sources


def find_mirror(sources: list[Source], environ: Mapping[str, str] = os.environ) -> Mirror:
    """The mirror named by the environment, else the one the host itself uses for Debian."""
    named = environ.get(MIRROR_VARIABLE, "").strip()
    if named:
        if urlsplit(named).scheme not in ("http", "https", "file"):
            raise NodesError(
                f"use the Debian mirror {named!r} of {MIRROR_VARIABLE}",
                "it is not an http(s) address",
                f"Set {MIRROR_VARIABLE} to the address of a Debian mirror, ending in /debian",
            )
        return Mirror(named.rstrip("/"), environ.get(SECURITY_VARIABLE, "").strip().rstrip("/") or _security(named))
    archive = _best([s for s in sources if any(_ARCHIVE_SUITE.match(suite) for suite in s.suites)])
    if not archive:
        raise NodesError(
            "find a Debian mirror in /etc/apt",
            "the host's package sources name none",
            f"Set {MIRROR_VARIABLE} to the address of a Debian mirror, ending in /debian",
        )
    security = _best([s for s in sources if any(_SECURITY_SUITE.match(suite) for suite in s.suites)])
    return Mirror(archive, environ.get(SECURITY_VARIABLE, "").strip().rstrip("/") or security or _security(archive))


def _best(candidates: list[Source]) -> str:
    """Address of the most trustworthy source; other vendors' repositories also use Debian's suite names."""

    def rank(source: Source) -> int:
        if "debian-archive-keyring" in source.signed_by:
            return 0
        return 1 if not source.signed_by and "main" in source.components else 9

    usable = sorted((s for s in candidates if s.uris and rank(s) < 9), key=rank)
    return _resolve(usable[0].uris[0]) if usable else ""


def _resolve(uri: str) -> str:
    """Cloud images of Debian name a file with the list of mirrors instead of a mirror."""
    if uri.startswith("mirror+file:"):
        path = Path("/" + uri.split(":", 1)[1].lstrip("/"))
        words = path.read_text(encoding="utf-8").split() if path.is_file() else []
        uri = next((word for word in words if "://" in word), "")
    return uri.rstrip("/")


def _security(archive: str) -> str:
    """Mirrors carry the security archive beside the main one."""
    return re.sub(r"/debian/?$", "", archive.rstrip("/")) + "/debian-security"


def passed_on(dump: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of `apt-config dump` the nodes need to reach the same mirror in the same way."""
    settings: dict[str, str] = {}
    for line in dump.splitlines():
        name, _, rest = line.partition(" ")
        value = rest.strip().rstrip(";").strip('"')
        if value and _PASSED_ON.match(name):
            settings[name] = value
    for scheme in ("http", "https"):
        proxy = environ.get(f"{scheme}_proxy", "")
        if proxy:
            settings.setdefault(f"Acquire::{scheme}::Proxy", proxy)
    # A proxy on the host's own loopback cannot be reached from a node.
    settings = {k: v for k, v in settings.items() if not ("Proxy" in k and _LOCAL_PROXY.search(v))}
    settings.setdefault("Acquire::http::Timeout", "20")
    settings.setdefault("Acquire::https::Timeout", "20")
    settings.setdefault("Acquire::Retries", "3")
    return settings


def conf_text(settings: Mapping[str, str]) -> str:
    """The same settings as a file of apt.conf.d."""
    return "".join(f'{name} "{value}";\n' for name, value in sorted(settings.items()))
