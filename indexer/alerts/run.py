"""Puts alerting together and runs it: one thread follows, one for each channel delivers, this one waits for signals."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from auditship.errors import AuditshipError
from indexer.alerts.cause import Telling
from indexer.alerts.channel import Outcome
from indexer.alerts.channels import channel_of
from indexer.alerts.counts import Counts
from indexer.alerts.deliver import Deliverer, Limits
from indexer.alerts.escalate import Escalation
from indexer.alerts.follow import Follower
from indexer.alerts.message import Links, Message, made, message_of, time_of
from indexer.alerts.outbox import Outbox, OutboxError
from indexer.alerts.settings import AlertsSettings, AnyChannel
from indexer.settings import IndexerSettings
from indexer.store.contract import QueryError, Reader, Unavailable
from indexer.store.select import open_reader

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

    def __init__(self, settings: AlertsSettings, store: IndexerSettings) -> None:
        self._settings = settings
        self._poll_s = settings.poll_interval_s or POLL_S[store.store.kind]
        self._links = Links(settings.page_url, settings.kibana_url)
        self.counts = Counts()
        channels = [(each, channel_of(each)) for each in settings.channel]
        self.outbox = Outbox(settings.state_dir, pending_max=settings.pending_max)
        limits = Limits(settings.retry_interval_max_s, settings.give_up_after_s)
        self._escalation = Escalation(settings, self.outbox, self.counts, self._wake)
        self.deliverers = [
            Deliverer(each, channel, outbox=self.outbox, counts=self.counts, limits=limits, helpless=self._escalation.helpless)
            for each, channel in channels
        ]
        self._reader: Reader = open_reader(store)
        self.follower = Follower(self._reader, self.outbox, settings, self._post, self.counts)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Runs until a signal, then delivers what is due for as long as it may."""
        failures: list[BaseException] = []
        follower = threading.Thread(target=self._guarded, args=(failures,), name="follower", daemon=True)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        for thread in (*self.deliverers, follower):
            thread.start()
        while follower.is_alive():
            follower.join(SIGNAL_WAIT_S)
        self._end()
        if failures:
            raise failures[0]

    def once(self) -> None:
        """One round: what is there is read, and delivered.

        Raises:
            UndeliveredError: something could not be delivered; it stays in the outbox for the next time.
            Unavailable: the store does not answer.
        """
        self.follower.look()
        self.follower.tick()
        self._escalation.look()
        for deliverer in self.deliverers:
            deliverer.end()
            deliverer.start()
        deadline = time.monotonic() + ONCE_S_MAX
        for deliverer in self.deliverers:
            deliverer.join(max(deadline - time.monotonic(), 0))
        waiting = {each.settings.name: self.outbox.pending(each.settings.name) for each in self.deliverers}
        self._close()
        if left := ", ".join(f"{number} for {name}" for name, number in waiting.items() if number):
            raise UndeliveredError(f"not everything was told: {left} still waiting", "The next round tries again.")

    def _guarded(self, failures: list[BaseException]) -> None:
        """The follower's thread; what ends it is the main thread's to raise."""
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append(error)

    def _follow(self) -> None:
        ticked_at = -1e9
        trouble = ""
        while not self._stopping.is_set():
            began = time.monotonic()
            wait_s = self._poll_s
            try:
                self.follower.look()
                if began - ticked_at >= TICK_S:
                    ticked_at = began
                    self.follower.tick()
                    self._escalation.look()
                if trouble:
                    _log.info("the store answers again")
                trouble = ""
            except (Unavailable, QueryError, OutboxError) as error:
                self.counts.add("store_failures")
                if trouble != error.what:
                    _log.error("%s; tried again until it works", error.what)
                trouble, wait_s = error.what, max(STORE_RETRY_S, wait_s)
            self._stopping.wait(max(wait_s - (time.monotonic() - began), 0.0))

    def _post(self, tellings: Sequence[Telling], now_ms: int) -> None:
        for telling in tellings:
            self._put(message_of(telling, self._links), now_ms)

    def _put(self, message: Message, now_ms: int) -> None:
        """Puts a message up for the channels that it is for."""
        self.counts.add("messages", message.kind)
        names = [each.name for each in self._settings.channel if is_for(each, message)]
        for name in self.outbox.post(message, names, now_ms):
            _log.error("channel %s: too much is waiting, given up: %s", name, message.title)
            self.counts.given_up(name)
        self._wake(names)

    def _wake(self, names: Sequence[str]) -> None:
        for deliverer in self.deliverers:
            if deliverer.settings.name in names:
                deliverer.wake()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first signal ends in order; a second one at once."""
        del frame
        signal.signal(number, signal.SIG_DFL)
        self._stopping.set()

    def _end(self) -> None:
        for deliverer in self.deliverers:
            deliverer.end()
        deadline = time.monotonic() + self._settings.shutdown_timeout_s
        for deliverer in self.deliverers:
            deliverer.join(max(deadline - time.monotonic(), 0))
        left = sum(self.outbox.pending(each.settings.name) for each in self.deliverers)
        if left:
            _log.warning("%d messages are still to be told; the next start tells them", left)
        self._close()

    def _close(self) -> None:
        if not any(deliverer.is_alive() for deliverer in self.deliverers):
            self.outbox.close()
        self._reader.close()


def is_for(channel: AnyChannel, message: Message) -> bool:
    """Whether a message goes through a channel."""
    if channel.only_escalations:
        return False
    is_own = message.organization in ("", OWN_ORGANIZATION)
    is_theirs = not channel.organizations or (not is_own and message.organization in channel.organizations)
    return is_theirs and message.severity in channel.severities


OWN_ORGANIZATION: Final = "auditship"
"""Whose events are those of agents and of auditship itself."""


def test(settings: AlertsSettings) -> Iterator[tuple[str, Outcome]]:
    """Sends a marked test message through every channel, one after another; the outbox is not needed for it."""
    now_ms = time.time_ns() // 1_000_000
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
        organization=OWN_ORGANIZATION,
        reason="somebody ran `auditship alerts --test`",
        link=settings.page_url or settings.kibana_url or "",
    )
    for each in settings.channel:
        yield each.name, channel_of(each).send(message)
