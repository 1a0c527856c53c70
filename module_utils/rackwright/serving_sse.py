# SPDX-License-Identifier: Apache-2.0
"""Server-sent events from bytes in any pieces. Pure.

Follows the parsing rules of the HTML standard (section "Server-sent events"): lines end with LF, CR or CR LF, a line
that begins with a colon is a comment, an empty line ends the event. Only ``data`` is of interest here.
"""

from __future__ import annotations

#: Bytes of one line above which a stream is no stream of tokens.
LONGEST_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Takes bytes as they arrive, gives the data of whole events."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._after_cr = False
        self._begun = False

    def feed(self, piece: bytes) -> list[str]:
        """Return the data of every event that ``piece`` completes.

        Raises:
            ValueError: a line is longer than :data:`LONGEST_LINE`.
        """
        if self._after_cr and piece:
            # a CR ended the last line already; its LF, in the next piece, ends no second one
            self._after_cr = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
        if piece.endswith(b"\r"):
            self._after_cr = True
        # bytes.splitlines breaks at LF, CR and CR LF and at nothing else
        events = []
        for line in piece.splitlines(keepends=True):
            self._line += line
            if len(self._line) > LONGEST_LINE:
                raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
            if line.endswith((b"\n", b"\r")):
                event = self._take_line()
                if event is not None:
                    events.append(event)
        return events

    def finish(self) -> list[str]:
        """Return what a server left without its last empty line, when the stream has ended."""
        pending = []
        if self._line:
            self._take_line()
        if self._data:
            pending.append(self._dispatch())
        return pending

    def _take_line(self) -> str | None:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if not self._begun:
            self._begun = True
            if line.startswith(_BOM):
                line = line[len(_BOM) :]
        if not line:
            return self._dispatch() if self._data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value[1:] if value.startswith(b" ") else value)
        return None

    def _dispatch(self) -> str:
        data = b"\n".join(self._data).decode("utf-8", errors="replace")
        self._data = []
        return data
