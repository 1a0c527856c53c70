# SPDX-License-Identifier: Apache-2.0
"""The fact ``node`` from a directory tree, and the packed script that brings it from a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import node_record, probe_pack
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.receipt_items import Node

PACKAGE = Path(__file__).resolve().parents[2] / "module_utils" / "rackwright"
OPTIONS = {"sysroot": "/", "timeout": 30.0, "extra_gpus": [], "receipts_dir": "/nonexistent"}
VARIABLE = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
NODE_KEYS = {
    "schema", "platform", "kernel", "container", "wsl", "machine", "python", "pythons", "glibc", "secure_boot",
    "secure_boot_reason", "dkms", "missing",
}  # fmt: skip


def put(root: Path, name: str, content: bytes = b"") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def program(root: Path, name: str) -> Path:
    path = put(root, name)
    path.chmod(0o755)
    return path


def says(answer: tuple[int, str, str]) -> Callable[[list[str]], tuple[int, str, str]]:
    return lambda _command: answer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    put(tmp_path, "var/lib/dpkg/status", b"Package: dkms\nStatus: install ok installed\nVersion: 3.0.10-8+deb12u1\n")
    put(tmp_path, "boot/vmlinuz-6.1")
    put(tmp_path, "lib/modules/6.1/modules.dep")
    (tmp_path / "sys").mkdir()
    for name in ("usr/bin/python3", "usr/bin/python3.11", "usr/local/bin/python3.9"):
        program(tmp_path, name)
    return tmp_path


def test_the_fact_has_every_key_and_a_reason_for_every_null(root: Path) -> None:
    fact = node_record.read_node(Node(str(root), says((0, "3.11.2\n", ""))), root)

    assert set(fact) == NODE_KEYS
    assert fact["platform"]["key"] == "debian 12"
    assert fact["kernel"]["installed"] == ["6.1"]
    assert fact["python"] == "3.11.2"
    assert fact["pythons"] == {"3.9": "/usr/local/bin/python3.9", "3.11": "/usr/bin/python3.11"}
    assert fact["dkms"] == "3.0.10"
    assert (fact["secure_boot"], fact["secure_boot_reason"]) == (False, None)
    assert (fact["container"], fact["wsl"]) == (None, False)
    nulls = {key for key, value in fact.items() if value is None} - {"container", "secure_boot_reason"}
    assert nulls == set(fact["missing"])


def test_a_bare_node_says_why_it_knows_nothing(tmp_path: Path) -> None:
    fact = node_record.read_node(Node(str(tmp_path), says((1, "", ""))), tmp_path)

    assert fact["missing"]["python"] == "there is no /usr/bin/python3"
    assert fact["missing"]["dkms"] == "could not read package dkms: the node has neither dpkg's database nor rpm"
    assert fact["missing"]["secure_boot"] == fact["secure_boot_reason"] == "there is no /sys below the given root"
    assert fact["pythons"] == {}


@pytest.mark.parametrize(
    ("files", "container", "answer"),
    [
        ({VARIABLE: b"\x06\x00\x00\x00\x01"}, None, (True, None)),
        ({VARIABLE: b"\x06\x00\x00\x00\x00"}, None, (False, None)),
        ({VARIABLE: b"\x06\x00\x00\x00\x01"}, "podman", (True, None)),
        ({"sys/class/x": b""}, None, (False, None)),
        ({"sys/class/x": b""}, "podman", (None, "the firmware belongs to the host of this podman container")),
        ({"sys/firmware/efi/systab": b""}, None, (None, "/sys/firmware/efi/efivars is not mounted")),
        ({"sys/firmware/efi/efivars/Boot0": b""}, None, (None, "the EFI variable SecureBoot cannot be read")),
        ({VARIABLE: b""}, None, (None, "the EFI variable SecureBoot has 0 bytes that say neither on nor off")),
        ({VARIABLE: b"\x06\x00\x00\x00\x07"}, None,
         (None, "the EFI variable SecureBoot has 5 bytes that say neither on nor off")),
    ],
)  # fmt: skip
def test_secure_boot(tmp_path: Path, files: dict[str, bytes], container: str | None, answer: Any) -> None:
    for name, content in files.items():
        put(tmp_path, name, content)

    assert node_record.secure_boot_of(tmp_path, container) == answer


@pytest.mark.parametrize(
    ("version", "answer"),
    [("3.0.10-8+deb12u1", "3.0.10"), ("2.8.7-2ubuntu11.3", "2.8.7"), ("1:3.1.8-1.el9", "3.1.8"), ("3.0", "3.0")],
)
def test_the_version_of_dkms_is_its_own(root: Path, version: str, answer: str) -> None:
    put(root, "var/lib/dpkg/status", f"Package: dkms\nStatus: install ok installed\nVersion: {version}\n".encode())

    assert node_record.dkms(Node(str(root))) == (answer, None)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((0, "dkms-3.1.8\n", ""), ("3.1.8", None)),
        ((0, "dkms: 2.8.3\n", ""), ("2.8.3", None)),
        ((1, "", "broken"), (None, "dkms does not tell its version")),
    ],
)
def test_a_dkms_without_a_package_is_asked(root: Path, answer: tuple[int, str, str], found: Any) -> None:
    put(root, "var/lib/dpkg/status")
    assert node_record.dkms(Node(str(root), says(answer))) == (None, "dkms is not installed")

    program(root, "usr/sbin/dkms")
    assert node_record.dkms(Node(str(root), says(answer))) == found


def test_a_python_that_does_not_run_is_not_guessed(root: Path) -> None:
    assert node_record.system_python(Node(str(root), says((127, "", "no such\nlibrary")))) == (
        None,
        "/usr/bin/python3 does not run (no such library)",
    )


def test_an_interpreter_that_is_a_broken_link_is_none(root: Path) -> None:
    (root / "usr/bin/python3.13").symlink_to("/nowhere")
    program(root, "usr/bin/python3.12-config")
    program(root, "usr/local/bin/python3.11")

    assert node_record.pythons_of(root) == {"3.9": "/usr/local/bin/python3.9", "3.11": "/usr/bin/python3.11"}


@pytest.mark.parametrize("timeout", [0, -1, 3601])
def test_a_time_limit_that_means_nothing_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="Could not use the option timeout"):
        node_record.look({**OPTIONS, "timeout": timeout})


def send(options: dict[str, Any], script: bytes, before: str = "") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", before + probe_pack.START]
    return subprocess.run(command, input=probe_pack.message(options, script), capture_output=True, check=False)


def test_the_packed_script_answers_like_the_module() -> None:
    done = send(OPTIONS, probe_pack.build(PACKAGE))
    answer = probe_pack.parse(done.stdout.decode())

    assert (done.returncode, done.stderr) == (0, b"")
    assert answer is not None
    here = json.loads(json.dumps(node_record.look(OPTIONS)))
    for result in (answer, here):
        for key in ("collected_at", "duration_ms"):
            result["ansible_facts"]["gpu"].pop(key)
    assert answer == here
    assert set(answer["ansible_facts"]) == {"gpu", "node"}


def test_nothing_is_imported_from_the_folder_one_happens_to_be_in(tmp_path: Path) -> None:
    for name in ("json", "zlib", "rackwright", "subprocess"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')", encoding="utf-8")
    message = probe_pack.message(OPTIONS, probe_pack.build(PACKAGE))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    command = [sys.executable, "-c", probe_pack.START]
    done = subprocess.run(command, input=message, capture_output=True, check=False, cwd=tmp_path, env=environment)

    assert probe_pack.parse(done.stdout.decode()), done.stderr


def test_an_error_of_the_node_is_an_answer() -> None:
    done = send({**OPTIONS, "timeout": 0}, probe_pack.build(PACKAGE))
    answer = probe_pack.parse(done.stdout.decode())

    assert answer is not None
    assert answer["failed"]
    assert answer["kind"] == "invalid_input"
    assert answer["msg"].startswith("Could not use the option timeout on node_probe")


def test_a_crash_of_the_node_is_an_answer_with_its_place() -> None:
    done = send({"receipts_dir": "/nonexistent", "timeout": 1}, probe_pack.build(PACKAGE))
    answer = probe_pack.parse(done.stdout.decode())

    assert answer is not None
    assert answer["msg"] == "KeyError: 'sysroot'"
    assert "<packed rackwright.node_record>" in answer["exception"]


def test_a_python_that_is_too_old_says_so() -> None:
    old = "import sys; sys.version_info = (3, 6, 8, 'final', 0);"
    done = send(OPTIONS, probe_pack.build(PACKAGE), old)

    assert probe_pack.parse(done.stdout.decode()) == {"failed": True, "python": "3.6.8"}


def test_the_same_sources_give_the_same_script_and_others_another(tmp_path: Path) -> None:
    package = tmp_path / "rackwright"
    package.mkdir()
    (package / "node_record.py").write_text("from .a import x\n", encoding="utf-8")
    (package / "a.py").write_text("x = 1\n", encoding="utf-8")
    (package / "b.py").write_text("x = 1\n", encoding="utf-8")
    first = probe_pack.build(package)
    assert probe_pack.closure(package) == [package / "a.py", package / "node_record.py"]

    (package / "b.py").write_text("x = 2\n", encoding="utf-8")
    assert probe_pack.build(package) == first

    (package / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert probe_pack.build(package) != first


def test_the_cache_holds_one_script_and_never_an_old_one(tmp_path: Path) -> None:
    package, cache = tmp_path / "rackwright", tmp_path / "cache"
    package.mkdir()
    (package / "node_record.py").write_text("x = 1\n", encoding="utf-8")
    first = probe_pack.packed(package, cache)
    assert [path.read_bytes() for path in cache.iterdir()] == [first]
    assert probe_pack.packed(package, cache) == first

    (package / "node_record.py").write_text("x = 22\n", encoding="utf-8")
    second = probe_pack.packed(package, cache)
    assert second == probe_pack.build(package) != first
    assert [path.read_bytes() for path in cache.iterdir()] == [second]


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way", encoding="utf-8")

    assert probe_pack.packed(PACKAGE, tmp_path / "cache") == probe_pack.build(PACKAGE)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ('Welcome!\n\nRACKWRIGHT-PROBE {"a": 1}\nsudo: noise\n', {"a": 1}),
        ('RACKWRIGHT-PROBE {"a": 1}\nRACKWRIGHT-PROBE {"a": 2}\n', {"a": 2}),
        ('RACKWRIGHT-PROBE {"a": 1', None),
        ("RACKWRIGHT-PROBE [1]", None),
        ('{"a": 1}', None),
        ("", None),
    ],
)
def test_the_answer_is_found_among_noise(output: str, answer: Any) -> None:
    assert probe_pack.parse(output) == answer
