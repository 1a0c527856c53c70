# SPDX-License-Identifier: Apache-2.0
"""Every way to make the simulated driver fail, seen through the real bindings."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

LOST, RESET_REQUIRED, UNKNOWN, TIMEOUT = 15, 16, 999, 10


@pytest.mark.parametrize(
    ("error", "value"),
    [
        ("LIB_RM_VERSION_MISMATCH", 18),
        ("DRIVER_NOT_LOADED", 9),
        ("NO_PERMISSION", 4),
        ("NVML_ERROR_UNKNOWN", 999),
        ("20", 20),
    ],
)
def test_init_fails(node: Callable[..., Any], uninitialised: str, error: str, value: int) -> None:
    broken = node()
    broken.put("fail.init", error)
    assert broken.python("emit(code(nv.nvmlInit))", start=uninitialised) == value


def test_versions_differ(node: Callable[..., Any], uninitialised: str) -> None:
    broken = node()
    broken.put("driver_version", "535.261.03")
    found = broken.python("emit([code(nv.nvmlInit), nv.nvmlSystemGetNVMLVersion()])", start=uninitialised)
    assert found == [18, "13.580.105.08"]


def test_no_scenario_is_no_driver(node: Callable[..., Any], uninitialised: str) -> None:
    broken = node()
    broken.conf.unlink()
    assert broken.python("emit(code(nv.nvmlInit))", start=uninitialised) == 9


def test_nothing_works_before_init(node: Callable[..., Any], uninitialised: str) -> None:
    found = node().python("emit([code(nv.nvmlDeviceGetCount), code(nv.nvmlShutdown)])", start=uninitialised)
    assert found == [1, 1]


def test_one_function_fails_for_all(node: Callable[..., Any]) -> None:
    broken = node()
    broken.put("fail.nvmlDeviceGetTemperature", "UNKNOWN")
    found = broken.python(
        "emit([code(nv.nvmlDeviceGetTemperature, gpus[0], 0), code(nv.nvmlDeviceGetTemperature, gpus[7], 0),"
        " code(nv.nvmlDeviceGetUUID, gpus[0])])"
    )
    assert found == [UNKNOWN, UNKNOWN, 0]


def test_the_version_of_a_function_need_not_be_named(node: Callable[..., Any]) -> None:
    broken = node()
    broken.put("fail.nvmlDeviceGetPciInfo", "TIMEOUT")
    assert broken.python("emit(code(nv.nvmlDeviceGetPciInfo_v3, gpus[0]))") == TIMEOUT


@pytest.mark.parametrize(("error", "value"), [("GPU_IS_LOST", LOST), ("RESET_REQUIRED", RESET_REQUIRED)])
def test_one_gpu_fails(node: Callable[..., Any], uninitialised: str, error: str, value: int) -> None:
    broken = node()
    broken.put("gpu.3.fail", error)
    codes = broken.python(
        "nv.nvmlInit()\nemit([code(nv.nvmlDeviceGetHandleByIndex, i) for i in range(nv.nvmlDeviceGetCount())])",
        start=uninitialised,
    )
    assert codes == [0, 0, 0, value, 0, 0, 0, 0]


def test_a_gpu_falls_off_during_a_probe(node: Callable[..., Any]) -> None:
    broken = node()
    broken.add(gpu__3__fail="GPU_IS_LOST", gpu__3__fail_after="3")
    codes = broken.python("emit([code(nv.nvmlDeviceGetUUID, gpus[3]) for _ in range(4)])")
    assert codes == [0, 0, LOST, LOST]


def test_one_call_of_one_gpu_fails(node: Callable[..., Any]) -> None:
    broken = node()
    broken.put("gpu.2.fail.nvmlDeviceGetPowerUsage", "TIMEOUT")
    assert broken.python("emit([code(nv.nvmlDeviceGetPowerUsage, g) for g in gpus[:4]])") == [0, 0, TIMEOUT, 0]


def test_single_values_fail(node: Callable[..., Any]) -> None:
    broken = node()
    broken.add(gpu__1__temp__gpu="N/A", gpu__2__temp__gpu="!UNKNOWN", gpu__3__temp__gpu="!15", gpu__4__temp__gpu="hot")
    codes = broken.python("emit([code(nv.nvmlDeviceGetTemperature, g, 0) for g in gpus[:5]])")
    assert codes == [0, 3, UNKNOWN, LOST, UNKNOWN]


def test_a_value_from_a_file(node: Callable[..., Any]) -> None:
    warm = node()
    (warm.root / "degrees").write_text("91\n")
    warm.put("gpu.5.temp.gpu", f"@{warm.root}/degrees")
    assert warm.python("emit(nv.nvmlDeviceGetTemperature(gpus[5], 0))") == 91


def test_a_gpu_is_missing(node: Callable[..., Any]) -> None:
    smaller = node()
    smaller.put("count", "7")
    assert smaller.python("emit(len(gpus))") == 7


def test_no_gpu_at_all(node: Callable[..., Any]) -> None:
    empty = node()
    empty.put("count", "0")
    assert empty.python("emit(len(gpus))") == 0


def test_the_driver_is_slow(node: Callable[..., Any]) -> None:
    slow = node()
    slow.add(delay_ms="0", delay_ms__nvmlDeviceGetName="120")
    names, uuids = slow.python(
        "import time\nt = [time.monotonic()]\n"
        "nv.nvmlDeviceGetName(gpus[0]); t.append(time.monotonic())\n"
        "nv.nvmlDeviceGetUUID(gpus[0]); t.append(time.monotonic())\n"
        "emit([t[1] - t[0], t[2] - t[1]])"
    )
    assert names >= 0.12
    assert uuids < 0.1


@pytest.mark.parametrize(("how", "status"), [("segv", -signal.SIGSEGV), ("abort", -signal.SIGABRT), ("exit", 1)])
def test_the_driver_crashes_the_client(node: Callable[..., Any], how: str, status: int) -> None:
    broken = node()
    broken.put("crash.nvmlDeviceGetCount", how)
    done = broken.run(
        [
            sys.executable,
            "-c",
            "import ctypes, os; ctypes.CDLL(os.environ['SIMNVML_LIBRARY']); import pynvml as n; n.nvmlInit();"
            " n.nvmlDeviceGetCount(); os._exit(77)",
        ]
    )
    assert done.returncode == status


def test_the_driver_hangs(node: Callable[..., Any]) -> None:
    broken = node()
    broken.put("crash.init", "hang")
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        broken.run(
            [
                sys.executable,
                "-c",
                "import ctypes, os; ctypes.CDLL(os.environ['SIMNVML_LIBRARY']); import pynvml; pynvml.nvmlInit()",
            ],
            timeout=1.5,
        )
    assert time.monotonic() - start < 10


def test_wrong_arguments(node: Callable[..., Any]) -> None:
    codes = node().python(
        "wild = ctypes.cast(ctypes.c_void_p(0x1234), nv.c_nvmlDevice_t)\n"
        "info = nv.c_nvmlMemory_v2_t(); info.version = 0x3000028\n"
        "library = ctypes.CDLL('libnvidia-ml.so.1')\n"
        "emit([code(nv.nvmlDeviceGetName, wild), code(nv.nvmlDeviceGetHandleByIndex, 8),"
        " library.nvmlDeviceGetMemoryInfo_v2(gpus[0], ctypes.byref(info)),"
        " library.nvmlDeviceGetName(gpus[0], ctypes.create_string_buffer(4), 4)])"
    )
    assert codes == [2, 2, 25, 7]


def test_a_link_is_down(node: Callable[..., Any]) -> None:
    broken = node()
    broken.add(gpu__3__nvlink__7__state="0", gpu__3__nvlink__8__error__replay="5")
    states, errors, total = broken.python(
        "emit([[nv.nvmlDeviceGetNvLinkState(gpus[3], i) for i in range(18)],"
        " nv.nvmlDeviceGetNvLinkErrorCounter(gpus[3], 8, nv.NVML_NVLINK_ERROR_DL_REPLAY),"
        " nv.nvmlDeviceGetFieldValues(gpus[3], [nv.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL])[0].value.ullVal])"
    )
    assert [index for index, state in enumerate(states) if not state] == [7]
    assert errors == total == 5


def test_injected_ecc_errors_show_everywhere(node: Callable[..., Any]) -> None:
    broken = node()
    broken.add(
        gpu__0__ecc__volatile__uncorrected__dram="3",
        gpu__0__ecc__volatile__uncorrected__sram_parity="1",
        gpu__0__remap__pending="1",
    )
    total, dram, status, field, remap = broken.python(
        "s = nv.c_nvmlEccSramErrorStatus_v1_t(); nv.nvmlDeviceGetSramEccErrorStatus(gpus[0], ctypes.byref(s))\n"
        "def field(number): return nv.nvmlDeviceGetFieldValues(gpus[0], [number])[0].value.ullVal\n"
        "emit([nv.nvmlDeviceGetTotalEccErrors(gpus[0], 1, 0), nv.nvmlDeviceGetMemoryErrorCounter(gpus[0], 1, 0, 2),"
        " s.volatileUncParity, field(nv.NVML_FI_DEV_ECC_DBE_VOL_TOTAL),"
        " list(nv.nvmlDeviceGetRemappedRows(gpus[0]))])"
    )
    assert (total, dram, status, field) == (4, 3, 1, 4)
    assert remap[2] == 1


def test_the_trace_names_every_call(node: Callable[..., Any]) -> None:
    traced = node()
    traced.python("nv.nvmlDeviceGetName(gpus[5])\nnv.nvmlShutdown()")
    calls = traced.calls()
    assert calls[0] == ("nvmlInitWithFlags", "-")
    assert calls[-2:] == [("nvmlDeviceGetName", "5"), ("nvmlShutdown", "-")]


def test_no_symbol_is_missing(node: Callable[..., Any]) -> None:
    missing = node().python(
        "import inspect, re\nlibrary = ctypes.CDLL('libnvidia-ml.so.1')\n"
        "names = set(re.findall(r'_nvmlGetFunctionPointer\\(\"(\\w+)\"\\)', inspect.getsource(nv)))\n"
        "assert len(names) > 400\nemit(sorted(n for n in names if not hasattr(library, n)))"
    )
    assert missing == []
