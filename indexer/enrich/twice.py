"""Names that stand twice in a JSON object: the last value is what is read, those before it are in the text all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from indexer.enrich.hidden import encode

PATH_MAX: Final = 1024
"""Characters of a field's dotted path, its last ones, by which it can be named."""


class _Object(dict[str, Any]):
    """An object with the fields that are not read, since their names stand again behind them."""

    earlier: list[tuple[str, Any]]


def is_doubled(text: bytes, value: Any) -> bool:
    """Whether names may stand twice in JSON that says ``value``: never "no" where one does.

    Written anew, a text has as many quotes around its names and texts as before, however it was spelt, unless some are gone.
    """
    anew = encode(value)
    return anew != text and _quotes(anew) != _quotes(text)


def earlier(text: bytes) -> Iterator[tuple[str, Any]]:
    """The fields of JSON that are not read, by their dotted paths."""
    return _earlier(json.loads(text, object_pairs_hook=_object, parse_float=Decimal), "")


def _quotes(text: bytes) -> int:
    return text.count(b'"') - text.count(b'\\"')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = _Object(pairs)
    last = {name: at for at, (name, _) in enumerate(pairs)} if len(value) < len(pairs) else {}
    value.earlier = [pair for at, pair in enumerate(pairs) if at != last[pair[0]]] if last else []
    return value


def _earlier(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _earlier(each, path)
    elif isinstance(value, _Object):
        for name, each in value.earlier:
            yield f"{path}{name}"[-PATH_MAX:], each
        for name, each in (*value.earlier, *value.items()):
            yield from _earlier(each, f"{path}{name}."[-PATH_MAX:])
