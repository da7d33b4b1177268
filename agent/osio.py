"""The operating system's seam: every call on files that the agent makes, so that a test can make any of them fail.

Everything durable is here: :meth:`System.replace` is the one place that knows how a small file is written so that after a crash
there is either the old one or the new one, and in which order files and their directory are synced.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from auditship.limits import open_files
from auditship.lock import lock

OTHER_FILES_MAX: Final = 128
"""Descriptors for everything that is no log file: connections, state, watches."""


class System:
    """The real one."""

    def open_log(self, path: str) -> int:
        """A file's descriptor for reading. Never waits (FIFOs), never becomes a terminal's.

        Raises:
            OSError: as open does; also when it is not a regular file.
        """
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(22, "not a regular file", path)
        return file

    def close(self, file: int) -> None:
        """Closes a descriptor."""
        os.close(file)

    def fstat(self, file: int) -> os.stat_result:
        """What an open file is like."""
        return os.fstat(file)

    def read_into(self, file: int, buffer: memoryview, offset: int) -> int:
        """Reads at an offset until the buffer is full or the file ends; returns how many bytes."""
        done = 0
        while done < len(buffer):
            got = os.preadv(file, [buffer[done:]], offset + done)
            if not got:
                break
            done += got
        return done

    def data_from(self, file: int, offset: int) -> int:
        """Where data begins at or behind an offset: what lies between is a hole, all NULs. The file's end, if there is none."""
        size = os.fstat(file).st_size  # before: what is appended in between is data
        try:
            return os.lseek(file, offset, os.SEEK_DATA)
        except OSError as error:
            return max(offset, size) if error.errno == errno.ENXIO else offset  # else a file system that does not tell

    def stat(self, path: str) -> os.stat_result:
        """What the file is like that a name leads to."""
        return os.stat(path)  # noqa: PTH116 - once for each watched file, ten thousand times in a look

    def open_files_max(self, wanted: int) -> int:
        """How many log files may be open at once: as many as are wanted, if the system allows it (the limit is raised)."""
        return max(1, min(wanted, open_files(wanted + OTHER_FILES_MAX) - OTHER_FILES_MAX))

    def entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        """A directory's entries; those of an unreadable or missing one are none."""
        try:
            with os.scandir(directory) as found:
                yield from found
        except (FileNotFoundError, NotADirectoryError):
            return

    def read(self, path: Path) -> bytes:
        """A whole small file."""
        return path.read_bytes()

    def now_ns(self) -> int:
        """The wall clock."""
        return time.time_ns()

    def work_s(self) -> float:
        """How long this thread has worked; waiting for a disk or a network is no work."""
        return time.thread_time()

    # The state's files: what a test makes fail, tear or forget is one of these calls.

    def create(self, path: Path) -> int:
        """A new empty file's descriptor for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open_append(self, path: Path) -> int:
        """A descriptor that writes at the end of a file that is there."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def open_directory(self, path: Path) -> int:
        """A directory's descriptor."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def write(self, file: int, data: memoryview) -> int:
        """Writes some of the data; returns how many bytes."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Makes what was written to a file, or the names in a directory, durable."""
        os.fsync(file)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file another name; whatever had that name before has lost it."""
        old.replace(new)

    def exists(self, path: Path) -> bool:
        """Whether there is something of that name."""
        return path.exists()

    def replace(self, path: Path, *parts: bytes | bytearray, keep: Path | None = None) -> None:
        """Makes a file have these parts as its content, durably: when this returns, a crash of the machine cannot undo it.

        Written beside, synced, renamed, and the directory synced. ``keep`` is what the file's old content is called then. A
        crash at any point leaves the old content or the new one, under one of the two names.
        """
        beside = path.with_name(path.name + ".new")
        self._write(self.create(beside), parts)
        if keep is not None and self.exists(path):
            self.rename(path, keep)
        self.rename(beside, path)
        self.sync_directory(path.parent)

    def append(self, path: Path, data: bytes | bytearray) -> None:
        """Adds to a file that is there, durably. A crash leaves all of it, none, or a part at its end."""
        self._write(self.open_append(path), [data])

    def _write(self, file: int, parts: Iterable[bytes | bytearray]) -> None:
        """Writes everything, durably, and closes."""
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    left = left[self.write(file, left) :]
            self.sync(file)
        finally:
            self.close(file)

    def sync_directory(self, path: Path) -> None:
        """Makes a directory's entries durable."""
        directory = self.open_directory(path)
        try:
            self.sync(directory)
        finally:
            self.close(directory)

    def lock(self, path: Path) -> int:
        """Takes a lock that the process holds until it ends; returns the descriptor that carries it.

        Raises:
            BlockingIOError: another process holds it.
        """
        return lock(path)
