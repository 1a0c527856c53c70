# SPDX-License-Identifier: Apache-2.0
"""A stand-in for torch on a node with GPUs or without, which no kernel runs on: suites are replaced by the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

#: The environment says what it is like: cpu, cuda (three devices, of which NVML counts four), hang, segfault, broken.
FAKE_TORCH = """
import os, time, ctypes
assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "torch would number the fastest GPU first"
mode = os.environ.get("FAKE_TORCH", "cpu")
if mode == "hang": time.sleep(600)
if mode == "segfault": ctypes.string_at(0)
if mode == "broken": raise OSError("libcudart.so.13: cannot open shared object file")
class _Props:
    major, minor, total_memory, multi_processor_count, L2_cache_size = 9, 0, 80 << 30, 132, 50 << 20
    name = "NVIDIA H100 80GB HBM3"
    def __init__(self, index): self.uuid = f"0000-{index}"
class cuda:
    is_available = staticmethod(lambda: mode == "cuda")
    device_count = staticmethod(lambda: 4 if mode == "cuda" else 0)
    get_arch_list = staticmethod(lambda: ["sm_90"])
    get_device_properties = staticmethod(_Props)
    empty_cache = staticmethod(lambda: None)
    current = None
    def set_device(device): cuda.current = device
class _C: _cuda_getDeviceCount = staticmethod(lambda: 3)
class version: cuda = "13.0" if mode == "cuda" else None
class _Cudnn:
    is_available = staticmethod(lambda: True)
    version = staticmethod(lambda: 91000)
class backends: cudnn = _Cudnn
__version__ = "2.13.0+cu130" if mode == "cuda" else "2.13.0+cpu"
get_num_threads = lambda: 2
manual_seed = lambda seed: None
"""


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put the stand-in in front of any torch; the returned function says what it is like."""
    package = tmp_path / "site" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_TORCH)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return lambda mode: monkeypatch.setenv("FAKE_TORCH", mode)
