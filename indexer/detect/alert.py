"""The document that a hit becomes, in ``logs-audit.alert-*``: what was found, of whom, by which rule, and from which events.

``_id`` and ``event.id``: 16 bytes as in :mod:`indexer.identity`: the time at which the cause's span begins (6 bytes), then
BLAKE2b-80 over the rule's name, the group and that time. The same cause has the same id however often it is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Raw, Struct, field
from msgspec.json import Encoder

from auditship.clock import utc
from indexer.detect.engine import Hit
from indexer.detect.event import Event, actor_of, common, distinct, organizations, span_text, told
from indexer.document import ECS, EVENT_SEVERITY, Actor, Entry, Organization, Related, Resource, User
from indexer.identity import shown_id

ALERT: Final = "alert"
"""The dataset of alerts; see :data:`auditship.block.RESERVED_GATEWAYS`."""
EVENTS_MAX: Final = 20
_encode = Encoder().encode


class AlertEvent(Struct, omit_defaults=True, gc=False):
    """``event.*``: ``start`` and ``end`` are the first and the last event's times."""

    id: str
    kind: str
    created: str
    ingested: str
    module: str
    dataset: str
    action: str
    category: tuple[str, ...]
    type: tuple[str, ...]
    severity: int
    reason: str
    start: str
    end: str


class RuleFields(Struct, omit_defaults=True, gc=False):
    """``rule.*``."""

    id: str
    name: str
    description: str | None = None


class Technique(Struct, omit_defaults=True, gc=False):
    """``threat.technique.*``: ATT&CK's."""

    id: tuple[str, ...] = ()


class Threat(Struct, gc=False):
    """``threat.*``."""

    technique: Technique


class Cause(Struct, omit_defaults=True, gc=False):
    """``audit.alert.*``: how many events or values were counted, and the ids of the latest events (at most 20).

    ``organizations``: whose events they are, where they are of several; those of the latest events (at most 20). Who may see
    some organisations alone is shown what has one of them in ``organization.id``: never such an alert, which tells of the
    others too.
    """

    count: int
    events: tuple[str, ...]
    organizations: tuple[str, ...] = ()


class AlertAudit(Struct, omit_defaults=True, gc=False):
    """``audit.*``: of whom it is, where all events agree."""

    severity: str
    alert: Cause
    gateway: str | None = None
    actor: Actor | None = None
    location: str | None = None
    resource: Resource | None = None


class Level(Struct, gc=False):
    """``log.level``: the severity's word."""

    level: str


class Alert(Struct, omit_defaults=True, gc=False):
    """The whole document."""

    timestamp: str = field(name="@timestamp")
    event: AlertEvent
    rule: RuleFields
    audit: AlertAudit
    log: Level
    ecs: Raw
    organization: Organization | None = None
    user: User | None = None
    source: Mapping[str, str] | None = None
    related: Related | None = None
    threat: Threat | None = None


def entry_of(hit: Hit, retention: Callable[[str], str], now_ms: int) -> Entry:
    """The entry of a hit. ``retention`` gives an organisation's class; the empty name stands for none."""
    about, events = hit.about, hit.events
    facts = common(events)
    last, identity = events[-1], identity_of(hit)
    organization = facts.get("organization.id")
    alert = Alert(
        timestamp=utc(last.time_ms),
        event=AlertEvent(
            id=identity,
            kind="alert",
            created=utc(now_ms),
            ingested=utc(now_ms),
            module="audit",
            dataset=f"audit.{ALERT}",
            action=f"detection.{about.name}",
            category=("intrusion_detection",),
            type=("info",),
            severity=EVENT_SEVERITY[about.severity],
            reason=reason_of(hit),
            start=utc(events[0].time_ms),
            end=utc(last.time_ms),
        ),
        rule=RuleFields(about.name, about.title, about.description or None),
        audit=AlertAudit(
            severity=about.severity,
            alert=Cause(hit.total, tuple(each.id for each in events[-EVENTS_MAX:] if each.id), organizations(events)),
            gateway=facts.get("audit.gateway"),
            actor=_actor(facts),
            location=facts.get("audit.location"),
            resource=_resource(facts),
        ),
        log=Level(about.severity),
        ecs=ECS,
        organization=Organization(organization, facts.get("organization.name")) if organization else None,
        user=_user(facts),
        source={"ip": facts["source.ip"]} if "source.ip" in facts else None,
        related=_related(events),
        threat=Threat(Technique(about.techniques)) if about.techniques else None,
    )
    return Entry(identity, last.time_ms, ALERT, retention(organization or ""), _encode(alert))


def identity_of(hit: Hit) -> str:
    """The id of a hit's alert."""
    when = min(max(hit.start_ms, 0), 2**48 - 1).to_bytes(6, "big")
    what = hashlib.blake2b(digest_size=10)
    for part in (hit.about.name, str(hit.start_ms), *hit.group):
        what.update(len(part).to_bytes(4, "big") + part.encode("utf-8", "surrogatepass"))
    return shown_id(when + what.digest())


def reason_of(hit: Hit) -> str:
    """The rule's sentence for a hit."""
    last, first = hit.events[-1].facts, hit.events[0].facts
    words = {"count": str(hit.total), "span": span_text(hit.span_ms), "actor": actor_of(last), "earlier": actor_of(first)}
    return told(hit.about.reason, {**last, **words})


def _user(facts: Mapping[str, str]) -> User | None:
    if "user.id" not in facts:
        return None
    name = facts.get("user.name", facts["user.id"])
    return User(facts["user.id"], name, facts.get("user.full_name"), facts.get("user.email"))


def _actor(facts: Mapping[str, str]) -> Actor | None:
    kind, label = facts.get("audit.actor.type"), facts.get("audit.actor.label")
    return Actor(kind, label) if kind and label else None


def _resource(facts: Mapping[str, str]) -> Resource | None:
    kind = facts.get("audit.resource.type")
    return Resource(kind, facts.get("audit.resource.id"), facts.get("audit.resource.name")) if kind else None


def _related(events: list[Event]) -> Related | None:
    """Every address and name in the latest events, for pivoting."""
    latest = [event.facts for event in events[-EVENTS_MAX:]]
    addresses = distinct(facts.get("source.ip") for facts in latest)
    names = distinct(facts.get(name) for facts in latest for name in ("user.id", "user.name", "user.email"))
    return Related(addresses, names) if addresses or names else None
