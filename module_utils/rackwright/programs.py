# SPDX-License-Identifier: Apache-2.0
"""Ask a program of the node something; in the C locale, with a limit of time, and with no terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

#: ``run_program``, or what stands in for it in a test
Run = Callable[[list[str], float], tuple[int, str, str]]


def run_program(command: list[str], timeout_s: float) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error.

    Raises:
        OSError: the program is missing, or (TimeoutError) does not answer in time.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command[0]} did not answer within {timeout_s:g} s") from error
    return done.returncode, done.stdout, done.stderr
