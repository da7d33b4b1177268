"""Builds documents: from a decoded line and what is known of its block to an :class:`~indexer.document.Entry`.

The hot path of the indexer. Pure: the clock, the databases and the rules are given. Look-ups are cached by their inputs
and come as ready JSON; what is the same for a whole block is made once. A line that cannot be enriched becomes a rejected
entry; no line makes :meth:`Builder.build` raise.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from binascii import b2a_base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Raw
from msgspec.json import Encoder

from auditship.block import BlockHeader
from auditship.line import EPOCH, Line, LineError
from auditship.line import Actor as Who
from indexer.decode import Decoded
from indexer.document import (
    ECS,
    REJECTED,
    Actor,
    Audit,
    Document,
    Entry,
    Event,
    Http,
    Id,
    Log,
    Organization,
    Rejection,
    Related,
    Resource,
    User,
)
from indexer.enrich.actor import Actors
from indexer.enrich.location import InvalidAddress, Places, location_text
from indexer.enrich.platform import Platforms
from indexer.enrich.severity import Severities

_ID_TIME_MAX: Final = 2**48 - 1
_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")
_encode = Encoder().encode
_log = logging.getLogger("auditship.indexer")


class Block(NamedTuple):
    """What every document of a block shares, made once."""

    stream: str
    gateway: str
    dataset: str
    ingested_ms: int
    ingested: str
    created: str
    agent: Raw
    host: Raw
    file: Raw
    stream_bytes: bytes
    organizations: frozenset[str]
    """Organisations that the sender may speak of; none: all."""

    @classmethod
    def of(cls, header: BlockHeader, *, sender: str, now_ms: int, organizations: frozenset[str] = frozenset()) -> Block:
        """From a block's header; ``sender`` is the name that the token or certificate proved."""
        return cls(
            stream=header.stream,
            gateway=header.gateway,
            dataset=f"audit.{header.gateway}",
            ingested_ms=now_ms,
            ingested=_utc(now_ms),
            created=_utc(min(header.created_ms, now_ms)),
            agent=Raw(_encode({"id": header.agent, "name": sender or header.agent, "type": "auditship"})),
            host=Raw(_encode({"name": header.host})),
            file=Raw(_encode({"path": header.path.decode("utf-8", "replace")})),
            stream_bytes=bytes.fromhex(header.stream),
            organizations=organizations,
        )


class Builder:
    """Makes entries out of decoded lines."""

    def __init__(
        self,
        actors: Actors,
        places: Places,
        platforms: Platforms,
        severities: Severities,
        retention: Callable[[str], str],
    ) -> None:
        self._label = actors.label
        self._look_up = places.look_up
        self._platform = platforms.name
        self._judge = severities.judge
        self._retention = retention

    def build(self, block: Block, decoded: Decoded) -> Entry:
        """The entry that a line becomes: a document, or a rejected line."""
        if decoded.line is None:
            assert decoded.error is not None
            return reject(block, decoded, decoded.error)
        try:
            return self._event(block, decoded, decoded.line)
        except LineError as error:
            return reject(block, decoded, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the line is kept and those behind it go on
            _log.exception("enrichment failed on %s at offset %d; the line is kept as rejected", block.stream, decoded.offset)
            return reject(block, decoded, LineError(f"enrichment failed: {type(error).__name__}"))

    def _event(self, block: Block, decoded: Decoded, line: Line) -> Entry:
        organization, actor, resource = line.organization, line.actor, line.resource
        if block.organizations and organization.id not in block.organizations:
            raise LineError("the agent's token may not send for this organization", "/organization/id")
        moment, time_ms = _moment(line.timestamp)
        label = self._label(actor.type, line.user_agent)
        judgement = self._judge(line.action, line.status, resource.type)
        place = None
        if line.ip:
            try:
                place = self._look_up(line.ip)
            except InvalidAddress as error:
                raise LineError(str(error), "/ip") from None
        automated = actor.type != "user"
        platform = label.platform
        if line.ci is not None and line.ci.platform:
            platform = self._platform(line.ci.platform)
        name = actor.name or actor.email or actor.id
        identity = document_id(time_ms, block.stream_bytes, decoded.offset, decoded.raw)
        document = Document(
            timestamp=moment,
            event=Event(
                id=identity,
                kind="event",
                created=block.created,
                ingested=block.ingested,
                original=decoded.text.decode(),
                hash=hashlib.sha256(decoded.text).hexdigest(),
                module="audit",
                dataset=block.dataset,
                sequence=decoded.offset,
                action=judgement.action,
                category=judgement.category,
                type=judgement.type,
                outcome=line.status,
                severity=judgement.number,
                reason=line.reason or judgement.reason,
            ),
            log=Log(offset=decoded.offset, file=block.file, level=judgement.severity),
            audit=Audit(
                gateway=block.gateway,
                stream=block.stream,
                severity=judgement.severity,
                actor=Actor(actor.type, label.text),
                location=location_text(place, platform, automated),
                resource=Resource(resource.type, resource.id, resource.name),
                action=None if judgement.action == line.action else line.action,
                ci=_ci(line, platform),
                changes=Raw(_encode(line.changes)) if line.changes else None,
                extra=Raw(decoded.extra) if decoded.extra else None,
                skew_ms=block.ingested_ms - time_ms,
            ),
            agent=block.agent,
            host=block.host,
            ecs=ECS,
            organization=Organization(organization.id, organization.name),
            user=User(actor.id, name, None if automated else actor.name, actor.email),
            user_agent=label.user_agent,
            source=None if place is None else place.source,
            http=Http(Id(line.request_id)) if line.request_id else None,
            session=Id(line.session_id) if line.session_id else None,
            related=Related((place.ip,) if place else (), _names(actor)),
            tags=decoded.tags,
        )
        return Entry(identity, time_ms, block.gateway, self._retention(organization.id), _encode(document))


def reject(block: Block, decoded: Decoded, error: LineError) -> Entry:
    """The entry of a line that is not an event: the line itself, and why.

    ``event.original`` shows what could be read as UTF-8; where that is not all, ``audit.rejection.bytes`` has the bytes.
    """
    text = decoded.text.decode("utf-8", "replace")
    exact = text.encode() == decoded.text
    identity = document_id(0, block.stream_bytes, decoded.offset, decoded.raw)
    document = Document(
        timestamp=EPOCH + timedelta(milliseconds=block.ingested_ms),
        event=Event(
            id=identity,
            kind="pipeline_error",
            created=block.created,
            ingested=block.ingested,
            original=text,
            hash=hashlib.sha256(decoded.text).hexdigest(),
            module="audit",
            dataset=f"audit.{REJECTED}",
            sequence=decoded.offset,
        ),
        log=Log(offset=decoded.offset, file=block.file),
        audit=Audit(
            gateway=block.gateway,
            stream=block.stream,
            rejection=Rejection(
                reason=error.reason,
                pointer=error.pointer,
                bytes=None if exact else base64.b64encode(decoded.text).decode(),
            ),
        ),
        agent=block.agent,
        host=block.host,
        ecs=ECS,
        tags=decoded.tags,
    )
    return Entry(identity, block.ingested_ms, REJECTED, "30d", _encode(document))


def document_id(time_ms: int, stream: bytes, offset: int, raw: bytes) -> str:
    """``_id`` as :mod:`indexer.document` describes it: 22 characters."""
    when = (time_ms if 0 <= time_ms <= _ID_TIME_MAX else 0 if time_ms < 0 else _ID_TIME_MAX).to_bytes(6, "big")
    what = hashlib.blake2b(stream + offset.to_bytes(8, "big") + raw, digest_size=10).digest()
    return b2a_base64(when + what).translate(_BASE64URL)[:22].decode()


def _moment(timestamp: datetime | int) -> tuple[datetime, int]:
    """A timestamp in UTC, and as epoch milliseconds."""
    try:
        if isinstance(timestamp, int):
            return EPOCH + timedelta(milliseconds=timestamp), timestamp
        since = timestamp - EPOCH
        return timestamp.astimezone(UTC), (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    except OverflowError:
        raise LineError("before the year 1 or after the year 9999 in UTC", "/timestamp") from None


def _ci(line: Line, platform: str | None) -> Raw | None:
    """``audit.ci``: the pipeline, with the platform's usual name."""
    if line.ci is None:
        return None
    fields = {"platform": platform, "run_id": line.ci.run_id, "run_url": line.ci.run_url, "repository": line.ci.repository}
    return Raw(_encode({name: value for name, value in fields.items() if value is not None}))


def _names(actor: Who) -> tuple[str, ...]:
    """What the actor is called, each name once."""
    name, email = actor.name, actor.email
    if name and email and name != actor.id != email != name:
        return actor.id, name, email
    return tuple(dict.fromkeys(each for each in (actor.id, name, email) if each))


def _utc(time_ms: int) -> str:
    """RFC 3339 with milliseconds; a time out of range is shown as the nearest that can be."""
    moment = EPOCH + timedelta(milliseconds=min(max(time_ms, 0), 253_402_300_799_999))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
