# SPDX-License-Identifier: Apache-2.0
"""The stub repositories of the vendor: names, relations, files and signatures."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodes import prerequisites
from nodes.vendor import cuda_deb, cuda_rpm, deb, debian, dnf_repo, drivers, el_base, redhat, repositories, rpm, ubuntu
from nodes.vendor.deb_common import keyring, pinning
from nodes.vendor.model import FILES, Package, filled
from nodes.vendor.signing import throwaway_key

ROOT = Path(__file__).resolve().parents[3]
# what the distribution has to bring
EXTERNAL_DEB = {"dkms", "build-essential"}
EXTERNAL_RPM = {"dkms", "linux-firmware", "gcc-c++"}


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of the stubs do not matter here."""
    monkeypatch.setattr(drivers, "stub_library", lambda soname, cuda=0: f"{soname} {cuda}".encode())


def catalogues() -> list[tuple[str, list[Package], set[str]]]:
    return [
        ("debian12", [*debian.packages("debian12"), *cuda_deb.packages("debian12")], EXTERNAL_DEB),
        ("ubuntu2404", [*ubuntu.packages("ubuntu2404"), *cuda_deb.packages("ubuntu2404")], EXTERNAL_DEB),
        ("rhel9", [*redhat.packages("el9"), *cuda_rpm.packages()], EXTERNAL_RPM),
    ]


def version_of(name: str, packages: list[Package], upstream: str) -> str:
    found = [item.version for item in packages if item.name == name and item.upstream == upstream]
    assert len(found) == 1, f"{name} {upstream}: {found}"
    return found[0]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_relation_can_be_met_and_nothing_is_there_twice(index: int) -> None:
    _distro, packages, external = catalogues()[index]
    assert len({(item.name, item.version) for item in packages}) == len(packages)
    offered: dict[str, set[str]] = {}
    for item in packages:
        offered.setdefault(item.name, set()).add(item.version)
        for provided in item.provides:
            offered.setdefault(re.split(r"[ (]", provided)[0], set()).add(item.version)
    for item in packages:
        for relation in item.depends:
            name = re.split(r"[ (]", relation)[0]
            if name in external:
                continue
            assert name in offered, f"{item.name} needs {relation}"
            exact = re.search(r"\(= ([^)]+)\)$", relation)
            if exact:
                assert exact[1] in offered[name], f"{item.name} {item.version} needs {relation}"


@pytest.mark.parametrize(
    ("index", "upstream", "expected"),
    [
        (0, "580.178.04", {"nvidia-driver-cuda": "580.178.04-1", "nvidia-kernel-open-dkms": "580.178.04-1"}),
        (0, "580.65.06", {"nvidia-fabricmanager": "580.65.06-1", "cuda-drivers-580": "580.65.06-1"}),
        (0, "570.211.01", {"nvidia-fabricmanager-570": "570.211.01-1", "libnvidia-nscq-570": "570.211.01-1"}),
        (1, "580.178.04", {"nvidia-open-580": "580.178.04-0ubuntu1", "nvidia-dkms-580-open": "580.178.04-0ubuntu1"}),
        (
            1,
            "580.178.04",
            {"nvidia-fabricmanager": "580.178.04-1ubuntu1", "nvidia-persistenced": "580.178.04-0ubuntu1"},
        ),
        (1, "595.91.07", {"nvidia-open": "595.91.07-1ubuntu1", "libnvidia-compute": "595.91.07-1ubuntu1"}),
        (1, "595.91.07", {"nvidia-dkms-open": "595.91.07-1ubuntu1", "nvidia-fabricmanager": "595.91.07-1ubuntu1"}),
        (2, "610.57.04", {"nvidia-open": "3:610.57.04-1.el9", "kmod-nvidia-open-dkms": "3:610.57.04-1.el9"}),
        (2, "570.211.01", {"nvidia-fabric-manager": "570.211.01-1", "nvidia-driver-cuda": "3:570.211.01-1.el9"}),
        (2, "590.48.01", {"nvidia-fabricmanager": "590.48.01-1", "kmod-nvidia-latest-dkms": "3:590.48.01-1.el9"}),
    ],
)
def test_names_and_versions_are_the_vendors(index: int, upstream: str, expected: dict[str, str]) -> None:
    _distro, packages, _external = catalogues()[index]
    assert {name: version_of(name, packages, upstream) for name in expected} == expected


def test_no_name_carries_a_branch_from_590_on() -> None:
    names = {item.name for item in ubuntu.packages("ubuntu2404") if item.upstream.startswith(("590.", "595.", "610."))}
    pins = {name for name in names if name.startswith("nvidia-driver-pinning-")}
    assert not [name for name in names - pins if re.search(r"-(5|6)\d\d\b", name)]


def test_the_driver_of_debian_takes_what_is_newest_unless_it_is_pinned() -> None:
    packages = debian.packages("debian12")
    (old,) = [item for item in packages if item.name == "cuda-drivers-580" and item.upstream == "580.178.04"]
    assert "nvidia-driver-cuda (>= 580.178.04)" in old.depends


def test_a_pinning_package_pins_its_branch_and_excludes_the_others() -> None:
    found = {item.name: item for item in pinning(drivers.VERSIONS, "1", 580)}
    assert "nvidia-driver-pinning-570" not in found
    assert {"nvidia-driver-pinning-580", "nvidia-driver-pinning-595.91.07"} <= found.keys()
    (text,) = found["nvidia-driver-pinning-595"].files.values()
    assert b"Pin: version 595.*\nPin-Priority: 1000\n" in text
    assert found["nvidia-driver-pinning-595"].conflicts == ("nvidia-driver-pinning",)


def test_only_the_broken_version_has_a_fault() -> None:
    faulty = [
        v for v in drivers.VERSIONS if b"kfree();" in drivers.module_source(v, "open")[f"usr/src/nvidia-{v}/nvidia.c"]
    ]
    assert faulty == [drivers.BROKEN]
    assert (
        b'MODULE_LICENSE("NVIDIA")'
        in drivers.module_source("580.65.06", "proprietary")["usr/src/nvidia-580.65.06/nvidia.c"]
    )


PACKAGE = Package(
    "demo",
    "1.2-3",
    source="demo-source",
    depends=("dkms (>= 3.1.8)",),
    files={"usr/bin/demo": b"#!/bin/sh\n", "etc/demo.conf": b"a\n"},
    links={"usr/lib/libdemo.so.1": "libdemo.so.1.2"},
    config=("/etc/demo.conf",),
    scripts={"postinst": "#!/bin/sh\nexit 0\n"},
)


def members(data: bytes) -> dict[str, dict[str, tuple[int, bytes]]]:
    """The two archives of a .deb, without dpkg-deb."""
    found, offset = {}, 8
    assert data.startswith(b"!<arch>\n")
    while offset < len(data):
        name, size = data[offset : offset + 16].strip().decode(), int(data[offset + 48 : offset + 58])
        content = data[offset + 60 : offset + 60 + size]
        if ".tar" in name:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                found[name] = {
                    item.name: (item.mode, archive.extractfile(item).read() if item.isfile() else b"")  # type: ignore[union-attr]
                    for item in archive.getmembers()
                }
        offset += 60 + size + size % 2
    return found


def test_a_deb_is_what_dpkg_writes() -> None:
    data = deb.build(PACKAGE)
    assert data == deb.build(PACKAGE)
    parts = members(data)
    control = parts["control.tar.gz"]["./control"][1].decode()
    assert control.startswith("Package: demo\nSource: demo-source\nVersion: 1.2-3\nArchitecture: amd64\n")
    assert "Depends: dkms (>= 3.1.8)\n" in control
    assert parts["control.tar.gz"]["./conffiles"][1] == b"/etc/demo.conf\n"
    assert parts["control.tar.gz"]["./postinst"][0] == 0o755
    assert parts["data.tar.gz"]["./usr/bin/demo"] == (0o755, b"#!/bin/sh\n")
    assert parts["data.tar.gz"]["./etc/demo.conf"][0] == 0o644
    assert "./usr/lib/libdemo.so.1" in parts["data.tar.gz"]


def test_the_index_describes_the_file(tmp_path: Path) -> None:
    index = deb.write([PACKAGE], tmp_path)
    data = (tmp_path / "demo_1.2-3_amd64.deb").read_bytes()
    assert f"SHA256: {hashlib.sha256(data).hexdigest()}\n" in index
    assert f"Size: {len(data)}\n" in index
    assert "Filename: ./demo_1.2-3_amd64.deb\n" in index


def test_the_keyring_names_no_host() -> None:
    package = keyring("debian12", "/srv/vendor", b"key")
    text = package.files["etc/apt/sources.list.d/cuda-debian12-x86_64.list"].decode()
    assert text.endswith("] file:///srv/vendor/compute/cuda/repos/debian12/x86_64/ /\n")


def test_packages_that_clash_are_packed_apart() -> None:
    one = Package("a", "1-1", files={"x": b""})
    two = Package("b", "1-1", files={"x": b""})
    three = Package("a", "2-1")
    four = Package("c", "1-1")
    assert rpm.groups([one, two, three, four]) == [[one, four], [two, three]]


def test_a_spec_carries_epoch_release_and_relations(tmp_path: Path) -> None:
    (item,) = [p for p in redhat.packages("el9") if p.name == "kmod-nvidia-open-dkms" and p.upstream == "580.178.04"]
    text = rpm.spec([item], tmp_path)
    for line in (
        "%package -n kmod-nvidia-open-dkms\nVersion: 580.178.04\nRelease: 1.el9\nEpoch: 3\n",
        "Requires: nvidia-kmod-common = 3:580.178.04\n",
        "Provides: nvidia-kmod = 3:580.178.04\n",
        "Conflicts: kmod-nvidia-latest-dkms\n",
        "AutoReqProv: no\n",
        '%dir "/usr/src/nvidia-580.178.04"\n',
    ):
        assert line in text
    assert rpm.nevra(item) == "kmod-nvidia-open-dkms-3:580.178.04-1.el9.x86_64"


def test_a_stream_has_its_branch_and_its_kind_of_module_only() -> None:
    documents = list(yaml.safe_load_all(dnf_repo.modules(redhat.packages("el9"), "el9")))
    streams = {
        str(d["data"]["stream"]): d["data"]["artifacts"]["rpms"] for d in documents if d["document"] == "modulemd"
    }
    assert {"latest-dkms", "open-dkms", "580", "580-dkms", "580-open", "610-open"} <= streams.keys()
    assert all(":580." in name for name in streams["580-open"] if "fabric" not in name)
    kmods = {name: sorted(n for n in rpms if n.startswith("kmod-")) for name, rpms in streams.items()}
    assert [re.sub(r"-3:.*", "", name) for name in kmods["580-open"]] == ["kmod-nvidia-open-dkms"] * 2
    assert [re.sub(r"-3:.*", "", name) for name in kmods["580-dkms"]] == ["kmod-nvidia-latest-dkms"] * 2
    assert kmods["580"] == []
    assert {":610." in name for name in streams["latest-dkms"]} == {True}
    assert documents[-1]["data"]["stream"] == "latest-dkms"


def test_the_distribution_offers_headers_of_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = el_base.KERNELS[9]
    packages = {(item.name, item.version): item for item in el_base.baseos(9)}
    assert packages["kernel-core", first].links == {
        f"usr/lib/modules/{first}.x86_64/build": f"/usr/src/kernels/{first}.x86_64"
    }
    assert packages["kernel-devel", last].links == {f"usr/src/kernels/{last}.x86_64": el_base.HEADERS}
    assert f"kernel-devel = {first}" in packages["kernel-devel-matched", first].depends
    assert {name for name, _version in packages} >= set(el_base.INSTALLED)
    monkeypatch.setattr(el_base.real_dkms, "package", lambda: Package("dkms", "1:3.2.2-0standin1"))
    assert [(item.name, item.version) for item in el_base.epel(9)] == [("dkms", "3.2.2-1.el9")]


def test_a_signature_is_of_the_key_that_is_handed_out(tmp_path: Path) -> None:
    text = tmp_path / "Release"
    text.write_text("Origin: NVIDIA\n")
    with throwaway_key() as key:
        home, fingerprint = key.home, key.fingerprint
        key.public(tmp_path / "key.gpg", armoured=False)
        key.clear_sign(text, tmp_path / "InRelease")
    assert not home.exists()
    check = ["gpgv", "--status-fd", "1", "--keyring", str(tmp_path / "key.gpg"), str(tmp_path / "InRelease")]
    said = subprocess.run(check, capture_output=True, text=True, check=True).stdout
    assert f"VALIDSIG {fingerprint}" in said


def test_the_build_is_known_by_its_builder(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = repositories.digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    assert repositories.digest(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    assert repositories.digest(tmp_path) != first


def test_what_the_repositories_are_built_with_is_named() -> None:
    assert prerequisites.missing_for_vendor("deb", lambda _name: "/x") == []
    assert prerequisites.missing_for_vendor("deb", lambda name: name != "gpg") == ["gnupg"]
    lacking = prerequisites.missing_for_vendor("rpm", lambda name: not name.startswith(("rpm", "create", "modify")))
    assert lacking == ["rpm", "createrepo-c"]


@pytest.fixture
def nvcc(tmp_path: Path) -> Callable[..., Any]:
    program = tmp_path / "nvcc"
    program.write_bytes(filled("nvcc", release="12.8", build="12.8.93", gcc_max="14"))
    program.chmod(0o755)
    (tmp_path / "k.cu").write_text("__global__ void k() {}\n")

    def run(*words: str, gcc: str | None = "12") -> Any:
        compiler = tmp_path / "bin/gcc"
        compiler.parent.mkdir(exist_ok=True)
        compiler.unlink(missing_ok=True)
        if gcc:
            compiler.write_text(f"#!/bin/sh\necho {gcc}\n")
            compiler.chmod(0o755)
        environment = {"PATH": str(compiler.parent)}
        return subprocess.run(
            [*PYTHON, str(program), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


PYTHON = ["/usr/bin/python3"] if Path("/usr/bin/python3").exists() else [str(ROOT / ".venv/bin/python")]


def test_nvcc_says_its_release_and_that_it_is_a_stand_in(nvcc: Callable[..., Any]) -> None:
    said = nvcc("--version").stdout
    assert "release 12.8, V12.8.93" in said
    assert "Stand-in" in said


def test_nvcc_writes_device_code_of_the_architecture(nvcc: Callable[..., Any], tmp_path: Path) -> None:
    assert nvcc("-cubin", "-arch=sm_90", "-o", "k.cubin", "k.cu").returncode == 0
    head = (tmp_path / "k.cubin").read_bytes()
    assert head[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", head, 18)[0] == 190
    assert struct.unpack_from("<I", head, 48)[0] == 90


@pytest.mark.parametrize(("gcc", "word"), [(None, "gcc: No such file"), ("15", "gcc versions later than 14")])
def test_nvcc_wants_a_host_compiler_that_it_knows(nvcc: Callable[..., Any], gcc: str | None, word: str) -> None:
    done = nvcc("-cubin", "k.cu", gcc=gcc)
    assert done.returncode == 1
    assert word in done.stderr


def test_every_stand_in_says_that_it_is_one() -> None:
    for path in sorted(FILES.iterdir()):
        text = path.read_text(encoding="utf-8")
        if text.startswith("#!") and "dkms" not in path.name:
            assert re.search(r"stand-in", text, re.IGNORECASE), path.name
