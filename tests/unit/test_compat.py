"""What an answer says: reasons, sources, dates, what is unknown, and what a site's own rows change."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from unit.compat_samples import TABLES, TODAY, node, plan

from ansible.module_utils.rackwright.compat import check_stack
from ansible.module_utils.rackwright.compat_alternatives import diverse
from ansible.module_utils.rackwright.stack_node import Gpu, StackNode
from ansible.module_utils.rackwright.tables import Tables, merge_extra


def rules(solution: Any) -> dict[str, str]:
    """Rule of every decision by the item it decides."""
    return {decision["item"]: decision["rule"] for decision in solution.decisions}


def test_every_decision_names_its_item_once_with_rule_row_and_source() -> None:
    solution = plan(
        node("8 h100-sxm5-80gb", nvswitch=True, os="debian12"),
        serving="vllm",
        cuda_toolkit="12.8",
    )
    items = [decision["item"] for decision in solution.decisions]
    assert len(items) == len(set(items))
    assert {
        *("platform.os", "driver.source", "driver.branch", "driver.version", "driver.flavour", "driver.eol"),
        *("driver.minimum", "driver.signing", "driver.packages", "os.dkms_minimum", "fabric_manager.version"),
        *("toolkit.cuda", "container_toolkit.version", "python.version"),
        *("framework.version", "framework.build", "serving.version"),
    } == set(items)
    for decision in solution.decisions:
        assert set(decision) == {"item", "value", "rule", "row", "source"}
        assert decision["rule"]
        assert decision["row"], decision
        assert decision["source"], decision


def test_a_decision_has_the_value_that_the_stack_has() -> None:
    solution = plan(node("2 rtx-4090", os="rocky9", python="3.11", secure_boot=True))
    for decision in solution.decisions:
        found: Any = solution.stack
        for key in decision["item"].split("."):
            found = found[key]
        if decision["item"] == "driver.packages":
            found = [package["name"] for package in found]
        assert found == decision["value"], decision["item"]


@pytest.mark.parametrize(
    ("gpus", "wishes", "item", "words"),
    [
        ("t4", {}, "driver.branch", "policy production: newest live production branch"),
        ("t4", {"policy": "lts"}, "driver.branch", "policy lts: newest live long-term branch (LTSB)"),
        ("t4", {"policy": "newest"}, "driver.branch", "policy newest"),
        (
            "t4",
            {"policy": "newest"},
            "driver.eol",
            "NVIDIA support page lists EOL August 2026, endoflife.date 2027-08-03",
        ),
        ("t4", {"driver_branch": 580}, "driver.branch", "asked for by name"),
        ("t4", {"driver_branch": 580}, "driver.eol", "NVIDIA page says June 2028"),
        ("t4", {"driver_branch": 590}, "driver.eol", "warning: branch 590 ends on 2026-12-22, in less than 90 days"),
        ("t4", {"driver_branch": 570}, "driver.eol", "warning: branch 570 ended on 2026-01-27"),
        ("t4", {"driver_branch": 545}, "driver.eol", "the end of life of this branch is not known"),
        (
            "t4",
            {"driver_version": "595.99.01"},
            "driver.version",
            "newer than the newest version the table knows (595.91.07)",
        ),
        ("t4", {"driver_version": "595.45.04"}, "driver.version", "asked for by name"),
        (
            "v100-sxm2-32gb",
            {},
            "driver.branch",
            "policy production, fallback: newest live long-term branch (LTSB); branch 595",
        ),
        ("v100-sxm2-32gb", {}, "driver.branch", "was passed over: branch 595 drives Turing and newer, not Tesla V100"),
        ("v100-sxm2-32gb", {}, "driver.flavour", "Tesla V100-SXM2-32GB (Volta, 7.0) has only this one"),
        ("v100-sxm2-32gb + t4", {}, "driver.flavour", "A host mixing Maxwell/Pascal/Volta with Turing+"),
        ("b200-sxm", {}, "driver.flavour", "NVIDIA B200 (Blackwell, 10.0) has only this one"),
        (
            "v100-sxm2-32gb",
            {},
            "framework.version",
            "newer ones were passed over, the newest because cu130 has no code for",
        ),
        ("t4", {"framework_version": "2.15.0"}, "framework.version", "asked for by name"),
        (
            "t4",
            {},
            "framework.build",
            "newest build whose CUDA the driver knows in full (13.2); code for every GPU (7.5)",
        ),
        ("t4", {"driver_branch": 570}, "framework.build", "newest build whose CUDA the driver knows in full (12.8)"),
        ("t4", {"framework_version": "2.15.0", "policy": "lts"}, "framework.build", "in full (13.0)"),
        ("rtx-5090", {"framework": "tensorflow"}, "framework.build", "its PTX is compiled at the first start"),
        ("t4", {"serving": "vllm"}, "framework.version", "vLLM 0.33.0 pins torch 2.14.0 exactly"),
        ("t4", {"cuda_toolkit": "13.3"}, "toolkit.cuda", "PTX of 13.3 is not compiled on it"),
        ("t4", {}, "driver.minimum", "CUDA 13: the driver must be 580.65.06 or newer"),
        ("t4", {"python": "3.13"}, "python.version", "uv brings it"),
        ("", {}, "framework.build", "the node has no NVIDIA GPU, so the CPU build"),
        ("", {}, "driver", "the node has no NVIDIA GPU"),
        ("8 a100-sxm4-80gb", {}, "fabric_manager", "unknown: eight or more SXM GPUs"),
        ("8 v100-sxm2-32gb", {}, "fabric_manager", "no NVSwitch in the node"),
        ("4 gb200", {}, "fabric_manager", "no NVSwitch in the node"),
    ],
)
def test_a_decision_says_why(gpus: str, wishes: dict[str, Any], item: str, words: str) -> None:
    arch = "aarch64" if "gb200" in gpus else "x86_64"
    solution = plan(node(gpus, arch=arch), **wishes)
    assert solution.status == "solved", solution.reason
    assert words in rules(solution)[item]


@pytest.mark.parametrize(
    ("description", "item", "words"),
    [
        (
            {"os": "debian12"},
            "platform.os",
            "its standard support ended on 2026-07-11, long-term support ends on 2028-06-30",
        ),
        ({"os": "debian12"}, "os.dkms_minimum", "where it has one, else bookworm-backports"),
        ({"simulated": True}, "framework.build", "simulated and cannot run kernels"),
        ({"wsl": True}, "driver", "the driver belongs to Windows"),
        ({"wsl": True}, "platform.windows_driver_minimum", "the NVIDIA driver of Windows must be 580.65.06 or newer"),
        ({"secure_boot": True}, "driver.signing", "a key of this machine (MOK)"),
        ({"secure_boot": None}, "driver.signing", "whether Secure Boot is on is not known"),
        (
            {"os": "rhel9", "pythons": {"3.9": "/usr/bin/python3.9", "3.11": "/usr/bin/python3.11"}},
            "python.version",
            "an interpreter of the node that the release has wheels for; its own is 3.9",
        ),
        ({"os": "wsl-ubuntu", "python": "3.12"}, "platform.glibc", "the wheels need glibc 2.28"),
    ],
)
def test_what_a_node_is_decides(description: dict[str, Any], item: str, words: str) -> None:
    solution = plan(node("rtx-4090", **description))
    assert solution.status == "solved", solution.reason
    assert words in rules(solution)[item]


@pytest.mark.parametrize(
    ("today", "policy", "branch"),
    [
        ("2026-11-24", "production", "595"),
        ("2027-03-31", "production", "595"),  # its last month
        ("2027-04-01", "production", "580"),
        ("2027-08-04", "newest", "580"),
        ("2028-08-04", "lts", "580"),
    ],
)
def test_ends_of_life_move_the_choice(today: str, policy: str, branch: str) -> None:
    solution = plan(node("t4"), today=today, policy=policy)
    assert solution.stack["driver"]["branch"] == branch


def test_when_nothing_is_live_the_plan_says_so() -> None:
    solution = plan(node("t4"), today="2028-08-05")
    assert (solution.status, solution.gate) == ("refused", "gpu-driver")
    assert solution.reason == "no live branch fits the policy production."


@pytest.mark.parametrize("wishes", [{"driver_branch": 620}, {"driver_source": "distribution", "driver_branch": 580}])
def test_a_branch_without_a_known_version_asks_for_one(wishes: dict[str, Any]) -> None:
    assert plan(node("t4"), **wishes).remedies == ["Name an exact version by stack_driver_version"]


def test_a_version_the_archive_is_not_known_to_have_is_told_beside_the_known_one() -> None:
    solution = plan(node("t4", os="debian12"), driver_source="distribution", driver_version="535.261.03")
    assert rules(solution)["driver.version"] == (
        "asked for by name; the version that the table knows in the distribution's archive is 535.309.01"
    )
    assert check_stack(None, solution.stack, TABLES) == []


def test_headers_of_another_page_size_do_not_fit_the_kernel() -> None:
    large = node("gh200-96gb", os="rocky9", arch="aarch64", python="3.11", kernel="5.14.0-503.el9.aarch64+64k")
    stack = plan(large).stack
    assert check_stack(None, stack, TABLES) == check_stack(large, stack, TABLES) == []
    small = dataclasses.replace(large, kernel="5.14.0-503.el9.aarch64")
    assert "os.headers is [kernel-64k-devel-matched" in check_stack(small, stack, TABLES)[0]


def test_alternatives_are_few_and_different() -> None:
    def offer(summary: str, **change: str) -> dict[str, Any]:
        return {"change": change, "sentence": summary, "stack_summary": summary}

    ordered = [offer("a", x="1"), offer("b", x="2"), offer("c", x="3"), offer("a", y="1"), offer("d", x="1", y="1")]
    assert [kept["sentence"] for kept in diverse(ordered)] == ["a", "b", "d"]
    assert len(diverse([offer(name, **{name: "1"}) for name in "abcdefg"])) == 5


def test_today_is_in_no_stack() -> None:
    first, later = plan(node("t4")), plan(node("t4"), today="2026-12-01")
    assert first.stack == later.stack
    assert TODAY not in str(first.stack)


@pytest.mark.parametrize(
    "gpu",
    [
        Gpu(None, "v100-pcie-16gb or t4", None, None, 1),
        Gpu(None, "NVIDIA GPU with PCI device id ffff", None, "hopper", 1),
        Gpu(None, "NVIDIA Whatever", "99.0", None, 1),
    ],
)
def test_a_card_nobody_knows_is_named_with_what_to_do(gpu: Gpu) -> None:
    machine: StackNode = dataclasses.replace(node("t4"), gpus=(gpu,))
    solution = plan(machine)
    assert (solution.status, solution.gate) == ("refused", "gpu-driver")
    assert gpu.name in str(solution.reason)
    assert "gpu_facts_extra_gpus and stack_extra_tables" in solution.remedies[0]


def test_a_stack_planned_before_the_driver_fits_the_card_that_the_driver_names() -> None:
    open_question = Gpu(None, "a2 or a16", "8.6", "ampere", 4)
    before = dataclasses.replace(node("t4"), gpus=(open_question,))
    stack = plan(before).stack
    assert check_stack(before, stack, TABLES) == []
    for model, count, fits in (("a2", 4, True), ("a16", 4, True), ("a10", 4, False), ("a2", 3, False)):
        assert (check_stack(node(f"{count} {model}"), stack, TABLES) == []) is fits


def test_a_name_that_nvml_gives_the_same_model_is_no_other_card() -> None:
    planned = node("gh200-96gb", arch="aarch64")
    (gpu,) = planned.gpus
    found = dataclasses.replace(planned, gpus=(dataclasses.replace(gpu, name="NVIDIA GH200 120GB"),))
    assert gpu.name != "NVIDIA GH200 120GB"
    assert check_stack(found, plan(planned).stack, TABLES) == []


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        ({"version": "3.12", "interpreter": "/usr/bin/python3", "source": "system"}, None),
        (
            {"version": "3.12", "interpreter": "/usr/bin/python3.13", "source": "system"},
            "Python 3.12 is /usr/bin/python3",
        ),
        ({"version": "3.13", "interpreter": "/usr/bin/python3.13", "source": "system"}, None),
        (
            {"version": "3.13", "interpreter": "/usr/bin/python3", "source": "system"},
            "the node's own interpreter is 3.12",
        ),
        ({"version": "3.11", "interpreter": "/usr/bin/python3.11", "source": "system"}, "the node has no Python 3.11"),
        ({"version": "3.11", "interpreter": None, "source": "uv"}, None),
        ({"version": "3.11", "interpreter": "/usr/bin/python3", "source": "uv"}, "has to be null"),
        ({"version": "3.11", "interpreter": None, "source": "conda"}, "neither system nor uv"),
    ],
)
def test_a_locked_interpreter_must_be_there(python: dict[str, Any], problem: str | None) -> None:
    machine = node("t4", pythons={"3.12": "/usr/bin/python3.12", "3.13": "/usr/bin/python3.13"})
    stack = {**plan(machine).stack, "python": python}
    problems = check_stack(machine, stack, TABLES)
    assert problems == [] if problem is None else any(problem in found for found in problems)


def test_a_card_outside_the_catalogue_is_planned_by_its_compute_capability() -> None:
    machine = dataclasses.replace(node("t4"), gpus=(Gpu(None, "NVIDIA New Card", "8.9", "ada", 2),))
    solution = plan(machine)
    assert solution.stack["gpus"][0]["id"] is None
    assert solution.stack["framework"]["build"] == "cu132"
    assert check_stack(machine, solution.stack, TABLES) == []


def with_rows(**rows: Any) -> Tables:
    return merge_extra(TABLES, rows)


def test_a_sites_branch_with_few_columns_is_taken_by_name_only() -> None:
    tables = with_rows(drivers={"branches": [{"branch": "630", "latest_known": "630.10.01"}]})
    assert plan(node("t4"), tables, policy="newest").stack["driver"]["branch"] == "610"
    refused = plan(node("t4"), tables, driver_branch="630")
    assert "does not know which GPUs branch 630 drives" in str(refused.reason)


def test_a_sites_branch_with_all_columns_is_chosen() -> None:
    row = {
        "branch": "630",
        "type": "production",
        "eol": "2028-01",
        "latest_known": "630.10.01",
        "arch_min": "Turing",
        "supports_blackwell": True,
        "open_modules_available": True,
        "cuda_max_native": "13.5",
    }
    tables = with_rows(drivers={"branches": [row]})
    solution = plan(node("b200-sxm"), tables)
    assert solution.stack["driver"]["version"] == "630.10.01"
    assert check_stack(node("b200-sxm"), solution.stack, tables) == []
    problems = check_stack(node("b200-sxm"), solution.stack, TABLES)
    assert problems == ["driver branch 630 is not in the table"]


def test_a_sites_serving_release_with_few_columns_is_planned() -> None:
    row = {"version": "0.33.1", "pythons": ["3.12"], "torch": "2.14.1", "sources": ["our own mirror"]}
    solution = plan(node("l40s"), with_rows(frameworks={"vllm": {"releases": [row]}}), serving="vllm")
    assert solution.stack["serving"]["requirements"] == ["vllm==0.33.1", "torch==2.14.1"]
    assert solution.stack["framework"]["version"] == "2.14.1"


def test_a_sites_next_cuda_major_needs_the_driver_it_names() -> None:
    build = {"cuda": "14.0", "sass_x86_64": ["8.9"], "ptx": None}
    row = {"version": "9.0.0", "pythons": ["3.12"], "pypi_default_build": "cu140", "builds": {"cu140": build}}
    rows = {"pytorch": {"releases": [row]}, "cuda_minimum_drivers": {"14": "600.10.01"}}
    toolkit = {"release": "14.0.0", "toolkit": "14.0", "compute_capabilities": ["8.9"]}
    tables = with_rows(frameworks=rows, cuda={"releases": [toolkit]})
    assert plan(node("l40s"), tables, policy="newest").stack["driver"]["minimum"] == "600.10.01"
    assert plan(node("l40s"), tables, framework_version="9.0.0").gate == "driver-cuda"


def test_a_sites_newer_version_of_a_branch_is_pinned() -> None:
    tables = with_rows(drivers={"branches": [{"branch": "595", "latest_known": "595.99.01"}]})
    assert plan(node("t4"), tables).stack["driver"]["packages"][0]["version"] == "595.99.01*"


def test_a_build_with_ptx_serves_a_newer_gpu_only_under_a_driver_that_compiles_it() -> None:
    """Its PTX is that of its newest code, and unknown PTX (null) counts as none."""
    build = {"cuda": "12.6", "sass_x86_64": ["7.5", "8.0"], "ptx": True}
    row = {"version": "9.0.0", "pythons": ["3.12"], "pypi_default_build": "cu126", "builds": {"cu126": build}}
    hopper = node("h100-pcie-80gb")

    def result(driver: str, ptx: bool | None, machine: StackNode = hopper) -> str:
        rows = {"pytorch": {"releases": [{**row, "builds": {"cu126": {**build, "ptx": ptx}}}]}}
        solution = plan(machine, with_rows(frameworks=rows), driver_branch=driver, framework_version="9.0.0")
        return solution.gate or "solved"

    assert result("580", True) == "solved"
    assert result("560", True) == "solved"  # knows CUDA 12.6 itself
    assert result("550", True) == "wheel-gpu"  # knows 12.4: runs 12.x code, compiles no 12.6 PTX
    assert result("580", None) == "wheel-gpu"
    assert result("580", False) == "wheel-gpu"
    assert result("580", True, node("v100-pcie-16gb")) == "wheel-gpu"  # PTX never serves an older GPU


def test_the_names_of_a_node_are_in_no_answer() -> None:
    """A fleet solves each kind of node once, so an answer must fit every node of the kind."""
    for machine in (node("t4"), node("k80")):
        renamed = dataclasses.replace(machine, name="unmistakable")
        first, second = plan(machine), plan(renamed)
        assert dataclasses.replace(second, node=first.node) == first
        assert "unmistakable" not in f"{second.stack}{second.decisions}{second.reason}{second.alternatives}"


@pytest.mark.parametrize("broken", [{}, {"platform": {}}, {"platform": None, "gpus": [{}]}])
def test_what_is_no_stack_is_a_problem_and_no_crash(broken: dict[str, Any]) -> None:
    (problem,) = check_stack(node("t4"), broken, TABLES)
    assert problem.startswith("the stack has not the layout of a stack")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("driver.version", "580.65.05", "the stack needs driver 580.65.06 or newer and has 580.65.05"),
        ("driver.version", "595.91.07", "driver version 595.91.07 does not belong to branch 580"),
        ("driver.version", "580.178.05", "driver.packages is"),
        ("driver.branch", "595", "does not belong to branch 595"),
        ("driver.flavour", "proprietary", "driver.packages is"),
        ("driver.minimum", None, "driver.minimum is null and has to be 580.65.06"),
        ("framework.version", "2.14.1", "framework.requirements is"),
        ("framework.version", "2.16.0", "PyTorch 2.16.0 is not in the table of releases"),
        ("framework.build", "cu126", "has no build cu126"),
        ("framework.build", "cpu", "the node has GPUs and the stack has a PyTorch without CUDA"),
        ("python.version", "3.10", "has wheels for Python 3.11 to 3.15 and the environment has 3.10"),
        ("gpus", [], "it is for no GPU and the node has 1 x Tesla T4"),
        ("platform.os", "centos8", "CentOS 8 is not supported"),
        ("container_toolkit.version", "1.19.0", "container_toolkit.version is 1.19.0 and has to be null"),
    ],
)
def test_an_edited_lock_is_told_what_is_wrong(path: str, value: Any, words: str) -> None:
    machine = node("t4")
    stack = plan(machine, policy="lts").stack
    place: Any = stack
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    problems = check_stack(machine, stack, TABLES)
    assert any(words in problem for problem in problems), problems
