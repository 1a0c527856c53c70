# SPDX-License-Identifier: Apache-2.0
"""Replace a small file so that whoever reads it sees the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile


def replace(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    flush: bool = True,
    flush_folder: bool = False,
    prefix: str = ".rackwright-",
) -> None:
    """Write a file beside its place and move it there. What was there before stays until then, whatever fails.

    Args:
        path: where it goes; its folder has to exist.
        data: the whole content.
        mode: of the file.
        owner: numbers of user and group, None for those of this process.
        flush: whether the content is on disk before it takes the name, so that no power failure leaves it empty.
        flush_folder: whether the name is on disk too when this returns.
        prefix: how the file beside it begins.

    Raises:
        OSError: as the operating system says it; nothing is left beside the place.
    """
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=prefix, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            if flush:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if flush_folder:
        sync_folder(folder)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """See a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
