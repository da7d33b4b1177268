"""Puts messages up for delivery: each through the channels that it is for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from indexer.alerts.counts import Counts
from indexer.alerts.deliver import Deliverer
from indexer.alerts.message import Message
from indexer.alerts.outbox import Outbox
from indexer.alerts.settings import AnyChannel
from indexer.record import ORGANIZATION

_log = logging.getLogger("auditship.alerts")


class Post:
    """The post office of one process.

    Args:
        channels: the configuration's.
        outbox: where messages wait.
        counts: what is counted.
    """

    def __init__(self, channels: Sequence[AnyChannel], outbox: Outbox, counts: Counts) -> None:
        self._channels = channels
        self._outbox = outbox
        self._counts = counts
        self.deliverers: list[Deliverer] = []

    def put(self, messages: Sequence[Message], now_ms: int) -> None:
        """Puts messages up, durably; where a transaction is open, with it."""
        if not messages:
            return
        with self._outbox.transaction():
            for message in messages:
                self._counts.add("messages", message.kind)
                channels = {each.name: each.fallback for each in self._channels if is_for(each, message)}
                full = self._outbox.post(message, channels, now_ms)
                for name in full:
                    _log.error("channel %s: too much is waiting, given up: %s", name, message.title)
                    self._counts.given_up(name)
                self.wake([*channels, *filter(None, map(channels.get, full))])

    def wake(self, names: Sequence[str]) -> None:
        """Tells channels that there may be something for them."""
        for deliverer in self.deliverers:
            if deliverer.settings.name in names:
                deliverer.wake()


def is_for(channel: AnyChannel, message: Message) -> bool:
    """Whether a message goes through a channel: by its severity, and by whose events it tells of."""
    if channel.only_escalations or message.severity not in channel.severities:
        return False
    if not channel.organizations:
        return True
    return message.organization != ORGANIZATION and message.organization in channel.organizations
