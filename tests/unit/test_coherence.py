# SPDX-License-Identifier: Apache-2.0
"""Each coherence rule: what triggers it and with what cure, what does not, what cannot be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.coherence_samples import K1, K2, OLD, UUID, V, changed, module, node, stack, without_module

from ansible.module_utils.rackwright import coherence
from ansible.module_utils.rackwright.coherence_view import MISMATCH, NOT_APPLICABLE, OK, UNKNOWN

PACKAGES = "software/packages/"
M1, M2 = f"software/modules/{K1}", f"software/modules/{K2}"
LIBRARY, LOADED = "driver/library_version", "driver/kernel_module_version"


def only(answers: list[dict[str, Any]], check: str, subject: str | None = None) -> dict[str, Any]:
    found = [a for a in answers if a["id"] == check and subject in (None, a["subject"])]
    assert len(found) == 1, (check, answers)
    return found[0]


def test_a_coherent_node_is_coherent_with_and_without_its_lock() -> None:
    answers = coherence.examine(node(), stack())
    assert {a["id"]: a["state"] for a in answers} == dict.fromkeys(coherence.IDS, OK)
    assert (coherence.findings(node(), stack()), coherence.coherent(node(), stack())) == ([], True)
    alone = {a["id"]: a["state"] for a in coherence.examine(node())}
    assert {i for i, state in alone.items() if state == NOT_APPLICABLE} == {"lock-version", "lock-flavour", "holds"}
    assert coherence.coherent(node()) is True


#: id, subject or None, severity, changes of the facts, piece of the cause, piece of the cure
MISMATCHES: list[tuple[str, str | None, str, dict[str, Any], str, str]] = [
    # updated, not rebooted: everything on the disk is new
    ("module-library", None, "fail", {LOADED: OLD}, f"the module {OLD} is still loaded", f"into the kernel {K2}"),
    (
        "module-library",
        None,
        "fail",
        {LOADED: OLD, "software/boots": K1},
        f"updated to {V}",
        "Reboot the node, or unload",
    ),
    # libraries updated, no module built: a reboot does not help
    (
        "module-library",
        None,
        "fail",
        {LOADED: OLD, M2: module(version=OLD, dkms_version=OLD)},
        "a reboot alone does not help",
        "playbooks/site.yml",
    ),
    ("module-library", None, "fail", {LOADED: OLD, "platform": "container"}, "The host of this container", "again"),
    # module package updated, libraries held back
    (
        "module-disk",
        None,
        "fail",
        {M1: module(version="580.200.01"), "software/boots": K1},
        "was changed to 580.200.01, the libraries are still",
        "before the next reboot",
    ),
    ("module-disk", None, "warn", {M1: without_module()}, f"The kernel {K1} has no NVIDIA module", "site.yml"),
    ("module-disk", None, "fail", {M1: without_module(), LOADED: None}, "has no NVIDIA module", "site.yml"),
    ("module-disk", None, "fail", {M1: without_module(), "software/boots": None}, "no NVIDIA module", "site.yml"),
    ("boot-kernel", None, "fail", {M2: without_module()}, f"{K2}, which boots next", "site.yml"),
    (
        "boot-kernel",
        None,
        "fail",
        {M2: without_module(dkms="added", dkms_version=V, headers=False)},
        "no NVIDIA module",
        f"Install linux-headers-{K2}, then run dkms autoinstall -k {K2}",
    ),
    (
        "boot-kernel",
        None,
        "fail",
        {M2: without_module(dkms="added", dkms_version=V, headers=False), "os/id": "rocky"},
        "no NVIDIA module",
        f"Install kernel-devel-{K2}",
    ),
    (
        "boot-kernel",
        None,
        "fail",
        {M2: without_module(dkms="added", dkms_version=V)},
        "no NVIDIA module",
        f"/var/lib/dkms/nvidia*/{V}/build/make.log",
    ),
    ("boot-kernel", None, "fail", {M2: module(version=OLD, dkms_version=OLD)}, f"is {OLD}", "site.yml"),
    (
        "dkms-kernel",
        K2,
        "fail",
        {M2: without_module(dkms="added", dkms_version=V)},
        "only added and not built",
        "dkms autoinstall",
    ),
    (
        "dkms-kernel",
        K1,
        "warn",
        {M1: without_module(dkms="built", dkms_version=V)},
        "built and not installed",
        "dkms autoinstall",
    ),
    ("dkms-kernel", K1, "warn", {M1: without_module(dkms="added", dkms_version=OLD, headers=False)}, OLD, "site.yml"),
    ("dkms-kernel", K1, "warn", {M1: module(version=OLD, dkms_version=OLD)}, f"installed the module {OLD}", "site.yml"),
    (
        "dkms-kernel",
        K1,
        "warn",
        {M1: without_module(dkms="installed", dkms_version=V)},
        "its file is not there",
        "dkms autoinstall",
    ),
    (
        "package-skew",
        None,
        "fail",
        {PACKAGES + "nvidia-utils-580-server": f"{OLD}-0ubuntu1"},
        f"nvidia-utils-580-server {OLD}",
        "site.yml",
    ),
    (
        "package-skew",
        None,
        "fail",
        {PACKAGES + "libnvidia-compute-580-server": f"{OLD}-0ubuntu1"},
        "of another version are",
        "Release the hold of libnvidia-compute-580-server, then",
    ),
    (
        "package-skew",
        None,
        "fail",
        {PACKAGES + "nvidia-utils-580-server": f"{V}-0ubuntu1 (half-configured)"},
        "interrupted",
        "dpkg --configure -a",
    ),
    ("package-skew", None, "fail", {LIBRARY: OLD, LOADED: OLD}, "there is a second one", "ldconfig -p"),
    (
        "fabric-manager",
        None,
        "fail",
        {"software/fabric_manager": {"installed": None, "needed": True, "running": False}},
        "no fabric manager",
        "installs nvidia-fabricmanager-580",
    ),
    (
        "fabric-manager",
        None,
        "fail",
        {"software/fabric_manager/installed": OLD},
        f"is {OLD} and the driver is {V}",
        "site.yml",
    ),
    ("fabric-manager", None, "fail", {LOADED: OLD}, f"does not start with the loaded module {OLD}", "Reboot"),
    ("fabric-manager", None, "fail", {"software/fabric_manager/running": False}, "does not run", "systemctl enable"),
    (
        "container-toolkit",
        None,
        "warn",
        {"software/container_toolkit/packages/libnvidia-container1": "1.17.8-1"},
        "libnvidia-container1 1.17.8-1",
        "apt-get install libnvidia-container1=1.18.1-1",
    ),
    (
        "container-toolkit",
        None,
        "warn",
        {"software/container_toolkit/packages/libnvidia-container1": "1.17.8-1", "os/id": "rhel"},
        "libnvidia-container1 1.17.8-1",
        "dnf install libnvidia-container1-1.18.1-1",
    ),
    ("cdi", "/etc/cdi/nvidia.yaml", "fail", {"software/cdi/0/driver_version": OLD}, OLD, "nvidia-ctk cdi generate"),
    (
        "cdi",
        "/run/cdi/nvidia.yaml",
        "fail",
        {"software/cdi/0/driver_version": OLD, "software/cdi/0/path": "/run/cdi/nvidia.yaml"},
        f"made for the driver {OLD}",
        "nvidia-cdi-refresh",
    ),
    ("cdi", None, "warn", {"software/cdi/0/devices": ["0", "all"]}, "does not have the GPU 1", "cdi generate"),
    ("cdi", None, "warn", {"software/cdi/0/devices": ["0", "1", "0:0"]}, "names 0:0", "cdi generate"),
    ("cdi", None, "warn", {"software/cdi/0/devices": ["0", "1", UUID.format(7)]}, "does not have (any more)", "ctk"),
    ("lock-version", None, "fail", {LIBRARY: OLD}, f"The lock says {V} and the node has {OLD}", "plan again"),
    (
        "lock-version",
        None,
        "fail",
        {LIBRARY: None, LOADED: None, "situation": "no_driver", "software/packages": {}},
        "no driver is installed",
        "site.yml",
    ),
    ("lock-flavour", None, "fail", {"driver/flavour": "proprietary"}, "the proprietary one is loaded", "Reboot"),
    (
        "lock-flavour",
        None,
        "fail",
        {"driver/flavour": "proprietary", M2 + "/flavour": "proprietary"},
        "the proprietary one is loaded",
        "site.yml on this node, then reboot",
    ),
    (
        "holds",
        None,
        "warn",
        {"software/held": ["libnvidia-compute-580-server", "nvidia-dkms-580-server-open"]},
        "move nvidia-fabricmanager-580",
        "apt-mark hold nvidia-fabricmanager-580",
    ),
    ("holds", None, "warn", {"software/held": [], "os/id": "almalinux"}, "Any update may move", "versionlock add"),
]


@pytest.mark.parametrize(("check", "subject", "severity", "changes", "cause", "cure"), MISMATCHES)
def test_mismatch_names_cause_and_the_cure_of_this_case(
    check: str, subject: str | None, severity: str, changes: dict[str, Any], cause: str, cure: str
) -> None:
    gpu = changed(node(), changes)
    found = only(coherence.findings(gpu, stack()), check, subject)
    assert (found["severity"], found["state"]) == (severity, MISMATCH)
    assert cause in found["cause"]
    assert cure in found["cure"]
    for key in ("cause", "cure"):
        assert (found[key][-1], found[key][0].isupper(), "None" in found[key]) == (".", True, False), found[key]
    for key in ("expected", "found"):
        assert found[key] not in (None, "")
    assert coherence.coherent(gpu, stack()) is (severity == "warn")


def test_every_rule_has_a_mismatch_in_the_table() -> None:
    assert {row[0] for row in MISMATCHES} == set(coherence.IDS)


#: what must not trigger anything
HARMLESS: dict[str, dict[str, Any]] = {
    "helpers of a distribution have versions of their own": {PACKAGES + "nvidia-persistenced": "535.171.04-1~deb12u1"},
    "a settings tool of another version": {PACKAGES + "nvidia-settings": "560.35.03-1"},
    "firmware of an older driver beside the new one": {
        PACKAGES + f"nvidia-firmware-580-server-{OLD}": f"{OLD}-0ubuntu1"
    },
    "precompiled modules of other kernels": {PACKAGES + f"kmod-nvidia-{OLD}-5.14.0-570": f"3:{OLD}-1.el9"},
    "an epoch": {PACKAGES + "nvidia-utils-580-server": f"3:{V}-1.el9"},
    "the other architecture's library": {PACKAGES + "libnvidia-compute-580-server:i386": f"{V}-0ubuntu1"},
    "the running kernel boots again": {"software/boots": K1},
    "the boot loader is unknown and every kernel has the module": {"software/boots": None},
    "precompiled modules": {
        M1: module(origin="package", dkms="none", dkms_version=None),
        M2: module(origin="package", dkms="none", dkms_version=None),
    },
    "a package brings what DKMS did not build": {M2: module(origin="package", dkms="added")},
    "no container toolkit, no specification": {
        "software/container_toolkit": {"version": None, "packages": {}},
        "software/cdi": [],
    },
    "a specification with all GPUs only": {"software/cdi/0/devices": ["all"]},
    "a specification by UUID": {"software/cdi/0/devices": [UUID.format(0), UUID.format(1)]},
    "a GPU that is lost is not missing in the specification": {
        "situation": "gpu_lost",
        "software/cdi/0/devices": ["0", "all"],
    },
    "no NVSwitch and no fabric manager, with a lock that has none": {
        "software/fabric_manager": {"installed": None, "needed": False, "running": False}
    },
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_right_triggers_nothing(case: str) -> None:
    locked = {**stack(), "fabric_manager": None} if "no NVSwitch" in case else stack()
    gpu = changed(node(), HARMLESS[case])
    assert coherence.findings(gpu, locked) == []
    assert coherence.coherent(gpu, locked) is True


def test_mig_instances_are_compared_with_the_specification() -> None:
    instances = [{"uuid": f"MIG-11111111-2222-3333-4444-55555555555{n}"} for n in range(2)]
    gpu = changed(node(), {"devices/0/mig": {"mode": "enabled", "instances": instances}})
    fitting = changed(gpu, {"software/cdi/0/devices": ["0:0", "0:1", instances[0]["uuid"], "1", "all"]})
    assert coherence.findings(fitting) == []
    stale = changed(gpu, {"software/cdi/0/devices": ["0:0", "0:2", "1", "all"]})
    assert "names 0:2" in only(coherence.findings(stale), "cdi")["cause"]


def test_specification_that_a_later_one_covers_is_not_judged() -> None:
    stale: dict[str, Any] = {"path": "/etc/cdi/nvidia.yaml", "driver_version": OLD, "devices": ["0", "1", "all"]}
    fresh: dict[str, Any] = {"path": "/run/cdi/nvidia.yaml", "driver_version": V, "devices": ["0", "1", "all"]}
    gpu = changed(node(), {"software/cdi": [stale, fresh]})
    assert only(coherence.examine(gpu), "cdi", stale["path"])["state"] == NOT_APPLICABLE
    assert only(coherence.examine(gpu), "cdi", fresh["path"])["state"] == OK
    partly = changed(gpu, {"software/cdi/1/devices": ["0"]})
    assert only(coherence.findings(partly), "cdi", stale["path"])["severity"] == "fail"


#: id, changes, piece of the reason
UNKNOWNS: list[tuple[str, dict[str, Any], str]] = [
    ("module-library", {LOADED: None, "missing": {"driver.kernel_module_version": "not loaded"}}, "not loaded"),
    ("module-library", {LIBRARY: None, "missing": {"driver.library_version": "no library"}}, "no library"),
    ("module-library", {LIBRARY: None, "situation": "driver_hung"}, "not known"),
    ("module-disk", {M1: module(version=None)}, "modules." + K1),
    ("module-disk", {"software/running": "6.8.0-31-generic"}, "there is no /lib/modules/6.8.0-31-generic"),
    ("module-disk", {"software/modules": None, "missing": {"software.modules": "no access"}}, "no access"),
    ("boot-kernel", {M2: module(version=None)}, "modules." + K2),
    ("boot-kernel", {"software/boots": None, M1: module(version=OLD)}, f"not every installed one has the module {V}"),
    ("boot-kernel", {"software/modules": {}}, "no kernel is installed"),
    ("dkms-kernel", {M1: module(dkms=None), "missing": {f"software.modules.{K1}.dkms": "closed"}}, "closed"),
    ("package-skew", {"software/packages": None, "missing": {"software.packages": "rpm hangs"}}, "rpm hangs"),
    ("fabric-manager", {"software/fabric_manager/running": None}, "fabric_manager.running"),
    ("fabric-manager", {LIBRARY: None, LOADED: None}, "version is not known"),
    (
        "fabric-manager",
        {"software/fabric_manager/installed": None, "software/packages": None},
        "software.packages",
    ),
    (
        "container-toolkit",
        {"software/container_toolkit": {"version": None, "packages": {}}, "software/packages": None},
        "software.packages",
    ),
    ("cdi", {"software/cdi/0/driver_version": None}, "cdi.0.driver_version"),
    ("cdi", {"software/cdi/0/devices": None, "software/cdi/0/driver_version": None}, "cdi.0.driver_version"),
    ("cdi", {LIBRARY: None, LOADED: None}, "driver.library_version"),
    ("lock-version", {LIBRARY: None, LOADED: None, "software/packages": None}, "driver.library_version"),
    ("lock-flavour", {"driver/flavour": "unknown"}, "does not say"),
    ("holds", {"software/held": None}, "software.held"),
]


@pytest.mark.parametrize(("check", "changes", "reason"), UNKNOWNS)
def test_what_cannot_be_told_is_never_right(check: str, changes: dict[str, Any], reason: str) -> None:
    answers = [a for a in coherence.examine(changed(node(), changes), stack()) if a["id"] == check]
    states = {a["state"] for a in answers}
    assert UNKNOWN in states
    assert any(reason in a["cause"] for a in answers if a["state"] == UNKNOWN), answers


def test_every_rule_has_an_unknown_in_the_table() -> None:
    assert {row[0] for row in UNKNOWNS} == set(coherence.IDS)


def test_without_the_part_software_almost_nothing_is_known() -> None:
    gpu = {key: value for key, value in node().items() if key != "software"}
    states = {a["id"]: a["state"] for a in coherence.examine(gpu, stack())}
    right = {"module-library", "lock-version", "lock-flavour"}
    assert {i for i, state in states.items() if state == OK} == right
    assert {state for i, state in states.items() if i not in right} == {UNKNOWN}
    assert coherence.coherent(gpu, stack()) is None


#: kind of node: changes, ids that may be judged there
SCOPES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "wsl2": (
        {"platform": "wsl2", "situation": "wsl2", LOADED: None, "software/modules": {}, "software/packages": {}},
        {"container-toolkit", "cdi"},
    ),
    "no GPU": (
        {
            "situation": "no_gpu",
            LOADED: None,
            LIBRARY: None,
            "software/packages": {},
            "software/container_toolkit": {"version": None, "packages": {}},
            "software/cdi": [],
        },
        set(),
    ),
    "container": (
        {"platform": "container", "software/modules": None, "software/boots": None},
        {"module-library", "package-skew", "container-toolkit", "lock-version", "lock-flavour", "holds"},
    ),
}


@pytest.mark.parametrize("kind", SCOPES)
def test_what_belongs_to_somebody_else_does_not_apply(kind: str) -> None:
    changes, judged = SCOPES[kind]
    states = {a["id"]: a["state"] for a in coherence.examine(changed(node(), changes), stack())}
    assert {i for i, state in states.items() if state != NOT_APPLICABLE} == judged
    assert UNKNOWN not in states.values()


def test_simulated_node_without_kernels_of_its_own_is_judged_by_what_it_has() -> None:
    changes = {
        "simulated": True,
        "software/modules": {},
        "software/boots": None,
        "software/fabric_manager": {"installed": None, "needed": True, "running": False},
    }
    locked = {**stack(), "fabric_manager": None}
    states = {a["id"]: a["state"] for a in coherence.examine(changed(node(), changes), locked)}
    assert {i for i, s in states.items() if s == NOT_APPLICABLE} == {
        *("module-disk", "boot-kernel", "dkms-kernel", "fabric-manager")
    }
    assert coherence.coherent(changed(node(), changes), locked) is True


def test_a_node_with_a_gpu_and_no_driver_and_no_lock_has_nothing_on_its_disk_to_judge() -> None:
    changes: dict[str, Any] = {
        LOADED: None,
        LIBRARY: None,
        "situation": "no_driver",
        "software/packages": {},
        "software/modules": {K1: without_module()},
        "software/cdi": [],
    }
    states = {a["id"]: a["state"] for a in coherence.examine(changed(node(), changes))}
    for check in ("module-disk", "boot-kernel", "dkms-kernel", "package-skew"):
        assert states[check] == NOT_APPLICABLE
    assert coherence.coherent(changed(node(), changes)) is None


def test_what_stops_gpu_programs_comes_first() -> None:
    gpu = changed(node(), {"software/held": [], M2: without_module(), "driver/flavour": "proprietary"})
    severities = [finding["severity"] for finding in coherence.findings(gpu, stack())]
    assert severities == ["fail", "fail", "warn"]


def test_a_library_that_left_the_lock_is_brought_back_not_rebooted_into() -> None:
    gpu = changed(node(), {LIBRARY: "580.200.01"})
    found = only(coherence.findings(gpu, stack()), "module-library")
    assert f"the module {V}, which the lock says, is still loaded" in found["cause"]
    assert "back to the lock" in found["cure"]
    assert (
        "eboot" in only(coherence.findings(gpu), "module-library")["cause"]
    )  # without a lock nobody says what is right


def test_lines_are_for_people() -> None:
    gpu = changed(node(), {"software/cdi/0/driver_version": OLD})
    assert coherence.lines(gpu) == [
        f"fail: cdi, /etc/cdi/nvidia.yaml: The CDI specification was made for the driver {OLD}, whose files containers"
        " no longer find. Run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml."
    ]
    assert coherence.lines(node(), stack()) == []


def test_every_rule_is_documented_with_its_severity_and_cure() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/verdicts.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `coherence.")]
    assert {row.strip("`") for row in rows} >= {f"coherence.{check.replace('-', '_')}" for check in coherence.IDS}
