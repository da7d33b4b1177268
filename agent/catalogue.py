"""The catalogue: every stream that is known, live and past, and which of them a file is.

Files that the globs name are opened once and kept open while they are busy, so that a rotated or deleted file is still read to
its end. A file without a complete first line waits here as :class:`Unborn`. What is no longer watched and fully read is
released; its record stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.checkpoint import ENDED, LIVE, RELEASED, SUPERSEDED, Loaded, Record
from agent.discover import Found
from agent.identity import FirstLine, Identity
from agent.osio import System
from agent.records import Key, Records
from agent.report import Report
from agent.stream import Stream
from agent.tail import Tail
from auditship.block import FIRST_LINE_BYTES_MAX

UNBORN_MAX: Final = 1000
"""Files without a first line that are held open; the others are opened when the next look finds them grown."""


@dataclass(slots=True)
class Unborn:
    """An open file that has no complete first line yet."""

    file: int
    found: Found
    size: int = -1
    unlisted_at_s: float | None = None
    """Since when the globs no longer name it."""


class Catalogue:
    """All streams of one agent. One thread's."""

    def __init__(
        self, system: System, agent: str, *, tail: Tail, loaded: Loaded, report: Report, unborn_max: int = UNBORN_MAX
    ) -> None:
        self._system = system
        self.agent = agent
        self._tail = tail
        self._report = report
        self._window_bytes = loaded.window_bytes
        self.is_uncertain = bool(loaded.problem)
        """Anything that the files hold may have been sent before: the checkpoint was damaged."""
        self.streams: dict[Key, Stream] = {}
        self.superseded: list[Stream] = []
        """Streams whose file has become another one, and which wait for answers."""
        self.unborn: dict[Key, Unborn] = {}
        self._unborn_max = unborn_max
        self.unreadable: set[str] = set()
        """Files that could not be opened or read when they were last found."""
        self.records = Records(agent)
        for record in loaded.records:
            if record.state == SUPERSEDED:
                path, stream = os.fsdecode(record.path), record.identity.stream(agent)
                self._report.gap(path, stream, record.mark.offset, None, "truncated before everything sent was acknowledged")
            self.records.remember(record)

    def settle(self, found: Mapping[Key, Found]) -> bool:
        """Ends the uncertainty once nothing is left that may have been sent under a damaged checkpoint; tells whether it did.

        ``found``: every file that there is. All must be known, and acknowledged as far as they went then.
        """
        if not self.is_uncertain or self.superseded:
            return False
        are_known = all(key in self.streams or key in self.unborn or not each.size for key, each in found.items())
        if are_known and all(each.acknowledged.offset >= each.redelivered_until for each in self.streams.values()):
            self.is_uncertain = False
            return True
        return False

    def discover(self, found: Found) -> Stream | None:
        """A file that the globs name and that is not known: opens it, and tells which stream it is, new or not.

        None while it cannot be opened (which is reported) or has no complete first line (it is then among ``unborn``).
        """
        if not found.size and len(self.unborn) >= self._unborn_max:
            return None
        try:
            file = self._opened(found.path, (found.device, found.inode))
        except FileNotFoundError:
            return None
        except OSError as error:
            where = "open files" if error.errno in (errno.EMFILE, errno.ENFILE) else found.path
            self._report.trouble(where, error.strerror or str(error))
            self.unreadable.add(found.path)
            return None
        if file is None:  # the next look finds the new one
            return None
        try:
            stream = self.bear(Unborn(file, found))
        except OSError as error:
            self._report.trouble(found.path, error.strerror or str(error))
            self.unreadable.add(found.path)
            self._system.close(file)
            return None
        self._report.over(found.path)
        return stream

    def bear(self, unborn: Unborn, *, is_ended: bool = False) -> Stream | None:
        """The stream of an open file, if its first line is complete, or as complete as it will ever be.

        Raises:
            OSError: it cannot be read; nothing has changed.
        """
        found = unborn.found
        key = found.device, found.inode
        info = self._system.fstat(unborn.file)
        head = self._head(unborn.file)
        record = self._continued(key, unborn.file, head, info.st_size)
        first_line = record.identity.first_line if record else FirstLine.of(head, is_ended=is_ended)
        if first_line is None:
            unborn.size = info.st_size
            self._tell_replaced(key)
            if key in self.unborn or len(self.unborn) < self._unborn_max:
                self.unborn[key] = unborn
            else:
                self._system.close(unborn.file)
            return None
        self.unborn.pop(key, None)
        stream = self._begun(found, first_line, info.st_size) if record is None else self._resumed(found, record, info.st_size)
        stream.file = unborn.file
        stream.saw(info.st_size)
        stream.changed_ns = found.changed_ns
        self.streams[key] = stream
        self.records.touch(stream)
        return stream

    def _resumed(self, found: Found, record: Record, size: int) -> Stream:
        """The stream that a file continues."""
        self.records.take((found.device, found.inode))
        if size < record.size:
            reason = "shorter than it was when the agent ended"
            self._report.gap(found.path, record.identity.stream(self.agent), size, record.size, reason)
        stream = Stream(self.agent, record.identity, found.path, found.gateway, mark=record.mark)
        stream.is_named = True
        stream.redelivered_until = size if self.is_uncertain else record.mark.offset + self._window_bytes
        return stream

    def _begun(self, found: Found, first_line: FirstLine, size: int) -> Stream:
        """A new stream, of the next generation."""
        key = found.device, found.inode
        past = self.records.past(key)
        self._tell_replaced(key)
        if past is not None:
            self.records.take(key)
            self.records.forget(key, past.generation)
        identity = Identity(found.device, found.inode, past.generation + 1 if past else 0, first_line)
        stream = Stream(self.agent, identity, found.path, found.gateway)
        stream.redelivered_until = size if self.is_uncertain else 0
        return stream

    def _tell_replaced(self, key: Key) -> None:
        """A file is not what the record of its inode says: what was not shipped of that is a gap, told once."""
        past = self.records.past(key)
        if past is None or past.record is None:
            return
        record, path = past.record, os.fsdecode(past.record.path)
        if record.state == LIVE:
            stream = record.identity.stream(self.agent)
            self._report.gap(path, stream, record.mark.offset, None, "truncated or replaced while nobody looked")
        self.records.end(key, record)

    def _continued(self, key: Key, file: int, head: bytes, size: int) -> Record | None:
        """The record of the stream that a file still is: all of it must agree, for no part alone is enough."""
        past = self.records.past(key)
        if past is None or past.record is None:
            return None
        record = past.record
        if size < record.mark.offset or not record.identity.first_line.begins(memoryview(head)):
            return None
        return record if self._tail.tail_is(file, record.mark) else None

    def reopen(self, stream: Stream) -> bool:
        """Opens a stream's file again that was closed for being quiet; false if it is not there any more."""
        try:
            file = self._opened(stream.path, (stream.identity.device, stream.identity.inode))
        except OSError as error:
            self._report.trouble(stream.path, error.strerror or str(error))
            return False
        if file is None:
            return False
        self._report.over(stream.path)
        stream.file = file
        return True

    def _opened(self, path: str, key: Key) -> int | None:
        """A file's descriptor; none if it was replaced by another one meanwhile.

        Raises:
            OSError: it cannot be opened.
        """
        file = self._system.open_log(path)
        try:
            info = self._system.fstat(file)
        except OSError:
            self._system.close(file)
            raise
        if (info.st_dev, info.st_ino) == key:
            return file
        self._system.close(file)
        return None

    def is_first_line_same(self, stream: Stream) -> bool:
        """Whether an open stream's file still begins as it did, as far as it can be read."""
        assert stream.file is not None
        try:
            return stream.identity.first_line.begins(memoryview(self._head(stream.file)))
        except OSError:
            return True  # reading on will tell

    def supersede(self, stream: Stream, reason: str) -> Stream | None:
        """The file holds something else now: a new stream begins. What was not read of the old one is a gap."""
        key = stream.identity.device, stream.identity.inode
        end = max(stream.peak, stream.position.offset)
        if end > stream.position.offset:
            self._report.gap(stream.path, stream.id, stream.position.offset, end, reason)
        file, stream.file = stream.file, None
        del self.streams[key]
        stream.superseded = True
        self.records.keep(key, stream, ENDED)
        if stream.outstanding:
            self.superseded.append(stream)
            self.records.touch(stream)
        if file is None:
            return None
        try:
            info = self._system.fstat(file)
            found = Found(stream.path, stream.gateway, *key, info.st_size, info.st_mtime_ns)
            return self.bear(Unborn(file, found))
        except OSError as error:  # the next look will find it
            self._report.trouble(stream.path, error.strerror or str(error))
            self._system.close(file)
            return None

    def finish(self, stream: Stream) -> None:
        """A superseded stream has all its answers."""
        self.superseded.remove(stream)
        self.records.finish(stream)

    def release(self, stream: Stream) -> None:
        """A stream that is no longer watched and fully read: its file is closed, its record kept.

        One that was closed for having been quiet, and grew before it vanished, is not fully read: that is a gap.
        """
        key = stream.identity.device, stream.identity.inode
        if stream.unread > 0:
            reason = "gone while its file was not held open"
            self._report.gap(stream.path, stream.id, stream.position.offset, stream.size, reason)
        state = RELEASED
        if stream.file is not None:
            with suppress(OSError):
                state = ENDED  # also where it cannot be told any more
                if self._system.fstat(stream.file).st_nlink:
                    state = RELEASED
            self.close(stream)
        del self.streams[key]
        self.records.keep(key, stream, state)

    def release_unborn(self, key: Key) -> None:
        """A file that is no longer watched, and has nothing that could be read."""
        unborn = self.unborn.pop(key)
        if unborn.size > 0:
            self._report.gap(unborn.found.path, "none yet", 0, unborn.size, "gone before it could be read")
        self._system.close(unborn.file)

    def close(self, stream: Stream) -> None:
        """Closes a stream's file; the stream stays."""
        if stream.file is not None:
            self._system.close(stream.file)
            stream.file = None

    def close_all(self) -> None:
        """At the end."""
        for stream in self.streams.values():
            self.close(stream)
        for key, unborn in list(self.unborn.items()):
            if unborn.unlisted_at_s is None:
                self._system.close(unborn.file)
            else:  # what it holds is lost with it
                self.release_unborn(key)

    def _head(self, file: int) -> bytes:
        head = bytearray(FIRST_LINE_BYTES_MAX)
        return bytes(head[: self._system.read_into(file, memoryview(head), 0)])
