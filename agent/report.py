"""What the agent has done, in numbers, and what it has to say aloud.

Gaps and alarms are logged at once; everything else is a number in a line now and then. Nothing here is per line or per block.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from agent.events import Events
from agent.stream import Stream
from auditship.block import Receipt

UNWRITTEN_MAX: Final = 1000

_log = logging.getLogger("auditship.agent")


@dataclass(slots=True)
class Counts:
    """Since the start; ``unreadable`` at the last look."""

    lines: int = 0
    bytes: int = 0
    blocks: int = 0
    documents: int = 0
    duplicates: int = 0
    rejected: int = 0
    retries: int = 0
    gaps: int = 0
    gap_bytes: int = 0
    halted: int = 0
    unreadable: int = 0


class Report:
    """Counts, and logs what a person should know."""

    def __init__(self, events: Events | None = None) -> None:
        self.counts = Counts()
        self._events = events
        self._unwritten: deque[tuple[str, dict[str, Any]]] = deque(maxlen=UNWRITTEN_MAX)
        """Events that could not be written yet, the oldest first."""
        self._told: dict[str, str] = {}
        self._last = asdict(self.counts)

    def stored(self, length: int, receipt: Receipt) -> None:
        """A block was acknowledged."""
        counts = self.counts
        counts.blocks += 1
        counts.bytes += length
        counts.lines += receipt.documents + receipt.duplicates + receipt.rejected
        counts.documents += receipt.documents
        counts.duplicates += receipt.duplicates
        counts.rejected += receipt.rejected

    def gap(self, path: str, stream: str, start: int, end: int | None, reason: str) -> None:
        """Bytes from ``start`` to ``end`` of a stream (none: nobody knows) could not be read and never will be."""
        self.counts.gaps += 1
        self.counts.gap_bytes += 0 if end is None else end - start
        size = "unknown" if end is None else f"{end - start} bytes"
        _log.error("gap in %s, stream %s, from offset %d, %s: %s", path, stream, start, size, reason)
        gap = {"start": start, "end": end, "bytes": None if end is None else end - start}
        self.event("gap", {"type": "stream", "id": stream, "name": path}, reason=reason, is_failure=True, gap=gap)

    def trouble(self, where: str, reason: str) -> None:
        """Something does not work at a place; said once, until it is over or its reason changes."""
        if self._told.get(where) != reason:
            self._told[where] = reason
            _log.warning("%s: %s; tried again until it works", where, reason)

    def over(self, where: str) -> None:
        """What did not work there works again."""
        if self._told and self._told.pop(where, None) is not None:
            _log.info("%s: works again", where)

    def halted(self, stream: Stream, reason: str) -> None:
        """A stream can go no further before a person looks at it."""
        self.counts.halted += 1
        place = f"{stream.path}, stream {stream.id}, offset {stream.acknowledged.offset}"
        _log.error("halted: %s: %s. Its lines stay in the file; restart the agent to try again", place, reason)
        resource = {"type": "stream", "id": stream.id, "name": stream.path}
        self.event("halt", resource, reason=reason, is_failure=True, offset=stream.acknowledged.offset)

    def event(self, action: str, resource: dict[str, Any], **fields: Any) -> None:
        """Adds to the agent's own record. What cannot be written now is kept and written later, and stops nothing."""
        if self._events is None:
            return
        self._unwritten.append((action, {"timestamp": datetime.now(UTC), "resource": _shown(resource), **fields}))
        try:
            self._events.rotate()
            while self._unwritten:
                action, event = self._unwritten[0]
                self._events.write(action, **event)
                self._unwritten.popleft()
        except OSError as error:
            self.trouble(str(self._events.path), error.strerror or str(error))
        else:
            self.over(str(self._events.path))

    def summary(self) -> None:
        """The numbers, if they have changed since the last time."""
        numbers = asdict(self.counts)
        if numbers != self._last:
            self._last = numbers
            _log.info("%s", " ".join(f"{name}={value}" for name, value in numbers.items() if value or name == "lines"))


def _shown(resource: dict[str, Any]) -> dict[str, Any]:
    """Names that are not UTF-8 as they can be written."""
    return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in resource.items()}
