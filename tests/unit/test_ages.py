# SPDX-License-Identifier: Apache-2.0
"""Ages in words: cut, never rounded up, and a wrong clock is told."""

from __future__ import annotations

import datetime

import pytest

from ansible.module_utils.rackwright.ages import age_seconds, age_text, cache_lines, is_stale, parse_time

NOW = datetime.datetime(2026, 11, 30, 12, 0, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a minute old"),
        (59.9, "less than a minute old"),
        (60, "1 minute old"),
        (3599, "59 minutes old"),
        (3600, "1 hour old"),
        (86399, "23 hours old"),
        (86400, "1 day old"),
        (3 * 86400 + 80000, "3 days old"),
        (364 * 86400, "364 days old"),
        (800 * 86400, "2 years old"),
        (-299, "less than a minute old"),
        (-301, "dated 5 minutes ahead: a clock is wrong"),
        (-7300, "dated 2 hours ahead: a clock is wrong"),
        (None, "of unknown age"),
    ],
)
def test_an_age_in_words(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-30T11:59:00+00:00", 60),
        ("2026-11-30T11:59:00Z", 60),
        ("2026-11-30T11:59:00", 60),
        ("2026-11-30T13:59:00+02:00", 60),
        ("20261130T115900Z", 60),
        ("2026-11-30T12:01:00Z", -60),
        ("yesterday", None),
        ("2026-13-45T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("", None),
        (None, None),
        (20261130, None),
        ({"at": "now"}, None),
    ],
)
def test_the_age_of_a_time_stamp(text: object, seconds: float | None) -> None:
    assert age_seconds(text, NOW) == seconds


def test_a_moment_is_in_utc() -> None:
    assert parse_time("2026-11-30T13:00:00+02:00") == datetime.datetime(2026, 11, 30, 11, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "hours", "stale"),
    [(3600, 1, False), (3601, 1, True), (None, 1, True), (-9999, 1, False), (1, 0, True)],
)
def test_stale_begins_after_the_limit(seconds: float | None, hours: float, stale: bool) -> None:
    assert is_stale(seconds, hours) is stale


MINUTES, HOURS, DAYS = "2026-11-30T11:55:00Z", "2026-11-30T08:00:00Z", "2026-11-18T12:00:00Z"


@pytest.mark.parametrize(
    ("times", "lines"),
    [
        ({}, []),
        ({"n1": HOURS}, ["Cached facts of n1: 4 hours old."]),
        ({"n1": HOURS, "n2": HOURS}, ["Cached facts of 2 nodes: 4 hours old."]),
        ({"n1": HOURS, "n2": MINUTES}, ["Cached facts of 2 nodes: 5 minutes old to 4 hours old."]),
        (
            {"n1": DAYS, "n2": MINUTES},
            [
                "Cached facts of 2 nodes: 5 minutes old to 12 days old.",
                "Stale, older than 168 hours: n1 (12 days old). playbooks/gather-facts.yml asks them again.",
            ],
        ),
        (
            {"n1": None},
            [
                "Cached facts of n1: of unknown age.",
                "Stale, older than 168 hours: n1 (of unknown age). playbooks/gather-facts.yml asks them again.",
            ],
        ),
    ],
)
def test_whoever_uses_cached_facts_says_how_old_they_are(times: dict[str, str | None], lines: list[str]) -> None:
    assert cache_lines(times, NOW) == lines


def test_many_stale_nodes_are_counted() -> None:
    assert (
        "n0 (12 days old), n1 (12 days old) and 3 more."
        in cache_lines({f"n{i}": DAYS for i in range(5)}, NOW, most=2)[1]
    )
