# SPDX-License-Identifier: Apache-2.0
"""What rpm and dnf print, as records, and their failures as sentences: text captured from dnf 4.14 and rpm 4.18."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.packages import Change, Installed
from ansible.module_utils.rackwright.packages_rpm import (
    Rpm,
    as_statuses,
    compare_versions,
    duplicates,
    edit_locks,
    lock_names,
    meets,
    offers,
    parse_module_list,
    parse_repoquery,
    parse_rpms,
    parse_streams,
    parse_transaction,
    read_locks,
    request_spec,
)
from ansible.module_utils.rackwright.packages_rpm_errors import explain, is_lock_failure, lock_error

QUERY = (
    "cmake\t3.26-2.el9\tnoarch\tcmake-3.26-2.el9.src.rpm\t1795540921\n"
    "gpg-pubkey\t18a900c3-6a1\t(none)\t\t1795540920\n"
    "kernel-core\t5.14.0-570.el9\tx86_64\tkernel-5.14.0-570.el9.src.rpm\t1795540925\n"
    "kernel-core\t5.14.0-503.el9\tx86_64\tkernel-5.14.0-503.el9.src.rpm\t1795540922\n"
    "nvidia-driver-cuda\t3:580.178.04-1.el9\tx86_64\tnvidia-driver-580.178.04-1.el9.src.rpm\t1795540921\n"
    "nvidia-driver-cuda\t3:580.65.06-1.el9\tx86_64\tnvidia-driver-580.65.06-1.el9.src.rpm\t1795540900\n"
    "epochless\t0:1-1\tnoarch\t\t0\n"
)

INSTALL = """\
Last metadata expiration check: 0:02:52 ago on Tue Nov 24 17:19:08 2026.
Dependencies resolved.
================================================================================
 Package                     Arch       Version                  Repo      Size
================================================================================
Installing:
 kernel-devel                noarch     5.14.0-570.el9           stub     5.4 k
 kmod-nvidia-open-dkms       noarch     3:580.65.06-1.el9        stub     5.6 k
Installing dependencies:
 nvidia-kmod-common          noarch     3:580.65.06-1.el9        stub     5.5 k
Removing dependent packages:
 kmod-nvidia-latest-dkms     noarch     3:580.178.04-1.el9       @stub       0
Downgrading:
 nvidia-driver-cuda          noarch     3:580.65.06-1.el9        stub     5.6 k
Skipping packages with broken dependencies:
 broken-dep                  noarch     1-1                      stub     5.6 k
Enabling module streams:
 nvidia-driver                          580-open

Transaction Summary
================================================================================
Install    3 Packages
Remove     1 Package

Total size: 33 k
Operation aborted.
"""

# a name that does not fit into its column stands in a line of its own
WRAPPED = """\
================================================================================
 Package        Architecture Version                       Repository      Size
================================================================================
Upgrading:
 a-really-long-package-name-that-does-not-fit-into-its-column
                noarch       1.0-1.el9                     stub           5.5 k
     replacing  old-name.noarch 0.9-1.el9
 cmake          noarch       3.27-1.el9                    stub           5.4 k

Transaction Summary
"""

# as dnf 5 prints it on Fedora 41 (rpm-software-management/dnf5 issue 1898)
DNF5 = """\
Package                      Arch   Version                 Repository      Size
Upgrading:
 efi-filesystem              noarch 5-13.fc41               updates      0.0   B
   replacing efi-filesystem  noarch 5-12.fc41               fedora       0.0   B
 qemu-img                    x86_64 2:9.1.2-1.fc41          updates     22.9 MiB
   replacing qemu-img        x86_64 2:9.1.1-2.fc41          updates     22.9 MiB
"""


def statuses(**versions: str) -> dict[str, Installed]:
    return {name.replace("_", "-"): Installed(name, version, "ii", name) for name, version in versions.items()}


def test_packages_are_read_with_epoch_and_source_and_without_keys() -> None:
    rows = parse_rpms(QUERY)
    assert [(row.name, row.version, row.source) for row in rows] == [
        ("cmake", "3.26-2.el9", "cmake"),
        ("epochless", "1-1", "epochless"),
        ("kernel-core", "5.14.0-503.el9", "kernel"),
        ("kernel-core", "5.14.0-570.el9", "kernel"),
        ("nvidia-driver-cuda", "3:580.65.06-1.el9", "nvidia-driver"),
        ("nvidia-driver-cuda", "3:580.178.04-1.el9", "nvidia-driver"),
    ]
    assert as_statuses(rows)["nvidia-driver-cuda"].version == "3:580.178.04-1.el9"
    assert as_statuses(rows)["cmake"].complete


def test_two_versions_are_an_interrupted_transaction_except_of_kernels() -> None:
    assert duplicates(parse_rpms(QUERY)) == ["nvidia-driver-cuda"]


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        ("3:580.178.04-1.el9", "3:580.65.06-1.el9", 1),
        ("3:580.65.06-1.el9", "580.178.04-9.el9", 1),
        ("1.0-1", "1.0-1", 0),
        ("1.0-10", "1.0-9", 1),
        ("1.0~rc1-1", "1.0-1", -1),
        ("1.0^git1-1", "1.0-1", 1),
        ("1.0^git1-1", "1.0.1-1", -1),
        ("1.0a-1", "1.0-1", 1),
        ("1.a-1", "1.1-1", -1),
        ("5.14.0-503.el9", "5.14.0-570.11.1.el9", -1),
        ("2.0-1", "2.0.1-1", -1),
    ],
)
def test_versions_compare_as_rpm_does(left: str, right: str, order: int) -> None:
    assert compare_versions(left, right) == order
    assert compare_versions(right, left) == -order


def test_offers_are_newest_first_and_without_the_usual_epoch() -> None:
    text = (
        "stub                            2.3 MB/s | 4.2 kB     00:00    \n"
        "cmake\t0:3.26-2.el9\tnoarch\tstub\n\n"
        "cmake\t0:3.27-1.el9\tnoarch\tstub\n\n"
        "cmake\t0:3.27-1.el9\tx86_64\tother\n"
    )
    assert [(row.version, row.source) for row in parse_repoquery(text)] == [
        ("3.27-1.el9", "stub"),
        ("3.26-2.el9", "stub"),
    ]


CUDA = Rpm("nvidia-driver-cuda", "3:580.178.04-1.el9", "x86_64", "nvidia-driver", 1)


@pytest.mark.parametrize(
    ("request_", "met"),
    [
        ("nvidia-driver-cuda", True),
        ("nvidia-driver-cuda=3:580.178.04-1.el9", True),
        ("nvidia-driver-cuda=580.178.04-1.el9", True),
        ("nvidia-driver-cuda=580.178.04", False),
        ("nvidia-driver-cuda=3:580.65.06-1.el9", False),
        ("nvidia-driver-cuda-580.178.04-1.el9.x86_64", True),
        ("nvidia-driver-cuda.x86_64", True),
        ("nvidia-driver", False),
    ],
)
def test_a_request_is_met_by_name_version_or_full_name(request_: str, met: bool) -> None:
    assert meets(request_, CUDA) is met
    candidate = parse_repoquery("nvidia-driver-cuda\t3:580.178.04-1.el9\tx86_64\tcuda\n")[0]
    assert offers(request_, candidate) is met


def test_a_request_becomes_what_dnf_calls_it() -> None:
    assert request_spec("smi=3:580.178.04-1.el9") == "smi-3:580.178.04-1.el9"
    assert request_spec("kernel-devel-5.14.0-503.el9.x86_64") == "kernel-devel-5.14.0-503.el9.x86_64"


def test_a_transaction_is_read_by_its_sections() -> None:
    installed = statuses(
        nvidia_driver_cuda="3:580.178.04-1.el9",
        kmod_nvidia_latest_dkms="3:580.178.04-1.el9",
        kernel_devel="5.14.0-503.el9",
    )
    assert [change.text() for change in parse_transaction(INSTALL, installed)] == [
        "install kernel-devel 5.14.0-570.el9",
        "install kmod-nvidia-open-dkms 3:580.65.06-1.el9",
        "install nvidia-kmod-common 3:580.65.06-1.el9",
        "remove kmod-nvidia-latest-dkms 3:580.178.04-1.el9",
        "change nvidia-driver-cuda 3:580.178.04-1.el9 -> 3:580.65.06-1.el9",
    ]


def test_wrapped_rows_and_what_they_replace_are_read() -> None:
    long = "a-really-long-package-name-that-does-not-fit-into-its-column"
    installed = {**statuses(cmake="3.26-2.el9", old_name="0.9-1.el9"), long: Installed(long, "0.9-1", "ii", long)}
    assert parse_transaction(WRAPPED, installed) == [
        Change(long, "0.9-1", "1.0-1.el9", "stub"),
        Change("old-name", "0.9-1.el9", None),
        Change("cmake", "3.26-2.el9", "3.27-1.el9", "stub"),
    ]


def test_the_table_of_dnf_5_is_read_too() -> None:
    installed = statuses(efi_filesystem="5-12.fc41", qemu_img="2:9.1.1-2.fc41")
    assert [change.text() for change in parse_transaction(DNF5, installed)] == [
        "change efi-filesystem 5-12.fc41 -> 5-13.fc41",
        "change qemu-img 2:9.1.1-2.fc41 -> 2:9.1.2-1.fc41",
    ]


def test_nothing_to_do_is_no_change() -> None:
    assert (
        parse_transaction("Package cmake-3.26-2.el9.noarch is already installed.\nNothing to do.\nComplete!\n", {})
        == []
    )


def test_enabled_streams_are_read_and_reset_ones_are_not() -> None:
    text = "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n\n"
    text += "[nodejs]\nname=nodejs\nstream=\nstate=\n"
    assert parse_streams(text) == {"nvidia-driver": "580-open"}


def test_the_list_of_modules_gives_the_streams_of_each() -> None:
    text = (
        "Last metadata expiration check: 0:00:01 ago on Tue Nov 24 17:22:51 2026.\n"
        "stub\n"
        "Name          Stream       Profiles Summary\n"
        "nvidia-driver 580-open [e] default  s      \n"
        "nvidia-driver 590-open     default  s      \n\n"
        "Hint: [d]efault, [e]nabled, [x]disabled, [i]nstalled\n"
    )
    assert parse_module_list(text) == {"nvidia-driver": ["580-open", "590-open"]}


LIST = """\
# mine
cmake-0:3.26-2.el9.*

# Added lock on Tue Nov 24 17:22:36 2026
nvidia-driver-cuda-3:580.65.06-1.el9.*
!bad-1-1.*
"""


def test_locks_are_replaced_with_their_comments_and_others_stay() -> None:
    assert read_locks(LIST) == ["cmake-0:3.26-2.el9.*", "nvidia-driver-cuda-3:580.65.06-1.el9.*"]
    edited = edit_locks(LIST, ["nvidia-driver-cuda-3:580.65.06-1.el9.*"], ["a-0:1-1.*", "cmake-0:3.26-2.el9.*"])
    assert edited == "# mine\ncmake-0:3.26-2.el9.*\n\n!bad-1-1.*\na-0:1-1.*\n"


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("nvidia-driver-cuda-3:580.65.06-1.el9.*", True),
        ("nvidia-driver-cuda-libs-3:580.178.04-1.el9.*", False),
        ("*nvidia*580*", True),
        ("*nvidia*590*", False),
        ("nvidia-driver-cuda", True),
        ("nvidia-driver-3:580.178.04-1.el9.*", False),
    ],
)
def test_a_lock_is_about_the_package_it_names(entry: str, named: bool) -> None:
    assert lock_names(entry, "nvidia-driver-cuda", [CUDA]) is named


HELD = """\
metadata already locked by 1957
  The application with PID 1957 is: python3
    Memory : 7.9 M RSS ( 13 MB VSZ)
    Started: Tue Nov 24 17:22:37 2026 - 00:00 ago
    State  : Sleeping
"""


def test_a_lock_failure_is_told_from_others_and_names_its_holder() -> None:
    assert is_lock_failure(HELD)
    assert is_lock_failure(
        "error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)"
    )
    assert not is_lock_failure("Error: Unable to find a match: x\n")
    assert "process 1957 (python3) has held it for more than 300 s" in str(lock_error(HELD, "gpu-a", 300.2))


def unreachable(reason: str) -> str:
    return (
        "bad                                             0.0  B/s |   0  B     00:00    \n"
        f"Errors during downloading metadata for repository 'bad':\n  - {reason}\n"
        "Error: Failed to download metadata for repo 'bad': Cannot download repomd.xml: Cannot download"
        " repodata/repomd.xml: All mirrors were tried\n"
    )


NO_KEY = (
    "\nYou have enabled checking of packages via GPG keys. This is a good thing.\n"
    "However, you do not have any GPG public keys installed. You need to download\n"
    "the keys for packages you wish to install and install them.\n\n"
    "Problem repository: [stub]\nbandwidth: 0\n"
)


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        (
            unreachable(
                "Curl error (6): Couldn't resolve host name for http://u:secret@no-such-host.test/x/repodata/repomd.xml"
                " [Could not resolve host: no-such-host.test]"
            ),
            "missing",
            ["the repository bad at no-such-host.test", "name cannot be resolved"],
        ),
        (
            unreachable("Curl error (7): Couldn't connect to server for http://10.0.0.1:9/x/repodata/repomd.xml"),
            "missing",
            ["the repository bad at 10.0.0.1", "does not answer"],
        ),
        (
            unreachable("Status code: 404 for http://mirror.test:8899/nope/repodata/repomd.xml (IP: 127.0.0.1)"),
            "error",
            ["the repository bad at mirror.test answers 404", "baseurl"],
        ),
        (
            unreachable("Status code: 403 for https://cdn.test/x/repodata/repomd.xml (IP: 127.0.0.1)"),
            "missing",
            ["answers with status 403"],
        ),
        ('Error: There are no enabled repositories in "/etc/yum.repos.d".\n', "missing", ["no repository is enabled"]),
        (
            "Package cmake-3.27-1.el9.noarch.rpm is not signed\nError: GPG check FAILED\n",
            "error",
            ["the package cmake-3.27-1.el9.noarch is not signed", "never disable"],
        ),
        (
            "Error: Failed to download metadata for repo 'bad': repomd.xml GPG signature verification error:"
            " Bad GPG signature\n",
            "error",
            ["the metadata of the repository bad is not signed by a key this node trusts"],
        ),
        (NO_KEY, "error", ["the repository stub demands signatures and names no key"]),
        (
            "All matches were filtered out by modular filtering for argument: nvidia-driver-cuda-3:590.48.01-1.el9\n"
            "Error: Unable to find a match: nvidia-driver-cuda-3:590.48.01-1.el9\n",
            "error",
            ["nvidia-driver-cuda-3:590.48.01-1.el9 belongs to a module stream that is not enabled"],
        ),
        (
            "All matches were filtered out by exclude filtering for argument: cmake-3.27-1.el9\n"
            "Error: Unable to find a match: cmake-3.27-1.el9\n",
            "error",
            ["cmake-3.27-1.el9 is locked or excluded", "dnf versionlock list"],
        ),
        (
            "No match for argument: no-such-package\nError: Unable to find a match: no-such-package other\n",
            "missing",
            ["no enabled repository offers no-such-package, other"],
        ),
        (
            "Error: Problems in request:\nmissing groups or modules: nvidia-driver:nope\n",
            "missing",
            ["no repository has the module stream nvidia-driver:nope", "dnf module list nvidia-driver"],
        ),
        (
            "Error: \n Problem: conflicting requests\n"
            "  - nothing provides dkms >= 3.1.8 needed by kmod-nvidia-open-dkms-3:580.178.04-1.el9.noarch\n"
            "(try to add '--skip-broken' to skip uninstallable packages)\n",
            "missing",
            ["no enabled repository offers dkms >= 3.1.8", "EPEL"],
        ),
        (
            "Error: \n Problem: problem with installed package kmod-nvidia-open-dkms-3:580.178.04-1.el9.noarch\n"
            "  - package a conflicts with b provided by c\n  - conflicting requests\n",
            "error",
            ["do not fit together", "package a conflicts with b provided by c", "dnf versionlock list"],
        ),
        (
            "Error: Transaction test error:\n"
            "  installing package cuda-1-1.x86_64 needs 4096MB more space on the / filesystem\n",
            "error",
            ["no space left in /", "17 MiB free"],
        ),
        (
            "Error: \n Problem: The operation would result in removing the following protected packages: dnf\n",
            "error",
            ["the protected packages dnf"],
        ),
        (
            "error: sqlite failure: x: file is not a database\nerror: cannot open Packages database in /var/lib/rpm\n",
            "error",
            ["rpm's database cannot be read", "rpm --rebuilddb"],
        ),
        (
            "error: %prein(kmod-1-1.x86_64) scriptlet failed, exit status 1\n\n"
            "Error in PREIN scriptlet in rpm package kmod\n",
            "error",
            ["script of kmod"],
        ),
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
