"""The outbox: what has to be told, kept until it is, together with the place that following has reached.

One SQLite file, ``outbox.sqlite`` in the state directory, in WAL mode with ``synchronous = FULL``. A cursor moves in the same
transaction as the messages that came of the events before it, so whatever dies, each event becomes part of a message once; and
a delivery is marked only after its channel has taken it, so each message is delivered at least once. It comes twice only if
the process dies between a channel's answer and the mark, with the same id.

What is damaged stops nothing: a message is told as one that cannot be read any more, an open cause begins anew.

A second process on the same directory is refused (``lock``). Bounded: a channel has at most ``pending_max`` deliveries waiting
(further ones are given up at once, and told), delivered messages are kept for a week, ids for as long as they may come again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from auditship.errors import AuditshipError, ConfigurationError
from indexer.alerts.cause import Cause
from indexer.alerts.message import Message, made
from indexer.alerts.outbox_file import open_outbox, take
from indexer.record import ORGANIZATION

KEPT_MS: Final = 7 * 86_400_000


class OutboxError(AuditshipError):
    """The outbox cannot be read or written now."""


class Delivery(NamedTuple):
    """A message on its way through a channel: ``attempts`` that failed, since when it is wanted, and the last reason."""

    number: int
    channel: str
    message: Message
    attempts: int
    made_ms: int
    note: str
    reason: str


_DELIVERIES: Final = """
SELECT delivery.message, id, channel, body, attempts, delivery.made, note, reason
FROM delivery JOIN message ON number = delivery.message WHERE state = 'pending' AND """
_CAUSE: Final = "substr(message.id, 1, instr(message.id, '.'))"
_NO_EARLIER: Final = f"""NOT EXISTS (
SELECT 1 FROM message AS earlier CROSS JOIN delivery AS waiting ON waiting.message = earlier.number
WHERE earlier.id BETWEEN {_CAUSE} AND {_CAUSE} || ':' AND earlier.number < message.number
AND waiting.channel = delivery.channel AND waiting.state = 'pending')"""  # noqa: S608 - our own words
"""A message's id is its cause's, a full stop and a number (``:`` comes after 9). CROSS: a cause's few are looked up first."""
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "Nothing is lost: it is tried again. Make room on its disk.",
    sqlite3.SQLITE_IOERR: "Nothing is lost: it is tried again. See whether its disk is full or failing.",
    sqlite3.SQLITE_READONLY: "Nothing is lost: it is tried again. It must be writable.",
    sqlite3.SQLITE_CORRUPT: "It is damaged. Stop, and move it away to begin anew; what it still had to tell is in it.",
    sqlite3.SQLITE_NOTADB: "It is damaged. Stop, and move it away to begin anew; what it still had to tell is in it.",
}
_DAMAGED: Final = (msgspec.DecodeError, UnicodeDecodeError)
_log = logging.getLogger("auditship.alerts")
_encode = msgspec.msgpack.Encoder().encode
_cause = msgspec.msgpack.Decoder(Cause).decode
_message = msgspec.msgpack.Decoder(Message).decode


class Outbox:
    """The outbox of one process. Safe to use from several threads.

    Raises:
        ConfigurationError: the directory cannot be used, another process uses it, or the file is of another version.
    """

    def __init__(self, directory: Path, *, pending_max: int) -> None:
        self._lock = threading.RLock()
        self._held = take(directory)
        self._path = directory / "outbox.sqlite"
        self._pending_max = pending_max
        try:
            self._database = open_outbox(self._path)
        except BaseException as error:
            os.close(self._held)
            if isinstance(error, sqlite3.Error):
                hint = "Move it away to begin anew: what it still had to tell is in it."
                raise ConfigurationError(f"{self._path}: {error}", hint) from None
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within are made together, durably, or not at all; one within another is a part of it.

        Raises:
            OutboxError: they were not made.
        """
        with self._lock:
            if self._database.in_transaction:
                yield
                return
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield
                self._database.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._error(error) from None
                raise

    def cursor(self, feed: str) -> str | None:
        """Where following of a feed has come to; none before the first time."""
        row = self._one("SELECT cursor FROM place WHERE feed = ?", feed)
        return None if row is None else str(row[0])

    def move(self, feed: str, cursor: str) -> None:
        """Moves a feed's cursor."""
        self._change("INSERT OR REPLACE INTO place VALUES (?, ?)", feed, cursor)

    def unseen(self, feed: str, ids: Sequence[tuple[int, str]]) -> set[str]:
        """Remembers arrivals (when ingested, id); returns the ids that were not known."""
        statement = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)"
        with self._lock:
            return {each for ingested_ms, each in ids if self._database.execute(statement, (feed, ingested_ms, each)).rowcount}

    def seen(self, feed: str, low_ms: int, high_ms: int) -> Mapping[int, int]:
        """How many arrivals of a feed are remembered, by second, from one time to before another."""
        sql = "SELECT ingested / 1000, count(*) FROM seen WHERE feed = ? AND ingested >= ? AND ingested < ? GROUP BY 1"
        return dict(self._all(sql, feed, low_ms, high_ms))

    def causes(self) -> list[Cause]:
        """The causes that are open; one that is damaged is told, and gone."""
        found = []
        for identity, body in self._all("SELECT id, body FROM cause"):
            try:
                found.append(_cause(body))
            except _DAMAGED as error:
                _log.error("%s: what was counted of cause %s is damaged, it begins anew: %s", self._path, identity, error)
                self._change("DELETE FROM cause WHERE id = ?", identity)
        return found

    def keep(self, changed: Mapping[str, Cause | None]) -> None:
        """Takes over changed causes; none for one that has ended."""
        for identity, cause in changed.items():
            if cause is None:
                self._change("DELETE FROM cause WHERE id = ?", identity)
            else:
                self._change("INSERT OR REPLACE INTO cause VALUES (?, ?)", identity, _encode(cause))

    def post(self, message: Message, channels: Mapping[str, str | None], now_ms: int) -> list[str]:
        """Puts a message up for delivery through channels, each with its fallback; returns those that have too much waiting.

        What a channel has no room for is given up, and goes to its fallback, if that has room. A message that is there already
        (an event that was forgotten, and read again after ``late_s`` was raised) is told already.
        """
        sql = "INSERT INTO message (id, made, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING number"
        row = self._one(sql, message.id, now_ms, _encode(message))
        if row is None:
            return []
        full = [channel for channel in channels if self.pending(channel) >= self._pending_max]
        for channel, fallback in channels.items():
            is_full = channel in full
            self._deliver(row[0], channel, now_ms, reason="too much is waiting" if is_full else "", is_full=is_full)
            if is_full and fallback is not None and self.pending(fallback) < self._pending_max:
                self._deliver(row[0], fallback, now_ms, note=f"channel {channel} has too much waiting")
        return full

    def add(self, delivery: Delivery, channel: str, note: str, now_ms: int) -> Literal["waits", "there", "failed", "full"]:
        """Puts a message up for delivery through another channel too, unless it is there already, or too much waits for it."""
        row = self._one("SELECT state FROM delivery WHERE message = ? AND channel = ?", delivery.number, channel)
        if row is not None:
            return "there" if row[0] in {"pending", "delivered"} else "failed"
        is_full = self.pending(channel) >= self._pending_max
        self._deliver(
            delivery.number, channel, now_ms, note=note, reason="too much is waiting" if is_full else "", is_full=is_full
        )
        return "full" if is_full else "waits"

    def next_due(self, channel: str, now_ms: int, wait_ms_max: int) -> Delivery | None:
        """The delivery whose turn it is; not before what was told earlier of its cause has come to its end in this channel.

        A time farther away than any wait can be is due too: the clock was set back.
        """
        sql = f"{_DELIVERIES} channel = ? AND (due <= ? OR due > ?) AND {_NO_EARLIER} ORDER BY due, delivery.message LIMIT 1"
        return next(iter(self._deliveries(sql, channel, now_ms, now_ms + wait_ms_max)), None)

    def overdue(self, channel: str, before_ms: int) -> list[Delivery]:
        """Deliveries that have been waiting since before that time, and about which nobody was told yet; the oldest hundred."""
        sql = f"{_DELIVERIES} channel = ? AND is_escalated = 0 AND delivery.made <= ? ORDER BY delivery.message LIMIT 100"
        return self._deliveries(sql, channel, before_ms)

    def escalated(self, delivery: Delivery) -> bool:
        """Marks that somebody else was told; whether it was not marked before."""
        sql = "UPDATE delivery SET is_escalated = 1 WHERE message = ? AND channel = ? AND is_escalated = 0"
        return self._change(sql, delivery.number, delivery.channel) > 0

    def done(self, delivery: Delivery, state: str, reason: str = "") -> None:
        """A delivery has come to its end: ``delivered``, ``refused`` or ``given up``."""
        sql = "UPDATE delivery SET state = ?, reason = ? WHERE message = ? AND channel = ?"
        self._change(sql, state, reason, delivery.number, delivery.channel)

    def abandon(self, channel: str, reason: str) -> int:
        """Gives up all that waits for a channel; how many."""
        sql = "UPDATE delivery SET state = 'given up', reason = ? WHERE channel = ? AND state = 'pending'"
        return self._change(sql, reason, channel)

    def later(self, delivery: Delivery, due_ms: int, reason: str) -> None:
        """An attempt failed; the next is due then."""
        sql = "UPDATE delivery SET attempts = attempts + 1, due = ?, reason = ? WHERE message = ? AND channel = ?"
        self._change(sql, due_ms, reason, delivery.number, delivery.channel)

    def pending(self, channel: str) -> int:
        """How many deliveries wait for a channel."""
        row = self._one("SELECT count(*) FROM delivery WHERE state = 'pending' AND channel = ?", channel)
        assert row is not None
        return int(row[0])

    def oldest_ms(self, channel: str) -> int | None:
        """Since when the oldest of them has been waiting."""
        row = self._one("SELECT min(made) FROM delivery WHERE state = 'pending' AND channel = ?", channel)
        return None if row is None else row[0]

    def waiting_channels(self) -> list[str]:
        """Channels for which anything waits, those that are no longer configured among them."""
        return [name for (name,) in self._all("SELECT DISTINCT channel FROM delivery WHERE state = 'pending'")]

    def agents(self) -> dict[str, bytes]:
        """What is remembered of each agent, as it was given."""
        return dict(self._all("SELECT id, body FROM agent"))

    def keep_agents(self, changed: Mapping[str, bytes | None]) -> None:
        """Takes over what is known of agents; none for one that is forgotten."""
        for identity, body in changed.items():
            if body is None:
                self._change("DELETE FROM agent WHERE id = ?", identity)
            else:
                self._change("INSERT OR REPLACE INTO agent VALUES (?, ?)", identity, body)

    def forget(self, now_ms: int, seen_ms: int) -> None:
        """Lets go of ids older than ``seen_ms``, and of messages that were delivered a week ago."""
        self._change("DELETE FROM seen WHERE ingested < ?", seen_ms)
        unpending = "number NOT IN (SELECT message FROM delivery WHERE state = 'pending')"
        self._change(f"DELETE FROM message WHERE made < ? AND {unpending}", now_ms - KEPT_MS)  # noqa: S608 - our own words

    def close(self) -> None:
        """Lets the file and the lock go."""
        with self._lock:
            self._database.close()
            os.close(self._held)

    def _deliver(
        self, number: int, channel: str, now_ms: int, *, note: str = "", reason: str = "", is_full: bool = False
    ) -> bool:
        sql = "INSERT OR IGNORE INTO delivery (message, channel, state, made, due, note, reason) VALUES (?, ?, ?, ?, ?, ?, ?)"
        state = "given up" if is_full else "pending"
        return self._change(sql, number, channel, state, now_ms, now_ms, note, reason) > 0

    def _deliveries(self, sql: str, *parameters: object) -> list[Delivery]:
        found = self._all(sql, *parameters)
        return [Delivery(number, channel, _message_of(id_, body), *more) for number, id_, channel, body, *more in found]

    def _change(self, sql: str, *parameters: object) -> int:
        """A change, a transaction of its own unless one is open; how many rows."""
        with self._lock:
            try:
                return self._database.execute(sql, parameters).rowcount
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    raise
                raise self._error(error) from None

    def _error(self, error: sqlite3.Error) -> OutboxError:
        """An error of the file's, with what helps."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return OutboxError(f"{self._path}: {error}", _HINTS.get(code, "Nothing is lost: it is tried again."))

    def _one(self, sql: str, *parameters: object) -> tuple[Any, ...] | None:
        return next(iter(self._all(sql, *parameters)), None)

    def _all(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                if self._database.in_transaction:
                    raise
                raise self._error(error) from None


def _message_of(identity: str, body: bytes) -> Message:
    """A message as it was put up; one that says so where it is damaged: somebody should see what it was about."""
    try:
        return _message(body)
    except _DAMAGED as error:
        return made(
            id=identity,
            cause=identity.partition(".")[0],
            kind="alert",
            severity="critical",
            title="a message that is damaged",
            timestamp="",
            organization=ORGANIZATION,
            action="alerts.damaged",
            reason=f"what it told cannot be read in the outbox any more: {error}",
        )
