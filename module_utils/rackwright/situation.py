# SPDX-License-Identifier: Apache-2.0
"""Judge what GPU situation a node is in: one word, its cause in one sentence and the next step. Pure.

The rules are asked in order and the first that applies decides. Every rule sees the same evidence and claims nothing
that is not in it.
"""

from __future__ import annotations

from typing import Any

from . import nvml_errors as codes
from .gpu_evidence import Evidence, Situation, plural

#: every word a situation can be
SITUATIONS = (
    "ready",
    "no_gpu",
    "no_driver",
    "driver_not_loaded",
    "version_mismatch",
    "gpu_lost",
    "gpu_reset_required",
    "no_permission",
    "wsl2",
    "container_without_devices",
    "nouveau_in_use",
    "driver_hung",
    "driver_crashed",
    "nvml_error",
    "probe_error",
)
_KERNEL_LOG = "the kernel log (journalctl -k, lines with NVRM or Xid)"


def judge(evidence: Evidence) -> Situation:
    """Return the situation; the last rule always applies."""
    for rule in (_probe_failed, _wsl2, _answering, _nothing_there, _nouveau, _container, _by_code):
        situation = rule(evidence)
        if situation is not None:
            return situation
    return Situation(
        "nvml_error",
        f"NVML cannot be initialised: {evidence.init_reason}.",
        f"Read {_KERNEL_LOG}; if it names no cause, reboot the node.",
    )


def _probe_failed(e: Evidence) -> Situation | None:
    if e.child_status == "timeout":
        return Situation(
            "driver_hung",
            f"The NVIDIA driver does not answer: {_inner(e.child_detail)}.",
            _after_a_timeout(e),
        )
    if e.child_status == "crashed":
        return Situation(
            "driver_crashed",
            f"The NVIDIA management library crashed while it was asked: {_inner(e.child_detail)}.",
            f"Check that library and kernel module come from the same driver, read {_KERNEL_LOG} and reboot the node.",
        )
    if e.child_status == "error":
        return Situation(
            "probe_error",
            f"The probe itself failed: {_inner(e.child_detail)}.",
            "Report this message with the versions of Python and of the driver: it is a defect of Rackwright.",
        )
    return None


def _after_a_timeout(e: Evidence) -> str:
    # without the daemon each question starts each GPU anew, which takes seconds per GPU on large boards
    if len(e.gpus) > 1 and (e.host.get("persistence_daemon") or {}).get("running") is False:
        why = f"nvidia-persistenced does not run and {len(e.gpus)} GPUs start anew for each question"
        return f"Try a longer timeout, because {why}; if that does not help, read {_KERNEL_LOG} and reboot the node."
    return f"Read {_KERNEL_LOG}, then reboot the node; raise the timeout only if it is known to be slow."


def _inner(text: str) -> str:
    flat = " ".join(text.split()).rstrip(".")
    return flat[:1].lower() + flat[1:] if flat.split(" ")[0].istitle() else flat


def _wsl2(e: Evidence) -> Situation | None:
    if not e.host["wsl"]:
        return None
    if e.initialised and e.working:
        return Situation(
            "wsl2",
            f"This is WSL2 and {_shown(e)} through the driver of Windows.",
            "Nothing to do; never install an NVIDIA driver inside WSL2, update the one of Windows instead.",
        )
    if not e.host["dxg"]:
        return Situation(
            "wsl2",
            "This is WSL without /dev/dxg, so Windows hands no GPU to it.",
            "Use WSL version 2 (wsl --set-version), update it (wsl --update) and restart it (wsl --shutdown).",
        )
    why = "libnvidia-ml.so.1 is not there" if not e.library["found"] else e.init_reason or "NVML shows no GPU"
    return Situation(
        "wsl2",
        f"This is WSL2 and Windows offers a GPU, but {why}.",
        "Install or update the NVIDIA driver of Windows, then run wsl --shutdown; install no driver inside WSL2.",
    )


def _shown(e: Evidence) -> str:
    kind = "simulated GPU" if e.library["simulated"] else "GPU"
    return f"{plural(len(e.working), kind)} {'answers' if len(e.working) == 1 else 'answer'}"


def _answering(e: Evidence) -> Situation | None:
    """NVML runs: are all GPUs there and well?"""
    if not e.initialised:
        return None
    for rule in (_bad_device, _hidden_by_container, _missing_device):
        situation = rule(e)
        if situation is not None:
            return situation
    if not e.working:
        return None
    return Situation("ready", f"{_shown(e)} through NVML.", "Nothing to do.")


def _bad_device(e: Evidence) -> Situation | None:
    for state, build in (
        ("lost", _lost),
        ("reset_required", _reset_required),
        ("no_permission", _device_permission),
        ("error", _device_error),
    ):
        bad = [device for device in e.devices if device["state"] == state]
        if bad:
            return build(e, bad)
    return None


def _names(devices: list[dict[str, Any]]) -> str:
    parts = []
    for device in devices:
        address = device["pci"]["address"]
        parts.append(f"GPU {device['index']}" + (f" at {address}" if address else ""))
    return ", ".join(parts)


def _lost(e: Evidence, bad: list[dict[str, Any]]) -> Situation:
    named = {device["pci"]["address"] for device in bad}
    nameless = [address for address in e.unseen if address not in named] if None in named else []
    where = f" (not answering on the PCI bus: {', '.join(nameless)})" if nameless else ""
    return Situation(
        "gpu_lost",
        f"{_names(bad)} {'is' if len(bad) == 1 else 'are'} lost{where}; {len(e.working)} of {len(e.devices)} answer.",
        f"Drain the node, read {_KERNEL_LOG} and reboot; if it happens again, have the board and its power checked.",
    )


def _reset_required(e: Evidence, bad: list[dict[str, Any]]) -> Situation:
    which = ",".join(str(device["index"]) for device in bad)
    return Situation(
        "gpu_reset_required",
        f"{_names(bad)} must be reset before use; {len(e.working)} of {len(e.devices)} answer.",
        f"End all GPU processes, then reset as root (nvidia-smi --gpu-reset -i {which}) or reboot the node.",
    )


def _device_permission(e: Evidence, bad: list[dict[str, Any]]) -> Situation:
    return Situation(
        "no_permission",
        f"This user may not use {_names(bad)}; {len(e.working)} of {len(e.devices)} answer.",
        "Check owner and mode of /dev/nvidia* and the device rules of the container or control group.",
    )


def _device_error(_e: Evidence, bad: list[dict[str, Any]]) -> Situation:
    device = bad[0]
    reason = device["missing"].get("uuid", codes.reason_for(device["error_code"]))
    return Situation(
        "nvml_error", f"{_names(bad)} cannot be opened: {reason}.", f"Read {_KERNEL_LOG}; then reboot the node."
    )


def _hidden_by_container(e: Evidence) -> Situation | None:
    """A container sees the whole PCI bus but only the GPUs it was given: nothing is lost."""
    if not (e.unseen and e.host["container"] and len(e.numbered_nodes) <= len(e.working)):
        return None
    if not e.working:
        return None
    return Situation(
        "ready",
        f"{_shown(e)} through NVML; the other {len(e.unseen)} of {e.count_text()} are not given to this container.",
        "Nothing to do, unless the container was meant to have them.",
    )


def _missing_device(e: Evidence) -> Situation | None:
    if not e.unseen:
        return None
    addresses = ", ".join(e.unseen)
    if not e.working and e.host["container"] and not e.numbered_nodes:
        return None
    if not e.working:
        return Situation(
            "gpu_lost",
            f"The driver runs but shows none of the {e.count_text()} on the PCI bus (at {addresses}).",
            f"Read {_KERNEL_LOG}: lost hardware, or a GPU this driver does not support"
            " (open kernel modules need Turing or newer).",
        )
    return Situation(
        "gpu_lost",
        f"NVML shows {len(e.working)} of the {e.count_text()} on the PCI bus; missing: {addresses}.",
        f"Drain the node, read {_KERNEL_LOG} and reboot; if it happens again, have the board and its power checked.",
    )


def _nothing_there(e: Evidence) -> Situation | None:
    if e.gpus or e.host["pci"]["reason"] is not None:
        return None
    if not (e.initialised or e.init_error in (codes.DRIVER_NOT_LOADED, codes.LIBRARY_NOT_FOUND)):
        return None
    return Situation(
        "no_gpu",
        "There is no NVIDIA GPU on the PCI bus.",
        "Nothing to do, unless one was expected: check its seat and power.",
    )


def _nouveau(e: Evidence) -> Situation | None:
    if e.initialised or not e.nouveau or e.module_loaded:
        return None
    return Situation(
        "nouveau_in_use",
        f"{e.count_text()} found, but the kernel driver nouveau holds {'it' if len(e.gpus) == 1 else 'them'}.",
        "Blacklist nouveau, rebuild the initramfs, install the NVIDIA driver and reboot (role nvidia_driver does it).",
    )


def _container(e: Evidence) -> Situation | None:
    """The host's driver is there, but this container was not given the devices, or lost them."""
    if not (e.host["container"] and e.module_loaded) or (e.initialised and e.working):
        return None
    start = "Start the container with its GPUs (for example --gpus all, or a CDI device)."
    if not e.host["device_nodes"]:
        why = (
            "has no /dev/nvidia* devices"
            if e.library["found"]
            else "has neither NVIDIA devices nor the NVIDIA libraries"
        )
        return Situation(
            "container_without_devices",
            f"The host of this container has a loaded NVIDIA driver, but the container {why}.",
            start,
        )
    if e.init_error in (999, codes.OPERATING_SYSTEM):
        return Situation(
            "container_without_devices",
            "The container has /dev/nvidia* devices but its control group does not let it open them"
            f" ({e.init_reason}).",
            "Restart the container; this follows a systemctl daemon-reload on the host unless CDI is used.",
        )
    return None


def _by_code(e: Evidence) -> Situation | None:
    rules = {
        codes.LIBRARY_NOT_FOUND: _no_library,
        codes.DRIVER_NOT_LOADED: _not_loaded,
        codes.VERSION_MISMATCH: _mismatch,
        codes.NO_PERMISSION: _no_permission,
        codes.GPU_IS_LOST: _lost_at_init,
        codes.RESET_REQUIRED: _reset_at_init,
    }
    rule = rules.get(e.init_error) if e.init_error is not None else None
    if rule is None and e.initialised:
        return Situation(
            "nvml_error", "NVML runs but shows no GPU, and the PCI bus cannot be read.", f"Read {_KERNEL_LOG}."
        )
    return rule(e) if rule else None


def _found(e: Evidence) -> str:
    return f"{e.count_text()} found" if e.gpus else "The PCI bus cannot be read"


def _no_library(e: Evidence) -> Situation:
    if e.module_loaded:
        version = e.driver["kernel_module_version"] or "of unknown version"
        cause = f"The kernel module {version} is loaded, but libnvidia-ml.so.1 is not installed."
        return Situation("no_driver", cause, "Install the user-space part of exactly that driver version.")
    return Situation(
        "no_driver",
        f"{_found(e)}, but no NVIDIA driver is installed.",
        "Install the NVIDIA driver (role nvidia_driver).",
    )


def _not_loaded(e: Evidence) -> Situation:
    if e.module_loaded and not e.host["device_nodes"]:
        return Situation(
            "driver_not_loaded",
            "The NVIDIA kernel module is loaded, but NVML cannot reach it and there is no /dev/nvidiactl.",
            "Create the devices (nvidia-modprobe -c 0, or start nvidia-persistenced) or reboot the node.",
        )
    installed = e.host["installed_module"] or {}
    kernel = e.host["kernel_release"]
    library = e.driver["library_version"]
    user_space = f"The NVIDIA library {library}" if library else "The NVIDIA library"
    if installed.get("version"):
        return Situation(
            "driver_not_loaded",
            f"{user_space} and the kernel module {installed['version']} are installed, but the module is not loaded.",
            "Reboot the node, or load it with modprobe nvidia; if that fails, read the kernel log.",
        )
    return Situation(
        "driver_not_loaded",
        f"{user_space} is installed, but no kernel module is loaded"
        + (f": {installed['reason']}." if installed.get("reason") else f" in kernel {kernel}."),
        f"Reboot after a fresh installation; otherwise build the module for kernel {kernel} (dkms status, headers).",
    )


def _mismatch(e: Evidence) -> Situation:
    module = e.driver["kernel_module_version"] or "of another version"
    library = e.driver["library_version"] or "of another version"
    return Situation(
        "version_mismatch",
        f"The kernel module {module} is loaded, but the NVIDIA library is {library}.",
        "Reboot the node, so that the module of the installed driver is loaded.",
    )


def _no_permission(_e: Evidence) -> Situation:
    return Situation(
        "no_permission",
        "This user may not use the NVIDIA driver.",
        "Check owner and mode of /dev/nvidia* (normally 0666) or run as a user that may open them.",
    )


def _lost_at_init(e: Evidence) -> Situation:
    return Situation(
        "gpu_lost",
        f"NVML cannot start because a GPU is lost; on the PCI bus: {', '.join(e.unseen) or 'none'}.",
        f"Read {_KERNEL_LOG} and reboot the node.",
    )


def _reset_at_init(_e: Evidence) -> Situation:
    return Situation(
        "gpu_reset_required",
        "NVML cannot start because a GPU must be reset first.",
        "End all GPU processes, then reset as root (nvidia-smi --gpu-reset) or reboot the node.",
    )
