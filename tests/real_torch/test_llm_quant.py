# SPDX-License-Identifier: Apache-2.0
"""8-bit weights: about the same answers from half the bytes, and a reason wherever there are none."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import SimpleNamespace
from typing import Any

from rackwright import llm_metrics, llm_model, llm_quant, llm_workloads, torch_llm
from rackwright.gpu_watch import Watch
from rackwright.llm_measure import Session
from rackwright.torch_bench import NO_CPU_CLOCKS, Bench

# not as an import statement, which mypy takes for the folder of these tests
torch: Any = importlib.import_module("torch")

TINY = llm_workloads.find("tiny")
INT8, FP8 = llm_quant.KINDS
HAS_TORCHAO = importlib.util.find_spec("torchao") is not None


def session_of(device: str = "cpu", level: str = "quick", **info: Any) -> Session:
    bench = Bench(torch, device, level, 1, dict(info), Watch(None, NO_CPU_CLOCKS), peak_missing="no card")
    weights = llm_metrics.weights_of(TINY, "bfloat16")
    return Session(bench, None, TINY, "bfloat16", weights, llm_metrics.peaks_of(None, "bfloat16"))


def rounding(fail_at: int | None = None) -> Any:
    """A stand-in for torchao.quantization that rounds weights to 8 bit per row; it raises when called too often."""
    calls = []

    def quantize_(part: Any, config: Any) -> None:
        calls.append(config)
        if len(calls) == fail_at:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        torch.set_float32_matmul_precision("high")  # as torchao did before it left that to its callers
        for module in part.modules():
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.data.abs().amax(1, keepdim=True) / 127
                module.weight.data = (module.weight.data / scale).round() * scale

    return SimpleNamespace(quantize_=quantize_, Int8WeightOnlyConfig=object, Float8WeightOnlyConfig=object)


def relative_error(found: Any, wanted: Any) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def logits(model: Any) -> Any:
    tokens = torch.randint(0, TINY.shape.vocab, (2, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model(tokens)


def plain() -> Any:
    return llm_model.build(torch, TINY.shape, "cpu", torch.bfloat16, 1, TINY.theta, TINY.slot)


def test_the_parts_get_the_weights_of_the_whole_model() -> None:
    nothing = SimpleNamespace(quantize_=lambda part, config: None, Int8WeightOnlyConfig=object)
    built, wanted = llm_quant.build(session_of(), nothing, INT8), plain()
    assert built.state_dict().keys() == wanted.state_dict().keys()
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name
    assert torch.equal(logits(built), logits(wanted))


def test_quantised_answers_are_close_and_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    error = relative_error(logits(llm_quant.build(session_of(), rounding(), INT8)), logits(plain()))
    assert 0 < error < 0.03, error
    assert torch.get_float32_matmul_precision() == before


def test_torchao_itself_halves_the_bytes_or_is_missed() -> None:
    if not HAS_TORCHAO:
        entries = list(llm_quant.quantised_points(session_of(), []))
        said = [(entry["not_applicable"]["weights"], entry["not_applicable"]["reason"]) for entry in entries]
        assert said == [(kind.name, "torchao is not installed") for kind in llm_quant.KINDS]
        return
    torchao, missing = llm_quant.load(session_of().bench)
    assert missing is None
    wanted, weights = logits(plain()), llm_quant.weights_of(plain())
    assert weights.total == llm_workloads.weight_bytes(TINY.shape)
    assert weights.read == llm_workloads.read_bytes(TINY.shape)
    for kind, most in ((INT8, 0.03), (FP8, 0.06)):
        model = llm_quant.build(session_of(), torchao, kind)
        assert 0 < relative_error(logits(model), wanted) < most
        # one byte per weight, and a scale per row, which weighs more the narrower the model
        assert 0.5 < llm_quant.weights_of(model).read / weights.read < 0.56


def test_formats_that_cannot_be_used_say_why() -> None:
    everything = rounding()
    for device, capability, kind, torchao, reason in (
        ("cpu", None, INT8, everything, None),
        ("cuda:0", [8, 9], FP8, everything, None),
        ("cuda:0", [7, 5], INT8, everything, None),
        ("cuda:0", [8, 6], FP8, everything, "it needs compute capability 8.9, and the card has 8.6"),
        ("cuda:0", [6, 1], INT8, everything, "it needs compute capability 7.0, and the card has 6.1"),
        ("cpu", None, FP8, SimpleNamespace(quantize_=print), "has no Float8WeightOnlyConfig"),
    ):
        bench = session_of(device, compute_capability=capability).bench
        found = llm_quant.unfit(bench, torchao, kind)
        assert found == reason if reason is None or "needs" in reason else str(found).endswith(reason), found


def test_no_format_is_begun_after_the_levels_time() -> None:
    if not HAS_TORCHAO:
        return  # then that is the reason, and another test looks at it
    entries = list(llm_quant.quantised_points(session_of(), [], deadline=0.0))
    reasons = {entry["not_applicable"]["reason"] for entry in entries}
    assert reasons == {"the time that the level has for inference is used up"}
    assert len(entries) == 2


def test_the_compiler_keeps_its_files_where_the_run_has_its_own() -> None:
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        llm_quant.keep_caches_in(None)
        assert not set(names) & set(os.environ)
        os.environ["TRITON_CACHE_DIR"] = "/somebody/wanted/this"
        llm_quant.keep_caches_in("/run/scratch")
        assert [os.environ[name] for name in names] == ["/run/scratch/torchinductor", "/somebody/wanted/this"]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


def test_bytes_of_tensors_made_of_parts() -> None:
    parts = SimpleNamespace(
        values=torch.zeros(4, 8, dtype=torch.int8),
        scale=torch.zeros(4, 1),
        zero=None,
        __tensor_flatten__=lambda: (["values", "scale", "zero"], None),
    )
    assert llm_quant.tensor_bytes(parts) == 32 + 16
    assert llm_quant.tensor_bytes(torch.zeros(3, dtype=torch.bfloat16)) == 6


def test_points_are_held_against_those_in_16_bit() -> None:
    point = {"workload": "tiny", "batch": 1, "output_tokens_per_s": 1e9, "weight_bytes": 100.0}
    results = list(llm_quant._points(session_of(), rounding(), INT8, [point]))
    (result,) = results
    details = result["details"]
    assert (result["name"], result["suite"]) == ("llm_decode_tiny_int8wo_b1", "llm_inference")
    assert result["value"] > 0
    assert details["compared_with"] == "llm_decode_tiny_b1"
    assert details["tokens_ratio"] == result["value"] / 1e9
    assert details["weights_ratio"] == details["weight_bytes"] / 100
    assert (details["weights"], details["compiled"], details["compiled_missing"]) == (
        "int8wo",
        False,
        "the device is a CPU",
    )


def test_a_model_that_does_not_fit_is_a_reason() -> None:
    before = torch.get_float32_matmul_precision()
    (entry,) = llm_quant._points(session_of(), rounding(fail_at=2), INT8, [])
    assert torch.get_float32_matmul_precision() == before
    said = entry["not_applicable"]
    assert said["suite"] == "llm_inference"
    assert (said["weights"], said["reason"]) == ("int8wo", "the model does not fit into the memory in 8 bit either")


def test_products_of_one_row_are_compiled_and_others_are_not() -> None:
    model, seen = plain(), []

    def compile_(forward: Any, dynamic: bool) -> Any:
        def compiled(x: Any) -> Any:
            seen.append(tuple(x.shape))
            return forward(x)

        return compiled

    fake = SimpleNamespace(__name__="torch", nn=torch.nn, zeros=torch.zeros, no_grad=torch.no_grad, compile=compile_)
    assert llm_quant.compile_linears(fake, model, "cpu", torch.bfloat16) is None
    assert len(seen) == 4 * TINY.shape.layers + 1
    seen.clear()
    wanted = logits(plain())
    assert torch.equal(logits(model), wanted)
    assert seen == []
    row = torch.randn(1, 1, TINY.shape.hidden).to(torch.bfloat16)
    assert torch.equal(model.head(row), plain().head(row))
    assert model.head(row[0]).shape == (1, TINY.shape.vocab)
    assert seen == [(1, TINY.shape.hidden)] * 2


def test_without_a_compiler_the_products_stay_as_they_were() -> None:
    model = plain()

    def compile_(forward: Any, dynamic: bool) -> Any:
        def compiled(x: Any) -> Any:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

        return compiled

    fake = SimpleNamespace(__name__="torch", nn=torch.nn, zeros=torch.zeros, no_grad=torch.no_grad, compile=compile_)
    reason = llm_quant.compile_linears(fake, model, "cpu", torch.bfloat16)
    assert reason == "RuntimeError: Failed to find C compiler. Please specify via CC environment variable."
    assert torch.equal(logits(model), logits(plain()))
    model.head(torch.zeros(1, 1, TINY.shape.hidden, dtype=torch.bfloat16))


def test_the_suite_ends_with_8_bit() -> None:
    bench = Bench(torch, "cpu", "quick", 1, {"name": "test"}, Watch(None, NO_CPU_CLOCKS), peak_missing="no card")
    entries = list(torch_llm.llm_inference_suite(bench))
    names = [entry.get("name", "not applicable") for entry in entries]
    first = names.index("llm_goal_tiny") + 1
    wanted = ["llm_decode_tiny_int8wo_b1", "llm_decode_tiny_fp8wo_b1"]
    assert names[first:] == (wanted if HAS_TORCHAO else ["not applicable"] * 2)
    assert all(entry["details"]["tokens_ratio"] > 0 for entry in entries[first:] if "details" in entry)
