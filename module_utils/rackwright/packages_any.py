# SPDX-License-Identifier: Apache-2.0
"""The package manager a node has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import MissingError
from .host import platform_of
from .packages_apt import Apt
from .packages_base import PackageManager, Run
from .packages_dnf import Dnf


def package_manager(
    run: Run, node: str, lock_timeout: int, *, options: Sequence[str] = (), root: Path = Path("/")
) -> PackageManager:
    """Return dnf on the Red Hat family, else apt: a Debian node may have dnf installed, and uses apt all the same.

    Raises:
        MissingError: the node has neither.
    """
    programs = {"apt": root / "usr/bin/apt-get", "dnf": root / "usr/bin/dnf"}
    order = ("dnf", "apt") if platform_of(root)["family"] == "redhat" else ("apt", "dnf")
    kind = next((name for name in order if programs[name].exists()), None)
    if kind is None:
        raise MissingError(
            "install packages",
            node,
            "it has neither apt-get nor dnf",
            "Use a distribution of the Debian or the Red Hat family",
            expected=["apt-get", "dnf"],
        )
    manager = Apt if kind == "apt" else Dnf
    return manager(run, node, lock_timeout, options=options, root=root)
