# SPDX-License-Identifier: Apache-2.0
"""Every error has the one form people and programs can rely on."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.errors import InvalidInputError, ProbeError, RackwrightError, sentence


@pytest.mark.parametrize(
    ("raw", "closed"),
    [
        ("open", "open."),
        ("closed.", "closed."),
        (" two\n lines ", "two lines."),
        ("really?", "really?"),
        ("x...", "x."),
    ],
)
def test_sentence_is_closed_once_and_flat(raw: str, closed: str) -> None:
    assert sentence(raw) == closed


def test_message_names_action_object_cause_and_next_step() -> None:
    error = ProbeError("read the temperature", "GPU 3", "the GPU is lost", "Reboot the node")
    assert str(error) == "Could not read the temperature on GPU 3: the GPU is lost. Reboot the node."


def test_result_carries_machine_keys() -> None:
    error = InvalidInputError("use timeout", "gpu_facts", "it is 0", "Give seconds above 0", expected="> 0", found=0)
    assert error.to_result() == {
        "msg": "Could not use timeout on gpu_facts: it is 0. Give seconds above 0.",
        "kind": "invalid_input",
        "expected": "> 0",
        "found": 0,
        "hint": "Give seconds above 0.",
    }
    assert isinstance(error, RackwrightError)
