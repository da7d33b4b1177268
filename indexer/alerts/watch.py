"""What makes messages of what arrives: events become causes, heartbeats silence. Each is kept with the cursor that fed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from indexer.alerts.cause import Causes, Telling
from indexer.alerts.event import Event
from indexer.alerts.message import Links, Message, message_of
from indexer.alerts.outbox import Outbox
from indexer.alerts.settings import AlertsSettings
from indexer.alerts.silence import Agent, Silence


class Watch(Protocol):
    """Something that makes messages of events and of time, and can be kept in the outbox and loaded from it."""

    def load(self) -> None:
        """Takes what the outbox holds for the truth: at the start, and after a transaction that failed."""

    def take(self, events: Sequence[Event], now_ms: int) -> Sequence[Message]:
        """Messages that new events make."""

    def tick(self, now_ms: int) -> Sequence[Message]:
        """Messages that time makes, until when everything has been taken."""

    def keep(self) -> None:
        """Puts what has changed into the outbox, within the caller's transaction."""


class CauseWatch:
    """Critical events and detections, by their causes."""

    def __init__(self, outbox: Outbox, settings: AlertsSettings, links: Links) -> None:
        self._outbox, self._settings, self._links = outbox, settings, links
        self.load()

    def __len__(self) -> int:
        return len(self._causes)

    def load(self) -> None:
        """The open causes."""
        self._causes = Causes(self._outbox.causes(), quiet_s=self._settings.quiet_s, update_s=self._settings.update_s)

    def take(self, events: Sequence[Event], now_ms: int) -> Sequence[Message]:
        """New causes at once."""
        return self._messages(self._causes.take(events, now_ms))

    def tick(self, now_ms: int) -> Sequence[Message]:
        """Growth and ends."""
        return self._messages(self._causes.tick(now_ms))

    def keep(self) -> None:
        """Causes that have changed."""
        self._outbox.keep(self._causes.changed)
        self._causes.changed.clear()

    def _messages(self, tellings: Sequence[Telling]) -> Sequence[Message]:
        return [message_of(telling, self._links) for telling in tellings]


class AgentWatch:
    """Agents, by whether they are heard of.

    Args:
        outbox: where they are remembered.
        settings: how long they may be silent.
        grace_s: for how long nobody is judged, after the start and after the store did not answer.
    """

    def __init__(self, outbox: Outbox, settings: AlertsSettings, *, grace_s: float) -> None:
        self._outbox, self._settings = outbox, settings
        self._grace_ms = round(grace_s * 1000)
        self._judged_from_ms: int | None = None
        self.load()

    def load(self) -> None:
        """The agents that are known."""
        self._silence = Silence(self._outbox.agents(), silent_after_s=self._settings.silent_after_s)

    def seed(self, agents: dict[str, Agent]) -> None:
        """Takes over who was heard before following began."""
        self._outbox.keep_agents(Silence.packed(agents))
        self.load()

    def could_not_read(self) -> None:
        """The store did not answer: for a while nobody is judged."""
        self._judged_from_ms = None

    def take(self, events: Sequence[Event], now_ms: int) -> Sequence[Message]:
        """Agents that are heard again."""
        return self._silence.take(events, now_ms)

    def tick(self, now_ms: int) -> Sequence[Message]:
        """Agents that have fallen silent."""
        if self._judged_from_ms is None or self._judged_from_ms > now_ms + self._grace_ms:  # else the clock was set back
            self._judged_from_ms = now_ms + self._grace_ms
        return self._silence.judge(now_ms) if now_ms >= self._judged_from_ms else ()

    def keep(self) -> None:
        """Agents that have changed."""
        self._outbox.keep_agents(self._silence.changed())
