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
    simnvmlctl set --at-boot KEY VALUE      at the next boot only (--every-boot: at each; --driver V: with V only)
    simnvmlctl busy 0 --name train          a real process that holds GPU 0 until it is killed
    simnvmlctl secure-boot on               firmware with Secure Boot; mok-console answers a request for a key
    simnvmlctl modprobe | rmmod NAME...     load and unload without a boot

Needs nothing but Python's standard library. SIMNVML_ROOT puts another directory in front of every path.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package lies beside, installed or not
from simnvml import machine, plants, sysroot  # type: ignore[attr-defined]
from simnvml.errors import ProfileError  # type: ignore[import-not-found]
from simnvml.keys import check  # type: ignore[import-not-found]
from simnvml.machine import (  # type: ignore[import-not-found]
    PLANTS,
    ROOT,
    RUN,
    SYSROOT,
    VAR,
    apply_pending,
    change,
    gpu_count,
    gpu_value,
    in_force,
    mode,
    write_atomically,
    write_or_remove,
)
from simnvml.secure import Firmware  # type: ignore[import-not-found]

FROM_PACKAGES = {"driver_version", "lib_version", "nvml_version", "cuda_version", "generation"}


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


def inject(key: str, value: str, when: str | None = None, driver: str = "*") -> None:
    """Set one key until the next boot, or from a boot on; a key that nothing would read is a mistake."""
    if not plants.is_node_key(key):
        check({key: value}, "simnvmlctl set")
    elif not plants.node_value_fits(key, value):
        raise ProfileError(
            f"use {key} = {value} in simnvmlctl set", "the value has another form", "See docs/simulation.md"
        )
    if key in FROM_PACKAGES and mode() == "managed":
        raise ProfileError(
            f"set {key}", "on a managed node it follows the installed packages", "Set fail.init to make NVML fail"
        )
    if when is None:
        change(RUN, {key: value})
        return
    rest = [plant for plant in plants.read(PLANTS) if plant[:3] != [when, driver, key]]
    write_atomically(PLANTS, plants.text([*rest, [when, driver, key, value]]))


def withdraw(key: str) -> None:
    """Drop a key and the plants that would set it again."""
    for folder in (RUN, VAR):
        change(folder, {key: None})
    kept = [plant for plant in plants.read(PLANTS) if plant[2] != key]
    write_or_remove(PLANTS, plants.text(kept) if kept else None)


def busy(index: int, name: str, size: int) -> int:
    """Start a process that holds a GPU: its device file open, listed by NVML, until somebody ends it."""
    if not (SYSROOT / f"dev/nvidia{index}").exists():
        print(f"Could not hold GPU {index}: the driver is not loaded. Boot the node first.", file=sys.stderr)
        return 1
    program = RUN / "busy" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    sysroot.link(program, shutil.which("sleep") or "/bin/sleep")
    with open(SYSROOT / f"dev/nvidia{index}", "rb") as gpu, open(SYSROOT / "dev/nvidiactl", "rb") as control:
        handles = [gpu.fileno(), control.fileno()]
        quiet = subprocess.DEVNULL
        child = subprocess.Popen(
            [str(program), "infinity"],
            pass_fds=handles,
            start_new_session=True,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
        )
    # the kernel closes what tells the parent of the exec before it gives the process its new name
    end = time.monotonic() + 5
    while Path(f"/proc/{child.pid}/comm").read_text().strip() != name[:15] and time.monotonic() < end:
        time.sleep(0.01)
    values = in_force()
    slot = next(number for number in range(64) if f"gpu.{index}.proc.{number}" not in values)
    change(RUN, {f"gpu.{index}.proc.{slot}": f"{child.pid} C {size}"})
    print(child.pid, flush=True)
    if os.fork() == 0:  # stays until the process ends, then takes it out of NVML's list
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        while Path(f"/proc/{child.pid}").is_dir() and child_runs(child.pid):
            time.sleep(0.2)
        change(RUN, {f"gpu.{index}.proc.{slot}": None})
        os._exit(0)
    return 0


def child_runs(pid: int) -> bool:
    """Whether a process is more than an entry that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def secure_boot(state: str) -> None:
    """Give the node a firmware with Secure Boot on or off, or take it away."""
    firmware = Firmware(ROOT, VAR)
    firmware.state = None if state == "absent" else state
    firmware.save()
    # the real mokutil would look for the machine's own firmware
    stand_in = ROOT / "usr/local/bin/mokutil"
    stand_in.unlink(missing_ok=True)
    if firmware.state is not None:
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.symlink_to("/opt/simnvml/stand-ins/mokutil")
    if firmware.state is None and (SYSROOT / "sys").is_dir() and not (SYSROOT / "sys").is_symlink():
        shutil.rmtree(SYSROOT / "sys")


def reset(persistent: bool) -> None:
    """Drop the overlays."""
    for folder in [RUN, VAR] if persistent else [RUN]:
        with machine.locked(folder):
            write_atomically(folder / "state.conf", "")


def show(key: str | None) -> int:
    """Print the values in force; 1 when the key has none."""
    values = in_force()
    if key in plants.NODE_KEYS:
        print(values.get(key, plants.NODE_KEYS[key][1]))
        return 0
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
    one.add_argument(
        "--at-boot", action="store_const", const="once", dest="when", help="at the next boot, for that boot"
    )
    one.add_argument("--every-boot", action="store_const", const="every", dest="when", help="at every boot from now on")
    one.add_argument("--driver", default="*", help="only at a boot that loads this driver version")
    one = commands.add_parser("unset", help="drop a key that was set")
    one.add_argument("key")
    one = commands.add_parser("reset", help="drop all that was set")
    one.add_argument("--persistent", action="store_true", help="also what survives a boot")
    one = commands.add_parser("show", help="print the values in force")
    one.add_argument("key", nargs="?")
    one = commands.add_parser("gpu-reset", help="reset GPUs")
    one.add_argument("index", nargs="*", type=int, help="all without an index")
    one = commands.add_parser("busy", help="start a process that holds a GPU; prints its pid")
    one.add_argument("index", type=int)
    one.add_argument("--name", default="train")
    one.add_argument("--bytes", type=int, default=8 << 30)
    one = commands.add_parser("secure-boot", help="the firmware's Secure Boot")
    one.add_argument("state", choices=("on", "off", "absent"))
    one = commands.add_parser("mok-console", help="what a person at the console does with a request for a key")
    one.add_argument("answer", choices=("enrol", "ignore"))
    one = commands.add_parser("mokutil", help="the stand-in of mokutil")
    one.add_argument("words", nargs=argparse.REMAINDER)
    one = commands.add_parser("kmod", help="the stand-ins of modprobe and rmmod")
    one.add_argument("words", nargs=argparse.REMAINDER)
    for name in ("modprobe", "rmmod"):
        one = commands.add_parser(name, help="load or unload simulated modules")
        one.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("boot", help="what a boot does")
    commands.add_parser("sync", help="follow the installed packages")
    return top


def main() -> int:
    """Run one command."""
    options = parser().parse_args()
    command = options.command
    if command == "show":
        return show(options.key)
    if command == "busy":
        return busy(options.index, options.name, options.bytes)
    if command in ("modprobe", "rmmod"):
        return int(machine.kmod(command, options.words))
    if command == "kmod":
        return int(machine.kmod(options.words[0], options.words[1:]))
    if command == "mokutil":
        return mokutil(options.words)
    act(options)
    if command in ("set", "unset", "reset", "secure-boot"):
        machine.sync()
    return 0


def act(options: argparse.Namespace) -> None:
    """The commands that have no exit status of their own."""
    if options.command == "set":
        inject(options.key, options.value, options.when, options.driver)
    elif options.command == "unset":
        withdraw(options.key)
    elif options.command == "reset":
        reset(options.persistent)
    elif options.command == "gpu-reset":
        gpu_reset(options.index or list(range(gpu_count(in_force()))))
    elif options.command == "secure-boot":
        secure_boot(options.state)
    elif options.command == "mok-console":
        Firmware(ROOT, VAR).console(options.answer)
    elif options.command == "boot":
        machine.boot()
    else:
        machine.sync()


def mokutil(words: list[str]) -> int:
    """The stand-in of mokutil."""
    code, said = Firmware(ROOT, VAR).mokutil([word for word in words if word != "--"])
    if said:
        print(said)
    return int(code)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProfileError as error:
        sys.exit(str(error))
    except PermissionError as error:
        sys.exit(f"Could not change the simulated GPUs: {error.filename} is not writable. Run simnvmlctl as root.")
