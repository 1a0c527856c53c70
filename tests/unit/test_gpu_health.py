# SPDX-License-Identifier: Apache-2.0
"""The module on simulated nodes: each damage of a GPU is found by the check that it belongs to, and only by that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_health
import jsonschema
import pytest
from support.simulated_node import ROOT, SimulatedNode, profiles

SCHEMA = json.loads((ROOT / "docs/schema/health.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
#: imported here, every node's own process inherits it
MODULE = gpu_health.__name__
LADDER = ("monitor", "reset", "reboot", "isolate")
BOOT = "0123456789abcdef0123456789abcdef"

MakeNode = Callable[..., SimulatedNode]


@pytest.fixture
def node(tmp_path: Path) -> MakeNode:
    def make(profile: str = "h100x8") -> SimulatedNode:
        simulated = SimulatedNode(tmp_path, profile)
        simulated.write("proc/uptime", "86400.00 0.00\n").write("proc/cpuinfo", "flags\t\t: fpu\n")
        simulated.write("proc/sys/kernel/random/boot_id", "01234567-89ab-cdef-0123-456789abcdef\n")
        simulated.write("dev/kmsg", "").write("proc/swaps", "Filename Type Size Used Priority\n")
        (simulated.sysroot / "sys/class").mkdir()
        return simulated

    return make


def found(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The findings about GPUs and fabric as id, subject, severity; the host of the tests is not judged here."""
    errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in VALIDATOR.iter_errors(document)]
    assert errors == []
    checks = [check for check in document["checks"] if check["state"] == "finding"]
    return [(c["id"], c["subject"], c["severity"]) for c in checks if not c["id"].startswith("host.")]


def state(document: dict[str, Any], check: str, subject: str) -> str:
    [one] = [c for c in document["checks"] if c["id"] == check and subject in c["subject"].split(", ")]
    value: str = one["state"]
    return value


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("profile", profiles())
def test_healthy_profiles_have_no_finding_but_the_settings_of_their_owner(node: MakeNode, profile: str) -> None:
    document = node(profile).health()
    assert {one[0] for one in found(document)} <= {"persistence"}
    assert document["simulated"] is True


#: key of the simulation on one of eight H100, its value, and the one finding that follows
DAMAGES: dict[str, tuple[str, Any, str, str]] = {
    "uncorrected DRAM error": ("ecc.volatile.uncorrected.dram", 3, "ecc.uncorrected_volatile", "reset"),
    "uncorrected SRAM error": ("ecc.volatile.uncorrected.sram_secded", 1, "ecc.uncorrected_volatile", "reset"),
    "SRAM errors of its life": ("ecc.aggregate.uncorrected.sram_parity", 2, "ecc.sram_aggregate", "monitor"),
    "SRAM threshold": ("ecc.sram_threshold_exceeded", 1, "ecc.sram_aggregate", "isolate"),
    "corrected errors": ("ecc.aggregate.corrected.dram", 20_000_001, "ecc.corrected", "monitor"),
    "ECC goes off": ("ecc.pending", 0, "ecc.mode", "monitor"),
    "remapping waits": ("remap.pending", 1, "remap.pending", "reset"),
    "remapping failed": ("remap.failure", 1, "remap.failure", "isolate"),
    "many remapped rows": ("remap.uncorrected", 512, "remap.uncorrectable", "isolate"),
    "a bank is used up": ("remap.histogram.none", 1, "remap.banks", "isolate"),
    "a bank is nearly used up": ("remap.histogram.low", 2, "remap.banks", "monitor"),
    "channel repair waits": ("repair.channel_pending", 1, "repair.pending", "reset"),
    "link errors": ("nvlink.4.error.recovery", 3, "nvlink.errors", "monitor"),
    "fabric not joined": ("fabric.state", 2, "fabric.state", "reset"),
    "fabric status": ("fabric.status", 999, "fabric.state", "reset"),
    "fabric route": ("fabric.health_mask", 0x10, "fabric.health", "reset"),
    "fabric bandwidth": ("fabric.health_mask", 0x01, "fabric.health", "monitor"),
    "replays": ("pcie.replay", 10_000_000, "pcie.replay", "monitor"),
    "slot with fewer lanes": ("pcie.max_width", 8, "pcie.capability", "monitor"),
    "power sensor": ("power.draw", "!UNKNOWN", "power.readable", "monitor"),
    "no power": ("power.draw", 0, "power.range", "monitor"),
    "power limit": ("power.limit", 500_000, "power.limit", "monitor"),
    "hot": ("temp.gpu", 90, "temperature.margin", "isolate"),
    "warm": ("temp.gpu", 84, "temperature.margin", "monitor"),
    "hot memory": ("temp.memory", 96, "temperature.memory", "isolate"),
    "power brake": ("violation.hw_power_brake", 3_000_000_000_000, "throttle.hw", "isolate"),
    "power brake now": ("event.reasons", 0x80, "throttle.hw", "monitor"),
    "heat by software": ("violation.sw_thermal", 30_000_000_000_000, "throttle.sw_thermal", "isolate"),
    "no persistence": ("persistence", 0, "persistence", "monitor"),
    "application clocks": ("clock.app.graphics", 1200, "clocks.application", "monitor"),
    "MIG waits": ("mig.pending", 1, "mig.mode", "reset"),
    "InfoROM": ("inforom.valid", 0, "inforom", "isolate"),
    "memory of nobody": ("memory.used", 8 << 30, "processes.stale", "reset"),
    "recovery action": ("recovery_action", 2, "gpu.recovery_action", "reboot"),
}


@pytest.mark.parametrize("first", range(0, len(DAMAGES), 7))
def test_each_damage_is_found_by_its_check_and_by_no_other(node: MakeNode, first: int) -> None:
    """Seven damages at once, each on a GPU of its own; the eighth GPU stays healthy."""
    batch = list(DAMAGES.values())[first : first + 7]
    simulated = node()
    for index, (key, value, _check, _severity) in enumerate(batch, start=1):
        simulated.set(f"gpu.{index}.{key}", value)
    document = simulated.health("ctypes")

    expected = {
        (check, f"gpu{index}", severity) for index, (_key, _value, check, severity) in enumerate(batch, start=1)
    }
    assert set(found(document)) == expected
    assert document["severity"] == max((severity for _k, _v, _c, severity in batch), key=LADDER.index)


def test_a_gpu_that_was_mended_has_no_finding(node: MakeNode) -> None:
    simulated = node("rtx4090x2")
    healthy = simulated.conf.read_text(encoding="utf-8")
    assert found(simulated.set("gpu.1.recovery_action", 2).health()) == [("gpu.recovery_action", "gpu1", "reboot")]
    simulated.conf.write_text(healthy, encoding="utf-8")
    assert found(simulated.health()) == []


def test_another_vbios_is_found_on_the_node(node: MakeNode) -> None:
    simulated = node("rtx4090x2").set("gpu.1.vbios", "95.02.18.80.99")
    assert found(simulated.health()) == [("vbios.uniform", "node", "monitor")]


def test_link_that_is_down_is_two_findings_of_one_gpu(node: MakeNode) -> None:
    document = node().set("gpu.3.nvlink.7.state", 0).health()
    assert found(document) == [("nvlink.inactive", "gpu3", "reset"), ("nvlink.count", "gpu3", "reset")]


def test_slow_link_under_load_only(node: MakeNode) -> None:
    simulated = node().set("gpu.1.pcie.width", 8)
    document = simulated.health()
    assert (found(document), state(document, "pcie.link", "gpu1")) == ([], "not_applicable")
    assert found(simulated.set("gpu.1.util.gpu", 99).health()) == [("pcie.link", "gpu1", "reboot")]


def test_links_of_the_fifth_generation(node: MakeNode) -> None:
    simulated = node("b200x8").set("gpu.persistence", 1).set("gpu.0.nvlink.3.error.effective_ber", 2 << 8 | 12)
    simulated.set("gpu.1.nvlink.0.error.recovery_failed", 1)
    assert found(simulated.health()) == [("nvlink.ber", "gpu0", "reset"), ("nvlink.errors", "gpu1", "reset")]


def test_heat_of_cards_that_tell_a_margin_in_place_of_thresholds(node: MakeNode) -> None:
    simulated = node("b200x8").set("gpu.persistence", 1).set("gpu.0.temp.margin", 0).set("gpu.1.temp.margin", 4)
    document = simulated.health()
    assert found(document) == [("temperature.margin", "gpu0", "isolate"), ("temperature.margin", "gpu1", "monitor")]
    assert state(document, "temperature.margin", "gpu2") == "ok"


def test_retired_pages_of_older_cards(node: MakeNode) -> None:
    simulated = node("v100x4").set("gpu.1.retired.double_bit", 63).set("gpu.2.retired.pending", 1)
    assert found(simulated.health()) == [("pages.retired", "gpu1", "isolate"), ("pages.pending", "gpu2", "reset")]


def test_peers_without_access(node: MakeNode) -> None:
    """With all links of one GPU down the others reach it no more."""
    document = node("a100x4").set("gpu.1.nvlink.state", 0).health()
    assert ("nvlink.inactive", "gpu1", "reset") in found(document)


@pytest.mark.parametrize(
    ("key", "value", "check", "subject", "severity"),
    [
        ("gpu.3.fail", "GPU_IS_LOST", "gpu.state", "gpu3", "reboot"),
        ("gpu.3.fail", "RESET_REQUIRED", "gpu.state", "gpu3", "reset"),
        ("count", 7, "gpu.count", "node", "reboot"),
        ("fail.init", "LIB_RM_VERSION_MISMATCH", "gpu.situation", "node", "reboot"),
        ("fail.init", "DRIVER_NOT_LOADED", "gpu.situation", "node", "reboot"),
        ("crash.nvmlDeviceGetSerial", "segv", "gpu.situation", "node", "reboot"),
    ],
)
def test_gpus_that_do_not_answer(node: MakeNode, key: str, value: Any, check: str, subject: str, severity: str) -> None:
    document = node().set(key, value).health()
    assert (check, subject, severity) in found(document)
    assert document["severity"] in ("reset", "reboot")
    assert document["summary"]["not_measured"] > 0 or key == "count"


def test_a_driver_that_hangs_is_a_finding_in_time(node: MakeNode) -> None:
    started = time.monotonic()
    document = node("rtx4090x2").set("crash.nvmlDeviceGetMemoryErrorCounter", "hang").health(timeout=1)
    assert time.monotonic() - started < 20
    assert ("gpu.situation", "node", "reboot") in found(document)


def test_a_user_without_rights_gets_no_success(node: MakeNode) -> None:
    document = node("rtx4090x2").set("fail.init", "NO_PERMISSION").health()
    assert state(document, "gpu.situation", "node") == "not_measured"
    passed = {c["id"] for c in document["checks"] if c["subject"].startswith("gpu") and c["state"] == "ok"}
    assert passed <= {"pcie.capability"}  # which the kernel tells everybody


# -- what was before, what is declared -----------------------------------------------------------------------------


def test_growth_since_the_last_check_weighs_more_than_old_counters(node: MakeNode) -> None:
    simulated = node().set("gpu.2.nvlink.4.error.replay", 3)
    first = simulated.health()
    assert found(first) == [("nvlink.errors", "gpu2", "monitor")]
    earlier = {**first["baseline"], "collected_at": "2020-01-01T00:00:00+00:00"}
    assert found(simulated.health(baseline=earlier)) == []
    assert found(simulated.set("gpu.2.nvlink.4.error.replay", 4).health(baseline=earlier)) == [
        ("nvlink.errors", "gpu2", "reset")
    ]


def test_a_gpu_that_is_gone_stays_missed_until_it_is_accepted(node: MakeNode) -> None:
    simulated = node()
    first = simulated.health()
    simulated.set("count", 7).remove_pci(simulated.pci_addresses[7])
    second = simulated.health(baseline=first["baseline"])
    third = simulated.health(baseline=second["baseline"])

    assert found(second) == found(third) == [("gpu.count", "node", "isolate")]
    assert found(simulated.health()) == []


def test_an_exchanged_card_is_told_once_accepted_never_again(node: MakeNode) -> None:
    simulated = node()
    first = simulated.health()
    simulated.set("gpu.5.uuid", "GPU-99999999-aaaa-bbbb-cccc-999999999999")

    assert found(simulated.health(baseline=first["baseline"])) == [("gpu.identity", "node", "monitor")]
    assert found(simulated.health(baseline=simulated.health()["baseline"])) == []


def test_lanes_that_were_there_before(node: MakeNode) -> None:
    simulated = node("t4x1")
    earlier = simulated.health()["baseline"]
    document = simulated.set("gpu.pcie.max_width", 8).health(baseline=earlier)
    assert found(document) == [("pcie.capability", "gpu0", "reboot")]


def test_declared_modes_are_those_of_the_role(node: MakeNode) -> None:
    simulated = node().set("gpu.0.power.limit", 400_000).set("gpu.1.ecc.current", 0).set("gpu.1.ecc.pending", 0)
    modes = {"power_limit_w": {"0": 400}, "ecc": {"1": "off"}, "mig": "none"}

    assert [one[:2] for one in found(simulated.health())] == [("power.limit", "gpu0"), ("ecc.mode", "gpu1")]
    assert found(simulated.health(modes=modes)) == []
    assert found(simulated.health(modes={**modes, "mig": {"2": ["1g.10gb x7"]}})) == [("mig.mode", "gpu2", "reset")]


def test_limits_are_the_sites(node: MakeNode) -> None:
    simulated = node().set("gpu.0.temp.gpu", 84)
    assert found(simulated.health(limits={"temperature_margin": "1"})) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": {"temperatur_margin": 3}}, "Did you mean temperature_margin"),
        ({"limits": {"disk_used": "much"}}, "is no number of zero or more"),
        ({"limits": {"disk_used": True}}, "is no number of zero or more"),
        ({"modes": {"ecc": "perhaps"}}, "has to be on, off or none"),
        ({"modes": {"clocks": "high"}}, "clocks is no mode"),
        ({"window_s": 0}, "more than 0"),
        ({"timeout": 99999}, "at most 3600"),
        ({"expected": {"gpu_cuont": 8}}, "Unsupported parameters"),
    ],
)
def test_options_that_cannot_be_used_are_refused(node: MakeNode, options: dict[str, Any], words: str) -> None:
    result = node("none").run(module=MODULE, **options)
    assert result["failed"] is True
    assert words in result["msg"]


# -- the kernel's log ----------------------------------------------------------------------------------------------


def test_xids_of_a_log_are_findings_of_their_gpu(node: MakeNode, tmp_path: Path) -> None:
    simulated = node()
    address = simulated.pci_addresses[4][:-2]
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    log = tmp_path / "kernel.log"
    log.write_text(
        f"{now} node kernel: NVRM: Xid (PCI:{address}): 79, pid=1, name=python3, GPU has fallen off the bus.\n"
        f"{now} node kernel: NVRM: Xid (PCI:{address}): 13, pid=1, name=python3, Graphics Exception\n",
        encoding="utf-8",
    )
    document = simulated.health(kernel_log=str(log))

    assert found(document) == [("kernel.xid", "gpu4", "reboot")]
    assert [event["code"] for event in document["events"]] == [79, 13]


def test_without_a_log_nothing_is_called_absent(node: MakeNode) -> None:
    document = node("rtx4090x2").health(kernel_log="/nowhere/kernel.log")
    kinds = {check["state"] for check in document["checks"] if check["id"].startswith("kernel.")}
    assert kinds == {"not_measured"}  # in a container too: who names a log expects it to be there


# -- the answer ----------------------------------------------------------------------------------------------------


def test_the_fact_is_a_digest(node: MakeNode) -> None:
    result = node().set("gpu.2.remap.failure", 1).run(module=MODULE)
    fact = result["ansible_facts"]["gpu_health"]

    assert result["changed"] is False
    assert (fact["severity"], fact["worst"].startswith("isolate: remap.failure gpu2: ")) == ("isolate", True)
    assert fact["findings"][0]["id"] == "remap.failure"
    assert fact["boot_id"] == BOOT
    assert len(json.dumps(fact)) < 4000


def test_check_mode_answers_the_same_and_no_setter_is_called(node: MakeNode) -> None:
    simulated = node().set("gpu.2.remap.failure", 1)
    result = simulated.run(module=MODULE, _ansible_check_mode=True)

    assert found(result["gpu_health"]) == [("remap.failure", "gpu2", "isolate")]
    assert [name for name in simulated.called() if "Set" in name or "Reset" in name or "Clear" in name] == []


def test_both_bindings_say_the_same(node: MakeNode) -> None:
    simulated = node().set("gpu.2.remap.failure", 1)
    documents = [simulated.health(binding) for binding in ("auto", "ctypes")]
    first, second = ([{**check} for check in document["checks"]] for document in documents)

    assert first == second


def test_the_document_of_eight_gpus_is_small_enough_for_a_thousand_nodes(node: MakeNode) -> None:
    assert len(json.dumps(node().health())) < 60_000
