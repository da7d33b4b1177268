"""Whatever happens, in whatever order: nothing lost in silence, nothing stored twice, nothing stored that was not written."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

sys.path.insert(0, str(Path(__file__).parent))

from machine import LOGS
from simulation import ANSWERS, NAMES, run
from world import SETTINGS, World

from agent.checkpoint import parse
from agent.run import Agent
from agent.ship import Outcome, Verdict

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


@pytest.mark.parametrize("answer", ["too large", "refused"])
def test_a_file_that_is_truncated_while_its_stream_is_to_be_read_again_loses_nothing_that_was_read(answer: str) -> None:
    world = World(random.Random(1))
    world.write("a.log", 80)
    while len(world.under_way) < 2:
        world.turn()
        world.keep()
    world.answer(0, answer)
    world.turn()
    (stream,) = world.reader.streams()
    assert stream.rewinding, "the other block has no answer yet"
    world.truncate("a.log")
    world.turn()
    world.pass_time(1)
    world.write("a.log", 3)
    world.heal()
    world.check()
    assert not world.reader._catalogue.superseded
    assert not [gap for gap in world.gaps if "read before" in str(gap)]


@pytest.mark.parametrize("verdict", [Verdict.MALFORMED, Verdict.TOO_LARGE])
def test_what_is_never_taken_and_cannot_be_read_again_is_a_gap_told_once(verdict: Verdict) -> None:
    world = World(random.Random(1))
    world.write("a.log", 80)
    while len(world.under_way) < 2:
        world.turn()
        world.keep()
    world.truncate("a.log")
    world.turn()
    world.pass_time(1)
    world.turn()
    (stream,) = world.reader._catalogue.superseded
    size = stream.position.offset
    for _ in range(4):
        while world.under_way:
            world.inbox.put(Outcome(world.under_way.pop(), verdict, "never"))
        world.turn()
    assert not world.reader._catalogue.superseded
    told = sorted((start, end) for _, stream_id, start, end in world.report.told if stream_id == stream.id and start < size)
    assert told[0][0] == 0
    assert sum(end - start for start, end in told) == size, "each byte once"
    world.heal()


def test_half_a_line_in_a_file_that_left_the_globs_is_sent_as_all_there_is() -> None:
    world = World(random.Random(1))
    inode = world.machine.make(f"{LOGS}/a.log")
    inode.data[:] = b'{"half":1'
    world.turn()
    world.machine.link(f"{LOGS}/a.log", None)
    for _ in range(8):
        world.pass_time(1)
        world.turn()
        world.keep()
    (block,) = world.under_way
    assert block.header.unterminated
    assert zstandard.decompress(block.body) == b'{"half":1\n'
    assert not world.report.told


def test_half_a_line_that_was_sent_is_known_again_when_the_file_comes_back_whole() -> None:
    world = World(random.Random(1))
    inode = world.machine.make(f"{LOGS}/a.log")
    inode.data[:] = b'{"half":1'
    sent = []
    for turn in range(24):
        world.pass_time(1)
        world.turn()
        world.keep()
        sent += [(block.header.offset, block.header.length, block.header.stream) for block in world.under_way]
        world.answer(0, "stored")
        if turn == 0:
            world.machine.link("/away", inode)
            world.machine.link(f"{LOGS}/a.log", None)
        if turn == 14:
            inode.data += b',"rest":2}\n'
            world.machine.link(f"{LOGS}/a.log", inode)
    assert [each[:2] for each in sent] == [(0, 10), (9, 11)]
    assert len({stream for _, _, stream in sent}) == 1


def test_a_slow_disk_does_not_put_off_the_next_look_and_work_does() -> None:
    world = World(random.Random(1))
    machine, real = world.machine, world.machine.entries
    for is_work, longest in ((False, 31.0), (True, 700.0)):
        worked = machine.work_s()

        def slowly(directory: str) -> Iterator[Any]:
            world.pass_time(30)
            return real(directory)

        world.write(f"{is_work}.log", 1)  # what has changed is listed again
        machine.entries = slowly  # type: ignore[method-assign]
        machine.work_s = (lambda: machine.clock_ns / 1e9) if is_work else lambda worked=worked: worked  # type: ignore[assignment, misc]
        world.pass_time(40)
        world.turn()
        machine.entries = real  # type: ignore[method-assign]
        wait_s = world.reader._scan_at - world.time_s
        assert (100 if is_work else 29) < wait_s <= longest, "half of the time is for other things"


def test_a_smaller_window_does_not_forget_what_a_larger_one_may_have_sent(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    settings = SETTINGS.model_copy(update={"state_dir": tmp_path / "state", "window_bytes": 1 << 20})
    checkpoint = tmp_path / "state" / "checkpoint"
    for window in (1 << 20, 65536):
        agent = Agent(settings.model_copy(update={"window_bytes": window}), once=True)
        agent.run()
        assert parse(checkpoint.read_bytes(), "checkpoint").window_bytes == 1 << 20
        os.close(agent._lock)


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
