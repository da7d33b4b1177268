"""The records that the checkpoint holds: one for each stream, and which of them have changed since they were saved last.

A stream that is no longer watched leaves its record here, so that it is known again if it comes back, and so that whoever gets
its inode is known not to be it. The latest :data:`RECORDS_MAX` of these are kept.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.checkpoint import ENDED, LIVE, RELEASED, SUPERSEDED, Record, encode, forgotten
from agent.keeper import Save
from agent.stream import Stream

RECORDS_MAX: Final = 100_000
Key = tuple[int, int]
"""A file's device and inode."""


@dataclass(slots=True)
class Past:
    """A stream that was: its generation, its record's line, and the record where a file may still be it."""

    generation: int
    line: bytes
    record: Record | None = None


class Records:
    """Those of one agent."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._past: OrderedDict[Key, Past] = OrderedDict()
        self._awaited: dict[Key, Record] = {}
        """Streams that were live when the agent ended, and that no file has turned out to be yet."""
        self._lines: dict[tuple[int, int, int], bytes] = {}
        """What the next save adds for streams that are no longer live."""
        self._touched: dict[Stream, None] = {}
        """Streams whose record the next save adds."""

    def remember(self, record: Record) -> None:
        """Takes a record of an earlier run over; of several of one inode the latest generation counts."""
        key = record.identity.device, record.identity.inode
        past = self._past.get(key)
        if past is not None and past.generation > record.identity.generation:
            return
        is_over = record.state in (ENDED, SUPERSEDED)
        line = encode(self._stream(record), ENDED if is_over else record.state)
        self._past[key] = Past(record.identity.generation, line, None if is_over else record)
        self._awaited.pop(key, None)
        if record.state == LIVE:
            self._awaited[key] = record

    def missing(self, found: Container[Key], hidden: tuple[str, ...]) -> Iterator[Record]:
        """Records of streams that were live when the agent ended, and whose file is not there any more; each is told once.

        Not those that were found but could not be opened, nor those below a path that could not be looked at.
        """
        for key, record in list(self._awaited.items()):
            if key in found or os.fsdecode(record.path).startswith(hidden):
                continue
            self.keep(key, self._stream(record), RELEASED)
            yield record

    def end(self, key: Key, record: Record) -> None:
        """No file will turn out to be that stream any more."""
        self.keep(key, self._stream(record), ENDED)

    def _stream(self, record: Record) -> Stream:
        stream = Stream(self._agent, record.identity, os.fsdecode(record.path), record.gateway, mark=record.mark)
        stream.saw(record.size)
        return stream

    def past(self, key: Key) -> Past | None:
        """What is known of an inode that a file has now."""
        return self._past.get(key)

    def take(self, key: Key) -> None:
        """A file with that inode has become a stream."""
        self._past.pop(key, None)
        self._awaited.pop(key, None)

    def forget(self, key: Key, generation: int) -> None:
        """A record is over: its inode has another stream by now."""
        self._lines[*key, generation] = forgotten(*key, generation)

    def touch(self, stream: Stream) -> None:
        """A stream's record has changed."""
        self._touched[stream] = None

    def keep(self, key: Key, stream: Stream, state: str) -> None:
        """A stream is no longer live; its record stays."""
        path = stream.path.encode("utf-8", "surrogateescape")
        record = None
        if state != ENDED:
            record = Record(path, stream.gateway, stream.identity, stream.acknowledged, stream.peak, state)
        self._touched.pop(stream, None)
        self._awaited.pop(key, None)
        past = self._past[key] = Past(stream.identity.generation, encode(stream, state), record)
        self._past.move_to_end(key)
        self._lines[*key, past.generation] = past.line
        while len(self._past) > RECORDS_MAX:
            oldest, past = self._past.popitem(last=False)
            self.forget(oldest, past.generation)

    def finish(self, stream: Stream) -> None:
        """A superseded stream has all its answers."""
        self._touched.pop(stream, None)
        key, generation = (stream.identity.device, stream.identity.inode), stream.identity.generation
        past = self._past.get(key)
        if past is not None and past.generation == generation:
            self._lines[*key, generation] = past.line
        else:
            self.forget(key, generation)

    @property
    def is_changed(self) -> bool:
        """Whether there is anything that the durable checkpoint does not hold."""
        return bool(self._touched or self._lines)

    def changes(self) -> Save:
        """What has changed since the last save."""
        streams, self._touched = list(self._touched), {}
        ended, self._lines = list(self._lines.values()), {}
        return _save(ended, streams, is_whole=False)

    def whole(self, live: Iterable[Stream], superseded: Iterable[Stream]) -> Save:
        """Everything."""
        self._touched, self._lines = {}, {}
        past = (past.line for past in self._past.values())
        return _save(past, [*superseded, *live], is_whole=True)


def _save(past: Iterable[bytes], streams: Iterable[Stream], *, is_whole: bool) -> Save:
    """One buffer that grows, rather than ten thousand lines and their sum."""
    lines = bytearray().join(past)
    marks: list[tuple[Stream, int]] = []
    for stream in streams:
        lines += encode(stream, SUPERSEDED if stream.superseded else LIVE)
        marks.append((stream, stream.acknowledged.offset))
    return Save(lines, is_whole, marks)
