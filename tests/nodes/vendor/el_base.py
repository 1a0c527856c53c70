# SPDX-License-Identifier: Apache-2.0
"""The distribution under the EL identity: stand-ins of the packages that roles ask for, in repositories of their names.

Every package here is a stand-in: its program comes with the node's Debian, or it does nothing. The kernels have no
image and no modules of their own; their headers are Debian's, so the real DKMS builds a module "for" them. dkms is
Debian 13's program, unchanged. Versions are of the shape that RHEL has; none is claimed to be a release.
"""

from __future__ import annotations

from . import real_dkms
from .model import Package

HEADERS = "/opt/rackwright/kernel-headers"
# newest last; a node starts with the first
KERNELS = {
    8: ("4.18.0-553.el8_10", "4.18.0-553.30.1.el8_10"),
    9: ("5.14.0-570.12.1.el9_6", "5.14.0-611.5.1.el9_7"),
    10: ("6.12.0-55.9.1.el10_0", "6.12.0-124.8.1.el10_1"),
}
# in the node from the start, as on an installed server
INSTALLED = (
    "bash",
    "systemd",
    "sudo",
    "openssh-server",
    "python3",
    "python3-libs",
    "dnf",
    "rpm",
    "iproute",
    "kmod",
    "pciutils",
    "ca-certificates",
    "procps-ng",
    "linux-firmware",
    "kernel",
    "kernel-core",
    "kernel-modules",
    "dracut",
)
# what roles install from the distribution
_BASE = (
    "gcc",
    "gcc-c++",
    "make",
    "patch",
    "cmake",
    "git",
    "chrony",
    "tar",
    "elfutils-libelf-devel",
    "python3-dnf-plugin-versionlock",
    "dnf-plugins-core",
    "dnf-automatic",
    "infiniband-diags",
    "mokutil",
    "python3-rpm",
    "python3.11",
    "python3.12",
    "vim-minimal",
    "tree",
)
_CRB = ("opencl-headers", "ocl-icd-devel")


def baseos(major: int) -> list[Package]:
    """BaseOS and AppStream in one."""
    release = f"1.el{major}"
    found = [_plain(name, release) for name in (*INSTALLED, *_BASE) if not name.startswith("kernel")]
    found = [package for package in found if package.name not in ("bash", "chrony")]
    found.append(Package("bash", f"5-{release}", provides=("/bin/sh", "/usr/bin/sh", "/bin/bash")))
    found.append(Package("chrony", f"4-{release}", scripts=_chrony()))
    for kernel in KERNELS[major]:
        found += _kernel(kernel)
    found.append(_epel_release(major))
    return found


def crb(major: int) -> list[Package]:
    """CodeReady Builder."""
    return [_plain(name, f"1.el{major}") for name in _CRB]


def epel(major: int) -> list[Package]:
    """EPEL: dkms."""
    dkms = real_dkms.package()
    version = dkms.version.rpartition(":")[2].partition("-")[0]
    return [
        Package(
            "dkms",
            f"{version}-1.el{major}",
            arch="noarch",
            summary="Dynamic Kernel Module System, Debian's own",
            depends=("kernel-devel", "gcc", "make", "patch"),
            files=dkms.files,
            links=dkms.links,
            scripts={"post": "mkdir -p /var/lib/dkms\n"},
        )
    ]


def _plain(name: str, release: str) -> Package:
    return Package(name, f"1-{release}", summary=f"stand-in of {name}")


def _chrony() -> dict[str, str]:
    # The node's Debian has no chrony; what can be told is that the unit is there and does nothing.
    return {
        "post": (
            "mkdir -p /usr/lib/systemd/system\n"
            "printf '[Unit]\\nDescription=stand-in of chronyd\\n[Service]\\nExecStart=/bin/sleep infinity\\n"
            "[Install]\\nWantedBy=multi-user.target\\n' > /usr/lib/systemd/system/chronyd.service\n"
            "[ -d /run/systemd/system ] && systemctl daemon-reload || :\n"
        )
    }


def _kernel(version: str) -> list[Package]:
    uname = f"{version}.x86_64"
    core = f"kernel-core = {version}"
    build = {
        f"lib/modules/{uname}/modules.builtin": b"",
        f"boot/vmlinuz-{uname}": b"stand-in of the Rackwright test nodes\n",
    }
    # RPM's own database would say that /lib is a folder; on the node it is a link to usr/lib
    build = {path.replace("lib/modules", "usr/lib/modules", 1): data for path, data in build.items()}
    uname_r = (f"kernel-uname-r = {uname}",)
    return [
        Package(
            "kernel-core",
            version,
            provides=uname_r,
            files=build,
            links={f"usr/lib/modules/{uname}/build": f"/usr/src/kernels/{uname}"},
        ),
        Package("kernel-modules", version, depends=(core,)),
        Package("kernel", version, depends=(core, f"kernel-modules = {version}")),
        Package(
            "kernel-devel",
            version,
            provides=(f"kernel-devel-uname-r = {uname}", "installonlypkg(kernel)"),
            links={f"usr/src/kernels/{uname}": HEADERS},
            scripts={"posttrans": _autoinstall(uname)},
        ),
        Package("kernel-devel-matched", version, depends=(core, f"kernel-devel = {version}")),
        Package("kernel-headers", version),
    ]


def _autoinstall(uname: str) -> str:
    # kernel-install does this on a real node, for every module that DKMS knows
    return f"[ -x /usr/sbin/dkms ] && dkms autoinstall -k {uname} >/dev/null 2>&1 || :\n"


def _epel_release(major: int) -> Package:
    path = "etc/yum.repos.d/epel.repo"
    text = (
        f"[epel]\nname=Extra Packages for Enterprise Linux {major} (stand-in)\n"
        f"baseurl=file:///srv/vendor/el/{major}/epel/x86_64/\nenabled=1\ngpgcheck=1\n"
        "gpgkey=file:///srv/vendor/el/RPM-GPG-KEY-el\n"
    )
    return Package(
        "epel-release", f"{major}-1.el{major}", arch="noarch", files={path: text.encode()}, config=(f"/{path}",)
    )
