# SPDX-License-Identifier: Apache-2.0
"""What a node is given: a network, limits, keys, files, certificates, packages."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from nodes import access, archives, certificates, fleet, payload, podman
from nodes.errors import NodesError

ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0101A8C0	0003	0	0	0	00000000	0	0	0
eth0	0001A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	00005A0A	00000000	0001	0	0	0	0000FFFF	0	0	0
"""
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


def test_routes_are_read_as_subnets() -> None:
    assert podman.routed_subnets(ROUTES) == ["192.168.1.0/24", "10.90.0.0/16"]


def test_a_fleet_gets_a_subnet_that_nothing_uses() -> None:
    free = fleet.free_subnet("demo", 2, ["10.90.0.0/16", "10.91.7.0/24", "fd00::/64"])
    assert len(free) == 255
    assert all(item.startswith("10.91.") and item != "10.91.7.0/24" for item in free)


def test_fleets_begin_their_search_at_different_places() -> None:
    assert len({fleet.free_subnet(name, 2, [])[0] for name in ("demo", "site", "os_base")}) == 3


def test_a_large_fleet_gets_a_larger_subnet() -> None:
    assert fleet.free_subnet("demo", 1000, [])[0].endswith("/20")


def test_limits_never_exceed_what_this_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman.resource, "getrlimit", lambda _kind: (256, 512))
    assert podman.ulimits() == ["--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"]


def test_limits_without_a_bound_become_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman.resource, "getrlimit", lambda _kind: (-1, podman.resource.RLIM_INFINITY))
    assert podman.ulimits() == ["--ulimit", "nofile=1024:524288", "--ulimit", "nproc=16384:16384"]


def test_ssh_keeps_host_key_checking_on(tmp_path: Path) -> None:
    path = tmp_path / "ssh_config"
    path.write_text(access.ssh_config(tmp_path, {"gpu-a": "192.0.2.10", "gpu-b": "192.0.2.11"}), encoding="utf-8")
    shown = subprocess.run(["ssh", "-G", "-F", str(path), "gpu-b"], capture_output=True, text=True, check=True).stdout
    options = dict(line.partition(" ")[::2] for line in shown.splitlines())
    assert options["hostname"] == "192.0.2.11"
    assert options["hostkeyalias"] == "gpu-b"
    assert options["user"] == "rackwright"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["userknownhostsfile"].strip('"') == str(tmp_path / "known_hosts")


def test_a_key_is_made_once(tmp_path: Path) -> None:
    first = access.make_key(tmp_path / "id", "test")
    assert access.make_key(tmp_path / "id", "test") == first
    assert first.startswith("ssh-ed25519 ")


def test_half_a_key_is_made_anew(tmp_path: Path) -> None:
    access.make_key(tmp_path / "id", "test")
    (tmp_path / "id.pub").unlink()
    assert access.make_key(tmp_path / "id", "test").startswith("ssh-ed25519 ")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodesError, match="shorter path"):
        access.socket_dir(tmp_path / ("x" * 80))


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    access.write_file(tmp_path / "nodes.json", "old")
    access.write_file(tmp_path / "nodes.json", "new")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("nodes.json", "new")]


def test_a_node_gets_its_secrets_with_the_right_owner_and_mode() -> None:
    data = payload.node_files("user key", "host key", "host public", "sources", {"etc/simnvml/mode": "managed\n"})
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive.getmembers()}
    keys = members["home/rackwright/.ssh/authorized_keys"]
    assert (keys.uid, keys.gid, stat.S_IMODE(keys.mode)) == (1000, 1000, 0o600)
    secret = members["etc/ssh/ssh_host_ed25519_key"]
    assert (secret.uid, stat.S_IMODE(secret.mode)) == (0, 0o600)
    assert stat.S_IMODE(members["home/rackwright/.ssh"].mode) == 0o700
    assert "etc/simnvml/mode" in members


def test_scripts_stay_executable() -> None:
    with tarfile.open(fileobj=io.BytesIO(payload.tar({"a": b"#!/bin/sh\n", "b": b"text"}))) as archive:
        assert [stat.S_IMODE(member.mode) for member in archive.getmembers()] == [0o755, 0o644]


def test_only_certificates_beyond_the_distribution_are_taken_along(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "a.crt").write_text(CERTIFICATE.format("QUFB"), encoding="ascii")
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("# comment\n" + CERTIFICATE.format("QUFB") + CERTIFICATE.format("QkJC"), encoding="ascii")
    extra = certificates.extra_certificates(bundle, shipped)
    assert list(extra.values()) == [CERTIFICATE.format("QkJC")]
    assert certificates.extra_certificates(tmp_path / "absent", shipped) == {}


def test_packages_are_linked_not_copied_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "as_root", list)
    node, cache = tmp_path / "node", tmp_path / "cache"
    node.mkdir()
    cache.mkdir()
    (node / "tree_1_amd64.deb").write_bytes(b"package")
    (node / "lock").touch()
    assert archives.link_all(node, cache) == 1
    assert archives.link_all(node, cache) == 0
    assert [path.name for path in cache.iterdir()] == ["tree_1_amd64.deb"]
    assert (cache / "tree_1_amd64.deb").samefile(node / "tree_1_amd64.deb")
    (node / "tree_1_amd64.deb").unlink()
    assert (cache / "tree_1_amd64.deb").read_bytes() == b"package"
