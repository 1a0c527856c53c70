# SPDX-License-Identifier: Apache-2.0
"""Debian nodes that wear another system's identity: os-release, release files and, for the RHEL family, dnf and rpm.

Kernel, C library, Python and every program remain Debian's. Facts, package names and the package manager are the
other system's; a test on such a node says so in its name.
"""

from __future__ import annotations

from dataclasses import dataclass

# what a RHEL-like node has beside the usual packages: dnf and rpm, and what builds a kernel module for real
EL_PACKAGES = (
    "dnf",
    "dnf-plugins-core",
    "python3-dnf",
    "rpm",
    "gcc",
    "libc6-dev",
    "make",
    "patch",
    "linux-headers-amd64",
    "xz-utils",
)


@dataclass(frozen=True)
class Identity:
    """One system: `family` is redhat or debian, `codename` what its release files call it."""

    family: str
    id: str
    name: str
    version: str
    codename: str
    like: str

    @property
    def major(self) -> int:
        """9 of 9.7."""
        return int(self.version.partition(".")[0])

    @property
    def redhat(self) -> bool:
        """Whether dnf is the package manager."""
        return self.family == "redhat"

    def files(self) -> dict[str, str]:
        """Release files, by path without the leading slash."""
        return self._redhat_files() if self.redhat else self._ubuntu_files()

    def _os_release(self, *more: str) -> str:
        lines = [
            f'NAME="{self.name}"',
            f'VERSION="{self.version} ({self.codename})"',
            f'ID="{self.id}"',
            f'ID_LIKE="{self.like}"',
            f'VERSION_ID="{self.version}"',
            f'PRETTY_NAME="{self.name} {self.version} ({self.codename})"',
            'VARIANT="Rackwright test node: Debian under this identity"',
            *more,
        ]
        return "\n".join(lines) + "\n"

    def _redhat_files(self) -> dict[str, str]:
        line = f"{self.name} release {self.version} ({self.codename})\n"
        own = {"rocky": "rocky-release", "almalinux": "almalinux-release", "rhel": "redhat-release"}[self.id]
        key = "gpgcheck=1\ngpgkey=file:///srv/vendor/el/RPM-GPG-KEY-el\n"
        base = f"file:///srv/vendor/el/{self.major}"
        # CodeReady Builder has had another name before RHEL 9
        builder = "powertools" if self.major == 8 else "crb"
        repos = "".join(
            f"[{name}]\nname={self.name} {self.major} - {name} (stand-in)\nbaseurl={base}/{folder}/x86_64/\n"
            f"enabled={enabled}\n{key}\n"
            for name, folder, enabled in (("baseos", "baseos", 1), (builder, "crb", 0))
        )
        return {
            "usr/lib/os-release": self._os_release(f'PLATFORM_ID="platform:el{self.major}"'),
            **dict.fromkeys(("etc/redhat-release", "etc/system-release", f"etc/{own}"), line),
            f"etc/yum.repos.d/{self.id}.repo": repos,
            "etc/dnf/vars/releasever": f"{self.major}\n",
            "etc/dnf/dnf.conf": (
                "[main]\ngpgcheck=1\ninstallonly_limit=3\nclean_requirements_on_remove=True\nbest=True\n"
                f"skip_if_unavailable=False\nmodule_platform_id=platform:el{self.major}\n"
            ),
            # Debian switches on a plugin that copies every package; RHEL has it off
            "etc/dnf/plugins/local.conf": "[main]\nenabled = false\n",
            # RHEL enables no unit that a preset does not name
            "usr/lib/systemd/system-preset/99-default-disable.preset": "disable *\n",
            # RHEL keeps its libraries where Debian's loader does not look
            "etc/ld.so.conf.d/zz-lib64.conf": "/usr/lib64\n",
        }

    def _ubuntu_files(self) -> dict[str, str]:
        release = f"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE={self.version}\nDISTRIB_CODENAME={self.codename}\n"
        text = f'DISTRIB_DESCRIPTION="Ubuntu {self.version} LTS"\n'
        own = (f"VERSION_CODENAME={self.codename}", f"UBUNTU_CODENAME={self.codename}")
        return {
            "usr/lib/os-release": self._os_release(*own),
            "etc/lsb-release": release + text,
        }


IDENTITIES = {
    "rocky8": Identity("redhat", "rocky", "Rocky Linux", "8.10", "Green Obsidian", "rhel centos fedora"),
    "almalinux8": Identity("redhat", "almalinux", "AlmaLinux", "8.10", "Cerulean Leopard", "rhel centos fedora"),
    "rhel8": Identity("redhat", "rhel", "Red Hat Enterprise Linux", "8.10", "Ootpa", "fedora"),
    "rocky9": Identity("redhat", "rocky", "Rocky Linux", "9.6", "Blue Onyx", "rhel centos fedora"),
    "rocky10": Identity("redhat", "rocky", "Rocky Linux", "10.0", "Red Quartz", "rhel centos fedora"),
    "almalinux9": Identity("redhat", "almalinux", "AlmaLinux", "9.6", "Sage Margay", "rhel centos fedora"),
    "almalinux10": Identity("redhat", "almalinux", "AlmaLinux", "10.0", "Purple Lion", "rhel centos fedora"),
    "rhel9": Identity("redhat", "rhel", "Red Hat Enterprise Linux", "9.6", "Plow", "fedora"),
    "rhel10": Identity("redhat", "rhel", "Red Hat Enterprise Linux", "10.0", "Coughlan", "centos fedora"),
    "ubuntu2204": Identity("debian", "ubuntu", "Ubuntu", "22.04", "jammy", "debian"),
    "ubuntu2404": Identity("debian", "ubuntu", "Ubuntu", "24.04", "noble", "debian"),
}
