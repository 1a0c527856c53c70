# SPDX-License-Identifier: Apache-2.0
"""Keys, and the ssh configuration with which host-key checking stays on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import NodesError
from .host import run
from .payload import USER

# A Unix socket's path has 108 bytes, of which ssh and Ansible add 28 to this folder's.
_SOCKET_DIR_MOST = 79


def make_key(path: Path, comment: str) -> str:
    """Make an ed25519 key unless there is one; answers the public half."""
    public = path.with_name(f"{path.name}.pub")
    if not (path.is_file() and public.is_file()):
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], f"make the key {path}")
    return public.read_text(encoding="ascii")


def socket_dir(folder: Path) -> Path:
    """Folder for Ansible's connection sockets, apart per fleet: hosts of two fleets may share a name."""
    path = folder / "cp"
    if len(str(path)) > _SOCKET_DIR_MOST:
        raise NodesError(
            f"keep connection sockets in {path}",
            f"the path is longer than {_SOCKET_DIR_MOST} characters",
            "Use a shorter fleet name or move the checkout to a shorter path",
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def close_connections(folder: Path) -> None:
    """End ssh masters that still hold a connection to a node that is going away."""
    for path in (folder / "cp").glob("*"):
        if path.is_socket():
            # A master that is already gone leaves nothing to close.
            run(
                ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "node"],
                f"close {path}",
                check=False,
                timeout=5,
            )
            path.unlink(missing_ok=True)


def ssh_config(folder: Path, addresses: dict[str, str]) -> str:
    """Text of the fleet's ssh_config."""
    blocks = [f"Host {name}\n  HostName {address}\n  HostKeyAlias {name}\n" for name, address in addresses.items()]
    blocks.append(
        f"Host {' '.join(addresses)}\n"
        f"  User {USER}\n"
        f'  IdentityFile "{folder / "id_ed25519"}"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{folder / "known_hosts"}"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  UpdateHostKeys no\n"
        "  PreferredAuthentications publickey\n"
        "  LogLevel ERROR\n"
    )
    return "".join(blocks)


def known_hosts(public_keys: dict[str, str]) -> str:
    """Text of the fleet's known_hosts."""
    return "".join(f"{name} {' '.join(key.split()[:2])}\n" for name, key in public_keys.items())


def write_file(path: Path, text: str) -> None:
    """Replace a file in one step: a killed run leaves the old one, never half of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """The same for a JSON document."""
    write_file(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
