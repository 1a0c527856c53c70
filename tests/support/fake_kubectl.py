#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for kubectl with one node, whose state is a JSON file. It is no Kubernetes: it answers in kubectl's words.

``$FAKE_KUBECTL_STATE``: {"node": {...}, "pods": [...], "evict": "all"|"none"|message, "conflicts": n, "calls": [...]}
"""

import json
import os
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_KUBECTL_STATE"])
NAME = "gpu-1.example"


def fail(text: str) -> None:
    sys.exit(text)


def patch(state: dict, text: str) -> None:
    wanted = json.loads(text)
    node = state["node"]
    if state.get("conflicts"):
        state["conflicts"] -= 1
        node["metadata"]["resourceVersion"] = str(int(node["metadata"]["resourceVersion"]) + 1)
        node["metadata"].update(state.get("meanwhile", {}))
    if wanted["metadata"]["resourceVersion"] != node["metadata"]["resourceVersion"]:
        STATE.write_text(json.dumps(state))
        fail(
            f'Error from server (Conflict): Operation cannot be fulfilled on nodes "{NAME}": the object has been '
            "modified; please apply your changes to the latest version and try again"
        )
    for key, value in wanted["metadata"]["annotations"].items():
        annotations = node["metadata"].setdefault("annotations", {})
        annotations.pop(key, None) if value is None else annotations.update({key: value})
    node["spec"].pop("unschedulable", None)
    if wanted["spec"]["unschedulable"]:
        node["spec"]["unschedulable"] = True
    node["metadata"]["resourceVersion"] = str(int(node["metadata"]["resourceVersion"]) + 1)


def drain(state: dict) -> None:
    if state["evict"] == "all":
        kept = [
            pod for pod in state["pods"] if pod["metadata"].get("ownerReferences", [{}])[0].get("kind") == "DaemonSet"
        ]
        state["pods"] = kept
    elif state["evict"] == "none":
        fail(f'error when evicting pods/"vllm-0" -n "llm": global timeout reached: {sys.argv}')
    else:
        fail(f'error: unable to drain node "{NAME}" due to error:{state["evict"]}, continuing command...')


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith(("--request-timeout", "--kubeconfig", "--context"))]
    state = json.loads(STATE.read_text())
    state["calls"].append(sys.argv[1:])
    STATE.write_text(json.dumps(state))
    if state.get("down"):
        fail("Unable to connect to the server: dial tcp 192.0.2.1:6443: i/o timeout")
    if words[1] in ("node", NAME) and NAME not in words:
        fail(f'Error from server (NotFound): nodes "{words[2]}" not found')
    if words[:2] == ["get", "node"]:
        print(json.dumps(state["node"]))
    elif words[:2] == ["get", "pods"]:
        print(json.dumps({"items": state["pods"]}))
    elif words[:2] == ["patch", "node"]:
        patch(state, words[-1].removeprefix("--patch="))
    elif words[0] == "drain":
        drain(state)
    else:
        fail(f"error: unknown command {words}")
    STATE.write_text(json.dumps(state))


main()
