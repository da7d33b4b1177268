"""A document's row: what of it is put into columns, and the words it is found by. Read from the document's own JSON."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.json import Decoder

from indexer.document import Entry
from indexer.identity import packed_ids
from indexer.store.fields import VALUE_MAX

Row = tuple[int, bytes, int, str, str | None, str | None, str | None, str | None, str | None, bytes | None, bytes]
"""As the columns of ``document`` stand."""

INSERT: Final = "INSERT INTO document VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_WORDS: Final = "INSERT INTO words (rowid, text) VALUES (?, ?)"
INSERT_ARRIVAL: Final = (
    "INSERT INTO arrival VALUES (?, ?, ?) ON CONFLICT (minute) DO UPDATE SET"
    " first = min(first, excluded.first), last = max(last, excluded.last)"
)
TOGETHER: Final = 64
"""Entries that are worked on at once: not more than a processor's caches hold."""
_MINUTE_CHARACTERS: Final = len("2026-11-23T18:20")
_V4: Final = b"\0" * 10 + b"\xff\xff"
_TOKEN = re.compile(r"(?<![^\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f])[A-Za-z0-9]+(?![^\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f])")


class _Event(Struct, frozen=True, gc=False):
    ingested: str | None = None
    action: str | None = None
    outcome: str | None = None
    reason: str | None = None


class _Named(Struct, frozen=True, gc=False):
    id: str | None = None
    name: str | None = None


class _User(Struct, frozen=True, gc=False):
    id: str | None = None
    name: str | None = None
    full_name: str | None = None
    email: str | None = None


class _Resource(Struct, frozen=True, gc=False):
    type: str | None = None
    id: str | None = None
    name: str | None = None


class _Actor(Struct, frozen=True, gc=False):
    label: str | None = None


class _Rejection(Struct, frozen=True, gc=False):
    reason: str | None = None


_RESOURCE, _ACTOR, _REJECTION, _NAMED, _USER = _Resource(), _Actor(), _Rejection(), _Named(), _User()


class _Audit(Struct, frozen=True, gc=False):
    severity: str | None = None
    location: str | None = None
    resource: _Resource = _RESOURCE
    actor: _Actor = _ACTOR
    rejection: _Rejection = _REJECTION


class _Source(Struct, frozen=True, gc=False):
    ip: str | None = None


_SOURCE = _Source()


class _Found(Struct, frozen=True, gc=False):
    event: _Event
    audit: _Audit
    user: _User = _USER
    organization: _Named = _NAMED
    source: _Source = _SOURCE


_decode = Decoder(_Found).decode


class Made(NamedTuple):
    """What an entry adds: its row, its text for the index of words, and the minute of its arrival."""

    row: Row
    text: str
    minute: str


def rows_of(first: int, entries: Sequence[Entry], compress: Callable[[bytes], bytes]) -> list[Made]:
    """Entries' rows under numbers from the first on, and what they are found by; one kind of work at a time, some at once."""
    made: list[Made] = []
    for at in range(0, len(entries), TOGETHER):
        some = entries[at : at + TOGETHER]
        bodies = [entry.body for entry in some]
        ids = packed_ids([entry.id for entry in some])
        made += map(_made, range(first + at, first + at + len(some)), some, map(_decode, bodies), ids, map(compress, bodies))
    return made


def _made(number: int, entry: Entry, found: _Found, identity: bytes, body: bytes) -> Made:
    event, audit, user, organization, ip = found.event, found.audit, found.user, found.organization, found.source.ip
    resource = audit.resource
    row = (
        number,
        identity,
        entry.time_ms,
        entry.dataset,
        folded(audit.severity),
        folded(event.outcome),
        folded(organization.id),
        folded(user.id),
        folded(event.action),
        packed_address(ip) if ip else None,
        body,
    )
    texts = (
        user.id,
        user.name,
        user.full_name if user.full_name != user.name else None,
        user.email,
        event.action,
        event.reason,
        resource.type,
        resource.id,
        resource.name,
        organization.id,
        organization.name,
        audit.location,
        audit.actor.label,
        ip,
        audit.rejection.reason,
    )
    return Made(row, "\n".join(filter(None, texts)), _minute(event.ingested))


def _minute(ingested: str | None) -> str:
    return ingested[:_MINUTE_CHARACTERS] if ingested and ingested.endswith("Z") else ""


def folded(value: str | None) -> str | None:
    """A keyword as it is compared; none where it is too long to be found."""
    return value.lower() if value is not None and len(value) <= VALUE_MAX else None


def packed_address(text: str) -> bytes | None:
    """An address as 16 bytes that sort as addresses do."""
    try:
        return socket.inet_pton(socket.AF_INET6, text) if ":" in text else _V4 + socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return None


def tokens(text: str) -> list[str]:
    """Words of a text that the index surely holds for it: runs of ASCII letters and digits with ASCII around them."""
    return _TOKEN.findall(text)
