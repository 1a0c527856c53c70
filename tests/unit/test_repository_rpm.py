# SPDX-License-Identifier: Apache-2.0
"""Adding a vendor's repository to dnf: what is written, what is switched off, which keys rpm gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.openpgp_samples import FINGERPRINT_ONE, ONE, TWO

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.openpgp import armour, certificates, dearmor
from ansible.module_utils.rackwright.repository import Wish, repository_key, wish_from_options
from ansible.module_utils.rackwright.repository_rpm import apply, entry, keyring_path, source_path

URL = "https://mirror.test/cuda/rhel9/x86_64/"
NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos/"
KEY = dearmor(ONE, "")
CUDA = f"""\
# by hand
[cuda-rhel9-x86_64]
name=cuda
baseurl={NVIDIA}rhel9/x86_64
enabled=1
gpgcheck=0

[other]
baseurl=https://other.test/
enabled=1
"""


class Rpm:
    """rpm's database of keys."""

    def __init__(self, *known: str, refuse: bool = False) -> None:
        self.known, self.refuse, self.imported = list(known), refuse, list[str]()

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        if command[0] == "rpmkeys":
            if self.refuse:
                return 1, "", "error: key 1 import failed.\n"
            self.imported.append(command[-1])
            self.known.append(FINGERPRINT_ONE[-8:].lower())
            return 0, "", ""
        return (0, "".join(f"{one}\n" for one in self.known), "") if self.known else (1, "not installed\n", "")


def wish(**options: Any) -> Wish:
    return wish_from_options({"name": "nvidia-cuda", "url": URL, "replaces": [NVIDIA], **options}, "gpu-a")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "etc/yum.repos.d"
    folder.mkdir(parents=True)
    (folder / "cuda.repo").write_text(CUDA, encoding="utf-8")
    return tmp_path


def test_a_key_survives_its_armour() -> None:
    assert dearmor(armour(KEY), "") == KEY
    assert armour(KEY).startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert certificates(armour(KEY), "")[0].fingerprint == FINGERPRINT_ONE


def test_key_entry_and_import_then_nothing(root: Path) -> None:
    rpm = Rpm()
    outcome = apply(wish(), KEY, False, root, rpm)
    assert outcome.changed
    assert outcome.files == [
        "/etc/pki/rpm-gpg/RPM-GPG-KEY-rackwright-nvidia-cuda",
        "/etc/yum.repos.d/rackwright-nvidia-cuda.repo",
    ]
    assert keyring_path(root, "nvidia-cuda").read_bytes() == armour(KEY)
    assert source_path(root, "nvidia-cuda").read_text(encoding="utf-8") == (
        "# Managed by Rackwright; changes are overwritten.\n[rackwright-nvidia-cuda]\n"
        f"name=nvidia-cuda (Rackwright)\nbaseurl={URL}\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\n"
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-rackwright-nvidia-cuda\nskip_if_unavailable=0\n"
    )
    assert rpm.imported == [str(keyring_path(root, "nvidia-cuda"))]
    assert not apply(wish(), KEY, False, root, rpm).changed
    assert len(rpm.imported) == 1


def test_the_installed_key_is_taken_again_without_fetching_it(root: Path) -> None:
    apply(wish(), KEY, False, root, Rpm())
    options = {"key_url": f"{URL}D42D0685.pub", "fingerprint": FINGERPRINT_ONE}
    key = repository_key(options, "gpu-a", keyring_path(root, "nvidia-cuda"))
    assert not apply(wish(), key, False, root, Rpm(FINGERPRINT_ONE[-8:].lower())).changed


def test_other_entries_of_the_repository_are_switched_off_and_nothing_else(root: Path) -> None:
    outcome = apply(wish(), KEY, False, root)
    assert outcome.disabled == ["/etc/yum.repos.d/cuda.repo: cuda-rhel9-x86_64"]
    assert (root / "etc/yum.repos.d/cuda.repo").read_text(encoding="utf-8") == CUDA.replace("enabled=1", "enabled=0", 1)
    assert apply(wish(), KEY, False, root).disabled == []


def test_http_and_https_name_the_same_repository(root: Path) -> None:
    text = f"[mine]\nbaseurl=http://{URL.partition('://')[2].rstrip('/')}\n"
    (root / "etc/yum.repos.d/cuda.repo").write_text(text, encoding="utf-8")
    assert apply(wish(), KEY, True, root).disabled == ["/etc/yum.repos.d/cuda.repo: mine"]


def test_check_mode_says_the_same_and_writes_nothing(root: Path) -> None:
    rpm = Rpm()
    outcome = apply(wish(), KEY, True, root, rpm)
    assert [row["after_header"] for row in outcome.diff] == [
        "/etc/yum.repos.d/cuda.repo",
        str(keyring_path(root, "nvidia-cuda")),
        "/etc/yum.repos.d/rackwright-nvidia-cuda.repo",
        "rpm's keys",
    ]
    assert not source_path(root, "nvidia-cuda").exists()
    assert rpm.imported == []


def test_another_key_is_written_and_imported(root: Path) -> None:
    apply(wish(), dearmor(TWO, ""), False, root, Rpm())
    rpm = Rpm("00000000")
    assert apply(wish(), KEY, False, root, rpm).changed
    assert rpm.imported == [str(keyring_path(root, "nvidia-cuda"))]


@pytest.mark.parametrize("known", [FINGERPRINT_ONE[-8:].lower(), FINGERPRINT_ONE[-16:], FINGERPRINT_ONE.lower()])
def test_a_key_rpm_has_is_not_imported_again(root: Path, known: str) -> None:
    rpm = Rpm(known)
    apply(wish(), KEY, False, root, rpm)
    assert rpm.imported == []


def test_a_key_that_rpm_refuses_is_an_error(root: Path) -> None:
    with pytest.raises(RackwrightError, match=r"Could not import the signing key on \S+: error: key 1 import failed"):
        apply(wish(), KEY, False, root, Rpm(refuse=True))


def test_unsigned_metadata_only_where_the_caller_says_so() -> None:
    assert "repo_gpgcheck=0\n" in entry(wish(signed_metadata=False), "/key")
    assert "repo_gpgcheck=1\n" in entry(wish(signed_metadata=True), "/key")
    assert "gpgcheck=1\n" in entry(wish(signed_metadata=False), "/key")


def test_a_repository_goes_with_its_key(root: Path) -> None:
    apply(wish(), KEY, False, root)
    outcome = apply(wish(state="absent"), None, False, root)
    assert outcome.changed
    assert not source_path(root, "nvidia-cuda").exists()
    assert not keyring_path(root, "nvidia-cuda").exists()
    assert not apply(wish(state="absent"), None, False, root).changed
