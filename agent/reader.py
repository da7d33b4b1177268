"""The reader: the one loop that owns every stream. It looks, reads, hands blocks out, and takes answers back.

Nothing else touches a stream, so nothing here is locked: shippers, the keeper of the checkpoint and the watch on directories
send messages. A turn is: take messages, look through the globs if it is time, look at busy files, send again what is due,
fill the window with new blocks, save the checkpoint if it is time.

What bounds it: blocks being sent (a window that shrinks when the indexer pushes back), compressed bytes held, each stream's
distance from its durable checkpoint. When one of these is full, files are simply not read: they are the buffer.

A stream with a block outstanding waits until there is a whole block more: a lone line leaves at once, a flood fills blocks.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import queue
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final, NamedTuple

from agent.block import Block
from agent.catalogue import Catalogue, Unborn
from agent.checkpoint import Record
from agent.discover import Discovery, Found
from agent.events import GATEWAY
from agent.keeper import Keeper, NotSaved, Saved
from agent.osio import System
from agent.records import Key
from agent.report import Report
from agent.settings import AgentSettings
from agent.ship import Outcome, Verdict
from agent.stream import Stream
from agent.tail import Changed, Gap, Tail

POLL_INTERVAL_MIN_S: Final = 0.002
BUSY_S: Final = 1.0
"""A file that grew so recently is looked at in every poll; the others only when polls have become slow."""
RETRY_INTERVAL_MIN_S: Final = 0.1
BLOCK_BYTES_MIN: Final = 1024
BEHIND_MAX: Final = 10
"""Streams that a heartbeat tells of: those farthest behind."""
ADDED_BYTES_MIN: Final = 256 * 1024
"""How much is added to a checkpoint before it is written anew, if it is not longer itself."""
FLUSH_COST_MAX: Final = 0.01
"""The share of time that saving the checkpoint may take while nothing waits for it."""
SCAN_COST_MAX: Final = 0.005
"""The share of time that regular looks through the globs may take: with very many files they become rarer."""
WOKEN_SCAN_COST_MAX: Final = 0.1
"""The same while directories change."""
SCAN_WAIT_S_MAX: Final = 600.0
"""How long the next look is put off for that, at most."""


class Looked(NamedTuple):
    """A message: directories have changed."""


class Stop(NamedTuple):
    """A message: end, with what is being sent."""


class Reload(NamedTuple):
    """A message: go on with these settings and globs."""

    settings: AgentSettings
    discovery: Discovery


Message = Outcome | Saved | NotSaved | Looked | Stop | Reload


class Reader:
    """The loop. :meth:`run` is a thread's whole work.

    Args:
        settings: limits and intervals.
        parts: what it works with: system, catalogue, discovery, tail, keeper, report.
        inbox: where messages come in.
        outbox: where blocks go out to the shippers.
        clock: monotonic seconds.
        chance: for jitter.
        watch: told the directories to be watched.
        open_files_max: how many files are held open at once.
        once: ends when everything that is there is acknowledged.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        system: System,
        catalogue: Catalogue,
        discovery: Discovery,
        tail: Tail,
        keeper: Keeper,
        report: Report,
        inbox: queue.SimpleQueue[Message],
        outbox: queue.SimpleQueue[Block | None],
        clock: Callable[[], float],
        chance: random.Random,
        watch: Callable[[set[str]], None],
        open_files_max: int,
        once: bool,
    ) -> None:
        self._settings = settings
        self._system = system
        self._catalogue = catalogue
        self._discovery = discovery
        self._tail = tail
        self._keeper = keeper
        self._report = report
        self._inbox = inbox
        self._outbox = outbox
        self._clock = clock
        self._chance = chance
        self._watch = watch
        self._open_files_max = open_files_max
        self._once = once

        self._ready: deque[Stream] = deque()
        self._busy: OrderedDict[Stream, None] = OrderedDict()
        """Open streams in the order in which they last grew."""
        self._again: list[tuple[float, int, Block | Stream]] = []
        """What is sent, or read, again, and when."""
        self._number = 0
        self._sending = 0
        self._window_max = settings.shippers + 2
        self._window = float(self._window_max)
        self._pause_until = 0.0
        """While the indexer is in trouble, only what it was sent already is sent again."""
        self._held_bytes = 0

        self._scan_at = 0.0
        self._scan_not_before = 0.0
        self._has_scanned = False
        self._poll_at = 0.0
        self._poll_interval_s = POLL_INTERVAL_MIN_S
        self._report_at = clock() + settings.report_interval_s
        self._is_saving = False
        self._is_changed = True
        self._is_urgent = True
        self._base_bytes = self._added_bytes = 0
        """Bytes of the last whole checkpoint, and of what was added to it."""
        self._is_whole_due = True
        self._flush_at = 0.0
        self._urgent_at = 0.0
        self._waiting: dict[Stream, None] = {}
        """Streams that may go no further before the checkpoint is durable."""

        self._stop_at: float | None = None
        self._moved_at = clock()
        self.is_complete = False
        """At the end: whether everything that is there was acknowledged (with ``once``)."""

    def run(self) -> None:
        """Goes on until it is told to stop, or, with ``once``, everything is done; the checkpoint is saved last."""
        try:
            if not self._once:
                self._report.event("start", {"type": "agent"})
            while not self._is_over():
                self.turn()
            self._save_last()
        finally:
            self._report.summary()
            self._catalogue.close_all()

    @property
    def left_bytes(self) -> int:
        """How much is known to be there and not acknowledged yet. For a progress bar; other threads may ask."""
        return sum(stream.lag_bytes for stream in self.streams())

    def streams(self) -> list[Stream]:
        """The live streams. Other threads may ask, and look."""
        return list(self._catalogue.streams.values())

    @property
    def has_scanned(self) -> bool:
        """Whether the globs have been looked through. Other threads may ask."""
        return self._has_scanned

    # The turn

    def turn(self) -> None:
        """One turn; :meth:`run` takes one after another."""
        now = self._clock()
        if self._stop_at is None:
            if now >= self._scan_at:
                self._scan(now)
            if now >= self._poll_at:
                self._poll(now)
        self._send_again(now)
        self._fill(now)
        self._save(now)
        if now >= self._report_at:
            self._beat(now)
            self._report_at = now + self._settings.report_interval_s
        self._take_messages(now)

    def _beat(self, now: float) -> None:
        """Says how far the agent is: in the log, and as a heartbeat in its own record."""
        self._report.summary()
        self._is_changed |= self._catalogue.records.is_changed
        if self._once:
            return
        streams = [stream for stream in self._catalogue.streams.values() if stream.gateway != GATEWAY]
        behind = sorted((stream for stream in streams if stream.lag_bytes), key=lambda stream: -stream.lag_bytes)
        self._report.event(
            "heartbeat",
            {"type": "agent"},
            interval_s=self._settings.report_interval_s,
            streams=len(streams),
            lag_bytes=sum(stream.lag_bytes for stream in behind),
            lag_s=round(max((now - stream.caught_up_at_s for stream in behind), default=0.0), 1),
            behind=[
                {
                    "path": stream.path.encode("utf-8", "backslashreplace").decode(),
                    "stream": stream.id,
                    "lag_bytes": stream.lag_bytes,
                    "lag_s": round(now - stream.caught_up_at_s, 1),
                }
                for stream in behind[:BEHIND_MAX]
            ],
            counts=asdict(self._report.counts),
        )

    def _take_messages(self, now: float) -> None:
        """Waits for messages until something else is due, and takes all there are."""
        due = [self._report_at] if self._stop_at is None else [self._stop_at]
        if self._stop_at is None:
            due += [self._scan_at, self._poll_at]
            if self._ready and now < self._pause_until:
                due.append(self._pause_until)
        if self._again and self._sending < int(self._window):
            due.append(self._again[0][0])
        if not self._is_saving and (self._is_changed or self._is_urgent):
            due.append(self._urgent_at if self._is_urgent else self._flush_at)
        try:
            message = self._inbox.get(timeout=max(0.0, min(due) - now))
            while True:
                self._take(message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _take(self, message: Message) -> None:
        now = self._clock()
        match message:
            case Outcome():
                self._take_outcome(message, now)
            case Saved():
                self._saved(message, now)
            case NotSaved():
                self._is_saving, self._is_changed, self._is_whole_due = False, True, True
                self._flush_at = self._urgent_at = now + self._settings.flush_interval_s
                self._report.trouble("checkpoint", message.reason)
            case Looked():
                self._scan_at = min(self._scan_at, max(now + POLL_INTERVAL_MIN_S, self._scan_not_before))
            case Reload():
                self._settings, self._discovery = message
                self._scan_at = 0.0
                self._report_at = min(self._report_at, now + self._settings.report_interval_s)
            case Stop():
                if self._stop_at is None:
                    self._stop(now)

    def _stop(self, now: float) -> None:
        """Reads no more; but that it has ended, and in order, is still told."""
        self._stop_at = now + self._settings.shutdown_timeout_s
        self._ready.clear()
        if not self._once:
            self._report.event("stop", {"type": "agent"})
            for stream in self._own_record():
                stream.is_ready = False
                self._look_at_open(stream, now)

    def _own_record(self) -> list[Stream]:
        return [stream for stream in self._catalogue.streams.values() if stream.gateway == GATEWAY and stream.listed]

    def _is_over(self) -> bool:
        if self._stop_at is not None:
            now = self._clock()
            is_told = now < self._pause_until or all(
                stream.lag_bytes <= 0 or stream.halted or stream.refused for stream in self._own_record()
            )
            return (not self._sending and is_told) or now >= self._stop_at
        if not self._once or not self._has_scanned or self._is_saving:
            return False
        if self._clock() - self._moved_at > self._settings.give_up_s:
            self._report.trouble("giving up", f"nothing was acknowledged for {self._settings.give_up_s:.0f} s")
            return True
        if self._ready or self._waiting or self._again:
            return False
        streams = [*self._catalogue.streams.values(), *self._catalogue.superseded]
        if any(stream.outstanding or stream.rewinding for stream in streams):
            return False
        self.is_complete = not (self._report.counts.halted or self._report.counts.unreadable)
        return True

    # Looking

    def _scan(self, now: float) -> None:
        """Looks through the globs: finds new files, and what has become of those known."""
        began_s = self._system.work_s()
        found, troubles = self._discovery.look()
        for trouble in troubles:
            self._report.trouble(trouble.path, trouble.reason)
        new_work_s, new_s = self._look_at_listed(found, now)
        hidden = tuple(trouble.path for trouble in troubles)
        self._report.counts.unreadable = len(self._catalogue.unreadable.union(hidden))
        for stream in [stream for key, stream in self._catalogue.streams.items() if key not in found]:
            if not stream.path.startswith(hidden):  # what could not be looked at is not gone
                self._look_at_unlisted(stream, now)
        for key, unborn in [(key, unborn) for key, unborn in self._catalogue.unborn.items() if key not in found]:
            if not unborn.found.path.startswith(hidden):
                self._look_at_unlisted_unborn(key, unborn, now)
        for record in self._catalogue.records.missing(found, hidden):
            self._tell_missing(record)
        if not troubles and self._catalogue.settle(found):
            self._is_whole_due = self._is_changed = True
        self._has_scanned = True
        self._watch(self._discovery.directories)
        ended, work_s = self._clock(), self._system.work_s() - began_s
        # a new file is new once: what it took says nothing of the next look; and a slow disk leaves others half of the time
        wait_s = min((work_s - new_work_s) / SCAN_COST_MAX, SCAN_WAIT_S_MAX)
        self._scan_at = ended + max(self._settings.scan_interval_s, wait_s, ended - now - new_s)
        self._scan_not_before = ended + max(min(work_s / WOKEN_SCAN_COST_MAX, SCAN_WAIT_S_MAX), ended - now)

    def _tell_missing(self, record: Record) -> None:
        """A file was there when the agent ended, and is not there any more."""
        path, start = os.fsdecode(record.path), record.mark.offset
        if record.size > start:
            stream = record.identity.stream(self._catalogue.agent)
            self._report.gap(path, stream, start, record.size, "deleted while nobody looked")
        else:
            self._report.trouble(path, f"gone while nobody looked; all that was seen of it, {start} bytes, had been shipped")

    def _look_at_listed(self, found: Mapping[tuple[int, int], Found], now: float) -> tuple[float, float]:
        """The files that the globs name; returns the seconds of work, and of time, that those took which are new."""
        new_work_s = new_s = 0.0
        self._catalogue.unreadable.clear()
        for key, each in found.items():
            if (stream := self._catalogue.streams.get(key)) is not None:
                self._look_at(stream, each, now)
            elif key in self._catalogue.unborn:
                unborn = self._catalogue.unborn[key]
                unborn.found, unborn.unlisted_at_s = each, None
            else:
                began_work_s, began = self._system.work_s(), self._clock()
                if (stream := self._catalogue.discover(each)) is not None:
                    self._born(stream, now)
                new_work_s += self._system.work_s() - began_work_s
                new_s += self._clock() - began
        return new_work_s, new_s

    def _look_at(self, stream: Stream, found: Found, now: float) -> None:
        if stream.path != found.path:
            stream.path = found.path
            self._catalogue.records.touch(stream)
        stream.gateway = found.gateway  # a reload may have named another
        stream.listed, stream.ending = True, False
        if (found.size, found.changed_ns) != (stream.size, stream.changed_ns):
            stream.changed_ns = found.changed_ns
            self._grew(stream, found.size, now)

    def _bear(self, unborn: Unborn, now: float, *, is_ended: bool = False) -> bool:
        """Whether a file without a first line has one now."""
        try:
            stream = self._catalogue.bear(unborn, is_ended=is_ended)
        except OSError as error:
            self._report.trouble(unborn.found.path, error.strerror or str(error))
            return False
        if stream is not None:
            self._born(stream, now)
        return stream is not None

    def _born(self, stream: Stream, now: float) -> None:
        """A stream is new here: the checkpoint has to name it before anything of it is sent."""
        self._is_changed = self._is_urgent = True
        self._grew(stream, stream.size, now)

    def _look_at_unlisted(self, stream: Stream, now: float) -> None:
        """A file that the globs no longer name: rotated away, or deleted. Read to its end, then let go."""
        if stream.listed:
            stream.listed, stream.unlisted_at_s = False, now
        if stream.file is None:
            if not stream.outstanding and not stream.rewinding:
                self._release(stream)
            return
        self._look_at_open(stream, now)
        if stream.superseded:  # cut off a moment ago: what its file holds now is looked at with the next scan
            return
        quiet_since = max(stream.unlisted_at_s, stream.grew_at_s)
        if now - quiet_since < self._settings.release_after_s and not self._once:
            return
        if stream.unread > 0 and not stream.ending:
            stream.ending = True
            self._make_ready(stream)
        elif stream.unread <= 0 and not stream.outstanding and not stream.rewinding:
            self._release(stream)

    def _look_at_unlisted_unborn(self, key: Key, unborn: Unborn, now: float) -> None:
        """The same of a file without a first line: whoever writes to it may still do, and then half a line is all there is."""
        if unborn.unlisted_at_s is None:
            unborn.unlisted_at_s = now
        is_ended = self._once or now - unborn.unlisted_at_s >= self._settings.release_after_s
        if not self._bear(unborn, now, is_ended=is_ended) and is_ended:
            self._catalogue.release_unborn(key)

    def _release(self, stream: Stream) -> None:
        self._busy.pop(stream, None)
        self._waiting.pop(stream, None)
        self._catalogue.release(stream)
        stream.released = True
        self._is_changed = True

    def _poll(self, now: float) -> None:
        """Looks at the files that grew last; quickly while they grow, more and more slowly while they do not."""
        is_slow = self._poll_interval_s >= self._settings.poll_interval_max_s
        looked: list[Stream] = []
        for stream in reversed(self._busy):
            if len(looked) >= self._settings.polled_files_max or not (is_slow or now - stream.grew_at_s < BUSY_S):
                break
            looked.append(stream)
        has_grown = False
        for stream in reversed(looked):
            has_grown |= self._look_at_open(stream, now)
        for unborn in list(self._catalogue.unborn.values()):
            has_grown |= self._has_grown(unborn) and self._bear(unborn, now)
        interval_s = POLL_INTERVAL_MIN_S if has_grown else self._poll_interval_s * 1.5
        self._poll_interval_s = min(interval_s, self._settings.poll_interval_max_s)
        self._poll_at = now + self._poll_interval_s

    def _has_grown(self, unborn: Unborn) -> bool:
        try:
            return self._system.fstat(unborn.file).st_size != unborn.size
        except OSError as error:
            self._report.trouble(unborn.found.path, error.strerror or str(error))
            return False

    def _look_at_open(self, stream: Stream, now: float) -> bool:
        """Whether an open file has another size than before."""
        if stream.file is None:
            return False
        try:
            size = self._system.fstat(stream.file).st_size
        except OSError as error:
            self._report.trouble(stream.path, error.strerror or str(error))
            self._catalogue.close(stream)
            return False
        if size != stream.size:
            self._grew(stream, size, now)
            return True
        return False

    def _grew(self, stream: Stream, size: int, now: float) -> None:
        """A file's size, or its time, is another than before."""
        if stream.file is not None and not self._is_whole(stream, size, now):
            return
        if stream.file is not None and now - stream.grew_at_s > BUSY_S and not self._catalogue.is_first_line_same(stream):
            self._supersede(stream, "overwritten", now)
            return
        if not stream.lag_bytes:
            stream.caught_up_at_s = now
        stream.saw(size)
        stream.grew_at_s = now
        self._catalogue.records.touch(stream)
        if stream.file is not None:
            self._is_open(stream)
        self._make_ready(stream)

    def _is_whole(self, stream: Stream, size: int, now: float) -> bool:
        """Whether an open file of this size is still the stream; what was cut off behind the position is a gap."""
        if size >= stream.size:
            return True
        if size < stream.position.offset or not stream.position.offset:
            self._supersede(stream, "truncated", now)
            return False
        if stream.peak > size:
            self._report.gap(stream.path, stream.id, size, stream.peak, "truncated behind what was read")
            stream.peak = size
        return True

    def _is_open(self, stream: Stream) -> None:
        """An open file has grown, or was opened: where too many are open, those quiet for longest are closed.

        Read to their end first, then those that can be opened again by their name; never one that has lost its name.
        """
        self._busy[stream] = None
        self._busy.move_to_end(stream)
        if len(self._busy) <= self._open_files_max:
            return
        listed = [each for each in self._busy if each.listed and each is not stream]
        listed.sort(key=lambda each: each.unread > 0)  # stable: the oldest first
        for each in listed[: max(1, self._open_files_max // 8)]:
            self._catalogue.close(each)
            del self._busy[each]

    # Reading

    def _make_ready(self, stream: Stream) -> None:
        if not (stream.is_ready or stream.halted or stream.superseded or stream.released):
            stream.is_ready = True
            self._ready.append(stream)

    def _has_room(self, now: float) -> bool:
        is_full = self._sending >= int(self._window) or self._held_bytes >= self._settings.in_flight_bytes_max
        return not is_full and now >= self._pause_until

    def _fill(self, now: float) -> None:
        """Reads blocks, a stream at a time in turn, while there is room for them."""
        while self._ready and self._has_room(now):
            stream = self._ready.popleft()
            stream.is_ready = False
            if self._stop_at is not None and stream.gateway != GATEWAY:
                continue
            if self._may_read(stream, now) and (block := self._read(stream, now)) is not None:
                stream.advance(block)
                self._held_bytes += len(block.body)
                self._send(block)
                if stream.unread > 0:
                    self._make_ready(stream)

    def _may_read(self, stream: Stream, now: float) -> bool:
        """Whether a stream may go on now; if not, whatever holds it up makes it ready again."""
        if stream.halted or stream.superseded or stream.rewinding or now < stream.not_before_s:
            return False
        if stream.durable is None or stream.durable < stream.acknowledged.offset or stream.outstanding:
            durable = -self._settings.window_bytes if stream.durable is None else stream.durable
            if stream.position.offset + self._tail.block_bytes_max > durable + self._settings.window_bytes:
                if durable < stream.acknowledged.offset:  # else an acknowledgement is what it waits for
                    self._waiting[stream] = None
                    self._is_urgent = True
                return False
        return not stream.outstanding or stream.ending or stream.unread >= self._tail.block_bytes_max

    def _read(self, stream: Stream, now: float) -> Block | None:
        """The stream's next block. What cannot be read is reported, and does not come back by itself."""
        try:
            if stream.file is None:
                if not self._catalogue.reopen(stream):
                    self._put_off(stream, now + self._settings.refused_interval_s)
                    return None
                self._is_open(stream)
            assert stream.file is not None
            size = self._system.fstat(stream.file).st_size
            if not self._is_whole(stream, size, now):
                return None
            stream.saw(size)
            block = self._tail.read(stream)
            if block is None and stream.position.offset < stream.scan_from < stream.size:
                self._make_ready(stream)  # the end of a long line is looked for in steps
            return block  # noqa: TRY300 - what follows is for what goes wrong
        except Changed as error:
            self._supersede(stream, str(error), now)
        except Gap as gap:
            if not stream.outstanding:  # else the last answer makes it ready again
                self._report.gap(stream.path, stream.id, stream.position.offset, gap.mark.offset, str(gap))
                stream.skip(gap.mark)
                self._catalogue.records.touch(stream)
                self._is_changed = True
                self._make_ready(stream)
        except OSError as error:
            self._report.trouble(stream.path, error.strerror or str(error))
            self._put_off(stream, now + self._settings.refused_interval_s)
        return None

    def _supersede(self, stream: Stream, reason: str, now: float) -> None:
        self._busy.pop(stream, None)
        self._waiting.pop(stream, None)
        self._is_changed = True
        if stream.rewinding:  # nothing can be read again: what is held is sent
            stream.rewinding = False
            for block in stream.outstanding:
                if block.is_taken_back:
                    self._later(block, stream.not_before_s)
        if (born := self._catalogue.supersede(stream, reason)) is not None:
            self._born(born, now)

    # Sending

    def _send(self, block: Block) -> None:
        self._sending += 1
        block.stream.sending += 1
        self._outbox.put(block)

    def _send_again(self, now: float) -> None:
        """Blocks whose time has come are sent, streams that were put off are read."""
        while self._again and self._again[0][0] <= now and self._sending < int(self._window):
            _, _, item = heapq.heappop(self._again)
            if isinstance(item, Stream):
                self._make_ready(item)
            elif item.stream.rewinding:
                item.is_taken_back = True
            elif not item.stale and self._stop_at is None:
                self._send(item)

    def _later(self, item: Block | Stream, at: float) -> None:
        self._number += 1
        heapq.heappush(self._again, (at, self._number, item))

    def _put_off(self, stream: Stream, until: float) -> None:
        """The stream is read again then."""
        stream.not_before_s = until
        self._later(stream, until)

    def _take_outcome(self, outcome: Outcome, now: float) -> None:
        """What an answer means for the block and its stream."""
        block, stream = outcome.block, outcome.block.stream
        self._sending -= 1
        stream.sending -= 1
        if not block.stale:
            if outcome.verdict is Verdict.STORED:
                self._stored(outcome, now)
            else:
                self._not_stored(outcome, now)
        if stream.rewinding and not stream.sending:
            self._rewind(stream)

    def _stored(self, outcome: Outcome, now: float) -> None:
        block, stream = outcome.block, outcome.block.stream
        assert outcome.receipt is not None
        self._moved_at = now
        self._pause_until = 0.0
        self._window = min(self._window + 1 / self._window, self._window_max)
        self._held_bytes -= len(block.body)
        self._report.stored(block.header.span, outcome.receipt)
        self._report.over("indexer")
        if stream.refused:
            stream.refused = 0
            self._report.over(f"stream of {stream.path}")
        if stream.acknowledge(block):
            self._is_changed = True
            self._catalogue.records.touch(stream)
            if not stream.lag_bytes:
                stream.caught_up_at_s = now
        if stream.superseded and not stream.outstanding:
            self._catalogue.finish(stream)
            self._is_changed = True
        elif stream.unread > 0:
            self._make_ready(stream)

    def _not_stored(self, outcome: Outcome, now: float) -> None:
        block, stream, verdict = outcome.block, outcome.block.stream, outcome.verdict
        self._report.counts.retries += 1
        if verdict is Verdict.MALFORMED and not block.refusals:
            block.refusals += 1
            self._send(block)
        elif stream.superseded and verdict in (Verdict.MALFORMED, Verdict.TOO_LARGE):
            self._give_up(block, outcome.detail)
        elif verdict is Verdict.MALFORMED or (verdict is Verdict.TOO_LARGE and block.header.length <= BLOCK_BYTES_MIN):
            stream.halted = True
            self._report.halted(stream, outcome.detail)
            self._take_back(block, now, 0.0)
        elif verdict is Verdict.TOO_LARGE:
            smaller = max(BLOCK_BYTES_MIN, block.header.length // 2)
            self._tail.block_bytes_max = min(self._tail.block_bytes_max, smaller)
            self._take_back(block, now, 0.0)
        elif verdict is Verdict.REFUSED:
            stream.refused += 1
            self._report.trouble(f"stream of {stream.path}", outcome.detail)
            longest_s = self._settings.refused_interval_s * min(stream.refused, 10)
            self._take_back(block, now, longest_s * self._chance.uniform(0.5, 1))
        else:
            self._report.trouble("indexer", outcome.detail)
            self._window = max(1.0, self._window / 2)
            block.redeliver()
            ceiling_s = min(self._settings.retry_interval_max_s, RETRY_INTERVAL_MIN_S * 2 ** min(block.attempts, 20))
            block.attempts += 1
            again_at = now + outcome.wait_s + self._chance.uniform(0, ceiling_s)
            self._pause_until = max(self._pause_until, again_at)
            self._later(block, again_at)

    def _give_up(self, block: Block, detail: str) -> None:
        """What the indexer will never take in this form, and what cannot be read again in another, is a gap."""
        stream = block.stream
        reason = f"overwritten, and not taken by the indexer as it was read before: {detail}"
        self._report.gap(stream.path, stream.id, block.header.offset, block.end.offset, reason)
        self._held_bytes -= len(block.body)
        stream.acknowledge(block)
        self._is_changed = True
        if not stream.outstanding:
            self._catalogue.finish(stream)

    def _take_back(self, block: Block, now: float, wait_s: float) -> None:
        """The stream will be read again from the acknowledged prefix; one whose file is another by now sends what it holds."""
        stream = block.stream
        if stream.superseded:
            self._later(block, now + max(wait_s, self._settings.refused_interval_s))
            return
        block.is_taken_back = stream.rewinding = True
        stream.not_before_s = now + wait_s

    def _rewind(self, stream: Stream) -> None:
        self._held_bytes -= stream.rewind()
        stream.rewinding = False
        if not stream.halted:
            self._put_off(stream, stream.not_before_s)

    # The checkpoint

    def _save(self, now: float) -> None:
        """Hands a checkpoint to the keeper if one is due."""
        if self._is_saving or not (self._is_changed or self._is_urgent):
            return
        if now < (self._urgent_at if self._is_urgent else self._flush_at):
            return
        self._is_saving, self._is_changed, self._is_urgent = True, False, False
        records = self._catalogue.records
        if self._is_whole_due or self._added_bytes > max(self._base_bytes, ADDED_BYTES_MIN):
            save = records.whole(self._catalogue.streams.values(), self._catalogue.superseded)
            save = save._replace(is_uncertain=self._catalogue.is_uncertain)
            self._is_whole_due = False
            self._base_bytes, self._added_bytes = len(save.records), 0
        else:
            save = records.changes()
            self._added_bytes += len(save.records)
        self._keeper.save(save)

    def _saved(self, saved: Saved, now: float) -> None:
        self._is_saving = False
        self._report.over("checkpoint")
        self._flush_at = now + max(self._settings.flush_interval_s, saved.took_s / FLUSH_COST_MAX)
        self._urgent_at = now + saved.took_s
        for stream, offset in saved.save.marks:
            if not stream.saved(offset, is_whole=saved.save.is_whole):
                self._is_whole_due = self._is_changed = True
        waiting, self._waiting = self._waiting, {}
        for stream in waiting:
            self._make_ready(stream)

    def _save_last(self) -> None:
        """The last checkpoint, waited for."""
        deadline = self._clock() + self._settings.shutdown_timeout_s
        self._is_changed = True
        while (self._is_saving or self._is_changed) and self._clock() < deadline:
            self._flush_at = self._urgent_at = 0.0
            self._save(self._clock())
            with contextlib.suppress(queue.Empty):
                self._take(self._inbox.get(timeout=0.1))
