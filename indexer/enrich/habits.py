"""Habits: from where a person usually acts, and what is unusual about an event. Pure.

A habit is made of successes alone: a failed login proves nothing of where its alleged actor is, so a country that was only
tried from stays new, for each further attempt and for the first that succeeds. It reaches as far back as the window.

A country or a network is new for an event when no success from there is known that is **older than the event**. So the first
one in time is told whatever the order of arrival, and told again when its block is delivered again, whatever else was stored in
between: what is flagged depends on the past alone. Nothing is new to an actor whose own past is too short
(:class:`WarmUp`), nor before the oldest that is known of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Final, NamedTuple

from msgspec import Struct

from indexer.enrich.journey import GAP_MS, Leap, Point, Stay, copied, is_far, leap
from indexer.enrich.journey import learn as learn_stay

NEW_COUNTRY: Final = "new_country"
NEW_NETWORK: Final = "new_network"
IMPOSSIBLE_TRAVEL: Final = "impossible_travel"
UNCHECKED: Final = "location_unchecked"

DAY_MS: Final = 86_400_000
VALUES_MAX: Final = 250
"""Countries, and networks, remembered of one actor: those beyond are told again."""
_NEVER: Final = 1 << 62
_ALWAYS: Final = -_NEVER

Value = str | int


class Origin(Struct, frozen=True, gc=False):
    """Where an address is, as far as habits go.

    ``country`` is an ISO code, ``network`` an AS number; the names are for people. ``point`` is there only where it says
    something of the person: a city is known, and the network is no relay.
    """

    country: str | None = None
    country_name: str = ""
    network: int | None = None
    network_name: str = ""
    point: Point | None = None
    city: str = ""


class Finding(Struct, frozen=True, gc=False):
    """What is unusual about an event: tags, words (empty: none), and the least severity that it has for it."""

    tags: tuple[str, ...]
    reason: str = ""
    least: str = "info"


class WarmUp(NamedTuple):
    """How long or how rich an actor's past has to be before anything is new to them, and the window it is taken from."""

    days: int = 7
    events: int = 50
    window_days: int = 30


class Known(Struct, gc=False):
    """The values of one kind (countries, or networks): when each was first seen, and how many successes there were in all.

    ``None`` (the value is not known) is in it from the beginning of time, so it is never new.
    """

    firsts: dict[Value | None, int]
    count: int = 0

    @classmethod
    def of(cls, firsts: Iterable[tuple[Value, int]], count: int) -> Known:
        """From what a store knows; the longest known stay, if there are too many."""
        return cls({None: _ALWAYS, **dict(sorted(firsts, key=itemgetter(1))[:VALUES_MAX])}, count)

    def is_new(self, value: Value | None, time_ms: int) -> bool:
        """Whether no older success has it."""
        return self.firsts.get(value, _NEVER) >= time_ms

    def is_warm(self, time_ms: int, rule: WarmUp) -> bool:
        """Whether the past before that time is long or rich enough."""
        oldest = min((first for value, first in self.firsts.items() if value is not None), default=_NEVER)
        return oldest < time_ms and (self.count >= rule.events or time_ms - oldest >= rule.days * DAY_MS)

    def learn(self, value: Value | None, time_ms: int) -> None:
        """A success has it."""
        if self.firsts.get(value, _NEVER) > time_ms:
            if len(self.firsts) > VALUES_MAX and value not in self.firsts:
                del self.firsts[next(each for each in self.firsts if each is not None)]
            self.firsts[value] = time_ms

    def copy(self) -> Known:
        """One that may be changed."""
        return Known(self.firsts.copy(), self.count)

    def merge(self, other: Known, since_ms: int) -> None:
        """Learns what the other knows, as far as it is not too old."""
        for value, first in other.firsts.items():
            if first >= since_ms:
                self.learn(value, first)
        self.count = max(self.count, other.count)


class Habit(Struct, gc=False):
    """What is known of one actor; ``read_ms`` is when the store was asked.

    ``usual`` is the origin at the end of the trail, if nothing is new about it from ``usual_ms`` on: for most events that is
    all that has to be looked at.
    """

    read_ms: int
    countries: Known
    networks: Known
    trail: list[Stay]
    usual: Origin | None = None
    usual_ms: int = 0

    def is_usual(self, origin: Origin, time_ms: int, succeeded: bool) -> bool:
        """The short way: known country, known network, no journey. Learns the success where there is anything to learn."""
        if (
            self.countries.firsts.get(origin.country, _NEVER) >= time_ms
            or self.networks.firsts.get(origin.network, _NEVER) >= time_ms
        ):
            return False
        if not succeeded or origin.point is None:
            return True
        if not self.trail:
            return False
        stay = self.trail[-1]
        if origin.point != stay.point or not stay.first_ms <= time_ms <= stay.last_ms + GAP_MS:
            return False
        self.usual, self.usual_ms = origin, time_ms
        if time_ms > stay.last_ms:  # noqa: PLR1730 - max() costs as much as all the rest
            stay.last_ms = time_ms
        return True

    def finding(self, origin: Origin, time_ms: int, rule: WarmUp, *, succeeded: bool) -> Finding | None:
        """What is unusual about an event."""
        country = self.countries.is_new(origin.country, time_ms) and self.countries.is_warm(time_ms, rule)
        network = self.networks.is_new(origin.network, time_ms) and self.networks.is_warm(time_ms, rule)
        journey = leap(self.trail, time_ms, origin.point) if succeeded and origin.point else None
        if not (country or network or journey):
            return None
        tags, reasons = [], []
        since = f"{'first time' if succeeded else 'no success'} from {{}} in {rule.window_days} days"
        if country:
            tags.append(NEW_COUNTRY)
            reasons.append(since.format(origin.country_name or origin.country))
        if network:
            tags.append(NEW_NETWORK)
            reasons.append(since.format(_network(origin)))
        if journey:
            tags.append(IMPOSSIBLE_TRAVEL)
            reasons.append(_journey(journey))
        return Finding(tuple(tags), "; ".join(reasons), "warning" if country or journey else "info")

    def is_open(self, origin: Origin, time_ms: int, *, succeeded: bool) -> bool:
        """Whether fresher knowledge could change the finding."""
        if self.countries.is_new(origin.country, time_ms) or self.networks.is_new(origin.network, time_ms):
            return True
        return succeeded and origin.point is not None and is_far(self.trail, time_ms, origin.point)

    def learn(self, origin: Origin, time_ms: int) -> None:
        """A success came from there."""
        self.usual = None
        self.countries.learn(origin.country, time_ms)
        self.networks.learn(origin.network, time_ms)
        if origin.point is not None:
            learn_stay(self.trail, time_ms, origin.point, origin.city)

    def copy(self) -> Habit:
        """One that may be changed."""
        return Habit(self.read_ms, self.countries.copy(), self.networks.copy(), copied(self.trail))

    def merged(self, other: Habit, since_ms: int) -> Habit:
        """This, and what another knows of the same actor since then: as fresh as this one."""
        both = self.copy()
        both.countries.merge(other.countries, since_ms)
        both.networks.merge(other.networks, since_ms)
        shorter, longer = sorted((self.trail, other.trail), key=len)
        both.trail = copied(longer)
        for stay in shorter:
            learn_stay(both.trail, stay.first_ms, stay.point, stay.city)
            learn_stay(both.trail, stay.last_ms, stay.point, stay.city)
        return both


def _network(origin: Origin) -> str:
    return f"{origin.network_name} (AS{origin.network})" if origin.network_name else f"AS{origin.network}"


def _journey(found: Leap) -> str:
    minutes = found.ms // 60_000
    took = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - for people
    return f"impossible journey: {found.km:,.0f} km from {found.city} in {took}"
