# SPDX-License-Identifier: Apache-2.0
"""Run the tests of this folder without pytest, on a node that has nothing but torch: ``python run.py [file...]``.

Every function whose name starts with ``test_`` is called; an exception is a failure. Prints each failure, how long the
slowest took and ``N passed, N failed``; the exit status is 1 where one failed or none was found.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def tests_of(path: Path) -> list[tuple[str, Callable[[], object]]]:
    """Return name and function of every test of a file; importing it may fail, which is a failed test as well."""
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


def main(arguments: list[str]) -> int:
    """Run the files named, or all of the folder."""
    sys.path.insert(0, str(HERE))
    files = [Path(name) for name in arguments] or sorted(HERE.glob("test_*.py"))
    passed, failed, times = 0, 0, []
    for path in files:
        for name, test in tests_of(path):
            started = time.perf_counter()
            try:
                test()
                passed += 1
            except Exception:
                failed += 1
                print(f"FAILED {name}\n{traceback.format_exc()}")
            times.append((time.perf_counter() - started, name))
    for seconds, name in sorted(times, reverse=True)[:3]:
        print(f"{seconds:6.2f} s  {name}")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
