"""How many bulks may be under way at once, and how large they may be: found out by trying. Pure.

Additive increase, multiplicative decrease, as in TCP. A cluster that pushes back (429) halves both; what was sent before that
does not halve them again, since it tells of the same moment. Every bulk that is taken while the window is used to the full
widens it: by one bulk after each round of them, and by :data:`BYTES_STEP` after each bulk that was large. What is not used is
not widened: nothing has shown that the cluster could take it.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

BULKS_START: Final = 2
BYTES_MIN: Final = 256 * 1024
"""A bulk is never asked to be smaller: fewer bytes in one would only make more work for the cluster."""
BYTES_STEP: Final = 256 * 1024


class Window:
    """One worker's. Safe to use from several threads.

    Args:
        bulks_max: how many may ever be under way.
        bytes_max: how many bytes one may ever have.
    """

    def __init__(self, bulks_max: int, bytes_max: int) -> None:
        self._bulks_max = bulks_max
        self._bytes_max = bytes_max
        self._bulks = float(min(BULKS_START, bulks_max))
        self._under_way = 0
        self._lock = Lock()
        self.bytes = bytes_max
        """How many one may have now; a document that alone is larger goes alone."""
        self.epoch = 0
        """How often it was halved: to be remembered with what is sent."""

    def __str__(self) -> str:
        """For people."""
        return f"at most {self.bulks} bulks of {self.bytes} bytes"

    @property
    def bulks(self) -> int:
        """How many may be under way now."""
        return int(self._bulks)

    def enter(self) -> bool:
        """Whether there was room for another one; it is under way from here on."""
        with self._lock:
            has_room = self._under_way < self.bulks
            self._under_way += has_room
            return has_room

    def leave(self) -> None:
        """One is no longer under way."""
        with self._lock:
            self._under_way -= 1

    def taken(self, size: int, epoch: int) -> None:
        """A bulk of that many bytes, sent in that epoch, was taken."""
        with self._lock:
            if epoch != self.epoch:
                return
            if self._under_way >= self.bulks:
                self._bulks = min(self._bulks + 1 / self._bulks, self._bulks_max)
            if 2 * size >= self.bytes:
                self.bytes = min(self.bytes + BYTES_STEP, self._bytes_max)

    def pushed_back(self, epoch: int) -> bool:
        """The cluster did not take a bulk that was sent in that epoch. Returns whether the window is smaller now."""
        with self._lock:
            if epoch != self.epoch:
                return False
            before = self._bulks, self.bytes
            self.epoch += 1
            self._bulks = max(1.0, self._bulks / 2)
            self.bytes = max(min(BYTES_MIN, self._bytes_max), self.bytes // 2)
            return (self._bulks, self.bytes) != before
