"""Every way in which an environment can be wrong, on real environments made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError, RackwrightError
from ansible.module_utils.rackwright.pyenv import (
    MARKER,
    VenvRequest,
    cfg_flag,
    check_python,
    look,
    venv_packages,
)
from ansible.module_utils.rackwright.pyenv_build import ensure
from ansible.module_utils.rackwright.torch_build import version_key

BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


TEMPLATE: list[Path] = []


def run(command: list[str]) -> tuple[int, str, str]:
    """Run a command; environments after the first are copied from it (one finds itself by its location)."""
    if command[1:4] == ["-I", "-m", "venv"] and TEMPLATE:
        path = Path(command[-1])
        shutil.copytree(TEMPLATE[0], path, symlinks=True, dirs_exist_ok=True)
        (path / MARKER).unlink(missing_ok=True)
        if "--system-site-packages" in command:
            cfg = (path / "pyvenv.cfg").read_text()
            (path / "pyvenv.cfg").write_text(cfg.replace("packages = false", "packages = true"))
        return 0, "", ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def request_for(path: Path, **changes: Any) -> VenvRequest:
    values: dict[str, Any] = {"python": BASE, "uid": os.getuid(), "gid": os.getgid(), **changes}
    return VenvRequest(path=str(path), **values)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One environment, built once; tests copy it (its own path inside makes a copy a broken one on purpose)."""
    path = tmp_path_factory.mktemp("built") / "venv"
    outcome = ensure(run, request_for(path), check_mode=False)
    assert outcome.changed
    assert outcome.actions == ["build the environment: it is not there"]
    TEMPLATE.append(path.parent / "template")
    shutil.copytree(path, TEMPLATE[0], symlinks=True)
    return path


def test_a_built_environment_is_left_alone(built: Path) -> None:
    assert not ensure(run, request_for(built), check_mode=False).changed


def test_check_mode_builds_nothing(tmp_path: Path) -> None:
    outcome = ensure(run, request_for(tmp_path / "venv"), check_mode=True)
    assert outcome.changed
    assert outcome.before == {"path": str(tmp_path / "venv"), "state": "absent"}
    assert outcome.after["state"] == "present"
    assert list(tmp_path.iterdir()) == []


def test_an_edited_configuration_is_restored_and_packages_stay(built: Path) -> None:
    cfg = built / "pyvenv.cfg"
    good = cfg.read_text()
    cfg.write_text(good.replace("include-system-site-packages = false", "include-system-site-packages = true"))
    (built / "witness").write_text("still here")
    outcome = ensure(run, request_for(built), check_mode=False)
    assert outcome.actions == ["restore pyvenv.cfg, which was edited"]
    assert not outcome.created
    assert cfg.read_text() == good
    assert (built / "witness").exists()
    (built / "witness").unlink()


def test_a_deleted_configuration_is_restored_and_packages_stay(built: Path) -> None:
    (built / "pyvenv.cfg").unlink()
    outcome = ensure(run, request_for(built), check_mode=False)
    assert outcome.actions == ["restore pyvenv.cfg, which was edited"]
    assert not ensure(run, request_for(built), check_mode=False).changed


def test_a_wrong_mode_is_put_right(built: Path) -> None:
    built.chmod(0o700)
    assert ensure(run, request_for(built), check_mode=True).actions == ["set the directory's mode"]
    assert built.stat().st_mode & 0o777 == 0o700
    ensure(run, request_for(built), check_mode=False)
    assert built.stat().st_mode & 0o777 == 0o755


def test_an_environment_without_marker_is_taken_over(built: Path) -> None:
    (built / MARKER).unlink()
    outcome = ensure(run, request_for(built), check_mode=False)
    assert outcome.actions == ["take over the environment that is there"]
    assert json.loads((built / MARKER).read_text())["executable"] == BASE


def _gone(venv: Path) -> None:
    python = venv / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")


def _half(venv: Path) -> None:
    (venv / "bin" / "activate").unlink()
    (venv / MARKER).unlink()


def _flag(venv: Path) -> None:
    (venv.parent / ".venv.building").write_text("1\n")


def _no_pip_record(venv: Path) -> None:
    next(venv.glob("lib/python3*/site-packages/pip-*.dist-info/RECORD")).unlink()


def _no_site(venv: Path) -> None:
    os.rename(next(venv.glob("lib/python3*")), venv / "lib" / "python3.0")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_gone, "its interpreter is gone"),
        (_half, "it is half built (no bin/activate)"),
        (_flag, "an earlier build was interrupted"),
        (_no_pip_record, "its pip is not whole"),
        (_no_site, "it was built for another Python"),
    ],
)
def test_damage_is_named_and_leads_to_a_new_environment(built: Path, tmp_path: Path, damage: Any, reason: str) -> None:
    path = tmp_path / "venv"
    shutil.copytree(built, path, symlinks=True)
    damage(path)
    planned = ensure(run, request_for(path), check_mode=True)
    assert planned.actions[0].startswith(f"build the environment: {reason}")
    assert planned.created
    done = ensure(run, request_for(path), check_mode=False)
    assert done.changed
    assert done.created  # what was inside is gone, so whoever installed there has to come again
    assert look(run, request_for(path)).complete
    assert not ensure(run, request_for(path), check_mode=False).changed
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["venv"]


def test_other_visibility_builds_anew_once(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "venv"
    ensure(run, request_for(path), check_mode=False)
    outcome = ensure(run, request_for(path, system_site_packages=True), check_mode=False)
    assert outcome.actions == ["build the environment: system site-packages should be visible"]
    assert cfg_flag((path / "pyvenv.cfg").read_text()) is True
    assert not ensure(run, request_for(path, system_site_packages=True), check_mode=False).changed


def test_a_failed_rebuild_brings_the_old_environment_back(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "venv"
    ensure(run, request_for(path), check_mode=False)

    def full_disk(command: list[str]) -> tuple[int, str, str]:
        return (1, "", "OSError: [Errno 28] No space left on device") if "venv" in command else run(command)

    with pytest.raises(RackwrightError, match="No space left on device"):
        ensure(full_disk, request_for(path, system_site_packages=True), check_mode=False)
    assert not ensure(run, request_for(path), check_mode=False).changed


def test_a_directory_with_other_things_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.txt").write_text("years of work")
    with pytest.raises(RackwrightError, match="not a Python environment"):
        ensure(run, request_for(tmp_path / "venv"), check_mode=False)
    assert (tmp_path / "venv" / "thesis.txt").exists()


@pytest.mark.parametrize("path", ["/", "/usr", "/opt", "relative/venv", "/opt/../usr"])
def test_paths_that_belong_to_others_are_refused(path: str) -> None:
    with pytest.raises(InvalidInputError, match="not an absolute directory of its own"):
        ensure(run, VenvRequest(path=path), check_mode=True)


def test_conda_is_refused_in_one_sentence_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ensure(run, request_for(tmp_path / "venv", provider="conda", python="/nonexistent"), check_mode=False)
    assert str(caught.value) == (
        f"Could not create a conda environment on {tmp_path}/venv: this release of Rackwright builds environments with "
        "venv and uv only, conda is not there yet. Set python_env_provider to venv or uv."
    )
    assert list(tmp_path.iterdir()) == []


def test_an_absent_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"/usr/bin/python9\.9 is not a Python interpreter that runs here"):
        check_python(run, request_for(tmp_path, python="/usr/bin/python9.9"))


def test_a_python_the_lock_does_not_know_is_refused_with_both_versions(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"is Python 3\.\d+\.\d+ and the lock says 9\.9\. Run playbooks/plan"):
        check_python(run, request_for(tmp_path, version="9.9"))
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert check_python(run, request_for(tmp_path, version=minor))["minor"] == minor


def test_another_environments_interpreter_is_refused(built: Path) -> None:
    with pytest.raises(InvalidInputError, match="belongs to another virtual environment"):
        check_python(run, request_for(built, python=str(built / "bin" / "python")))


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [({"ID": "debian"}, ["python3.11-venv"]), ({"ID": "pop", "ID_LIKE": "ubuntu debian"}, ["python3.11-venv"])],
)
def test_debian_splits_venv_into_a_package(os_release: dict[str, str], expected: list[str]) -> None:
    interpreter = {"has_venv": False, "executable": "/usr/bin/python3.11", "minor": "3.11"}
    assert venv_packages(os_release, interpreter) == expected
    assert venv_packages(os_release, {**interpreter, "has_venv": True}) == []


def test_elsewhere_a_python_without_venv_is_refused() -> None:
    with pytest.raises(MissingError, match="no venv and ensurepip"):
        venv_packages({"ID": "rocky"}, {"has_venv": False, "executable": "/usr/bin/python3.9", "minor": "3.9"})


def test_versions_compare_by_number() -> None:
    assert version_key("2.13.0+cpu") > version_key("2.9.1")
    assert version_key("580.65.06") > version_key("580.9")
