"""Sees that somebody is told what a channel could not deliver: its fallback, with the reason; the log, the metrics, the store.

A message is escalated once for each channel: when it has waited for ``escalate_after_s``, or at once when the other side says
that waiting will not help. The channel itself goes on trying. A fallback may have a fallback of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from auditship import clock
from indexer.alerts.counts import Counts
from indexer.alerts.outbox import Delivery, Outbox
from indexer.alerts.settings import AlertsSettings

_TOLD: Final = {
    "waits": "told {} instead",
    "there": "and {} has it already",
    "failed": "and {} could not deliver it either",
    "full": "and {} has too much waiting (pending_max): nobody was told",
}
_log = logging.getLogger("auditship.alerts")


class Escalation:
    """Escalates.

    Args:
        settings: the channels, their fallbacks, and how long to wait.
        outbox: where messages wait.
        counts: what is counted.
        wake: tells channels, by name, that there is something for them.
        witness: puts it on record: the channel, the reason, and who was told instead.
    """

    def __init__(
        self,
        settings: AlertsSettings,
        outbox: Outbox,
        counts: Counts,
        *,
        wake: Callable[[Sequence[str]], None],
        witness: Callable[[str, str, str | None], None],
    ) -> None:
        self._after_ms = round(settings.escalate_after_s * 1000)
        self._fallbacks = {channel.name: channel.fallback for channel in settings.channel}
        self._outbox = outbox
        self._counts = counts
        self._wake = wake
        self._witness = witness

    def look(self) -> None:
        """Escalates what has waited too long, and gives up what waits for a channel that is no longer configured.

        Raises:
            OutboxError: it is tried again at the next look.
        """
        now_ms = clock.now_ms()
        for name in self._outbox.waiting_channels():
            if name not in self._fallbacks:
                number = self._outbox.abandon(name, "no longer configured")
                self._counts.add("given_up", name, number=number)
                _log.error("channel %s is no longer configured: %d messages for it are given up", name, number)
                continue
            for delivery in self._outbox.overdue(name, now_ms - self._after_ms):
                minutes = (now_ms - delivery.made_ms) / 60_000
                reason = delivery.reason or "no attempt has ended"
                self.helpless(delivery, f"could not deliver for {minutes:.0f} min: {reason}")

    def helpless(self, delivery: Delivery, reason: str) -> None:
        """A channel cannot deliver this; somebody else is told, once."""
        fallback = self._fallbacks.get(delivery.channel)
        now_ms = clock.now_ms()
        told = "and it has no fallback: nobody was told"
        with self._outbox.transaction():
            if not self._outbox.escalated(delivery):
                return
            if fallback is not None:
                put = self._outbox.add(delivery, fallback, f"channel {delivery.channel} {reason}", now_ms)
                told = _TOLD[put].format(fallback)
        self._counts.add("escalations", delivery.channel)
        if fallback is not None and put == "full":
            self._counts.given_up(fallback)
        _log.error("channel %s %s, %s: %s", delivery.channel, reason, told, delivery.message.title)
        self._witness(delivery.channel, reason, fallback)
        if fallback is not None:
            self._wake([fallback])
