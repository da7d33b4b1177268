"""Builds documents: from a decoded line and what is known of its block to an :class:`~indexer.document.Entry`.

The hot path of the indexer. Pure: the clock, the databases and the rules are given. Look-ups are cached by their inputs
and come as ready JSON; what is the same for a whole block is made once. A line that cannot be enriched becomes a rejected
entry; no line makes :meth:`Builder.build` raise.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from binascii import hexlify
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate, repeat
from operator import sub
from typing import Final, NamedTuple, cast

import orjson
from msgspec import Raw, Struct
from msgspec.json import Encoder

from auditship.block import BlockHeader
from auditship.clock import EPOCH, utc
from auditship.line import Actor as Who
from auditship.line import Ci, Line, LineError, Organization, decode_all, in_utc
from indexer.decode import Decoded, decode_line
from indexer.document import ECS, REJECTED, Actor, Audit, Document, Entry, Event, Log, Rejection, Related, User
from indexer.enrich.actor import Actors, Label
from indexer.enrich.cache import Cache
from indexer.enrich.habits import Finding, Origin
from indexer.enrich.location import InvalidAddress, Place, Places, location_text
from indexer.enrich.platform import Platforms
from indexer.enrich.privacy import Masks
from indexer.enrich.severity import Judgement, Severities
from indexer.identity import document_ids, hasher
from indexer.watch import Watch

ORIGINS_MAX: Final = 20_000
"""How many origins are remembered as ready JSON: some 1.5 KiB each."""
JUDGEMENTS_MAX: Final = 10_000
LATER: Final = Entry("", 0, "", "", b"")
"""Stands for an entry that cannot be made yet."""

_What = tuple[str, ...]
_Who = tuple[Organization, Who, str | None, str | None]
_encode = Encoder().encode
_log = logging.getLogger("auditship.indexer")


class Block(Struct, frozen=True, gc=False):
    """What every document of a block shares, made once; ``bytes`` are pieces of JSON."""

    stream: str
    gateway: str
    ingested_ms: int
    ingested: str
    created: str
    agent: Raw
    host: Raw
    file: Raw
    event: bytes
    """From the id's closing quote to ``event.original``."""
    log: bytes
    """From the end of ``event`` to ``log.offset``."""
    audit: bytes
    """From the end of ``log`` to what differs in ``audit``."""
    origin: bytes
    """``agent``, ``host`` and ``ecs``, from the end of ``audit`` to ``organization``."""
    hasher: hashlib.blake2b
    """Has taken the stream: every id begins with a copy of it."""
    pieces: dict[_What, _Pieces]
    """What the judgements of this block's events come to in it."""
    organizations: frozenset[str]
    """Organisations that the sender may speak of; none: all."""

    @classmethod
    def of(cls, header: BlockHeader, *, sender: str, now_ms: int, organizations: frozenset[str] = frozenset()) -> Block:
        """From a block's header; ``sender`` is the name that the token or certificate proved."""
        ingested, created = utc(max(now_ms, 0)), utc(max(min(header.created_ms, now_ms), 0))
        agent = _encode({"id": header.agent, "name": sender or header.agent, "type": "auditship"})
        host = _encode({"name": header.host})
        file = _encode({"path": header.path.decode("utf-8", "replace")})
        dataset = _encode(f"audit.{header.gateway}")
        return cls(
            stream=header.stream,
            gateway=header.gateway,
            ingested_ms=now_ms,
            ingested=ingested,
            created=created,
            agent=Raw(agent),
            host=Raw(host),
            file=Raw(file),
            event=b'","kind":"event","created":"%b","ingested":"%b","module":"audit","dataset":%b,"original":'
            % (created.encode(), ingested.encode(), dataset),
            log=b'},"log":{"file":%b,"offset":' % file,
            audit=b'},"audit":{"gateway":%b,"stream":%b,' % (_encode(header.gateway), _encode(header.stream)),
            origin=b'},"agent":%b,"host":%b,"ecs":%b,"organization":' % (agent, host, bytes(ECS)),
            hasher=hasher(bytes.fromhex(header.stream)),
            pieces={},
            organizations=organizations,
        )


class _Judged(NamedTuple):
    """A judgement in pieces of JSON: of ``event``, ``event.reason``, ``log``, ``audit``."""

    event: bytes
    reason: bytes
    level: bytes
    audit: bytes


_Pieces = tuple[bytes, bytes]
"""What an event is in its block: from ``event.sequence`` to ``log.offset``, and from there to ``audit.actor``."""


class _Origin(NamedTuple):
    """Who and from where: all that follows from organisation, actor, user agent and address, in pieces of JSON."""

    retention: str
    person: tuple[str, str] | None
    """Of a person: the organisation's id and the user's. None of tokens and services."""
    whence: Origin | None
    """What is known of a person's address, as far as habits go."""
    front: bytes
    """``audit.actor`` and ``audit.location``, to the name of ``audit.resource``."""
    rest: bytes
    """``organization``, ``user``, ``user_agent``, ``source`` and ``related``."""
    place: Place | None
    label: Label


class _Given(NamedTuple):
    """Valid lines of a block, in columns: what each is by itself, and who it is of and from where."""

    lines: Sequence[Line]
    extras: Sequence[bytes]
    origins: Sequence[_Origin]
    offsets: Sequence[int]
    originals: Sequence[bytes]
    """The lines themselves, as JSON."""
    digests: Sequence[bytes]
    """SHA-256 of each as it stood in the block: what identity is made of."""
    hashes: Sequence[bytes]
    """``event.hash``, in hexadecimal."""
    tags: list[tuple[str, ...]]
    plain: Sequence[tuple[Line, bytes]]
    """Each with its extra fields before anything was hidden: to be judged by, never to be stored."""


class Builder:
    """Makes entries out of decoded lines."""

    def __init__(
        self,
        actors: Actors,
        places: Places,
        platforms: Platforms,
        severities: Severities,
        retention: Callable[[str], str],
        *,
        masks: Masks | None = None,
    ) -> None:
        self._label = actors.label
        self._look_up = places.look_up
        self._platform = platforms.of
        self._severities = severities
        self._retention = retention
        self._masks = masks
        self._judged: Cache[_What, _Judged] = Cache(JUDGEMENTS_MAX)
        self._origins: Cache[_Who, _Origin] = Cache(ORIGINS_MAX)

    def forget(self) -> None:
        """Drops what is remembered of places: for when a database was replaced."""
        self._origins = Cache(ORIGINS_MAX)  # lines that are worked on meanwhile, in another thread, fill the one before

    def reject(self, block: Block, decoded: Decoded, error: LineError) -> Entry:
        """The entry of a line that is not to be an event, as it was decoded."""
        return reject(block, decoded if self._masks is None else self._masks(decoded, block.organizations), error)

    def take(
        self, block: Block, offset: int, texts: Sequence[bytes], watch: Watch | None = None
    ) -> tuple[list[Entry], Sequence[int]]:
        """What :meth:`build` makes of lines that follow each other, of which nothing had to be taken off, for less.

        One kind of work at a time is done for all of them: the processor has then what it needs for it at hand. So there
        should be some dozens of lines, and not more than its caches hold.

        Args:
            block: what they share.
            offset: where the first of them begins in its stream.
            texts: the lines.
            watch: tells what is unusual about their location.

        Returns:
            An entry for each, and where in this list :data:`LATER` stands, since the watch has to look the actor up first.
        """
        offsets = list(accumulate([len(text) + 1 for text in texts], initial=offset))
        with suppress(Exception):  # nothing is stored yet; what it is, and of which line, is told below
            return self._documents(block, self._given(block, offsets[:-1], texts), watch)
        if len(texts) == 1:
            entry = self.build(block, decode_line(offset, texts[0]), watch)
            return [entry], [0] if entry is LATER else []
        middle = len(texts) // 2  # halves, until what is at fault stands alone
        entries, waiting = self.take(block, offset, texts[:middle], watch)
        more, later = self.take(block, offsets[middle], texts[middle:], watch)
        return entries + more, [*waiting, *(middle + at for at in later)]

    def build(self, block: Block, decoded: Decoded, watch: Watch | None = None) -> Entry:
        """The entry that a line becomes: a document, or a rejected line; ``watch`` tells what is unusual about its location.

        :data:`LATER` if the watch has to look the line's actor up first.
        """
        if self._masks is not None:
            decoded = self._masks(decoded, block.organizations)
        try:
            return self._documents(block, self._given_of(block, [decoded]), watch)[0][0]
        except LineError as error:
            return reject(block, decoded, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the line is kept and those behind it go on
            _log.exception("enrichment failed on %s at offset %d; the line is kept as rejected", block.stream, decoded.offset)
            return reject(block, decoded, LineError(f"enrichment failed: {type(error).__name__}"))

    def _given(self, block: Block, offsets: Sequence[int], texts: Sequence[bytes]) -> _Given:
        """What is known of lines of which nothing was taken off.

        Raises:
            LineError: there is one among them that cannot be a document.
        """
        if self._masks is not None:
            decoded = [decode_line(*each) for each in zip(offsets, texts, strict=True)]
            return self._given_of(block, [self._masks(each, block.organizations) for each in decoded])
        lines, extras = decode_all(texts)
        origins = self._origins_of(block, lines)
        digests = [hashed.digest() for hashed in map(sha256, texts)]
        originals = [orjson.dumps(text.decode()) for text in texts]
        plain = [*zip(lines, extras, strict=True)]
        return _Given(lines, extras, origins, offsets, originals, digests, [*map(hexlify, digests)], [()] * len(lines), plain)

    def _given_of(self, block: Block, decoded: Sequence[Decoded]) -> _Given:
        """The same of lines of which something may have been taken off, or hidden in them."""
        lines, extras = [_line(each) for each in decoded], [each.extra for each in decoded]
        origins = self._origins_of(block, lines)
        digests = [sha256(each.raw).digest() for each in decoded]
        originals = [orjson.dumps(each.text.decode()) for each in decoded]
        hashes = [*map(_hash, decoded, digests)]
        plain = [each.plain or (line, each.extra) for each, line in zip(decoded, lines, strict=True)]
        offsets, tags = [each.offset for each in decoded], [each.tags for each in decoded]
        return _Given(lines, extras, origins, offsets, originals, digests, hashes, tags, plain)

    def _documents(self, block: Block, given: _Given, watch: Watch | None) -> tuple[list[Entry], Sequence[int]]:
        """The documents, spliced: what was seen before comes as ready JSON, everything else was encoded."""
        lines, origins = given.lines, given.origins
        moments, times = _moments([line.timestamp for line in lines])
        fronts, pipelines = self._pipelines(lines, origins)
        pieces = self._pieces(block, given)
        retentions, people, whence, _, rests, _, _ = zip(*origins, strict=True)
        later = []
        for at, finding in watch.unusual(people, whence, times, [line.status for line in lines]) if watch else ():
            if finding is None:
                later.append(at)
            else:
                pieces[at] = self._unusual(block, lines[at], given.plain[at], finding)
                given.tags[at] += finding.tags
        events, audits = zip(*pieces, strict=True)
        ids = document_ids(times, block.hasher, given.offsets, given.digests)
        numbers = _numbers(given.offsets)
        bodies = map(b"".join, zip(
            repeat(b'{"@timestamp":'), moments, repeat(b',"event":{"id":"'), map(str.encode, ids), repeat(block.event),
            given.originals, repeat(b',"hash":"'), given.hashes, repeat(b'","sequence":'), numbers, events, numbers, audits,
            fronts, [_encode(line.resource) for line in lines],
            repeat(b',"skew_ms":'), _numbers([block.ingested_ms - time_ms for time_ms in times]), pipelines,
            [b',"changes":' + _encode(line.changes) if line.changes else b"" for line in lines],
            [b',"extra":' + extra if extra else b"" for extra in given.extras],
            repeat(block.origin), rests,
            [b',"http":{"request":{"id":' + _encode(line.request_id) + b"}}" if line.request_id else b"" for line in lines],
            [b',"session":{"id":' + _encode(line.session_id) + b"}" if line.session_id else b"" for line in lines],
            [b',"tags":' + _encode(tags) + b"}" if tags else b"}" for tags in given.tags],
        ))  # fmt: skip
        entries = [*map(Entry, ids, times, repeat(block.gateway), retentions, bodies)]
        for at in later:
            entries[at] = LATER
        return entries, later

    def _origins_of(self, block: Block, lines: Sequence[Line]) -> list[_Origin]:
        """Who and from where; most were met before.

        Raises:
            LineError: the sender may not speak for one of them, or the address of one is none.
        """
        if block.organizations and not block.organizations.issuperset([line.organization.id for line in lines]):
            raise LineError("the agent's token may not send for this organization", "/organization/id")
        who = [(line.organization, line.actor, line.user_agent, line.ip) for line in lines]
        origins = self._origins
        found = [*map(origins.get, who)]
        for at, origin in enumerate(found):
            if origin is None:
                key, line = who[at], lines[at]
                found[at] = origins.find(key) or origins.put(key, self._origin(line), _size(line))
        return cast("list[_Origin]", found)

    def _pipelines(self, lines: Sequence[Line], origins: Sequence[_Origin]) -> tuple[list[bytes], list[bytes]]:
        """``audit.actor`` and ``audit.location``, and ``audit.ci``: the event's own word counts before the user agent's."""
        fronts, pipelines = [origin.front for origin in origins], [b""] * len(lines)
        for at, (line, origin) in enumerate(zip(lines, origins, strict=True)):
            if (ci := line.ci) is not None:
                platform = self._platform(ci) or origin.label.platform
                fronts[at] = _front(line.actor, origin.label, origin.place, platform)
                pipelines[at] = b',"ci":' + _encode(Ci(platform, ci.run_id, ci.run_url, ci.repository))
        return fronts, pipelines

    def _pieces(self, block: Block, given: _Given) -> list[_Pieces]:
        """How bad they are; of most actions that is known, without a look at what else the line says."""
        what = [(line.action, line.status, line.resource.type) for line in given.lines]
        found = [*map(block.pieces.get, what)]
        for at, line in enumerate(given.lines):
            if found[at] is None or line.reason:
                known = self._severities.known(line)
                found[at] = placed = self._placed(block, known or self._severities.judge(*given.plain[at]), line)
                if known and not line.reason:
                    block.pieces[what[at]] = placed
        return cast("list[_Pieces]", found)

    def _unusual(self, block: Block, line: Line, plain: tuple[Line, bytes], found: Finding) -> _Pieces:
        """The pieces of an event whose location is unusual."""
        return self._placed(block, self._severities.judge(*plain).at_least(found.least), line, found.reason)

    def _placed(self, block: Block, found: Judgement, line: Line, more: str = "") -> _Pieces:
        """A judgement as this block has it; ``event.reason`` has the gateway's, the judgement's, and ``more`` to say."""
        key = (line.action, line.status, line.resource.type, found.severity, found.reason or "")
        judged = self._judged.get(key) or self._judged.find(key) or self._judged.put(key, _judged(found, line))
        said = judged.reason
        if line.reason or more:
            said = b',"reason":' + _encode("; ".join(filter(None, (line.reason, found.reason, more))))
        return judged.event + said + block.log, judged.level + block.audit + judged.audit

    def _origin(self, line: Line) -> _Origin:
        """What is known of the line's actor, organisation, user agent and address."""
        actor, organization = line.actor, line.organization
        label = self._label(actor.type, line.user_agent)
        place = None
        if line.ip:
            try:
                place = self._look_up(line.ip)
            except InvalidAddress as error:
                raise LineError(str(error), "/ip") from None
        automated = actor.type != "user"
        name = actor.name or actor.email or actor.id
        user = User(actor.id, name, None if automated else actor.name, actor.email)
        related = Related((place.ip,) if place else (), _names(actor))
        return _Origin(
            retention=self._retention(organization.id),
            person=None if automated else (organization.id, actor.id),
            whence=place.origin if place and not automated else None,
            front=_front(actor, label, place, label.platform),
            rest=b'%b,"user":%b%b%b,"related":%b'
            % (
                _encode(organization),
                _encode(user),
                b',"user_agent":' + bytes(label.user_agent) if label.user_agent else b"",
                b',"source":' + bytes(place.source) if place else b"",
                _encode(related),
            ),
            place=place,
            label=label,
        )


def _front(actor: Who, label: Label, place: Place | None, platform: str | None) -> bytes:
    location = location_text(place, platform, actor.type != "user")
    return b',"actor":%b,"location":%b,"resource":' % (_encode(Actor(actor.type, label.text)), _encode(location))


def _size(line: Line) -> int:
    """Characters that are remembered with an origin's key."""
    texts = (
        line.organization.id,
        line.organization.name,
        line.actor.id,
        line.actor.name,
        line.actor.email,
        line.user_agent,
        line.ip,
    )
    return sum(len(text) for text in texts if text)


def _judged(found: Judgement, line: Line) -> _Judged:
    kinds = b',"category":%b,"type":%b' % (_encode(found.category), _encode(found.type))
    action, severity = _encode(found.action), _encode(found.severity)
    return _Judged(
        event=b',"action":%b%b,"outcome":%b,"severity":%d' % (action, kinds, _encode(line.status), found.number),
        reason=b',"reason":' + _encode(found.reason) if found.reason else b"",
        level=b',"level":' + severity,
        audit=b'"severity":' + severity + (b"" if found.action == line.action else b',"action":' + _encode(line.action)),
    )


def reject(block: Block, decoded: Decoded, error: LineError) -> Entry:
    """The entry of a line that is not an event: the line itself, and why.

    ``event.original`` shows what could be read as UTF-8; where that is not all, ``audit.rejection.bytes`` has the bytes.
    """
    text = decoded.text.decode("utf-8", "replace")
    exact = text.encode() == decoded.text
    digest = sha256(decoded.raw).digest()
    identity = document_ids([0], block.hasher, [decoded.offset], [digest])[0]
    document = Document(
        timestamp=EPOCH + timedelta(milliseconds=block.ingested_ms),
        event=Event(
            id=identity,
            kind="pipeline_error",
            created=block.created,
            ingested=block.ingested,
            original=text,
            hash=_hash(decoded, digest).decode(),
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


def _line(decoded: Decoded) -> Line:
    """What it says, if it is an event."""
    if decoded.line is None:
        error = decoded.error or LineError("no event")
        raise LineError(error.reason, error.pointer)  # a new one: the line's own would come to hold this frame, thus itself
    return decoded.line


def _hash(decoded: Decoded, digest: bytes) -> bytes:
    """``event.hash``; ``digest`` is that of the line as it stood in the block."""
    if decoded.hash:
        return decoded.hash.encode()
    return hexlify(digest if decoded.text is decoded.raw else sha256(decoded.text).digest())


def _numbers(numbers: Sequence[int]) -> list[bytes]:
    """Each as JSON."""
    return _encode(numbers)[1:-1].split(b",")


def _moments(timestamps: Sequence[datetime | int]) -> tuple[list[bytes], list[int]]:
    """Timestamps in UTC, as nearly all are as they stand: as JSON, and as epoch milliseconds."""
    if [getattr(timestamp, "tzinfo", None) for timestamp in timestamps].count(UTC) == len(timestamps):
        moments = cast("Sequence[datetime]", timestamps)
    else:
        moments = [in_utc(timestamp) for timestamp in timestamps]
    since = map(sub, moments, repeat(EPOCH))
    times = [(each.days * 86_400 + each.seconds) * 1000 + each.microseconds // 1000 for each in since]
    return _encode(moments)[1:-1].split(b","), times


def _names(actor: Who) -> tuple[str, ...]:
    """What the actor is called, each name once."""
    name, email = actor.name, actor.email
    if name and email and name != actor.id != email != name:
        return actor.id, name, email
    return tuple(dict.fromkeys(each for each in (actor.id, name, email) if each))
