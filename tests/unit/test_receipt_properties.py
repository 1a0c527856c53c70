# SPDX-License-Identifier: Apache-2.0
"""Whatever a receipt lists: any one change of it is noticed and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.receipt_node import dpkg, folder_instead, install, link, node, stanza, venv

from ansible.module_utils.rackwright.receipt_items import collect, drift

NAMES = st.from_regex(r"[a-z][a-z0-9+.-]{1,8}", fullmatch=True).filter(lambda name: name != "dpkg")
VERSIONS = st.from_regex(r"[0-9][a-z0-9.+~-]{0,8}", fullmatch=True)
PACKAGES = st.dictionaries(NAMES, st.tuples(VERSIONS, st.booleans()), min_size=1, max_size=8)
FILES = st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.binary(max_size=20), min_size=1, max_size=5)
DISTS = st.dictionaries(
    st.from_regex(r"[a-z]{2,6}", fullmatch=True), st.from_regex(r"[0-9]\.[0-9]", fullmatch=True), min_size=1, max_size=5
)
PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def lay(root: Path, packages: dict[str, tuple[str, bool]]) -> None:
    dpkg(root, *(stanza(n, v, f"{'hold' if held else 'install'} ok installed") for n, (v, held) in packages.items()))


@PROPERTY
@given(packages=PACKAGES, data=st.data())
def test_any_change_of_any_package_is_named(
    tmp_path_factory: pytest.TempPathFactory, packages: dict[str, tuple[str, bool]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("node")
    lay(root, packages)
    items = collect({"packages": list(packages)}, node(root))
    assert drift(items, node(root)) == []

    name = data.draw(st.sampled_from(sorted(packages)))
    version, held = packages[name]
    changed = data.draw(st.sampled_from(["version", "hold", "removed"]))
    after = dict(packages)
    if changed == "version":
        after[name] = (data.draw(VERSIONS.filter(lambda other: other != version)), held)
    elif changed == "hold":
        after[name] = (version, not held)
    else:
        del after[name]
    lay(root, after)

    sentences = drift(items, node(root))
    assert len(sentences) == 1
    assert f" {name} " in sentences[0]


@PROPERTY
@given(files=FILES, data=st.data())
def test_any_change_of_any_file_is_named(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("node")
    for name, content in files.items():
        (root / name).write_bytes(content)
        (root / name).chmod(0o644)
    wanted = {"files": [f"/{name}" for name in files], "absent": ["/GONE"]}
    items = collect(wanted, node(root))
    assert drift(items, node(root)) == []

    name = data.draw(st.sampled_from([*sorted(files), "GONE"]))
    path = root / name
    changes: dict[str, Callable[[], Any]] = {
        "content": lambda: path.write_bytes(data.draw(st.binary(max_size=20).filter(lambda new: new != files[name]))),
        "mode": lambda: path.chmod(data.draw(st.sampled_from([0o600, 0o755, 0o4644]))),
        "removed": path.unlink,
        "folder": lambda: folder_instead(path),
        "link": lambda: link(path, root / "OTHER"),
    }
    if name == "GONE":
        path.touch()
    else:
        changes[data.draw(st.sampled_from(sorted(changes)))]()

    sentences = drift(items, node(root))
    assert sentences
    assert all(sentence.startswith(f"/{name} ") for sentence in sentences)


@PROPERTY
@given(dists=DISTS, everything=st.booleans(), data=st.data())
def test_any_change_of_any_package_of_an_environment_is_named(
    tmp_path_factory: pytest.TempPathFactory, dists: dict[str, str], everything: bool, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("node")
    folder = venv(root, packages=dists)
    wanted = {"venvs": [{"path": "/opt/venv", "packages": None if everything else sorted(dists)}]}
    items = collect(wanted, node(root))
    assert drift(items, node(root)) == []

    name = data.draw(st.sampled_from(sorted(dists)))
    site = folder / "lib/python3.11/site-packages"
    info = site / f"{name}-{dists[name]}.dist-info"
    changes: dict[str, Callable[[], Any]] = {
        "other version": lambda: info.rename(site / f"{name}-9.9.9.dist-info"),
        "removed": lambda: shutil.rmtree(info),
        "second version": lambda: install(folder, name, "9.9.9"),
        "file gone": lambda: (site / name / "__init__.py").unlink(),
        "file cut": lambda: (site / name / "__init__.py").write_text("", encoding="utf-8"),
        "no record": (info / "RECORD").unlink,
    }
    changes[data.draw(st.sampled_from(sorted(changes)))]()

    sentences = drift(items, node(root))
    assert any(name in sentence and "/opt/venv" in sentence for sentence in sentences)
