# SPDX-License-Identifier: Apache-2.0
"""Command line of the test nodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import faults, fleet, prerequisites
from .apt import RELEASES
from .errors import NodesError
from .host import say
from .identities import IDENTITIES
from .image import ensure_images
from .inventory import inventory
from .purge import purge
from .spec import DRIVERS, FORM, MIRRORS, NodeSpec, check_fleet_name, parse_fleet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nodes.py", description="Container nodes with simulated GPUs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *, with_fleet: bool = False, with_node: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        if with_fleet:
            command.add_argument("--fleet", required=True, type=check_fleet_name, help="name of the fleet")
        if with_node:
            command.add_argument("node", help="name of the node")
        return command

    add("check", "say what this host lacks")
    add("prerequisites", "install what this host lacks").add_argument("--install", action="store_true", required=True)
    image = add("image", "build the node image")
    image.add_argument("--release", action="append", choices=RELEASES)
    image.add_argument("--os", choices=tuple(IDENTITIES), default="", help="an identity other than Debian's")
    up = add("up", f"start a fleet; a node is {FORM}", with_fleet=True)
    up.add_argument("nodes", nargs="+", metavar="NODE", help=FORM)
    up.add_argument(
        "--driver", choices=DRIVERS, default="none", help="whether a simulated driver is there from the start"
    )
    up.add_argument("--mirror", choices=MIRRORS, default="host", help="none: the package mirror cannot be reached")
    up.add_argument("--recreate", action="store_true", help="start anew even if the fleet is up")
    add("down", "remove a fleet", with_fleet=True)
    add("list", "show all nodes of this checkout")
    add("inventory", "print an Ansible inventory of a fleet", with_fleet=True)
    shell = add("ssh", "log in to a node, or run a command there", with_fleet=True, with_node=True)
    shell.add_argument("remote", nargs=argparse.REMAINDER, metavar="COMMAND")
    execute = add("exec", "run a command in a node as root without ssh", with_fleet=True, with_node=True)
    execute.add_argument("remote", nargs=argparse.REMAINDER, metavar="COMMAND")
    for name, text in faults.FAULTS.items():
        add(name, text, with_fleet=True, with_node=True)
    add("purge", "remove all fleets, images and caches of this checkout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one sentence on stderr."""
    try:
        arguments = _parser().parse_args(argv)
        return _dispatch(arguments)
    except NodesError as exc:
        say(f"nodes: {exc}")
        return 1
    except KeyboardInterrupt:
        say("nodes: interrupted; `nodes.py down` or the next `up` cleans up")
        return 130


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "prerequisites":
        prerequisites.install()
        return 0
    prerequisites.check()
    if args.command == "up":
        defaults = NodeSpec("", "", "", driver=args.driver, mirror=args.mirror)
        changed = fleet.up(args.fleet, parse_fleet(args.nodes, defaults), args.recreate)
        print("changed" if changed else "unchanged")
    elif args.command == "down":
        print("changed" if fleet.down(args.fleet) else "unchanged")
    elif args.command == "image":
        pairs = [(release, args.os) for release in args.release or RELEASES]
        print("\n".join(plan.node for plan in ensure_images(pairs).values()))
    elif args.command == "list":
        _list()
    elif args.command == "inventory":
        sys.stdout.write(inventory(args.fleet))
    elif args.command in ("ssh", "exec"):
        run = fleet.open_shell if args.command == "ssh" else faults.execute
        return run(args.fleet, args.node, args.remote)
    elif args.command in faults.FAULTS:
        faults.apply(args.command, args.fleet, args.node)
    elif args.command == "purge":
        purge()
    else:
        say("This host has everything that the test nodes need")
    return 0


def _list() -> None:
    rows = [("FLEET", "NODE", "STATE", "ADDRESS", "CONTAINER")]
    for name in fleet.fleets():
        found = sorted(fleet.find(name).items())
        rows += [(name, node, item.state, item.address, item.container) for node, item in found]
        rows += [] if found else [(name, "-", "no containers", "-", "-")]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, (16, 16, 14, 15, 0))).rstrip())
