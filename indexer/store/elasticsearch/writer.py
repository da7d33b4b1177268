"""Writes documents: ``create`` with our own ids, in bulks, every item judged by itself.

Promises: what :class:`~indexer.store.contract.Writer` says. A bulk is acknowledged by the primary and every replica in
sync, each with its translog on disk; only then does an entry count as stored.

**Nothing twice.** Elasticsearch refuses a second ``create`` of an id within one backing index only. So whenever an entry
may have been sent before (``redelivered``, and every further attempt made here), its id is looked up in all backing indices
of the data stream first: those listed just then, the newest included, since it may be rolled over between the look-up and
the ``create``. ``_mget`` sees documents that no search can see yet. What remains: an earlier attempt that is still under
way inside Elasticsearch, lands after the look-up, and is followed by a rollover before our ``create``: a few milliseconds,
at the moment of a rollover, which comes once a day.

**Nothing stuck.** An entry that the cluster will never take is :class:`Refused`, those beside it are stored. A bulk that is
refused as a whole (too large) is halved until what is at fault stands alone. An overloaded cluster is sent what is left in
smaller bulks, since it would refuse one beyond its memory for good.

The writer's key can only create; the look-up needs the reader's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from msgspec import DecodeError

from indexer.document import Entry
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Refused, Unavailable, Verdict
from indexer.store.elasticsearch.bulk import FILTER, Again, Outcome, batches, encode, judge
from indexer.store.elasticsearch.connection import NDJSON, SETUP_HINT, connect
from indexer.store.elasticsearch.stored import Stored

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
        self._bytes_max = settings.bulk_bytes_max
        self._threads = ThreadPoolExecutor(settings.bulks_in_flight_max, thread_name_prefix="bulk")
        self._sleep = sleep
        self._chance = chance
        self._set_up: set[str] = set()

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        """Stores the entries durably: one verdict for each, in order.

        Raises:
            Unavailable: some of the entries could not be stored now; others may have been.
        """
        parts = list(batches(entries, self._bytes_max))
        loop = asyncio.get_running_loop()
        work = [loop.run_in_executor(self._threads, self._store, [entries[at] for at in part], redelivered) for part in parts]
        done = await asyncio.gather(*work, return_exceptions=True)
        verdicts: dict[int, Verdict | Refused] = {}
        for part, found in zip(parts, done, strict=True):
            if isinstance(found, BaseException):
                raise found
            verdicts.update(zip(part, found, strict=True))
        return [verdicts[at] for at in range(len(entries))]

    async def ready(self) -> None:
        """Returns if the cluster is there, set up, and takes the writer's key.

        Raises:
            Unavailable: saying what is missing.
        """
        await asyncio.get_running_loop().run_in_executor(None, self._check)

    async def close(self) -> None:
        """Waits for the bulks under way and lets the connections go."""
        await asyncio.to_thread(self._threads.shutdown)
        self._connection.close()
        self._stored.close()

    def _check(self) -> None:
        self._connection.call("GET", "/_security/_authenticate")
        self._stored.check_set_up(ALWAYS_SET_UP)

    def _store(self, entries: list[Entry], redelivered: bool) -> list[Verdict | Refused]:
        """Stores one bulk's entries, in a thread: some attempts, each for those that are left, in ever smaller bulks."""
        self._check_classes(entries)
        verdicts: dict[int, Verdict | Refused] = {}
        left = list(range(len(entries)))
        attempt = Attempt()
        for number in range(ATTEMPTS_MAX):
            if number:
                self._sleep(self._chance() * PAUSE_S * 2**number)
            if redelivered or number:
                found = self._stored.among(entries[at] for at in left)
                verdicts.update((at, Verdict.DUPLICATE) for at in left if entries[at].id in found)
                left = [at for at in left if at not in verdicts]
            size = -(-len(left) >> number) or 1
            outcomes: list[Outcome] = []
            attempt = Attempt()
            for first in range(0, len(left), size):
                outcomes += self._create([entries[at] for at in left[first : first + size]], attempt)
            verdicts.update((at, each) for at, each in zip(left, outcomes, strict=True) if not isinstance(each, Again))
            left = [at for at in left if at not in verdicts]
            if not left:
                return [verdicts[at] for at in range(len(entries))]
        raise Unavailable(
            f"Elasticsearch at {self._connection.where} did not take {len(left)} of {len(entries)} documents: {attempt.reason}",
            "The cluster is overloaded." if attempt.overloaded else f"See the cluster's health. {SETUP_HINT}",
            overloaded=attempt.overloaded,
        )

    def _check_classes(self, entries: list[Entry]) -> None:
        for retention in {entry.retention for entry in entries} - self._set_up:
            self._stored.check_set_up(retention)
            self._set_up.add(retention)

    def _create(self, entries: list[Entry], attempt: Attempt) -> list[Outcome]:
        """One bulk request: the outcome of each entry."""
        try:
            answer = self._connection.call("POST", "/_bulk", encode(entries), content_type=NDJSON, params=BULK)
        except Unavailable as error:
            if not error.overloaded:
                raise
            attempt.failed(error.what, overloaded=True)
            return [Again.OVERLOADED] * len(entries)
        if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
            if len(entries) == 1:
                return [Refused(f"{answer.status} {answer.reason()}")]
            middle = len(entries) // 2
            return self._create(entries[:middle], attempt) + self._create(entries[middle:], attempt)
        try:
            judged = judge(answer.body if answer.ok else b"", len(entries))
        except DecodeError as error:
            what = f"{answer.status} {answer.reason()[:200]} ({error})"
            raise Unavailable(f"{self._connection.where} gave no answer to a bulk request: {what}") from None
        if judged.quarantined:
            _log.warning("%d documents went into a failure store: disable it on the audit data streams", judged.quarantined)
        if judged.reason:
            attempt.failed(judged.reason, overloaded=Again.OVERLOADED in judged.outcomes)
        return judged.outcomes
