# SPDX-License-Identifier: Apache-2.0
"""The part of a driver plan that is apt's: exact versions, what goes, and the pins that keep it so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .apt_sources import comparable
from .driver_names import (
    ARCHIVE_HELPERS,
    ARCHIVE_SOURCES,
    FAMILY,
    PINNING,
    PREBUILT,
    is_driver,
    is_prebuilt,
    matches,
    members,
    upstream,
)
from .driver_plan import Found, Request
from .errors import InvalidInputError
from .host import natural_key
from .packages import Candidate, Change, Installed

NEVER_UNATTENDED = (
    "^nvidia-",
    "^libnvidia-",
    "^libcuda",
    "^libnv",
    "^cuda-drivers",
    "^firmware-nvidia-",
    "^xserver-xorg-video-nvidia",
)
#: packages with the library that programs load: their version is the driver's
LIBRARIES = ("libnvidia-compute*", "libnvidia-ml1", "libcuda1")
STEM = re.compile(r"-(\d{3}(?:-server)?)(?:-|$)")
WITHOUT_SERIES = ("nvidia-fabricmanager-*", "libnvidia-nscq-*", "nvidia-imex-*")
PREBUILT_STEM = re.compile(r"^linux-(?:modules|objects|signatures)-nvidia-(\d+(?:-server)?)-")
# any NVIDIA driver: 3 digits, a dot; an epoch may stand in front
ANY_DRIVER = r"/^([0-9]+:)?[3-9][0-9][0-9]\.[0-9][0-9]/"


@dataclass
class Split:
    """What happens to each package: ``name=version`` (or the name alone) to have, names to remove."""

    packages: list[str]
    remove: list[str]


def offered_by(candidates: Iterable[Candidate], urls: Iterable[str], inside: bool) -> list[Candidate]:
    """Keep the candidates that come from one of the repositories (``inside``), or from none of them."""
    wanted = tuple(comparable(url) for url in urls)
    return [row for row in candidates if (comparable(row.source.split()[0]).startswith(wanted)) == inside]


def by_name(candidates: Iterable[Candidate]) -> dict[str, list[str]]:
    """Return the offered versions of each package, newest first."""
    found: dict[str, list[str]] = {}
    for row in candidates:
        found.setdefault(row.name, []).append(row.version)
    for versions in found.values():
        versions.sort(key=lambda version: natural_key(upstream(version)), reverse=True)
    return found


def driver_in(statuses: dict[str, Installed]) -> dict[str, Installed]:
    """Return the installed packages of any driver, from whatever source."""
    return {**members(statuses, []), **members(statuses, ARCHIVE_SOURCES)}


def split(
    chosen: str,
    request: Request,
    offers: dict[str, list[str]],
    statuses: dict[str, Installed],
    with_module: bool,
    node: str,
) -> Split:
    """Return exact versions for what is wanted and for what is installed, and what has to go.

    An installed package of the driver that stayed behind would be a version skew; one whose name does not exist in the
    chosen version (an older branch's, another repository's) would hold the whole transaction.
    """
    names = request.names(with_module)
    packages = [_wanted(name, chosen, request, offers.get(name, []), statuses.get(name), node) for name in names]
    remove = []
    stems = {stem for stem in map(_stem, request.names(True)) if stem}
    for name, have in sorted(driver_in(statuses).items()):
        if name in names:
            continue
        if _of_another_scheme(name, stems):
            remove.append(name)
            continue
        kept = _companion(name, chosen, request, offers.get(name, []), have)
        if kept is None:
            remove.append(name)
        elif kept:
            packages.append(kept)
    return Split(packages, remove + _foreign_modules(statuses, names))


def _stem(name: str) -> str | None:
    """Return branch and series in a package's name: ``580`` or ``580-server``, None where it has none."""
    match = STEM.search(name)
    return match[1] if match else None


def _of_another_scheme(name: str, stems: set[str]) -> bool:
    """Whether a name carries a branch or series that none of the wanted packages has."""
    stem = _stem(name)
    if stem is None:
        return False
    # fabric manager, NSCQ and IMEX have no -server names
    branches = {one.partition("-")[0] for one in stems}
    return stem not in (stems | branches if matches(name, WITHOUT_SERIES) else stems)


def _companion(name: str, chosen: str, request: Request, versions: list[str], have: Installed) -> str | None:
    """Return the request for an installed package nobody asked for: empty to leave it alone, None to remove it."""
    own = request.sources
    if own and not matches(have.source, own):
        # a package with a version of its own
        wanted = _loose(name, versions, have)
        return (wanted if "=" in wanted else "") if versions else None
    same = [version for version in versions if upstream(version) == upstream(chosen)]
    if upstream(have.version) == upstream(chosen) and (own or have.version in versions):
        return f"{name}={have.version}"
    return f"{name}={chosen if chosen in same else same[0]}" if same else None


def _wanted(name: str, chosen: str, request: Request, versions: list[str], have: Installed | None, node: str) -> str:
    """Return the request for one wanted package, or refuse what is not to be had."""
    same = [version for version in versions if upstream(version) == upstream(chosen)]
    # NVIDIA's repository has the driver's version of what the lock leaves open
    if name in request.loose and not (same and request.source == "nvidia"):
        if have is None and not versions:
            raise _nothing(name, request, node)
        return _loose(name, versions, have)
    if have is not None and upstream(have.version) == upstream(chosen) and (have.version in same or not same):
        return f"{name}={have.version}"
    if same:
        return f"{name}={chosen if chosen in same else same[0]}"
    if versions or have is not None:
        shown = ", ".join(dict.fromkeys(upstream(version) for version in versions)) or "none"
        raise InvalidInputError(
            "choose the driver packages",
            node,
            f"{name} is not available in version {upstream(chosen)}, only in {shown}",
            "Set stack_driver_version to that, or the other stack_module_flavour, and plan again",
            expected=upstream(chosen),
            found=versions,
        )
    raise _nothing(name, request, node)


def _nothing(name: str, request: Request, node: str) -> InvalidInputError:
    where = "NVIDIA's repository" if request.source == "nvidia" else "the archive"
    return InvalidInputError(
        "choose the driver packages",
        node,
        f"{where} has no {name}",
        "Set another stack_driver_version or stack_module_flavour, and plan again",
        expected=name,
    )


def _loose(name: str, versions: list[str], have: Installed | None) -> str:
    """A package with a version of its own stays as it is, unless it is newer than all this source has."""
    if have is None or not versions or have.version in versions or not is_driver(name, have.version):
        return name
    newest = versions[0]
    newer = natural_key(upstream(have.version)) > natural_key(upstream(newest))
    return f"{name}={newest}" if newer else name


def _foreign_modules(statuses: dict[str, Installed], names: list[str]) -> list[str]:
    """Return the installed modules that Ubuntu built for another driver than the wanted one."""
    stems = {match[1] for match in map(PREBUILT_STEM.match, names) if match}
    found = []
    for name in sorted(statuses):
        match = PREBUILT_STEM.match(name)
        if is_prebuilt(name) and match and match[1] not in stems:
            found.append(name)
    return found


def precedes(
    request: Request, offers: dict[str, list[str]], statuses: dict[str, Installed]
) -> tuple[list[str], list[str], list[str]]:
    """Return what is installed before the driver, which pinning packages of other branches go, and notes."""
    wanted, notes = [], []
    for name in request.precedes:
        versions, have = offers.get(name, []), statuses.get(name)
        if have is not None:
            wanted.append(f"{name}={have.version}")
        elif versions:
            wanted.append(f"{name}={versions[0]}")
        else:
            notes.append(f"The repository has no {name}; this role's own pin keeps the version.")
    other = [name for name in sorted(statuses) if name.startswith(PINNING) and name not in request.precedes]
    return wanted, other, notes


def preferences(chosen: str, request: Request) -> str:
    """Return the pins: without them a newer version from any source is mixed in.

    The first record that matches a version decides, so the file's name sorts before all others. Archive: one record
    over the source packages, and helpers named so that an older pin on ``nvidia-*`` cannot hide them. NVIDIA's
    repositories: the chosen version above 1000 (also when that means going back), every other driver version out of
    reach, so that no dependency and no transitional package can move the branch.
    """
    head = (
        "# Managed by Rackwright (role nvidia_driver); changes are overwritten.\n"
        "# One driver version for every package of it; above 1000 also when that means going back.\n"
    )
    own = f"Pin: version {upstream(chosen)}*\nPin-Priority: 1001\n\n"
    if request.source == "distribution":
        sources = " ".join(f"src:{source}" for source in ARCHIVE_SOURCES)
        helpers = " ".join(f"src:{source}" for source in ARCHIVE_HELPERS)
        return f"{head}Package: {sources}\n{own}Package: {helpers}\nPin: version *\nPin-Priority: 500\n"
    first = "".join(f"Package: {name}\nPin: version *\nPin-Priority: 1001\n\n" for name in request.precedes)
    family = " ".join(FAMILY)
    return f"{head}{first}Package: {family}\n{own}Package: {family}\nPin: version {ANY_DRIVER}\nPin-Priority: -1\n"


def unattended() -> str:
    """Return apt's configuration that keeps unattended-upgrades away, also from a package that lost its hold."""
    rows = "".join(f'  "{pattern}";\n' for pattern in NEVER_UNATTENDED)
    head = "// Managed by Rackwright (role nvidia_driver); changes are overwritten.\n"
    return f"{head}Unattended-Upgrade::Package-Blacklist {{\n{rows}}};\n"


def installed_version(statuses: dict[str, Installed], anchor: str) -> str | None:
    """Return the version of the installed driver, whatever its packages are called; None when there is none."""
    if anchor in statuses:
        return statuses[anchor].version
    found = [package.version for name, package in driver_in(statuses).items() if matches(name, LIBRARIES)]
    return found[0] if found else None


def exact(row: str, offers: dict[str, list[str]], everywhere: dict[str, list[str]]) -> str:
    """Name the version of a package that another repository offers in a newer one."""
    own, every = offers.get(row), everywhere.get(row)
    return f"{row}={own[0]}" if own and every and own[0] != every[0] else row


def brought(changes: Iterable[Change]) -> list[str]:
    """Return the driver packages that a transaction installs."""
    return [change.name for change in changes if change.new is not None and is_driver(change.name, change.new)]


def refuse_strange(changes: Iterable[Change], found: Found, request: Request, node: str) -> None:
    """Refuse a transaction that brings another driver version, or removes what is no part of a driver.

    A transitional package does the first: it has the old branch's name and depends on the next one.
    """
    rows = list(changes)
    stray = strayed(rows, found.version, request.loose)
    wanted = upstream(found.version)
    if stray:
        raise InvalidInputError(
            "choose the driver packages",
            node,
            f"installing {wanted} would also bring {', '.join(stray)}, another version of the driver",
            "Choose a stack_driver_version whose packages are complete in the repository, and plan again",
            expected=wanted,
            found=stray,
        )
    lost = [row.name for row in rows if row.new is None and not matches(row.name, (*FAMILY, *PREBUILT, "glx-*"))]
    if lost:
        raise InvalidInputError(
            "choose the driver packages",
            node,
            f"installing {wanted} would remove {', '.join(sorted(lost))}, which is no part of a driver",
            "Remove or update it first, or plan a driver version it can stay with",
            expected="no removal",
            found=sorted(lost),
        )


def strayed(changes: Iterable[Change], chosen: str, loose: Iterable[str]) -> list[str]:
    """Return the packages of a driver that a transaction would bring in another version than the chosen one."""
    apart = tuple(loose)
    return [
        f"{change.name} {change.new}"
        for change in changes
        if change.new is not None
        and is_driver(change.name, change.new)
        and upstream(change.new) != upstream(chosen)
        and change.name not in apart
    ]
