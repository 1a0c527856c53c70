#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Compute what a language model needs and where it fits, or what a node can run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_fit
short_description: Compute what a language model needs, where it fits and how fast it can be at best
description:
  - Computes the memory per GPU of serving or training a model, item by item, and finds on which nodes and cards it
    fits, with how many GPUs, divided how, with how much context and how many sequences at once.
  - Computes ceilings of speed from memory bandwidth and arithmetic, and says whether a wished throughput or latency is
    attainable at all.
  - The other way round, lists what one node can run, when O(node) is set.
  - Runs on the control node and contacts no other. Formulas, sources and assumptions are in C(docs/sizing.md).
options:
  model:
    description:
      - A model by its name in the table C(models.yml), the path of a C(config.json) on the control node, or a
        mapping with the keys of the table (C(layers), C(hidden), C(heads), C(kv_heads), C(vocab), ...).
      - Required unless O(node) is set.
    type: raw
  nodes:
    description:
      - Nodes by name. Each value has C(gpu) (the fact of M(gpu_facts)) or C(description) (C(node_description) of the
        inventory); facts win.
    type: dict
    default: {}
  node:
    description: Name of one of O(nodes). All models of the table are tried on it.
    type: str
  cards:
    description: Ids of cards in the table C(gpus.yml), or V(all). Each is tried with 1, 2, 4 and 8 of it.
    type: list
    elements: str
    default: []
  formats:
    description:
      - Formats of the weights, like V(bf16), V(fp8), V(int8), V(int4) (AWQ and GPTQ), V(nf4-dq), V(nvfp4) or V(q4_k_m).
        V(native) is what the model was released in.
    type: list
    elements: str
    default: [native]
  kv_dtype:
    description: Type of the cached keys and values.
    type: str
    choices: [bf16, fp16, fp8, int8]
    default: bf16
  context:
    description: Tokens of each sequence, prompt and answer together.
    type: int
    default: 8192
  concurrency:
    description: Sequences at once.
    type: int
    default: 1
  prompt_tokens:
    description: Tokens of the prompt whose first answer is timed; 512 or the context, whatever is less, by default.
    type: int
  memory_limit:
    description: Part of a GPU's memory that may be used.
    type: float
    default: 0.8
  overhead_gib:
    description:
      - GiB per GPU for CUDA context, libraries, graphs, communication and fragmentation. An assumption; figures of
        other tools and measurements are 0.3 to 3.
    type: float
    default: 1.5
  tensor_parallel:
    description: GPUs that share every layer; found when not set.
    type: int
  pipeline_parallel:
    description: Stages that the layers are divided into; found when not set.
    type: int
  goal:
    description:
      - What is wished, all optional. C(tokens_per_s) of all sequences together, C(ttft_ms) to the first token,
        C(tpot_ms) per further token, C(p99_ms) for both of these, C(memory) in place of O(memory_limit).
    type: dict
    default: {}
  training:
    description:
      - Compute training instead of serving. C(method) is V(full), V(lora) or V(qlora); further keys are C(sequence),
        C(micro_batch), C(optimizer) (V(adamw), V(sgd), V(adam8bit)), C(master_weights), C(fp32_gradients), C(sharding)
        (V(none), V(zero1), V(zero2), V(zero3), V(fsdp)), C(data_parallel), C(checkpointing) (V(full), V(none)),
        C(flash_attention), C(loss_chunks), C(rank) and C(targets).
    type: dict
  tables:
    description: Directory of the tables; C(roles/gpu_stack/files/tables) of the checkout.
    type: path
    required: true
  extra_tables:
    description: The site's own rows, merged into the tables last.
    type: raw
  max_age:
    description: Hours after which facts of a node are called stale; the table says how old they are.
    type: float
    default: 168
  report:
    description: File on the control node for the whole result as JSON.
    type: path
requirements:
  - PyYAML
attributes:
  check_mode:
    support: full
    description: Computes the same and writes no report.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    platforms: posix
    support: full
    description: The control node.
author:
  - The Rackwright authors
"""

EXAMPLES = r"""
- name: Which cards hold a 14B model for eight users with 8192 tokens each
  model_fit:
    model: Qwen2.5-14B-Instruct
    formats: [bf16, int8, int4]
    concurrency: 8
    cards: [rtx-4090, rtx-a6000, h100-sxm5-80gb]
    tables: roles/gpu_stack/files/tables

- name: What a node can run
  model_fit:
    node: gpu-01
    nodes:
      gpu-01:
        description: {os: ubuntu2404, gpus: [{model: rtx-4090, count: 2}]}
    tables: roles/gpu_stack/files/tables

- name: Whether a model that is not in the table can be trained with LoRA
  model_fit:
    model: /srv/models/ours/config.json
    training: {method: lora, rank: 16, sequence: 4096}
    cards: [rtx-4090]
    tables: roles/gpu_stack/files/tables
"""

RETURN = r"""
fit:
  description:
    - C(schema), C(kind) (V(serving), V(training) or V(node)), C(request), C(assumptions), C(results), and but for a
      node C(model) and C(formats). Sizes are bytes, speeds tokens per second and milliseconds.
    - Each of C(results) has C(target), C(format), C(verdict) (V(fits), V(marginal), V(does not fit) or V(unknown)) and
      C(reason), C(gpus), C(memory) by item, C(memory_limit) and C(notes); for serving also the split,
      C(largest_context), C(largest_concurrency), C(ceiling) and C(goal).
  returned: success
  type: dict
table_text:
  description: The same as a table of at most 120 columns, with every reason and assumption.
  returned: success
  type: str
report:
  description: Path of the report.
  returned: success, when O(report) is set, not in check mode
  type: str
"""

import datetime
import json
import os
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible.module_utils.rackwright import ages, sizing, sizing_report
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.reports import write_json

YAML_ERROR = None
try:
    from ansible.module_utils.rackwright.tables import extra_rows, load_tables
except ImportError:
    YAML_ERROR = traceback.format_exc()

ARGUMENT_SPEC: dict[str, Any] = {
    "model": {"type": "raw"},
    "nodes": {"type": "dict", "default": {}},
    "node": {"type": "str"},
    "cards": {"type": "list", "elements": "str", "default": []},
    "formats": {"type": "list", "elements": "str", "default": ["native"]},
    "kv_dtype": {"type": "str", "choices": ["bf16", "fp16", "fp8", "int8"], "default": "bf16"},
    "context": {"type": "int", "default": 8192},
    "concurrency": {"type": "int", "default": 1},
    "prompt_tokens": {"type": "int"},
    "memory_limit": {"type": "float", "default": 0.8},
    "overhead_gib": {"type": "float", "default": 1.5},
    "tensor_parallel": {"type": "int"},
    "pipeline_parallel": {"type": "int"},
    "goal": {"type": "dict", "default": {}},
    "training": {"type": "dict"},
    "tables": {"type": "path", "required": True},
    "extra_tables": {"type": "raw"},
    "max_age": {"type": "float", "default": ages.MAX_AGE_HOURS},
    "report": {"type": "path"},
}


def read_config(model: Any) -> dict[str, Any] | None:
    """Return the parsed ``config.json`` when ``model`` is the path of one, else None."""
    if not isinstance(model, str) or not model.endswith(".json"):
        return None
    path = os.path.expanduser(model)
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            "read the model", path, str(error), "Give the path of a config.json on the control node"
        ) from error
    if not isinstance(config, dict):
        raise InvalidInputError("read the model", path, "it holds no object", "Give the path of a config.json")
    return config


def compute(params: dict[str, Any]) -> dict[str, Any]:
    """Return the document that the options ask for."""
    read = load_tables(Path(params["tables"]), extra_rows(params["extra_tables"]))
    tables = sizing.Tables(read.models["models"], read.sizing, read.gpus)
    request = sizing.Request(
        formats=tuple(params["formats"]),
        kv_dtype=params["kv_dtype"],
        context=params["context"],
        concurrency=params["concurrency"],
        memory_limit=params["memory_limit"],
        overhead_gib=params["overhead_gib"],
        prompt=params["prompt_tokens"],
        tensor_parallel=params["tensor_parallel"],
        pipeline_parallel=params["pipeline_parallel"],
        goal=params["goal"],
        training=params["training"],
    )
    if params["node"]:
        return sizing.models_for(request, sizing.node_target(params["node"], params["nodes"], tables), tables)
    if not params["model"]:
        raise InvalidInputError(
            "size the model", "fit_model", "no model is named", "Set fit_model to a name, a mapping or a config.json"
        )
    shape = sizing.shape_of(params["model"], tables.models, read_config(params["model"]))
    return sizing.plan(shape, request, sizing.targets_of(params["nodes"], params["cards"], tables), tables)


def facts_age(params: dict[str, Any]) -> list[str]:
    """Return how old the facts of the nodes are: they were taken from the cache."""
    names = [params["node"]] if params["node"] else list(params["nodes"])
    facts = {name: (params["nodes"].get(name) or {}).get("gpu") or {} for name in names}
    times = {name: gpu.get("collected_at") for name, gpu in facts.items() if gpu}
    lines = ages.cache_lines(times, datetime.datetime.now(datetime.timezone.utc), params["max_age"])
    return ["", *lines] if lines else []


def main() -> None:
    """Compute, write the report, return the table."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    if YAML_ERROR:
        module.fail_json(msg=missing_required_lib("PyYAML"), exception=YAML_ERROR)
    params = module.params
    try:
        document = compute(params)
        text = "\n".join([sizing_report.text(document), *facts_age(params)])
        if params["report"] and not module.check_mode:
            write_json(params["report"], document)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(
        changed=False,
        # the facts of the fleet need not travel back
        invocation={"module_args": {**params, "nodes": sorted(params["nodes"])}},
        fit=document,
        table_text=text,
        **({"report": params["report"]} if params["report"] and not module.check_mode else {}),
    )


if __name__ == "__main__":
    main()
