# SPDX-License-Identifier: Apache-2.0
"""Setters write an overlay: one process sets, another sees; a boot forgets what real hardware forgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# what is set, how it is read, before, after; the last word says whether it survives a boot
SETTERS: list[tuple[str, str, str, Any, Any]] = [
    (
        "persistence",
        "nv.nvmlDeviceSetPersistenceMode(gpus[2], 0)",
        "nv.nvmlDeviceGetPersistenceMode(gpus[2])",
        1,
        0,
    ),
    (
        "power limit",
        "nv.nvmlDeviceSetPowerManagementLimit(gpus[2], 500000)",
        "nv.nvmlDeviceGetPowerManagementLimit(gpus[2])",
        700000,
        500000,
    ),
    (
        "power limit by scope",
        "nv.nvmlDeviceSetPowerManagementLimit_v2(gpus[2], nv.NVML_POWER_SCOPE_GPU, 400000)",
        "nv.nvmlDeviceGetEnforcedPowerLimit(gpus[2])",
        700000,
        400000,
    ),
    (
        "compute mode",
        "nv.nvmlDeviceSetComputeMode(gpus[2], 3)",
        "nv.nvmlDeviceGetComputeMode(gpus[2])",
        0,
        3,
    ),
    (
        "application clocks",
        "nv.nvmlDeviceSetApplicationsClocks(gpus[2], 2619, 1500)",
        "nv.nvmlDeviceGetApplicationsClock(gpus[2], 0)",
        1980,
        1500,
    ),
    (
        "accounting",
        "nv.nvmlDeviceSetAccountingMode(gpus[2], 1)",
        "nv.nvmlDeviceGetAccountingMode(gpus[2])",
        0,
        1,
    ),
    (
        "pending ECC",
        "nv.nvmlDeviceSetEccMode(gpus[2], 0)",
        "nv.nvmlDeviceGetEccMode(gpus[2])",
        [1, 1],
        [1, 0],
    ),
]
ALL_CODES = (
    "emit([code(nv.nvmlDeviceSetPersistenceMode, gpus[0], 1),"
    " code(nv.nvmlDeviceSetPowerManagementLimit, gpus[0], 300000),"
    " code(nv.nvmlDeviceSetEccMode, gpus[0], 0), code(nv.nvmlDeviceSetMigMode, gpus[0], 1),"
    " code(nv.nvmlDeviceSetGpuLockedClocks, gpus[0], 300, 900), code(nv.nvmlDeviceClearEccErrorCounts, gpus[0], 0),"
    " code(nv.nvmlDeviceResetApplicationsClocks, gpus[0])])"
)


@pytest.mark.parametrize(("what", "write", "read", "before", "after"), SETTERS, ids=[row[0] for row in SETTERS])
def test_another_process_sees_what_one_set(
    node: Callable[..., Any], what: str, write: str, read: str, before: Any, after: Any
) -> None:
    machine = node()
    assert machine.python(f"emit({read})") == before, what
    machine.python(write)
    assert machine.python(f"emit({read})") == after, what
    others = machine.python(f"emit({read.replace('gpus[2]', 'gpus[1]')})")
    assert others == before, what


@pytest.mark.parametrize(("what", "write", "read", "before", "after"), SETTERS, ids=[row[0] for row in SETTERS])
def test_a_boot_keeps_only_what_the_inforom_keeps(
    node: Callable[..., Any], what: str, write: str, read: str, before: Any, after: Any
) -> None:
    machine = node()
    machine.python(write)
    assert machine.ctl("boot").returncode == 0
    kept = [0, 0] if what == "pending ECC" else before
    assert machine.python(f"emit({read})") == kept


def test_an_ordinary_user_may_not_set(node: Callable[..., Any]) -> None:
    machine = node()
    assert set(machine.python(ALL_CODES, SIMNVML_EUID="1000")) == {4}
    assert not (machine.root / "run/simnvml/state.conf").exists()
    assert set(machine.python(ALL_CODES)) == {0}


def test_values_out_of_range_are_refused(node: Callable[..., Any]) -> None:
    codes = node().python(
        "emit([code(nv.nvmlDeviceSetPowerManagementLimit, gpus[0], 900000),"
        " code(nv.nvmlDeviceSetPowerManagementLimit, gpus[0], 1000), code(nv.nvmlDeviceSetComputeMode, gpus[0], 9),"
        " code(nv.nvmlDeviceSetPersistenceMode, gpus[0], 2),"
        " code(nv.nvmlDeviceSetApplicationsClocks, gpus[0], 1, 9000)])"
    )
    assert codes == [2, 2, 2, 2, 2]


def test_what_a_board_lacks_cannot_be_set(node: Callable[..., Any]) -> None:
    codes = node("rtx4090x2").python(
        "emit([code(nv.nvmlDeviceSetEccMode, gpus[0], 1), code(nv.nvmlDeviceSetMigMode, gpus[0], 1),"
        " code(nv.nvmlDeviceSetApplicationsClocks, gpus[0], 10501, 2000)])"
    )
    assert codes == [3, 3, 3]


def test_clearing_errors_clears_the_counters(node: Callable[..., Any]) -> None:
    machine = node()
    machine.add(gpu__0__ecc__volatile__uncorrected__dram="3", gpu__0__ecc__aggregate__uncorrected__dram="4")
    machine.python("nv.nvmlDeviceClearEccErrorCounts(gpus[0], 0)")
    counts = machine.python("emit([nv.nvmlDeviceGetTotalEccErrors(gpus[0], 1, t) for t in (0, 1)])")
    assert counts == [0, 4]


def test_setters_of_many_processes_lose_nothing(node: Callable[..., Any]) -> None:
    machine = node()
    machine.python(
        "import threading\n"
        "def work(i):\n"
        "    for n in range(40):\n"
        "        nv.nvmlDeviceSetPowerManagementLimit(gpus[i], 200000 + n * 1000)\n"
        "threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]"
    )
    limits = machine.python("emit([nv.nvmlDeviceGetPowerManagementLimit(g) for g in gpus])")
    assert limits == [239000] * 8
    lines = (machine.root / "run/simnvml/state.conf").read_text().splitlines()
    assert len(lines) == 320
