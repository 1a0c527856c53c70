# SPDX-License-Identifier: Apache-2.0
"""CUDA toolkits on a node: their packages, their compiler, the host compiler they take. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError, MissingError
from .host import natural_key
from .packages import Candidate, Installed

#: ELF header of GPU code: magic, 64 bit, and EM_CUDA (190) as e_machine at offset 18
_ELF, _EM_CUDA = b"\x7fELF\x02", 190
_NVCC = re.compile(r"release (\d+\.\d+), V(\d+(?:\.\d+)+)")
_EPOCH = re.compile(r"^\d+:")


@dataclass(frozen=True)
class Wanted:
    """A package whose version starts with ``prefix`` and contains ``part``: NCCL ``2.30.7`` for ``+cuda13.``."""

    name: str
    prefix: str
    part: str = ""

    def fits(self, version: str) -> bool:
        """Whether a package version is one of those."""
        plain = _EPOCH.sub("", version)
        return self.part in plain and (plain == self.prefix or plain.startswith((f"{self.prefix}-", f"{self.prefix}.")))


def wanted_packages(
    toolkit: Mapping[str, Any], libraries: Mapping[str, Any], cudnn: bool, nccl: bool, node: str
) -> list[Wanted]:
    """Return the packages of a lock entry's ``toolkit``, with cuDNN and NCCL of its ``libraries`` where asked for.

    Raises:
        InvalidInputError: a library is asked for and the lock has no version of it.
    """
    wanted = [Wanted(row["package"], row["version"]) for row in toolkit["releases"]]
    major = toolkit["cuda"].split(".")[0]
    for name, asked, part in (("cudnn", cudnn, ""), ("nccl", nccl, f"+cuda{major}.")):
        if not asked:
            continue
        version = libraries.get(name)
        if not version:
            raise InvalidInputError(
                f"choose the packages of {name}",
                node,
                "the lock has no version of it, since its framework brings none",
                f"Set cuda_toolkit_{name} to false, or stack_framework to one that uses it, and plan again",
            )
        wanted += [Wanted(package.format(major=major), version, part) for package in toolkit["libraries"][name]]
    return wanted


def resolve(
    wanted: Sequence[Wanted], candidates: Iterable[Candidate], statuses: Mapping[str, Installed], node: str
) -> list[str]:
    """Return ``name=version`` of each package: what is installed and fits stays, else the newest that fits.

    Raises:
        MissingError: no source has a version that fits; says which there are.
    """
    offered: dict[str, list[str]] = {}
    for candidate in candidates:
        offered.setdefault(candidate.name, []).append(candidate.version)
    return [_resolve(item, offered.get(item.name, []), statuses.get(item.name), node) for item in wanted]


def _resolve(item: Wanted, versions: Sequence[str], have: Installed | None, node: str) -> str:
    if have is not None and item.fits(have.version):
        return f"{item.name}={have.version}"
    fitting = sorted((version for version in versions if item.fits(version)), key=natural_key)
    if fitting:
        return f"{item.name}={fitting[-1]}"
    shown = ", ".join(sorted(set(versions), key=natural_key, reverse=True)[:5]) or "none"
    exact = item.prefix + (f" for CUDA {item.part.strip('+cuda.')}" if item.part else "")
    raise MissingError(
        f"choose the version of {item.name}",
        node,
        f"the lock says {exact} and the node's sources have {shown}",
        "Make a repository with that version reachable (stack_repository_url), or plan another version",
        expected=exact,
        found=list(versions),
    )


def compiler_version(text: str) -> tuple[str, str] | None:
    """Return line and version out of ``nvcc --version``: (``13.0``, ``13.0.88``)."""
    match = _NVCC.search(text)
    return (match[1], match[2]) if match else None


def choose_host_compiler(found: Mapping[str, int], newest: int | None, cuda: str, node: str) -> str | None:
    """Return the C++ compiler for ``nvcc -ccbin``, None where the usual ``g++`` will do.

    Args:
        found: name to major version of the compilers there are (``g++`` and ``g++-N``).
        newest: newest major version that the toolkit takes, None when nobody knows.

    Raises:
        MissingError: there is none the toolkit takes.
    """
    if "g++" in found and (newest is None or found["g++"] <= newest):
        return None
    fitting = [name for name in found if name != "g++" and (newest is None or found[name] <= newest)]
    if fitting:
        return max(fitting, key=lambda name: found[name])
    shown = ", ".join(f"{name} {version}" for name, version in sorted(found.items())) or "none"
    limit = f"g++ {newest} or older" if newest is not None else "g++"
    raise MissingError(
        f"choose the host compiler of CUDA {cuda}",
        node,
        f"it takes {limit} and the node has {shown}",
        f"Add {f'g++-{newest}' if newest is not None else 'g++'} to cuda_toolkit_extra_packages",
        expected=limit,
        found=dict(found),
    )


def is_gpu_code(head: bytes) -> bool:
    """Whether a file that begins like this is an ELF of code for NVIDIA GPUs."""
    return head[:5] == _ELF and len(head) >= 20 and int.from_bytes(head[18:20], "little") == _EM_CUDA


def architectures(capabilities: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return nvcc's names (``sm_90``) of compute capabilities; of the newest known one where there is no GPU."""
    compilable = list(known)
    asked = [capability for capability in dict.fromkeys(capabilities) if capability in compilable]
    return [f"sm_{capability.replace('.', '')}" for capability in (asked or compilable[-1:])]
