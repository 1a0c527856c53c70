# SPDX-License-Identifier: Apache-2.0
"""Measure one operating point: one model, one batch of equal sequences. Runs only inside a child process.

Prompts and decode steps are timed apart. A decode step is timed from the end of the last one to its own end, so that
whatever lies between them counts. Building the model, choosing kernels and capturing graphs come before and are in no
number but their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import llm_metrics, llm_workloads, measure
from .llm_decode import Decoder, Kernel, kernels
from .llm_metrics import Peaks, Weights
from .llm_workloads import Workload
from .torch_bench import Bench, WrongAnswerError

LABEL = "static_batch"
#: Steps by which the ways of attention are compared.
_TRIAL_STEPS = 5
#: A way of attention may differ so much from the right answer; rounding to 16 bit makes up less than a hundredth.
_MOST_DIFFERENCE = 0.03
#: CUDA shows a little less than NVML of a whole card, and much less of a part of one.
_WHOLE_CARD = 1.2


@dataclass
class Session:
    """One model on one device, ready to be measured at any batch.

    Attributes:
        dtype: name of torch's data type of activations and cache.
        suffix: what a variant of the weights adds to the names of results, for example ``_int8wo``.
        extra: what a variant adds to the details of each result.
    """

    bench: Bench
    model: Any
    workload: Workload
    dtype: str
    weights: Weights
    peaks: Peaks
    suffix: str = ""
    build_s: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def cache_bytes(self) -> int:
        """Bytes of one cached element."""
        return measure.DTYPE_BYTES[self.dtype]


@dataclass
class _Timed:
    """Seconds, as they were taken."""

    compile_s: float = 0.0
    batch_prefill_s: float = 0.0
    prompts: int = 0
    ttft_s: list[float] = field(default_factory=list)
    prefill_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    joules: float | None = None


def measure_point(session: Session, batch: int, budget_s: float) -> dict[str, Any]:
    """Return the result of one operating point, measured in about ``budget_s`` seconds, never with less than is needed.

    Raises:
        WrongAnswerError: a step gave logits that are not finite.
        Exception: whatever torch raises; ``benchmark_errors.is_out_of_memory`` tells when the batch was too large.
    """
    bench = session.bench
    started = time.perf_counter()
    dtype = getattr(bench.torch, session.dtype)
    decoder = Decoder(bench.torch, session.model, session.workload, batch, bench.device, dtype)
    prompts = _prompts(session, batch)
    decoder.prefill(prompts[:1])
    tried, step_s = choose(decoder, bench.synchronize, kernels(bench.torch, bench.on_gpu))
    bench.collect()  # what the ways that were not chosen needed is not part of the peak
    if bench.on_gpu:
        bench.torch.cuda.reset_peak_memory_stats(bench.device)
    for width in decoder.widths:
        decoder.prepare(width)
    bench.synchronize()
    timed = _Timed(compile_s=time.perf_counter() - started)
    left = max(0.0, budget_s - timed.compile_s)
    with bench.watch.during() as record:
        _time_prompts(session, decoder, prompts, timed, left / 4)
        _time_steps(session, decoder, timed, step_s, left * 3 / 4)
    _check(bench, decoder)
    return _result(session, decoder, timed, record.result(), tried)


def choose(
    decoder: Decoder, synchronize: Callable[[], None], candidates: list[Kernel]
) -> tuple[dict[str, float | str], float]:
    """Use the way of attention whose steps are fastest at the widest window, of those that give the right answer.

    Returns:
        Per candidate the seconds of a step, or why it does not run; and the seconds of the one that is used.

    Raises:
        Exception: that of the last candidate, where none runs.
    """
    tried: dict[str, float | str] = {}
    best: tuple[float, Kernel] | None = None
    failure: Exception | None = None
    width = decoder.widths[-1]
    for kernel in candidates:
        decoder.use(kernel)
        try:
            _compare(decoder, kernel, width)
            seconds = _trial(decoder, synchronize, width)
        except Exception as error:  # a backend that does not take this card, type or mask says so only when called
            tried[kernel.name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            failure = error.with_traceback(None)  # its frames would keep the memory that was too little
            continue
        tried[kernel.name] = seconds
        best = (seconds, kernel) if best is None or seconds < best[0] else best
    if best is None:
        raise failure if failure is not None else ValueError("no way of attention was offered")
    decoder.use(best[1])
    return tried, best[0]


def _compare(decoder: Decoder, kernel: Kernel, width: int) -> None:
    difference = decoder.difference(kernel, width)
    if not difference <= _MOST_DIFFERENCE:  # also not a number
        raise WrongAnswerError(f"attention differs by {difference:.1%} from plain products in float32")


def _trial(decoder: Decoder, synchronize: Callable[[], None], width: int) -> float:
    decoder.prepare(width)
    times = []
    for _ in range(_TRIAL_STEPS):
        decoder.start(decoder.workload.prompt)
        synchronize()
        started = time.perf_counter()
        decoder.advance(width)
        synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def _prompts(session: Session, batch: int) -> Any:
    torch, workload = session.bench.torch, session.workload
    generator = torch.Generator(device=session.bench.device).manual_seed(session.bench.seed)
    size = (batch, workload.prompt)
    return torch.randint(0, workload.shape.vocab, size, generator=generator, device=session.bench.device)


def _time_prompts(session: Session, decoder: Decoder, prompts: Any, timed: _Timed, seconds: float) -> None:
    """Fill every slot; then time single prompts as a request sees them that comes when a decode step has just begun."""
    bench, workload = session.bench, session.workload
    _fill(bench, decoder, prompts, timed, seconds / 2)
    middle = workload.prompt + workload.output // 2
    width = decoder.width_at(middle + 1)
    each = timed.batch_prefill_s / decoder.batch
    for _ in range(llm_workloads.prompts(llm_workloads.EFFORT[bench.level_name].prompts, each, seconds / 2)):
        decoder.start(middle)
        bench.synchronize()
        arrived = time.perf_counter()
        if decoder.batch > 1:
            decoder.advance(width)
            bench.synchronize()
        begun = time.perf_counter()
        decoder.prefill(prompts[:1])
        bench.synchronize()
        done = time.perf_counter()
        timed.ttft_s.append(done - arrived)
        timed.prefill_s.append(done - begun)


def _fill(bench: Bench, decoder: Decoder, prompts: Any, timed: _Timed, seconds: float) -> None:
    """Compute prompts for all slots, or for as many as the seconds allow and copy the rest; at least one group."""
    batch, done, spent = decoder.batch, 0, 0.0
    bench.synchronize()
    started = time.perf_counter()
    while done < batch and (done == 0 or spent * (done + decoder.group) / done <= seconds):
        decoder.prefill(prompts[done : done + decoder.group], done)
        bench.synchronize()
        spent, done = time.perf_counter() - started, min(batch, done + decoder.group)
    decoder.repeat(done)
    timed.batch_prefill_s, timed.prompts = spent * batch / done, done


def _time_steps(session: Session, decoder: Decoder, timed: _Timed, step_s: float, seconds: float) -> None:
    """Decode whole answers and keep the seconds of every step."""
    bench, workload = session.bench, session.workload
    lengths = range(workload.prompt + 1, workload.prompt + workload.output)
    widths = [decoder.width_at(length) for length in lengths]
    answers = llm_workloads.answers(workload, llm_workloads.EFFORT[bench.level_name].steps, step_s, seconds)
    bench.synchronize()
    before = bench.energy_j()
    for _ in range(answers):
        decoder.start(workload.prompt)
        timed.itl_s += bench.intervals([lambda width=width: decoder.advance(width) for width in widths])  # type: ignore[misc]
    after = bench.energy_j()
    timed.joules = after - before if before is not None and after is not None else None


def _check(bench: Bench, decoder: Decoder) -> None:
    decoder.start(decoder.workload.prompt)
    if not bool(bench.torch.isfinite(decoder.step(decoder.widths[-1])).all()):
        raise WrongAnswerError("a decode step gave logits that are not finite")


def _result(
    session: Session, decoder: Decoder, timed: _Timed, watched: dict[str, Any], tried: dict[str, float | str]
) -> dict[str, Any]:
    bench, workload, batch = session.bench, session.workload, decoder.batch
    numbers = measure.summarize(measure.rates(timed.itl_s, batch, 1.0))
    step_s = sum(timed.itl_s) / len(timed.itl_s)
    details = _details(session, decoder, timed, step_s)
    details.update(_memory(bench, watched))
    details["attention_tried"] = tried
    details["missing"].update({key: why for key, why in _reasons(bench, details, timed).items() if why})
    return {
        "suite": "llm_inference",
        "name": f"llm_decode_{workload.name}{session.suffix}_b{batch}",
        "unit": "tokens/s",
        "dtype": session.dtype,
        "shape": [batch, workload.prompt, workload.output, workload.slot],
        "device": bench.device,
        "device_name": bench.info.get("name"),
        "level": bench.level_name,
        **numbers,
        "value": details["output_tokens_per_s"],
        "median_s": sorted(timed.itl_s)[len(timed.itl_s) // 2],
        "conditions": {"data": "normal weights, random tokens", "label": LABEL, "seed": bench.seed},
        **watched,
        "details": details,
    }


def _details(session: Session, decoder: Decoder, timed: _Timed, step_s: float) -> dict[str, Any]:
    workload, batch = session.workload, decoder.batch
    found = llm_metrics.efficiency(workload, batch, step_s, session.weights, session.peaks, session.cache_bytes)
    tokens = batch * len(timed.itl_s)
    return {
        "workload": workload.name,
        "label": LABEL,
        "per": "device",
        "batch": batch,
        "prompt_tokens": workload.prompt,
        "output_tokens": workload.output,
        "slot_tokens": workload.slot,
        **llm_metrics.throughput(workload, batch, step_s, timed.batch_prefill_s),
        "ttft_ms": llm_metrics.latency(timed.ttft_s),
        "prefill_ms": llm_metrics.latency(timed.prefill_s),
        "batch_prefill_ms": timed.batch_prefill_s * 1e3,
        "batch_prefill_prompts": timed.prompts,
        "tpot_ms": step_s * 1e3,
        "itl_ms": llm_metrics.latency(timed.itl_s),
        **found,
        "prefill_mfu": llm_metrics.prefill_mfu(workload, batch, timed.batch_prefill_s, session.peaks),
        "j_per_token": timed.joules / tokens if timed.joules else None,
        "attention_backend": decoder.kernel.name,
        "graphs": decoder.graphs,
        "graphs_missing": decoder.graphs_missing,
        "compile_s": timed.compile_s,
        "build_s": session.build_s,
        "weight_bytes": round(session.weights.total),
        "hint": llm_metrics.hint(batch, found["mbu"], decoder.graphs, decoder.graphs_missing),
        **session.extra,
    }


def _memory(bench: Bench, watched: dict[str, Any]) -> dict[str, Any]:
    """Return peak memory: what the driver says is used of the card, context and graphs included."""
    if not bench.on_gpu:
        return {
            "peak_vram_fraction": None,
            "peak_used_bytes": None,
            "memory_total_bytes": None,
            "peak_reserved_bytes": None,
        }
    used, total, source = memory_now(bench)
    sampled = ((watched.get("clocks") or {}).get("memory_used_bytes") or {}).get("max")
    if source == "nvml" and sampled is not None:
        used = max(used, int(sampled))
    return {
        "peak_vram_fraction": used / total,
        "peak_used_bytes": used,
        "memory_total_bytes": total,
        "memory_source": source,
        "peak_reserved_bytes": int(bench.torch.cuda.max_memory_reserved(bench.device)),
    }


def _reasons(bench: Bench, details: dict[str, Any], timed: _Timed) -> dict[str, str | None]:
    """Return why a value of the details is None."""
    cpu = "the device is a CPU"
    counted = "too short for the driver's energy counter" if timed.joules == 0 else "NVML counts no energy of this GPU"
    memory = ("peak_vram_fraction", "peak_used_bytes", "memory_total_bytes", "peak_reserved_bytes")
    known: dict[str, str | None] = dict.fromkeys(memory, cpu)
    known["j_per_token"] = counted if bench.on_gpu else cpu
    known["prefill_mfu"] = details["missing"].get("mfu")
    return {key: why for key, why in known.items() if details[key] is None}


def memory_now(bench: Bench) -> tuple[int, int, str]:
    """Return the bytes used and in all of a GPU and who says so.

    NVML, unless it knows nothing or speaks of a whole card of which this process was given a part (MIG): then CUDA.
    """
    seen = int(bench.torch.cuda.mem_get_info(bench.device)[1])
    used, total = bench.nvml_used_bytes(), bench.nvml_total_bytes()
    if used is None or total is None or total > _WHOLE_CARD * seen:
        return seen - min(seen, bench.free_bytes()), seen, "cuda"
    return used, total, "nvml"
