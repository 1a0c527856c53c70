# SPDX-License-Identifier: Apache-2.0
"""Metrics in Prometheus' text format, held against a strict reader; whatever a node is called or says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prometheus_text import Samples, parse
from unit.export_samples import NOW, cached, report

from ansible.module_utils.rackwright.fleet_facts import node_facts
from ansible.module_utils.rackwright.metrics_text import FAMILIES, to_text


def metrics(facts: dict[str, Any], found: Any = None, name: str = "n1") -> Samples:
    return parse(to_text({name: node_facts(facts, found, 168, NOW)}))


def only(samples: Samples, metric: str, /, **labels: str) -> list[float]:
    """The values of a metric whose labels include these."""
    return [value for key, value in samples.get(metric, {}).items() if labels.items() <= dict(key).items()]


def test_a_node_with_everything_gives_every_metric() -> None:
    whole = report()
    whole["benchmark"]["results"].append({**whole["benchmark"]["results"][-1], "device": "node", "suite": "burn"})
    found = metrics(cached(), whole)

    assert set(found) == set(FAMILIES)
    assert only(found, "rackwright_node_verdict", node="n1", verdict="warn") == [1]
    assert sorted(only(found, "rackwright_node_verdict")) == [0, 0, 0, 1]
    assert only(found, "rackwright_health_severity") == [2]
    assert only(found, "rackwright_health_checks", state="not_measured") == [2]
    assert only(found, "rackwright_facts_timestamp_seconds") == [1795953600]
    assert only(found, "rackwright_verdict_timestamp_seconds") == [1796036400]
    assert only(found, "rackwright_gpu_memory_bytes", gpu="1", uuid="GPU-0000-1") == [85520809984]
    assert only(found, "rackwright_gpu_info", model="h100-sxm5-80gb", simulated="false") == [1, 1]
    speed = {"suite": "gemm", "name": "gemm_bfloat16_8192", "unit": "TFLOP/s", "dtype": "bfloat16"}
    assert only(found, "rackwright_gpu_benchmark_value", gpu="0", uuid="GPU-0000-0", **speed) == [740]
    assert only(found, "rackwright_node_benchmark_value", suite="burn") == [2540]


def test_simulated_values_are_marked_and_their_speed_is_absent() -> None:
    found = metrics(cached(simulated=True), report(simulated=True))

    assert found["rackwright_gpu_memory_bytes"]
    assert all(("simulated", "true") in key for samples in found.values() for key in samples)
    assert not [name for name in found if "benchmark" in name]


def test_numbers_of_a_cpu_are_no_numbers_of_a_gpu() -> None:
    whole = report()
    for entry in whole["benchmark"]["results"]:
        entry["device"] = "cpu"

    assert not [name for name in metrics(cached(), whole) if "benchmark" in name]


@pytest.mark.parametrize(
    ("facts", "absent"),
    [
        (cached(gpu=None), "rackwright_node_info"),
        (cached(gpu_health=None), "rackwright_health_severity"),
        (cached(gpu_health={"severity": "odd"}), "rackwright_health_severity"),
        (cached(gpu_verdict={"verdict": "odd"}), "rackwright_node_verdict"),
        (cached(gpu_verdict={"verdict": "pass", "at": "odd"}), "rackwright_verdict_timestamp_seconds"),
    ],
)
def test_what_is_not_known_has_no_sample(facts: dict[str, Any], absent: str) -> None:
    found = metrics(facts)

    assert found
    assert absent not in found


def test_nothing_known_is_an_empty_file() -> None:
    assert metrics({}) == {}
    assert to_text({}) == ""


def test_cards_without_any_identity_do_not_repeat_a_sample() -> None:
    """To Prometheus an empty label is none, so the first two are one series as well."""
    facts = cached()
    facts["gpu"]["devices"] = [{"name": ""}, {}, {}]

    assert only(metrics(facts), "rackwright_gpu_info") == [1]


@pytest.mark.parametrize("count", [float("nan"), float("inf"), True, "8", None])
def test_what_is_no_finite_number_has_no_sample(count: Any) -> None:
    facts = cached()
    facts["gpu"]["count"] = count

    assert "rackwright_node_gpus" not in metrics(facts)


def test_a_benchmark_beside_simulated_gpus_is_not_shown_wherever_it_comes_from() -> None:
    record = node_facts(cached(), report(), 168, NOW)
    assert "rackwright_gpu_benchmark_value" in parse(to_text({"n1": record}))
    record["simulated"] = True

    assert not [name for name in parse(to_text({"n1": record})) if "benchmark" in name]


HOSTILE = ['q"uote', "back\\slash", "new\nline", "näme-ü-集群", "{}", 'a="b",c', "\\n", "# HELP x", "\r\x00", " "]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_out_as_they_went_in(name: str) -> None:
    facts = cached()
    facts["gpu"]["devices"][0]["name"] = name
    found = metrics(facts, report(), name)

    assert {dict(key)["node"] for samples in found.values() for key in samples} == {name}
    assert {dict(key)["name"] for key in found["rackwright_gpu_info"]} == {name, "NVIDIA H100 80GB HBM3"}


@settings(max_examples=100)
@given(st.text(min_size=1), st.text(), st.one_of(st.none(), st.integers(), st.floats(), st.text()))
def test_no_input_breaks_the_format(node: str, text: str, value: Any) -> None:
    facts = cached()
    facts["gpu"].update(situation=text, count=value, collected_at=text)
    facts["gpu"]["devices"][0].update(name=text, uuid=text, memory={"total_bytes": value})
    whole = report()
    whole["benchmark"]["results"][-1].update(value=value, name=text, unit=text)

    metrics(facts, whole, node)


@pytest.mark.parametrize(
    "text",
    [
        "a 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        '# HELP a b\n# TYPE a gauge\na{x="1",} 1\n',
        '# HELP a b\n# TYPE a gauge\na{x="1" y="2"} 1\n',
        '# HELP a b\n# TYPE a gauge\na{x="q"q"} 1\n',
        '# HELP a b\n# TYPE a gauge\na{x="\\t"} 1\n',
        "# HELP a b\n# TYPE a gauge\na one\n",
        "# HELP a_total b\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a b\n# TYPE a gauge\n# HELP c b\n# TYPE c gauge\nc 1\na 1\n",
    ],
)
def test_the_strict_reader_refuses(text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        parse(text)
