"""The document: the enriched line as stored, in the Elastic Common Schema (ECS 9).

A document is a tree of structs that one encoder writes in one pass; what repeats from event to event (the agent, the host,
a place, a user agent) is held as ready JSON (:class:`msgspec.Raw`). A field that is ``None`` or ``()`` is left out.
:class:`Entry` is what a store takes. Its id is made by :mod:`indexer.identity`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import Raw, Struct, field

ECS: Final = Raw(b'{"version":"9.0.0"}')
EVENT_SEVERITY: Final = {"info": 21, "warning": 47, "critical": 99}
REJECTED: Final = "rejected"
"""The dataset of lines that are not events; see :data:`auditship.block.RESERVED_GATEWAYS`."""


class Event(Struct, omit_defaults=True, gc=False):
    """``event.*``. ``created`` (read by the agent) and ``ingested`` are RFC 3339 in UTC; ``hash`` is over the line."""

    id: str
    kind: str
    created: str
    ingested: str
    original: str
    hash: str
    module: str
    dataset: str
    sequence: int
    action: str | None = None
    category: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    outcome: str | None = None
    severity: int | None = None
    reason: str | None = None


class Log(Struct, omit_defaults=True, gc=False):
    """``log.*``: where the line stood, and the severity's word. ``file`` is ``{"path": ...}``."""

    offset: int
    file: Raw
    level: str | None = None


class Organization(Struct, omit_defaults=True, gc=False):
    """``organization.*``."""

    id: str
    name: str | None = None


class User(Struct, omit_defaults=True, gc=False):
    """``user.*``: the person or token; ``full_name`` for people only."""

    id: str
    name: str
    full_name: str | None = None
    email: str | None = None


class Id(Struct, gc=False):
    """An object of an id alone."""

    id: str


class Http(Struct, gc=False):
    """``http.request.id``."""

    request: Id


class Related(Struct, omit_defaults=True, gc=False):
    """``related.*``: every address and user name of the event, for pivoting."""

    ip: tuple[str, ...] = ()
    user: tuple[str, ...] = ()


class Actor(Struct, gc=False):
    """``audit.actor.*``: what kind of actor, and through what ("Chrome on macOS", "Automated")."""

    type: str
    label: str


class Resource(Struct, omit_defaults=True, gc=False):
    """``audit.resource.*``."""

    type: str
    id: str | None = None
    name: str | None = None


class Rejection(Struct, omit_defaults=True, gc=False):
    """``audit.rejection.*``: why a line is no event, and where in it; its bytes in base64 where they are not UTF-8."""

    reason: str
    pointer: str | None = None
    bytes: str | None = None


class Audit(Struct, omit_defaults=True, gc=False):
    """``audit.*``: our own fields."""

    gateway: str
    stream: str
    severity: str | None = None
    actor: Actor | None = None
    location: str | None = None
    resource: Resource | None = None
    action: str | None = None
    """The action as the gateway spelt it, where that differs from ``event.action``."""
    ci: Raw | None = None
    changes: Raw | None = None
    extra: Raw | None = None
    skew_ms: int | None = None
    rejection: Rejection | None = None


class Document(Struct, omit_defaults=True, gc=False):
    """A whole document. Rejected lines have no organization, user, related nor severity."""

    timestamp: datetime | str = field(name="@timestamp")
    event: Event
    log: Log
    audit: Audit
    agent: Raw
    host: Raw
    ecs: Raw
    organization: Organization | None = None
    user: User | None = None
    user_agent: Raw | None = None
    source: Raw | None = None
    http: Http | None = None
    session: Id | None = None
    related: Related | None = None
    tags: tuple[str, ...] = ()


class Entry(Struct, frozen=True, gc=False):
    """A document on its way into a store.

    ``body`` is the document's JSON on one line, without a newline; ``time_ms`` is ``@timestamp``. Kept in the data stream
    ``logs-audit.{dataset}-{retention}``.
    """

    id: str
    time_ms: int
    dataset: str
    retention: str
    body: bytes
