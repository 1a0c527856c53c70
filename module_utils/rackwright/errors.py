# SPDX-License-Identifier: Apache-2.0
"""The one family of exceptions Rackwright raises, and the one form its messages have.

People read ``Could not <action> on <subject>: <cause>. <next step>.``, programs ``expected``, ``found`` and ``hint``.
"""

from __future__ import annotations

from typing import Any


def sentence(text: str) -> str:
    """Return ``text`` as exactly one closed sentence: trimmed, on one line, with one full stop."""
    flat = " ".join(text.split())
    return flat if flat.endswith(("!", "?")) else flat.rstrip(".") + "."


class RackwrightError(Exception):
    """Something that was asked for could not be done; says why and what to do next."""

    kind = "error"

    def __init__(
        self,
        action: str,
        subject: str,
        cause: str,
        next_step: str,
        *,
        expected: Any = None,
        found: Any = None,
        hint: str | None = None,
    ) -> None:
        self.action = action
        self.subject = subject
        self.cause = cause
        self.next_step = next_step
        self.expected = expected
        self.found = found
        self.hint = hint if hint is not None else sentence(next_step)
        super().__init__(f"Could not {action} on {subject}: {sentence(cause)} {sentence(next_step)}")

    def to_result(self) -> dict[str, Any]:
        """Return what ``fail_json(**error.to_result())`` needs."""
        return {
            "msg": str(self),
            "kind": self.kind,
            "expected": self.expected,
            "found": self.found,
            "hint": self.hint,
        }


class InvalidInputError(RackwrightError):
    """A value somebody wrote (inventory, option, table) cannot be used."""

    kind = "invalid_input"


class MissingError(RackwrightError):
    """A program, library, file or device that is needed is not there."""

    kind = "missing"


class ProbeError(RackwrightError):
    """Hardware or its driver answered with an error, crashed the probe or gave an incomplete answer."""

    kind = "probe"


class TimedOutError(RackwrightError):
    """Something did not answer within the time it was given."""

    kind = "timed_out"
