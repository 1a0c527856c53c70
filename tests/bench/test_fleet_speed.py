# SPDX-License-Identifier: Apache-2.0
"""What runs over a converged fleet cost, against `ansible -m ping` in the same run; printed, not asserted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import bench, bench_fleet
from support.bench_fleet import Site, with_nodes

pytestmark = pytest.mark.nodes
PING, SITE, DRIFT = "ansible -m ping", "site.yml, converged", "check-drift.yml"
IGNORED = "site.yml -e receipts=ignore"
ANSWERS, COMPARED = "one task that answers from a file", "answer and compare, converged"
STALE = "answer and compare, every role stale"
ALIASES = 300
SIZES = (100, 300, 1000)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    print(f"\n{bench.machine()}")
    with bench_fleet.fleet() as fleet:
        yield fleet


def converged(site: Site) -> bench.Cost:
    cost = site.play("site.yml")
    assert f"{len(site.hosts)} node(s): {len(site.hosts)} converged." in cost.output, cost.output[-3000:]
    return cost


def test_eight_nodes(site: Site) -> None:
    actions = {PING: site.ping, SITE: lambda: converged(site), DRIFT: lambda: site.play("check-drift.yml")}
    bench.step("8 nodes: ping, site.yml and check-drift.yml in turn, 7 times each")
    bench.interleaved(actions, 1)
    costs = bench.interleaved({name: with_nodes(action) for name, action in actions.items()}, 7)
    bench.step("8 nodes: every role on every node, whatever its receipts say (minutes)")
    costs[IGNORED] = [with_nodes(lambda: site.play("site.yml", "-e", "receipts=ignore"))()]
    bench.costs_table("8 container nodes over SSH", costs, PING)
    assert "8 converged" in converged(site).output


def test_three_hundred_hosts(site: Site) -> None:
    many = bench_fleet.aliases(ALIASES)
    bench.step(f"{ALIASES} names for these nodes, each with its own connection: opening them, planning")
    many.play("plan-stack.yml")
    many.prove_like(site)
    bench.step(f"{ALIASES} hosts: ping and site.yml in turn, twice each (a minute each on two cores)")
    actions = {PING: with_nodes(many.ping), SITE: with_nodes(lambda: converged(many))}
    costs = bench.interleaved(actions, 2)
    bench.costs_table(f"{ALIASES} hosts over SSH (names of 8 nodes)", costs, PING)


def test_a_thousand_hosts_on_the_control_node(site: Site) -> None:
    """What asking a node costs is left out: hosts answer with what a real node said, read from a file."""
    answers = bench_fleet.FOLDER / "answers"
    for name in bench_fleet.NODES:
        bench.write_json(answers / f"{name}.json", bench_fleet.answer(name))
    costs: dict[str, list[bench.Cost]] = {}
    for count in SIZES:
        many = local(site, count)
        bench.step(f"{count} hosts: planning from cached facts, answering, comparing with lock and receipts")
        planned = many.play("plan-stack.yml", "-e", "plan_facts=cache")
        assert f"{count} node(s): {count} solved." in planned.output, planned.output[-3000:]
        given = ("-e", f"bench_answers={answers}")
        costs[f"plan-stack.yml -e plan_facts=cache, {count} hosts"] = [planned]
        costs[f"{ANSWERS}, {count} hosts"] = [many.play("../tests/bench/plays/answer.yml", *given) for _ in range(2)]
        compared = [many.play("../tests/bench/plays/compare.yml", *given) for _ in range(2)]
        costs[f"{COMPARED}, {count} hosts"] = compared
        stale = many.play("../tests/bench/plays/compare.yml", *given, "-e", "receipts=ignore")
        costs[f"{STALE}, {count} hosts"] = [stale]
        assert f"{count} node(s): {count} converged." in compared[0].output, compared[0].output[-3000:]
        assert f"{count} node(s): {count} stale." in stale.output, stale.output[-3000:]
    bench.costs_table("control node alone", costs, f"{ANSWERS}, {SIZES[0]} hosts")
    for kind in (ANSWERS, COMPARED, STALE):
        cpu = [min(cost.cpu for cost in costs[f"{kind}, {count} hosts"]) for count in SIZES]
        print(f"{kind}: CPU grows with hosts to the power of {bench.growth(SIZES, cpu):.2f}")


def local(site: Site, count: int) -> Site:
    """Return a site of many hosts that need no connection, with the facts and proofs of real nodes."""
    names = [f"{bench_fleet.NODES[number % len(bench_fleet.NODES)]}-{number:04d}" for number in range(count)]
    many = Site(f"local{count}", {name: {} for name in names}, ansible_connection="local")
    many.facts.mkdir()
    for name in names:
        (many.facts / f"s1_{name}").write_bytes((site.facts / f"s1_{name.split('-')[0]}").read_bytes())
    many.prove_like(site)
    return many
