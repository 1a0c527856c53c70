# SPDX-License-Identifier: Apache-2.0
"""The real DKMS of Debian 13, under the name and epoch of the one that NVIDIA's repositories bring along.

NVIDIA's repositories hand out `dkms` themselves (seen: 1:3.4.0-1ubuntu1), and their drivers from 570.148 on depend on
`dkms (>= 3.1.8)`. Debian 12 has 3.0.10 and its backports have none, so without this package no stub driver could be
installed there. What builds the modules is Debian's program, unchanged; only its version number has an epoch added.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from ..apt import KEYRING, conf_text, find_mirror, passed_on, read_sources
from ..host import run, say
from ..paths import CACHE
from .model import Package

_RELEASE = "trixie"
_WHAT = f"fetch Debian's dkms ({_RELEASE}) for the vendor's repositories"


def package() -> Package:
    """Debian 13's dkms as a package of the vendor."""
    path = _fetch()
    files, links = _content(path.read_bytes())
    upstream = path.name.split("_")[1].partition("-")[0]
    return Package(
        "dkms",
        f"1:{upstream}-0standin1",
        arch="all",
        summary="Dynamic Kernel Module System, Debian's own",
        depends=("kmod", "gcc | c-compiler", "dpkg-dev", "make | build-essential", "patch"),
        files=files,
        links=links,
        # a folder without files, which stub packages cannot carry
        scripts={"postinst": "#!/bin/sh\nset -e\nmkdir -p /var/lib/dkms\nexit 0\n"},
        config=tuple(f"/{name}" for name in sorted(files) if name.startswith("etc/")),
    )


def _fetch() -> Path:
    """The .deb, from the host's mirror; apt checks its signatures. Kept, since it changes seldom."""
    keep = CACHE / "vendor-dkms"
    have = sorted(keep.glob("dkms_*.deb"))
    if have:
        return have[-1]
    keep.mkdir(parents=True, exist_ok=True)
    say(_WHAT[0].upper() + _WHAT[1:])
    mirror = find_mirror(read_sources())
    settings = passed_on(run(["apt-config", "dump", "Acquire"], "read the host's apt configuration").stdout)
    with tempfile.TemporaryDirectory(dir=keep) as name:
        folder = Path(name)
        (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror.archive} {_RELEASE} main\n")
        (folder / "apt.conf").write_text(conf_text(settings))
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        options = {
            "Dir::Etc::SourceList": f"{folder}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": f"{folder}/lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": f"{folder}/cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        command = ["env", f"APT_CONFIG={folder}/apt.conf", "apt-get", "-qq"]
        command += [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        run([*command, "update", "--error-on=any"], _WHAT, timeout=300)
        # apt-get puts the package into the working directory
        run(["env", "-C", str(folder), *command[1:], "download", "dkms"], _WHAT, timeout=300)
        (found,) = folder.glob("dkms_*.deb")
        return found.rename(keep / found.name)


def _content(deb: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files and links of a .deb."""
    offset = 8
    while offset < len(deb):
        name, size = deb[offset : offset + 16].strip().decode(), int(deb[offset + 48 : offset + 58])
        if name.startswith("data.tar"):
            return _unpack(deb[offset + 60 : offset + 60 + size])
        offset += 60 + size + size % 2
    raise ValueError("the package has no data")


def _unpack(data: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    files, links = {}, {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            name = member.name.removeprefix("./")
            if member.issym():
                links[name] = member.linkname
            elif member.isfile():
                handle = archive.extractfile(member)
                files[name] = handle.read() if handle else b""
    return files, links
