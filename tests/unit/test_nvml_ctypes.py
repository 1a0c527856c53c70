# SPDX-License-Identifier: Apache-2.0
"""The ctypes subset is pynvml's: same layouts, same names, same codes, and never a setter."""

from __future__ import annotations

import ctypes
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest
from support.simulated_node import ROOT, SimulatedNode

from ansible.module_utils.rackwright import nvml_compound, nvml_ctypes, nvml_errors, nvml_names, nvml_reader

STRUCTURES = [
    name
    for name, value in vars(nvml_ctypes).items()
    if inspect.isclass(value)
    and issubclass(value, (ctypes.Structure, ctypes.Union))
    and value.__module__ == nvml_ctypes.__name__
]
FUNCTIONS = sorted(name for name in vars(nvml_ctypes) if re.match(r"nvml(Device|System|Init|Shutdown)", name))


@pytest.mark.parametrize("name", STRUCTURES)
def test_layout_equals_pynvml(name: str) -> None:
    own, reference = getattr(nvml_ctypes, name), getattr(pynvml, name)
    assert ctypes.sizeof(own) == ctypes.sizeof(reference)
    for field in own._fields_:
        ours, theirs = getattr(own, field[0]), getattr(reference, field[0])
        assert (ours.offset, ours.size) == (theirs.offset, theirs.size), field[0]
    assert [field[0] for field in own._fields_] == [field[0] for field in reference._fields_]


def test_versioned_structure_announces_itself_like_pynvml() -> None:
    assert nvml_ctypes.c_nvmlGpuFabricInfo_v2_t().version == pynvml.nvmlGpuFabricInfo_v2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_pynvmls_name(name: str) -> None:
    assert callable(getattr(pynvml, name))


def test_no_function_can_change_a_device() -> None:
    assert len(FUNCTIONS) > 50
    changing = [name for name in FUNCTIONS if not re.match(r"nvml(Init$|Shutdown$|System|Device)(Get|$)?", name)]
    assert changing == []
    assert [name for name in FUNCTIONS if re.search(r"Set|Reset|Clear|Create|Destroy|Remove|Register", name)] == []


def test_codes_and_names_are_pynvmls() -> None:
    codes = {name: value for name, value in vars(nvml_errors).items() if isinstance(value, int) and name != "BINDING"}
    renamed = {"VERSION_MISMATCH": "LIB_RM_VERSION_MISMATCH"}
    for name, value in codes.items():
        assert getattr(pynvml, f"NVML_ERROR_{renamed.get(name, name)}") == value
    for number, name in nvml_names.ARCHITECTURES.items():
        assert getattr(pynvml, f"NVML_DEVICE_ARCH_{name.upper()}") == number
    for number, name in nvml_names.RECOVERY_ACTIONS.items():
        assert getattr(pynvml, f"NVML_GPU_RECOVERY_ACTION_{name.upper()}") == number
    for number, version in nvml_names.NVLINK_VERSIONS.items():
        assert getattr(pynvml, f"NVML_NVLINK_VERSION_{version.replace('.', '_')}") == number
    for number, name in nvml_names.COMPUTE_MODES.items():
        assert getattr(pynvml, f"NVML_COMPUTEMODE_{name.upper()}") == number
    for number, name in nvml_names.EVENT_REASONS.items():
        camel = "".join(part.title() for part in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{camel}") == number


@pytest.mark.parametrize(
    ("words", "text"),
    [([0], ""), ([0b1], "0"), ([0b1111], "0-3"), ([0b100001011], "0-1,3,8"), ([1 << 63, 0b11], "63-65")],
)
def test_cpu_masks(words: list[int], text: str) -> None:
    assert nvml_names.cpu_list(words) == text


@pytest.mark.parametrize(
    ("bus_id", "address"),
    [("00000000:1B:00.0", "0000:1b:00.0"), (b"0009:01:00.0", "0009:01:00.0"), ("00010000:01:00.0", "10000:01:00.0")],
)
def test_pci_addresses_are_the_kernels(bus_id: Any, address: str) -> None:
    assert nvml_names.pci_address(bus_id) == address


def test_unknown_numbers_are_no_names() -> None:
    with pytest.raises(nvml_errors.UnreadableError, match="answers 77"):
        nvml_names.name_of(nvml_names.ARCHITECTURES, 77)
    assert nvml_names.reasons_of(0x5 | 1 << 40) == ["gpu_idle", "sw_power_cap", "bit_40"]


class Answers:
    """A driver whose energy is text, and whose one-byte fabric state is followed by padding that is not zero."""

    name = "odd binding"

    def call(self, names: Any, *args: Any) -> Any:
        if names == "nvmlDeviceGetGpuFabricInfoV":
            args[1]._obj.state = 0xABCD0003
            return 0
        return "much" if names == "nvmlDeviceGetTotalEnergyConsumption" else 7


def test_an_answer_in_an_unknown_form_costs_only_itself() -> None:
    reader = nvml_reader.DeviceReader(Answers(), 0)
    reader.get("index", "nvmlDeviceGetMinorNumber")
    reader.get("energy", "nvmlDeviceGetTotalEnergyConsumption", convert=nvml_names.watts)
    record = reader.result()
    assert (record["index"], record["energy"], record["state"]) == (7, None, "ok")
    assert record["missing"]["energy"].startswith("the answer of odd binding cannot be read (TypeError")


def test_the_fabric_state_is_one_byte() -> None:
    reader = nvml_reader.DeviceReader(Answers(), 0)
    nvml_compound.read_fabric(reader)
    assert reader.record.get("fabric.state") == "completed"


OLD_PYNVML = f'''
"""pynvml as it was before 12.570: fewer functions, another GSP signature, another exception for missing symbols."""
import importlib.util, sys
_spec = importlib.util.spec_from_file_location("pynvml_now", {pynvml.__file__!r})
_now = importlib.util.module_from_spec(_spec)
sys.modules['pynvml_now'] = _now
_spec.loader.exec_module(_now)
_newer = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t")
globals().update({{k: v for k, v in vars(_now).items() if not k.startswith("__") and k not in _newer}})
class NVMLLibraryMismatchError(Exception): pass
def nvmlDeviceGetGspFirmwareVersion(handle, version):
    return _now.nvmlDeviceGetGspFirmwareVersion(handle, version)
def nvmlDeviceGetMPSComputeRunningProcesses(handle):
    raise NVMLLibraryMismatchError("Unversioned function called")
'''


def test_older_pynvml_gives_the_same_facts(tmp_path: Path) -> None:
    binding = tmp_path / "binding"
    binding.mkdir()
    (binding / "pynvml.py").write_text(OLD_PYNVML, encoding="utf-8")
    node = SimulatedNode(tmp_path, "h100x8")
    old, new = node.facts(str(binding)), node.facts()
    assert (old["source"], old["situation"], old["missing"]) == ("nvml-pynvml", "ready", new["missing"])
    assert old["devices"] == new["devices"]


def test_broken_pynvml_is_passed_over_and_named(tmp_path: Path) -> None:
    binding = tmp_path / "binding"
    binding.mkdir()
    (binding / "pynvml.py").write_text("raise RuntimeError('half an installation')\n", encoding="utf-8")
    facts = SimulatedNode(tmp_path, "rtx4090x2").facts(str(binding))
    assert (facts["source"], facts["situation"]) == ("nvml-ctypes", "ready")
    assert "half an installation" in facts["missing"]["source.nvml-pynvml"]


def test_only_one_file_of_the_package_touches_pynvml() -> None:
    package = ROOT / "module_utils/rackwright"
    touching = [
        path.name
        for path in package.glob("*.py")
        if re.search(r'import_module\("pynvml"\)|import pynvml', path.read_text())
    ]
    assert touching == ["nvml.py"]
    assert "ansible.module_utils.rackwright.nvml_ctypes" in sys.modules
