"""Judges where a block's events come from.

Events are judged as they are built (:meth:`Watch.judge`). Those of actors that nothing is known of, or not freshly enough, wait
(:class:`Unread`) until :meth:`Watch.read` has asked the store **once for all of them**; most blocks ask nothing. Only when a
block is stored does the worker remember what it saw in it, so that a block which has to come again is judged again as if it
came first.

Every finding that matters is made on knowledge at most some seconds old: before something is called new, or a long way away,
the store is asked again. So workers that see the same actor find the same, but for what several of them see within that time:
that, each of them tells. Events of whom the store cannot tell are tagged ``location_unchecked``, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from indexer.enrich.habits import DAY_MS, UNCHECKED, Finding, Habit, Known, Origin
from indexer.enrich.journey import GAP_MS
from indexer.store.contract import Person
from indexer.store.fields import VALUE_MAX
from indexer.whereabouts import AHEAD_MS, Whereabouts

KEEP_MS: Final = 3_600_000
"""After this an actor's past is read again, since the window has moved on."""
FRESH_MS: Final = 2000
"""Within this it is fresh enough to call something new."""
FAILED_FRESH_MS: Final = 60_000
"""The same for what failed: whoever tries many passwords from far away must not make each block a question."""
SKEW_MS: Final = 60_000
"""Clocks may be so much ahead without regard; what is further ahead counts as so much."""
_UNCHECKED: Final = Finding((UNCHECKED,))
_NOBODY: Final = Habit(0, Known({}), Known({}), [])
"""Stands for the habit of an actor whose past cannot be told."""


class Unread(Exception):  # noqa: N818 - a state of the event, not a defect
    """The event's actor has to be looked up first: build it again after :meth:`Watch.read`."""


class Watch:
    """The judge of one block's events; learns from each as it goes.

    What it only reads are the worker's own habits. One that a block changes is changed in a copy, which the worker takes over
    when the block is stored; but that somebody is still where they were is noted at once.
    """

    def __init__(self, whereabouts: Whereabouts, now_ms: int) -> None:
        self._whereabouts = whereabouts
        self._rule = whereabouts.rule
        self._now_ms = now_ms
        self._latest_ms = now_ms + SKEW_MS
        self._since_ms = now_ms - self._rule.window_days * DAY_MS
        self._habits: dict[Person, Habit] = {}
        self._changed: set[Person] = set()
        self._unread: dict[Person, Habit | None] = {}
        """Who has to be looked up, with what this block taught of them so far."""
        self._is_read = False
        self._tags: Counter[str] = Counter()

    def unusual(
        self, people: Sequence[Person | None], origins: Sequence[Origin | None], times: Sequence[int], statuses: Sequence[str]
    ) -> Iterator[tuple[int, Finding | None]]:
        """Which of some events, by their places, are unusual, and what about them; nothing: the store has to be asked first.

        ``origins``: of a person's event, if anything is known of it. Each event is judged when it is its turn.
        """
        known, latest_ms = self._habits.get, self._latest_ms
        for at, (person, origin, time_ms, status) in enumerate(zip(people, origins, times, statuses, strict=True)):
            if origin is None or person is None:
                continue
            habit = known(person)
            if habit is not None and origin is habit.usual and habit.usual_ms <= time_ms <= latest_ms:  # most events by far
                stay = habit.trail[-1]
                if time_ms <= stay.last_ms or status != "success":
                    continue
                if time_ms <= stay.last_ms + GAP_MS:
                    stay.last_ms = time_ms
                    continue
            try:
                finding = self.judge(person, origin, time_ms, succeeded=status == "success")
            except Unread:
                yield at, None
            else:
                if finding is not None:
                    yield at, finding

    def judge(self, person: Person, origin: Origin, time_ms: int, *, succeeded: bool) -> Finding | None:
        """What is unusual about an event of a person, if anything is.

        Raises:
            Unread: the store has to be asked first.
        """
        habit = self._habits.get(person)
        if habit is None:
            habit = self._begin(person)
        if time_ms <= self._latest_ms and habit.is_usual(origin, time_ms, succeeded):
            return None
        return self._decide(person, habit, origin, time_ms, succeeded=succeeded)

    async def read(self) -> None:
        """Asks the store for whom it has to be asked; no event is :class:`Unread` after that."""
        found = await self._whereabouts.look_up(list(self._unread))
        for person, learnt in self._unread.items():
            habit = found.get(person, _NOBODY)
            self._habits[person] = habit if habit is _NOBODY or learnt is None else habit.merged(learnt, self._since_ms)
        self._is_read = True

    def learn(self) -> None:
        """The block is stored: the worker remembers what it saw in it."""
        for person in self._changed:
            habit, known = self._habits[person], self._whereabouts.get(person)
            if habit is not _NOBODY:
                self._whereabouts.put(person, habit if known is None else known.merged(habit, self._since_ms))
        if self._tags and self._whereabouts.count:
            self._whereabouts.count(self._tags)

    def _begin(self, person: Person) -> Habit:
        """An actor's habit, at the first of their events."""
        if len(person[0]) > VALUE_MAX or len(person[1]) > VALUE_MAX or self._is_read:
            self._habits[person] = _NOBODY  # no store finds so long an id
            return _NOBODY
        if person in self._unread:
            raise Unread
        habit = self._whereabouts.get(person)
        if habit is None or habit.read_ms < self._now_ms - KEEP_MS:
            self._unread[person] = None
            raise Unread
        self._habits[person] = habit
        return habit

    def _decide(self, person: Person, habit: Habit, origin: Origin, time_ms: int, *, succeeded: bool) -> Finding | None:
        """The long way: something may be new, or far."""
        if habit is _NOBODY:
            self._tags[UNCHECKED] += 1
            return _UNCHECKED
        makes_habit = succeeded and time_ms < self._now_ms + AHEAD_MS
        time_ms = min(time_ms, self._latest_ms)
        if time_ms < self._since_ms:
            return None  # the past that it would be compared with is not kept
        is_stale = not self._is_read and habit.read_ms < self._now_ms - (FRESH_MS if succeeded else FAILED_FRESH_MS)
        if is_stale and habit.is_open(origin, time_ms, succeeded=succeeded):
            self._unread[person] = self._habits.pop(person)
            raise Unread
        finding = habit.finding(origin, time_ms, self._rule, succeeded=succeeded)
        if makes_habit:
            if person not in self._changed:
                self._changed.add(person)
                habit = self._habits[person] = habit.copy()
            habit.learn(origin, time_ms)
        if finding is not None:
            self._tags.update(finding.tags)
        return finding
