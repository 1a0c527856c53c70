# SPDX-License-Identifier: Apache-2.0
"""The documents of ``sizing`` as text for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .sizing_memory import GIB
from .sizing_speed import UNATTAINABLE
from .text_table import SIMULATED, bullets, table

_SERVING = ("target", "gpus", "weights", "cache", "total", "verdict", "context", "seqs", "tok/s <=", "ttft/tpot ms >=")
_TRAINING = ("target", "gpus", "weights", "grads+opt", "activ+loss", "total", "verdict", "batch", "sequence")
_NODE = ("model", "params", "format", "gpus", "weights", "total", "verdict", "context", "seqs", "tok/s <=")
_SHRINK = ("target",)
_SHORT = {"does not fit": "no"}


def assumptions(training: bool) -> list[str]:
    """Return what the numbers take for granted; every report carries it."""
    shared = [
        "GiB are 2^30 bytes. A catalogue card has its marketing size in GiB; NVML shows 0.93 to 1.0 of it, so a fit "
        "that needs more than 0.93 is called marginal. A node with facts has what NVML showed.",
        "Runtime (CUDA context, libraries, graphs, communication, fragmentation) is assumed, not computed: measured "
        "figures are 0.3 to 3 GiB per GPU.",
    ]
    if training:
        return [*shared, "Data parallelism only; activations are those of 16-bit training without dropout."]
    return [
        *shared,
        "Context and seqs are the most that stays under the limit: context for the wished number of sequences, seqs "
        "for the wished context.",
        "Speeds are ceilings from peak bandwidth and arithmetic, with caches of the mean length between prompt and "
        "context. No server reaches them; above them a wish is unattainable.",
    ]


def text(document: Mapping[str, Any]) -> str:
    """Return a document of ``sizing.plan`` or ``sizing.models_for`` as text, at most 120 columns wide."""
    lines = _node(document) if document["kind"] == "node" else _model(document)
    return "\n".join([*lines, "", "Assumptions", *bullets(document["assumptions"])])


def _model(document: Mapping[str, Any]) -> list[str]:
    training = document["kind"] == "training"
    formats = [row["format"] for row in document["formats"]]
    many = len(formats) > 1
    lines = [_title(document["model"]), _training_wish(document) if training else _serving_wish(document), ""]
    rows = [(_training_row if training else _serving_row)(row, many) for row in document["results"]]
    lines += table(_TRAINING if training else _SERVING, rows, _SHRINK)
    for row in document["results"]:
        lines += _remarks(row, f"{row['target']}, {row['format']}" if many else str(row["target"]))
    notes = document["model"]["notes"]
    return [*lines, "", "Notes on the model", *bullets(notes)] if notes else lines


def _title(model: Mapping[str, Any]) -> str:
    if model["params_total"] is None:
        size = "parameters unknown"
    else:
        size = f"{model['params_total'] / 1e9:.2f} B parameters"
        if model["params_active"] != model["params_total"]:
            size += f", {model['params_active'] / 1e9:.2f} B active"
    cache = f"{model['kv_bytes_per_token'] / 1024:.1f} KiB of cache per token"
    if model["kv_bytes_window"]:
        cache += f", {model['kv_bytes_per_token_beyond_window'] / 1024:.1f} beyond the window"
    return f"{model['name']}: {size}, {cache}, context {model['context'] or 'unknown'}"


def _serving_wish(document: Mapping[str, Any]) -> str:
    asked, formats = document["request"], [row["format"] for row in document["formats"]]
    return (
        f"{' / '.join(formats)} weights, {asked['kv_dtype']} cache, "
        f"{asked['concurrency']} x {asked['context']} tokens, "
        f"at most {asked['memory_limit']:.0%} of memory, {asked['overhead_gib']:g} GiB runtime; sizes in GiB per GPU"
    )


def _training_wish(document: Mapping[str, Any]) -> str:
    asked = document["request"]
    adapters = f" rank {asked['rank']}" if asked["method"] != "full" else ""
    return (
        f"{asked['method']}{adapters}, {asked['optimizer']}, sharding {asked['sharding']}, checkpointing "
        f"{asked['checkpointing']}, {asked['micro_batch']} x {asked['sequence']} tokens, at most "
        f"{asked['memory_limit']:.0%} of memory; sizes in GiB per GPU"
    )


def _serving_row(row: Mapping[str, Any], many: bool) -> dict[str, str]:
    memory, ceiling = row["memory"], row["ceiling"] or {}
    name = f"{row['target']} {row['format']}" if many else str(row["target"])
    return {
        "target": name + (SIMULATED if row["simulated"] else ""),
        "gpus": _gpus(row),
        "weights": _gib(memory and memory["weights"]),
        "cache": _gib(memory and memory["kv_cache"]),
        "total": _of(row),
        "verdict": _verdict(row),
        "context": _whole(row["largest_context"]),
        "seqs": _whole(row["largest_concurrency"]),
        "tok/s <=": _whole(ceiling.get("tokens_per_s")),
        "ttft/tpot ms >=": f"{_short(ceiling.get('ttft_ms'))} / {_short(ceiling.get('tpot_ms'))}" if ceiling else "-",
    }


def _training_row(row: Mapping[str, Any], many: bool) -> dict[str, str]:
    memory = row["memory"]
    name = f"{row['target']} {row['format']}" if many else str(row["target"])
    return {
        "target": name + (SIMULATED if row["simulated"] else ""),
        "gpus": _whole(row["gpus"]),
        "weights": _gib(memory and memory["weights"]),
        "grads+opt": _gib(memory and memory["gradients"] + memory["optimizer"]),
        "activ+loss": _gib(memory and memory["activations"] + memory["loss"]),
        "total": _of(row),
        "verdict": _verdict(row),
        "batch": _whole(row["largest_micro_batch"]),
        "sequence": _whole(row["largest_sequence"]),
    }


def _node(document: Mapping[str, Any]) -> list[str]:
    asked, results = document["request"], document["results"]
    first = results[0]
    size = f", {first['memory_total'] / GIB:.1f} GiB each" if first["memory_total"] else ""
    simulated = SIMULATED if first["simulated"] else ""
    lines = [
        f"What {document['node']} can run: {first['card_name']}{simulated}{size}, {first['link']}",
        f"{asked['kv_dtype']} cache, 1 x {asked['context']} tokens, at most {asked['memory_limit']:.0%} of memory, "
        f"{asked['overhead_gib']:g} GiB runtime; sizes in GiB per GPU",
        "",
    ]
    able = [row for row in results if row["verdict"] in ("fits", "marginal")]
    lines += table(_NODE, [_node_row(row) for row in able], ("model",)) if able else ["Nothing of the table fits."]
    others = [row for row in results if row["verdict"] not in ("fits", "marginal")]
    unable = sorted({row["model"] for row in others} - {row["model"] for row in able})
    unknown = {row["model"]: row["reason"] for row in others if row["verdict"] == "unknown"}
    never = ", ".join(name for name in unable if name not in unknown)
    if never or unknown:
        sentences = [f"in none of these formats: {never}"] if never else []
        lines += ["", "Not here", *bullets([*sentences, *(f"{name}: {why}" for name, why in sorted(unknown.items()))])]
    return lines


def _node_row(row: Mapping[str, Any]) -> dict[str, str]:
    shown = _serving_row(row, False)
    keep = ("gpus", "weights", "total", "verdict", "context", "seqs", "tok/s <=")
    size = f"{row['params_total'] / 1e9:.1f} B"
    return {"model": row["model"], "params": size, "format": row["format"], **{key: shown[key] for key in keep}}


def _remarks(row: Mapping[str, Any], title: str) -> list[str]:
    """Why something does not fit, what a card lacks, and the terms of a goal."""
    sentences = [row["reason"]] if row["reason"] else []
    goal = row.get("goal")
    if goal:
        sentences += [f"goal {goal['verdict']}", *(goal_sentence(term) for term in goal["terms"])]
    if (row["gpus"] or 0) > 1 and row["verdict"] != "unknown":
        sentences.append(f"{row['gpus']} GPUs over {row['link']}")
    sentences += row["notes"]
    return ["", title, *bullets(sentences)] if sentences else []


def goal_sentence(term: Mapping[str, Any]) -> str:
    """``tokens_per_s 5000: unattainable, at most 1234 (memory bandwidth)``."""
    bound = "at most" if term["goal"] == "tokens_per_s" else "at least"
    limit = "ceiling unknown" if term["limit"] is None else f"{bound} {_short(term['limit'])}"
    return f"{term['goal']} {term['wished']:g}: {term['verdict']}, {limit} ({term['because']})"


def _gpus(row: Mapping[str, Any]) -> str:
    if row["gpus"] is None:
        return "-"
    if row["gpus"] == 1:
        return "1"
    pipeline = f" PP{row['pipeline_parallel']}" if row["pipeline_parallel"] > 1 else ""
    return f"{row['gpus']} TP{row['tensor_parallel']}{pipeline}"


def _of(row: Mapping[str, Any]) -> str:
    if not row["memory"]:
        return "-"
    return f"{row['memory']['total'] / GIB:.1f} of {row['memory_limit'] / GIB:.1f}"


def _verdict(row: Mapping[str, Any]) -> str:
    if (row.get("goal") or {}).get("verdict") == UNATTAINABLE:
        return UNATTAINABLE
    return _SHORT.get(row["verdict"], row["verdict"])


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / GIB:.1f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _short(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
