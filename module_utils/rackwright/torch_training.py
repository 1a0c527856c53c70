# SPDX-License-Identifier: Apache-2.0
"""The suite ``llm_training``: what one training step costs on this device, and what each technique buys.

Every technique builds the same model from the same seed, warms up, and times whole steps (forward, backward, AdamW).
Runs only inside a child process; docs/llm-training.md explains the numbers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import llm_model, llm_step, llm_training_plan, llm_workloads, training_group
from .benchmark_errors import is_out_of_memory
from .llm_training_plan import GIB, Technique
from .torch_bench import Bench, WrongAnswerError
from .training_result import SUITE, Reference, Run, Workload, finished, out_of_memory, reference_of

#: The workload whose smallest member fits the smallest cards: a vocabulary of 32,000 needs an eighth of the memory that
#: one of 152,000 or 128,000 does.
DEFAULT_WORKLOAD = "llama2-7b-mha"
#: A card much slower than its level was made for takes as many times the planned seconds before the rest is left out.
PATIENCE = 2


def training_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield one result per technique; in a group of processes, those of FSDP2, from its first process only."""
    if training_group.size_of(bench) > 1:
        yield from _in_group(bench)
        return
    try:
        workload = choose(bench, memory_bytes(bench))
    except llm_step.UnsupportedError as error:
        yield bench.not_applicable(SUITE, str(error))
        return
    dtype = llm_training_plan.plain_dtype(bench.on_gpu, bench.info.get("compute_capability"))
    deadline = time.monotonic() + PATIENCE * bench.level.llm_training_s
    yield from compare(bench, workload, llm_training_plan.techniques(dtype, workload.size.batch), deadline)


def memory_bytes(bench: Bench) -> int:
    """Return the device's whole memory; of memory that is shared with the system, on a CPU as well, what is free."""
    total = bench.info.get("total_memory_bytes")
    if total is None:
        return bench.free_bytes()
    return min(int(total), bench.free_bytes()) if bench.info.get("unified_memory") else int(total)


def choose(bench: Bench, memory: int) -> Workload:
    """Return the workload at the size that fits a device with so many bytes of memory.

    Raises:
        UnsupportedError: not even one layer and the smallest batch fit.
    """
    name = bench.options.get("llm_workload") or (DEFAULT_WORKLOAD if bench.on_gpu else llm_workloads.DEFAULT_CPU)
    load = llm_workloads.find(name)
    level = llm_training_plan.level_for(bench.device, bench.level_name)
    size = llm_training_plan.fit(load.shape, level, memory)
    if size is None:
        least = llm_training_plan.step_bytes(load.shape, llm_training_plan.smallest(level)) / GIB
        need = f"one layer of {load.name} with its optimizer takes about {least:.1f} GiB"
        raise llm_step.UnsupportedError(f"{need}, and the card has {memory / GIB:.1f}")

    def build(bench: Bench, layers: int) -> tuple[Any, list[Any]]:
        shape, torch = llm_training_plan.reduced(load.shape, layers), bench.torch
        positions = level.sequence
        model = llm_model.build(torch, shape, bench.device, torch.float32, bench.seed, load.theta, positions)
        return model, list(model.layers)

    return Workload(load.name, load.shape, build, size)


def compare(
    bench: Bench,
    workload: Workload,
    chosen: list[Technique],
    deadline: float | None = None,
    reference: Reference | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one result per technique, each held against the reference, which is the first where none is given.

    What this torch cannot do is not applicable. A technique that fails for another reason than memory does not keep the
    others from being measured: it is raised after them. None is begun after ``deadline`` (of ``time.monotonic``).
    """
    bench.flush = None  # a step moves far more than a cache holds, and the buffer's memory is needed
    failures: list[str] = []
    for technique in chosen:
        if deadline is not None and time.monotonic() > deadline:
            late = f"the time that the level {bench.level_name} gives to training is used up"
            yield bench.not_applicable(SUITE, late, technique=technique.name)
            continue
        entry = _attempt(bench, workload, technique, reference or Reference(), failures)
        bench.collect()  # an error's frames, and blocks that refer to themselves, hold what the next one needs
        if entry is None:
            continue
        if reference is None and technique is chosen[0]:
            reference = reference_of(entry)
        yield entry
    if failures:
        raise RuntimeError(failures[0])


def _attempt(
    bench: Bench, workload: Workload, technique: Technique, reference: Reference, failures: list[str]
) -> dict[str, Any] | None:
    """Return a result or what is not applicable; None where it failed, and then a line of ``failures``.

    Raises:
        Exception: what went wrong in a technique of several processes. The others wait for this one, so it must not go
            on, nor release memory, which would wait for kernels that wait for the others.
    """
    try:
        return measure_technique(bench, workload, technique, reference)
    except llm_step.UnsupportedError as error:
        return bench.not_applicable(SUITE, str(error), technique=technique.name)
    except Exception as error:
        if technique.ranks > 1:
            raise
        # as text: the error itself would keep the failed technique's tensors alive
        failures.append(f"{technique.name}: {type(error).__name__}: {error}")
        return None


def measure_technique(bench: Bench, workload: Workload, technique: Technique, reference: Any) -> dict[str, Any]:
    """Return the result of one technique; one that does not fit is a result too, of zero tokens per second."""
    try:
        return finished(bench, workload, technique, reference, _run(bench, workload, technique))
    except Exception as error:
        if technique.ranks > 1 or not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
    return out_of_memory(bench, workload, technique, reference, reason)


def _run(bench: Bench, workload: Workload, technique: Technique) -> Run:
    level = llm_training_plan.level_for(bench.device, bench.level_name)
    step = _step(bench, workload, technique)
    if bench.on_gpu:
        # a model that is sharded was whole before, which is no part of the step
        bench.collect()
        bench.torch.cuda.reset_peak_memory_stats(bench.device)
    first = step.run()  # pays for library loading, algorithm choice and the optimizer's state
    agree = workload.agree if technique.ranks > 1 else float
    step_s = agree(_repeat(bench, step, 1))
    warmup_steps = llm_training_plan.warmup_steps(level, step_s)
    if warmup_steps:
        step_s = agree(_repeat(bench, step, warmup_steps))
    count = llm_training_plan.step_count(level, step_s)
    with bench.watch.during() as record:
        seconds, last = _timed(bench, step, count)
    losses = (float(first), float(last))
    if not all(math.isfinite(loss) for loss in losses):
        raise WrongAnswerError(f"the loss is not finite: {losses[0]} at the first step, {losses[1]} at the last")
    peak, reserved = _peaks(bench)
    return Run(seconds, losses, peak, reserved, record.result(), step.skipped_steps(), warmup_steps + 2)


def _step(bench: Bench, workload: Workload, technique: Technique) -> llm_step.Step:
    torch, size = bench.torch, workload.size
    model, blocks = workload.build(bench, size.layers)
    model.train()
    if technique.checkpointing:
        llm_step.checkpoint_blocks(torch, blocks)
    rank = 0
    if technique.ranks > 1:
        rank = training_group.rank_of(bench)
        llm_step.shard(torch, model, blocks, technique.dtype, "cuda" if bench.on_gpu else "cpu")
    generator = torch.Generator(device="cpu").manual_seed(bench.seed + rank)
    tokens = torch.randint(0, workload.shape.vocab, (size.batch, size.sequence + 1), generator=generator)
    return llm_step.Step(torch, model, technique, tokens.to(bench.device))


def _repeat(bench: Bench, step: llm_step.Step, count: int) -> float:
    """Take so many steps and return the seconds of one."""
    bench.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        step.run()
    bench.synchronize()
    return (time.perf_counter() - started) / count


def _timed(bench: Bench, step: llm_step.Step, count: int) -> tuple[list[float], Any]:
    """Return the seconds of each of ``count`` steps and the last loss."""
    last: deque[Any] = deque(maxlen=1)
    seconds = bench.intervals([lambda: last.append(step.run())] * count)
    return seconds, last[0]


def _peaks(bench: Bench) -> tuple[int | None, int | None]:
    """Return the most bytes that tensors held, and that torch had taken for them; a CPU's allocator counts neither."""
    if not bench.on_gpu:
        return None, None
    cuda = bench.torch.cuda
    return int(cuda.max_memory_allocated(bench.device)), int(cuda.max_memory_reserved(bench.device))


def _in_group(bench: Bench) -> Iterator[dict[str, Any]]:
    """Join the group, measure the plain step on each device by itself, then sharded over all of them.

    Only the first process yields: there is one result for all. Size and data type are those of the least able card.
    """
    first = training_group.rank_of(bench) == 0
    try:
        with training_group.joined(bench) as group:
            for entry in _together(bench, group):
                if first:
                    yield entry
    except llm_step.UnsupportedError as error:
        if first:
            yield {"not_applicable": {"suite": SUITE, "device": "node", "reason": str(error)}}


def _together(bench: Bench, group: training_group.Group) -> Iterator[dict[str, Any]]:
    major, minor = _capability(bench)
    least = int(group.least(10 * major + minor))
    dtype = llm_training_plan.plain_dtype(bench.on_gpu, (least // 10, least % 10))
    workload = replace(choose(bench, int(group.least(memory_bytes(bench)))), agree=group.most)
    plain, *sharded = llm_training_plan.sharded_techniques(dtype, training_group.size_of(bench))
    failures: list[str] = []
    # the plain step is known from each device's own run; here it only is what the others are held against
    alone = _attempt(bench, workload, plain, Reference(), failures) or {}
    bench.release()
    measured = (alone.get("details") or {}).get("state") == "measured"
    if group.least(1.0 if measured else 0.0) < 1.0:
        if failures:
            raise RuntimeError(failures[0])
        raise llm_step.UnsupportedError("the step of one GPU alone did not run on every GPU of the node")
    yield from compare(bench, workload, sharded, reference=reference_of(alone))


def _capability(bench: Bench) -> tuple[int, int]:
    """Return the compute capability; of a device that has none, one that excludes nothing."""
    known = bench.info.get("compute_capability")
    return (int(known[0]), int(known[1])) if known else (99, 0)
