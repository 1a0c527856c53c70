# SPDX-License-Identifier: Apache-2.0
"""The torch role pytorch leaves on a node. Runs on test nodes and on real ones alike."""

from __future__ import annotations

import json
from typing import Any

VENV = "/opt/rackwright/venv"
ASK = "import torch; print(torch.__version__, torch.version.cuda, float((torch.ones(3) @ torch.ones(3))))"


def test_torch_computes(host: Any) -> None:
    assert host.check_output(f'{VENV}/bin/python -I -c "{ASK}"').split()[2] == "3.0"


def test_what_was_recorded_is_what_imports(host: Any) -> None:
    marker = host.file(f"{VENV}/.rackwright-pytorch.json")
    version, cuda, _ = host.check_output(f'{VENV}/bin/python -I -c "{ASK}"').split()
    if not marker.exists:  # the distribution's own package keeps its own books
        assert host.check_output("dpkg-query -W -f '${Version}' python3-torch").startswith(version.split("+")[0])
        return
    recorded = json.loads(marker.content_string)
    assert version.split("+")[0] == recorded["version"]
    assert (cuda == "None") == (recorded["build"] == "cpu")
    assert "numpy" in recorded["packages"]


def test_numpy_and_torch_share_memory(host: Any) -> None:
    script = "import numpy, torch; print(float(torch.from_numpy(numpy.ones(4)).sum()))"
    assert host.check_output(f'{VENV}/bin/python -I -c "{script}"') == "4.0"


def test_the_role_left_a_receipt_that_only_root_can_read(host: Any) -> None:
    receipt = host.file("/var/lib/rackwright/receipts/pytorch.json")
    assert (receipt.user, receipt.mode) == ("root", 0o600)
    assert json.loads(receipt.content_string)["role"] == "pytorch"
