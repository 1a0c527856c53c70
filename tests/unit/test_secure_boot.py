# SPDX-License-Identifier: Apache-2.0
"""Secure Boot: the decision, places of keys, mokutil's answers, the words of the console, signatures."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.secure_boot import (
    DKMS,
    UBUNTU,
    Places,
    common_name,
    console_words,
    decide,
    enrolment,
    key_places,
    refuse_password,
    rejection,
    staged,
    unsigned,
)

DER = "/var/lib/dkms/mok.pub"


@pytest.mark.parametrize(
    ("on", "builds", "mode", "action", "words"),
    [
        (False, True, "refuse", "none", "off"),
        (None, True, "refuse", "none", "is not known: no efivars"),
        (True, False, "refuse", "none", "no module is built"),
        (True, True, "mok", "mok", "DKMS builds the module"),
    ],
)
def test_decision(on: bool | None, builds: bool, mode: str, action: str, words: str) -> None:
    decision = decide(on, "no efivars", builds, mode, "n1")

    assert decision["action"] == action
    assert words in decision["reason"]


def test_a_module_that_would_be_rejected_is_refused_with_every_way_out() -> None:
    with pytest.raises(InvalidInputError) as error:
        decide(True, None, True, "refuse", "n1", ["take signed modules"])

    text = str(error.value)
    assert "Secure Boot is on and the module would be built by DKMS" in text
    assert "nothing of the driver was installed" in text
    for way in ("nvidia_driver_secure_boot to mok", "take signed modules", "switch Secure Boot off"):
        assert way in text


@pytest.mark.parametrize(
    ("distribution", "texts", "places"),
    [
        ("debian", ["# mok_signing_key=/x\n"], DKMS),
        ("rocky", [], DKMS),
        ("ubuntu", [], UBUNTU),
        (
            "debian",
            ['mok_signing_key="/etc/k/a.key"\nmok_certificate=/etc/k/a.der\n'],
            ("/etc/k/a.key", "/etc/k/a.der"),
        ),
        # a later file wins, and a key alone has DKMS's own certificate beside it
        ("ubuntu", ["mok_signing_key=/a\n", "mok_signing_key=/b # why\n"], ("/b", DKMS[1])),
    ],
)
def test_places_of_the_key(distribution: str, texts: list[str], places: tuple[str, str]) -> None:
    assert key_places(distribution, texts, "n1") == Places(*places)


@pytest.mark.parametrize("value", ["/keys/$kernelver.key", "pkcs11:token=x"])
def test_a_key_that_is_no_single_file_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="is no path of one file"):
        key_places("debian", [f"mok_signing_key='{value}'\n"], "n1")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"{DER} is not enrolled\n", "unknown_key"),
        (f"{DER} is already enrolled\n", "enrolled"),
        (f"{DER} is already in db\n", "enrolled"),
        (f"{DER} is already in the built-in trusted keyring\n", "enrolled"),
        (f"{DER} is already in the enrollment request\n", "pending"),
        (f"{DER} is blocked in MokListX\n", "blocked"),
        (f"{DER} is blocked in dbx\n", "blocked"),
        ("EFI variables are not supported on this system\n", None),
    ],
)
def test_answers_of_mokutil(text: str, state: str | None) -> None:
    assert enrolment(text) == state


@pytest.mark.parametrize("password", ["", "short", "with blank 1", "p\u00e4ssw\u00f6rter", "x" * 257])
def test_a_password_that_cannot_be_typed_is_refused_and_not_told(password: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        refuse_password(password, "n1")
    assert not password or password not in str(error.value)


def test_a_good_password() -> None:
    refuse_password("Correct-Horse-7", "n1")  # raises when it is not


def test_the_stop_says_what_the_console_shows_in_its_order() -> None:
    text = str(staged("n1", "DKMS module signing key of n1", False))

    words = [
        "Press any key to perform MOK management",
        "Enroll MOK",
        "View key 0",
        "DKMS module signing key of n1",
        "Continue",
        "Enroll the key(s)?",
        "Yes",
        "Password:",
        "Reboot",
    ]
    places = [text.index(f'"{word}"') for word in words]
    assert places == sorted(places)
    assert "nothing of the driver was installed" in text
    assert "still waits" in str(staged("n1", "k", True))
    assert len(console_words("n1", "k")) == 7


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("subject=CN=DKMS module signing key of gpu-a", "DKMS module signing key of gpu-a"),
        ("subject=CN=DKMS module signing key\n", "DKMS module signing key"),
        ("subject=CN=host Secure Boot Module Signature key,O=x", "host Secure Boot Module Signature key"),
        ("subject=O=x", None),
    ],
)
def test_common_name(subject: str, name: str | None) -> None:
    assert common_name(subject) == name


def test_every_module_is_signed_by_the_enrolled_key() -> None:
    assert unsigned({"k1": "key", "k2": "key"}, "key") is None
    assert "kernel k2 is not signed" in str(unsigned({"k1": "key", "k2": None}, "key"))
    assert 'signed by "other", not by the enrolled key "key"' in str(unsigned({"k1": "other"}, "key"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Loading of module with unavailable key is rejected", "Key was rejected by service"),
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "Key was rejected by service"),
        ("Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7", "is not signed"),
        ("nvidia: loading out-of-tree module taints kernel.", None),
        # tainting is no rejection
        ("nvidia: module verification failed: signature and/or required key missing - tainting kernel", None),
    ],
)
def test_what_the_kernel_says_of_a_module_it_refuses(line: str, words: str | None) -> None:
    found = rejection(f"[    5.1] something\n{line}\n")

    assert (found is None) == (words is None)
    assert words is None or words in str(found)
