"""The body of a stored document: JSON, as the indexer made it around what gateways wrote.

Gateways may write any number that JSON has, such as ``1e999``, or an integer of hundreds of digits. Decoders refuse what is
beyond a double, and then nothing of a document could be read, nor those beside it. Here such a number is its own text.
"""

from __future__ import annotations

import re
from math import isinf
from typing import Any, Final

import orjson

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?\d[\d.eE+-]*')


def document_of(body: bytes) -> Any:
    """What a body says.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.loads(_TOKEN.sub(_in_reach, body))


def _in_reach(token: re.Match[bytes]) -> bytes:
    """A text as it stands; a number as text where it is beyond a double."""
    text = token[0]
    return text if text.startswith(b'"') or not isinf(float(text)) else b'"%b"' % text
