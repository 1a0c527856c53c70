# SPDX-License-Identifier: Apache-2.0
"""Every suite at tiny size on the CPU with the real torch, and the GPU's ways through the suites in a guise."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from support.cuda_on_cpu import GIB, TORCH, CudaOnCpu, gpu_bench

from rackwright import benchmark, benchmark_levels, torch_bench, torch_correctness, torch_suites
from rackwright.benchmark_levels import CPU_LEVELS, CUDA_LEVELS, MIB
from rackwright.exact_answers import exact_operands
from rackwright.gpu_watch import Watch
from rackwright.measure import is_measurement
from rackwright.torch_bench import Bench, NotApplicableError, NotEnoughMemoryError, WrongAnswerError
from rackwright.torch_burn import burn_suite
from rackwright.torch_device import device_info
from rackwright.torch_gemm import gemm_suite, kernel_suite
from rackwright.torch_peers import p2p_suite
from rackwright.torch_product import make_product, precision_of
from rackwright.torch_transfer import pcie_suite

SHORT = replace(CPU_LEVELS["quick"], heat_s=0.0, warmup_s=0.01, budget_s=0.05, correctness_s=0.02, burn_s=0.05)
GPU = replace(
    CUDA_LEVELS["quick"],
    heat_s=0.0,
    warmup_s=0.0,
    budget_s=0.01,
    min_samples=2,
    max_samples=3,
    gemm_sizes=(128,),
    other_gemm_sizes=(64,),
    memory_bytes=16 * MIB,
    correctness_size=256,
    correctness_s=0.0,
    transfer_bytes=64 * MIB,
    transfer_samples=3,
    peer_samples=3,
    burn_s=0.3,
)


class _Short(Bench):
    @property
    def level(self) -> Any:
        return SHORT


def cpu_bench(**more: Any) -> Bench:
    """Return a bench on the CPU whose measurements are over at once."""
    return _Short(TORCH, "cpu", "quick", 7, device_info(TORCH, "cpu"), Watch(None, "a CPU"), **more)


@contextlib.contextmanager
def raises(kind: type[Exception], text: str) -> Iterator[None]:
    """Demand an exception whose text contains ``text``."""
    caught: Exception | None = None
    try:
        yield
    except kind as error:
        caught = error
    assert caught is not None, f"no {kind.__name__}"
    assert text in str(caught), str(caught)


def results_of(suite: Any, bench: Bench) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return results and what does not apply, both checked to be plain JSON."""
    found = json.loads(json.dumps(list(suite(bench))))
    return [entry for entry in found if "not_applicable" not in entry], [
        entry["not_applicable"] for entry in found if "not_applicable" in entry
    ]


def test_every_suite_gives_results_or_says_why_not() -> None:
    for name, suite in torch_suites.SUITES.items():
        if name.startswith("llm_"):
            continue  # they have files of their own
        bench = cpu_bench()
        if name in ("pcie", "p2p"):
            with raises(NotApplicableError, "the device is a CPU"):
                list(suite(bench))
            continue
        found, _ = results_of(suite, bench)
        assert found, name
        for entry in found:
            assert (entry["suite"], entry["device"], entry["level"]) == (name, "cpu", "quick")
            assert is_measurement(entry) or entry["unit"] == "wrong elements", entry
            assert entry["missing"]["clocks"]


def test_the_module_runs_every_suite_on_this_node() -> None:
    suites = tuple(name for name in benchmark_levels.SUITES if not name.startswith("llm_"))
    document = benchmark.run(benchmark.Request(sys.executable, suites, ("cpu",), "quick", 120, 7, False))
    assert document["errors"] == []
    assert {entry["suite"] for entry in document["results"]} == set(suites) - {"pcie", "p2p"}
    assert {entry["suite"] for entry in document["not_applicable"]} == {"pcie", "p2p"}


def test_products_of_every_data_type_are_right() -> None:
    generator, before = TORCH.Generator().manual_seed(3), TORCH.get_float32_matmul_precision()
    for dtype in ("float32", "tf32", "bfloat16", "float16", "float8_e4m3fn", "int8"):
        # up to 3: exact in fp8 too, whose significand has four bits; 64 such terms stay below 256 in most elements
        a, b = (TORCH.randint(-3, 4, (64, 64), generator=generator) for _ in range(2))
        stored = getattr(TORCH, {"tf32": "float32"}.get(dtype, dtype))
        with precision_of(TORCH, dtype):
            product = make_product(TORCH, dtype, a.to(stored), b.to(stored))
            product()
        exact = a @ b
        kept = exact.to(product.out.dtype).to(TORCH.int64)
        assert TORCH.equal(product.out.to(TORCH.int64), kept), dtype
    assert TORCH.get_float32_matmul_precision() == before, "the precision is put back"


def test_gemm_runs_every_data_type_of_a_gpu_and_the_primary_one_first() -> None:
    found, unable = results_of(gemm_suite, gpu_bench(GPU))
    names = ["bfloat16_128", "float16_64", "tf32_64", "float32_64", "float8_e4m3fn_64", "int8_64"]
    assert [entry["name"] for entry in found] == [f"gemm_{name}" for name in names]
    assert [entry["unit"] for entry in found] == ["TFLOP/s"] * 5 + ["TOP/s"]
    assert all(is_measurement(entry) for entry in found)
    assert found[5]["conditions"]["data"] == "uniform"
    assert unable == []


def test_gemm_says_what_an_older_card_has_not() -> None:
    found, unable = results_of(gemm_suite, gpu_bench(GPU, info={"compute_capability": [7, 5]}))
    assert [entry["dtype"] for entry in found] == ["float16", "float32", "int8"]
    assert [(entry["suite"], entry["dtype"]) for entry in unable] == [
        ("gemm", "bfloat16"),
        ("gemm", "tf32"),
        ("gemm", "float8_e4m3fn"),
    ]
    assert all("7.5" in entry["reason"] for entry in unable)


def test_a_torch_that_cannot_multiply_a_type_is_not_a_fault_of_the_card() -> None:
    class Old(CudaOnCpu):
        def __getattr__(self, name: str) -> Any:
            if name == "float8_e4m3fn":
                raise AttributeError("module 'torch' has no attribute 'float8_e4m3fn'")
            return super().__getattr__(name)

        def _int_mm(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul")

    found, unable = results_of(gemm_suite, gpu_bench(GPU, Old()))
    assert [entry["dtype"] for entry in found] == ["bfloat16", "float16", "tf32", "float32"]
    assert [entry["dtype"] for entry in unable] == ["float8_e4m3fn", "int8"]
    assert all(entry["reason"].startswith("this torch cannot: ") for entry in unable)


def test_an_older_torch_whose_fp8_takes_other_arguments_goes_on_with_int8() -> None:
    class Older(CudaOnCpu):
        def _scaled_mm(self, a: Any, b: Any, *, bias: Any = None, out_dtype: Any = None, scale_a: Any = None) -> Any:
            raise AssertionError("never reached: the call has other arguments")

    found, unable = results_of(gemm_suite, gpu_bench(GPU, Older()))
    assert [entry["dtype"] for entry in found] == ["bfloat16", "float16", "tf32", "float32", "int8"]
    assert [entry["dtype"] for entry in unable] == ["float8_e4m3fn"]


def test_another_error_of_a_product_is_an_error() -> None:
    class Broken(CudaOnCpu):
        def _int_mm(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with raises(RuntimeError, "illegal memory access"):
        results_of(gemm_suite, gpu_bench(GPU, Broken()))


def test_a_full_gpu_is_no_number() -> None:
    for suite in (torch_suites.SUITES["gemm"], torch_suites.SUITES["memory"], pcie_suite, burn_suite):
        with raises(NotEnoughMemoryError, "only"):
            results_of(suite, gpu_bench(GPU, CudaOnCpu(free=1000)))


class _Flips(CudaOnCpu):
    """Flips one bit of one element of the ``when``-th product."""

    def __init__(self, when: int) -> None:
        super().__init__(free=32 * MIB, total=32 * MIB)
        self.when, self.count = when, 0

    def mm(self, a: Any, b: Any, out: Any = None) -> Any:
        self.count += 1
        out = TORCH.mm(a, b, out=out)
        if self.count == self.when:
            bits = out.view(TORCH.int16 if out.element_size() == 2 else TORCH.int32)
            bits[17, 5] ^= 1 << 8
        return out


def test_one_flipped_bit_is_found_wherever_it_is() -> None:
    before = TORCH.get_float32_matmul_precision()
    for when, said in ((1, "not the exact answer in rows 17, columns 5"), (3, "1 elements changed between 4 equal")):
        results: list[dict[str, Any]] = []
        with raises(WrongAnswerError, said):
            results.extend(torch_suites.SUITES["correctness"](gpu_bench(GPU, _Flips(when))))
        assert TORCH.get_float32_matmul_precision() == before


def test_a_wrong_answer_does_not_hide_the_other_data_types() -> None:
    suite = torch_suites.SUITES["correctness"](gpu_bench(GPU, _Flips(1)))
    found = []
    with raises(WrongAnswerError, "bfloat16"):
        for entry in suite:
            found.append(entry)
    assert [(entry["dtype"], entry["value"] > 0) for entry in found] == [
        ("bfloat16", True),
        ("float16", False),
        ("float32", False),
        ("int8", False),
    ]
    # two differences: the first product itself, and every later one differs from it
    assert found[0]["details"]["differences"]


def test_integer_operands_are_exact_even_added_the_other_way_round() -> None:
    for dtype in benchmark_levels.EXACT_DTYPES:
        a, b = torch_correctness.integers(TORCH, dtype, 256, 5)
        wide = a.to(TORCH.int64).abs() @ b.to(TORCH.int64).abs()
        limit = {"bfloat16": 256, "float16": 2048, "float32": 1 << 24, "int8": 1 << 31}[dtype]
        assert 0 < int(wide.max()) <= limit
        exact = exact_operands(dtype, 256)
        assert int(a.abs().max()) == exact.magnitude
        assert 0.8 / exact.one_in < float((a != 0).float().mean()) < 1.2 / exact.one_in
        signs = [int((a * sign > 0).sum()) for sign in (1, -1)]
        assert 0.8 < signs[0] / signs[1] < 1.25, "both signs, about equally often"


def test_the_same_seed_gives_the_same_checksum_and_another_one_does_not() -> None:
    sums = []
    for seed in (1, 1, 2):
        a, b = torch_correctness.integers(TORCH, "float32", 256, seed)
        wrong, where, checksum = torch_correctness.compare(TORCH, a, b, (a.float() @ b.float()), seed)
        assert (wrong, where) == (0, None)
        sums.append(checksum)
    assert sums[0] == sums[1] != sums[2]


def test_comparison_by_vectors_finds_any_one_wrong_element() -> None:
    a, b = torch_correctness.integers(TORCH, "int8", 256, 9)
    right = a.to(TORCH.int64) @ b.to(TORCH.int64)
    for row, column in ((0, 0), (255, 255), (100, 3)):
        wrong = right.to(TORCH.int32).clone()
        wrong[row, column] += 1
        count, where, _ = torch_correctness.compare(TORCH, a, b, wrong, 9)
        assert (count, where) == (1, f"the product is not the exact answer in rows {row}, columns {column}")
    assert torch_correctness.compare(TORCH, a, b, right.to(TORCH.int32), 9)[:2] == (0, None)
    infinite = right.float()
    infinite[4, 4] = float("nan")
    assert torch_correctness.compare(TORCH, a, b, infinite, 9)[0]


def test_kernels_that_compute_wrongly_are_refused() -> None:
    class Wrong(CudaOnCpu):
        def arange(self, *args: Any, **options: Any) -> Any:
            return TORCH.arange(*args) + (1 if "device" in options else 0)

    with raises(WrongAnswerError, "65536 of 131072"):
        results_of(kernel_suite, gpu_bench(GPU, Wrong()))


class _Meter:
    """A GPU's meter that says what NVML would."""

    def __init__(self, **link: Any) -> None:
        self.link = link

    def pci_address(self) -> None:
        return None

    def pcie_link(self) -> dict[str, Any]:
        return self.link

    def power_limit_w(self) -> float:
        return 700.0

    def utilisation(self) -> int:
        return 0


def test_the_host_link_both_ways_with_its_state_under_load() -> None:
    link = {"generation": 5, "width": 16, "max_generation": 5, "max_width": 16}
    found, _ = results_of(pcie_suite, gpu_bench(GPU, meter=_Meter(**link)))
    assert [entry["name"] for entry in found] == ["pcie_h2d", "pcie_d2h"]
    for entry in found:
        assert is_measurement(entry)
        assert entry["shape"] == [64 * MIB]
        assert entry["details"]["link"] == link
        assert 63.0 < entry["details"]["link_gbps"] < 63.1
        assert entry["details"]["unbound"] == "the PCI address is unknown"
    blind, _ = results_of(pcie_suite, gpu_bench(GPU))
    assert blind[0]["missing"]["link"]
    assert blind[0]["details"]["link_gbps"] is None


def test_a_gpu_that_shares_the_systems_memory_has_no_host_link() -> None:
    with raises(NotApplicableError, "shares the memory"):
        results_of(pcie_suite, gpu_bench(GPU, info={"unified_memory": True}))


def test_every_pair_both_ways_and_both_at_once() -> None:
    torch = CudaOnCpu(free=64 * MIB, access=False)
    peers = ("cuda:0", "cuda:1", "cuda:2")
    found, _ = results_of(p2p_suite, gpu_bench(GPU, torch, peers=peers))
    uni = [entry for entry in found if entry["name"] == "p2p_uni"]
    both = [entry for entry in found if entry["name"] == "p2p_bidirectional"]
    pairs = [(entry["device"], entry["details"]["peer"]) for entry in uni]
    assert len(set(pairs)) == len(uni) == 6
    assert [(entry["device"], entry["details"]["peer"]) for entry in both] == [
        ("cuda:0", "cuda:1"),
        ("cuda:0", "cuda:2"),
        ("cuda:1", "cuda:2"),
    ]
    assert all(is_measurement(entry) and entry["details"]["access"] is False for entry in uni + both)
    assert all(entry["samples"] == GPU.peer_samples for entry in uni + both)
    one_way, two_ways = (entry for entry in found if entry["device"] == "node")
    assert (one_way["name"], two_ways["name"]) == ("p2p_uni_matrix", "p2p_bidirectional_matrix")
    assert one_way["value"] == min(entry["value"] for entry in uni)
    matrix = two_ways["details"]["matrix"]
    assert [matrix[index][index] for index in range(3)] == [None] * 3
    assert matrix[0][2] == matrix[2][0] > 0
    assert len(one_way["details"]["without_access"]) == 6
    # each way has the streams of its two ends: the receiver's and the sender's
    assert torch.cuda.streams[:2] == ["cuda:1", "cuda:0"]


def test_what_arrives_wrong_between_two_gpus_is_no_number() -> None:
    class Diverted(CudaOnCpu):
        def zeros(self, *args: Any, **options: Any) -> Any:
            tensor = TORCH.zeros(*args, dtype=options["dtype"])
            return tensor.clone().as_subclass(_Lossy)

    class _Lossy(TORCH.Tensor):
        def copy_(self, source: Any, non_blocking: bool = False) -> Any:
            super().copy_(source)
            return super().__setitem__(7, 0) if self.numel() > 7 else self

    with raises(WrongAnswerError, "elements copied from cuda:0 to cuda:1 arrived wrong"):
        results_of(p2p_suite, gpu_bench(GPU, Diverted(free=64 * MIB), peers=("cuda:0", "cuda:1")))


def test_one_gpu_has_no_pair() -> None:
    with raises(NotApplicableError, "a pair needs two GPUs"):
        results_of(p2p_suite, gpu_bench(GPU, peers=("cuda:0",)))


def test_burn_fills_the_memory_and_compares_all_of_it() -> None:
    torch = CudaOnCpu(free=64 * MIB, total=64 * MIB)
    (result,), _ = results_of(burn_suite, gpu_bench(GPU, torch, meter=_Meter()))
    details = result["details"]
    assert is_measurement(result)
    assert (result["name"], result["shape"]) == ("burn_bfloat16", [512, 512, 512])
    # 95 % of the memory without what the comparison itself needs: two more products of 0.5 MiB
    assert 0.92 < details["memory_fraction"] < 0.95
    assert details["products"] >= details["memory_bytes"] // (512 * 512 * 2)
    assert (details["wrong_elements"], details["power_limit_w"], details["gpus_at_once"]) == (0, 700.0, 1)


def test_burn_finds_the_row_of_memory_that_keeps_a_wrong_bit() -> None:
    class BadRow(CudaOnCpu):
        """The fifth part of the memory cannot hold one bit."""

        def __init__(self) -> None:
            super().__init__(free=32 * MIB, total=32 * MIB)
            self.parts: dict[int, int] = {}

        def mm(self, a: Any, b: Any, out: Any = None) -> Any:
            out = TORCH.mm(a, b, out=out)
            if out is not None:
                number = self.parts.setdefault(out.data_ptr(), len(self.parts))
                if number == 5:
                    out.view(TORCH.int16)[3, 3] ^= 4
            return out

    results: list[dict[str, Any]] = []
    with raises(WrongAnswerError, "elements of equal products differ"):
        results.extend(burn_suite(gpu_bench(GPU, BadRow())))
    assert results[0]["details"]["wrong_elements"] >= 1


def test_burn_finds_units_that_multiply_wrongly() -> None:
    with raises(WrongAnswerError, "differ from the float32 product"):
        results_of(burn_suite, gpu_bench(GPU, _Flips(1)))


def test_burn_leaves_a_shared_memory_half() -> None:
    torch = CudaOnCpu(free=32 * MIB, total=GIB)
    bench = gpu_bench(GPU, torch, info={"unified_memory": True})
    with mock.patch.object(torch_bench, "available_memory", return_value=32 * MIB):
        (result,), _ = results_of(burn_suite, bench)
    assert result["details"]["memory_bytes"] <= 16 * MIB


def test_burn_lasts_as_long_as_asked() -> None:
    (result,), _ = results_of(burn_suite, cpu_bench(options={"burn_seconds": 0.2}))
    assert result["conditions"]["seconds"] == 0.2
    assert result["details"]["products"] >= 4, "every part of the memory was written"
