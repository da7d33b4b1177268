"""Puts an indexer's parts together from its configuration. The wiring happens here and nowhere else."""

from __future__ import annotations

import ctypes
import gc
import logging
from contextlib import suppress
from typing import Final

from starlette.applications import Starlette

from auditship.clock import now_ms
from auditship.log import configure
from indexer.build import Builder
from indexer.enrich import user_agent
from indexer.enrich.actor import Actors
from indexer.enrich.habits import WarmUp
from indexer.enrich.location import Places
from indexer.enrich.platform import Platforms
from indexer.enrich.relays import relay_networks
from indexer.enrich.severity import Severities
from indexer.metrics import Metrics
from indexer.organizations import Policies
from indexer.pipeline import Pipeline
from indexer.record import ORGANIZATION, Maker
from indexer.retention import exceptions
from indexer.server import Indexer, application
from indexer.settings import EnrichmentSettings, IndexerSettings
from indexer.store.contract import Expirer, Reader, Writer
from indexer.store.select import open_expirer, open_reader, open_writer
from indexer.upkeep import EXPIRE_INTERVAL_S, RELOAD_INTERVAL_S, Chore, Upkeep
from indexer.whereabouts import Whereabouts

GC_OBJECTS: Final = 100_000
"""How many new objects that could be in a cycle make the collector look."""
KEPT_BYTES: Final = 64 << 20
"""How much free memory the C library may hold on to."""
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3

_log = logging.getLogger("auditship.indexer")


def builder_of(settings: EnrichmentSettings, places: Places, *, retention: str) -> Builder:
    """The enrichment that a configuration asks for.

    Raises:
        ConfigurationError: a rule or policy file is malformed.
    """
    policies = Policies.load(settings.organizations, retention)
    return Builder(
        actors=Actors(settings.cache_entries_max),
        places=places,
        platforms=Platforms(),
        severities=Severities.load(settings.severity_rules, policies.severity),
        retention=policies.retention,
        masks=policies.masks(),
    )


def places_of(settings: EnrichmentSettings) -> Places:
    """The location databases that a configuration names."""
    relays = relay_networks(settings.relay_networks)
    return Places(settings.city_database, settings.asn_database, settings.cache_entries_max, relays=relays)


def whereabouts_of(
    settings: EnrichmentSettings, reader: Reader, metrics: Metrics, relays: frozenset[int]
) -> Whereabouts | None:
    """What tells unusual locations; none where that is not wanted, or no database tells any location."""
    if not settings.unusual_location or not (settings.city_database or settings.asn_database):
        return None
    rule = WarmUp(settings.location_warm_up_days, settings.location_warm_up_events, settings.location_window_days)
    return Whereabouts(reader, rule, relays, clock=now_ms, count=metrics.unusual)


def indexer_of(settings: IndexerSettings, *, writer: Writer | None = None) -> Indexer:
    """One worker's indexer; ``writer`` replaces the configured store's (for measurements)."""
    metrics = Metrics()
    places = places_of(settings.enrichment)
    builder = builder_of(settings.enrichment, places, retention=settings.store.retention)
    reader = open_reader(settings)
    whereabouts = whereabouts_of(settings.enrichment, reader, metrics, places.relays)
    writer = writer or open_writer(settings)
    policies = Policies.load(settings.enrichment.organizations, settings.store.retention)
    chores = [Chore("location databases taken over, or dropped", RELOAD_INTERVAL_S, lambda: reread(places, builder))]
    if expirer := open_expirer(settings):
        chores.append(Chore("expired", EXPIRE_INTERVAL_S, lambda: expire(expirer, reader, policies)))
    maker = Maker(policies.retention(ORGANIZATION), policies.discretion(ORGANIZATION))
    pipeline = Pipeline(builder, writer, whereabouts=whereabouts)
    return Indexer(settings, pipeline, writer, reader, upkeep=Upkeep(chores), metrics=metrics, maker=maker)


def reread(places: Places, builder: Builder) -> list[str]:
    """Takes replaced location databases over, and drops a damaged one; says which."""
    if taken := places.reload():
        builder.forget()
    return taken


def expire(expirer: Expirer, reader: Reader, policies: Policies) -> list[str]:
    """Deletes what is past its time, but for legal holds; says what."""
    segments = reader.segments()
    if policies.has_holds and (unread := [segment.name for segment in segments if segment.organizations is None]):
        _log.warning("kept until it can be read whether they hold documents under a legal hold: %s", ", ".join(unread))
    return expirer.expire(now_ms(), exceptions=exceptions(segments, policies))


def create(settings: IndexerSettings) -> Starlette:
    """A worker's application; the server calls this in each worker process."""
    configure()
    app = application(indexer_of(settings))
    settle()
    return app


def settle() -> None:
    """Makes ready for many blocks, once everything is there.

    The tables of user agents take a third of a second to read: now, not with the first block. The collector is told what this
    program is like: what is there now stays, and what lines become holds no cycles. Looking for cycles among the objects of
    each block would cost a quarter of the indexer's time; they are freed by their reference counts. And the C library is to
    keep what a block took for the next one: giving some megabytes back to the system after each, to have them again as zeroed
    pages, would cost a tenth.
    """
    user_agent.parse("")
    with suppress(AttributeError, OSError):  # only glibc has it; without it everything works, a little slower
        adjust = ctypes.CDLL(None).mallopt
        adjust(_M_MMAP_THRESHOLD, KEPT_BYTES // 2)
        adjust(_M_TRIM_THRESHOLD, KEPT_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 50, 50)
