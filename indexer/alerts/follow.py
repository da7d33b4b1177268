"""Follows the store: what arrives becomes messages, and the place that was reached is kept with them.

Three feeds: critical events of all gateways; detections, and what agents complain of; agents' heartbeats. Each has its cursor
in the outbox. A portion of hits is one transaction: ids remembered, causes counted, messages posted, cursor moved. A look that
finds nothing moves the cursor on the disk only now and then: to look twice at nothing costs less than a sync. What time alone
brings is judged as of the beginning of the look that last read the feed to its end: what has arrived since is not known.
Messages are put up as of now, however long a look takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from msgspec import DecodeError

from auditship import clock
from indexer.alerts.counts import Counts
from indexer.alerts.event import AGENT, ALERT, OWN_RULES, Event, read
from indexer.alerts.message import Message, time_of
from indexer.alerts.outbox import Outbox
from indexer.alerts.settings import AlertsSettings
from indexer.alerts.watch import Watch
from indexer.store.contract import Arrivals, Hit, Query, Reader

SOON_S: Final = 60.0
"""How late a document may become visible and still be seen by the frequent looks: a refresh, and indexers' clocks."""
KEEP_INTERVAL_S: Final = 5.0
FORGET_INTERVAL_S: Final = 60.0
HEARTBEAT_INTERVAL_S: Final = 5.0

_log = logging.getLogger("auditship.alerts")


class Feed(NamedTuple):
    """A part of what arrives: its name in the outbox, what is asked how often, which of its events count, and for whom."""

    name: str
    query: Query
    interval_s: float
    is_wanted: Callable[[Event], bool]
    watch: Watch


def feeds(settings: AlertsSettings, causes: Watch, agents: Watch) -> tuple[Feed, ...]:
    """What is followed."""
    wanted = settings.detection_severities

    def is_told(event: Event) -> bool:
        is_own = event.rule_id.startswith(OWN_RULES)
        return not is_own and event.severity in (wanted if event.dataset == ALERT else ("critical",))

    heartbeats_s = min(HEARTBEAT_INTERVAL_S, settings.silent_after_s / 4)
    own = Query(datasets=(ALERT, AGENT), severities=tuple(sorted({*wanted, "critical"})))
    return (
        Feed("critical", Query(severities=("critical",)), 0.0, lambda event: event.severity == "critical", causes),
        Feed("own", own, 0.0, is_told, causes),
        Feed("agents", Query(datasets=(AGENT,)), heartbeats_s, lambda event: bool(event.actor_id), agents),
    )


class Follower:
    """Follows a store into an outbox.

    Args:
        reader: the store.
        outbox: where everything is kept.
        settings: how patiently.
        feeds: what is followed.
        post: puts messages up for delivery; called within the transaction.
        counts: what is counted.
    """

    def __init__(
        self,
        reader: Reader,
        outbox: Outbox,
        settings: AlertsSettings,
        *,
        feeds: Sequence[Feed],
        post: Callable[[Sequence[Message], int], None],
        counts: Counts,
    ) -> None:
        self._reader = reader
        self._outbox = outbox
        self._settings = settings
        self._feeds = feeds
        self._watches = list({id(feed.watch): feed.watch for feed in feeds}.values())
        self._post = post
        self._counts = counts
        self._cursors: dict[str, str | None] = {feed.name: outbox.cursor(feed.name) for feed in feeds}
        self._looked_at = dict.fromkeys(self._cursors, -1e9)
        self._kept_at = dict.fromkeys(self._cursors, -1e9)
        self._late_at = self._forgot_at = -1e9
        self._read_ms: dict[str, int] = {}
        """As of when all of each feed is known."""
        self._is_stale = False

    def look(self) -> None:
        """One look at everything that is new.

        Raises:
            Unavailable: the store does not answer.
            OutboxError: nothing was kept; the next look begins where the last good one ended.
        """
        now_ms, began = clock.now_ms(), time.monotonic()
        is_late_due = began - self._late_at >= self._settings.late_interval_s
        overlap_ms = round(1000 * (self._settings.late_s if is_late_due else min(SOON_S, self._settings.late_s)))
        with self._consistent():
            for feed in self._feeds:
                if is_late_due or began - self._looked_at[feed.name] >= feed.interval_s:
                    self._look_at(feed, now_ms, overlap_ms)
                    self._looked_at[feed.name] = began
        if is_late_due:
            self._late_at = began
        self._counts.polled(time.monotonic() - began)

    def tick(self) -> None:
        """What time alone brings, and what can be forgotten. After a look."""
        now_ms, now = clock.now_ms(), time.monotonic()
        with self._consistent():
            if messages := [message for watch in self._watches for message in watch.tick(self._known_ms(watch))]:
                with self._outbox.transaction():
                    self._keep(messages)
            if now - self._forgot_at >= FORGET_INTERVAL_S:
                self._forgot_at = now
                settings = self._settings
                self._outbox.forget(now_ms, now_ms - round((2 * settings.late_s + settings.late_interval_s) * 1000))

    def _known_ms(self, watch: Watch) -> int:
        """As of when a watch has been given all of its feeds."""
        return min(self._read_ms[feed.name] for feed in self._feeds if feed.watch is watch)

    def _look_at(self, feed: Feed, now_ms: int, overlap_ms: int) -> None:
        cursor = self._cursors[feed.name]
        if cursor is None:
            _log.info("following %s events from now on", feed.name)

        def known(low_ms: int, high_ms: int) -> Mapping[int, int]:
            return self._outbox.seen(feed.name, low_ms, high_ms)

        for arrivals in self._reader.arrivals(feed.query, cursor, known=known, overlap_ms=overlap_ms):
            self._take(feed, arrivals, now_ms, is_first=cursor is None)
        self._read_ms[feed.name] = now_ms

    def _take(self, feed: Feed, arrivals: Arrivals, now_ms: int, *, is_first: bool) -> None:
        now = time.monotonic()
        if arrivals.hits or is_first or now - self._kept_at[feed.name] >= KEEP_INTERVAL_S:
            events = [_read(hit) for hit in arrivals.hits]
            with self._outbox.transaction():
                new = self._outbox.unseen(feed.name, [(event.ingested_ms, event.id) for event in events])
                wanted = [event for event in events if event.id in new and feed.is_wanted(event) and not arrivals.is_old]
                self._counts.add("events", feed.name, number=len(wanted))
                self._keep(feed.watch.take(wanted, now_ms) if wanted else ())
                self._outbox.move(feed.name, arrivals.cursor)
            self._kept_at[feed.name] = now
        self._cursors[feed.name] = arrivals.cursor

    def _keep(self, messages: Sequence[Message]) -> None:
        for watch in self._watches:
            watch.keep()
        self._post(messages, clock.now_ms())

    @contextmanager
    def _consistent(self) -> Iterator[None]:
        """After a failure, what is in memory is again what is on the disk."""
        if self._is_stale:
            self._cursors = {feed.name: self._outbox.cursor(feed.name) for feed in self._feeds}
            for watch in self._watches:
                watch.load()
        self._is_stale = True
        yield
        self._is_stale = False


def _read(hit: Hit) -> Event:
    """A hit's event; one that says so where the document cannot be read: somebody should look at it."""
    try:
        return read(hit)
    except DecodeError as error:
        reason = f"the document cannot be read: {error}"
        return Event(hit.id, hit.dataset, hit.time_ms, time_of(hit.time_ms), "critical", reason=reason, action="unreadable")
