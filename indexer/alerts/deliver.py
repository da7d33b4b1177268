"""Delivers what waits for one channel, in a thread of its own: a channel that cannot be reached holds up no other.

One message at a time, the one that is due longest first. A failed attempt is due again after a wait that doubles, with jitter,
up to ``retry_interval_max_s``, or when the other side asked for it (``Retry-After``); and the channel itself rests as long
after failures in a row, so that a dead receiver is not asked for each message that waits. A message that has been tried for
``give_up_after_s`` is given up, which is told.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from auditship import clock
from indexer.alerts.channel import Channel, Delivered, Later, Outcome, Refused
from indexer.alerts.channel.http import RETRY_AFTER_S_MAX
from indexer.alerts.counts import Counts
from indexer.alerts.message import Message, harmless, with_note
from indexer.alerts.outbox import Delivery, Outbox, OutboxError
from indexer.alerts.settings import ChannelSettings

RETRY_FIRST_S: Final = 0.5
IDLE_S: Final = 5.0
"""How often a channel looks by itself; a new message wakes it at once."""
LAST_FAILURES_MAX: Final = 3
"""When it is to end: failures in a row after which what else is due is left for the next start."""

_log = logging.getLogger("auditship.alerts")


class Limits(NamedTuple):
    """How patient a channel is."""

    retry_interval_max_s: float
    give_up_after_s: float


class Deliverer(threading.Thread):
    """The thread of one channel.

    Args:
        settings: the channel's.
        channel: how it sends.
        outbox: where its messages wait.
        counts: what is counted.
        limits: how patient it is.
        helpless: told of a delivery that only somebody else can bring about: the fallback is to be asked at once.
    """

    def __init__(
        self,
        settings: ChannelSettings,
        channel: Channel,
        *,
        outbox: Outbox,
        counts: Counts,
        limits: Limits,
        helpless: Callable[[Delivery, str], None],
    ) -> None:
        super().__init__(name=f"channel-{settings.name}", daemon=True)
        self.settings = settings
        self._channel = channel
        self._outbox = outbox
        self._counts = counts
        self._limits = limits
        self._helpless = helpless
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._failures = 0
        self._unmarked: dict[int, Outcome] = {}
        """What became of messages that the outbox could not take note of: they are not sent again for that."""

    def wake(self) -> None:
        """There may be something to deliver."""
        self._wake.set()

    def end(self) -> None:
        """Ends after what is due now; what is not, stays."""
        self._ending.set()
        self._wake.set()

    def run(self) -> None:
        """The thread."""
        while True:
            self._wake.clear()
            wait_s = self._step()
            if self._ending.is_set() and (wait_s is None or self._failures >= LAST_FAILURES_MAX):
                return
            if not self._ending.is_set() and wait_s != 0:
                self._rest(IDLE_S if wait_s is None else wait_s)

    def _step(self) -> float | None:
        """A step, whose defects do not end the thread: nothing would ever be delivered here again, and nobody would know."""
        try:
            return self.step()
        except Exception:  # noqa: BLE001 - whatever it is, the next message may go
            _log.exception("channel %s: a defect; tried again", self.settings.name)
            self._failures += 1
            return IDLE_S

    def step(self) -> float | None:
        """Delivers what is due next.

        Returns:
            How long to rest then: 0 while there may be more, some time after a failure, None where nothing is due.
        """
        now_ms = clock.now_ms()
        try:
            delivery = self._outbox.next_due(self.settings.name, now_ms, round(RETRY_AFTER_S_MAX * 1000))
            if delivery is None:
                return None
            outcome = self._unmarked.get(delivery.number) or self._sent(delivery)
            self._unmarked[delivery.number] = outcome
            wait_s = self._settle(delivery, outcome, clock.now_ms())
        except OutboxError as error:
            _log.error("channel %s: %s", self.settings.name, error)
            self._failures += 1
            return IDLE_S
        del self._unmarked[delivery.number]
        return wait_s

    def _rest(self, wait_s: float) -> None:
        """Waits; a new message ends it, unless the channel is failing."""
        (self._ending if self._failures else self._wake).wait(wait_s)

    def _sent(self, delivery: Delivery) -> Outcome:
        return self._guarded(with_note(delivery.message, delivery.note) if delivery.note else delivery.message)

    def _guarded(self, message: Message) -> Outcome:
        try:
            return self._channel.send(message)
        except Exception as error:  # noqa: BLE001 - a defect of a channel must not end its thread
            _log.exception("channel %s: sending failed", self.settings.name)
            return Later(f"a defect: {type(error).__name__}", needs_help=True)

    def _settle(self, delivery: Delivery, outcome: Outcome, now_ms: int) -> float:
        name, title = self.settings.name, delivery.message.title
        self._counts.attempted(name, outcome)
        match outcome:
            case Delivered():
                self._outbox.done(delivery, "delivered", outcome.detail)
                _log.info("told %s: %s%s", name, title, f" ({outcome.detail})" if outcome.detail else "")
                self._failures = 0
                return 0.0
            case Refused():
                _log.error("channel %s refuses a message, it is not tried again: %s: %s", name, title, outcome.reason)
                self._helpless(delivery, f"refused: {outcome.reason}")
                self._outbox.done(delivery, "refused", outcome.reason)
                self._failures = 0
                return 0.0
            case Later():
                return self._failed(delivery, outcome, now_ms)

    def _failed(self, delivery: Delivery, outcome: Later, now_ms: int) -> float:
        name, reason = self.settings.name, harmless(outcome.reason)
        self._failures += 1
        if now_ms - delivery.made_ms >= self._limits.give_up_after_s * 1000:
            _log.error(
                "channel %s: given up after %d attempts: %s: %s", name, delivery.attempts + 1, delivery.message.title, reason
            )
            self._helpless(delivery, f"given up: {reason}")
            self._outbox.done(delivery, "given up", reason)
            self._counts.given_up(name)
            return self._wait_s(self._failures)
        wait_s = self._wait_s(delivery.attempts + 1)
        if outcome.wait_s is not None:
            wait_s = max(wait_s, min(outcome.wait_s, RETRY_AFTER_S_MAX))
        _log.warning("channel %s: %s; tried again in %.1f s", name, reason, wait_s)
        if outcome.needs_help:
            self._helpless(delivery, reason)
        self._outbox.later(delivery, now_ms + round(wait_s * 1000), reason)
        return max(self._wait_s(self._failures), outcome.wait_s or 0.0)

    def _wait_s(self, attempts: int) -> float:
        """Twice as long after each attempt, up to the limit, with half of it by chance."""
        whole_s = min(RETRY_FIRST_S * 2.0 ** min(attempts, 20), self._limits.retry_interval_max_s)
        return whole_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
