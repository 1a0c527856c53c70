# SPDX-License-Identifier: Apache-2.0
"""What the user wants on a node: the ``stack_*`` variables, checked. Pure, but for today's date."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import InvalidInputError, sentence

_BRANCH = r"\d{3}"
_VERSION = r"\d+(?:\.\d+)+(?:\.?(?:post|rc)\d+)?"
_PYTHON = r"3\.\d{1,2}"
#: words an intent may have, and the form of everything else it may have
_CHOICES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "framework": (("pytorch", "tensorflow", "none"), None),
    "framework_version": (("newest",), _VERSION),
    "serving": (("none", "vllm"), None),
    "serving_version": (("newest",), _VERSION),
    "cuda_toolkit": (("none",), r"\d{2}\.\d(?:\.\d+)?(?:,\d{2}\.\d(?:\.\d+)?)*"),
    "driver_branch": (("auto",), _BRANCH),
    "driver_version": (("auto",), r"\d{3}(?:\.\d+){1,2}"),
    "driver_source": (("auto", "nvidia", "distribution"), None),
    "module_flavour": (("auto", "open", "proprietary"), None),
    "policy": (("lts", "production", "newest"), None),
    "python": (("auto",), _PYTHON),
}
_EXAMPLES = {
    "framework_version": '"2.15.0"',
    "serving_version": '"0.33.0"',
    "cuda_toolkit": '"12.8" or ["12.8", "13.0"]',
    "driver_branch": "580",
    "driver_version": '"580.178.04"',
    "python": '"3.12"',
}
#: numbers YAML cannot spoil: neither has a minor version that could end in 0 and lose it
_NUMBERS = {"driver_branch": int, "cuda_toolkit": float}
#: what may be several, kept as one text with commas: the lock holds wishes as texts
_LISTS = ("cuda_toolkit",)


@dataclass(frozen=True)
class Intent:
    """The wish. Field ``x`` is the variable ``stack_x``."""

    framework: str = "pytorch"
    framework_version: str = "newest"
    serving: str = "none"
    serving_version: str = "newest"
    cuda_toolkit: str = "none"
    driver_branch: str = "auto"
    driver_version: str = "auto"
    driver_source: str = "auto"
    module_flavour: str = "auto"
    policy: str = "production"
    python: str = "auto"

    def as_dict(self) -> dict[str, str]:
        """Return the values by the names of their variables."""
        return {f"stack_{field.name}": getattr(self, field.name) for field in fields(self)}

    def changed(self, change: Mapping[str, str]) -> Intent:
        """Return the intent with some variables (``stack_x``) set to other values."""
        return replace(self, **{name.removeprefix("stack_"): value for name, value in change.items()})


def intent_from_vars(name: str, variables: Mapping[str, Any]) -> Intent:
    """Return the intent of one node out of its host variables; what is not set has its default.

    Raises:
        InvalidInputError: a variable has a value it cannot have.
    """
    values = {}
    for field, (words, form) in _CHOICES.items():
        value = variables.get(f"stack_{field}")
        if value is not None:
            values[field] = _checked(name, field, value, words, form)
    return Intent(**values)


def wish_problem(variable: str, value: Any) -> str | None:
    """Return why a ``stack_*`` variable cannot have a value and what to do, None where it can or is no wish."""
    field = variable.removeprefix("stack_")
    if not variable.startswith("stack_") or field not in _CHOICES or value is None:
        return None
    try:
        _checked("", field, value, *_CHOICES[field])
    except InvalidInputError as error:
        return f"{sentence(error.cause)} {sentence(error.next_step)}"
    return None


def _checked(node: str, field: str, value: Any, words: tuple[str, ...], form: str | None) -> str:
    if field in _LISTS and isinstance(value, list):
        value = ",".join(str(part) for part in value)
    if field in _LISTS and isinstance(value, str):
        value = value.replace(" ", "")
    number = _NUMBERS.get(field)
    if number and isinstance(value, number) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        example = _EXAMPLES.get(field, words[0])
        raise _refuse(node, field, f"{value!r} is not a text", f"Write it in quotes, like {example}", words, value)
    text = value.strip().lower()
    if text in words or (form and re.fullmatch(form, text)):
        return text
    if field == "framework" and text == "tensorflow-gpu":
        step = "Set stack_framework to tensorflow; it installs tensorflow[and-cuda]"
        raise _refuse(node, field, "tensorflow-gpu is a removed package without content", step, words, value)
    known = [*words, *([f"a value like {_EXAMPLES[field]}"] if form else [])]
    raise _refuse(node, field, f"{value!r} is none of {', '.join(known)}", "Correct the variable", known, value)


def _refuse(node: str, field: str, cause: str, next_step: str, expected: Any, found: Any) -> InvalidInputError:
    subject = f"{node} (stack_{field})"
    return InvalidInputError("use the intent", subject, cause, next_step, expected=list(expected), found=found)


def planning_date(said: str | None) -> str:
    """Return the date against which ends of support are held, as ``YYYY-MM-DD``: what was said, else today (UTC).

    Dates are compared as texts, so they must all be written alike.

    Raises:
        InvalidInputError: what was said is no date of that form.
    """
    if not said:
        return datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        if datetime.date.fromisoformat(said).isoformat() == said:
            return said
    except ValueError:
        pass
    raise InvalidInputError("use the date", "plan_date", f"{said} is none", "Write it like 2026-11-24", found=said)
