"""The networks that an actor was seen in, asked of the store and remembered for a while."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import orjson

from indexer.detect.event import NETWORK, event_of
from indexer.store.contract import Reader

ACTORS_MAX: Final = 1_000
HISTORY_MS: Final = 30 * 86_400_000
FRESH_MS: Final = 3_600_000


class Networks:
    """Networks by actor: those of the last thousand events of thirty days; asked again after an hour of the events' time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: OrderedDict[tuple[str, str], tuple[int, set[str]]] = OrderedDict()

    def __call__(self, organization: str, actor: str, before_ms: int) -> set[str]:
        """The networks of an actor (its id) of an organisation before a time."""
        key = organization, actor
        known = self._known.get(key)
        if known is not None and 0 <= before_ms - known[0] < FRESH_MS:
            return known[1]
        hits = self._reader.actor_history(organization, actor, since_ms=before_ms - HISTORY_MS)
        fields = ("source.ip", "source.as.number")
        events = (event_of(hit, orjson.loads(hit.body), fields) for hit in hits if hit.time_ms <= before_ms)
        networks = {event.facts[NETWORK] for event in events if NETWORK in event.facts}
        self._known[key] = before_ms, networks
        self._known.move_to_end(key)
        while len(self._known) > ACTORS_MAX:
            self._known.popitem(last=False)
        return networks
