"""The page, and the search that it and others ask for over HTTP.

``GET /`` shows the newest events, or what ``?q=`` and ``?severity=`` find; ``GET /v1/search`` gives the same as NDJSON. The
page may load nothing but its own style and script.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from indexer.access import Access
from indexer.record import Who
from indexer.recorder import Recorder
from indexer.store.contract import PAGE_BYTES_MAX, Hit, Page, Query, QueryError, Reader
from indexer.web.page import page

LIMIT_MAX: Final = 1000
PORTION_HITS: Final = 100
"""So many are asked for at once: how large they are is known only then."""
PAGE_TIMEOUT_S: Final = 30.0
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript"}

Handler = Callable[[Request], Awaitable[Response]]


def routes(reader: Reader, access: Access, recorder: Recorder) -> list[tuple[str, Handler]]:
    """The paths served here, each with its handler."""

    async def find(request: Request) -> tuple[list[bytes], str | None]:
        organizations = access.reader(request.headers.get("Authorization"))
        parameters = request.query_params
        limit, severities = parameters.get("limit", "50"), _severities(request)
        query = Query(text=parameters.get("q", ""), severities=severities, organizations=organizations)
        if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(LIMIT_MAX)) and 1 <= int(limit) <= LIMIT_MAX):
            raise QueryError(f"limit: 1 to {LIMIT_MAX}, got {limit[:20]!r}")
        found = await asyncio.to_thread(page_of, reader, query, int(limit), parameters.get("cursor"))
        details = {"query": query.text, "severities": severities, "organizations": organizations, "path": request.url.path}
        await recorder.searched(_who(request, access), details, len(found.hits))
        return [hit.body for hit in found.hits], found.cursor

    async def search(request: Request) -> Response:
        try:
            bodies, cursor = await find(request)
        except QueryError as error:
            return PlainTextResponse(f"{error}\n", status_code=400, headers=_HEADERS)
        headers = _HEADERS | ({"Auditship-Cursor": cursor} if cursor else {})
        return Response(b"".join(body + b"\n" for body in bodies), media_type="application/x-ndjson", headers=headers)

    async def show(request: Request) -> Response:
        text, severities = request.query_params.get("q", ""), _severities(request)
        try:
            bodies, cursor = await find(request)
            shown = page(text, severities, bodies, cursor, "" if bodies else "Nothing found.")
        except QueryError as error:
            shown = page(text, severities, [], None, str(error))
        return Response(shown, media_type="text/html", headers=_HEADERS)

    async def asset(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        data = files(__package__).joinpath(name).read_bytes()
        return Response(data, media_type=_ASSETS[name], headers=_HEADERS)

    return [("/", show), ("/v1/search", search), *((f"/{name}", asset) for name in _ASSETS)]


def page_of(reader: Reader, query: Query, limit: int, cursor: str | None) -> Page:
    """At most so many hits; no further portion after :data:`PAGE_BYTES_MAX` of bodies, or :data:`PAGE_TIMEOUT_S`."""
    hits: list[Hit] = []
    size = 0
    deadline = time.monotonic() + PAGE_TIMEOUT_S
    while True:
        found = reader.search(query, limit=min(PORTION_HITS, limit - len(hits)), cursor=cursor)
        hits += found.hits
        size += sum(len(hit.body) for hit in found.hits)
        cursor = found.cursor
        if cursor is None or len(hits) >= limit or size >= PAGE_BYTES_MAX or time.monotonic() >= deadline:
            return Page(hits, cursor)


def _severities(request: Request) -> tuple[str, ...]:
    return tuple(filter(None, request.query_params.getlist("severity")))


def _who(request: Request, access: Access) -> Who:
    """Whoever asks: a reader's token, or somebody on this machine."""
    name = access.reader_name(request.headers.get("Authorization"))
    ip = request.client.host if request.client else None
    if name:
        return Who("api_token", name, "HTTP", ip)
    return Who("service", "local", "HTTP on this machine", ip)
