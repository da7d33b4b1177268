"""Builds documents: from a decoded line and what is known of its block to an :class:`~indexer.document.Entry`.

The hot path of the indexer. Pure: the clock, the databases and the rules are given. Look-ups are cached by their inputs
and come as ready JSON; what is the same for a whole block is made once. A line that cannot be enriched becomes a rejected
entry; no line makes :meth:`Builder.build` raise.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from binascii import b2a_base64, hexlify
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate
from typing import Final, NamedTuple, cast

import orjson
from msgspec import Raw, Struct
from msgspec.json import Encoder

from auditship.block import BlockHeader
from auditship.clock import EPOCH, utc
from auditship.line import Actor as Who
from auditship.line import Ci, Line, LineError, Organization, decode_all
from indexer.decode import Decoded, decode_line
from indexer.document import ECS, REJECTED, Actor, Audit, Document, Entry, Event, Log, Rejection, Related, User
from indexer.enrich.actor import Actors, Label
from indexer.enrich.cache import Cache
from indexer.enrich.habits import Finding, Origin
from indexer.enrich.location import InvalidAddress, Place, Places, location_text
from indexer.enrich.platform import Platforms
from indexer.enrich.privacy import Masks
from indexer.enrich.severity import Judgement, Severities
from indexer.watch import Unread, Watch

_ID_TIME_MAX: Final = 2**48 - 1
_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")
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
            hasher=_hasher(bytes.fromhex(header.stream)),
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
    """What is known of the address, as far as habits go."""
    front: bytes
    """``audit.actor`` and ``audit.location``, to the name of ``audit.resource``."""
    rest: bytes
    """``organization``, ``user``, ``user_agent``, ``source`` and ``related``."""
    place: Place | None
    label: Label


_Parts = tuple[int, bytes, bytes, bytes, bytes, bytes, bytes, _Origin | None, _Pieces | None]
"""What a line comes to: its time in epoch milliseconds and as JSON, its id, itself as JSON, its hash, its offset, its resource;
and of what it shares with others, what was met before."""


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
        self._origins.clear()

    def reject(self, block: Block, decoded: Decoded, error: LineError) -> Entry:
        """The entry of a line that is not to be an event, as it was decoded."""
        return reject(block, decoded if self._masks is None else self._masks(decoded, block.organizations), error)

    def take(self, block: Block, offset: int, texts: Sequence[bytes], watch: Watch | None = None) -> list[Entry]:
        """What :meth:`build` makes of lines that follow each other, of which nothing had to be taken off, for less.

        One kind of work at a time is done for all of them: the processor has then what it needs for it at hand. So there
        should be some dozens of lines, and not more than its caches hold.

        Args:
            block: what they share.
            offset: where the first of them begins in its stream.
            texts: the lines.
            watch: tells what is unusual about their location.

        Returns:
            An entry for each; :data:`LATER` where the watch has to look the actor up first.
        """
        offsets = list(accumulate([len(text) + 1 for text in texts], initial=offset))[:-1]
        if self._masks is None and (found := decode_all(texts)):
            with suppress(LineError):
                return self._together(block, offsets, texts, *found, watch)
        return [self._alone(block, *each, watch) for each in zip(offsets, texts, strict=True)]

    def _together(  # noqa: PLR0917 - names would cost, for every line
        self,
        block: Block,
        offsets: Sequence[int],
        texts: Sequence[bytes],
        lines: Sequence[Line],
        extras: Sequence[bytes],
        watch: Watch | None,
    ) -> list[Entry]:
        """The entries of valid lines.

        Raises:
            LineError: there is one among them that cannot be a document; nothing was judged yet.
        """
        digests = [hashed.digest() for hashed in map(sha256, texts)]
        originals = [orjson.dumps(text.decode()) for text in texts]
        moments, times = _moments([line.timestamp for line in lines])
        resources = [_encode(line.resource) for line in lines]
        identities = _identities(times, block.hasher, offsets, digests)
        origins = map(self._origins.get, [(line.organization, line.actor, line.user_agent, line.ip) for line in lines])
        pieces = map(block.pieces.get, [(line.action, line.status, line.resource.type) for line in lines])
        made = zip(
            times, map(_encode, moments), identities, originals, map(hexlify, digests), map(b"%d".__mod__, offsets), resources,
            origins, pieces, strict=True,
        )  # fmt: skip
        entries: list[Entry] = []
        add, document = entries.append, self._document
        for line, extra, parts in zip(lines, extras, made, strict=True):
            try:
                add(document(block, line, extra, parts, watch))
            except Unread:
                add(LATER)
            except Exception:  # noqa: BLE001 - the long way tells what it is
                at = len(entries)
                add(self._alone(block, offsets[at], texts[at], watch))
        return entries

    def _alone(self, block: Block, offset: int, text: bytes, watch: Watch | None) -> Entry:
        """The entry of one line."""
        try:
            return self.build(block, decode_line(offset, text), watch)
        except Unread:
            return LATER

    def build(self, block: Block, decoded: Decoded, watch: Watch | None = None) -> Entry:
        """The entry that a line becomes: a document, or a rejected line; ``watch`` tells what is unusual about its location.

        Raises:
            Unread: the watch has to look its actor up first.
        """
        if self._masks is not None:
            decoded = self._masks(decoded, block.organizations)
        if decoded.line is None:
            assert decoded.error is not None
            return reject(block, decoded, decoded.error)
        try:
            return self._document(block, decoded.line, decoded.extra, _parts(block, decoded, decoded.line), watch, decoded)
        except Unread:
            raise
        except LineError as error:
            return reject(block, decoded, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the line is kept and those behind it go on
            _log.exception("enrichment failed on %s at offset %d; the line is kept as rejected", block.stream, decoded.offset)
            return reject(block, decoded, LineError(f"enrichment failed: {type(error).__name__}"))

    def _document(  # noqa: PLR0917 - names would cost, for every line
        self, block: Block, line: Line, extra: bytes, parts: _Parts, watch: Watch | None, more: Decoded | None = None
    ) -> Entry:
        """The document, spliced: what was seen before comes as ready JSON, everything else was encoded.

        ``more`` is given where something was taken off the line, or may be hidden in it.
        """
        time_ms, moment, identity, original, told, number, resource, origin, pieces = parts
        if block.organizations and line.organization.id not in block.organizations:
            raise LineError("the agent's token may not send for this organization", "/organization/id")
        origin = origin or self._origin_of(line)
        retention, person, whence, front, rest, _, _ = origin
        pipeline = b""
        if line.ci is not None:
            front, pipeline = self._pipeline(line.ci, line, origin)
        if pieces is None or line.reason:
            pieces = self._pieces(block, line, extra, more)
        tags: tuple[str, ...] = () if more is None else more.tags
        if watch and person and whence:
            found = watch.judge(person, whence, time_ms, succeeded=line.status == "success")
            if found:
                pieces, tags = self._unusual(block, line, extra, more, found), tags + found.tags
        event, audit = pieces
        body = [
            b'{"@timestamp":', moment, b',"event":{"id":"', identity, block.event, original,
            b',"hash":"', told, b'","sequence":', number, event, number, audit, front, resource,
            b',"skew_ms":%d' % (block.ingested_ms - time_ms), pipeline,
        ]  # fmt: skip
        if line.changes:
            body += b',"changes":', _encode(line.changes)
        if extra:
            body += b',"extra":', extra
        body += block.origin, rest
        if line.request_id:
            body += b',"http":{"request":{"id":', _encode(line.request_id), b"}}"
        if line.session_id:
            body += b',"session":{"id":', _encode(line.session_id), b"}"
        body.append(b',"tags":%b}' % _encode(tags) if tags else b"}")
        return Entry(identity.decode(), time_ms, block.gateway, retention, b"".join(body))

    def _pieces(self, block: Block, line: Line, extra: bytes, more: Decoded | None) -> _Pieces:
        """How bad it is; of most actions that is known, without a look at what else the line says."""
        what = (line.action, line.status, line.resource.type)
        if not line.reason and (kept := block.pieces.get(what)):
            return kept
        known = self._severities.known(line)
        found = self._placed(block, known or self._judgement(line, extra, more), line)
        if known and not line.reason:
            block.pieces[what] = found
        return found

    def _judgement(self, line: Line, extra: bytes, more: Decoded | None) -> Judgement:
        plain = more.plain if more else None
        return self._severities.judge(*(plain or (line, extra)))

    def _unusual(self, block: Block, line: Line, extra: bytes, more: Decoded | None, found: Finding) -> _Pieces:
        """The pieces of an event whose location is unusual."""
        plain = self._judgement(line, extra, more)
        return self._placed(block, plain.at_least(found.least), line, found.reason)

    def _placed(self, block: Block, found: Judgement, line: Line, more: str = "") -> _Pieces:
        """A judgement as this block has it; ``event.reason`` has the gateway's, the judgement's, and ``more`` to say."""
        key = (line.action, line.status, line.resource.type, found.severity, found.reason or "")
        judged = self._judged.get(key) or self._judged.find(key) or self._judged.put(key, _judged(found, line))
        said = judged.reason
        if line.reason or more:
            said = b',"reason":' + _encode("; ".join(filter(None, (line.reason, found.reason, more))))
        return judged.event + said + block.log, judged.level + block.audit + judged.audit

    def _pipeline(self, ci: Ci, line: Line, origin: _Origin) -> tuple[bytes, bytes]:
        """Where a pipeline ran, and ``audit.ci``: the event's own word counts before the user agent's."""
        platform = self._platform(ci) or origin.label.platform
        front = _front(line.actor, origin.label, origin.place, platform)
        return front, b',"ci":' + _encode(Ci(platform, ci.run_id, ci.run_url, ci.repository))

    def _origin_of(self, line: Line) -> _Origin:
        who = (line.organization, line.actor, line.user_agent, line.ip)
        return self._origins.find(who) or self._origins.put(who, self._origin(line), _size(line))

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
            whence=place.origin if place else None,
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
    identity = _identities([0], block.hasher, [decoded.offset], [digest])[0].decode()
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


def _parts(block: Block, decoded: Decoded, line: Line) -> _Parts:
    """Those of a line of which something may have been taken off, or hidden in it."""
    (moment,), (time_ms,) = _moments([line.timestamp])
    digest = sha256(decoded.raw).digest()
    (identity,) = _identities([time_ms], block.hasher, [decoded.offset], [digest])
    original, told, resource = orjson.dumps(decoded.text.decode()), _hash(decoded, digest), _encode(line.resource)
    return time_ms, _encode(moment), identity, original, told, b"%d" % decoded.offset, resource, None, None


def document_id(time_ms: int, stream: bytes, offset: int, raw: bytes) -> str:
    """``_id`` as :mod:`indexer.document` describes it: 22 characters."""
    return _identities([time_ms], _hasher(stream), [offset], [sha256(raw).digest()])[0].decode()


def _hash(decoded: Decoded, digest: bytes) -> bytes:
    """``event.hash``; ``digest`` is that of the line as it stood in the block."""
    if decoded.hash:
        return decoded.hash.encode()
    return hexlify(digest if decoded.text is decoded.raw else sha256(decoded.text).digest())


def _hasher(stream: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(stream, digest_size=10)


def _identities(times: Iterable[int], hasher: hashlib.blake2b, offsets: Iterable[int], digests: Iterable[bytes]) -> list[bytes]:
    """``_id``, of each line of a stream that has that SHA-256."""
    found = []
    for time_ms, offset, digest in zip(times, offsets, digests, strict=True):
        each = hasher.copy()
        each.update(offset.to_bytes(8, "big") + digest)
        when = time_ms if 0 <= time_ms <= _ID_TIME_MAX else 0 if time_ms < 0 else _ID_TIME_MAX
        found.append(when.to_bytes(6, "big") + each.digest() + b"\0\0")
    text = b2a_base64(b"".join(found)).translate(_BASE64URL)
    return [text[at : at + 22] for at in range(0, 24 * len(found), 24)]  # of the zeros remain two characters


def _moments(timestamps: Sequence[datetime | int]) -> tuple[Sequence[datetime], Sequence[int]]:
    """Timestamps in UTC, as nearly all are as they stand, and as epoch milliseconds."""
    if [getattr(timestamp, "tzinfo", None) for timestamp in timestamps].count(UTC) == len(timestamps):
        moments = cast("Sequence[datetime]", timestamps)
    else:
        moments = [_in_utc(timestamp) for timestamp in timestamps]
    since = [moment - EPOCH for moment in moments]
    return moments, [(each.days * 86_400 + each.seconds) * 1000 + each.microseconds // 1000 for each in since]


def _in_utc(timestamp: datetime | int) -> datetime:
    try:
        if isinstance(timestamp, int):
            return EPOCH + timedelta(milliseconds=timestamp)
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise LineError("before the year 1 or after the year 9999 in UTC", "/timestamp") from None


def _names(actor: Who) -> tuple[str, ...]:
    """What the actor is called, each name once."""
    name, email = actor.name, actor.email
    if name and email and name != actor.id != email != name:
        return actor.id, name, email
    return tuple(dict.fromkeys(each for each in (actor.id, name, email) if each))
