"""What an indexer counts, for Prometheus: ``GET /metrics`` on the indexer's own port, for whoever may search.

Several worker processes count in files of their own in a directory that they share; whichever of them is asked adds them up.
Counted per block, never per line.

    auditship_indexer_blocks_total{answer}         blocks by HTTP status
    auditship_indexer_redelivered_blocks_total     blocks that said they may have been delivered before
    auditship_indexer_lines_total{outcome}         lines: created, duplicate, rejected
    auditship_indexer_bytes_total                  uncompressed bytes of blocks that were stored
    auditship_indexer_block_seconds                from a block's first byte to its receipt
    auditship_indexer_unusual_locations_total{tag} events by what is unusual about their location, or location_unchecked
    auditship_indexer_in_flight_bytes              uncompressed bytes under way, 512 at least for each line
    auditship_indexer_unrecorded_total             searches that could not be recorded when they were answered
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from auditship.block import BlockHeader, Receipt

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library's: it has to be set before the library is imported."""
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def share_directory() -> Iterator[None]:
    """Has workers that are started meanwhile share a directory."""
    with tempfile.TemporaryDirectory(prefix="auditship-metrics-") as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY_VARIABLE]


class Metrics:
    """One worker's counters."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415 - see DIRECTORY_VARIABLE

        registry = CollectorRegistry()
        self._registry = registry
        name = "auditship_indexer_"
        self._blocks: Counter = Counter(f"{name}blocks", "Blocks by HTTP status.", ["answer"], registry=registry)
        self._redelivered: Counter = Counter(
            f"{name}redelivered_blocks", "Blocks that may have been delivered before.", registry=registry
        )
        lines = Counter(f"{name}lines", "Lines by what became of them.", ["outcome"], registry=registry)
        self._created, self._duplicates, self._rejected = (
            lines.labels(outcome) for outcome in ("created", "duplicate", "rejected")
        )
        self._bytes: Counter = Counter(f"{name}bytes", "Uncompressed bytes of stored blocks.", registry=registry)
        self._seconds: Histogram = Histogram(
            f"{name}block_seconds", "From a block's first byte to its receipt.", buckets=BUCKETS_S, registry=registry
        )
        self._unusual: Counter = Counter(
            f"{name}unusual_locations", "Events by what is unusual about their location.", ["tag"], registry=registry
        )
        self._unrecorded: Counter = Counter(f"{name}unrecorded", "Searches that could not be recorded.", registry=registry)
        self._in_flight: Gauge = Gauge(
            f"{name}in_flight_bytes",
            "Uncompressed bytes under way, 512 at least for each line.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def unrecorded(self) -> None:
        """A search could not be recorded."""
        self._unrecorded.inc()

    def answered(self, status: int) -> None:
        """A block was answered."""
        self._blocks.labels(str(status)).inc()

    def stored(self, header: BlockHeader, receipt: Receipt, took_s: float) -> None:
        """A block was stored."""
        self._created.inc(receipt.documents)
        self._duplicates.inc(receipt.duplicates)
        self._rejected.inc(receipt.rejected)
        self._bytes.inc(header.length)
        self._seconds.observe(took_s)
        if header.redelivered:
            self._redelivered.inc()

    def unusual(self, counts: Mapping[str, int]) -> None:
        """So many events of a stored block have those tags."""
        for tag, count in counts.items():
            self._unusual.labels(tag).inc(count)

    def in_flight(self, size: int) -> None:
        """So many bytes are under way now."""
        self._in_flight.set(size)

    def text(self) -> bytes:
        """All workers' sums, in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - see DIRECTORY_VARIABLE
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

        if not (directory := os.environ.get(DIRECTORY_VARIABLE)):
            return generate_latest(self._registry)
        _forget_the_dead(Path(directory))
        registry = CollectorRegistry()
        collect: Callable[[CollectorRegistry], object] = MultiProcessCollector
        collect(registry)
        return generate_latest(registry)


def _forget_the_dead(directory: Path) -> None:
    """Takes out what is under way in processes that are no more; what they have counted stays."""
    for file in directory.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except (ProcessLookupError, PermissionError):  # its number may be another user's by now
            file.unlink(missing_ok=True)
