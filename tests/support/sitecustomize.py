"""Let a linter process resolve ``ansible.module_utils.rackwright`` the way the module packer does.

Put this directory on PYTHONPATH: without it ansible-lint's ``args`` rule silently gives up on this project's modules.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent

if "ansible-lint" in sys.argv[0]:
    try:
        import ansible.module_utils

        ansible.module_utils.__path__.append(str(_HERE.parents[1] / "module_utils"))
    except ImportError:
        pass
