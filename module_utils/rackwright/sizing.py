# SPDX-License-Identifier: Apache-2.0
"""What runs on what: a model against cards and nodes, or a node against all models of the table.

Pure: tables, facts and wishes in, one document and its text out. The parts:

* ``sizing_shape``, ``sizing_config``: what a model is; ``sizing_params``: how many parameters; ``sizing_formats``: bits
* ``sizing_memory``, ``sizing_training``: what a GPU must hold; ``sizing_speed``, ``sizing_goal``: how fast at best
* ``sizing_targets``: what there is to run on; ``sizing_fit``, ``sizing_train_fit``: how to divide
* ``sizing_report``: the document as text
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import sizing_report
from .errors import InvalidInputError
from .sizing_config import shape_from_config
from .sizing_fit import Wish, check_wish, fit
from .sizing_formats import Format, cache_bytes, model_bytes, weight_format
from .sizing_memory import GIB, Serving, kv_bytes_local, kv_bytes_per_token, kv_bytes_per_token_global
from .sizing_params import count
from .sizing_shape import Shape, find_row, shape_from_row
from .sizing_targets import Target, from_catalogue, from_description, from_facts, unknown_target
from .sizing_train_fit import fit_training
from .sizing_training import Training, training_from

SCHEMA = 1
#: Formats that the list of one node shows for every model; mxfp4 models are shown in their own as well.
LISTED_FORMATS = ("bf16", "fp8", "int4")
DEFAULT_PROMPT = 512


@dataclass(frozen=True)
class Tables:
    """The tables that sizing reads: rows of ``models.yml``, the documents ``sizing.yml`` and ``gpus.yml``."""

    models: list[Mapping[str, Any]]
    sizing: Mapping[str, Any]
    gpus: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What was asked for; the defaults are those of the playbook.

    Attributes:
        formats: names of weight formats; ``native`` is what the model was released in.
        overhead_gib: GiB per GPU beside weights, cache and activations; figures of other tools are 0.3 to 3.
        goal: wished tokens_per_s, p99_ms, ttft_ms, tpot_ms, memory.
        training: values of ``sizing_training.Training``; None means serving.
    """

    formats: tuple[str, ...] = ("native",)
    kv_dtype: str = "bf16"
    context: int = 8192
    concurrency: int = 1
    memory_limit: float = 0.80
    overhead_gib: float = 1.5
    prompt: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    goal: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None


def shape_of(model: Any, models: Iterable[Mapping[str, Any]], config: Mapping[str, Any] | None = None) -> Shape:
    """Return the shape of a model by name, by hand (a mapping with the table's keys) or of its parsed ``config.json``.

    Raises:
        InvalidInputError: the model is not in the table, or what describes it cannot be used.
    """
    if config is not None:
        return shape_from_config(config, str(model))
    if isinstance(model, Mapping):
        return shape_from_row(model)
    return shape_from_row(find_row(models, str(model)))


def targets_of(nodes: Mapping[str, Mapping[str, Any]], cards: Iterable[str], tables: Tables) -> list[Target]:
    """Return what to run on: the nodes, then the cards.

    Args:
        nodes: by name ``gpu`` (the fact of gpu_facts) or ``description`` (``node_description``); facts win.
        cards: ids of the catalogue, or ``all``.
    """
    found: list[Target] = []
    for name, node in nodes.items():
        if node.get("gpu"):
            found += from_facts(name, node["gpu"], tables.gpus["gpus"])
        elif node.get("description"):
            found += from_description(name, node["description"], tables.gpus)
        else:
            found.append(unknown_target(name, "it has neither facts nor a description"))
    return [*found, *from_catalogue(tables.gpus["gpus"], cards)]


def node_target(name: str, nodes: Mapping[str, Mapping[str, Any]], tables: Tables) -> Target:
    """Return the GPUs of one node; of several kinds, those with the most memory together.

    Raises:
        InvalidInputError: no node has that name, or nothing is known of its GPUs.
    """
    if name not in nodes:
        raise InvalidInputError(
            "size for the node",
            name,
            "the inventory has no such node",
            f"Use one of {', '.join(sorted(nodes)) or 'its hosts'}",
            expected=sorted(nodes),
            found=name,
        )
    found = targets_of({name: nodes[name]}, [], tables)
    if all(target.problem for target in found):
        raise InvalidInputError(
            "size for the node",
            name,
            str(found[0].problem),
            "Run playbooks/gather-facts.yml, or describe it with node_description",
        )
    return max(found, key=lambda target: (target.card.memory or 0) * (target.counts[-1] if target.counts else 0))


def plan(shape: Shape, request: Request, targets: list[Target], tables: Tables) -> dict[str, Any]:
    """Return the document of one model on all targets.

    Returns:
        ``schema``, ``kind`` (serving or training), ``model``, ``request``, ``assumptions``, ``formats`` and
        ``results``, one record per target and format (see ``sizing_fit.fit`` and ``sizing_train_fit.fit_training``).

    Raises:
        InvalidInputError: a wish or a format cannot be used.
    """
    forms = [weight_format(tables.sizing, name, shape) for name in request.formats]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "training" if request.training else "serving",
        "model": describe(shape, request),
        "assumptions": sizing_report.assumptions(bool(request.training)),
    }
    if request.training:
        training, wish = _training(request), _wish(replace(request, goal={}))
        base = forms if training.method == "lora" else [weight_format(tables.sizing, _base(training), shape)]
        results = [
            {"format": form.name, **fit_training(shape, form, training, wish.limit, target)}
            for target in targets
            for form in base
        ]
        asked = {**vars(training), "targets": list(training.targets), "memory_limit": wish.limit}
        forms = base
    else:
        wish = _wish(request)
        results = [{"format": form.name, **fit(shape, form, wish, target)} for target in targets for form in forms]
        asked = _asked(request, wish)
    document["request"] = asked
    document["formats"] = [_describe_format(form, shape) for form in forms]
    document["results"] = results
    return document


def models_for(request: Request, target: Target, tables: Tables) -> dict[str, Any]:
    """Return the document of all models of the table on one node.

    Each model is shown in ``LISTED_FORMATS`` (or the formats asked for) with the fewest GPUs that hold one sequence of
    the wished context (or of the model's own, if that is shorter), the largest context for one sequence and the most
    sequences of the wished context.
    """
    results = []
    for row in tables.models:
        shape = shape_from_row(row)
        own = min(request.context, shape.context or request.context)
        wish = _wish(replace(request, goal={}, concurrency=1, context=own, prompt=None))
        names = LISTED_FORMATS if request.formats == ("native",) else request.formats
        if shape.native == "mxfp4" and request.formats == ("native",):
            names = (*names[:-1], "mxfp4")
        for name in names:
            form = weight_format(tables.sizing, name, shape)
            size = None if shape.unknown else count(shape).total
            results.append(
                {"model": shape.name, "params_total": size, "format": form.name, **fit(shape, form, wish, target)}
            )
    return {
        "schema": SCHEMA,
        "kind": "node",
        "node": target.name,
        "request": _asked(request, _wish(replace(request, goal={}, concurrency=1, prompt=None))),
        "assumptions": sizing_report.assumptions(False),
        "results": results,
    }


def describe(shape: Shape, request: Request) -> dict[str, Any]:
    """Return what is known of the model: parameters, cache per token in bytes, context, notes."""
    each = cache_bytes(request.kv_dtype)
    parameters = None if shape.unknown else count(shape)
    return {
        "name": shape.name,
        "params_total": parameters.total if parameters else None,
        "params_active": parameters.active if parameters else None,
        "unknown": shape.unknown,
        "kv_bytes_per_token": kv_bytes_per_token(shape, each),
        "kv_bytes_per_token_beyond_window": kv_bytes_per_token_global(shape, each),
        "kv_bytes_window": kv_bytes_local(shape, each),
        "context": shape.context,
        "notes": list(shape.notes),
    }


def _describe_format(form: Format, shape: Shape) -> dict[str, Any]:
    weights = None if shape.unknown else round(model_bytes(form, count(shape)))
    return {"format": form.name, "bits": form.bits, "acts_on": form.acts_on, "basis": form.basis, "weights": weights}


def _wish(request: Request) -> Wish:
    context, overhead = request.context, round(request.overhead_gib * GIB)
    if overhead < 0:
        raise InvalidInputError(
            "size the model", "fit_overhead_gib", f"{request.overhead_gib} is negative", "Give GiB, like 1.5"
        )
    for name, degree in (("tensor", request.tensor_parallel), ("pipeline", request.pipeline_parallel)):
        if degree is not None and degree < 1:
            raise InvalidInputError("size the model", f"fit_{name}_parallel", f"{degree} is below 1", "Give 1 or more")
    prompt = min(DEFAULT_PROMPT, context) if request.prompt is None else request.prompt
    return check_wish(
        Wish(
            serving=Serving(context, request.concurrency, cache_bytes(request.kv_dtype), overhead=overhead),
            limit=request.memory_limit,
            prompt=prompt,
            forced=(request.tensor_parallel, request.pipeline_parallel),
            goal={name: _number(name, value) for name, value in request.goal.items()},
            cache_name=request.kv_dtype.strip().lower(),
        )
    )


def _number(name: str, value: Any) -> Any:
    """Numbers given on the command line arrive as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise InvalidInputError(
                "size the model", f"fit_goal.{name}", f"{value!r} is no number", "Give a number", found=value
            ) from error
    return value


def _training(request: Request) -> Training:
    training = training_from(request.training or {})
    return replace(training, overhead=round(request.overhead_gib * GIB))


def _base(training: Training) -> str:
    return "nf4-dq" if training.method == "qlora" else "bf16"


def _asked(request: Request, wish: Wish) -> dict[str, Any]:
    return {
        "kv_dtype": wish.cache_name,
        "context": request.context,
        "concurrency": wish.serving.concurrency,
        "memory_limit": wish.limit,
        "overhead_gib": request.overhead_gib,
        "prompt_tokens": wish.prompt,
        "tensor_parallel": request.tensor_parallel,
        "pipeline_parallel": request.pipeline_parallel,
        "goal": dict(wish.goal),
    }
