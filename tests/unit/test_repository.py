# SPDX-License-Identifier: Apache-2.0
"""Adding a vendor's repository: which key is trusted, what is written, what of others is switched off."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.openpgp_samples import FINGERPRINT_ONE, FINGERPRINT_TWO, ONE, TWO

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.openpgp import dearmor
from ansible.module_utils.rackwright.repository import Wish, obtain_key, repository_key, wish_from_options
from ansible.module_utils.rackwright.repository_apt import apply, keyring_path, source_path

URL = "https://mirror.test/cuda/debian12/x86_64/"
NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos/"
KEY = dearmor(ONE, "")


def options(**values: Any) -> dict[str, Any]:
    return {"name": "nvidia-cuda", "format": "deb", "url": URL, "key_url": f"{URL}3bf863cc.pub", **values}


def answers(data: bytes) -> Callable[[str], bytes]:
    return lambda _url: data


def nobody(url: str) -> bytes:
    raise AssertionError(f"{url} was fetched")


def obtain(
    key: bytes | None, fingerprint: str | None, get: Callable[[str], bytes], ring: Path, key_id: str | None = None
) -> bytes:
    return obtain_key(key, f"{URL}key", fingerprint, key_id, ring, "gpu-a", get)


def test_the_key_with_the_fingerprint_is_taken_and_no_other_beside_it(tmp_path: Path) -> None:
    assert obtain(None, FINGERPRINT_ONE, answers(ONE + TWO), tmp_path / "none") == KEY


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    sentence = (
        f"^Could not trust the signing key on gpu-a: {URL}key has the fingerprint {FINGERPRINT_TWO}, "
        f"expected is {FINGERPRINT_ONE}. Find out who changed it"
    )
    with pytest.raises(InvalidInputError, match=sentence):
        obtain(None, FINGERPRINT_ONE, answers(TWO), tmp_path / "none")


@pytest.mark.parametrize(("key_id", "fits"), [(FINGERPRINT_ONE[-16:], True), ("D42D0685", False)])
def test_a_key_id_has_to_fit_too(key_id: str, fits: bool, tmp_path: Path) -> None:
    if fits:
        assert obtain(None, FINGERPRINT_ONE, answers(ONE), tmp_path / "none", key_id) == KEY
    else:
        with pytest.raises(InvalidInputError, match="expected is"):
            obtain(None, FINGERPRINT_ONE, answers(ONE), tmp_path / "none", key_id)


def test_without_a_fingerprint_a_fetched_key_is_never_trusted(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nobody has said which key signs .*Set stack_repository_key to its"):
        obtain(None, None, nobody, tmp_path / "none")


def test_a_key_that_was_given_is_trusted_as_it_is(tmp_path: Path) -> None:
    assert obtain(TWO, None, nobody, tmp_path / "none", "D42D0685") == dearmor(TWO, "")


def test_a_key_that_was_given_must_fit_a_fingerprint_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the given key has the fingerprint"):
        obtain(TWO, FINGERPRINT_ONE, nobody, tmp_path / "none")


def test_an_installed_keyring_that_fits_saves_the_download(tmp_path: Path) -> None:
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(KEY)
    assert obtain(None, FINGERPRINT_ONE, nobody, ring) == KEY
    ring.write_bytes(KEY + dearmor(TWO, ""))  # somebody added a key
    assert obtain(None, FINGERPRINT_ONE, answers(ONE), ring) == KEY
    ring.write_bytes(b"torn")
    assert obtain(None, FINGERPRINT_ONE, answers(ONE), ring) == KEY


def test_options_are_read(tmp_path: Path) -> None:
    key = repository_key(options(key=base64.b64encode(ONE).decode()), "gpu-a", tmp_path)
    assert key == KEY
    with pytest.raises(InvalidInputError, match="it is not base64"):
        repository_key(options(key="no base64!"), "gpu-a", tmp_path)
    assert wish_from_options(options(url=URL.rstrip("/")), "gpu-a").url == URL
    with pytest.raises(InvalidInputError, match=r"'mirror\.lan' is no URL"):
        wish_from_options(options(url="mirror.lan"), "gpu-a")


# -- apt --------------------------------------------------------------------------------------------------------------

OLD_LIST = (
    f"# cuda\ndeb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {NVIDIA}debian12/x86_64/ /\n"
    "deb http://mirror.test/debian bookworm main\n"
)
OTHER_SOURCES = (
    f"Types: deb\nURIs: {URL}\nSuites: /\nSigned-By: /etc/apt/keyrings/x.gpg\n\n"
    f"Types: deb\nURIs: http://a.test/ {URL.rstrip('/')}\nSuites: /\n\n"
    f"Types: deb\nURIs: {URL}\nSuites: /\nEnabled: no\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "usr/share/keyrings"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def wish(**values: Any) -> Wish:
    return Wish(**{"name": "nvidia-cuda", "url": URL, "replaces": [NVIDIA], **values})


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_keyring_and_entry_are_written_once(root: Path) -> None:
    first = apply(wish(), KEY, False, root)
    assert first.files == [
        "/usr/share/keyrings/rackwright-nvidia-cuda.gpg",
        "/etc/apt/sources.list.d/rackwright-nvidia-cuda.sources",
    ]
    assert first.changed
    assert keyring_path(root, "nvidia-cuda").read_bytes() == KEY
    assert keyring_path(root, "nvidia-cuda").stat().st_mode & 0o777 == 0o644
    assert source_path(root, "nvidia-cuda").read_text(encoding="utf-8") == (
        "# Managed by Rackwright; changes are overwritten.\n"
        f"Types: deb\nURIs: {URL}\nSuites: /\nSigned-By: /usr/share/keyrings/rackwright-nvidia-cuda.gpg\n"
    )
    again = apply(wish(), KEY, False, root)
    assert (again.changed, again.files) == (False, first.files)


def test_a_repository_with_suites_has_components(root: Path) -> None:
    apply(wish(options={"suite": "stable", "components": ["main"]}), KEY, False, root)
    assert "Suites: stable\nComponents: main\n" in source_path(root, "nvidia-cuda").read_text(encoding="utf-8")


def test_entries_of_the_same_repository_are_switched_off_and_others_stay(root: Path) -> None:
    listed, sources = root / "etc/apt/sources.list.d/cuda.list", root / "etc/apt/sources.list.d/other.sources"
    listed.write_text(OLD_LIST, encoding="utf-8")
    sources.write_text(OTHER_SOURCES, encoding="utf-8")

    outcome = apply(wish(), KEY, False, root)

    assert outcome.disabled == [
        f"/etc/apt/sources.list.d/cuda.list: {NVIDIA}debian12/x86_64/",
        f"/etc/apt/sources.list.d/other.sources: {URL}",
        f"/etc/apt/sources.list.d/other.sources: {URL.rstrip('/')}",
    ]
    lines = listed.read_text(encoding="utf-8").splitlines()
    assert lines[1].startswith("# switched off by Rackwright")
    assert lines[2] == "deb http://mirror.test/debian bookworm main"
    paragraphs = sources.read_text(encoding="utf-8").split("\n\n")
    assert paragraphs[0].endswith("\nEnabled: no")
    assert "URIs: http://a.test/\n" in paragraphs[1]
    assert "Enabled" not in paragraphs[1]
    assert apply(wish(), KEY, False, root).changed is False


def test_an_obsolete_key_is_no_longer_trusted_for_everything(root: Path) -> None:
    alone, both, armoured = (root / "etc/apt/trusted.gpg.d" / name for name in ("cuda.gpg", "more.gpg", "more.asc"))
    alone.write_bytes(dearmor(TWO, ""))
    both.write_bytes(dearmor(TWO, "") + KEY)
    armoured.write_bytes(TWO + ONE)
    (root / "etc/apt/trusted.gpg.d/odd.gpg").write_bytes(b"\x00\x00KBXf")
    wanted = wish(obsolete_keys=[FINGERPRINT_TWO[-8:].lower()])

    outcome = apply(wanted, KEY, False, root)

    assert outcome.removed_keys == [FINGERPRINT_TWO] * 3
    assert not alone.exists()
    assert not armoured.exists()
    assert both.read_bytes() == KEY
    assert apply(wanted, KEY, False, root).changed is False


def test_check_mode_writes_nothing_and_says_the_same(root: Path) -> None:
    (root / "etc/apt/sources.list.d/cuda.list").write_text(OLD_LIST, encoding="utf-8")
    before = snapshot(root)

    foreseen = apply(wish(), KEY, True, root)

    assert snapshot(root) == before
    done = apply(wish(), KEY, False, root)
    assert (foreseen.disabled, foreseen.diff) == (done.disabled, done.diff)
    assert any(FINGERPRINT_ONE in row["after"] for row in foreseen.diff)


def test_differences_show_no_password(root: Path) -> None:
    outcome = apply(wish(url="https://user:secret@mirror.test/"), KEY, True, root)
    assert "secret" not in str(outcome.diff)


def test_absent_takes_its_own_files_away_and_nothing_else(root: Path) -> None:
    apply(wish(), KEY, False, root)
    (root / "etc/apt/sources.list.d/cuda.list").write_text(OLD_LIST, encoding="utf-8")

    assert apply(wish(present=False), None, False, root).changed
    assert list(snapshot(root)) == ["etc/apt/sources.list.d/cuda.list"]
    assert apply(wish(present=False), None, False, root).changed is False


def test_a_place_that_cannot_be_written_is_a_sentence(root: Path) -> None:
    (root / "usr/share/keyrings").rmdir()
    (root / "usr/share/keyrings").write_text("in the way", encoding="utf-8")
    with pytest.raises(RackwrightError, match=r"^Could not write the signing key on .*keyrings.*\. Look at the folder"):
        apply(wish(), KEY, False, root)
