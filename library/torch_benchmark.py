#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Prove that torch works on a node and measure its devices."""

from __future__ import annotations

DOCUMENTATION = r"""
module: torch_benchmark
short_description: Prove that torch works on a node and measure its devices
description:
  - Imports torch with the interpreter of the node's own environment, launches a kernel whose exact answer is known
    on every visible GPU, and measures matrix products and memory bandwidth.
  - Every device is measured in a child process of its own, with a hard time limit. A device that hangs, crashes or runs
    out of memory is an entry in RV(torch_benchmark.errors); what the other devices gave is kept.
  - On a node where torch sees no GPU the CPU is measured with the same result format. Such results carry C(device=cpu)
    and are never to be compared with a GPU's catalogue.
  - Changes nothing on the node, so C(changed) is always false.
options:
  python:
    description:
      - Interpreter that has torch, for example C(/opt/rackwright/venv/bin/python). The module starts again under it.
      - By default the interpreter the module was started with.
    type: path
  suites:
    description:
      - V(import) tells version, CUDA build, architectures and cuDNN of torch, and how long the import took.
      - V(kernel) launches kernels whose exact answer is known.
      - V(gemm) measures matrix products, V(memory) copies in device memory.
      - V(llm_inference) and V(llm_training) run a language model of random weights.
      - By default the suites of the O(level).
    type: list
    elements: str
    choices: [import, kernel, gemm, memory, llm_inference, llm_training]
  devices:
    description:
      - V(auto) is every visible GPU, or the CPU where torch sees none. V(cuda) is every visible GPU, and an error entry
        where there is none. V(cpu) is the CPU. Otherwise a list of GPU indices such as V(0) or V(cuda:0).
    type: list
    elements: str
    default: [auto]
  level:
    description:
      - V(quick) takes seconds per device and tells whether the device works and is about as fast as its kind.
      - V(standard) heats a GPU for half a minute before each measurement, so that its number is a sustained one.
      - V(full) runs everything, and longer.
    type: str
    choices: [quick, standard, full]
    default: quick
  llm_workload:
    description:
      - Name of the model shape of the suites V(llm_inference) and V(llm_training).
      - By default V(7b-gqa4) on a GPU and V(tiny) on a CPU.
    type: str
  llm_goal:
    description: What V(llm_inference) must reach at one operating point to pass.
    type: dict
    suboptions:
      tokens_per_s:
        description: Least output tokens per second of one GPU.
        type: float
        default: 5000
      p99_ms:
        description: Most milliseconds to the first token, at the 99th percentile.
        type: float
        default: 200
      vram_fraction:
        description: Most of the GPU's memory that may be used, as a fraction of one.
        type: float
        default: 0.8
  timeout:
    description: Seconds after which the process that measures a device is killed.
    type: int
    default: 300
  seed:
    description: Seed of the random data, so that two runs multiply the same matrices.
    type: int
    default: 20240229
  allow_busy:
    description: Measure a GPU that other processes use. Otherwise it is an error entry with reason C(busy).
    type: bool
    default: false
  run_id:
    description: Identifier of the run, returned unchanged, so that a verdict can refuse evidence of another run.
    type: str
attributes:
  check_mode:
    support: full
    description: Returns the plan (devices, suites, estimated seconds) with C(skipped) and measures nothing.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    platforms: posix
    support: full
    description: Linux.
author:
  - The Rackwright authors
"""

EXAMPLES = r"""
- name: Measure every GPU of the node
  torch_benchmark:
    python: /opt/rackwright/venv/bin/python

- name: Prove that the first GPU computes, without measuring it
  torch_benchmark:
    python: /opt/rackwright/venv/bin/python
    suites: [import, kernel]
    devices: ["0"]

- name: Sustained numbers for an acceptance test
  torch_benchmark:
    python: /opt/rackwright/venv/bin/python
    level: standard
    timeout: 900
"""

RETURN = r"""
torch_benchmark:
  description: What torch is, what was measured, and what went wrong.
  returned: when not in check mode
  type: dict
  contains:
    schema:
      description: Version of this format.
      type: int
      sample: 1
    run_id:
      description: The option O(run_id).
      type: str
    level:
      description: The option O(level).
      type: str
    host:
      description: Operating system, kernel, number of processors, and whether the system asks for a reboot.
      type: dict
    torch:
      description:
        - C(version), C(cuda_build), C(arch_list), C(cudnn), C(threads), C(cuda_device_count) and, where it is zero, the
          C(cuda_unavailable_reason).
      type: dict
    device_kind:
      description: V(cpu) or V(cuda).
      type: str
    devices:
      description: Per device its name, UUID, compute capability, memory in bytes, L2 cache in bytes.
      type: dict
    results:
      description:
        - One entry per measurement with C(suite), C(name), C(unit) (TFLOP/s, decimal GB/s, s), C(device), C(dtype),
          C(shape), C(samples).
        - C(value) is the C(median); C(p5), C(p95), C(min), C(max) are of the same unit.
        - C(spread) is (p95 - p5) / median.
        - C(clocks) has SM and memory clock in MHz, power in W and temperature in degrees Celsius before, during and
          after; C(throttle) the fraction of the time each event reason was active. On a CPU both are null.
      type: list
      elements: dict
    errors:
      description: One entry per device that failed, with C(device), C(suite), C(reason), C(detail), C(next_step).
      type: list
      elements: dict
plan:
  description: Interpreter, devices, suites and estimated seconds.
  returned: in check mode
  type: dict
"""

import os
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, respawn_module

from ansible.module_utils.rackwright import benchmark, benchmark_plan
from ansible.module_utils.rackwright.errors import MissingError, RackwrightError

ARGUMENT_SPEC: dict[str, Any] = {
    "python": {"type": "path"},
    "suites": {"type": "list", "elements": "str", "choices": list(benchmark_plan.SUITES)},
    "devices": {"type": "list", "elements": "str", "default": ["auto"]},
    "level": {"type": "str", "choices": list(benchmark_plan.LEVELS), "default": "quick"},
    "timeout": {"type": "int", "default": 300},
    "seed": {"type": "int", "default": 20_240_229},
    "allow_busy": {"type": "bool", "default": False},
    "run_id": {"type": "str"},
    "llm_workload": {"type": "str"},
    "llm_goal": {
        "type": "dict",
        "options": {
            "tokens_per_s": {"type": "float", "default": 5000},
            "p99_ms": {"type": "float", "default": 200},
            "vram_fraction": {"type": "float", "default": 0.8},
        },
    },
}
#: What only one suite looks at; it travels as it is.
_SUITE_OPTIONS = ("llm_workload", "llm_goal")


def main() -> None:
    """Start again under the wanted interpreter, then plan or measure."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    python = module.params["python"] or sys.executable
    try:
        benchmark_plan.check_wanted(module.params["devices"])
        if module.check_mode and not os.path.exists(python):
            module.exit_json(skipped=True, changed=False, msg=_absent(python), plan=_plan_without(module, python))
        if not has_respawned() and not _is_this(python):
            check_interpreter(module, python)
            respawn_module(python)
        request = _request(module, python)
        if module.check_mode:
            plan = benchmark.plan(request)
            module.exit_json(skipped=True, changed=False, msg="Check mode: nothing was measured.", plan=plan)
        document = benchmark.run(request)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(
        changed=False,
        torch_benchmark={**document, "run_id": module.params["run_id"], "host": benchmark.host_summary()},
    )


def check_interpreter(module: AnsibleModule, python: str) -> None:
    """Refuse an interpreter that is missing or does not start; starting it blindly would end in a traceback."""
    step = "Create the environment with the roles python_env and pytorch, or name another interpreter in python"
    if not os.path.exists(python):
        raise MissingError("start the benchmark", python, "there is no such interpreter", step, found=None)
    if not os.access(python, os.X_OK) or os.path.isdir(python):
        raise MissingError("start the benchmark", python, "it is not an executable file", step, found=python)
    # the program is a script of this file: no module of Ansible tells whether an interpreter starts and how old it is
    script = "import sys; print(sys.version_info >= (3, 9), sys.version.split()[0])"
    try:
        rc, out, err = module.run_command([python, "-c", script], handle_exceptions=False)
    except OSError as error:
        raise MissingError("start the benchmark", python, f"it does not run: {error.strerror}", step) from error
    if rc != 0:
        raise MissingError("start the benchmark", python, f"it does not run: {(err or out).strip()[-300:]}", step)
    if not out.startswith("True"):
        raise MissingError("start the benchmark", python, "it is older than Python 3.9", step, found=out.split()[-1])


def _is_this(python: str) -> bool:
    # a venv's interpreter is a link to the system's: resolving it would lose the venv
    return os.path.abspath(python) == os.path.abspath(sys.executable)


def _request(module: AnsibleModule, python: str) -> benchmark.Request:
    params = module.params
    return benchmark.Request(
        python=python,
        suites=_suites(module),
        devices=tuple(params["devices"]),
        level=params["level"],
        timeout=float(params["timeout"]),
        seed=params["seed"],
        allow_busy=params["allow_busy"],
        options={name: params[name] for name in _SUITE_OPTIONS if params[name] is not None},
    )


def _suites(module: AnsibleModule) -> tuple[str, ...]:
    """Return the suites in the order they run in: those asked for, or the level's."""
    wanted = module.params["suites"]
    chosen = benchmark_plan.LEVEL_SUITES[module.params["level"]] if wanted is None else wanted
    return tuple(suite for suite in benchmark_plan.SUITES if suite in chosen)


def _plan_without(module: AnsibleModule, python: str) -> dict[str, Any]:
    params = module.params
    return benchmark_plan.build_plan(_suites(module), params["level"], [], python, params["seed"], _absent(python))


def _absent(python: str) -> str:
    return f"Check mode: {python} does not exist yet, so its devices are not known."


if __name__ == "__main__":
    main()
