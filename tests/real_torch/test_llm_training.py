# SPDX-License-Identifier: Apache-2.0
"""The training step computes what it says: equal gradients by every technique, and losses that fall."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from rackwright import llm_model, llm_step, llm_training_plan, llm_workloads, torch_training
from rackwright.gpu_watch import Watch
from rackwright.llm_training_plan import Technique
from rackwright.torch_bench import NO_CPU_CLOCKS, Bench

# not as an import statement, which mypy takes for the folder of these tests
torch: Any = importlib.import_module("torch")

TINY = llm_workloads.find("tiny").shape
FP32, BF16, FP16 = Technique("fp32", "float32"), Technique("bf16", "bfloat16"), Technique("fp16", "float16")


# as few steps as a level may have: what is tested here is what they compute, not how fast
LEAST: dict[str, Any] = {"warmup_s": 0.0, "budget_s": 1e9, "min_steps": 3, "max_steps": 3}
for levels in (llm_training_plan.CPU_LEVELS, llm_training_plan.CUDA_LEVELS):
    levels["quick"] = dataclasses.replace(levels["quick"], **LEAST)


def bench_of(**options: Any) -> Bench:
    watch = Watch(None, NO_CPU_CLOCKS)
    return Bench(torch, "cpu", "quick", 1, {"name": "test"}, watch, options=options, peak_missing="the device is a CPU")


def step_of(technique: Technique, batch: int = 4, sequence: int = 16) -> tuple[Any, llm_step.Step]:
    model = llm_model.build(torch, TINY, "cpu", torch.float32, 1, 10000.0, sequence)
    if technique.checkpointing:
        llm_step.checkpoint_blocks(torch, list(model.layers))
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, TINY.vocab, (batch, sequence + 1), generator=generator)
    return model, llm_step.Step(torch, model, technique, tokens)


def gradients(technique: Technique) -> tuple[float, dict[str, Any]]:
    model, step = step_of(technique)
    loss = float(step.backward())
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def furthest(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest difference of any gradient, relative to the largest value of that gradient."""
    assert set(found) == set(wanted)
    return max(float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in wanted)


def saved_bytes(technique: Technique, shape: Any = TINY, batch: int = 4, sequence: int = 16) -> int:
    """Bytes of distinct memory that autograd keeps for the backward pass, without the weights themselves."""
    model = llm_model.build(torch, shape, "cpu", torch.float32, 1, 10000.0, sequence)
    if technique.checkpointing:
        llm_step.checkpoint_blocks(torch, list(model.layers))
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    step = llm_step.Step(torch, model, technique, torch.zeros(batch, sequence + 1, dtype=torch.int64))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step.backward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_loss_falls_on_a_fixed_batch() -> None:
    for technique in (FP32, BF16, FP16, Technique("both", "bfloat16", True, 2)):
        _, step = step_of(technique)
        losses = [float(step.run()) for _ in range(10)]
        assert losses[-1] < losses[0] - 0.1, (technique.name, losses[0], losses[-1])
        assert step.skipped_steps() == 0


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    loss, whole = gradients(FP32)
    for parts in (2, 4):
        accumulated_loss, accumulated = gradients(Technique("parts", "float32", micro_batches=parts))
        assert abs(accumulated_loss - loss) < 1e-5
        assert furthest(accumulated, whole) < 1e-5, parts


def test_checkpointing_keeps_less_and_computes_the_same() -> None:
    loss, plain = gradients(FP32)
    again_loss, again = gradients(Technique("checkpointed", "float32", checkpointing=True))
    assert (again_loss, furthest(again, plain)) == (loss, 0.0)
    assert saved_bytes(Technique("checkpointed", "float32", checkpointing=True)) < 0.6 * saved_bytes(FP32)


def test_autocast_computes_about_the_same_and_leaves_weights_in_fp32() -> None:
    loss, plain = gradients(FP32)
    for technique in (BF16, FP16):
        model, step = step_of(technique)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert abs(float(step.backward()) - loss) < 0.02
        scale = float(step.scaler.get_scale()) if step.scaler else 1.0
        found = {name: parameter.grad / scale for name, parameter in model.named_parameters()}
        difference = furthest(found, plain)
        assert 0 < difference < 0.1, (technique.name, difference)


def test_the_scaler_skips_a_step_with_infinite_gradients() -> None:
    model, step = step_of(FP16)
    before = model.head.weight.detach().clone()
    handle = model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    step.run()
    assert step.skipped_steps() == 1
    assert torch.equal(model.head.weight, before)
    handle.remove()
    step.run()
    assert step.skipped_steps() == 1
    assert not torch.equal(model.head.weight, before)


def test_parameters_and_kept_bytes_are_as_planned() -> None:
    for name, layers in (("tiny", 2), ("tiny", 1)):
        shape = llm_training_plan.reduced(llm_workloads.find(name).shape, layers)
        model = llm_model.build(torch, shape, "cpu", torch.float32, 1, 10000.0, 8)
        total, embedding = llm_training_plan.parameters(shape, layers)
        assert total == sum(parameter.numel() for parameter in model.parameters())
        assert embedding == model.embed.weight.numel()
    shape = dataclasses.replace(TINY, hidden=256, heads=8, kv_heads=4, head_dim=32, intermediate=688, vocab=512)
    batch, sequence = 2, 64
    total, embedding = llm_training_plan.parameters(shape, 2)
    logits = batch * sequence * shape.vocab
    # the softmax of the loss is kept, the other copies of the logits live and die inside the step
    planned = llm_training_plan.activation_bytes(shape, 2, batch * sequence) - 6 * logits
    kept = saved_bytes(BF16, shape, batch, sequence) - llm_training_plan.AUTOCAST_BYTES * (total - embedding)
    assert 0.9 < planned / kept < 1.25, (planned, kept)


def test_every_technique_gives_a_result() -> None:
    plan, bench = llm_training_plan.techniques("bfloat16", 4), bench_of()
    results = list(torch_training.compare(bench, torch_training.choose(bench, 1 << 34), plan))
    assert [entry["name"] for entry in results] == [f"llm_train_tiny_{one.name}" for one in plan]
    for entry in results:
        details = entry["details"]
        assert 0 < entry["p5"] <= entry["value"] <= entry["p95"]
        assert (entry["device"], entry["unit"], entry["samples"] >= 3) == ("cpu", "tokens/s", True)
        assert details["loss"]["last"] < details["loss"]["first"]
        assert entry["missing"].keys() >= {"details.mfu", "details.peak_memory_bytes"}
        assert (details["mfu"], details["memory_ratio"]) == (None, None)
        if entry is not results[0]:
            assert details["compared_with"] == results[0]["name"]
            assert abs(details["tokens_ratio"] - entry["value"] / results[0]["value"]) < 1e-9


def test_the_suite_begins_with_the_plain_step() -> None:
    first = next(iter(torch_training.training_suite(bench_of())))
    assert (first["name"], first["details"]["compared_with"]) == ("llm_train_tiny_bf16", None)
    assert first["details"]["layers"] == TINY.layers


class FakeCuda:
    """What the suite asks of torch.cuda, on a clock of its own: every event is 0.5 s after the last."""

    def __init__(self) -> None:
        self.now, self.peaks = 0.0, iter((4000, 1000))
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                cuda.now += 0.5
                self.at = cuda.now

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at) * 1e3

        self.Event = Event

    def reset_peak_memory_stats(self, device: str) -> None:
        self.peak = next(self.peaks)

    def max_memory_allocated(self, device: str) -> int:
        return self.peak

    def max_memory_reserved(self, device: str) -> int:
        return self.peak + 24

    def synchronize(self, device: str) -> None: ...

    def empty_cache(self) -> None: ...


class WithCuda:
    """The torch of this machine with a made-up CUDA."""

    def __init__(self) -> None:
        self.cuda = FakeCuda()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def test_a_gpu_is_timed_by_events_and_held_against_its_peak() -> None:
    # "cpu:0" computes here and is no CPU to the bench
    bench = Bench(WithCuda(), "cpu:0", "quick", 1, {"name": "card"}, Watch(None, "none"), options={})
    bench.peak = {"tflops": {"bf16": 1e-6}}
    size = llm_training_plan.Size(2, 4, 32)

    def build(bench: Bench, layers: int) -> Any:
        model = llm_model.build(torch, TINY, "cpu", torch.float32, 1, 10000.0, 32)
        return model, list(model.layers)

    workload = torch_training.Workload("tiny", TINY, build, size)
    plain, less = torch_training.compare(bench, workload, [BF16, Technique("less", "bfloat16", True)])
    assert (plain["value"], plain["samples"], plain["median_s"]) == (size.tokens / 0.5, 3, 0.5)
    flop = llm_training_plan.flops_per_token(TINY, 2, 32)
    assert abs(plain["details"]["mfu"] - flop * plain["value"] / 1e6) < 1e-9
    assert (plain["details"]["peak_memory_bytes"], plain["details"]["peak_reserved_bytes"]) == (4000, 1024 + 3000)
    assert (less["details"]["memory_ratio"], less["details"]["tokens_ratio"]) == (0.25, 1.0)


def test_what_fails_in_one_technique_stays_in_it() -> None:
    for error, expected in (
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (llm_step.UnsupportedError("this torch is too old"), "not_applicable"),
        (RuntimeError("an illegal instruction was encountered"), "raised"),
    ):
        results, raised = compared(failing_once(error))
        states = [entry.get("details", {}).get("state", "not_applicable") for entry in results]
        if expected == "raised":
            assert states == ["measured", "measured"]
            assert raised == "fp32: RuntimeError: an illegal instruction was encountered"
        else:
            assert (states, raised) == (["measured", expected, "measured"], "")


def test_a_model_that_the_card_cannot_hold_is_not_applicable() -> None:
    bench = bench_of(llm_workload="llama3-8b-gqa")
    bench.info["total_memory_bytes"] = 8 << 30
    (entry,) = torch_training.training_suite(bench)
    said = entry["not_applicable"]
    assert (said["suite"], said["device"]) == ("llm_training", "cpu")
    assert said["reason"].startswith("one layer of llama3-8b-gqa with its optimizer takes about 2")
    assert said["reason"].endswith("GiB, and the card has 8.0")


def test_no_technique_is_begun_after_the_levels_time() -> None:
    workload = torch_training.Workload("tiny", TINY, failing_once(ValueError()), llm_training_plan.Size(2, 4, 32))
    (entry,) = torch_training.compare(bench_of(), workload, [BF16], deadline=0.0)
    assert entry["not_applicable"]["technique"] == "bf16"
    assert "the level quick gives to training is used up" in entry["not_applicable"]["reason"]


def failing_once(error: Exception) -> Callable[[Bench, int], Any]:
    calls = []

    def build(bench: Bench, layers: int) -> Any:
        calls.append(layers)
        if len(calls) == 2:
            raise error
        model = llm_model.build(torch, TINY, "cpu", torch.float32, 1, 10000.0, 32)
        return model, list(model.layers)

    return build


def compared(build: Callable[[Bench, int], Any]) -> tuple[list[dict[str, Any]], str]:
    workload = torch_training.Workload("tiny", TINY, build, llm_training_plan.Size(2, 4, 32))
    results: list[dict[str, Any]] = []
    try:
        for result in torch_training.compare(bench_of(), workload, [BF16, FP32, Technique("c", "float32", True)]):
            results.append(result)
    except RuntimeError as error:
        return results, str(error)
    return results, ""


SECOND = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_llm_training as here
print(json.dumps(here.in_a_group_of_two(1, sys.argv[2])))
"""


def in_a_group_of_two(rank: int, store: str) -> dict[str, Any]:
    """Run the suite and some plain steps as one of two processes."""
    options = {"rank": rank, "world_size": 2, "store_path": f"{store}.suite"}
    results = list(torch_training.training_suite(bench_of(**options)))
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        return {"results": results, "losses": sharded_losses(rank)}
    finally:
        torch.distributed.destroy_process_group()


def sharded_losses(rank: int) -> list[float]:
    """Losses of a few steps over two processes, each with half of the batch; called in one of the two."""
    model, _ = step_of(FP32)
    technique = Technique("fsdp2", "float32", checkpointing=True, micro_batches=2, ranks=2)
    llm_step.checkpoint_blocks(torch, list(model.layers))
    llm_step.shard(torch, model, list(model.layers), "float32", "cpu")
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, TINY.vocab, (4, 17), generator=generator).chunk(2)[rank]
    step = llm_step.Step(torch, model, technique, tokens)
    losses = []
    for _ in range(4):
        loss = step.run()
        torch.distributed.all_reduce(loss)
        losses.append(float(loss) / 2)
    return losses


def test_two_sharded_processes_lose_what_one_does() -> None:
    paths = [part for part in sys.path if part and os.path.isdir(part)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        command = [sys.executable, "-c", SECOND, here, store]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
            try:
                first = in_a_group_of_two(0, store)
                out, _ = other.communicate(timeout=120)
            finally:
                other.kill()
    assert other.returncode == 0, out
    second = json.loads(out.splitlines()[-1])
    _, alone = step_of(FP32)
    wanted = [float(alone.run()) for _ in range(4)]
    assert first["losses"] == second["losses"]
    assert all(abs(found - loss) < 1e-4 for found, loss in zip(first["losses"], wanted)), (first["losses"], wanted)
    assert [(entry["name"], entry["device"]) for entry in first["results"]] == [
        ("llm_train_tiny_bf16_fsdp2", "node"),
        ("llm_train_tiny_bf16_fsdp2_checkpointing", "node"),
    ]
    assert second["results"] == []
    for entry in first["results"]:
        assert entry["details"]["techniques"]["fsdp"] == 2
        assert entry["details"]["compared_with"] == "llm_train_tiny_bf16"
        assert entry["details"]["tokens_ratio"] > 0
        assert entry["details"]["loss"]["last"] < entry["details"]["loss"]["first"]
