"""Writes audit events from a Python gateway, as the agent wants to find them.

::

    from auditship.gateway import AuditLog

    log = AuditLog("/var/log/gateways/web/web.jsonl")
    log.write(
        organization={"id": "org-1"}, actor={"type": "user", "id": "u-7", "name": "Ada Lovelace"},
        action="project.update", resource={"type": "project", "id": "p-3"}, status="success", ip=request.client.host,
    )

Promises: each event is one line, written whole with one ``write`` to a file opened for append, so that threads and processes
may share it. A line that the system took only a part of (a full disk) raises its event's :class:`OSError`, and is ended before
the next one begins, whoever writes that. After a rotation the new file is written to, at most a second late. An event without
what each must have raises :class:`ValueError` naming the field, and nothing is written. One with something else that is wrong
(an ``ip`` that is a number) is written: the indexer keeps it as a rejected line, and ``auditship lint`` tells.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakSet

import orjson

LINE_BYTES_MAX: Final = 1 << 20
"""A longer event would be cut by the agent."""
REOPEN_CHECK_S: Final = 1.0
LOOKS: Final = 3
LOOK_S: Final = 0.01
"""How often, and after which pause, a last line without an end is looked at: if the file grows meanwhile, it is under way."""
ACTOR_TYPES: Final = ("user", "api_token", "service")
STATUSES: Final = ("success", "failure")


class AuditLog:
    """A gateway's log file. Safe to use from threads, after a fork, and in a signal's handler.

    Args:
        path: the file; made if it is not there.
        fsync: whether each event is on the disk before :meth:`write` returns.
        mode: the file's permissions when it is made.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = False, mode: int = 0o640) -> None:
        self._path = Path(path)
        self._fsync = fsync
        self._mode = mode
        self._lock = threading.RLock()  # a signal's handler may write in the middle of a write
        self._file: int | None = None
        self._checked_at = 0.0
        self._is_torn = False
        self._torn_at = -1
        """The file's size when its last line was found torn."""
        _logs.add(self)

    def write(self, event: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Writes an event, given as a mapping, as keywords, or as both; ``timestamp`` is now, unless given.

        Raises:
            ValueError: the event lacks a field, or a field is wrong; names it.
            OSError: it could not be written whole.
        """
        line = encode({"timestamp": datetime.now(UTC), **(event or {}), **fields})
        with self._lock:
            self._append(line)

    def close(self) -> None:
        """Lets the file go; a later write opens it again."""
        with self._lock:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        file = self._opened()
        if self._ends_torn(file):
            line = b"\n" + line
        written = os.write(file, line)
        self._is_torn = written < len(line)
        if self._is_torn:
            self._torn_at = os.fstat(file).st_size
            raise OSError(28, f"only {written} of {len(line)} bytes could be written", str(self._path))
        if self._fsync:
            os.fsync(file)

    def _opened(self) -> int:
        """The file that has the path now."""
        now = time.monotonic()
        if self._file is not None and now - self._checked_at >= REOPEN_CHECK_S:
            self._checked_at = now
            if not self._is_current(self._file):
                self._let_go()
        if self._file is None:
            self._file = self._open()
            self._checked_at = now
        return self._file

    def _open(self) -> int:
        """The file, for reading too, if it is one and its writer may: a pipe that is its own reader would never break."""
        how = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        if not self._path.exists() or self._path.is_file():
            with suppress(PermissionError):
                return os.open(self._path, os.O_RDWR | how, self._mode)
        return os.open(self._path, os.O_WRONLY | how, self._mode)

    def _ends_torn(self, file: int) -> bool:
        """Whether the file's last line has no end: another process, or an earlier life of this one, may have left it so."""
        size = self._torn_at
        for _ in range(LOOKS):
            info = os.fstat(file)
            if not stat.S_ISREG(info.st_mode) or not info.st_size:
                return False
            try:
                last = os.pread(file, 1, info.st_size - 1)
            except OSError:  # it may not be read: what this process knows must do
                return self._is_torn
            if last in (b"\n", b""):
                return False
            if info.st_size == size:
                self._torn_at = size
                return True
            size = info.st_size
            time.sleep(LOOK_S)
        return self._is_torn

    def _is_current(self, file: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(file)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._is_torn, self._torn_at = False, -1


_logs: Final[WeakSet[AuditLog]] = WeakSet()


def _begin_anew() -> None:
    """In a child: a thread of the parent's may have held a lock, and does not exist here."""
    for log in _logs:
        log._lock = threading.RLock()  # noqa: SLF001 - our own


os.register_at_fork(after_in_child=_begin_anew)


class AuditHandler(logging.Handler):
    """Writes events that are logged: ``logger.info("project.update", extra={"audit": {...}})``.

    The record's ``audit`` is the event; ``action`` is the message unless it says otherwise. Records without one are not
    for this log and passed over.
    """

    def __init__(self, log: AuditLog, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record's event; what goes wrong goes the way of all logging errors."""
        event = getattr(record, "audit", None)
        if event is None:
            return
        try:
            moment = datetime.fromtimestamp(record.created, UTC)
            self._log.write({"timestamp": moment, "action": record.getMessage(), **event})
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


def encode(event: Mapping[str, Any]) -> bytes:
    """An event's line.

    Raises:
        ValueError: naming the field that is missing or wrong.
    """
    _check(event)
    try:
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)
    except TypeError as error:
        raise ValueError(f"the event is not JSON: {error}") from None
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"the event is {len(line)} bytes; a line has at most {LINE_BYTES_MAX}")
    return line


def _check(event: Mapping[str, Any]) -> None:
    """What the indexer will insist on. ``auditship lint`` checks the rest."""
    timestamp = event.get("timestamp")
    if not isinstance(timestamp, str | int | datetime) or isinstance(timestamp, bool):
        raise ValueError("timestamp: a datetime, RFC 3339 text or epoch milliseconds are expected")  # noqa: TRY004 - see _mapping
    for name in ("organization", "actor"):
        _text(_mapping(event, name), "id", name)
    _text(_mapping(event, "resource"), "type", "resource")
    _text(event, "action", "")
    if event["actor"].get("type") not in ACTOR_TYPES:
        raise ValueError(f"actor.type: one of {', '.join(ACTOR_TYPES)} is expected, got {event['actor'].get('type')!r}")
    if event.get("status") not in STATUSES:
        raise ValueError(f"status: {' or '.join(STATUSES)} is expected, got {event.get('status')!r}")


def _mapping(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: an object is expected, got {value!r:.80}")  # noqa: TRY004 - the event's value, not our caller's type
    return value


def _text(values: Mapping[str, Any], name: str, within: str) -> None:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        where = f"{within}.{name}" if within else name
        raise ValueError(f"{where}: text is expected, got {value!r:.80}")
