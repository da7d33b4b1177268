"""What is hidden of one line, and its replacement wherever it stands.

A value shorter than :data:`REPEAT_MIN` is not looked for. With more than :data:`HIDDEN_MAX` values every text is masked, and
where looking for them takes more than :data:`WORK_MAX`, every further one: the time that a line takes is bounded, and nothing
is left over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import quote, quote_plus

from msgspec.json import Decoder, Encoder

from indexer.enrich.clues import MASKED

REPEAT_MIN: Final = 4
"""Characters that a value has at least to be looked for in other texts."""
HIDDEN_MAX: Final = 500
WORK_MAX: Final = 2**26
"""Characters of texts, times values that are looked for in them, in one line: some 0.3 s."""
TEXT_COST: Final = 16
"""Characters that take as long as a text takes by itself."""

_MARKS: Final = 0xD800
"""The first of 1,024 characters that are in no text: they keep places, so that nothing is found in what is put there."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")
decode = Decoder(float_hook=Decimal).decode
"""JSON whose numbers stay as they are written."""
encode = Encoder(decimal_format="number").encode


class Nested(NamedTuple):
    """A text that is JSON: what it says, and the same with what stands under names hidden."""

    text: str
    value: Any
    looked: Any


class Hidden:
    """Texts that are to be found nowhere, and what stands in their places."""

    def __init__(self) -> None:
        self._instead: dict[str, str] = {}
        self._spelt: dict[str, str] | None = None
        self._work = 0
        self.is_any = False
        """Whether there was anything to hide, be it too short to be looked for."""

    def add(self, text: str, instead: str) -> str:
        """Hides a text; gives what stands in its place."""
        if len(text) >= REPEAT_MIN and text != instead:
            self.is_any = True
            self._instead.setdefault(text, instead)
        return instead

    def replace(self, value: Any) -> Any:
        """Any JSON without what is hidden. Nothing can be added after that."""
        if isinstance(value, Nested):
            replaced = self.replace(value.looked)
            return self.text(value.text) if replaced == value.value else encode(replaced).decode()
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.replace(each) for each in value]
        if isinstance(value, dict):
            return dict(zip(self.names(value), map(self.replace, value.values()), strict=True))
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            text = str(value)
            return value if self.text(text) == text else MASKED
        return value

    def names(self, value: dict[str, Any], known: frozenset[str] = frozenset()) -> list[str]:
        """The names in an object without what is hidden, but for those known; those that become the same are numbered."""
        names = [name if name in known else self.text(name) for name in value]
        return names if len(set(names)) == len(names) else [*_numbered(names)]

    def text(self, text: str) -> str:
        """A text without what is hidden."""
        if self._spelt is None:
            self._spelt = self._spellings()
        self._work += (len(text) + TEXT_COST) * len(self._spelt)
        if len(self._instead) > HIDDEN_MAX or self._work > WORK_MAX or text == MASKED:
            return MASKED
        found = [hidden for hidden in self._spelt if hidden in text]
        if not found:
            return text
        marks: dict[str, str] = {}
        for hidden in sorted(found, key=len, reverse=True):
            text = text.replace(hidden, marks.setdefault(self._spelt[hidden], chr(_MARKS + len(marks))))
        return text.translate({ord(mark): instead for instead, mark in marks.items()})

    def _spellings(self) -> dict[str, str]:
        """The texts, also as they look within JSON that is a text, and in URLs."""
        spelt = dict(self._instead) if len(self._instead) <= HIDDEN_MAX else {}
        for text in list(spelt):
            if not _PLAIN.fullmatch(text):
                for spelling in (encode(text)[1:-1].decode(), json.dumps(text)[1:-1], quote(text, safe=""), quote_plus(text)):
                    spelt.setdefault(spelling, spelt[text])
        return spelt


def _numbered(names: list[str]) -> Iterator[str]:
    taken: dict[str, int] = {}
    for name in names:
        shown, number = name, taken.get(name, 1)
        while shown in taken:
            number += 1
            shown = f"{name} {number}"
        taken[name] = number
        taken.setdefault(shown, 1)
        yield shown


def leaves(value: Any) -> Iterator[str]:
    """The texts and numbers of any JSON, and the keys of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
