# SPDX-License-Identifier: Apache-2.0
"""simnvmlctl: injections, and what boot, package changes and reset do to a node."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIMNVML = Path(__file__).resolve().parents[2] / "simnvml"
STATE = "emit([code(nv.nvmlInit), nv.nvmlSystemGetNVMLVersion() if code(nv.nvmlSystemGetNVMLVersion) == 0 else None])"


class Machine:
    """A node with package files, managed as a bare server is."""

    def __init__(self, node: Any) -> None:
        self.node = node
        (node.root / "etc/simnvml/mode").write_text("managed\n")

    def install(self, library: str, module: str | None = None) -> None:
        """Put the files of a driver version where Debian's packages put them, and run the hook."""
        folder = self.node.root / "usr/lib/x86_64-linux-gnu/nvidia/current"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("libnvidia-ml.so.*"):
            old.unlink()
        (folder / f"libnvidia-ml.so.{library}").touch()
        if module:
            sources = self.node.root / "usr/src"
            for old in sources.glob("nvidia*"):
                old.rmdir()
            (sources / module).mkdir(parents=True)
        self.sync()

    def remove(self) -> None:
        """Take the library away again."""
        for path in self.node.root.glob("usr/lib/*/nvidia/current/*"):
            path.unlink()
        self.sync()

    def sync(self) -> None:
        """What the package hook does."""
        done = self.node.ctl("sync")
        assert done.returncode == 0, done.stderr

    def boot(self) -> None:
        """A container restart empties /run; then the boot unit runs."""
        run: Path = self.node.root / "run/simnvml"
        shutil.rmtree(run)  # removes links, does not follow them
        done = self.node.ctl("boot")
        assert done.returncode == 0, done.stderr

    @property
    def in_front(self) -> bool:
        """Whether the loader finds the simulated library first."""
        return bool((self.node.root / "etc/ld.so.conf.d/00-simnvml.conf").exists())

    def text(self, relative: str) -> str | None:
        """A file of the sysroot."""
        path: Path = self.node.root / "run/simnvml/root" / relative
        return path.read_text() if path.exists() else None


@pytest.fixture
def server(node: Callable[..., Any]) -> Machine:
    """A bare server with eight GPUs and no driver."""
    machine = Machine(node("h100x8"))
    machine.boot()
    return machine


def test_a_bare_server(server: Machine, uninitialised: str) -> None:
    assert not server.in_front
    assert server.text("proc/driver/nvidia/version") is None
    assert "nvidia" not in (server.text("proc/modules") or "")
    assert server.node.python(STATE, start=uninitialised) == [9, None]


def test_install_update_and_rollback(server: Machine, uninitialised: str) -> None:
    def state() -> list[Any]:
        found = server.node.python(STATE, start=uninitialised)
        assert isinstance(found, list)
        return found

    server.install("535.261.03", "nvidia-current-535.261.03")
    assert server.in_front
    assert state() == [9, "12.535.261.03"]  # installed, not loaded
    server.boot()
    assert state() == [0, "12.535.261.03"]
    version = server.text("proc/driver/nvidia/version")
    assert version is not None
    assert version.startswith("NVRM version: NVIDIA UNIX ")
    assert "Kernel Module  535.261.03  " in version
    assert (server.text("proc/modules") or "").splitlines()[-1].startswith("nvidia ")
    server.install("535.309.01", "nvidia-current-535.309.01")
    assert state() == [18, "12.535.309.01"]  # the old module is still loaded
    assert "535.261.03" in (server.text("proc/driver/nvidia/version") or "")
    server.boot()
    assert state() == [0, "12.535.309.01"]
    server.install("535.261.03", "nvidia-current-535.261.03")
    assert state() == [18, "12.535.261.03"]
    server.boot()
    assert state() == [0, "12.535.261.03"]
    server.remove()
    assert not server.in_front


def test_the_module_can_differ_from_the_library(server: Machine, uninitialised: str) -> None:
    server.install("580.105.08", "nvidia-open-580.95.05")
    server.boot()
    assert server.node.python(STATE, start=uninitialised) == [18, "13.580.105.08"]
    version = server.text("proc/driver/nvidia/version")
    assert version is not None
    assert "NVIDIA UNIX Open Kernel Module for " in version
    assert "  580.95.05  Release Build  " in version


def test_the_library_alone_stands_for_a_module_from_elsewhere(server: Machine, uninitialised: str) -> None:
    server.install("550.163.01")
    server.boot()
    assert server.node.python(STATE, start=uninitialised) == [0, "12.550.163.01"]


def test_an_older_driver_lacks_newer_functions(server: Machine) -> None:
    server.install("535.309.01")
    server.boot()
    assert server.node.python("emit(code(nv.nvmlDeviceGetTemperatureV, gpus[0], 0))") == 13


def test_without_a_gpu_no_module_loads(node: Callable[..., Any], uninitialised: str) -> None:
    machine = Machine(node("none"))
    machine.install("535.261.03", "nvidia-current-535.261.03")
    machine.boot()
    assert machine.in_front
    assert machine.node.python(STATE, start=uninitialised)[0] == 9


def test_always_mode_keeps_the_profile(node: Callable[..., Any], uninitialised: str) -> None:
    machine = Machine(node("rtx4090x2"))
    (machine.node.root / "etc/simnvml/mode").write_text("always\n")
    machine.boot()
    assert machine.in_front
    assert machine.node.python(STATE, start=uninitialised) == [0, "13.580.105.08"]
    assert "Open Kernel Module" in (machine.text("proc/driver/nvidia/version") or "")
    devices = sorted(path.name for path in (machine.node.root / "run/simnvml/root/dev").iterdir())
    assert devices == ["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"]


def test_a_wrong_mode_is_refused(node: Callable[..., Any]) -> None:
    machine = node()
    (machine.root / "etc/simnvml/mode").write_text("sometimes\n")
    done = machine.ctl("boot")
    assert done.returncode != 0
    assert "'sometimes' is no mode" in done.stderr


def test_nouveau_shows_until_a_driver_is_loaded(server: Machine) -> None:
    server.node.put("nouveau", "1")
    server.boot()
    assert "nouveau" in (server.text("proc/modules") or "")
    server.install("535.261.03")
    server.boot()
    assert "nouveau" not in (server.text("proc/modules") or "")


def test_set_unset_reset_show(node: Callable[..., Any]) -> None:
    machine = node()
    assert machine.ctl("set", "gpu.3.fail", "GPU_IS_LOST").returncode == 0
    assert machine.ctl("set", "gpu.2.temp.gpu", "88").returncode == 0
    read = "emit([code(nv.nvmlDeviceGetUUID, g) for g in gpus[:2]] + [nv.nvmlDeviceGetTemperature(gpus[2], 0)])"
    assert machine.ctl("show", "gpu.3.fail").stdout == "GPU_IS_LOST\n"
    assert machine.ctl("unset", "gpu.3.fail").returncode == 0
    assert machine.ctl("show", "gpu.3.fail").returncode == 1
    assert machine.python(read) == [0, 0, 88]
    assert machine.ctl("reset").returncode == 0
    assert machine.python(read) == [0, 0, 29]
    assert "count = 8" in machine.ctl("show").stdout


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("gpu.3.fial", "GPU_IS_LOST", "the library knows no such key"),
        ("gpu.3.temp.gpu", "warm", "the value has another form"),
        ("crash.init", "burn", "the value has another form"),
    ],
)
def test_mistaken_injections_are_refused(node: Callable[..., Any], key: str, value: str, part: str) -> None:
    done = node().ctl("set", key, value)
    assert done.returncode == 1
    assert done.stderr.startswith("Could not use ")
    assert part in done.stderr


def test_versions_of_a_managed_node_follow_its_packages(server: Machine) -> None:
    done = server.node.ctl("set", "driver_version", "535.1.2")
    assert done.returncode == 1
    assert "follows the installed packages" in done.stderr


def test_installed_files_work_from_where_they_lie(node: Callable[..., Any], tmp_path: Path) -> None:
    machine = node()
    done = machine.run(["make", "-s", "-C", str(SIMNVML), "install", f"DESTDIR={tmp_path}/image"])
    assert done.returncode == 0, done.stderr
    image = tmp_path / "image"
    assert (image / "opt/simnvml/lib/libnvidia-ml.so.1").is_file()
    assert (image / "etc/systemd/system/sysinit.target.wants/simnvml-boot.service").resolve().is_file()
    assert (image / "etc/apt/apt.conf.d/90-simnvml").is_file()
    done = machine.run([str(image / "opt/simnvml/bin/simnvmlctl"), "set", "gpu.3.fail", "GPU_IS_LOST"])
    assert done.returncode == 0, done.stderr
    assert machine.ctl("show", "gpu.3.fail").stdout == "GPU_IS_LOST\n"


def test_gpu_reset(node: Callable[..., Any]) -> None:
    machine = node()
    machine.add(gpu__1__ecc__volatile__uncorrected__dram="2", gpu__1__remap__pending="1", gpu__1__reset_required="1")
    machine.ctl("set", "gpu.1.fail", "RESET_REQUIRED")
    machine.python("nv.nvmlDeviceSetEccMode(nv.nvmlDeviceGetHandleByIndex(2), 0)", start=INIT_ONLY)
    assert machine.ctl("gpu-reset", "1", "2").returncode == 0
    found = machine.python(
        "emit([nv.nvmlDeviceGetEccMode(gpus[2]), nv.nvmlDeviceGetTotalEccErrors(gpus[1], 1, 0),"
        " nv.nvmlDeviceGetRemappedRows(gpus[1])[2],"
        " nv.nvmlDeviceGetFieldValues(gpus[1], [nv.NVML_FI_DEV_RESET_STATUS])[0].value.uiVal])"
    )
    assert found == [[0, 0], 0, 0, 0]


INIT_ONLY = "import ctypes, os\nctypes.CDLL(os.environ['SIMNVML_LIBRARY'])\nimport pynvml as nv\nnv.nvmlInit()\n"
