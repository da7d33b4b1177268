"""Where people usually are, as one worker knows it: asks the store, remembers, and judges the events of each block.

A block's events are judged as they are built (:meth:`Watch.judge`). Those of actors that nothing is known of, or not freshly
enough, wait (:class:`Unread`) until :meth:`Watch.read` has asked the store **once for all of them**, in a thread; most blocks
ask nothing. Only when a block is stored does the worker remember what it saw in it, so that a block which has to come again is
judged again as if it came first.

Every finding that matters is made on knowledge at most some seconds old: before something is called new, or a long way away,
the store is asked again. So workers that see the same actor find the same, but for what several of them see within that time:
that, each of them tells.

A store that cannot answer stops nothing: the events are tagged ``location_unchecked``, counted, and it is left in peace for a
while. Bounded: in actors, in time, in questions under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from indexer.enrich.habits import DAY_MS, UNCHECKED, Finding, Habit, Known, Origin, WarmUp
from indexer.enrich.journey import GAP_MS, learn
from indexer.store.contract import PEOPLE_MAX, Person, Reader, Sightings
from indexer.store.fields import VALUE_MAX

ACTORS_MAX: Final = 20_000
"""Actors remembered: some 1 KB each."""
KEEP_MS: Final = 3_600_000
"""After this an actor's past is read again, since the window has moved on."""
FRESH_MS: Final = 2000
"""Within this it is fresh enough to call something new."""
SKEW_MS: Final = 60_000
"""Clocks may be so much ahead without regard; what is further ahead counts as so much."""
AHEAD_MS: Final = DAY_MS
"""Events of clocks that are further ahead are judged, but make no habit."""
LOOK_UP_TIMEOUT_S: Final = 10.0
"""How long the store may take for a question; a block waits less for it."""
WAIT_S: Final = 3.0
PAUSE_S: Final = 10.0
"""How long a store that could not answer is not asked again."""
LOOK_UPS_MAX: Final = 256
"""Questions under way or waiting; a block beyond them is not checked."""
THREADS: Final = 2
_UNCHECKED: Final = Finding((UNCHECKED,))
_NOBODY: Final = Habit(0, Known({}), Known({}), [])
"""Stands for the habit of an actor whose past cannot be told."""
_log = logging.getLogger("auditship.indexer")


class Unread(Exception):  # noqa: N818 - a state of the event, not a defect
    """The event's actor has to be looked up first: build it again after :meth:`Watch.read`."""


class Whereabouts:
    """One worker's knowledge.

    Args:
        reader: the store.
        rule: the window, and the past that an actor needs.
        relays: AS numbers of networks that do not tell where somebody is.
        clock: the wall clock, epoch milliseconds.
        count: told, for each block that is stored, how many events have which tag.
        wait_s: how long a block waits for the store.
    """

    def __init__(
        self,
        reader: Reader,
        rule: WarmUp,
        relays: frozenset[int],
        *,
        clock: Callable[[], int],
        count: Callable[[Mapping[str, int]], None] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        self._reader = reader
        self.rule = rule
        self._relays = relays
        self._clock = clock
        self.count = count
        self._wait_s = wait_s
        self._habits: OrderedDict[Person, Habit] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="whereabouts")
        self._turns = asyncio.Semaphore(THREADS)
        self._under_way: set[asyncio.Task[None]] = set()
        self._paused_until_s = 0.0

    def watch(self, now_ms: int) -> Watch:
        """Judges one block, which came at that time."""
        return Watch(self, now_ms)

    def get(self, person: Person) -> Habit | None:
        """What is remembered; not to be changed."""
        habit = self._habits.get(person)
        if habit is not None:
            self._habits.move_to_end(person)
        return habit

    def put(self, person: Person, habit: Habit) -> None:
        """Remembers; who was not seen for longest makes room."""
        self._habits[person] = habit
        self._habits.move_to_end(person)
        if len(self._habits) > ACTORS_MAX:
            self._habits.popitem(last=False)

    async def look_up(self, people: Sequence[Person]) -> Mapping[Person, Habit]:
        """Their habits as the store has them now; without those that it could not tell in time. Never raises."""
        found: dict[Person, Habit] = {}
        if self._is_paused or len(self._under_way) >= LOOK_UPS_MAX:
            return found
        task = asyncio.get_running_loop().create_task(self._ask(people, found))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait({task}, timeout=self._wait_s)  # one that takes longer goes on, and is remembered
        return found

    async def close(self) -> None:
        """Asks nothing any more."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self._paused_until_s

    async def _ask(self, people: Sequence[Person], found: dict[Person, Habit]) -> None:
        """The habits of those people, a part at a time: to whoever waits for them, and into the memory."""
        for at in range(0, len(people), PEOPLE_MAX):
            part = people[at : at + PEOPLE_MAX]
            async with self._turns:
                if self._is_paused:
                    return
                now_ms = self._clock()
                since_ms = now_ms - self.rule.window_days * DAY_MS
                try:
                    answer = await self._answer(part, since_ms, now_ms + AHEAD_MS)
                except Exception as error:  # noqa: BLE001 - whatever it is, blocks go on
                    self._paused_until_s = asyncio.get_running_loop().time() + PAUSE_S
                    _log.warning("locations stay unchecked for %.0f s: %s", PAUSE_S, error)
                    return
            for person in part:
                habit, known = _habit(answer.get(person), now_ms), self.get(person)
                found[person] = habit if known is None else habit.merged(known, since_ms)
                self.put(person, found[person])

    async def _answer(self, people: Sequence[Person], since_ms: int, until_ms: int) -> dict[Person, Sightings]:
        """The store's, from a thread."""
        question = partial(
            self._reader.sightings,
            people,
            since_ms=since_ms,
            until_ms=until_ms,
            relays=self._relays,
            timeout_s=LOOK_UP_TIMEOUT_S,
        )
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)


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

    def judge(self, person: Person, origin: Origin, time_ms: int, *, succeeded: bool) -> Finding | None:
        """What is unusual about an event of a person, if anything is.

        Raises:
            Unread: the store has to be asked first.
        """
        habit = self._habits.get(person)
        if habit is None:
            habit = self._begin(person)
        if origin is habit.usual and habit.usual_ms <= time_ms <= self._latest_ms:  # most events by far
            stay = habit.trail[-1]
            if time_ms <= stay.last_ms or not succeeded:
                return None
            if time_ms <= stay.last_ms + GAP_MS:
                stay.last_ms = time_ms
                return None
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
        is_stale = not self._is_read and habit.read_ms < self._now_ms - FRESH_MS
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


def _habit(seen: Sightings | None, now_ms: int) -> Habit:
    """From what the store knows."""
    if seen is None:
        return Habit(now_ms, Known.of((), 0), Known.of((), 0), [])
    habit = Habit(now_ms, _known(seen.countries), _known(seen.networks), [])
    for each in seen.positions:
        learn(habit.trail, min(each.time_ms, now_ms), (each.latitude, each.longitude), each.city)
    return habit


def _known(seen: Mapping[str, tuple[int, int]] | Mapping[int, tuple[int, int]]) -> Known:
    return Known.of([(value, first) for value, (first, _) in seen.items()], sum(times for _, times in seen.values()))
