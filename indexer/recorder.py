"""The server's side of the record of the record: who searched over HTTP, each search once.

The first time that somebody asks something it is written before the answer goes out. The same question of the same one within
:data:`WINDOW_S` (a page that loads itself again, a dashboard) is counted, and the count written when the window ends; whoever
asks more than :data:`QUESTIONS_MAX` different things within it has the further ones counted as one. What the store does not
take is told in the log, counted, and tried again with the next, as what may have been stored nonetheless; nobody is refused an
answer for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from auditship import clock
from auditship.errors import AuditshipError
from indexer.document import Entry
from indexer.record import MANY, Access, Maker, Who, write
from indexer.store.contract import Writer

WINDOW_S: Final = 300.0
QUESTIONS_MAX: Final = 100
KEYS_MAX: Final = 10_000
UNWRITTEN_MAX: Final = 1000
LOOK_S: Final = 5.0
ANSWER_WAIT_S_MAX: Final = 2.0
"""How long an answer waits for its record."""

_Key = tuple[str, str, str]
_log = logging.getLogger("auditship.indexer")


class _Asked:
    """Somebody's question within a window: how often again since it was written, and with how many hits at last."""

    __slots__ = ("again", "details", "hits", "since", "who")

    def __init__(self, who: Who, details: Mapping[str, Any], since: float) -> None:
        self.who, self.details, self.since = who, details, since
        self.again = self.hits = 0


class Recorder:
    """What one worker records.

    Args:
        writer: the store.
        maker: makes the documents.
        failed: counts a record that was not written when it should have been.
    """

    def __init__(self, writer: Writer, maker: Maker, failed: Callable[[], None]) -> None:
        self._writer = writer
        self._maker = maker
        self._asked: OrderedDict[_Key, _Asked] = OrderedDict()
        self._questions: Counter[tuple[str, str]] = Counter()
        self._unwritten: deque[Entry] = deque()
        self._count_failure = failed
        self._writing = asyncio.Lock()
        self._redelivered = False
        self._trouble = ""

    async def searched(self, who: Who, details: Mapping[str, Any], hits: int) -> None:
        """Records a search, unless it is a repetition, which is counted."""
        key = (who.id, who.ip or "", str(sorted(details.items())))
        asker = key[:2]
        if key not in self._asked and self._questions[asker] >= QUESTIONS_MAX:
            details, key = {"query": MANY}, (*asker, MANY)
        if (asked := self._asked.get(key)) is not None:
            asked.again += 1
            asked.hits = hits
            return
        self._asked[key] = _Asked(who, details, time.monotonic())
        self._questions[asker] += 1
        self._put(who, {**details, "hits": hits})
        while len(self._asked) > KEYS_MAX:
            self._close(next(iter(self._asked)))
        try:
            async with asyncio.timeout(ANSWER_WAIT_S_MAX):
                await self.flush()
        except TimeoutError:
            self._failed("the store does not answer in time")

    async def run(self) -> None:
        """Writes windows up when they are over, and what could not be written before; goes on until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            while self._asked and now - next(iter(self._asked.values())).since >= WINDOW_S:
                self._close(next(iter(self._asked)))
            await self.flush()

    async def flush(self, *, is_last: bool = False) -> None:
        """Stores what is waiting. ``is_last``: all windows are over."""
        while is_last and self._asked:
            self._close(next(iter(self._asked)))
        async with self._writing:
            batch = list(self._unwritten)
            if not batch:
                return
            redelivered, self._redelivered = self._redelivered, True  # until it is known to be written, however this ends
            try:
                refused = await write(self._writer, batch, redelivered=redelivered)
            except (AuditshipError, TimeoutError) as error:
                self._failed(error.what if isinstance(error, AuditshipError) else "it does not answer")
                return
            self._redelivered = False
            for _ in batch:
                self._unwritten.popleft()
            if refused:
                self._count_failure()
                _log.error("a search could not be recorded: %s", refused)
            elif self._trouble:
                _log.info("searches are recorded again")
            self._trouble = ""

    def _close(self, key: _Key) -> None:
        asked = self._asked.pop(key)
        asker = key[:2]
        self._questions[asker] -= 1
        if not self._questions[asker]:
            del self._questions[asker]
        if asked.again:
            self._put(asked.who, {**asked.details, "hits": asked.hits, "again": asked.again})

    def _put(self, who: Who, details: Mapping[str, Any]) -> None:
        if len(self._unwritten) >= UNWRITTEN_MAX:
            self._count_failure()
            return
        self._unwritten.append(self._maker.entry(Access("audit.search", who, details), clock.now_ms()))

    def _failed(self, reason: str) -> None:
        self._count_failure()
        if reason != self._trouble:
            _log.error("searches cannot be recorded now, tried again; nobody is refused for it: %s", reason)
        self._trouble = reason
