# SPDX-License-Identifier: Apache-2.0
"""A model is recognised by name, PCI id and memory together; the generated files are those of the table."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support import make_tables

from ansible.module_utils.rackwright import catalogue
from ansible.module_utils.rackwright.catalogue_specs import SPECS
from ansible.module_utils.rackwright.errors import InvalidInputError

GIB = 1 << 30
ROWS = catalogue.table()
TABLE = make_tables.load()


def test_generated_files_are_up_to_date() -> None:
    for name, text in make_tables.generate_all().items():
        assert (make_tables.PACKAGE / name).read_text(encoding="utf-8") == text, "run tests/support/make_tables.py"


def test_check_names_a_stale_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_tables.main(["--check"]) == 0
    monkeypatch.setattr(make_tables, "load", lambda: TABLE[1:])
    assert make_tables.main(["--check"]) == 1
    assert "catalogue_data.py is stale" in capsys.readouterr().out


def test_table_is_consistent() -> None:
    sources = set(make_tables.yaml.safe_load(make_tables.TABLE.read_text(encoding="utf-8"))["sources"])
    ids = [row["id"] for row in TABLE]
    assert len(ids) == len(set(ids)) == len(SPECS)
    for row in TABLE:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["id"])
        assert row["nvml_names"]
        assert all(re.fullmatch(r"[0-9a-f]{4}", device_id) for device_id in row["pci_device_ids"])
        assert row["sources"]
        assert set(row["sources"]) <= sources
        assert catalogue.architecture_of(row["compute_capability"]) == catalogue.architecture_name(row["architecture"])


PER_CLOCK = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "12.0": 1024}


@pytest.mark.parametrize("row", [r for r in TABLE if r.get("derived_fp16_tflops_at_boost")], ids=lambda row: row["id"])
def test_derived_peak_follows_from_the_row(row: dict[str, Any]) -> None:
    rate = PER_CLOCK[row["compute_capability"]] / (2 if row["half_rate_fp32_accumulate"] else 1)
    derived = row["sm_count"] * rate * row["boost_clock_mhz"] / 1e6
    assert derived == pytest.approx(row["derived_fp16_tflops_at_boost"], rel=0.01)


@pytest.mark.parametrize(
    ("device_id", "name", "mib", "expected"),
    [
        ("2330", "NVIDIA H100 80GB HBM3", 81559, "h100-sxm5-80gb"),
        ("2335", "NVIDIA H200", 143771, "h200-sxm-141gb"),
        ("1eb8", "Tesla T4", 15360, "t4"),
        ("25b6", "NVIDIA A2", 15356, "a2"),
        ("25b6", "NVIDIA A16", 15356, "a16"),
        ("26b9", "NVIDIA L40S", 46068, "l40s"),
        ("3182", "NVIDIA B300 SXM6 AC", 275040, "b300-sxm"),
        ("2684", "NVIDIA GeForce RTX 4090", 24564, "rtx-4090"),
    ],
)
def test_known_boards_are_recognised(device_id: str, name: str, mib: int, expected: str) -> None:
    assert catalogue.recognise(ROWS, device_id, name, mib << 20) == (expected, None)


@pytest.mark.parametrize(
    ("device_id", "name", "gib", "words"),
    [
        ("2503", "NVIDIA GeForce RTX 3060", 8, "the memory does not: 8.0 GiB here"),
        ("2bb3", "NVIDIA RTX PRO 5000 72GB Blackwell", 72, "the memory does not"),
        ("26b5", "NVIDIA GeForce RTX 3060", 12, "the PCI device id 26b5 belongs to l40, but the name"),
        ("ffff", "NVIDIA H100 80GB HBM3", 80, "belongs to h100-sxm5-80gb, but the PCI device id ffff does not"),
        (
            "ffff",
            "NVIDIA X1",
            80,
            "neither the name 'NVIDIA X1' nor the PCI device id ffff; add the model as extra_gpus",
        ),
        ("2330", "NVIDIA H100 80GB HBM3", None, "unknown size"),
        ("2330", None, 80, "without the name"),
        (None, "NVIDIA H100 80GB HBM3", 80, "without the PCI device id"),
    ],
)
def test_disagreement_is_named_and_never_guessed_over(
    device_id: str | None, name: str | None, gib: int | None, words: str
) -> None:
    model, reason = catalogue.recognise(ROWS, device_id, name, gib * GIB if gib else None)
    assert model is None
    assert words in str(reason)


def test_unified_memory_gpu_is_recognised_whatever_the_system_has() -> None:
    assert catalogue.recognise(ROWS, "2e12", "NVIDIA GB10", 119 * GIB, unified=True) == ("gb10-dgx-spark", None)


def test_pci_id_alone_gives_candidates_and_only_common_values() -> None:
    ids = catalogue.candidates(ROWS, "25b6")
    assert ids == ["a2", "a16"]
    assert catalogue.common_value(ROWS, ids, "architecture") == "Ampere"
    assert catalogue.common_value(ROWS, ids, "id") is None


def test_site_rows_replace_and_add() -> None:
    own = {"id": "t4", "nvml_names": ["Tesla T4"], "pci_device_ids": ["0x1EB8"], "memory_gb": 14}
    rows = catalogue.table([own])
    assert len(rows) == len(ROWS)
    assert catalogue.recognise(rows, "1eb8", "Tesla T4", 14 * GIB) == ("t4", None)


def test_incomplete_site_row_is_refused_by_its_position() -> None:
    with pytest.raises(InvalidInputError, match=r"extra_gpus\[0\]: it lacks nvml_names, pci_device_ids"):
        catalogue.table([{"id": "x"}])
