# SPDX-License-Identifier: Apache-2.0
"""The script that runs in the base image and makes a node of it."""

from __future__ import annotations

from .vendor import el_base

BUILD_PACKAGES = ("gcc", "libc6-dev", "make")

_BEGIN = """
set -eu
export DEBIAN_FRONTEND=noninteractive
tar -C / -xf -
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/0000*
id rackwright >/dev/null 2>&1 || useradd --create-home --shell /bin/bash rackwright
update-ca-certificates >/dev/null 2>&1
"""

# Package lists stay in the image: a real server has them, and check mode on a clean node needs them.
_DEBIAN = """
apt-get -qq update --error-on=any
echo "I: compiling the simulated NVML"
apt-get -qq install -y --no-install-recommends BUILD_PACKAGES >/dev/null
make -s --no-print-directory -C /src/tests/simnvml install DESTDIR= >/src/log 2>&1 || { tail -20 /src/log; exit 1; }
apt-get -qq purge -y --auto-remove BUILD_PACKAGES >/dev/null
""".replace("BUILD_PACKAGES", " ".join(BUILD_PACKAGES))

# Debian's own kernel headers serve every stand-in of a kernel; apt and dpkg go, so that nothing finds two package
# managers. What a server has from the start is put into RPM's database.
_REDHAT = """
echo "I: compiling the simulated NVML"
make -s --no-print-directory -C /src/tests/simnvml install DESTDIR= >/src/log 2>&1 || { tail -20 /src/log; exit 1; }
mkdir -p /opt/rackwright
ln -s "$(ls -d /usr/src/linux-headers-*-amd64 | sort -V | tail -n1)" HEADERS
rm -rf /lib/modules/* /etc/debian_version /etc/apt /var/lib/apt /boot/vmlinuz* /boot/config*
rpmkeys --import /srv/vendor/el/RPM-GPG-KEY-el
dnf -q -y install INSTALLED >/dev/null
dnf -q makecache >/dev/null
mv /var/lib/dpkg /opt/rackwright/dpkg
rm -f /usr/bin/apt /usr/bin/apt-* /usr/bin/dpkg /usr/bin/dpkg-*
"""

_END = """
ldconfig
rm -rf /src /var/cache/apt/*.bin /var/log/apt/* /etc/ssh/ssh_host_* /root/.cache
systemctl disable apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1 || true
systemctl disable dnf-makecache.timer >/dev/null 2>&1 || true
systemctl mask getty.target console-getty.service systemd-networkd-wait-online.service >/dev/null 2>&1
systemctl enable ssh.service >/dev/null 2>&1
# Otherwise the first boot runs ldconfig and others again, at the same time as what else calls them.
if [ -x /usr/lib/systemd/systemd-update-done ]; then /usr/lib/systemd/systemd-update-done; fi
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
"""


def setup_script(major: int | None = None) -> str:
    """The script for a Debian node, or for one of RHEL `major`."""
    if major is None:
        return _BEGIN + _DEBIAN + _END
    first = el_base.KERNELS[major][0]
    names = [f"{name}-{first}" if name.startswith("kernel") else name for name in el_base.INSTALLED]
    return _BEGIN + _REDHAT.replace("HEADERS", el_base.HEADERS).replace("INSTALLED", " ".join(names)) + _END
