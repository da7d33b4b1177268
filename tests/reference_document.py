"""What a line becomes, written the plain way: a tree of structs, encoded at once. The builder's splicing is held against it."""

from __future__ import annotations

import hashlib
from datetime import UTC, timedelta

from msgspec import Raw
from msgspec.json import encode

from auditship.clock import EPOCH
from auditship.line import Line
from indexer.build import Block
from indexer.decode import Decoded
from indexer.document import ECS, Actor, Audit, Document, Event, Http, Id, Log, Organization, Related, Resource, User
from indexer.enrich.actor import Actors
from indexer.enrich.location import Places, location_text
from indexer.enrich.platform import Platforms
from indexer.enrich.severity import Severities
from indexer.identity import document_id

MILLISECOND = timedelta(milliseconds=1)
ACTORS, PLATFORMS = Actors(100), Platforms()


def reference(block: Block, decoded: Decoded, places: Places, severities: Severities) -> bytes:
    """The document of a good line."""
    line = decoded.line
    assert line is not None
    when = line.timestamp
    time_ms = when if isinstance(when, int) else (when - EPOCH) // MILLISECOND
    actor, resource = line.actor, line.resource
    label = ACTORS.label(actor.type, line.user_agent)
    judgement = severities.judge(line, decoded.extra)
    place = places.look_up(line.ip) if line.ip else None
    is_person = actor.type == "user"
    platform = (line.ci and PLATFORMS.of(line.ci)) or label.platform
    names = dict.fromkeys(each for each in (actor.id, actor.name, actor.email) if each)
    return encode(
        Document(
            timestamp=EPOCH + when * MILLISECOND if isinstance(when, int) else when.astimezone(UTC),
            event=Event(
                id=document_id(time_ms, bytes.fromhex(block.stream), decoded.offset, decoded.raw),
                kind="event",
                created=block.created,
                ingested=block.ingested,
                original=decoded.text.decode(),
                hash=hashlib.sha256(decoded.text).hexdigest(),
                module="audit",
                dataset=f"audit.{block.gateway}",
                sequence=decoded.offset,
                action=judgement.action,
                category=judgement.category,
                type=judgement.type,
                outcome=line.status,
                severity=judgement.number,
                reason="; ".join(filter(None, (line.reason, judgement.reason))) or None,
            ),
            log=Log(offset=decoded.offset, file=block.file, level=judgement.severity),
            audit=Audit(
                gateway=block.gateway,
                stream=block.stream,
                severity=judgement.severity,
                actor=Actor(actor.type, label.text),
                location=location_text(place, platform, automated=not is_person),
                resource=Resource(resource.type, resource.id, resource.name),
                action=None if judgement.action == line.action else line.action,
                ci=_ci(line, platform),
                changes=Raw(encode(line.changes)) if line.changes else None,
                extra=Raw(decoded.extra) if decoded.extra else None,
                skew_ms=block.ingested_ms - time_ms,
            ),
            agent=block.agent,
            host=block.host,
            ecs=ECS,
            organization=Organization(line.organization.id, line.organization.name),
            user=User(actor.id, actor.name or actor.email or actor.id, actor.name if is_person else None, actor.email),
            user_agent=label.user_agent,
            source=place.source if place else None,
            http=Http(Id(line.request_id)) if line.request_id else None,
            session=Id(line.session_id) if line.session_id else None,
            related=Related((place.ip,) if place else (), tuple(names)),
            tags=decoded.tags,
        )
    )


def _ci(line: Line, platform: str | None) -> Raw | None:
    if line.ci is None:
        return None
    fields = {"platform": platform, "run_id": line.ci.run_id, "run_url": line.ci.run_url, "repository": line.ci.repository}
    return Raw(encode({name: value for name, value in fields.items() if value is not None}))
