"""Journeys: whether a person can have been at two places. Pure.

A trail is what is remembered of one actor's successes that have a place: stays, the oldest first, without overlap, at most
:data:`STAYS_MAX`. A success joins the stay before it if it is at the same point and comes so soon that whoever was elsewhere
in between made an impossible journey (:data:`GAP_MS`); so stays miss nothing that the single moments would tell. A success is
compared with its neighbours in time, on both sides, in whichever order they are learnt.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Final, NamedTuple

from msgspec import Struct

KM_MIN: Final = 500
"""Nearer places are never an impossible journey: location databases err by as much."""
KMH_MIN: Final = 800
"""The speed from which on it is impossible: that of an airliner, doors to doors."""
STAYS_MAX: Final = 16
GAP_MS: Final = KM_MIN * 3_600_000 // KMH_MIN
EARTH_KM: Final = 6371.0

Point = tuple[float, float]
"""Latitude and longitude in degrees."""


class Stay(Struct, gc=False):
    """Successes at one point: the times of the first and the last, epoch milliseconds; the city, for people.

    Only the last of a trail is ever changed in its place: a copy of the trail needs a copy of that one.
    """

    first_ms: int
    last_ms: int
    point: Point
    city: str


class Leap(NamedTuple):
    """An impossible journey: how far, in which time, and the city at its other end."""

    km: float
    ms: int
    city: str


def distance_km(one: Point, other: Point) -> float:
    """Along the great circle."""
    latitude, longitude = map(math.radians, one)
    latitude_2, longitude_2 = map(math.radians, other)
    half = math.sin((latitude_2 - latitude) / 2) ** 2
    half += math.cos(latitude) * math.cos(latitude_2) * math.sin((longitude_2 - longitude) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, half)))


def is_impossible(km: float, ms: int) -> bool:
    """Whether nobody gets so far in that time."""
    return km >= KM_MIN and km * 3_600_000 >= KMH_MIN * ms


def neighbours(trail: list[Stay], time_ms: int) -> tuple[Stay | None, Stay | None]:
    """The stay that began at that time or before, and the one after it."""
    at = _position(trail, time_ms)
    return trail[at - 1] if at else None, trail[at] if at < len(trail) else None


def is_far(trail: list[Stay], time_ms: int, point: Point) -> bool:
    """Whether a success there may be a journey at all: it has a neighbour far away, or none before it that is known."""
    before, after = neighbours(trail, time_ms)
    return before is None or any(each and distance_km(each.point, point) >= KM_MIN for each in (before, after))


def leap(trail: list[Stay], time_ms: int, point: Point) -> Leap | None:
    """The impossible journey that a success at that time and point would be the end or the beginning of.

    One that begins here is told unless the success before it, at the same point, began it already.
    """
    before, after = neighbours(trail, time_ms)
    if before and (found := _leap(before, max(0, time_ms - before.last_ms), point)):
        return found
    if before and time_ms < before.last_ms:
        return None  # what comes next is at the same point
    if after and (found := _leap(after, after.first_ms - time_ms, point)):
        is_told = before and before.point == point and _leap(after, after.first_ms - before.last_ms, point)
        return None if is_told else found
    return None


def learn(trail: list[Stay], time_ms: int, point: Point, city: str) -> None:
    """Remembers a success; the oldest stay makes room."""
    at = _position(trail, time_ms)
    before, after = trail[at - 1] if at else None, trail[at] if at < len(trail) else None
    is_inside = before is not None and time_ms < before.last_ms
    if before and before.point == point and time_ms <= before.last_ms + GAP_MS:
        trail[at - 1] = Stay(before.first_ms, max(before.last_ms, time_ms), point, before.city)
    elif after and after.point == point and time_ms >= after.first_ms - GAP_MS and not is_inside:
        trail[at] = Stay(time_ms, after.last_ms, point, after.city)
    else:
        new = [Stay(time_ms, time_ms, point, city)]
        if before and is_inside:  # in the middle of a stay elsewhere
            trail[at - 1] = Stay(before.first_ms, time_ms, before.point, before.city)
            new.append(Stay(time_ms, before.last_ms, before.point, before.city))
        trail[at:at] = new
        del trail[:-STAYS_MAX]


def copied(trail: list[Stay]) -> list[Stay]:
    """One that may be changed."""
    stays = trail.copy()
    if stays:
        stays[-1] = copy(stays[-1])
    return stays


def _leap(stay: Stay, ms: int, point: Point) -> Leap | None:
    km = distance_km(stay.point, point)
    return Leap(km, ms, stay.city) if is_impossible(km, ms) else None


def _position(trail: list[Stay], time_ms: int) -> int:
    """Where a stay that begins at that time belongs; most often at the end."""
    at = len(trail)
    while at and trail[at - 1].first_ms > time_ms:
        at -= 1
    return at
