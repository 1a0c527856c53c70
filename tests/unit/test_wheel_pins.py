# SPDX-License-Identifier: Apache-2.0
"""Pins of Python packages with extras, and versions that installers take for the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible.module_utils.rackwright.wheel_install import Venv, pin_problems


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("cuda-toolkit[nvcc]==13.0.3", None),
        ("cuda-toolkit==13.0.3.0", None),
        ("cuda-toolkit[nvcc]==13.0", "cuda-toolkit 13.0.3.0 is installed instead of 13.0"),
        ("cuda-toolkit[nvcc]==13.0.30", "cuda-toolkit 13.0.3.0 is installed instead of 13.0.30"),
    ],
)
def test_pins(tmp_path: Path, requirement: str, problem: str | None) -> None:
    info = tmp_path / "cuda_toolkit-13.0.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: cuda-toolkit\nVersion: 13.0.3.0\n")
    (info / "RECORD").write_text(
        "cuda_toolkit-13.0.3.0.dist-info/METADATA,,\ncuda_toolkit-13.0.3.0.dist-info/RECORD,,\n"
    )

    found = pin_problems(Venv(tmp_path, {"site": str(tmp_path)}), (requirement,))

    assert found == ([problem] if problem else [])
