# SPDX-License-Identifier: Apache-2.0
"""Rules of the GPUs as such: is the driver there, are all of them, do they answer, are they what they were. Pure."""

from __future__ import annotations

from . import coherence
from .coherence_view import FAIL, MISMATCH, UNKNOWN
from .health_firmware import uniform_firmware
from .health_record import ISOLATE, MONITOR, REBOOT, RESET, Check, finding, not_applicable, not_measured, ok, steps
from .health_view import Record, View, listed, read, subject

_CONTAINER = "what a container sees says nothing about the GPUs of its host"
_REBOOT = ("drain", "restart_node", "run_site")
#: situation of gpu_facts -> severity and actions; those that are not here are no finding
_SITUATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no_driver": (ISOLATE, ("drain", "run_site")),
    "driver_not_loaded": (REBOOT, ("reload_driver", *_REBOOT)),
    "version_mismatch": (REBOOT, ("stop_workload", "drain", "reload_driver", "restart_node")),
    "gpu_lost": (REBOOT, ("stop_workload", "drain", "restart_node", "power_cycle", "reseat", "run_field_diagnostics")),
    "gpu_reset_required": (RESET, ("stop_workload", "drain", "reset_gpu")),
    "nouveau_in_use": (REBOOT, ("blacklist_nouveau", "restart_node")),
    "driver_hung": (REBOOT, ("stop_workload", "drain", "collect_bug_report", "restart_node")),
    "driver_crashed": (REBOOT, ("collect_bug_report", "restart_node", "run_site")),
    "nvml_error": (REBOOT, ("collect_bug_report", "restart_node", "run_site")),
}
#: situations in which NVML counts nothing, so that only the bus can be counted
_WITHOUT_DRIVER = (
    *("no_driver", "driver_not_loaded", "version_mismatch", "nouveau_in_use"),
    *("driver_hung", "driver_crashed", "nvml_error"),
)
_UNTOLD = {
    "no_permission": "this user may not open the GPUs: run the check with become: true",
    "container_without_devices": _CONTAINER,
    "probe_error": "the probe itself failed",
}
_STATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "lost": (
        REBOOT,
        ("stop_workload", "drain", "restart_node", "power_cycle", "reseat", "run_field_diagnostics", "replace"),
    ),
    "reset_required": (RESET, ("stop_workload", "drain", "reset_gpu", "restart_node")),
    "error": (REBOOT, ("stop_workload", "drain", "reset_gpu", "restart_node", "run_field_diagnostics")),
}
_RECOVERIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gpu_reset": (RESET, ("stop_workload", "drain", "reset_gpu")),
    "bus_reset": (RESET, ("stop_workload", "drain", "reset_gpu", "restart_node")),
    "drain_and_reset": (RESET, ("drain", "stop_workload", "reset_gpu")),
    "recover_imex_domain": (RESET, ("drain", "restart_service", "restart_node")),
    "drain_p2p": (MONITOR, ("drain_p2p",)),
    "node_reboot": (REBOOT, ("stop_workload", "drain", "restart_node")),
    "system_reboot": (REBOOT, ("stop_workload", "drain", "power_cycle")),
}


def node_checks(view: View) -> list[Check]:
    """Return the checks of all GPUs together."""
    return [situation(view), count(view), identity(view), *coherent(view), nouveau(view), *uniform_firmware(view)]


def device_checks(view: View, device: Record) -> list[Check]:
    return [state(view, device), recovery(view, device)]


def situation(view: View) -> Check:
    name, who, word = "gpu.situation", "node", str(view.gpu.get("situation"))
    cause, step = str(view.gpu.get("cause") or ""), str(view.gpu.get("next_step") or "")
    if word in _UNTOLD:
        return not_measured(name, who, f"{_UNTOLD[word]} ({cause})" if cause else _UNTOLD[word])
    if word == "no_gpu":
        wanted = _wanted(view)
        if wanted:
            return finding(
                name, who, ISOLATE, f"the node must have {wanted} GPU(s). {cause}", observed=word, expected="ready"
            )
        return not_applicable(name, who, "the node has no NVIDIA GPU")
    if word in ("ready", "wsl2"):
        return ok(name, who, word, "ready")
    if word not in _SITUATIONS:
        return not_measured(name, who, f"the facts call the situation {word!r}, which no rule knows")
    severity, actions = _SITUATIONS[word]
    return finding(name, who, severity, f"{cause} {step}".strip(), observed=word, expected="ready", actions=actions)


def _wanted(view: View) -> int:
    """GPUs that the node must have: as declared, else as many as there ever were."""
    declared, before = view.declared("gpu_count"), view.baseline.get("gpu_count")
    if isinstance(declared, int):
        return declared
    return before if isinstance(before, int) else 0


def count(view: View) -> Check:
    """A GPU that the bus shows and the driver does not may come back; one that the bus does not show is gone."""
    name, who = "gpu.count", "node"
    here, on_bus, word = view.gpu.get("count"), view.gpu.get("pci_count"), str(view.gpu.get("situation"))
    wanted = _wanted(view)
    if word in _UNTOLD or here is None:
        return not_measured(name, who, "the GPUs could not be counted")
    observed = {"nvml": here, "pci": on_bus}
    if on_bus is None and not wanted:
        return not_measured(name, who, view.why("pci_count", "the PCI bus was not read"))
    # GPUs of the bus that are given to another driver on purpose (vfio-pci) are not missed
    missed = here + len(view.gpu.get("lost_pci_addresses") or [])
    expected = wanted if view.declared("gpu_count") is not None else max(wanted, missed)
    contained = view.gpu.get("platform") in ("container", "wsl2") and not view.gpu.get("simulated")
    if contained and not wanted:
        return not_applicable(name, who, "a container or WSL2 shows the GPUs it was given")
    gone = on_bus is not None and on_bus < expected
    if word in _WITHOUT_DRIVER and not gone:
        return not_measured(name, who, "no driver answers for the GPUs on the bus (gpu.situation)")
    if here < expected:
        reason = f"{here} GPU(s) can be used, {expected} must be there; the PCI bus shows {on_bus}"
        actions = ("drain", "power_cycle", "reseat", "check_slot", "replace") if gone else None
        severity = ISOLATE if gone else REBOOT
        return finding(name, who, severity, reason, observed=observed, expected=expected, actions=actions)
    if isinstance(view.declared("gpu_count"), int) and here > wanted:
        reason = f"{here} GPUs are there, {wanted} are declared"
        return finding(name, who, MONITOR, reason, observed=observed, expected=wanted, actions=("fix_configuration",))
    return ok(name, who, observed, expected) if expected else not_applicable(name, who, "the node has no NVIDIA GPU")


def identity(view: View) -> Check:
    name, who = "gpu.identity", "node"
    before = view.baseline.get("gpus")
    now = {str(device["uuid"]) for device in view.devices if device.get("uuid")}
    if not isinstance(before, dict) or not before:
        return not_applicable(name, who, "there was no earlier check to compare with")
    if not now:
        return not_measured(name, who, "no GPU tells its UUID")
    new = sorted(now - set(before))
    gone = sorted(set(before) - now)
    if new and gone:
        reason = f"other GPUs than before: {listed(new, 3)} in place of {listed(gone, 3)}"
        return finding(name, who, MONITOR, reason, observed=sorted(now), expected=sorted(before))
    return ok(name, who, f"{len(now)} known", f"{len(before)} known")


def state(view: View, device: Record) -> Check:
    name, who, word = "gpu.state", subject(device), str(device.get("state"))
    if word == "ok":
        return ok(name, who, "ok", "ok")
    if word not in _STATES:
        why = {"no_permission": _UNTOLD["no_permission"], "unanswered": "no driver answers for it"}.get(
            word, f"its state is {word}"
        )
        return not_measured(name, who, why)
    severity, actions = _STATES[word]
    code = device.get("error_code")
    reason = f"the GPU is {word.replace('_', ' ')} (NVML {code})"
    return finding(name, who, severity, reason, observed=word, expected="ok", actions=actions)


def recovery(view: View, device: Record) -> Check:
    name, who = "gpu.recovery_action", subject(device)
    word = view.of(device, "recovery_action")
    if not word.known:
        return word.without(name, who)
    if word.value == "none":
        return ok(name, who, "none", "none")
    severity, actions = _RECOVERIES.get(word.value, (MONITOR, ("contact_support",)))
    reason = f"the driver asks for {word.value.replace('_', ' ')}"
    return finding(name, who, severity, reason, observed=word.value, expected="none", actions=actions)


def coherent(view: View) -> list[Check]:
    """What the rules of coherence say; gather-facts, the verdict and diagnose-nodes tell it whole."""
    name, who = "coherence", "node"
    answers = coherence.examine(view.gpu, view.expected.get("stack"))
    checks = []
    for answer in (one for one in answers if one["state"] == MISMATCH):
        severity = REBOOT if answer["severity"] == FAIL else MONITOR
        check = finding(
            name,
            f"{who} {answer['id']}",
            severity,
            answer["cause"],
            observed=answer["found"],
            expected=answer["expected"],
        )
        check["actions"] = [{"action": "fix_configuration", "text": answer["cure"]}, *steps(["run_site"])]
        checks.append(check)
    if checks:
        return checks
    open_ids = [answer for answer in answers if answer["state"] == UNKNOWN]
    if open_ids:
        reason = f"{listed((one['id'] for one in open_ids), 12)} could not be told: {open_ids[0]['cause']}"
        return [not_measured(name, who, reason)]
    if all(answer["state"] == "not_applicable" for answer in answers):
        return [not_applicable(name, who, str(answers[0]["cause"]))]
    return [ok(name, who, f"{len(answers)} rules", "no mismatch")]


def nouveau(view: View) -> Check:
    name, who = "driver.nouveau", "node"
    if view.gpu.get("pci_count") == 0:
        return not_applicable(name, who, "the node has no NVIDIA GPU")
    loaded = read(view.gpu, "driver.nouveau_loaded", view.gpu.get("missing") or {})
    if not loaded.known:
        return loaded.without(name, who)
    if loaded.value and view.gpu.get("pci_count"):
        return finding(
            name,
            who,
            REBOOT,
            "nouveau is loaded: it keeps NVIDIA's module from the GPUs",
            observed=True,
            expected=False,
        )
    return ok(name, who, False, False)
