# SPDX-License-Identifier: Apache-2.0
"""What does not fit together on a node, as findings of a diagnosis. Pure."""

from __future__ import annotations

from . import coherence
from .coherence_view import FAIL, MISMATCH, UNKNOWN
from .diagnosis_record import ERROR, WARNING, Report

#: other findings that tell the same with more evidence
_TOLD_BY = {
    "module-library": ("driver-library-mismatch",),
    "fabric-manager": ("fabric-manager",),
    "package-skew": ("several-driver-libraries", "driver-library-mismatch"),
}
_SOURCE = "gpu_facts, the part software (docs/gpu-facts.md)"


def fits_together(report: Report) -> None:
    """Module, library, DKMS, packages, fabric manager, container toolkit and CDI are of one version."""
    e = report.evidence
    if not e.gpu or not e.gpu.get("software"):
        report.unknown("coherence", e.name, e.why("gpu") if not e.gpu else "the facts do not tell what is installed")
        return
    told = {finding.id for finding in report.findings}
    for answer in coherence.examine(e.gpu):
        subject = f"{e.name}, {answer['subject']}"
        if answer["state"] == UNKNOWN and e.situation == "ready":
            report.unknown(answer["id"], subject, answer["cause"])
        elif answer["state"] == MISMATCH and not told & set(_TOLD_BY.get(answer["id"], ())):
            report.add(
                answer["id"],
                subject,
                ERROR if answer["severity"] == FAIL else WARNING,
                observed=answer["found"],
                expected=answer["expected"],
                cause=answer["cause"],
                steps=[answer["cure"].rstrip(".")],
                source=_SOURCE,
            )


RULES = (fits_together,)
