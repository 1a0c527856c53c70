# SPDX-License-Identifier: Apache-2.0
"""When a node has to be proven again, and the record that remembers the last proof."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rackwright import proof, reports
from rackwright.errors import InvalidInputError

GPU: dict[str, Any] = {
    "situation": "ready",
    "simulated": False,
    "driver": {"kernel_module_version": "580.178.04", "library_version": "580.178.04"},
    "devices": [
        {"uuid": "GPU-1", "name": "NVIDIA H100", "vbios_version": "96", "state": "ok", "pci": {"address": "0:1"}},
        {"uuid": "GPU-2", "name": "NVIDIA H100", "vbios_version": "96", "state": "ok", "pci": {"address": "0:2"}},
    ],
}


MIXED = {"packages": {"nvidia-smi": "580.178.04-1", "libnvidia-ml1": "580.65.06-1"}}


def last(verdict: str = "pass") -> dict[str, Any]:
    return {"verdict": verdict, "run_id": "R1", "fingerprint": proof.fingerprint(GPU)}


def changed(path: str, value: Any) -> dict[str, Any]:
    gpu = copy.deepcopy(GPU)
    target: Any = gpu
    *parents, leaf = path.split("/")
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[leaf] = value
    return gpu


def test_an_unchanged_node_is_not_proven_again() -> None:
    gpu = changed("devices/0/temperature", {"gpu_celsius": 71})
    gpu["devices"].reverse()

    assert proof.due(last(), gpu) is None
    assert proof.due(last("warn"), GPU) is None


@pytest.mark.parametrize(
    ("before", "gpu", "why"),
    [
        (None, GPU, "never proven"),
        (last("fail"), GPU, "the last verdict was fail (run R1)"),
        (last(), changed("situation", "gpu_lost"), "situation changed since the last proof"),
        (last(), changed("driver/library_version", "595.91.07"), "coherence, library changed since the last proof"),
        (last(), {**GPU, "software": MIXED}, "coherence changed since the last proof"),
        (last(), changed("driver/kernel_module_version", None), "kernel module changed since the last proof"),
        (last(), changed("devices/1/state", "lost"), "devices changed since the last proof"),
        (last(), changed("devices/1/uuid", "GPU-3"), "devices changed since the last proof"),
        (last(), changed("devices/1/vbios_version", "97"), "devices changed since the last proof"),
        (last(), changed("devices", []), "devices changed since the last proof"),
        (last(), {}, "devices, kernel module, library, situation changed since the last proof"),
    ],
)
def test_whatever_a_proof_rests_on_makes_it_due(before: Any, gpu: dict[str, Any], why: str) -> None:
    assert proof.due(before, gpu) == why


def test_the_record_keeps_the_proofs_of_nodes_that_were_not_in_the_run(tmp_path: Path) -> None:
    reports.record_proofs(str(tmp_path), "R1", {"a": {"verdict": "pass"}, "b": {"verdict": "fail"}})
    reports.record_proofs(str(tmp_path), "R2", {"b": {"verdict": "pass"}})

    assert reports.read_proofs(reports.proofs_path(str(tmp_path))) == {
        "a": {"verdict": "pass", "run_id": "R1"},
        "b": {"verdict": "pass", "run_id": "R2"},
    }


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    assert reports.read_proofs(str(tmp_path / "proofs.json")) == {}
    assert reports.read_proofs(None) == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{half", '{"nodes": 5}', '{"nodes": [1]}', '{"nodes": {"a": "pass"}}']
)
def test_a_damaged_record_is_named_not_believed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "proofs.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(InvalidInputError, match="Remove the file"):
        reports.read_proofs(str(path))
