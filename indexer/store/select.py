"""Opens the store that the configuration names. What a store needs is imported only for it."""

from __future__ import annotations

from auditship import clock
from indexer.settings import IndexerSettings
from indexer.store.contract import Expirer, Reader, Writer


def open_writer(settings: IndexerSettings) -> Writer:
    """The side that adds."""
    if settings.store.kind == "elasticsearch":
        from indexer.store.elasticsearch import ElasticsearchWriter  # noqa: PLC0415

        return ElasticsearchWriter(settings.elasticsearch)
    from indexer.store.embedded import EmbeddedWriter  # noqa: PLC0415

    return EmbeddedWriter(settings.store.path, clock.now_ms)


def open_reader(settings: IndexerSettings) -> Reader:
    """The side that finds."""
    if settings.store.kind == "elasticsearch":
        from indexer.store.elasticsearch import ElasticsearchReader  # noqa: PLC0415

        return ElasticsearchReader(settings.elasticsearch)
    from indexer.store.embedded import EmbeddedReader  # noqa: PLC0415

    return EmbeddedReader(settings.store.path, clock.now_ms)


def open_expirer(settings: IndexerSettings) -> Expirer | None:
    """The side that deletes; none where the store does it by itself."""
    if settings.store.kind == "elasticsearch":
        return None
    from indexer.store.embedded import EmbeddedExpirer  # noqa: PLC0415

    return EmbeddedExpirer(settings.store.path)
