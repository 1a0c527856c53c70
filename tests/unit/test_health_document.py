# SPDX-License-Identifier: Apache-2.0
"""The document of a node, what the next check is compared with, and the fleet's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.health_page import rows
from unit import health_samples as samples

from ansible.module_utils.rackwright import health, health_limits, health_reports
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/schema/health.schema.json").read_text(encoding="utf-8"))
DAY = 86400.0


def document(patch: dict[str, Any] | None = None) -> dict[str, Any]:
    told = health.document(samples.view(patch), DAY)
    jsonschema.validate(told, SCHEMA)
    return told


# -- one node ------------------------------------------------------------------------------------------------------


def test_alike_checks_of_several_gpus_are_one_record_and_findings_never() -> None:
    told = document({"gpu.persistence_mode": False, "node.devices.1.persistence_mode": False})
    by_id: dict[str, list[str]] = {}
    for check in told["checks"]:
        by_id.setdefault(check["id"], []).append(check["subject"])

    assert by_id["persistence"] == ["gpu0", "gpu1"]
    assert by_id["remap.failure"] == ["gpu0, gpu1"]
    assert sum(told["summary"].values()) == len(health.examine(samples.view()))
    assert told["summary"]["finding"] == 2


def test_values_that_differ_are_not_alike() -> None:
    told = document({"gpu.temperature.gpu_celsius": 31})
    found = {check["subject"]: check["observed"] for check in told["checks"] if check["id"] == "temperature.margin"}
    assert found == {"gpu0": 31, "gpu1": 30}


def test_the_severity_is_that_of_the_worst_finding() -> None:
    assert document()["severity"] == "none"
    assert document({"gpu.persistence_mode": False})["severity"] == "monitor"
    assert document({"gpu.persistence_mode": False, "gpu.row_remap.failure": True})["severity"] == "isolate"


def test_the_digest_is_short_whatever_was_found() -> None:
    patch = {"host.failed_units": [f"unit-{n}.service" for n in range(500)], "gpu.row_remap.failure": True}
    fact = health.digest(document(patch))

    assert fact["worst"].startswith("isolate: remap.failure gpu0: ")
    assert [entry["severity"] for entry in fact["findings"]] == ["isolate", "monitor"]
    assert fact["findings_dropped"] == 0
    assert len(json.dumps(fact)) < 2000


def test_events_are_capped_with_the_worst_first() -> None:
    texts = [f"I/O error, dev nvme{n}n1, sector {n} op 0x0:(READ) flags 0x80700" for n in range(150)]
    from ansible.module_utils.rackwright import kernel_events

    lines = [{"time": samples.EARLIER, "boot_id": samples.BOOT, "text": text} for text in texts]
    lines.insert(70, {**lines[0], "text": "NVRM: Xid (PCI:0000:1b:00): 79, pid=1, name=x, GPU has fallen off the bus."})
    told = document({"kernel.events": kernel_events.parse(lines)})

    assert (len(told["events"]), told["events_dropped"]) == (100, 51)
    assert told["events"][0]["code"] == 79


# -- what was before -----------------------------------------------------------------------------------------------


def again(patch: dict[str, Any] | None = None) -> dict[str, Any]:
    return dict(document(patch)["baseline"])


def test_the_first_check_remembers_what_the_node_is() -> None:
    first = again({"baseline": {}})

    assert (first["gpu_count"], sorted(first["gpus"])) == (2, ["GPU-0", "GPU-1"])
    assert first["gpus"]["GPU-0"]["nvlink_active"] == 18
    assert (first["nics"], first["nvme"], first["memory_total_bytes"]) == ({"mlx5_0/1": 400.0}, ["S1"], 512 << 30)
    assert (first["boot_id"], first["collected_at"]) == (samples.BOOT, samples.NOW)


@pytest.mark.parametrize(
    ("patch", "path", "kept"),
    [
        ({"node.count": 1, "node.devices": [samples.device(1)]}, ("gpu_count",), 2),
        ({"host.memory_total_bytes": 1 << 30}, ("memory_total_bytes",), 512 << 30),
        ({"host.nics": []}, ("nics", "mlx5_0/1"), 400.0),
        ({"host.nvme": []}, ("nvme",), ["S1"]),
        ({"gpu.nvlink.links": []}, ("gpus", "GPU-0", "nvlink_active"), 18),
        ({"gpu.pcie.max_width": 8}, ("gpus", "GPU-0", "pcie_max_width"), 16),
    ],
)
def test_what_became_less_stays_missed(patch: dict[str, Any], path: tuple[str, ...], kept: Any) -> None:
    value: Any = again(patch)
    for key in path:
        value = value[key]
    assert value == kept


def test_what_became_more_is_what_it_is_now() -> None:
    assert again({"host.memory_total_bytes": 1 << 40})["memory_total_bytes"] == 1 << 40
    assert again({"host.nics.0.rate_gbps": 800.0})["nics"] == {"mlx5_0/1": 800.0}


def test_counters_are_those_of_now() -> None:
    after = again({"gpu.pcie.replay_count": 7, "gpu.health.nvlink.replay.2": 3, "host.nics.0.link_downed": 5})

    assert after["gpus"]["GPU-0"]["pcie_replays"] == 7
    assert after["gpus"]["GPU-0"]["nvlink_errors"]["replay"][2] == 3
    assert after["nic_downs"] == {"mlx5_0/1": 5}


def test_a_card_that_does_not_answer_keeps_what_was_known_of_it() -> None:
    after = again({"node.devices": [{"index": 0, "state": "lost", "missing": {}}, samples.device(1)]})
    assert after["gpus"]["GPU-0"]["nvlink_active"] == 18


# -- limits --------------------------------------------------------------------------------------------------------


def test_every_limit_has_unit_meaning_and_source_and_can_be_overridden() -> None:
    for name, limit in health_limits.LIMITS.items():
        assert limit.unit, name
        assert limit.meaning, name
        assert limit.source, name
        assert health_limits.merged({name: "7.5"})[name] == 7.5


@pytest.mark.parametrize("value", [None, "", "x", -1, True, [], float("inf"), float("nan")])
def test_limits_are_numbers(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"limits\.disk_used"):
        health_limits.merged({"disk_used": value})


# -- files and the table -------------------------------------------------------------------------------------------


def test_documents_are_written_and_their_baseline_comes_back(tmp_path: Path) -> None:
    told = document()
    health_reports.write(str(tmp_path), {"gpu-a": told})

    path = health_reports.path_of(str(tmp_path), "gpu-a")
    assert json.loads(Path(path).read_text(encoding="utf-8")) == told
    assert health_reports.baseline_of(path) == told["baseline"]
    assert health_reports.baseline_of(path + ".not") == {}


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[]", "{}", '{"baseline": 7}', '{"baseline": null}'])
def test_a_file_that_is_no_document_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "gpu-a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RackwrightError, match="Remove the file"):
        health_reports.baseline_of(str(path))


def test_the_table_has_the_worst_first_with_its_actions() -> None:
    documents = {
        "gpu-a": document(),
        "gpu-b": document({"gpu.persistence_mode": False}),
        "gpu-c": document({"gpu.row_remap.failure": True, "gpu.persistence_mode": False}),
    }
    text = health_reports.table_text(documents, {"gpu-d": "unreachable: no route"}, "/reports/health")
    lines = text.splitlines()

    assert [line.split()[0] for line in lines[4:8]] == ["gpu-d", "gpu-c", "gpu-b", "gpu-a"]
    assert all(len(line) <= 120 for line in lines)
    at = lines.index("  isolate: remap.failure, gpu0: a row could not be remapped: the GPU has to be exchanged")
    assert lines[at + 1].startswith("    1. Stop what runs on the GPU.")
    assert "4 node(s): 1 isolate, 1 monitor, 1 ok, 1 silent. The run fails from reset on." in text
    assert lines.index("gpu-c: isolate") < lines.index("gpu-b: monitor")
    assert "Reports: /reports/health" in text


def test_a_large_fleet_is_cut_and_names_how_many_are_left_out() -> None:
    healthy = document()
    text = health_reports.table_text({f"n{number:03}": healthy for number in range(100)}, {}, None)

    assert "... and 60 more nodes, none of them worse" in text
    assert "none are written in check mode" in text


@pytest.mark.parametrize(
    ("fail_at", "failed"),
    [("monitor", ["b", "c", "d"]), ("reset", ["c", "d"]), ("reboot", ["c", "d"]), ("isolate", ["c", "d"])],
)
def test_nodes_fail_from_the_severity_on_and_silent_ones_always(fail_at: str, failed: list[str]) -> None:
    documents = {
        "a": document(),
        "b": document({"gpu.persistence_mode": False}),
        "c": document({"gpu.row_remap.failure": True}),
    }
    assert health_reports.failed(documents, {"d": "silent"}, fail_at) == failed


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_check_and_limit_as_the_tables_have_them() -> None:
    page = (ROOT / "docs/health.md").read_text(encoding="utf-8")
    tables = page.partition("## Checks of GPUs")[2]
    told = [line for line in tables.splitlines() if line.startswith("| `")]

    assert told == rows()
