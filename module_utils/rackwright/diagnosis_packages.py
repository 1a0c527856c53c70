# SPDX-License-Identifier: Apache-2.0
"""Frameworks that cannot use GPUs at all, cannot be loaded, or do not belong together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .compat_rules import find, source_text
from .diagnosis_fix import torch_steps, vllm_step
from .diagnosis_record import ERROR, INFO, WARNING, Report
from .torch_build import version_key

_WHEELS = "frameworks.yml"
_STUB_SINCE = (2, 12)


def builds_without_cuda(report: Report) -> None:
    """``torch-build`` and ``tensorflow-build``: builds that cannot use the GPUs this node has."""
    e = report.evidence
    if e.simulated or not (e.has_gpu and e.gpu.get("count")):
        return
    for environment in e.environments:
        torch = environment.get("torch")
        if torch and torch["build"] is None:
            report.unknown("torch-build", environment["path"], environment["missing"]["torch.build"])
        elif torch and not torch["cuda"]:
            _torch_without_cuda(report, environment, torch)
        tensorflow = environment.get("tensorflow")
        if tensorflow:
            _tensorflow_without_cuda(report, environment, tensorflow)


def _torch_without_cuda(report: Report, environment: Mapping[str, Any], torch: Mapping[str, Any]) -> None:
    kind = "for AMD GPUs (ROCm)" if torch["hip"] else "for CPUs only"
    report.add(
        "torch-build",
        f"{environment['path']}: torch {torch['version']}",
        WARNING,
        observed=f"build {torch['build']}",
        expected="a CUDA build",
        cause=f"This build of torch is {kind}: torch.cuda.is_available() stays false.",
        steps=torch_steps(report.evidence, report.tables, environment, None, None),
        source=_WHEELS,
    )


def _tensorflow_without_cuda(report: Report, environment: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    subject = f"{environment['path']}: {found['distribution']} {found['version']}"
    table = report.tables.frameworks["tensorflow"]
    fix = [f'python -m pip install "tensorflow[and-cuda]=={found["version"]}" ({table["gpu_extra"]})']
    if found["distribution"] == "tensorflow-gpu":
        return  # tensorflow_gpu says what to do
    if found["cuda_build"] is False or found["distribution"] == "tensorflow-cpu":
        severity, cause = WARNING, "This build of tensorflow is for CPUs only."
    elif found["cuda_build"] is None:
        report.unknown("tensorflow-build", subject, environment["missing"]["tensorflow.cuda_build"])
        return
    elif not found["cuda_packages"] and environment["kind"] != "conda":
        severity = INFO
        cause = "No CUDA libraries from PyPI beside it: it sees GPUs only if the system has them in its version."
    else:
        return
    report.add(
        "tensorflow-build",
        subject,
        severity,
        observed="no CUDA" if severity == WARNING else "no nvidia-cudnn package",
        expected=str(table["tensorflow_gpu_package"]["replacement"]),
        cause=cause,
        steps=fix,
        source=str(table["sources"]["docs"]),
    )


def tensorflow_gpu(report: Report) -> None:
    """``tensorflow-gpu-stub``: a distribution that was removed."""
    for environment in report.evidence.environments:
        found = environment.get("tensorflow")
        if not found or found["distribution"] != "tensorflow-gpu":
            continue
        table = report.tables.frameworks["tensorflow"]["tensorflow_gpu_package"]
        stub = version_key(found["version"])[:2] >= _STUB_SINCE
        report.add(
            "tensorflow-gpu-stub",
            f"{environment['path']}: tensorflow-gpu {found['version']}",
            ERROR if stub else WARNING,
            observed=f"tensorflow-gpu {found['version']}",
            expected=str(table["replacement"]),
            cause=f"tensorflow-gpu was removed {table['removed']}"
            + (": what is installed is a stub without content." if stub else "; no release followed."),
            steps=[
                "python -m pip uninstall tensorflow-gpu",
                f'python -m pip install "{table["replacement"]}"',
            ],
            source=str(table["evidence"]),
        )


def c_library(report: Report) -> None:
    """``glibc-too-old``: a wheel that the node's C library cannot load."""
    here = report.evidence.frameworks.get("glibc")
    for environment in report.evidence.environments:
        torch = environment.get("torch")
        if not torch or torch["glibc_needed"] is None:
            continue
        subject = f"{environment['path']}: torch {torch['version']}"
        if here is None:
            report.unknown("glibc-too-old", subject, "the node's C library does not say its version")
        elif version_key(here) < version_key(torch["glibc_needed"]):
            report.add(
                "glibc-too-old",
                subject,
                ERROR,
                observed=f"glibc {here}",
                expected=f"glibc {torch['glibc_needed']} or newer",
                cause="The wheel was built for a newer C library than this system has: it cannot be loaded.",
                steps=[
                    "Install a release whose wheels need less (frameworks.yml, glibc_min), or a newer operating system",
                ],
                source="the tag of the installed wheel",
            )


def imports(report: Report) -> None:
    """``torch-import``: a torch that cannot be imported at all."""
    for environment in report.evidence.environments:
        error = (environment.get("torch") or {}).get("import_error")
        if error:
            report.add(
                "torch-import",
                f"{environment['path']}: torch {environment['torch']['version']}",
                ERROR,
                observed=error,
                expected="an import within the time limit",
                cause=f"torch cannot be imported in this environment: {error}.",
                steps=[
                    f'Run it by hand: {environment["python"]} -c "import torch"',
                    "More time (diagnose_timeout) if it is only slow; install it anew if a library is missing",
                ],
                source="framework_state",
            )


def vllm_pin(report: Report) -> None:
    """``vllm-torch-pin``: every vllm release is built for exactly one torch."""
    for environment in report.evidence.environments:
        vllm, torch = environment.get("vllm"), environment.get("torch")
        if not vllm:
            continue
        subject = f"{environment['path']}: vllm {vllm['version']}"
        row = find(report.tables.frameworks["vllm"]["releases"], "version", vllm["version"])
        if row is None:
            report.unknown("vllm-torch-pin", subject, f"{_WHEELS} does not know this release")
        elif torch is None:
            report.unknown("vllm-torch-pin", subject, "there is no torch beside it in the same directory")
        elif torch["version"].partition("+")[0] != row["torch"]:
            report.add(
                "vllm-torch-pin",
                subject,
                ERROR,
                observed=f"torch {torch['version']}",
                expected=f"torch {row['torch']}",
                cause=f"vllm {vllm['version']} is compiled against torch {row['torch']} and pins it exactly.",
                steps=[vllm_step(report.tables, vllm["version"], torch["version"])],
                source=f"{_WHEELS}, vllm ({source_text(row['sources'])})",
            )


RULES = (imports, c_library, builds_without_cuda, tensorflow_gpu, vllm_pin)
