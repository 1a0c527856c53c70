# SPDX-License-Identifier: Apache-2.0
"""The model and its cached decode against arithmetic written out here, on the CPU in float32."""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from rackwright import llm_model, llm_workloads, measure
from rackwright.errors import InvalidInputError
from rackwright.gpu_watch import Watch
from rackwright.llm_decode import Decoder, Kernel, kernels
from rackwright.llm_measure import measure_point
from rackwright.torch_bench import Bench, WrongAnswerError
from rackwright.torch_llm import llm_inference_suite, open_session

torch: Any = importlib.import_module("torch")
TINY = llm_workloads.find("tiny")
SHAPES = {
    "gqa": TINY.shape,
    "mha": replace(TINY.shape, kv_heads=TINY.shape.heads),
    "mqa": replace(TINY.shape, kv_heads=1),
}


def built(name: str = "gqa", dtype: Any = torch.float32, seed: int = 7) -> Any:
    """A model whose weights are ten times as large as usual: with 0.02 everything tiny computes is nearly zero."""
    model = llm_model.build(torch, SHAPES[name], "cpu", torch.float32, seed, positions=TINY.slot)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10.0) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5, generator=generator)
    return model.to(dtype)


def load(name: str) -> Any:
    return replace(TINY, shape=SHAPES[name])


def some_tokens(batch: int, length: int, seed: int = 3) -> Any:
    return torch.randint(0, TINY.shape.vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def norm_by_hand(x: Any, weight: Any) -> Any:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight


def turned(x: Any, position: int, theta: float = 10000.0) -> Any:
    """One head's vector rotated pair by pair, as complex numbers."""
    half = x.shape[0] // 2
    pairs = torch.complex(x[:half].double(), x[half:].double())
    angles = torch.tensor([position / theta ** (2 * i / x.shape[0]) for i in range(half)], dtype=torch.float64)
    result = pairs * torch.exp(1j * angles)
    return torch.cat((result.real, result.imag)).float()


def attention_by_hand(x: Any, weights: dict[str, Any], layer: int, shape: Any) -> Any:
    """[T, hidden] to [T, hidden]: every head and position on its own, with q, k and v as three matrices."""
    width, length = shape.head_dim, x.shape[0]
    fused = weights[f"layers.{layer}.attention.wqkv.weight"]
    queries, keys = shape.heads * width, shape.kv_heads * width
    wq, wk, wv = fused[:queries], fused[queries : queries + keys], fused[queries + keys :]
    q, k, v = ((x @ w.T).view(length, -1, width) for w in (wq, wk, wv))
    mixed = torch.zeros(length, shape.heads, width)
    for head in range(shape.heads):
        shared = head // (shape.heads // shape.kv_heads)
        for now in range(length):
            query = turned(q[now, head], now)
            scores = torch.stack([query @ turned(k[past, shared], past) for past in range(now + 1)]) / math.sqrt(width)
            chances = torch.exp(scores - scores.max())
            chances = chances / chances.sum()
            mixed[now, head] = sum(chances[past] * v[past, shared] for past in range(now + 1))
    return mixed.reshape(length, -1) @ weights[f"layers.{layer}.attention.wo.weight"].T


def logits_by_hand(model: Any, tokens: Any, shape: Any) -> Any:
    """[T] to [T, vocab], sharing nothing with the code under test but the weights."""
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    x = weights["embed.weight"][tokens]
    for layer in range(shape.layers):
        name = f"layers.{layer}"
        x = x + attention_by_hand(norm_by_hand(x, weights[f"{name}.attention_norm.weight"]), weights, layer, shape)
        inner = norm_by_hand(x, weights[f"{name}.mlp_norm.weight"])
        both = weights[f"{name}.mlp.w13.weight"]
        gate, up = inner @ both[: shape.intermediate].T, inner @ both[shape.intermediate :].T
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ weights[f"{name}.mlp.w2.weight"].T
    return norm_by_hand(x, weights["norm.weight"]) @ weights["head.weight"].T


def test_logits_are_those_of_the_arithmetic_written_out() -> None:
    for name, shape in SHAPES.items():
        model, tokens = built(name), some_tokens(2, 11)
        found = model(tokens)
        for row in range(2):
            expected = logits_by_hand(model, tokens[row], shape)
            assert expected.std() > 0.1, "logits that are all alike compare nothing"
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def older_torch() -> Any:
    """A torch of before 2.4: no RMSNorm of its own, attention that groups no heads, no choice of kernels."""
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def attention(query: Any, key: Any, value: Any, attn_mask: Any = None, is_causal: bool = False) -> Any:
        assert key.shape[1] == query.shape[1], "heads are not grouped here"
        return sdpa(query, key, value, attn_mask=attn_mask, is_causal=is_causal)

    functional = SimpleNamespace(silu=torch.nn.functional.silu, scaled_dot_product_attention=attention)
    names = ("Module", "Linear", "Embedding", "ModuleList", "Parameter")
    nn = SimpleNamespace(functional=functional, **{name: getattr(torch.nn, name) for name in names})
    return SimpleNamespace(**{name: value for name, value in vars(torch).items() if name != "nn"}, nn=nn)


def test_an_older_torch_computes_the_same() -> None:
    old, tokens = older_torch(), some_tokens(2, 9)
    for name, shape in SHAPES.items():
        model = built(name)
        plain = llm_model.build(old, shape, "cpu", torch.float32, 1, positions=TINY.slot)
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(plain(tokens), model(tokens), rtol=1e-5, atol=1e-5)
        decoder = Decoder(old, plain, load(name), 2, "cpu", torch.float32)
        decoder.fill(tokens)
        sequence = torch.cat((tokens, decoder.tokens[:, None]), 1)
        torch.testing.assert_close(decoder.step(TINY.slot), model(sequence)[:, -1], rtol=1e-4, atol=1e-4)


def test_the_prompt_fills_the_cache_and_gives_the_full_forwards_last_logits() -> None:
    model, tokens = built(), some_tokens(3, 9)
    decoder = Decoder(torch, model, TINY, 5, "cpu", torch.float32)
    logits = decoder.prefill(tokens, row=1)
    torch.testing.assert_close(logits, model(tokens)[:, -1], rtol=1e-5, atol=1e-5)
    assert decoder.position.tolist() == [0, 9, 9, 9, 0]
    assert decoder.tokens[1:4].tolist() == logits.argmax(-1).tolist()
    assert bool(decoder.keys[:, 1:4, :, :9].any())
    assert not bool(decoder.keys[:, [0, 4]].any())
    assert not bool(decoder.keys[:, :, :, 9:].any())


def test_cached_decode_equals_the_full_forward_for_every_kernel_batch_and_length() -> None:
    for name in SHAPES:
        model = built(name)
        for kernel in kernels(torch, on_gpu=False):
            for batch, prompt in ((1, 5), (2, 32), (7, 17)):
                decoder = Decoder(torch, model, load(name), batch, "cpu", torch.float32)
                decoder.use(kernel)
                sequence = some_tokens(batch, prompt)
                decoder.fill(sequence)
                for _ in range(4):
                    sequence = torch.cat((sequence, decoder.tokens[:, None]), 1)
                    logits = decoder.step(TINY.slot)
                    torch.testing.assert_close(logits, model(sequence)[:, -1], rtol=1e-4, atol=1e-4)


def test_slots_filled_with_copies_decode_what_they_are_copies_of() -> None:
    model, prompts = built(), some_tokens(7, 12)
    decoder = Decoder(torch, model, TINY, 7, "cpu", torch.float32)
    decoder.prefill(prompts[:3])
    decoder.repeat(3)
    logits = decoder.step(TINY.slot)
    for row in range(3, 7):
        assert torch.equal(decoder.keys[:, row], decoder.keys[:, row % 3])
        torch.testing.assert_close(logits[row], logits[row % 3])
    assert decoder.position.tolist() == [13] * 7
    decoder.repeat(7)  # nothing is left to fill
    assert decoder.position.tolist() == [13] * 7


def test_sequences_of_different_lengths_do_not_see_each_other_or_what_was_in_their_slot() -> None:
    model, lengths = built(), (3, 20, 11)
    decoder = Decoder(torch, model, TINY, 3, "cpu", torch.float32)
    decoder.fill(some_tokens(3, 40, seed=99))  # an older, longer answer lies in every slot
    prompts = [some_tokens(1, length, seed=length) for length in lengths]
    for row, prompt in enumerate(prompts):
        decoder.prefill(prompt, row)
    whole = [torch.cat((prompt[0], decoder.tokens[row : row + 1])) for row, prompt in enumerate(prompts)]
    logits = decoder.step(TINY.slot)
    for row in range(3):
        torch.testing.assert_close(logits[row], model(whole[row][None])[0, -1], rtol=1e-4, atol=1e-4)


def test_a_narrow_window_gives_what_a_wide_one_gives() -> None:
    model = built()
    found = []
    for width in (24, TINY.slot):
        decoder = Decoder(torch, model, TINY, 2, "cpu", torch.float32)
        decoder.fill(some_tokens(2, 20))
        found.append(torch.stack([decoder.step(width) for _ in range(4)]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_a_way_of_attention_that_reads_unused_places_is_told_from_one_that_does_not() -> None:
    for name in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            model, one = built(name, dtype), load(name)
            decoder = Decoder(torch, model, one, 2, "cpu", dtype)
            decoder.prefill(some_tokens(1, one.prompt))
            width = decoder.widths[-1]
            for kernel in kernels(torch, on_gpu=False):
                assert decoder.difference(kernel, width) < 0.01, (name, dtype, kernel.name)
                ignoring = Kernel("x", lambda q, k, v, bias, attend=kernel.attend: attend(q, k, v, bias * 0.0))
                assert not decoder.difference(ignoring, width) <= 0.03  # -inf * 0 is not a number
                blind = Kernel("x", lambda q, k, v, bias, attend=kernel.attend: attend(q, k, v, torch.zeros_like(bias)))
                assert decoder.difference(blind, width) > 0.03


def test_rotation_depends_on_the_distance_only_and_keeps_lengths() -> None:
    cos, sin = llm_model.rotary_table(torch, 16, 64, 10000.0, "cpu", torch.float32)
    q, k = torch.randn(16), torch.randn(16)

    def score(query_at: int, key_at: int) -> float:
        a = llm_model.rotate(torch, q[None], cos[query_at], sin[query_at])
        b = llm_model.rotate(torch, k[None], cos[key_at], sin[key_at])
        return float((a * b).sum())

    assert math.isclose(score(9, 4), score(35, 30), rel_tol=1e-4, abs_tol=1e-4)
    assert not math.isclose(score(9, 4), score(9, 5), rel_tol=1e-3, abs_tol=1e-3)
    turned_q = llm_model.rotate(torch, q[None], cos[17], sin[17])
    assert math.isclose(float(turned_q.norm()), float(q.norm()), rel_tol=1e-5)


def test_the_same_seed_decodes_the_same_tokens_and_another_does_not() -> None:
    def answer(seed: int) -> list[list[int]]:
        decoder = Decoder(torch, built(seed=seed), TINY, 4, "cpu", torch.float32)
        decoder.fill(some_tokens(4, 8))
        found = []
        for _ in range(8):
            decoder.advance(TINY.slot)
            found.append(decoder.tokens.tolist())
        return found

    assert answer(7) == answer(7)
    assert answer(7) != answer(8)


def test_bfloat16_stays_close_to_float32() -> None:
    exact, tokens = built(), some_tokens(2, 16)
    rough = built(dtype=torch.bfloat16)
    wanted, found = exact(tokens), rough(tokens).float()
    error = float((wanted - found).detach().norm() / wanted.detach().norm())
    assert 0 < error < 0.05, error


def test_weights_are_normal_reproducible_and_as_many_as_counted() -> None:
    one, two = (llm_model.build(torch, TINY.shape, "cpu", torch.float32, 5) for _ in range(2))
    assert sum(parameter.numel() for parameter in one.parameters()) == llm_workloads.parameters(TINY.shape)
    for first, second in zip(one.parameters(), two.parameters()):
        assert torch.equal(first, second)
    assert abs(float(one.layers[0].mlp.w13.weight.detach().std()) - 0.02) < 0.001
    assert bool((one.norm.weight == 1).all())
    assert all(not parameter.is_meta for parameter in one.parameters())


def test_gradients_reach_every_weight() -> None:
    model = built()
    model(some_tokens(2, 6)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


def bench(level: str = "quick", **options: Any) -> Bench:
    return Bench(torch, "cpu", level, 1, {"name": "a CPU"}, Watch(None, "the device is a CPU"), options=options)


def results(**options: Any) -> list[dict[str, Any]]:
    """Everything up to the summary; what follows are 8-bit weights, which have tests of their own."""
    found = []
    for one in llm_inference_suite(bench(**options)):
        found.append(one)
        if one["name"].startswith("llm_goal"):
            break
    return found


@functools.cache
def tiny_results() -> list[dict[str, Any]]:
    """One run for all tests that only look at it."""
    return results()


def refusal(kind: type[Exception], work: Callable[[], Any]) -> str:
    """What an expected exception says."""
    try:
        work()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def test_the_suite_gives_one_result_per_batch_and_a_summary_that_judges_no_cpu() -> None:
    found = tiny_results()
    assert [one["name"] for one in found] == [*(f"llm_decode_tiny_b{batch}" for batch in (1, 2, 4)), "llm_goal_tiny"]
    for one in found:
        assert json.loads(json.dumps(one, allow_nan=False)) == one
        assert (one["suite"], one["unit"], one["device"], one["dtype"]) == (
            "llm_inference",
            "tokens/s",
            "cpu",
            "float32",
        )
        assert measure.is_measurement(one)
        assert one["details"]["label"] == "static_batch"
    goal = found[-1]["details"]
    assert goal["verdict"] == "not_judged"
    assert goal["goal"] == {"tokens_per_s": 5000.0, "p99_ms": 200.0, "p99_metric": "ttft", "vram_fraction": 0.8}
    assert found[-1]["value"] == max(one["value"] for one in found[:-1]) == goal["point"]["output_tokens_per_s"]
    assert goal["ceiling"]["tokens_per_s"] is None
    assert goal["ceiling"]["reason"]


def test_an_operating_point_says_everything_or_why_not() -> None:
    details = tiny_results()[1]["details"]
    assert (details["batch"], details["prompt_tokens"], details["output_tokens"]) == (2, 32, 16)
    assert details["itl_ms"]["samples"] == 210  # fourteen whole answers of fifteen steps
    for name in ("ttft_ms", "prefill_ms", "itl_ms"):
        assert 0 < details[name]["p50"] <= details[name]["p95"] <= details[name]["p99"]
    # a request that comes while others decode waits for their step, then for its prompt
    assert details["ttft_ms"]["p50"] > details["prefill_ms"]["p50"]
    assert math.isclose(details["output_tokens_per_s"] * details["tpot_ms"], 2e3)
    job_ms = details["batch_prefill_ms"] + 15 * details["tpot_ms"]
    assert math.isclose(details["job_output_tokens_per_s"] * job_ms, 2 * 16 * 1e3)
    assert math.isclose(details["total_tokens_per_s"], 3 * details["job_output_tokens_per_s"])  # 32 in and 16 out
    assert details["batch_prefill_prompts"] == 2
    assert (details["graphs"], details["graphs_missing"]) == (False, "the device is a CPU")
    assert set(details["attention_tried"]) == {"sdpa", "matmul"}
    assert details["attention_backend"] in details["attention_tried"]
    silent = {key for key, value in details.items() if value is None} - {"hint"}
    assert silent == set(details["missing"])


def test_with_peaks_of_a_device_its_efficiency_is_known() -> None:
    one = bench()
    one.peak = {"bandwidth_gbps": 1.0, "tflops": {"fp32": 0.001}, "derived": []}
    details = next(iter(llm_inference_suite(one)))["details"]
    read, cache = 180864 * 2, 40 * 512  # bytes in float32: weights without embedding; 40 tokens on average
    assert math.isclose(details["mbu"], (read + cache) / 1e9 / (details["tpot_ms"] / 1e3), rel_tol=1e-6)
    assert math.isclose(details["mfu"], 180864 / 1e9 / (details["tpot_ms"] / 1e3), rel_tol=1e-6)
    assert details["regime"] == "memory"
    assert details["prefill_mfu"] > 0


def test_unknown_workloads_and_goals_are_refused_before_anything_is_built() -> None:
    for options, said in (({"llm_workload": "7b"}, "no workload '7b'"), ({"llm_goal": {"p99": 1}}, "unknown key p99")):
        assert said in refusal(InvalidInputError, functools.partial(results, **options))


def test_a_model_that_computes_nonsense_is_a_wrong_answer() -> None:
    one = bench()
    session = open_session(one, TINY, "float32")
    with torch.no_grad():
        session.model.head.weight[3, 3] = math.inf
    assert "not finite" in refusal(WrongAnswerError, lambda: measure_point(session, 2, 1.0))


def test_the_longer_level_decodes_a_thousand_steps() -> None:
    session = open_session(bench("standard"), TINY, "float32")
    details = measure_point(session, 2, 60.0)["details"]
    assert details["itl_ms"]["samples"] >= 1000
    assert "note" not in details["itl_ms"]
    assert details["ttft_ms"]["samples"] == 100
