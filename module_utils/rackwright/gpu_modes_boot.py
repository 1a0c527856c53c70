# SPDX-License-Identifier: Apache-2.0
"""What rackwright-gpu-modes.service runs at boot: the declared modes again, from the file that the last run left.

GPU instances, limits and clocks do not outlive a boot, and MIG mode does not from Hopper on.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from . import atomic, gpu_modes, gpu_modes_apply
from .errors import InvalidInputError, RackwrightError, sentence
from .gpu_modes_apply import Outcome, Surroundings

DECLARATION = "/etc/rackwright/gpu-modes.json"
#: locked clocks of this boot by UUID
REMEMBERED = "/run/rackwright/gpu-modes.json"
SCHEMA = 1


def text_of(declaration: Mapping[str, Any]) -> str:
    """Return the declaration as it is kept on the node."""
    return json.dumps({"schema": SCHEMA, "declaration": declaration}, indent=1, sort_keys=True) + "\n"


def read_declaration(path: str = DECLARATION) -> dict[str, Any]:
    """Return the declaration that is kept on the node. Raises InvalidInputError."""
    try:
        with open(path, encoding="utf-8") as stream:
            kept = json.load(stream)
        if kept["schema"] != SCHEMA:
            raise ValueError(f"schema {kept['schema']}")
        return dict(kept["declaration"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        step = "Run the role nvidia_driver on this node, which writes it"
        raise InvalidInputError("read the declared GPU modes", path, str(error), step) from error


def recall(path: str = REMEMBERED) -> dict[str, Any]:
    """Return the clocks that were locked since the last boot; nothing when nobody wrote them down."""
    try:
        with open(path, encoding="utf-8") as stream:
            kept = json.load(stream)
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def remember(clocks: Mapping[str, Any], path: str = REMEMBERED) -> None:
    """Write down which clocks are locked, whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    atomic.replace(path, json.dumps(clocks, sort_keys=True).encode("utf-8"), flush=False)


def restore(where: Surroundings, declaration: Mapping[str, Any], remembered: dict[str, Any]) -> list[Outcome]:
    """Bring what answers to its declaration; a GPU that cannot have it does not keep the others from theirs."""
    outcomes = []
    for device in gpu_modes_apply.read(where):
        wants = gpu_modes.wants_of(device, declaration)
        problems = gpu_modes.problems(device, wants)
        if not problems:
            steps = gpu_modes.plan(device, wants, remembered)
            busy = gpu_modes.busy_problem(device, steps)
            problems = [busy] if busy else []
        if problems:
            outcomes.append(Outcome(device["index"], device["uuid"], "failed", reason="; ".join(problems)))
        else:
            outcomes += gpu_modes_apply.settle([device], declaration, remembered, where)
    return outcomes


def main() -> int:
    """Entry point of the script: one line for each GPU; 1 when one did not get what is declared."""
    where = Surroundings(platform.node())
    remembered = recall()
    try:
        declaration = read_declaration()
        outcomes = restore(where, declaration, remembered)
        remember(remembered)
    except (RackwrightError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for one in outcomes:
        said = "; ".join([*one.done, *([one.reason] if one.reason else [])])
        print(sentence(f"GPU {one.index} ({one.uuid}): {one.state.replace('_', ' ')}" + (f": {said}" if said else "")))
    return int(any(one.state not in ("unchanged", "changed") for one in outcomes))
