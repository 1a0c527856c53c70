# SPDX-License-Identifier: Apache-2.0
"""Every struct of the library has the size and offsets that the published bindings expect."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pynvml

TYPES = Path(__file__).resolve().parents[2] / "simnvml" / "src" / "nvml_types.h"
RENAMED = {
    "nvmlDeviceAttributes_t": "c_nvmlDeviceAttributes",
    "nvmlRowRemapperHistogramValues_t": "c_nvmlRowRemapperHistogramValues",
    "nvmlComputeInstancePlacement_t": "c_nvmlComputeInstancePlacement_t",
}
# the one layout that today's bindings no longer have: processes before MIG, used by unversioned functions
OLDER_THAN_BINDINGS = {"nvmlProcessInfo_v1_t"}


def declared() -> list[str]:
    """Names of the structs and unions in the header, handles and scalars left out."""
    names = re.findall(r"^\} (nvml\w+_t);|^typedef nvml\w+_t (nvml\w+_t);", TYPES.read_text(), re.MULTILINE)
    return [first or second for first, second in names if (first or second) not in OLDER_THAN_BINDINGS]


def binding(name: str) -> type[ctypes.Structure]:
    """The bindings' class of a struct."""
    for candidate in (RENAMED.get(name, ""), f"c_{name}", name):
        if hasattr(pynvml, candidate):
            found = getattr(pynvml, candidate)
            assert isinstance(found, type)
            return found
    raise AssertionError(f"the bindings have no class for {name}")


def test_sizes_and_offsets(tmp_path: Path) -> None:
    names = declared()
    assert len(names) > 40
    expected: dict[str, tuple[int, int]] = {}
    lines = []
    for name in names:
        cls = binding(name)
        expected[name] = (ctypes.sizeof(cls), 0)
        lines.append(f'printf("{name} %zu 0\\n", sizeof({name}));')
        for field in cls._fields_:
            member = getattr(cls, field[0])
            expected[f"{name}.{field[0]}"] = (member.offset, member.size)
            where = f"offsetof({name}, {field[0]}), sizeof((({name} *)0)->{field[0]})"
            lines.append(f'printf("{name}.{field[0]} %zu %zu\\n", {where});')
    source = tmp_path / "layout.c"
    program = tmp_path / "layout"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{TYPES}"\nint main(void) {{\n' + "\n".join(lines) + "\n}\n"
    )
    subprocess.run(["cc", "-std=c11", "-o", str(program), str(source)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    found = {line.split()[0]: (int(line.split()[1]), int(line.split()[2])) for line in output.splitlines()}
    assert found == expected
