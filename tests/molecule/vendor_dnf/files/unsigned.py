#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Offer one package that nobody signed, in a repository that demands signatures. rpm builds it; dnf needs this much."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

FOLDER = Path("/var/tmp/unsigned")
SPEC = """\
Name: nobody-signed-me
Version: 1
Release: 1
Summary: x
License: x
BuildArch: noarch
%description
x
%files
"""
PRIMARY = """\
<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="1">
<package type="rpm"><name>nobody-signed-me</name><arch>noarch</arch><version epoch="0" ver="1" rel="1"/>
<checksum type="sha256" pkgid="YES">{digest}</checksum><summary>x</summary><description>x</description>
<time file="1" build="1"/><size package="{size}" installed="0" archive="0"/><location href="{name}"/>
<format><rpm:license>x</rpm:license><rpm:provides>
<rpm:entry name="nobody-signed-me" flags="EQ" epoch="0" ver="1" rel="1"/>
</rpm:provides></format></package></metadata>
"""
REPOMD = """\
<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision><data type="primary">
<checksum type="sha256">{digest}</checksum><location href="repodata/primary.xml"/>
<timestamp>1</timestamp><size>{size}</size>
</data></repomd>
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    (FOLDER / "repodata").mkdir(parents=True, exist_ok=True)
    spec = FOLDER / "x.spec"
    spec.write_text(SPEC, encoding="utf-8")
    subprocess.run(["rpmbuild", "--quiet", "-bb", "--define", f"_rpmdir {FOLDER}", str(spec)], check=True)
    package = next(FOLDER.rglob("*.rpm"))
    primary = FOLDER / "repodata/primary.xml"
    text = PRIMARY.format(digest=sha256(package), size=package.stat().st_size, name=package.relative_to(FOLDER))
    primary.write_text(text, encoding="utf-8")
    repomd = REPOMD.format(digest=sha256(primary), size=primary.stat().st_size)
    (FOLDER / "repodata/repomd.xml").write_text(repomd, encoding="utf-8")
    repo = f"[unsigned]\nname=unsigned\nbaseurl=file://{FOLDER}\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/none\n"
    Path("/etc/yum.repos.d/unsigned.repo").write_text(repo, encoding="utf-8")


if __name__ == "__main__":
    main()
