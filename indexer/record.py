"""The record of the record: who searched, exported and changed what, as documents of the dataset ``access``.

One document for each access: ``user`` is who, ``event.action`` what (``audit.search``, ``audit.export``, …), and
``audit.extra`` has the query, its filters and the number of hits. What organisations hide in their lines is hidden in queries
too (:mod:`indexer.discretion`), and ``related.user`` has the pseudonyms of those who were looked for. They stand in
``logs-audit.access-*``, which a search without a dataset leaves out; a search for them is itself recorded, once, and writing is
no search, so nothing goes round.

What cannot be written is told, never in the way: an analyst in the middle of an incident must not be locked out by a store
that takes nothing. :func:`recorded` is for commands; the server has its own (:mod:`indexer.recorder`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import pwd
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import click
from msgspec import Raw, Struct
from msgspec.json import encode

from auditship import clock
from auditship.errors import AuditshipError
from indexer.discretion import Discretion
from indexer.document import (
    ECS,
    EVENT_SEVERITY,
    Actor,
    Audit,
    Document,
    Entry,
    Event,
    Log,
    Organization,
    Related,
    Resource,
    User,
)
from indexer.identity import document_id
from indexer.organizations import Policies
from indexer.settings import IndexerSettings
from indexer.store.contract import Refused, Writer
from indexer.store.select import open_writer

ACCESS: Final = "access"
"""The dataset."""
ORGANIZATION: Final = "auditship"
"""Whose events those of agents and of auditship itself are."""
TEXT_MAX: Final = 4000
"""Characters of a query that are recorded."""
PSEUDONYMS_MAX: Final = 50
"""Pseudonyms in a question by which its record can be found."""
MANY: Final = "(many different questions)"
"""The query of a record that stands for many."""
WRITE_S_MAX: Final = 10.0
_NOBODY: Final = 2**32 - 1

_log = logging.getLogger("auditship.indexer")


class Who(Struct, frozen=True):
    """Whoever asked: a person on this machine, or a reader's token; ``more`` is what else is known of them."""

    type: Literal["user", "api_token", "service"]
    id: str
    label: str
    ip: str | None = None
    more: Mapping[str, Any] = {}


class Access(Struct, frozen=True):
    """One access: what was done, to what, and the particulars."""

    action: str
    who: Who
    details: Mapping[str, Any]
    severity: Literal["info", "warning", "critical"] = "info"
    kind: tuple[str, str] = ("database", "access")
    """``event.category`` and ``event.type``."""
    resource: str = "audit_log"
    reason: str | None = None
    event_kind: Literal["event", "alert"] = "event"


class Maker:
    """Makes entries of accesses, for one process.

    Args:
        retention: the class that they are kept in.
        discretion: hides in questions what organisations hide in their lines; none: nobody hides anything.
    """

    def __init__(self, retention: str, discretion: Discretion | None = None) -> None:
        self._retention = retention
        self._discretion = discretion
        self._stream = secrets.token_bytes(16)
        self._numbers = itertools.count()
        self._host = socket.gethostname()

    @classmethod
    def of(cls, settings: IndexerSettings) -> Maker:
        """With the retention that a configuration has for our own organisation, and the policies of all others."""
        policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
        return cls(policies.retention(ORGANIZATION), policies.discretion(ORGANIZATION))

    def entry(self, access: Access, now_ms: int, *, dataset: str = ACCESS, more: Mapping[str, Any] | None = None) -> Entry:
        """The entry of an access; ``more`` is laid over its document's top level."""
        who, number = access.who, next(self._numbers)
        said, pseudonyms = self._said(access.details)
        details = {name: _short(value) for name, value in ({**who.more, **said}).items() if value not in (None, "", ())}
        moment = clock.utc(now_ms)
        original = encode({"timestamp": moment, "actor": who.id, "action": access.action, **details})
        identity = document_id(now_ms, self._stream, number, original)
        document = Document(
            timestamp=moment,
            event=Event(
                id=identity,
                kind=access.event_kind,
                created=moment,
                ingested=moment,
                original=original.decode(),
                hash=hashlib.sha256(original).hexdigest(),
                module="audit",
                dataset=f"audit.{dataset}",
                sequence=number,
                action=access.action,
                category=access.kind[:1],
                type=access.kind[1:],
                outcome="success",
                severity=EVENT_SEVERITY[access.severity],
                reason=access.reason,
            ),
            log=Log(
                offset=number, file=Raw(encode({"path": f"auditship {access.action.partition('.')[2]}"})), level=access.severity
            ),
            audit=Audit(
                gateway=dataset,
                stream=self._stream.hex(),
                severity=access.severity,
                actor=Actor(who.type, who.label),
                location=who.ip or "Unknown",
                resource=Resource(access.resource, name="audit log"),
                extra=Raw(encode(details)),
            ),
            agent=Raw(encode({"id": "auditship", "name": self._host, "type": "auditship"})),
            host=Raw(encode({"name": self._host})),
            ecs=ECS,
            organization=Organization(ORGANIZATION, ORGANIZATION),
            user=User(who.id, who.id),
            source=Raw(encode({"ip": who.ip})) if who.ip else None,
            related=Related((who.ip,) if who.ip else (), (who.id, *pseudonyms[:PSEUDONYMS_MAX])),
        )
        body = encode(document)
        if more:
            body = body[:-1] + b"," + encode(more)[1:]
        return Entry(identity, now_ms, dataset, self._retention, body)

    def _said(self, details: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """The particulars as they may be recorded, and the pseudonyms of those who were looked for."""
        if self._discretion is None or details.get("query", MANY) == MANY:
            return details, ()
        return self._discretion.hide(details)


def this_user(command: str) -> Who:
    """Whoever runs this process: the person who logged in, where the system knows, else the process's user."""
    uid = os.getuid()
    more: dict[str, Any] = {"uid": uid}
    with contextlib.suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text())
        if login not in (_NOBODY, uid):
            more["run_as"] = _name_of(uid)
            uid = login
    if sudo_user := os.environ.get("SUDO_USER"):
        more["sudo_user"] = sudo_user  # whoever may set it can lie: beside the name, never in its place
    return Who("user", _name_of(uid), f"auditship {command}", more=more)


def recorded(settings: IndexerSettings, access: Access) -> bool:
    """Writes one access into the store, for a command; whether it could be written: if not, that is told on standard error."""
    try:
        refused = asyncio.run(_write(settings, access))
    except (AuditshipError, OSError, TimeoutError) as error:
        refused = error.what if isinstance(error, AuditshipError) else str(error) or type(error).__name__
    if refused:
        click.echo(f"warning: this {access.action.partition('.')[2]} could not be recorded: {refused}", err=True)
    return not refused


async def _write(settings: IndexerSettings, access: Access) -> str:
    """Why it was refused; empty when it is written."""
    with _as_owner(settings):
        return await store(settings, Maker.of(settings).entry(access, clock.now_ms()))


async def store(settings: IndexerSettings, entry: Entry) -> str:
    """Writes one entry into a configuration's store; why it was refused, empty when it is written.

    Raises:
        AuditshipError: the store takes nothing now, or may not be written.
        TimeoutError: it does not answer.
    """
    writer = open_writer(settings)
    try:
        return await write(writer, [entry])
    finally:
        await writer.close()


async def write(writer: Writer, entries: list[Entry], *, redelivered: bool = False) -> str:
    """Writes entries; why one of them was refused, empty when they are written. ``redelivered``: some may have been before.

    Raises:
        Unavailable: the store takes nothing now.
        TimeoutError: it does not answer.
    """
    async with asyncio.timeout(WRITE_S_MAX):
        verdicts = await writer.append(entries, redelivered=redelivered)
    return next((verdict.reason for verdict in verdicts if isinstance(verdict, Refused)), "")


@contextlib.contextmanager
def _as_owner(settings: IndexerSettings) -> Iterator[None]:
    """Root writes an embedded store as its owner: files of root's own would shut the indexer out."""
    owner = settings.store.path.stat() if settings.store.kind == "embedded" else None
    if owner is None or os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()[:TEXT_MAX]
    return [_short(each) for each in value][:100] if isinstance(value, list | tuple) else value
