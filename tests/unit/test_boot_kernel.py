# SPDX-License-Identifier: Apache-2.0
"""Which kernel the next boot takes, by the files of each boot loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible.module_utils.rackwright import boot_kernel
from ansible.module_utils.rackwright.boot_kernel import kernel_that_boots
from ansible.module_utils.rackwright.host import kernels_of

OLD, NEW = "6.1.0-50-amd64", "6.1.0-56-amd64"
EL_OLD, EL_NEW = "5.14.0-503.40.1.el9_5.x86_64", "5.14.0-570.12.1.el9_6.x86_64"
UUID = "2d7c1a3e-0b52-4d3f-9a42-7a4a8b0f6a11"
MACHINE = "4d5f2c0e8f9a4a0bb1c2d3e4f5a6b7c8"

# as update-grub of Debian 12 writes it, shortened
GRUB_CFG = """\
set have_grubenv=true
load_env
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="{default}"
fi
function load_video {{
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  fi
}}
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-{uuid}' {{
\tload_video
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tlinux\t/boot/vmlinuz-{new} root=UUID={uuid} ro  quiet
\tinitrd\t/boot/initrd.img-{new}
}}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-{uuid}' {{
\tmenuentry 'Debian GNU/Linux, with Linux {new}' --class os $menuentry_id_option 'gnulinux-{new}-advanced-{uuid}' {{
\t\tlinux\t/boot/vmlinuz-{new} root=UUID={uuid} ro  quiet
\t}}
\tmenuentry 'Debian GNU/Linux, with Linux {old}' --class os $menuentry_id_option 'gnulinux-{old}-advanced-{uuid}' {{
\t\tlinux\t/vmlinuz-{old} root=UUID={uuid} ro  quiet
\t}}
}}
menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {{
\tfwsetup
}}
"""


def grub(default: str) -> str:
    return GRUB_CFG.format(default=default, uuid=UUID, old=OLD, new=NEW)


def bls(kernel: str) -> str:
    return f"title Rocky Linux ({kernel})\nversion {kernel}\nlinux /vmlinuz-{kernel}\ninitrd /initramfs-{kernel}.img\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("default", "environment", "kernel"),
    [
        ("0", "", NEW),
        ("1>1", "", OLD),
        ("1", "", NEW),  # a submenu starts its first entry
        (f"Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {OLD}", "", OLD),
        (f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}", "", OLD),
        ("${saved_entry}", "", NEW),
        ("${saved_entry}", f"saved_entry=gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}\n", OLD),
        # grub-reboot: once, and before everything else
        ("0", "next_entry=1>1\n", OLD),
        # an entry that is gone, or starts no kernel: the newest
        ("Debian GNU/Linux, with Linux 6.1.0-49-amd64", "", NEW),
        ("uefi-firmware", "", NEW),
    ],
)
def test_grub(tmp_path: Path, default: str, environment: str, kernel: str) -> None:
    files = {"boot/grub/grub.cfg": grub(default), "boot/grub/grubenv": f"# GRUB Environment Block\n{environment}#####"}

    assert kernel_that_boots(write(tmp_path, files), [OLD, NEW])[0] == kernel


@pytest.mark.parametrize(
    ("environment", "kernel"),
    [
        ("", EL_NEW),
        (f"saved_entry={MACHINE}-{EL_NEW}\n", EL_NEW),
        (f"saved_entry={MACHINE}-{EL_OLD}\nboot_success=1\n", EL_OLD),
        ("saved_entry=1\n", EL_OLD),
        (f"saved_entry={MACHINE}-5.14.0-1.el9.x86_64\n", EL_NEW),
    ],
)
def test_boot_loader_specification(tmp_path: Path, environment: str, kernel: str) -> None:
    files = {f"boot/loader/entries/{MACHINE}-{name}.conf": bls(name) for name in (EL_OLD, EL_NEW)}
    files[f"boot/loader/entries/{MACHINE}-0-rescue.conf"] = bls(f"0-rescue-{MACHINE}")
    files["boot/grub2/grubenv"] = f"# GRUB Environment Block\n{environment}kernelopts=root=/dev/sda1\n"

    assert kernel_that_boots(write(tmp_path, files), [EL_OLD, EL_NEW])[0] == kernel


def test_the_link_of_debian_where_there_is_no_boot_menu(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").symlink_to(f"boot/vmlinuz-{OLD}")

    assert kernel_that_boots(tmp_path, [OLD, NEW]) == (OLD, "the link /vmlinuz")


def test_without_any_boot_loader_it_is_the_newest(tmp_path: Path) -> None:
    assert kernel_that_boots(tmp_path, [OLD, NEW]) == (NEW, "the newest one that is installed")
    assert kernel_that_boots(tmp_path, []) == (None, "no kernel is installed")


def test_a_choice_that_only_root_may_read_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"boot/grub/grub.cfg": grub("1>1")})
    monkeypatch.setattr(boot_kernel.os, "access", lambda path, mode: False)

    release, reason = kernel_that_boots(tmp_path, [OLD, NEW])
    assert (release, reason) == (None, "/boot/grub/grub.cfg cannot be read as an unprivileged user")


def test_the_source_names_file_and_entry(tmp_path: Path) -> None:
    write(tmp_path, {"boot/grub/grub.cfg": grub("1>1")})

    assert kernel_that_boots(tmp_path, [OLD, NEW])[1] == "default entry 1>1 of /boot/grub/grub.cfg"


def test_host_record_names_the_kernel_that_boots(tmp_path: Path) -> None:
    files = {f"boot/vmlinuz-{OLD}": "", f"lib/modules/{OLD}/modules.dep": ""}
    write(tmp_path, files)

    machine, container = kernels_of(tmp_path, None, "6.18"), kernels_of(tmp_path, "podman", "6.18")

    assert (machine["boots"], machine["installed"], machine["images"]) == (OLD, [OLD], [OLD])
    assert (container["boots"], container["installed"], container["images"]) == (None, [], [OLD])
    assert "belongs to the host" in container["boots_reason"]
