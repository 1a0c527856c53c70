# SPDX-License-Identifier: Apache-2.0
"""Modules on the disk and DKMS's tree, as records: real ELF files in every compression, and files that are none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.software_samples import CLOSED, KERNEL, OPEN, add_dkms, add_kernel, add_module, module_bytes, packed, write

from ansible.module_utils.rackwright import kernel_module
from ansible.module_utils.rackwright.kernel_module import dkms_of, find_module, read_dkms, read_kernel, read_modinfo

V, OLD = "580.178.04", "580.65.06"


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz"])
@pytest.mark.parametrize("licence", [OPEN, CLOSED])
@pytest.mark.parametrize("padding", [0, 3_000_000], ids=["small", "several chunks"])
def test_version_and_licence_come_from_the_file(tmp_path: Path, suffix: str, licence: str, padding: int) -> None:
    path = write(tmp_path, f"nvidia.ko{suffix}", packed(module_bytes(V, licence, padding), suffix))
    assert read_modinfo(path) == ({"version": V, "license": licence}, None)


def test_a_module_without_a_version_gives_none(tmp_path: Path) -> None:
    assert read_modinfo(write(tmp_path, "nvidia.ko", module_bytes(None))) == ({"license": OPEN}, None)
    fields, reason = read_modinfo(write(tmp_path, "nvidia.ko.xz", packed(module_bytes(None), ".xz")))
    assert (fields, reason) == (None, "the file names no version of a driver")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nvidia.ko", b""),
        ("nvidia.ko", b"not a module at all, however long this text is made so that a header would fit into it"),
        ("nvidia.ko", module_bytes(V)[:700]),
        ("nvidia.ko.xz", b"\xfd7zXZ\x00 broken"),
        ("nvidia.ko.xz", packed(module_bytes(V), ".xz")[:100]),
        ("nvidia.ko.gz", b"nothing"),
    ],
)
def test_a_damaged_module_is_a_reason(tmp_path: Path, name: str, content: bytes) -> None:
    fields, reason = read_modinfo(write(tmp_path, name, content))
    assert fields is None or "version" not in fields
    assert reason or fields == {}


def test_a_module_that_is_gone_is_a_reason(tmp_path: Path) -> None:
    fields, reason = read_modinfo(tmp_path / "nvidia.ko")
    assert (fields, reason) == (None, "nvidia.ko cannot be read as a kernel module (No such file or directory)")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), junk=st.binary(max_size=64), place=st.integers(0, 4000))
def test_no_bytes_make_it_raise(tmp_path: Path, cut: int, junk: bytes, place: int) -> None:
    content = bytearray(module_bytes(V)[: max(cut, 1)])
    content[place : place + len(junk)] = junk
    for suffix in ("", ".xz", ".gz"):
        fields, reason = read_modinfo(write(tmp_path, f"nvidia.ko{suffix}", bytes(content)))
        assert (fields is None) == (reason is not None)


def test_zstd_is_left_to_modinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "nvidia.ko.zst", b"(\xb5/\xfd")
    monkeypatch.setattr(kernel_module, "_MODINFO", (str(tmp_path / "none"),))
    assert "modinfo is not installed" in str(read_modinfo(path)[1])
    # what kmod 30's modinfo prints for a module, shortened
    answer = f"filename: {path}\nversion:        {V}\nlicense:        Dual MIT/GPL\nvermagic: 6.8.0\n"
    program = write(tmp_path, "modinfo", f"#!/bin/sh\ncat <<'.'\n{answer}.\n")
    program.chmod(0o755)
    monkeypatch.setattr(kernel_module, "_MODINFO", (str(program),))
    assert read_modinfo(path) == ({"version": V, "license": OPEN}, None)
    program.write_text("#!/bin/sh\necho 'modinfo: ERROR: could not get modinfo' >&2; exit 1\n")
    fields, reason = read_modinfo(path)
    assert (fields, reason) == (None, "modinfo cannot read nvidia.ko.zst (modinfo: ERROR: could not get modinfo)")


@pytest.mark.parametrize(
    "name",
    [
        "updates/dkms/nvidia.ko",
        "updates/dkms/nvidia-current.ko.xz",
        "updates/dkms/nvidia-current-open.ko",
        "extra/nvidia.ko.xz",
        "kernel/nvidia-580-server-open/nvidia.ko.zst",
        "kernel/drivers/video/nvidia.ko",
    ],
)
def test_a_module_is_found_in_depmods_list_and_before_depmod_ran(tmp_path: Path, name: str) -> None:
    folder = add_kernel(tmp_path)
    assert find_module(folder) is None
    write(folder, name)
    assert find_module(folder) == name
    write(folder, "updates/zz/nvidia.ko")
    with (folder / "modules.dep").open("a") as stream:
        stream.write(f"{name}: kernel/drivers/video/video.ko\n")
    assert find_module(folder) == name


@pytest.mark.parametrize(
    "name", ["nvidia-uvm", "nvidia-drm", "nvidia-modeset", "nvidia-peermem", "nvidia-fs", "nvidiafb"]
)
def test_companions_are_not_the_module(tmp_path: Path, name: str) -> None:
    folder = add_kernel(tmp_path)
    add_module(folder, f"updates/dkms/{name}.ko", b"")
    assert find_module(folder) is None


def test_a_listed_module_that_is_gone_is_none(tmp_path: Path) -> None:
    folder = add_kernel(tmp_path)
    add_module(folder, "updates/dkms/nvidia.ko", b"").unlink()
    assert find_module(folder) is None


def state(root: Path, kernel: str) -> tuple[Any, Any]:
    row = dkms_of(read_dkms(root) or [], kernel)
    return (row["state"], row["version"]) if row else (None, None)


def test_dkms_states_come_from_its_tree(tmp_path: Path) -> None:
    assert read_dkms(tmp_path) == []
    add_dkms(tmp_path, OLD, None, "added")
    assert state(tmp_path, KERNEL) == ("added", OLD)
    add_dkms(tmp_path, V, None, "added")
    assert state(tmp_path, KERNEL) == ("added", V)
    add_dkms(tmp_path, OLD, KERNEL, "built")
    assert state(tmp_path, KERNEL) == ("built", OLD)
    add_dkms(tmp_path, OLD, KERNEL, "installed")
    add_dkms(tmp_path, V, KERNEL, "built")
    assert state(tmp_path, KERNEL) == ("installed", OLD)
    add_dkms(tmp_path, V, KERNEL, "installed")
    assert state(tmp_path, KERNEL) == ("installed", V)
    assert state(tmp_path, "6.1.0-60-amd64") == ("added", V)


def test_other_modules_of_nvidia_are_not_the_driver(tmp_path: Path) -> None:
    for name in ("nvidia-fs", "nvidia-peermem", "zfs"):
        (tmp_path / "var/lib/dkms" / name / "2.24.2").mkdir(parents=True)
    assert read_dkms(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_closed_tree_is_not_an_empty_one(tmp_path: Path) -> None:
    tree = tmp_path / "var/lib/dkms"
    tree.mkdir(parents=True)
    tree.chmod(0)
    assert read_dkms(tmp_path) is None
    tree.chmod(0o755)


#: where the module lies, DKMS's state (None: DKMS has nothing), origin
ORIGINS = [
    ("updates/dkms/nvidia.ko", "installed", "dkms"),
    ("extra/nvidia.ko", "installed", "dkms"),
    ("extra/nvidia.ko", None, "package"),
    ("weak-updates/nvidia.ko", None, "package"),
    ("kernel/nvidia-580-server-open/nvidia.ko", None, "package"),
    ("kernel/drivers/video/nvidia.ko", None, "other"),
    ("updates/nvidia.ko", None, "other"),
]


@pytest.mark.parametrize(("name", "dkms", "origin"), ORIGINS)
def test_origin_is_told_by_the_place_and_dkms(tmp_path: Path, name: str, dkms: str | None, origin: str) -> None:
    folder = add_kernel(tmp_path)
    add_module(folder, name, module_bytes(V, CLOSED))
    if dkms:
        add_dkms(tmp_path, V, KERNEL, dkms)
    record, missing = read_kernel(folder, dkms_of(read_dkms(tmp_path) or [], KERNEL))
    assert (record["version"], record["flavour"], record["origin"], record["path"]) == (V, "proprietary", origin, name)
    assert record["dkms"] == (dkms or "none")
    assert set(missing) == ({"dkms_version"} if dkms is None else set())


def test_a_kernel_without_a_module_says_so(tmp_path: Path) -> None:
    record, missing = read_kernel(add_kernel(tmp_path), None)
    assert (record["version"], record["origin"], record["dkms"]) == (None, "none", "none")
    assert missing["version"] == "there is no NVIDIA module for this kernel"


@pytest.mark.parametrize("suffix", [".xz", ".gz"])
def test_the_very_file_that_dkms_built_is_not_unpacked(tmp_path: Path, suffix: str) -> None:
    content = packed(module_bytes(V), suffix)
    folder = add_kernel(tmp_path)
    path = add_module(folder, f"updates/dkms/nvidia.ko{suffix}", content)
    add_dkms(tmp_path, OLD, KERNEL, "installed", content, suffix)
    row = dkms_of(read_dkms(tmp_path) or [], KERNEL)
    # DKMS's own version is believed only as long as the file is DKMS's: the tree says OLD, another file is read
    record, missing = read_kernel(folder, row)
    assert (record["version"], record["flavour"]) == (OLD, None)
    assert "not unpacked" in missing["flavour"]
    path.write_bytes(packed(module_bytes(V, CLOSED), suffix))
    record, missing = read_kernel(folder, row)
    assert (record["version"], record["flavour"], missing) == (V, "proprietary", {})


@pytest.mark.skipif(shutil.which("zstd") is None, reason="there is no zstd to pack one with")
def test_a_zstd_module_that_dkms_built_needs_no_modinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "_MODINFO", ())
    content = packed(module_bytes(V), ".zst")
    folder = add_kernel(tmp_path)
    add_module(folder, "updates/dkms/nvidia.ko.zst", content)
    add_dkms(tmp_path, V, KERNEL, "installed", content, ".zst")
    record, _missing = read_kernel(folder, dkms_of(read_dkms(tmp_path) or [], KERNEL))
    assert record["version"] == V
