# SPDX-License-Identifier: Apache-2.0
"""Which suites there are: the registry, and nothing else.

A suite takes the device under measurement and returns results one by one (a generator may): each is written down before
the next is tried, so a device that dies keeps what it had finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .torch_bench import Bench
from .torch_burn import burn_suite
from .torch_correctness import correctness_suite
from .torch_gemm import gemm_suite, kernel_suite
from .torch_llm import llm_inference_suite
from .torch_memory import memory_suite
from .torch_peers import p2p_suite
from .torch_training import training_suite
from .torch_transfer import pcie_suite

SUITES: dict[str, Callable[[Bench], Iterable[dict[str, Any]]]] = {
    "kernel": kernel_suite,
    "gemm": gemm_suite,
    "memory": memory_suite,
    "correctness": correctness_suite,
    "pcie": pcie_suite,
    "p2p": p2p_suite,
    "burn": burn_suite,
    "llm_inference": llm_inference_suite,
    "llm_training": training_suite,
}
