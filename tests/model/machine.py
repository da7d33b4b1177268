"""A machine in memory, under the agent's seam: files, names, inodes that are used again, failing calls, and power loss.

What a crash of the machine leaves follows what was synced: a file's content is that of its last sync, what was written since,
or a part of it; names are those of the directory's last sync and the first few of the changes since. Log files, which nobody
syncs here, keep what they have: their promise is the gateway's, not the agent's.
"""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.osio import System

DEVICE = 1
STATE = Path("/state")
LOGS = "/logs"
BLOCK_BYTES = 512
"""Holes are of whole blocks."""


class Inode:
    """A file: its content, what of it is durable, and who holds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = bytearray()
        self.synced = b""
        self.links = 0
        self.opened = 0
        self.changed_ns = 0


class Machine(System):
    """The seam. ``failing`` is the chance that a call fails; ``calls`` counts them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.failing = 0.0
        self.failed = 0
        self.race: Callable[[], None] | None = None
        """What happens between the reading of a directory and the look at one of its files."""
        self.clock_ns = 1_800_000_000_000_000_000
        self.names: dict[str, Inode] = {}
        self.changes: list[tuple[str, Inode | None]] = []
        """Names in the state directory that were changed since its last sync; none: removed."""
        self._durable: dict[str, Inode] = {}
        self._inodes: dict[int, Inode] = {}
        self._files: dict[int, Inode | Path] = {}
        self._directory_changed_ns = 0

    # What gateways do

    def log_names(self) -> list[str]:
        """The log files that are there."""
        return [name for name in self.names if name.startswith(LOGS)]

    def make(self, name: str) -> Inode:
        """A new log file; its inode is the lowest that is free."""
        number = next(n for n in range(2, 10_000) if n not in self._inodes)
        inode = self._inodes[number] = Inode(number)
        self.link(name, inode)
        return inode

    def link(self, name: str, inode: Inode | None) -> None:
        """Gives a file a name, or (none) takes a name away."""
        before = self.names.pop(name, None)
        if inode is not None:
            inode.links += 1
            self.names[name] = inode
        if before is not None:
            before.links -= 1
            self._let_go(before)
        if name.startswith(LOGS):
            self._directory_changed_ns = self.tick()
        else:
            self.changes.append((name, inode))

    def tick(self) -> int:
        """A moment passes."""
        self.clock_ns += 1_000_000
        return self.clock_ns

    def _let_go(self, inode: Inode) -> None:
        if not inode.links and not inode.opened and inode not in self._durable.values():
            self._inodes.pop(inode.number, None)

    # What becomes of it when the agent, or the machine, dies

    def close_all(self) -> None:
        """The agent's process is gone."""
        for file in list(self._files):
            self.close(file)

    def lose_power(self) -> None:
        """The machine is gone, and comes back with what was durable, and some of what was not."""
        self.close_all()
        kept = self.chance.randint(0, len(self.changes))
        names = dict(self._durable)
        for name, inode in self.changes[:kept]:
            names.pop(name, None)
            if inode is not None:
                names[name] = inode
        for inode in {id(inode): inode for inode in names.values()}.values():
            self._tear(inode)
        self.names = {name: inode for name, inode in self.names.items() if name.startswith(LOGS)} | names
        for inode in self._inodes.values():
            inode.links = sum(inode is each for each in self.names.values())
        self._durable, self.changes = names, []
        for inode in list(self._inodes.values()):
            self._let_go(inode)

    def tear(self, inode: Inode, length: int) -> None:
        """Only the beginning of a file is left of it, on the disk as well."""
        del inode.data[length:]
        inode.synced = bytes(inode.data)

    def _tear(self, inode: Inode) -> None:
        if bytes(inode.data) == inode.synced:
            return
        same = next((n for n, (a, b) in enumerate(zip(inode.data, inode.synced, strict=False)) if a != b), len(inode.synced))
        cut = self.chance.randint(min(same, len(inode.data)), len(inode.data))
        torn = inode.data[:cut] + bytes(self.chance.choice((0, len(inode.data) - cut)))
        inode.data = bytearray(self.chance.choice((inode.synced, bytes(inode.data), bytes(torn))))
        inode.synced = bytes(inode.data)

    # The agent's calls

    def _may_fail(self, path: object) -> None:
        if self.failing and self.chance.random() < self.failing:
            self.failed += 1
            raise OSError(self.chance.choice((errno.EIO, errno.ENOSPC)), "injected", str(path))

    def _open(self, inode: Inode | Path) -> int:
        file = next(n for n in range(3, 10_000) if n not in self._files)
        self._files[file] = inode
        if isinstance(inode, Inode):
            inode.opened += 1
        return file

    def _inode(self, name: str) -> Inode:
        inode = self.names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return inode

    def open_log(self, path: str) -> int:
        self._may_fail(path)
        return self._open(self._inode(path))

    def close(self, file: int) -> None:
        inode = self._files.pop(file)
        if isinstance(inode, Inode):
            inode.opened -= 1
            self._let_go(inode)

    def fstat(self, file: int) -> Any:
        inode = self._files[file]
        assert isinstance(inode, Inode)
        return _info(inode)

    def stat(self, path: str) -> Any:
        if path == LOGS:
            return SimpleNamespace(st_dev=DEVICE, st_ino=1, st_mtime_ns=self._directory_changed_ns)
        if self.race and self.chance.random() < 0.01:
            self.race()
        self._may_fail(path)
        return _info(self._inode(path))

    def entries(self, directory: str) -> Iterator[Any]:
        self._may_fail(directory)
        for path in self.log_names():
            yield SimpleNamespace(name=path.rpartition("/")[2], path=path)

    def read_into(self, file: int, buffer: memoryview, offset: int) -> int:
        inode = self._files[file]
        assert isinstance(inode, Inode)
        self._may_fail(file)
        data = inode.data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def data_from(self, file: int, offset: int) -> int:
        inode = self._files[file]
        assert isinstance(inode, Inode)
        rest = inode.data[offset:]
        return (
            (offset + len(rest) - len(rest.lstrip(b"\0"))) // BLOCK_BYTES * BLOCK_BYTES
            if rest.strip(b"\0")
            else len(inode.data)
        )

    def now_ns(self) -> int:
        return self.clock_ns

    def work_s(self) -> float:
        return self.clock_ns / 1e9

    def read(self, path: Path) -> bytes:
        return bytes(self._inode(str(path)).data)

    def create(self, path: Path) -> int:
        self._may_fail(path)
        inode = self.names.get(str(path))
        if inode is None:
            inode = self.make(str(path))
        inode.data.clear()
        return self._open(inode)

    def open_append(self, path: Path) -> int:
        self._may_fail(path)
        return self._open(self._inode(str(path)))

    def open_directory(self, path: Path) -> int:
        self._may_fail(path)
        return self._open(path)

    def write(self, file: int, data: memoryview) -> int:
        inode = self._files[file]
        assert isinstance(inode, Inode)
        part = data[: self.chance.randint(1, len(data))]
        inode.data += part
        self._may_fail(file)
        return len(part)

    def sync(self, file: int) -> None:
        self._may_fail(file)
        inode = self._files[file]
        if isinstance(inode, Inode):
            inode.synced = bytes(inode.data)
        else:
            self._durable = {name: inode for name, inode in self.names.items() if not name.startswith(LOGS)}
            self.changes.clear()

    def rename(self, old: Path, new: Path) -> None:
        self._may_fail(old)
        inode = self._inode(str(old))
        self.link(str(new), inode)
        self.link(str(old), None)

    def exists(self, path: Path) -> bool:
        return str(path) in self.names


def _info(inode: Inode) -> Any:
    return SimpleNamespace(
        st_dev=DEVICE,
        st_ino=inode.number,
        st_size=len(inode.data),
        st_mtime_ns=inode.changed_ns,
        st_nlink=inode.links,
        st_mode=stat.S_IFREG | 0o600,
    )
