# SPDX-License-Identifier: Apache-2.0
"""Explain what keeps GPU programs from running on a node, also one that Rackwright did not set up. Pure.

Every rule looks at evidence that was measured, and says so where there is none. An error text that somebody pasted
leads: what it means, and whether this node shows its cause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import diagnosis_coherence, diagnosis_frameworks, diagnosis_node, diagnosis_packages
from .compat_rules import TablesLike
from .diagnosis_record import ERROR, SEVERITIES, WARNING, Evidence, Finding, Report
from .errors import InvalidInputError

PASTED = "pasted-error"
RULES = (*diagnosis_frameworks.RULES, *diagnosis_packages.RULES, *diagnosis_node.RULES, *diagnosis_coherence.RULES)


def known_errors(table: Mapping[str, Any], text: str) -> list[Mapping[str, Any]]:
    """Return the rows of the table of error texts (``errors.yml``) that a text holds, in the order of the table."""
    flat = " ".join(text.split()).lower()
    found = []
    for row in table["errors"]:
        by_text = any(" ".join(wanted.split()).lower() in flat for wanted in row["texts"])
        # a bare "error 2" is anybody's, make's for example
        by_code = row["code"] and re.search(rf"\bcuda error:? \(?{row['code']}\b", flat)
        if by_text or by_code:
            found.append(row)
    return found


def diagnose(
    evidence: Evidence, tables: TablesLike, errors: Mapping[str, Any] | None = None, text: str | None = None
) -> dict[str, Any]:
    """Return the findings about one node, worst first, and what could not be measured.

    ``counts`` tells how many findings of each severity the node has; the explanation of a pasted text is not counted.

    Args:
        evidence: what was measured on the node.
        tables: the product's tables.
        errors: the table ``errors.yml``; needed where ``text`` is given.
        text: an error message somebody pasted.
    """
    report = Report(evidence, tables)
    for rule in RULES:
        rule(report)
    findings = sorted(report.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    if text and errors is not None:
        findings = _led_by(findings, report, errors, text)
    counts = {severity: sum(1 for entry in report.findings if entry.severity == severity) for severity in SEVERITIES}
    return {
        "node": evidence.name,
        "simulated": evidence.simulated,
        "findings": [finding.to_dict() for finding in findings],
        "not_measured": report.not_measured,
        "counts": counts,
    }


def _led_by(findings: list[Finding], report: Report, errors: Mapping[str, Any], text: str) -> list[Finding]:
    """Put the explanation of the pasted text first, and after it what this node shows of its causes."""
    rows = known_errors(errors, text)
    if not rows:
        return [_unknown_text(report, text), *findings]
    wanted = {finding for row in rows for finding in row["findings"]}
    causes = [finding for finding in findings if finding.id in wanted]
    return [
        *(_explained(row, report, findings, errors) for row in rows),
        *causes,
        *(finding for finding in findings if finding not in causes),
    ]


def _unknown_text(report: Report, text: str) -> Finding:
    return Finding(
        PASTED,
        report.evidence.name,
        WARNING,
        observed=" ".join(text.split())[:300],
        expected="a text of errors.yml",
        cause="This error text is not among the known ones; the findings below are what the node itself shows.",
        steps=["Paste the first error of the log, not the last: the later ones often only follow from it"],
        source="errors.yml",
    )


def _explained(
    row: Mapping[str, Any], report: Report, findings: Sequence[Finding], errors: Mapping[str, Any]
) -> Finding:
    here = [finding for finding in findings if finding.id in row["findings"]]
    unmeasured = [entry for entry in report.not_measured if entry["id"] in row["findings"]]
    if here:
        shows = f"This node shows its cause: {here[0].subject}"
        steps = list(here[0].steps)
    else:
        shows = "This node shows no cause of it now"
        if unmeasured:
            shows = f"Whether this node has its cause was not measured: {unmeasured[0]['reason']}"
        steps = list(row["steps"])
    name = row["name"] or row["id"]
    code = f" ({row['code']})" if row["code"] else ""
    return Finding(
        PASTED,
        report.evidence.name,
        ERROR,
        observed=f"{name}{code}",
        expected=None,
        cause=f"{row['meaning']} {shows}.",
        steps=steps,
        source="errors.yml: " + "; ".join(errors["sources"][source] for source in row["sources"]),
    )


def check_errors(table: Any, name: str) -> Mapping[str, Any]:
    """Return the table of error texts after a look at its shape, or raise ``InvalidInputError``."""
    columns = {"id", "code", "name", "texts", "meaning", "findings", "steps", "sources"}
    rows = table.get("errors") if isinstance(table, Mapping) else None
    if (
        not isinstance(rows, list)
        or not rows
        or any(not isinstance(row, Mapping) or set(row) != columns for row in rows)
    ):
        raise InvalidInputError(
            "use the table of error texts",
            name,
            "it is no list of rows under errors, each with exactly its columns",
            "Restore the file from the checkout",
            expected=sorted(columns),
            found=sorted(rows[0]) if isinstance(rows, list) and rows and isinstance(rows[0], Mapping) else None,
        )
    return dict(table)


def has_errors(node: Mapping[str, Any]) -> bool:
    """Whether a diagnosis has an error of the node itself: the explanation of a pasted text alone does not count."""
    return bool(node["counts"][ERROR])
