"""What alerting counts, for Prometheus: ``GET /metrics`` on ``metrics_listen``, when that is configured.

``/healthz`` answers while the process does; ``/readyz`` while the store answers too. See :mod:`indexer.alerts.counts` for the
names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from auditship.pages import Pages
from indexer.alerts.counts import COUNTERS, Counts
from indexer.alerts.outbox import Outbox

_NAME = "auditship_alerts_"


class Metrics(Pages):
    """The server.

    Args:
        listen: where.
        counts: what was counted.
        outbox: what waits.
        channels: whose deliveries.
        open_causes: how many causes are open.
        is_ready: whether the store answers.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    def __init__(
        self,
        listen: str,
        counts: Counts,
        outbox: Outbox,
        *,
        channels: Sequence[str],
        open_causes: Callable[[], int],
        is_ready: Callable[[], bool],
    ) -> None:
        registry = CollectorRegistry()
        registry.register(_Collected(counts, outbox, channels, open_causes))
        super().__init__(
            listen,
            {
                "/metrics": lambda: (200, generate_latest(registry)),
                "/healthz": lambda: (200, b"ok\n"),
                "/readyz": lambda: (200, b"ready\n") if is_ready() else (503, b"the store does not answer\n"),
            },
        )


class _Collected(Collector):
    """What is known at the moment of asking."""

    def __init__(self, counts: Counts, outbox: Outbox, channels: Sequence[str], open_causes: Callable[[], int]) -> None:
        self._counts, self._outbox, self._channels, self._open_causes = counts, outbox, channels, open_causes

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """All metrics."""
        values = self._counts.values()
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(_NAME + name, text, labels=labels)
            for (counted, at), number in values.items():
                if counted == name:
                    family.add_metric(list(at), number)
            if not labels and (name, ()) not in values:
                family.add_metric([], 0)
            yield family
        yield CounterMetricFamily(f"{_NAME}poll_seconds", "Time spent on looks at the store.", self._counts.poll_s)
        yield GaugeMetricFamily(f"{_NAME}open_causes", "Causes that are being counted.", self._open_causes())
        pending = GaugeMetricFamily(f"{_NAME}pending", "Messages that wait for a channel.", labels=["channel"])
        oldest = GaugeMetricFamily(f"{_NAME}oldest_seconds", "How long the oldest of them has waited.", labels=["channel"])
        for channel in self._channels:
            pending.add_metric([channel], self._outbox.pending(channel))
            since_ms = self._outbox.oldest_ms(channel)
            oldest.add_metric([channel], 0.0 if since_ms is None else max(time.time() - since_ms / 1000, 0.0))
        yield pending
        yield oldest
