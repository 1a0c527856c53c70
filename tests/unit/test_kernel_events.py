# SPDX-License-Identifier: Apache-2.0
"""Captured kernel lines become the right events; arbitrary text never raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.kernel_samples import BOOTS, NOW, Case, cases, line

from ansible.module_utils.rackwright import kernel_events, kernel_lines, kernel_patterns, kernel_rules, xid_rules

ALL = cases("xid_fatal", "xid_other", "driver", "host", "quiet")


def events_of(case: Case) -> list[dict[str, Any]]:
    lines, _lost = kernel_lines.parse_file("\n".join(case.rows), NOW)
    return kernel_events.parse([entry.record() for entry in lines], NOW)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_captured_lines(case: Case) -> None:
    found = [
        [
            event["kind"],
            None if event["code"] is None else str(event["code"]),
            event["sub"],
            xid_rules.judge(event)["severity"],
            event["pci_address"],
        ]
        for event in events_of(case)
    ]
    assert found == ([case.expect] if case.expect else [])


def test_every_kind_has_a_fixture_and_a_rule() -> None:
    kinds = {
        kind
        for kind, _sub, _pattern in kernel_patterns.ROWS
        if kind not in ("md_degraded", "gpu_unsupported", "nvlink")
    }
    assert kinds | {"xid", "sxid"} == {case.expect[0] for case in ALL if case.expect}
    assert {kind for kind, _sub, _pattern in kernel_patterns.ROWS} - {"md_degraded"} == {
        kind for kind, _ in kernel_rules.RULES
    }


@pytest.mark.parametrize(
    ("text", "pid", "name"),
    [
        ("31, pid=1942, name=llama-bench, channel 0x2", 1942, "llama-bench"),
        ("31, pid='1234', name='python3', 'Illegal memory access'", 1234, "python3"),
        ("79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", None, None),
        ("74, pid=<unknown>, name=<unknown>, NVLink: fatal error", None, None),
        ("63, pid=1850, Row Remapper: New row marked", 1850, None),
        ("145, pid=876767, name=ray::WorkerDict, RLW_RXPIPE Nonfatal XC0 i0 Link 13", 876767, "ray::WorkerDict"),
        ("119, pid=3849, name=KMS thread, Timeout after 45s", 3849, "KMS thread"),
        ("31, pid=4711, name=, channel 0x2", 4711, None),
        ("31, pid=99999999999999999999, name=x, channel", None, "x"),
        ("48, pid=1234", 1234, None),
        ("95, pid='<unknown>'", None, None),
        ("79, GPU has fallen off the bus.", None, None),
        ("109, pid=12, name=日本語プロセス, Ch 1", 12, "日本語プロセス"),
        ("79", None, None),
    ],
)
def test_process_of_an_xid(text: str, pid: int | None, name: str | None) -> None:
    event = kernel_events.parse_text(f"NVRM: Xid (PCI:0000:1b:00): {text}")
    assert event is not None
    assert (event["kind"], event["code"], event["pid"], event["name"]) == ("xid", int(text.split(",")[0]), pid, name)
    assert event["pci_address"] == "0000:1b:00.0"


def test_nvlink5_says_unit_link_and_words() -> None:
    event = kernel_events.parse_text(
        "NVRM: Xid (PCI:0018:01:00): 145, pid=876767, name=ray::WorkerDict, RLW_RXPIPE Nonfatal XC0 i0 Link 13 "
        "(0x0409a0c2 0x00000008 0x00000001 0x00000000 0x00100000 0x00000004)"
    )
    assert event is not None
    assert event["link"] == 13
    assert event["data"] == {"unit": "RLW_RXPIPE", "intr_info": "0x0409a0c2", "error_status": "0x00000008"}
    without = kernel_events.parse_text("NVRM: Xid (PCI:0019:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0")
    assert without is not None
    assert without["link"] is None


@pytest.mark.parametrize(
    ("text", "fields", "data"),
    [
        (
            "NVRM: Xid (PCI:0000:01:00): 74, pid=<unknown>, NVLink: fatal error detected on link 6(0x1)",
            {"link": 6},
            {},
        ),
        ("NVRM: Xid (PCI:0000:01:00): 45, pid=1, name=a, Ch 1 caused by previous Xid 149", {}, {"caused_by": 149}),
        ("NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: x", {}, {"gpu_instance": 5}),
        (
            "nvidia-nvswitch2: SXid (PCI:0000:85:00.0): 12028, Non-fatal, Link 61 egress",
            {"link": 61, "device": "nvidia-nvswitch2"},
            {},
        ),
        (
            "watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [cuda-EvtHandlr:2254956]",
            {"device": "cpu18", "name": "cuda-EvtHandlr", "pid": 2254956},
            {"seconds": 27},
        ),
        (
            "INFO: task kworker/u129:3:1234 blocked for more than 241 seconds.",
            {"name": "kworker/u129:3", "pid": 1234},
            {"seconds": 241},
        ),
        ("Out of memory: Killed process 218402 (python3) total-vm:4kB", {"name": "python3", "pid": 218402}, {}),
        (
            "EDAC MC1: 262 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1",
            {"device": "MC1"},
            {"errors": 262},
        ),
        (
            "mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 2): Detected insufficient power on the PCIe slot (27W).",
            {},
            {"watts": 27},
        ),
        ("mlx5_core 0000:ab:00.0 mlx5_5: Port: 1 Link DOWN", {"device": "mlx5_5"}, {}),
        (
            "pci 0000:01:00.0: 63.008 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x8 link at 0000:00:01.1"
            " (capable of 126.016 Gb/s with 8.0 GT/s PCIe x16 link)",
            {},
            {
                "available_gbps": "63.008",
                "limit": "8.0 GT/s PCIe x8 link",
                "at": "0000:00:01.1",
                "capable_gbps": "126.016",
            },
        ),
        (
            "NVRM: API mismatch: the client 'nvidia-smi' (pid 4711) NVRM: has the version 580.173.02, but this"
            " kernel module has NVRM: the version 580.159.03. Please make sure",
            {"name": "nvidia-smi", "pid": 4711},
            {"client_version": "580.173.02", "kernel_version": "580.159.03"},
        ),
        (
            "nvidia-nvswitch: Version mismatch, kernel version 450.80.02 user version 450.51.06",
            {},
            {"client_version": "450.51.06", "kernel_version": "450.80.02"},
        ),
        ("I/O error, dev nvme0n1, sector 123456 op 0x0:(READ)", {"device": "nvme0n1"}, {}),
        ("md/raid0md0: Disk failure on nvme0n1p1 detected, failing array.", {"device": "md0"}, {"disk": "nvme0n1p1"}),
    ],
)
def test_details(text: str, fields: dict[str, Any], data: dict[str, Any]) -> None:
    event = kernel_events.parse_text(text)
    assert event is not None
    assert {key: event[key] for key in fields} == fields
    assert {key: event["data"].get(key) for key in data} == data


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0000:1b:00", "0000:1b:00.0"),
        ("00000000:1B:00.0", "0000:1b:00.0"),
        ("0018:01:00.1", "0018:01:00.1"),
        ("10000:01:00.0", "10000:01:00.0"),
        ("1b:00.0", None),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_written_as_in_sysfs(text: str | None, address: str | None) -> None:
    assert kernel_events.pci_address(text) == address


def test_equal_events_are_folded_per_boot_process_and_gpu() -> None:
    xid = "NVRM: Xid (PCI:0000:1b:00): 13, pid=7, name=train, Graphics Exception: ESR 0x{:x}"
    lines = [line(xid.format(n), 100.0 - n) for n in range(5)]
    lines.append(line(xid.format(9), 50.0, BOOTS[1]))
    lines.append(line(xid.format(9).replace("pid=7", "pid=8"), 40.0))
    lines.append(line(xid.format(9).replace("1b", "1c"), 30.0))
    first, *others = kernel_events.parse(lines, NOW)
    assert first["count"] == 5
    assert first["first_time"] == lines[0]["time"]
    assert first["time"] == lines[4]["time"]
    assert first["age_s"] == pytest.approx(96.0)
    assert first["text"].endswith("ESR 0x0")
    assert [event["count"] for event in others] == [1, 1, 1]


def test_without_time_age_is_unknown() -> None:
    lines = [{"time": None, "boot_id": None, "text": "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus."}]
    assert kernel_events.parse(lines, NOW)[0]["age_s"] is None
    assert kernel_events.parse([line(lines[0]["text"] or "")])[0]["age_s"] is None


def test_an_announced_pcie_error_counts_once() -> None:
    lines = [
        line("pcieport 0000:00:03.0: AER: Corrected error received: 0000:03:00.0"),
        line("nvidia 0000:03:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)"),
        line("nvidia 0000:03:00.0:   device [10de:2330] error status/mask=00000001/0000a000"),
        line("pcieport 0000:00:03.0: AER: Uncorrected (Non-Fatal) error received: 0000:03:00.0"),
    ]
    found = kernel_events.parse(lines, NOW)
    assert [(event["sub"], event["data"]["announced"], event["count"]) for event in found] == [
        ("corrected", False, 1),
        ("nonfatal", True, 1),
    ]


def test_a_message_over_several_lines_does_not_swallow_an_xid() -> None:
    lines = [
        line("NVRM: The NVIDIA GPU 0000:b3:00.0"),
        line("NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus."),
    ]
    assert [(e["kind"], e["pci_address"]) for e in kernel_events.parse(lines)] == [("xid", "0000:1b:00.0")]


def test_events_are_capped() -> None:
    lines = [line(f"Out of memory: Killed process {n} (x) total-vm:4kB") for n in range(kernel_events.EVENTS_MAX + 10)]
    assert len(kernel_events.parse(lines)) == kernel_events.EVENTS_MAX


FIXED = settings(max_examples=150, deadline=None, derandomize=True)
PIECES = st.sampled_from(
    [
        *(
            "NVRM: ",
            "Xid (PCI:0000:1b:00): ",
            "Xid (",
            "154, GPU recovery action changed from 0x0 (None) to 0x",
            "zz (",
            ")",
        ),
        *("149, NETIR Fatal XC0 i0 Link ", "-1", "SXid (PCI:0000:00:00.0): ", "nvidia-nvswitch0: ", "AER: ", "pid='"),
        *(
            "PCIe Bus Error: severity=",
            ", type=",
            "md/raid1:md0: active with ",
            " out of ",
            "EDAC MC0: ",
            " UE ",
            "name=",
        ),
        *(
            "0000:1b:00.0",
            "9" * 30,
            "\x00",
            "\n",
            "\u0663",
            "INFO: task ",
            " blocked for more than ",
            ": ",
            "mlx5_core ",
        ),
        *("API mismatch:", "Killed process ", "Out of memory: "),
    ]
)


@FIXED
@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=12).map("".join))
def test_arbitrary_text_never_raises(text: str) -> None:
    for event in kernel_events.parse([{"time": text, "boot_id": None, "text": text}], NOW):
        assert xid_rules.judge(event)["severity"] in (None, *kernel_rules.LADDER)


@FIXED
@given(st.text(max_size=400) | st.lists(PIECES, max_size=12).map("".join), st.booleans())
def test_arbitrary_files_never_raise(text: str, as_json: bool) -> None:
    data = '{"MESSAGE": ' + text + "}" if as_json else text
    lines, lost = kernel_lines.parse_file(data, NOW)
    kernel_events.parse([entry.record() for entry in lines], NOW)
    assert lost >= 0
