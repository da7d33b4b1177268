"""What alerting reads of a document: no more than a person is told, and what it is grouped by."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import Raw, Struct, field
from msgspec.json import Decoder

from auditship.clock import EPOCH
from indexer.store.contract import Hit

ALERT: Final = "alert"
"""The dataset of detections."""
AGENT: Final = "agent"
"""The dataset of what agents say of themselves."""
OWN_RULES: Final = "auditship.alerts."
"""Rules of this name are what alerting itself has stored: nobody is told of them again."""

TEXT_MAX: Final = 1000
"""Characters of a field that are kept: more would tell nobody more."""


class _Event(Struct, frozen=True, gc=False):
    ingested: str = ""
    kind: str = ""
    action: str | None = None
    outcome: str | None = None
    reason: str | None = None
    category: tuple[str, ...] | str = ()


class _Named(Struct, frozen=True, gc=False):
    id: str | None = None
    name: str | None = None
    full_name: str | None = None
    type: str | None = None
    label: str | None = None
    ip: str | None = None


_NONE: Final = _Named()


class _Audit(Struct, frozen=True, gc=False):
    severity: str | None = None
    location: str | None = None
    resource: _Named = _NONE
    actor: _Named = _NONE
    extra: Raw = Raw()


class _Extra(Struct, frozen=True, gc=False):
    interval_s: float = 0.0


class _Found(Struct, frozen=True, gc=False):
    timestamp: str = field(name="@timestamp")
    event: _Event = _Event()
    audit: _Audit = _Audit()
    user: _Named = _NONE
    organization: _Named = _NONE
    source: _Named = _NONE
    rule: _Named = _NONE
    host: _Named = _NONE


_decode = Decoder(_Found).decode
_extra = Decoder(_Extra).decode


class Event(Struct, frozen=True):
    """A document that people may have to be told of. Texts are as hostile as they came; "" is what is not there."""

    id: str
    dataset: str
    ingested_ms: int
    timestamp: str
    severity: str
    organization: str = ""
    actor_id: str = ""
    actor: str = ""
    label: str = ""
    action: str = ""
    resource: str = ""
    location: str = ""
    ip: str = ""
    outcome: str = ""
    reason: str = ""
    rule_id: str = ""
    rule: str = ""
    host: str = ""
    is_login: bool = False
    interval_s: float = 0.0
    """How soon an agent promises to be heard again."""


def read(hit: Hit) -> Event:
    """A hit's event.

    Raises:
        msgspec.DecodeError: the document does not have the types of its fields.
    """
    found = _decode(hit.body)
    event, audit, user, resource = found.event, found.audit, found.user, found.audit.resource
    return Event(
        id=hit.id,
        dataset=hit.dataset,
        ingested_ms=_milliseconds(event.ingested, hit.time_ms),
        timestamp=found.timestamp,
        severity=(audit.severity or "").lower(),
        organization=_cut(found.organization.id),
        actor_id=_cut(user.id),
        actor=_cut(user.full_name or user.name or user.id),
        label=_cut(audit.actor.label),
        action=_cut(event.action),
        resource=_cut(": ".join(filter(None, [resource.type, resource.name or resource.id]))),
        location=_cut(audit.location),
        ip=_cut(found.source.ip),
        outcome=_cut(event.outcome),
        reason=_cut(event.reason),
        rule_id=_cut(found.rule.id or found.rule.name),
        rule=_cut(found.rule.name or found.rule.id),
        host=_cut(found.host.name),
        is_login="authentication" in event.category,
        interval_s=_extra(audit.extra).interval_s if hit.dataset == AGENT and audit.extra else 0.0,
    )


def _cut(text: str | None) -> str:
    return (text or "")[:TEXT_MAX]


def _milliseconds(text: str, otherwise_ms: int) -> int:
    """An RFC 3339 time."""
    try:
        return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):
        return otherwise_ms
