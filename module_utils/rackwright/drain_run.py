# SPDX-License-Identifier: Apache-2.0
"""Run a scheduler's program with a hard time limit: a controller that does not answer must not block a rollout."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import MissingError, ProbeError, TimedOutError

#: squeue takes filters from these, which would hide running jobs
_HIDING = ("SQUEUE_", "SCONTROL_")
_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_TAIL = 500


@dataclass(frozen=True)
class Done:
    """What a program left: exit status, standard output, standard error."""

    rc: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The end of what it said, on one line, for a message; never empty."""
        text = " ".join((self.err.strip() or self.out.strip()).split())
        return text[-_TAIL:] or f"it ended with status {self.rc} and said nothing"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of every call: the caller's, in plain English, without filters, with the usual program folders."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_HIDING)}
    path = env.get("PATH", "").split(os.pathsep) if env.get("PATH") else []
    env["PATH"] = os.pathsep.join(path + [folder for folder in _PATHS if folder not in path])
    return {**env, "LC_ALL": "C", "LANGUAGE": "C", **(extra or {})}


def run(argv: Sequence[str], timeout_s: float, extra: Mapping[str, str] | None = None) -> Done:
    """Run a program without a shell and return what it left.

    Raises:
        MissingError: there is no such program. ProbeError: it cannot be started.
        TimedOutError: no end within ``timeout_s``; the program and what it started were killed.
    """
    program = argv[0]
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(extra),
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        step = "Run the task where it is installed (delegate_to), or extend PATH with the task's environment"
        raise MissingError("run the program", program, "it is not installed here", step) from error
    except OSError as error:
        raise ProbeError("run the program", program, f"{error.strerror}", "Check the file and its mode") from error
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        step = "Check that the service it talks to answers"
        raise TimedOutError("run the program", " ".join(argv), f"no end within {timeout_s:g} s", step) from error
    except BaseException:
        _kill(process)
        raise
    return Done(process.returncode, out, err)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # one that sleeps uninterruptibly in the kernel stays behind
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=2)
