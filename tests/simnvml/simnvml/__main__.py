# SPDX-License-Identifier: Apache-2.0
"""``python -m simnvml``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
