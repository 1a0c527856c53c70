# SPDX-License-Identifier: Apache-2.0
"""A strict reader of Prometheus' text format 0.0.4: what is not exactly as the format says is an error.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
"""

from __future__ import annotations

import re
from typing import Any

_METRIC = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_METRIC})(?:\{{(.*)\}})? (\S+)", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
_HELP = re.compile(rf"# HELP ({_METRIC}) ((?:[^\\\n]|\\\\|\\n)+)")
_TYPE = re.compile(rf"# TYPE ({_METRIC}) (counter|gauge|histogram|summary|untyped)")
_UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
#: suffixes that mean another type, or a unit that is not a base unit
_LINT = re.compile(r"_(total|count|sum|bucket|ms|milliseconds|gb|gib|mb|mib|kb|minutes|hours|percent)$")

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def parse(text: str) -> Samples:
    """Return metric to its samples by labels; AssertionError at the first thing that is not allowed."""
    found: Samples = {}
    helped: set[str] = set()
    current = None
    assert not text or text.endswith("\n"), "the last line has no end"
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name = _groups(_HELP, line)[0]
            assert name not in helped, f"HELP of {name} twice"
            helped.add(name)
        elif line.startswith("# TYPE "):
            current, _kind = _groups(_TYPE, line)
            assert current in helped, f"TYPE of {current} before its HELP"
            assert current not in found, f"{current} is in two places"
            assert not _LINT.search(current), f"{current} ends in a suffix that means something else"
            found[current] = {}
        else:
            name, labels, value = _groups(_SAMPLE, line)
            assert name == current, f"a sample of {name} in the group of {current}"
            key = frozenset(_labels(labels or "").items())
            assert key not in found[name], f"{name} has these labels twice: {labels}"
            found[name][key] = float(value)
    assert all(found.values()), "a metric without a sample"
    return found


def _groups(pattern: re.Pattern[str], line: str) -> tuple[Any, ...]:
    match = pattern.fullmatch(line)
    assert match, f"not in the text format: {line!r}"
    return match.groups()


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    rest = text
    while rest:
        match = _LABEL.match(rest)
        assert match, f"not a label: {rest!r}"
        name, value, comma = match.groups()
        assert name not in labels, f"label {name} twice"
        assert not name.startswith("__"), f"label {name} is reserved"
        labels[name] = re.sub(r"\\.", lambda found: _UNESCAPED[found.group()], value)
        rest = rest[match.end() :]
        assert bool(comma) == bool(rest), f"a comma at the end: {text!r}"
    return labels
