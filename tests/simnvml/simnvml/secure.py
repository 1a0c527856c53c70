# SPDX-License-Identifier: Apache-2.0
"""Secure Boot of a simulated node: the firmware's variable below the sysroot, and which keys it trusts.

Without a plant a node has no such firmware at all, as before. With it, a module loads only when it is signed and the
key that DKMS signs with is enrolled; a stand-in of mokutil asks for enrolment, and `simnvmlctl mok-console` answers as
the person at the console would.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

VARIABLE = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
CERTIFICATES = ("var/lib/dkms/mok.pub", "var/lib/shim-signed/mok/MOK.der")
_SIGNED = b"~Module signature appended~\n"


class Firmware:
    """The state file of one node."""

    def __init__(self, root: Path, var: Path) -> None:
        """Read the state; a node without the file has no Secure Boot to speak of."""
        self.root = root
        self.file = var / "secure-boot.json"
        state = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.state: str | None = state.get("state")
        self.pending: list[str] = state.get("pending", [])
        self.enrolled: list[str] = state.get("enrolled", [])

    def save(self) -> None:
        """Write the state."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"state": self.state, "pending": self.pending, "enrolled": self.enrolled})
        self.file.write_text(text + "\n", encoding="utf-8")

    def key_of(self, path: Path) -> str:
        """By what a certificate is known."""
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def refusal(self, module: Path | None) -> str | None:
        """Why the kernel would not take this module."""
        if self.state != "on" or module is None:
            return None
        if not module.read_bytes().endswith(_SIGNED):
            return "Key was rejected by service"
        trusted = [self.root / name for name in CERTIFICATES if (self.root / name).is_file()]
        if not any(self.key_of(path) in self.enrolled for path in trusted):
            return "Key was rejected by service"
        return None

    def write_variable(self, sysroot: Path) -> None:
        """SecureBoot as the kernel shows it: four bytes of attributes and the value."""
        folder = sysroot / "sys/firmware/efi/efivars"
        if self.state is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VARIABLE).write_bytes(b"\x06\x00\x00\x00" + (b"\x01" if self.state == "on" else b"\x00"))

    def mokutil(self, words: list[str]) -> tuple[int, str]:
        """Exit status and words of the stand-in of mokutil."""
        if self.state is None:
            return 1, "EFI variables are not supported on this system"
        if "--sb-state" in words:
            return 0, f"SecureBoot {'enabled' if self.state == 'on' else 'disabled'}"
        for option in ("--test-key", "-t", "--import", "-i"):
            if option in words:
                path = Path(words[words.index(option) + 1])
                return self._test(path) if option in ("--test-key", "-t") else self._import(path)
        return 1, "this stand-in of mokutil knows --sb-state, --test-key and --import only"

    def _test(self, path: Path) -> tuple[int, str]:
        key = self.key_of(path)
        if key in self.enrolled:
            return 1, f"{path} is already enrolled"
        if key in self.pending:
            return 1, f"{path} is already in the enrollment request"
        return 0, f"{path} is not enrolled"

    def _import(self, path: Path) -> tuple[int, str]:
        key = self.key_of(path)
        if key in self.enrolled:
            return 0, f"SKIP: {path} is already enrolled"
        self.pending = [*self.pending, key] if key not in self.pending else self.pending
        self.save()
        return 0, ""

    def console(self, answer: str) -> None:
        """What a person at the console does with the request, at the next boot: enrol or ignore."""
        if answer == "enrol":
            self.enrolled = [*self.enrolled, *(key for key in self.pending if key not in self.enrolled)]
        self.pending = []
        self.save()
