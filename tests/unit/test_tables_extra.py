# SPDX-License-Identifier: Apache-2.0
"""Loading the tables, merging a site's own rows, and the sentences that refuse wrong ones."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright.compat_platform import platform_row
from ansible.module_utils.rackwright.compat_rules import find
from ansible.module_utils.rackwright.compat_toolkit import toolkit_release
from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError
from ansible.module_utils.rackwright.sizing_shape import find_row
from ansible.module_utils.rackwright.tables import (
    Tables,
    extra_rows,
    load_tables,
    merge_extra,
    tables_digest,
)
from ansible.module_utils.rackwright.tables_check import TABLES, check_tables

DIRECTORY = Path(__file__).parents[2] / "roles" / "gpu_stack" / "files" / "tables"
T: Tables = load_tables(DIRECTORY)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory of tables that a test may change."""
    for name in TABLES:
        shutil.copy(DIRECTORY / f"{name}.yml", tmp_path)
    return tmp_path


def branches(tables: Tables) -> dict[str, dict[str, Any]]:
    return {row["branch"]: row for row in tables.drivers["branches"]}


# ---- merging


def test_a_row_with_a_known_key_replaces_the_columns_it_gives() -> None:
    merged = load_tables(DIRECTORY, {"drivers": {"branches": [{"branch": "580", "latest_known": "580.200.01"}]}})
    assert branches(merged)["580"] == {**branches(T)["580"], "latest_known": "580.200.01"}
    assert list(branches(merged)) == list(branches(T))


def test_a_new_row_comes_last_and_lacking_columns_stay_away() -> None:
    row = {"branch": "630", "type": "production", "eol": "2028-01", "sources": ["release notes of R630"]}
    merged = load_tables(DIRECTORY, {"drivers": {"branches": [row]}})
    assert merged.drivers["branches"][-1] == row
    assert len(merged.drivers["branches"]) == len(T.drivers["branches"]) + 1


def test_what_was_merged_does_not_change_the_shipped_tables() -> None:
    before = tables_digest(T)
    row: dict[str, Any] = {"version": "2.15.1", "pythons": ["3.12"], "pypi_default_build": "cu132"}
    row["builds"] = {"cu132": {"cuda": "13.2", "sass_x86_64": ["9.0"], "ptx": None, "basis": None}}
    merged = load_tables(DIRECTORY, {"frameworks": {"pytorch": {"releases": [row]}}})
    merged.frameworks["pytorch"]["releases"][-1]["builds"].clear()
    assert row["builds"]
    assert tables_digest(load_tables(DIRECTORY)) == before


def test_maps_and_plain_values_are_replaced_key_by_key() -> None:
    extra = {"frameworks": {"cuda_minimum_drivers": {"14": "640.10"}, "pytorch": {"index_base": "https://mirror/whl"}}}
    merged = load_tables(DIRECTORY, extra)
    assert merged.frameworks["cuda_minimum_drivers"] == {**T.frameworks["cuda_minimum_drivers"], "14": "640.10"}
    assert merged.frameworks["pytorch"]["index_base"] == "https://mirror/whl"
    assert merged.frameworks["pytorch"]["releases"] == T.frameworks["pytorch"]["releases"]


def test_a_site_may_correct_an_unknown_value_and_make_a_known_one_unknown() -> None:
    merged = load_tables(DIRECTORY, {"platforms": {"repositories": {"rpm": {"key_fingerprint": "AB", "key_id": None}}}})
    assert merged.platforms["repositories"]["rpm"]["key_fingerprint"] == "AB"
    assert merged.platforms["repositories"]["rpm"]["key_id"] is None


def test_rows_may_refer_to_other_rows_of_the_site() -> None:
    extra = {
        "cuda": {"releases": [{"release": "13.6.0", "toolkit": "13.6", "compute_capabilities": ["9.0"]}]},
        "drivers": {"branches": [{"branch": "625", "cuda_max_native": "13.6"}]},
    }
    assert branches(load_tables(DIRECTORY, extra))["625"]["cuda_max_native"] == "13.6"


@pytest.mark.parametrize("extra", [None, {}, "", "---\n", "{}"])
def test_nothing_extra_is_the_shipped_tables(extra: Any) -> None:
    assert tables_digest(load_tables(DIRECTORY, extra)) == tables_digest(T)


def test_extra_tables_may_be_yaml_text() -> None:
    text = 'models: {models: [{id: "phi-4", context_config: 8192}]}'
    found = find_row(load_tables(DIRECTORY, text).models["models"], "phi-4")
    assert found["context_config"] == 8192


@pytest.mark.parametrize(
    ("extra", "cause"),
    [
        ([], "it must be a map of tables and is a list"),
        ("a: [", "it is not YAML: while parsing"),
        ({"driver": {}}, "there is no table 'driver' (the tables are gpus, drivers, cuda,"),
        ({"drivers": []}, "drivers must be a map of the table's lists and is a list"),
        ({"drivers": {"branchs": []}}, "drivers has no 'branchs' (it has as_of, schema, sources, rules, branches)"),
        ({"frameworks": {"jax": {}}}, "frameworks has no 'jax' (it has as_of, schema, cuda_minimum_drivers,"),
        ({"frameworks": {"vllm": {"release": []}}}, "frameworks.vllm has no 'release' (it has sources,"),
        ({"drivers": {"branches": {"580": {}}}}, "drivers.branches must be a list of rows and is a map"),
        ({"drivers": {"branches": ["580"]}}, "drivers.branches[0] must be a map and is a text"),
        ({"drivers": {"branches": [{"eol": "2028"}]}}, "drivers.branches[0] lacks 'branch', which names the row"),
        ({"drivers": {"branches": [{"branch": 580}]}}, "drivers.branches 580: branch must be a text and is a number"),
        ({"drivers": {"branches": [{"branch": "R580"}]}}, "drivers.branches R580: branch must be a driver branch in"),
        (
            {"drivers": {"branches": [{"branch": "580", "eol": "August 2028"}]}},
            'drivers.branches 580: eol must be an ISO date in quotes ("2028-08-04" or "2028-08") and is ',
        ),
        (
            {"drivers": {"branches": [{"branch": "580", "cuda_max_native": "12.7"}]}},
            "drivers.branches 580: cuda_max_native 12.7 is no toolkit of cuda.releases",
        ),
        (
            {"gpus": {"gpus": [{"id": "b400"}]}},
            "gpus.gpus b400: nvml_names is needed and is null or missing (and 3 more)",
        ),
        (
            {"gpus": {"gpus": [{"id": "t4", "compute_capability": "8.0"}]}},
            "gpus.gpus t4: compute_capability 8.0 is not one of Turing",
        ),
        (
            {"frameworks": {"vllm": {"releases": [{"version": "1.0", "torch": "3.0", "pythons": ["3.14"]}]}}},
            "frameworks.vllm.releases 1.0: torch 3.0 is not in frameworks.pytorch.releases",
        ),
        ({"xids": {"dmesg_regex": 3}}, "xids.dmesg_regex must be a text and is a number"),
        ({"xids": {"nvlink5_decode": "no"}}, "xids.nvlink5_decode must be a map and is a text"),
    ],
)
def test_a_wrong_extra_table_is_refused_with_table_and_row(extra: Any, cause: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        merge_extra(T, extra)
    assert str(caught.value).startswith(f"Could not use the extra table on stack_extra_tables: {cause}")
    assert caught.value.expected == list(TABLES)


# ---- reading


def test_a_changed_table_is_read_again(own: Path) -> None:
    before = tables_digest(load_tables(own))
    assert before == tables_digest(T)
    path = own / "drivers.yml"
    path.write_text(path.read_text(encoding="utf-8").replace('"580.178.04"', '"580.999.99"'), encoding="utf-8")
    assert branches(load_tables(own))["580"]["latest_known"] == "580.999.99"
    assert tables_digest(load_tables(own)) != before


def test_comments_and_order_do_not_change_the_digest(own: Path) -> None:
    path = own / "xids.yml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    path.write_text("\n".join(lines), encoding="utf-8")
    shuffled = replace(T, drivers=dict(reversed(T.drivers.items())))
    assert tables_digest(load_tables(own)) == tables_digest(T) == tables_digest(shuffled)


def test_a_table_that_is_not_there_is_named(own: Path) -> None:
    (own / "cuda.yml").unlink()
    with pytest.raises(MissingError, match=r"Could not read a table on .*/cuda\.yml: it is not there\."):
        load_tables(own)


@pytest.mark.parametrize(("text", "cause"), [("a: [", "it is not YAML"), ("- 1", "it must be a map and is a list")])
def test_a_broken_table_is_named(own: Path, text: str, cause: str) -> None:
    (own / "cuda.yml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=rf"Could not read a table on .*/cuda\.yml: {cause}"):
        load_tables(own)


# ---- checking


def broken(change: Callable[[dict[str, Any]], Any], table: str) -> list[str]:
    document = copy.deepcopy(getattr(T, table))
    change(document)
    return check_tables(replace(T, **{table: document}))


def torch(document: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = document["pytorch"]["releases"][-1]
    return row


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("drivers", lambda d: d.pop("branches"), "drivers.branches must be a list of rows"),
        ("drivers", lambda d: d["branches"].append(d["branches"][0]), "drivers.branches 418: the row is there twice"),
        (
            "gpus",
            lambda d: d["gpus"][0].update(architecture="Rubina"),
            "gpus.gpus p40: architecture Rubina is not in cuda.architecture_lifecycle",
        ),
        (
            "platforms",
            lambda d: d["distros"][0]["distribution_driver"].update(branch="536"),
            "platforms.distros debian12: the branch 536 of distribution_driver is not in drivers.branches",
        ),
        (
            "platforms",
            lambda d: d["distros"][0].update(aliases=["rocky9"]),
            "platforms.distros rhel9: rocky9 also names the row debian12",
        ),
        (
            "platforms",
            lambda d: d["distros"][0].update(driver_packages="deb"),
            "platforms.distros debian12: driver_packages deb is not in platforms.driver_packages",
        ),
        (
            "frameworks",
            lambda d: torch(d).update(pypi_default_build="cu999"),
            "frameworks.pytorch.releases 2.15.0: pypi_default_build cu999 is not one of its builds",
        ),
        (
            "frameworks",
            lambda d: torch(d)["builds"]["cu132"].update(cuda="99.1"),
            "frameworks.pytorch.releases 2.15.0: cuda 99.1 of build cu132 is no toolkit of cuda.releases",
        ),
        (
            "frameworks",
            lambda d: torch(d)["builds"]["cu132"].update(sass_x86_64=[9.0]),
            "frameworks.pytorch.releases 2.15.0: sass_x86_64 of build cu132 must be a list of compute capabilities in "
            'quotes (["8.0", "9.0"]) and is [9.0]',
        ),
        (
            "frameworks",
            lambda d: torch(d)["builds"]["cu132"].update(basis="hearsay"),
            "frameworks.pytorch.releases 2.15.0: basis hearsay of build cu132 is not in frameworks.pytorch.bases",
        ),
        (
            "frameworks",
            lambda d: torch(d).update(builds={"cu132": None}),
            "frameworks.pytorch.releases 2.15.0: builds must be a map of maps and is {'cu132': None}",
        ),
        (
            "frameworks",
            lambda d: d["tensorflow"]["releases"][0].update(cuda="12.7"),
            "frameworks.tensorflow.releases 2.10: cuda 12.7 is no toolkit of cuda.releases",
        ),
        (
            "models",
            lambda d: d["models"][0].update(layers=True),
            "models.models Llama-2-7b-hf: layers must be a number and is True",
        ),
    ],
)
def test_a_table_that_is_not_sound_is_told_so(
    table: str, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    assert broken(change, table) == [problem]


# ---- looking up


@pytest.mark.parametrize(
    ("name", "row"),
    [("debian12", "debian12"), ("rocky9", "rhel9"), ("almalinux10", "rhel10"), ("rhel9", "rhel9"), ("beos5", None)],
)
def test_a_system_is_found_by_id_and_alias(name: str, row: str | None) -> None:
    found = platform_row(T, name)
    assert (found and found["id"]) == row


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "Llama-3.1-8B-Instruct"),
        ("deepseek-r1", "DeepSeek-V3"),
    ],
)
def test_a_model_is_found_by_id_alias_and_repository(name: str, row: str) -> None:
    assert find_row(T.models["models"], name)["id"] == row


def test_the_newest_toolkit_of_a_line_is_found() -> None:
    assert (toolkit_release(T, "12.8") or {})["release"] == "12.8.1"
    assert toolkit_release(T, "12.7") is None


def test_find_takes_the_first_row_or_none() -> None:
    rows = [{"a": 1, "b": 1}, {"a": 1, "b": 2}]
    assert find(rows, "a", 1) == {"a": 1, "b": 1}
    assert find(rows, "c", 1) is None


def test_rows_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "extra.yml"
    path.write_text('drivers: {branches: [{branch: "580", latest_known: "580.200.01"}]}', encoding="utf-8")

    merged = merge_extra(T, extra_rows(str(path)))

    assert branches(merged)["580"]["latest_known"] == "580.200.01"
    assert extra_rows(None) is None
    assert extra_rows({"drivers": {}}) == {"drivers": {}}


def test_a_file_of_rows_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="stack_extra_tables"):
        extra_rows(str(tmp_path / "no.yml"))
