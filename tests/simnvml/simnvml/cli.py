# SPDX-License-Identifier: Apache-2.0
"""Command line of the host half."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import pci, profiles, scenario
from .errors import ProfileError


def parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    top = argparse.ArgumentParser(prog="simnvml", description="Profiles of simulated GPU nodes.")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("profiles", help="list the profiles")
    flatten = commands.add_parser("flatten", help="print a profile as /etc/simnvml/node.conf")
    flatten.add_argument("profile")
    tree = commands.add_parser("pci", help="write the tree to mount over /sys/bus/pci/devices")
    tree.add_argument("profile")
    tree.add_argument("folder", type=Path)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 1 and one sentence when the profile cannot be used."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "profiles":
            print("\n".join(profiles.names()))
        elif options.command == "flatten":
            print(scenario.flatten(profiles.load(options.profile), options.profile), end="")
        else:
            pci.write(profiles.load(options.profile), options.folder)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
