# SPDX-License-Identifier: Apache-2.0
"""What is asked of the server: random words of a wished length, or the lines of a file."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError, MissingError

_LIST = """
about above after again air all along also animal another answer any around ask away back because been before
began being below between book both boy build but call came can car carry change city close cold come could
country cut day did different does done door down draw each early earth east eat end enough even every example
eye face fact family far farm father feet few field find fire first fish five fly follow food form found four
friend from game gave girl give good got great green ground group grow had half hand hard has head hear help
here high him home horse hot house how idea inch into just keep kind king know land large last late learn leave
left let letter life light like line list little live long look low made make many map mark may mean men might
mile mind money more morning most mother mountain move much music must name near need never new next night north
note now number off often old once one only open order other our out over own page paper part pass pattern
people picture place plain plan plant play point port power press problem product pull put question read real
red rest right river road rock room round rule run said same saw say school science sea second see seem self
sentence set several shape she ship short should show side simple since six size sleep slow small snow some song
soon sound south space spell stand star start state stay step still stop story strong study such sun sure table
take talk teach tell ten test than that them then there these thing think thought three through time told took
top toward town travel tree true turn two under unit until upon use usual very voice walk want war warm was
watch water way week well went were west what wheel when where which while white who whole why wind with wood
word work world would write year you young
"""
#: Short common words. Tokenizers of today's models have most of them as one token; how many tokens a prompt really had
#: is what the server counts, and :func:`words_for` corrects by it.
WORDS = tuple(_LIST.split())
#: Correction of the length beyond which the count of the probe is not believed.
_MOST_CORRECTION = 4.0


@dataclass(frozen=True)
class Prompt:
    """One question: messages of a chat, or a text; ``max_tokens`` of its own or None."""

    text: str
    words: int
    messages: tuple[Mapping[str, Any], ...] = ()
    max_tokens: int | None = None


def random_prompts(words: int, seed: str) -> Iterator[Prompt]:
    """Yield prompts of ``words`` random words, for ever; same seed, same prompts.

    Two share no more than a few words at their begin, so that a prefix cache answers none of them for another. The same
    seed against the same server a second time is another matter.
    """
    generator = random.Random(seed)
    while True:
        yield Prompt(" ".join(generator.choices(WORDS, k=words)), words)


def words_for(wished_tokens: int, probe_words: int, probe_tokens: int | None) -> int:
    """Return how many words make ``wished_tokens``, from the server's count for a probe; unchanged without count."""
    if not probe_tokens or not probe_words:
        return wished_tokens
    ratio = min(_MOST_CORRECTION, max(1 / _MOST_CORRECTION, probe_words / probe_tokens))
    return max(1, round(wished_tokens * ratio))


def parse_prompts(text: str, name: str) -> list[Prompt]:
    """Return the prompts of a JSONL file: per line ``prompt`` (text) or ``messages`` (list), maybe ``max_tokens``.

    Raises:
        InvalidInputError: a line is none, or there is no line at all.
    """
    prompts = [
        _parse_line(line, f"{name}, line {number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()
    ]
    if not prompts:
        raise _bad(name, "it has no line")
    return prompts


def load_prompts(path: str) -> list[Prompt]:
    """Read a JSONL file of prompts on the host that runs the client."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
    except OSError as error:
        raise MissingError(
            "read the prompts", path, error.strerror or str(error), "Put the file on the host that runs the client"
        ) from error
    except UnicodeDecodeError as error:
        raise _bad(path, f"it is not UTF-8 (byte {error.start})") from error
    return parse_prompts(text, path)


def repeated(prompts: Sequence[Prompt], seed: str) -> Iterator[Prompt]:
    """Yield the prompts of a file in an order that the seed shuffles, again and again."""
    order = list(prompts)
    random.Random(seed).shuffle(order)
    return itertools.cycle(order)


def body(prompt: Prompt, chat: bool, model: str, max_tokens: int, ignore_eos: bool) -> dict[str, Any]:
    """Return the body of a streaming request. ``max_tokens`` is the name that every engine knows on both endpoints."""
    document: dict[str, Any] = {"model": model}
    if chat:
        document["messages"] = list(prompt.messages) or [{"role": "user", "content": prompt.text}]
    else:
        document["prompt"] = prompt.text
    document["max_tokens"] = prompt.max_tokens or max_tokens
    document["stream"] = True
    document["stream_options"] = {"include_usage": True}
    if ignore_eos:
        document["ignore_eos"] = True
    return document


def _parse_line(line: str, where: str) -> Prompt:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _bad(where, f"it is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise _bad(where, "it is no JSON object")
    limit = record.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise _bad(where, "max_tokens is no number above zero")
    text, messages = record.get("prompt"), record.get("messages")
    if isinstance(text, str) and text and messages is None:
        return Prompt(text, len(text.split()), max_tokens=limit)
    if text is None and isinstance(messages, list) and messages and all(_is_message(entry) for entry in messages):
        joined = "\n".join(str(entry["content"]) for entry in messages)
        return Prompt(joined, len(joined.split()), tuple(messages), limit)
    raise _bad(where, "it has neither a text in prompt nor a list with role and content in messages")


def _is_message(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("role"), str) and "content" in entry


def _bad(where: str, cause: str) -> InvalidInputError:
    return InvalidInputError(
        "use the prompts", where, cause, 'Write one object per line, like {"prompt": "..."} or {"messages": [...]}'
    )
