# SPDX-License-Identifier: Apache-2.0
"""``dcgmi diag -j`` in the forms that DCGM 3 and 4 print; what was not run is never a pass.

The document of DCGM 4 has the form of its own schema (testing/python3/dcgm_diag_schema.json in NVIDIA/DCGM) and the
values of a published level-1 run in which only persistence mode failed: error 29, category 8, severity 5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import health_dcgm
from ansible.module_utils.rackwright.health_record import findings

CAPTURED = json.loads((Path(__file__).parent / "dcgm_diag_level1.json").read_text(encoding="utf-8"))


def warning(severity: int | None, text: str = "says DCGM") -> dict[str, Any]:
    found: dict[str, Any] = {"error_category": 8, "error_id": 12, "warning": text}
    return found if severity is None else {**found, "error_severity": severity}


def one(status: str, *warnings: dict[str, Any], **more: Any) -> dict[str, Any]:
    result = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": 3, "status": status, **more}
    return {
        "DCGM Diagnostic": {
            "test_categories": [
                {"category": "x", "tests": [{"name": "pcie", "results": [{**result, "warnings": list(warnings)}]}]}
            ]
        }
    }


def test_the_published_level_1_run() -> None:
    checks = health_dcgm.judge(CAPTURED)

    assert [(check["subject"], check["state"], check["severity"]) for check in checks] == [
        ("gpu0 software", "finding", "monitor"),
        ("gpu1 software", "finding", "monitor"),
    ]
    assert "Persistence mode for GPU 0 is disabled" in checks[0]["reason"]
    assert checks[0]["actions"][0]["action"] == "fix_configuration"


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        (1, "monitor"),
        (2, "isolate"),
        (3, "isolate"),
        (4, "isolate"),
        (5, "monitor"),
        (6, "reset"),
        (None, "isolate"),
        (77, "isolate"),
    ],
)
def test_severities_are_dcgms_and_unknown_ones_keep_work_away(code: int | None, severity: str) -> None:
    [found] = findings(health_dcgm.judge(one("Fail", warning(code))))

    assert (found["severity"], found["subject"]) == (severity, "gpu3 pcie")


def test_a_failure_without_a_word_is_isolated() -> None:
    [found] = findings(health_dcgm.judge(one("Fail")))
    assert (found["severity"], "no explanation" in found["reason"]) == ("isolate", True)


@pytest.mark.parametrize("status", ["Skip", "NotRun", "Not Run", "unknown", ""])
def test_what_was_not_run_is_not_measured(status: str) -> None:
    assert [check["state"] for check in health_dcgm.judge(one(status))] == ["not_measured"]


def test_a_pass_is_ok_and_a_warning_is_watched() -> None:
    assert [check["state"] for check in health_dcgm.judge(one("Pass"))] == ["ok"]
    assert [check["severity"] for check in health_dcgm.judge(one("Warn", warning(2)))] == ["monitor"]


def test_the_form_of_dcgm_3() -> None:
    document = {
        "DCGM GPU Diagnostic": {
            "test_categories": [
                {
                    "category": "Deployment",
                    "tests": [
                        {"name": "Denylist", "results": [{"gpu_ids": "0,1", "status": "PASS"}]},
                        {
                            "name": "Graphics Processes",
                            "results": [{"gpu_ids": "1", "status": "FAIL", "warnings": "busy"}],
                        },
                        {"name": "Inforom", "results": [{"gpu_ids": "0,1", "status": "SKIP"}]},
                    ],
                }
            ]
        }
    }
    checks = health_dcgm.judge(document)

    assert [(check["subject"], check["state"]) for check in checks] == [
        ("gpu1 Graphics Processes", "finding"),
        ("gpu0, gpu1 Inforom", "not_measured"),
        ("node", "ok"),
    ]
    assert "busy" in checks[0]["reason"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"DCGM Diagnostic": "?"},
        {"DCGM Diagnostic": {"runtime_error": "nv-hostengine is not there"}},
        {"DCGM Diagnostic": {"test_categories": []}},
        {"DCGM Diagnostic": {"test_categories": [{"tests": None}, "?", {"tests": ["?"]}]}},
    ],
)
def test_documents_without_a_result_are_not_measured(document: dict[str, Any]) -> None:
    assert [check["state"] for check in health_dcgm.judge(document)] == ["not_measured"]


def run(output: str, status: int = 0, complaint: str = "") -> Any:
    calls = []

    def program(command: list[str], timeout_s: float) -> tuple[int, str, str]:
        calls.append((command, timeout_s))
        return status, output, complaint

    answer = health_dcgm.run_diagnostics("2", program)
    assert calls == [(["dcgmi", "diag", "-r", "2", "-j"], 600.0)]
    return answer


def test_the_document_counts_and_not_the_status() -> None:
    assert run("Warning: something\n" + json.dumps(CAPTURED), status=226)["document"] == CAPTURED


@pytest.mark.parametrize("output", ["", "Error: unable to connect", "{broken", "[1]"])
def test_no_document_is_said_with_what_dcgmi_said(output: str) -> None:
    answer = run(output, 1, "unable to connect to the host engine")
    assert "status 1" in answer["missing"]
    assert "host engine" in answer["missing"]


def test_without_dcgmi_it_does_not_apply_and_without_a_wish_it_is_not_asked() -> None:
    def absent(command: list[str], timeout_s: float) -> tuple[int, str, str]:
        raise FileNotFoundError(2, "no such file", command[0])

    def hang(command: list[str], timeout_s: float) -> tuple[int, str, str]:
        raise TimeoutError("dcgmi did not answer within 180 s")

    assert "not installed" in health_dcgm.run_diagnostics("1", absent)["absent"]
    assert "did not answer" in health_dcgm.run_diagnostics("1", hang)["missing"]
    assert health_dcgm.run_diagnostics("none", hang) == {"level": "none"}
