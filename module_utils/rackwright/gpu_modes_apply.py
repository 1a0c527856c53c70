# SPDX-License-Identifier: Apache-2.0
"""Bring all GPUs of a node to their declared modes: check everything, then one GPU after the other.

Nothing is changed before all declared values are known to be possible and no program is in the way. Each call into the
driver runs in a child that may hang or crash. A step that fails takes back the earlier steps on the same GPU; GPUs
that were done before stay done, those after it are not touched, and the answer names each.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import gpu_modes, gpu_modes_nvml
from .child import ChildResult, run_in_child
from .errors import InvalidInputError, ProbeError, RackwrightError, TimedOutError
from .gpu_modes import Step
from .mig_layout import LayoutError
from .nvml_errors import reason_for

NVIDIA_SMI = "nvidia-smi"
_RESET_TIMEOUT_S = 120
#: set modes, reset, make instances, set the rest; and one to be sure that it ends
_ROUNDS = 6
_LAYOUT = ("create", "destroy")
_WHAT = "set the GPU modes"


@dataclass
class Outcome:
    """What became of one GPU: ``unchanged``, ``changed``, ``pending``, ``rolled_back``, ``failed``, ``not_attempted``.

    ``reason`` says why a mode is only pending, or what failed; ``done`` are the steps in words.
    """

    index: int
    uuid: str | None
    state: str = "unchanged"
    done: list[str] = field(default_factory=list)
    reason: str | None = None
    mig_changed: bool = False

    def to_result(self) -> dict[str, Any]:
        """Return plain data."""
        return {key: value for key, value in vars(self).items() if key != "mig_changed"}


@dataclass(frozen=True)
class Surroundings:
    """How the GPUs are reached: name of the node, seconds for a call, whether a GPU may be reset, where /proc is."""

    node: str
    timeout: float = 60.0
    reset_allowed: bool = False
    sysroot: str = "/"
    smi: str = NVIDIA_SMI


class StepFailedError(Exception):
    """A step was refused by the driver, or its child did not come back."""


def read(where: Surroundings) -> list[dict[str, Any]]:
    """Return the modes of the node's GPUs. Raises ProbeError or TimedOutError."""
    answer = run_in_child(gpu_modes_nvml.read_devices, (where.sysroot,), where.timeout)
    if answer.status == "ok":
        return list(answer.value)
    kind = TimedOutError if answer.status == "timeout" else ProbeError
    next_step = "Look at playbooks/diagnose-nodes.yml, which says what keeps the driver from answering"
    raise kind("read the GPU modes", where.node, _detail(answer), next_step)


def _detail(answer: ChildResult) -> str:
    return answer.detail.removeprefix("NvmlFailure: ")


def foresee(
    devices: list[dict[str, Any]], declaration: Mapping[str, Any], remembered: Mapping[str, Any], where: Surroundings
) -> dict[int, list[Step]]:
    """Return the steps of each GPU. Raises InvalidInputError when something cannot be had, ProbeError when a GPU is
    in use, so that nothing was changed then."""
    wants = {one["index"]: gpu_modes.wants_of(one, declaration) for one in devices}
    _refuse_impossible(devices, declaration, wants, where)
    steps = {one["index"]: gpu_modes.plan(one, wants[one["index"]], remembered) for one in devices}
    busy = [(one["index"], gpu_modes.busy_problem(one, steps[one["index"]])) for one in devices]
    _refuse_busy([(index, text) for index, text in busy if text], where)
    return steps


def _refuse_impossible(
    devices: list[dict[str, Any]], declaration: Mapping[str, Any], wants: Mapping[int, Any], where: Surroundings
) -> None:
    unknown = gpu_modes.unknown_selectors(devices, declaration)
    if unknown:
        names = sorted({name for found in unknown.values() for name in found})
        there = [f"{one['index']} ({one['uuid']})" for one in devices]
        raise InvalidInputError(
            _WHAT,
            where.node,
            f"it has no GPU {', '.join(names)}; it has {', '.join(there) or 'none'}",
            "Name its GPUs by index or UUID, or use all",
            expected=names,
            found=there,
        )
    found = [(one["index"], text) for one in devices for text in gpu_modes.problems(one, wants[one["index"]])]
    if found:
        step = "Correct the declaration; nothing was changed"
        raise InvalidInputError(_WHAT, where.node, merged(found), step)


def _refuse_busy(found: list[tuple[int, str]], where: Surroundings) -> None:
    if found:
        step = "End or drain these programs, then run again; nothing was changed"
        raise ProbeError(_WHAT, where.node, merged(found), step)


def merged(found: list[tuple[int, str]]) -> str:
    """Return one sentence's worth of problems; GPUs with the same one are named together."""
    by_text: dict[str, list[int]] = {}
    for index, text in found:
        by_text.setdefault(text, []).append(index)
    return "; ".join(f"GPU {', '.join(map(str, indices))}: {text}" for text, indices in by_text.items())


def would_be(device: Mapping[str, Any], steps: list[Step], where: Surroundings) -> Outcome:
    """Return what would become of one GPU, for check mode. Whether a reset would succeed is not known before."""
    doing = [step.text for step in steps if step.kind not in gpu_modes.ANNOUNCING]
    waiting = [step.text for step in steps if step.kind in ("reset", "ecc")]
    outcome = Outcome(device["index"], device["uuid"], "changed" if doing else "unchanged", doing)
    if waiting and not where.reset_allowed:
        outcome.state, outcome.reason = "pending", "; ".join(waiting)
    return outcome


def settle(
    devices: list[dict[str, Any]], declaration: Mapping[str, Any], remembered: dict[str, Any], where: Surroundings
) -> list[Outcome]:
    """Bring each GPU to its declaration and say what became of it; stops after the first that fails.

    ``remembered`` is updated with the clocks that were locked.
    """
    outcomes = [Outcome(one["index"], one["uuid"]) for one in devices]
    for position, device in enumerate(devices):
        wants = gpu_modes.wants_of(device, declaration)
        _Gpu(device, wants, remembered, where, outcomes[position]).settle()
        if outcomes[position].state in ("rolled_back", "failed"):
            for later in outcomes[position + 1 :]:
                later.state = "not_attempted"
            break
    return outcomes


class _Gpu:
    def __init__(
        self,
        device: dict[str, Any],
        wants: dict[str, Any],
        remembered: dict[str, Any],
        where: Surroundings,
        outcome: Outcome,
    ) -> None:
        self.device, self.wants, self.remembered, self.where, self.outcome = device, wants, remembered, where, outcome
        self.undo: list[tuple[str, Any]] = []
        self.reset_tried = False
        self.note: str | None = None

    def settle(self) -> None:
        try:
            self._settle()
        except (StepFailedError, LayoutError) as error:
            self._take_back(str(error))
            return
        waiting = gpu_modes.waits_for_reset(self.device, self.wants)
        if waiting:
            self.outcome.state = "pending"
            note = f" ({self.note})" if self.note else ""
            self.outcome.reason = f"the {' and '.join(waiting)} mode waits for a reset of the GPU or a reboot{note}"
        elif self.outcome.done:
            self.outcome.state = "changed"

    def _settle(self) -> None:
        for _round in range(_ROUNDS):
            steps = gpu_modes.plan(self.device, self.wants, self.remembered)
            first = _until_mode(steps)
            if first:
                self._do_all(first)
            elif gpu_modes.waits_for_reset(self.device, self.wants) and self._may_reset():
                self._reset()
            else:
                rest = [step for step in steps if step.kind not in gpu_modes.ANNOUNCING]
                if not self._mig_in_force():
                    rest = [step for step in rest if step.kind not in _LAYOUT]
                if not rest:
                    self._lock_again()
                    return
                self._do_all(rest)
            self._look_again()
        raise StepFailedError("the GPU does not keep what is set on it")

    def _lock_again(self) -> None:
        """Lock the clocks anew: a driver that was loaded again has forgotten them, and nothing tells."""
        clocks = self.remembered.get(str(self.device["uuid"])) if "locked_clocks_mhz" in self.wants else None
        if clocks is not None:
            self._carry_out("locked_clocks_mhz", clocks, "lock the clocks again")

    def _mig_in_force(self) -> bool:
        mig = self.device.get("mig")
        return bool(mig and mig["current"])

    def _do_all(self, steps: list[Step]) -> None:
        for step in steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        status = self._carry_out(step.kind, step.after, step.text)
        self.undo.append(_inverse(step))
        self.outcome.done.append(step.text)
        self.outcome.mig_changed |= step.kind in ("mig_mode", *_LAYOUT)
        if step.kind == "locked_clocks_mhz":
            self._remember(step.after)
        if step.kind == "mig_mode" and not self.device["mig"]["resetless"]:
            self._remember(None)  # the driver resets the GPU, and with it its clocks
        if status:
            self.note = reason_for(status)

    def _remember(self, clocks: Any) -> None:
        self.remembered.pop(str(self.device["uuid"]), None)
        if clocks is not None:
            self.remembered[str(self.device["uuid"])] = clocks

    def _carry_out(self, kind: str, value: Any, text: str) -> int:
        arguments = (self.device["index"], kind, value)
        answer = run_in_child(gpu_modes_nvml.carry_out, arguments, self.where.timeout)
        if answer.status != "ok":
            raise StepFailedError(f"{text}: {_detail(answer)}")
        return int(answer.value)

    def _look_again(self) -> None:
        index = self.device["index"]
        answer = run_in_child(_read_one, (index, self.where.sysroot), self.where.timeout)
        if answer.status != "ok" or answer.value["error"]:
            why = _detail(answer) if answer.status != "ok" else answer.value["error"]
            raise StepFailedError(f"it does not answer after the change: {why}")
        self.device = answer.value

    def _may_reset(self) -> bool:
        if not self.where.reset_allowed or self.reset_tried:
            return False
        if self.device["processes"]:
            names = ", ".join(str(one["name"] or one["pid"]) for one in self.device["processes"])
            self.note = f"it was not reset because {names} is using it"
            return False
        return True

    def _reset(self) -> None:
        """Reset the GPU: NVML has no function for it, nvidia-smi has. The persistence daemon would keep it in use."""
        self.reset_tried = True
        persistent = bool(self.device.get("persistence_mode"))
        if persistent:
            self._carry_out("persistence_mode", False, "switch persistence mode off for the reset")
        self.note = reset_gpu(self.where.smi, str(self.device["pci"]))
        if persistent:
            self._carry_out("persistence_mode", True, "switch persistence mode on after the reset")
        if self.note is None:
            self._remember(None)
            self.outcome.done.append("reset the GPU")

    def _take_back(self, reason: str) -> None:
        """Undo what was done on this GPU, newest first; go on where one cannot be undone."""
        left = []
        for kind, value in reversed(self.undo):
            try:
                self._carry_out(kind, value, f"take back {kind}")
                if kind == "locked_clocks_mhz":
                    self._remember(value)
            except StepFailedError as error:
                left.append(str(error))
        self.outcome.state = "failed" if left else "rolled_back"
        self.outcome.reason = reason + (f"; not taken back: {'; '.join(left)}" if left else "")


def _until_mode(steps: list[Step]) -> list[Step]:
    """Return the steps up to the last one that sets a mode which holds after a reset."""
    last = max((i for i, step in enumerate(steps) if step.kind in ("ecc", "mig_mode")), default=-1)
    return steps[: last + 1]


def _inverse(step: Step) -> tuple[str, Any]:
    if step.kind == "destroy":
        return "create", step.before
    if step.kind == "create":
        return "destroy_at", step.after[:2]
    return step.kind, step.before


def _read_one(index: int, sysroot: str) -> dict[str, Any]:
    gpu_modes_nvml.nvml_modes.start()
    return gpu_modes_nvml.read_device(index, sysroot)


def reset_gpu(smi: str, pci: str, run: Callable[..., Any] = subprocess.run) -> str | None:
    """Reset one idle GPU through nvidia-smi; returns None, or why it was not reset."""
    try:
        answer = run([smi, "--gpu-reset", "-i", pci], capture_output=True, text=True, timeout=_RESET_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi could not reset it: {error}"
    if answer.returncode == 0:
        return None
    said = " ".join((answer.stdout + answer.stderr).split())
    return f"nvidia-smi could not reset it: {said or f'it ended with status {answer.returncode}'}"


def failure(outcomes: list[Outcome], where: Surroundings) -> RackwrightError | None:
    """Return the error for outcomes of which one failed, naming the state of every GPU; None when none did."""
    bad = next((one for one in outcomes if one.state in ("rolled_back", "failed")), None)
    if bad is None:
        return None
    states: dict[str, list[str]] = {}
    for one in outcomes:
        states.setdefault(one.state.replace("_", " "), []).append(str(one.index))
    now = ", ".join(f"{state}: GPU {', '.join(numbers)}" for state, numbers in states.items())
    return ProbeError(
        _WHAT,
        where.node,
        f"GPU {bad.index}: {bad.reason} ({now})",
        "Remove the cause and run again; what is right already stays",
    )
