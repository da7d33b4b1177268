"""What the page and the search over HTTP show, and to whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.json import decode
from sample_entries import entry
from starlette.requests import Request
from starlette.responses import Response
from stores import NOW_MS, Store

from indexer import web
from indexer.access import Access, token_hash
from indexer.record import Maker
from indexer.recorder import Recorder
from indexer.settings import IndexerSettings, ReaderEntry
from indexer.store.contract import Query
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

TOKENS = {"all": "", "limited": "org-1"}


def ask(folder: Path, path: str, token: str, query: str = "") -> Response:
    """The answer to a request with a token."""
    readers = tuple(
        ReaderEntry(name=name, token_sha256=token_hash(name), organizations=(organization,) if organization else ())
        for name, organization in TOKENS.items()
    )
    access = Access(IndexerSettings(readers=readers))
    headers = [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": query.encode()}

    async def answer() -> Response:
        writer = EmbeddedWriter(folder, lambda: NOW_MS)
        recorder = Recorder(writer, Maker("30d"), lambda: None)
        handlers = dict(web.routes(EmbeddedReader(folder, lambda: NOW_MS), access, recorder))
        try:
            return await handlers[path](Request(scope))
        finally:
            await writer.close()

    return asyncio.run(answer())


def test_a_reader_sees_the_events_of_its_organizations_whatever_it_asks(tmp_path: Path) -> None:
    store = Store(lambda: EmbeddedWriter(tmp_path, lambda: NOW_MS), EmbeddedReader(tmp_path, lambda: NOW_MS), lambda: None)
    store.append([entry(n, organization={"id": f"org-{n % 2 + 1}"}) for n in range(6)])
    for token, query, seen in (
        ("all", "", {"org-1", "org-2"}),
        ("limited", "", {"org-1"}),
        ("limited", "q=*+OR+org-2", {"org-1"}),
    ):
        found = [decode(line) for line in bytes(ask(tmp_path, "/v1/search", token, query).body).splitlines()]
        assert {each["organization"]["id"] for each in found} == seen, (token, query)
        page = bytes(ask(tmp_path, "/", token, query).body).decode()
        assert page.count("<tr><td>") == len(found)


def test_a_search_is_on_record_under_the_readers_name(tmp_path: Path) -> None:
    store = Store(lambda: EmbeddedWriter(tmp_path, lambda: NOW_MS), EmbeddedReader(tmp_path, lambda: NOW_MS), lambda: None)
    store.append([entry(n) for n in range(6)])
    ask(tmp_path, "/v1/search", "limited", "q=user.name:ada*&severity=warning")
    (hit,) = store.reader.search(Query(datasets=("access",))).hits
    document = decode(hit.body)
    assert document["user"]["id"] == "limited"
    assert document["audit"]["actor"]["type"] == "api_token"
    assert document["audit"]["extra"] == {
        "query": "user.name:ada*",
        "severities": ["warning"],
        "organizations": ["org-1"],
        "path": "/v1/search",
        "hits": 2,
    }
    assert ask(tmp_path, "/v1/search", "limited").status_code == 200
    assert all(b'"audit.access"' not in body for body in bytes(ask(tmp_path, "/", "limited").body).splitlines())
