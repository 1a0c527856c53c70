#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Prove that torch works on a node and measure its devices."""

from __future__ import annotations

DOCUMENTATION = r"""
module: torch_benchmark
short_description: Prove that torch works on a node and measure its devices
description:
  - Imports torch with the interpreter of the node's own environment, proves on every visible GPU that it computes the
    exact answer, and measures matrix products, memory, links, sustained load and language models.
  - All GPUs are measured at the same time, each in a child process of its own with a hard time limit. A device that
    hangs, crashes or runs out of memory is an entry in RV(torch_benchmark.errors); what the others gave is kept.
  - What a device does not have, for example fp8 on an older card or a second GPU, is an entry in
    RV(torch_benchmark.not_applicable), never a result.
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
      - V(gemm) measures matrix products in every data type the device has matrix units for.
      - V(memory) copies, reads and adds in device memory.
      - V(correctness) repeats large products whose exact answer is known, to find silent data corruption.
      - V(pcie) copies between pinned host memory and each GPU, V(p2p) between every two GPUs.
      - V(burn) loads all GPUs at once and nearly all of their memory, and names the slowest.
      - V(llm_inference) and V(llm_training) run a language model of random weights.
      - By default the suites of the O(level).
    type: list
    elements: str
    choices: [import, kernel, gemm, memory, correctness, pcie, p2p, burn, llm_inference, llm_training]
  devices:
    description:
      - V(auto) is every visible GPU, or the CPU where torch sees none. V(cuda) is every visible GPU, and an error entry
        where there is none. V(cpu) is the CPU. Otherwise a list of GPU indices such as V(0) or V(cuda:0).
    type: list
    elements: str
    default: [auto]
  level:
    description:
      - V(quick) takes a minute at most per node, with eight GPUs too. It tells whether each device works and is about
        as fast as its kind. Suites are C(import), C(kernel), C(gemm), C(memory), C(correctness), C(pcie).
      - V(standard) takes ten minutes at most per node and runs all suites. It heats each GPU for half a minute first,
        so that its numbers are sustained ones.
      - V(full) runs all suites, with more shapes and longer; expect an hour with several GPUs.
    type: str
    choices: [quick, standard, full]
    default: quick
  burn_seconds:
    description: Seconds of the suite V(burn). By default 10 at the level V(quick), 60 at V(standard), 300 at V(full).
    type: float
  llm_workload:
    description:
      - Name of the model shape of the suites V(llm_inference) and V(llm_training).
      - By default V(7b-gqa4) for inference and V(llama2-7b-mha) for training on a GPU, and V(tiny) on a CPU.
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
        description: Most milliseconds of O(llm_goal.p99_metric), at the 99th percentile.
        type: float
        default: 200
      p99_metric:
        description: V(ttft) is the time to the first token, V(itl) the time between two tokens.
        type: str
        choices: [ttft, itl]
        default: ttft
      vram_fraction:
        description: Most of the GPU's memory that may be used, as a fraction of one.
        type: float
        default: 0.8
  timeout:
    description:
      - Seconds after which a process that measures a device is killed. It counts for each of the phases (devices apart,
        pairs of GPUs, burn, training on all GPUs) anew.
      - By default 300 at the level V(quick), 900 at V(standard), 3600 at V(full).
    type: int
  seed:
    description: Seed of the random data, so that two runs multiply the same matrices.
    type: int
    default: 20240229
  allow_busy:
    description:
      - Measure a GPU that other processes use. Otherwise it is an error entry with reason C(busy), or C(not_idle) where
        something still runs on it ten seconds after the suite before has ended.
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
        - One entry per measurement with C(suite), C(name), C(unit) (TFLOP/s, for int8 TOP/s; decimal GB/s; s; wrong
          elements), C(device) (V(node) for what several GPUs give together), C(dtype), C(shape), C(samples).
        - C(value) is the C(median); C(p5), C(p95), C(min), C(max) are of the same unit.
        - C(spread) is (p95 - p5) / median.
        - C(clocks) has SM and memory clock in MHz, power in W, temperature in degrees Celsius and used memory in bytes
          before, during and after; C(throttle) the fraction of the time each event reason was active. On a CPU both are
          null.
        - C(details) has what only one suite gives; docs/benchmarks.md names it.
      type: list
      elements: dict
    errors:
      description: One entry per device that failed, with C(device), C(suite), C(reason), C(detail), C(next_step).
      type: list
      elements: dict
    not_applicable:
      description: What a device or this torch does not have, each with C(suite), C(device), C(reason), C(dtype).
      type: list
      elements: dict
plan:
  description: Interpreter, devices, suites and C(estimated_s), the seconds for the whole node.
  returned: in check mode
  type: dict
"""

import os
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, respawn_module

from ansible.module_utils.rackwright import benchmark, benchmark_levels, benchmark_plan
from ansible.module_utils.rackwright.errors import MissingError, RackwrightError

ARGUMENT_SPEC: dict[str, Any] = {
    "python": {"type": "path"},
    "suites": {"type": "list", "elements": "str", "choices": list(benchmark_plan.SUITES)},
    "devices": {"type": "list", "elements": "str", "default": ["auto"]},
    "level": {"type": "str", "choices": list(benchmark_plan.LEVELS), "default": "quick"},
    "timeout": {"type": "int"},
    "seed": {"type": "int", "default": 20_240_229},
    "allow_busy": {"type": "bool", "default": False},
    "run_id": {"type": "str"},
    "burn_seconds": {"type": "float"},
    "llm_workload": {"type": "str"},
    "llm_goal": {
        "type": "dict",
        "options": {
            "tokens_per_s": {"type": "float", "default": 5000},
            "p99_ms": {"type": "float", "default": 200},
            "p99_metric": {"type": "str", "choices": ["ttft", "itl"], "default": "ttft"},
            "vram_fraction": {"type": "float", "default": 0.8},
        },
    },
}
#: What only one suite looks at; it travels as it is.
_SUITE_OPTIONS = ("burn_seconds", "llm_workload", "llm_goal")


def main() -> None:
    """Start again under the wanted interpreter, then plan or measure."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    python = module.params["python"] or sys.executable
    try:
        benchmark_plan.check_wanted(module.params["devices"])
        benchmark_plan.check_options(module.params)
        if module.check_mode and not os.path.exists(python):
            module.exit_json(skipped=True, changed=False, msg=_absent(python), plan=_plan_without(module, python))
        if not has_respawned() and not _is_this(python):
            check_interpreter(module, python)
            respawn_module(python)
        request = _request(module, python)
        if module.check_mode:
            plan = benchmark.plan(request)
            module.exit_json(skipped=True, changed=False, msg=_planned(plan), plan=plan)
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
        timeout=float(params["timeout"] or benchmark_levels.CUDA_LEVELS[params["level"]].timeout_s),
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


def _planned(plan: dict[str, Any]) -> str:
    devices = ", ".join(entry["device"] for entry in plan["devices"]) or "no device"
    return f"Check mode: nothing was measured. It would take about {plan['estimated_s'] or 0} s on {devices}."


def _absent(python: str) -> str:
    return f"Check mode: {python} does not exist yet, so its devices are not known."


if __name__ == "__main__":
    main()
