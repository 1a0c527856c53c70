#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The node half of the simulated NVML: change what the simulated GPUs say, and stand in for module load and reset.

    simnvmlctl set gpu.3.fail GPU_IS_LOST   make a GPU fail (any scenario key)
    simnvmlctl unset gpu.3.fail             back to the scenario
    simnvmlctl reset                        drop everything that was set since boot (--persistent: for good)
    simnvmlctl show [KEY]                   the values in force
    simnvmlctl gpu-reset 3                  what a GPU reset does: pending modes take effect, volatile errors go
    simnvmlctl boot                         what a boot does; the boot unit calls it
    simnvmlctl sync                         after package changes; the package hook calls it

Needs nothing but Python's standard library. SIMNVML_ROOT puts another directory in front of every path.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package lies beside, installed or not
from simnvml.errors import ProfileError  # type: ignore[import-not-found]
from simnvml.keys import check  # type: ignore[import-not-found]

ROOT = Path(os.environ.get("SIMNVML_ROOT", "/"))
CONF = ROOT / "etc/simnvml/node.conf"
MODE = ROOT / "etc/simnvml/mode"
RUN = ROOT / "run/simnvml"
VAR = ROOT / "var/lib/simnvml"
SYSROOT = RUN / "root"
LOADER = ROOT / "etc/ld.so.conf.d/00-simnvml.conf"
LIBRARY_FOLDER = "/opt/simnvml/lib"
VERSION = r"\d+\.\d+(?:\.\d+)*"
FROM_PACKAGES = {"driver_version", "lib_version", "nvml_version", "cuda_version", "generation"}
PENDING_MODES = (("ecc.pending", "ecc.current"), ("mig.pending", "mig.current"))
MODULES = (
    ("nvidia_uvm", ""),
    ("nvidia_drm", ""),
    ("nvidia_modeset", "nvidia_drm,"),
    ("nvidia", "nvidia_uvm,nvidia_modeset,"),
)


# ---- scenario and overlays ----


def parse(path: Path) -> dict[str, str]:
    """Keys and values of one file, as the library reads them."""
    values: dict[str, str] = {}
    if not path.is_file():
        return values
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.split(" #", 1)[0].strip()
        if line and not line.startswith("#") and "=" in line:
            key, value = line.split("=", 1)
            values[key.strip()] = value.strip()
    return values


def in_force() -> dict[str, str]:
    """Scenario and overlays together, the later file winning; '-' takes a key away."""
    values: dict[str, str] = {}
    for path in (CONF, VAR / "state.conf", RUN / "state.conf"):
        values.update(parse(path))
    return {key: value for key, value in values.items() if value != "-"}


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    os.replace(fresh, path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The lock that the library's setters take too."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "state.lock", "w", encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def change(folder: Path, new: dict[str, str | None]) -> None:
    """Set keys of one overlay; None drops a key, so that the scenario shows again."""
    with locked(folder):
        values = parse(folder / "state.conf")
        for key, value in new.items():
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        write_atomically(folder / "state.conf", "".join(f"{key} = {value}\n" for key, value in values.items()))


def gpu_value(values: dict[str, str], index: int, key: str) -> str | None:
    """The value of one GPU: its own, else the one of all."""
    return values.get(f"gpu.{index}.{key}", values.get(f"gpu.{key}"))


def gpu_count(values: dict[str, str]) -> int:
    """How many GPUs the node has."""
    count = values.get("count", "0")
    return int(count) if count.isdigit() else 0


def apply_pending(values: dict[str, str], indexes: list[int]) -> None:
    """ECC and MIG modes that were waiting for a reset take effect; they are kept as the InfoROM keeps them."""
    new: dict[str, str | None] = {}
    for index in indexes:
        for pending, current in PENDING_MODES:
            value = gpu_value(values, index, pending)
            if value is not None and value != gpu_value(values, index, current):
                new[f"gpu.{index}.{current}"] = value
        if gpu_value(values, index, "remap.pending") not in (None, "0", "N/A"):
            new[f"gpu.{index}.remap.pending"] = "0"
    if new:
        change(VAR, new)


# ---- packages, module, loader ----


def mode() -> str:
    """'managed': the real packages decide; 'always': the simulated driver is there from the start."""
    word = MODE.read_text(encoding="utf-8").strip() if MODE.is_file() else "always"
    if word not in ("managed", "always"):
        raise SystemExit(f"Could not read {MODE}: {word!r} is no mode. Write 'managed' or 'always' into it.")
    return word


def newest(found: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The pair with the highest version."""
    return max(found, key=lambda pair: [int(part) for part in pair[0].split(".")]) if found else None


def installed_library() -> str | None:
    """Version in the file name of the real NVML library, wherever a distribution puts it."""
    found = []
    for folder in ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia", "usr/lib/*-linux-gnu/nvidia/*", "usr/lib64"):
        for path in ROOT.glob(f"{folder}/libnvidia-ml.so.*"):
            match = re.fullmatch(rf"libnvidia-ml\.so\.({VERSION})", path.name)
            if match:
                found.append((match[1], path.name))
    best = newest(found)
    return best[0] if best else None


def installed_module() -> tuple[str, str] | None:
    """Version and flavour of the installed kernel module source."""
    found = []
    for path in ROOT.glob("usr/src/nvidia*"):
        match = re.fullmatch(rf"nvidia(?P<name>[a-z-]*)-(?P<version>{VERSION})", path.name)
        if match and path.is_dir():
            found.append((match["version"], "open" if "open" in match["name"] else "proprietary"))
    return newest(found)


def loadable(values: dict[str, str]) -> tuple[str, str] | None:
    """What a module load would bring up now; without a GPU the module does not load."""
    if gpu_count(values) == 0:
        return None
    if mode() == "always":
        version = values.get("driver_version")
        return (version, values.get("kernel_module", "proprietary")) if version else None
    module = installed_module()
    if module:
        return module
    library = installed_library()
    return (library, "proprietary") if library else None


def put_library_in_front(wanted: bool) -> None:
    """The simulated library is the first that the loader finds, or not at all."""
    if wanted == LOADER.is_file():
        return
    if wanted:
        write_atomically(LOADER, f"# simulated NVML, see docs/simulation.md\n{LIBRARY_FOLDER}\n")
    else:
        LOADER.unlink()
    if "SIMNVML_ROOT" not in os.environ:
        subprocess.run(["ldconfig"], check=True)


def write_or_remove(path: Path, text: str | None) -> None:
    """A file with this text, or no file."""
    if text is not None:
        write_atomically(path, text)
    elif path.exists():
        path.unlink()


# ---- the sysroot: what /proc and /dev would say with that module loaded ----


def version_file(version: str, flavour: str) -> str:
    """Text of /proc/driver/nvidia/version, whose first line differs between the two flavours."""
    machine = os.uname().machine
    if flavour == "open":
        first = (
            f"NVRM version: NVIDIA UNIX Open Kernel Module for {machine}  {version}  Release Build  (simnvml@simulated)"
        )
    else:
        first = f"NVRM version: NVIDIA UNIX {machine} Kernel Module  {version}"
    return f"{first}  Thu Jan  1 00:00:00 UTC 1970\nGCC version:  gcc version 12.2.0 (simulated)\n"


def modules_file(loaded: bool, nouveau: bool) -> str:
    """Text of /proc/modules: the machine's own modules without GPU drivers, and the simulated ones."""
    own = Path("/proc/modules")
    lines = own.read_text(encoding="utf-8").splitlines(keepends=True) if own.is_file() else []
    lines = [line for line in lines if not re.match(r"(nvidia|nouveau)", line)]
    if loaded:
        for name, users in MODULES:
            lines.append(f"{name} 1048576 {users.count(',')} {users or '-'} Live 0x0000000000000000 (OE)\n")
    elif nouveau:
        lines.append("nouveau 2596864 0 - Live 0x0000000000000000\n")
    return "".join(lines)


def link(path: Path, target: str) -> None:
    """A symbolic link, made once."""
    if not path.is_symlink():
        path.symlink_to(target)


def write_sysroot(values: dict[str, str], module: tuple[str, str] | None) -> None:
    """Files below SYSROOT; everything that is not simulated is a link to the real thing."""
    proc, dev = SYSROOT / "proc", SYSROOT / "dev"
    for folder in (proc / "driver/nvidia", dev):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("sys", "etc", "usr", "run", "var", "lib", "boot"):
        link(SYSROOT / name, f"/{name}")
    for name in ("cmdline", "cpuinfo", "loadavg", "meminfo", "mounts", "self", "stat", "sys", "uptime", "version", "1"):
        link(proc / name, f"/proc/{name}")
    nouveau = values.get("nouveau", "0") in ("1", "on", "yes", "true")
    write_or_remove(proc / "driver/nvidia/version", version_file(*module) if module else None)
    write_atomically(proc / "modules", modules_file(module is not None, nouveau))
    # what tells a simulated node from a real one before any driver is there
    write_atomically(proc / "simulated-gpus", "The GPUs of this node are simulated (simnvml).\n")
    nodes = {f"nvidia{index}" for index in range(gpu_count(values))} | {"nvidiactl", "nvidia-uvm"} if module else set()
    for path in dev.glob("nvidia*"):
        if path.name not in nodes:
            path.unlink()
    for name in sorted(nodes):
        (dev / name).touch()


# ---- commands ----


def boot() -> None:
    """Volatile state is gone, pending modes take effect, the installed module is loaded."""
    RUN.mkdir(parents=True, exist_ok=True)
    (RUN / "state.conf").unlink(missing_ok=True)
    values = in_force()
    apply_pending(values, list(range(gpu_count(values))))
    module = loadable(values)
    write_or_remove(RUN / "kmod_version", f"{module[0]}\n" if module else None)
    write_or_remove(RUN / "kmod_flavour", f"{module[1]}\n" if module else None)
    sync()


def sync() -> None:
    """Follow the installed packages; a loaded module stays what it is until the next boot."""
    library = installed_library()
    put_library_in_front(mode() == "always" or library is not None)
    write_or_remove(RUN / "lib_version", f"{library}\n" if library else None)
    loaded = (RUN / "kmod_version", RUN / "kmod_flavour")
    module = (loaded[0].read_text().strip(), loaded[1].read_text().strip()) if loaded[0].is_file() else None
    write_sysroot(in_force(), module)


def gpu_reset(indexes: list[int]) -> None:
    """Pending modes take effect, volatile errors and injected GPU failures go."""
    values = in_force()
    apply_pending(values, indexes)
    new: dict[str, str | None] = {}
    for index in indexes:
        for key in list(values):
            match = re.fullmatch(rf"gpu\.(?:{index}\.)?(ecc\.volatile\..*)", key)
            if match and gpu_value(values, index, match[1]) not in (None, "0", "N/A"):
                new[f"gpu.{index}.{match[1]}"] = "0"
        new.update({f"gpu.{index}.{key}": None for key in ("fail", "fail_after")})
        new.update({f"gpu.{index}.{key}": "0" for key in ("recovery_action", "reset_required", "drain_and_reset")})
    change(RUN, new)


def inject(key: str, value: str) -> None:
    """Set one key until the next boot; a key that nothing would read is a mistake."""
    check({key: value}, "simnvmlctl set")
    if key in FROM_PACKAGES and mode() == "managed":
        raise ProfileError(
            f"set {key}", "on a managed node it follows the installed packages", "Set fail.init to make NVML fail"
        )
    change(RUN, {key: value})


def reset(persistent: bool) -> None:
    """Drop the overlays."""
    for folder in [RUN, VAR] if persistent else [RUN]:
        with locked(folder):
            write_atomically(folder / "state.conf", "")


def show(key: str | None) -> int:
    """Print the values in force; 1 when the key has none."""
    values = in_force()
    if key is None:
        print("".join(f"{name} = {value}\n" for name, value in values.items()), end="")
        return 0
    if key not in values:
        print(f"Could not show {key}: it has no value. Set it with simnvmlctl set.", file=sys.stderr)
        return 1
    print(values[key])
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    top = argparse.ArgumentParser(prog="simnvmlctl", description="Simulated GPUs of this node.")
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("set", help="set a key until the next boot")
    one.add_argument("key")
    one.add_argument("value")
    one = commands.add_parser("unset", help="drop a key that was set")
    one.add_argument("key")
    one = commands.add_parser("reset", help="drop all that was set")
    one.add_argument("--persistent", action="store_true", help="also what survives a boot")
    one = commands.add_parser("show", help="print the values in force")
    one.add_argument("key", nargs="?")
    one = commands.add_parser("gpu-reset", help="reset GPUs")
    one.add_argument("index", nargs="*", type=int, help="all without an index")
    commands.add_parser("boot", help="what a boot does")
    commands.add_parser("sync", help="follow the installed packages")
    return top


def main() -> int:
    """Run one command."""
    options = parser().parse_args()
    if options.command == "show":
        return show(options.key)
    if options.command == "set":
        inject(options.key, options.value)
    elif options.command == "unset":
        for folder in (RUN, VAR):
            change(folder, {options.key: None})
    elif options.command == "reset":
        reset(options.persistent)
    elif options.command == "gpu-reset":
        gpu_reset(options.index or list(range(gpu_count(in_force()))))
    elif options.command == "boot":
        boot()
    else:
        sync()
    if options.command in ("set", "unset", "reset"):
        sync()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProfileError as error:
        sys.exit(str(error))
    except PermissionError as error:
        sys.exit(f"Could not change the simulated GPUs: {error.filename} is not writable. Run simnvmlctl as root.")
