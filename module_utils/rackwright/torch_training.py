# SPDX-License-Identifier: Apache-2.0
"""The suite ``llm_training``: what one training step costs on this device, and what each technique buys.

Every technique builds the same model from the same seed, warms up, and times whole steps (forward, backward, AdamW).
Runs only inside a child process; docs/llm-training.md explains the numbers.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import llm_model, llm_step, llm_training_plan, llm_workloads, measure, training_group
from .llm_training_plan import GIB, Size, Technique
from .torch_bench import Bench, WrongAnswerError, single

SUITE = "llm_training"
#: The workload whose smallest member fits the smallest cards: a vocabulary of 32,000 needs an eighth of the memory that
#: one of 152,000 or 128,000 does.
DEFAULT_WORKLOAD = "llama2-7b-mha"
#: A card much slower than its level was made for takes as many times the planned seconds before the rest is left out.
PATIENCE = 2

#: ``build(bench, layers)`` returns the model in fp32 on the bench's device and its blocks.
Build = Callable[[Bench, int], "tuple[Any, list[Any]]"]


@dataclass(frozen=True)
class Workload:
    """A named model shape, how to build it with fewer layers, and the size that was chosen for the device.

    ``agree`` makes of this process's seconds those that all processes of the group count with.
    """

    name: str
    shape: Any
    build: Build
    size: Size
    agree: Callable[[float], float] = float

    @property
    def label(self) -> str:
        """Name of what is trained, with the number of layers where it is not the whole model."""
        return llm_training_plan.workload_name(self.name, self.shape.layers, self.size.layers)


@dataclass
class Reference:
    """The plain step that the others are held against: its result's name, tokens/s and peak memory."""

    name: str | None = None
    tokens_per_s: float | None = None
    peak_bytes: int | None = None


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
        if bench.on_gpu:
            gc.collect()  # an error's frames, and blocks that refer to themselves, hold what the next one needs
        bench.release()
        if entry is None:
            continue
        if reference is None and technique is chosen[0]:
            reference = reference_of(entry)
        yield entry
    if failures:
        raise RuntimeError(failures[0])


def reference_of(entry: dict[str, Any]) -> Reference:
    """Return what others are held against, from a result; nothing where there is none."""
    if "details" not in entry:
        return Reference()
    return Reference(entry["name"], entry["value"] or None, entry["details"]["peak_memory_bytes"])


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
        return _finished(bench, workload, technique, reference, _run(bench, workload, technique))
    except Exception as error:
        if technique.ranks > 1 or not llm_step.is_out_of_memory(bench.torch, error):
            raise
        reason = " ".join(str(error).split())[:300]
    return _out_of_memory(bench, workload, technique, reference, reason)


@dataclass
class _Run:
    """What was measured of one technique."""

    seconds: list[float]
    losses: tuple[float, float]
    peak_bytes: int | None
    reserved_bytes: int | None
    watched: dict[str, Any]
    skipped: int
    warmup_steps: int


def _run(bench: Bench, workload: Workload, technique: Technique) -> _Run:
    level = llm_training_plan.level_for(bench.device, bench.level_name)
    step = _step(bench, workload, technique)
    if bench.on_gpu:
        # a model that is sharded was whole before, which is no part of the step
        gc.collect()
        bench.release()
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
    return _Run(seconds, losses, peak, reserved, record.result(), step.skipped_steps(), warmup_steps + 2)


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
    loss = None
    if bench.on_gpu:
        event = bench.torch.cuda.Event
        marks = [event(enable_timing=True) for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            loss = step.run()
            mark.record()
        bench.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in zip(marks, marks[1:])], loss
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        loss = step.run()
        seconds.append(time.perf_counter() - started)
    return seconds, loss


def _peaks(bench: Bench) -> tuple[int | None, int | None]:
    """Return the most bytes that tensors held, and that torch had taken for them; a CPU's allocator counts neither."""
    if not bench.on_gpu:
        return None, None
    cuda = bench.torch.cuda
    return int(cuda.max_memory_allocated(bench.device)), int(cuda.max_memory_reserved(bench.device))


def _finished(bench: Bench, workload: Workload, technique: Technique, reference: Any, run: _Run) -> dict[str, Any]:
    size, ranks = workload.size, technique.ranks
    numbers = measure.summarize(measure.rates(run.seconds, size.tokens * ranks, 1.0))
    key = llm_training_plan.SHORT[technique.dtype]
    peak_tflops = ((bench.peak or {}).get("tflops") or {}).get(key)
    flop = llm_training_plan.flops_per_token(workload.shape, size.layers, size.sequence)
    missing = dict(run.watched.get("missing") or {})
    if run.peak_bytes is None:
        missing["details.peak_memory_bytes"] = "the allocator of a CPU keeps no peak"
    if not peak_tflops:
        missing["details.mfu"] = bench.peak_missing or f"the catalogue has no {key} peak of this card"
    clocks = run.watched.get("clocks")
    details = {
        **_details(workload, technique, reference),
        "state": "measured",
        "mfu": llm_training_plan.mfu(flop, numbers["median"], peak_tflops, ranks),
        "flop_per_token": flop,
        "peak_memory_bytes": run.peak_bytes,
        "peak_reserved_bytes": run.reserved_bytes,
        "peak_device_bytes": ((clocks or {}).get("memory_used_bytes") or {}).get("max"),
        "loss": {"first": run.losses[0], "last": run.losses[1]},
        "skipped_steps": run.skipped,
        "tokens_ratio": llm_training_plan.ratio(numbers["median"], reference.tokens_per_s),
        "memory_ratio": llm_training_plan.ratio(run.peak_bytes, reference.peak_bytes),
    }
    result = _result(bench, workload, technique, details)
    result.update(numbers, value=numbers["median"], median_s=sorted(run.seconds)[len(run.seconds) // 2])
    result.update(clocks=clocks, throttle=run.watched.get("throttle"), missing=missing)
    result["conditions"]["warmup_steps"] = run.warmup_steps
    return result


def _out_of_memory(
    bench: Bench, workload: Workload, technique: Technique, reference: Any, reason: str
) -> dict[str, Any]:
    unknown = ("mfu", "peak_memory_bytes", "peak_reserved_bytes", "peak_device_bytes", "loss", "skipped_steps")
    details = {
        **_details(workload, technique, reference),
        "state": "out_of_memory",
        **dict.fromkeys((*unknown, "tokens_ratio", "memory_ratio")),
    }
    result = _result(bench, workload, technique, details)
    result.update(single(0.0), median_s=None, clocks=None, throttle=None)
    nothing = "nothing was timed"
    result["missing"] = {"value": f"it does not fit into the memory: {reason}", "clocks": nothing, "throttle": nothing}
    return result


def _details(workload: Workload, technique: Technique, reference: Reference) -> dict[str, Any]:
    total, _embedding = llm_training_plan.parameters(workload.shape, workload.size.layers)
    return {
        "workload": workload.name,
        "layers": workload.size.layers,
        "layers_of_workload": workload.shape.layers,
        "parameters": total,
        "batch": workload.size.batch,
        "sequence": workload.size.sequence,
        "technique": technique.name,
        "techniques": technique.record(),
        "compared_with": reference.name,
    }


def _result(bench: Bench, workload: Workload, technique: Technique, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "suite": SUITE,
        "name": f"llm_train_{workload.label}_{technique.name}",
        "unit": "tokens/s",
        "device": "node" if technique.ranks > 1 else bench.device,
        "device_name": bench.info.get("name"),
        "dtype": technique.dtype,
        "shape": [workload.size.batch * technique.ranks, workload.size.sequence],
        "level": bench.level_name,
        "conditions": {"optimizer": "AdamW", "weights": "float32", "data": "random tokens, one fixed batch"},
        "details": details,
    }


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
