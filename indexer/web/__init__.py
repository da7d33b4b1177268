"""The page, and the search that it and others ask for over HTTP.

``GET /`` shows the newest events, or what ``?q=`` finds; ``GET /v1/search`` gives the same as NDJSON. Everything that a
gateway wrote is hostile here: it is escaped, and the page may load nothing but its own style and script.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable
from importlib.resources import files
from string import Template
from typing import Any, Final

from msgspec.json import decode
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from indexer.access import Access
from indexer.record import Who
from indexer.recorder import Recorder
from indexer.store.contract import Query, QueryError, Reader

LIMIT_MAX: Final = 1000
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript"}
_STATUS: Final = {"success": "✓", "failure": "✗"}

Handler = Callable[[Request], Awaitable[Response]]


def routes(reader: Reader, access: Access, recorder: Recorder) -> list[tuple[str, Handler]]:
    """The paths served here, each with its handler."""
    page = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))

    async def find(request: Request) -> tuple[list[bytes], str | None]:
        organizations = access.reader(request.headers.get("Authorization"))
        parameters = request.query_params
        limit = parameters.get("limit", "50")
        severities = tuple(filter(None, parameters.getlist("severity")))
        query = Query(text=parameters.get("q", ""), severities=severities, organizations=organizations)
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= LIMIT_MAX):
            raise QueryError(f"limit: 1 to {LIMIT_MAX}, got {limit[:20]!r}")
        found = await asyncio.to_thread(reader.search, query, limit=int(limit), cursor=parameters.get("cursor"))
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
        message, rows = "", ""
        try:
            bodies, _ = await find(request)
            rows = "".join(_row(decode(body)) for body in bodies)
            message = "" if rows else "Nothing found."
        except QueryError as error:
            message = str(error)
        text = page.substitute(query=html.escape(request.query_params.get("q", "")), rows=rows, message=html.escape(message))
        return Response(text, media_type="text/html", headers=_HEADERS, status_code=200)

    async def asset(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        data = files(__package__).joinpath(name).read_bytes()
        return Response(data, media_type=_ASSETS[name], headers=_HEADERS)

    return [("/", show), ("/v1/search", search), *((f"/{name}", asset) for name in _ASSETS)]


def _who(request: Request, access: Access) -> Who:
    """Whoever asks: a reader's token, or somebody on this machine."""
    name = access.reader_name(request.headers.get("Authorization"))
    ip = request.client.host if request.client else None
    if name:
        return Who("api_token", name, "HTTP", ip)
    return Who("service", "local", "HTTP on this machine", ip)


def _row(document: dict[str, Any]) -> str:
    """One event as a row of the table, in the columns that people know."""
    audit, user = document.get("audit", {}), document.get("user", {})
    resource = audit.get("resource", {})
    severity, reason = html.escape(audit.get("severity", "")), html.escape(document["event"].get("reason", ""))
    actor = " · ".join(filter(None, [user.get("full_name") or user.get("name"), audit.get("actor", {}).get("label")]))
    cells = [
        f'<time datetime="{html.escape(document["@timestamp"])}">{html.escape(document["@timestamp"])}</time>',
        html.escape(actor),
        html.escape(document["event"].get("action", "")),
        html.escape(": ".join(filter(None, [resource.get("type"), resource.get("name") or resource.get("id")]))),
        html.escape(audit.get("location", "")),
        _STATUS.get(document["event"].get("outcome", ""), ""),
        f'<span class="severity {severity}" title="{reason}">{severity}</span>',
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
