"""An Elasticsearch in memory, behind the real writer: items fail one by one, bulks get no answer, indices roll over.

Its promises are the real one's: an id is created once in a backing index, a look-up by id sees every index at once, and what
it answers for an item holds for that item alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from msgspec.json import encode

from auditship.block import BlockHeader, Receipt
from indexer.document import Entry
from indexer.identity import document_id
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Refused, Unavailable, Verdict
from indexer.store.elasticsearch import ElasticsearchWriter
from indexer.store.elasticsearch.connection import Answer

SETTINGS = ElasticsearchSettings(urls=("http://127.0.0.1:1",))
PUSHED_BACK = {"create": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}}
NO_SHARD = {"create": {"status": 503, "error": {"type": "unavailable_shards_exception", "reason": "gone"}}}
CREATED = {"create": {"status": 201}}
THERE = {"create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "there"}}}


class Cluster:
    """Backing indices, the newest last. ``failing`` is the chance that an item is not taken."""

    where = "memory"

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.failing = 0.0
        self.fired: Counter[str] = Counter()
        self.indices: list[set[str]] = [set()]
        self.stored: Counter[bytes] = Counter()
        writer = ElasticsearchWriter(SETTINGS, sleep=lambda _: None, chance=chance.random)
        writer._connection = writer._stored = self  # type: ignore[assignment]
        self._attempts = writer._attempts

    def store(self, header: BlockHeader, data: bytes) -> Receipt:
        """What an indexer does with a block's lines, by the real ids and the real writer.

        Raises:
            Unavailable: some of them were not taken.
        """
        stream, at, entries = bytes.fromhex(header.stream), header.offset, []
        for line in data.splitlines(keepends=True):
            entries.append(Entry(document_id(0, stream, at, line), 0, "web", "30d", line[:-1]))
            at += len(line)
        verdicts: list[Verdict | Refused | None] = []
        for known in self._attempts(entries, redelivered=header.redelivered):
            verdicts = known
        assert len(verdicts) == len(entries)
        assert None not in verdicts
        duplicates = verdicts.count(Verdict.DUPLICATE)
        return Receipt(len(entries) - duplicates, duplicates, 0)

    def roll_over(self) -> None:
        """A new backing index: it would take a second document of an id."""
        self.indices.append(set())

    # What the writer asks

    def among(self, entries: Iterable[Entry]) -> set[str]:
        """Which of the entries' ids are there, in any index."""
        return {entry.id for entry in entries} & set(chain.from_iterable(self.indices))

    def call(self, method: str, path: str, body: bytes, **_: Any) -> Answer:
        """A bulk request."""
        assert (method, path) == ("POST", "/_bulk")
        if self._happens("a rollover between attempts"):
            self.roll_over()
        lines = body.splitlines()
        items = [self._item(action, source) for action, source in zip(lines[::2], lines[1::2], strict=True)]
        if self._happens("a bulk without an answer"):
            raise Unavailable("timed out")
        return Answer(200, encode({"errors": True, "items": items}))

    def _happens(self, what: str) -> bool:
        happens = self.failing > 0 and self.chance.random() < self.failing / 3
        self.fired[what] += happens
        return happens

    def _item(self, action: bytes, source: bytes) -> dict[str, Any]:
        if self.chance.random() < self.failing:
            self.fired["an item that is not taken"] += 1
            return self.chance.choice((PUSHED_BACK, NO_SHARD))
        identity = action.split(b'"')[-2].decode()
        if identity in self.indices[-1]:
            return THERE
        self.indices[-1].add(identity)
        self.stored[source + b"\n"] += 1
        return CREATED
