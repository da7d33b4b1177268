"""Writes documents: ``create`` with our own ids, in bulks, every item judged by itself.

Promises: what :class:`~indexer.store.contract.Writer` says. A bulk is acknowledged by the primary and every replica in
sync, each with its translog on disk; only then does an entry count as stored.

**Nothing twice.** Elasticsearch refuses a second ``create`` of an id within one backing index only. So whenever an entry
may have been sent before (``redelivered``, and every further attempt made here), its id is looked up in all backing indices
of the data stream first: those listed just then, the newest included, since it may be rolled over between the look-up and
the ``create``. ``_mget`` sees documents that no search can see yet. What remains: an earlier attempt that is still under
way inside Elasticsearch, lands after the look-up, and is followed by a rollover before our ``create``: a few milliseconds,
at the moment of a rollover, which comes once a day.

**Nothing stuck.** An entry that the cluster will never take is :class:`Refused`, those beside it are stored. A bulk whose body
is refused as a whole (too large) is halved until what is at fault stands alone; one that is refused for anything else, or by a
proxy, is no entry's fault and comes as :class:`Unavailable`. An overloaded cluster is sent what is left in smaller bulks, since
it would refuse one beyond its memory for good. Who waits for an item that is not taken is the block that it belongs to; blocks
that went in the same bulk have their answer before.

**No more than it can take.** How many bulks are under way, and how large they are, is the :class:`.window.Window`'s, one for
all appends. What finds it full waits, and goes together into the next bulk: few agents are answered at once, many small blocks
make large bulks.

The writer's key can only create; the look-up needs the reader's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple, cast

from indexer.document import Entry
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Refused, Unavailable, Verdict
from indexer.store.elasticsearch.bulk import FILTER, Again, Judged, Outcome, batches, encode, judge
from indexer.store.elasticsearch.connection import NDJSON, NO_ANSWER, SETUP_HINT, Answer, connect, error_of
from indexer.store.elasticsearch.stored import Stored
from indexer.store.elasticsearch.window import Window

ATTEMPTS_MAX: Final = 4
PAUSE_S: Final = 0.25
"""Before another attempt: a random part of this, doubled each time."""

BULK: Final = {"filter_path": FILTER, "include_source_on_error": "false", "require_data_stream": "true"}
ALWAYS_SET_UP: Final = "30d"
"""The retention class that ``auditship setup`` always installs: rejected lines are in it."""

_log = logging.getLogger("auditship.indexer")


@dataclass(slots=True)
class Attempt:
    """What went wrong in one attempt, if anything: the first reason stands for all."""

    reason: str = ""
    overloaded: bool = False

    def failed(self, reason: str, *, overloaded: bool) -> None:
        """Something was not taken."""
        self.reason = self.reason or reason
        self.overloaded |= overloaded


_Verdicts = list[Verdict | Refused]


class _Part(NamedTuple):
    """Entries of one append, no more than a bulk holds, and who waits for their verdicts."""

    entries: list[Entry]
    bytes: int
    redelivered: bool
    done: asyncio.Future[_Verdicts]


class ElasticsearchWriter:
    """The writer's side of a cluster.

    Args:
        settings: the cluster, the two keys, the limits.
        sleep: waits so many seconds, in a thread.
        chance: a number from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        settings: ElasticsearchSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connect(settings, "writer")
        self._stored = Stored(connect(settings, "reader"))
        self._window = Window(settings.bulks_in_flight_max, settings.bulk_bytes_max)
        self._waiting: deque[_Part] = deque()
        self._threads = ThreadPoolExecutor(settings.bulks_in_flight_max, thread_name_prefix="bulk")
        self._sleep = sleep
        self._chance = chance
        self._set_up: set[str] = set()

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        """Stores the entries durably: one verdict for each, in order.

        Raises:
            Unavailable: some of the entries could not be stored now; others may have been.
        """
        loop = asyncio.get_running_loop()
        await self._check_classes(entries)
        parts = [
            _Part(list(entries[part]), size, redelivered, loop.create_future())
            for part, size in batches(entries, self._window.bytes)
        ]
        self._waiting += parts
        self._send()
        verdicts: _Verdicts = []
        for found in await asyncio.gather(*(part.done for part in parts), return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            verdicts += found
        return verdicts

    async def ready(self) -> None:
        """Returns if the cluster is there, set up, and takes the writer's key.

        Raises:
            Unavailable: saying what is missing.
        """
        await asyncio.get_running_loop().run_in_executor(None, self._check)

    async def close(self) -> None:
        """Waits for the bulks under way and lets the connections go; what has not been sent is not stored."""
        while self._waiting:
            _settle(self._waiting.popleft().done, Unavailable("the indexer is ending"))
        await asyncio.to_thread(self._threads.shutdown)
        self._connection.close()
        self._stored.close()

    def _check(self) -> None:
        self._connection.call("GET", "/_security/_authenticate")
        self._stored.check_set_up(ALWAYS_SET_UP)

    async def _check_classes(self, entries: Sequence[Entry]) -> None:
        """Before anything of an append is sent: no one else's entries wait for a class that is not set up."""
        for retention in {entry.retention for entry in entries} - self._set_up:
            await asyncio.get_running_loop().run_in_executor(None, self._stored.check_set_up, retention)
            self._set_up.add(retention)

    def _send(self) -> None:
        """Sends what waits, in as many bulks as there is room for; in the event loop."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._window.enter():
            if group := self._group():
                loop.run_in_executor(self._threads, self._store, group, loop).add_done_callback(self._sent)
            else:
                self._window.leave()

    def _sent(self, work: asyncio.Future[None]) -> None:
        self._window.leave()
        work.result()
        self._send()

    def _group(self) -> list[_Part]:
        """The next bulk's parts: those that wait, in order, as far as they fit and are all redelivered or all not.

        Nobody waits for a part that is done, since its append was cancelled: it is passed over.
        """
        group: list[_Part] = []
        size = 0
        while self._waiting:
            part = self._waiting[0]
            if not part.done.done():
                size += part.bytes
                if group and (part.redelivered is not group[0].redelivered or size > self._window.bytes):
                    break
                group.append(part)
            self._waiting.popleft()
        return group

    def _store(self, group: list[_Part], loop: asyncio.AbstractEventLoop) -> None:
        """Stores one bulk's parts, in a thread; each is told as soon as there is a verdict for all of it."""
        entries = [entry for part in group for entry in part.entries]
        left: list[tuple[slice, _Part]] = []
        for part in group:
            first = left[-1][0].stop if left else 0
            left.append((slice(first, first + len(part.entries)), part))
        try:
            for known in self._attempts(entries, redelivered=group[0].redelivered):
                for places, part in [each for each in left if None not in known[each[0]]]:
                    left.remove((places, part))
                    loop.call_soon_threadsafe(_settle, part.done, cast(_Verdicts, known[places]))
        except Exception as error:  # noqa: BLE001 - raised where the part is waited for
            for _, part in left:
                loop.call_soon_threadsafe(_settle, part.done, error)

    def _attempts(self, entries: list[Entry], *, redelivered: bool) -> Iterator[list[Verdict | Refused | None]]:
        """Some attempts, each for those that are left, in ever smaller bulks; what is known after each of them.

        Raises:
            Unavailable: some were not taken in the last one either.
        """
        known: list[Verdict | Refused | None] = [None] * len(entries)
        left = list(range(len(entries)))
        attempt = Attempt()
        for number in range(ATTEMPTS_MAX):
            if number:
                self._sleep(self._chance() * PAUSE_S * 2**number)
            if redelivered or number:
                found = self._stored.among(entries[at] for at in left)
                for at in left:
                    if entries[at].id in found:
                        known[at] = Verdict.DUPLICATE
                left = [at for at in left if known[at] is None]
            size = -(-len(left) >> number) or 1
            attempt = Attempt()
            for first in range(0, len(left), size):
                places = left[first : first + size]
                outcomes = self._create_within([entries[at] for at in places], attempt)
                for at, outcome in zip(places, outcomes, strict=True):
                    known[at] = None if isinstance(outcome, Again) else outcome
            yield known
            left = [at for at in left if known[at] is None]
            if not left:
                return
        raise Unavailable(
            f"Elasticsearch at {self._connection.where} did not take {len(left)} of {len(entries)} documents: {attempt.reason}",
            "The cluster is overloaded." if attempt.overloaded else f"See the cluster's health. {SETUP_HINT}",
            overloaded=attempt.overloaded,
        )

    def _create_within(self, entries: list[Entry], attempt: Attempt) -> list[Outcome]:
        """Bulk requests as large as the window is when each is sent: the outcome of each entry."""
        outcomes: list[Outcome] = []
        while left := entries[len(outcomes) :]:
            part, size = next(batches(left, self._window.bytes))
            epoch = self._window.epoch
            judged = self._create(left[part], attempt)
            outcomes += judged.outcomes
            if Again.OVERLOADED in judged.again:
                if self._window.pushed_back(epoch):
                    _log.warning("%s pushes back: %s now", self._connection.where, self._window)
            elif not judged.again:
                self._window.taken(size, epoch)
        return outcomes

    def _create(self, entries: list[Entry], attempt: Attempt) -> Judged:
        """One bulk request: the outcome of each entry."""
        try:
            answer = self._connection.call("POST", "/_bulk", encode(entries), content_type=NDJSON, params=BULK)
        except Unavailable as error:
            if not error.overloaded:
                raise
            attempt.failed(error.what, overloaded=True)
            return Judged([Again.OVERLOADED] * len(entries), again=frozenset({Again.OVERLOADED}))
        if _is_about_the_body(answer):
            if len(entries) == 1:
                return Judged([Refused(f"{answer.status} {answer.reason()}")])
            middle = len(entries) // 2
            halves = self._create(entries[:middle], attempt), self._create(entries[middle:], attempt)
            return Judged(halves[0].outcomes + halves[1].outcomes, again=halves[0].again | halves[1].again)
        try:
            judged = judge(answer.body if answer.ok else b"", len(entries))
        except NO_ANSWER as error:
            what = f"{answer.status} {answer.reason()[:200]} ({error})"
            raise Unavailable(f"{self._connection.where} gave no answer to a bulk request: {what}") from None
        if judged.quarantined:
            _log.warning("%d documents went into a failure store: disable it on the audit data streams", judged.quarantined)
        if judged.reason:
            attempt.failed(judged.reason, overloaded=Again.OVERLOADED in judged.again)
        return judged


def _is_about_the_body(answer: Answer) -> bool:
    """Whether a request was refused for its documents; whatever else a 400 is about, or a proxy says, is not their fault."""
    if answer.status != HTTPStatus.BAD_REQUEST:
        return answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    error = error_of(answer.body)
    if isinstance(error, str) or not error.type:
        return False
    return not error.type.endswith("_header_exception") and "unrecognized parameter" not in (error.reason or "")


def _settle(future: asyncio.Future[_Verdicts], result: _Verdicts | Exception) -> None:
    if future.done():  # the request was cancelled meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
