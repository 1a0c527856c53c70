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
from .paths import CACHE, CHECKOUT, LABEL, LABEL_CHECKOUT, LABEL_RELEASE, SIMNVML
from .podman import ours, podman, remove_containers, succeeds, ulimits

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
BUILD_PACKAGES = ("gcc", "libc6-dev", "make")
_FORMAT = 1
_YOUNG_SECONDS = 600


@dataclass(frozen=True)
class Plan:
    """Everything that decides what an image contains."""

    release: str
    mirror: Mirror
    settings: dict[str, str]
    certificates: dict[str, str]

    @property
    def base(self) -> str:
        """Tag of the plain Debian."""
        inputs = [_FORMAT, self.mirror.lines(self.release, ("main",)), PACKAGES, self.settings]
        return f"localhost/rackwright/base:{self.release}-{_digest(json.dumps(inputs, sort_keys=True).encode())}"

    @property
    def node(self) -> str:
        """Tag of the node image."""
        parts = [self.base.encode(), _SETUP.encode()]
        for name, data in sorted({**self.files(), **simnvml_sources()}.items()):
            parts += [name.encode(), data]
        return f"localhost/rackwright/node:{self.release}-{_digest(*parts)}"

    def files(self) -> dict[str, bytes]:
        """Files laid into the image before its setup runs."""
        return payload.image_files(
            sources=self.mirror.deb822(self.release, COMPONENTS),
            apt_conf=conf_text(self.settings),
            certificates=self.certificates,
        )


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


def make_plan(release: str) -> Plan:
    """Read the host's configuration."""
    mirror = find_mirror(read_sources())
    dump = run(["apt-config", "dump", "Acquire"], "read the host's apt configuration").stdout
    return Plan(release, mirror, passed_on(dump), certificates.extra_certificates())


def ensure_images(releases: list[str]) -> dict[str, Plan]:
    """Build what is missing, releases side by side; answers the plan, with the tag, of each release."""
    plans = [make_plan(release) for release in dict.fromkeys(releases)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(ensure_image, plans))
    return {plan.release: plan for plan in plans}


def ensure_image(plan: Plan) -> None:
    """Build the node image unless it is there; two runs at once build it once."""
    if succeeds("image", "exists", plan.node):
        return
    with locked(f"image-{plan.release}"):
        if succeeds("image", "exists", plan.node):
            return
        what = f"build the {plan.release} node image"
        require_free(CACHE, 1.5, what)
        require_free(Path("/var/lib/containers"), 2, what)
        say(f"Building the {plan.release} node image (once; kept until its inputs change)")
        if not succeeds("image", "exists", plan.base):
            _build_base(plan)
        _build_node(plan)


def _labels(release: str) -> list[str]:
    values = {LABEL: "image", LABEL_CHECKOUT: CHECKOUT, LABEL_RELEASE: release}
    return [part for key, value in values.items() for part in ("--change", f"LABEL {key}={value}")]


def _build_base(plan: Plan) -> None:
    prefix = f"  [{plan.release}] "
    CACHE.mkdir(parents=True, exist_ok=True)
    aptopts = [f"--aptopt={line.rstrip()}" for line in conf_text(plan.settings).splitlines()]
    # The image brings its own file with the same settings.
    forget = '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"'
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
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
            *_labels(plan.release),
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


_SETUP = """
set -eu
export DEBIAN_FRONTEND=noninteractive
tar -C / -xf -
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/0000*
id rackwright >/dev/null 2>&1 || useradd --create-home --shell /bin/bash rackwright
update-ca-certificates >/dev/null 2>&1
# Package lists stay in the image: a real server has them, and check mode on a clean node needs them.
apt-get -qq update --error-on=any
echo "I: compiling the simulated NVML"
apt-get -qq install -y --no-install-recommends BUILD_PACKAGES >/dev/null
make -s --no-print-directory -C /src/tests/simnvml install DESTDIR= >/src/log 2>&1 || { tail -20 /src/log; exit 1; }
apt-get -qq purge -y --auto-remove BUILD_PACKAGES >/dev/null
ldconfig
rm -rf /src /var/cache/apt/*.bin /var/log/apt/* /etc/ssh/ssh_host_* /root/.cache
systemctl disable apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
systemctl mask getty.target console-getty.service systemd-networkd-wait-online.service >/dev/null 2>&1
systemctl enable ssh.service >/dev/null 2>&1
# Otherwise the first boot runs ldconfig and others again, at the same time as what else calls them.
if [ -x /usr/lib/systemd/systemd-update-done ]; then /usr/lib/systemd/systemd-update-done; fi
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
""".replace("BUILD_PACKAGES", " ".join(BUILD_PACKAGES))


def _build_node(plan: Plan) -> None:
    prefix = f"  [{plan.release}] "
    name = f"rackwright-{CHECKOUT}-build-{plan.release}"
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
                plan.base,
                "/bin/sh",
                "-c",
                _SETUP,
            ],
            f"set up the {plan.release} node image",
            prefix=prefix,
            stdin=files,
            timeout=900,
        )
        say("I: committing the image...", prefix)
        podman(
            "commit",
            "-q",
            "--pause=false",
            *_labels(plan.release),
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
    releases = {plan.release for plan in plans}
    for image in ours("images"):
        # A young image may belong to a run that has not started its containers yet.
        old = time.time() - image.get("Created", 0) > _YOUNG_SECONDS
        release = (image.get("Labels") or {}).get(LABEL_RELEASE)
        if old and release in releases and image.get("Names") and not wanted.intersection(image["Names"]):
            podman("rmi", image["Id"], what=f"remove the old image {image['Id'][:12]}", check=False)
