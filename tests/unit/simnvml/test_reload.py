# SPDX-License-Identifier: Apache-2.0
"""A client that runs while the scenario changes sees the old node or the new one, never a mixture."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from simnvml.simnvml import profiles, scenario

# Each thread reads two values in one call that every version of the scenario keeps equal.
CLIENT = """
import threading
stop, wrong, done = threading.Event(), [], [0] * 4

def work(slot):
    gpu = gpus[slot]
    while not stop.is_set():
        try:
            util = nv.nvmlDeviceGetUtilizationRates(gpu)
            if util.gpu != util.memory:
                wrong.append([util.gpu, util.memory])
            name = nv.nvmlDeviceGetName(gpu)
            if name != "NVIDIA H100 80GB HBM3":
                wrong.append(name)
        except nv.NVMLError as error:
            wrong.append(error.value)
        done[slot] += 1

threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]
print("running", flush=True)
sys.stdin.readline()
stop.set()
[t.join() for t in threads]
emit([wrong[:5], min(done), nv.nvmlDeviceGetUtilizationRates(gpus[0]).gpu])
"""


def test_a_change_is_seen_by_a_running_client(node: Callable[..., Any]) -> None:
    found = node().python(
        "before = nv.nvmlDeviceGetTemperature(gpus[0], 0)\n"
        "conf = os.environ['SIMNVML_CONF']\ntext = open(conf).read() + 'gpu.0.temp.gpu = 77\\n'\n"
        "open(conf + '.new', 'w').write(text); os.replace(conf + '.new', conf)\n"
        "emit([before, nv.nvmlDeviceGetTemperature(gpus[0], 0)])"
    )
    assert found == [29, 77]


def test_concurrent_rewrites(node: Callable[..., Any]) -> None:
    machine = node()
    base = scenario.flatten(profiles.load("h100x8"), "h100x8")
    client = subprocess.Popen(
        [sys.executable, "-c", machine.start + CLIENT],
        env={key: value for key, value in machine.environment.items() if key != "SIMNVML_TRACE"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "running\n"
    for number in range(1, 61):
        # a different length each time, and both values in the same version
        machine.write(f"{base}# {'x' * number}\ngpu.util.gpu = {number}\ngpu.util.memory = {number}\n")
        time.sleep(0.01)
    output, _ = client.communicate("stop\n", timeout=30)
    assert client.returncode == 0
    wrong, least, last = json.loads(output.splitlines()[-1])
    assert wrong == []
    assert least > 50
    assert last == 60
