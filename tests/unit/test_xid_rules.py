# SPDX-License-Identifier: Apache-2.0
"""Every Xid of the table is judged as NVIDIA's bucket says, and a log is more than its lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_tables
from unit.kernel_samples import BOOTS, NOW, cases, line

from ansible.module_utils.rackwright import kernel_events, kernel_rules, xid_rules
from ansible.module_utils.rackwright.xid_data import XIDS

A, B, C, D = BOOTS
GPU = "0000:1b:00.0"
FATAL = {
    **dict.fromkeys((46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158), "reset"),
    **dict.fromkeys((79, 151), "reboot"),
    54: "isolate",
}
HARMLESS = (13, 31, 43, 45, 63, 94)
FALLEN = "79, GPU has fallen off the bus."
PAGE_FAULT = "31, pid=1942, name=llama-bench, channel 0x2, intr 0. MMU Fault"


def event(code: int, **fields: Any) -> dict[str, Any]:
    parsed = kernel_events.parse_text(f"NVRM: Xid (PCI:0000:1b:00): {code}, pid=7, name=train, something")
    assert parsed is not None
    return {**parsed, **fields}


def xid(rest: str, age_s: float = 60.0, boot: str = A) -> dict[str, Any]:
    return line(f"NVRM: Xid (PCI:0000:1b:00): {rest}", age_s, boot)


def judged(*lines: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return xid_rules.judge_log(kernel_events.parse(lines, NOW), **{"boot_id": A, **options})


def words(found: dict[str, Any]) -> list[str]:
    return [step["action"] for step in found["actions"]]


def test_the_table_is_whole() -> None:
    rows = make_tables.load_xids()["xids"]
    assert set(XIDS) == {row["code"] for row in rows} == set(range(1, 177))
    assert {row["code"] for row in rows if row["fatal"]} == set(FATAL)
    assert {row["immediate_action"] for row in rows} - {None} == set(xid_rules._BUCKETS)


def test_check_names_a_stale_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(make_tables, "load", lambda: [])
    monkeypatch.setattr(make_tables, "load_xids", lambda: {"xids": []})
    assert make_tables.main(["--check"]) == 1
    assert "xid_data.py is stale" in capsys.readouterr().out


@pytest.mark.parametrize("code", sorted(XIDS))
def test_every_code(code: int) -> None:
    found = xid_rules.judge(event(code))
    assert found["severity"] == FATAL.get(code, found["severity"])
    assert code in FATAL or found["severity"] in (None, "monitor")
    assert bool(found["actions"]) == (found["severity"] is not None)
    assert all(step["text"] == kernel_rules.ACTIONS[step["action"]] for step in found["actions"])
    assert len(words(found)) == len(set(words(found)))
    assert found["label"].startswith(f"Xid {code} ")
    assert found["source"]
    assert found["why"]


def test_every_fatal_code_has_a_captured_log() -> None:
    logged = {int(case.expect[1] or 0) for case in cases("xid_fatal") if case.expect}
    assert logged == set(FATAL)


@pytest.mark.parametrize("code", HARMLESS)
def test_an_application_never_fails_a_node(code: int) -> None:
    many = [xid(f"{code}, pid={n}, name=train{n}, Ch {n}", 100 - n) for n in range(50)]
    assert {found["severity"] for found in judged(*many)} <= {None, "monitor"}


@pytest.mark.parametrize("code", [13, 31, 43, 45, 94])
def test_the_process_is_named(code: int) -> None:
    assert "the process is train (process 7)" in xid_rules.judge(event(code))["why"]
    assert "the process is train" in xid_rules.judge(event(code, pid=None))["why"]
    assert "of unknown name (process 7)" in xid_rules.judge(event(code, name=None))["why"]
    assert "the process" not in xid_rules.judge(event(code, pid=None, name=None))["why"]


@pytest.mark.parametrize(
    ("code", "first", "later"),
    [
        (79, ["stop_workload", "drain", "restart_node"], "run_field_diagnostics"),
        (119, ["stop_workload", "drain", "reset_gpu"], "update_driver"),
        (54, ["stop_workload", "drain", "check_power_cables", "reseat"], "contact_support"),
        (48, ["stop_workload", "drain", "reset_gpu", "check_row_remap"], "run_field_diagnostics"),
        (31, ["restart_application"], "check_application"),
        (63, ["watch"], "check_row_remap"),
        (78, ["update_driver"], "update_driver"),
    ],
)
def test_order_of_actions(code: int, first: list[str], later: str) -> None:
    found = words(xid_rules.judge(event(code)))
    assert found[: len(first)] == first
    assert later in found


@pytest.mark.parametrize("code", [0, 177, 99999])
def test_an_unknown_code_is_watched(code: int) -> None:
    found = xid_rules.judge(event(code))
    assert (found["severity"], found["why"]) == ("monitor", "the code is not in the table")


@pytest.mark.parametrize(
    ("architecture", "said"),
    [("volta", True), ("Pascal", True), ("ampere", False), ("hopper", False), (None, False)],
)
def test_old_gpus_are_not_covered_by_the_catalogue(architecture: str | None, said: bool) -> None:
    why = xid_rules.judge(event(63), architecture)["why"]
    assert ("Ampere and newer: on this GPU" in why) == said
    lines = [xid("63, Row Remapper: x")]
    by_address = judged(*lines, architectures={GPU: architecture} if architecture else None)
    assert by_address[0]["why"] == xid_rules.judge(kernel_events.parse(lines)[0], architecture)["why"]


@pytest.mark.parametrize(
    "event_", [{}, {"kind": "xid"}, {"kind": "xid", "code": "79"}, {"kind": "sxid"}, {"kind": "tea"}]
)
def test_incomplete_events_are_watched(event_: dict[str, Any]) -> None:
    assert xid_rules.judge(event_)["severity"] == "monitor"
    assert len(xid_rules.judge_log([event_])) == 1


def test_in_the_running_boot_a_fatal_xid_stands() -> None:
    (found,) = judged(xid(FALLEN))
    assert (found["severity"], found["past"], found["cured"], found["boots"]) == ("reboot", False, None, 1)


@pytest.mark.parametrize(
    "rest", [FALLEN, "119, Timeout after 6s of waiting for RPC response from GPU0 GSP!", PAGE_FAULT]
)
def test_a_restart_since_has_cured_it(rest: str) -> None:
    (found,) = judged(xid(rest, 900, B), boots=[B, A])
    assert (found["severity"], found["actions"], found["past"]) == (None, [], True)
    assert found["was"] is not None
    assert "was restarted since" in found["cured"]
    assert found["cured"].lower() in found["why"].lower()


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("NVRM: Xid (PCI:0000:1b:00): 54, Auxiliary power is not connected", "isolate"),
        ("NVRM: Xid (PCI:0000:1b:00): 92, High single-bit ECC error rate", "monitor"),
        ("EXT4-fs (md0): Remounting filesystem read-only", "isolate"),
        ("EDAC MC0: 1 UE memory read error on CPU_SrcID#0 (channel:1", "monitor"),
        ("nvidia 0000:1b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=x, (Receiver ID)", "monitor"),
        ("NVRM: This PCI I/O region assigned to your NVIDIA device is invalid: NVRM: BAR1 is 0M @ 0x0", None),
        (
            "pci 0000:01:00.0: 63.0 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x8 link at 0000:00:01.1",
            None,
        ),
        ("watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [python3:2254956]", None),
        ("Out of memory: Killed process 218402 (python3) total-vm:4kB", None),
    ],
)
def test_what_a_restart_leaves(text: str, severity: str | None) -> None:
    (found,) = judged(line(text, 900, B), boots=[B, A])
    assert found["severity"] == severity


def test_what_is_told_at_boot_stands_while_it_is_told() -> None:
    text = "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid: NVRM: BAR1 is 0M @ 0x0"
    assert {found["severity"] for found in judged(line(text, 900, B), line(text, 60, A))} == {"isolate"}


def test_unknown_boots_are_judged_as_now() -> None:
    (found,) = judged({**xid(FALLEN), "boot_id": None})
    assert found["severity"] == "reboot"
    (found,) = judged(xid(FALLEN, 900, B), boot_id=None)
    assert found["severity"] == "reboot"


@pytest.mark.parametrize(
    ("boots", "severity"),
    [
        ([A], "reboot"),
        ([B], None),
        ([B, A], "reboot"),
        ([C, B], "reboot"),
        ([C, B, A], "isolate"),
        ([D, C, B], "isolate"),
        ([C, A], "isolate"),
    ],
)
def test_what_comes_back_after_restarts(boots: list[str], severity: str | None) -> None:
    lines = [xid(FALLEN, 1000.0 * (BOOTS.index(boot) + 1), boot) for boot in boots]
    found = judged(*lines, boots=[D, C, B, A])
    assert {one["severity"] for one in found} == {severity}
    if severity == "isolate":
        assert words(found[0])[:3] == ["stop_workload", "drain", "inspect_hardware"]
        assert "gpud" in found[0]["source"]
    elif len(boots) > 1:
        assert "came back after 1 restart" in found[0]["why"]
        assert "run_field_diagnostics" in words(found[0])


def test_another_gpu_or_another_code_is_no_repetition() -> None:
    other_gpu = line("NVRM: Xid (PCI:0000:1c:00): 79, GPU has fallen off the bus.", 900, B)
    found = judged(xid("74, NVLink: fatal error", 950, C), other_gpu, xid(FALLEN), boots=[C, B, A])
    assert [one["severity"] for one in found] == [None, None, "reboot"]


def test_applications_that_come_back_are_never_isolated() -> None:
    found = judged(*(xid(PAGE_FAULT, 100, boot) for boot in (C, B, A)), boots=[C, B, A])
    assert {one["severity"] for one in found} == {None, "monitor"} or {one["severity"] for one in found} == {"monitor"}


RESET = "154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
NONE = "154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"


def test_a_reset_the_driver_saw_cures() -> None:
    found = judged(xid("119, Timeout after 6s", 100), xid(RESET, 99), xid(NONE, 50))
    assert [one["severity"] for one in found] == [None, None, None]
    assert found[0]["cured"] == "the driver's recovery action has become None since"


def test_a_reset_before_cures_nothing_after_it() -> None:
    found = judged(xid(RESET, 100), xid(NONE, 90), xid("119, Timeout after 6s", 50), xid(RESET, 49))
    assert [one["severity"] for one in found] == ["reset", None, "reset"]


def test_a_reset_cures_neither_the_bus_nor_other_gpus() -> None:
    other = line("NVRM: Xid (PCI:0000:1c:00): 119, Timeout after 6s", 100)
    found = judged(xid(FALLEN, 100), other, xid(NONE, 50))
    assert [one["severity"] for one in found] == ["reboot", "reset", None]


def test_the_latest_recovery_action_counts() -> None:
    drain = "154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)"
    then = "154, GPU recovery action changed from 0x4 (Drain and Reset) to 0x2 (Node Reboot Required)"
    found = judged(xid(drain, 100), xid(then, 50))
    assert [one["severity"] for one in found] == [None, "reboot"]


def test_a_driver_loaded_since_ends_a_mismatch() -> None:
    mismatch = (
        "NVRM: API mismatch: the client has the version 550.76, but NVRM: this kernel module has the version 550.67."
    )
    loaded = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.76  Thu"
    assert [one["severity"] for one in judged(line(mismatch, 100), line(loaded, 50))] == [None, None]
    assert [one["severity"] for one in judged(line(loaded, 100), line(mismatch, 50))] == [None, "monitor"]
    assert judged(line(mismatch, 100), line(loaded, 50, B))[0]["severity"] == "monitor"


def test_company_of_an_xid() -> None:
    found = judged(
        xid("74, NVLink: fatal error", 100),
        xid("45, pid=1, name=a, Ch 1", 99),
        xid("45, pid=2, name=b, Ch 1 caused by previous Xid 149", 98),
        xid("31, pid=1, name=a, Ch 1", 97),
        xid("31, pid=2, name=b, Ch 1", 96),
    )
    assert "It follows Xid 31, 74" in found[1]["why"]
    assert "It follows Xid 149" in found[2]["why"]
    assert "Several applications met it on this GPU: a, b" in found[3]["why"]
    assert "run_field_diagnostics" in words(found[3])
    (alone,) = judged(xid("31, pid=1, name=a, Ch 1"))
    assert "run_field_diagnostics" not in words(alone)


def test_the_page_names_every_kind_with_its_severities() -> None:
    page = (make_tables.ROOT / "docs/kernel-log.md").read_text(encoding="utf-8").split("## Kinds")[1]
    written: dict[str, set[str | None]] = {}
    for row in page.splitlines():
        if row.startswith("| `"):
            kinds, _what, severities = row.strip("| ").split(" | ")
            levels = {None if word == "none" else word for word in severities.split(", ")}
            written.update({kind.strip("`"): levels for kind in kinds.split(", ")})
    ruled: dict[str, set[str | None]] = {}
    for (kind, sub), rule in kernel_rules.RULES.items():
        if (kind, sub) != ("mlx5", "link_up"):
            ruled.setdefault(kind, set()).add(rule[0])
    assert written == ruled


def test_outside_the_window_nothing_is_left_to_judge(tmp_path: Any) -> None:
    from ansible.module_utils.rackwright import kernel_log

    path = tmp_path / "dmesg"
    path.write_text("2026-05-01T00:00:00+00:00 NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.\n")
    log = kernel_log.read(7200, path=str(path), now=NOW)
    assert log["missing"] is None
    assert judged(*log["lines"]) == []


LINES = st.lists(
    st.builds(
        lambda code, gpu, boot, age: line(f"NVRM: Xid (PCI:0000:{gpu}:00): {code}, pid=1, name=a", age, boot),
        st.sampled_from([13, 31, 45, 54, 63, 79, 119, 149, 154, 500]),
        st.sampled_from(["1b", "1c"]),
        st.sampled_from([*BOOTS, None]),
        st.floats(0, 1e5),
    ),
    max_size=15,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(LINES, st.sampled_from([*BOOTS, None]))
def test_a_log_never_makes_an_application_fatal(lines: list[dict[str, Any]], boot_id: str | None) -> None:
    found = xid_rules.judge_log(kernel_events.parse(lines, NOW), boot_id)
    for one in found:
        fatal = one["event"]["code"] in FATAL
        assert fatal or one["severity"] in (None, "monitor")
        assert (one["severity"] is None) <= (not one["actions"])
        if one["event"]["code"] == 54:
            assert one["severity"] == "isolate"
        if fatal and not one["past"]:
            assert one["severity"] in ("reset", "reboot", "isolate")
