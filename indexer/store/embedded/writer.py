"""Adds documents to today's segments: exactly once, and durably before it says so.

One thread writes. What waits while a commit is being synced goes together into the next one, so that many small blocks cost
no more syncs than one large one. Several processes may write to the same store: SQLite lets them take turns.

An id is stored once within a segment, always; a redelivered document is also looked for in every other segment that may hold
it. When a disk is full, a file locked for too long, or anything else goes wrong, :class:`~indexer.store.contract.Unavailable`
is raised; some of the entries may then be stored, and are found as duplicates when they come again, redelivered. Only an entry
of which no row can be made is refused. Nothing is acknowledged that went into a file which is no longer in the store: deleted,
or moved away.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import MsgspecError

from auditship.errors import AuditshipError, ConfigurationError
from indexer.document import Entry
from indexer.identity import packed_ids
from indexer.store.contract import Refused, Unavailable, Verdict
from indexer.store.embedded.codec import Codec
from indexer.store.embedded.row import INSERT, INSERT_ARRIVAL, INSERT_WORDS, Made, rows_of
from indexer.store.embedded.seen import INSERT_SEEN, keeps_sightings, seen_rows
from indexer.store.embedded.segment import (
    SegmentName,
    Unmade,
    codec_of,
    is_gone,
    minute_of,
    open_to_read,
    open_to_write,
    segments,
)

GROUP_ENTRIES_MAX: Final = 20_000
IDS_MAX: Final = 500
"""Ids in one look-up."""
RETRY_AFTER_S: Final = 2.0
_EVENT_ID_MIN: Final = b"\0\0\0\0\0\1"
"""Ids below are those of rejected lines."""

_UNFIT: Final = (MsgspecError, RecursionError, ValueError)
"""What making a row of an entry fails with that is none: too deep, or not what a document looks like."""
_log = logging.getLogger("auditship.indexer")

_Verdicts = list[Verdict | Refused]


class _Job(NamedTuple):
    entries: Sequence[Entry]
    redelivered: bool
    done: Callable[[_Verdicts | Unavailable], None]


class _Segment(NamedTuple):
    """An open segment of today; ``file`` is which one it is to the operating system."""

    connection: sqlite3.Connection
    codec: Codec
    file: tuple[int, int]


class EmbeddedWriter:
    """One process's writer.

    Args:
        directory: the store's; made if it is not there.
        clock_ms: the wall clock, which decides the day of arrival.

    Raises:
        ConfigurationError: the directory cannot be made.
    """

    def __init__(self, directory: Path, clock_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._clock_ms = clock_ms
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory}: {error.strerror}", "The store's path must be writable.") from None
        self._open: dict[Path, _Segment] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        """Stores the entries durably; a verdict for each.

        Raises:
            Unavailable: nothing can be stored now.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Verdicts | Unavailable] = loop.create_future()

        def done(result: _Verdicts | Unavailable) -> None:
            loop.call_soon_threadsafe(_settle, future, result)

        self._jobs.put(_Job(entries, redelivered, done))
        result = await future
        if isinstance(result, Unavailable):
            raise result
        return result

    async def ready(self) -> None:
        """Returns if the store could take entries now."""
        await self.append([], redelivered=False)

    async def close(self) -> None:
        """Ends after what is waiting."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        """The thread: a group of jobs at a time."""
        is_last = False
        while not is_last:
            group, size = [], 0
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                size += len(job.entries)
                try:
                    job = self._jobs.get_nowait() if size < GROUP_ENTRIES_MAX else None
                except queue.Empty:
                    break
            else:
                is_last = size < GROUP_ENTRIES_MAX
            if group:
                self._store(group)
        self._forget()

    def _store(self, group: list[_Job]) -> None:
        """Stores a group of jobs, and tells each its verdicts."""
        try:
            verdicts = self._stored([(entry, job.redelivered) for job in group for entry in job.entries])
        except Exception as error:  # noqa: BLE001 - nothing may end the thread: every later block would wait for ever
            self._forget()
            if not isinstance(error, sqlite3.Error | OSError | AuditshipError):
                _log.exception("nothing could be stored in %s", self._directory)
            problem = error if isinstance(error, Unavailable) else _unavailable(self._directory, error)
            for job in group:
                job.done(problem)
        else:
            at = 0
            for job in group:
                job.done(verdicts[at : at + len(job.entries)])
                at += len(job.entries)

    def _stored(self, entries: list[tuple[Entry, bool]]) -> _Verdicts:
        """Stores entries, each with whether it may have come before; one transaction for each segment."""
        now_ms = self._clock_ms()
        by_retention: defaultdict[str, list[int]] = defaultdict(list)
        for at, (entry, _) in enumerate(entries):
            by_retention[entry.retention].append(at)
        verdicts: _Verdicts = [Verdict.DUPLICATE] * len(entries)
        known = self._elsewhere([entry for entry, redelivered in entries if redelivered], now_ms)
        for retention, places in by_retention.items():
            new = [at for at in places if not known or entries[at][0].id not in known]
            name = SegmentName.of(self._directory, now_ms, retention)
            try:
                created = self._add(name, [entries[at][0] for at in new])
            except _UNFIT:
                for at in new:
                    verdicts[at] = self._added_alone(name, entries[at][0])
                continue
            for at in created:
                verdicts[new[at]] = Verdict.CREATED
        return verdicts

    def _added_alone(self, name: SegmentName, entry: Entry) -> Verdict | Refused:
        """Adds an entry beside which there is one of which no row can be made; that one is refused."""
        try:
            return Verdict.CREATED if [*self._add(name, [entry])] else Verdict.DUPLICATE
        except _UNFIT as error:
            return Refused(f"{type(error).__name__}: {error}")

    def _add(self, name: SegmentName, entries: Sequence[Entry]) -> Iterable[int]:
        """Adds entries to a segment, anew if its file was taken away; returns the places of those that were new."""
        try:
            created = self._committed(name, entries)
            if created is None:
                self._forget()
                created = self._committed(name, entries)
        except sqlite3.Error as error:
            raise _unavailable(name.path, error) from None
        if created is None:
            raise Unavailable(f"{name.path}: taken away while it is written to", retry_after_s=RETRY_AFTER_S)
        return created

    def _committed(self, name: SegmentName, entries: Sequence[Entry]) -> Iterable[int] | None:
        """The same in one transaction; None where the open file is no longer that of the store, and so is what went into it."""
        connection, codec, file = self._today(name)
        connection.execute("BEGIN IMMEDIATE")
        try:
            created = _insert(connection, entries, codec)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return created if _file(name.path) == file else None

    def _today(self, name: SegmentName) -> _Segment:
        """A segment of today; yesterday's are let go."""
        segment = self._open.get(name.path)
        if segment is None:
            for path in [path for path in self._open if not path.name.startswith(name.day.isoformat())]:
                self._open.pop(path).connection.close()
            connection = open_to_write(name.path)
            segment = self._open[name.path] = _Segment(connection, codec_of(connection), _file(name.path) or (0, 0))
        return segment

    def _forget(self) -> None:
        """After an error every connection is made anew."""
        for segment in self._open.values():
            with suppress(sqlite3.Error):
                segment.connection.close()
        self._open.clear()

    def _elsewhere(self, entries: Sequence[Entry], now_ms: int) -> set[str]:
        """The ids of those entries that any segment holds; today's own decides for itself when it inserts."""
        if not entries:
            return set()
        found: set[str] = set()
        today = {SegmentName.of(self._directory, now_ms, entry.retention).path for entry in entries}
        is_one = len(today) == 1
        for name in segments(self._directory):
            if is_one and name.path in today:
                continue
            try:
                with closing(open_to_read(name.path)) as connection:
                    found |= _held(connection, entries)
            except Unmade:
                continue
            except (sqlite3.Error, ConfigurationError) as error:
                if not is_gone(name.path):
                    raise _unavailable(name.path, error) from None
        return found


def _settle(future: asyncio.Future[_Verdicts | Unavailable], result: _Verdicts | Unavailable) -> None:
    if not future.done():  # it is, where the request was cancelled meanwhile
        future.set_result(result)


def _file(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file, if it is there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _insert(connection: sqlite3.Connection, entries: Sequence[Entry], codec: Codec) -> Iterable[int]:
    """Inserts entries in a transaction; returns the places of those that were new."""
    first = 1 + (connection.execute("SELECT max(number) FROM document").fetchone()[0] or 0)
    made = rows_of(first, entries, codec.compress)
    connection.execute("SAVEPOINT fast")
    try:
        connection.executemany(INSERT, [each.row for each in made])
        new: Sequence[int] = range(len(entries))
    except sqlite3.IntegrityError:
        connection.execute("ROLLBACK TO fast")
        new = _insert_each(connection, [each.row for each in made])
    connection.execute("RELEASE fast")
    connection.executemany(INSERT_WORDS, [(made[at].row[0], made[at].text) for at in new])
    connection.executemany(INSERT_ARRIVAL, _arrivals([made[at] for at in new]))
    if keeps_sightings(connection):
        connection.executemany(INSERT_SEEN, seen_rows(made[at].row for at in new))
    return new


def _arrivals(made: Sequence[Made]) -> Iterable[tuple[int, int, int]]:
    """The first and the last number of each minute of arrival, as rows."""
    spans: dict[str, tuple[int, int]] = {}
    for each in made:
        number = each.row[0]
        spans[each.minute] = spans.get(each.minute, (number, number))[0], number
    return [(minute_of(minute), *span) for minute, span in spans.items()]


def _insert_each(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> list[int]:
    """The slow way, where some ids are there already."""
    statement = INSERT.replace("INSERT", "INSERT OR IGNORE", 1)
    return [at for at, row in enumerate(rows) if connection.execute(statement, row).rowcount]


def _held(connection: sqlite3.Connection, entries: Sequence[Entry]) -> set[str]:
    """The ids of entries that a segment holds. Its first and last id, which begin with times, tell which it may hold at all."""
    low = connection.execute("SELECT min(id) FROM document WHERE id >= ?", (_EVENT_ID_MIN,)).fetchone()[0]
    high = connection.execute("SELECT max(id) FROM document").fetchone()[0]
    if high is None:
        return set()
    has_rejected = connection.execute("SELECT 1 FROM document WHERE id < ? LIMIT 1", (_EVENT_ID_MIN,)).fetchone()
    wanted = {
        identity: entry.id
        for entry, identity in zip(entries, packed_ids(entry.id for entry in entries), strict=True)
        if (has_rejected if identity < _EVENT_ID_MIN else low is not None and low <= identity <= high)
    }
    found: set[str] = set()
    ids = list(wanted)
    for at in range(0, len(ids), IDS_MAX):
        part = ids[at : at + IDS_MAX]
        marks = ",".join("?" * len(part))
        rows = connection.execute(f"SELECT id FROM document WHERE id IN ({marks})", part)
        found.update(wanted[each] for (each,) in rows)
    return found


def _unavailable(path: Path, error: Exception) -> Unavailable:
    """What is told where a file, or the store, cannot be used."""
    if isinstance(error, AuditshipError):
        return Unavailable(error.what, error.hint, retry_after_s=RETRY_AFTER_S)
    if not isinstance(error, sqlite3.Error | OSError):
        return Unavailable(f"the store in {path}: {type(error).__name__}: {error}", retry_after_s=RETRY_AFTER_S)
    return Unavailable(f"the store in {path}: {error}", _hint(str(error)), retry_after_s=RETRY_AFTER_S)


def _hint(text: str) -> str:
    if "full" in text:
        return "Make room on its disk; what could not be stored stays with the agents."
    if "malformed" in text or "not a database" in text:
        return "A segment is damaged: move it away; what agents have not had acknowledged will come again."
    return ""
