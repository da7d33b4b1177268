"""Keeps the checkpoint: saves it in a thread of its own, so that a slow disk never holds up reading."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from agent.checkpoint import Checkpoint
from agent.stream import Stream


class Saved(NamedTuple):
    """The checkpoint is durable: these streams, each up to that offset."""

    marks: list[tuple[Stream, int]]
    took_s: float


class NotSaved(NamedTuple):
    """It could not be written; the one before still holds."""

    reason: str
    took_s: float


class Keeper(threading.Thread):
    """Saves one checkpoint at a time and tells what became of it.

    Args:
        checkpoint: where.
        tell: takes a :class:`Saved` or a :class:`NotSaved`; called in this thread.
    """

    def __init__(self, checkpoint: Checkpoint, tell: Callable[[Saved | NotSaved], None]) -> None:
        super().__init__(name="keeper", daemon=True)
        self._checkpoint = checkpoint
        self._tell = tell
        self._jobs: queue.SimpleQueue[tuple[bytes, list[tuple[Stream, int]]] | None] = queue.SimpleQueue()

    def save(self, data: bytes, marks: list[tuple[Stream, int]]) -> None:
        """Hands a checkpoint over; the next one only after this one's answer."""
        self._jobs.put((data, marks))

    def end(self) -> None:
        """Ends the thread after what it is doing."""
        self._jobs.put(None)

    def run(self) -> None:
        """The thread."""
        while (job := self._jobs.get()) is not None:
            data, marks = job
            began = time.monotonic()
            try:
                self._checkpoint.save(data)
            except OSError as error:
                self._tell(NotSaved(str(error), time.monotonic() - began))
            else:
                self._tell(Saved(marks, time.monotonic() - began))
