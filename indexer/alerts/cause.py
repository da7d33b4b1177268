"""What is worth telling. Pure: events and the time come in, tellings go out.

A cause is what happened, where and through whom: the organisation, the rule (of a detection) or the action with its outcome,
and the actor; for failed log-ins the address, since there the actor's name is only what somebody claimed. Its first event is
told at once, however many came with it. Then the cause stays open: its events are counted, and told again only when the count
has grown tenfold (not sooner than ``update_s`` after the last telling) or a day has passed. When it has been quiet for
``quiet_s`` it ends, with a last telling if there was more than had been told; the next event is a new cause, told at once. A
time later than now, of a clock that was ahead, counts as now.

Bounded: a kind of event that has many open causes (a spray of names and addresses) gets one cause for all further ones, so does
an organisation, and so does everything in the end. No organisation's flood hides another one's events. Nothing is left
uncounted: an event is in the count of exactly one cause.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from indexer.alerts.event import Event

CAUSES_PER_KIND_MAX: Final = 20
CAUSES_PER_ORGANIZATION_MAX: Final = 200
CAUSES_MAX: Final = 20_000
GROWTH: Final = 10
REMIND_S: Final = 86_400
MANY: Final = "many"

Key = tuple[str, ...]
"""Severity, organisation, what, through whom; everybody's begins with :data:`MANY`, which is no severity."""


class Cause(Struct):
    """An open cause. Times are epoch milliseconds of the process that told; ``event`` is its newest."""

    id: str
    key: Key
    event: Event
    first_ms: int
    last_ms: int
    count: int = 0
    told_count: int = 0
    told_ms: int = 0
    tellings: int = 0


class Telling(NamedTuple):
    """What is to be told of a cause, as it stood then; ``number`` counts a cause's tellings from 1."""

    kind: Literal["alert", "growth", "end"]
    cause: Cause
    number: int


class Causes:
    """The open causes.

    Args:
        open_causes: those that were open when the process ended before.
        quiet_s: how long a cause must be quiet to end.
        update_s: the least time between two tellings of a cause.
    """

    def __init__(self, open_causes: Iterable[Cause] = (), *, quiet_s: float, update_s: float) -> None:
        self._open = {cause.key: cause for cause in open_causes}
        self._numbers: Counter[Key] = Counter()
        """Open causes by the beginnings of their keys: severity and organisation, and what."""
        for cause in self._open.values():
            self._count(cause.key, 1)
        self._quiet_ms = round(quiet_s * 1000)
        self._update_ms = round(update_s * 1000)
        self.changed: dict[str, Cause | None] = {}
        """Causes by id that were changed since the caller looked (and cleared it); none for one that ended."""

    def __len__(self) -> int:
        return len(self._open)

    def take(self, events: Iterable[Event], now_ms: int) -> list[Telling]:
        """Counts events that have arrived together; tells those causes that are new, and what time has brought before."""
        tellings = self.tick(now_ms)
        fresh: list[Cause] = []
        for event in events:
            key = self._key(event)
            cause = self._open.get(key)
            if cause is None:
                cause = self._open[key] = Cause(_id(key, event), key, event, first_ms=now_ms, last_ms=now_ms)
                self._count(key, 1)
                fresh.append(cause)
            cause.count += 1
            cause.last_ms = now_ms
            cause.event = event
            self.changed[cause.id] = cause
        return tellings + [self._tell("alert", cause, now_ms) for cause in fresh]

    def tick(self, now_ms: int) -> list[Telling]:
        """What time alone brings: growth that is due, and ends. Call it about every second."""
        tellings = []
        for cause in list(self._open.values()):
            if max(cause.first_ms, cause.last_ms, cause.told_ms) > now_ms:
                self._pull_back(cause, now_ms)
            is_quiet = now_ms - cause.last_ms >= self._quiet_ms
            if is_quiet:
                if cause.count > cause.told_count:
                    tellings.append(self._tell("end", cause, now_ms))
                self._close(cause)
            elif self._has_grown(cause, now_ms):
                tellings.append(self._tell("growth", cause, now_ms))
        return tellings

    def _pull_back(self, cause: Cause, now_ms: int) -> None:
        cause.first_ms, cause.last_ms = min(cause.first_ms, now_ms), min(cause.last_ms, now_ms)
        cause.told_ms = min(cause.told_ms, now_ms)
        self.changed[cause.id] = cause

    def _has_grown(self, cause: Cause, now_ms: int) -> bool:
        since_ms = now_ms - cause.told_ms
        if cause.count >= GROWTH * cause.told_count:
            return since_ms >= self._update_ms
        return cause.count > cause.told_count and since_ms >= REMIND_S * 1000

    def _tell(self, kind: Literal["alert", "growth", "end"], cause: Cause, now_ms: int) -> Telling:
        cause.tellings += 1
        cause.told_count, cause.told_ms = cause.count, now_ms
        self.changed[cause.id] = cause
        return Telling(kind, replace(cause), cause.tellings)

    def _close(self, cause: Cause) -> None:
        del self._open[cause.key]
        self.changed[cause.id] = None
        self._count(cause.key, -1)

    def _count(self, key: Key, number: int) -> None:
        for kind in (key[:2], key[:3]):
            self._numbers[kind] += number
            if not self._numbers[kind]:
                del self._numbers[kind]

    def _key(self, event: Event) -> Key:
        """The cause that an event belongs to; one for many where there are too many."""
        key = key_of(event)
        if key in self._open:
            return key
        if self._numbers[key[:3]] >= CAUSES_PER_KIND_MAX:
            key = (*key[:3], MANY)
        if key not in self._open and self._numbers[key[:2]] >= CAUSES_PER_ORGANIZATION_MAX:
            key = (*key[:2], MANY, MANY)
        if key not in self._open and len(self._open) >= CAUSES_MAX:
            key = (MANY, key[0], MANY)
        return key


def key_of(event: Event) -> Key:
    """What an event is grouped by."""
    if event.rule_id:
        return event.severity, event.organization, f"rule {event.rule_id}", f"by {event.actor_id or event.ip or event.resource}"
    what = f"{event.action} {event.outcome}"
    if event.is_login and event.outcome == "failure" and event.ip:
        return event.severity, event.organization, what, f"from {event.ip}"
    return event.severity, event.organization, what, f"by {event.actor_id or event.ip}"


def is_anybodys(cause: Cause) -> bool:
    """Whether a cause stands for many organisations."""
    return cause.key[0] == MANY


def is_many(cause: Cause) -> bool:
    """Whether a cause stands for many actors or addresses."""
    return cause.key[-1] == MANY


def _id(key: Key, event: Event) -> str:
    """A cause's id, which its first event gives it: 32 hexadecimal digits."""
    text = "\0".join((*key, event.id)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, person=b"auditship-cause").hexdigest()
