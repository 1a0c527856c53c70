# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of scenarios is the same in the library, the validation and the profiles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from simnvml.simnvml import keys, profiles, scenario
from simnvml.simnvml.errors import ProfileError

SOURCES = Path(__file__).resolve().parents[2] / "simnvml" / "src"
READ = re.compile(r'\b(?:sim_(?:u?int|ull|or|raw|text)|set_known|affinity|fan_value)\([^;]*?"([a-z][\w.%]*)"')
MACRO = re.compile(r"^GET_(?:UINT|UINT2|ULL|TEXT)\(\w+, (.+)\)$", re.MULTILINE)
TABLE = re.compile(r'NVML_VALUE_\w+, "([\w.]+)"')


def keys_in_sources() -> set[str]:
    """Every complete key that the C sources name; a number stands for each %u."""
    found: set[str] = set()
    for path in SOURCES.glob("*.c"):
        text = path.read_text()
        found.update(key for key in READ.findall(text) if "%s" not in key)
        found.update(TABLE.findall(text))
        for arguments in MACRO.findall(text):
            found.update(re.findall(r'"([\w.]+)"', arguments))
    return {key.replace("%u", "0") for key in found}


def test_validation_knows_every_key_that_the_library_reads() -> None:
    found = keys_in_sources()
    assert len(found) > 120
    assert sorted(key for key in found if not keys.known(f"gpu.0.{key}")) == []


@pytest.mark.parametrize("profile", profiles.names())
def test_every_profile_is_valid(profile: str) -> None:
    text = scenario.flatten(profiles.load(profile), profile)
    assert text.startswith(f"# simulated node {profile}")
    for line in text.splitlines()[1:]:
        assert re.fullmatch(r"[\w.]+ = .+", line)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"gpu": {"tmep": {"gpu": 3}}}, "gpu.tmep.gpu"),
        ({"gpu": {"temp": {"gpu": "warm"}}}, "another form"),
        ({"gpus": [{"pci": {"bus": 1}}, {"pci": {"bus": 1}}]}, "same PCI address"),
        ({"gpus": [{"module_id": 1}]}, "no pci.bus"),
    ],
)
def test_mistakes_are_refused(change: dict[str, object], part: str) -> None:
    profile = profiles.merge(profiles.load("t4x1"), change)
    with pytest.raises(ProfileError, match=re.escape(part)):
        scenario.flatten(profile, "broken")


def test_unknown_profiles_and_sections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"Use one of .*h100x8"):
        profiles.load("h9000")
    (tmp_path / "odd.yml").write_text("gpu: {}\nspeed: 3\n")
    with pytest.raises(ProfileError, match="unknown section speed"):
        profiles.load("odd", tmp_path)
