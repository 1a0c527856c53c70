# SPDX-License-Identifier: Apache-2.0
"""GPU modes on simulated GPUs: applied, refused, taken back, brought back by the packed script. Setters need root."""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from support.simulated_node import LIBRARY, SimulatedNode

from ansible.module_utils.rackwright import gpu_modes, gpu_modes_apply, gpu_modes_boot, nvml_modes, self_pack
from ansible.module_utils.rackwright.child import run_in_child
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.gpu_modes_apply import Surroundings

STRUCTURES = [
    name
    for name, value in vars(nvml_modes).items()
    if inspect.isclass(value) and issubclass(value, ctypes.Structure) and value.__module__ == nvml_modes.__name__
]
#: what pynvml calls ours
PYNVML = {"nvmlGpuInstancePlacement_t": "c_nvmlGpuInstancePlacement_t"}

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="NVML's setters need root")


@pytest.mark.parametrize("name", STRUCTURES)
def test_layout_equals_pynvml(name: str) -> None:
    own, reference = getattr(nvml_modes, name), getattr(pynvml, PYNVML.get(name, name))
    assert ctypes.sizeof(own) == ctypes.sizeof(reference)
    for field in own._fields_:
        ours, theirs = getattr(own, field[0]), getattr(reference, field[0])
        assert (ours.offset, ours.size) == (theirs.offset, theirs.size), field[0]


def test_numbers_are_pynvmls() -> None:
    assert pynvml.NVML_ERROR_IN_USE == nvml_modes.IN_USE
    assert nvml_modes.COMPUTE_MODES["exclusive_process"] == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    assert nvml_modes.COMPUTE_MODES["prohibited"] == pynvml.NVML_COMPUTEMODE_PROHIBITED
    words = {1: "1", 2: "2", 3: "3", 4: "4", 6: "6", 7: "7", 8: "8"}
    for slices, index in nvml_modes._COMPUTE_INDEX.items():
        assert getattr(pynvml, f"NVML_COMPUTE_INSTANCE_PROFILE_{words[slices]}_SLICE") == index


class Machine:
    """A simulated node whose modes are set; every call runs in a process of its own."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.node = SimulatedNode(folder, profile)
        self.folder = folder
        self.remembered: dict[str, Any] = {}
        self.smi = folder / "nvidia-smi"

    def inside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        answer = run_in_child(self._inside, (function, arguments), 120)
        assert answer.status == "ok", (answer.detail, answer.traceback)
        return answer.value

    def _inside(self, function: Callable[..., Any], arguments: Any) -> Any:
        os.environ.update(self.environment)
        ctypes.CDLL(str(LIBRARY))
        return function(*arguments)

    @property
    def environment(self) -> dict[str, str]:
        run = str(self.folder / "run")
        return {
            "SIMNVML_CONF": str(self.node.conf),
            "SIMNVML_RUN_DIR": run,
            "SIMNVML_VAR_DIR": run,
            "SIMNVML_TRACE": str(self.node.trace),
        }

    def where(self, **changes: Any) -> Surroundings:
        return Surroundings("gpu-1", smi=str(self.smi), **changes)

    def bring(self, check: bool = False, reset: bool = False, **values: Any) -> dict[str, Any]:
        """Declare and settle; returns the outcomes, or the message of the refusal."""
        return self.inside(self._bring, check, reset, gpu_modes.declared(values))

    def _bring(self, check: bool, reset: bool, declaration: dict[str, Any]) -> dict[str, Any]:
        where, kept = self.where(reset_allowed=reset), self.folder / "clocks.json"
        remembered = gpu_modes_boot.recall(str(kept))
        try:
            devices = gpu_modes_apply.read(where)
            steps = gpu_modes_apply.foresee(devices, declaration, remembered, where)
            if check:
                found = [gpu_modes_apply.would_be(one, steps[one["index"]], where) for one in devices]
            else:
                found = gpu_modes_apply.settle(devices, declaration, remembered, where)
                gpu_modes_boot.remember(remembered, str(kept))
        except RackwrightError as error:
            return {"refused": str(error)}
        failed = gpu_modes_apply.failure(found, where)
        return {"gpus": [one.to_result() for one in found], "failed": str(failed) if failed else None}

    def look(self, index: int = 0) -> dict[str, Any]:
        """The modes of one GPU."""
        found: dict[str, Any] = self.inside(lambda: gpu_modes_apply.read(self.where())[index])
        return found

    def layout(self, index: int = 0) -> list[tuple[str, int, tuple[int, ...]]]:
        mig = self.look(index)["mig"]
        names = {one["id"]: one["name"] for one in mig["profiles"]}
        return [(names[one["profile_id"]], one["start"], tuple(one["compute"])) for one in mig["instances"]]

    def setters(self) -> list[str]:
        """Functions that change something and were called so far."""
        changing = re.compile("Set(?!Clock$)|Create|Destroy|Reset")
        return [name for name in self.node.called() if changing.search(name) and "Get" not in name]


@pytest.fixture
def a100(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "a100x4")


@pytest.fixture
def h100(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "h100x8")


def states(answer: dict[str, Any]) -> list[str]:
    assert "gpus" in answer, answer
    return [one["state"] for one in answer["gpus"]]


@root_only
def test_a_layout_on_every_gpu_then_another_then_off(h100: Machine) -> None:
    seven: dict[str, Any] = {"mig": {"all": ["1g.10gb x7"]}}
    assert states(h100.bring(**seven)) == ["changed"] * 8
    assert h100.layout(7) == [("1g.10gb", start, (1,)) for start in range(7)]
    assert states(h100.bring(**seven)) == ["unchanged"] * 8
    answer = h100.bring(mig={"all": ["1g.10gb x7"], "3": ["3g.40gb", "4g.40gb"]})
    assert states(answer) == ["unchanged"] * 3 + ["changed"] + ["unchanged"] * 4
    assert sorted(h100.layout(3)) == [("3g.40gb", 4, (3,)), ("4g.40gb", 0, (4,))]
    assert states(h100.bring(mig={})) == ["changed"] * 8
    assert h100.look(3)["mig"]["current"] is False


@root_only
def test_check_mode_sets_nothing_and_says_everything(a100: Machine) -> None:
    answer = a100.bring(check=True, mig={"0": ["7g.80gb"]}, ecc=False, power_limit_w=300)
    assert answer["gpus"][0]["done"] == [
        "ECC on -> off (in force after a reset of the GPU)",
        "MIG mode off -> on (resets the GPU)",
        "create 7g.80gb at memory slice 0",
        "power limit 400 W -> 300 W",
    ]
    assert answer["gpus"][0]["state"] == "pending"
    assert answer["gpus"][1]["done"][1:] == ["power limit 400 W -> 300 W"]
    assert a100.setters() == []


@root_only
def test_limits_clocks_and_modes(a100: Machine) -> None:
    values: dict[str, Any] = {
        "power_limit_w": {"all": 300, "1": "default"},
        "locked_clocks_mhz": [210, 1275],
        "application_clocks_mhz": {"memory": 1593, "graphics": 1410},
        "compute_mode": "exclusive_process",
        "persistence_mode": False,
    }
    assert states(a100.bring(**values)) == ["changed"] * 4
    found = a100.look(0)
    assert (found["power_limit_w"]["current"], found["compute_mode"]) == (300.0, "exclusive_process")
    assert found["application_clocks_mhz"]["current"] == {"memory": 1593, "graphics": 1410}
    assert found["persistence_mode"] is False
    assert a100.look(1)["power_limit_w"]["current"] == 400.0
    assert states(a100.bring(**values)) == ["unchanged"] * 4
    assert states(a100.bring(locked_clocks_mhz="default", power_limit_w="default")) == ["changed"] * 4
    assert a100.look(0)["power_limit_w"]["current"] == 400.0


@root_only
def test_ecc_waits_for_a_reset(a100: Machine) -> None:
    answer = a100.bring(ecc={"0": "off"})
    assert states(answer) == ["pending"] + ["unchanged"] * 3
    assert answer["gpus"][0]["reason"] == "the ECC mode waits for a reset of the GPU or a reboot"
    again = a100.bring(ecc={"0": "off"})
    assert states(again) == ["pending"] + ["unchanged"] * 3
    assert again["gpus"][0]["done"] == []


@root_only
def test_a_reset_puts_it_in_force(a100: Machine) -> None:
    # stands for nvidia-smi: what it does to the simulated GPU, with the persistence mode it saw
    a100.smi.write_text(
        "#!/bin/sh\n"
        f'grep persistence "$SIMNVML_RUN_DIR/state.conf" | tail -1 > {a100.folder}/seen\n'
        f'echo "$@" >> {a100.folder}/seen\n'
        'echo "gpu.0.ecc.current = 0" >> "$SIMNVML_RUN_DIR/state.conf"\n'
    )
    a100.smi.chmod(0o755)
    a100.node.set("gpu.persistence", 1)
    answer = a100.bring(reset=True, ecc={"0": False}, power_limit_w={"0": 300})
    assert states(answer) == ["changed"] + ["unchanged"] * 3
    assert "reset the GPU" in answer["gpus"][0]["done"]
    seen = (a100.folder / "seen").read_text()
    assert seen == f"gpu.0.persistence = 0\n--gpu-reset -i {a100.look(0)['pci']}\n"
    assert a100.look(0)["persistence_mode"] is True


@root_only
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "nvidia-smi could not reset it: .*No such file"),
        (
            "#!/bin/sh\necho In use by another client; exit 255\n",
            "nvidia-smi could not reset it: In use by another client",
        ),
        ("#!/bin/sh\nexit 3\n", "it ended with status 3"),
    ],
)
def test_a_reset_that_fails_leaves_it_pending(a100: Machine, script: str | None, said: str) -> None:
    if script:
        a100.smi.write_text(script)
        a100.smi.chmod(0o755)
    answer = a100.bring(reset=True, ecc={"0": False})
    assert states(answer)[0] == "pending"
    assert re.search(said, answer["gpus"][0]["reason"])
    assert a100.look(0)["persistence_mode"] is True


@root_only
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mig": {"all": ["1g.5gb"]}}, r"GPU 0, 1, 2, 3: it has no MIG profile '1g\.5gb' \(did you mean"),
        ({"mig": {"9": []}}, r"it has no GPU 9; it has 0 \(GPU-0"),
        (
            {"power_limit_w": {"2": 9000}},
            r"GPU 2: a power limit of 9000 W is outside \d+ to \d+ W\. .*nothing was changed",
        ),
    ],
)
def test_refused_before_anything_changes(a100: Machine, values: dict[str, Any], said: str) -> None:
    answer = a100.bring(compute_mode="prohibited", **values)
    assert re.search(said, answer.get("refused", "")), answer
    assert a100.setters() == []


@root_only
def test_refused_while_a_program_runs(h100: Machine) -> None:
    h100.bring(mig={"all": ["1g.10gb x7"]})
    h100.node.trace.unlink()
    h100.node.set("gpu.2.proc.0", f"{os.getpid()} C 1048576")
    answer = h100.bring(mig={"all": ["3g.40gb x2"]})
    assert re.search(
        rf"GPU 2: \S+ \(pid {os.getpid()}\) is using it, and this would destroy 1g\.10gb", answer["refused"]
    )
    assert h100.setters() == []
    assert states(h100.bring(mig={"all": ["1g.10gb x7"]}, power_limit_w=500)) == ["changed"] * 8


@root_only
def test_a_failure_takes_back_its_gpu_and_stops(h100: Machine) -> None:
    h100.bring(mig={"all": ["1g.10gb x2", "2g.20gb"]})
    before = h100.layout(1)
    h100.node.set("gpu.1.fail.nvmlDeviceSetPowerManagementLimit", "UNKNOWN")
    answer = h100.bring(mig={"all": ["7g.80gb"]}, power_limit_w=400)
    assert states(answer) == ["changed", "rolled_back"] + ["not_attempted"] * 6
    said = "GPU 1: power limit 700 W -> 400 W: .*NVML 999.*changed: GPU 0, rolled back: GPU 1, not attempted: GPU 2, 3"
    assert re.search(said, answer["failed"])
    assert sorted(h100.layout(1)) == sorted(before)
    assert h100.layout(0) == [("7g.80gb", 0, (7,))]


@root_only
def test_what_cannot_be_taken_back_is_named(a100: Machine) -> None:
    """The power limit is set, the compute mode fails, and by then the power limit can be set no more."""
    a100.node.set("gpu.0.fail.nvmlDeviceSetComputeMode", "UNKNOWN")
    a100.node.set("gpu.0.fail.nvmlDeviceDestroyGpuInstance", "UNKNOWN")
    a100.node.set("gpu.0.fail.nvmlGpuInstanceDestroy", "TIMEOUT")
    answer = a100.bring(mig={"0": ["7g.80gb"]}, compute_mode="prohibited")
    assert states(answer)[0] == "failed"
    assert "not taken back: take back destroy_at" in answer["gpus"][0]["reason"]


@root_only
def test_a_driver_that_hangs_is_left_alone(a100: Machine) -> None:
    a100.node.set("crash.nvmlDeviceSetMigMode", "hang")
    where = Surroundings("gpu-1", timeout=1.0)
    declaration = gpu_modes.declared({"mig": {"0": ["7g.80gb"]}})
    answer = a100.inside(
        lambda: [
            one.to_result() for one in gpu_modes_apply.settle(gpu_modes_apply.read(where), declaration, {}, where)[:2]
        ]
    )
    assert [one["state"] for one in answer] == ["rolled_back", "not_attempted"]
    assert "No answer within 1 s" in answer[0]["reason"]


@root_only
def test_mig_mode_kept_by_the_persistence_daemon(a100: Machine) -> None:
    """The driver says that the GPU is in use: tried again without persistence mode, then left pending."""
    a100.node.set("gpu.persistence", 1).set("gpu.0.proc.0", f"{os.getpid()} C 1048576")
    declaration = gpu_modes.declared({"mig": {"0": ["7g.80gb"]}})
    where = a100.where()

    def settle() -> list[Any]:
        devices = gpu_modes_apply.read(where)
        return [one.to_result() for one in gpu_modes_apply.settle(devices[:1], declaration, {}, where)]

    answer = a100.inside(settle)
    assert answer[0]["state"] == "pending"
    assert a100.setters() == ["nvmlDeviceSetMigMode", "nvmlDeviceSetPersistenceMode"] * 2
    assert a100.look(0)["persistence_mode"] is True


# ---- boot ----


def booted(machine: Machine, tmp_path: Path, declaration: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the packed script as the unit does, with its files below a folder."""
    script = tmp_path / "gpu-modes.py"
    text = self_pack.pack("gpu_modes_boot")
    for path in (gpu_modes_boot.DECLARATION, gpu_modes_boot.REMEMBERED):
        text = text.replace(path, f"{tmp_path}/{Path(path).name}" + (".run" if path.startswith("/run") else ""))
    script.write_text(text)
    (tmp_path / "gpu-modes.json").write_text(gpu_modes_boot.text_of(declaration))
    preload = {**os.environ, **machine.environment, "LD_LIBRARY_PATH": str(LIBRARY.parent)}
    command = [sys.executable, "-I", str(script)]
    return subprocess.run(command, env=preload, cwd=tmp_path, capture_output=True, text=True, check=False)


@root_only
def test_the_packed_script_brings_back_what_a_boot_took(h100: Machine, tmp_path: Path) -> None:
    declaration = gpu_modes.declared({"mig": {"all": ["1g.10gb x7"]}, "locked_clocks_mhz": [345, 1980]})
    first = booted(h100, tmp_path, declaration)
    assert (first.returncode, first.stderr) == (0, "")
    assert len(first.stdout.splitlines()) == 8
    assert "changed: MIG mode off -> on; create 1g.10gb at memory slice 0;" in first.stdout
    assert len(h100.layout(7)) == 7
    assert len(json.loads((tmp_path / "gpu-modes.json.run").read_text())) == 8
    assert "unchanged" in booted(h100, tmp_path, declaration).stdout


@root_only
def test_a_lost_gpu_does_not_keep_the_others_from_their_modes(a100: Machine, tmp_path: Path) -> None:
    a100.node.set("gpu.2.fail", "GPU_IS_LOST")
    answer = booted(a100, tmp_path, gpu_modes.declared({"power_limit_w": 300}))
    assert answer.returncode == 1
    assert [line.split("): ")[1].split(":")[0] for line in answer.stdout.splitlines()] == [
        "changed",
        "changed",
        "failed",
        "changed",
    ]


@pytest.mark.parametrize(
    ("kept", "said"), [("{}", "'schema'"), ('{"schema": 9, "declaration": {}}', "schema 9"), ("[", "Expecting")]
)
def test_a_declaration_that_cannot_be_read(tmp_path: Path, kept: str, said: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(kept)
    with pytest.raises(RackwrightError, match=f"Could not read the declared GPU modes on .*: {said}"):
        gpu_modes_boot.read_declaration(str(path))
