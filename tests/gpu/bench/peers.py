# SPDX-License-Identifier: Apache-2.0
"""The same work measured by other people's tools, as suites that run in the benchmark's own child process.

Names of results are those of our suites, so that equal names are the same work. torch is handed in by the bench.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from rackwright import benchmark_levels, llm_measure, llm_model, llm_workloads, measure, torch_gemm, torch_llm
from rackwright.torch_bench import Bench, WrongAnswerError
from rackwright.torch_product import precision_of

#: torch.utils.benchmark's blocks and the timed copies take about this long, in seconds.
_TIMER_S = {"cpu": 0.5, "cuda": 3.0}
_COPIES = {"cpu": 10, "cuda": 50}
#: Decoded at: one sequence, which memory alone bounds, and two sizes of a small server's batch.
BATCHES = {"cpu": (1, 4), "cuda": (1, 8, 32)}
_DECODE_S = {"cpu": 2.0, "cuda": 10.0}
_GENERATIONS = {"cpu": 2, "cuda": 3}
#: What plain products of torch.utils.benchmark are made of; fp8 and int8 need more than ``torch.mm``.
_TIMED_DTYPES = ("bfloat16", "float16", "tf32", "float32")


def kind_of(bench: Bench) -> str:
    """Return ``cuda`` or ``cpu``."""
    return "cuda" if bench.on_gpu else "cpu"


def peer_gemm(bench: Bench) -> Iterator[dict[str, Any]]:
    """Time ``torch.mm`` of our sizes with ``torch.utils.benchmark.Timer``: back to back, caches warm."""
    torch = bench.torch
    timer = importlib.import_module("torch.utils.benchmark").Timer
    able, _ = benchmark_levels.gemm_dtypes(bench.device, bench.info.get("compute_capability"))
    for position, dtype in enumerate(able):
        if dtype not in _TIMED_DTYPES:
            continue
        for size in benchmark_levels.gemm_sizes(bench.level, bench.free_bytes(), dtype, primary=position == 0):
            a, b = (torch_gemm.operand(bench, size, dtype) for _ in range(2))
            names = {"torch": torch, "a": a, "b": b, "out": torch.empty_like(a)}
            with precision_of(torch, dtype):
                timed = timer("torch.mm(a, b, out=out)", globals=names, num_threads=torch.get_num_threads())
                found = timed.blocked_autorange(min_run_time=_TIMER_S[kind_of(bench)])
            rate = measure.gemm_flop(size, size, size) / float(found.median) / 1e12
            yield _result(bench, "peer_gemm", f"gemm_{dtype}_{size}", "TFLOP/s", rate)
            del a, b, names
            bench.release()


def peer_memory(bench: Bench) -> Iterator[dict[str, Any]]:
    """Copy a buffer of our size many times between two events, without anything between the copies."""
    torch = bench.torch
    bench.prepare_flush()
    size = benchmark_levels.memory_buffer_bytes(bench.level, bench.free_bytes(), int(bench.info.get("l2_bytes") or 0))
    source = torch.randn(size // 4, device=bench.device)
    target = torch.empty_like(source)
    count = _COPIES[kind_of(bench)]
    target.copy_(source)
    bench.synchronize()
    if bench.on_gpu:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            target.copy_(source)
        end.record()
        bench.synchronize()
        seconds = start.elapsed_time(end) / 1e3
    else:
        begun = time.perf_counter()
        for _ in range(count):
            target.copy_(source)
        seconds = time.perf_counter() - begun
    yield _result(bench, "peer_memory", "memory_copy", "GB/s", 2 * size * count / seconds / 1e9)


def our_decode(bench: Bench) -> Iterator[dict[str, Any]]:
    """Measure our operating points at the batches of the comparison."""
    workload = llm_workloads.chosen(bench.options, bench.on_gpu)
    dtype = llm_workloads.dtype_for(bench.device, bench.info.get("compute_capability"))
    session = torch_llm.open_session(bench, workload, dtype)
    for batch in BATCHES[kind_of(bench)]:
        yield llm_measure.measure_point(session, batch, _DECODE_S[kind_of(bench)])
        bench.collect()


def peer_decode(bench: Bench) -> Iterator[dict[str, Any]]:
    """Decode the same shape with ``generate`` of transformers: static cache, greedy, its own compilation."""
    if importlib.util.find_spec("transformers") is None:
        yield bench.not_applicable("peer_decode", "transformers is not installed")
        return
    transformers = importlib.import_module("transformers")
    difference = same_answers(bench.torch, transformers)
    if difference > 1e-4:
        raise WrongAnswerError(f"our model and transformers' differ by {difference:.2g} with the same weights")
    workload = llm_workloads.chosen(bench.options, bench.on_gpu)
    dtype = llm_workloads.dtype_for(bench.device, bench.info.get("compute_capability"))
    model = llama(bench.torch, transformers, workload.shape, workload.theta, bench.device, dtype, workload.slot)
    for batch in BATCHES[kind_of(bench)]:
        rate, note = _generate(bench, model, workload, batch)
        name = f"llm_decode_{workload.name}_b{batch}"
        note = f"transformers {transformers.__version__}, {note}; same answers to {difference:.0e}"
        yield {**_result(bench, "peer_decode", name, "tokens/s", rate), "note": note}
        bench.release()


def llama(torch: Any, transformers: Any, shape: Any, theta: float, device: str, dtype: str, positions: int) -> Any:
    """Return transformers' Llama of a shape with random weights, from a configuration: nothing is downloaded."""
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=positions,
        rms_norm_eps=llm_model.EPSILON,
        rope_theta=theta,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval()
    # random weights may well choose the end of the text at once, and a shorter answer is no comparison
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def same_answers(torch: Any, transformers: Any) -> float:
    """Return the largest difference of logits between our model and transformers' with the same weights, in float32."""
    workload = llm_workloads.find("tiny")
    ours = llm_model.build(torch, workload.shape, "cpu", torch.float32, 7, workload.theta, workload.slot)
    theirs = llama(torch, transformers, workload.shape, workload.theta, "cpu", "float32", workload.slot)
    theirs.load_state_dict(_renamed(ours, workload.shape), strict=True)
    tokens = torch.randint(0, workload.shape.vocab, (2, 24), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return float((ours(tokens) - theirs(tokens).logits).abs().max())


def _renamed(model: Any, shape: Any) -> dict[str, Any]:
    """Return our weights under the names of transformers, with fused matrices taken apart."""
    width = shape.head_dim
    parts = (shape.heads * width, shape.kv_heads * width, shape.kv_heads * width)
    state = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm.weight}
    state["lm_head.weight"] = model.head.weight
    for index, layer in enumerate(model.layers):
        at = f"model.layers.{index}."
        queries, keys, values = layer.attention.wqkv.weight.split(parts)
        gate, up = layer.mlp.w13.weight.chunk(2)
        named = {
            "self_attn.q_proj": queries,
            "self_attn.k_proj": keys,
            "self_attn.v_proj": values,
            "self_attn.o_proj": layer.attention.wo.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.mlp.w2.weight,
            "input_layernorm": layer.attention_norm.weight,
            "post_attention_layernorm": layer.mlp_norm.weight,
        }
        state.update({f"{at}{name}.weight": weight for name, weight in named.items()})
    return state


class _Moments:
    """Called by ``generate`` after every token; notes when, and never ends the generation."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._moments: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if self._bench.on_gpu:
            event = self._bench.torch.cuda.Event(enable_timing=True)
            event.record()
            self._moments.append(event)
        else:
            self._moments.append(time.perf_counter())
        return self._bench.torch.zeros(input_ids.shape[0], dtype=self._bench.torch.bool, device=input_ids.device)

    def seconds(self) -> float:
        """Return the time from the first token to the last."""
        first, last = self._moments[0], self._moments[-1]
        if not self._bench.on_gpu:
            return float(last - first)
        self._bench.synchronize()
        return float(first.elapsed_time(last)) / 1e3


def _generate(bench: Bench, model: Any, workload: Any, batch: int) -> tuple[float, str]:
    """Return decoded tokens per second after the first token, and how the model ran."""
    torch = bench.torch
    tokens = torch.randint(0, workload.shape.vocab, (batch, workload.prompt), device=bench.device)
    options = {
        "attention_mask": torch.ones_like(tokens),
        "max_new_tokens": workload.output,
        "do_sample": False,
        "cache_implementation": "static",
    }
    compiled = bench.on_gpu  # generate compiles by itself on a GPU with a static cache, and only there
    if compiled:
        try:
            model.generate(tokens, **options)
        except Exception as error:  # no compiler or no triton: transformers can do without
            options["disable_compile"], compiled = True, False
            print(f"transformers does not compile here: {type(error).__name__}: {str(error)[:200]}")
    model.generate(tokens, **options)
    rates = []
    for _ in range(_GENERATIONS[kind_of(bench)]):
        moments = _Moments(bench)
        out = model.generate(tokens, stopping_criteria=[moments], **options)
        made = out.shape[1] - workload.prompt
        if made != workload.output:
            raise WrongAnswerError(f"transformers made {made} tokens instead of {workload.output}")
        rates.append(batch * (made - 1) / moments.seconds())
    return sorted(rates)[len(rates) // 2], "compiled" if compiled else "not compiled"


def _result(bench: Bench, suite: str, name: str, unit: str, value: float) -> dict[str, Any]:
    return {"suite": suite, "name": name, "unit": unit, "device": bench.device, "value": value}
