# SPDX-License-Identifier: Apache-2.0
"""Kubernetes through a stand-in for kubectl that keeps one node in a file. No real cluster is involved here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.drains import Clock, request
from support.simulated_node import ROOT

from ansible.module_utils.rackwright.drain import Job
from ansible.module_utils.rackwright.drain_kubernetes import ANNOTATION, Kubernetes, parse_node, parse_pods, situation
from ansible.module_utils.rackwright.drain_run import run
from ansible.module_utils.rackwright.errors import RackwrightError

NODE = "gpu-1.example"
MARK = "rackwright:run-1 driver update"


def pod(name: str, kind: str | None = "ReplicaSet", phase: str = "Running", **annotations: str) -> dict[str, Any]:
    owners = [{"kind": kind, "name": name, "controller": True}] if kind else []
    metadata = {"namespace": "llm", "name": name, "ownerReferences": owners, "annotations": annotations}
    return {"metadata": metadata, "status": {"phase": phase}}


FREE: tuple[bool, str | None] = (False, None)
PODS = [pod("vllm-0"), pod("device-plugin", "DaemonSet")]


class Cluster:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "state.json"
        node = {"metadata": {"name": NODE, "resourceVersion": "7"}, "spec": {}, "status": {}}
        self.write({"node": node, "pods": PODS, "evict": "all", "calls": []})
        monkeypatch.setenv("FAKE_KUBECTL_STATE", str(self.path))

    def write(self, state: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(state), encoding="utf-8")

    def set(self, **values: Any) -> None:
        self.write({**self.state, **values})

    @property
    def state(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return value

    @property
    def node(self) -> tuple[bool, str | None]:
        node = self.state["node"]
        return bool(node["spec"].get("unschedulable")), node["metadata"].get("annotations", {}).get(ANNOTATION)

    def called(self, verb: str) -> list[list[str]]:
        return [call for call in self.state["calls"] if verb in call]

    def job(self, state: str = "drained", **options: Any) -> Job:
        program = str(ROOT / "tests/support/fake_kubectl.py")
        wanted = request(state, adapter="kubernetes", node_name=NODE, **{"kubectl": program, **options})
        clock = Clock()
        return Job(wanted, Kubernetes(wanted, run), clock, clock.sleep)

    def call(self, state: str = "drained", **options: Any) -> dict[str, Any]:
        job = self.job(state, **options)
        {"drained": job.drain, "resumed": job.resume, "status": job.status}[state]()
        return job.report()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return Cluster(tmp_path, monkeypatch)


def test_there_and_back(cluster: Cluster) -> None:
    drained = cluster.call(
        timeout_s=90, grace_period_s=20, pod_selector="app!=x", delete_emptydir_data=True, force=True
    )
    assert (drained["ours"], drained["drained"]) == (True, True)
    assert cluster.node == (True, MARK)
    asked = "--ignore-daemonsets --timeout=90s --pod-selector=app!=x --delete-emptydir-data --force --grace-period=20"
    assert cluster.called("drain") == [["drain", NODE, *asked.split()]]
    assert cluster.call(record=drained["record"])["ours"] is True
    assert len(cluster.called("patch")) == 1

    assert cluster.call("resumed", record=drained["record"])["resumed"] is True
    assert cluster.node == FREE
    again = cluster.job("resumed", record=drained["record"])
    again.resume()
    assert (again.changed, again.resumed) == (False, True)


def test_options_of_the_connection(cluster: Cluster) -> None:
    cluster.call("status", kubeconfig="/etc/kube", kube_context="prod")
    assert cluster.state["calls"][0][:3] == ["--kubeconfig=/etc/kube", "--context=prod", "--request-timeout=30s"]


def test_a_cordon_of_somebody_else_stays(cluster: Cluster) -> None:
    node = cluster.state["node"]
    cluster.set(node={**node, "spec": {"unschedulable": True}})
    drained = cluster.call()
    assert (drained["ours"], drained["foreign"], drained["drained"]) == (False, True, True)
    assert cluster.call("resumed", record=drained["record"])["resumed"] is False
    assert cluster.call("resumed")["overridden"] is True
    assert cluster.node == (True, None)


@pytest.mark.parametrize("annotations", [{}, {ANNOTATION: "held by alice"}])
def test_who_takes_the_annotation_keeps_the_node(cluster: Cluster, annotations: dict[str, str]) -> None:
    record = cluster.call()["record"]
    state = cluster.state
    state["node"]["metadata"]["annotations"] = annotations
    cluster.write(state)
    back = cluster.call("resumed", record=record)
    assert (back["resumed"], back["overridden"], cluster.node[0]) == (False, True, True)


def test_a_busy_api_server_is_no_reason_to_give_up(cluster: Cluster) -> None:
    cluster.set(conflicts=3)
    assert cluster.call()["ours"] is True
    assert len(cluster.called("patch")) == 4


def test_a_cordon_at_the_same_moment_is_not_taken_for_ours(cluster: Cluster) -> None:
    cluster.set(conflicts=1, meanwhile={"annotations": {ANNOTATION: "rackwright:run-9 other"}})
    with pytest.raises(RackwrightError, match="somebody else changed it at the same moment"):
        cluster.call()
    assert cluster.node == (False, "rackwright:run-9 other")


def test_a_disruption_budget_is_waited_for(cluster: Cluster) -> None:
    cluster.set(evict="none")
    job = cluster.job(timeout_s=10)
    with pytest.raises(RackwrightError, match=r"after 10 s it still waits for: pod llm/vllm-0\."):
        job.drain()
    report = job.report()
    assert (report["ours"], report["state"], report["waiting_for"]) == (True, "draining", ["pod llm/vllm-0"])
    assert cluster.call("resumed", record=report["record"])["resumed"] is True


@pytest.mark.parametrize(
    ("refusal", "option"),
    [
        (
            "cannot delete Pods with local storage (use --delete-emptydir-data to override): llm/a",
            "delete_emptydir_data",
        ),
        ("cannot delete Pods that declare no controller (use --force to override): llm/a", "force: true"),
    ],
)
def test_a_refusal_names_the_option(cluster: Cluster, refusal: str, option: str) -> None:
    cluster.set(evict=refusal)
    job = cluster.job()
    with pytest.raises(RackwrightError, match=option) as caught:
        job.drain()
    assert caught.value.kind == "invalid_input"
    assert job.report()["record"]["ours"] is True


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda cluster: cluster.set(down=True), "timed_out"),
        (lambda cluster: cluster.path.write_text('{"calls": [], "node": []}'), "probe"),
    ],
)
def test_no_answer(cluster: Cluster, spoil: Callable[[Cluster], Any], kind: str) -> None:
    spoil(cluster)
    with pytest.raises(RackwrightError) as caught:
        cluster.call()
    assert caught.value.kind == kind


def test_an_unknown_node_and_no_kubectl(cluster: Cluster) -> None:
    wanted = request(adapter="kubernetes", node_name="gpu-9", kubectl=str(ROOT / "tests/support/fake_kubectl.py"))
    with pytest.raises(RackwrightError, match="Kubernetes knows no node of this name"):
        Kubernetes(wanted, run).look()
    with pytest.raises(RackwrightError, match="not installed here") as caught:
        cluster.call(kubectl="/nonexistent/kubectl")
    assert caught.value.kind == "missing"


def test_check_mode_writes_nothing(cluster: Cluster) -> None:
    job = cluster.job(check_mode=True)
    job.drain()
    assert job.report()["actions"] == [f"drain {NODE} in Kubernetes"]
    assert (cluster.called("patch"), cluster.called("drain")) == ([], [])


def test_pods_that_a_drain_leaves() -> None:
    items = [
        *PODS,
        pod("done", phase="Succeeded"),
        pod("static", None, **{"kubernetes.io/config.mirror": "x"}),
        pod("bare", None),
    ]
    assert parse_pods(json.dumps({"items": items})) == ["pod llm/bare", "pod llm/vllm-0"]
    assert parse_pods("{}") == []


def test_node_document() -> None:
    node = parse_node(json.dumps({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "metadata": {}}))
    assert (node["unschedulable"], node["mark"], node["taints"]) == (False, None, ["a:NoSchedule"])
    assert situation({**node, "unschedulable": True}, []).empty is True
