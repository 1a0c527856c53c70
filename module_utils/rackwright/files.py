# SPDX-License-Identifier: Apache-2.0
"""Bring small files to a wanted content, mode and owner; say what differs before touching anything."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from typing import Any

from . import atomic
from .errors import InvalidInputError, RackwrightError


@dataclass(frozen=True)
class WantedFile:
    """One file as it has to be; ``content`` None means it must not exist."""

    path: str
    content: str | None
    mode: int
    uid: int
    gid: int


def owner_ids(owner: str, group: str, path: str) -> tuple[int, int]:
    """Return the numbers of a user and a group by name."""
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidInputError(
            "set the owner", path, f"{error.args[0]}", "Name a user and a group that exist on the node"
        ) from error


def wanted(entry: dict[str, Any]) -> WantedFile:
    """Check one entry of the ``files`` option and return it as a record."""
    path = entry["path"]
    if not os.path.isabs(path):
        raise InvalidInputError(
            "write a file", path, "the path is not absolute", "Give the whole path", expected="/...", found=path
        )
    if entry["state"] == "present" and entry["content"] is None:
        raise InvalidInputError("write a file", path, "it has no content", "Give `content`, or `state: absent`")
    try:
        mode = int(entry["mode"], 8)
    except ValueError as error:
        raise InvalidInputError(
            "set the mode", path, f"'{entry['mode']}' is not octal", "Write it as '0644'"
        ) from error
    uid, gid = owner_ids(entry["owner"], entry["group"], path)
    return WantedFile(path, entry["content"] if entry["state"] == "present" else None, mode, uid, gid)


def current(path: str) -> dict[str, Any] | None:
    """Return content, mode and owner of a file as it is, None when there is none."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return {"content": None, "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
    with open(path, encoding="utf-8", errors="surrogateescape") as handle:
        content = handle.read()
    return {"content": content, "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}


def difference(want: WantedFile) -> dict[str, Any] | None:
    """Return an Ansible diff entry, or None when the file is right."""
    have = current(want.path)
    if want.content is None:
        return (
            None
            if have is None
            else {"before_header": want.path, "after_header": "absent", "before": have["content"] or "", "after": ""}
        )
    goal = {"content": want.content, "mode": want.mode, "uid": want.uid, "gid": want.gid}
    if have == goal:
        return None
    attributes = "" if have is None or have["content"] != want.content else _describe(have)
    return {
        "before_header": want.path,
        "after_header": want.path,
        "before": attributes or ((have or {}).get("content") or "").encode("utf-8", "replace").decode("utf-8"),
        "after": _describe(goal) if attributes else want.content,
    }


def _describe(state: dict[str, Any]) -> str:
    return f"mode {state['mode']:04o} owner {state['uid']} group {state['gid']}\n"


def apply(want: WantedFile) -> None:
    """Write or remove one file; a reader sees the old one or the new one, never half of it."""
    try:
        if want.content is None:
            os.unlink(want.path)
        else:
            _write(want, want.content)
    except OSError as error:
        raise _explain(want.path, error) from error


def _write(want: WantedFile, content: str) -> None:
    os.makedirs(os.path.dirname(want.path), mode=0o755, exist_ok=True)
    data = content.encode("utf-8", "surrogateescape")
    atomic.replace(want.path, data, mode=want.mode, owner=(want.uid, want.gid))


def _explain(path: str, error: OSError) -> RackwrightError:
    steps = {
        errno.ENOSPC: "Free space on that file system and run again",
        errno.EROFS: "Mount the file system writable and run again",
        errno.EISDIR: "Move the directory away and run again",
        errno.EACCES: "Run with become: true",
        errno.EPERM: "Run with become: true, and look for an immutable flag (lsattr)",
    }
    return RackwrightError(
        "write a file",
        path,
        error.strerror or str(error),
        steps.get(error.errno or 0, "Look at the file and its folder, then run again"),
    )
