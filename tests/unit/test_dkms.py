# SPDX-License-Identifier: Apache-2.0
"""What DKMS says of a module, and the first error of build logs of kernels, compilers and NVIDIA's own checks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible.module_utils.rackwright.dkms import build_log, first_error, latest_log, module_states, parse_dkms

KERNEL = "6.1.0-56-amd64"
TREE = "/var/lib/dkms/nvidia-current-open/535.261.03/build"
HEAD_30 = (
    f"DKMS make.log for nvidia-current-open-535.261.03 for kernel {KERNEL} (x86_64)\nMon Nov 23 10:00:00 UTC 2026\n"
)
HEAD_32 = f"DKMS (dkms-3.2.2) make.log for nvidia/580.65.06 for kernel {KERNEL} (x86_64)\n"

# the open module of branch 535 on the headers of Debian's 6.1.192, shortened
TOO_FEW = f"""{HEAD_30}make -C /lib/modules/{KERNEL}/build M={TREE} modules
warning: the compiler differs from the one used to build the kernel
  The kernel was built by: gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0
  You are using:           gcc (Debian 12.2.0-14+deb12u1) 12.2.0
  CC [M]  {TREE}/nvidia/nv-pci.o
{TREE}/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':
{TREE}/nvidia/nv-pci.c:223:9: error: too few arguments to function 'pci_resize_resource'
  223 |     r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);
make[3]: *** [/usr/src/linux-headers-6.1.0-56-common/scripts/Makefile.build:255: nv-pci.o] Error 1
make[1]: *** [/usr/src/linux-headers-6.1.0-56-common/Makefile:2043: {TREE}] Error 2
"""
CC_CHECK = f"""{HEAD_32}
Building module(s)
# command: 'make' -j8 KERNEL_UNAME={KERNEL} modules
Compiler version check failed:

The major and minor number of the compiler used to
compile the kernel:

x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0

does not match the compiler used here:

cc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0
*** Failed CC version check. Bailing out! ***
make: *** [Makefile:10: modules] Error 1
"""
OLD_OPTION = f"""{HEAD_30}  CC [M]  /var/lib/dkms/nvidia/535.129.03/build/nvidia/nv.o
cc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'
make[2]: *** [scripts/Makefile.build:243: nv.o] Error 1
"""
NO_HEADERS = f"""{HEAD_30}make: Entering directory '/var/lib/dkms/nvidia/580.65.06/build'
make: *** /lib/modules/{KERNEL}/build: No such file or directory.  Stop.
"""
INVALID = f"""{HEAD_30}  ERROR: Kernel configuration is invalid.
         include/generated/autoconf.h or include/config/auto.conf are missing.
make[1]: *** [/usr/src/linux-headers-{KERNEL}/Makefile:735: include/config/auto.conf] Error 1
"""
SPACE = f"""{HEAD_30}  CC [M]  /var/lib/dkms/nvidia/580.65.06/build/nvidia/nv-acpi.o
/var/lib/dkms/nvidia/580/build/nvidia/nv-acpi.c:1: fatal error: error writing to /tmp/ccXYZ.s: No space left on device
compilation terminated.
make[2]: *** [scripts/Makefile.build:250: nv-acpi.o] Error 1
"""
MEMORY = f"""{HEAD_32}gcc: fatal error: Killed signal terminated program cc1
compilation terminated.
"""
GPL = f"""{HEAD_32}  MODPOST /var/lib/dkms/nvidia/470.256.02/build/Module.symvers
ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_lock_strict'
make[3]: *** [scripts/Makefile.modpost:133: Module.symvers] Error 1
"""
SIGNING = f"""{HEAD_30}# command: sign
At main.c:160:
- SSL error:0200100D:system library:fopen:Permission denied: crypto/bio/bss_file.c:69
sign-file: /var/lib/dkms/mok.key: No such file or directory
"""
UNDEFINED = f'{HEAD_30}ERROR: modpost: "drm_gem_prime_handle_to_fd" [/b/nvidia-drm.ko] undefined!\n'
DIFFERS = f"""{HEAD_30}warning: the compiler differs from the one used to build the kernel
  You are using:           gcc (GCC) 8.5.0
"""


@pytest.mark.parametrize(
    ("log", "kind", "line"),
    [
        (TOO_FEW, "compile", "nvidia/nv-pci.c:223:9: error: too few arguments to function 'pci_resize_resource'"),
        (CC_CHECK, "compiler", "Compiler version check failed:"),
        (OLD_OPTION, "compiler", "cc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'"),
        (NO_HEADERS, "headers", f"make: *** /lib/modules/{KERNEL}/build: No such file or directory.  Stop."),
        (INVALID, "headers", "ERROR: Kernel configuration is invalid."),
        (
            SPACE,
            "space",
            "nvidia/nv-acpi.c:1: fatal error: error writing to /tmp/ccXYZ.s: No space left on device",
        ),
        (MEMORY, "memory", "gcc: fatal error: Killed signal terminated program cc1"),
        (
            GPL,
            "licence",
            "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_lock_strict'",
        ),
        (SIGNING, "key", "- SSL error:0200100D:system library:fopen:Permission denied: crypto/bio/bss_file.c:69"),
        (UNDEFINED, "compile", 'ERROR: modpost: "drm_gem_prime_handle_to_fd" [/b/nvidia-drm.ko] undefined!'),
        (DIFFERS, "compiler", "warning: the compiler differs from the one used to build the kernel"),
        (
            f"{HEAD_30}make[1]: *** No rule to make target 'x'.  Stop.\n",
            "make",
            "make[1]: *** No rule to make target 'x'.  Stop.",
        ),
    ],
)
def test_first_error(log: str, kind: str, line: str) -> None:
    error = first_error(log)

    assert error is not None
    assert (error.kind, error.line) == (kind, line)
    assert error.next_step


def test_a_log_without_an_error_names_none() -> None:
    assert first_error(f"{HEAD_30}  CC [M]  nv.o\n  LD [M]  nvidia.ko\n") is None


def test_a_line_without_end_is_cut() -> None:
    error = first_error(f"x.c:1:1: error: {'y' * 400}")

    assert error is not None
    assert (len(error.line), error.line[-3:]) == (200, "...")


STATUS = f"""\
nvidia-current/535.309.01, {KERNEL}, x86_64: installed
nvidia-current/535.309.01, 6.1.0-50-amd64, x86_64: built
nvidia-current/535.261.03, 6.1.0-49-amd64, x86_64: installed
nvidia-current/535.309.01, 6.1.0-48-amd64, x86_64: installed (WARNING! Missing some built modules!)
nvidia-fs/2.26, 6.1.0-49-amd64, x86_64: installed
"""


def test_state_for_each_kernel() -> None:
    kernels = [KERNEL, "6.1.0-50-amd64", "6.1.0-49-amd64", "6.1.0-48-amd64"]

    assert list(module_states(parse_dkms(STATUS), kernels, "535.309.01").values()) == [
        "installed",
        "built",
        "added",
        "incomplete",
    ]
    assert module_states([], ["k"], "535.309.01") == {"k": "missing"}


@pytest.mark.parametrize(
    ("line", "kernel", "state"),
    [
        ("nvidia/580.65.06: added", None, "added"),
        ("nvidia, 580.65.06: added", None, "added"),
        ("nvidia, 580.65.06, 5.15.0-100-generic, x86_64: installed", "5.15.0-100-generic", "installed"),
        ("nvidia/580.65.06, 6.1.0-56-amd64, x86_64: installed (original_module exists)", KERNEL, "installed"),
        (
            "nvidia/580.65.06, 5.14.0-570.el9.x86_64, x86_64: installed-weak from 5.14.0-503.el9.x86_64",
            "5.14.0-570.el9.x86_64",
            "installed",
        ),
        ("nvidia/580.65.06, 6.1.0-56-amd64, x86_64: built (Missing some built modules)", KERNEL, "incomplete"),
    ],
)
def test_lines_of_old_and_new_versions(line: str, kernel: str | None, state: str) -> None:
    (row,) = parse_dkms(f"Deprecated feature: REMAKE_INITRD (/var/lib/dkms/nvidia/580.65.06/source/dkms.conf)\n{line}")

    assert (row["module"], row["version"], row["kernel"], row["state"]) == ("nvidia", "580.65.06", kernel, state)


def log_file(root: Path, module: str, version: str, text: str) -> Path:
    path = root / f"var/lib/dkms/{module}/{version}/build/make.log"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_log_of_another_kernel_says_nothing(tmp_path: Path) -> None:
    log_file(tmp_path, "nvidia-current-open", "535.261.03", TOO_FEW)

    found = build_log(tmp_path, "535.261.03", KERNEL)
    assert found == (f"{TREE}/make.log", TOO_FEW)
    assert build_log(tmp_path, "535.261.03", "6.1.0-50-amd64") is None
    assert build_log(tmp_path, "535.309.01", KERNEL) is None


def test_the_youngest_log_counts(tmp_path: Path) -> None:
    assert latest_log(tmp_path) is None
    os.utime(log_file(tmp_path, "nvidia", "570.211.01", SPACE), (1, 1))
    log_file(tmp_path, "nvidia", "580.65.06", CC_CHECK)

    path = "/var/lib/dkms/nvidia/580.65.06/build/make.log"
    assert latest_log(tmp_path) == ("580.65.06", KERNEL, path, CC_CHECK)
    assert latest_log(tmp_path, since=2**40) is None
