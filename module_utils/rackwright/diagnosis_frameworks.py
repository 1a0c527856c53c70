# SPDX-License-Identifier: Apache-2.0
"""Whether the CUDA builds of a node run on its GPUs and its driver: the code inside them against what is there. Pure.

What an environment says itself comes first; the table of releases speaks where it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import gpu_code
from .compat_rules import find, source_text
from .diagnosis_fix import torch_steps
from .diagnosis_record import ERROR, INFO, WARNING, Report
from .torch_build import minimum_driver, version_key

_WHEELS = "frameworks.yml"


@dataclass(frozen=True)
class Build:
    """One framework of one environment, as far as GPUs care: its codes, and how they are known."""

    environment: Mapping[str, Any]
    framework: str
    version: str
    cuda: str
    codes: tuple[gpu_code.Code, ...] | None
    ptx_known: bool = True
    basis: str = "the package itself"

    @property
    def subject(self) -> str:
        return f"{self.environment['path']}: {self.framework} {self.version}"


def _torch_row(report: Report, version: str) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] | None = find(
        report.tables.frameworks["pytorch"]["releases"], "version", version.partition("+")[0]
    )
    return row


def torch_of(report: Report, environment: Mapping[str, Any]) -> Build | None:
    """Return the CUDA build of torch in an environment; None where there is none."""
    torch = environment.get("torch")
    if not torch or not torch["cuda"]:
        return None
    build = Build(environment, "torch", torch["version"], torch["cuda"], None)
    if torch["arch_list"] is not None:
        return replace(build, codes=tuple(gpu_code.parse(torch["arch_list"])))
    row = _torch_row(report, torch["version"])
    known = (row or {}).get("builds", {}).get(torch["build"])
    if not known or known["sass_x86_64"] is None or report.evidence.arch not in ("x86_64", "amd64"):
        return build
    codes = [gpu_code.Code(capability, False) for capability in known["sass_x86_64"]]
    if known["ptx"]:
        codes.append(gpu_code.Code(max(known["sass_x86_64"], key=version_key), True))
    basis = f"{_WHEELS}, torch {row['version']} {torch['build']}" if row else _WHEELS
    return replace(build, codes=tuple(codes), ptx_known=known["ptx"] is not None, basis=basis)


def tensorflow_of(report: Report, environment: Mapping[str, Any]) -> Build | None:
    """Return the CUDA build of tensorflow in an environment; None where there is none or nothing is known of it."""
    found = environment.get("tensorflow")
    if not found or found["cuda_build"] is False or found["distribution"] == "tensorflow-cpu":
        return None
    minor = ".".join(found["version"].split(".")[:2])
    row = find(report.tables.frameworks["tensorflow"]["releases"], "version", minor)
    cuda = found["cuda"] or (row or {}).get("cuda")
    if cuda is None:
        return None
    build = Build(environment, "tensorflow", found["version"], cuda, None)
    if found["arch_list"]:
        return replace(build, codes=tuple(gpu_code.parse(found["arch_list"])))
    if row is None:
        return build
    codes = [gpu_code.Code(capability, False) for capability in row["sass"]]
    codes += [gpu_code.Code(capability, True) for capability in row["ptx"] or []]
    return replace(build, codes=tuple(codes), basis=f"{_WHEELS}, tensorflow {minor}")


def _builds(report: Report) -> list[Build]:
    found = []
    for environment in report.evidence.environments:
        found += [torch_of(report, environment), tensorflow_of(report, environment)]
    return [build for build in found if build]


def gpu_code_of_builds(report: Report) -> None:
    """Every CUDA build against every GPU model: ``no-kernel-image``, ``unsupported-ptx``, ``compiled-at-start``."""
    e = report.evidence
    if not e.frameworks:
        report.unknown("no-kernel-image", e.name, e.why("frameworks"))
        return
    if not e.gpu:
        report.unknown("no-kernel-image", e.name, e.why("gpu"))
        return
    for place, reason in sorted((e.frameworks.get("missing") or {}).items()):
        if place.startswith("environments"):
            report.unknown("no-kernel-image", place.partition(".")[2] or e.name, reason)
    models: dict[tuple[str, str | None], None] = {}
    for device in e.devices:
        name = device.get("name") or " or ".join(device.get("catalogue_candidates") or []) or "NVIDIA GPU"
        models[(str(name), device.get("compute_capability"))] = None
    for build in _builds(report):
        for name, capability in models:
            _code_on_model(report, build, name, capability)


def _code_on_model(report: Report, build: Build, name: str, capability: str | None) -> None:
    subject = f"{build.subject} on {name}"
    if capability is None:
        report.unknown("no-kernel-image", subject, "the GPU's compute capability is not known")
        return
    if build.codes is None:
        reason = build.environment["missing"].get("torch.arch_list", f"{_WHEELS} does not know this build")
        report.unknown("no-kernel-image", subject, f"which GPU code the build holds is not known: {reason}")
        return
    way = gpu_code.how_it_runs(report.tables.frameworks, build.codes, capability, build.cuda)
    if way == gpu_code.NONE:
        _no_kernel_image(report, build, name, capability, subject)
    elif way == gpu_code.PTX:
        _only_ptx(report, build, name, capability, subject)


def _no_kernel_image(report: Report, build: Build, name: str, capability: str, subject: str) -> None:
    known = report.tables.frameworks["pytorch"]["no_kernel_image"]
    holds = gpu_code.shown(build.codes or ())
    cause = (
        f'"{known["error"]}": {build.framework} {build.version} holds code for {holds} and none that runs on compute'
        f" capability {capability} ({name})"
    )
    cause += "." if build.ptx_known else "; whether it holds PTX is not known."
    if build.framework == "torch":
        steps = torch_steps(report.evidence, report.tables, build.environment, name, capability)
    else:
        steps = ['Take a newer tensorflow: python -m pip install --upgrade "tensorflow[and-cuda]"']
    report.add(
        "no-kernel-image",
        subject,
        ERROR if build.ptx_known else WARNING,
        observed=f"code for {holds} (by {build.basis})",
        expected=f"machine code or PTX for compute capability {capability}",
        cause=cause,
        steps=steps,
        source=f"{_WHEELS}, no_kernel_image ({source_text(known['issues'])})",
    )


def _only_ptx(report: Report, build: Build, name: str, capability: str, subject: str) -> None:
    e = report.evidence
    newest = (e.gpu.get("driver") or {}).get("cuda_driver_version")
    if newest is None:
        report.unknown("unsupported-ptx", subject, "which CUDA version the driver knows is not known")
        return
    holds = gpu_code.shown(build.codes or ())
    if version_key(build.cuda)[:2] > version_key(newest)[:2]:
        wanted = ".".join(build.cuda.split(".")[:2])
        steps = [f"Update the driver to one that knows CUDA {wanted} (the installed one knows {newest})"]
        if build.framework == "torch":
            steps += torch_steps(e, report.tables, build.environment, name, capability)
        report.add(
            "unsupported-ptx",
            subject,
            ERROR,
            observed=f"only PTX, written by CUDA {build.cuda}; the driver {e.driver} knows CUDA {newest}",
            expected=f"a driver that knows CUDA {wanted}, or machine code for compute capability {capability}",
            cause=(
                f"CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222): {build.framework} {build.version} holds code for {holds},"
                f" so {name} needs its PTX compiled, and the driver's compiler is older than that PTX."
            ),
            steps=steps,
            source="cuda.yml, minor_version_compatibility",
        )
        return
    report.add(
        "compiled-at-start",
        subject,
        INFO,
        observed=f"code for {holds}",
        expected=f"machine code for compute capability {capability}",
        cause=f"There is no machine code for {name}: the driver compiles the PTX at the first use and caches it.",
        steps=["Expect a slow first start, or take a build with machine code for this GPU"],
        source=f"{_WHEELS}, pytorch.sass_rule",
    )


def driver_of_builds(report: Report) -> None:
    """``driver-too-old``: every CUDA build against the driver, by minor-version compatibility."""
    e = report.evidence
    for build in _builds(report) if e.has_gpu else []:
        minimum = minimum_driver(report.tables.frameworks, build.cuda)
        if minimum is None:
            report.unknown("driver-too-old", build.subject, f"which driver CUDA {build.cuda} needs is not known")
        elif e.driver is None:
            report.unknown("driver-too-old", build.subject, "the node's driver version is not known")
        elif version_key(e.driver) < version_key(minimum):
            _driver_too_old(report, build, minimum)


def _driver_too_old(report: Report, build: Build, minimum: str) -> None:
    e = report.evidence
    compat = [
        entry
        for entry in e.system.get("driver_libraries") or []
        if entry["kind"] == "compat" and version_key(entry["version"]) >= version_key(minimum)
    ]
    steps = [f"Update the driver to {minimum} or newer, and reboot"]
    if build.framework == "torch":
        steps += torch_steps(e, report.tables, build.environment, None, None)
    cause = (
        f"{build.framework} {build.version} brings CUDA {build.cuda}; programs of that major need driver"
        f" {minimum} or newer and the node has {e.driver}."
    )
    if compat:
        cause += f" It can work through {compat[0]['path']} on cards that support forward compatibility."
    report.add(
        "driver-too-old",
        build.subject,
        WARNING if compat else ERROR,
        observed=f"driver {e.driver}",
        expected=f"driver {minimum} or newer",
        cause=cause,
        steps=steps,
        source=str(report.tables.frameworks["cuda_minimum_drivers_source"]),
    )


RULES = (gpu_code_of_builds, driver_of_builds)
