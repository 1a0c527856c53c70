# SPDX-License-Identifier: Apache-2.0
"""Reports appear whole or not at all, and the table fits the terminal."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.verdict_samples import RUN, cpu_benchmark, evidence, gpu, no_gpu

from ansible.module_utils.rackwright import fleet_judge, reports, text_table
from ansible.module_utils.rackwright.errors import RackwrightError

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/schema/verdict.schema.json").read_text())

NODES = {
    "gpu-a": evidence(gpu(8, simulated=True), cpu_benchmark()),
    "cpu-1": evidence(no_gpu(), cpu_benchmark()),
    "away": {"facts": {"unreachable": True, "msg": "timed out"}},
}


def judged(directory: Path, nodes: dict[str, Any] = NODES, check: bool = False, run_id: str = RUN) -> dict[str, Any]:
    """Judge as the action plugin does; a refusal comes back as the result a user sees."""
    try:
        return fleet_judge.judge_run(nodes, fleet_judge.Options(run_id, str(directory), check_mode=check))
    except RackwrightError as error:
        return {"failed": True, **error.to_result()}


def test_reports_of_a_run(tmp_path: Path) -> None:
    result = judged(tmp_path / "reports")
    assert result["changed"] is False
    assert result["failed_nodes"] == ["away"]
    assert not set(result) & {"nodes", "evidence"}, "the evidence must not travel back"
    fleet = json.loads((tmp_path / "reports/fleet.json").read_text())
    jsonschema.validate(fleet, SCHEMA)
    assert (fleet["verdict"], fleet["summary"]) == ("fail", {"pass": 2, "warn": 0, "unattainable": 0, "fail": 1})
    assert fleet["nodes"]["gpu-a"]["verdict_text"] == "pass (simulated)"
    for node, entry in fleet["nodes"].items():
        document = json.loads((tmp_path / "reports" / entry["report"]).read_text())
        jsonschema.validate(document, SCHEMA)
        assert (document["node"], document["run_id"]) == (node, RUN)
    assert sorted(path.name for path in (tmp_path / "reports").rglob("*") if path.is_file()) == [
        "away.json",
        "cpu-1.json",
        "fleet.json",
        "gpu-a.json",
        "proofs.json",
    ]


def test_rows_of_the_table(tmp_path: Path) -> None:
    rows = judged(tmp_path)["table"]
    assert rows[0] == {
        "node": "gpu-a",
        "os": "Debian 12",
        "gpus": "8 x H100 80GB HBM3 (simulated)",
        "driver": "535.288.01",
        "torch": "2.13.0+cpu",
        # six per GPU and twelve of the node; speed of the GPUs, build, wishes nobody expressed and what is not
        # installed (fabric manager, container toolkit, CDI) do not apply
        "checks": "60 pass 12 n/a",
        "verdict": "pass (simulated)",
    }
    assert (rows[1]["gpus"], rows[1]["driver"]) == ("none", "none")
    assert (rows[2]["gpus"], rows[2]["checks"], rows[2]["verdict"]) == ("unknown", "1 fail", "fail")


def test_the_text_names_reasons_and_reports(tmp_path: Path) -> None:
    text = judged(tmp_path)["table_text"]
    assert "fail: facts.present on away: no proof: unreachable: timed out." in text
    assert "3 node(s): 2 pass, 0 warn, 1 fail." in text
    assert f"Reports: {tmp_path}/fleet.json (run {RUN})" in text
    assert "Simulated GPUs run nothing" in text


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    result = judged(tmp_path / "reports", check=True)
    assert not (tmp_path / "reports").exists()
    assert "fleet_report" not in result
    assert "check mode" in result["table_text"]


def test_two_runs_keep_both_reports(tmp_path: Path) -> None:
    judged(tmp_path)
    judged(tmp_path, nodes={"gpu-a": {}}, run_id="later")
    assert json.loads((tmp_path / "fleet.json").read_text())["run_id"] == "later"
    assert (tmp_path / RUN / "cpu-1.json").exists()


@pytest.mark.parametrize("fails_at", ["gpu-a.json", "away.json", "fleet.json"])
def test_a_full_disk_leaves_the_old_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    judged(tmp_path, nodes={"gpu-a": {}}, run_id="old")
    before = (tmp_path / "fleet.json").read_bytes()
    replace = os.replace

    def full(source: str, target: str) -> None:
        if os.path.basename(target) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(reports.os, "replace", full)
    result = judged(tmp_path)
    assert result["unwritten"].startswith("Could not write the report on ")
    assert "No space left on device" in result["unwritten"]
    assert "earlier runs are intact" in result["unwritten"]
    told = " ".join(result["table_text"].split())
    assert "Note: Could not write the report on " in told
    assert ": fail" in told
    assert "Reports:" not in result["table_text"]
    assert (tmp_path / "fleet.json").read_bytes() == before
    assert list(tmp_path.rglob(".report-*")) == []


def test_a_disk_that_fills_up_while_writing_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports.write_json(str(tmp_path / "fleet.json"), {"old": True})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reports.os, "fsync", full)
    with pytest.raises(reports.ReportError):
        reports.write_json(str(tmp_path / "fleet.json"), {"new": True})
    assert json.loads((tmp_path / "fleet.json").read_text()) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]


def test_a_directory_that_cannot_be_made_is_a_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = judged(tmp_path / "file")
    assert "rackwright_reports" in result["unwritten"]


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "..", "", "x" * 300])
def test_a_node_name_never_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    result = judged(tmp_path / "reports", nodes={name: {}})
    assert result["failed"] is True
    assert result["msg"].startswith("Could not name the report")
    assert not (tmp_path / "reports").exists()


def test_nan_never_reaches_a_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        reports.write_json(str(tmp_path / "x.json"), {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


WORD = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=60)


@given(st.lists(st.tuples(WORD, WORD, WORD, st.booleans()), min_size=1, max_size=5))
def test_no_line_is_longer_than_the_terminal(nodes: list[tuple[str, str, str, bool]]) -> None:
    documents = []
    for name, system, card, simulated in nodes:
        facts = gpu(1, simulated=simulated)
        facts["devices"][0]["name"] = card
        documents.append(
            {
                "node": name,
                "verdict": "fail",
                "verdict_text": "fail (simulated)" if simulated else "fail",
                "simulated": simulated,
                "reasons": [f"fail: a.b on {name}: {system} {card}"],
                "summary": {"pass": 120, "warn": 16, "fail": 8, "not_measured": 0, "not_applicable": 24},
                "system": {"os": system},
                "gpu": facts,
                "torch": {"version": "2.13.0+cu130"},
            }
        )
    text = reports.table_text(documents, "reports/fleet.json", RUN)
    assert max(len(line) for line in text.splitlines()) <= text_table.WIDTH
    rows = text.splitlines()[4 : 4 + len(documents)]
    for line, document in zip(rows, documents):
        # cut or not, a row of simulated GPUs says so beside the GPUs and in the verdict
        assert line.count("(simulated)") == (2 if document["simulated"] else 0)


def test_a_large_fleet_shows_what_did_not_pass(tmp_path: Path) -> None:
    nodes = {f"n{index}": evidence(no_gpu(), cpu_benchmark()) for index in range(60)}
    nodes["bad"] = {}
    text = judged(tmp_path, nodes=nodes)["table_text"]
    assert "... and 60 more nodes" in text
    assert "bad: fail" in text
    assert len(text.splitlines()) < 20
