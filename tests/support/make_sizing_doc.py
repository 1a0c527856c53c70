# SPDX-License-Identifier: Apache-2.0
"""Write the computed tables of docs/sizing.md between their markers; the tests compare them with the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "module_utils"))

import yaml

from rackwright import sizing
from rackwright.sizing_fit import FITS, MARGINAL
from rackwright.sizing_formats import cache_bytes, weight_format
from rackwright.sizing_memory import GIB, Serving, kv_bytes, kv_share, serving_memory, stage_weights
from rackwright.sizing_shape import Shape, shape_from_row
from rackwright.sizing_training import training_from, training_memory

DOCUMENT = ROOT / "docs/sizing.md"
PUBLISHED = ROOT / "tests/unit/published_memory.yml"
UNITS = {"GiB": GIB, "MiB": 1 << 20, "GB": 10**9}
#: Model, and what the much quoted table says it takes, in GB.
QUOTED = (("Qwen2.5-7B-Instruct", 10, 12), ("Qwen2.5-14B-Instruct", 20, 24), ("Qwen2.5-32B-Instruct", 40, 48))
FORMATS = ("bf16", "int8", "int4")
CONTEXTS = (4096, 8192, 32768)
CARDS = (
    *(("rtx-3060", "RTX 3060 12"), ("rtx-a4000", "A4000 16"), ("rtx-4090", "RTX 4090 24"), ("rtx-5090", "RTX 5090 32")),
    *(("a100-pcie-40gb", "A100 40"), ("l40s", "L40S 48"), ("h100-sxm5-80gb", "H100 80")),
)


def tables() -> sizing.Tables:
    """The tables of the checkout."""
    directory = ROOT / "roles/gpu_stack/files/tables"
    read = {
        name: yaml.safe_load((directory / f"{name}.yml").read_text("utf-8")) for name in ("models", "sizing", "gpus")
    }
    return sizing.Tables(read["models"]["models"], read["sizing"], read["gpus"])


def rows(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table(known: sizing.Tables) -> str:
    """GiB per model, format and context, and where the quoted range holds."""
    body = []
    for name, low, high in QUOTED:
        shape = sizing.shape_of(name, known.models)
        for form_name in FORMATS:
            form = weight_format(known.sizing, form_name, shape)
            wishes = [*(Serving(context) for context in CONTEXTS), Serving(8192, 8)]
            totals = [serving_memory(shape, form, wish)["total"] / GIB for wish in wishes]
            short = name.removesuffix("-Instruct")
            holds = _holds(totals[:-1], low, high) + (", not for 8 users" if totals[0] <= high < totals[-1] else "")
            sizes = [f"{total:.1f}" for total in totals]
            body.append(
                [short, form_name, f"{stage_weights(shape, form)[0] / GIB:.1f}", *sizes, f"{low} to {high}", holds]
            )
    header = [
        "model",
        "weights",
        "GiB",
        *(f"1 x {context // 1024}K" for context in CONTEXTS),
        "8 x 8K",
        "quoted, GB",
        "holds",
    ]
    return rows(header, body)


def _holds(totals: list[float], low: float, high: float) -> str:
    if max(totals) < low:
        return "less will do"
    fitting = [context for context, total in zip(CONTEXTS, totals) if total <= high]
    if not fitting:
        return "no"
    return "yes" if len(fitting) == len(CONTEXTS) else f"up to {fitting[-1] // 1024}K"


def card_table(known: sizing.Tables) -> str:
    """How many of a card hold one sequence of 8192 tokens within 80 % of its memory."""
    body = []
    for name, _, _ in QUOTED:
        shape = sizing.shape_of(name, known.models)
        request = sizing.Request(formats=FORMATS)
        targets = sizing.targets_of({}, [card for card, _ in CARDS], known)
        results = sizing.plan(shape, request, targets, known)["results"]
        for form_name in FORMATS:
            cells = [_cell(row) for row in results if row["format"] == form_name]
            body.append([name.removesuffix("-Instruct"), form_name, *cells])
    return rows(["model", "weights", *(label for _, label in CARDS)], body)


def _cell(row: dict[str, Any]) -> str:
    if row["verdict"] == FITS:
        return str(row["gpus"])
    return f"{row['gpus']} (marginal)" if row["verdict"] == MARGINAL else "no"


def shape_of(figure: dict[str, Any], known: sizing.Tables, shapes: dict[str, Any]) -> Shape:
    """The model a published figure is about."""
    return (
        shape_from_row(shapes[figure["shape"]]) if "shape" in figure else sizing.shape_of(figure["model"], known.models)
    )


def computed(figure: dict[str, Any], known: sizing.Tables, shapes: dict[str, Any]) -> float:
    """Bytes of what a published figure is about; see the head of published_memory.yml."""
    shape, ranks = shape_of(figure, known, shapes), figure.get("tensor_parallel", 1)
    form = weight_format(known.sizing, figure.get("format", "bf16"), shape)
    cache = cache_bytes(figure.get("cache", "bf16"))
    if figure["kind"] == "weights":
        return stage_weights(shape, form, ranks)[0]
    if figure["kind"] == "kv":
        return figure.get("sequences", 1) * kv_bytes(shape, figure["tokens"], cache) * kv_share(shape, ranks)
    if figure["kind"] == "resident":
        return stage_weights(shape, form)[0] + kv_bytes(shape, figure["tokens"], cache, block=1)
    items = training_memory(shape, form, training_from(figure["training"]))
    return figure.get("gpus", 1) * (items["total"] - sum(items[item] for item in figure.get("without", [])))


def deviation(figure: dict[str, Any], known: sizing.Tables, shapes: dict[str, Any]) -> float:
    """Computed against published: -0.05 is 5 % too low."""
    return computed(figure, known, shapes) / (figure["value"] * UNITS[figure["unit"]]) - 1


def published_table(known: sizing.Tables) -> str:
    """Every published figure beside the computed one."""
    document = yaml.safe_load(PUBLISHED.read_text("utf-8"))
    body = []
    for figure in document["figures"]:
        unit = UNITS[figure["unit"]]
        size = computed(figure, known, document["shapes"])
        off = deviation(figure, known, document["shapes"])
        shown = [
            f"{figure['value']:g} {figure['unit']}",
            f"{size / unit:.{2 if size / unit < 100 else 0}f}",
            f"{off:+.1%}",
        ]
        body.append([figure["id"], figure["kind"], *shown])
    return rows(["figure", "what", "published", "computed", "off"], body)


def document_with(text: str, known: sizing.Tables) -> str:
    """Return the document with its tables made anew."""
    blocks = {"memory": memory_table(known), "cards": card_table(known), "published": published_table(known)}
    for name, block in blocks.items():
        begin, end = f"<!-- computed: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(document_with(DOCUMENT.read_text("utf-8"), tables()), "utf-8")
