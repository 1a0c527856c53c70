# SPDX-License-Identifier: Apache-2.0
"""Run the tests of this folder without pytest, on a node that has nothing but torch: ``python run.py [file...]``.

Every function whose name starts with ``test_`` is called; an exception is a failure. Each file has a process of its
own, as many at once as there are processors. Prints each failure, the slowest tests and ``N passed, N failed``; the
exit status is 1 where one failed or none was found.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: A file that takes longer hangs.
TIMEOUT_S = 600


def tests_of(path: Path) -> list[tuple[str, Callable[[], object]]]:
    """Return name and function of every test of a file; one that cannot be imported is a test that fails."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        return [(f"{path.stem} (import)", _raiser(error))]
    return [(f"{path.stem}.{name}", value) for name, value in vars(module).items() if _is_test(name, value)]


def _is_test(name: str, value: object) -> bool:
    return name.startswith("test_") and callable(value)


def _raiser(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


def run_here(path: Path) -> int:
    """Run one file in this process."""
    passed, failed, times = 0, 0, []
    for name, test in tests_of(path):
        started = time.perf_counter()
        try:
            test()
            passed += 1
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}")
        times.append((time.perf_counter() - started, name))
    for seconds, name in sorted(times, reverse=True)[:2]:
        print(f"{seconds:6.2f} s  {name}")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


def run_apart(path: Path) -> tuple[str, int, int]:
    """Run one file in a process of its own; return its output and how many tests passed and failed."""
    command = [sys.executable, str(HERE / "run.py"), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"FAILED {path.stem}: no end within {TIMEOUT_S} s", 0, 1
    counted = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
    if counted is None or (done.returncode != 0 and counted[2] == "0"):
        return f"FAILED {path.stem}: ended with {done.returncode}\n{done.stdout}{done.stderr[-4000:]}", 0, 1
    return done.stdout[: counted.start()].rstrip(), int(counted[1]), int(counted[2])


def main(arguments: list[str]) -> int:
    """Run the file named, or all that are named or in the folder, each apart."""
    files = [Path(name) for name in arguments] or sorted(HERE.glob("test_*.py"))
    if len(files) == 1:
        return run_here(files[0])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = list(pool.map(run_apart, files))
    for output, _, _ in outcomes:
        print(output)
    passed, failed = sum(outcome[1] for outcome in outcomes), sum(outcome[2] for outcome in outcomes)
    print(f"{passed} passed, {failed} failed in {len(files)} files")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
