# SPDX-License-Identifier: Apache-2.0
"""Whether a CUDA toolkit really compiles: version, host compiler, GPU code for every GPU, and a program that runs."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from .cuda_toolkit import architectures, choose_host_compiler, compiler_version, is_gpu_code
from .errors import MissingError, ProbeError

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]
LINK = "/usr/local/cuda"
_ALTERNATIVES = ("update-alternatives", "alternatives")
ANSWER = 42
SOURCE = """\
#include <cstdio>
__global__ void answer(int *out) { *out = 42; }
int main() {
  int *device = nullptr, host = 0;
  cudaError_t error = cudaMalloc(&device, sizeof(int));
  if (!error) answer<<<1, 1>>>(device);
  if (!error) error = cudaMemcpy(&host, device, sizeof(int), cudaMemcpyDeviceToHost);
  if (error) { printf("%s\\n", cudaGetErrorString(error)); return 2; }
  printf("%d\\n", host);
  return 0;
}
"""


def package_home(line: str) -> Path:
    """Where NVIDIA's packages put a toolkit line."""
    return Path(f"/usr/local/cuda-{line}")


def wheel_home(env: Path, line: str) -> Path:
    """Where the wheels put a toolkit line inside a Python environment."""
    major = line.split(".")[0]
    found = sorted(env.glob(f"lib/python3*/site-packages/nvidia/cu{major}"))
    return found[-1] if found else env / "lib" / "nvidia" / f"cu{major}"


def host_compilers(run: Run) -> dict[str, int]:
    """Return the C++ compilers on the search path with their major version."""
    found = {}
    for folder in os.environ.get("PATH", "/usr/bin:/bin").split(":"):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        for name in sorted(names):
            if re.fullmatch(r"g\+\+(-\d+)?", name) and name not in found:
                code, out, _err = run([os.path.join(folder, name), "-dumpversion"])
                if code == 0 and out.strip().split(".")[0].isdigit():
                    found[name] = int(out.strip().split(".")[0])
    return found


def prove(
    run: Run, home: Path, row: Mapping[str, Any], capabilities: Sequence[str], launch: bool, compiler: str, node: str
) -> dict[str, Any]:
    """Return what one toolkit showed.

    Args:
        home: its directory.
        row: its release in the lock.
        capabilities: compute capabilities of the node's GPUs.
        launch: whether a GPU can run the program too.
        compiler: host compiler to use, empty to choose one.

    Raises:
        MissingError: no compiler.
        ProbeError: it is another toolkit than it should be, or does not compile, or its program gives a wrong answer.
    """
    nvcc = home / "bin" / "nvcc"
    if not os.access(nvcc, os.X_OK):
        raise MissingError("find the CUDA compiler", node, f"{nvcc} is not there", "Install the toolkit again")
    code, out, err = run([str(nvcc), "--version"])
    version = compiler_version(out)
    if code != 0 or version is None or version[0] != row["cuda"]:
        said = version[1] if version else (err or out).strip()[-200:] or f"exit code {code}"
        step = "Remove what else claims this directory, then run again"
        raise ProbeError(f"use CUDA toolkit {row['cuda']}", node, f"{nvcc} says it is {said}", step, found=said)
    host = compiler or choose_host_compiler(host_compilers(run), row.get("host_gcc_max"), row["cuda"], node)
    targets = architectures(capabilities, row["compute_capabilities"])
    with tempfile.TemporaryDirectory(prefix="rackwright-cuda-") as folder:
        source = Path(folder) / "answer.cu"
        source.write_text(SOURCE, encoding="utf-8")
        base = [str(nvcc), *(["-ccbin", host] if host else [])]
        for target in targets:
            cubin = Path(folder) / f"{target}.cubin"
            _compile(run, [*base, "-cubin", f"-arch={target}", "-o", str(cubin), str(source)], row, target, node)
            if not is_gpu_code(cubin.read_bytes()[:64]):
                step = "Install the toolkit again"
                raise ProbeError("compile a kernel", node, f"{nvcc} left no GPU code for {target}", step)
        ran = _launch(run, base, home, source, row, targets, node) if launch else None
    return {
        "version": version[1],
        "home": str(home),
        "host_compiler": host or "g++",
        "compiled_for": targets,
        "ran": ran,
    }


def _compile(run: Run, command: Sequence[str], row: Mapping[str, Any], target: str, node: str) -> None:
    code, out, err = run(command)
    if code != 0:
        lines = [line for line in (err or out).splitlines() if "error" in line.lower() or "fatal" in line.lower()]
        cause = (lines or (err or out).strip().splitlines() or [f"nvcc ended with {code}"])[0].strip()
        step = "Correct what the compiler names (host compiler, headers), or set cuda_toolkit_host_compiler"
        raise ProbeError(f"compile a kernel for {target} with CUDA {row['cuda']}", node, cause, step)


def _launch(
    run: Run, base: Sequence[str], home: Path, source: Path, row: Mapping[str, Any], targets: Sequence[str], node: str
) -> bool:
    program = source.with_suffix("")
    codes = [f"-gencode=arch=compute_{target[3:]},code={target}" for target in targets]
    # the wheels keep the libraries in lib, the packages in lib64
    folders = [f"-L{home / name}" for name in ("lib64", "lib") if (home / name).is_dir()]
    _compile(run, [*base, *codes, *folders, "-o", str(program), str(source)], row, ", ".join(targets), node)
    code, out, _err = run([str(program)])
    if code != 0 or out.strip() != str(ANSWER):
        step = "Look at what playbooks/diagnose-nodes.yml says of the driver"
        cause = f"the program compiled by CUDA {row['cuda']} said {out.strip() or code} instead of {ANSWER}"
        raise ProbeError("run a kernel", node, cause, step, expected=ANSWER, found=out.strip())
    return True


def linked() -> str | None:
    """Return the directory that ``/usr/local/cuda`` names in the end, None when there is nothing."""
    return os.path.realpath(LINK) if os.path.lexists(LINK) else None


def link_to(run: Run, home: Path, node: str) -> None:
    """Make ``/usr/local/cuda`` name a toolkit: by the alternatives that the packages registered, else by a link.

    Raises:
        ProbeError: something else than a link has that name, or the alternatives refuse.
    """
    if os.path.lexists(LINK) and not os.path.islink(LINK):
        step = "Move it away, or set cuda_toolkit_link to false"
        raise ProbeError("choose the CUDA toolkit", node, f"{LINK} is a directory and not a link", step)
    tool = next((path for path in map(shutil.which, _ALTERNATIVES) if path), None)
    if tool and os.path.lexists("/etc/alternatives/cuda"):
        # no module registers and sets alternatives without a collection of its own
        code, out, err = run([tool, "--set", "cuda", str(home)])
        if code != 0:
            step = f"Look at `{os.path.basename(tool)} --display cuda`"
            raise ProbeError("choose the CUDA toolkit", node, (err or out).strip()[-200:], step)
    if linked() != os.path.realpath(home):
        temporary = f"{LINK}.rackwright"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(home, temporary)
        os.replace(temporary, LINK)
