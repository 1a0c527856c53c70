# SPDX-License-Identifier: Apache-2.0
"""The only file that imports torch, and only inside a child process: what the children of the benchmark do.

A child writes each thing it knows as one JSON line to a file at once. If it hangs or dies, what it had finished stays.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from . import benchmark_plan, torch_suites
from .benchmark_errors import busy_error, classify, lost_error
from .gpu_readings import Meter, busy_of, open_gpu, watch_of
from .torch_bench import NO_CPU_CLOCKS, Bench, NotApplicableError, NotIdleError, import_result
from .torch_device import device_info

_SETTLE_POLL_S = 0.2


def run_first(request: Mapping[str, Any]) -> str:
    """Import torch, write down what it is and which devices to use; run the suites if the CPU is the only one."""
    started = time.perf_counter()
    torch = _import_torch()
    seconds = time.perf_counter() - started
    with _Progress(request["progress_path"]) as progress:
        described = describe(torch)
        progress.write(torch=described)
        devices, unknown = benchmark_plan.choose_devices(request["devices"], described["cuda_device_count"])
        progress.write(devices=devices, unknown=unknown)
        if request.get("plan_only"):
            return "planned"
        if "import" in request["suites"]:
            progress.write(result=import_result(seconds, request["level"]))
        if devices == ["cpu"]:
            _run_suites(torch, "cpu", request, progress)
    return "done"


def run_device(request: Mapping[str, Any]) -> str:
    """Run the suites on ``request['device']``."""
    torch = _import_torch()
    with _Progress(request["progress_path"]) as progress:
        _run_suites(torch, request["device"], request, progress)
    return "done"


def describe(torch: Any) -> dict[str, Any]:
    """Return version and build of torch and what it sees; asks the CUDA runtime, so it may hang on a broken driver."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = bool(torch.cuda.is_available())
        count = _usable_devices(torch) if available else 0
    cuda_build = torch.version.cuda
    cudnn = torch.backends.cudnn.version() if cuda_build and torch.backends.cudnn.is_available() else None
    return {
        "version": str(torch.__version__),
        "cuda_build": cuda_build,
        "hip_build": getattr(torch.version, "hip", None),
        "arch_list": list(torch.cuda.get_arch_list()) if available else [],
        "cudnn": cudnn,
        "cuda_available": available,
        "cuda_device_count": count,
        "cuda_unavailable_reason": None if available else _why_no_cuda(cuda_build, [str(w.message) for w in caught]),
        "threads": int(torch.get_num_threads()),
        "path": os.path.dirname(str(getattr(torch, "__file__", "") or "")) or None,
    }


def _usable_devices(torch: Any) -> int:
    """Return how many devices CUDA gives this process: torch itself counts what NVML has, which under MIG is more."""
    count = int(torch.cuda.device_count())
    runtime = getattr(getattr(torch, "_C", None), "_cuda_getDeviceCount", None)
    return min(count, int(runtime())) if callable(runtime) else count


def _why_no_cuda(cuda_build: str | None, messages: list[str]) -> str:
    if not cuda_build:
        return "this build of torch has no CUDA support"
    return " ".join(" ".join(messages).split()) or "torch sees no CUDA device"


def _import_torch() -> Any:
    # by default CUDA puts the fastest card first; gpu_facts and people count in the order of the bus
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Ansible puts an object in the place of this function in its modules, and torch's compiler demands the function
    genuine = getattr(sys.intern, "unpatched_implementation", None)
    if genuine is not None:
        vars(sys)["intern"] = genuine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns on import when NumPy is absent; nothing here needs NumPy
        import torch

    return torch


def run_node(request: Mapping[str, Any]) -> str:
    """Run suites that need all devices in one process, which sees ``request['peers']``."""
    torch = _import_torch()
    with _Progress(request["progress_path"]) as progress:
        torch.manual_seed(request["seed"])
        bench = Bench(
            torch,
            "node",
            request["level"],
            request["seed"],
            {"name": None},
            watch_of(None, "several GPUs are measured at once"),
            options=request.get("options") or {},
            peers=tuple(device for device in request["peers"] if _is_free(torch, device, request, progress)),
            scratch=request.get("scratch"),
        )
        for position, suite in enumerate(request["suites"]):
            progress.write(start=suite, device="node")
            if not _run_one(bench, suite, request["suites"][position + 1 :], progress):
                break
    return "done"


def _is_free(torch: Any, device: str, request: Mapping[str, Any], progress: _Progress) -> bool:
    """Wait until nobody uses the device; False, with an error written down, where somebody still does."""
    return not _busy(open_gpu(device_info(torch, device))[0], device, request, progress)


def _busy(meter: Meter | None, device: str, request: Mapping[str, Any], progress: _Progress) -> bool:
    """Wait, after an earlier phase, for the driver to take down what its processes had; True, and an error, if busy."""
    deadline = time.monotonic() + float(request.get("settle_s") or 0.0)
    while (busy := None if request["allow_busy"] else busy_of(meter)) is not None:
        if time.monotonic() >= deadline:
            progress.write(error=busy_error(device, busy))
            return True
        time.sleep(_SETTLE_POLL_S)
    return False


def _run_suites(torch: Any, device: str, request: Mapping[str, Any], progress: _Progress) -> None:
    progress.write(start="device", device=device)
    info = device_info(torch, device)
    progress.write(device_info=info)
    bench = _open_bench(torch, device, request, info)
    if device != "cpu":
        if _busy(bench.meter, device, request, progress):
            return
        # events and streams belong to the current device, whatever device the tensors are on
        torch.cuda.set_device(device)
    torch.manual_seed(request["seed"])
    suites = [suite for suite in request["suites"] if suite != "import"]
    for position, suite in enumerate(suites):
        progress.write(start=suite, device=device)
        if _idle(bench, suite, request, progress) and not _run_one(bench, suite, suites[position + 1 :], progress):
            return


def _open_bench(torch: Any, device: str, request: Mapping[str, Any], info: dict[str, Any]) -> Bench:
    missing: str | None = NO_CPU_CLOCKS
    no_peak: str | None = "the device is a CPU: the catalogue has GPUs"
    meter, peak = None, None
    if device != "cpu":
        meter, missing = open_gpu(info)
        peak, no_peak = meter.peak() if meter is not None else (None, missing)
    return Bench(
        torch,
        device,
        request["level"],
        request["seed"],
        info,
        watch_of(meter, missing),
        options=request.get("options") or {},
        peers=tuple(request.get("peers") or ()),
        meter=meter,
        peak=peak,
        peak_missing=no_peak,
        scratch=request.get("scratch"),
    )


def _idle(bench: Bench, suite: str, request: Mapping[str, Any], progress: _Progress) -> bool:
    """Wait until what ran before has ended; False, with an error written down, where it does not."""
    if request["allow_busy"]:
        return True
    try:
        bench.wait_for_idle()
    except NotIdleError as error:
        progress.write(error={"device": bench.device, "suite": suite, **classify(error)})
        return False
    return True


def _run_one(bench: Bench, suite: str, left: Sequence[str], progress: _Progress) -> bool:
    """Run one suite and write down what comes of it; False when the device cannot go on to those that are ``left``."""
    try:
        for result in torch_suites.SUITES[suite](bench):
            if "not_applicable" in result:
                progress.write(not_applicable=result["not_applicable"])
            else:
                progress.write(result=result)
    except NotApplicableError as reason:
        progress.write(not_applicable={"suite": suite, "device": bench.device, "reason": str(reason)})
    except Exception as error:  # whatever torch raises is this suite's outcome, and the next suite still runs
        progress.write(error={"device": bench.device, "suite": suite, **classify(error)})
    bench.flush = None
    try:
        bench.release()
    except Exception as error:  # after an illegal access or an ECC error every call of this process fails
        progress.write(error=lost_error(bench.device, suite, error, left))
        return False
    return True


class _Progress:
    """One JSON document per line, on disk before the next thing is tried."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> _Progress:
        self._handle = open(self._path, "a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def write(self, **record: Any) -> None:
        self._handle.write(json.dumps(record) + "\n")
