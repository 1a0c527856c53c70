# SPDX-License-Identifier: Apache-2.0
"""Drain a node of Kubernetes with ``kubectl``.

Cordon and annotation are one request that carries the resource version it was decided on, so that nobody's cordon in
between is taken for ours. The annotation is the mark. A second cordon by somebody else leaves no trace in Kubernetes:
who wants to keep a node out while this drain works on it removes the annotation, or taints the node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .drain import Seen
from .drain_request import Request
from .drain_run import Done
from .errors import InvalidInputError, MissingError, ProbeError, RackwrightError, TimedOutError

ANNOTATION = "rackwright/drain"
_MIRROR = "kubernetes.io/config.mirror"
_CALL_S = 60.0
_CONFLICTS = 5
#: kubectl's words for work that has not ended yet; every other failure of `drain` is a refusal
_NOT_YET = re.compile(
    r"global timeout reached|timed out waiting|context deadline exceeded|Drain did not complete", re.I
)
#: what kubectl refuses, and the option that allows it
_REFUSALS = (
    ("--delete-emptydir-data", "Save what they keep there, then allow it with delete_emptydir_data: true"),
    ("--force", "Delete them yourself, or allow it with force: true (nothing starts them again)"),
)


def parse_node(text: str) -> dict[str, Any]:
    """Read what counts from ``kubectl get node -o json``: unschedulable, annotation, taints, version."""
    node = json.loads(text)
    metadata, spec = node.get("metadata") or {}, node.get("spec") or {}
    ready = [c.get("status") for c in (node.get("status") or {}).get("conditions") or [] if c.get("type") == "Ready"]
    return {
        "unschedulable": bool(spec.get("unschedulable")),
        "mark": (metadata.get("annotations") or {}).get(ANNOTATION),
        "taints": sorted(f"{t.get('key')}:{t.get('effect')}" for t in spec.get("taints") or []),
        "version": metadata.get("resourceVersion"),
        "ready": ready == ["True"],
    }


def parse_pods(text: str) -> list[str]:
    """Name the pods that a drain has to move: not finished, not of a DaemonSet, not static."""
    names = []
    for pod in json.loads(text).get("items") or []:
        metadata = pod.get("metadata") or {}
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        owners = [o.get("kind") for o in metadata.get("ownerReferences") or [] if o.get("controller")]
        if owners == ["DaemonSet"] or _MIRROR in (metadata.get("annotations") or {}):
            continue
        names.append(f"pod {metadata.get('namespace')}/{metadata.get('name')}")
    return sorted(names)


def situation(node: dict[str, Any], pods: list[str]) -> Seen:
    """Judge what Kubernetes says."""
    before = {"unschedulable": node["unschedulable"], "taints": node["taints"]}
    if not node["unschedulable"]:
        return Seen("in_service", before=before)
    mark = node["mark"]
    return Seen("draining" if pods else "drained", mark, mark or "cordoned", None, pods, before)


class Kubernetes:
    """The adapter. Runs wherever kubectl and a kubeconfig are."""

    where = "Kubernetes"

    def __init__(self, request: Request, run: Callable[..., Done]) -> None:
        self.request = request
        self.run = run
        self.node: dict[str, Any] = {}

    def look(self) -> Seen:
        node = self.request.node
        done = self._kubectl("get", "node", node, "--output=json")
        if done.rc != 0:
            raise self._explain("read the node", done)
        self.node = self._json("read the node", done, parse_node)
        if not self.node["unschedulable"]:
            return situation(self.node, [])
        pods = self._kubectl(
            *("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}", "--output=json"),
            *self._selector("--selector"),
        )
        if pods.rc != 0:
            raise self._explain("list the pods", pods)
        return situation(self.node, self._json("list the pods", pods, parse_pods))

    def take(self) -> list[str]:
        self._patch("cordon the node", True, self.request.mark)
        return [f"cordon {self.request.node} in Kubernetes", f"evict the pods of {self.request.node}"]

    def push(self, left_s: float) -> None:
        """Evict what is left, as far as disruption budgets allow it within the time."""
        options = self.request.options
        seconds = max(1, int(left_s))
        argv = ["drain", self.request.node, "--ignore-daemonsets", f"--timeout={seconds}s", *self._selector()]
        argv += ["--delete-emptydir-data"] if options["delete_emptydir_data"] else []
        argv += ["--force"] if options["force"] else []
        if options["grace_period_s"] is not None:
            argv.append(f"--grace-period={options['grace_period_s']}")
        done = self._kubectl(*argv, limit_s=seconds + _CALL_S)
        if done.rc != 0 and not _NOT_YET.search(done.err + done.out):
            raise self._explain("evict the pods", done)

    def give(self) -> list[str]:
        self._patch("uncordon the node", None, None)
        return [f"uncordon {self.request.node} in Kubernetes"]

    def close(self) -> None:
        """Nothing: the mark went with the drain."""

    def _patch(self, action: str, unschedulable: bool | None, mark: str | None) -> None:
        """Set both in one request; nothing is written when the node is no longer as it was decided on."""
        wanted = self.node["unschedulable"], self.node["mark"]
        for _attempt in range(_CONFLICTS):
            patch = {
                "metadata": {"resourceVersion": self.node["version"], "annotations": {ANNOTATION: mark}},
                "spec": {"unschedulable": unschedulable},
            }
            argv = ("patch", "node", self.request.node, "--type=merge", f"--patch={json.dumps(patch)}")
            done = self._kubectl(*argv)
            if done.rc == 0:
                return
            if "the object has been modified" not in done.said and "Conflict" not in done.said:
                raise self._explain(action, done)
            self.look()  # kubelet writes often; only a change of what was decided on matters
            if (self.node["unschedulable"], self.node["mark"]) != wanted:
                cause, step = "somebody else changed it at the same moment", "Ask who works on the node, then try again"
                raise InvalidInputError(action, self.request.node, cause, step)
        raise ProbeError(action, self.request.node, f"it changed {_CONFLICTS} times while being written", "Try again")

    def _selector(self, option: str = "--pod-selector") -> list[str]:
        selector = self.request.options["pod_selector"]
        return [f"{option}={selector}"] if selector else []

    def _kubectl(self, *words: str, limit_s: float = _CALL_S) -> Done:
        options = self.request.options
        argv = [options["kubectl"]]
        argv += [f"--kubeconfig={options['kubeconfig']}"] if options["kubeconfig"] else []
        argv += [f"--context={options['kube_context']}"] if options["kube_context"] else []
        # --request-timeout would also end the wait of `drain`
        argv += [] if words[0] == "drain" else ["--request-timeout=30s"]
        return self.run([*argv, *words], limit_s)

    def _json(self, action: str, done: Done, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(done.out)
        except (ValueError, AttributeError) as error:
            step = "Check that the option kubectl names kubectl"
            raise ProbeError(action, self.request.node, f"the answer is no JSON: {done.out[:80]}", step) from error

    def _explain(self, action: str, done: Done) -> RackwrightError:
        node, said = self.request.node, done.said
        if "NotFound" in said and "nodes" in said:
            step = "Set node_name to a name that `kubectl get nodes` shows"
            return MissingError(action, node, "Kubernetes knows no node of this name", step, found=said)
        if "Forbidden" in said or "forbidden" in said or "Unauthorized" in said:
            step = "Use a kubeconfig that may get and patch nodes, list pods and create evictions"
            return ProbeError(action, node, f"Kubernetes refuses: {said}", step)
        for flag, step in _REFUSALS:
            if flag in said:
                return InvalidInputError(action, node, f"kubectl refuses: {said}", step)
        if "onnection refused" in said or "i/o timeout" in said or "Unable to connect" in said:
            step = "Check kubeconfig and kube_context"
            return TimedOutError(action, node, f"the API server does not answer: {said}", step)
        return ProbeError(action, node, f"kubectl answered: {said}", "Run the same kubectl command by hand")
