# SPDX-License-Identifier: Apache-2.0
"""What is computed against what others measured: within a tenth, or with the reason why not; and the page with both."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support.make_sizing_doc import DOCUMENT, PUBLISHED, deviation, document_with, tables

READ = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
FIGURES = READ["figures"]
KNOWN = tables()
TOLERANCE = 0.10


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure["id"])
def test_a_published_figure_is_met_within_a_tenth_or_explained(figure: dict[str, Any]) -> None:
    off = deviation(figure, KNOWN, READ["shapes"])

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


def test_the_page_has_the_numbers_of_the_code() -> None:
    """After a change that is meant, run tests/support/make_sizing_doc.py."""
    text = DOCUMENT.read_text(encoding="utf-8")

    assert document_with(text, KNOWN) == text
    assert text.count("<!-- computed: ") == 3
