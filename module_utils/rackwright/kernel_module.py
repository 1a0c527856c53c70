# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA kernel module of each installed kernel as it lies on the disk, and what DKMS says about it.

Read from files only: a module's version stands in its ELF section ``.modinfo``. The one program that is ever run is
modinfo, for modules compressed with zstd, which Python cannot read.
"""

from __future__ import annotations

import filecmp
import lzma
import os
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .host import natural_key

#: `nvidia.ko`, and Debian's names for the same module; nvidia-uvm.ko and its other companions are not meant
_FILE = re.compile(
    rb"^((?:\S*/)?nvidia(?:-open|-current(?:-open)?|-tesla[\w.-]*|-legacy[\w.-]*)?\.ko(?:\.(?:xz|gz|zst))?)$",
    re.MULTILINE,
)
_LISTED = re.compile(_FILE.pattern[:-1] + rb":", re.MULTILINE)
_FOLDERS = ("updates", "extra", "weak-updates", "kernel")
_NOT_THE_DRIVER = ("nvidia-fs", "nvidia-peermem", "nvidia-vgpu", "nvidia-gds")
_MODINFO = ("/usr/sbin/modinfo", "/sbin/modinfo", "/usr/bin/modinfo")
_TIMEOUT_S = 5
#: A module unpacked is some 100 MB at most; what is larger is no module.
_MOST_BYTES = 1 << 30
_CHUNK = 1 << 20
_TAIL = 1 << 16
_ELF = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
# entries of .modinfo are texts that end with a zero byte; the format keeps other texts with an equals sign out
_VERSION_ENTRY = re.compile(rb"\0version=(\d{3}\.\d+(?:\.\d+)?)\0")
_LICENCE_ENTRY = re.compile(rb"\0license=([ -~]{1,40})\0")

Fields = dict[str, str]


def find_module(folder: Path) -> str | None:
    """Return the path of the NVIDIA module below ``/lib/modules/<kernel>`` that modprobe would load, None without one.

    depmod's list names it; a module that is not listed yet is looked for where DKMS and packages put theirs.
    """
    try:
        listed = (folder / "modules.dep").read_bytes()
    except OSError:
        listed = b""
    for match in _LISTED.finditer(listed):
        name = os.fsdecode(match[1])
        if (folder / name).is_file():
            return name
    for place in _FOLDERS:
        names = sorted(_nvidia_files(folder, place))
        if names:
            return names[0]
    return None


def _nvidia_files(folder: Path, place: str) -> Iterator[str]:
    # of the kernel's own tree, only where installers of NVIDIA put theirs: the rest is thousands of files
    tops = [folder / place]
    if place == "kernel":
        tops = [*sorted((folder / place).glob("nvidia*")), folder / place / "drivers/video"]
    for top in tops:
        for parent, folders, files in os.walk(top):
            if place == "kernel":
                folders.clear()
            for name in files:
                if _FILE.match(os.fsencode(name)):
                    yield os.path.relpath(os.path.join(parent, name), folder)


def read_modinfo(path: Path) -> tuple[Fields | None, str | None]:
    """Return ``version`` and ``license`` of a module file, as far as it has them; or None and why it was not read."""
    try:
        if path.suffix == ".zst":
            return _ask_modinfo(path)
        with open(path, "rb") as stream:
            if path.suffix == ".xz":
                return _search(_unpacked(stream, lzma.LZMADecompressor()))
            if path.suffix == ".gz":
                return _search(_unpacked(stream, zlib.decompressobj(wbits=31)))
            return _section(stream)
    except (OSError, lzma.LZMAError, zlib.error, EOFError, struct.error, ValueError, OverflowError) as error:
        return None, f"{path.name} cannot be read as a kernel module ({getattr(error, 'strerror', None) or error})"


def _section(stream: BinaryIO) -> tuple[Fields | None, str | None]:
    head = _ELF.unpack(stream.read(_ELF.size))
    offset, size, count, names_at = head[8], head[13], head[14], head[15]
    if head[0] != b"\x7fELF" or head[1:3] != (2, 1) or size != _SECTION.size or names_at >= count:
        raise ValueError("it is no 64-bit ELF file")
    stream.seek(offset)
    sections = list(_SECTION.iter_unpack(stream.read(size * count)))
    if len(sections) < count:
        raise ValueError("it ends too early")
    names = _content(stream, sections[names_at])
    for section in sections:
        if names[section[0] :].startswith(b".modinfo\0"):
            return _fields(_content(stream, section)), None
    return None, "the file has no section .modinfo"


def _content(stream: BinaryIO, section: tuple[int, ...]) -> bytes:
    if section[5] > _MOST_BYTES:
        raise ValueError("a section of it is larger than a module can be")
    stream.seek(section[4])
    return stream.read(section[5])


def _fields(content: bytes) -> Fields:
    found: Fields = {}
    for entry in content.split(b"\0"):
        key, _equals, value = entry.decode("utf-8", "replace").partition("=")
        if key in ("version", "license"):
            found.setdefault(key, value)
    return found


def _unpacked(stream: BinaryIO, unpacker: Any) -> Iterator[bytes]:
    total = 0
    while packed := stream.read(_CHUNK >> 2):
        content = unpacker.decompress(packed)
        total += len(content)
        if total > _MOST_BYTES:
            raise ValueError("unpacked it is larger than a module can be")
        yield content
        if unpacker.eof:
            return


def _search(chunks: Iterator[bytes]) -> tuple[Fields | None, str | None]:
    """Look for the entries while unpacking: most of a large module never has to be unpacked."""
    seen = b""
    for chunk in chunks:
        seen = seen[-_TAIL:] + chunk
        version = _VERSION_ENTRY.search(seen)
        if version is None:
            continue
        start = version.start()
        around = seen[max(0, start - _TAIL) :] + next(chunks, b"")[:_TAIL]
        licence = _LICENCE_ENTRY.search(around)
        fields = {"version": version[1].decode()}
        return ({**fields, "license": licence[1].decode()} if licence else fields), None
    return None, "the file names no version of a driver"


def _ask_modinfo(path: Path) -> tuple[Fields | None, str | None]:
    program = next((place for place in _MODINFO if os.access(place, os.X_OK)), None)
    if program is None:
        return None, f"{path.name} is compressed with zstd, which only modinfo reads, and modinfo is not installed"
    try:
        done = subprocess.run(
            [program, str(path)], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"modinfo did not answer ({type(error).__name__})"
    if done.returncode:
        return None, f"modinfo cannot read {path.name} ({' '.join(done.stderr.split())})"
    return dict(re.findall(r"^(version|license):\s+(.+?)\s*$", done.stdout, re.MULTILINE)), None


def read_dkms(root: Path) -> list[dict[str, Any]] | None:
    """Return what DKMS has of the NVIDIA driver, from its tree: ``module``, ``version``, ``kernel``, ``state``.

    Only added is a version without a kernel (None). An installed module is one that DKMS links as such, a built one has
    its result in the tree. None where the tree cannot be read; no tree is an empty one.
    """
    base = root / "var/lib/dkms"
    try:
        modules = sorted(path for path in base.iterdir() if _is_driver(path.name) and path.is_dir())
        return [row for module in modules for row in _dkms_rows(module)]
    except FileNotFoundError:
        return []
    except OSError:
        return None


def _is_driver(name: str) -> bool:
    return name.startswith("nvidia") and not name.startswith(_NOT_THE_DRIVER)


def _dkms_rows(module: Path) -> Iterator[dict[str, Any]]:
    links = {}
    for link in module.glob("kernel-*"):
        if link.is_symlink():
            version, _slash, rest = os.readlink(link).strip("/").partition("/")
            links[rest] = version
    versions = [path for path in module.iterdir() if path.is_dir() and not path.is_symlink()]
    for folder in sorted(versions, key=lambda path: natural_key(path.name)):
        yield {"module": module.name, "version": folder.name, "kernel": None, "state": "added", "result": None}
        for result in sorted(folder.glob("*/*/module")):
            kernel, architecture = result.parent.parent.name, result.parent.name
            state = "installed" if links.get(f"{kernel}/{architecture}") == folder.name else "built"
            row = {"module": module.name, "version": folder.name, "kernel": kernel, "state": state}
            yield {**row, "result": str(result)}


def dkms_of(rows: list[dict[str, Any]], kernel: str) -> dict[str, Any] | None:
    """Return the row that counts for a kernel: installed before built before added, and of those the newest."""
    fitting = [row for row in rows if row["kernel"] in (kernel, None)]
    order = {"installed": 2, "built": 1, "added": 0}
    return max(fitting, key=lambda row: (order[row["state"]], natural_key(row["version"])), default=None)


def read_kernel(folder: Path, row: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the module of one kernel and why values are missing.

    Args:
        folder: ``/lib/modules/<kernel>``.
        row: what DKMS has for this kernel, None for nothing.

    Returns:
        ``version``, ``flavour`` (``open`` or ``proprietary``), ``origin`` (``dkms``, ``package``, ``other``, or
        ``none`` without a module), ``path``, and of DKMS ``dkms`` (``installed``, ``built``, ``added``, ``none``) with
        ``dkms_version``.
    """
    name = find_module(folder)
    record: dict[str, Any] = {
        "version": None,
        "flavour": None,
        "origin": "none",
        "path": None,
        "dkms": row["state"] if row else "none",
        "dkms_version": row["version"] if row else None,
    }
    missing = {} if row else {"dkms_version": "DKMS has no NVIDIA module for this kernel"}
    if name is None:
        nothing = "there is no NVIDIA module for this kernel"
        return record, {**missing, **dict.fromkeys(("version", "flavour", "path"), nothing)}
    record["path"] = name
    record["origin"] = _origin(name, row)
    fields, reason = _of_dkms(folder / name, row) or read_modinfo(folder / name)
    record["version"] = (fields or {}).get("version")
    licence = (fields or {}).get("license")
    if licence:
        record["flavour"] = "proprietary" if licence == "NVIDIA" else "open"
    for key in ("version", "flavour"):
        if record[key] is None:
            missing[key] = reason or "the module does not name it"
    return record, missing


def _origin(name: str, row: dict[str, Any] | None) -> str:
    place = name.split("/")
    if row and row["state"] == "installed" and place[0] in ("updates", "extra"):
        return "dkms"
    if place[0] in ("extra", "weak-updates") or (place[0] == "kernel" and place[1].startswith("nvidia")):
        return "package"
    return "dkms" if place[:2] == ["updates", "dkms"] else "other"


def _of_dkms(path: Path, row: dict[str, Any] | None) -> tuple[Fields, str | None] | None:
    """Return the version of a compressed module that is, to the byte, what DKMS built: unpacking it takes a second."""
    if not row or not row["result"] or path.suffix not in (".xz", ".gz", ".zst"):
        return None
    for built in Path(row["result"]).glob(f"nvidia*.ko{path.suffix}"):
        try:
            if filecmp.cmp(built, path, shallow=False):
                return {"version": row["version"]}, "it was not unpacked: it is the very file that DKMS built"
        except OSError:
            continue
    return None
