# SPDX-License-Identifier: Apache-2.0
"""What ``dkms status`` says, and why a module was not built: the first error of its build log.

Formats: ``dkms status`` of 2.8 (`module, version, kernel, arch: state`) to 3.2 (`module/version, kernel, arch: state`),
build logs of the kernel's make, its compilers and NVIDIA's own checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# `nvidia-current/535.309.01, 6.1.0-56-amd64, x86_64: installed`; dkms before 3.0 has a comma for the slash
_STATUS = re.compile(
    r"^(?P<module>[^,/\s]+)[/,]\s*(?P<version>[^,:\s]+)(?:,\s*(?P<kernel>[^,\s]+),\s*[^,:\s]+)?:\s*(?P<state>\w+)(?P<rest>.*)"
)
_INCOMPLETE = re.compile(r"missing some built modules", re.IGNORECASE)
_HEADER = re.compile(r"^DKMS (?:\(\S+\) )?make\.log for \S+ for kernel (?P<kernel>\S+)", re.MULTILINE)
#: what stands before a message of a compiler: the build folder or the kernel's, then file, line and column
_PLACE = re.compile(r"^(?:/\S*?/build/|/usr/src/[^/\s]+/)")
_MOST_CHARACTERS = 200
_FREE_SPACE = "Free space on /var and /tmp (apt-get clean, dnf clean all, journalctl --vacuum-size), then run again"
_SAME_COMPILER = "Install the compiler the kernel was built with, or a kernel of the distribution, then run again"
_HEADERS = "Install the headers of exactly this kernel, then run again"


@dataclass(frozen=True)
class BuildError:
    """Why a build failed: ``kind`` (space, memory, key, compiler, headers, licence, compile, make), the line of the log
    that says so, and what to do."""

    kind: str
    line: str
    next_step: str


#: kind, what its line looks like, next step; a cause that brings about others stands before them
_CAUSES = (
    ("space", r"No space left on device|Disk quota exceeded", _FREE_SPACE),
    (
        "memory",
        r"Killed signal terminated program|virtual memory exhausted|Cannot allocate memory",
        "Give the node more memory or swap for the build, then run again",
    ),
    (
        "key",
        r"sign-file.*(?:No such file|error|failed)|SSL error:|MOK.*(?:not found|can't be generated)",
        "Look at key and certificate that DKMS signs with (/etc/dkms/framework.conf), then run again",
    ),
    (
        "compiler",
        r"Failed CC version check|Compiler version check failed|does not match the compiler used here"
        r"|unrecognized command[- ]line option|appear to be able to create object files"
        r"|(?:gcc|cc|clang)[\w.-]*: (?:command )?not found",
        _SAME_COMPILER,
    ),
    (
        "headers",
        r"kernel headers for kernel \S+ cannot be found|Kernel configuration is invalid"
        r"|/(?:build|source)/?: No such file or directory|Unable to (?:determine the target kernel|locate the kernel)"
        r"|Unable to find the kernel source tree",
        _HEADERS,
    ),
    (
        "licence",
        r"GPL-incompatible module \S+ uses GPL-only symbol",
        "This driver version does not fit this kernel: plan a newer driver version, or boot an older kernel",
    ),
    (
        "compile",
        r":\d+(?::\d+)?: (?:fatal )?error: |(?:ERROR: )?modpost: .*undefined!|^ld: .*error",
        "This driver version does not fit this kernel: plan a newer driver version, or boot an older kernel",
    ),
    ("make", r"\*\*\* .*(?:Error \d+|Stop\.|No rule to make)", "Read the whole log"),
)
#: only a warning of the kernel's Makefile, but the reason when the build then fails for the compiler
_DIFFERS = re.compile(r"warning: the compiler differs from the one used to build the kernel")


def parse_dkms(text: str) -> list[dict[str, str | None]]:
    """Read ``dkms status``; kernel is None for a module that is only added, state ``incomplete`` where files lack."""
    rows = []
    for line in text.splitlines():
        match = _STATUS.match(line.strip())
        if match:
            row = match.groupdict()
            rest = row.pop("rest") or ""
            rows.append({**row, "state": "incomplete"} if _INCOMPLETE.search(rest) else row)
    return rows


def module_states(rows: list[dict[str, str | None]], kernels: list[str], version: str) -> dict[str, str]:
    """Return for each kernel the DKMS state of the NVIDIA module of this version, ``missing`` when there is none."""
    ours = [row for row in rows if (row["module"] or "").startswith("nvidia") and row["version"] == version]
    states = {}
    for kernel in kernels:
        own = [row["state"] or "missing" for row in ours if row["kernel"] == kernel]
        states[kernel] = own[0] if own else ("added" if ours else "missing")
    return states


def first_error(text: str) -> BuildError | None:
    """Return the first error of a build log that is a cause, None where the log has none.

    Space, memory, keys and compilers break a build in many places at once, so they are looked for before the messages
    they bring about.
    """
    lines = [line.strip() for line in text.splitlines()]
    for kind, pattern, next_step in _CAUSES:
        found = next((line for line in lines if re.search(pattern, line)), None)
        if found is not None:
            return BuildError(kind, _plain(found), next_step)
    differs = next((line for line in lines if _DIFFERS.search(line)), None)
    return BuildError("compiler", _plain(differs), _SAME_COMPILER) if differs else None


def _plain(line: str) -> str:
    text = _PLACE.sub("", line)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def build_log(root: Path, version: str, kernel: str) -> tuple[str, str] | None:
    """Return path and text of the log of a build that failed, None where there is none for this version and kernel.

    DKMS keeps one log for each version of a module, until a build succeeds: that of another kernel says nothing here.
    """
    for path in sorted((root / "var/lib/dkms").glob(f"nvidia*/{version}/build/make.log")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        named = _HEADER.search(text)
        if named is None or named["kernel"] == kernel:
            return f"/{path.relative_to(root)}", text
    return None


def latest_log(root: Path, since: float = 0.0) -> tuple[str, str, str, str] | None:
    """Return version, kernel, path and text of the youngest log of a failed NVIDIA build, None where there is none.

    Args:
        since: logs that were written before (seconds since the epoch) are of another run.
    """
    logs = [(path.stat().st_mtime, path) for path in (root / "var/lib/dkms").glob("nvidia*/*/build/make.log")]
    found = max((entry for entry in logs if entry[0] >= since), default=None)
    if found is None:
        return None
    path = found[1]
    text = path.read_text(encoding="utf-8", errors="replace")
    named = _HEADER.search(text)
    return path.parent.parent.name, named["kernel"] if named else "?", f"/{path.relative_to(root)}", text
