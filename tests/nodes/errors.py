# SPDX-License-Identifier: Apache-2.0
"""The one error that reaches the person at the terminal."""

from __future__ import annotations


class NodesError(Exception):
    """Says in one sentence what could not be done, on what, why, and what to do next."""

    def __init__(self, what: str, cause: str, hint: str) -> None:
        """Keep the parts apart, so that tests can look at each."""
        self.what = what
        self.cause = cause
        self.hint = hint
        super().__init__(f"Could not {what}: {cause.rstrip('.')}. {hint.rstrip('.')}.")
