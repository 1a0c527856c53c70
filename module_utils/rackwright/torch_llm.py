# SPDX-License-Identifier: Apache-2.0
"""The suite ``llm_inference``: a model of a named shape at growing batches, and whether it meets the goal.

Runs only inside a child process. Method and formulas: docs/llm-benchmark.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from . import llm_goal, llm_metrics, llm_model, llm_workloads
from .benchmark_errors import is_out_of_memory
from .llm_decode import PREFILL_TOKENS, Decoder
from .llm_goal import Goal
from .llm_measure import LABEL, Session, measure_point, memory_now
from .llm_quant import quantised_points
from .llm_workloads import Workload
from .measure import DTYPE_BYTES
from .torch_bench import Bench, NotEnoughMemoryError, single

Measure = Callable[[Session, int, float], dict[str, Any]]
#: What of an operating point stands in the summary; the rest is in its own result.
_POINT = (
    *("batch", "output_tokens_per_s", "job_output_tokens_per_s", "total_tokens_per_s", "ttft_ms", "tpot_ms", "itl_ms"),
    *("peak_vram_fraction", "mbu", "roofline_fraction", "regime", "graphs"),
)
_CPU = "a CPU is measured to see that everything works, not to be judged"


def llm_inference_suite(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield one result per operating point, what they say of the goal, and last the points of 8-bit weights.

    Raises:
        InvalidInputError: options name an unknown workload or goal.
        NotEnoughMemoryError: the model would fit on this card, but others use its memory; on a CPU, it is too large.
    """
    started = time.monotonic()
    workload = llm_workloads.chosen(bench.options, bench.on_gpu)
    goal = llm_goal.goal_from(bench.options.get("llm_goal"))
    dtype = llm_workloads.dtype_for(bench.device, bench.info.get("compute_capability"))
    weights, peaks = llm_metrics.weights_of(workload, dtype), llm_metrics.peaks_of(bench.peak, dtype)
    total = memory_now(bench)[1] if bench.on_gpu else None
    bound = llm_goal.ceiling(workload, weights, peaks, total, goal, DTYPE_BYTES[dtype])
    points: list[dict[str, Any]] = []
    if not bench.on_gpu or bound["batch"] != 0:
        session = open_session(bench, workload, dtype)
        most = most_sequences(session, goal) if bench.on_gpu else llm_workloads.MOST_ON_CPU[bench.level_name]
        for result in sweep(session, most, goal, started + llm_workloads.EFFORT[bench.level_name].budget_s):
            points.append(result["details"])
            yield result
        session.model = None  # what follows needs its memory
    if bench.peak is None and bench.on_gpu and bound["reason"]:
        bound = {**bound, "reason": bench.peak_missing or bound["reason"]}
    yield goal_result(bench, workload, dtype, goal, bound, points)
    until = started + bench.level.llm_inference_s if bench.on_gpu else float("inf")
    yield from quantised_points(Session(bench, None, workload, dtype, weights, peaks), points, until)


def open_session(bench: Bench, workload: Workload, dtype: str) -> Session:
    """Return the model on the device, with what is known of its weights and of the device."""
    started = time.perf_counter()
    weights, peaks = llm_metrics.weights_of(workload, dtype), llm_metrics.peaks_of(bench.peak, dtype)
    if not bench.on_gpu:
        _spare_the_host(bench, workload, weights.total)
    torch_type = getattr(bench.torch, dtype)
    model = llm_model.build(
        bench.torch, workload.shape, bench.device, torch_type, bench.seed, workload.theta, workload.slot
    )
    bench.synchronize()
    return Session(bench, model, workload, dtype, weights, peaks, build_s=time.perf_counter() - started)


def _spare_the_host(bench: Bench, workload: Workload, weights: float) -> None:
    """Refuse a model that would take most of a host's memory.

    A GPU says no to an allocation; a host says yes and its kernel then kills a process of its choice.
    """
    free = bench.free_bytes()
    if weights > free / 2:
        raise NotEnoughMemoryError(
            f"the weights of {workload.name} take {weights / 1e9:.1f} GB on a CPU, more than half of the "
            f"{free / 1e9:.1f} GB that are free; the workload {llm_workloads.DEFAULT_CPU} shows that everything works"
        )


def most_sequences(session: Session, goal: Goal) -> int:
    """Return how many slots fit in the goal's part of the memory, beside all that is used without any slot.

    One group of prompts is computed first: from then on libraries, workspaces and activations are in use.

    Raises:
        NotEnoughMemoryError: not even one slot fits.
    """
    bench, slot = session.bench, llm_workloads.slot_bytes(session.workload, session.cache_bytes)
    whole = goal.vram_fraction * memory_now(bench)[1]
    fitting = llm_workloads.most_sequences(session.workload, whole, session.weights.total, session.cache_bytes)
    group = max(1, min(PREFILL_TOKENS // session.workload.prompt, fitting))
    while (used := _used_by(session, group)) is None:
        if group == 1:
            raise NotEnoughMemoryError("not even one sequence fits beside the weights and what else is in use")
        group //= 2
    room = whole - (used - group * slot)
    if room < slot:
        raise NotEnoughMemoryError(
            f"{used - group * slot} bytes are in use without any sequence, and {whole:.0f} may be in all"
        )
    return int(room // slot)


def _used_by(session: Session, group: int) -> int | None:
    """Return the memory in use after computing a group of prompts, or None where it does not fit."""
    bench, workload = session.bench, session.workload
    decoder: Any = None
    try:
        decoder = Decoder(
            bench.torch, session.model, workload, group, bench.device, getattr(bench.torch, session.dtype)
        )
        decoder.fill(bench.torch.zeros(group, workload.prompt, device=bench.device, dtype=bench.torch.int64))
        decoder.prepare(decoder.widths[-1])  # a graph has memory of its own, and the stream it is captured on as well
        bench.synchronize()
        return memory_now(bench)[0]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        decoder = None
        bench.collect()


def sweep(
    session: Session, most: int, goal: Goal, deadline: float, measure: Measure = measure_point
) -> Iterator[dict[str, Any]]:
    """Yield the operating points at growing batches, each with its share of the time that is left.

    A batch that does not fit ends the growth; half way back to the last one that did is tried instead, and again. One
    that fits but exceeds the goal's memory is followed by one smaller by as many slots as it was too much. Where the
    time left is too short for all, some between are left out and the largest stays.

    Raises:
        Exception: what torch raised, unless it says that the memory was too little for more than one sequence.
    """
    queue = llm_workloads.batches(most, session.bench.level_name)
    good, corrected = 0, False
    while queue:
        batch = queue.pop(0)
        share = max(0.0, deadline - time.monotonic()) / (len(queue) + 1)
        result, failure = _attempt(session, batch, share, measure)
        session.bench.collect()
        if result is None:
            smaller = llm_workloads.between(good, batch)
            if smaller is None and good == 0:
                assert failure is not None
                raise failure
            queue = [smaller] if smaller is not None else []
            continue
        yield result
        good = batch
        queue = affordable(session, queue, result["details"], deadline - time.monotonic())
        if not queue and not corrected:
            queue, corrected = _less(session, result, goal, batch), True


def affordable(session: Session, queue: list[int], details: dict[str, Any], seconds: float) -> list[int]:
    """Return what of the queue can be measured in the seconds, evenly spaced; always the largest.

    A point takes at least one answer, five prompts and its graphs. Its step is longer than that of the last point as
    the bytes it reads are more.
    """
    if not queue or details.get("tpot_ms") is None:
        return queue
    workload, weights = session.workload, session.weights.read
    read = llm_workloads.step_bytes(workload, details["batch"], weights, session.cache_bytes)
    fixed = details["compile_s"] + llm_workloads.LEAST_PROMPTS * details["ttft_ms"]["p50"] / 1e3
    answer = (workload.output - 1) * details["tpot_ms"] / 1e3 / read

    def least(batch: int) -> float:
        return fixed + answer * llm_workloads.step_bytes(workload, batch, weights, session.cache_bytes)

    every = (queue[::-1][::stride][::-1] for stride in range(1, len(queue)))
    return next((some for some in every if sum(map(least, some)) <= seconds), queue[-1:])


def _attempt(
    session: Session, batch: int, share: float, measure: Measure
) -> tuple[dict[str, Any] | None, Exception | None]:
    try:
        return measure(session, batch, share), None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, error.with_traceback(None)  # its frames would keep the memory that was too little


def _less(session: Session, result: dict[str, Any], goal: Goal, batch: int) -> list[int]:
    """Return a last batch, smaller by what the largest one used too much; nothing where it kept the goal's memory."""
    details = result["details"]
    used, total = details.get("peak_used_bytes"), details.get("memory_total_bytes")
    if used is None or used <= goal.vram_fraction * total:
        return []
    excess = used - goal.vram_fraction * total
    smaller = batch - int(-(-excess // llm_workloads.slot_bytes(session.workload, session.cache_bytes)))
    return [smaller] if smaller > batch // 2 else []


def goal_result(
    bench: Bench,
    workload: Workload,
    dtype: str,
    goal: Goal,
    bound: dict[str, Any],
    points: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the summary: best throughput within the goal, or of the point closest to it, and the verdict."""
    judged = llm_goal.judge(goal, points, bound, None if bench.on_gpu else _CPU)
    nothing = "belongs to the operating points" if points else "nothing was measured"
    return {
        "suite": "llm_inference",
        "name": f"llm_goal_{workload.name}",
        "unit": "tokens/s",
        "dtype": dtype,
        "shape": [workload.prompt, workload.output, workload.slot],
        "device": bench.device,
        "device_name": bench.info.get("name"),
        "level": bench.level_name,
        **single(judged["value"]),
        "median_s": None,
        "conditions": {"label": LABEL, "seed": bench.seed},
        "clocks": None,
        "throttle": None,
        "missing": {"clocks": nothing, "throttle": nothing, "median_s": nothing},
        "details": {
            "workload": workload.name,
            "label": LABEL,
            "per": "device",
            "goal": goal.as_dict(),
            "verdict": judged["verdict"],
            "reason": judged["reason"],
            "point": {key: judged["point"].get(key) for key in _POINT} if judged["point"] else None,
            "ceiling": bound,
            "points": len(points),
        },
    }
