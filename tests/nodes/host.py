# SPDX-License-Identifier: Apache-2.0
"""Running commands on the host, as root where that is needed, and taking turns."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import NodesError
from .paths import CACHE, NODES

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_PATIENCE_SECONDS = 2
_print_lock = threading.Lock()


def say(text: str, prefix: str = "") -> None:
    """Show progress at once, one whole line at a time, also from threads."""
    with _print_lock:
        print(f"{prefix}{text}", file=sys.stderr, flush=True)


def find_program(name: str) -> str | None:
    """Full path of a program; the sbin folders count although an ordinary user lacks them in PATH."""
    return shutil.which(name, path=SEARCH_PATH)


def as_root(command: Sequence[str]) -> list[str]:
    """The command with what it takes to run it as root."""
    return list(command) if os.geteuid() == 0 else ["sudo", "-n", *command]


def run(
    command: Sequence[str], what: str, *, stdin: bytes | None = None, timeout: int = 120, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output; its last words become the cause if it fails."""
    # `timeout` sits inside sudo: an ordinary user cannot kill a root process that hangs.
    argv = list(command)
    limit = ["timeout", "-k", "10", str(timeout)]
    argv = [*argv[:2], *limit, *argv[2:]] if argv[:2] == ["sudo", "-n"] else [*limit, *argv]
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as exc:
        raise NodesError(what, str(exc), "Run `tests/nodes/nodes.py check` to see what is missing") from exc
    result = subprocess.CompletedProcess(
        list(command), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and result.returncode != 0:
        raise NodesError(what, last_words(result, timeout), f"Command was: {' '.join(command)[:300]}")
    return result


def last_words(result: subprocess.CompletedProcess[str], timeout: int) -> str:
    """The line of a failed command's output that most likely names the cause."""
    if result.returncode in (124, 137):
        return f"no answer within {timeout} s"
    lines = [line.strip() for line in (result.stderr or result.stdout or "").splitlines() if line.strip()]
    full = [line for line in lines if "No space left on device" in line]
    # The first complaint names the cause; those after it follow from it.
    errors = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith(("e:", "error:"))]
    return (full or errors or lines[-1:] or [f"exit status {result.returncode}"])[0]


def stream(
    command: Sequence[str],
    what: str,
    *,
    prefix: str,
    stdout_to: Path | None = None,
    stdin: bytes | None = None,
    timeout: int = 900,
    show: Callable[[str], str | None] = lambda line: line,
) -> None:
    """Run a long command and show its lines as they come; with stdout_to only stderr is shown."""
    argv = as_root(["timeout", "-k", "10", str(timeout), *command])
    tail: list[str] = []
    out = stdout_to.open("wb") if stdout_to else None
    try:
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE if out else subprocess.STDOUT,
        ) as process:
            if process.stdin:
                feed = threading.Thread(target=_feed, args=(process.stdin, stdin or b""))
                feed.start()
            for raw in (process.stderr if out else process.stdout) or []:
                line = raw.decode(errors="replace").rstrip()
                tail = [*tail[-30:], line]
                text = show(line)
                if text:
                    say(text, prefix)
    finally:
        if out:
            out.close()
    if process.returncode != 0:
        done = subprocess.CompletedProcess(list(command), process.returncode, "", "\n".join(tail))
        raise NodesError(what, last_words(done, timeout), "See the lines above")


def _feed(pipe: object, data: bytes) -> None:
    """Write all input and close; a command that ends early is reported by its exit status."""
    try:
        pipe.write(data)  # type: ignore[attr-defined]
        pipe.close()  # type: ignore[attr-defined]
    except BrokenPipeError:
        return


def remove_tree(path: Path) -> None:
    """Remove a folder of the test nodes, which may hold files of root. Nothing else can be removed with it.

    The path is resolved first: `rm` follows `..` and links, so a comparison of the text alone guards nothing.
    """
    real = path.resolve()
    owned = [folder.resolve() for folder in (NODES, CACHE)]
    if ".." in path.parts or not any(real == folder or folder in real.parents for folder in owned):
        raise NodesError(f"remove {path}", "it is not a folder of the test nodes", "This is a defect of the caller")
    if path.exists():
        run(as_root(["rm", "-rf", "--one-file-system", "--", str(real)]), f"remove {path}", timeout=300)


def give_back(path: Path) -> None:
    """Make what root wrote below build/ the invoking user's again."""
    if os.geteuid() != 0 and path.exists():
        owner = f"{os.getuid()}:{os.getgid()}"
        run(as_root(["chown", "-R", owner, str(path)]), f"take back {path}")


def require_free(path: Path, gigabytes: float, what: str) -> None:
    """Refuse before the disk is full, not in the middle."""
    where = path
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free / 1e9
    if free < gigabytes:
        raise NodesError(
            what, f"only {free:.1f} GB are free under {where}", f"Make {gigabytes:g} GB free and run again"
        )


def _try_lock(handle: IO[str], seconds: float) -> bool:
    """Try for a short while, so that a wait nobody would notice is not announced."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock between processes; the kernel frees it however the holder ends."""
    folder = NODES / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a+") as handle:
        if not _try_lock(handle, _PATIENCE_SECONDS):
            handle.seek(0)
            say(f"Waiting for another run that holds {name} (process {handle.read().strip() or 'unknown'})")
            started = time.monotonic()
            fcntl.flock(handle, fcntl.LOCK_EX)
            say(f"Waited {time.monotonic() - started:.0f} s for {name}")
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
