"""Wakes the reader when a watched directory changes, so that a new or rotated file need not wait for the next look.

Only names' changes are asked for (created, moved, deleted): an event for each write would be work for each line. Where the
system cannot tell, or there are too many directories, the regular looks through the globs are all there is; that is said once.
"""

from __future__ import annotations

import logging
import os.path
from collections.abc import Callable, Iterable

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

_EVENTS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirMovedEvent, FileCreatedEvent, FileDeletedEvent, FileMovedEvent]
_log = logging.getLogger("auditship.agent")


class Wake(FileSystemEventHandler):
    """Watches directories.

    Args:
        wake: called, in a thread of the library, when something has changed.
        directories_max: at most so many are watched.
    """

    def __init__(self, wake: Callable[[], None], directories_max: int) -> None:
        self._wake = wake
        self._directories_max = directories_max
        self._observer: BaseObserver | None = None
        self._watches: dict[str, ObservedWatch] = {}
        self._has_told = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """A name has appeared, gone or changed."""
        del event
        self._wake()

    def watch(self, directories: Iterable[str]) -> None:
        """Watches these directories, as far as they are there, and no others."""
        wanted = set(sorted(filter(os.path.isdir, directories))[: self._directories_max])
        for gone in self._watches.keys() - wanted:
            watch = self._watches.pop(gone)
            if self._observer:
                self._observer.unschedule(watch)
        for new in wanted - self._watches.keys():
            try:
                if self._observer is None:
                    self._observer = Observer()
                    self._observer.start()
                self._watches[new] = self._observer.schedule(self, new, event_filter=_EVENTS)
            except OSError as error:
                self._tell(f"{new}: {error.strerror or error}")
            except RuntimeError as error:  # a thread for each directory, and the system has no more
                self._directories_max = len(self._watches)
                self._tell(f"{new}: {error}")
                return

    def _tell(self, reason: str) -> None:
        if not self._has_told:
            self._has_told = True
            _log.warning("the system does not tell of changes in %s; new files are found at the next look", reason)

    def end(self) -> None:
        """Watches nothing any more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
