# SPDX-License-Identifier: Apache-2.0
"""The vendor's repository as the lock names it, with what a site puts in its place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: short name of the repository on nodes, part of its file names
REPOSITORY = "nvidia-cuda"
#: where the vendor's own repositories are; other entries for them are switched off
NVIDIA_REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos/"
#: the key that NVIDIA withdrew in April 2022
OBSOLETE_KEYS = ("7FA2AF80",)


def repository_options(
    entry: Mapping[str, Any], url: str = "", has_key: bool = False, fingerprint: str = ""
) -> dict[str, Any]:
    """Return the options of the module ``vendor_repository``, but for the key's content.

    Args:
        entry: ``repository`` of the lock: format, url, key_url, key_fingerprint, and key_id for rpm. One without a url
            has none here either, which ``vendor_repository`` and ``driver_plan`` refuse.
        url: a mirror or bundle instead; ``{distro}`` and ``{arch}`` become those of the lock's url.
        has_key: whether the site has a key of its own: the vendor's fingerprint does not apply to it.
        fingerprint: of that key, or of the vendor's where the lock has none.
    """
    vendor = str(entry.get("url") or "")
    distro, arch = f"//{vendor.rstrip('/')}".split("/")[-2:]
    mirror = url.replace("{distro}", distro).replace("{arch}", arch)
    key_url = str(entry.get("key_url") or "")
    if mirror:
        # a mirror has the key beside its packages, under the vendor's name
        key_url = f"{mirror.rstrip('/')}/{key_url.rpartition('/')[2]}"
    own = has_key or bool(fingerprint)
    return {
        "name": REPOSITORY,
        "format": entry.get("format") or "deb",
        # as it was written: a message about it has to name it so
        "url": mirror or vendor,
        "key_url": "" if has_key else key_url,
        "fingerprint": fingerprint or ("" if has_key else str(entry.get("key_fingerprint") or "")),
        "key_id": "" if own else str(entry.get("key_id") or ""),
        "replaces": [NVIDIA_REPOSITORIES],
        "obsolete_keys": list(OBSOLETE_KEYS),
    }
