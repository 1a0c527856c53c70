# SPDX-License-Identifier: Apache-2.0
"""Plain-text tables, at most 120 columns wide; a cut never hides that something is simulated."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 120
#: A longer table is cut by its caller to the rows that need attention; the reports name all of them.
MAX_ROWS = 40
SIMULATED = " (simulated)"
_GAP = "  "


def table(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    shrinkable: Sequence[str] = (),
    least: Mapping[str, int] | None = None,
    width: int = WIDTH,
) -> list[str]:
    """Return header, rule and one line per row.

    Args:
        columns: names of the columns in their order; the header shows them in capitals.
        rows: text of every column for every row.
        shrinkable: columns that give way, in this order, while a row is wider than ``width``.
        least: characters below which a column does not shrink; 8 unless named.
        width: widest line in characters.
    """
    widths = {name: max([len(name), *(len(entry[name]) for entry in rows)]) for name in columns}
    excess = sum(widths.values()) + len(_GAP) * (len(columns) - 1) - width
    for name in [name for name in shrinkable if name in widths]:
        cut = max(0, min(excess, widths[name] - (least or {}).get(name, 8)))
        widths[name] -= cut
        excess -= cut
    header = {name: name.upper() for name in columns}
    rule = {name: "-" * widths[name] for name in columns}
    cuts = {name: fit_name if name == "node" else fit for name in columns}
    return [
        _GAP.join(cuts[name](entry[name], widths[name]) for name in columns).rstrip() for entry in (header, rule, *rows)
    ]


def fit(text: str, width: int) -> str:
    """Pad or cut a cell; a cut never loses that something is simulated."""
    if len(text) <= width:
        return text.ljust(width)
    tail = f"..{SIMULATED}" if text.endswith(SIMULATED) and width > len(SIMULATED) + 2 else ".."
    return text[: width - len(tail)] + tail


def fit_name(text: str, width: int) -> str:
    """Pad or cut the name of a node so that it still tells the node from its neighbours.

    Of ``gpu-rack-017.example.org`` the domain goes first; what is still too long is cut in the middle, for most names
    differ at their end.
    """
    host = text.split(".")[0]
    if len(text) > width and not host.isdigit():
        text = host if len(host) > width - 2 else f"{host}.."
    if len(text) > width:
        left = (width - 2) // 2
        text = f"{text[:left]}..{text[len(text) - (width - 2 - left) :]}"
    return text.ljust(width)


def bullets(reasons: Sequence[str], most: int = 12) -> list[str]:
    """Return the reasons as wrapped list items, and how many more there are when they are many."""
    lines: list[str] = []
    for reason in reasons[:most]:
        lines += textwrap.wrap(reason, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=True)
    if len(reasons) > most:
        lines.append(f"  ... and {len(reasons) - most} more, in the report")
    return lines
