# SPDX-License-Identifier: Apache-2.0
"""Secure Boot as a decision: whether a module may be built, which key DKMS signs it with, how that is enrolled. Pure.

Places of the keys: DKMS (``prepare_mok`` of its 3.x: Ubuntu's shim-signed, else /var/lib/dkms; framework.conf first).
Words at the console: shim's MokManager.c. Answers about a key: mokutil.c (``--test-key``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError, MissingError, RackwrightError

UBUNTU = ("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der")
DKMS = ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub")
#: MokManager and mokutil take 1 to 256 characters; fewer than 8 is no password
PASSWORD_LEAST, PASSWORD_MOST = 8, 256
_ASSIGNMENT = re.compile(r"""^\s*(?P<name>mok_signing_key|mok_certificate)=["']?(?P<value>[^"'\s#]*)["']?""")
_ANSWERS = (
    ("enrolled", r"is already enrolled|is already in db\b|built-in trusted keyring|CA of \S+ is already enrolled"),
    ("pending", r"is already in the enrollment request"),
    ("blocked", r"is blocked|CA of \S+ is blocked"),
    ("unknown_key", r"is not enrolled"),
)


@dataclass(frozen=True)
class Places:
    """Where DKMS of a distribution has the key it signs with, and its certificate (DER)."""

    key: str
    certificate: str


def key_places(distribution: str, configurations: Iterable[str], node: str) -> Places:
    """Return the places of key and certificate.

    Args:
        distribution: ``ID`` of os-release.
        configurations: texts of DKMS's framework.conf and framework.conf.d/*.conf in the order DKMS reads them.

    Raises:
        InvalidInputError: they name a key for each kernel, or one in a token, which is not made here.
    """
    found: dict[str, str] = {}
    for text in configurations:
        for line in text.splitlines():
            match = _ASSIGNMENT.match(line)
            if match:
                found[match["name"]] = match["value"]
    key, certificate = UBUNTU if distribution == "ubuntu" and not found.get("mok_signing_key") else DKMS
    places = Places(found.get("mok_signing_key") or key, found.get("mok_certificate") or certificate)
    for value in (places.key, places.certificate):
        if "$" in value or not value.startswith("/"):
            raise InvalidInputError(
                "find the key that DKMS signs with",
                node,
                f"DKMS's framework.conf names {value}, which is no path of one file",
                "Enrol that key by hand, or give mok_signing_key and mok_certificate one path each",
                found=value,
            )
    return places


def decide(
    secure_boot: bool | None, reason: str | None, builds: bool, mode: str, node: str, alternatives: Iterable[str] = ()
) -> dict[str, Any]:
    """Return ``action`` (``none`` or ``mok``) with its ``reason``, or refuse.

    Args:
        secure_boot: whether the firmware enforces it, None where that cannot be told, with the ``reason``.
        builds: whether DKMS builds a module on this node.
        mode: ``refuse`` or ``mok``.
        alternatives: further ways out on this platform.
    """
    if not builds:
        return {"action": "none", "reason": "no module is built on this node"}
    if secure_boot is None:
        return {"action": "none", "reason": f"whether Secure Boot is on is not known: {reason}"}
    if not secure_boot:
        return {"action": "none", "reason": "Secure Boot is off"}
    if mode == "mok":
        return {"action": "mok", "reason": "Secure Boot is on and DKMS builds the module"}
    ways = [
        "Set nvidia_driver_secure_boot to mok (a key of this node is enrolled once, at its console)",
        *alternatives,
        "switch Secure Boot off in the firmware",
    ]
    raise InvalidInputError(
        "install the NVIDIA driver",
        node,
        "Secure Boot is on and the module would be built by DKMS, so the kernel would reject its key;"
        " nothing of the driver was installed",
        f"{', or '.join(ways)}",
        expected=["mok", "prebuilt", "Secure Boot off"],
        found="refuse",
    )


def enrolment(text: str) -> str | None:
    """Return what ``mokutil --test-key`` says: ``enrolled``, ``pending``, ``blocked``, ``unknown_key`` or None."""
    return next((word for word, pattern in _ANSWERS if re.search(pattern, text)), None)


def refuse_password(password: str, node: str) -> None:
    """Raise where a password cannot be typed at the console or is too short; the message never has it."""
    if not password:
        raise InvalidInputError(
            "stage the enrolment of the key",
            node,
            "nvidia_driver_mok_password is empty and the key is not enrolled yet",
            f"Set it to {PASSWORD_LEAST} or more printable ASCII characters (from a vault): the console asks for it",
        )
    plain = all("!" <= character <= "~" for character in password)
    if not plain or not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise InvalidInputError(
            "stage the enrolment of the key",
            node,
            f"nvidia_driver_mok_password has {len(password)} characters"
            + ("" if plain else ", some of which the console of the firmware cannot take"),
            f"Use {PASSWORD_LEAST} to {PASSWORD_MOST} printable ASCII characters without blanks",
            expected=f"{PASSWORD_LEAST} to {PASSWORD_MOST} printable ASCII characters",
        )


def console_words(node: str, name: str) -> list[str]:
    """Return what the operator does, with the words of shim's MokManager. ``name`` is the key's common name."""
    return [
        f"Reboot {node} and watch its console: the screen is blue.",
        'At "Press any key to perform MOK management" press a key (within 10 seconds, else it boots and asks again'
        " only after a new enrolment is staged).",
        'In the menu "Perform MOK management" choose "Enroll MOK".',
        f'"View key 0" shows the key; its name is "{name}". Choose "Continue".',
        'At "Enroll the key(s)?" choose "Yes".',
        'At "Password:" type nvidia_driver_mok_password (the keyboard may have its US layout; nothing is shown).',
        'Back in "Perform MOK management" choose "Reboot". Then run the playbook again.',
    ]


def staged(node: str, name: str, pending: bool) -> RackwrightError:
    """Return the stop of a node whose key waits for its console. ``pending``: it waited already before this run."""
    how = "still waits for its enrolment at the console" if pending else "is made, and its enrolment is staged"
    steps = " ".join(f"({number}) {step}" for number, step in enumerate(console_words(node, name), 1))
    return RackwrightError(
        "go on with the NVIDIA driver",
        node,
        f"Secure Boot is on, and the key that will sign the module {how}; nothing of the driver was installed",
        f"At the console: {steps}",
        hint="\n".join(console_words(node, name)),
    )


def refuse_blocked(certificate: str, node: str) -> RackwrightError:
    """Return the failure of a key that the firmware has on its list of forbidden ones."""
    return RackwrightError(
        "enrol the key that signs the module",
        node,
        f"the firmware blocks {certificate} (dbx or MokListX)",
        "Remove key and certificate, so that the next run makes new ones",
    )


def missing_program(name: str, package: str, node: str) -> MissingError:
    """Return the failure of a node without a program that enrolment needs."""
    return MissingError(
        "enrol the key that signs the module",
        node,
        f"{name} is not installed",
        f"Install the package {package}",
        expected=name,
    )


def common_name(subject: str) -> str | None:
    """Return the common name out of ``openssl x509 -noout -subject -nameopt RFC2253``."""
    match = re.search(r"(?:^|[=,\s])CN\s?=\s?((?:\\.|[^,\\\n])+)", subject)
    return match[1].strip() if match else None


def unsigned(signers: dict[str, str | None], wanted: str) -> str | None:
    """Return which kernel's module is not signed by the key, in one sentence; None where all are.

    Args:
        signers: ``modinfo -F signer`` of the module of each kernel, None or empty without a signature.
        wanted: common name of the key.
    """
    for kernel, signer in signers.items():
        if not signer:
            return f"The NVIDIA module of kernel {kernel} is not signed, and Secure Boot is on."
        if signer != wanted:
            return f'The NVIDIA module of kernel {kernel} is signed by "{signer}", not by the enrolled key "{wanted}".'
    return None


#: what the kernel writes when it refuses a module, and what that means
_REJECTIONS = (
    (
        r"Loading of module with unavailable key is rejected|Key was rejected by service",
        "the kernel rejects the key that signed the NVIDIA module (Key was rejected by service)",
        "Enrol the key (nvidia_driver_secure_boot: mok), or switch Secure Boot off",
    ),
    (
        r"Lockdown: \S+: unsigned module loading is restricted|Loading of unsigned module is rejected"
        r"|module verification failed: signature and/or required key missing.*rejected",
        "the kernel is locked down by Secure Boot and the NVIDIA module is not signed",
        "Set nvidia_driver_secure_boot to mok and run again: the module is then built and signed anew",
    ),
)


def rejection(kernel_log: str) -> tuple[str, str] | None:
    """Return why the kernel refused a module and what to do, None where its log says nothing of that."""
    for pattern, cause, next_step in _REJECTIONS:
        if re.search(pattern, kernel_log):
            return cause, next_step
    return None
