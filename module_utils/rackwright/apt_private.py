# SPDX-License-Identifier: Apache-2.0
"""apt's lists in a temporary folder: what sources offer that the node does not have yet. The node stays as it is."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import MissingError, RackwrightError
from .fetch import shown
from .packages import Candidate, Change
from .packages_apt import Apt, Run
from .repository import Wish
from .repository_apt import entry, others, source_path

ETC = Path("etc/apt")
LISTS = Path("var/lib/apt/lists")
MIRROR = re.compile(r"^the mirror \S+ cannot be used: ")


class PrivateLists:
    """A folder with lists and sources of its own; gone when the ``with`` block ends."""

    def __init__(self, run: Run, node: str, lock_timeout: int, root: Path = Path("/")) -> None:
        self._run, self._node, self._lock_timeout, self._root = run, node, lock_timeout, root
        self._folder = Path()
        self._apt = Apt(run, node, lock_timeout, root=root)
        self._known = False

    def __enter__(self) -> PrivateLists:
        self._folder = Path(tempfile.mkdtemp(prefix="rackwright-lists-"))
        # apt reads and fetches as a user of its own
        self._folder.chmod(0o755)
        for name in ("lists/partial", "cache/archives/partial", "sources.list.d", "preferences.d"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "sources.list").touch()
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self._folder)

    def candidates(self, entries: Iterable[str], names: Iterable[str]) -> list[Candidate]:
        """Ask the mirrors of one-line source entries which versions of the named packages they offer."""
        (self._folder / "sources.list").write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
        apt = self._private_apt(self._folder / "sources.list", Path("/dev/null"))
        apt.get("read the versions of the driver", "update")
        return apt.candidates(names)

    # -- a vendor's repository beside the node's own sources --------------------------------------------------------

    def add_repository(self, wish: Wish, key: bytes) -> None:
        """Work on copies of the node's sources and lists, with the vendor's repository among them."""
        ring = self._folder / "key.gpg"
        ring.write_bytes(key)
        ring.chmod(0o644)
        self._copy_sources(wish)
        alone = self._folder / "alone.d"
        alone.mkdir()
        for folder in (alone, self._folder / "sources.list.d"):
            (folder / "rackwright-vendor.sources").write_text(entry(wish, str(ring)), encoding="utf-8")
        self._known = self._link_lists()
        self._apt = self._private_apt(self._folder / "sources.list", self._folder / "sources.list.d")

    def update(self, wish: Wish) -> None:
        """Fetch the vendor's lists; those of all sources where the node has none at all.

        Raises:
            MissingError: the repository is not there, not whole, or not signed by this key.
        """
        try:
            self._private_apt(Path("/dev/null"), self._folder / "alone.d").get("read the repository", "update")
        except RackwrightError as error:
            raise _unusable(error, wish.url, self._node) from error
        if not self._known:
            self._apt.get("update the package lists", "update")

    def use_preferences(self, text: str, own: str) -> None:
        """Judge by the node's preferences with this file in the place of ``own``, a name in preferences.d."""
        for path in sorted((self._root / ETC / "preferences.d").glob("*")):
            if path.is_file() and path.name != own:
                shutil.copy(path, self._folder / "preferences.d" / path.name)
        (self._folder / "preferences.d" / own).write_text(text, encoding="utf-8")

    def offered(self, names: Iterable[str]) -> list[Candidate]:
        """Return the versions of the named packages in all sources."""
        return self._apt.candidates(names)

    def simulate(self, action: str, *arguments: str) -> list[Change]:
        """Return what apt-get would do."""
        return self._apt.simulate(action, *arguments)

    def _copy_sources(self, wish: Wish) -> None:
        """Copy the node's sources without the entries of the repository."""
        own = source_path(self._root, wish.name)
        edited = {path: text for path, _uris, text in others(self._root, own, [wish.url, *wish.replaces])}
        paths = [self._root / ETC / "sources.list", *sorted((self._root / ETC / "sources.list.d").glob("*"))]
        for path in paths:
            if path == own or path.suffix not in (".list", ".sources") or not path.is_file():
                continue
            target = self._folder / path.relative_to(self._root / ETC)
            text = edited.get(path)
            if text is None:
                shutil.copy(path, target)
            else:
                target.write_text(text, encoding="utf-8", errors="surrogateescape")

    def _link_lists(self) -> bool:
        """Link the lists the node has; return whether there are any."""
        found = False
        for path in (self._root / LISTS).glob("*"):
            if path.is_file() and path.name != "lock":
                (self._folder / "lists" / path.name).symlink_to(path)
                found = found or path.name.endswith(("_InRelease", "_Release"))
        return found

    def _private_apt(self, sources: Path, parts: Path) -> Apt:
        places = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": parts,
            "Dir::Etc::preferencesparts": self._folder / "preferences.d",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
        }
        options: Sequence[str] = [part for key, value in places.items() for part in ("-o", f"{key}={value}")]
        return Apt(self._run, self._node, self._lock_timeout, options=options, root=self._root)


def _unusable(error: RackwrightError, url: str, node: str) -> RackwrightError:
    """Say what is wrong with a repository in terms of the inputs that name it."""
    cause = error.cause
    if "not signed by a key" in cause or "signature" in cause.lower():
        return MissingError(
            "trust the repository",
            node,
            f"{shown(url)} is not signed by the expected key, or was changed after it was signed",
            "Make the mirror again, or give its own key as stack_repository_key; the check is never left out",
            found=cause,
        )
    if "Hash Sum mismatch" in cause or "unexpected size" in cause:
        return MissingError(
            "trust the repository",
            node,
            f"the lists of {shown(url)} are not what its signature covers",
            "Make the mirror again (all of it at one time)",
            found=cause,
        )
    if "lock" in error.action or "space left" in cause:
        return error
    how = "is no package repository" if "404" in cause else f"cannot be used: {MIRROR.sub('', cause)}"
    return MissingError(
        "read the repository",
        node,
        f"{shown(url)} {how}",
        "Correct stack_repository_url, or make it reachable from the node (DNS, route, proxy)",
        found=cause,
    )
