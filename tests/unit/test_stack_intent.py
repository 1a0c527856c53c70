"""The wishes of a node: what is accepted, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.stack_intent import Intent, intent_from_vars


def test_without_variables_the_intent_is_the_defaults() -> None:
    assert intent_from_vars("n", {"unrelated": 1}) == Intent()
    assert Intent().as_dict() == {
        "stack_framework": "pytorch",
        "stack_framework_version": "newest",
        "stack_serving": "none",
        "stack_serving_version": "newest",
        "stack_cuda_toolkit": "none",
        "stack_driver_branch": "auto",
        "stack_driver_version": "auto",
        "stack_driver_source": "auto",
        "stack_module_flavour": "auto",
        "stack_policy": "production",
        "stack_python": "auto",
    }


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("stack_framework", "TensorFlow", "framework", "tensorflow"),
        ("stack_framework", "none", "framework", "none"),
        ("stack_framework_version", "2.13", "framework_version", "2.13"),
        ("stack_framework_version", " 2.13.0 ", "framework_version", "2.13.0"),
        ("stack_serving_version", "0.8.5.post1", "serving_version", "0.8.5.post1"),
        ("stack_driver_branch", 580, "driver_branch", "580"),
        ("stack_driver_branch", "470", "driver_branch", "470"),
        ("stack_driver_version", "580.178.04", "driver_version", "580.178.04"),
        ("stack_cuda_toolkit", 12.8, "cuda_toolkit", "12.8"),
        ("stack_cuda_toolkit", "13.0", "cuda_toolkit", "13.0"),
        ("stack_cuda_toolkit", ["12.8", 13.0], "cuda_toolkit", "12.8,13.0"),
        ("stack_cuda_toolkit", "13.0.2", "cuda_toolkit", "13.0.2"),
        ("stack_cuda_toolkit", "12.8, 13.0", "cuda_toolkit", "12.8,13.0"),
        ("stack_python", "3.12", "python", "3.12"),
        ("stack_policy", "lts", "policy", "lts"),
        ("stack_policy", None, "policy", "production"),
    ],
)
def test_values_are_taken(variable: str, value: Any, field: str, expected: str) -> None:
    assert getattr(intent_from_vars("n", {variable: value}), field) == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("stack_framework", "jax", "'jax' is none of pytorch, tensorflow, none"),
        ("stack_framework", "tensorflow-gpu", "Set stack_framework to tensorflow"),
        ("stack_framework", True, "True is not a text"),
        ("stack_framework_version", 2.1, "2.1 is not a text. Write it in quotes"),
        ("stack_framework_version", "latest", "'latest' is none of newest"),
        ("stack_serving", "tgi", "'tgi' is none of none, vllm"),
        ("stack_driver_branch", 580.5, "580.5 is not a text"),
        ("stack_driver_branch", "58", "'58' is none of auto"),
        ("stack_driver_branch", True, "True is not a text"),
        ("stack_driver_version", "580", "'580' is none of auto"),
        ("stack_driver_source", "runfile", "'runfile' is none of auto, nvidia, distribution"),
        ("stack_cuda_toolkit", "12", "'12' is none of none"),
        ("stack_cuda_toolkit", ["12.8", "newest"], "'12.8,newest' is none of none"),
        ("stack_cuda_toolkit", [], "'' is none of none"),
        ("stack_module_flavour", "nouveau", "'nouveau' is none of auto, open, proprietary"),
        ("stack_policy", "stable", "'stable' is none of lts, production, newest"),
        ("stack_python", 3.1, "3.1 is not a text. Write it in quotes"),
        ("stack_python", "2.7", "'2.7' is none of auto"),
        ("stack_python", ["3.12"], "is not a text"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(variable: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        intent_from_vars("gpu-a", {variable: value})
    assert words in str(caught.value)
    assert f"gpu-a ({variable})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_intent_changes_only_that() -> None:
    intent = Intent(policy="lts")
    assert intent.changed({"stack_framework_version": "2.14.0"}) == Intent(policy="lts", framework_version="2.14.0")
    assert intent == Intent(policy="lts")


ROOT = Path(__file__).parents[2]
OPTIONS = yaml.safe_load((ROOT / "roles/gpu_stack/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
    "options"
]


@pytest.mark.parametrize(("name", "default"), Intent().as_dict().items())
def test_every_wish_is_documented_with_its_default_and_choices(name: str, default: str) -> None:
    assert OPTIONS[name]["default"] == default
    for choice in OPTIONS[name].get("choices", []):
        intent_from_vars("n", {name: choice})
    assert f"| `{name}` |" in (ROOT / "docs" / "planning.md").read_text()
