"""A segment: the documents of one UTC day of arrival and one retention class, in one SQLite file.

Name: ``2026-11-23.30d.sqlite`` (day of arrival, retention class). Format, version 2 (``user_version``; ``application_id`` is
"AUDT"): table ``document`` with the document's JSON, compressed, as ``body`` and, for finding it, its id (16 bytes), time
(epoch milliseconds), dataset, and some fields in lower case; table ``codec`` with the dictionary that bodies are compressed
with (:mod:`~indexer.store.embedded.codec`); table ``words``, a full-text index over
:data:`~indexer.store.fields.ALL_TEXT`; table ``seen``, from which addresses actors succeeded: when first and last, how often,
and the number of the newest such document (segments made before there was one are without); table ``arrival``, which says of
each minute of ``event.ingested`` which numbers its documents lie between (version 1 had none). Columns only narrow a search;
what a query means is told by :mod:`~indexer.store.embedded.predicate` over the body.

Written in WAL mode and synced at each commit; readers in other processes see each commit whole and hold up nobody. A file of
another version raises :class:`~auditship.errors.ConfigurationError`.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, NamedTuple

from auditship.errors import ConfigurationError
from indexer.store.contract import QueryError, Unavailable
from indexer.store.embedded.codec import Codec, shipped

VERSION: Final = 2
VERSION_WITHOUT_ARRIVALS: Final = 1
"""Still read, and brought up to date when it is written to."""
UNKNOWN_MINUTE: Final = -1
APPLICATION_ID: Final = 0x41554454
BUSY_TIMEOUT_S: Final = 5.0
BUSY_PAUSE_S: Final = 0.01
CACHE_KIB: Final = 16_384
_log = logging.getLogger("auditship.indexer")
IF_IT_STAYS: Final = "If it stays so, move the file away: what is in the others is found without it."
_told: set[Path] = set()
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.([1-9]\d{0,4}d)\.sqlite")

ARRIVAL: Final = "CREATE TABLE arrival (minute INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL)"
SCHEMA: Final = f"""
CREATE TABLE document (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    time INTEGER NOT NULL,
    dataset TEXT NOT NULL,
    severity TEXT,
    outcome TEXT,
    organization TEXT,
    user TEXT,
    action TEXT,
    ip BLOB,
    body BLOB NOT NULL
);
CREATE TABLE codec (dictionary BLOB NOT NULL);
{ARRIVAL};
CREATE UNIQUE INDEX document_id ON document (id);
CREATE INDEX document_time ON document (time, id);
CREATE INDEX document_severity ON document (severity, time, id) WHERE severity <> 'info';
CREATE INDEX document_organization ON document (organization, time, id);
CREATE INDEX document_user ON document (user, time, id);
CREATE INDEX document_ip ON document (ip) WHERE ip IS NOT NULL;
CREATE TABLE seen (
    user TEXT NOT NULL,
    organization TEXT NOT NULL,
    ip BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (user, organization, ip)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text, content='', detail=none, columnsize=0, tokenize='unicode61 remove_diacritics 0');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


class Unmade(ConfigurationError):  # noqa: N818 - a state of the file, not a defect
    """A file with nothing in it yet: its writer is making it at this moment, or was killed while it did and will go on."""


class SegmentName(NamedTuple):
    """A segment's file: which day's arrivals, and how long they are kept."""

    path: Path
    day: date
    retention: str

    @classmethod
    def of(cls, directory: Path, now_ms: int, retention: str) -> SegmentName:
        """The segment that an arrival belongs to."""
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        return cls(directory / f"{day.isoformat()}.{retention}.sqlite", day, retention)


def segments(directory: Path) -> list[SegmentName]:
    """The segments of a store, the oldest first; files of other names are not ours.

    Raises:
        Unavailable: the directory cannot be read.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a glob takes a directory that cannot be read for an empty one
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}", "The store is for the indexer's user, and for root.") from None
    found = []
    for name in names:
        if match := _NAME.fullmatch(name):
            try:
                found.append(SegmentName(directory / name, date.fromisoformat(match[1]), match[2]))
            except ValueError:
                continue
    return sorted(found, key=lambda each: (each.day, each.retention))


def open_to_write(path: Path) -> sqlite3.Connection:
    """A segment's connection for its writer; makes the file if it is not there.

    Raises:
        ConfigurationError: it is there, and not of this version.
        sqlite3.Error: it cannot be used now.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _use_log(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        if _version(connection) == 0:
            connection.execute("BEGIN IMMEDIATE")
            if _version(connection) == 0:  # else another worker was first
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO codec VALUES (?)", (shipped(),))
            connection.execute("COMMIT")
        if _version(connection) == VERSION_WITHOUT_ARRIVALS:
            _add_arrivals(connection)
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_log(connection: sqlite3.Connection) -> None:
    """Write-ahead logging. SQLite does not wait for others that open a new file at the same moment: so this does."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can only read.

    Raises:
        ConfigurationError: the file is not of this version.
        sqlite3.Error: it cannot be read.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        if _check(connection, path) == VERSION_WITHOUT_ARRIVALS:
            connection.execute(ARRIVAL.replace("TABLE", "TEMP TABLE"))
            connection.execute("INSERT INTO arrival VALUES (?, 0, ?)", (UNKNOWN_MINUTE, 2**62))
    except BaseException:
        connection.close()
        raise
    return connection


def is_gone(path: Path) -> bool:
    """Whether a file is surely not there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def pass_over(path: Path, error: Exception) -> None:
    """Returns where a segment is left out of an answer: nothing is in it any more, or yet; or it is damaged or not ours.

    The latter is told, once in the life of a process: who follows a store looks several times a second.

    Raises:
        QueryError: what is asked is the cause.
        Unavailable: it can only not be read now; an answer without it would be wrong.
    """
    if isinstance(error, Unmade) or is_gone(path):
        return
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.OperationalError) else None
    if code is not None and code & 0xFF == sqlite3.SQLITE_ERROR:
        raise QueryError(f"the query cannot be answered: {path}: {error}", f"Ask for less at once. {IF_IT_STAYS}") from None
    if code is not None:
        raise Unavailable(f"{path}: cannot be searched now: {error}", IF_IT_STAYS) from None
    if path not in _told:
        _told.add(path)
        _log.error("%s: cannot be searched, and is left out: %s", path, error)


def is_interrupted(error: sqlite3.Error) -> bool:
    """Whether a statement was ended by its deadline."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def is_unmade(path: Path) -> bool:
    """Whether there is nothing in a file yet; False where that cannot be told."""
    try:
        open_to_read(path).close()
    except Unmade:
        return True
    except (sqlite3.Error, ConfigurationError):
        pass
    return False


def codec_of(connection: sqlite3.Connection) -> Codec:
    """What a segment's bodies are compressed with."""
    return Codec(connection.execute("SELECT dictionary FROM codec").fetchone()[0])


def minute_of(text: str) -> int:
    """The minute since the epoch that a time in UTC names, ``2026-11-23T18:20``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return UNKNOWN_MINUTE
    return max(int(moment.replace(tzinfo=UTC).timestamp() // 60), 0) if moment.tzinfo is None else UNKNOWN_MINUTE


def _add_arrivals(connection: sqlite3.Connection) -> None:
    """Brings a segment of version 1 up to date: what it holds came at times unknown."""
    connection.execute("BEGIN IMMEDIATE")
    if _version(connection) == VERSION_WITHOUT_ARRIVALS:
        connection.execute(ARRIVAL)
        last = connection.execute("SELECT max(number) FROM document").fetchone()[0]
        if last is not None:
            connection.execute("INSERT INTO arrival VALUES (?, 0, ?)", (UNKNOWN_MINUTE, last))
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """A file's version, if it can be used."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version = _version(connection)
    if (application, version) == (0, 0) and connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
        raise Unmade(f"{path}: nothing is in it yet", "Its writer is about to make it; try again.")
    if application != APPLICATION_ID or version not in (VERSION, VERSION_WITHOUT_ARRIVALS):
        raise ConfigurationError(
            f"{path}: not a segment of version {VERSION} (it says {version})",
            "It was written by another version of auditship, or by another program; move it away or use that version.",
        )
    return version
