"""The outbox's file and its lock: how they are made, and who may have them.

Format, version 1 (``user_version``; ``application_id`` is "AULT"); times are epoch milliseconds. A file of another version is
refused and left as it is.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from auditship.errors import ConfigurationError
from auditship.lock import lock

VERSION: Final = 1
APPLICATION_ID: Final = 0x41554C54

SCHEMA: Final = f"""
CREATE TABLE place (feed TEXT PRIMARY KEY, cursor TEXT NOT NULL);
CREATE TABLE seen (feed TEXT, ingested INTEGER, id TEXT, PRIMARY KEY (feed, ingested, id)) WITHOUT ROWID;
CREATE TABLE cause (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    made INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE delivery (
    message INTEGER NOT NULL REFERENCES message (number) ON DELETE CASCADE,
    channel TEXT NOT NULL,
    state TEXT NOT NULL,
    made INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    is_escalated INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, channel)
) WITHOUT ROWID;
CREATE TABLE agent (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE INDEX delivery_pending ON delivery (channel, due) WHERE state = 'pending';
CREATE INDEX message_made ON message (made);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


def take(directory: Path) -> int:
    """Takes the directory for this process, until it ends or closes the descriptor.

    Raises:
        ConfigurationError: another process has it, or it cannot be used.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock(directory / "lock")
    except BlockingIOError:
        raise ConfigurationError(
            f"{directory}: another `auditship alerts` is running on it",
            "End that one first, or give this one a state_dir of its own.",
        ) from None
    except OSError as error:
        hint = "What has to be told is kept there: it must be writable."
        raise ConfigurationError(f"{directory}: {error.strerror}", hint) from None


def open_outbox(path: Path) -> sqlite3.Connection:
    """The file's connection; makes the file if it is not there.

    Raises:
        ConfigurationError: it cannot be opened, or is of another version.
        sqlite3.Error: it cannot be used.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # messages are for nobody else's eyes
    except OSError as error:
        hint = "What has to be told is kept in this file: it must be readable and writable, or not there yet."
        raise ConfigurationError(f"{path}: {error.strerror}", hint) from None
    database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        database.executescript(f"BEGIN;{SCHEMA}COMMIT;")
    elif (version, database.execute("PRAGMA application_id").fetchone()[0]) != (VERSION, APPLICATION_ID):
        raise ConfigurationError(
            f"{path}: not an outbox of version {VERSION} (it says {version})", "Use the version that wrote it, or move it away."
        )
    return database
