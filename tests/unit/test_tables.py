# SPDX-License-Identifier: Apache-2.0
"""Every row of every table: its columns, the form of its values, where they are from, and what they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.catalogue import architecture_name, architecture_of
from ansible.module_utils.rackwright.tables import Tables, load_tables
from ansible.module_utils.rackwright.tables_check import COLUMNS, ROW_KEYS, TABLES, check_tables, rows_at

DIRECTORY = Path(__file__).parents[2] / "roles" / "gpu_stack" / "files" / "tables"
T: Tables = load_tables(DIRECTORY)

#: columns a shipped row may leave out; every other column of COLUMNS is written, if only as null
MAY_LACK: dict[tuple[str, ...], set[str]] = {
    ("models", "models"): {"moe", "mla", "sliding_window", "aliases"},
}
#: rows whose origin is not known, and why
WITHOUT_SOURCE = {("drivers.branches", "616"): "only the notes of the CUDA 13.4 developer preview name it"}
#: where the ids in `sources` are explained; releases of PyTorch name their sources in full
SOURCE_MAPS = {
    "frameworks.tensorflow.releases": T.frameworks["tensorflow"]["sources"],
    "frameworks.vllm.releases": T.frameworks["vllm"]["sources"],
    **{
        f"{name}.{rows}": getattr(T, name)["sources"]
        for name, rows in (
            ("gpus", "gpus"),
            ("drivers", "branches"),
            ("cuda", "releases"),
            ("cuda", "known_issues"),
            ("platforms", "distros"),
            ("models", "models"),
            ("xids", "xids"),
        )
    },
}


def every(*paths: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(path, row, id=f"{'.'.join(path)} {row[ROW_KEYS[path]]}")
        for path in (paths or tuple(ROW_KEYS))
        for row in rows_at(T, path)
    ]


def test_the_tables_are_sound() -> None:
    assert check_tables(T) == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table_tells_its_date_and_form(name: str) -> None:
    document = getattr(T, name)
    assert document["schema"] == 1
    if name != "gpus":
        assert document["as_of"] == "2026-11-22"
    text = (DIRECTORY / f"{name}.yml").read_text(encoding="utf-8")
    assert text.startswith("---\n# ")


@pytest.mark.parametrize("name", TABLES)
def test_no_version_or_date_became_a_number(name: str) -> None:
    """A value without quotes turns into a float or a date, and 12.10 into 12.1."""

    def values(place: Any) -> Iterator[Any]:
        children = place.values() if isinstance(place, dict) else place if isinstance(place, list) else [place]
        for child in children:
            yield from values(child) if isinstance(child, (dict, list)) else [child]

    strange = [value for value in values(getattr(T, name)) if not isinstance(value, (str, int, float, type(None)))]
    assert strange == []
    if name in {"drivers", "cuda", "platforms", "frameworks", "xids"}:
        assert [value for value in values(getattr(T, name)) if isinstance(value, float)] == []


@pytest.mark.parametrize(("path", "row"), every(*COLUMNS))
def test_every_column_is_written(path: tuple[str, ...], row: dict[str, Any]) -> None:
    lacking = set(COLUMNS[path]) - set(row) - MAY_LACK.get(path, set())
    assert lacking == set()


@pytest.mark.parametrize(("path", "row"), [case for case in every() if "sources" in COLUMNS.get(case.values[0], {})])
def test_a_row_names_its_sources(path: tuple[str, ...], row: dict[str, Any]) -> None:
    name = ".".join(path)
    if (name, row[ROW_KEYS[path]]) in WITHOUT_SOURCE:
        assert row["sources"] == []
        return
    assert row["sources"]
    if name in SOURCE_MAPS:
        assert set(row["sources"]) <= set(SOURCE_MAPS[name])


@pytest.mark.parametrize("name", sorted(SOURCE_MAPS))
def test_no_source_is_listed_in_vain(name: str) -> None:
    """A source nobody refers to is one that a row lost."""
    document = name.split(".")[0]
    text = (DIRECTORY / f"{document}.yml").read_text(encoding="utf-8")
    elsewhere = {"dcgm", "gpud", "aws", "azure", "imbue"} if document == "xids" else set()
    for source in set(SOURCE_MAPS[name]) - elsewhere:
        assert len(re.findall(rf"\b{source}\b", text)) > 1, source


# ---- drivers and CUDA


@pytest.mark.parametrize(("_", "row"), every(("drivers", "branches")))
def test_a_branch_and_its_version_agree(_: Any, row: dict[str, Any]) -> None:
    if row["latest_known"]:
        assert row["latest_known"].split(".")[0] == row["branch"]
        assert row["latest_known_asof"]
    if row["released"] and row["eol"]:
        assert row["released"] < row["eol"]
    if row["supports_blackwell"]:
        assert row["open_modules_available"]


def test_branches_only_ever_drop_architectures() -> None:
    order = ["Kepler", "Maxwell", "Turing"]
    oldest = [order.index(row["arch_min"]) for row in T.drivers["branches"] if row["arch_min"]]
    assert oldest == sorted(oldest)


@pytest.mark.parametrize(
    ("branch", "column", "value"),
    [
        ("580", "eol", "2028-08-04"),
        ("580", "arch_min", "Maxwell"),
        ("590", "arch_min", "Turing"),
        ("570", "supports_blackwell", True),
        ("565", "supports_blackwell", False),
        ("620", "proprietary_modules_available", False),
        ("535", "eol", "2026-06"),
        ("615", "type", None),
    ],
)
def test_facts_the_planner_stands_on(branch: str, column: str, value: Any) -> None:
    assert next(row for row in T.drivers["branches"] if row["branch"] == branch)[column] == value


@pytest.mark.parametrize(("_", "row"), every(("cuda", "releases")))
def test_a_toolkit_fits_its_major(_: Any, row: dict[str, Any]) -> None:
    major = int(row["toolkit"].split(".")[0])
    minimum = next(line for line in T.cuda["minor_version_compatibility"] if line["cuda_major"] == major)
    assert row["release"].startswith(row["toolkit"] + ".")
    assert (row["minor_compat_min_driver"], row["minor_compat_min_branch"]) == (
        minimum["min_driver"],
        minimum["min_branch"],
    )
    keys = [[int(part) for part in text.split(".")] for text in row["compute_capabilities"]]
    assert keys == sorted(keys)


@pytest.mark.parametrize(("_", "row"), every(("cuda", "architecture_lifecycle")))
def test_the_compiler_knows_an_architecture_while_it_lives(_: Any, row: dict[str, Any]) -> None:
    """Lifecycle and releases say the same, as far as releases reach back (11.0)."""

    def key(text: str) -> list[int]:
        return [int(part) for part in text.split(".")]

    for release in T.cuda["releases"]:
        line = release["toolkit"]
        for capability in row["caps"]:
            renamed = (row["renamed"] or {}).get(capability)
            name = renamed["to"] if renamed and key(line) >= key(renamed["in"]) else capability
            dropped = row["last_toolkit"] and key(line) > key(row["last_toolkit"])
            early = row["first_toolkit"] and key(line) < key(row["first_toolkit"])
            assert (name in release["compute_capabilities"]) == (not dropped and not early), (line, capability)


def test_minimum_drivers_are_the_same_in_both_tables() -> None:
    lines = {str(row["cuda_major"]): row["min_driver"] for row in T.cuda["minor_version_compatibility"]}
    assert T.frameworks["cuda_minimum_drivers"] == lines


# ---- GPUs


@pytest.mark.parametrize(("_", "row"), every(("gpus", "gpus")))
def test_the_capability_is_that_of_the_architecture(_: Any, row: dict[str, Any]) -> None:
    assert architecture_of(row["compute_capability"]) == architecture_name(row["architecture"])


def named_by(line: dict[str, Any]) -> list[dict[str, Any]]:
    """GPUs of the catalogue that a line of NVIDIA's list names: RTX 4060 is no RTX 4060 Ti, GTX 10xx is a series."""
    found = []
    for name in line["gpus"]:
        family = re.escape(name.split(" (")[0]).replace("xx", r"\d\d")
        pattern = re.compile(rf"(^|[ -]){family}(?![\w-]|[ ](Ti|Ada|Blackwell|SUPER))")
        for row in T.gpus["gpus"]:
            if any(pattern.search(re.sub("NVIDIA |Tesla |GeForce ", "", known)) for known in row["nvml_names"]):
                found.append(row)
    return found


@pytest.mark.parametrize(("_", "line"), every(("cuda", "gpu_compute_capability")))
def test_nvidias_list_gives_the_same_capability(_: Any, line: dict[str, Any]) -> None:
    assert {row["compute_capability"] for row in named_by(line)} <= {line["cc"]}


def test_nvidias_list_names_most_of_the_catalogue() -> None:
    named = {row["id"] for line in T.cuda["gpu_compute_capability"] for row in named_by(line)}
    assert len(named) > len(T.gpus["gpus"]) / 2


FLOP_PER_CLOCK_AND_SM = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "12.0": 1024}
#: published for another clock than the boost clock of the row (MHz)
OTHER_CLOCK = {"h100-pcie-80gb": 1620, "h100-nvl-94gb": 1545, "h200-nvl-141gb": 1545}


def derivable() -> list[Any]:
    return [
        pytest.param(row, id=row["id"])
        for row in T.gpus["gpus"]
        if row["compute_capability"] in FLOP_PER_CLOCK_AND_SM and row["sm_count"] and row["boost_clock_mhz"]
    ]


@pytest.mark.parametrize("row", derivable())
def test_the_peak_is_multiprocessors_times_rate_times_clock(row: dict[str, Any]) -> None:
    rate = FLOP_PER_CLOCK_AND_SM[row["compute_capability"]] / (2 if row["half_rate_fp32_accumulate"] else 1)
    derived = row["sm_count"] * rate * row["boost_clock_mhz"] / 1e6
    assert row["derived_fp16_tflops_at_boost"] == pytest.approx(derived, rel=0.005)
    published = row["peak_dense_tflops"]["fp16"]
    if published is None:
        return
    clock = OTHER_CLOCK.get(row["id"], row["boost_clock_mhz"])
    assert published == pytest.approx(row["sm_count"] * rate * clock / 1e6, rel=0.04)
    if row["id"] in OTHER_CLOCK:
        assert published != pytest.approx(derived, rel=0.04)  # else it needs no exception


# ---- frameworks


@pytest.mark.parametrize(("_", "row"), every(("frameworks", "tensorflow", "releases")))
def test_tensorflow_needs_the_driver_of_its_cuda(_: Any, row: dict[str, Any]) -> None:
    assert row["min_driver"] == T.frameworks["cuda_minimum_drivers"][row["cuda"].split(".")[0]]
    assert set(row["ptx"]) <= set(row["sass"])


@pytest.mark.parametrize(("_", "row"), every(("frameworks", "pytorch", "releases")))
def test_a_build_of_pytorch_is_named_after_its_cuda(_: Any, row: dict[str, Any]) -> None:
    for name, build in row["builds"].items():
        assert name == "cu" + build["cuda"].replace(".", "")
    if row["pypi_cuda_toolkit"]:
        assert row["pypi_cuda_toolkit"].startswith(row["builds"][row["pypi_default_build"]]["cuda"] + ".")


@pytest.mark.parametrize(("_", "row"), every(("frameworks", "vllm", "releases")))
def test_vllm_asks_for_no_python_its_torch_lacks(_: Any, row: dict[str, Any]) -> None:
    torch = next(release for release in T.frameworks["pytorch"]["releases"] if release["version"] == row["torch"])
    assert row["pythons"]
    assert set(row["pythons"]) <= set(torch["pythons"])


# ---- platforms, models, Xids


@pytest.mark.parametrize(("_", "row"), every(("platforms", "distros")))
def test_a_system_is_supported_or_another_is_named(_: Any, row: dict[str, Any]) -> None:
    assert row["supported"] == (row["use_instead"] is None)
    if row["supported"] and row["family"] != "wsl":
        assert row["python"]
        assert row["glibc"]
        assert row["headers"]
        assert row["driver_packages"]
        assert row["standard_eol"]


def test_the_roles_and_the_table_refuse_the_same_systems() -> None:
    """The role names them "ubuntu 20.04", the table ubuntu2004."""
    text = (DIRECTORY.parents[2] / "os_base" / "vars" / "main.yml").read_text(encoding="utf-8")
    role = yaml.safe_load(text)
    known = {name: row for row in T.platforms["distros"] for name in (row["id"], *row["aliases"])}

    def row_of(name: str) -> dict[str, Any]:
        return known[re.sub(r"[ .]", "", name)]

    assert all(row_of(name)["supported"] for name in role["__os_base_supported"])
    for name, instead in role["__os_base_use_instead"].items():
        assert not row_of(name)["supported"]
        if not name.startswith(("rocky", "almalinux")):
            assert row_of(name)["use_instead"] == instead


@pytest.mark.parametrize(("_", "row"), every(("models", "models")))
def test_the_cache_per_token_follows_from_the_shape(_: Any, row: dict[str, Any]) -> None:
    if row.get("mla"):
        per_layer = (row["mla"]["kv_lora_rank"] + row["mla"]["qk_rope_head_dim"]) * 2
    else:
        per_layer = 2 * row["kv_heads"] * row["head_dim"] * 2
    layers = row.get("full_attention_layers") or row["layers"]
    assert row["kv_bytes_per_token_bf16"] == layers * per_layer
    if row.get("sliding_window"):
        window = row["sliding_window"]
        assert window["local_layers"] + window["global_layers"] == row["layers"]
        assert row["kv_bytes_per_token_bf16_global_layers_only"] == window["global_layers"] * per_layer
        fixed = window["local_layers"] * per_layer * window["window"]
        assert row["kv_bytes_fixed_local_layers_bf16_full_window"] == fixed


CLASSES = {
    "RESET_GPU": ("gpu_reset", True),
    "WORKFLOW_XID_48": ("gpu_reset", True),
    "RESTART_BM": ("node_reboot", True),
    "RESTART_VM": ("node_reboot", True),
    "CHECK_MECHANICALS": ("hardware", True),
    "WORKFLOW_NVLINK_ERR": ("nvlink", True),
    "WORKFLOW_NVLINK5_ERR": ("nvlink", None),
    "RESTART_APP": ("application", False),
    "IGNORE": ("informational", False),
}


@pytest.mark.parametrize(("_", "row"), every(("xids", "xids")))
def test_an_xids_class_follows_from_nvidias_action(_: Any, row: dict[str, Any]) -> None:
    action = row["immediate_action"]
    if action in CLASSES:
        assert (row["class"], row["fatal"]) == CLASSES[action]


def test_there_is_one_row_for_every_xid_code() -> None:
    assert [row["code"] for row in T.xids["xids"]] == list(range(1, 177))
