# SPDX-License-Identifier: Apache-2.0
"""One package transaction against a recorded dnf: what runs, in which order, what is locked and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.package_wishes import wish

from ansible.module_utils.rackwright.errors import RackwrightError, TimedOutError
from ansible.module_utils.rackwright.package_set import PackageSet, Wish
from ansible.module_utils.rackwright.packages_any import package_manager
from ansible.module_utils.rackwright.packages_apt import Apt
from ansible.module_utils.rackwright.packages_base import Transaction
from ansible.module_utils.rackwright.packages_dnf import STAMP, Dnf

HELD = "metadata already locked by 7\n  The application with PID 7 is: dnf\n"
LIST = "etc/dnf/plugins/versionlock.list"
STREAM = "etc/dnf/modules.d/nvidia-driver.module"
CUDA580, CUDA590 = "nvidia-driver-cuda=3:580.1-1.el9", "nvidia-driver-cuda=3:590.1-1.el9"


class Node:
    """A node's dnf and rpm as far as they are asked. Locks are respected as the plugin does, streams are not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.installed: dict[str, list[str]] = {}
        self.offered: dict[str, list[str]] = {}
        self.fail: dict[str, list[str]] = {}
        self.broken = False
        self.acted: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        words = [word for word in command if not word.startswith("-")]
        failures = self.fail.get(" ".join(words[:2])) or self.fail.get(" ".join(words[:3]), [])
        if failures:
            return 1, "", failures.pop(0)
        if words[0] == "rpm":
            return self._rpm(list(command), words)
        if words[1] == "repoquery":
            return self._query(words[3:], command)
        return self._act(words, command)

    def _rpm(self, command: list[str], words: list[str]) -> tuple[int, str, str]:
        if "--rebuilddb" in command:
            self.broken = False
            self.acted.append("rpm --rebuilddb")
            return 0, "", ""
        if "--whatprovides" in command:
            return (0 if words[-1] in self.installed else 1), "", ""
        if self.broken:
            return 1, "", "error: cannot open Packages database in /var/lib/rpm\n"
        rows = [(name, version) for name, versions in self.installed.items() for version in versions]
        return 0, "".join(f"{n}\t{v}\tx86_64\t{n}-{v.split(':')[-1]}.src.rpm\t1\n" for n, v in rows), ""

    def _locks(self, command: Sequence[str]) -> list[str]:
        own = next((word.partition("pluginconfpath=")[2] for word in command if "pluginconfpath" in word), "")
        path = Path(own) / "list" if own else self.root / LIST
        return path.read_text(encoding="utf-8").split("\n") if path.exists() else []

    def _visible(self, name: str, command: Sequence[str]) -> list[str]:
        locked = [row for row in self._locks(command) if row.startswith(f"{name}-") and row[len(name) + 1].isdigit()]
        versions = self.offered.get(name, [])
        full = {version: version if ":" in version else f"0:{version}" for version in versions}
        return [v for v in versions if not locked or f"{name}-{full[v]}.*" in locked]

    def _query(self, names: list[str], command: Sequence[str]) -> tuple[int, str, str]:
        rows = [(n, v) for n in self.offered for v in self._visible(n, command) if {n, f"{n}-{v}.x86_64"} & set(names)]
        return 0, "".join(f"{n}\t{v if ':' in v else '0:' + v}\tx86_64\tcuda\n" for n, v in rows), ""

    def _act(self, words: list[str], command: Sequence[str]) -> tuple[int, str, str]:
        verb, specs = words[1], words[2:]
        removed: list[str] = []
        if verb == "shell":
            lines = dict(line.split(" ", 1) for line in Path(specs[0]).read_text(encoding="utf-8").splitlines()[:2])
            removed, specs = lines["remove"].split(), lines["install"].split()
        if verb == "remove":
            removed, specs = (specs, []) if "--duplicates" not in command else ([], [])
        if verb in ("install", "shell"):
            wanted = dict(self._spec(spec, command) for spec in specs)
            missing = [name for name, version in wanted.items() if not version]
            if missing:
                return 1, "", f"Error: Unable to find a match: {' '.join(missing)}\n"
        else:
            wanted = {}
        if "--assumeno" in command:
            return 1, self._table(wanted, removed, verb), "Operation aborted.\n"
        script = f"-{' -'.join(removed)}" if verb == "shell" else ""
        self.acted.append(" ".join([verb, *(specs or removed), *([script] if script else [])]))
        return self._done(verb, words, wanted, removed)

    def _done(self, verb: str, words: list[str], wanted: dict[str, str], removed: list[str]) -> tuple[int, str, str]:
        self.installed.update({name: [version] for name, version in wanted.items()})
        for name in removed:
            self.installed.pop(name)
        if verb == "remove" and not removed:
            self.installed = {name: versions[-1:] for name, versions in self.installed.items()}
        if verb == "module" and words[2] == "reset":
            (self.root / STREAM).write_text("[nvidia-driver]\nstream=\nstate=\n", encoding="utf-8")
        if verb == "module" and words[2] == "enable":
            module, _colon, stream = words[3].partition(":")
            text = f"[{module}]\nname={module}\nstream={stream}\nstate=enabled\n"
            (self.root / STREAM).write_text(text, encoding="utf-8")
        return 0, "Complete!\n", ""

    def _spec(self, spec: str, command: Sequence[str]) -> tuple[str, str]:
        for name in self.offered:
            for version in self._visible(name, command):
                if spec in (name, f"{name}-{version}", f"{name}-{version}.x86_64"):
                    return name, version
        return spec, ""

    def _table(self, wanted: dict[str, str], removed: list[str], verb: str) -> str:
        lines = ["Installing:", *(f" {n} x86_64 {v} cuda 1 k" for n, v in wanted.items() if n not in self.installed)]
        lines += ["Upgrading:", *(f" {n} x86_64 {v} cuda 1 k" for n, v in wanted.items() if n in self.installed)]
        lines += ["Removing:", *(f" {n} x86_64 {self.installed[n][-1]} @cuda 1 k" for n in removed)]
        extra = [" bystander x86_64 1-1 @x 1 k"] if "bystander" in self.installed and removed else []
        return "\n".join([*lines, "Removing dependent packages:", *extra, "", "Transaction Summary", ""])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/dnf/plugins", "etc/dnf/modules.d", "etc/yum.repos.d", "var/cache/dnf", "var/lib/rackwright"):
        (tmp_path / folder).mkdir(parents=True)
    plugin = tmp_path / "usr/lib/python3.9/site-packages/dnf-plugins/versionlock.py"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    (tmp_path / "etc/dnf/plugins/versionlock.conf").write_text(
        "[main]\nenabled = 1\nlocklist = /etc/dnf/plugins/versionlock.list\n", encoding="utf-8"
    )
    (tmp_path / "var/cache/dnf/stub.solv").touch()
    (tmp_path / STAMP).touch()
    return tmp_path


@pytest.fixture
def node(root: Path) -> Node:
    found = Node(root)
    found.offered = {
        "nvidia-driver-cuda": ["3:590.1-1.el9", "3:580.1-1.el9"],
        "kmod-nvidia-open-dkms": ["3:580.1-1.el9"],
        "cmake": ["3.27-1.el9"],
        "python3-dnf-plugin-versionlock": ["4.0-1"],
    }
    return found


def run(node: Node, wanted: Wish, check: bool = False, timeout: int = 10) -> dict[str, Any]:
    clock = iter(range(0, 10_000, 3))
    dnf = Dnf(node, "gpu-a", timeout, root=node.root, clock=lambda: float(next(clock)), sleep=lambda _seconds: None)
    return PackageSet(dnf, wanted, check).run().to_result()


def locks(node: Node) -> str:
    return (node.root / LIST).read_text(encoding="utf-8") if (node.root / LIST).exists() else ""


def test_install_then_lock_then_nothing(node: Node) -> None:
    wanted = wish(packages=[CUDA580], hold=["*nvidia*"])
    first = run(node, wanted)
    assert first["actions"] == ["install nvidia-driver-cuda 3:580.1-1.el9", "hold nvidia-driver-cuda"]
    assert locks(node) == "nvidia-driver-cuda-3:580.1-1.el9.*\n"
    again = run(node, wanted)
    assert again["changed"] is False
    assert first["on_hold"] == again["on_hold"] == ["nvidia-driver-cuda"]
    assert run(node, wish(release=["*nvidia*"]))["released"] == ["nvidia-driver-cuda"]
    assert locks(node) == ""


def test_a_locked_package_moves_when_it_is_asked_for_and_its_lock_moves_along(node: Node) -> None:
    node.installed["nvidia-driver-cuda"] = ["3:580.1-1.el9"]
    (node.root / LIST).write_text("# mine\nother-0:1-1.*\nnvidia-driver-cuda-3:580.1-1.el9.*\n", encoding="utf-8")
    result = run(node, wish(packages=[CUDA590]))
    assert result["actions"] == ["change nvidia-driver-cuda 3:580.1-1.el9 -> 3:590.1-1.el9"]
    assert locks(node) == "# mine\nother-0:1-1.*\nnvidia-driver-cuda-3:590.1-1.el9.*\n"


def test_a_failure_leaves_every_lock_as_it_was(node: Node) -> None:
    node.installed["nvidia-driver-cuda"] = ["3:580.1-1.el9"]
    text = "nvidia-driver-cuda-3:580.1-1.el9.*\n"
    (node.root / LIST).write_text(text, encoding="utf-8")
    node.fail["dnf install"] = ["Error: Transaction test error:\n  file conflicts\n"]
    with pytest.raises(RackwrightError, match="Could not install nvidia-driver-cuda on gpu-a"):
        run(node, wish(packages=[CUDA590]))
    assert locks(node) == text
    assert node.installed["nvidia-driver-cuda"] == ["3:580.1-1.el9"]


def test_check_mode_says_the_same_and_does_nothing(node: Node) -> None:
    node.installed["nvidia-driver-cuda"] = ["3:580.1-1.el9"]
    text = "nvidia-driver-cuda-3:580.1-1.el9.*\n"
    (node.root / LIST).write_text(text, encoding="utf-8")
    wanted = wish(packages=[CUDA590, "unknown=9"], streams=["nvidia-driver:590-open"])
    result = run(node, wanted, check=True)
    assert result["actions"] == [
        "enable the module stream nvidia-driver:590-open",
        "change nvidia-driver-cuda 3:580.1-1.el9 -> 3:590.1-1.el9",
        "install unknown 9 (its dependencies are known once the package lists are updated)",
    ]
    assert node.acted == []
    assert locks(node) == text
    assert not (node.root / STREAM).exists()


def test_another_stream_is_left_and_the_new_one_enabled_before_the_packages(node: Node) -> None:
    (node.root / STREAM).write_text("[nvidia-driver]\nstream=580-open\nstate=enabled\n", encoding="utf-8")
    result = run(node, wish(packages=[CUDA590], streams=["nvidia-driver:590-open"]))
    assert node.acted == [
        "module reset nvidia-driver",
        "module enable nvidia-driver:590-open",
        "install nvidia-driver-cuda-3:590.1-1.el9",
    ]
    assert result["streams"] == ["nvidia-driver:590-open"]
    assert run(node, wish(packages=[CUDA590], streams=["nvidia-driver:590-open"]))["changed"] is False


@pytest.mark.parametrize("before", [None, "[nvidia-driver]\nstream=580-open\nstate=enabled\n"])
def test_where_the_installation_fails_the_earlier_stream_comes_back(node: Node, before: str | None) -> None:
    if before:
        (node.root / STREAM).write_text(before, encoding="utf-8")
    with pytest.raises(RackwrightError, match="no enabled repository offers nvidia-driver-cuda-3:600"):
        run(node, wish(packages=["nvidia-driver-cuda=3:600-1"], streams=["nvidia-driver:600-open"]))
    after = (node.root / STREAM).read_text(encoding="utf-8") if (node.root / STREAM).exists() else None
    assert after == before


def test_a_stream_nobody_has_is_refused_and_the_earlier_one_stays(node: Node) -> None:
    before = "[nvidia-driver]\nstream=580-open\nstate=enabled\n"
    (node.root / STREAM).write_text(before, encoding="utf-8")
    node.fail["dnf module enable"] = ["Error: Problems in request:\nmissing groups or modules: nvidia-driver:nope\n"]
    with pytest.raises(RackwrightError, match="no repository has the module stream nvidia-driver:nope"):
        run(node, wish(streams=["nvidia-driver:nope"]))
    assert node.acted == ["module reset nvidia-driver"]
    assert (node.root / STREAM).read_text(encoding="utf-8") == before


def test_what_goes_goes_in_the_same_transaction(node: Node) -> None:
    node.installed["kmod-nvidia-latest-dkms"] = ["3:580.1-1.el9"]
    wanted = wish(packages=["kmod-nvidia-open-dkms=3:580.1-1.el9"], remove=["kmod-nvidia-latest-dkms"])
    result = run(node, wanted)
    assert result["actions"] == [
        "install kmod-nvidia-open-dkms 3:580.1-1.el9",
        "remove kmod-nvidia-latest-dkms 3:580.1-1.el9",
    ]
    assert node.acted == ["shell kmod-nvidia-open-dkms-3:580.1-1.el9 -kmod-nvidia-latest-dkms"]
    assert run(node, wanted)["changed"] is False


def test_a_transaction_that_takes_others_away_is_refused(node: Node) -> None:
    node.installed = {"cmake": ["3.27-1.el9"], "bystander": ["1-1"]}
    with pytest.raises(RackwrightError, match="Could not remove cmake on gpu-a: it would remove bystander"):
        run(node, wish(remove=["cmake"]))
    assert node.acted == []


def test_a_shell_that_ends_well_and_did_nothing_is_an_error(node: Node) -> None:
    node.installed["cmake"] = ["3.27-1.el9"]
    dnf = Dnf(
        lambda command: node(command) if command[0] == "rpm" else (0, "Complete!\n", ""), "gpu-a", 1, root=node.root
    )
    with pytest.raises(RackwrightError, match="Could not remove cmake"):
        dnf.apply(Transaction([], ["cmake"]))


def test_two_versions_of_a_package_are_repaired_first(node: Node) -> None:
    node.installed["cmake"] = ["3.26-2.el9", "3.27-1.el9"]
    assert run(node, wish(), check=True)["repaired"] == ["cmake"]
    assert run(node, wish())["actions"] == ["repair cmake"]
    assert node.installed["cmake"] == ["3.27-1.el9"]
    assert run(node, wish())["changed"] is False


def test_kernels_side_by_side_are_no_accident(node: Node) -> None:
    node.installed["kernel-core"] = ["5.14.0-503.el9", "5.14.0-570.el9"]
    result = run(node, wish(hold=["kernel-core"]))
    assert result["repaired"] == []
    assert locks(node) == "kernel-core-0:5.14.0-503.el9.*\nkernel-core-0:5.14.0-570.el9.*\n"
    node.installed["kernel-core"].append("5.14.0-600.el9")
    assert run(node, wish(hold=["kernel-core"]))["held"] == ["kernel-core"]


def test_headers_of_another_kernel_come_by_their_full_name_and_are_locked_with_the_others(node: Node) -> None:
    node.installed["kernel-devel"] = ["5.14.0-503.el9"]
    node.offered["kernel-devel"] = ["5.14.0-600.el9", "5.14.0-570.el9", "5.14.0-503.el9"]
    (node.root / LIST).write_text("kernel-devel-0:5.14.0-503.el9.*\n", encoding="utf-8")
    spec = "kernel-devel-5.14.0-570.el9.x86_64"

    def beside(verb: str, words: list[str], wanted: dict[str, str], removed: list[str]) -> tuple[int, str, str]:
        node.installed["kernel-devel"].append(wanted["kernel-devel"])
        return 0, "Complete!\n", ""

    node._done = beside  # type: ignore[method-assign]
    result = run(node, wish(optional=[spec]))
    assert result["unavailable"] == []
    assert node.acted == [f"install {spec}"]
    assert locks(node) == "kernel-devel-0:5.14.0-503.el9.*\nkernel-devel-0:5.14.0-570.el9.*\n"


def test_a_database_that_cannot_be_read_is_rebuilt(node: Node) -> None:
    node.installed["cmake"] = ["3.27-1.el9"]
    node.broken = True
    with pytest.raises(RackwrightError, match="Could not read rpm's database on gpu-a: error: cannot open Packages"):
        run(node, wish(), check=True)
    assert run(node, wish(packages=["cmake"]))["repaired"] == ["(database)"]
    assert node.acted == ["rpm --rebuilddb"]


def test_the_plugin_is_installed_where_something_is_to_be_held(node: Node) -> None:
    plugin = node.root / "usr/lib/python3.9/site-packages/dnf-plugins/versionlock.py"
    plugin.unlink()
    node.installed["cmake"] = ["3.27-1.el9"]
    act = node._done

    def install(verb: str, words: list[str], wanted: dict[str, str], removed: list[str]) -> tuple[int, str, str]:
        plugin.touch()
        return act(verb, words, wanted, removed)

    node._done = install  # type: ignore[method-assign]
    assert run(node, wish(hold=["cmake"]))["actions"] == ["install python3-dnf-plugin-versionlock 4.0-1", "hold cmake"]
    plugin.unlink()
    del node.offered["python3-dnf-plugin-versionlock"], node.installed["python3-dnf-plugin-versionlock"]
    with pytest.raises(RackwrightError, match="no enabled repository offers python3-dnf-plugin-versionlock"):
        run(node, wish(hold=["cmake"]))


def test_a_pattern_of_holds_may_name_versions(node: Node) -> None:
    node.installed = {"nvidia-driver-cuda": ["3:580.1-1.el9"], "nvidia-container-toolkit": ["1.19.0-1"]}
    assert run(node, wish(hold=["*nvidia*580*"]))["held"] == ["nvidia-driver-cuda"]


def test_a_lock_by_name_alone_holds_nothing(node: Node) -> None:
    node.installed["cmake"] = ["3.27-1.el9"]
    (node.root / LIST).write_text("cmake\n", encoding="utf-8")
    assert run(node, wish(hold=["cmake"]))["held"] == ["cmake"]
    assert locks(node) == "cmake-0:3.27-1.el9.*\n"


def test_an_optional_package_nobody_offers_is_no_error(node: Node) -> None:
    result = run(node, wish(optional=["kernel-devel-5.14.0-1.el9.x86_64"]))
    assert result["unavailable"] == ["kernel-devel-5.14.0-1.el9.x86_64"]
    assert result["changed"] is False


def test_waits_for_a_lock_and_gives_up_after_the_timeout(node: Node) -> None:
    node.fail["dnf install"] = [HELD, HELD]
    result = run(node, wish(packages=["cmake"]), timeout=60)
    assert result["changed"] is True
    assert result["lock_waited_s"] > 0
    node.fail["dnf repoquery"] = [HELD] * 50
    with pytest.raises(TimedOutError, match=r"process 7 \(dnf\) has held it for more than"):
        run(node, wish(packages=[CUDA580]))


@pytest.mark.parametrize(
    ("identity", "programs", "kind"),
    [("rocky", ["dnf", "apt-get"], Dnf), ("debian", ["dnf", "apt-get"], Apt), ("debian", ["dnf"], Dnf)],
)
def test_the_package_manager_is_that_of_the_distribution(
    tmp_path: Path, identity: str, programs: list[str], kind: type
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(f'ID="{identity}"\nVERSION_ID="9.5"\n', encoding="utf-8")
    (tmp_path / "usr/bin").mkdir(parents=True)
    for program in programs:
        (tmp_path / "usr/bin" / program).touch()
    assert type(package_manager(lambda _command: (0, "", ""), "gpu-a", 1, root=tmp_path)) is kind


def test_a_node_without_a_package_manager_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RackwrightError, match="it has neither apt-get nor dnf"):
        package_manager(lambda _command: (0, "", ""), "gpu-a", 1, root=tmp_path)


def test_apt_knows_no_streams(tmp_path: Path) -> None:
    apt = Apt(lambda _command: (0, "", ""), "gpu-a", 1, root=tmp_path)
    with pytest.raises(RackwrightError, match="apt knows no module streams"):
        apt.switch_streams(["nvidia-driver:580-open"])
