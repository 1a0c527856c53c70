# SPDX-License-Identifier: Apache-2.0
"""What Slurm says, in the forms of its releases, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.drains import Clock, request

from ansible.module_utils.rackwright.drain import Job
from ansible.module_utils.rackwright.drain_run import Done
from ansible.module_utils.rackwright.drain_slurm import Slurm, flags_of, parse_jobs, parse_node, situation
from ansible.module_utils.rackwright.errors import RackwrightError


@pytest.mark.parametrize(
    ("state", "flags"),
    [
        ("IDLE", {"IDLE"}),
        ("MIXED+DRAIN", {"MIXED", "DRAIN"}),
        ("DOWN*+DRAIN", {"DOWN", "DRAIN", "NOT_RESPONDING"}),
        ("DOWN+DRAIN+NOT_RESPONDING", {"DOWN", "DRAIN", "NOT_RESPONDING"}),
        ("IDLE+CLOUD+POWERED_DOWN", {"IDLE", "CLOUD", "POWERED_DOWN"}),
        ("idle~", {"IDLE", "POWERED_DOWN"}),
        ("DRAINED*", {"IDLE", "DRAIN", "NOT_RESPONDING"}),
        ("draining", {"ALLOCATED", "DRAIN"}),
        ("IDLE*+DRAIN", {"IDLE", "DRAIN", "NOT_RESPONDING"}),
        ("MIXED+PLANNED", {"MIXED", "PLANNED"}),
    ],
)
def test_state_words(state: str, flags: set[str]) -> None:
    assert flags_of(state) == flags


# shapes of `scontrol show node NAME -o` as its releases print it
SLURM_17 = (
    "NodeName=oxygen-04 Arch=x86_64 CoresPerSocket=12 CPUAlloc=0 CPUErr=0 CPUTot=48 CPULoad=0.00 Gres=(null) "
    "NodeAddr=oxygen-04 NodeHostName=oxygen-04 Version=17.11 OS=Linux 4.14.61 #1 SMP Tue Aug 7 18:13:22 2018  "
    "State=IDLE+DRAIN ThreadsPerCore=2 Partitions=short,medium ExtSensorsTemp=n/s "
    "Reason=memory issues? [root@2019-01-29T10:42:12]"
)
SLURM_20 = (
    "NodeName=cu201 Arch=x86_64 CPUAlloc=0 State=IDLE+DRAIN ThreadsPerCore=1 CapWatts=n/a "
    "Reason=Low RealMemory [root@2022-05-18T17:20:20] Comment=(null)"
)
SLURM_22 = (
    "NodeName=gpu-slurm Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=2 CPUTot=2 Gres=(null) NodeHostName=dr-a "
    "Version=22.05.8 OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=1 State=MIXED+DRAIN ThreadsPerCore=1 "
    "Partitions=p  LastBusyTime=2026-11-24T17:16:11 AllocTRES=cpu=1 ExtSensorsTemp=n/s "
    "Reason=rackwright:abc driver update [root@2026-11-24T17:16:33]"
)
SLURM_25 = (
    "NodeName=server5 Arch=x86_64 Version=25.05.3 State=IDLE ThreadsPerCore=1 TmpDisk=0 Partitions=cpu,memory  "
    "LastBusyTime=2025-09-23T08:48:32 ResumeAfterTime=None CfgTRES=cpu=8,mem=15988M,billing=8 CurrentWatts=0"
)
BRACKETS = "NodeName=worker-0 State=IDLE+DRAIN Reason=[user_problem] alloc_gpus_busy [root@2026-01-01T00:00:00]"
EQUALS = "NodeName=n1 State=DOWN Reason=NHC: check State=BAD failed [slurm@2026-09-01T10:00:00] Comment=x"


@pytest.mark.parametrize(
    ("text", "state", "reason", "by"),
    [
        (SLURM_17, "IDLE+DRAIN", "memory issues?", "root"),
        (SLURM_20, "IDLE+DRAIN", "Low RealMemory", "root"),
        (SLURM_22, "MIXED+DRAIN", "rackwright:abc driver update", "root"),
        (SLURM_25, "IDLE", None, None),
        (BRACKETS, "IDLE+DRAIN", "[user_problem] alloc_gpus_busy", "root"),
        (EQUALS, "DOWN", "NHC: check State=BAD failed", "slurm"),
    ],
)
def test_node_line(text: str, state: str, reason: str | None, by: str | None) -> None:
    node = parse_node(text + "\n")
    assert node is not None
    assert (node["state"], node["reason"], node["by"]) == (state, reason, by)


def test_no_node() -> None:
    assert parse_node("Node nope not found\n") is None


def test_job_lines() -> None:
    assert parse_jobs("12|alice|RUNNING|a|b\n13_4|bob|SUSPENDED|\n\n") == [
        "job 12 of alice (a|b, running)",
        "job 13_4 of bob (no name, suspended)",
    ]


JOB = ["job 1 of alice (train, running)"]


@pytest.mark.parametrize(
    ("state", "jobs", "judged", "empty"),
    [
        ("IDLE", [], "in_service", False),
        ("ALLOCATED", JOB, "in_service", False),
        ("MIXED+PLANNED", JOB, "in_service", False),
        ("IDLE+RESERVED", [], "in_service", False),
        ("IDLE+CLOUD+POWERED_DOWN", [], "in_service", False),
        ("IDLE+NOT_RESPONDING", [], "in_service", False),
        ("IDLE+DRAIN", [], "drained", True),
        # a suspended job leaves the node IDLE
        ("IDLE+DRAIN", JOB, "draining", False),
        ("MIXED+DRAIN", JOB, "draining", False),
        # the job is gone from the queue and its epilog still runs
        ("IDLE+COMPLETING+DRAIN", [], "draining", False),
        ("MIXED+DRAIN", [], "draining", False),
        ("DOWN*+DRAIN", [], "drained", True),
        ("IDLE+FAIL", [], "drained", True),
        ("DOWN", [], "down", True),
        ("DOWN+NOT_RESPONDING", [], "down", True),
        ("UNKNOWN", [], "unknown", False),
        ("UNKNOWN+DRAIN", [], "draining", False),
        ("IDLE+INVALID_REG", [], "unknown", False),
    ],
)
def test_situations(state: str, jobs: list[str], judged: str, empty: bool) -> None:
    node = parse_node(f"NodeName=x State={state} Reason=why [root@2026-01-01T00:00:00]")
    assert node is not None
    seen = situation(node, jobs)
    assert (seen.state, seen.empty) == (judged, empty)
    assert bool(seen.waiting_for) is (judged == "draining")


class Cluster:
    """Answers as Slurm 22.05 did when it was tried."""

    def __init__(self, state: str = "IDLE", reason: str = "", jobs: str = "") -> None:
        self.state = state
        self.reason = reason
        self.jobs = jobs
        self.failure: Done | None = None
        self.updates: list[list[str]] = []
        self.resume_says = Done(0, "", "")

    def run(self, argv: Sequence[str], timeout_s: float, extra: Any = None) -> Done:
        if self.failure:
            return self.failure
        if argv[0] == "squeue":
            assert "--nodelist=gpu-1" in argv
            return Done(0, self.jobs, "")
        if argv[1] == "show":
            reason = f" Reason={self.reason} [root@2026-11-24T17:16:33]" if self.reason else ""
            return Done(0, f"NodeName=gpu-1 State={self.state} Partitions=p{reason}\n", "")
        self.updates.append(list(argv[2:]))
        values = dict(word.split("=", 1) for word in argv[2:])
        if values["State"] == "DRAIN":
            self.state, self.reason = f"{self.state}+DRAIN", values["Reason"]
            return Done(0, "", "")
        self.state, self.reason = "IDLE", ""
        return self.resume_says


def call(cluster: Cluster, state: str = "drained", clock: Clock | None = None, **options: Any) -> dict[str, Any]:
    wanted = request(state, **options)
    timer = clock or Clock()
    job = Job(wanted, Slurm(wanted, cluster.run), timer, timer.sleep)
    {"drained": job.drain, "resumed": job.resume, "status": job.status}[state]()
    return job.report()


def test_there_and_back() -> None:
    cluster = Cluster()
    drained = call(cluster)
    assert cluster.updates == [["NodeName=gpu-1", "State=DRAIN", "Reason=rackwright:run-1 driver update"]]
    assert drained["before"] == {"state": "IDLE", "reason": None, "by": None}
    cluster.state = "DOWN+DRAIN+NOT_RESPONDING"  # it was rebooted: Slurm keeps the reason
    assert call(cluster, "resumed", record=drained["record"])["resumed"] is True
    assert cluster.updates[1:] == [["NodeName=gpu-1", "State=RESUME"]]


def test_a_controller_that_was_restarted_complains_and_resumes() -> None:
    cluster = Cluster("IDLE+DRAIN", "rackwright:run-1 x")
    cluster.resume_says = Done(1, "", "slurm_update error: Invalid node state specified\n")
    assert call(cluster, "resumed")["resumed"] is True


def test_a_node_that_does_not_answer_after_resuming_is_reported() -> None:
    cluster = Cluster("IDLE+DRAIN", "rackwright:run-1 x")

    def away(argv: Sequence[str], timeout_s: float, extra: Any = None) -> Done:
        done = Cluster.run(cluster, argv, timeout_s)
        cluster.state = "IDLE+NOT_RESPONDING" if cluster.updates else cluster.state
        return done

    cluster.run = away  # type: ignore[method-assign]
    with pytest.raises(RackwrightError, match="slurmd does not answer"):
        call(cluster, "resumed")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("IDLE+DRAIN", "DIMM broken"),
        ("DOWN+NOT_RESPONDING", "Not responding"),
        # somebody took the drain flag away and left our words
        ("DOWN", "rackwright:run-1 driver update"),
    ],
)
def test_others_keep_what_they_took(state: str, reason: str) -> None:
    cluster = Cluster(state, reason)
    drained = call(cluster)
    assert (drained["foreign"], drained["drained"]) == (True, True)
    assert call(cluster, "resumed")["resumed"] is False
    assert cluster.updates == []


def test_a_node_with_fewer_gpus_than_slurm_expects_is_not_resumed() -> None:
    cluster = Cluster("IDLE+DRAIN+INVALID_REG", "rackwright:run-1 x")
    with pytest.raises(RackwrightError, match="perhaps a GPU"):
        call(cluster, "resumed")
    assert cluster.updates == []


@pytest.mark.parametrize(
    ("done", "kind", "says"),
    [
        (Done(1, "Node gpu-1 not found\n", ""), "missing", "Set node_name to the NodeName"),
        (
            Done(1, "", "slurm_load_node error: Unable to contact slurm controller (connect failure)\n"),
            "timed_out",
            "Start slurmctld",
        ),
        (Done(1, "", "slurm_update error: Invalid user id\n"), "probe", "Run as root or SlurmUser"),
        (Done(1, "", "something else\n"), "probe", "Slurm answered: something else"),
        (Done(1, "", ""), "probe", "status 1 and said nothing"),
    ],
)
def test_refusals(done: Done, kind: str, says: str) -> None:
    cluster = Cluster()
    cluster.failure = done
    with pytest.raises(RackwrightError, match=says) as caught:
        call(cluster)
    assert caught.value.kind == kind
