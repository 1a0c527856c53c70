# SPDX-License-Identifier: Apache-2.0
"""A throwaway OpenPGP key: made for one build of the repositories, its secret half forgotten afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..host import run

USER = "Rackwright test nodes, throwaway key <nobody@localhost>"


class Key:
    """A key in a folder of its own."""

    def __init__(self, home: Path) -> None:
        """Make the key."""
        self.home = home
        self._gpg("--quick-generate-key", USER, "rsa3072", "sign", "never", what="make a throwaway key")
        listing = self._gpg("--with-colons", "--fingerprint", what="read the throwaway key")
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def _gpg(self, *args: str, what: str) -> str:
        options = ["--homedir", str(self.home), "--batch", "--yes", "--no-tty", "--passphrase", ""]
        return run(["gpg", "--quiet", "--pinentry-mode", "loopback", *options, *args], what).stdout

    def public(self, path: Path, *, armoured: bool) -> None:
        """Write the public half."""
        extra = ["--armor"] if armoured else []
        self._gpg(*extra, "--output", str(path), "--export", self.fingerprint, what=f"write the key {path.name}")

    def clear_sign(self, source: Path, target: Path) -> None:
        """InRelease of Release."""
        self._gpg("--digest-algo", "SHA256", "--output", str(target), "--clearsign", str(source), what="sign Release")

    def detach_sign(self, source: Path, target: Path) -> None:
        """An armoured signature beside a file."""
        self._gpg(
            "--armor", "--digest-algo", "SHA512", "--output", str(target), "--detach-sign", str(source), what="sign"
        )


@contextmanager
def throwaway_key() -> Iterator[Key]:
    """A key for one build."""
    # A socket's path has 108 bytes, so the folder of gpg's agent must not lie deep.
    home = Path(tempfile.mkdtemp(prefix="rackwright-gpg-"))
    try:
        yield Key(home)
    finally:
        run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], "end gpg-agent", check=False)
        shutil.rmtree(home, ignore_errors=True)
