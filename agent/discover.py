"""Discovers: which files the globs name now.

A look through the globs is the truth; everything else only makes it happen sooner. Symbolic links are followed: the file they
lead to is what counts. A file under two globs belongs to the first. What is no regular file is passed over; a directory that
cannot be read is told, and looked at again the next time.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

from agent.osio import System
from agent.settings import WatchSettings


class Found(NamedTuple):
    """A file that a glob names."""

    path: str
    gateway: str
    device: int
    inode: int
    size: int
    changed_ns: int


class Trouble(NamedTuple):
    """A place that could not be looked at, and why."""

    path: str
    reason: str


class _Pattern(NamedTuple):
    gateway: str
    directory: str
    name: re.Pattern[str]
    excluded: re.Pattern[str] | None


class Discovery:
    """The globs of a configuration."""

    def __init__(self, system: System, watches: Sequence[WatchSettings], *, own: tuple[str, Path] | None = None) -> None:
        self._system = system
        self._patterns = [_pattern(watch.gateway, path, watch.exclude) for watch in watches for path in watch.paths]
        if own is not None:  # the agent's own record, and the one before it
            self._patterns += [_pattern(own[0], path, ()) for path in (own[1], own[1].with_name(own[1].name + ".1"))]
        self.directories: set[str] = set()
        """Those looked into the last time."""

    def look(self) -> tuple[list[Found], list[Trouble]]:
        """Every file that the globs name, each once, and what could not be looked at."""
        found: dict[tuple[int, int], Found] = {}
        troubles: list[Trouble] = []
        self.directories = set()
        for pattern in self._patterns:
            for directory in _directories(pattern.directory):
                self.directories.add(directory)
                try:
                    for each in self._in_directory(pattern, directory):
                        found.setdefault((each.device, each.inode), each)
                except OSError as error:
                    troubles.append(Trouble(directory, error.strerror or str(error)))
        return list(found.values()), troubles

    def _in_directory(self, pattern: _Pattern, directory: str) -> Iterator[Found]:
        for entry in self._system.entries(directory):
            if not pattern.name.match(entry.name) or (pattern.excluded and pattern.excluded.match(entry.name)):
                continue
            try:
                info = entry.stat()
            except OSError:
                continue  # gone meanwhile, or a link that leads nowhere
            if stat.S_ISREG(info.st_mode):
                yield Found(entry.path, pattern.gateway, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _pattern(gateway: str, path: Path, exclude: Sequence[str]) -> _Pattern:
    excluded = "|".join(translate(each) for each in exclude)
    return _Pattern(gateway, str(path.parent), re.compile(translate(path.name)), re.compile(excluded) if excluded else None)


def _directories(pattern: str) -> Iterator[str]:
    """The directories that a glob names; a plain path names itself, whether it is there or not."""
    if not glob.has_magic(pattern):
        yield pattern
        return
    yield from (each.rstrip(os.sep) for each in glob.iglob(os.path.join(pattern, ""), recursive=True, include_hidden=True))  # noqa: PTH118, PTH207 - text, as names are
