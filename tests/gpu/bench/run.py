# SPDX-License-Identifier: Apache-2.0
"""``make bench-gpu``: our numbers beside those of other tools on the same card in one run, and how well they repeat.

Needs Python 3.9 with torch, and a GPU. Nothing is asserted: it prints tables and writes what it measured.
``--cpu`` runs every path on the CPU, where the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "module_utils")]

from gpu.bench import compare, peers

from rackwright import benchmark, child, gpu_readings, llm_training_plan, text_table, torch_runner, torch_suites
from rackwright.errors import MissingError, RackwrightError

# without torch, the folder of its tests would be taken for it
sys.path.remove(str(ROOT / "tests"))

#: Suites of the comparison, ours before theirs, so that neither always meets the cooler card when rounds repeat.
PAIRS = {
    "gemm": ("gemm", "peer_gemm"),
    "memory": ("memory", "peer_memory"),
    "decode": ("our_decode", "peer_decode"),
}
PARTS = (*PAIRS, "repeat")
#: Suites whose numbers are repeated; those of several GPUs at once say for themselves how far GPUs lie apart.
REPEATED = ("import", "gemm", "memory", "correctness", "pcie", "llm_inference", "llm_training")
_CPU_WARNING = "CPU: these numbers mean nothing. They show that every path runs."

Document = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that were asked for; exit status 1 where something could not be measured, 2 without a GPU."""
    options = _parser().parse_args(arguments)
    for name in ("peer_gemm", "peer_memory", "our_decode", "peer_decode"):
        torch_suites.SUITES[name] = getattr(peers, name)
    try:
        device = find_device(options)
        parts = {part: _measure(part, device, options) for part in options.part or PARTS}
    except RackwrightError as error:
        print(error, file=sys.stderr)
        if isinstance(error, MissingError) and error.action == "import torch":
            print("make bench-gpu TORCH_PYTHON=PATH names the interpreter that has torch.", file=sys.stderr)
        return 2
    if options.json:
        Path(options.json).write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    return 1 if any(one["errors"] for part in parts.values() for one in part) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-gpu", description=__doc__)
    parts = f"{', '.join(PARTS)}; without one, all"
    parser.add_argument("part", nargs="*", type=_one_of(PARTS), metavar="PART", help=parts)
    parser.add_argument("--cpu", action="store_true", help="run every path on the CPU; the numbers mean nothing")
    parser.add_argument("--device", default="0", help="index of the GPU (default 0)")
    parser.add_argument("--level", default="quick", choices=("quick", "standard", "full"))
    parser.add_argument("--rounds", type=_positive, default=3, help="how often ours and theirs take turns")
    parser.add_argument("--runs", type=_positive, default=3, help="runs of every suite for the part repeat")
    suites = "suites of the part repeat, with commas"
    parser.add_argument("--suites", type=_suites, default=list(REPEATED), help=suites)
    parser.add_argument("--workload", help="named workload of the LLM suites; default that of the kind of device")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds after which a process is killed")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured")
    return parser


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return a check of one word; ``choices`` refuses an empty list of words where Python is older than 3.12."""

    def check(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}")
        return text

    return check


def _suites(text: str) -> list[str]:
    return [_one_of(REPEATED)(name.strip()) for name in text.split(",") if name.strip()]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _request(options: argparse.Namespace, suites: Sequence[str], device: str) -> benchmark.Request:
    return benchmark.Request(
        python=sys.executable,
        suites=tuple(suites),
        devices=(device,),
        level=options.level,
        timeout=options.timeout,
        seed=1,
        allow_busy=False,
        options={"llm_workload": options.workload} if options.workload else {},
    )


def find_device(options: argparse.Namespace) -> str:
    """Return the device to measure.

    Raises:
        MissingError: torch cannot be imported, or sees no such GPU.
    """
    wanted = "cpu" if options.cpu else options.device
    planned = benchmark.plan(_request(options, (), wanted))
    if not planned["devices"]:
        raise MissingError(
            "run bench-gpu",
            f"GPU {options.device} of this machine",
            "torch sees no such GPU",
            "Run it on a machine with a GPU and a CUDA build of torch, or add --cpu to see that every path runs",
            expected="a CUDA device",
            found=None,
        )
    return str(planned["devices"][0]["device"])


def _measure(part: str, device: str, options: argparse.Namespace) -> list[Document]:
    if part == "repeat":
        return _repeat(device, options)
    document = one_process(PAIRS[part] * options.rounds, device, options)
    ours = [entry for entry in document["results"] if not entry["suite"].startswith("peer_")]
    theirs = [entry for entry in document["results"] if entry["suite"].startswith("peer_")]
    rows = compare.side_by_side(ours, theirs, compare.peaks_by_name(ours, document["peak"]))
    _show(f"{part}: ours beside theirs, {options.rounds} rounds in turns", compare.COLUMNS, rows, device)
    _show_rest([document])
    return [document]


def _repeat(device: str, options: argparse.Namespace) -> list[Document]:
    documents = []
    for number in range(options.runs):
        print(f"run {number + 1} of {options.runs} ...", flush=True)
        documents.append(benchmark.run(_request(options, options.suites, device)))
    rows = compare.repeatability([document["results"] for document in documents])
    _show(f"repeat: {options.runs} runs of every suite, each in new processes", compare.REPEAT_COLUMNS, rows, device)
    peak = peak_of(documents[-1]["devices"].get(device) or {})
    rows = compare.rooflines(documents[-1]["results"], peak)
    _show("fractions of the roofline, last run", compare.ROOFLINE_COLUMNS, rows, device)
    trained = [{**row, "what": row["technique"]} for row in llm_training_plan.table(documents[-1]["results"])]
    if trained:
        columns = ("technique", "tokens_per_s", "mfu", "peak_gib", "tokens", "memory")
        _show("llm_training of the last run: what each technique buys", columns, trained, device)
    _show_rest(documents)
    return documents


def one_process(suites: Sequence[str], device: str, options: argparse.Namespace) -> Document:
    """Run suites, which may repeat, in one child process, so that ours and theirs see the same warm card."""
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        path = os.path.join(folder, "progress.jsonl")
        payload = {
            "device": device,
            "suites": list(suites),
            "devices": [device],
            "peers": [device],
            "level": options.level,
            "seed": 1,
            "allow_busy": False,
            "options": {"llm_workload": options.workload} if options.workload else {},
            "progress_path": path,
            "scratch": folder,
        }
        outcome = child.run_in_child(torch_runner.run_device, [payload], options.timeout)
        lines = Path(path).read_text(encoding="utf-8").splitlines() if os.path.exists(path) else []
    return document_of([json.loads(line) for line in lines], outcome)


def document_of(lines: Sequence[Mapping[str, Any]], outcome: child.ChildResult) -> Document:
    """Return results, errors and what is not applicable from a child's lines, and how the child itself ended."""
    document: Document = {
        "results": [line["result"] for line in lines if "result" in line],
        "errors": [line["error"] for line in lines if "error" in line],
        "not_applicable": [line["not_applicable"] for line in lines if "not_applicable" in line],
        "peak": None,
    }
    for line in lines:
        if "device_info" in line:
            document["peak"] = peak_of(line["device_info"])
    if outcome.status != "ok":
        last = [line["start"] for line in lines if "start" in line][-1:]
        document["errors"].append(
            {"suite": last[0] if last else None, "reason": outcome.status, "detail": outcome.detail or outcome.stderr}
        )
    return document


def peak_of(info: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Ask driver and catalogue what a card can do, by what torch said of it; None for a CPU and where neither knows."""
    if not info.get("compute_capability"):
        return None
    meter, _ = gpu_readings.open_gpu(info)
    return meter.peak()[0] if meter is not None else None


def _show(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]], device: str) -> None:
    print(f"\n{title} ({device})")
    if device == "cpu":
        print(_CPU_WARNING)
    lines = text_table.table(columns, rows, shrinkable=("what",), least={"what": 24}) if rows else ["nothing"]
    print("\n".join([*lines, *(f"  {line}" for line in compare.notes(rows))]))


def _show_rest(documents: Sequence[Document]) -> None:
    """Say once what gave no number and why, however many rounds said so."""
    said = [
        *(f"not applicable: {one['suite']}: {one['reason']}" for each in documents for one in each["not_applicable"]),
        *(
            f"not measured: {one['suite']}: {one['reason']}: {one['detail']}"
            for each in documents
            for one in each["errors"]
        ),
    ]
    for line in dict.fromkeys(said):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
