# SPDX-License-Identifier: Apache-2.0
"""What the failures of dnf and rpm mean, as sentences. Pure: text in, error out."""

from __future__ import annotations

import re

from .errors import MissingError, RackwrightError, TimedOutError
from .packages import CREDENTIALS, URL_HOST, held_too_long, no_space

PLUGIN = "python3-dnf-plugin-versionlock"
LOCK = re.compile(r"^.*already locked by (?P<pid>\d+)", re.MULTILINE)
_PROGRAM = re.compile(r"The application with PID \d+ is: (\S+)")
_RPM_LOCK = re.compile(r"can't create transaction lock on (\S+)|waiting for (?:transaction|shared) lock on (\S+)")
_REPO = re.compile(r"[Ff]ailed to (?:download|synchronize) (?:metadata|cache) for repo(?:sitory)? ['\"]([^'\"]+)['\"]")
_NO_MATCH = re.compile(r"(?:Unable to find a match|No match for argument): (.+)")
_FILTERED = re.compile(r"filtered out by (modular|exclude) filtering for argument: (\S+)")
_NOISE = re.compile(r"^(?:Last metadata|Dependencies resolved|Nothing to do|Complete!|Operation aborted|\(try to|=+$)")


def is_lock_failure(text: str) -> bool:
    """Whether dnf or rpm only failed because somebody else is working."""
    return bool(LOCK.search(text) or _RPM_LOCK.search(text))


def lock_error(text: str, node: str, waited: float) -> TimedOutError:
    """Explain that another process kept the lock for longer than we may wait."""
    lock, program = LOCK.search(text), _PROGRAM.search(text)
    return held_too_long(node, lock and lock["pid"], program and program[1], waited)


def explain(text: str, action: str, node: str, free_mib: int | None = None) -> RackwrightError:
    """Turn the output of a failed dnf or rpm run into cause and next step."""
    for rule in (_disk_full, _database, _signature, _repository, _stream, _unknown, _protected, _conflict, _script):
        error = rule(text, action, node, free_mib)
        if error is not None:
            return error
    return RackwrightError(
        action, node, last_cause(text), "Run the same dnf command on the node to see its whole output"
    )


def last_cause(text: str) -> str:
    """Return the lines in which dnf or rpm names an error, else the tail; never the password of a mirror."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    errors = [line for line in lines if re.match(r"(?i)(?:error|fatal|failed|warning: %)", line)]
    start = lines.index(errors[0]) if errors else max(0, len(lines) - 3)
    shown = [line.rstrip(":") if line.lower() == "error:" else line for line in lines[start : start + 4]]
    return CREDENTIALS.sub("://", "; ".join(dict.fromkeys(shown))) or "it ended without a message"


def removal_error(action: str, node: str, names: list[str]) -> RackwrightError:
    """Explain that a transaction would take away packages that nobody named."""
    return RackwrightError(
        action,
        node,
        f"it would remove {', '.join(names)}, which was not asked for",
        "Remove them yourself if they may go, then run again",
        found=names,
    )


def plugin_error(node: str) -> MissingError:
    """Explain that nothing can be held without the plugin."""
    return MissingError(
        "hold packages",
        node,
        f"the versionlock plugin of dnf is not installed and no repository offers {PLUGIN}",
        f"Enable the repository that carries {PLUGIN} (BaseOS or AppStream, or its mirror), or hold nothing",
        expected=PLUGIN,
    )


def _disk_full(text: str, action: str, node: str, free_mib: int | None) -> RackwrightError | None:
    match = re.search(r"needs \S+ more space on the (\S+) filesystem|No space left on device|Disk Requirements", text)
    return no_space(action, node, match.group(1), free_mib, "dnf clean packages") if match else None


def _database(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if not re.search(r"rpmdb open failed|cannot open Packages|Error: rpmdb|rpmdb: BDB|disk image is malformed", text):
        return None
    return RackwrightError(
        action,
        node,
        "rpm's database cannot be read",
        "Copy /var/lib/rpm (or /usr/lib/sysimage/rpm) away, run `rpm --rebuilddb`, then run again",
    )


def _signature(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    unsigned = re.search(r"Package (\S+?)(?:\.rpm)? is not signed", text)
    if unsigned:
        return RackwrightError(
            action,
            node,
            f"the package {unsigned[1]} is not signed",
            "Take it from its vendor's repository; never disable the check",
        )
    wrong = re.search(r"GPG check FAILED|not correct for this package|Public key for (\S+?)(?:\.rpm)? is not", text)
    if wrong or re.search(r"GPG signature verification error|Signing key not found|Bad GPG signature", text):
        what = f"the package {wrong[1]}" if wrong and wrong[1] else "what a repository offers"
        repository = _REPO.search(text)
        if repository:
            what = f"the metadata of the repository {repository[1]}"
        return RackwrightError(
            action,
            node,
            f"{what} is not signed by a key this node trusts",
            "Install the vendor's key (rpm --import) after comparing its fingerprint; never disable the check",
        )
    problem = re.search(r"do not have any GPG public keys installed[\s\S]*Problem repository: \[([^\]]+)\]", text)
    if not problem:
        return None
    return RackwrightError(
        action,
        node,
        f"the repository {problem[1]} demands signatures and names no key (gpgkey)",
        "Name the key of its vendor in its .repo file; never disable the check",
    )


def _repository(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if re.search(r"There are no enabled repositor", text):
        return MissingError(
            action,
            node,
            "no repository is enabled",
            "Register the system (subscription-manager) or add repositories to /etc/yum.repos.d",
        )
    repository = _REPO.search(text)
    if not repository and not re.search(r"Error downloading packages|No more mirrors to try", text):
        return None
    named = f"the repository {repository[1]}" if repository else "a repository"
    hosts = list(dict.fromkeys(URL_HOST.findall(text)))
    at = f" at {', '.join(hosts)}" if hosts else ""
    if re.search(r"Status code: (?:404|410)|\b404\b", text):
        return RackwrightError(
            action,
            node,
            f"{named}{at} answers 404 Not Found",
            "Correct its baseurl in /etc/yum.repos.d, or make its metadata new (dnf clean metadata)",
            found=hosts,
        )
    status = re.findall(r"Status code: (\d+)", text)
    if re.search(r"[Cc]ould ?n['o]t resolve|Could not resolve", text):
        how = "its name cannot be resolved"
    elif re.search(r"SSL|certificate", text):
        how = "its certificate is not accepted"
    elif status:
        how = f"it answers with status {status[-1]}"
    else:
        how = "it does not answer" if re.search(r"connect|[Tt]imeout|timed out", text) else last_cause(text)
    return MissingError(
        action,
        node,
        f"{named}{at} cannot be used: {how}",
        "Make it reachable from the node (DNS, route, proxy, subscription), or name another mirror; run again",
        found=hosts,
    )


def _stream(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    missing = re.search(r"missing groups or modules: (.+)|Unable to resolve argument (\S+)", text)
    if missing:
        named = (missing[1] or missing[2]).strip()
        return MissingError(
            action,
            node,
            f"no repository has the module stream {named}",
            f"Look with `dnf module list {named.partition(':')[0]}` which there are",
            found=named,
        )
    return None


def _unknown(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    filtered = {name: kind for kind, name in _FILTERED.findall(text)}
    names = list(dict.fromkeys(name for row in _NO_MATCH.findall(text) for name in row.split()))
    modular = [name for name, kind in filtered.items() if kind == "modular"]
    if modular:
        return RackwrightError(
            action,
            node,
            f"{', '.join(modular)} belongs to a module stream that is not enabled",
            "Enable its stream (`dnf module list`), or take the version of the enabled one",
            found=modular,
        )
    if filtered:
        return RackwrightError(
            action,
            node,
            f"{', '.join(filtered)} is locked or excluded",
            "Look at `dnf versionlock list` and at excludepkgs in /etc/dnf/dnf.conf, and release what may move",
            found=list(filtered),
        )
    if not names:
        return None
    return MissingError(
        action,
        node,
        f"no enabled repository offers {', '.join(names)}",
        "Correct the name or version (`dnf list --showduplicates`), or enable the repository that carries it",
        found=names,
    )


def _protected(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    match = re.search(r"removing the following protected packages: (.+)", text)
    if not match:
        return None
    return RackwrightError(
        action, node, f"it would remove the protected packages {match[1].strip()}", "Leave those packages out"
    )


def _conflict(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    if "dkms" in text:
        lacking = re.search(r"nothing provides (dkms\S*(?: [<>=]+ \S+)?) needed by (\S+)", text)
        if lacking:
            return MissingError(
                action,
                node,
                f"no enabled repository offers {lacking[1]}, which {lacking[2]} needs",
                "Lay a .repo file for EPEL, which has DKMS, or your mirror of it into /etc/yum.repos.d, and run again",
                expected="dkms",
            )
    if not re.search(r"^ *Problem(?: \d+)?: ", text, re.MULTILINE) and "file conflicts" not in text.lower():
        return None
    details = re.findall(r"^ *(?:Problem(?: \d+)?: |- |file )(.+)$", text, re.MULTILINE)
    wanted = [" ".join(row.split()) for row in details if row.strip() != "conflicting requests"]
    return RackwrightError(
        action,
        node,
        f"the packages do not fit together: {'; '.join(dict.fromkeys(wanted[:4]))}",
        "Look for locks (`dnf versionlock list`), excludes and other repositories in the way",
    )


def _script(text: str, action: str, node: str, _free: int | None) -> RackwrightError | None:
    match = re.search(r"[Ee]rror in (\w+) scriptlet in rpm package (\S+)|%(\w+)\((\S+)\) scriptlet failed", text)
    if not match:
        return None
    script, package = (match[1] or match[3]).lower(), match[2] or match[4]
    return RackwrightError(
        action,
        node,
        f"the {script} script of {package} failed: {last_cause(text)}",
        "Correct what the message names and run again",
    )
