"""What is installed and whole, what a set of wheels needs, and where space runs out."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright.errors import MissingError, RackwrightError
from ansible.module_utils.rackwright.wheel_install import (
    Attempt,
    IndexSource,
    Venv,
    discard_wheels,
    file_digest,
    install_index,
    outdated,
    pin_problems,
    verify_files,
)
from ansible.module_utils.rackwright.wheelhouse import MANIFEST, SetRequest, Target, close, make_set, read_manifest
from ansible.module_utils.rackwright.wheels import (
    Need,
    canonical,
    closure,
    problems_of,
    read_dists,
    read_space,
    remove_dist,
    space_shortfall,
)


def install(site: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> Path:
    """Lay down what pip would: a package, its metadata and its RECORD."""
    package = site / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\n")
    size = (package / "__init__.py").stat().st_size
    (info / "RECORD").write_text(f"{package.name}/__init__.py,sha256=x,{size}\n{info.name}/RECORD,,\n")
    return info


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "venv" / "lib" / "site-packages"
    install(path, "torch", "2.13.0+cpu", ("numpy", "sympy>=1.13; extra == 'math'", "typing-extensions>=4"))
    install(path, "numpy", "2.4.6")
    install(path, "typing_extensions", "4.16.0")
    return path


def test_whole_distributions_have_no_problem(site: Path) -> None:
    dists = read_dists(site)
    assert sorted(dists) == ["numpy", "torch", "typing-extensions"]
    assert [problems_of(dists, name) for name in dists] == [None, None, None]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("rm RECORD", "torch 2.13.0+cpu has no readable RECORD (interrupted install)"),
        ("rm METADATA", "torch 2.13.0+cpu has no METADATA"),
        ("truncate", "torch 2.13.0+cpu: 1 recorded files are missing or changed, first torch/__init__.py"),
        ("rm package", "torch 2.13.0+cpu: 1 recorded files are missing or changed, first torch/__init__.py"),
        ("binary RECORD", "torch 2.13.0+cpu has no readable RECORD (interrupted install)"),
        ("second", "torch is registered twice: 2.12.0, 2.13.0+cpu"),
        ("rm info", "torch is not installed"),
    ],
)
def test_damage_is_named(site: Path, damage: str, problem: str) -> None:
    info = site / "torch-2.13.0+cpu.dist-info"
    if damage == "truncate":
        (site / "torch" / "__init__.py").write_text("")
    elif damage == "rm package":
        shutil.rmtree(site / "torch")
    elif damage == "second":
        (site / "torch-2.12.0.dist-info").mkdir()
    elif damage == "rm info":
        shutil.rmtree(info)
    elif damage == "binary RECORD":
        (info / "RECORD").write_bytes(b"\xff\xfe\x00torch")
    else:
        (info / damage.split()[1]).unlink()
    assert problems_of(read_dists(site), "torch") == problem


def test_a_compiled_file_that_is_gone_is_no_damage_and_removal_takes_those_that_are_there(site: Path) -> None:
    info = read_dists(site)["numpy"][0].info
    with (info / "RECORD").open("a", newline="") as stream:
        stream.write("more/__pycache__/a.pyc,,\r\nmore/__pycache__/b.pyc,,\nmore/c.pyc,sha256=x,1\n")
    (site / "more/__pycache__").mkdir(parents=True)
    (site / "more/__pycache__/a.pyc").write_text("")
    problem = "numpy 2.4.6: 1 recorded files are missing or changed, first more/c.pyc"

    assert problems_of(read_dists(site), "numpy") == problem
    remove_dist(site, "numpy", site.parents[1])
    assert not (site / "more").exists()


@pytest.mark.parametrize("with_record", [True, False])
def test_removal_leaves_no_trace_and_nothing_else_is_touched(site: Path, with_record: bool) -> None:
    if not with_record:
        (site / "torch-2.13.0+cpu.dist-info" / "RECORD").unlink()
    (site / "torch" / "left-by-a-kill.so").write_text("x")
    (site / "torchgen").mkdir()
    (site / "~orch-2.12.0.dist-info").mkdir()
    remove_dist(site, "torch", site.parents[1])
    assert sorted(entry.name for entry in site.iterdir()) == [
        "numpy",
        "numpy-2.4.6.dist-info",
        "typing_extensions",
        "typing_extensions-4.16.0.dist-info",
    ]


def test_removal_never_leaves_the_environment(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("keep")
    record = site / "torch-2.13.0+cpu.dist-info" / "RECORD"
    record.write_text(record.read_text() + "../../../outside,,4\n")
    remove_dist(site, "torch", site.parents[1])
    assert outside.exists()


def test_a_closure_follows_requirements_but_not_extras(site: Path) -> None:
    assert closure(read_dists(site), ["torch"]) == {
        "numpy": "2.4.6",
        "torch": "2.13.0+cpu",
        "typing-extensions": "4.16.0",
    }


def test_names_compare_as_indexes_do() -> None:
    assert canonical("Typing_Extensions") == canonical("typing.extensions") == "typing-extensions"


def test_paths_on_one_device_share_its_space() -> None:
    needs = [Need("/opt/venv", 700), Need("/var/cache", 400)]
    shared = {"/opt/venv": {"device": 1, "free": 1000}, "/var/cache": {"device": 1, "free": 1000}}
    apart = {"/opt/venv": {"device": 1, "free": 1000}, "/var/cache": {"device": 2, "free": 1000}}
    assert space_shortfall(needs, shared) == "/opt/venv and /var/cache needs 0 MB and has 0 MB free"
    assert space_shortfall(needs, apart) is None


def test_a_shortfall_is_said_in_units_people_use() -> None:
    sentence = space_shortfall([Need("/opt", 1_500_000_000)], {"/opt": {"device": 1, "free": 250_000_000}})
    assert sentence == "/opt needs 1.5 GB and has 250 MB free"


def test_space_is_read_from_the_nearest_existing_parent(tmp_path: Path) -> None:
    space = read_space([str(tmp_path / "not" / "there")])
    assert space[str(tmp_path / "not" / "there")]["device"] == tmp_path.stat().st_dev


def venv_of(site: Path) -> Venv:
    return Venv(site.parents[1], {"site": str(site), "sites": [str(site)]})


def entry(name: str, version: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "file": f"{name}-{version}-py3-none-any.whl", **more}


def test_only_wheels_the_node_lacks_are_installed(site: Path) -> None:
    files = [entry("torch", "2.13.0+cpu"), entry("numpy", "2.5.0"), entry("sympy", "1.14.0")]
    assert [item["name"] for item in outdated(venv_of(site), files)] == ["numpy", "sympy"]
    (site / "torch-2.13.0+cpu.dist-info" / "RECORD").unlink()
    assert [item["name"] for item in outdated(venv_of(site), files)] == ["torch", "numpy", "sympy"]


def test_pins_are_compared_exactly(site: Path) -> None:
    assert pin_problems(venv_of(site), ("numpy==2.4.6",)) == []
    assert pin_problems(venv_of(site), ("numpy==2.4.7",)) == ["numpy 2.4.6 is installed instead of 2.4.7"]
    assert pin_problems(venv_of(site), ("uv==1.0",)) == ["uv is not installed"]


def test_a_wheel_that_is_not_the_control_nodes_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_text("good")
    good = {"file": wheel.name, "sha256": file_digest(wheel)}
    verify_files(str(tmp_path), [good])
    wheel.write_text("evil")
    with pytest.raises(MissingError, match="not the one of the control node"):
        verify_files(str(tmp_path), [good])
    discard_wheels(str(tmp_path), [good])
    assert not tmp_path.exists()


def test_pytorchs_own_index_is_asked_only_when_the_configured_ones_do_not_have_it(site: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        asked.append(command)
        if "--extra-index-url" in command:
            return 0, "", ""
        return 1, "", "ERROR: No matching distribution found for torch==2.13.0+cpu"

    attempts = [Attempt("torch==2.13.0+cpu"), Attempt("torch==2.13.0+cpu", "https://index.example/cpu")]
    install_index(run, venv_of(site), "torch", IndexSource(), attempts, ["numpy"])
    assert len(asked) == 2
    assert "--extra-index-url" not in asked[0]


def test_a_full_disk_is_not_answered_by_asking_another_index(site: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        asked.append(command)
        return 1, "", "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"

    attempts = [Attempt("torch==2.13.0+cpu"), Attempt("torch==2.13.0+cpu", "https://index.example/cpu")]
    with pytest.raises(RackwrightError, match="No space left on device"):
        install_index(run, venv_of(site), "torch", IndexSource(), attempts, ["numpy"])
    assert len(asked) == 1


LINUX = Target("3.13.5").environment()


def test_a_set_is_closed_under_the_nodes_markers_with_extras() -> None:
    wheels = {
        "torch": [
            "filelock",
            "setuptools; python_version >= '3.12'",
            "cuda-toolkit[cublas]==13.0; sys_platform == 'linux'",
        ],
        "filelock": ["colorama; sys_platform == 'win32'"],
        "cuda-toolkit": ["nvidia-cublas==13.0; extra == 'cublas'", "nvidia-npp==13.0; extra == 'npp'"],
        "leftover": [],
    }
    needed, missing = close(wheels, ["torch==2.13.0"], LINUX)
    assert needed == {"torch", "filelock", "cuda-toolkit"}
    assert missing == ["nvidia-cublas==13.0", "setuptools"]


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        archive.writestr(f"{name}/__init__.py", "x = 1\n" * 100)
        archive.writestr(
            f"{name}-{version}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\n",
        )


class FakePip:
    """Answers ``pip download`` from a list of wheels; like pip, blind to the markers of another Python."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.has_cpu = True

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        if any(argument.startswith("torch") for argument in command):
            if not self.has_cpu:
                return 1, "", "ERROR: No matching distribution found for torch==2.13.0+cpu"
            make_wheel(folder, "torch", "2.13.0+cpu", ("setuptools; python_version >= '3.12'",))
            make_wheel(folder, "numpy", "2.4.6")
            make_wheel(folder, "colorama", "0.4")
        if any(argument.startswith("setuptools") for argument in command):
            make_wheel(folder, "setuptools", "80.0")
        return 0, "", ""


def set_request(root: Path, python: str = "3.13.5") -> SetRequest:
    return SetRequest(root, "torch-2.13.0+cpu", (Attempt("torch==2.13.0+cpu"),), ("numpy",), Target(python))


def test_a_set_is_made_once_complete_and_without_what_nodes_do_not_need(tmp_path: Path) -> None:
    pip = FakePip()
    manifest, made = make_set(pip, set_request(tmp_path), check_mode=False)
    assert made
    assert sorted(entry["name"] for entry in manifest["files"]) == ["numpy", "setuptools", "torch"]
    assert all(entry["installed"] > 600 for entry in manifest["files"])
    calls = len(pip.commands)
    assert make_set(pip, set_request(tmp_path), check_mode=False) == (manifest, False)
    assert len(pip.commands) == calls
    arguments = pip.commands[0]
    assert arguments[arguments.index("--python-version") + 1] == "3.13"
    assert "manylinux_2_28_x86_64" in arguments
    assert "manylinux_2_31_x86_64" not in arguments
    assert "--only-binary=:all:" in arguments


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_set_is_made_again(tmp_path: Path, damage: str) -> None:
    request = set_request(tmp_path)
    make_set(FakePip(), request, check_mode=False)
    wheel = next(request.directory.glob("numpy-*.whl"))
    if damage == "truncate":
        wheel.write_bytes(b"")
    elif damage == "remove":
        wheel.unlink()
    else:
        (request.directory / MANIFEST).write_text('{"schema": 1, "fil')
    assert read_manifest(request.directory) is None
    assert make_set(FakePip(), request, check_mode=False)[1]
    assert read_manifest(request.directory) is not None


def test_an_interrupted_download_leaves_no_set(tmp_path: Path) -> None:
    request = set_request(tmp_path)
    partial = tmp_path / f".{request.key}.partial"
    partial.mkdir()
    (partial / "torch-2.12.0+cpu-py3-none-any.whl").write_text("half")
    manifest, _ = make_set(FakePip(), request, check_mode=False)
    assert "2.12.0+cpu" not in json.dumps(manifest)
    assert not partial.exists()


def test_check_mode_downloads_nothing(tmp_path: Path) -> None:
    pip = FakePip()
    assert make_set(pip, set_request(tmp_path / "wheelhouse"), check_mode=True) == ({"schema": 1, "files": []}, True)
    assert pip.commands == []
    assert not (tmp_path / "wheelhouse").exists()


def test_an_absent_wheel_is_one_sentence_with_tag_and_architecture(tmp_path: Path) -> None:
    pip = FakePip()
    pip.has_cpu = False
    with pytest.raises(MissingError) as caught:
        make_set(pip, set_request(tmp_path), check_mode=False)
    assert "offers torch==2.13.0+cpu as a wheel for cp313 on x86_64" in str(caught.value)
    assert not set_request(tmp_path).directory.exists()


def test_other_packages_make_another_set(tmp_path: Path) -> None:
    plain = set_request(tmp_path)
    pinned = SetRequest(tmp_path, plain.name, plain.attempts, ("numpy==2.3.0",), plain.target)
    assert plain.key == "torch-2.13.0+cpu-cp313-x86_64"
    assert pinned.key.startswith(f"{plain.key}-")


def test_a_control_node_without_space_says_so_before_downloading(tmp_path: Path) -> None:
    request = set_request(tmp_path)
    huge = SetRequest(tmp_path, request.name, request.attempts, ("numpy",), request.target, estimate=1 << 62)
    pip = FakePip()
    with pytest.raises(RackwrightError, match=r"needs .* GB and has"):
        make_set(pip, huge, check_mode=False)
    assert pip.commands == []
