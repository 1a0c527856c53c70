# SPDX-License-Identifier: Apache-2.0
"""Environments of a foreign node: found within bounds, read from files, asked without letting torch do harm."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from support.fake_frameworks import MINOR, fake_dist, fake_environment, fake_tensorflow, fake_torch

from ansible.module_utils.rackwright import framework_probe
from ansible.module_utils.rackwright.child import ChildResult, run_in_child
from ansible.module_utils.rackwright.framework_files import (
    build_name,
    find_places,
    glibc_needed,
    read_system,
    read_versions,
)
from ansible.module_utils.rackwright.framework_probe import FrameworkRequest, probe_frameworks

CU124 = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"


def look(root: Path, *given: str, **changes: Any) -> dict[str, Any]:
    changes = {"timeout": 30.0, **changes}
    return probe_frameworks(FrameworkRequest(root=str(root), environments=list(given), **changes))


def test_torch_is_asked_for_the_code_it_holds(tmp_path: Path) -> None:
    fake_torch(fake_environment(tmp_path / "opt/app/venv"), "2.6.0+cu124", "12.4", CU124)

    [record] = look(tmp_path)["environments"]

    assert record["path"] == str(tmp_path / "opt/app/venv")
    assert record["kind"] == "venv"
    assert record["python_version"] == platform.python_version()
    assert record["torch"] == {
        "version": "2.6.0+cu124",
        "build": "cu124",
        "cuda": "12.4",
        "hip": None,
        "arch_list": CU124.split(),
        "basis": "import",
        "glibc_needed": "2.28",
        "import_error": None,
    }
    assert record["missing"] == {"tensorflow": "not installed", "vllm": "not installed"}


def test_nothing_is_written_into_an_environment(tmp_path: Path) -> None:
    fake_torch(fake_environment(tmp_path / "opt/app/venv"), "2.6.0+cu124", "12.4", CU124)
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    look(tmp_path)

    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("cuda", "flags", "arch_list", "missing"),
    [
        (None, None, [], None),
        ("12.8", "sm_75 sm_120 compute_120", ["sm_75", "sm_120", "compute_120"], None),
        ("13.0", "sm_75;sm_90a", ["sm_75", "sm_90a"], None),
        ("12.4", None, None, "this build of torch does not say it"),
    ],
)
def test_arch_list_or_why_there_is_none(
    tmp_path: Path, cuda: str | None, flags: str | None, arch_list: list[str] | None, missing: str | None
) -> None:
    fake_torch(fake_environment(tmp_path / "opt/venv"), "2.9.0", cuda, flags)

    [record] = look(tmp_path)["environments"]

    assert record["torch"]["arch_list"] == arch_list
    assert record["missing"].get("torch.arch_list") == missing


@pytest.mark.parametrize(
    ("at_import", "reason"),
    [
        ("import time\ntime.sleep(300)", "no answer within 2 s"),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(300)'])", "no answer"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "the interpreter ended with signal SIGSEGV"),
        ("import os\nos._exit(3)", "the interpreter ended with status 3"),
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", "ImportError: libcudart.so.12"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("import os\nos.close(1)", "the interpreter ended with"),
    ],
)
def test_an_import_that_hangs_or_crashes_is_a_reason(tmp_path: Path, at_import: str, reason: str) -> None:
    fake_torch(fake_environment(tmp_path / "opt/bad/venv"), "2.6.0+cu124", "12.4", CU124, at_import=at_import)
    fake_torch(fake_environment(tmp_path / "opt/good/venv"), "2.13.0+cpu", None, None)

    bad, good = look(tmp_path, timeout=2.0)["environments"]

    # what the files say is kept, and the environment after it is asked all the same
    assert (bad["torch"]["version"], bad["torch"]["build"], bad["torch"]["basis"]) == ("2.6.0+cu124", "cu124", "files")
    assert bad["torch"]["arch_list"] is None
    assert reason in bad["torch"]["import_error"]
    assert reason in bad["missing"]["torch.arch_list"]
    assert good["torch"]["basis"] == "import"


def test_when_the_time_is_spent_the_files_still_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(fake_environment(tmp_path / "opt/app/venv"), "2.6.0+cu124", "12.4", CU124)
    clock = iter((0.0, 400.0))
    monkeypatch.setattr(framework_probe.time, "monotonic", lambda: next(clock, 400.0))
    monkeypatch.setattr(
        framework_probe,
        "run_in_child",
        lambda function, arguments, timeout: framework_probe_result(function(*arguments)),
    )

    [record] = look(tmp_path)["environments"]

    assert record["torch"]["build"] == "cu124"
    assert record["torch"]["import_error"] is None
    assert "is spent" in record["missing"]["torch.arch_list"]


def framework_probe_result(value: Any) -> Any:
    return ChildResult("ok", value=value)


def test_usual_places_are_searched_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        *("opt/rackwright/venv", "opt/conda", "opt/conda/envs/train", "opt/app/env-3", "srv/chat/.venv", "root/.venv"),
        *("home/ai/.venv", "home/ai/project/venv", "home/ai/miniconda3/envs/x", "home/ai/.virtualenvs/y"),
        *("home/ai/a/b/c/venv", "data/venv", "var/lib/app/venv"),
    ):
        fake_dist(fake_environment(tmp_path / name), "vllm", "0.33.0")
    (tmp_path / "opt/conda/conda-meta").mkdir()
    fake_environment(tmp_path / "opt/without/venv")

    records = look(tmp_path)["environments"]

    assert [record["path"].removeprefix(f"{tmp_path}/") for record in records] == [
        *("home/ai/.venv", "home/ai/.virtualenvs/y", "home/ai/miniconda3/envs/x", "home/ai/project/venv"),
        *("opt/app/env-3", "opt/conda", "opt/conda/envs/train", "opt/rackwright/venv", "root/.venv", "srv/chat/.venv"),
    ]
    assert {record["path"].removeprefix(f"{tmp_path}/"): record["kind"] for record in records}["opt/conda"] == "conda"
    assert all(record["vllm"] == {"version": "0.33.0"} for record in records)


def test_given_paths_are_looked_at_and_wrong_ones_named(tmp_path: Path) -> None:
    fake_torch(fake_environment(tmp_path / "data/venv"), "2.13.0+cpu", None, None)
    fake_environment(tmp_path / "data/empty")

    state = look(
        tmp_path, f"{tmp_path}/data/venv/bin/python3", f"{tmp_path}/data/empty/", f"{tmp_path}/nowhere", search=False
    )

    empty, full = state["environments"]
    assert (empty["path"], empty["torch"], empty["missing"]["torch"]) == (
        f"{tmp_path}/data/empty",
        None,
        "not installed",
    )
    assert full["torch"]["version"] == "2.13.0+cpu"
    assert state["missing"] == {f"environments.{tmp_path}/nowhere": "there is no Python environment"}


@pytest.mark.skipif(os.geteuid() != 0, reason="the test takes rights away from somebody else")
def test_homes_that_are_closed_to_this_user_are_named(request: pytest.FixtureRequest) -> None:
    root = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(root))
    root.chmod(0o755)
    for name, mode in (("home/ai", 0o700), ("home/open", 0o755)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)

    found = run_in_child(_as_nobody, (str(root),))

    assert found.value["closed"] == [f"{root}/home/ai"]
    assert look(root)["missing"] == {}  # root may look everywhere


def _as_nobody(root: str) -> dict[str, Any]:
    os.setuid(65534)
    return find_places(root, [], True)


def test_packages_of_the_system_and_of_users_are_found(tmp_path: Path) -> None:
    user = tmp_path / f"home/ai/.local/lib/python{MINOR}/site-packages"
    fake_torch(user, "2.6.0+cu124", "12.4", CU124)
    system = tmp_path / "usr/lib/python3/dist-packages"
    (system / "torch-1.13.1-py3.11.egg-info").mkdir(parents=True)
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    (programs / f"python{MINOR}").symlink_to(sys.executable)

    by_kind = {record["kind"]: record for record in look(tmp_path)["environments"]}

    assert (
        by_kind["user"]["torch"]["arch_list"] == CU124.split()
    )  # not on the path of the interpreter, and asked all the same
    assert by_kind["system"]["torch"]["version"] == "1.13.1"
    assert by_kind["system"]["python"] is None
    assert by_kind["system"]["missing"]["python"]


def test_one_directory_reached_by_two_names_is_one_environment(tmp_path: Path) -> None:
    site = fake_environment(tmp_path / "opt/app/venv")
    fake_dist(site, "vllm", "0.33.0")
    (tmp_path / "opt/app/venv/lib64").symlink_to("lib")
    (tmp_path / "opt/current").symlink_to("app")

    assert len(look(tmp_path)["environments"]) == 1


def test_too_many_environments_are_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framework_probe, "MOST", 2)
    for number in range(3):
        fake_dist(fake_environment(tmp_path / f"opt/app{number}/venv"), "vllm", "0.33.0")

    state = look(tmp_path)

    assert len(state["environments"]) == 2
    assert "3 were found, only the first 2" in state["missing"]["environments"]


def test_tensorflow_is_read_without_import(tmp_path: Path) -> None:
    site = fake_environment(tmp_path / "opt/tf/venv")
    fake_tensorflow(site, "2.18.0")
    fake_dist(site, "nvidia_cudnn_cu12", "9.3.0.75")

    [record] = look(tmp_path)["environments"]

    assert record["tensorflow"] == {
        "distribution": "tensorflow",
        "version": "2.18.0",
        "cuda": "12.5.1",
        "cudnn": "9",
        "arch_list": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
        "cuda_build": True,
        "cuda_packages": True,
    }


@pytest.mark.parametrize(
    "text", ["", "build_info = collections.OrderedDict(open('/etc/passwd'))\n", "build_info = {}\n"]
)
def test_build_information_in_another_form_is_unknown_and_never_run(tmp_path: Path, text: str) -> None:
    site = fake_environment(tmp_path / "opt/tf/venv")
    fake_tensorflow(site, "2.18.0")
    (site / "tensorflow/python/platform/build_info.py").write_text(text, encoding="utf-8")

    [record] = look(tmp_path)["environments"]

    assert record["tensorflow"]["cuda_build"] is None
    assert "cannot be read" in record["missing"]["tensorflow.cuda_build"]


@pytest.mark.parametrize(
    ("wheel", "needed"),
    [
        ("Tag: cp311-cp311-manylinux_2_28_x86_64", "2.28"),
        ("Tag: cp39-cp39-manylinux1_x86_64", "2.5"),
        ("Tag: cp311-cp311-manylinux_2_17_x86_64\nTag: cp311-cp311-manylinux2014_x86_64", "2.17"),
        ("Tag: cp311-cp311-manylinux_2_5_x86_64.manylinux_2_12_x86_64", "2.5"),
        ("Tag: cp311-cp311-linux_x86_64", None),
        ("", None),
    ],
)
def test_needed_c_library(wheel: str, needed: str | None) -> None:
    assert glibc_needed(wheel) == needed


@pytest.mark.parametrize(
    ("version", "cuda", "hip", "build"),
    [
        ("2.6.0", "12.4", None, "cu124"),
        ("2.13.0+cu130", "13.0", None, "cu130"),
        ("2.13.0+cpu", None, None, "cpu"),
        ("2.9.1+rocm6.4", None, "6.4", "rocm6.4"),
        ("2.9.1", None, "6.4", "rocm"),
    ],
)
def test_build_names(version: str, cuda: str | None, hip: str | None, build: str) -> None:
    assert build_name(version, cuda, hip) == build


def test_versions_of_every_form_of_metadata(tmp_path: Path) -> None:
    for name in (
        "torch-2.6.0+cu124.dist-info",
        "tensorflow_gpu-2.11.0.dist-info",
        "vllm-0.9.2-py3.11.egg-info",
        "x.py",
    ):
        (tmp_path / name).mkdir()

    found = read_versions(str(tmp_path))

    assert {name: version for name, (version, _) in found.items()} == {
        "torch": "2.6.0+cu124",
        "tensorflow-gpu": "2.11.0",
        "vllm": "0.9.2",
    }
    assert read_versions(str(tmp_path / "nowhere")) == {}


def test_driver_libraries_and_fabric_manager(tmp_path: Path) -> None:
    for path in (
        *(
            "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05",
            "usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.535.309.01",
        ),
        *("usr/lib64/libcuda.so.1", "usr/local/cuda-12.4/compat/libcuda.so.550.54.15", "usr/bin/nv-fabricmanager"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "proc/17").mkdir(parents=True)
    (tmp_path / "proc/17/comm").write_text("nv-fabricmanage\n", encoding="utf-8")

    system = read_system(str(tmp_path))

    assert [(library["kind"], library["version"]) for library in system["driver_libraries"]] == [
        ("driver", "580.95.05"),
        ("driver", "535.309.01"),
        ("compat", "550.54.15"),
    ]
    assert system["fabric_manager"] == {"installed": True, "running": True}
    assert read_system(str(tmp_path / "nowhere"))["fabric_manager"] == {"installed": False, "running": False}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_runs_foreign_code_with_its_owners_rights(request: pytest.FixtureRequest) -> None:
    root = Path(tempfile.mkdtemp())  # pytest's own directories are closed to everybody else
    request.addfinalizer(lambda: shutil.rmtree(root))
    root.chmod(0o755)
    site = fake_environment(root / "home/ai/venv")
    fake_torch(site, "2.6.0", "12.4", "sm_90", at_import="import os\nassert os.geteuid() == 1234, os.geteuid()")
    os.chown(site / "torch", 1234, 1234)

    [record] = look(root)["environments"]

    assert record["torch"]["import_error"] is None
    assert record["torch"]["arch_list"] == ["sm_90"]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user endangers nobody else")
def test_root_does_not_run_what_everybody_may_write(tmp_path: Path) -> None:
    site = fake_environment(tmp_path / "opt/app/venv")
    fake_torch(site, "2.6.0", "12.4", "sm_90", at_import="open('/tmp/must-not-run', 'w')")
    (site / "torch").chmod(0o777)

    [record] = look(tmp_path)["environments"]

    assert record["torch"]["basis"] == "files"
    assert "everybody may write" in record["missing"]["torch.arch_list"]


def test_search_that_gives_no_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_arguments: Any) -> Any:
        os._exit(9)

    monkeypatch.setattr(framework_probe, "find_places", crash)

    state = look(tmp_path)

    assert state["environments"] == []
    assert "gave no answer" in state["missing"]["environments"]


def run_module(capsys: pytest.CaptureFixture[str], **parameters: Any) -> dict[str, Any]:
    module = importlib.import_module("framework_state")
    with patch_module_args(parameters), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_module_answers_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_torch(fake_environment(tmp_path / "opt/app/venv"), "2.6.0+cu124", "12.4", CU124)

    answer = run_module(capsys, root=str(tmp_path), _ansible_check_mode=True)

    assert answer["changed"] is False
    assert answer["framework_state"]["schema"] == 1
    assert [entry["torch"]["build"] for entry in answer["framework_state"]["environments"]] == ["cu124"]


@pytest.mark.parametrize("option", ["timeout", "budget"])
def test_a_senseless_time_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_module(capsys, **{option: 0})

    assert answer["failed"]
    assert answer["msg"].startswith(f"Could not use the option {option} on framework_state:")


def test_places_are_plain_data_so_a_child_can_return_them(tmp_path: Path) -> None:
    fake_dist(fake_environment(tmp_path / "opt/app/venv"), "vllm", "0.33.0")

    found = find_places(str(tmp_path), [], True)

    assert json.loads(json.dumps(found)) == found
