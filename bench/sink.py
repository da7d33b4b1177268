"""A server that peers and ours take for Elasticsearch: it counts what it is sent, and keeps nothing else.

    python bench/sink.py PORT

Promises: every document of a ``_bulk`` request is answered with 201, every block of ours with a receipt, whatever else a client
asks before it sends with something it can go on with. ``GET /tally`` says what came: how many events, how many different ones
(by their ``request_id``), and how many documents that are no event of ours. It is ended by whoever started it.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import zstandard

from auditship.block import PATH

BODY_BYTES_MAX: Final = 128 << 20
VERSION: Final = "8.19.0"
"""All of the peers know this one, and our client asks for the product's name alone."""

EVENT: Final = re.compile(rb'request_id\\?":\s?\\?"([0-9a-f]{32})')
"""An event's id, wherever a document holds it: as a field, or inside of the line as a string in a string."""

_ITEM: Final = b'{"create":{"_index":"audit","status":201}}'
_STATUS: Final = b'{"create":{"status":201}}'
_ANSWERS: Final[tuple[tuple[str, Any], ...]] = (
    ("/_license", {"license": {"uid": "bench", "type": "basic", "mode": "basic", "status": "active"}}),
    ("/_xpack", {"license": {"type": "basic", "mode": "basic", "status": "active"}, "features": {}}),
    ("/logs-audit", {"took": 1, "timed_out": False, "hits": {"hits": []}}),
    ("/_data_stream/", {"data_streams": [{"name": "logs-audit.web-30d", "template": "logs-audit-30d"}]}),
    ("/_", {"acknowledged": True}),
    ("/", {"name": "sink", "cluster_uuid": "bench", "version": {"number": VERSION}, "tagline": "You Know, for Search"}),
)
"""What is answered to a path that begins so; the first that fits. A search in our data streams finds nobody and nothing."""


class Tally:
    """What has come so far. Safe to use from several threads."""

    def __init__(self) -> None:
        self._ids: set[bytes] = set()
        self._lock = threading.Lock()
        self.events = 0
        self.others = 0
        self.body_bytes = 0

    def add(self, documents: Iterable[bytes], body_bytes: int) -> int:
        """Counts these documents, which came in a body of that size; returns how many they are."""
        found = [EVENT.search(document) for document in documents]
        ids = [bytes.fromhex(event[1].decode()) for event in found if event]
        with self._lock:
            self._ids.update(ids)
            self.events += len(ids)
            self.others += len(found) - len(ids)
            self.body_bytes += body_bytes
        return len(found)

    def state(self) -> dict[str, int]:
        """As ``GET /tally`` says it."""
        with self._lock:
            return {
                "events": self.events,
                "different": len(self._ids),
                "others": self.others,
                "body_bytes": self.body_bytes,
            }


def bulk_documents(body: bytes) -> list[bytes]:
    """The documents of a bulk body: every other line, since nothing is deleted here."""
    return body.rstrip(b"\n").split(b"\n")[1::2]


def block_lines(body: bytes) -> list[bytes]:
    """The lines of one of our blocks."""
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=BODY_BYTES_MAX).splitlines()


def bulk_answer(documents: int, query: str = "") -> bytes:
    """Every one of so many documents was created; only that, where no more is asked for, as Elasticsearch does it."""
    if query.startswith("filter_path=items.create.status"):
        return b'{"items":[%s]}' % b",".join([_STATUS] * documents)
    return b'{"took":1,"errors":false,"items":[%s]}' % b",".join([_ITEM] * documents)


def other_answer(path: str) -> bytes:
    """What a client wants to hear before it sends anything."""
    return json.dumps(next(answer for start, answer in _ANSWERS if path.startswith(start))).encode()


class Handler(BaseHTTPRequestHandler):
    """One connection. ``Expect: 100-continue``, with which curl sends large bodies, is answered by the base."""

    protocol_version = "HTTP/1.1"
    rbufsize = 1 << 20
    wbufsize = 1 << 20
    disable_nagle_algorithm = True
    timeout = 120
    tally: Tally

    def do_GET(self) -> None:
        """Anything without a body."""
        self._answer()

    def do_HEAD(self) -> None:
        """The same, but for the body."""
        self._answer()

    def do_PUT(self) -> None:
        """Templates and policies."""
        self._answer()

    def do_POST(self) -> None:
        """Documents, mostly."""
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_BYTES_MAX or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(413, b"{}")
            return
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        if path == "/tally":
            self._send(200, json.dumps(self.tally.state()).encode())
        elif path.endswith("/_bulk"):
            self._send(200, bulk_answer(self.tally.add(bulk_documents(body), length), query))
        elif path == PATH:
            lines = self.tally.add(block_lines(body), length)
            self._send(200, b'{"documents":%d,"duplicates":0,"rejected":0}' % lines)
        else:
            self._send(200, other_answer(path))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing is told of single requests."""


def serve(port: int) -> ThreadingHTTPServer:
    """A sink that listens on loopback, with a tally of its own; port 0 chooses one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), type("CountingHandler", (Handler,), {"tally": Tally()}))
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    serve(int(sys.argv[1])).serve_forever()
