# SPDX-License-Identifier: Apache-2.0
"""Node images: a plain Debian by mmdebstrap, and on it what makes a test node of it.

Two layers with a digest each, so that a change of the simulated driver does not install Debian again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import certificates, payload
from .apt import COMPONENTS, KEYRING, Mirror, conf_text, find_mirror, passed_on, read_sources
from .archives import cache_dir
from .errors import NodesError
from .host import give_back, locked, require_free, run, say, stream
from .identities import EL_PACKAGES, IDENTITIES, Identity
from .image_setup import setup_script
from .paths import CACHE, CHECKOUT, LABEL, LABEL_CHECKOUT, LABEL_RELEASE, SIMNVML
from .podman import ours, podman, remove_containers, succeeds, ulimits
from .vendor import repositories

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "sudo",
    "openssh-server",
    "python3",
    "python3-apt",
    "python3-debian",
    "iproute2",
    "procps",
    "ca-certificates",
    "pciutils",
    "kmod",
    "debian-archive-keyring",
)
_FORMAT = 1
_YOUNG_SECONDS = 600


@dataclass(frozen=True)
class Plan:
    """Everything that decides what an image contains."""

    release: str
    mirror: Mirror
    settings: dict[str, str]
    certificates: dict[str, str]
    os: str = ""
    vendor: str = ""

    @property
    def identity(self) -> Identity | None:
        """The system that the image pretends to be."""
        return IDENTITIES.get(self.os)

    @property
    def redhat(self) -> bool:
        """Whether it has dnf instead of apt."""
        return self.identity is not None and self.identity.redhat

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian packages of the base."""
        return (*PACKAGES, *EL_PACKAGES) if self.redhat else PACKAGES

    @property
    def title(self) -> str:
        """How messages and containers call it."""
        return f"{self.release}-{self.os}" if self.os else self.release

    @property
    def base(self) -> str:
        """Tag of the plain Debian."""
        inputs = [_FORMAT, self.mirror.lines(self.release, ("main",)), self.packages, self.settings]
        return f"localhost/rackwright/base:{self.release}-{_digest(json.dumps(inputs, sort_keys=True).encode())}"

    @property
    def node(self) -> str:
        """Tag of the node image."""
        parts = [self.base.encode(), setup(self).encode(), self.vendor.encode()]
        for name, data in sorted({**self.files(), **simnvml_sources()}.items()):
            parts += [name.encode(), data]
        return f"localhost/rackwright/node:{self.title}-{_digest(*parts)}"

    def files(self) -> dict[str, bytes]:
        """Files laid into the image before its setup runs."""
        files = payload.image_files(
            sources=self.mirror.deb822(self.release, COMPONENTS),
            apt_conf=conf_text(self.settings),
            certificates=self.certificates,
        )
        if self.identity:
            files |= {name: text.encode() for name, text in self.identity.files().items()}
        return files


def setup(plan: Plan) -> str:
    """The script that makes a node of the base."""
    return setup_script(plan.identity.major if plan.identity and plan.redhat else None)


def _digest(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:12]


def simnvml_sources(folder: Path = SIMNVML) -> dict[str, bytes]:
    """What of the simulated NVML is compiled and installed in a node; the profiles stay on the host."""
    wanted = [folder / "Makefile", *folder.glob("*.txt"), *folder.glob("src/**/*"), *folder.glob("node/**/*")]
    makefile = (folder / "Makefile").read_text(encoding="utf-8")
    names = re.search(r"^NODE_MODULES := (.*)$", makefile, re.MULTILINE)
    wanted += [folder / "simnvml" / name for name in (names[1].split() if names else [])]
    return {
        f"src/tests/simnvml/{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(wanted)
        if path.is_file() and "__pycache__" not in path.parts
    }


def make_plan(release: str, os: str = "") -> Plan:
    """Read the host's configuration."""
    mirror = find_mirror(read_sources())
    dump = run(["apt-config", "dump", "Acquire"], "read the host's apt configuration").stdout
    identity = IDENTITIES.get(os)
    # what an EL node has installed comes from there
    vendor = str(repositories.ensure("rpm")) if identity and identity.redhat else ""
    return Plan(release, mirror, passed_on(dump), certificates.extra_certificates(), os, vendor)


def ensure_images(wanted: list[tuple[str, str]]) -> dict[tuple[str, str], Plan]:
    """Build what is missing, two releases side by side; answers the plan, with the tag, of each release and identity.

    Images of one release are built one after the other: they share a folder of packages, which apt locks.
    """
    plans = {pair: make_plan(*pair) for pair in dict.fromkeys(wanted)}
    releases = list(dict.fromkeys(release for release, _identity in plans))
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda release: _ensure_release([plans[pair] for pair in plans if pair[0] == release]), releases))
    return plans


def _ensure_release(plans: list[Plan]) -> None:
    for plan in plans:
        ensure_image(plan)


def ensure_image(plan: Plan) -> None:
    """Build the node image unless it is there; two runs at once build it once."""
    if succeeds("image", "exists", plan.node):
        return
    with locked(f"image-{plan.title}"):
        if succeeds("image", "exists", plan.node):
            return
        what = f"build the {plan.title} node image"
        require_free(CACHE, 1.5, what)
        require_free(Path("/var/lib/containers"), 2, what)
        say(f"Building the {plan.title} node image (once; kept until its inputs change)")
        # several identities have one base
        with locked(f"base-{plan.base.rpartition(':')[2]}"):
            if not succeeds("image", "exists", plan.base):
                _build_base(plan)
        _build_node(plan)


def _labels(release: str) -> list[str]:
    values = {LABEL: "image", LABEL_CHECKOUT: CHECKOUT, LABEL_RELEASE: release}
    return [part for key, value in values.items() for part in ("--change", f"LABEL {key}={value}")]


def _build_base(plan: Plan) -> None:
    prefix = f"  [{plan.title}] "
    CACHE.mkdir(parents=True, exist_ok=True)
    aptopts = [f"--aptopt={line.rstrip()}" for line in conf_text(plan.settings).splitlines()]
    # The image brings its own file with the same settings.
    forget = '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"'
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(plan.packages)}",
        f"--keyring={KEYRING}",
        *aptopts,
        forget,
        "--format=tar",
        plan.release,
        "-",
        *plan.mirror.lines(plan.release, ("main",)),
    ]
    what = f"install Debian {plan.release} from {plan.mirror.archive}"
    with tempfile.NamedTemporaryFile(dir=CACHE, prefix=f"base-{plan.release}-", suffix=".tar") as tar:
        for attempt in (1, 2):
            try:
                # Mirrors stall now and then; a second try usually goes through.
                stream(command, what, prefix=prefix, stdout_to=Path(tar.name), timeout=600, show=_quiet)
                break
            except NodesError as exc:
                if attempt == 2:
                    raise
                say(f"{exc} Trying once more.", prefix)
        say("I: importing into podman...", prefix)
        podman(
            "import",
            "-q",
            *_labels(plan.title),
            "--change",
            "STOPSIGNAL SIGRTMIN+3",
            "--change",
            "CMD /sbin/init",
            tar.name,
            plan.base,
            what=f"import {plan.base}",
            timeout=300,
        )


def _quiet(line: str) -> str | None:
    return line if line.startswith(("I:", "E:", "W:")) and "tempdir" not in line else None


def _build_node(plan: Plan) -> None:
    prefix = f"  [{plan.title}] "
    name = f"rackwright-{CHECKOUT}-build-{plan.title}"
    cache = cache_dir(plan.release)
    files = payload.tar({**plan.files(), **simnvml_sources()})
    remove_containers([name])
    try:
        # The host's network: a build needs no network of its own.
        stream(
            [
                "podman",
                "--runtime",
                "runc",
                "run",
                "-i",
                "--name",
                name,
                "--network",
                "host",
                *ulimits(),
                "--label",
                f"{LABEL}=build",
                "--label",
                f"{LABEL_CHECKOUT}={CHECKOUT}",
                "-v",
                f"{cache}:/var/cache/apt/archives",
                *(["-v", f"{plan.vendor}:{repositories.MOUNT}:ro"] if plan.vendor else []),
                plan.base,
                "/bin/sh",
                "-c",
                setup(plan),
            ],
            f"set up the {plan.title} node image",
            prefix=prefix,
            stdin=files,
            timeout=900,
        )
        say("I: committing the image...", prefix)
        podman(
            "commit",
            "-q",
            "--pause=false",
            *_labels(plan.title),
            "--change",
            "STOPSIGNAL SIGRTMIN+3",
            "--change",
            "CMD /sbin/init",
            name,
            plan.node,
            what=f"commit {plan.node}",
            timeout=300,
        )
    finally:
        remove_containers([name])
        give_back(cache)


def drop_old(plans: Collection[Plan]) -> None:
    """Remove this checkout's images of earlier inputs that no container uses any more."""
    wanted = {tag for plan in plans for tag in (plan.node, plan.base)}
    titles = {plan.title for plan in plans}
    for image in ours("images"):
        # A young image may belong to a run that has not started its containers yet.
        old = time.time() - image.get("Created", 0) > _YOUNG_SECONDS
        title = (image.get("Labels") or {}).get(LABEL_RELEASE)
        if old and title in titles and image.get("Names") and not wanted.intersection(image["Names"]):
            podman("rmi", image["Id"], what=f"remove the old image {image['Id'][:12]}", check=False)
