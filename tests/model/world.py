"""The whole pipeline in one thread: gateways, the real agent on a machine in memory, an indexer and a store that rolls over.

Everything happens as it is told to, a step at a time, so that a seed, or a shrunk example, repeats it. :meth:`World.check`
holds what is stored against what was written.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field

import zstandard
from cluster import Cluster
from machine import LOGS, STATE, Inode, Machine

from agent.block import Block
from agent.catalogue import Catalogue
from agent.checkpoint import LIVE, Checkpoint, Damaged, Loaded, parse
from agent.discover import Discovery
from agent.keeper import Save, saved
from agent.reader import Message, Reader
from agent.report import Report
from agent.settings import AgentSettings
from agent.ship import Outcome, Verdict
from agent.tail import Tail
from auditship.block import Receipt, digest, first_line_digest
from indexer.store.contract import Unavailable

logging.getLogger("auditship.agent").setLevel(logging.CRITICAL)
SETTINGS = AgentSettings.model_validate(
    {
        "state_dir": STATE,
        "indexer": {"urls": ["http://127.0.0.1:1"]},
        "watch": [{"gateway": "web", "paths": [f"{LOGS}/*.log*"]}],
        "block_bytes_max": 4096,
        "line_bytes_max": 1024,
        "window_bytes": 65536,
        "flush_interval_s": 0.05,
        "release_after_s": 1.0,
        "scan_interval_s": 0.5,
        "open_files_max": 16,
        "retry_interval_max_s": 0.5,
        "refused_interval_s": 0.2,
    }
)
HEADER = b'{"the same":"first line in many files"}\n'


class Gaps(Report):
    """Remembers what was reported as a gap."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, int, int | None]] = []

    def gap(self, path: str, stream: str, start: int, end: int | None, reason: str) -> None:
        super().gap(path, stream, start, end, reason)
        self.told.append((path, stream, start, end))


class Keeper:
    """Takes saves; the world does them when it likes."""

    def __init__(self) -> None:
        self.jobs: deque[Save] = deque()

    def save(self, save: Save) -> None:
        assert not self.jobs, "a save was handed over before the one before was answered"
        self.jobs.append(save)


class Inbox:
    """The reader's messages; an empty one lets time pass."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._messages: deque[Message] = deque()

    def put(self, message: Message) -> None:
        self._messages.append(message)

    def get(self, timeout: float = 0.0) -> Message:
        if not self._messages:
            self._world.pass_time(timeout)
            raise queue.Empty
        return self._messages.popleft()

    def get_nowait(self) -> Message:
        if not self._messages:
            raise queue.Empty
        return self._messages.popleft()


@dataclass
class Life:
    """What one file held from its first byte to its truncation or deletion."""

    names: set[str]
    """Every name that the file has had, also later."""
    inode: int
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    size: int = 0
    known: int = 0
    """How much of it the agent has seen, in this run, or durably in the one before."""
    gone_known: int | None = None
    """Where it is gone: how much the agent knew of then."""


class World:
    """Everything. ``chance`` decides what the machine and the network do."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.machine = Machine(chance)
        self.machine.race = self._race
        self.time_s = 1000.0
        self.written: Counter[bytes] = Counter()
        self.lives: list[Life] = []
        self.of: dict[int, Life] = {}
        """Which life an inode's content is, by the inode's identity."""
        self.number = 0
        self.cluster = Cluster(chance)
        self.gaps: list[tuple[str, str, int, int | None]] = []
        self.fired: Counter[str] = Counter()
        self.start_agent()

    # The agent

    def start_agent(self) -> None:
        """A new process on the state directory."""
        machine = self.machine
        self.outbox: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self.inbox = Inbox(self)
        self.keeper = Keeper()
        self.report = Gaps()
        self.checkpoint = Checkpoint(machine, STATE)
        failing, machine.failing = machine.failing, 0.0
        loaded = self.loaded = self.checkpoint.load() or Loaded([], SETTINGS.window_bytes, "missing")
        machine.failing = failing
        tail = Tail(machine, SETTINGS, "gw-1", lambda: machine.now_ns() // 1_000_000)
        self.reader = Reader(
            SETTINGS,
            system=machine,
            catalogue=Catalogue(machine, "gw-1", tail=tail, loaded=loaded, report=self.report),
            discovery=Discovery(machine, SETTINGS.watch),
            tail=tail,
            keeper=self.keeper,  # type: ignore[arg-type]
            report=self.report,
            inbox=self.inbox,  # type: ignore[arg-type]
            outbox=self.outbox,
            clock=lambda: self.time_s,
            chance=self.chance,
            watch=lambda directories: None,
            open_files_max=6,
            once=False,
        )
        self.under_way: list[Block] = []

    def pass_time(self, seconds: float) -> None:
        """Time passes: for the agent's clock and the machine's."""
        self.time_s += seconds
        self.machine.clock_ns += int(seconds * 1e9)

    def turn(self) -> None:
        """The reader's next turn."""
        self.reader.turn()
        while not self.outbox.empty():
            block = self.outbox.get()
            assert block is not None
            self.under_way.append(block)
        for stream in self.reader.streams():
            inode = self.machine._inodes.get(stream.identity.inode)
            if inode is not None and id(inode) in self.of and stream.file is not None:
                life = self.of[id(inode)]
                life.known = max(life.known, min(stream.peak, life.size))

    def keep(self) -> None:
        """The keeper's next save."""
        if self.keeper.jobs:
            outcome = saved(self.checkpoint, self.keeper.jobs.popleft(), SETTINGS.window_bytes)
            self.inbox.put(outcome._replace(took_s=0.001))

    def kill_agent(self, *, tears: bool = False) -> None:
        """kill -9, perhaps in the middle of a save."""
        if self.keeper.jobs and self.chance.random() < 0.5:
            failing, self.machine.failing = self.machine.failing, 0.3  # dies at a call, which is no worse than the call failing
            saved(self.checkpoint, self.keeper.jobs.popleft(), SETTINGS.window_bytes)
            self.machine.failing = failing
        self.machine.close_all()
        if tears:
            self._tear()
        self._agent_is_gone()

    def tear_checkpoint(self) -> None:
        """kill -9, and the newest checkpoint is torn, as a disk leaves it that does not sync; the one before is whole."""
        self.kill_agent(tears=True)

    def _tear(self) -> None:
        newest, before = (self.machine.names.get(f"{STATE}/{name}") for name in ("checkpoint", "checkpoint.previous"))
        with suppress(Damaged):
            if newest is not None and before not in (None, newest) and not parse(bytes(before.data), "").problem:
                self.fired["torn checkpoint"] += 1
                self.machine.tear(newest, self.chance.randrange(len(newest.data) + 1))

    def replace(self, name: str) -> None:
        """While the agent is down a file is deleted, and another takes its place, and its inode if nothing else holds that."""
        self.kill_agent()
        self.delete(name)
        self.write(name, self.chance.randint(1, 12), header=self.chance.random() < 0.5)

    def lose_power(self) -> None:
        """The machine dies, and the agent with it."""
        if self.keeper.jobs and self.chance.random() < 0.5:
            saved(self.checkpoint, self.keeper.jobs.popleft(), SETTINGS.window_bytes)
        self.machine.lose_power()
        self._agent_is_gone()

    def _agent_is_gone(self) -> None:
        """Blocks on their way may still be stored; what the agent knew is what it kept durably."""
        self.gaps += self.report.told
        for block in self.under_way:
            if self.chance.random() < 0.5:
                with suppress(Unavailable):
                    self.store(block)
        self.start_agent()
        for life in self.lives:
            durable = [
                record.size
                for record in self.loaded.records
                if life.lines and record.identity.inode == life.inode and record.state == LIVE
                if record.identity.first_line.digest == first_line_digest(life.lines[0][1])
                and os.fsdecode(record.path) in life.names
            ]
            life.known = min(life.known, max(durable, default=0))
            if life.gone_known is not None:
                life.gone_known = min(life.gone_known, life.known)

    # The network and the store

    def store(self, block: Block) -> Receipt:
        """What an indexer does with a block: each line once, as far as it can know.

        Raises:
            Unavailable: not all of it could be stored.
        """
        data = zstandard.decompress(block.body)
        assert digest(data) == block.header.digest
        return self.cluster.store(block.header, data)

    def answer(self, at: int, what: str) -> None:
        """One of the blocks under way has its answer."""
        if not self.under_way:
            return
        block = self.under_way.pop(at % len(self.under_way))
        if what in ("stored", "lost answer"):
            try:
                receipt = self.store(block)
            except Unavailable:
                what = "busy"
            if what == "stored":
                self.inbox.put(Outcome(block, Verdict.STORED, receipt=receipt))
                return
        verdicts = {"busy": Verdict.BUSY, "refused": Verdict.REFUSED, "too large": Verdict.TOO_LARGE}
        if what == "too large" and block.header.length <= 2048:
            what = "busy"
        self.inbox.put(Outcome(block, verdicts.get(what, Verdict.UNKNOWN), "so it is"))

    def roll_over(self) -> None:
        """A new backing index: it would take a second document of an id."""
        self.cluster.roll_over()

    # Gateways

    def write(self, name: str, count: int, *, header: bool = False) -> None:
        """Appends whole lines to a log file, which is made if it is not there."""
        inode = self._log(name)
        if header and not inode.data:
            self._append(inode, HEADER)
        for _ in range(count):
            self.number += 1
            padding = b"x" * self.chance.choice((0, 10, 100, 700))
            self._append(inode, b'{"n":%d,"padding":"%s"}\n' % (self.number, padding))

    def _log(self, name: str) -> Inode:
        path = f"{LOGS}/{name}"
        inode = self.machine.names.get(path)
        if inode is None:
            inode = self.machine.make(path)
            self._begin(inode, path)
        return inode

    def _begin(self, inode: Inode, path: str) -> None:
        before = self.of.get(id(inode))
        life = self.of[id(inode)] = Life(before.names if before else {path}, inode.number)
        self.lives.append(life)
        self._held = getattr(self, "_held", [])
        self._held.append(inode)  # so that no other object gets its id

    def _append(self, inode: Inode, line: bytes) -> None:
        life = self.of[id(inode)]
        life.lines.append((life.size, line))
        life.size += len(line)
        self.written[line] += 1
        inode.data += line
        inode.changed_ns = self.machine.tick()

    def rotate(self, name: str) -> None:
        """Renames name → name.1 → name.2, which loses its name."""
        for old, new in ((f"{name}.1", f"{name}.2"), (name, f"{name}.1")):
            source, target = f"{LOGS}/{old}", f"{LOGS}/{new}"
            inode = self.machine.names.get(source)
            if inode is None:
                continue
            self._loses_name(target)
            self.machine.link(target, inode)
            self.machine.link(source, None)
            self.of[id(inode)].names.add(target)

    def _race(self) -> None:
        """A file gets another name while the agent looks."""
        self.fired["race"] += 1
        self.rotate(self.chance.choice(("a.log", "b.log", "c.log")))

    def delete(self, name: str) -> None:
        """Removes a file."""
        path = f"{LOGS}/{name}"
        if path in self.machine.names:
            self._loses_name(path)
            self.machine.link(path, None)

    def _loses_name(self, path: str) -> None:
        inode = self.machine.names.get(path)
        if inode is not None:
            life = self.of[id(inode)]
            life.gone_known = life.known

    def truncate(self, name: str) -> None:
        """Cuts a file to nothing, as copytruncate does."""
        path = f"{LOGS}/{name}"
        inode = self.machine.names.get(path)
        if inode is not None and inode.data:
            self.of[id(inode)].gone_known = self.of[id(inode)].known
            inode.data.clear()
            inode.changed_ns = self.machine.tick()
            self._begin(inode, path)

    # The end

    def heal(self) -> None:
        """Nothing fails any more, until the agent has nothing left to do."""
        self.machine.failing, self.machine.race, self.cluster.failing = 0.0, None, 0.0
        quiet = 0
        for _ in range(20_000):
            self.turn()
            self.keep()
            while self.under_way:
                self.answer(0, "stored")
            streams = self.reader.streams()
            is_busy = any(stream.lag_bytes > 0 or stream.outstanding for stream in streams)
            quiet = 0 if is_busy or self.keeper.jobs else quiet + 1
            if quiet > 60:
                break
        else:
            raise AssertionError([(stream.path, stream.lag_bytes, stream.outstanding) for stream in streams])
        self.gaps += self.report.told
        self.report.told = []

    def check(self) -> None:
        """Nothing twice, nothing that was not written, and whatever is missing was told."""
        self.check_stored()
        missing = self.written - self.cluster.stored
        for life in self.lives:
            for offset, line in life.lines:
                if not missing[line] or line == HEADER:
                    continue  # which of several equal lines is missing cannot be told
                missing[line] -= 1
                assert life.gone_known is not None, (
                    f"lost, though it can still be read: {line[:60]!r} at {offset} of {life.names}"
                )
                if life.lines[0][1] == HEADER and self._is_reused(life):
                    continue  # an equal first line in the same inode: nobody could tell after a restart
                end = offset + len(line)
                assert end > life.gone_known or self._is_told(life, offset, end), (
                    f"lost, known, and not told: {line[:60]!r} at {offset} of {life.names}; told: {self.gaps}"
                )

    def _is_reused(self, life: Life) -> bool:
        others = [each for each in self.lives if each is not life and each.inode == life.inode and each.lines]
        return any(each.lines[0][1] == HEADER for each in others)

    def check_stored(self) -> None:
        """What holds at every moment."""
        too_many = self.cluster.stored - self.written
        assert not too_many, f"stored and not written, or stored twice: {dict(too_many)}"

    def _is_told(self, life: Life, start: int, end: int) -> bool:
        """Whether gaps cover these bytes, under any name of the file, or of one that has its inode by now."""
        names = set().union(*(each.names for each in self.lives if each.inode == life.inode))
        gaps = [gap for gap in self.gaps if gap[0] in names]
        return any(_covers([gap for gap in gaps if gap[1] == stream], start, end) for stream in {gap[1] for gap in gaps})

    def summary(self) -> tuple[object, ...]:
        """What came of it all."""
        return self.written.total(), self.cluster.stored, self.gaps, self.fired, self.machine.failed


def _covers(gaps: list[tuple[str, str, int, int | None]], start: int, end: int) -> bool:
    """Whether the gaps of one stream cover these bytes together."""
    for first, last in sorted((first, math.inf if last is None else last) for _, _, first, last in gaps):
        if first <= start < last:
            start = last  # what follows may be another gap's
    return start >= end
