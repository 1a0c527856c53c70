# SPDX-License-Identifier: Apache-2.0
"""The one error of the package."""

from __future__ import annotations


class ProfileError(Exception):
    """A profile cannot be used; the text says what, why, and what to do."""

    def __init__(self, what: str, cause: str, next_step: str) -> None:
        super().__init__(f"Could not {what}: {cause}. {next_step}.")
