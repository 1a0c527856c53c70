# SPDX-License-Identifier: Apache-2.0
"""What is computed against what others measured: within a tenth, or with the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.sizing_formats import cache_bytes, weight_format
from ansible.module_utils.rackwright.sizing_memory import GIB, kv_bytes, kv_share, stage_weights
from ansible.module_utils.rackwright.sizing_shape import Shape, find_row, shape_from_row
from ansible.module_utils.rackwright.sizing_training import training_from, training_memory

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "roles/gpu_stack/files/tables"
MODELS = yaml.safe_load((TABLES / "models.yml").read_text(encoding="utf-8"))["models"]
SIZING = yaml.safe_load((TABLES / "sizing.yml").read_text(encoding="utf-8"))
PUBLISHED = yaml.safe_load((Path(__file__).parent / "published_memory.yml").read_text(encoding="utf-8"))
FIGURES = PUBLISHED["figures"]
UNITS = {"GiB": GIB, "MiB": 1 << 20, "GB": 10**9}
TOLERANCE = 0.10


def shape_of(figure: dict[str, Any]) -> Shape:
    if "shape" in figure:
        return shape_from_row(PUBLISHED["shapes"][figure["shape"]])
    return shape_from_row(find_row(MODELS, figure["model"]))


def computed(figure: dict[str, Any]) -> float:
    """Bytes of what the figure is about."""
    shape, ranks = shape_of(figure), figure.get("tensor_parallel", 1)
    form = weight_format(SIZING, figure.get("format", "bf16"), shape)
    cache = cache_bytes(figure.get("cache", "bf16"))
    if figure["kind"] == "weights":
        return stage_weights(shape, form, ranks)[0]
    if figure["kind"] == "kv":
        return figure.get("sequences", 1) * kv_bytes(shape, figure["tokens"], cache) * kv_share(shape, ranks)
    if figure["kind"] == "resident":
        return stage_weights(shape, form)[0] + kv_bytes(shape, figure["tokens"], cache, block=1)
    assert figure["kind"] == "training"
    items = training_memory(shape, form, training_from(figure["training"]))
    return figure.get("gpus", 1) * (items["total"] - sum(items[item] for item in figure.get("without", [])))


def deviation(figure: dict[str, Any]) -> float:
    """Computed against published, as a fraction: -0.05 is 5 % too low."""
    return computed(figure) / (figure["value"] * UNITS[figure["unit"]]) - 1


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure["id"])
def test_a_published_figure_is_met_within_a_tenth_or_explained(figure: dict[str, Any]) -> None:
    off = deviation(figure)

    if "reason" in figure:
        assert abs(off) > TOLERANCE, "it is met: the explanation is out of date"
    else:
        assert abs(off) <= TOLERANCE, f"{off:+.1%}"


def test_enough_figures_of_every_kind_are_met() -> None:
    met = [figure for figure in FIGURES if "reason" not in figure]

    assert len(met) >= 12
    assert {figure["kind"] for figure in met} == {"weights", "kv", "resident", "training"}
    assert len({figure["id"] for figure in FIGURES}) == len(FIGURES)


def test_every_figure_names_where_it_is_from() -> None:
    for figure in FIGURES:
        assert figure["quote"]
        assert figure["source"].startswith("https://github.com/") or "@" in figure["source"], figure["id"]
