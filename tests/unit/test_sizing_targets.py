# SPDX-License-Identifier: Apache-2.0
"""What a model could run on: cards, described nodes and facts."""

from __future__ import annotations

from typing import Any

import pytest
from unit.sizing_samples import GPUS, TABLES, described

from ansible.module_utils.rackwright import sizing
from ansible.module_utils.rackwright.sizing_memory import GIB
from ansible.module_utils.rackwright.sizing_targets import from_facts


def device(index: int, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "index": index,
        "state": "ok",
        "name": "NVIDIA H100 80GB HBM3",
        "catalogue_id": "h100-sxm5-80gb",
        "compute_capability": "9.0",
        "memory": {"total_bytes": 81559 << 20},
        "mig": {"mode": "disabled", "instances": []},
    }
    return {**base, **more}


def facts(devices: list[dict[str, Any]], path: str = "NV18") -> dict[str, Any]:
    order = [entry["index"] for entry in devices]
    matrix = [["X" if a == b else path for b in order] for a in order]
    return {
        "situation": "ready",
        "simulated": False,
        "devices": devices,
        "topology": {"devices": order, "matrix": matrix},
    }


def test_a_node_with_facts_has_the_memory_that_nvml_showed() -> None:
    (found,) = from_facts("n1", facts([device(0), device(1)]), GPUS)

    assert found.card.memory == found.card.least_memory == 81559 << 20
    assert (found.counts, found.link, found.problem) == ((1, 2), "NVLink on every pair", None)


@pytest.mark.parametrize(("path", "link"), [("PHB", "PCIe (PHB)"), ("SYS", "PCIe (SYS)")])
def test_the_topology_says_the_link(path: str, link: str) -> None:
    (found,) = from_facts("n1", facts([device(0), device(1)], path), GPUS)

    assert found.link == link


def test_some_pairs_with_nvlink() -> None:
    known = facts([device(0), device(1), device(2)])
    known["topology"]["matrix"][0][2] = known["topology"]["matrix"][2][0] = "PXB"

    assert from_facts("n1", known, GPUS)[0].link == "NVLink on some pairs, PCIe on others"


def test_kinds_of_gpus_do_not_work_together() -> None:
    other = device(1, name="NVIDIA L40S", catalogue_id="l40s", compute_capability="8.9")
    found = from_facts("n1", facts([device(0), other, device(2)]), GPUS)

    assert [(target.card.id, target.counts) for target in found] == [("h100-sxm5-80gb", (1, 2)), ("l40s", (1,))]
    assert found[0].name != found[1].name


def test_mig_instances_stand_alone_and_their_speed_is_unknown() -> None:
    slices = [{"name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "memory_total_bytes": 40 * GIB}] * 2
    (found,) = from_facts("n1", facts([device(0, mig={"mode": "enabled", "instances": slices})]), GPUS)

    assert (found.counts, found.card.memory, found.card.bandwidth, found.card.peaks) == ((1,), 40 * GIB, None, {})


def test_an_unknown_card_has_its_memory_and_no_speed() -> None:
    strange = device(0, name="NVIDIA X1", catalogue_id=None, compute_capability="8.6")
    (found,) = from_facts("n1", facts([strange]), GPUS)

    assert (found.card.memory, found.card.bandwidth, found.card.capability) == (81559 << 20, None, (8, 6))


def test_gpus_that_do_not_answer_are_not_counted() -> None:
    (found,) = from_facts("n1", facts([device(0), device(1, state="lost")]), GPUS)
    (nothing,) = from_facts("n2", {"situation": "no_driver", "devices": [], "simulated": False}, GPUS)

    assert found.counts == (1,)
    assert nothing.problem == "it shows no usable GPU (no_driver)"


def test_nodes_come_first_and_facts_win_over_descriptions() -> None:
    nodes = {
        "a": described("rtx-4090", 2),
        "b": {"gpu": facts([device(0)]), **described("rtx-4090", 2)},
        "c": {},
    }
    found = sizing.targets_of(nodes, ["l4"], TABLES)

    assert [(target.name, target.card.id, target.origin) for target in found] == [
        ("a", "rtx-4090", "description"),
        ("b", "h100-sxm5-80gb", "facts"),
        ("c", None, "unknown"),
        ("l4", "l4", "catalogue"),
    ]
    assert found[2].problem == "it has neither facts nor a description"


def test_all_cards_are_the_whole_catalogue() -> None:
    assert len(sizing.targets_of({}, ["all"], TABLES)) == len(GPUS)
