"""The checkpoint: what the agent durably knows, and what it may rely on after a crash.

Format, version 2: a file of JSON lines that grows by batches. The first line says what follows; then come records, one per
stream, a later one of the same device, inode and generation in place of an earlier; each batch ends with a commit.

    {"auditship_checkpoint":2,"window_bytes":16777216}
    {"path":"/var/log/web.jsonl","gateway":"web","device":2049,"inode":77,"generation":0,"first_line":"<hex>",
     "first_line_bytes":559,"offset":1118,"size":1200,"chain":"<hex>","tail":"<hex>","tail_bytes":1024,"state":"live"}
    {"commit":"<hex>"}

A commit's digest is BLAKE2b-128 over everything before it in the file. Paths are percent-encoded; ``size`` is the largest that
was seen of the file. ``state`` is ``live``; ``released`` for a file that is no longer watched and was read to its end;
``ended`` for one that was deleted, whose inode belongs to whoever comes next; ``superseded`` for one that became another stream
while blocks of it were under way; ``forgotten`` ends a record.

A save adds the records that have changed and syncs, so that it costs what has changed, not what is known. When the batches have
grown longer than the records, and after every failure, the whole is written beside and renamed, and the file before is kept.
What a crash leaves of a batch is known by its missing commit, and does not count; of a damaged file the one before is used.

The rule that makes this safe: no block is sent before the durable checkpoint names its stream, nor beyond the durable offset +
the window. So after a restart every block that starts before offset + window may have been sent before; after a restart from a
file that was torn, from the one before, or from none, every block of what the file holds at that time. Until all of that is
acknowledged, the head of each further checkpoint says ``"uncertain":true``, so that another crash does not forget it. An
inode's second stream is not sent before both files name it, see :meth:`agent.stream.Stream.saved`.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson

from agent.identity import FirstLine, Identity, Mark
from agent.osio import System
from agent.stream import Stream
from auditship.errors import ConfigurationError

VERSION: Final = 2
LIVE, RELEASED, ENDED, SUPERSEDED, FORGOTTEN = "live", "released", "ended", "superseded", "forgotten"
COMMIT: Final = b'{"commit":"'


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a stream that was."""

    path: bytes
    gateway: str
    identity: Identity
    mark: Mark
    size: int
    state: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a restart begins with. ``window_bytes``: how far behind a record's offset blocks may have been sent."""

    records: list[Record]
    window_bytes: int
    problem: str = ""
    """What was wrong with the newest file, if anything: then anything may have been sent."""


class Damaged(Exception):  # noqa: N818 - a finding
    """Not a whole checkpoint: torn, or altered."""


def encode(stream: Stream, state: str) -> bytes:
    """A stream's record, a line."""
    identity, mark = stream.identity, stream.acknowledged
    return orjson.dumps(
        {
            "path": quote_from_bytes(stream.path.encode("utf-8", "surrogateescape")),
            "gateway": stream.gateway,
            "device": identity.device,
            "inode": identity.inode,
            "generation": identity.generation,
            "first_line": identity.first_line.digest.hex(),
            "first_line_bytes": identity.first_line.length,
            "offset": mark.offset,
            "size": stream.peak,
            "chain": mark.chain.hex(),
            "tail": mark.tail_digest.hex(),
            "tail_bytes": mark.tail_bytes,
            "state": state,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def forgotten(device: int, inode: int, generation: int) -> bytes:
    """The line that ends a record."""
    key = {"device": device, "inode": inode, "generation": generation}
    return orjson.dumps({**key, "state": FORGOTTEN}, option=orjson.OPT_APPEND_NEWLINE)


def parse(data: bytes, name: str) -> Loaded:
    """What a checkpoint holds, up to its last commit.

    Raises:
        Damaged: it has no whole batch.
        ConfigurationError: it is of a version that is not known here.
    """
    first, _, rest = data.partition(b"\n")
    try:
        head = orjson.loads(first)
        version, window_bytes = head["auditship_checkpoint"], head.get("window_bytes")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{name}: its first line is not a checkpoint's") from None
    if version != VERSION:
        raise ConfigurationError(
            f"{name}: written in version {version}; this agent knows {VERSION}", "Use the newer agent, or another state_dir."
        )
    records: dict[tuple[int, int, int], Record] = {}
    digest = _digest(first + b"\n")
    batch: list[bytes] = []
    commits = 0
    for line in rest.splitlines(keepends=True):
        if not line.startswith(COMMIT):
            batch.append(line)
            digest.update(line)
            continue
        if line != _commit(digest):
            break
        digest.update(line)
        _apply(batch, records, name)
        batch.clear()
        commits += 1
    else:
        line = b""
    if not commits:
        raise Damaged(f"{name}: not one whole batch of records")
    problem = f"{name}: torn after {commits} batches" if line or batch else ""
    if head.get("uncertain") and not problem:
        problem = f"{name}: not all that was shipped under a damaged one has been acknowledged again"
    return Loaded(list(records.values()), int(window_bytes), problem)


def _apply(batch: list[bytes], records: dict[tuple[int, int, int], Record], name: str) -> None:
    try:
        for line in batch:
            value = orjson.loads(line)
            key = int(value["device"]), int(value["inode"]), int(value["generation"])
            if value["state"] == FORGOTTEN:
                records.pop(key, None)
            else:
                records[key] = _record(value)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{name}: {error!r}") from None


def _record(value: dict[str, Any]) -> Record:
    first_line = FirstLine(bytes.fromhex(value["first_line"]), int(value["first_line_bytes"]))
    identity = Identity(int(value["device"]), int(value["inode"]), int(value["generation"]), first_line)
    mark = Mark(int(value["offset"]), bytes.fromhex(value["chain"]), bytes.fromhex(value["tail"]), int(value["tail_bytes"]))
    path, state = unquote_to_bytes(value["path"]), str(value["state"])
    return Record(path, str(value["gateway"]), identity, mark, int(value["size"]), state)


def _digest(data: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


def _commit(digest: hashlib.blake2b) -> bytes:
    """The line that ends a batch."""
    return COMMIT + digest.hexdigest().encode() + b'"}\n'


class Checkpoint:
    """The two files in a state directory."""

    def __init__(self, system: System, directory: Path) -> None:
        self._system = system
        self._path = directory / "checkpoint"
        self._previous = directory / "checkpoint.previous"
        self._digest: hashlib.blake2b | None = None
        """Over everything in the file; none while it is not known to be as we wrote it."""
        self._is_damaged = False
        """The newest file says nothing: it must not take the place of the one before."""

    def load(self) -> Loaded | None:
        """What is known; none if there is no checkpoint here.

        Raises:
            ConfigurationError: of an unknown version.
            OSError: it is there and cannot be read.
        """
        problems: list[str] = []
        for path in (self._path, self._previous):
            try:
                loaded = parse(self._system.read(path), str(path))
                self._settle(path)
                return replace(loaded, problem="; ".join(filter(None, [*problems, loaded.problem])))
            except FileNotFoundError:
                problems.append(f"{path}: missing")
            except Damaged as error:
                self._is_damaged |= path == self._path
                problems.append(str(error))
        if all(problem.endswith("missing") for problem in problems):
            return None
        return Loaded([], 0, "; ".join(problems))

    def _settle(self, path: Path) -> None:
        """What was read may be in memory alone, if its sync failed or never came: what is relied on has to last."""
        with suppress(OSError):  # the first save will tell
            file = self._system.open_append(path)
            try:
                self._system.sync(file)
            finally:
                self._system.close(file)

    def save(self, records: bytearray, window_bytes: int, *, is_uncertain: bool = False) -> None:
        """Makes these records the checkpoint, durably; ``is_uncertain``: beyond the window, too, anything may have been sent.

        Raises:
            OSError: it could not be; the one before still holds.
        """
        uncertain = {"uncertain": True} if is_uncertain else {}
        about = {"auditship_checkpoint": VERSION, "window_bytes": window_bytes, **uncertain}
        head = orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE)
        self._digest = None
        digest = _digest(head)
        digest.update(records)
        commit = _commit(digest)
        self._system.replace(self._path, head, records, commit, keep=None if self._is_damaged else self._previous)
        self._is_damaged = False
        digest.update(commit)
        self._digest = digest

    def add(self, records: bytearray) -> None:
        """Adds these records to the checkpoint, durably; only after a save, and as long as nothing has failed.

        Raises:
            OSError: they could not be; what was there before still holds. The next time, save the whole.
        """
        assert self._digest is not None
        digest, self._digest = self._digest, None
        digest.update(records)
        commit = _commit(digest)
        self._system.append(self._path, records + commit)
        digest.update(commit)
        self._digest = digest
