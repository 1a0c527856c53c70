# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal: what a cut keeps."""

from __future__ import annotations

import pytest

from ansible.module_utils.rackwright.text_table import table


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpu-01", "gpu-01"),
        ("gpu-rack-0017x", "gpu-rack-0017x"),
        ("gpu-rack3-node-0017", "gpu-ra..e-0017"),
        ("gpu-0017.dc1.example.org", "gpu-0017.."),
        ("gpu-rack-0017.example.org", "gpu-rack-0017"),
        ("gpu-rack3-node-0017.example.org", "gpu-ra..e-0017"),
        ("192.0.2.117:20022", "192.0...:20022"),
    ],
)
def test_a_name_that_is_cut_still_tells_nodes_apart(name: str, shown: str) -> None:
    rows = [{"node": name, "os": "debian12"}]
    lines = table(("node", "os"), rows, ("node",), {"node": 14}, width=24)
    assert lines[2].removesuffix("debian12").rstrip() == shown
    assert max(len(line) for line in lines) <= 24
