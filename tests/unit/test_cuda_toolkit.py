# SPDX-License-Identifier: Apache-2.0
"""CUDA toolkits on a node: which packages, which host compiler, and what counts as a proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import cuda_proof, cuda_toolkit
from ansible.module_utils.rackwright.cuda_toolkit import Wanted, resolve, wanted_packages
from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError, ProbeError
from ansible.module_utils.rackwright.packages import Candidate, Installed

TOOLKIT: dict[str, Any] = {
    "cuda": "12.8",
    "releases": [
        {"cuda": "12.8", "version": "12.8.1", "package": "cuda-toolkit-12-8", "host_gcc_max": 14},
        {"cuda": "13.0", "version": "13.0.3", "package": "cuda-toolkit-13-0", "host_gcc_max": 15},
    ],
    "libraries": {"cudnn": ["cudnn9-cuda-{major}"], "nccl": ["libnccl2", "libnccl-dev"]},
}
ROW: dict[str, Any] = {
    "cuda": "13.0",
    "version": "13.0.3",
    "host_gcc_max": 15,
    "compute_capabilities": ["7.5", "9.0", "12.1"],
}
NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release 13.0, V13.0.88
Build cuda_13.0.r13.0/compiler.36424714_0
"""
#: the first bytes of what nvcc 13.0 made of a kernel for sm_90
CUBIN = bytes.fromhex("7f454c4602014108000000000000000002 00be00".replace(" ", ""))


def offered(name: str, *versions: str) -> list[Candidate]:
    return [Candidate(name, version, name) for version in versions]


@pytest.mark.parametrize(
    ("wanted", "version", "fits"),
    [
        (Wanted("t", "12.8.1"), "12.8.1-1", True),
        (Wanted("t", "12.8.1"), "3:12.8.1-1", True),
        (Wanted("t", "12.8.1"), "12.8.1", True),
        (Wanted("t", "12.8.1"), "12.8.10-1", False),
        (Wanted("t", "12.8.1"), "12.8.0-1", False),
        (Wanted("cudnn9-cuda-13", "9.26.0"), "9.26.0.51-1", True),
        (Wanted("libnccl2", "2.30.7", "+cuda13."), "2.30.7-1+cuda13.2", True),
        (Wanted("libnccl2", "2.30.7", "+cuda13."), "2.30.7-1+cuda12.9", False),
    ],
)
def test_a_pin_fits_its_own_release_only(wanted: Wanted, version: str, fits: bool) -> None:
    assert wanted.fits(version) is fits


def test_packages_of_every_line_and_of_the_libraries_that_are_asked_for() -> None:
    libraries = {"cudnn": "9.26.0.51", "nccl": "2.30.7"}

    assert [item.name for item in wanted_packages(TOOLKIT, libraries, False, False, "n")] == [
        "cuda-toolkit-12-8",
        "cuda-toolkit-13-0",
    ]
    assert wanted_packages(TOOLKIT, libraries, True, True, "n")[2:] == [
        Wanted("cudnn9-cuda-12", "9.26.0.51"),
        Wanted("libnccl2", "2.30.7", "+cuda12."),
        Wanted("libnccl-dev", "2.30.7", "+cuda12."),
    ]


def test_a_library_that_the_lock_has_no_version_of_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"the lock has no version of it.*Set cuda_toolkit_nccl to false"):
        wanted_packages(TOOLKIT, {"cudnn": None, "nccl": None}, False, True, "n")


def test_the_newest_revision_that_fits_is_chosen_and_what_fits_already_stays() -> None:
    wanted = [Wanted("t", "12.8.1")]
    candidates = offered("t", "12.8.0-1", "12.8.1-9", "12.8.1-10", "12.9.1-1")

    assert resolve(wanted, candidates, {}, "n") == ["t=12.8.1-10"]
    assert resolve(wanted, candidates, {"t": Installed("t", "12.8.1-2", "ii ", "t")}, "n") == ["t=12.8.1-2"]
    assert resolve(wanted, candidates, {"t": Installed("t", "12.8.0-1", "ii ", "t")}, "n") == ["t=12.8.1-10"]


@pytest.mark.parametrize(("versions", "shown"), [(["12.8.0-1", "12.9.1-1"], "12.9.1-1, 12.8.0-1"), ([], "none")])
def test_a_version_that_no_source_has_is_refused_with_those_there_are(versions: list[str], shown: str) -> None:
    with pytest.raises(MissingError, match=f"the lock says 12.8.1 and the node's sources have {shown}"):
        resolve([Wanted("t", "12.8.1")], offered("t", *versions), {}, "n")


@pytest.mark.parametrize(
    ("found", "newest", "chosen"),
    [
        ({"g++": 12}, 14, None),
        ({"g++": 14}, 14, None),
        ({"g++": 15, "g++-12": 12, "g++-14": 14}, 14, "g++-14"),
        ({"g++-12": 12}, 14, "g++-12"),
        ({"g++": 99}, None, None),
    ],
)
def test_host_compiler(found: dict[str, int], newest: int | None, chosen: str | None) -> None:
    assert cuda_toolkit.choose_host_compiler(found, newest, "12.8", "n") == chosen


@pytest.mark.parametrize(
    ("found", "newest", "said"),
    [
        ({"g++": 15}, 14, r"it takes g\+\+ 14 or older and the node has g\+\+ 15. Add g\+\+-14 to"),
        ({}, None, r"it takes g\+\+ and the node has none. Add g\+\+ to"),
    ],
)
def test_no_host_compiler_that_fits(found: dict[str, int], newest: int | None, said: str) -> None:
    with pytest.raises(MissingError, match=said):
        cuda_toolkit.choose_host_compiler(found, newest, "12.8", "n")


def test_the_version_of_a_compiler() -> None:
    assert cuda_toolkit.compiler_version(NVCC) == ("13.0", "13.0.88")
    assert cuda_toolkit.compiler_version("nvcc: command not found") is None


@pytest.mark.parametrize(
    ("data", "is_code"), [(CUBIN, True), (b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00", False), (b"", False)]
)
def test_gpu_code_is_told_from_other_files(data: bytes, is_code: bool) -> None:
    assert cuda_toolkit.is_gpu_code(data) is is_code


@pytest.mark.parametrize(
    ("capabilities", "names"),
    [(["9.0", "9.0"], ["sm_90"]), (["12.1", "7.5"], ["sm_121", "sm_75"]), ([], ["sm_121"]), (["7.0"], ["sm_121"])],
)
def test_architectures(capabilities: list[str], names: list[str]) -> None:
    assert cuda_toolkit.architectures(capabilities, ROW["compute_capabilities"]) == names


class Toolbox:
    """Answers the calls of a proof like a node with one toolkit; what it writes is what a test says."""

    def __init__(
        self, home: Path, *, version: str = NVCC, code: bytes = CUBIN, error: str = "", answer: str = "42\n"
    ) -> None:
        self.home, self.version, self.code, self.error, self.answer = home, version, code, error, answer
        self.calls: list[list[str]] = []
        (home / "bin").mkdir(parents=True)
        (home / "bin/nvcc").write_text("#!/bin/sh\n")
        (home / "bin/nvcc").chmod(0o755)

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(list(command))
        if command[-1] == "--version":
            return 0, self.version, ""
        if command[-1] == "-dumpversion":
            return 0, "12\n", ""
        if "-o" not in command:
            return 0, self.answer, ""
        if self.error:
            return 1, "", self.error
        Path(command[list(command).index("-o") + 1]).write_bytes(self.code)
        return 0, "", ""


def proof(toolbox: Toolbox, launch: bool = False) -> dict[str, Any]:
    return cuda_proof.prove(toolbox, toolbox.home, ROW, ["9.0", "7.5"], launch, "g++-12", "n")


def test_a_toolkit_compiles_for_every_gpu(tmp_path: Path) -> None:
    toolbox = Toolbox(tmp_path / "cuda")

    assert proof(toolbox) == {
        "version": "13.0.88",
        "home": str(tmp_path / "cuda"),
        "host_compiler": "g++-12",
        "compiled_for": ["sm_90", "sm_75"],
        "ran": None,
    }
    assert [call[4] for call in toolbox.calls if "-cubin" in call] == ["-arch=sm_90", "-arch=sm_75"]
    assert all(call[1:3] == ["-ccbin", "g++-12"] for call in toolbox.calls if "-cubin" in call)


def test_a_kernel_is_launched_where_a_gpu_can(tmp_path: Path) -> None:
    assert proof(Toolbox(tmp_path / "cuda"), launch=True)["ran"] is True
    with pytest.raises(ProbeError, match="said 41 instead of 42"):
        proof(Toolbox(tmp_path / "other", answer="41\n"), launch=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": NVCC.replace("13.0", "12.9")}, "says it is 12.9.88"),
        ({"version": ""}, "says it is exit code 0"),
        ({"code": b"\x7fELF\x02\x01" + bytes(14)}, "left no GPU code for sm_90"),
        (
            {"error": "In file included from x\nhost_config.h:151:2: error: unsupported GNU version! gcc past 14"},
            "unsupported GNU version",
        ),
    ],
)
def test_what_is_no_working_toolkit_is_named(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ProbeError, match=said):
        proof(Toolbox(tmp_path / "cuda", **options))


def test_a_toolkit_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="bin/nvcc is not there"):
        cuda_proof.prove(lambda _command: (0, "", ""), tmp_path, ROW, [], False, "", "n")


def test_the_link_names_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, old, new = tmp_path / "cuda", tmp_path / "cuda-12.8", tmp_path / "cuda-13.0"
    old.mkdir()
    new.mkdir()
    link.symlink_to(old)
    monkeypatch.setattr(cuda_proof, "LINK", str(link))
    monkeypatch.setattr(cuda_proof, "_ALTERNATIVES", ())

    cuda_proof.link_to(lambda _command: (1, "", ""), new, "n")

    assert cuda_proof.linked() == str(new)


def test_a_directory_in_the_place_of_the_link_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "cuda"
    link.mkdir()
    monkeypatch.setattr(cuda_proof, "LINK", str(link))

    with pytest.raises(ProbeError, match=r"is a directory and not a link\. Move it away"):
        cuda_proof.link_to(lambda _command: (0, "", ""), tmp_path / "cuda-13.0", "n")
    assert link.is_dir()
