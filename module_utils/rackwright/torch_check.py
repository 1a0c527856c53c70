# SPDX-License-Identifier: Apache-2.0
"""Ask an environment's torch what it is, and let every usable GPU run one kernel."""

from __future__ import annotations

import json
from typing import Any

from .errors import ProbeError
from .pyenv import as_owner
from .wheel_install import RunEnv, Venv

SCRIPT = """
import json, sys
answer = {"version": None, "cuda": None, "file": None, "numpy": None, "tensor": None, "devices": [], "error": None}
try:
    import torch
    answer.update(version=str(torch.__version__), cuda=torch.version.cuda, file=torch.__file__)
    answer["tensor"] = float(torch.arange(4.0).sum())
    import numpy
    answer["numpy"] = str(numpy.__version__)
    torch.from_numpy(numpy.ones(2, dtype="float32"))
    if sys.argv[1] == "kernel":
        answer["available"] = torch.cuda.is_available()
        # torch counts what NVML has, which under MIG is more than CUDA gives a process
        count = getattr(torch._C, "_cuda_getDeviceCount", torch.cuda.device_count)() if answer["available"] else 0
        for index in range(count):
            device = {"index": index, "name": None, "ok": False, "error": None}
            try:
                device["name"] = torch.cuda.get_device_name(index)
                value = float((torch.ones(1024, device="cuda:%d" % index) + 1).sum().item())
                device["ok"] = value == 2048.0
            except Exception as error:
                device["error"] = str(error).splitlines()[0]
            answer["devices"].append(device)
except BaseException as error:
    answer["error"] = "%s: %s" % (type(error).__name__, (str(error).splitlines() or [""])[0])
print("RACKWRIGHT" + json.dumps(answer))
"""


def ask_torch(run: RunEnv, venv: Venv, kernel: bool, timeout: int) -> dict[str, Any]:
    """Return what torch answers; ``error`` says why it could not."""
    command = ["timeout", "--kill-after=5", str(timeout)]
    command += [venv.python, "-I", "-c", SCRIPT, "kernel" if kernel else "import"]
    status, output, error = run(as_owner(command, venv.root), {})
    for line in reversed(output.splitlines()):
        if line.startswith("RACKWRIGHT"):
            answer: dict[str, Any] = json.loads(line[len("RACKWRIGHT") :])
            return answer
    if status in {124, 137}:
        return {"error": f"no answer within {timeout} s"}
    last = (error.strip().splitlines() or [f"it ended with status {status}"])[-1]
    return {"error": f"the interpreter died: {last}"}


def check_kernels(venv: Venv, answer: dict[str, Any], expected: int) -> None:
    """Refuse a torch that cannot run a kernel on every GPU that should be usable."""
    devices = answer.get("devices") or []
    bad = [device for device in devices if not device["ok"]]
    if not bad and len(devices) == expected:
        return
    if bad:
        cause = f"GPU {bad[0]['index']} ({bad[0]['name']}): {bad[0]['error'] or 'a kernel gave a wrong result'}"
    else:
        cause = f"torch sees {len(devices)} GPUs and the driver reports {expected}"
    raise ProbeError(
        "launch a kernel",
        str(venv.root),
        cause,
        "Compare the build with the GPU's compute capability and the driver in docs/python.md",
        expected=f"{expected} GPUs that run a kernel",
        found=devices,
    )
