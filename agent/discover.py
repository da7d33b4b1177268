"""Discovers: which files the globs name now.

A look through the globs is the truth; everything else only makes it happen sooner. Symbolic links are followed: the file they
lead to is what counts. A file under two globs belongs to the first. What is no regular file is passed over; a directory that
cannot be read is told, and looked at again the next time.

A directory's names are read again only when its time of modification has changed (and now and then all the same, for file
systems that tell no changes), so that ten thousand quiet files cost one stat each.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Final, NamedTuple

from agent.osio import System
from agent.settings import WatchSettings

LOOKS_MAX: Final = 12
"""How many looks rely on a directory's names before they are read anew whatever its time says."""
SETTLED_NS: Final = 2_000_000_000
"""How old a directory's time must be to be relied on: a change within the clock's granularity would leave it as it was."""


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


class _Listing:
    """A directory's names that a pattern matches, and when they were read."""

    __slots__ = ("looks", "paths", "stamp")

    def __init__(self, stamp: tuple[int, int, int], paths: list[str]) -> None:
        self.stamp = stamp
        self.paths = paths
        self.looks = 0


class Discovery:
    """The globs of a configuration."""

    def __init__(self, system: System, watches: Sequence[WatchSettings], *, own: tuple[str, Path] | None = None) -> None:
        self._system = system
        self._patterns = [_pattern(watch.gateway, path, watch.exclude) for watch in watches for path in watch.paths]
        self._own_directory = str(own[1].parent) if own else None
        if own is not None:  # the agent's own record, and the one before it
            self._patterns += [_pattern(own[0], path, ()) for path in (own[1], own[1].with_name(own[1].name + ".1"))]
        self._listings: dict[tuple[_Pattern, str], _Listing] = {}
        self.directories: set[str] = set()
        """Those looked into the last time, but the agent's own, which it changes itself with every checkpoint."""

    def look(self) -> tuple[dict[tuple[int, int], Found], list[Trouble]]:
        """Every file that the globs name, by device and inode, and what could not be looked at."""
        found: dict[tuple[int, int], Found] = {}
        troubles: list[Trouble] = []
        self.directories = set()
        listings, self._listings = self._listings, {}
        for pattern in self._patterns:
            for directory in self._directories(pattern.directory, troubles):
                if directory != self._own_directory:
                    self.directories.add(directory)
                key = pattern, directory
                try:
                    listing = self._listings[key] = self._listing(pattern, directory, listings.get(key))
                except OSError as error:
                    troubles.append(Trouble(directory, error.strerror or str(error)))
                    continue
                for each in self._files(listing.paths, pattern.gateway, troubles):
                    found.setdefault((each.device, each.inode), each)
        return found, troubles

    def _directories(self, pattern: str, troubles: list[Trouble]) -> Iterator[str]:
        """The directories that a glob names; a plain path names itself, whether it is there or not."""
        first, *parts = Path(pattern).parts
        return self._below(first, parts, troubles) if glob.has_magic(pattern) else iter([pattern])

    def _below(self, directory: str, parts: Sequence[str], troubles: list[Trouble]) -> Iterator[str]:
        """The directories that the parts of a glob name below one."""
        at = next((at for at, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        directory = os.path.join(directory, *parts[:at])  # noqa: PTH118 - text, as names are
        if at == len(parts):
            yield directory
        elif parts[at] == "**":
            for each in self._all_below(directory, troubles):
                yield from self._below(each, parts[at + 1 :], troubles)
        else:
            is_named = re.compile(translate(parts[at])).match
            for each in self._directories_in(directory, troubles):
                if is_named(os.path.basename(each)):  # noqa: PTH119
                    yield from self._below(each, parts[at + 1 :], troubles)

    def _all_below(self, directory: str, troubles: list[Trouble]) -> Iterator[str]:
        """A directory and all in it, each once: links may lead in circles."""
        left, seen = [directory], set()
        while left:
            each = left.pop()
            try:
                info = self._system.stat(each)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                troubles.append(Trouble(each, error.strerror or str(error)))
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                yield each
                left += self._directories_in(each, troubles)

    def _directories_in(self, directory: str, troubles: list[Trouble]) -> list[str]:
        try:
            return sorted(entry.path for entry in self._system.entries(directory) if _is_directory(entry, troubles))
        except OSError as error:
            troubles.append(Trouble(directory, error.strerror or str(error)))
            return []

    def _listing(self, pattern: _Pattern, directory: str, last: _Listing | None) -> _Listing:
        """The names in a directory that a pattern matches: those of the last look, while they must be the same."""
        now_ns = self._system.now_ns()
        try:
            info = self._system.stat(directory)
        except (FileNotFoundError, NotADirectoryError):
            return _Listing((0, 0, 0), [])
        stamp = info.st_dev, info.st_ino, info.st_mtime_ns
        if last is not None and last.stamp == stamp and last.looks < LOOKS_MAX:
            last.looks += 1
            return last
        paths = [
            entry.path
            for entry in self._system.entries(directory)
            if pattern.name.match(entry.name) and not (pattern.excluded and pattern.excluded.match(entry.name))
        ]
        is_settled = abs(now_ns - info.st_mtime_ns) > SETTLED_NS
        return _Listing(stamp if is_settled else (0, 0, 0), paths)

    def _files(self, paths: list[str], gateway: str, troubles: list[Trouble]) -> Iterator[Found]:
        for path in paths:
            try:
                info = self._system.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # gone meanwhile, or a link that leads nowhere
            except OSError as error:
                troubles.append(Trouble(path, error.strerror or str(error)))
                continue
            if stat.S_ISREG(info.st_mode):
                yield Found(path, gateway, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _pattern(gateway: str, path: Path, exclude: Sequence[str]) -> _Pattern:
    excluded = "|".join(translate(each) for each in exclude)
    return _Pattern(gateway, str(path.parent), re.compile(translate(path.name)), re.compile(excluded) if excluded else None)


def _is_directory(entry: os.DirEntry[str], troubles: list[Trouble]) -> bool:
    """Whether an entry is a directory, or leads to one; one link that leads nowhere hides nothing beside it."""
    try:
        return entry.is_dir()
    except OSError as error:
        troubles.append(Trouble(entry.path, error.strerror or str(error)))
        return False
