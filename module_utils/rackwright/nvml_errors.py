# SPDX-License-Identifier: Apache-2.0
"""NVML's return codes, and what each says about a value that could not be read."""

from __future__ import annotations

UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
OPERATING_SYSTEM = 17
VERSION_MISMATCH = 18
BINDING = -1

_TEXTS = {
    UNINITIALIZED: "NVML is not initialised",
    INVALID_ARGUMENT: "the driver refuses the question for this device",
    NOT_SUPPORTED: "not supported on this device",
    NO_PERMISSION: "this user may not read it",
    NOT_FOUND: "not found",
    7: "the answer does not fit its buffer",
    8: "a power cable of the GPU is not connected properly",
    DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    TIMEOUT: "the driver gave up waiting for the GPU",
    11: "the kernel found an interrupt problem with the GPU",
    LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not installed",
    FUNCTION_NOT_FOUND: "this driver version or its binding does not offer it",
    14: "the InfoROM of the GPU is corrupted",
    GPU_IS_LOST: "the GPU is lost (it has fallen off the bus or is inaccessible)",
    RESET_REQUIRED: "the GPU must be reset before it can be used again",
    OPERATING_SYSTEM: "the operating system or a control group blocks the GPU",
    VERSION_MISMATCH: "the NVML library does not fit the loaded kernel module",
    19: "the GPU is in use",
    20: "not enough memory",
    21: "no data",
    23: "not enough resources",
    25: "the driver does not know this version of the structure",
    26: "the driver no longer offers it",
    27: "the GPU is not ready yet",
    28: "the GPU was not found",
    29: "the GPU is in a state that does not allow the question",
    999: "the driver reports an unknown error",
}


def reason_for(value: int | None) -> str:
    """Say in words, with the number, why NVML did not give a value."""
    if value is None:
        return "NVML gave no value"
    return f"{_TEXTS.get(value, 'NVML reports an error Rackwright does not know')} (NVML {value})"


class NvmlFailure(Exception):
    """A value could not be read; ``value`` is NVML's return code."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(reason_for(value))


class BindingError(NvmlFailure):
    """The binding itself failed; no return code of NVML exists."""

    def __init__(self, text: str) -> None:
        super().__init__(BINDING)
        self.text = text

    def __str__(self) -> str:
        return self.text


class UnreadableError(Exception):
    """NVML answered, but with something that has no meaning here; the text says what."""
