# SPDX-License-Identifier: Apache-2.0
"""The environment role python_env leaves on a node. Runs on test nodes and on real ones alike."""

from __future__ import annotations

import json
from typing import Any

VENV = "/opt/rackwright/venv"


def test_the_interpreter_belongs_to_the_environment(host: Any) -> None:
    prefixes = host.check_output(f"{VENV}/bin/python -I -c 'import sys; print(sys.prefix, sys.base_prefix)'").split()
    assert prefixes[0] == VENV
    assert prefixes[1] != VENV


def test_the_configuration_is_the_one_that_was_built(host: Any) -> None:
    marker = json.loads(host.check_output(f"cat {VENV}/.rackwright-venv.json"))
    assert marker["schema"] == 1
    assert host.check_output(f"cat {VENV}/pyvenv.cfg") == marker["pyvenv_cfg"].strip()


def test_no_build_is_half_done(host: Any) -> None:
    assert host.check_output("find /opt/rackwright -maxdepth 1 -name '.venv.*'") == ""


def test_every_file_has_one_owner(host: Any) -> None:
    owner = host.check_output(f"stat -c %U {VENV}")
    assert host.check_output(f"find {VENV} ! -user {owner}") == ""


def test_the_systems_python_is_still_protected(host: Any) -> None:
    assert host.check_output("ls /usr/lib/python3*/EXTERNALLY-MANAGED") != ""
    assert host.check_output("find /usr/local/lib -name '*.dist-info'") == ""


def test_the_role_left_a_receipt_that_only_root_can_read(host: Any) -> None:
    receipt = host.file("/var/lib/rackwright/receipts/python_env.json")
    assert (receipt.user, receipt.mode) == ("root", 0o600)
    assert json.loads(receipt.content_string)["role"] == "python_env"
