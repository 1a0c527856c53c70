# SPDX-License-Identifier: Apache-2.0
"""What went wrong on a device, as the entries of ``errors`` say it: reason, detail, next step. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .child import ChildResult
from .errors import MissingError, ProbeError, RackwrightError, TimedOutError


def busy_error(device: str, busy: str) -> dict[str, Any]:
    return {
        "device": device,
        "suite": None,
        "reason": "busy",
        "detail": f"The GPU is busy: {busy}.",
        "next_step": "Stop what uses it, or set allow_busy to measure all the same.",
    }


#: A library that finds no room for its workspace says ALLOC_FAILED (cuBLAS, cuDNN, NCCL).
_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "notenoughmemory",
    "memoryerror",
    "alloc_failed",
)
_CLASSES = (
    (
        "out_of_memory",
        _MEMORY_WORDS,
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether what torch or Python raised says that memory is used up: then less of it may be tried."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, (MemoryError, RuntimeError)) and any(words in text for words in _MEMORY_WORDS)


def lost_error(device: str, suite: str, error: BaseException, left: Sequence[str]) -> dict[str, Any]:
    """Return the entry for a device on which nothing can be computed any more after ``suite``; it ends its run."""
    known = classify(error)
    unmeasured = f" Not measured: {', '.join(left)}." if left else ""
    detail = f"The device answers nothing any more after {suite}: {known['detail']}.{unmeasured}"
    return {"device": device, "suite": None, **known, "detail": detail}


def child_error(device: str, outcome: ChildResult, started: str | None, timeout: float) -> dict[str, Any]:
    """Return the entry for a process that did not end well; ``started`` is what it had begun last."""
    doing = started if started != "device" else None
    entry: dict[str, Any] = {"device": device, "suite": doing, "reason": outcome.status}
    if outcome.status == "timeout":
        entry["detail"] = f"No result within {timeout:g} s; the process was killed."
        entry["next_step"] = "Read the kernel log for Xid messages, or raise timeout if the device is only slow."
    elif outcome.status == "crashed":
        entry["detail"] = _tail(outcome)
        entry["next_step"] = "Read the kernel log: an Xid, or the out-of-memory killer, usually names the cause."
    else:
        entry["detail"] = _tail(outcome)
        entry["next_step"] = "Run the suite alone with the node's interpreter to see the whole error."
    if outcome.signal == "SIGKILL":
        entry["reason"] = "out_of_memory"
        entry["detail"] += " Nothing but the kernel's out-of-memory killer or an operator sends this signal."
    return entry


def _tail(outcome: ChildResult) -> str:
    last = outcome.stderr.strip().splitlines()[-1:] if outcome.stderr else []
    return " ".join(" ".join([outcome.detail, *last]).split())[:500]


def unreadable(device: str, started: str | None, line: str) -> dict[str, Any]:
    """Return the entry for a process that ended well and wrote down what is no JSON."""
    detail = f"The process wrote down what cannot be read: {line!r}."
    step = "Test the node's memory, and read the kernel log."
    return {"device": device, "suite": started, "reason": "error", "detail": detail, "next_step": step}


def absent(name: str, torch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry for a device that was asked for and that torch does not see."""
    reason = torch.get("cuda_unavailable_reason")
    seen = f"torch sees {torch['cuda_device_count']} CUDA device(s)"
    return {
        "device": name,
        "suite": None,
        "reason": "no_device",
        "detail": f"{seen}: {reason}." if reason else f"{seen}.",
        "next_step": "Compare with gpu_facts, which says what GPUs the node has and why they may not be usable.",
    }


def import_failure(python: str, timeout: float, outcome: ChildResult) -> RackwrightError:
    """Return the error for a torch that could not be imported or asked, by how the child ended."""
    common = {"found": outcome.status, "expected": "torch imports and answers"}
    subject = f"interpreter {python}"
    if outcome.status == "timeout":
        cause = f"torch did not import and list its devices within {timeout:g} s and was killed"
        step = "Check the driver with gpu_facts and the kernel log, or raise timeout if the disk is slow"
        return TimedOutError("import torch", subject, cause, step, **common)
    if outcome.status == "error" and outcome.error_type in ("ModuleNotFoundError", "ImportError"):
        step = "Install torch into that environment with the role pytorch, or name another interpreter in python"
        return MissingError("import torch", subject, outcome.detail, step, **common)
    step = "Reinstall torch in that environment: its libraries do not fit the node"
    return ProbeError("import torch", subject, _tail(outcome), step, **common)
