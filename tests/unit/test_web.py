"""What the page and the search over HTTP show, and to whom."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.json import decode
from sample_entries import beyond, entry
from starlette.requests import Request
from starlette.responses import Response
from stores import NOW_MS, Store

from indexer import web
from indexer.access import Access, token_hash
from indexer.document import Entry
from indexer.record import Maker
from indexer.recorder import Recorder
from indexer.server import answering
from indexer.settings import IndexerSettings, ReaderEntry
from indexer.store.contract import Page, Query, Unavailable
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter
from indexer.web import page_of

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


def filled(folder: Path, entries: list[Entry]) -> None:
    """A store with these in it."""
    Store(lambda: EmbeddedWriter(folder, lambda: NOW_MS), EmbeddedReader(folder, lambda: NOW_MS), lambda: None).append(entries)


def shown(folder: Path, query: str) -> str:
    return bytes(ask(folder, "/", "all", query).body).decode()


def links(page: str) -> list[str]:
    """The queries that the page leads to."""
    return [html.unescape(each) for each in re.findall(r'href="\?([^"]*)"', page)]


def test_the_page_leads_to_older_events_of_what_was_asked_until_there_are_none(tmp_path: Path) -> None:
    filled(tmp_path, [entry(n) for n in range(100)])
    query, rows = "q=event.action:*&severity=info&severity=critical&limit=20", []
    while True:
        page = shown(tmp_path, query)
        assert [name in page for name in ('value="info" checked', 'value="warning" checked', 'value="critical" checked')] == [
            1,
            0,
            1,
        ]
        rows += re.findall("<tr><td>.*?</tr>", page)
        older = [each for each in links(page) if "cursor=" in each]
        if not older:
            break
        (query,) = older
    assert len(rows) == len(set(rows)) == sum(n % 3 != 1 for n in range(100))


def test_a_row_leads_to_the_whole_event_alone(tmp_path: Path) -> None:
    filled(tmp_path, [entry(n) for n in range(3)])
    page = shown(tmp_path, "")
    assert "<pre>" not in page
    assert len(links(page)) == 3
    for link in links(page):
        alone = shown(tmp_path, link)
        assert alone.count("<tr><td>") == 1
        (document,) = re.findall("(?s)<pre>(.*)</pre>", alone)
        whole = decode(html.unescape(document))
        assert whole["event"]["id"] in link.replace("%22", "").replace("%3A", ":")
        assert whole["audit"]["resource"]


def test_a_number_beyond_a_double_stops_no_page(tmp_path: Path) -> None:
    filled(tmp_path, [entry(1), beyond(2)])
    page = shown(tmp_path, "")
    assert page.count("<tr><td>") == 2
    assert "&quot;quota&quot;: 1e999" in shown(tmp_path, links(page)[0])


def test_what_could_turn_the_text_beside_it_is_shown_as_what_it_is(tmp_path: Path) -> None:
    filled(tmp_path, [entry(1, user={"id": "u-1", "name": "gnp.\u202eexe", "full_name": "A\u202e\u2028B<b>"})])
    page = shown(tmp_path, "")
    assert "A\\u202e\\u2028B&lt;b&gt;" in page
    assert not {"\u202e", "\u2028"} & set(page)


def test_a_query_that_cannot_be_understood_is_told_on_the_page(tmp_path: Path) -> None:
    filled(tmp_path, [entry(1)])
    for query in ("q=(", "cursor=nonsense", "limit=0", "limit=" + "9" * 5000):
        page = shown(tmp_path, query)
        assert "<tr><td>" not in page
        assert re.search(r'(?s)<p role="status">\w.*</p>', page), query


def test_who_cannot_be_answered_now_is_told_what_helps() -> None:
    async def handler(request: Request) -> Response:
        raise Unavailable(f"no room for {request.url.path}", "Make some.")

    answer = answering(SimpleNamespace(access=Access(IndexerSettings())), handler)  # type: ignore[arg-type]
    request = Request(
        {"type": "http", "method": "GET", "path": "/x", "headers": [(b"host", b"localhost")], "query_string": b""}
    )
    response = asyncio.run(answer(request))
    assert (response.status_code, decode(response.body)) == (503, {"error": "no room for /x\nMake some."})


def test_a_page_of_large_events_is_cut_and_the_cursor_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PAGE_BYTES_MAX", 100_000)
    monkeypatch.setattr(web, "PORTION_HITS", 5)
    filled(tmp_path, [entry(n, message="x" * (20_000 if n > 50 else 10)) for n in range(70)])
    found, sizes, query = [], [], "limit=60"
    while True:
        answer = ask(tmp_path, "/v1/search", "all", query)
        sizes.append(len(answer.body))
        found += [decode(line)["event"]["sequence"] // 500 for line in bytes(answer.body).splitlines()]
        if (cursor := answer.headers.get("Auditship-Cursor")) is None:
            break
        query = f"limit=60&cursor={cursor}"
    assert found == list(reversed(range(70)))
    assert max(sizes) < 120_000
    assert len(sizes) < 10


@pytest.mark.parametrize("is_late", [False, True])
def test_a_page_takes_few_searches_whatever_the_sizes_and_times_of_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    searches: list[int] = []

    class Counted(EmbeddedReader):
        def search(self, query: Query, *, limit: int = 50, cursor: str | None = None) -> Page:
            searches.append(limit)
            return super().search(query, limit=limit, cursor=cursor)

    monkeypatch.setattr(web, "PAGE_BYTES_MAX", 1_500_000)
    if is_late:
        monkeypatch.setattr(web, "PAGE_TIMEOUT_S", 0)
    filled(tmp_path, [entry(n, message="x" * (18_000 if n >= 200 else 10)) for n in range(250)])
    found = page_of(Counted(tmp_path, lambda: NOW_MS), Query(), 240, None)
    assert searches == ([100] if is_late else [100, 100, 40])
    assert len(found.hits) == sum(searches)
    assert found.cursor is not None
