# SPDX-License-Identifier: Apache-2.0
"""CDI specifications as nvidia-ctk writes them, in YAML and JSON, and texts that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unit.software_samples import write

from ansible.module_utils.rackwright import cdi

UUID = "GPU-520e01f2-cf30-6396-abef-e8e9a5233b0e"
#: the shape of `nvidia-ctk cdi generate` 1.17 (keys sorted, names after the edits), shortened
YAML = f"""---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - enable-cuda-compat
    - --host-driver-version=575.64.03
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
    hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
    options:
    - ro
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.575.64.03
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not-a-device
    hooks:
    - args:
      - name: neither
      hookName: createContainer
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: {UUID}
- name: all  # what every container gets
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
kind: nvidia.com/gpu
"""


def as_json(text: str) -> str:
    return json.dumps(yaml.safe_load(text), indent=2)


@pytest.mark.parametrize("text", [YAML, as_json(YAML)], ids=["yaml", "json"])
def test_specification_tells_driver_and_devices(text: str) -> None:
    assert cdi.kind_of(text) == "nvidia.com/gpu"
    assert cdi.driver_version_of(text) == "575.64.03"
    assert cdi.devices_of(text) == ["0", UUID, "all"]


def test_names_agree_with_a_yaml_parser_for_every_indentation() -> None:
    for width in (0, 2, 4):
        document = {
            "kind": "nvidia.com/gpu",
            "devices": [{"containerEdits": {}, "name": n} for n in ("0", "1:2", "all")],
        }
        text = yaml.safe_dump(document)
        head, _devices, rest = text.partition("devices:\n")
        body, _kind, tail = rest.partition("kind:")
        indented = "".join(f"{' ' * width}{line}\n" for line in body.splitlines())
        moved = f"{head}devices:\n{indented}kind:{tail}"
        assert yaml.safe_load(moved) == document
        assert cdi.devices_of(moved) == ["0", "1:2", "all"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("hostPath: /usr/lib64/libnvidia-ml.so.535.309.01\n", "535.309.01"),
        ("hostPath: /usr/lib/aarch64-linux-gnu/libcuda.so.580.142\n", "580.142"),
        ("hostPath: /usr/lib64/libEGL_nvidia.so.570.211.01\n", "570.211.01"),
        ("hostPath: /usr/lib/wsl/drivers/nv_dispi.inf_amd64_1/libcuda.so.1.1\n", None),
        ("hostPath: /usr/lib/wsl/lib/libdxcore.so\n", None),
        ("hostPath: /usr/lib64/libcuda.so.580.65.06.1\n", None),
    ],
)
def test_driver_version_is_that_of_the_drivers_own_files(text: str, version: str | None) -> None:
    assert cdi.driver_version_of(text) == version


def test_only_specifications_for_gpus_are_read_in_the_order_of_runtimes(tmp_path: Path) -> None:
    write(tmp_path, "run/cdi/nvidia.yaml", YAML.replace("575.64.03", "580.65.06"))
    write(tmp_path, "etc/cdi/nvidia.json", as_json(YAML))
    write(tmp_path, "etc/cdi/a-network.yaml", YAML.replace("nvidia.com/gpu", "vendor.com/net"))
    write(
        tmp_path, "run/cdi/k8s.gpu.nvidia.com-claim_1.yaml", YAML.replace("nvidia.com/gpu", "k8s.gpu.nvidia.com/claim")
    )
    write(tmp_path, "etc/cdi/nvidia.yaml.bak", YAML)
    specs, missing = cdi.read_specs(tmp_path)
    assert [(spec["path"], spec["driver_version"]) for spec in specs] == [
        ("/etc/cdi/nvidia.json", "575.64.03"),
        ("/run/cdi/nvidia.yaml", "580.65.06"),
    ]
    assert missing == {}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc/cdi/nvidia.yaml").mkdir(parents=True)
    (tmp_path / "etc/cdi/other.yaml").mkdir()
    specs, missing = cdi.read_specs(tmp_path)
    assert specs == [{"path": "/etc/cdi/nvidia.yaml", "driver_version": None, "devices": None}]
    assert missing["0.driver_version"] == "/etc/cdi/nvidia.yaml cannot be read (is a directory)"
    assert cdi.read_specs(tmp_path / "nowhere") == ([], {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": 3, "devices": {"name": "0"}}', "kind:\ndevices:\n- x\n"])
def test_texts_that_are_no_specification_have_nothing(text: str) -> None:
    assert (cdi.kind_of(text) or None, cdi.driver_version_of(text), cdi.devices_of(text)) == (None, None, [])


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(["devices:", "- ", " ", "name: 0", "\n", "kind: a"])).map("".join))
)
def test_no_text_makes_it_raise(text: str) -> None:
    for name in cdi.devices_of(text):
        assert name
    assert cdi.kind_of(text) is None or isinstance(cdi.kind_of(text), str)


NAMES = st.text(st.characters(categories=("Lu", "Ll", "Nd"), include_characters=":-_."), min_size=1, max_size=20)


@given(st.lists(NAMES, unique=True))
def test_every_list_of_names_comes_back(names: list[str]) -> None:
    entries: list[Any] = [{"containerEdits": {"deviceNodes": [{"path": f"/dev/{n}"}]}, "name": n} for n in names]
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": entries}
    assert cdi.devices_of(json.dumps(document)) == names
    assert cdi.devices_of(yaml.safe_dump(document, allow_unicode=True)) == names
