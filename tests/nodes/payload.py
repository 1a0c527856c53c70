# SPDX-License-Identifier: Apache-2.0
"""Files that are laid into images and nodes, packed with the owners and modes they have there."""

from __future__ import annotations

import io
import tarfile

USER = "rackwright"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_UID = 1000
_MODES = {
    "etc/sudoers.d/rackwright": 0o440,
    "etc/ssh/ssh_host_ed25519_key": 0o600,
    f"home/{USER}/.ssh": 0o700,
    f"home/{USER}/.ssh/authorized_keys": 0o600,
}


def image_files(sources: str, apt_conf: str, certificates: dict[str, str]) -> dict[str, bytes]:
    """Files that are the same on all nodes of one release."""
    texts = {
        "etc/apt/sources.list.d/debian.sources": sources,
        "etc/apt/apt.conf.d/90rackwright": apt_conf,
        f"etc/sudoers.d/{USER}": (
            f'{USER} ALL=(ALL:ALL) NOPASSWD: ALL\nDefaults env_keep += "{" ".join(_CA_VARIABLES)}"\n'
        ),
        "etc/ssh/sshd_config.d/rackwright.conf": (
            "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nUseDNS no\nMaxStartups 50:30:200\n"
        ),
        # On a host with cgroup v1 systemd 252 is not told that a user's manager has ended, and a reboot would wait for
        # two minutes. Nothing of a test node's user needs longer than this.
        "etc/systemd/system/user@.service.d/rackwright.conf": "[Service]\nTimeoutStopSec=3s\n",
        # Clients that bring their own list of authorities are pointed to the system's.
        "etc/environment": "".join(f"{name}={CA_BUNDLE}\n" for name in _CA_VARIABLES),
        **{f"usr/local/share/ca-certificates/{name}": text for name, text in certificates.items()},
    }
    return {name: text.encode() for name, text in texts.items()}


def node_files(
    authorized_key: str, host_key: str, host_key_public: str, sources: str | None, extra: dict[str, str]
) -> bytes:
    """Archive of the files that belong to one node."""
    texts = {
        f"home/{USER}/.ssh/authorized_keys": authorized_key,
        "etc/ssh/ssh_host_ed25519_key": host_key,
        "etc/ssh/ssh_host_ed25519_key.pub": host_key_public,
        **extra,
    }
    if sources is not None:
        texts["etc/apt/sources.list.d/debian.sources"] = sources
    return tar({name: text.encode() for name, text in texts.items()}, folders=(f"home/{USER}/.ssh",))


def tar(files: dict[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    """Pack files; the order and the times are fixed, so equal content gives equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in folders:
            archive.addfile(_member(name, tarfile.DIRTYPE, 0o755))
        for name, data in sorted(files.items()):
            member = _member(name, tarfile.REGTYPE, 0o755 if data.startswith(b"#!") else 0o644)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = _MODES.get(name, mode)
    member.mtime = 1_000_000_000
    if name.startswith(f"home/{USER}/"):
        member.uid = member.gid = _UID
    return member
