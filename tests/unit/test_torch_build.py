"""The table of PyTorch releases, and which build of them fits which node."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.torch_build import (
    Node,
    choose_build,
    node_from_facts,
    sass_runs,
    version_key,
    wanted_installed,
    why_not,
)
from ansible.module_utils.rackwright.torch_env import MARKER, TorchRequest, file_problems
from ansible.module_utils.rackwright.wheel_install import Venv

TABLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "roles" / "gpu_stack" / "files" / "tables" / "frameworks.yml").read_text()
)
H100 = ("NVIDIA H100 80GB HBM3", "9.0")
V100 = ("Tesla V100-SXM2-32GB", "7.0")
RTX4090 = ("NVIDIA GeForce RTX 4090", "8.9")
B200 = ("NVIDIA B200", "10.0")
GB10 = ("NVIDIA GB10", "12.1")
A100 = ("NVIDIA A100", "8.0")


def ready(driver: str, *gpus: tuple[str, str], **changes: Any) -> Node:
    values: dict[str, Any] = {"python": "3.11", "glibc": "2.36", "name": "gpu-a", **changes}
    return Node(situation="ready", driver=driver, gpus=gpus, **values)


@pytest.mark.parametrize(
    ("version", "node", "build"),
    [
        ("2.13.0", ready("580.65.06", H100), "cu132"),
        ("2.13.0", ready("580.65.05", H100), "cu126"),
        ("2.13.0", ready("535.261.03", RTX4090, RTX4090), "cu126"),
        ("2.13.0", ready("580.82.07", V100), "cu126"),
        ("2.13.0", ready("580.82.07", V100, H100), "cu126"),
        ("2.13.0", ready("580.82.07", B200), "cu132"),
        ("2.13.0", ready("580.82.07", GB10, arch="aarch64", python="3.12"), "cu132"),
        ("2.15.0", ready("595.10.00", A100), "cu132"),
        ("2.7.0", ready("570.10.00", B200), "cu128"),
        ("2.0.1", ready("470.10.00", A100), "cu118"),
        ("2.13.0", Node(situation="wsl2", driver="580.97", gpus=(RTX4090,)), "cu132"),
        # GPUs that do not answer: the lock is taken at its word
        ("2.13.0", Node(situation="version_mismatch", driver="535.261.03", gpus=(H100,)), "cu132"),
        ("2.13.0", Node(situation="no_driver", gpus=(H100,)), "cu132"),
        ("2.13.0", Node(situation="no_gpu"), "cpu"),
        ("2.13.0", Node(situation="ready", simulated=True, driver="580.82.07", gpus=(H100,)), "cpu"),
    ],
)
def test_a_locked_build_that_runs_is_accepted(version: str, node: Node, build: str) -> None:
    choice = choose_build(TABLE, version, build, node)
    assert (choice.version, choice.build) == (version, build)
    assert choice.index_url.endswith(f"/{build}")


def test_ptx_counts_with_the_cuda_the_driver_knows() -> None:
    """What planning accepts, the node must not refuse."""
    release = {"version": "9.9.0", "builds": {"cu130": {"cuda": "13.0", "sass_x86_64": ["9.0"], "ptx": True}}}
    newer = ("a later card", "12.0")
    assert why_not(TABLE, release, "cu130", ready("580.65.06", newer, native_cuda="13.0")) is None
    assert "no code" in str(why_not(TABLE, release, "cu130", ready("580.65.06", newer, native_cuda="12.8")))
    assert "no code" in str(why_not(TABLE, release, "cu130", ready("580.65.06", newer)))


@pytest.mark.parametrize(
    ("version", "build", "node", "cause", "next_step"),
    [
        (
            "2.15.0",
            "cu132",
            ready("580.82.07", V100),
            "cu132 has no code for Tesla V100-SXM2-32GB (compute capability 7.0; it has 7.5, 8.0, 8.6, 9.0",
            "The nearest that fits is 2.14.1 with build cu126",
        ),
        (
            "2.15.0",
            "cu130",
            ready("535.261.03", H100),
            "cu130 needs driver 580.65.06 or newer and the node has 535.261.03",
            "The nearest that fits is 2.14.1 with build cu126",
        ),
        (
            "2.13.0",
            "cu126",
            ready("580.82.07", V100, B200),
            "cu126 has no code for NVIDIA B200",
            "The nearest that fits is 2.10.0 with build cu128",
        ),
        (
            "2.13.0",
            "cu126",
            ready("580.82.07", B200),
            "cu126 has no code for NVIDIA B200",
            "The nearest that fits is 2.13.0 with build cu132",
        ),
        ("2.13.0", "cu118", Node(), "torch 2.13.0 has no build cu118 (it has cpu, cu126, cu130, cu132)", "2.13.0"),
        ("2.13.1", "cpu", Node(), "release 2.13.1 is not in the table", "The nearest release that fits is 2.1"),
        (
            "2.13.0",
            "cpu",
            Node(python="3.9", glibc="2.36"),
            "it has wheels for Python 3.10 to 3.14 and the environment has 3.9",
            "The nearest release that fits is 2.8.0 (build cpu)",
        ),
        (
            "2.13.0",
            "cpu",
            Node(python="3.11", glibc="2.17"),
            "its wheels need glibc 2.28 and the node has 2.17",
            "The nearest release that fits is 2.6.0 (build cpu)",
        ),
        (
            "2.6.0",
            "cu124",
            Node(situation="ready", driver=None, gpus=(H100,), python="3.11"),
            "the node's driver version is not known",
            "No release in the table fits",
        ),
    ],
)
def test_a_refusal_names_the_gate_and_the_nearest_alternative(
    version: str, build: str, node: Node, cause: str, next_step: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        choose_build(TABLE, version, build, node)
    assert cause in str(caught.value)
    assert next_step in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "device", "cuda", "runs"),
    [
        ("8.6", "8.9", "13.0", True),
        ("8.0", "8.6", "12.6", True),
        ("8.6", "8.0", "12.6", False),
        ("8.6", "8.7", "13.0", False),
        ("8.6", "8.7", "13.2", True),
        ("7.0", "7.2", "12.6", False),
        ("7.0", "7.5", "12.6", True),
        ("7.5", "8.0", "12.6", False),
        ("10.0", "10.3", "13.0", True),
        ("11.0", "10.1", "13.0", True),
        ("12.0", "12.1", "13.0", True),
        ("12.0", "10.0", "13.0", False),
    ],
)
def test_gpu_code_runs_within_its_major_capability(code: str, device: str, cuda: str, runs: bool) -> None:
    assert sass_runs(TABLE, code, device, cuda) is runs


def test_cpu_is_only_asked_for_by_its_local_version() -> None:
    assert choose_build(TABLE, "2.13.0", "cpu", Node()).requirements == ["torch==2.13.0+cpu"]


def test_the_default_build_is_also_asked_for_by_its_exact_plain_name() -> None:
    choice = choose_build(TABLE, "2.13.0", "cu130", Node())
    assert choice.requirements == ["torch==2.13.0+cu130", "torch===2.13.0"]


@pytest.mark.parametrize(
    ("found", "cuda", "problem"),
    [
        ("2.13.0+cpu", None, None),
        ("2.13.0+cu130", "13.0", "torch 2.13.0+cu130 is build cu130 instead of cpu"),
        ("2.13.0", "13.0", "torch 2.13.0 is build cu130 instead of cpu"),
        ("2.12.0+cpu", None, "torch 2.12.0+cpu is installed instead of 2.13.0"),
    ],
)
def test_an_installed_torch_is_compared_by_release_and_build(found: str, cuda: str | None, problem: str | None) -> None:
    assert wanted_installed({"version": "2.13.0", "build": "cpu"}, found, cuda) == problem


def test_facts_become_a_node() -> None:
    facts = {
        "situation": "ready",
        "simulated": False,
        "driver": {"kernel_module_version": "580.82.07"},
        "devices": [{"name": "NVIDIA H100", "compute_capability": "9.0"}, {"name": "?", "compute_capability": None}],
    }
    node = node_from_facts(facts, name="gpu-a", arch="x86_64", python="3.11.2", glibc="2.36")
    assert node.usable_gpu
    assert (node.driver, node.gpus) == ("580.82.07", (("NVIDIA H100", "9.0"),))
    assert not node_from_facts({}, name="gpu-a", arch="x86_64", python="3.11.2", glibc=None).usable_gpu


RELEASES = TABLE["pytorch"]["releases"]


def test_releases_are_sorted_and_unique() -> None:
    keys = [version_key(row["version"]) for row in RELEASES]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("release", RELEASES, ids=lambda row: row["version"])
def test_every_release_is_complete(release: dict[str, Any]) -> None:
    assert release["sources"]
    assert release["pypi_default_build"] in release["builds"]
    for name, build in release["builds"].items():
        assert name == "cu" + build["cuda"].replace(".", "")
        assert build["cuda"].split(".")[0] in TABLE["cuda_minimum_drivers"]
        assert build["basis"] is None or build["basis"] in TABLE["pytorch"]["bases"]
        if build["sass_x86_64"] is not None:
            keys = [version_key(code) for code in build["sass_x86_64"]]
            assert keys == sorted(set(keys))
            assert all(re.fullmatch(r"\d+\.\d", code) for code in build["sass_x86_64"])


def test_a_package_of_another_version_than_was_installed_is_a_problem(tmp_path: Path) -> None:
    """Somebody's pip moved a dependency of torch: the recorded version comes back."""
    site = tmp_path / "site"
    for name, version in (("torch", "2.13.0+cpu"), ("numpy", "2.1.0"), ("filelock", "3.0")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\n", encoding="utf-8")
        (info / "RECORD").write_text(f"{info.name}/METADATA,,\n", encoding="utf-8")
    venv = Venv(tmp_path, {"site": str(site)})
    request = TorchRequest(str(tmp_path), "2.13.0", TABLE, "cpu")
    choice = {"version": "2.13.0", "build": "cpu"}
    recorded = {"torch": "2.13.0+cpu", "numpy": "2.1.0", "filelock": "3.0"}
    marker = tmp_path / MARKER

    marker.write_text(json.dumps({"schema": 1, "packages": recorded}), encoding="utf-8")
    assert file_problems(venv, request, choice) == []

    marker.write_text(json.dumps({"schema": 1, "packages": {**recorded, "filelock": "2.9"}}), encoding="utf-8")
    assert file_problems(venv, request, choice) == ["filelock 3.0 is installed instead of 2.9"]


def test_with_mig_cuda_gives_one_device() -> None:
    whole = {"name": "NVIDIA A100", "compute_capability": "8.0", "mig": {"mode": "disabled"}}
    facts = {"situation": "ready", "driver": {}, "devices": [whole, {**whole, "mig": {"mode": "enabled"}}]}
    common = {"name": "n", "arch": "x86_64", "python": "3.11", "glibc": None}
    assert node_from_facts(facts, **common).cuda_devices == 1
    assert node_from_facts({**facts, "devices": [whole, whole]}, **common).cuda_devices == 2
