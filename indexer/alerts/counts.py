"""What alerting has done since its start, in numbers. Safe to change from several threads.

auditship_alerts_events_total{feed}                    critical documents and detections that were read
auditship_alerts_messages_total{kind}                  messages that were made of them
auditship_alerts_attempts_total{channel,outcome}       delivered, later, refused
auditship_alerts_escalations_total{channel}            messages whose fallback had to be told
auditship_alerts_given_up_total{channel}               messages that this channel never got
auditship_alerts_polls_total, _poll_seconds_total      looks at the store
auditship_alerts_store_failures_total                  looks that the store did not answer
auditship_alerts_open_causes                           causes that are being counted
auditship_alerts_pending{channel}, _oldest_seconds{channel}   what waits for a channel, and since when
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from indexer.alerts.channel import Delivered, Later, Outcome

COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "events": ("Critical documents and detections that were read.", ("feed",)),
    "messages": ("Messages that were made.", ("kind",)),
    "attempts": ("Attempts to deliver, by what became of them.", ("channel", "outcome")),
    "escalations": ("Messages that a channel could not deliver in time.", ("channel",)),
    "given_up": ("Messages that a channel never got.", ("channel",)),
    "polls": ("Looks at the store.", ()),
    "store_failures": ("Looks that the store did not answer.", ()),
}
"""Each counter's help, and its labels."""


class Counts:
    """Counters by name and labels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.poll_s = 0.0

    def add(self, name: str, *labels: str, number: int = 1) -> None:
        """Counts."""
        with self._lock:
            self._values[name, labels] += number

    def attempted(self, channel: str, outcome: Outcome) -> None:
        """A channel was tried."""
        word = "delivered" if isinstance(outcome, Delivered) else "later" if isinstance(outcome, Later) else "refused"
        self.add("attempts", channel, word)

    def given_up(self, channel: str) -> None:
        """A channel will never get a message."""
        self.add("given_up", channel)

    def polled(self, took_s: float) -> None:
        """The store was looked at."""
        self.add("polls")
        with self._lock:
            self.poll_s += took_s

    def values(self) -> dict[tuple[str, tuple[str, ...]], int]:
        """A copy of all."""
        with self._lock:
            return dict(self._values)
