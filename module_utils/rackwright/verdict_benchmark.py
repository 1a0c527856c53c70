# SPDX-License-Identifier: Apache-2.0
"""Checks on what torch_benchmark gave: torch itself, exact answers, numbers against the catalogue. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import verdict_gates as gates
from . import verdict_health
from .measure import is_measurement
from .verdict_record import (
    FAIL,
    NOT_APPLICABLE,
    NOT_MEASURED,
    PASS,
    SIMULATED_REASON,
    WARN,
    Check,
    Evidence,
    check,
    dig,
    entries,
)
from .verdict_results import AGAIN, NO_SLICE, attempts, gpu_subjects, is_sliced, judged, of, shown

_INSTALL = "Run the role pytorch again."
#: The square acceptance shape; other sizes are reported beside it.
_GATE_SIZE = 8192
_SUITES = ("gemm", "memory")
#: Of several data types the gates hold for the first of these that the card was measured with.
_PRIMARY = ("bfloat16", "float16", "float32")
#: Event reasons that are faults, with the fraction of the time that warns and that fails.
_THROTTLE_LIMITS = {
    "hw_slowdown": (0.01, 0.01),
    "hw_thermal_slowdown": (0.01, 0.01),
    "hw_power_brake_slowdown": (0.01, 0.01),
    "sw_thermal_slowdown": (0.05, 0.20),
}


def reboot_checks(evidence: Evidence) -> list[Check]:
    """Warn where the system waits for a restart: what runs is then not what is installed."""
    if dig(evidence.reboot, "required") or dig(evidence.host, "reboot_required"):
        reason = str(evidence.reboot.get("reason") or "the system asks for a restart")
        step = "Restart the node, or allow the roles to do it."
        return [check("system.reboot", WARN, "node", observed=True, expected=False, reason=reason, next_step=step)]
    if evidence.host is None:
        return []  # nothing was measured on the node, which the checks of torch say already
    return [check("system.reboot", PASS, "node", observed=False, expected=False)]


def torch_checks(evidence: Evidence) -> list[Check]:
    """Judge import, version, build, and the exact answers of kernels."""
    missing = _no_document(evidence)
    if missing is not None:
        return [missing]
    return [_import(evidence), *_build(evidence), *(_kernels(evidence) if evidence.wants("kernel") else [])]


def _no_document(evidence: Evidence) -> Check | None:
    if evidence.measured is not None:
        return None
    result = evidence.benchmark
    asked = verdict_health.asks_for(evidence)
    if not result and asked:
        reason = f"not measured: health asks for {asked}, and load would not make it better"
        return check("torch.import", NOT_MEASURED, "node", reason=reason)
    if evidence.check_mode:
        # the module says which devices it would measure and how long that takes
        reason = str(result.get("msg") or "Check mode: the benchmark was planned, not run")
        return check("torch.import", NOT_MEASURED, "node", reason=reason)
    if result.get("failed"):
        reason = f"no proof: torch_benchmark failed: {' '.join(str(result.get('msg') or 'no message').split())}"
        return check("torch.import", FAIL, "node", reason=reason, next_step=result.get("hint") or AGAIN)
    document = result.get("torch_benchmark")
    if isinstance(document, Mapping):
        found = document.get("run_id")
        reason = f"no proof: the benchmark belongs to run {found}, not to {evidence.run_id}"
        return check("torch.import", FAIL, "node", observed=found, reason=reason, next_step=AGAIN)
    reason = "no proof: no benchmark was registered for this node in this run"
    return check("torch.import", FAIL, "node", reason=reason, next_step=AGAIN)


def _import(evidence: Evidence) -> Check:
    version, wanted = str(dig(evidence.torch, "version") or ""), evidence.expected.get("torch_version")
    common = {"observed": version or None, "expected": wanted}
    if not version:
        reason = "no proof: torch gave no version"
        return check("torch.import", FAIL, "node", **common, reason=reason, next_step=_INSTALL)
    if wanted and not same_version(version, str(wanted)):
        reason = f"torch {version} is installed, {wanted} is asked for"
        return check("torch.import", FAIL, "node", **common, reason=reason, next_step=_INSTALL)
    return check("torch.import", PASS, "node", **common)


def same_version(installed: str, wanted: str) -> bool:
    """True for ``2.13.0+cpu`` and ``2.13.0``; a wish with a build (``+cu130``) must match it as well."""
    return installed == wanted or ("+" not in wanted and installed.partition("+")[0] == wanted)


def _build(evidence: Evidence) -> list[Check]:
    if evidence.simulated:
        return [check("torch.build", NOT_APPLICABLE, "node", reason=SIMULATED_REASON)]
    if not evidence.has_real_gpus:
        return [check("torch.build", NOT_APPLICABLE, "node", reason="the node has no usable GPU")]
    cuda, version = dig(evidence.torch, "cuda_build"), dig(evidence.torch, "version")
    if not cuda:
        reason = f"torch {version} is a CPU build, the node has {dig(evidence.gpu, 'count')} usable GPU(s)"
        return [check("torch.build", FAIL, "node", observed=cuda, reason=reason, next_step=_INSTALL)]
    if not dig(evidence.torch, "cuda_available"):
        reason = f"torch cannot use CUDA: {dig(evidence.torch, 'cuda_unavailable_reason')}"
        step = "Compare the CUDA version of this build with the newest one the driver supports."
        if "802" in str(dig(evidence.torch, "cuda_unavailable_reason")):
            step = "Start nvidia-fabricmanager, of exactly the driver's version: NVSwitch systems need it before CUDA."
        return [check("torch.build", FAIL, "node", observed=cuda, reason=reason, next_step=step)]
    return [check("torch.build", PASS, "node", observed=cuda)]


def _kernels(evidence: Evidence) -> list[Check]:
    launched = {str(entry.get("device")): entry for entry in evidence.results if entry.get("suite") == "kernel"}
    if evidence.has_real_gpus:
        pairs = zip(gpu_subjects(evidence), evidence.answering)
        return [_kernel(launched.get(key or ""), name, is_sliced(device)) for (key, name), device in pairs]
    checks = [_kernel(launched.get("cpu"), "cpu")]
    if evidence.simulated:
        checks.append(check("torch.kernel", NOT_APPLICABLE, "gpu", reason=SIMULATED_REASON))
    return checks


def _kernel(result: Mapping[str, Any] | None, subject: str, sliced: bool = False) -> Check:
    if result is None and sliced:
        return check("torch.kernel", NOT_MEASURED, subject, reason=NO_SLICE)
    if result is None:
        reason = "no proof: no kernel was launched on this device"
        return check("torch.kernel", FAIL, subject, reason=reason, next_step=AGAIN)
    if result.get("value") != 0:
        reason = f"{result.get('value')} elements of the answer are wrong"
        step = "Take the device out of service and run the vendor's field diagnostics."
        return check(
            "torch.kernel", FAIL, subject, observed=result.get("value"), expected=0, reason=reason, next_step=step
        )
    return check("torch.kernel", PASS, subject, observed=0, expected=0)


def number_checks(evidence: Evidence) -> list[Check]:
    """Judge that the numbers are there and finite and, on real GPUs, how they compare with the catalogue."""
    if evidence.measured is None:
        return []
    checks: list[Check] = []
    for suite in filter(evidence.wants, _SUITES):
        if evidence.has_real_gpus:
            pairs = zip(gpu_subjects(evidence), evidence.answering)
            checks += [_gpu_number(evidence, suite, key, subject, device) for (key, subject), device in pairs]
            continue
        checks.append(_cpu_number(evidence, suite))
        if evidence.simulated:
            checks.append(check(f"benchmark.{suite}", NOT_APPLICABLE, "gpu", reason=SIMULATED_REASON))
    return checks


def _unusable(check_id: str, subject: str, found: Sequence[Mapping[str, Any]]) -> Check | None:
    if not found:
        return check(check_id, FAIL, subject, reason="no proof: nothing was measured", next_step=AGAIN)
    broken = [str(entry.get("name")) for entry in found if not is_measurement(entry)]
    if broken:
        reason = f"no proof: {', '.join(broken)} is not a finite number above zero"
        return check(check_id, FAIL, subject, reason=reason, next_step=AGAIN)
    return None


def _cpu_number(evidence: Evidence, suite: str) -> Check:
    check_id, found = f"benchmark.{suite}", of(evidence, suite, "cpu")
    unusable = _unusable(check_id, "cpu", found)
    if unusable is not None:
        return unusable
    reason = "measured on the CPU: compared with no catalogue"
    return check(check_id, PASS, "cpu", observed=shown(found), reason=reason)


def _gpu_number(evidence: Evidence, suite: str, key: str | None, subject: str, device: Mapping[str, Any]) -> Check:
    check_id, found = f"benchmark.{suite}", of(evidence, suite, key)
    if is_sliced(device) and not found:
        return check(check_id, NOT_MEASURED, subject, reason=NO_SLICE)
    unusable = _unusable(check_id, subject, found)
    if unusable is not None:
        return unusable
    if is_sliced(device):
        reason = "measured, not judged: one MIG instance is a part of the card"
        return check(check_id, PASS, subject, observed=shown(found), reason=reason)
    row = evidence.catalogue.get(str(device.get("catalogue_id")))
    if row is None:
        reason = "measured, not judged: the card is not in the catalogue"
        return check(check_id, PASS, subject, observed=shown(found), reason=reason)
    result = _acceptance_shape(found)
    gate_name = gates.gemm_gate(row) if suite == "gemm" else gates.memory_gate(row, dig(device, "ecc.current"))
    peak = gates.peak_tflops(row, str(result.get("dtype"))) if suite == "gemm" else row.get("memory_bandwidth_gbps")
    if gate_name is None or not peak:
        reason = "measured, not judged: the catalogue has no peak for it that it could be held to"
        return check(check_id, PASS, subject, observed=shown(found), reason=reason)
    return judged(check_id, subject, result, (float(peak), "the catalogue's"), gate_name, evidence)


def _acceptance_shape(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the result that is judged: of gemm the primary data type at the acceptance shape, else at the largest; of
    the memory suite the copy."""
    ranks = [_PRIMARY.index(str(entry.get("dtype"))) for entry in found if entry.get("dtype") in _PRIMARY]
    primary = [entry for entry in found if entry.get("dtype") == _PRIMARY[min(ranks)]] if ranks else list(found)
    exact = [
        entry for entry in primary if (entry.get("shape") or [0])[0] == _GATE_SIZE or "copy" in str(entry.get("name"))
    ]
    return exact[0] if exact else max(primary, key=lambda entry: (entry.get("shape") or [0])[0])


def throttle_checks(evidence: Evidence) -> list[Check]:
    """Judge the event reasons that were active while a real GPU was measured."""
    if evidence.measured is None or not evidence.has_real_gpus:
        return []
    return [_throttle(evidence, key, subject) for key, subject in gpu_subjects(evidence) if key is not None]


def _throttle(evidence: Evidence, key: str, subject: str) -> Check:
    timed = [entry for entry in evidence.by_device.get(key, []) if entry.get("suite") != "kernel"]
    # heat is never measured away: what was active in a measurement that did not count is judged as well
    every = [*timed, *(attempt for entry in timed for attempt in attempts(entry))]
    records = [entry["throttle"] for entry in every if isinstance(entry.get("throttle"), Mapping)]
    if not records:
        reason = next((str(dig(entry, "missing.throttle")) for entry in timed), "nothing was measured")
        return check("benchmark.throttle", NOT_MEASURED, subject, reason=reason)
    worst = {
        reason: max(float(dig(record, f"fractions.{reason}") or 0.0) for record in records)
        for reason in _THROTTLE_LIMITS
    }
    for status, position in ((FAIL, 1), (WARN, 0)):
        over = {name: part for name, part in worst.items() if part > _THROTTLE_LIMITS[name][position]}
        if over:
            listed = ", ".join(f"{name} {part:.0%} of the time" for name, part in over.items())
            step = "Check cooling, air flow and power supply of the node."
            return check("benchmark.throttle", status, subject, observed=worst, reason=listed, next_step=step)
    return check("benchmark.throttle", PASS, subject, observed=worst)


def error_checks(evidence: Evidence) -> list[Check]:
    """Return a failed check per error that the benchmark recorded."""
    return [
        check(
            "benchmark.run",
            FAIL,
            str(entry.get("device") or "node"),
            observed=entry.get("reason"),
            reason=" ".join(str(text) for text in (entry.get("suite"), entry.get("detail")) if text)
            or "no detail given",
            next_step=entry.get("next_step"),
        )
        for entry in entries(evidence.measured, "errors")
    ]


def digest(evidence: Evidence) -> dict[str, Any] | None:
    """Return the part of the benchmark that belongs into a report; what torch is stands beside it."""
    if evidence.measured is None:
        return None
    keys = ("level", "suites", "seed", "device_kind", "devices", "results", "errors", "python")
    more = {key: evidence.measured[key] for key in ("not_applicable", "repeated") if evidence.measured.get(key)}
    return {**{key: evidence.measured.get(key) for key in keys}, **more, "calibrated": gates.CALIBRATED}
