"""A gateway for the harness: writes numbered lines as real ones do, rotates and truncates, and remembers every byte."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from auditship.sample import Sample


@dataclass
class Life:
    """One file's content from its beginning to its truncation: the lines, in order, and whether they were cut off."""

    lines: list[bytes] = field(default_factory=list)
    is_truncated: bool = False


class Gateway(threading.Thread):
    """Writes lines to a file until it is told to end.

    Args:
        path: the file.
        kind: ``web``, ``cli`` or ``api``.
        seed: what is written, and when, follows from it.
    """

    def __init__(self, path: Path, kind: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._kind = kind
        self._chance = random.Random(seed)
        self._sample = Sample(seed, numbered=True)
        self._ending = threading.Event()
        self._wishes: list[str] = []
        self._paused = threading.Event()
        self._is_waiting = threading.Event()
        self.lives = [Life()]
        self._rotations = 0

    def wish(self, what: str) -> None:
        """``rotate`` or ``truncate``, at the next good moment."""
        self._wishes.append(what)

    @contextlib.contextmanager
    def paused(self) -> Iterator[int]:
        """It writes nothing; gives the file's size. A wish is granted when it goes on."""
        self._paused.set()
        self._is_waiting.wait(5)
        try:
            yield self._path.stat().st_size
        finally:
            self._paused.clear()

    def end(self) -> None:
        """Ends after the line that is being written."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """The thread."""
        file = self._open()
        while not self._ending.is_set():
            while self._paused.is_set():
                self._is_waiting.set()
                time.sleep(0.005)
            self._is_waiting.clear()
            while self._wishes:
                file = self._turn(file, self._wishes.pop())
            lines = [self._line() for _ in range(self._chance.choice((1, 1, 3, 40)))]
            data = b"".join(lines)
            cut = self._chance.randrange(len(data)) if self._chance.random() < 0.2 else len(data)
            os.write(file, data[:cut])
            if cut < len(data):
                time.sleep(self._chance.uniform(0, 0.02))
                os.write(file, data[cut:])
            self.lives[-1].lines += lines
            time.sleep(self._chance.uniform(0, 0.02))
        os.close(file)

    def _line(self) -> bytes:
        line = self._sample.line(self._kind, time.time_ns() // 1_000_000)
        return line if self._chance.random() > 0.02 else b"not an event: " + line  # which has its number as well

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def _turn(self, file: int, what: str) -> int:
        if what == "truncate" and not self._wishes:
            os.ftruncate(file, 0)
            self.lives[-1].is_truncated = True
            self.lives.append(Life())
            return file
        self._rotations += 1
        self._path.rename(self._path.with_name(f"{self._path.name}.{self._rotations}"))
        os.close(file)
        self.lives.append(Life())
        return self._open()
