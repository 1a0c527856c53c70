"""What holds for every node and wish, and what no edit of a stack may slip past."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from unit.compat_samples import TABLES, node, plan

from ansible.module_utils.rackwright.compat import Solution, check_stack
from ansible.module_utils.rackwright.compat_rules import GATES, at_least
from ansible.module_utils.rackwright.stack_node import StackNode
from ansible.module_utils.rackwright.torch_build import build_sass, sass_runs

MODELS = [row["id"] for row in TABLES.gpus["gpus"]]
PLATFORMS = [row["id"] for row in TABLES.platforms["distros"]] + ["rocky9", "almalinux10"]
BRANCHES = [row["branch"] for row in TABLES.drivers["branches"]]
TORCHES = [row["version"] for row in TABLES.frameworks["pytorch"]["releases"]]
FLOWS = [row["version"] for row in TABLES.frameworks["tensorflow"]["releases"]]
VLLMS = [row["version"] for row in TABLES.frameworks["vllm"]["releases"]]
TOOLKITS = sorted({row["toolkit"] for row in TABLES.cuda["releases"]})
PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
FIXED = settings(max_examples=150, deadline=None, derandomize=True)
maybe = st.sampled_from([None, True, False])


@st.composite
def machines(draw: st.DrawFn) -> StackNode:
    gpus = draw(st.lists(st.tuples(st.integers(1, 8), st.sampled_from(MODELS)), max_size=2))
    return node(
        " + ".join(f"{count} {model}" for count, model in gpus),
        os=draw(st.sampled_from(PLATFORMS)),
        arch=draw(st.sampled_from(["x86_64", "x86_64", "aarch64"])),
        python=draw(st.sampled_from([None, *PYTHONS])),
        pythons=draw(st.sampled_from([None, {"3.9": "/usr/bin/python3.9", "3.12": "/usr/bin/python3.12"}])),
        glibc=draw(st.sampled_from([None, None, "2.28", "2.34", "2.39"])),
        kernel=draw(st.sampled_from([None, "6.8.0-45-generic", "4.14.0"])),
        secure_boot=draw(maybe),
        nvswitch=draw(maybe),
        container=draw(st.booleans()),
        simulated=draw(st.booleans()),
        wsl=draw(st.sampled_from([False, False, True])),
        installed_driver=draw(st.sampled_from([None, "535.309.01", "566.14", "595.91.07"])),
    )


@st.composite
def wishes(draw: st.DrawFn) -> dict[str, Any]:
    framework = draw(st.sampled_from(["pytorch", "pytorch", "tensorflow", "none"]))
    versions = {"pytorch": TORCHES, "tensorflow": FLOWS, "none": TORCHES}[framework]
    often = ["auto"] * 5
    return {
        "framework": framework,
        "framework_version": draw(st.sampled_from(["newest"] * 10 + versions)),
        "serving": draw(st.sampled_from(["none", "none", "vllm"])),
        "serving_version": draw(st.sampled_from(["newest"] * 10 + VLLMS)),
        "cuda_toolkit": draw(st.sampled_from(["none"] * 10 + TOOLKITS)),
        "driver_branch": draw(st.sampled_from(often + BRANCHES)),
        "driver_version": draw(st.sampled_from([*often, *often, "580.95.05", "620.1.02", "535.183.01"])),
        "driver_source": draw(st.sampled_from([*often, "nvidia", "distribution"])),
        "module_flavour": draw(st.sampled_from([*often, "open", "proprietary"])),
        "policy": draw(st.sampled_from(["production", "lts", "newest"])),
        "python": draw(st.sampled_from(often + PYTHONS)),
    }


@FIXED
@given(machines(), wishes())
def test_a_solved_stack_passes_its_own_check_and_a_refusal_says_why(machine: StackNode, wish: dict[str, Any]) -> None:
    solution = plan(machine, **wish)
    if solution.status == "solved":
        assert check_stack(machine, solution.stack, TABLES) == []
        assert check_stack(None, solution.stack, TABLES) == []
        assert solution.gate is None
    else:
        assert solution.gate in GATES
        assert solution.reason
        assert solution.stack == {}


@FIXED
@given(machines(), wishes())
def test_a_planned_cuda_build_has_code_for_every_gpu(machine: StackNode, wish: dict[str, Any]) -> None:
    """``no kernel image is available for execution on the device`` cannot follow a green plan."""
    solution = plan(machine, **wish)
    framework = solution.stack.get("framework")
    if not framework or not framework["cuda"]:
        assert solution.status == "refused" or machine.simulated or not machine.gpus or not framework
        return
    assert not machine.simulated
    rows = TABLES.frameworks[framework["name"]]["releases"]
    line = framework["version"] if framework["name"] == "pytorch" else framework["version"].rsplit(".", 1)[0]
    row = next(row for row in rows if row["version"] in (framework["version"], line))
    if framework["name"] == "pytorch":
        codes = build_sass(TABLES.frameworks, row, framework["build"], machine.arch)
        ptx = codes[-1:] if codes and row["builds"][framework["build"]]["ptx"] else []
    else:
        codes, ptx = row["sass"], row["ptx"]
    assert codes
    for gpu in machine.gpus:
        capability = str(gpu.compute_capability)
        native = any(sass_runs(TABLES.frameworks, code, capability, framework["cuda"]) for code in codes)
        assert native or any(at_least(capability, code) for code in ptx)


@FIXED
@given(machines(), wishes())
def test_a_planned_driver_can_drive_every_gpu_and_run_every_cuda(machine: StackNode, wish: dict[str, Any]) -> None:
    solution = plan(machine, **wish)
    driver = solution.stack.get("driver")
    if not driver:
        return
    ages = {gpu.architecture for gpu in machine.gpus}
    if ages & {"blackwell"}:
        assert driver["flavour"] == "open"
        assert at_least(driver["branch"], "570")
    if ages & {"maxwell", "pascal", "volta"}:
        assert driver["flavour"] == "proprietary"
        assert not at_least(driver["branch"], "590")
    if ages & {"kepler"}:
        assert not at_least(driver["branch"], "495")
    for part in (solution.stack["framework"], solution.stack["toolkit"]):
        if part and part["cuda"]:
            least = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}[part["cuda"].split(".")[0]]
            assert at_least(driver["version"], least)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines(), wishes())
def test_the_same_input_gives_the_same_answer_and_tables_stay_as_they_are(
    machine: StackNode, wish: dict[str, Any]
) -> None:
    before = json.dumps([TABLES.drivers, TABLES.frameworks, TABLES.platforms, TABLES.cuda], sort_keys=True)
    first, second = plan(machine, **wish), plan(machine, **wish)
    assert first == second
    assert json.dumps(first.stack) == json.dumps(second.stack)
    first.stack.clear()
    assert json.dumps([TABLES.drivers, TABLES.frameworks, TABLES.platforms, TABLES.cuda], sort_keys=True) == before


@settings(max_examples=60, deadline=None, derandomize=True)
@given(machines(), wishes())
def test_every_alternative_is_really_solved(machine: StackNode, wish: dict[str, Any]) -> None:
    solution = plan(machine, **wish)
    assert len(solution.alternatives) <= 5
    for alternative in solution.alternatives:
        change = {name.removeprefix("stack_"): value for name, value in alternative["change"].items()}
        os_id = change.pop("os", None)
        if os_id is None:
            again = plan(machine, **{**wish, **change})
            assert again.status == "solved"
            assert alternative["stack_summary"] in alternative["sentence"]


def solved_samples() -> list[tuple[StackNode, Solution]]:
    samples = [
        (node("8 h100-sxm5-80gb", nvswitch=True, python="3.12"), {"serving": "vllm", "cuda_toolkit": "12.8"}),
        (node("v100-sxm2-32gb", os="debian12"), {}),
        (node("2 rtx-4090", os="debian12"), {"driver_source": "distribution", "driver_branch": "535"}),
        (node("b200-sxm", os="rocky9", python="3.11", secure_boot=True), {"policy": "lts"}),
        (node("t4"), {"framework": "tensorflow"}),
        (node(""), {}),
        (node("rtx-4090", wsl=True), {"cuda_toolkit": "12.8"}),
        (node("8 h100-sxm5-80gb", simulated=True, os="debian12"), {}),
    ]
    return [(machine, plan(machine, **wish)) for machine, wish in samples]


SAMPLES = solved_samples()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all plain values, and of empty lists and maps."""
    if isinstance(value, dict) and value:
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for position, part in enumerate(value) for leaf in leaves(part, (*path, position))]
    return [path]


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    edited = copy.deepcopy(document)
    place: Any = edited
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return edited


#: values that only a node can tell right from wrong, so that a stack with another one is still a consistent stack
NODE_TELLS = {("driver", "signing"), ("platform", "glibc"), ("platform", "python")}


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_an_edit_of_any_value_is_found(sample: int) -> None:
    machine, solution = SAMPLES[sample]
    assert solution.status == "solved", solution.reason
    for path in leaves(solution.stack):
        for wrong in ("edited", None, "999.99.99", 7):
            edited = changed(solution.stack, path, wrong)
            if edited != solution.stack and path not in NODE_TELLS:
                assert check_stack(machine, edited, TABLES), f"{path} = {wrong!r} was not found"


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_a_value_that_is_gone_or_new_is_found(sample: int) -> None:
    machine, solution = SAMPLES[sample]
    for key in solution.stack:
        edited = copy.deepcopy(solution.stack)
        del edited[key]
        assert check_stack(machine, edited, TABLES), f"{key} was removed and not missed"
    for part in ("driver", "framework", "container_toolkit", "os", "libraries"):
        if solution.stack[part] is not None:
            assert check_stack(machine, changed(solution.stack, (part, "added"), "x"), TABLES), part


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(range(len(SAMPLES))), st.data())
def test_versions_builds_and_branches_that_exist_elsewhere_are_found(sample: int, data: st.DataObject) -> None:
    machine, solution = SAMPLES[sample]
    path = data.draw(
        st.sampled_from(
            [
                *[("driver", key) for key in ("branch", "version", "flavour", "source")],
                *[("framework", key) for key in ("version", "build", "cuda", "name")],
                ("serving", "version"),
                ("toolkit", "cuda"),
                ("fabric_manager", "version"),
                ("python", "version"),
            ]
        )
    )
    part = solution.stack[path[0]]
    assume(part is not None)
    values: list[Any] = {
        "branch": BRANCHES,
        "flavour": ["open", "proprietary"],
        "source": ["nvidia", "distribution"],
        "build": ["cpu", "cu126", "cu128", "cu130", "cu132", "and-cuda", None],
        "name": ["pytorch", "tensorflow"],
    }.get(path[1], [*TORCHES, *FLOWS, *VLLMS, *TOOLKITS, "580.95.05", "595.58.03", "3.8", "3.13"])
    edited = changed(solution.stack, path, data.draw(st.sampled_from(values)))
    if edited != solution.stack:
        assert check_stack(machine, edited, TABLES)


def test_another_node_is_found() -> None:
    machine, solution = SAMPLES[0]
    for other, words in (
        (node("4 h100-sxm5-80gb", nvswitch=True, python="3.12"), "4 x NVIDIA H100"),
        (node("8 a100-sxm4-80gb", nvswitch=True, python="3.12"), "8 x NVIDIA A100"),
        (node("8 h100-sxm5-80gb", nvswitch=True, python="3.12", os="ubuntu2204"), "ubuntu2204"),
        (node("8 h100-sxm5-80gb", nvswitch=False, python="3.12"), "fabric_manager"),
        (node("8 h100-sxm5-80gb", nvswitch=True, python="3.12", simulated=True), "simulated"),
        (node("8 h100-sxm5-80gb", nvswitch=True, python="3.12", secure_boot=True), "driver.signing"),
        (node("8 h100-sxm5-80gb", nvswitch=True, python="3.12", kernel="4.14.0"), "need Linux 4.15"),
    ):
        problems = check_stack(other, solution.stack, TABLES)
        assert any(words in problem for problem in problems), (words, problems)
    assert check_stack(machine, solution.stack, TABLES) == []
