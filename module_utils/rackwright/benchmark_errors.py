# SPDX-License-Identifier: Apache-2.0
"""What went wrong on a device, as the entries of ``errors`` say it: reason, detail, next step. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def busy_error(device: str, busy: str) -> dict[str, Any]:
    return {
        "device": device,
        "suite": None,
        "reason": "busy",
        "detail": f"The GPU is busy: {busy}.",
        "next_step": "Stop what uses it, or set allow_busy to measure all the same.",
    }


_CLASSES = (
    (
        "out_of_memory",
        # a library that finds no room for its workspace says ALLOC_FAILED (cuBLAS, cuDNN, NCCL)
        (
            "out of memory",
            "not enough memory",
            "can't allocate memory",
            "notenoughmemory",
            "memoryerror",
            "alloc_failed",
        ),
        "Free memory on the device, or use the level quick, whose shapes are smaller.",
    ),
    (
        "busy",
        ("busy or unavailable",),
        "Stop what uses it, or look at its compute mode: an exclusive one lets one process in.",
    ),
    (
        "no_kernel_image",
        ("no kernel image",),
        "Install a build of torch that contains this GPU's architecture.",
    ),
    (
        "error",
        ("uncorrectable ecc",),
        "Take the device out of service: its memory is defective. Read gpu_health, which says what to do first.",
    ),
    (
        "not_idle",
        ("notidleerror",),
        "Stop what uses it, or set allow_busy to measure all the same.",
    ),
    (
        "timeout",
        ("waitedtoolongerror",),
        "Look at the errors of the other GPUs: one of them held what they share.",
    ),
    (
        "wrong_answer",
        ("wronganswererror",),
        "Take the device out of service and run its vendor's field diagnostics.",
    ),
)


def classify(error: BaseException) -> dict[str, str]:
    """Return reason, detail and next step for what a suite raised."""
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    for reason, marks, next_step in _CLASSES:
        if any(mark in detail.lower() for mark in marks):
            return {"reason": reason, "detail": detail, "next_step": next_step}
    return {
        "reason": "error",
        "detail": detail,
        "next_step": "Run the suite alone with the node's interpreter and read the kernel log for Xid messages.",
    }


def lost_error(device: str, suite: str, error: BaseException, left: Sequence[str]) -> dict[str, Any]:
    """Return the entry for a device on which nothing can be computed any more after ``suite``; it ends its run."""
    known = classify(error)
    unmeasured = f" Not measured: {', '.join(left)}." if left else ""
    detail = f"The device answers nothing any more after {suite}: {known['detail']}.{unmeasured}"
    return {"device": device, "suite": None, **known, "detail": detail}
