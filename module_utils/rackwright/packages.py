# SPDX-License-Identifier: Apache-2.0
"""What apt and dpkg print, as records; what their failures mean, as sentences. Pure: text in, records out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import MissingError, RackwrightError, TimedOutError

STATUS_FORMAT = "${Package}\\t${Version}\\t${db:Status-Abbrev}\\t${source:Package}\\n"
INST = re.compile(r"^Inst (?P<name>\S+)(?: \[(?P<old>[^\]]+)\])? \((?P<new>\S+) (?P<origin>.*?)(?: \[[^\]]*\])?\)")
REMV = re.compile(r"^(?:Remv|Purg) (?P<name>\S+)(?: \[(?P<old>[^\]]+)\])?")
URL_HOST = re.compile(r"(?:https?|ftp)://(?:[^/@\s]*@)?([^/\s:]+)")
LOCK = re.compile(
    r"^E: Could not get lock (?P<file>\S+?)\.? (?:It is held by process (?P<pid>\d+)(?: \((?P<program>[^)]+)\))?)?"
    r"|^E: .*is another process using it",
    re.MULTILINE,
)
DPKG_LOCK = re.compile(r"dpkg.*lock was locked by another process(?: with pid (?P<pid>\d+))?")
NETWORK = re.compile(
    r"Could not resolve '?(?P<a>[\w.-]+)|Temporary failure resolving '(?P<b>[^']+)'|Could not connect to (?P<c>[\w.-]+)"
    r"|Cannot initiate the connection to (?P<d>[\w.-]+)|Unable to connect to (?P<e>[\w.-]+)"
)
CREDENTIALS = re.compile(r"://[^/@\s]+@")
CAUSE_LINE = re.compile(r"^(?:E|Err|W|dpkg: error|Error!)[: ].*", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """One package transition of a simulated or real transaction."""

    name: str
    old: str | None
    new: str | None
    origin: str = ""

    def text(self) -> str:
        """Return the transition as one line."""
        if self.new is None:
            return f"remove {self.name} {self.old or ''}".strip()
        return f"install {self.name} {self.new}" if self.old is None else f"change {self.name} {self.old} -> {self.new}"


@dataclass(frozen=True)
class Candidate:
    """One version of a package that a source offers."""

    name: str
    version: str
    source: str


@dataclass(frozen=True)
class Installed:
    """One entry of dpkg's status database."""

    name: str
    version: str
    status: str
    source: str

    @property
    def complete(self) -> bool:
        """Whether the package is unpacked and configured, with nothing pending."""
        return self.status[1:2] == "i" and self.status[2:3] in ("", " ")

    @property
    def broken(self) -> bool:
        """Whether an interrupted run left the package half done (or waiting for triggers)."""
        return self.status[1:2] in ("H", "U", "F", "W", "t") or self.status[2:3] == "R"

    @property
    def needs_unpack(self) -> bool:
        """Whether files are missing, so that configuring cannot repair it."""
        return self.status[1:2] == "H" or self.status[2:3] == "R"


def parse_status(text: str) -> dict[str, Installed]:
    """Read ``dpkg-query -W -f STATUS_FORMAT``; packages that are only known (not installed) are left out."""
    found = {}
    for line in text.splitlines():
        name, version, status, source = ([*line.split("\t"), "", "", ""])[:4]
        if status[1:2] not in ("", "n", "c"):
            found[name] = Installed(name, version, status, source or name)
    return found


def parse_simulation(text: str) -> list[Change]:
    """Read the ``Inst`` and ``Remv`` lines of ``apt-get --simulate``."""
    changes = []
    for line in text.splitlines():
        inst, remv = INST.match(line), REMV.match(line)
        if inst:
            changes.append(Change(inst["name"], inst["old"], inst["new"], inst["origin"]))
        elif remv:
            changes.append(Change(remv["name"], remv["old"], None))
    return changes


def parse_madison(text: str) -> list[Candidate]:
    """Read ``apt-cache madison``: newest first, source packages left out, each version once."""
    seen: dict[tuple[str, str], Candidate] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and not fields[2].endswith(" Sources"):
            seen.setdefault((fields[0], fields[1]), Candidate(fields[0], fields[1], fields[2]))
    return list(seen.values())


def security_only(changes: Iterable[Change]) -> list[Change]:
    """Keep the updates that come from a security suite (Debian-Security, -security pockets)."""
    return [change for change in changes if change.new and "security" in change.origin.lower()]


def split_request(request: str) -> tuple[str, str | None]:
    """Return name and exact version (or None) of ``name`` or ``name=version``."""
    name, separator, version = request.partition("=")
    return name, version if separator else None


def unsatisfied(requests: Iterable[str], statuses: dict[str, Installed]) -> list[str]:
    """Return the requests that the installed packages do not meet."""
    left = []
    for request in requests:
        name, version = split_request(request)
        have = statuses.get(name)
        if have is None or not have.complete or (version is not None and have.version != version):
            left.append(request)
    return left


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that match one of the shell patterns."""
    wanted = list(patterns)
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted))


def is_lock_failure(text: str) -> bool:
    """Whether apt or dpkg only failed because somebody else is working."""
    return bool(LOCK.search(text) or DPKG_LOCK.search(text))


def lock_error(text: str, node: str, waited: float) -> TimedOutError:
    """Explain that another process kept the lock for longer than we may wait."""
    lock, dpkg = LOCK.search(text), DPKG_LOCK.search(text)
    pid = (lock and lock["pid"]) or (dpkg and dpkg["pid"])
    program = lock["program"] if lock and lock["program"] else None
    return held_too_long(node, pid or None, program, waited, (lock and lock["file"]) or None)


def held_too_long(
    node: str, pid: str | None, program: str | None, waited: float, file: str | None = None
) -> TimedOutError:
    """Return the error of a lock that somebody kept, of any package manager."""
    holder = f"process {pid}{f' ({program})' if program else ''}" if pid else "another process"
    return TimedOutError(
        "get the package manager's lock",
        node,
        f"{holder} has held it for more than {waited:.0f} s",
        "Let it finish (or stop it if it hangs), or raise the lock timeout, then run again",
        found=file,
    )


def explain(text: str, action: str, node: str, free_mib: int | None = None) -> RackwrightError:
    """Turn the output of a failed apt or dpkg run into cause and next step."""
    for rule in (_disk_full, _mirror, _unknown, _version, _signature, _held, _dkms, _conflict, _dpkg):
        error = rule(text, action, node, free_mib)
        if error is not None:
            return error
    return RackwrightError(
        action, node, last_cause(text), "Run the same apt-get command on the node to see its whole output"
    )


def last_cause(text: str) -> str:
    """Return the lines in which apt or dpkg names an error, else the tail; never the password of a mirror."""
    lines = [line.strip() for line in CAUSE_LINE.findall(text)] or [
        line for line in text.strip().splitlines() if line.strip()
    ]
    return CREDENTIALS.sub("://", "; ".join(dict.fromkeys(lines[-4:]))) or "it ended without a message"


def _disk_full(text: str, action: str, node: str, free_mib: int | None) -> RackwrightError | None:
    match = re.search(r"You don't have enough free space in (\S+?)\.?$|No space left on device", text, re.MULTILINE)
    return no_space(action, node, match.group(1), free_mib, "apt-get clean") if match else None


def no_space(action: str, node: str, place: str | None, free_mib: int | None, clean: str) -> RackwrightError:
    """Return the error of a full disk. ``clean`` is the package manager's command that removes what it downloaded."""
    left = "" if free_mib is None else f" ({free_mib} MiB free on /var)"
    return RackwrightError(
        action,
        node,
        f"no space left in {place or 'the file system of /var or /usr'}{left}",
        f"Free space ({clean}, journalctl --vacuum-size) and run again",
    )


def _mirror(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if not re.search(
        r"Failed to fetch|Some index files failed to download|Unable to fetch some archives|^Err:", text, re.MULTILINE
    ):
        return None
    network = NETWORK.search(text)
    hosts = list(
        dict.fromkeys(
            URL_HOST.findall(
                "\n".join(line for line in text.splitlines() if line.lstrip().startswith(("E:", "W:", "Err")))
            )
        )
    )
    host = next((group for group in network.groups() if group), None) if network else None
    named = ", ".join(hosts) or host or "of its sources"
    if re.search(r"\b404\b|does not have a Release file", text):
        return RackwrightError(
            action,
            node,
            f"the mirror {named} answers 404 Not Found",
            "Update the package lists, or correct the suite in the node's apt sources",
            found=hosts,
        )
    if re.search(r"is not valid yet|is expired|Release file .* expired", text):
        return RackwrightError(
            action,
            node,
            f"the lists of the mirror {named} are outside their validity, seen from this node's clock",
            "Set the clock of the node, then run again",
        )
    if re.search(r"NO_PUBKEY|not signed|signatures? (?:were|was|couldn't)|OpenPGP|GPG error", text):
        return None
    how = "its name cannot be resolved" if re.search(r"resolv", text, re.IGNORECASE) else last_cause(text)
    return MissingError(
        action,
        node,
        f"the mirror {named} cannot be used: {how}",
        f"Make {named} reachable from the node (DNS, route, proxy), or name another mirror in its sources; run again",
        found=hosts,
    )


def _unknown(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    names = re.findall(r"Unable to locate package (\S+)|Package '?([\w.+-]+)'? has no installation candidate", text)
    flat = list(dict.fromkeys(a or b for a, b in names))
    if not flat:
        return None
    return MissingError(
        action,
        node,
        f"no configured source offers {', '.join(flat)}",
        "Correct the name, add the source that carries it, or remove the pin that hides it (apt-cache policy)",
        found=flat,
    )


def _version(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    match = re.search(r"Version '([^']+)' for '([^']+)' was not found", text)
    if not match:
        return None
    return MissingError(
        action,
        node,
        f"no configured source has version {match[1]} of {match[2]}",
        f"Look with `apt-cache madison {match[2]}` which versions there are",
    )


def _signature(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if not re.search(r"NO_PUBKEY|is not signed|GPG error|OpenPGP signature|couldn't be verified", text):
        return None
    hosts = ", ".join(dict.fromkeys(URL_HOST.findall(text)))
    return RackwrightError(
        action,
        node,
        f"the lists of {hosts or 'a source'} are not signed by a key this node trusts",
        "Install the archive's keyring; never disable the check",
    )


def _held(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if "Held packages were changed" not in text:
        return None
    return RackwrightError(
        action,
        node,
        "it needs to change packages that are on hold",
        "Look at `apt-mark showhold` and release what may move",
    )


def _dkms(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    match = re.search(r"Bad return status for module build on kernel: (\S+)", text)
    if not match:
        return None
    log = re.search(r"Consult (\S+make\.log)", text)
    return RackwrightError(
        action,
        node,
        f"the kernel module does not build for kernel {match[1]}",
        f"Read {log[1] if log else '/var/lib/dkms/*/build/make.log'} on the node; choose another version or kernel",
    )


def _conflict(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if "unmet dependencies" not in text and "held broken packages" not in text:
        return None
    details = "; ".join(
        " ".join(line.split()) for line in re.findall(r"^ \S.*(?:Depends|Breaks|Conflicts).*$", text, re.MULTILINE)[:4]
    )
    return RackwrightError(
        action,
        node,
        f"the packages do not fit together: {details or last_cause(text)}",
        "Look for pins (`apt-cache policy`) and holds (`apt-mark showhold`) in the way",
    )


def _dpkg(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    names = list(dict.fromkeys(re.findall(r"dpkg: error processing (?:package|archive) (\S+)", text)))
    if not names:
        return None
    return RackwrightError(
        action,
        node,
        f"dpkg could not finish {', '.join(names)}: {last_cause(text)}",
        "Correct what the message names; the next run resumes there",
    )
