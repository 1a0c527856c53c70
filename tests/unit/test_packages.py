# SPDX-License-Identifier: Apache-2.0
"""apt's and dpkg's output as records, and their failures as sentences: captured text in, expected record out."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.packages import (
    Change,
    Installed,
    explain,
    is_lock_failure,
    lock_error,
    matching,
    parse_madison,
    parse_simulation,
    parse_status,
    security_only,
    unsatisfied,
)

SIMULATED = """\
Reading package lists...
Inst linux-libc-dev (6.1.192-2 Debian-Security:12/oldstable-security [amd64])
Inst libc6 [2.36-9+deb12u13] (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) [libc-bin:amd64 ]
Inst openssl [3.0.16-1] (3.0.17-1 Debian-Security:12/oldstable-security, Debian:12.15/oldstable [amd64])
Remv chrony [4.3-2]
Conf libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
"""

MADISON = """\
nvidia-smi | 535.309.01-0+deb12u1 | http://mirror.test/debian-security bookworm-security/non-free amd64 Packages
nvidia-smi | 535.261.03-1 | http://mirror.test/debian bookworm/non-free amd64 Packages
nvidia-smi | 535.261.03-1 | http://mirror.test/debian bookworm/non-free Sources
"""

LOCKED = """\
E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 811 (python3)
E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?
"""


def test_simulation_yields_installs_changes_and_removals() -> None:
    assert [change.text() for change in parse_simulation(SIMULATED)] == [
        "install linux-libc-dev 6.1.192-2",
        "change libc6 2.36-9+deb12u13 -> 2.36-9+deb12u14",
        "change openssl 3.0.16-1 -> 3.0.17-1",
        "remove chrony 4.3-2",
    ]


def test_security_keeps_only_what_a_security_suite_offers() -> None:
    assert [change.name for change in security_only(parse_simulation(SIMULATED))] == ["linux-libc-dev", "openssl"]


def test_madison_lists_each_version_once_and_no_sources() -> None:
    assert [candidate.version for candidate in parse_madison(MADISON)] == ["535.309.01-0+deb12u1", "535.261.03-1"]


@pytest.mark.parametrize(
    ("abbreviation", "complete", "broken", "needs_unpack"),
    [
        ("ii ", True, False, False),
        ("hi ", True, False, False),
        ("iF ", False, True, False),
        ("iU ", False, True, False),
        ("iH ", False, True, True),
        ("iHR", False, True, True),
        ("it ", False, True, False),
    ],
)
def test_status_tells_what_an_interrupted_run_left(
    abbreviation: str, complete: bool, broken: bool, needs_unpack: bool
) -> None:
    package = parse_status(f"cmake-data\t3.25.1-1\t{abbreviation}\tcmake\n")["cmake-data"]
    assert (package.complete, package.broken, package.needs_unpack) == (complete, broken, needs_unpack)


def test_status_leaves_out_what_is_not_installed() -> None:
    assert parse_status("gone\t1\trc \tgone\nvirtual\t\tun \t\nhere\t2\tii \thello\n").keys() == {"here"}


def test_unsatisfied_requests_are_missing_incomplete_or_of_another_version() -> None:
    statuses = {
        "a": Installed("a", "1", "ii ", "a"),
        "b": Installed("b", "1", "iF ", "b"),
        "c": Installed("c", "1", "hi ", "c"),
    }
    assert unsatisfied(["a", "a=1", "a=2", "b", "c=1", "d"], statuses) == ["a=2", "b", "d"]


def test_hold_patterns_match_whole_names() -> None:
    assert matching(["linux-image-amd64", "linux-image-6.1.0-56-amd64", "x"], ["linux-image-amd64"]) == [
        "linux-image-amd64"
    ]


@pytest.mark.parametrize(
    ("text", "locked"),
    [
        (LOCKED, True),
        ("E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1056 (python3)\n", True),
        ("dpkg: error: dpkg frontend lock was locked by another process with pid 811\n", True),
        # apt waited, went on, and failed for another reason: waiting again would not help
        ("Waiting for cache lock: Could not get lock /x. It is held by process 1 (apt)...\nE: No space left\n", False),
        ("E: Unable to correct problems, you have held broken packages.\n", False),
    ],
)
def test_lock_failures_are_told_from_others(text: str, locked: bool) -> None:
    assert is_lock_failure(text) is locked


def test_lock_error_names_the_holder() -> None:
    error = lock_error(LOCKED, "gpu-a", 300.2)
    assert "held" in str(error)
    assert "process 811 (python3)" in str(error)
    assert "300 s" in str(error)
    assert error.found == "/var/lib/dpkg/lock-frontend"


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        (
            "Err:1 http://mirror.test/debian bookworm InRelease\n  Temporary failure resolving 'mirror.test'\n"
            "E: Failed to fetch http://mirror.test/debian/dists/bookworm/InRelease  Temporary failure resolving\n",
            "missing",
            ["mirror.test", "name cannot be resolved", "DNS"],
        ),
        (
            "E: Failed to fetch http://user:secret@mirror.test/d/x/InRelease  Could not connect to mirror.test:80\n",
            "missing",
            ["the mirror mirror.test cannot be used"],
        ),
        (
            "E: The repository 'http://mirror.test/debian nonesuch Release' does not have a Release file.\n"
            "Err:4 http://mirror.test/debian nonesuch Release\n  404  Not Found\n",
            "error",
            ["mirror.test answers 404"],
        ),
        ("E: You don't have enough free space in /var/cache/apt/archives/.\n", "error", ["/var/cache/apt/archives/"]),
        (
            "dpkg: error processing archive /x.deb (--unpack):\n failed to write (No space left on device)\n",
            "error",
            ["no space left", "17 MiB free"],
        ),
        ("E: Unable to locate package nonesuch\n", "missing", ["no configured source offers nonesuch"]),
        ("E: Version '7.7' for 'hello' was not found\n", "missing", ["version 7.7 of hello", "apt-cache madison"]),
        (
            "E: Held packages were changed and -y was used without --allow-change-held-packages.\n",
            "error",
            ["on hold", "apt-mark showhold"],
        ),
        (
            "Error! Bad return status for module build on kernel: 6.1.0-56-amd64 (x86_64)\n"
            "Consult /var/lib/dkms/nvidia-current-open/535.261.03/build/make.log for more information.\n"
            "dpkg: error processing package nvidia-open-kernel-dkms (--configure):\n",
            "error",
            ["does not build for kernel 6.1.0-56-amd64", "535.261.03/build/make.log"],
        ),
        (
            "The following packages have unmet dependencies:\n"
            " nvidia-kernel-dkms : Depends: firmware-nvidia-gsp (= 535.261.03) but 535.309.01 is to be installed\n",
            "error",
            ["do not fit together", "firmware-nvidia-gsp (= 535.261.03)", "apt-cache policy"],
        ),
        ("dpkg: error processing package broken (--configure):\n", "error", ["dpkg could not finish broken"]),
        ("something new\n", "error", ["something new"]),
    ],
)
def test_failures_become_cause_and_next_step(text: str, kind: str, parts: list[str]) -> None:
    error = explain(text, "install x", "gpu-a", free_mib=17)
    message = str(error)
    assert message.startswith("Could not install x on gpu-a: ")
    assert error.kind == kind
    assert [part for part in parts if part not in message] == []
    assert "secret" not in message


def test_change_without_old_version_is_an_install() -> None:
    assert Change("a", None, "1").text() == "install a 1"
