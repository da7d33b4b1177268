"""Keeps the checkpoint: saves it in a thread of its own, so that a slow disk never holds up reading."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from agent.checkpoint import Checkpoint
from agent.stream import Stream


class Save(NamedTuple):
    """What is to be saved: the lines of all records or of those that have changed, and the streams whose offsets they hold."""

    records: bytearray
    is_whole: bool
    marks: list[tuple[Stream, int]]
    is_uncertain: bool = False


class Saved(NamedTuple):
    """The checkpoint is durable: these streams, each up to that offset."""

    save: Save
    took_s: float


class NotSaved(NamedTuple):
    """It could not be written; the one before still holds."""

    reason: str
    took_s: float


def saved(checkpoint: Checkpoint, save: Save, window_bytes: int) -> Saved | NotSaved:
    """Saves, and tells what became of it."""
    began = time.monotonic()
    try:
        if save.is_whole:
            checkpoint.save(save.records, window_bytes, is_uncertain=save.is_uncertain)
        else:
            checkpoint.add(save.records)
    except OSError as error:
        return NotSaved(str(error), time.monotonic() - began)
    return Saved(save, time.monotonic() - began)


class Keeper(threading.Thread):
    """Saves one checkpoint at a time and tells what became of it.

    Args:
        checkpoint: where.
        window_bytes: how far ahead of it blocks are sent.
        tell: takes a :class:`Saved` or a :class:`NotSaved`; called in this thread.
    """

    def __init__(self, checkpoint: Checkpoint, window_bytes: int, tell: Callable[[Saved | NotSaved], None]) -> None:
        super().__init__(name="keeper", daemon=True)
        self._checkpoint = checkpoint
        self._window_bytes = window_bytes
        self._tell = tell
        self._jobs: queue.SimpleQueue[Save | None] = queue.SimpleQueue()

    def save(self, save: Save) -> None:
        """Hands a save over; the next one only after this one's answer. After a failure it has to be a whole one."""
        self._jobs.put(save)

    def end(self) -> None:
        """Ends the thread after what it is doing."""
        self._jobs.put(None)

    def run(self) -> None:
        """The thread."""
        while (job := self._jobs.get()) is not None:
            self._tell(saved(self._checkpoint, job, self._window_bytes))
