# SPDX-License-Identifier: Apache-2.0
"""What the host needs, found out in one go and installed on request."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from .apt import KEYRING
from .errors import NodesError
from .host import find_program, run, say, stream

# program -> package that brings it on Debian and Ubuntu
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "gcc": "gcc",
    "make": "make",
}
# for nodes with the vendor's repositories only
VENDOR_PROGRAMS = {
    "deb": {"gpg": "gnupg", "gpgconf": "gnupg", "apt-get": "apt", "gcc": "gcc"},
    "rpm": {
        "gpg": "gnupg",
        "gpgconf": "gnupg",
        "apt-get": "apt",
        "gcc": "gcc",
        "rpmbuild": "rpm",
        "rpmsign": "rpm",
        "createrepo_c": "createrepo-c",
        "modifyrepo_c": "createrepo-c",
    },
}
NETWORK_BACKENDS = (
    "/usr/lib/podman/netavark",
    "/usr/libexec/podman/netavark",
    "/usr/local/libexec/podman/netavark",
    "/usr/lib/cni/bridge",
    "/opt/cni/bin/bridge",
)
_DISTRIBUTIONS = ("debian", "ubuntu")


def missing_packages(
    has_program: Callable[[str], object] = find_program,
    exists: Callable[[str], bool] = os.path.exists,
    has_module: Callable[[str], object] = importlib.util.find_spec,
) -> list[str]:
    """Debian names of the packages that are not there."""
    missing = [package for program, package in PROGRAMS.items() if not has_program(program)]
    if not any(exists(path) for path in NETWORK_BACKENDS):
        missing.append("netavark")
    if not exists(KEYRING):
        missing.append("debian-archive-keyring")
    if not exists("/usr/include/stdio.h"):
        missing.append("libc6-dev")
    if not has_module("ensurepip"):
        missing.append("python3-venv")
    return list(dict.fromkeys(missing))


def missing_for_vendor(kind: str, has_program: Callable[[str], object] = find_program) -> list[str]:
    """Debian names of what the vendor's repositories of one kind are built with and is not there."""
    return list(dict.fromkeys(name for program, name in VENDOR_PROGRAMS[kind].items() if not has_program(program)))


def check_vendor(kind: str) -> None:
    """Raise one sentence naming everything that is missing for these repositories."""
    missing = missing_for_vendor(kind)
    if missing:
        raise NodesError(
            f"build the vendor's {kind} repositories on this host",
            f"these packages are missing: {', '.join(missing)}",
            "Run `tests/nodes/nodes.py prerequisites --install`, or install them with the system's package manager",
        )


def os_ids(text: str) -> set[str]:
    """Words of ID and ID_LIKE of an os-release file."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {word for key, value in pairs if key in ("ID", "ID_LIKE") for word in value.strip('"').split()}


def check_privilege() -> None:
    """Containers with systemd need root, or sudo that asks for no password."""
    if os.geteuid() == 0:
        return
    hint = "Run as root, or let your user run sudo without a password while the test nodes are in use"
    if not find_program("sudo"):
        raise NodesError("start test nodes", "this user is not root and sudo is not installed", hint)
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode != 0:
        raise NodesError("start test nodes", "this user is not root and sudo asks for a password", hint)


def check() -> None:
    """Raise one sentence naming everything that is missing."""
    check_privilege()
    missing = missing_packages()
    if missing:
        raise NodesError(
            "start test nodes on this host",
            f"these packages are missing: {', '.join(missing)}",
            "Run `tests/nodes/nodes.py prerequisites --install`, or install them with the system's package manager",
        )


def _candidates(packages: list[str]) -> list[str]:
    """Those of the packages that the host's package lists offer."""
    text = run(["apt-cache", "policy", *packages], "read the package lists").stdout
    offered, current = [], ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            current = line.rstrip(":")
        elif line.strip().startswith("Candidate:") and "(none)" not in line:
            offered.append(current)
    return offered


def _all_missing() -> list[str]:
    return list(dict.fromkeys([*missing_packages(), *missing_for_vendor("deb"), *missing_for_vendor("rpm")]))


def install() -> None:
    """Install what is missing on Debian or Ubuntu; a complete host is left alone."""
    check_privilege()
    missing = _all_missing()
    if not missing:
        say("All prerequisites are installed")
        return
    release = Path("/etc/os-release")
    ids = os_ids(release.read_text(encoding="utf-8")) if release.is_file() else set()
    if not ids.intersection(_DISTRIBUTIONS) or not find_program("apt-get"):
        raise NodesError(
            "install the prerequisites on this host",
            "it is neither Debian nor Ubuntu",
            f"Install these yourself (names as in Debian): {', '.join(missing)}",
        )
    what = f"install {', '.join(missing)}"
    apt = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::http::Timeout=20",
        "-o",
        "Acquire::Retries=3",
    ]
    say(f"Installing on this host: {', '.join(missing)}")
    stream([*apt, "update"], what, prefix="  ")
    # Older releases have no netavark; there the CNI plugins do the same.
    substitutes = {"netavark": "containernetworking-plugins"}
    offered = _candidates([*missing, *substitutes.values()])
    wanted = [name if name in offered else substitutes.get(name, name) for name in missing]
    lacking = [name for name in wanted if name not in offered]
    if lacking:
        raise NodesError(
            what,
            f"the host's package sources do not offer {', '.join(lacking)}",
            "Enable the distribution's main (on Ubuntu also universe) component and run again",
        )
    stream(
        [*apt, "install", "-y", "--no-install-recommends", *wanted],
        what,
        prefix="  ",
        show=lambda line: line if line.startswith(("Setting up", "E:", "W:", "Need to get")) else None,
    )
    still = _all_missing()
    if still:
        raise NodesError(what, f"still missing after the installation: {', '.join(still)}", "See the lines above")
    say("All prerequisites are installed")
