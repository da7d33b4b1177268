"""What a cluster's data streams hold already, asked with the reader's key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from itertools import islice, product
from typing import Final

from msgspec import Struct, field
from msgspec.json import Decoder, encode

from indexer.document import Entry
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.bulk import data_stream
from indexer.store.elasticsearch.connection import NO_ANSWER, SETUP_HINT, Connection

PAIRS_MAX: Final = 5000
"""Pairs of an index and an id in one look-up."""


class _Index(Struct):
    index_name: str


class _Stream(Struct):
    name: str
    template: str = ""
    indices: list[_Index] = field(default_factory=list)


class _Streams(Struct):
    data_streams: list[_Stream] = field(default_factory=list)


class _Error(Struct):
    type: str = ""


class _Doc(Struct):
    id: str = field(name="_id")
    found: bool = False
    error: _Error | None = None


class _Docs(Struct):
    docs: list[_Doc]


_streams = Decoder(_Streams)
_docs = Decoder(_Docs)


class Stored:
    """Looks ids and data streams up."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def among(self, entries: Iterable[Entry]) -> set[str]:
        """The ids of those entries that are held by their kind's data streams, in whichever backing index and retention class.

        A policy may have changed between two deliveries, so every class counts.

        Raises:
            Unavailable: it cannot be told now.
        """
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for entry in entries:
            ids[data_stream(entry.dataset, "*")].append(entry.id)
        return {each for stream, wanted in ids.items() for each in self._among(stream, wanted)}

    def _among(self, stream: str, ids: list[str]) -> set[str]:
        """Index by index, the newest first, and each id until it is found."""
        found: set[str] = set()
        pairs = product(self._backing_indices(stream), ids)
        while asked := list(islice((pair for pair in pairs if pair[1] not in found), PAIRS_MAX)):
            found |= self._found(asked)
        return found

    def _backing_indices(self, stream: str) -> list[str]:
        """Newest first, as they are now; none if there is no such data stream."""
        streams = self._ask(stream, "data_streams.name,data_streams.indices.index_name")
        return [index.index_name for each in streams for index in reversed(each.indices)]

    def _found(self, pairs: list[tuple[str, str]]) -> set[str]:
        """Which ids are held, of pairs of a backing index and an id."""
        body = encode({"docs": [{"_index": index, "_id": each} for index, each in pairs]})
        params = {"_source": "false", "filter_path": "docs._id,docs.found,docs.error.type"}
        answer = self._connection.call("POST", "/_mget", body, params=params)
        try:
            docs = _docs.decode(answer.body).docs
        except NO_ANSWER:
            docs = []
        # an index that is not there was deleted by its lifecycle policy a moment ago
        failed = next((doc.error.type for doc in docs if doc.error and doc.error.type != "index_not_found_exception"), "")
        if failed or [doc.id for doc in docs] != [each for _, each in pairs]:
            where = f"{pairs[0][0]} to {pairs[-1][0]}"
            raise Unavailable(f"{self._connection.where} did not say which documents {where} hold: {failed or answer.status}")
        return {doc.id for doc in docs if doc.found}

    def check_set_up(self, retention: str) -> None:
        """Returns if the data streams of a retention class are there and made from our template.

        Without it the cluster would make a new stream from a template of its own, with other types.

        Raises:
            Unavailable: ``auditship setup`` has not been run, or not for this class.
        """
        streams = self._ask(f"logs-audit.*-{retention}", "data_streams.name,data_streams.template")
        if not any(each.template == f"logs-audit-{retention}" for each in streams):
            raise Unavailable(
                f"Elasticsearch at {self._connection.where} has no audit data streams of the retention class {retention}",
                SETUP_HINT,
                retry_after_s=10,
            )

    def _ask(self, pattern: str, wanted: str) -> list[_Stream]:
        answer = self._connection.call("GET", f"/_data_stream/{pattern}", params={"filter_path": wanted})
        if answer.status == HTTPStatus.NOT_FOUND:
            return []
        try:
            return _streams.decode(answer.body if answer.ok else b"").data_streams
        except NO_ANSWER as error:
            what = f"{answer.status} {answer.reason()[:200]} ({error})"
            raise Unavailable(f"{self._connection.where} did not say which data streams {pattern} are: {what}") from None

    def close(self) -> None:
        """Lets the connections go."""
        self._connection.close()
