"""Puts alerting together and runs it: one thread follows, one for each channel delivers, this one waits for signals."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import FrameType
from typing import Final

from auditship import clock
from auditship.errors import AuditshipError
from auditship.hang_up import hear_hang_ups
from indexer.alerts.channel import Outcome
from indexer.alerts.channels import channel_of
from indexer.alerts.counts import Counts
from indexer.alerts.deliver import Deliverer, Limits
from indexer.alerts.escalate import Escalation
from indexer.alerts.follow import Follower, feeds
from indexer.alerts.message import Links, made, time_of
from indexer.alerts.metrics import Metrics
from indexer.alerts.outbox import Outbox, OutboxError
from indexer.alerts.post import Post
from indexer.alerts.settings import AlertsSettings
from indexer.alerts.silence import Agent
from indexer.alerts.trouble import StoreTrouble
from indexer.alerts.watch import AgentWatch, CauseWatch
from indexer.alerts.witness import Witness
from indexer.commands.status import agents_of
from indexer.record import ORGANIZATION
from indexer.settings import IndexerSettings
from indexer.store.contract import QueryError, Reader, Unavailable
from indexer.store.select import open_reader

TROUBLE: Final = "trouble"
"""Where the outbox keeps which alert of a store that cannot be read is not over yet."""
POLL_S: Final = {"embedded": 0.25, "elasticsearch": 0.5}
TICK_S: Final = 1.0
STORE_RETRY_S: Final = 2.0
ONCE_S_MAX: Final = 300.0
"""How long ``--once`` tries to deliver."""
SIGNAL_WAIT_S: Final = 0.25

_log = logging.getLogger("auditship.alerts")


class UndeliveredError(AuditshipError):
    """Not everything could be told."""


class Alerts:
    """Alerting on one state directory.

    Args:
        settings: its configuration.
        store: the indexer's, whose store is followed.

    Raises:
        ConfigurationError: the state directory is in use or cannot be used, or a secret cannot be read.
    """

    def __init__(self, settings: AlertsSettings, store: IndexerSettings, *, once: bool = False) -> None:
        self._settings = settings
        self._poll_s = settings.poll_interval_s or POLL_S[store.store.kind]
        channels = [(each, channel_of(each)) for each in settings.channel]
        self.counts = Counts()
        self.outbox = Outbox(settings.state_dir, pending_max=settings.pending_max)
        self._post = Post(settings.channel, self.outbox, self.counts)
        self._escalation = Escalation(
            settings, self.outbox, self.counts, wake=self._post.wake, witness=Witness(store).undelivered
        )
        limits = Limits(settings.retry_interval_max_s, settings.give_up_after_s)
        for each, channel in channels:
            helpless = self._escalation.helpless
            deliverer = Deliverer(each, channel, outbox=self.outbox, counts=self.counts, limits=limits, helpless=helpless)
            self._post.deliverers.append(deliverer)
        self._reader: Reader = open_reader(store)
        self._causes = CauseWatch(self.outbox, settings, Links(settings.page_url, settings.kibana_url))
        self._agents = AgentWatch(self.outbox, settings, grace_s=0 if once else settings.silent_after_s)
        self._follower = Follower(
            self._reader,
            self.outbox,
            settings,
            feeds=feeds(settings, self._causes, self._agents),
            post=self._post.put,
            counts=self.counts,
        )
        self._store = StoreTrouble(settings.silent_after_s, self.outbox.cursor(TROUBLE) or "")
        self._metrics = None if once or settings.metrics_listen is None else self._pages(settings.metrics_listen)
        self._is_seeded = self.outbox.cursor("agents") is not None
        self._stopping, self._hung_up = threading.Event(), threading.Event()
        self._is_to_end = False

    def _pages(self, listen: str) -> Metrics:
        return Metrics(
            listen,
            self.counts,
            self.outbox,
            channels=[channel.name for channel in self._settings.channel],
            open_causes=lambda: len(self._causes),
            is_ready=lambda: not self._store.reason,
        )

    def run(self, is_good: Callable[[], bool] = lambda: True) -> bool:
        """Runs until a signal, then delivers what is due for as long as it may.

        Args:
            is_good: whether the configuration as it is now could be used; asked at SIGHUP.

        Returns:
            Whether the program is to begin again, with another configuration.
        """
        failures: list[BaseException] = []
        follower = threading.Thread(target=self._guarded, args=(failures,), name="follower", daemon=True)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        hear_hang_ups()
        for thread in (*self._post.deliverers, follower):
            thread.start()
        is_again = False
        while follower.is_alive():
            follower.join(SIGNAL_WAIT_S)
            if self._hung_up.is_set():
                self._hung_up.clear()
                if is_again := is_good():
                    self._stopping.set()
        self._end(self._settings.shutdown_timeout_s)
        if failures:
            raise failures[0]
        return is_again and not self._is_to_end

    def once(self) -> None:
        """One round: what is there is read, and delivered.

        Raises:
            UndeliveredError: something could not be delivered; it stays in the outbox for the next time.
            Unavailable: the store does not answer.
        """
        try:
            self._look()
            self._tick()
        finally:
            for deliverer in self._post.deliverers:
                deliverer.start()
            left = self._end(ONCE_S_MAX)
        if left:
            raise UndeliveredError(f"not everything was told: {left} messages still wait", "The next round tries again.")

    def _guarded(self, failures: list[BaseException]) -> None:
        """The follower's thread; what ends it is the main thread's to raise."""
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append(error)

    def _follow(self) -> None:
        ticked_at = -1e9
        while not self._stopping.is_set():
            began = time.monotonic()
            wait_s = self._poll_s
            try:
                self._look()
                if began - ticked_at >= TICK_S:
                    ticked_at = began
                    self._tick()
            except (Unavailable, QueryError, OutboxError) as error:
                self._failed(error)
                wait_s = max(STORE_RETRY_S, wait_s)
            self._stopping.wait(max(wait_s - (time.monotonic() - began), 0.0))

    def _look(self) -> None:
        if not self._is_seeded:
            self._seed()
        self._follower.look()
        if self._store.reason or self._store.cause:
            _log.info("works again")
            now_ms = clock.now_ms()
            with self.outbox.transaction():
                self._post.put(self._store.answered(now_ms), now_ms)
                self.outbox.move(TROUBLE, "")
            self._store.over()

    def _tick(self) -> None:
        self._follower.tick()
        self._escalation.look()

    def _failed(self, error: AuditshipError) -> None:
        """The store or the outbox does not work now."""
        self.counts.add("store_failures")
        self._agents.could_not_read()
        if self._store.reason != error.what:
            _log.error("%s; tried again until it works. %s", error.what, error.hint)
        now_ms = clock.now_ms()
        messages = self._store.failed(error.what, now_ms)
        try:
            with self.outbox.transaction():
                self._post.put(messages, now_ms)
                self.outbox.move(TROUBLE, self._store.cause)
            messages = []
            self._escalation.look()
        except OutboxError as again:
            if messages:
                self._store.untold()
            _log.error("%s. %s", again.what, again.hint)

    def _seed(self) -> None:
        """At the very first start, agents that were heard of within a day are known: they may be silent already."""
        now_ms = clock.now_ms()
        found = {}
        for agent in agents_of(self._reader, now_ms):
            heard_ms = round(datetime.fromisoformat(agent.heard).timestamp() * 1000) if agent.heard else 0
            if heard_ms:
                found[agent.id] = Agent(agent.name, heard_ms, 0.0, is_stopped=agent.state == "stopped")
        self._agents.seed(found)
        self._is_seeded = True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first signal ends in order; a second one at once."""
        del frame
        signal.signal(number, signal.SIG_DFL)
        self._is_to_end = True
        self._stopping.set()

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        """A reload is wished for; the main thread sees to it."""
        del number, frame
        self._hung_up.set()

    def _end(self, timeout_s: float) -> int:
        """Delivers what is due, for so long; returns how many messages are left."""
        for deliverer in self._post.deliverers:
            deliverer.end()
        deadline = time.monotonic() + timeout_s
        for deliverer in self._post.deliverers:
            if deliverer.is_alive():
                deliverer.join(max(deadline - time.monotonic(), 0))
        left = sum(self.outbox.pending(each.name) for each in self._settings.channel)
        if left:
            _log.warning("%d messages are still to be told; the next start tells them", left)
        if self._metrics is not None:
            self._metrics.close()
        if not any(deliverer.is_alive() for deliverer in self._post.deliverers):
            self.outbox.close()
        self._reader.close()
        return left


def test(settings: AlertsSettings) -> Iterator[tuple[str, Outcome]]:
    """Sends a marked test message through every channel, one after another; the outbox is not needed for it."""
    now_ms = clock.now_ms()
    identity = secrets.token_hex(16)
    message = made(
        id=f"{identity}.1",
        cause=identity,
        kind="test",
        severity="critical",
        title="a test of alerting: nothing has happened",
        timestamp=time_of(now_ms),
        actor="auditship · test",
        action="alerts.test",
        resource="organization: auditship",
        location="Unknown",
        status="success",
        organization=ORGANIZATION,
        reason="somebody ran `auditship alerts --test`",
        link=settings.page_url or settings.kibana_url or "",
    )
    for each in settings.channel:
        yield each.name, channel_of(each).send(message)
