"""Where people usually are, as one worker knows it: asks the store, and remembers. :mod:`indexer.watch` judges with it.

The store is asked in a thread, about many people at once, and answers in its own time: who waits for it does so for a few
seconds at most, and what comes later is remembered. A store that cannot answer stops nothing: it is told in the log and
left in peace for a while. Bounded: in actors, in time, in questions under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from indexer.enrich.habits import DAY_MS, Habit, Known, WarmUp
from indexer.enrich.journey import learn
from indexer.store.contract import PEOPLE_MAX, Person, Reader, Sightings

ACTORS_MAX: Final = 20_000
"""Actors remembered: some 2 KB each."""
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
_log = logging.getLogger("auditship.indexer")


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
