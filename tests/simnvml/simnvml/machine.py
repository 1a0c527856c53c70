# SPDX-License-Identifier: Apache-2.0
"""The node half of the simulated NVML: scenario and overlays, what is installed and loaded, what a boot does.

Everything is found through SIMNVML_ROOT, which puts another directory in front of every path.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import installed, loading, plants, sysroot
from .secure import Firmware

ROOT = Path(os.environ.get("SIMNVML_ROOT", "/"))
CONF = ROOT / "etc/simnvml/node.conf"
MODE = ROOT / "etc/simnvml/mode"
RUN = ROOT / "run/simnvml"
VAR = ROOT / "var/lib/simnvml"
SYSROOT = RUN / "root"
LOADER = ROOT / "etc/ld.so.conf.d/00-simnvml.conf"
LIBRARY_FOLDER = "/opt/simnvml/lib"
PLANTS = VAR / "plants.conf"
NO_SSH = RUN / "no-ssh"
PENDING_MODES = (("ecc.pending", "ecc.current"), ("mig.pending", "mig.current"))

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


def loadable(values: dict[str, str]) -> installed.Module | None:
    """What a module load would bring up now; without a GPU the module does not load."""
    if gpu_count(values) == 0:
        return None
    if mode() == "always":
        version = values.get("driver_version")
        return installed.Module(version, values.get("kernel_module", "proprietary")) if version else None
    return installed.module(ROOT, values.get("kernel_module", "proprietary"))


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


def loaded_modules() -> list[str]:
    """Names of the simulated modules that are loaded."""
    names = RUN / "modules"
    return names.read_text(encoding="utf-8").split() if names.is_file() else []


def put_loaded(module: installed.Module | None, names: list[str]) -> None:
    """Remember what is loaded; without the module nvidia there is no driver."""
    there = module is not None and "nvidia" in names
    write_or_remove(RUN / "modules", f"{' '.join(names)}\n" if there else None)
    write_or_remove(RUN / "kmod_version", f"{module.version}\n" if module and there else None)
    write_or_remove(RUN / "kmod_flavour", f"{module.flavour}\n" if module and there else None)


def write_sysroot(values: dict[str, str], module: tuple[str, str] | None) -> None:
    """Files below SYSROOT; everything that is not simulated is a link to the real thing."""
    proc, dev = SYSROOT / "proc", SYSROOT / "dev"
    for folder in (proc / "driver/nvidia", dev):
        folder.mkdir(parents=True, exist_ok=True)
    firmware = Firmware(ROOT, VAR)
    sysroot.links(SYSROOT, firmware.state is not None)
    firmware.write_variable(SYSROOT)
    names = loaded_modules() if module else []
    nouveau = values.get("nouveau", "0") in ("1", "on", "yes", "true")
    write_or_remove(proc / "driver/nvidia/version", sysroot.version_file(*module) if module else None)
    write_atomically(proc / "modules", sysroot.modules_file(names, nouveau))
    # what tells a simulated node from a real one before any driver is there
    write_atomically(proc / "simulated-gpus", "The GPUs of this node are simulated (simnvml).\n")
    wanted = {f"nvidia{index}" for index in range(gpu_count(values))} | {"nvidiactl"} if module else set()
    sysroot.devices(dev, wanted | ({"nvidia-uvm"} if "nvidia_uvm" in names else set()))


# ---- boot, packages, modules ----


def boot() -> None:
    """Volatile state is gone, pending modes take effect, the installed module is loaded, plants come up."""
    RUN.mkdir(parents=True, exist_ok=True)
    (RUN / "state.conf").unlink(missing_ok=True)
    values = in_force()
    apply_pending(values, list(range(gpu_count(values))))
    module = loadable(values)
    if module and Firmware(ROOT, VAR).refusal(module.path):
        module = None
    put_loaded(module, loading.with_needs(["nvidia_drm", "nvidia_uvm"]) if module else [])
    spring(module.version if module else None)
    sync()


def spring(driver: str | None) -> None:
    """The plants of this boot."""
    now, later = plants.due(plants.read(PLANTS), driver)
    if now:
        change(RUN, dict(now))
        write_atomically(PLANTS, plants.text(later))
    write_or_remove(NO_SSH, "planted: sshd does not start\n" if in_force().get("sshd") == "never" else None)


def sync() -> None:
    """Follow the installed packages; a loaded module stays what it is until the next boot."""
    library = installed.library(ROOT)
    put_library_in_front(mode() == "always" or library is not None)
    write_or_remove(RUN / "lib_version", f"{library}\n" if library else None)
    loaded = (RUN / "kmod_version", RUN / "kmod_flavour")
    module = (loaded[0].read_text().strip(), loaded[1].read_text().strip()) if loaded[0].is_file() else None
    write_sysroot(in_force(), module)


def kmod(program: str, words: list[str]) -> int:
    """What modprobe and rmmod do with the simulated modules, in their words."""
    removal = program == "rmmod" or "-r" in words or "--remove" in words
    many = removal or "-a" in words or "--all" in words
    names = [word for word in words if not word.startswith("-") and "=" not in word]
    names = [loading.canonical(name) for name in (names if many else names[:1])]
    failed = unload(program, names) if removal else load(names)
    if failed:
        print(f"{program}: {failed} [{loading.LABEL}]", file=sys.stderr)
    return 1 if failed else 0


def unload(program: str, names: list[str]) -> str | None:
    """Unload modules; the reason when that fails."""
    before = loaded_modules()
    if program == "modprobe":
        names = [name for name in names if name in before]
    busy = loading.holders(SYSROOT / "dev")
    left, failed = loading.unload(names, before, busy)
    if program == "modprobe" and not failed and not busy:
        # modprobe -r takes along what nothing needs any more
        for name in ("nvidia_modeset", "nvidia"):
            if name in left and names and not loading.users(name, left):
                left.remove(name)
    current = (RUN / "kmod_version", RUN / "kmod_flavour")
    if current[0].is_file():
        put_loaded(installed.Module(current[0].read_text().strip(), current[1].read_text().strip()), left)
    sync()
    word = "ERROR" if program == "rmmod" else "FATAL"
    return f"{word}: {failed}." if failed else None


def load(names: list[str]) -> str | None:
    """Load modules in the version that is installed now; the reason when that fails."""
    before, values = loaded_modules(), in_force()
    wanted = before + [name for name in loading.with_needs(names) if name not in before]
    if "nvidia" not in before:
        module = loadable(values)
        if gpu_count(values) == 0:
            return f"ERROR: could not insert '{names[0]}': No such device"
        if module is None:
            return (
                f"FATAL: Module {names[0]} not found in directory /lib/modules/{installed.boot_kernel(ROOT) or 'none'}"
            )
        refused = Firmware(ROOT, VAR).refusal(module.path)
        if refused:
            return f"ERROR: could not insert '{names[0]}': {refused}"
        apply_pending(values, list(range(gpu_count(values))))
    else:
        module = installed.Module(
            (RUN / "kmod_version").read_text().strip(), (RUN / "kmod_flavour").read_text().strip()
        )
    put_loaded(module, wanted)
    sync()
    return None
