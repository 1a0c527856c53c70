#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Start, inspect, break and remove test nodes. Needs Python 3.11 and nothing from PyPI."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # This folder is the package; as a search path it would hide it behind this very file.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if entry and Path(entry).resolve() != here)]
    from nodes.cli import main

    sys.exit(main())
