# SPDX-License-Identifier: Apache-2.0
"""Functions that an older driver does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FUNCTIONS = Path(__file__).resolve().parents[2] / "simnvml" / "functions.txt"
NOT_FOUND = 13
NEWER = (
    "emit([code(nv.nvmlDeviceGetTemperatureV, gpus[0], 0), code(nv.nvmlDeviceGetAddressingMode, gpus[0]),"
    " code(nv.nvmlDeviceGetCurrentClocksEventReasons, gpus[0]), code(nv.nvmlDeviceGetTemperature, gpus[0], 0)])"
)


@pytest.mark.parametrize(
    ("generation", "codes"),
    [("535", [NOT_FOUND, NOT_FOUND, 0, 0]), ("570", [0, NOT_FOUND, 0, 0]), ("580", [0, 0, 0, 0]), ("0", [0, 0, 0, 0])],
)
def test_generations(node: Callable[..., Any], generation: str, codes: list[int]) -> None:
    machine = node()
    machine.put("generation", generation)
    assert machine.python(NEWER) == codes


def test_the_library_version_decides_without_a_generation(node: Callable[..., Any]) -> None:
    assert node("v100x4").python("emit(code(nv.nvmlDeviceGetTemperatureV, gpus[0], 0))") == NOT_FOUND


def test_the_process_functions_hide_the_missing_symbol(node: Callable[..., Any]) -> None:
    """The bindings turn a missing process function into an error of another family."""
    machine = node()
    machine.put("fail.nvmlDeviceGetComputeRunningProcesses", "FUNCTION_NOT_FOUND")
    found = machine.python(
        "try:\n    nv.nvmlDeviceGetComputeRunningProcesses(gpus[0])\n"
        "except nv.NVMLLibraryMismatchError as error:\n    emit(isinstance(error, nv.NVMLError))"
    )
    assert found is False


def test_the_list_is_sorted_and_complete() -> None:
    rows = [line.split() for line in FUNCTIONS.read_text().splitlines() if not line.startswith("#")]
    names = [name for _, name in rows]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert {int(branch) for branch, _ in rows} >= {535, 550, 560, 570, 580}
