"""The networks that an actor succeeded from, asked of the store and remembered for a while.

A network that has a number is looked for among the store's sightings: all of thirty days, and no document is read. One without
(no ASN database knows it: it is a /24 or /48) is looked for among the actor's last thousand events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from indexer.detect.event import NETWORK, event_of, is_numbered, network_of
from indexer.store.body import document_of
from indexer.store.contract import Person, Reader

ACTORS_MAX: Final = 1_000
HISTORY_MS: Final = 30 * 86_400_000
FRESH_MS: Final = 3_600_000
TIMEOUT_S: Final = 10.0


class Networks:
    """Knows where actors were; asks again after an hour of the events' time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._numbered = _Remembered(self._sightings)
        self._others = _Remembered(self._history)

    def has(self, actor: Person, network: str, before_ms: int) -> bool:
        """Whether an actor succeeded from a network before a time.

        Raises:
            Unavailable: the store cannot tell now.
        """
        known = self._numbered if is_numbered(network) else self._others
        return network in known.of(actor, before_ms)

    def _sightings(self, actor: Person, before_ms: int) -> set[str]:
        seen = self._reader.sightings(
            [actor], since_ms=before_ms - HISTORY_MS, until_ms=before_ms + 1, relays=(), timeout_s=TIMEOUT_S
        )
        return {network_of("", str(number)) for number in seen[actor].networks} if actor in seen else set()

    def _history(self, actor: Person, before_ms: int) -> set[str]:
        hits = self._reader.actor_history(*actor, since_ms=before_ms - HISTORY_MS)
        fields = ("source.ip", "source.as.number", "event.outcome")
        events = (event_of(hit, document_of(hit.body), fields).facts for hit in hits if hit.time_ms <= before_ms)
        return {facts[NETWORK] for facts in events if NETWORK in facts and facts.get("event.outcome") == "success"}


class _Remembered:
    """Answers by actor, of those who were asked for last."""

    def __init__(self, ask: Callable[[Person, int], Collection[str]]) -> None:
        self._ask = ask
        self._known: OrderedDict[Person, tuple[int, Collection[str]]] = OrderedDict()

    def of(self, actor: Person, before_ms: int) -> Collection[str]:
        """The answer for a time, or for one up to an hour before it."""
        known = self._known.get(actor)
        if known is None or not 0 <= before_ms - known[0] < FRESH_MS:
            known = self._known[actor] = before_ms, self._ask(actor, before_ms)
            self._known.move_to_end(actor)
            if len(self._known) > ACTORS_MAX:
                self._known.popitem(last=False)
        return known[1]
