# SPDX-License-Identifier: Apache-2.0
"""Python environments with packages that answer like torch or tensorflow, so that no test downloads gigabytes."""

from __future__ import annotations

import sys
from pathlib import Path

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: the environments' interpreter: the real one, so that what is asked really runs
PYTHON = getattr(sys, "_base_executable", sys.executable)


def fake_environment(path: Path, minor: str = MINOR) -> Path:
    """Make a directory that looks like a virtual environment and return its site-packages."""
    site = path / f"lib/python{minor}/site-packages"
    site.mkdir(parents=True)
    (path / "bin").mkdir()
    (path / "bin/python").symlink_to(PYTHON)
    (path / "pyvenv.cfg").write_text(f"home = {Path(PYTHON).parent}\n", encoding="utf-8")
    return site


def fake_dist(site: Path, name: str, version: str, tag: str = "cp311-cp311-manylinux_2_28_x86_64") -> None:
    """Write the metadata of an installed distribution."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n", encoding="utf-8")


def fake_torch(
    site: Path,
    version: str,
    cuda: str | None,
    flags: str | None,
    *,
    at_import: str = "",
    tag: str = "cp311-cp311-manylinux_2_28_x86_64",
) -> None:
    """Write a torch whose files and answers have the form of the real one; ``at_import`` is run when it is imported.

    As in the real one, ``_cuda_getArchFlags`` exists in CUDA builds only.
    """
    package = site / "torch"
    package.mkdir(parents=True)
    fake_dist(site, "torch", version, tag)
    (package / "version.py").write_text(
        "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
        f"__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\ngit_version = 'abc'\n"
        "hip: Optional[str] = None\n",
        encoding="utf-8",
    )
    code = "" if cuda is None else f"def _cuda_getArchFlags():\n    return {flags!r}\n"
    (package / "_C.py").write_text(code, encoding="utf-8")
    (package / "__init__.py").write_text(
        f"{at_import}\nfrom . import _C, version\n\n__version__ = version.__version__\n", encoding="utf-8"
    )


def fake_tensorflow(site: Path, version: str, *, cuda: bool = True, name: str = "tensorflow") -> None:
    """Write a tensorflow with the generated file that holds its build information."""
    platform = site / "tensorflow/python/platform"
    platform.mkdir(parents=True)
    fake_dist(site, name, version)
    info: list[tuple[str, object]] = [("is_cuda_build", cuda), ("is_rocm_build", False)]
    if cuda:
        archs = ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"]
        info += [("cuda_compute_capabilities", archs), ("cuda_version", "12.5.1"), ("cudnn_version", "9")]
    text = '"""Auto-generated module providing information about the build."""\nimport collections\n\n'
    text += f"build_info = collections.OrderedDict({sorted(info)!r})\n"
    (platform / "build_info.py").write_text(text, encoding="utf-8")


if __name__ == "__main__":  # on a test node: PATH VERSION CUDA FLAGS
    fake_torch(fake_environment(Path(sys.argv[1])), sys.argv[2], sys.argv[3], sys.argv[4])
