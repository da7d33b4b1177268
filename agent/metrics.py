"""What an agent counts, for Prometheus: ``GET /metrics`` on ``metrics_listen``, when that is configured.

Nothing is counted for it: it shows what the reader knows at the moment of asking. ``/healthz`` answers while the process does;
``/readyz`` once the globs have been looked through. One request at a time, each with a deadline.

    auditship_agent_lines_total, _bytes_total, _blocks_total      acknowledged
    auditship_agent_documents_total, _duplicates_total, _rejected_total   what the receipts said of the lines
    auditship_agent_retries_total                                 answers that were no receipt
    auditship_agent_gaps_total, _gap_bytes_total                  what could not be read and never will be
    auditship_agent_halted_total                                  streams that only a person can help
    auditship_agent_unreadable                                    files and directories that could not be read at the last look
    auditship_agent_streams{gateway}                              files that are watched
    auditship_agent_lag_bytes{gateway}                            there and not acknowledged yet
    auditship_agent_lag_seconds{gateway}                          how long the one farthest behind has been so
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.report import Counts
from auditship.pages import Pages

if TYPE_CHECKING:
    from agent.reader import Reader

_HELP = {
    "lines": "Lines acknowledged.",
    "bytes": "Bytes acknowledged.",
    "blocks": "Blocks acknowledged.",
    "documents": "Lines that became documents.",
    "duplicates": "Lines that were stored already.",
    "rejected": "Lines that are no events, stored as rejected.",
    "retries": "Answers that were no receipt.",
    "gaps": "Stretches that could not be read and never will be.",
    "gap_bytes": "Bytes of them, as far as known.",
    "halted": "Streams that only a person can help.",
    "unreadable": "Files and directories that could not be read at the last look.",
}


class Metrics(Pages):
    """The server.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    def __init__(self, listen: str, reader: Reader, counts: Counts) -> None:
        registry = CollectorRegistry()
        registry.register(_Collected(reader, counts))
        super().__init__(
            listen,
            {
                "/metrics": lambda: (200, generate_latest(registry)),
                "/healthz": lambda: (200, b"ok\n"),
                "/readyz": lambda: (200, b"ready\n") if reader.has_scanned else (503, b"starting\n"),
            },
        )


class _Collected(Collector):
    """What a reader knows now. Asked in another thread than the reader's: it copies before it counts."""

    def __init__(self, reader: Reader, counts: Counts) -> None:
        self._reader = reader
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """All metrics."""
        for each in fields(Counts):
            family = GaugeMetricFamily if each.name == "unreadable" else CounterMetricFamily
            yield family(f"auditship_agent_{each.name}", _HELP[each.name], getattr(self._counts, each.name))
        now = time.monotonic()
        streams: Counter[str] = Counter()
        lag_bytes: Counter[str] = Counter()
        lag_s: dict[str, float] = {}
        for stream in self._reader.streams():
            streams[stream.gateway] += 1
            lag_bytes[stream.gateway] += stream.lag_bytes
            behind_s = now - stream.caught_up_at_s if stream.lag_bytes else 0.0
            lag_s[stream.gateway] = max(lag_s.get(stream.gateway, 0.0), behind_s)
        yield _gauge("streams", "Files that are watched.", streams)
        yield _gauge("lag_bytes", "Bytes that are there and not acknowledged yet.", lag_bytes)
        yield _gauge("lag_seconds", "How long the stream farthest behind has been so.", lag_s)


def _gauge(name: str, text: str, values: dict[str, float] | Counter[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"auditship_agent_{name}", text, labels=["gateway"])
    for gateway, value in values.items():
        family.add_metric([gateway], value)
    return family
