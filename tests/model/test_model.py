"""Whatever happens, in whatever order: nothing lost in silence, nothing stored twice, nothing stored that was not written."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

sys.path.insert(0, str(Path(__file__).parent))

from machine import LOGS
from simulation import ANSWERS, NAMES, run
from world import World

FIXED = range(1000)
FRESH = 1000
FAULTS = (
    "kill_agent", "lose_power", "truncate", "delete", "replace", "rotate", "failed call", "torn checkpoint",
    "an item that is not taken", "a bulk without an answer", "a rollover between attempts",
)  # fmt: skip


def test_fixed_seeds_hold() -> None:
    fired = sum((run(seed).fired for seed in FIXED), start=run(0).fired)
    assert min(fired[what] for what in FAULTS) > 100


def test_fresh_seeds_hold() -> None:
    first = random.SystemRandom().randrange(10**9)
    print(f"seeds from {first}")
    for seed in range(first, first + FRESH):
        run(seed)


@pytest.mark.parametrize("after", [b"", b'{"n":-1}\n'])
def test_a_file_that_is_cut_off_after_it_has_lost_its_name_ends_nothing(after: bytes) -> None:
    world = World(random.Random(1))
    world.write("a.log", 3)
    world.heal()
    path = f"{LOGS}/a.log"
    inode = world.machine.names[path]
    world.machine.link(path, None)
    world.pass_time(5)
    world.turn()
    inode.data[:] = after
    world.pass_time(5)
    world.write("b.log", 3)
    world.heal()
    assert world.cluster.stored[after] == bool(after)


def test_what_it_takes_to_meet_new_files_does_not_put_off_the_next_look() -> None:
    world = World(random.Random(1))
    open_log = world.machine.open_log

    def slowly(path: str) -> int:
        world.pass_time(1)
        return open_log(path)

    names = [f"{number}.log" for number in range(8)]
    for name in names:
        world.write(name, 1)
    world.machine.open_log = slowly  # type: ignore[method-assign]
    world.heal()
    world.machine.open_log = open_log  # type: ignore[method-assign]
    assert sum(stream.file is None for stream in world.reader.streams()) >= 2, "there are more files than may be open"
    for name in names:
        world.write(name, 1)
    world.heal()
    assert world.cluster.stored == world.written


def test_a_seed_repeats_itself() -> None:
    assert run(7).summary() == run(7).summary()


class Pipeline(RuleBasedStateMachine):
    """The same world, driven by Hypothesis, which prints the shortest program that breaks it."""

    world: World

    @initialize(seed=st.integers(0, 1000), calls=st.sampled_from([0.0, 0.0, 0.05]), items=st.sampled_from([0.0, 0.0, 0.3]))
    def begin(self, seed: int, calls: float, items: float) -> None:
        self.world = World(random.Random(seed))
        self.world.machine.failing, self.world.cluster.failing = calls, items

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.world.turn()

    @rule()
    def keep(self) -> None:
        self.world.keep()

    @rule(at=st.integers(0, 7), what=st.sampled_from(ANSWERS))
    def answer(self, at: int, what: str) -> None:
        self.world.answer(at, what)

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 12), header=st.booleans())
    def write(self, name: str, count: int, header: bool) -> None:
        self.world.write(name, count, header=header)

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["rotate", "truncate", "delete", "replace"]))
    def lose_sight(self, name: str, what: str) -> None:
        getattr(self.world, what)(name)

    @rule(what=st.sampled_from(["kill_agent", "tear_checkpoint", "lose_power", "roll_over"]))
    def fault(self, what: str) -> None:
        getattr(self.world, what)()

    @rule(days=st.sampled_from([-1, 1]))
    def set_clock(self, days: int) -> None:
        self.world.machine.clock_ns += days * 86_400_000_000_000

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if hasattr(self, "world"):
            self.world.check_stored()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.heal()
            self.world.check()


TestPipeline = pytest.mark.timeout(300)(Pipeline.TestCase)
TestPipeline.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
