"""The checkpoint: what the agent durably knows, and what it may rely on after a crash.

Format, version 1: a file of JSON lines. The first says what follows; the others are one record per stream.

    {"auditship_checkpoint":1,"window_bytes":16777216,"records":2,"digest":"<hex>"}
    {"path":"/var/log/web.jsonl","gateway":"web","device":2049,"inode":77,"generation":0,"first_line":"<hex>",
     "first_line_bytes":559,"offset":1118,"size":1200,"chain":"<hex>","tail":"<hex>","tail_bytes":1024,"state":"live"}

The digest is BLAKE2b-128 over window and number of records, in decimal, and the records' lines. Paths are percent-encoded;
``size`` is the largest that was seen of the file. ``state`` is ``live``; ``released`` for a file that is no longer watched and
was read to its end; ``ended`` for one that was deleted, whose inode belongs to whoever comes next; ``superseded`` for one that
became another stream while blocks of it were under way.

It is written beside and renamed, and the one before is kept: a torn or damaged file is known by its digest, and the one before
it is used. The rule that makes this safe: no block is sent before the durable checkpoint names its stream, nor beyond the
durable offset + the window. So after a restart every block that starts before offset + window may have been sent before; after
a restart from the one before, or from none, every block of what the file holds at that time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import orjson

from agent.identity import FirstLine, Identity, Mark
from agent.osio import System
from agent.stream import Stream
from auditship.errors import ConfigurationError

VERSION: Final = 1
LIVE, RELEASED, ENDED, SUPERSEDED = "live", "released", "ended", "superseded"


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


def compose(lines: list[bytes], window_bytes: int) -> bytes:
    """A whole checkpoint of these records."""
    body = b"".join(lines)
    head = {
        "auditship_checkpoint": VERSION,
        "window_bytes": window_bytes,
        "records": len(lines),
        "digest": _digest(body, window_bytes, len(lines)),
    }
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE) + body


def parse(data: bytes, name: str) -> tuple[list[Record], int]:
    """The records of a checkpoint and its window.

    Raises:
        Damaged: it is not whole.
        ConfigurationError: it is of a version that is not known here.
    """
    first, _, body = data.partition(b"\n")
    try:
        head = orjson.loads(first)
        version = head["auditship_checkpoint"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Damaged(f"{name}: its first line is not a checkpoint's") from None
    if version != VERSION:
        raise ConfigurationError(
            f"{name}: written in version {version}; this agent knows {VERSION}", "Use the newer agent, or another state_dir."
        )
    window, count = head.get("window_bytes"), head.get("records")
    if head.get("digest") != _digest(body, window, count):
        raise Damaged(f"{name}: its digest is not that of its records")
    try:
        return [_record(orjson.loads(line)) for line in body.splitlines()], int(window)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{name}: {error!r}") from None


def _record(value: dict[str, Any]) -> Record:
    first_line = FirstLine(bytes.fromhex(value["first_line"]), int(value["first_line_bytes"]))
    identity = Identity(int(value["device"]), int(value["inode"]), int(value["generation"]), first_line)
    mark = Mark(int(value["offset"]), bytes.fromhex(value["chain"]), bytes.fromhex(value["tail"]), int(value["tail_bytes"]))
    path, state = unquote_to_bytes(value["path"]), str(value["state"])
    return Record(path, str(value["gateway"]), identity, mark, int(value["size"]), state)


def _digest(body: bytes, window_bytes: object, records: object) -> str:
    return hashlib.blake2b(f"{window_bytes} {records}\n".encode() + body, digest_size=16).hexdigest()


class Checkpoint:
    """The two files in a state directory."""

    def __init__(self, system: System, directory: Path) -> None:
        self._system = system
        self._path = directory / "checkpoint"
        self._previous = directory / "checkpoint.previous"

    def load(self) -> Loaded | None:
        """What is known; none if there is no checkpoint here.

        Raises:
            ConfigurationError: of an unknown version.
            OSError: it is there and cannot be read.
        """
        problems: list[str] = []
        for path in (self._path, self._previous):
            try:
                records, window_bytes = parse(self._system.read(path), str(path))
                return Loaded(records, window_bytes, "; ".join(problems))
            except FileNotFoundError:
                problems.append(f"{path}: missing")
            except Damaged as error:
                problems.append(str(error))
        if all(problem.endswith("missing") for problem in problems):
            return None
        return Loaded([], 0, "; ".join(problems))

    def save(self, data: bytes) -> None:
        """Makes this the checkpoint, durably.

        Raises:
            OSError: it could not be; the one before still holds.
        """
        self._system.replace(self._path, data, keep=self._previous)
