# SPDX-License-Identifier: Apache-2.0
"""Certificate authorities that the host trusts beyond the distribution's own.

Nodes behind the same network need them too, and get them the way an administrator would add them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
DISTRIBUTION = Path("/usr/share/ca-certificates")


def fingerprints(text: str) -> dict[str, str]:
    """Fingerprint and PEM text of every certificate in a text."""
    found = {}
    for match in _PEM.finditer(text):
        der = base64.b64decode(match[1])
        found[hashlib.sha256(der).hexdigest()] = f"{match[0]}\n"
    return found


def extra_certificates(bundle: Path = BUNDLE, distribution: Path = DISTRIBUTION) -> dict[str, str]:
    """File name and text of each certificate that the distribution's package does not bring."""
    if not bundle.is_file():
        return {}
    known: set[str] = set()
    for path in distribution.rglob("*.crt"):
        known.update(fingerprints(path.read_text(encoding="ascii", errors="replace")))
    here = fingerprints(bundle.read_text(encoding="utf-8", errors="replace"))
    return {f"host-{mark[:12]}.crt": text for mark, text in sorted(here.items()) if mark not in known}
